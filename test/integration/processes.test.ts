/** Processes that share their token: eight of them, each with fifty requests at once, on real sockets. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Layer, pipe, type Scope } from "effect"
import { calculateJwkThumbprint } from "jose"
import { generateKeyPairSync } from "node:crypto"
import { rename, rm, writeFile } from "node:fs/promises"
import type { Store, WorkerOptions } from "../support/processes/protocol.ts"
import { makeServers } from "../support/processes/servers.ts"
import { bundle, startWorker, temporaryFolder, until, type Worker } from "../support/processes/workers.ts"
import { isMissing, isPostgresMissing, memcachedServer, postgresServer, redisServer } from "../support/servers.ts"

const processes = 8
const requests = 50

/** Of the lease, in milliseconds. */
const term = 3000

const timeout = 60_000

/** A store that breaks when it is told to. */
interface RunningStore {
  readonly store: Store
  readonly kill: Effect.Effect<void>
  /** Begins anew, with nothing in it. */
  readonly start: Effect.Effect<void>
}

const redis: Effect.Effect<RunningStore, never, Scope.Scope> = Effect.map(
  redisServer(),
  ({ kill, port, start }) => ({ store: { _tag: "Redis", port }, kill, start })
)

const memcached: Effect.Effect<RunningStore, never, Scope.Scope> = Effect.map(
  memcachedServer(),
  ({ kill, port, start }) => ({ store: { _tag: "Memcached", port }, kill, start })
)

const postgres: Effect.Effect<RunningStore, never, Scope.Scope> = Effect.map(
  postgresServer,
  ({ kill, port, start }) => ({ store: { _tag: "Sql", port }, kill, start })
)

/** A folder is broken while there is a file in its place. */
const folder: Effect.Effect<RunningStore, never, Scope.Scope> = Effect.map(temporaryFolder, (parent) => {
  const path = `${parent}/tokens`
  return {
    store: { _tag: "Folder", path },
    kill: Effect.retry(
      Effect.tryPromise(async () => {
        await rename(path, `${path}-lost-${crypto.randomUUID()}`)
        // a process may have made the folder again just now
        await writeFile(path, "")
      }),
      { times: 100 }
    ).pipe(Effect.orDie),
    start: Effect.promise(() => rm(path))
  }
})

/** Servers, a store and its processes; `clocks` says of each by how many milliseconds its clock is ahead. */
const makeWorld = (
  makeStore: Effect.Effect<RunningStore, never, Scope.Scope>,
  clocks: ReadonlyArray<number> = Array.from({ length: processes }, () => 0),
  more: Pick<WorkerOptions, "dpopKey"> = {}
) =>
  Effect.gen(function*() {
    const program = yield* bundle
    const servers = yield* makeServers
    const { apiUrl, tokenEndpoint } = servers
    const store = yield* makeStore
    const startProcess = (clockAhead: number, index: number) =>
      startWorker(program, {
        name: `worker-${index}`,
        tokenEndpoint,
        apiUrl,
        store: store.store,
        term,
        clockAhead,
        ...more
      })
    const workers = yield* Effect.forEach(clocks, startProcess, { concurrency: "unbounded" })
    return { ...servers, store, workers, startProcess }
  })

type WorldShape = Effect.Effect.Success<ReturnType<typeof makeWorld>>

class World extends Context.Tag("World")<World, WorldShape>() {}

const each = (workers: ReadonlyArray<Worker>, f: (worker: Worker) => Effect.Effect<unknown>) =>
  Effect.forEach(workers, f, { concurrency: "unbounded", discard: true })

/** Makes requests, all at once; none fails. */
const makeRequests = (worker: Worker, times = requests) =>
  Effect.map(worker.tell({ _tag: "Request", times }), (answers) => {
    assert.lengthOf(answers, times)
    assert.deepStrictEqual([...new Set(answers)], [200])
  })

/** Waits until the condition holds, or one of the fibers fails. */
const untilMeanwhile = (fibers: ReadonlyArray<Fiber.Fiber<unknown>>, what: string, condition: () => boolean) =>
  Effect.raceFirst(
    until(what, condition),
    Effect.forEach(fibers, Fiber.join, { concurrency: "unbounded", discard: true })
  )

/** Whether each has asked for the exclusive section since. */
const haveAsked = (workers: ReadonlyArray<Worker>, before: ReadonlyArray<number>) =>
  workers.every((worker, n) => worker.asked() > before[n]!)

/**
 * All are told to make their requests, and find that they need a new token while the token endpoint lets them wait: each
 * has asked for the exclusive section, and one token request has come.
 */
const needing = ({ hold, tokenRequests, workers }: WorldShape) =>
  Effect.gen(function*() {
    const before = tokenRequests.length
    const asked = workers.map((worker) => worker.asked())
    yield* hold
    const answers = yield* Effect.forEach(workers, (worker) => Effect.fork(makeRequests(worker)))
    yield* untilMeanwhile(
      answers,
      "all ask for a new token",
      () => tokenRequests.length > before && haveAsked(workers, asked)
    )
    assert.lengthOf(tokenRequests, before + 1)
    return answers
  })

const stores = [
  { name: "Redis", makeStore: redis, isSkipped: isMissing("redis-server") },
  { name: "Memcached", makeStore: memcached, isSkipped: isMissing("memcached") },
  { name: "PostgreSQL", makeStore: postgres, isSkipped: isPostgresMissing() },
  { name: "a folder", makeStore: folder, isSkipped: false }
]

for (const { isSkipped, makeStore, name } of stores) {
  describe.skipIf(isSkipped)(`processes that share ${name}`, () => {
    layer(Layer.scoped(World, makeWorld(makeStore)), { excludeTestServices: true, timeout })((it) => {
      /** Every process has a token. */
      const settled = Effect.gen(function*() {
        const world = yield* World
        yield* world.release
        yield* each(world.workers, (worker) => worker.tell({ _tag: "AwaitStore" }))
        yield* each(world.workers, (worker) => makeRequests(worker, 1))
        return { ...world, before: world.tokenRequests.length }
      })

      // the first: nobody has a token yet
      it.scoped(
        "make one token request when they start cold, and one that comes later makes none",
        () =>
          Effect.gen(function*() {
            const world = yield* World
            const answers = yield* needing(world)
            yield* world.release
            yield* Fiber.joinAll(answers)
            assert.lengthOf(world.tokenRequests, 1)

            yield* makeRequests(yield* world.startProcess(0, processes))
            assert.lengthOf(world.tokenRequests, 1)
          }),
        timeout
      )

      it.effect("make one token request when all tokens are revoked", () =>
        Effect.gen(function*() {
          const { before, ...world } = yield* settled
          yield* world.revokeAll
          const answers = yield* needing(world)
          yield* world.release
          yield* Fiber.joinAll(answers)
          assert.lengthOf(world.tokenRequests, before + 1)
        }), timeout)

      it.effect(
        "make one token request when a token ends under load, and nobody waits for it",
        () =>
          Effect.gen(function*() {
            const { apiRequests, hold, refused, release, revokeAll, tokenRequests, workers } = yield* settled
            // a token that was issued just now; it lives for an hour
            yield* revokeAll
            yield* each(workers, (worker) => makeRequests(worker, 1))
            const [before, refusedBefore] = [tokenRequests.length, refused()]

            let isOver = false
            const rounds = workers.map(() => 0)
            const load = yield* Effect.forEach(workers, (worker, n) =>
              pipe(
                Effect.delay(makeRequests(worker, 10), "200 millis"),
                Effect.tap(() => {
                  rounds[n]!++
                }),
                Effect.repeat({ until: () => isOver }),
                Effect.fork
              ))
            /** Each has had a round that began after now. */
            const anotherRound = Effect.suspend(() => {
              const enough = rounds.map((round) => round + 2)
              return untilMeanwhile(load, "all go on", () => rounds.every((round, n) => round >= enough[n]!))
            })
            const advance = (seconds: number) =>
              each(workers, (worker) => worker.tell({ _tag: "Advance", by: seconds * 1000 }))

            // into the last two minutes, where it is renewed in the background
            const asked = workers.map((worker) => worker.asked())
            yield* hold
            yield* advance(3530)
            yield* untilMeanwhile(
              load,
              "all ask for a new token",
              () => tokenRequests.length > before && haveAsked(workers, asked)
            )
            yield* anotherRound
            assert.lengthOf(tokenRequests, before + 1)

            const { length, [length - 1]: last } = apiRequests
            yield* release
            yield* untilMeanwhile(load, "all have the new token", () => {
              const renewed = apiRequests.slice(length).filter(({ token }) => token !== last!.token)
              return new Set(renewed.map(({ worker }) => worker)).size === processes
            })
            // past its end
            yield* advance(120)
            yield* anotherRound
            isOver = true
            yield* Fiber.joinAll(load)
            assert.lengthOf(tokenRequests, before + 1)
            assert.strictEqual(refused(), refusedBefore)
          }),
        timeout
      )

      it.effect(
        "make one each when the store is killed, and no request fails; they share again when it is back",
        () =>
          Effect.gen(function*() {
            const { before, ...world } = yield* settled
            const { revokeAll, store, tokenRequests, workers } = world
            yield* revokeAll
            const answers = yield* needing(world)
            yield* store.kill
            yield* untilMeanwhile(
              answers,
              "each asks for a token",
              () => tokenRequests.length === before + processes
            )
            yield* world.release
            yield* Fiber.joinAll(answers)
            yield* revokeAll
            yield* each(workers, (worker) => makeRequests(worker, 1))
            assert.lengthOf(tokenRequests, before + 2 * processes)

            yield* store.start
            yield* each(workers, (worker) => worker.tell({ _tag: "AwaitStore" }))
            yield* revokeAll
            yield* each(workers, (worker) => makeRequests(worker))
            assert.lengthOf(tokenRequests, before + 2 * processes + 1)
          }),
        timeout
      )

      // the last: there is one process less afterwards
      it.effect("go on when the one that makes the token request is killed", () =>
        Effect.gen(function*() {
          const { before, ...world } = yield* settled
          const { tokenRequests, workers } = world
          yield* world.revokeAll
          const answers = yield* needing(world)
          const leader = workers.findIndex((worker) => worker.name === tokenRequests.at(-1))
          yield* workers[leader]!.kill
          yield* world.release
          const [took] = yield* Effect.timed(Fiber.joinAll(answers.filter((_, n) => n !== leader)))
          // the term of the lease, and the pauses of those who wait for it
          assert.isBelow(Duration.toMillis(took), term + 5000)
          assert.isAtLeast(tokenRequests.length, before + 2)
          assert.isAtMost(tokenRequests.length, before + 3)
        }), timeout)
    })
  })
}

describe.skipIf(isMissing("redis-server"))("a process whose clock is ahead", () => {
  for (const [ahead, isBound] of [[200, false], [600_000, false], [600_000, true]] as const) {
    it.scopedLive(
      `by ${ahead} milliseconds shares its ${isBound ? "bound " : ""}token with the others`,
      () =>
        Effect.gen(function*() {
          const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
          const jwk = privateKey.export({ format: "jwk" })
          const world = yield* makeWorld(
            redis,
            isBound ? [ahead, 0] : [ahead, 0, 0],
            isBound ? { dpopKey: JSON.stringify(jwk) } : {}
          )
          const { boundTo, hold, release, revokeAll, tokenRequests, workers } = world
          const thumbprint = isBound ? yield* Effect.promise(() => calculateJwkThumbprint(jwk)) : undefined
          const [first, ...others] = workers
          for (const event of [Effect.void, revokeAll]) {
            yield* event
            const before = tokenRequests.length
            const asked = workers.map((worker) => worker.asked())
            yield* hold
            const answers = [yield* Effect.fork(makeRequests(first!, 5))]
            yield* untilMeanwhile(answers, "it asks for a token", () => tokenRequests.length > before)
            for (const worker of others) answers.push(yield* Effect.fork(makeRequests(worker, 5)))
            yield* untilMeanwhile(answers, "all ask for a new token", () => haveAsked(workers, asked))
            yield* release
            yield* Fiber.joinAll(answers)
            assert.lengthOf(tokenRequests, before + 1)
            assert.deepStrictEqual(boundTo(), new Set([thumbprint]))
          }
        }),
      timeout
    )
  }
})
