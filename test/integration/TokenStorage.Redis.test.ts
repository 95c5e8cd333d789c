/** Redis, against real servers. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Duration, Effect, Exit, Fiber, Option, Redacted, Scope } from "effect"
import { AccessToken, TokenError, TokenStorage } from "effect-alf"
import { suite } from "effect-alf/testing/TokenStorageConformance"
import * as TokenStorageRedis from "effect-alf/TokenStorage/Redis"
import { Redis } from "ioredis"
import { inspect } from "node:util"
import { isMissing, redisServer, serverOfFile } from "../support/servers.ts"
import { build, entered, eventually, logged, newToken, outlivesADrop, within } from "../support/tokenStorage.ts"

describe.skipIf(isMissing("redis-server"))("TokenStorage/Redis", () => {
  const server = serverOfFile(redisServer())

  suite("Redis", () => TokenStorageRedis.layer({ port: server().port, prefix: "suite:" }), {
    describe,
    it,
    shared: true
  })

  suite(
    "Redis, encrypted",
    () =>
      TokenStorage.encrypted(TokenStorageRedis.layer({ url: `redis://127.0.0.1:${server().port}/1` }), {
        keys: [Redacted.make("00".repeat(32))]
      }),
    { describe, it, shared: true }
  )

  const client = Effect.acquireRelease(
    Effect.sync(() => new Redis(server().port)),
    (client) => Effect.sync(() => client.disconnect())
  )
  const storage = (options: TokenStorageRedis.Options = {}) =>
    build(TokenStorageRedis.layer({ port: server().port, ...options }))

  describe("what the server holds", () => {
    it.scopedLive("a token with its expiry, under the prefix", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { set } = yield* storage({ prefix: "app:" })
        yield* set("expires", newToken({ lifetime: "1 hour" }))
        yield* set("stays", newToken({}))
        yield* set("refreshed", newToken({ lifetime: "1 hour", refreshToken: "r" }))
        yield* set("over", newToken({ lifetime: "0 millis" }))
        const ttl = yield* Effect.promise(() => redis.pttl("app:expires"))
        assert.isTrue(3_590_000 < ttl && ttl <= 3_600_000, `${ttl}`)
        assert.strictEqual(yield* Effect.promise(() => redis.pttl("app:stays")), -1)
        assert.strictEqual(yield* Effect.promise(() => redis.pttl("app:refreshed")), -1)
        const left = Effect.promise(() => redis.exists("app:over"))
        yield* eventually(Effect.filterOrFail(left, (count) => count === 0, () => "it is still there"))
      }))

    it.scopedLive("a lease with its term while the section is entered, and none afterwards", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { exclusive } = yield* storage({ term: "5 seconds" })
        const during = yield* exclusive("held")(Effect.promise(() => redis.pttl("held:lease")))
        assert.isTrue(4_000 < during && during <= 5_000, `${during}`)
        assert.strictEqual(yield* Effect.promise(() => redis.exists("held:lease")), 0)
      }))

    it.scopedLive("what is no token is a failure of get, and never removed", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { get, remove } = yield* storage()
        const token = newToken({ lifetime: "1 hour" })
        const future = AccessToken.encode(token).replace("\"version\":2", "\"version\":3")
        assert.notStrictEqual(future, AccessToken.encode(token))
        for (const garbage of ["", "garbage", "null", "{}", future]) {
          yield* Effect.promise(() => redis.set("garbage", garbage))
          const error = yield* Effect.flip(get("garbage"))
          assert.strictEqual(error._tag, "TokenStorageError")
          assert.strictEqual(error.operation, "get")
          yield* remove("garbage", token)
          assert.strictEqual(yield* Effect.promise(() => redis.get("garbage")), garbage)
        }
        yield* Effect.promise(() => redis.del("garbage"))
        yield* Effect.promise(() => redis.lpush("garbage", "a list"))
        assert.include((yield* Effect.flip(get("garbage"))).message, "WRONGTYPE")
        // such an answer is no reason to give the connection up
        yield* Effect.promise(() => redis.del("garbage"))
        assert.isTrue(Option.isNone(yield* get("garbage")))
      }))
  })

  describe("the lease", () => {
    it.scopedLive("of a holder that died is taken when its term is over, not before", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { exclusive } = yield* storage()
        yield* Effect.promise(() => redis.set("dead:lease", "dead", "PX", 700))
        const [waited] = yield* Effect.timed(exclusive("dead")(Effect.void))
        assert.isTrue(within(waited, 600, 8000), Duration.format(waited))
      }))

    it.scopedLive("of a holder whose connection ended is taken when its term is over", () =>
      Effect.gen(function*() {
        const { exclusive } = yield* storage({ term: "2 seconds" })
        const scope = yield* Scope.make()
        const dying = yield* Scope.extend(storage({ term: "2 seconds" }), scope)
        const holder = yield* entered(dying.exclusive("closed"))
        yield* Scope.close(scope, Exit.void)
        const [waited] = yield* Effect.timed(exclusive("closed")(Effect.void))
        assert.isTrue(within(waited, 600, 8000), Duration.format(waited))
        yield* Fiber.interruptFork(holder)
      }))

    it.scopedLive("lasts as long as its holder works, however long that takes", () =>
      Effect.gen(function*() {
        const [first, second] = [yield* storage({ term: "1 second" }), yield* storage({ term: "1 second" })]
        const holder = yield* entered(first.exclusive("slow"))
        const waiting = yield* Effect.fork(second.exclusive("slow")(Effect.void))
        yield* Effect.sleep("2500 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
        yield* Fiber.interrupt(holder)
        yield* Fiber.join(waiting)
      }))

    it.scopedLive("that another one has by now is neither renewed nor given back by the first", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { exclusive } = yield* storage({ term: "600 millis" })
        const { lines: none } = yield* logged(exclusive("kept")(Effect.sleep("400 millis")))
        assert.strictEqual(none, "")
        const { lines } = yield* logged(
          exclusive("lost")(Effect.zipRight(
            Effect.promise(() => redis.set("lost:lease", "another", "PX", 60_000)),
            Effect.sleep("400 millis")
          ))
        )
        assert.include(lines, "the lease ended while its holder still used it")
        assert.strictEqual(yield* Effect.promise(() => redis.get("lost:lease")), "another")
      }))

    it.scopedLive("of a caller that was interrupted while it asked is given back", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { exclusive } = yield* storage()
        for (let i = 0; i < 20; i++) {
          const fiber = yield* Effect.fork(exclusive("interrupted")(Effect.never))
          yield* Effect.repeatN(Effect.yieldNow(), i)
          yield* Fiber.interrupt(fiber)
        }
        const leases = Effect.promise(() => redis.exists("interrupted:lease"))
        yield* eventually(Effect.filterOrFail(leases, (count) => count === 0, () => "it is still there"))
      }))
  })

  describe("a server that is down", () => {
    it.scopedLive("is a warning, and each call fails at once; when it is back all is as before", () =>
      Effect.gen(function*() {
        const own = yield* redisServer()
        const { exclusive, get, set } = yield* build(TokenStorageRedis.layer({ port: own.port }))
        const token = newToken({ lifetime: "1 hour" })
        yield* set("key", token)

        yield* own.kill
        yield* Effect.sleep("50 millis")
        const [took, error] = yield* Effect.timed(Effect.flip(get("key")))
        assert.isTrue(within(took, 0, 900), Duration.format(took))
        assert.include(error.message, "Redis: no connection")
        const { lines, result } = yield* logged(Effect.timed(exclusive("key")(Effect.succeed(1))))
        assert.isTrue(within(result[0], 0, 900), Duration.format(result[0]))
        assert.strictEqual(result[1], 1)
        assert.include(lines, "The token storage failed at exclusive: Redis")

        yield* own.start
        yield* eventually(set("key", token))
        assert.isTrue(Option.isSome(yield* get("key")))
        assert.notInclude((yield* logged(exclusive("key")(Effect.void))).lines, "failed")
      }))

    it.scopedLive("does not fail the layer, and is used as soon as it is there", () =>
      Effect.gen(function*() {
        const own = yield* redisServer()
        yield* own.kill
        const { lines, result } = yield* logged(build(TokenStorageRedis.layer({ port: own.port })))
        assert.match(lines, /Redis cannot be used.*ECONNREFUSED.* module=TokenStorage\/Redis package=effect-alf/)
        yield* Effect.flip(result.get("key"))
        yield* own.start
        yield* eventually(result.set("key", newToken({})))
      }))

    it.scopedLive("that hangs is given up: by a command after 3 seconds, by all who want the section after one at most", () =>
      Effect.gen(function*() {
        const own = yield* redisServer()
        const { exclusive, get } = yield* build(TokenStorageRedis.layer({ port: own.port }))
        const warnings: Array<Error> = []
        const warn = (warning: Error) => void warnings.push(warning)
        yield* Effect.acquireRelease(
          Effect.sync(() => process.on("warning", warn)),
          () => Effect.sync(() => process.off("warning", warn))
        )
        yield* own.freeze
        const [took, errors] = yield* Effect.timed(
          Effect.all(Array.from({ length: 20 }, () => Effect.flip(get("key"))), { concurrency: "unbounded" })
        )
        assert.isTrue(within(took, 2900, 5000), Duration.format(took))
        for (const error of errors) assert.include(error.message, "Redis: no response in time")
        // such as of too many listeners, for each that has given the connection up
        assert.deepStrictEqual(warnings, [])
        const { lines } = yield* logged(build(TokenStorageRedis.layer({ port: own.port })))
        assert.include(lines, "Redis cannot be used, tokens are not shared until it can: no response in time")
        const [all] = yield* Effect.timed(
          Effect.all(Array.from({ length: 20 }, () => exclusive("key")(Effect.void)), { concurrency: "unbounded" })
        )
        assert.isTrue(within(all, 0, 4000), Duration.format(all))
        yield* own.thaw
        yield* eventually(get("key"))
        // what was sent and never answered has been given back
        assert.notInclude((yield* logged(Effect.timeout(exclusive("key")(Effect.void), "3 seconds"))).lines, "failed")
      }))

    it.scopedLive("or whose connection was dropped silently: it is given up after 3 seconds, and made anew", () =>
      outlivesADrop(server().port, (port) => TokenStorageRedis.layer({ port })))
  })

  describe("what cannot work", () => {
    it.scopedLive("a wrong password is a warning, and in no text", () =>
      Effect.gen(function*() {
        const own = yield* redisServer("--requirepass", "right")
        for (
          const options of [
            { url: Redacted.make(`redis://:wrong-hunter2@127.0.0.1:${own.port}`) },
            { url: `redis://user:wrong-hunter2@127.0.0.1:${own.port}/0` },
            { port: own.port, password: Redacted.make("wrong-hunter2") }
          ]
        ) {
          const { lines, result } = yield* logged(build(TokenStorageRedis.layer(options)))
          assert.match(lines, /WRONGPASS|NOAUTH/)
          const error = yield* Effect.flip(result.get("key"))
          assert.notInclude(lines + inspect(error, { depth: 9 }) + JSON.stringify(error), "hunter2")
        }
        const { set } = yield* build(TokenStorageRedis.layer({ port: own.port, password: Redacted.make("right") }))
        yield* set("key", newToken({}))
      }))

    it.scopedLive("each option reaches the server", () =>
      Effect.gen(function*() {
        const redis = yield* client
        yield* Effect.promise(() => redis.call("acl", "setuser", "app", "on", ">secret", "~*", "+@all"))
        const token = newToken()
        const { set } = yield* storage({
          host: "127.0.0.1",
          username: "app",
          password: Redacted.make("secret"),
          db: 3
        })
        yield* set("option", token)
        yield* Effect.promise(() => redis.select(3))
        assert.strictEqual(yield* Effect.promise(() => redis.get("option")), AccessToken.encode(token))

        const elsewhere = yield* logged(storage({ host: "127.0.0.2" }))
        assert.include(elsewhere.lines, "ECONNREFUSED")
        // the server speaks no TLS
        const encrypted = yield* logged(storage({ tls: {} }))
        assert.include(encrypted.lines, "Redis cannot be used")
        const stranger = yield* logged(storage({ username: "nobody", password: Redacted.make("secret") }))
        assert.include(stranger.lines, "WRONGPASS")
      }))

    const bad: ReadonlyArray<TokenStorageRedis.Options> = [
      { url: "other-redis://localhost" },
      { url: "" },
      { url: "hunter2" },
      { url: "http://:hunter2@localhost:6379" },
      { url: "redis://:hunter2@localhost:99999" },
      { url: "redis://:hunter2@localhost/database" },
      { url: Redacted.make("redis://:%zzhunter2@localhost") },
      { port: 0 },
      { port: Number.NaN },
      { term: 0 },
      { term: "for ever" as never }
    ]
    for (const options of bad) {
      it.scopedLive(`${inspect(options)} is a ConfigurationError`, () =>
        Effect.gen(function*() {
          const { lines, result } = yield* logged(Effect.flip(build(TokenStorageRedis.layer(options))))
          assert.instanceOf(result, TokenError.ConfigurationError)
          const [field = ""] = Object.keys(options)
          assert.match(result.issue, new RegExp(`^${field} is `))
          assert.strictEqual(lines, "")
          assert.notInclude(inspect(result, { depth: 9 }) + JSON.stringify(result), "hunter2")
        }))
    }

    it.scopedLive("an error of the server shows nothing of the command", () =>
      Effect.gen(function*() {
        const own = yield* redisServer("--rename-command", "SET", "", "--rename-command", "EVAL", "")
        const { set } = yield* build(TokenStorageRedis.layer({ port: own.port }))
        const error = yield* Effect.flip(set("key", newToken({ value: "hunter2" })))
        assert.include(error.message, "ERR")
        assert.notInclude(inspect(error, { depth: 9 }) + Cause.pretty(Cause.fail(error)), "hunter2")
      }))
  })

  describe("connections", () => {
    it.scopedLive("a connection of its own is closed with the layer", () =>
      Effect.gen(function*() {
        const own = yield* redisServer()
        const redis = new Redis(own.port)
        const connections = Effect.promise(async () =>
          (await redis.call("client", "list") as string).trim().split("\n")
        )
        yield* Effect.scoped(Effect.gen(function*() {
          yield* build(TokenStorageRedis.layer({ port: own.port }))
          assert.lengthOf(yield* connections, 2)
        }))
        yield* eventually(Effect.filterOrFail(connections, (list) => list.length === 1, () => "still open"))
        redis.disconnect()
      }))

    it.scopedLive("layerClient uses a client and leaves it open", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const token = newToken({ lifetime: "1 hour" })
        yield* Effect.scoped(
          Effect.flatMap(build(TokenStorageRedis.layerClient(redis, { prefix: "given:" })), ({ exclusive, set }) =>
            exclusive("key")(set("key", token)))
        )
        assert.strictEqual(
          yield* Effect.promise(() =>
            redis.get("given:key")
          ),
          AccessToken.encode(token)
        )
      }))

    it.scopedLive("layerConfig takes plain values and configs side by side", () =>
      Effect.gen(function*() {
        const redis = yield* client
        const { set } = yield* build(
          TokenStorageRedis.layerConfig({ url: Config.redacted("REDIS_URL"), prefix: "config:", term: "5 seconds" })
        )
        yield* set("key", newToken({ lifetime: "1 hour" }))
        assert.strictEqual(yield* Effect.promise(() => redis.exists("config:key")), 1)
      }).pipe((test) =>
        Effect.withConfigProvider(
          test,
          ConfigProvider.fromMap(new Map([["REDIS_URL", `redis://127.0.0.1:${server().port}`]]))
        )
      ))
  })
})
