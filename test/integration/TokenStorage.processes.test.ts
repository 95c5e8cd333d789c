/** Processes that share a folder. */
import { FileSystem } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** Runs until it ends, or the scope does. */
const start = (...args: ReadonlyArray<string>): Effect.Effect<ChildProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--import", "tsx", file("../support/countingProcess.ts"), ...args], {
        stdio: ["ignore", "pipe", "inherit"],
        env: { ...process.env, TSX_TSCONFIG_PATH: file("../tsconfig.json") }
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

const ended = (child: ChildProcess) => Effect.promise(async () => child.exitCode ?? (await once(child, "exit"))[0])

describe.each(["layerFileSystem", "layerKeyValueStore"])("%s, between processes", (storage) => {
  it.scopedLive("the exclusive section has one holder at a time", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const counter = `${folder}/counter`
      yield* fs.writeFileString(counter, "0")
      const children = yield* Effect.replicateEffect(start(storage, `${folder}/tokens`, counter, "6"), 3)
      assert.deepStrictEqual(yield* Effect.forEach(children, ended, { concurrency: "unbounded" }), [0, 0, 0])
      assert.strictEqual(yield* fs.readFileString(counter), "18")
    }).pipe(Effect.provide(NodeContext.layer)), 60_000)
})

describe("layerFileSystem, between processes", () => {
  it.scopedLive("the others go on when one is killed in the exclusive section", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const counter = `${folder}/counter`
      yield* fs.writeFileString(counter, "0")
      const dying = yield* start("layerFileSystem", `${folder}/tokens`, counter, "1", "stays")
      yield* Effect.promise(async () => dying.stdout === null ? undefined : once(dying.stdout, "data"))
      const others = yield* Effect.replicateEffect(
        start("layerFileSystem", `${folder}/tokens`, counter, "4"),
        2
      )
      yield* Effect.sleep("2 seconds")
      assert.strictEqual(yield* fs.readFileString(counter), "1")
      dying.kill("SIGKILL")
      const exits = yield* Effect.forEach(others, ended, { concurrency: "unbounded" })
      assert.deepStrictEqual(exits, [0, 0])
      assert.strictEqual(yield* fs.readFileString(counter), "9")
      assert.deepStrictEqual(yield* fs.readDirectory(`${folder}/tokens`), [])
    }).pipe(Effect.provide(NodeContext.layer)), 60_000)
})
