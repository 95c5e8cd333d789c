/** A store that stands still: its connections stay open, and nothing answers. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, pipe } from "effect"
import { Alf, TokenStorage } from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"
import * as TokenStorageMemcached from "effect-alf/TokenStorage/Memcached"
import * as TokenStorageRedis from "effect-alf/TokenStorage/Redis"
import { isMissing, memcachedServer, redisServer } from "../support/servers.ts"
import { eventually, logged } from "../support/tokenStorage.ts"

const stores = [
  {
    name: "Redis",
    isSkipped: isMissing("redis-server"),
    server: redisServer(),
    layer: (port: number) => TokenStorageRedis.layer({ port }),
    // longer than a command may take
    pause: 3200
  },
  {
    name: "Memcached",
    isSkipped: isMissing("memcached"),
    server: memcachedServer(),
    layer: (port: number) => TokenStorageMemcached.layer({ servers: `127.0.0.1:${port}` }),
    pause: 1500
  }
]

/** Keeps the whole process from doing anything else. */
const busy = (millis: number) =>
  Effect.sync(() => {
    const end = performance.now() + millis
    while (performance.now() < end);
  })

const makeClient = (clientId: string) =>
  Effect.map(
    Alf.make({ tokenEndpoint: TestAuthorizationServer.tokenEndpoint, clientId, origins: ["https://api.test"] }),
    ({ httpClient }) => httpClient.get("https://api.test/orders")
  )

for (const { isSkipped, layer, name, pause, server } of stores) {
  describe.skipIf(isSkipped)(`${name}`, () => {
    it.scopedLive(
      "that stands still is waited for by a second, once, and shared again when it goes on",
      () =>
        Effect.gen(function*() {
          const own = yield* server
          const context = yield* Layer.build(Layer.merge(layer(own.port), TestAuthorizationServer.layer()))
          yield* Effect.gen(function*() {
            const { issued } = yield* TestAuthorizationServer.TestAuthorizationServer
            const storage = yield* TokenStorage.TokenStorage
            const [one, other, third] = yield* Effect.forEach(["a", "a", "a"], makeClient)
            // the connection is there
            yield* storage.get("nothing")

            yield* own.freeze
            const [took, response] = yield* Effect.timed(one!)
            assert.strictEqual(response.status, 200)
            assert.isBelow(Duration.toMillis(took), 2500)
            // long enough for the client to give up the connection
            yield* Effect.sleep("4 seconds")

            yield* own.thaw
            yield* pipe(storage.get("nothing"), Effect.timeout("1 second"), eventually)
            const before = yield* issued
            yield* other!
            yield* third!
            assert.isAtMost(yield* issued, before + 1)
          }).pipe(Effect.provide(context))
        }),
      30_000
    )

    it.scopedLive(
      "is not taken for one that stands still by a process that stood still itself",
      () =>
        Effect.gen(function*() {
          const own = yield* server
          const context = yield* Layer.build(Layer.merge(layer(own.port), TestAuthorizationServer.layer()))
          const { lines } = yield* logged(
            Effect.gen(function*() {
              const storage = yield* TokenStorage.TokenStorage
              yield* storage.get("nothing")
              yield* own.freeze
              const response = yield* Effect.fork(Effect.flatten(makeClient("a")))
              // its question is sent; the answer comes while the process has no time for it
              yield* Effect.sleep("50 millis")
              // timers that are due go before what was received
              yield* Effect.async<void>((resume) => {
                setImmediate(() => resume(Effect.zipRight(own.thaw, busy(pause))))
              })
              yield* Fiber.join(response)
            }).pipe(Effect.provide(context))
          )
          assert.notInclude(lines, "failed")
        }),
      30_000
    )
  })
}
