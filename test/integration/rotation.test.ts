/**
 * Ten processes with one refresh token that rotates at each use, at a server that detects reuse: then it revokes the whole
 * family, and somebody has to sign in again (RFC 9700 §4.14.2).
 */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Layer, Runtime, type Scope } from "effect"
import { answer } from "../support/apiServer.ts"
import type { Store } from "../support/processes/protocol.ts"
import { listen, workerOf } from "../support/processes/servers.ts"
import { bundle, startWorker, temporaryFolder, until, type Worker } from "../support/processes/workers.ts"
import { isMissing, memcachedServer, redisServer } from "../support/servers.ts"

const processes = 10

/** Of the lease, in milliseconds. */
const term = 2_000

const timeout = 60_000

/** Each response of the token endpoint takes 100 ms, and `beforeResponse` may do something first. */
const makeServers = Effect.gen(function*() {
  const state = {
    current: "refresh-0" as string | undefined,
    reused: 0,
    signIns: 0,
    issued: 0,
    requests: [] as Array<string>,
    beforeResponse: async (_worker: string): Promise<void> => {}
  }
  const valid = new Set<string>()

  const issue = () => {
    state.current = `refresh-${++state.issued}`
    valid.add(`token-${state.issued}`)
    return {
      access_token: `token-${state.issued}`,
      token_type: "Bearer",
      expires_in: 3600,
      refresh_token: state.current
    }
  }

  const decide = (form: URLSearchParams): readonly [number, unknown] => {
    if (form.get("grant_type") === "sign_in") {
      state.signIns++
      return [200, issue()]
    }
    if (form.get("refresh_token") === state.current) return [200, issue()]
    state.reused++
    state.current = undefined
    valid.clear()
    return [400, { error: "invalid_grant" }]
  }

  const authUrl = yield* listen((request, response, text) => {
    const respond = async () => {
      state.requests.push(workerOf(request))
      // the server has rotated the token when its response is still on its way
      const [status, body] = decide(new URLSearchParams(text))
      await state.beforeResponse(workerOf(request))
      setTimeout(() => answer(response, status, body), 100)
    }
    void respond()
  })
  const apiUrl = yield* listen((request, response) => {
    const token = (request.headers.authorization ?? "").replace(/^Bearer /, "")
    answer(response, valid.has(token) ? 200 : 401, {})
  })
  return { state, tokenEndpoint: `${authUrl}/token`, apiUrl, revokeAccess: Effect.sync(() => valid.clear()) }
})

const makeWorld = (makeStore: Effect.Effect<Store, never, Scope.Scope>) =>
  Effect.gen(function*() {
    const program = yield* bundle
    const servers = yield* makeServers
    const store = yield* makeStore
    const workers = yield* Effect.forEach(
      Array.from({ length: processes }, (_, n) => `worker-${n}`),
      (name) =>
        startWorker(program, {
          name,
          tokenEndpoint: servers.tokenEndpoint,
          apiUrl: servers.apiUrl,
          store,
          term,
          clockAhead: 0,
          refreshToken: "refresh-0"
        }),
      { concurrency: "unbounded" }
    )
    return { ...servers, workers }
  })

type WorldShape = Effect.Effect.Success<ReturnType<typeof makeWorld>>

class World extends Context.Tag("World")<World, WorldShape>() {}

const makeRequests = (worker: Worker) =>
  Effect.map(
    worker.tell({ _tag: "Request", times: 5 }),
    (answers) => assert.deepStrictEqual([...new Set(answers)], [200], worker.name)
  )

const all = (workers: ReadonlyArray<Worker>) =>
  Effect.forEach(workers, makeRequests, { concurrency: "unbounded", discard: true })

const stores: ReadonlyArray<{
  readonly name: string
  readonly makeStore: Effect.Effect<Store, never, Scope.Scope>
  readonly isSkipped: boolean
}> = [
  {
    name: "Redis",
    makeStore: Effect.map(redisServer(), ({ port }) => ({ _tag: "Redis", port })),
    isSkipped: isMissing("redis-server")
  },
  {
    name: "Memcached",
    makeStore: Effect.map(memcachedServer(), ({ port }) => ({ _tag: "Memcached", port })),
    isSkipped: isMissing("memcached")
  },
  {
    name: "a folder",
    makeStore: Effect.map(temporaryFolder, (parent) => ({ _tag: "Folder", path: `${parent}/tokens` })),
    isSkipped: false
  }
]

for (const { isSkipped, makeStore, name } of stores) {
  describe.skipIf(isSkipped)(`ten processes that share one rotating refresh token through ${name}`, () => {
    layer(Layer.scoped(World, makeWorld(makeStore)), { excludeTestServices: true, timeout })((it) => {
      it.effect("never use one twice, and make one token request each time", () =>
        Effect.gen(function*() {
          const { revokeAccess, state, workers } = yield* World
          for (let round = 1; round <= 4; round++) {
            yield* all(workers)
            assert.deepStrictEqual([state.reused, state.signIns, state.requests.length], [0, 0, round])
            // an API that rejects tokens again and again gets no more than ten new ones at once
            if (round < 4) yield* revokeAccess
          }
        }), timeout)

      it.effect(
        "sign in at most once when the holder is suspended past its lease while its response is on its way",
        () =>
          Effect.gen(function*() {
            const { revokeAccess, state, workers } = yield* World
            yield* all(workers)
            const before = state.signIns
            const runPromise = Runtime.runPromise(yield* Effect.runtime())
            let suspended: Worker | undefined
            state.beforeResponse = async (name) => {
              state.beforeResponse = async () => {}
              suspended = workers.find((worker) => worker.name === name)
              if (suspended !== undefined) await runPromise(suspended.suspend)
            }
            yield* revokeAccess
            const answers = yield* Effect.forEach(workers, (worker) => Effect.fork(makeRequests(worker)))
            yield* until("the holder is suspended", () => suspended !== undefined)
            const others = answers.filter((_, n) => workers[n] !== suspended)
            const [took] = yield* Effect.timed(Fiber.joinAll(others))
            assert.isBelow(Duration.toMillis(took), term + 6_000)
            if (suspended !== undefined) yield* suspended.resume
            yield* Fiber.joinAll(answers)
            assert.isAtMost(state.signIns - before, 1)
            // no loop: what comes next is as before
            const after = [state.reused, state.signIns]
            for (let round = 0; round < 2; round++) {
              yield* revokeAccess
              yield* all(workers)
            }
            assert.deepStrictEqual([state.reused, state.signIns], after)
          }),
        timeout
      )

      // the last: there is one process less afterwards
      it.effect(
        "sign in at most once when the holder is killed before it has stored the response",
        () =>
          Effect.gen(function*() {
            const { revokeAccess, state, workers } = yield* World
            yield* all(workers)
            const before = state.signIns
            const runPromise = Runtime.runPromise(yield* Effect.runtime())
            let killed: string | undefined
            state.beforeResponse = async (name) => {
              state.beforeResponse = async () => {}
              killed = name
              await runPromise(workers.find((worker) => worker.name === name)?.kill ?? Effect.void)
            }
            yield* revokeAccess
            const answers = yield* Effect.forEach(workers, (worker) => Effect.fork(makeRequests(worker)))
            yield* until("the holder is killed", () => killed !== undefined)
            const left = workers.filter((worker) => worker.name !== killed)
            yield* Fiber.joinAll(answers.filter((_, n) => workers[n]?.name !== killed))
            assert.isAtMost(state.signIns - before, 1)
            const after = [state.reused, state.signIns]
            for (let round = 0; round < 2; round++) {
              yield* revokeAccess
              yield* all(left)
            }
            assert.deepStrictEqual([state.reused, state.signIns], after)
          }),
        timeout
      )
    })
  })
}
