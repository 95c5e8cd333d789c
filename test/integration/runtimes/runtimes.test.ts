/** The same small programs in each runtime that the package is for, against real servers. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { build, type BuildOptions } from "esbuild"
import { writeFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { gzipSync } from "node:zlib"
import { answer, bearerOf, type Recorded, serve } from "../../support/apiServer.ts"
import { Chromium, isMissing as isChromiumMissing } from "../../support/browser.ts"
import { fromNpm, run } from "../../support/npm.ts"
import type { Report } from "../../support/runtimes/core.ts"
import { isMissing, redisServer } from "../../support/servers.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const programs = join(root, "test/support/runtimes")
/** Within the package, so that what is not bundled is found. */
const outdir = join(root, "test/.docs/runtimes")

/** Ours as one file; what it depends on is imported where it runs, as users' programs do. */
const bundle = (entry: string, options: BuildOptions = {}) =>
  Effect.as(
    Effect.promise(() =>
      build({
        entryPoints: [join(programs, `${entry}.ts`)],
        outfile: join(outdir, `${entry}.mjs`),
        bundle: true,
        format: "esm",
        platform: "neutral",
        target: "es2022",
        packages: "external",
        logLevel: "error",
        alias: { "effect-alf": join(root, "src/index.ts") },
        plugins: [{
          name: "subpaths",
          setup: ({ onResolve }) =>
            onResolve({ filter: /^effect-alf\/.+/ }, ({ path }) => ({
              path: join(root, "src", `${path.slice("effect-alf/".length)}.ts`)
            }))
        }],
        ...options
      })
    ),
    join(outdir, `${entry}.mjs`)
  )

/** Everything in one file, for runtimes that find no packages. */
const whole: BuildOptions = { packages: "bundle", platform: "browser" }

interface Endpoints extends Recorded {
  readonly tokenRequests: () => number
  readonly behaviour: { expiresIn: number; delay: number }
}

/** Token endpoint and API, for pages of other origins too: a browser shows them no `content-encoding`. */
const makeServer = Effect.gen(function*() {
  const behaviour = { expiresIn: 3600, delay: 0 }
  const valid = new Set<string>()
  let issued = 0
  const open = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "content-length"
  }
  const server = yield* serve((request, response) => {
    if (request.method === "OPTIONS") {
      const more = request.path === "/api" ? ", traceparent, b3" : ""
      const headers = { ...open, "access-control-allow-headers": `authorization, dpop, content-type${more}` }
      return void response.writeHead(204, headers).end()
    }
    switch (request.path) {
      case "/":
        return void response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>")
      case "/revoke":
        valid.clear()
        return answer(response, 200, {}, open)
      case "/token":
        return void setTimeout(() => {
          const token = `token-${++issued}`
          valid.add(token)
          const body = gzipSync(JSON.stringify({
            access_token: token,
            token_type: request.headers["dpop"] === undefined ? "Bearer" : "DPoP",
            expires_in: behaviour.expiresIn
          }))
          response.writeHead(200, {
            ...open,
            "content-type": "application/json",
            "content-encoding": "gzip",
            "content-length": body.length
          }).end(body)
        }, behaviour.delay)
      default: {
        const token = bearerOf(request) ?? /^DPoP (.+)$/.exec(request.headers.authorization ?? "")?.[1] ?? ""
        const isProved = request.headers["dpop"] !== undefined || bearerOf(request) !== undefined
        return answer(response, valid.has(token) && isProved ? 200 : 401, { token }, open)
      }
    }
  })
  return { ...server, behaviour, tokenRequests: () => issued }
})

class Server extends Context.Tag("test/Server")<Server, Endpoints>() {
  static readonly layer = Layer.scoped(this, makeServer)
}

/** Of ten requests at once with one token, one whose token was revoked, one with a proof, one to a server in memory. */
const expected: Report = { statuses: Array(13).fill(200), stored: 2, isReadable: false }

const nodes = ["20.19.0", "22", "24", "26"].map((version) => ({
  name: `Node ${version}`,
  program: fromNpm(`node-${version}`, `node@${version}`, "node/bin/node"),
  core: [],
  all: []
}))

const bun = fromNpm("bun", "bun@1.4.5", "bun/bin/bun.exe")

const runtimes = [
  { name: `Node ${process.versions.node}`, program: Effect.succeed(process.execPath), core: [], all: [] },
  ...nodes,
  {
    name: "Bun",
    program: bun,
    core: ["run"],
    all: ["run"]
  },
  {
    name: "Deno",
    program: fromNpm(
      "deno",
      "deno@2.9.6",
      `@deno/${process.platform}-${process.arch}${process.platform === "linux" ? "-glibc" : ""}/deno`
    ),
    // it may use the network, and nothing else
    core: ["run", "--no-prompt", "--allow-net"],
    all: ["run", "--no-prompt", "--allow-all"]
  }
]

const timeout = 120_000

describe("the core over fetch", () => {
  layer(Server.layer, { excludeTestServices: true, timeout })((it) => {
    for (const { core, name, program } of runtimes) {
      it.effect(`runs on ${name}`, () =>
        Effect.gen(function*() {
          const { tokenRequests, url } = yield* Server
          const before = tokenRequests()
          const { errors, output } = yield* run(yield* program, [...core, yield* bundle("main"), url], { cwd: root })
          assert.deepStrictEqual(output === "" ? errors : JSON.parse(output), expected)
          // for ten at once, after the revocation, and for the key of the proofs
          assert.strictEqual(tokenRequests() - before, 3)
        }), timeout)
    }
  })
})

describe("bun test", () => {
  layer(Server.layer, { excludeTestServices: true, timeout })((it) => {
    it.effect("runs programs on effect-alf/testing", () =>
      Effect.gen(function*() {
        const { url } = yield* Server
        const core = yield* bundle("core")
        const file = join(outdir, "core.test.mjs")
        yield* Effect.promise(() =>
          writeFile(
            file,
            `import { expect, test } from "bun:test"
import { Effect } from "effect"
import { program } from ${JSON.stringify(core)}

test("the core", async () => {
  expect(await Effect.runPromise(program(${JSON.stringify(url)}))).toEqual(${JSON.stringify(expected)})
})
`
          )
        )
        const { errors, output } = yield* run(yield* bun, ["test", file], { cwd: root })
        assert.match(output + errors, /\b1 pass\b/)
      }), timeout)
  })
})

describe.skipIf(isMissing("redis-server"))("Redis, and node:http", () => {
  layer(Server.layer, { excludeTestServices: true, timeout })((it) => {
    for (const { all, name, program } of runtimes) {
      it.scoped(`run on ${name}`, () =>
        Effect.gen(function*() {
          const { tokenRequests, url } = yield* Server
          const { port } = yield* redisServer()
          const before = tokenRequests()
          const args = [...all, yield* bundle("server", { platform: "node" }), url, `${port}`]
          const { errors, output } = yield* run(yield* program, args, { cwd: root })
          assert.deepStrictEqual(output === "" ? errors : JSON.parse(output), [200, 200])
          assert.strictEqual(tokenRequests() - before, 1)
        }), timeout)
    }
  })
})

/** What the tests use of Miniflare: it is not one of the package's own tools. */
interface Miniflare {
  readonly ready: Promise<unknown>
  readonly dispatchFetch: (url: string) => Promise<{ readonly json: () => Promise<unknown> }>
  readonly dispose: () => Promise<void>
}

const makeWorker = Effect.gen(function*() {
  const { url } = yield* Server
  const path = yield* fromNpm("miniflare", "miniflare@4.20260730.0", "miniflare/dist/src/index.js")
  const { Miniflare } = createRequire(pathToFileURL(path))(path) as {
    readonly Miniflare: new(options: object) => Miniflare
  }
  const script = yield* bundle("worker", { ...whole, conditions: ["workerd", "worker"] })
  const worker = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new Miniflare({
        modules: true,
        scriptPath: script,
        compatibilityDate: "2026-05-01",
        bindings: { SERVER: url },
        kvNamespaces: ["KV"]
      })
    ),
    (worker) => Effect.promise(() => worker.dispose())
  )
  yield* Effect.promise(() => worker.ready)
  const visit = (path: string) =>
    Effect.promise(() => worker.dispatchFetch(`http://worker${path}`).then((response) => response.json())).pipe(
      Effect.timeoutTo({ duration: "10 seconds", onSuccess: (body) => body, onTimeout: () => "it hangs" })
    )
  return visit
})

describe("Cloudflare Workers", () => {
  layer(Server.layer, { excludeTestServices: true, timeout })((it) => {
    it.scoped("run the core", () =>
      Effect.gen(function*() {
        const visit = yield* makeWorker
        assert.deepStrictEqual(yield* visit("/core"), expected)
      }), timeout)

    it.scoped("with a layer for each request share a token through KV", () =>
      Effect.gen(function*() {
        const visit = yield* makeWorker
        const { tokenRequests } = yield* Server
        const before = tokenRequests()
        for (let n = 0; n < 3; n++) assert.strictEqual(yield* visit("/kv"), 200)
        assert.strictEqual(tokenRequests() - before, 1)
      }), timeout)

    it.scoped("with one layer answer five first requests at once", () =>
      Effect.gen(function*() {
        const visit = yield* makeWorker
        const { behaviour, tokenRequests } = yield* Server
        behaviour.delay = 200
        const before = tokenRequests()
        const statuses = yield* Effect.all(Array.from({ length: 5 }, () => visit("/")), { concurrency: "unbounded" })
        assert.deepStrictEqual(statuses, Array(5).fill(200))
        // a request cannot wait for the fetch of another one
        assert.isAtMost(tokenRequests() - before, 5)
        assert.strictEqual(yield* visit("/"), 200)
        assert.isAtMost(tokenRequests() - before, 5)
      }), timeout)

    it.scoped(
      "with one layer outlive the end of the request in which a renewal fell due",
      () =>
        Effect.gen(function*() {
          const visit = yield* makeWorker
          const { behaviour } = yield* Server
          Object.assign(behaviour, { delay: 0, expiresIn: 2 })
          assert.strictEqual(yield* visit("/"), 200)
          behaviour.delay = 500
          // in the last fifth of its life a token is renewed
          yield* Effect.sleep("1700 millis")
          assert.strictEqual(yield* visit("/"), 200)
          yield* Effect.sleep("500 millis")
          const statuses = yield* Effect.all(Array.from({ length: 3 }, () => visit("/")), { concurrency: "unbounded" })
          assert.deepStrictEqual(statuses, Array(3).fill(200))
        }),
      timeout
    )
  })
})

describe.skipIf(isChromiumMissing)("Chromium", () => {
  layer(Layer.merge(Server.layer, Chromium.layer), { excludeTestServices: true, timeout })((it) => {
    it.scoped(
      "runs the core against a server of another origin, and keeps tokens in localStorage",
      () =>
        Effect.gen(function*() {
          const server = yield* Server
          const home = yield* makeServer
          const script = yield* bundle("page", whole)
          const browser = yield* Chromium
          const page = yield* Effect.acquireRelease(
            Effect.promise(() => browser.newPage()),
            (page) => Effect.promise(() => page.close())
          )
          const call = <A>(name: string) =>
            Effect.promise((): Promise<A> => page.evaluate(`${name}(${JSON.stringify(server.url)})`))
          const load = Effect.promise(async () => {
            await page.goto(home.url)
            await page.addScriptTag({ path: script, type: "module" })
            await page.waitForFunction("typeof run === 'function'")
          })
          yield* load
          assert.deepStrictEqual(yield* call<Report>("run"), expected)

          const first = yield* call<string>("visit")
          yield* load
          assert.strictEqual(yield* call<string>("visit"), first)
          const stored = yield* Effect.promise((): Promise<string> => page.evaluate("JSON.stringify(localStorage)"))
          assert.include(stored, "effect-alf:1:")
          assert.notInclude(stored, "token-")

          const sent = server.requests.filter(({ path }) => path === "/token")
          assert.isAtLeast(sent.length, 4)
          for (const { headers } of sent) {
            assert.notProperty(headers, "traceparent")
            assert.notProperty(headers, "b3")
            // what a browser asks the server about first
            const asked = headers["access-control-request-headers"] ?? ""
            assert.include(["", "authorization", "authorization,dpop"], asked)
          }
        }),
      timeout
    )
  })
})
