import { Command } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { verdict } from "../../examples/demo/Act.ts"
import { credentials, layer as layerServers, Servers } from "../../examples/demo/Servers.ts"
import { Stage } from "../../examples/demo/Stage.ts"

/** A program, run from its source in a process of its own, with its output piped. */
const start = (path: string, environment: Record<string, string> = {}) =>
  Command.make(process.execPath, "--import", "tsx", path).pipe(
    Command.env({ TSX_TSCONFIG_PATH: "test/tsconfig.json", ...environment }),
    Command.start
  )

const read = <E>(output: Stream.Stream<Uint8Array, E>) => Stream.mkString(Stream.decodeText(output))

const run = (path: string, environment?: Record<string, string>) =>
  Effect.flatMap(
    start(path, environment),
    ({ exitCode, stderr, stdout }) =>
      Effect.all({ exitCode, stdout: read(stdout), stderr: read(stderr) }, { concurrency: 3 })
  )

/** The rows of the closing table: the mark, the title and the counts. */
const rows = (stdout: string) =>
  [...stdout.matchAll(/^ ([✓✗]) {2}(.+?) +(\d+) +(\d+) +(\d+) +(\d+)$/gm)].map(
    ([, mark, title, ...counts]) => [mark, title, ...counts.map(Number)]
  )

describe("demo", () => {
  it.scopedLive(
    "plays seven acts and ends in a table of what the servers counted",
    () =>
      Effect.gen(function*() {
        const { exitCode, stderr, stdout } = yield* run("examples/demo.ts")
        const table = rows(stdout)
        const expiry = table[3] ?? []
        const revocation = table[4] ?? []

        assert.strictEqual(stderr, "")
        assert.deepStrictEqual(table, [
          ["✓", "First token", 1, 1, 1, 0],
          ["✓", "Fifty requests", 1, 1, 50, 0],
          ["✓", "A thousand at once", 1, 1, 1000, 0],
          ["✓", "Expiry", 3, 3, expiry[4], 0],
          ["✓", "Revocation under load", 2, 2, 1000, revocation[5]],
          ["✓", "A wrong scope", 1, 0, 0, 0],
          ["✓", "An outage", 5, 1, 20, 0]
        ])
        assert.isAbove(Number(expiry[4]), 2)
        assert.isAbove(Number(revocation[5]), 0)
        assert.match(stdout, /✓ {2}7 of 7 acts as claimed, in \d+\.\d s/)
        assert.strictEqual(exitCode, 0)
        assert.notInclude(stdout, "\u001b", "piped output is plain")
        assert.notInclude(stdout, credentials.secret)
      }).pipe(Effect.provide(NodeContext.layer)),
    120_000
  )

  it.scopedLive(
    "ends in exit code 1 if an act is not as claimed",
    () =>
      Effect.gen(function*() {
        const { exitCode, stdout } = yield* run("test/support/falseActs.ts")

        assert.deepStrictEqual(rows(stdout), [
          ["✓", "As claimed", 1, 1, 1, 0],
          ["✗", "A wrong count", 1, 1, 1, 0],
          ["✗", "A false claim", 0, 0, 0, 0],
          ["✗", "A defect", 0, 0, 0, 0]
        ])
        assert.include(stdout, "A wrong count: answers 200: 1 instead of 2")
        assert.include(stdout, "A false claim: one is two")
        assert.include(stdout, "A defect: broken")
        assert.include(stdout, "1 of 4 acts as claimed")
        assert.strictEqual(exitCode, 1)
      }).pipe(Effect.provide(NodeContext.layer)),
    120_000
  )

  it.scopedLive(
    "stops at Ctrl-C",
    () =>
      Effect.gen(function*() {
        const demo = yield* start("examples/demo.ts")
        const untilStopped = demo.stdout.pipe(
          Stream.decodeText(),
          Stream.splitLines,
          Stream.tap((line) => line.includes("Fifty requests") ? demo.kill("SIGINT") : Effect.void),
          Stream.mkString
        )
        const [exitCode, stdout] = yield* Effect.all([demo.exitCode, untilStopped], { concurrency: 2 })

        assert.strictEqual(exitCode, 130)
        assert.notInclude(stdout, "as claimed")
      }).pipe(Effect.provide(NodeContext.layer)),
    120_000
  )

  it("compares counts with claims, exact ones and ranges", () => {
    const counted = { tokenRequests: 2, tokens: 1, accepted: 10, refused: 3 }
    assert.deepStrictEqual(verdict({ ...counted, refused: [1, 3] }, counted), [])
    assert.deepStrictEqual(verdict({ tokenRequests: 1, tokens: 2, accepted: [11, 12], refused: [1, 2] }, counted), [
      "token requests: 2 instead of 1",
      "tokens: 1 instead of 2",
      "answers 200: 10 instead of 11 to 12",
      "answers 401: 3 instead of 1 to 2"
    ])
  })
})

describe("quickstart", () => {
  const silent = Layer.succeed(Stage, {
    style: (_, text) => text,
    line: () => Effect.void,
    paragraph: () => Effect.void,
    event: () => Effect.void,
    during: () => (effect) => effect
  })

  it.scopedLive(
    "makes one request, with a token",
    () =>
      Effect.gen(function*() {
        const { api, counted, tokenEndpoint } = yield* Servers
        const { exitCode, stderr, stdout } = yield* run("examples/quickstart.ts", {
          TOKEN_ENDPOINT: tokenEndpoint,
          CLIENT_ID: credentials.id,
          CLIENT_SECRET: credentials.secret,
          API_URL: api
        })
        assert.deepStrictEqual({ exitCode: Number(exitCode), stderr, stdout }, {
          exitCode: 0,
          stderr: "",
          stdout: "Hello\n"
        })
        assert.deepStrictEqual(yield* counted, { tokenRequests: 1, tokens: 1, accepted: 1, refused: 0 })
      }).pipe(Effect.provide(Layer.mergeAll(NodeContext.layer, Layer.provide(layerServers, silent)))),
    120_000
  )
})
