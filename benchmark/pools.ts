/** What a pool of many keys costs: time per request, heap, and bytes for each key that is idle. */
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { Effect, Exit, Scope } from "effect"
import { TokenPool } from "effect-alf"
import { setImmediate } from "node:timers/promises"
import { flatMapStub } from "./inProcess.ts"
import { ratio } from "./measure.ts"
import { environment, isQuick } from "./sockets.ts"
import { alfOptions } from "./subjects.ts"

const many = isQuick ? 2_000 : 100_000
const active = 1_000

const request = HttpClientRequest.get(environment.api)

const makePool = (capacity: number) =>
  TokenPool.make({ capacity, lookup: (key: string) => ({ ...alfOptions(environment), clientId: key }) }).pipe(
    Effect.provideService(HttpClient.HttpClient, flatMapStub)
  )

const keys = (count: number) => Array.from({ length: count }, (_, n) => `key-${n}`)

/** A request for each key, one after another. */
const visit = (pool: TokenPool.TokenPool<string>, keys: ReadonlyArray<string>) =>
  Effect.withTracerEnabled(
    Effect.forEach(keys, (key) => pool.httpClient(key).execute(request), { discard: true }),
    false
  )

const heap = async () => {
  for (let turn = 0; turn < 3; turn++) {
    globalThis.gc?.()
    await setImmediate()
  }
  return process.memoryUsage().heapUsed
}

const withPool = async <A>(capacity: number, run: (pool: TokenPool.TokenPool<string>) => Promise<A>): Promise<A> => {
  const scope = await Effect.runPromise(Scope.make())
  const pool = await Effect.runPromise(Scope.extend(makePool(capacity), scope))
  const result = await run(pool)
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return result
}

/** A request of a pool that holds so many keys against one of a pool that holds ten; bytes for each key. */
export const size = () =>
  withPool(many, (large) =>
    withPool(many, async (small) => {
      const before = await heap()
      await Effect.runPromise(visit(large, keys(many)))
      const bytes = (await heap() - before) / many
      const few = keys(10)
      await Effect.runPromise(visit(small, few))
      const rounds = (pool: TokenPool.TokenPool<string>) => async () => {
        const start = performance.now()
        for (let round = 0; round < (isQuick ? 20 : 1_000); round++) await Effect.runPromise(visit(pool, few))
        return performance.now() - start
      }
      return { keys: many, bytes, ratio: await ratio(rounds(large), rounds(small), isQuick ? 3 : 21) }
    }))

/** The heap of a pool that has seen ten times as many keys as it holds, and then serves a thousand of them. */
export const bounded = () => {
  const capacity = many / 10
  return withPool(capacity, async (pool) => {
    const before = await heap()
    await Effect.runPromise(visit(pool, keys(capacity)))
    const full = await heap() - before
    await Effect.runPromise(visit(pool, keys(many)))
    const seen = await heap() - before
    for (let round = 0; round < 10; round++) await Effect.runPromise(visit(pool, keys(active)))
    return { capacity, active, full, seen, served: await heap() - before }
  })
}
