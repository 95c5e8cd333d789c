/** The examples with a sign-in, run as they are: the URL that they print is opened in a real browser. */
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Exit } from "effect"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Chromium, isMissing, makePerson, outcome } from "../../support/browser.ts"
import { allow, implicitServer } from "../../support/implicitServer.ts"
import { consent, oidcProvider, signInAs } from "../../support/oidcProvider.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-alf-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A program that runs: the URL it wants to be opened, and what it has said at its end. */
const run = (example: string, env: Readonly<Record<string, string>>) =>
  Effect.gen(function*() {
    const url = yield* Deferred.make<URL>()
    const end = yield* Deferred.make<{ readonly code: number | null; readonly out: string; readonly err: string }>()
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const child = spawn(process.execPath, ["--import", "tsx", join("examples", example)], {
          cwd: root,
          env: { PATH: process.env["PATH"], TSX_TSCONFIG_PATH: "test/tsconfig.json", DESKTOP: "false", ...env },
          stdio: ["ignore", "pipe", "pipe"]
        })
        let out = ""
        let err = ""
        child.stdout.on("data", (chunk) => {
          out += chunk
        })
        child.stderr.on("data", (chunk) => {
          err += chunk
          const found = /To sign in, open (\S+)\n/.exec(err)?.[1]
          if (found !== undefined) Deferred.unsafeDone(url, Exit.succeed(new URL(found)))
        })
        child.on("close", (code) => Deferred.unsafeDone(end, Exit.succeed({ code, out, err })))
        return child
      }),
      (child) => Effect.sync(() => child.kill())
    )
    return { url: Deferred.await(url), end: Deferred.await(end) }
  })

describe.skipIf(isMissing)("the examples", () => {
  layer(Chromium.layer, { excludeTestServices: true, timeout: "30 seconds" })((it) => {
    it.scoped("sign-in-code.ts asks a person, and the second time nobody", () =>
      Effect.gen(function*() {
        const server = yield* oidcProvider
        const person = yield* makePerson
        const env = {
          AUTHORIZATION_ENDPOINT: server.authorizationEndpoint,
          TOKEN_ENDPOINT: server.tokenEndpoint,
          CLIENT_ID: server.clientId,
          API_URL: server.api,
          TOKENS: yield* directory
        }
        const first = yield* run("sign-in-code.ts", env)
        const window = yield* person.visit(yield* first.url)
        yield* signInAs(window, "alice")
        yield* consent(window)
        yield* outcome(window, "Signed in", "example-code")
        const { code, err, out } = yield* first.end
        assert.deepStrictEqual([code, out], [0, "200 {\"sub\":\"alice\"}\n"])
        // the URL and nothing else: this is no terminal
        assert.match(err, /^To sign in, open \S+\n$/)

        const second = yield* run("sign-in-code.ts", env)
        assert.deepStrictEqual(yield* second.end, { code: 0, out: "200 {\"sub\":\"alice\"}\n", err: "" })
        assert.deepStrictEqual(server.grants, ["authorization_code"])
      }), 60_000)

    it.scoped("sign-in-implicit.ts asks a person", () =>
      Effect.gen(function*() {
        const server = yield* implicitServer
        const person = yield* makePerson
        const program = yield* run("sign-in-implicit.ts", {
          AUTHORIZATION_ENDPOINT: server.authorizationEndpoint,
          CLIENT_ID: server.clientId,
          API_URL: server.api
        })
        const window = yield* person.visit(yield* program.url)
        yield* allow(window)
        yield* outcome(window, "Signed in", "example-implicit")
        const { code, out } = yield* program.end
        assert.deepStrictEqual([code, out], [0, "200 {\"sub\":\"alice\"}\n"])
      }), 60_000)
  })
})
