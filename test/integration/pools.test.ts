/** Pools of eight processes that share the tokens of two hundred tenants through Redis. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { makeServers } from "../support/processes/servers.ts"
import { bundle, startWorker } from "../support/processes/workers.ts"
import { isMissing, redisServer } from "../support/servers.ts"

const processes = 8
const tenants = 200

const makeWorld = Effect.gen(function*() {
  const program = yield* bundle
  const servers = yield* makeServers
  const { port } = yield* redisServer()
  const workers = yield* Effect.forEach(
    Array.from({ length: processes }, (_, n) => `worker-${n}`),
    (name) =>
      startWorker(program, {
        name,
        tokenEndpoint: servers.tokenEndpoint,
        apiUrl: servers.apiUrl,
        store: { _tag: "Redis", port },
        term: 10_000,
        clockAhead: 0,
        tenants
      }),
    { concurrency: "unbounded" }
  )
  /** A request of each process for each tenant, four hundred at once. */
  const all = Effect.map(
    Effect.forEach(workers, (worker) => worker.tell({ _tag: "Request", times: 1 }), { concurrency: "unbounded" }),
    (answers) => answers.flat()
  )
  return { ...servers, all }
})

class World extends Context.Tag("World")<World, Effect.Effect.Success<typeof makeWorld>>() {}

const timeout = 120_000

describe.skipIf(isMissing("redis-server"))("eight processes with two hundred tenants", () => {
  layer(Layer.scoped(World, makeWorld), { excludeTestServices: true, timeout })((it) => {
    for (const when of ["when they start cold", "when every token is revoked at once"]) {
      it.effect(`make one token request for each tenant ${when}`, () =>
        Effect.gen(function*() {
          const { all, clients, revokeAll } = yield* World
          const before = clients.length
          yield* revokeAll
          const answers = yield* all
          assert.lengthOf(answers, processes * tenants)
          assert.deepStrictEqual(new Set(answers), new Set([200]))
          const asked = clients.slice(before)
          assert.lengthOf(asked, tenants)
          assert.strictEqual(new Set(asked).size, tenants)
        }), timeout)
    }
  })
})
