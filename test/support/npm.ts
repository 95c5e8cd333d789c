/** Programs that npm brings when a test needs them, and that it keeps: the package does not depend on them. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const cache = fileURLToPath(new URL("../../node_modules/.cache/", import.meta.url))

/** Runs a program to its end, and returns what it wrote to the standard output and, after it, the standard error. */
export const run = (
  file: string,
  args: ReadonlyArray<string>,
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {}
): Effect.Effect<{ readonly output: string; readonly errors: string }> =>
  Effect.async((resume) => {
    const child = execFile(
      file,
      args,
      { maxBuffer: 64 * 1024 * 1024, ...options },
      (_, output, errors) => resume(Effect.succeed({ output, errors }))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** The path of a file that a package holds, such as `node_modules/node/bin/node`. */
export const fromNpm = (name: string, spec: string, file: string): Effect.Effect<string> =>
  Effect.gen(function*() {
    const folder = join(cache, name)
    const path = join(folder, "node_modules", file)
    if (existsSync(path)) return path
    yield* Effect.promise(() => mkdir(folder, { recursive: true }))
    const { errors, output } = yield* run(
      "npm",
      ["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", folder, spec],
      { cwd: folder }
    )
    return existsSync(path) ? path : yield* Effect.dieMessage(`npm install ${spec} left no ${file}: ${output}${errors}`)
  })
