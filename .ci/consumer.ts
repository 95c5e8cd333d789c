/**
 * The package as its users get it: packed, installed into a fresh project by the README's own command, type-checked
 * there under two TypeScripts and two kinds of module resolution, imported, and run.
 */
import { FileSystem, Path } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { build } from "esbuild"
import manifest from "../package.json" with { type: "json" }
import * as Readme from "../test/support/readme.ts"

class Failure extends Schema.TaggedError<Failure>()("Failure", { message: Schema.String }) {}

const typescript5 = { name: "typescript-5", version: "~5.9.3", bin: "lib/tsc.js" }
const typescript7 = { name: "typescript-7", version: manifest.devDependencies.typescript, bin: "bin/tsc" }
// the declarations themselves are checked once per compiler
const nodenext = ["--moduleResolution", "nodenext", "--module", "nodenext", "--skipLibCheck", "false"]
const bundler = ["--moduleResolution", "bundler", "--module", "esnext", "--skipLibCheck", "true"]
const strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--target", "es2022"]

const main = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const root = path.resolve(import.meta.dirname, "..")
  const project = yield* fs.makeTempDirectoryScoped({ prefix: "effect-alf-" })

  const execute = (program: string, args: ReadonlyArray<string>, cwd = project) =>
    Effect.filterOrFail(
      Readme.run(program, args, { cwd }),
      ({ exitCode }) => exitCode === 0,
      ({ errors, output }) => new Failure({ message: `${program} ${args.join(" ")}\n${output}${errors}` })
    )
  const tsc = ({ bin, name }: typeof typescript5) => path.join(project, "node_modules", name, bin)

  /** Errors in the project and in our declarations count; what other packages' declarations hold is theirs. */
  const typeCheck = Effect.fnUntraced(function*(file: string) {
    for (const compiler of [typescript5, typescript7]) {
      for (const resolution of [nodenext, bundler]) {
        const args = [tsc(compiler), "--pretty", "false", "--outDir", compiler.name, ...strict, ...resolution, file]
        const { exitCode, output } = yield* Readme.run(process.execPath, args, { cwd: project })
        const errors = output.split("\n").filter((line) => line.includes("error TS"))
        const ours = errors.filter((line) =>
          !line.startsWith("node_modules/") || line.includes("node_modules/effect-alf/")
        )
        if (ours.length > 0 || (exitCode !== 0 && errors.length === 0)) {
          return yield* new Failure({ message: `${file} under ${compiler.name}, ${resolution[1]}\n${output}` })
        }
        yield* Console.log(`${file} type-checks under ${compiler.name}, ${resolution[1]}`)
      }
    }
  })

  const fences = Readme.fences(yield* fs.readFileString(path.join(root, "README.md")))
  const command = fences.filter(({ language }) => language === "sh")
    .flatMap(({ text }) => text.split("\n"))
    .find((line) => /^npm install .*\beffect-alf\b/.test(line))
  const program = fences.find(({ language }) => language === "ts")
  if (command === undefined || program === undefined) {
    return yield* new Failure({ message: "README.md has no npm install line with effect-alf in it, or no program" })
  }

  yield* execute("npm", ["pack", "--silent", "--pack-destination", project], root)
  yield* fs.writeFileString(path.join(project, "package.json"), JSON.stringify({ type: "module", private: true }))
  const packages = command.replace(/#.*/, "").trim().split(/\s+/).slice(2)
  const tarball = path.join(project, `${manifest.name}-${manifest.version}.tgz`)
  yield* execute("npm", ["install", ...packages.map((name) => name === manifest.name ? tarball : name)])
  yield* execute("npm", [
    "install",
    `@types/node@${manifest.devDependencies["@types/node"]}`,
    ...[typescript5, typescript7].map(({ name, version }) => `${name}@npm:typescript@${version}`)
  ])

  const stage = yield* Readme.stage(program.text)
  yield* fs.writeFileString(path.join(project, "program.ts"), stage.program)
  yield* typeCheck("program.ts")
  const ran = yield* stage.run([path.join(typescript5.name, "program.js")], { cwd: project })
  if (ran.exitCode !== 0 || ran.brokenClaims.length > 0) {
    return yield* new Failure({ message: `The README's first program prints\n${ran.printed}${ran.errors}` })
  }
  yield* Console.log("the README's first program runs")

  // all that can be imported, with the optional peers beside it
  const files = yield* fs.readDirectory(path.join(root, "dist"), { recursive: true })
  const modules = files.filter((file) => file.endsWith(".js") && file !== "index.js" && !file.includes("internal"))
    .map((file) => `${manifest.name}/${file.replace(/\.js$/, "")}`)
    .sort()
  const optional = Object.keys(manifest.peerDependenciesMeta) as ReadonlyArray<
    keyof typeof manifest.peerDependenciesMeta
  >
  yield* execute("npm", ["install", ...optional.map((name) => `${name}@${manifest.peerDependencies[name]}`)])
  yield* fs.writeFileString(
    path.join(project, "modules.ts"),
    [manifest.name, ...modules].map((name, n) => `export * as M${n} from "${name}"\n`).join("")
  )
  yield* typeCheck("modules.ts")

  const all = [manifest.name, ...modules]
  yield* execute(process.execPath, ["-e", all.map((name) => `require(${JSON.stringify(name)})`).join(";")])
  yield* execute(process.execPath, [
    "--input-type=module",
    "-e",
    all.map((name) => `import ${JSON.stringify(name)}`).join(";")
  ])
  yield* Console.log(`${all.length} modules load by require and by import`)

  // what `npm init -y` writes is CommonJS
  const commonjs = path.join(project, "commonjs")
  yield* fs.makeDirectory(commonjs)
  yield* fs.writeFileString(path.join(commonjs, "package.json"), JSON.stringify({ name: "commonjs", version: "1.0.0" }))
  yield* fs.writeFileString(path.join(commonjs, "program.ts"), stage.program)
  const tsx = path.join(root, "node_modules", "tsx", "dist", "cli.mjs")
  const inCommonjs = yield* stage.run([tsx, "program.ts"], { cwd: commonjs })
  if (inCommonjs.exitCode !== 0 || inCommonjs.brokenClaims.length > 0) {
    return yield* new Failure({ message: `In a CommonJS folder it prints\n${inCommonjs.printed}${inCommonjs.errors}` })
  }
  yield* Console.log("the README's first program runs in a CommonJS folder")

  // today's versions of what tests and programs have beside it; ioredis 6 is at odds with a peer of @effect/platform-node
  const latest = path.join(project, "latest")
  yield* fs.makeDirectory(latest)
  yield* fs.writeFileString(path.join(latest, "package.json"), JSON.stringify({ type: "module", private: true }))
  const beside = ["vitest", "open", "jose", "memjs"].map((name) => `${name}@latest`)
  yield* execute(
    "npm",
    ["install", tarball, "effect@3", "@effect/platform@0.97", "@effect/platform-node@0.108", ...beside],
    latest
  )
  yield* execute(process.execPath, [
    "-e",
    all.filter((name) => !/Sql|Redis/.test(name)).map((name) => `require("${name}")`).join(";")
  ], latest)
  yield* Console.log(`it installs and loads beside ${beside.join(", ")}`)

  const isForNode = (name: string) => /\/node|\/TokenStorage\/(?:Redis|Memcached|Sql)/.test(name)
  for (const [platform, format] of [["node", "esm"], ["node", "cjs"], ["browser", "esm"]] as const) {
    const names = platform === "browser" ? all.filter((name) => !isForNode(name)) : all
    yield* Effect.tryPromise({
      try: () =>
        build({
          stdin: { contents: names.map((name) => `import ${JSON.stringify(name)}`).join("\n"), resolveDir: project },
          bundle: true,
          write: false,
          platform,
          format,
          logLevel: "silent"
        }),
      catch: (error) => new Failure({ message: `esbuild for ${platform}, ${format}: ${String(error)}` })
    })
    yield* Console.log(`esbuild bundles ${names.length} modules for ${platform}, ${format}`)
  }
})

NodeRuntime.runMain(main.pipe(Effect.scoped, Effect.provide(NodeContext.layer)))
