import { HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Either, Exit, Fiber, Layer, Redacted, Scope, TestClock } from "effect"
import { type Alf, TokenError, TokenPool } from "effect-alf"
import { recordLogs } from "../support/recorders.ts"
import { inTime, settle } from "../support/testClock.ts"

/** The servers of all tenants: `https://TENANT.test` is token endpoint and API, which takes its own tokens only. */
const servers = () => {
  const tokenRequests: Array<string> = []
  const apiRequests: Array<{ readonly tenant: string; readonly token: string }> = []
  const valid = new Map<string, Set<string>>()
  const isFailing = new Set<string>()
  const client = HttpClient.make((request, url) =>
    Effect.sync(() => {
      const tenant = url.hostname.replace(/\.test$/, "")
      const tokens = valid.get(tenant) ?? new Set()
      valid.set(tenant, tokens)
      const respond = (status: number, body: unknown) =>
        HttpClientResponse.fromWeb(request, Response.json(body, { status }))
      if (url.pathname === "/token") {
        tokenRequests.push(tenant)
        if (isFailing.has(tenant)) return respond(400, { error: "invalid_client" })
        const token = `${tenant}-${tokenRequests.length}`
        tokens.add(token)
        return respond(200, { access_token: token, token_type: "Bearer", expires_in: 36_000 })
      }
      const token = (request.headers["authorization"] ?? "").replace(/^Bearer /, "")
      apiRequests.push({ tenant, token })
      return respond(tokens.has(token) ? 200 : 401, {})
    })
  )
  return {
    tokenRequests,
    apiRequests,
    isFailing,
    revokeAll: () => valid.clear(),
    layer: Layer.succeed(HttpClient.HttpClient, client)
  }
}

const optionsOf = (tenant: string): Alf.Options => ({
  tokenEndpoint: `https://${tenant}.test/token`,
  clientId: "client",
  clientSecret: Redacted.make("a-secret"),
  origins: [`https://${tenant}.test`]
})

const request = <E>(pool: TokenPool.TokenPool<string, E>, tenant: string) =>
  Effect.map(pool.authorizedHttpClient(tenant).get(`https://${tenant}.test/data`), ({ status }) => status)

class NoTenant extends Data.TaggedError("NoTenant")<{ readonly tenant: string }> {}

describe("TokenPool", () => {
  it.scoped("each key has a token of its own, got once", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: optionsOf })
      for (const tenant of ["a", "b", "a", "b", "a"]) assert.strictEqual(yield* request(pool, tenant), 200)
      assert.deepStrictEqual(world.tokenRequests, ["a", "b"])
      assert.isTrue(world.apiRequests.every(({ tenant, token }) => token.startsWith(`${tenant}-`)))
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a thousand first requests of a key cost one lookup and one token request", () => {
    const world = servers()
    let lookups = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) => Effect.delay(Effect.sync(() => (lookups++, optionsOf(tenant))), "1 second")
      })
      const all = yield* Effect.fork(
        Effect.all(Array.from({ length: 1_000 }, () => request(pool, "a")), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      assert.isTrue((yield* Fiber.join(all)).every((status) => status === 200))
      assert.deepStrictEqual([lookups, world.tokenRequests.length], [1, 1])
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("all clients and the token service of a key share its token, and one client can be kept as a value", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: optionsOf })
      const client = pool.httpClient("a")
      assert.strictEqual((yield* client.get("https://a.test/data")).status, 200)
      assert.strictEqual(yield* request(pool, "a"), 200)
      const token = yield* pool.tokens("a").get
      assert.strictEqual(Redacted.value(token.value), "a-1")
      yield* pool.tokens("a").invalidate
      assert.strictEqual((yield* client.get("https://a.test/data")).status, 200)
      const renewed = yield* pool.tokens("a").get
      assert.strictEqual(Redacted.value(renewed.value), "a-2")
      assert.strictEqual(Redacted.value((yield* pool.tokens("a").refresh(renewed)).value), "a-3")
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("keys are compared by Equal", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (key: { readonly tenant: string; readonly user: number }) => optionsOf(key.tenant)
      })
      for (let n = 0; n < 3; n++) yield* pool.tokens(Data.struct({ tenant: "a", user: 1 })).get
      assert.lengthOf(world.tokenRequests, 1)
      yield* pool.tokens(Data.struct({ tenant: "a", user: 2 })).get
      assert.lengthOf(world.tokenRequests, 2)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("keys may be of any kind: NaN, null and undefined too, and objects without Equal are told apart", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: (_: unknown) => optionsOf("a") })
      const object = { tenant: "a" }
      for (
        const key of [NaN, null, undefined, 0, "0", "", object, new URL("https://a.test"), new URL("https://a.test")]
      ) {
        const before = world.tokenRequests.length
        yield* pool.tokens(key).get
        yield* pool.tokens(key).get
        assert.lengthOf(world.tokenRequests, before + 1)
      }
      yield* pool.tokens({ ...object }).get
      assert.lengthOf(world.tokenRequests, 10)
      yield* pool.forget(NaN)
      yield* pool.tokens(NaN).get
      assert.lengthOf(world.tokenRequests, 11)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a key that is changed in use stays one key, and does not keep others from being released", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: (key: { tenant: string }) => optionsOf(key.tenant), capacity: 1 })
      const key: { tenant: string } = Data.struct({ tenant: "a" })
      yield* pool.tokens(key).get
      key.tenant = "b"
      yield* pool.tokens(key).get
      assert.deepStrictEqual(world.tokenRequests, ["a"])
      yield* pool.tokens(Data.struct({ tenant: "c" })).get
      yield* pool.tokens(Data.struct({ tenant: "c" })).get
      yield* pool.tokens(key).get
      assert.deepStrictEqual(world.tokenRequests, ["a", "c", "b"])
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a lookup that fails is the error of all who wait, and runs again for the next request", () => {
    const world = servers()
    let lookups = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) =>
          Effect.delay(
            Effect.suspend(() => ++lookups < 2 ? new NoTenant({ tenant }) : Effect.succeed(optionsOf(tenant))),
            "1 second"
          )
      })
      const both = yield* Effect.fork(Effect.all(
        [Effect.either(request(pool, "a")), Effect.either(pool.httpClient("a").get("https://a.test/data"))],
        { concurrency: "unbounded" }
      ))
      yield* TestClock.adjust("1 second")
      const [typed, dropIn] = yield* Fiber.join(both)
      assert.deepStrictEqual(typed, Either.left(new NoTenant({ tenant: "a" })))
      assert.isTrue(Either.isLeft(dropIn) && HttpClientError.isHttpClientError(dropIn.left))
      assert.deepStrictEqual(
        Either.isLeft(dropIn) ? [dropIn.left.reason, dropIn.left.cause] : [],
        ["Transport", new NoTenant({ tenant: "a" })]
      )
      const next = yield* Effect.fork(request(pool, "a"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(next), 200)
      assert.strictEqual(lookups, 2)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("options that cannot work are a ConfigurationError, of the drop-in client in an HttpClientError", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: (tenant: string) => ({ ...optionsOf(tenant), origins: [] }) })
      assert.instanceOf(yield* Effect.flip(request(pool, "a")), TokenError.ConfigurationError)
      const error = yield* Effect.flip(pool.httpClient("a").get("https://a.test/data"))
      assert.instanceOf(error.cause, TokenError.ConfigurationError)
      assert.include(error.message, "origins")
      for (
        const bad of [
          { capacity: 0 },
          { capacity: 1.5 },
          { capacity: NaN },
          { capacity: Infinity },
          { idleTimeToLive: -1 },
          { idleTimeToLive: 0 },
          { idleTimeToLive: NaN },
          { idleTimeToLive: Infinity }
        ]
      ) {
        const pool = yield* TokenPool.make({ lookup: optionsOf, ...bad })
        const error = yield* Effect.flip(request(pool, "a"))
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.message, String(Object.keys(bad)[0]))
      }
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a lookup that dies does not hang the next request", () => {
    const world = servers()
    let lookups = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) => {
          if (++lookups === 1) throw new Error("a bug of the program")
          return optionsOf(tenant)
        }
      })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(request(pool, "a"))))
      assert.strictEqual(yield* request(pool, "a"), 200)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a lookup that interrupts itself interrupts none of its callers, and runs again", () => {
    const world = servers()
    let lookups = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) => ++lookups === 1 ? Effect.interrupt : Effect.succeed(optionsOf(tenant))
      })
      assert.isTrue(Either.isLeft(yield* Effect.either(request(pool, "a"))))
      assert.strictEqual(yield* request(pool, "a"), 200)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a lookup that fails after its key was forgotten leaves the key's next pipeline alone", () => {
    const world = servers()
    let lookups = 0
    return Effect.gen(function*() {
      const gate = yield* Deferred.make<never, NoTenant>()
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) => ++lookups === 1 ? Deferred.await(gate) : Effect.succeed(optionsOf(tenant))
      })
      const first = yield* Effect.fork(Effect.flip(request(pool, "a")))
      yield* Effect.yieldNow()
      yield* pool.forget("a")
      assert.strictEqual(yield* request(pool, "a"), 200)
      yield* Deferred.fail(gate, new NoTenant({ tenant: "a" }))
      assert.instanceOf(yield* Fiber.join(first), NoTenant)
      assert.strictEqual(yield* request(pool, "a"), 200)
      assert.strictEqual(lookups, 2)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("the first caller may leave: the lookup goes on for the others", () => {
    const world = servers()
    return Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) => Effect.as(Deferred.await(gate), optionsOf(tenant))
      })
      const first = yield* Effect.fork(request(pool, "a"))
      const second = yield* Effect.fork(request(pool, "a"))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(second), 200)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("cooldowns are each key's own", () => {
    const world = servers()
    world.isFailing.add("a")
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: optionsOf })
      for (let n = 0; n < 5; n++) {
        assert.instanceOf(yield* Effect.flip(request(pool, "a")), TokenError.TokenErrorResponse)
        assert.strictEqual(yield* request(pool, "b"), 200)
      }
      assert.deepStrictEqual(world.tokenRequests, ["a", "b"])
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a pipeline that is idle for idleTimeToLive is released: its lookup runs anew", () => {
    const world = servers()
    let lookups = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) => {
          lookups++
          return optionsOf(tenant)
        },
        idleTimeToLive: "10 minutes"
      })
      yield* request(pool, "a")
      yield* TestClock.adjust("9 minutes")
      yield* request(pool, "a")
      yield* TestClock.adjust("9 minutes")
      yield* request(pool, "a")
      assert.strictEqual(lookups, 1)
      yield* TestClock.adjust("10 minutes")
      yield* request(pool, "a")
      assert.strictEqual(lookups, 2)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a request releases a hundred pipelines at most, and leaves the rest to the next", () => {
    const world = servers()
    let released = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) =>
          Effect.as(Effect.addFinalizer(() => Effect.sync(() => released++)), optionsOf(tenant)),
        idleTimeToLive: "1 minute"
      })
      yield* Effect.forEach(Array.from({ length: 250 }, (_, n) => `t${n}`), (tenant) => request(pool, tenant))
      yield* TestClock.adjust("1 minute")
      for (const expected of [100, 200, 250, 250]) {
        assert.strictEqual(yield* request(pool, "other"), 200)
        yield* settle
        assert.strictEqual(released, expected)
      }
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a clock that was set back ends an idle time: a pipeline is not kept until the old time comes again", () => {
    const world = servers()
    return Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000_000)
      let released = 0
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) =>
          Effect.as(Effect.addFinalizer(() => Effect.sync(() => released++)), optionsOf(tenant))
      })
      yield* request(pool, "a")
      yield* request(pool, "b")
      yield* TestClock.setTime(1_000)
      yield* request(pool, "a")
      assert.strictEqual(released, 2)
      assert.deepStrictEqual(world.tokenRequests, ["a", "b", "a"])
      yield* request(pool, "a")
      yield* request(pool, "b")
      yield* request(pool, "a")
      assert.deepStrictEqual(world.tokenRequests, ["a", "b", "a", "b"])
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("over capacity the least recently used idle pipeline goes", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: optionsOf, capacity: 2 })
      for (const tenant of ["a", "b", "a", "c", "a", "b", "a"]) yield* request(pool, tenant)
      assert.deepStrictEqual(world.tokenRequests, ["a", "b", "c", "b"])
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a pipeline in use is never released; a pool that grows for that warns once, and comes back", () => {
    const world = servers()
    const logs = recordLogs()
    return Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) =>
          tenant.startsWith("slow")
            ? Effect.as(Deferred.await(gate), optionsOf(tenant))
            : Effect.succeed(optionsOf(tenant)),
        capacity: 2
      })
      const slow = yield* Effect.fork(
        Effect.forEach(["slow-1", "slow-2", "slow-3", "slow-4"], (tenant) => request(pool, tenant), {
          concurrency: "unbounded"
        })
      )
      yield* Effect.yieldNow()
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(yield* Fiber.join(slow), [200, 200, 200, 200])
      assert.lengthOf(logs.lines.filter(({ message }) => String(message).includes("more than 2 keys")), 1)
      // two are too many: the next new key brings the pool back to its capacity
      const order = world.apiRequests.map(({ tenant }) => tenant)
      yield* request(pool, "a")
      yield* request(pool, String(order.at(-1)))
      assert.lengthOf(world.tokenRequests, 5)
      yield* request(pool, String(order.at(0)))
      assert.lengthOf(world.tokenRequests, 6)
    }).pipe(Effect.provide(Layer.merge(world.layer, logs.layer)))
  })

  it.scoped("forget: the next request looks up and fetches anew, and those under way go on", () => {
    const world = servers()
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({ lookup: optionsOf })
      yield* request(pool, "a")
      const tokens = pool.tokens("a")
      yield* pool.forget("a")
      yield* pool.forget("never seen")
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "a-2")

      const gate = yield* Deferred.make<void>()
      const slow = yield* TokenPool.make({
        lookup: (tenant: string) => Effect.as(Deferred.await(gate), optionsOf(tenant))
      })
      const underWay = yield* Effect.fork(request(slow, "b"))
      yield* Effect.yieldNow()
      yield* slow.forget("b")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(underWay), 200)
    }).pipe(Effect.provide(world.layer))
  })

  it.effect("closing its scope closes every pipeline, and every later request fails with LayerClosed", () => {
    const world = servers()
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(TokenPool.make({ lookup: optionsOf }), scope)
      yield* request(pool, "a")
      const tokens = pool.tokens("a")
      yield* Scope.close(scope, Exit.void)
      assert.instanceOf(yield* Effect.flip(tokens.get), TokenError.LayerClosed)
      assert.instanceOf(yield* Effect.flip(request(pool, "b")), TokenError.LayerClosed)
      const error = yield* Effect.flip(pool.httpClient("a").get("https://a.test/data"))
      assert.instanceOf(error.cause, TokenError.LayerClosed)
      yield* pool.forget("a")
      yield* Scope.close(scope, Exit.void)
      assert.instanceOf(yield* Effect.flip(tokens.get), TokenError.LayerClosed)
      assert.lengthOf(world.tokenRequests, 1)
    }).pipe(Effect.provide(world.layer))
  })

  it.effect("a caller that waits for a lookup when the scope closes gets LayerClosed", () => {
    const world = servers()
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(TokenPool.make({ lookup: (_: string) => Effect.never }), scope)
      const waiting = yield* Effect.fork(Effect.flip(request(pool, "a")))
      yield* Effect.yieldNow()
      yield* Scope.close(scope, Exit.void)
      assert.instanceOf(yield* Fiber.join(waiting), TokenError.LayerClosed)
    }).pipe(Effect.provide(world.layer))
  })

  it.effect("closing its scope ends the requests of a key that was forgotten under way", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* TokenPool.make({ lookup: optionsOf }).pipe(
        Effect.provideService(HttpClient.HttpClient, HttpClient.make(() => Effect.never)),
        Scope.extend(scope)
      )
      const waiting = yield* Effect.fork(Effect.flip(request(pool, "a")))
      yield* settle
      yield* pool.forget("a")
      yield* inTime(Scope.close(scope, Exit.void), 0)
      assert.instanceOf(yield* inTime(Fiber.join(waiting), 0), TokenError.LayerClosed)
    }))

  it.effect("a request that comes while its scope closes fails with LayerClosed", () => {
    const world = servers()
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(
        TokenPool.make({ lookup: (_: string) => Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second")) }),
        scope
      )
      const first = yield* Effect.fork(Effect.flip(request(pool, "a")))
      yield* Effect.yieldNow()
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* Effect.yieldNow()
      assert.instanceOf(yield* inTime(Effect.flip(request(pool, "b")), 0), TokenError.LayerClosed)
      assert.instanceOf(yield* inTime(Fiber.join(first), 0), TokenError.LayerClosed)
      yield* inTime(Fiber.join(closing))
    }).pipe(Effect.provide(world.layer))
  })

  it.effect("closing its scope waits for what an evicted pipeline releases", () => {
    const world = servers()
    let released = 0
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* TokenPool.make({
        lookup: (tenant: string) =>
          Effect.as(
            Effect.replicateEffect(
              Effect.addFinalizer(() => Effect.delay(Effect.sync(() => released++), "1 second")),
              2
            ),
            optionsOf(tenant)
          ),
        capacity: 1
      }).pipe(Scope.extend(scope))
      yield* request(pool, "a")
      yield* request(pool, "b")
      assert.strictEqual(released, 0)
      const atTheEnd = yield* inTime(Effect.map(Scope.close(scope, Exit.void), () => released))
      assert.strictEqual(atTheEnd, 4)
    }).pipe(Effect.provide(world.layer))
  })

  it.effect("a pool that was made where nothing can be interrupted closes while a lookup hangs", () => {
    const world = servers()
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* TokenPool.make({ lookup: (_: string) => Effect.never }).pipe(
        Effect.uninterruptible,
        Scope.extend(scope)
      )
      const waiting = yield* Effect.fork(Effect.flip(request(pool, "a")))
      yield* Effect.yieldNow()
      yield* inTime(Scope.close(scope, Exit.void))
      assert.instanceOf(yield* inTime(Fiber.join(waiting)), TokenError.LayerClosed)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("a lookup that nobody waits for ends when its key is forgotten", () => {
    const world = servers()
    let ended = 0
    return Effect.gen(function*() {
      const pool = yield* TokenPool.make({
        lookup: (_: string) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended++))
      })
      const waiting = yield* Effect.fork(request(pool, "a"))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(waiting)
      assert.strictEqual(ended, 0)
      yield* pool.forget("a")
      yield* settle
      assert.strictEqual(ended, 1)
    }).pipe(Effect.provide(world.layer))
  })

  it.scoped("the services that a lookup needs are those of the pool", () => {
    const world = servers()
    class Tenants extends Context.Tag("Tenants")<Tenants, { readonly find: (tenant: string) => Alf.Options }>() {}
    return Effect.gen(function*() {
      const pool = yield* Effect.provideService(
        TokenPool.make({ lookup: (tenant: string) => Effect.map(Tenants, ({ find }) => find(tenant)) }),
        Tenants,
        { find: optionsOf }
      )
      assert.strictEqual(yield* request(pool, "a"), 200)
    }).pipe(Effect.provide(world.layer))
  })
})
