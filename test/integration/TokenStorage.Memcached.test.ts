/** Memcached, against real servers. */
import { afterEach, assert, describe, it } from "@effect/vitest"
import { Config, ConfigError, ConfigProvider, Duration, Effect, Exit, Fiber, Option, Redacted, Scope } from "effect"
import { AccessToken, TokenError, TokenStorage } from "effect-alf"
import { suite } from "effect-alf/testing/TokenStorageConformance"
import * as TokenStorageMemcached from "effect-alf/TokenStorage/Memcached"
import { Client } from "memjs"
import { type AddressInfo, createServer, type Server as NetServer } from "node:net"
import { inspect } from "node:util"
import { isMissing, memcachedServer, refusingMemcached, serverOfFile } from "../support/servers.ts"
import { build, entered, eventually, logged, newToken, outlivesADrop, same, within } from "../support/tokenStorage.ts"

describe.skipIf(isMissing("memcached"))("TokenStorage/Memcached", () => {
  const server = serverOfFile(memcachedServer())
  const address = () => `127.0.0.1:${server().port}`

  suite("Memcached", () => TokenStorageMemcached.layer({ servers: address(), prefix: "suite:" }), {
    describe,
    it,
    shared: true
  })

  suite("Memcached, encrypted", () =>
    TokenStorage.encrypted(TokenStorageMemcached.layer({ servers: [address()] }), {
      keys: [Redacted.make("00".repeat(32))]
    }), { describe, it, shared: true })

  const client = Effect.acquireRelease(
    Effect.sync(() => Client.create(address())),
    (client) => Effect.sync(() => client.close())
  )
  const storage = (options: TokenStorageMemcached.Options = {}) =>
    build(TokenStorageMemcached.layer({ servers: address(), ...options }))
  const stored = (client: Client, key: string) =>
    Effect.promise(async () => (await client.get(key)).value?.toString() ?? null)

  describe("what the server holds", () => {
    it.scopedLive("a token with its expiry, under the prefix", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const { set } = yield* storage({ prefix: "app:" })
        yield* set("short", newToken({ lifetime: "1 second" }))
        yield* set("refreshed", newToken({ lifetime: "1 second", refreshToken: "r" }))
        yield* set("over", newToken({ lifetime: "0 millis" }))
        yield* set("month", newToken({ lifetime: "31 days" }))
        assert.isNotNull(yield* stored(memcached, "app:month"))
        yield* Effect.sleep("2100 millis")
        assert.isNull(yield* stored(memcached, "app:short"))
        assert.isNull(yield* stored(memcached, "app:over"))
        assert.isNotNull(yield* stored(memcached, "app:refreshed"))
        assert.isNotNull(yield* stored(memcached, "app:month"))
      }))

    it.scopedLive("keys of any length", () =>
      Effect.gen(function*() {
        const { exclusive, get, set } = yield* storage()
        const long = "ä".repeat(200)
        const [first, second] = [newToken(), newToken()]
        yield* exclusive(long)(set(long, first))
        yield* set(`${long}2`, second)
        same(yield* get(long), first)
        // as it is, as long as its lease has a name that the server takes
        const memcached = yield* client
        const longest = "x".repeat(250 - ":lease".length)
        yield* exclusive(longest)(set(longest, first))
        assert.strictEqual(yield* stored(memcached, longest), AccessToken.encode(first))
        yield* exclusive(`${longest}x`)(set(`${longest}x`, second))
        assert.isNull(yield* stored(memcached, `${longest}x`))
        same(yield* get(`${longest}x`), second)
      }))

    it.scopedLive("a key on one of several servers", () =>
      Effect.gen(function*() {
        const other = yield* memcachedServer()
        const { get, set } = yield* storage({ servers: [address(), `127.0.0.1:${other.port}`] })
        const tokens = Array.from({ length: 20 }, () => newToken())
        for (const [n, token] of tokens.entries()) yield* set(`spread ${n}`, token)
        for (const [n, token] of tokens.entries()) same(yield* get(`spread ${n}`), token)
        const memcached = yield* client
        const here = yield* Effect.forEach(tokens, (_, n) => stored(memcached, `spread ${n}`))
        const count = here.filter((text) => text !== null).length
        assert.isTrue(0 < count && count < 20, `${count}`)
      }))

    it.scopedLive("what is no token is a failure of get, and never removed", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const { get, remove } = yield* storage()
        const token = newToken({ lifetime: "1 hour" })
        const future = AccessToken.encode(token).replace("\"version\":2", "\"version\":3")
        assert.notStrictEqual(future, AccessToken.encode(token))
        for (const garbage of ["", "garbage", "null", "{}", future]) {
          yield* Effect.promise(() => memcached.set("garbage", garbage))
          const error = yield* Effect.flip(get("garbage"))
          assert.strictEqual(error.operation, "get")
          yield* remove("garbage", token)
          assert.strictEqual(yield* stored(memcached, "garbage"), garbage)
        }
      }))

    it.scopedLive("a token that is too large is a failure of set, and nothing of it is shown", () =>
      Effect.gen(function*() {
        const { get, set } = yield* storage()
        const error = yield* Effect.flip(set("large", newToken({ value: "hunter2".repeat(300_000) })))
        assert.include(error.message, "Memcached: status 3")
        assert.notInclude(inspect(error, { depth: 9 }), "hunter2")
        yield* eventually(Effect.timeout(get("large"), "1 second"))
      }))
  })

  describe("the lease", () => {
    it.scopedLive("of a holder that died is taken when its term is over, not before", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const { exclusive } = yield* storage()
        yield* Effect.promise(() => memcached.add("dead:lease", "dead", { expires: 2 }))
        const [waited] = yield* Effect.timed(exclusive("dead")(Effect.void))
        assert.isTrue(within(waited, 900, 8000), Duration.format(waited))
      }))

    it.scopedLive("lasts as long as its holder works, however long that takes", () =>
      Effect.gen(function*() {
        const [first, second] = [yield* storage({ term: "3 seconds" }), yield* storage({ term: "3 seconds" })]
        const holder = yield* entered(first.exclusive("slow"))
        const waiting = yield* Effect.fork(second.exclusive("slow")(Effect.void))
        yield* Effect.sleep("5 seconds")
        assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
        yield* Fiber.interrupt(holder)
        yield* Fiber.join(waiting)
      }))

    it.scopedLive("that another one has by now is neither renewed nor given back by the first", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const { exclusive } = yield* storage({ term: "600 millis" })
        const { lines: none } = yield* logged(exclusive("kept")(Effect.sleep("400 millis")))
        assert.strictEqual(none, "")
        const { lines } = yield* logged(
          exclusive("lost")(Effect.zipRight(
            Effect.promise(() => memcached.set("lost:lease", "another", { expires: 60 })),
            Effect.sleep("400 millis")
          ))
        )
        assert.include(lines, "the lease ended while its holder still used it")
        assert.strictEqual(yield* stored(memcached, "lost:lease"), "another")
      }))

    it.scopedLive("of a caller that was interrupted while it asked is given back", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const { exclusive } = yield* storage()
        for (let i = 0; i < 20; i++) {
          const fiber = yield* Effect.fork(exclusive("interrupted")(Effect.never))
          yield* Effect.repeatN(Effect.yieldNow(), i)
          yield* Fiber.interrupt(fiber)
        }
        yield* eventually(
          Effect.filterOrFail(stored(memcached, "interrupted:lease"), (text) => text === null, () => "")
        )
      }))
  })

  describe("what is sent", () => {
    /** A client that hands each request to `before` first, with the number of its operation. */
    const listening = (client: Client, before: (opcode: number, request: Buffer) => Promise<unknown>) => ({
      seq: 1,
      incrSeq: () => {},
      perform: (...[key, request, seq, callback]: Parameters<TokenStorageMemcached.MemjsClient["perform"]>) => {
        const bytes = Buffer.from(request)
        void before(bytes.readUInt8(1), bytes).then(() => client.perform(key, bytes, seq, callback))
      }
    })

    it.scopedLive("a lease lives a second longer than its term, by a clock that ticks once in a second", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const expiries: Array<number> = []
        const { exclusive } = yield* build(TokenStorageMemcached.layerClient(
          listening(memcached, async (opcode, request) => {
            if (opcode === 0x02) expiries.push(request.readUInt32BE(28))
          }),
          { term: "4 seconds" }
        ))
        yield* exclusive("expiry")(Effect.void)
        assert.deepStrictEqual(expiries, [5])
      }))

    it.scopedLive("a lease that is taken while it is renewed is lost", () =>
      Effect.gen(function*() {
        const memcached = yield* client
        const { exclusive } = yield* build(TokenStorageMemcached.layerClient(
          listening(memcached, async (opcode) => {
            if (opcode === 0x01) await memcached.set("race:lease", "another", { expires: 60 })
          }),
          { term: "600 millis" }
        ))
        const { lines } = yield* logged(exclusive("race")(Effect.sleep("400 millis")))
        assert.include(lines, "the lease ended while its holder still used it")
        assert.strictEqual(yield* stored(memcached, "race:lease"), "another")
      }))
  })

  describe("a server that is down", () => {
    it.scopedLive("is a warning, and each call fails at once; when it is back all is as before", () =>
      Effect.gen(function*() {
        const own = yield* memcachedServer()
        const { exclusive, get, set } = yield* build(
          TokenStorageMemcached.layer({ servers: `127.0.0.1:${own.port}` })
        )
        const token = newToken({ lifetime: "1 hour" })
        yield* set("key", token)

        yield* own.kill
        const [took, error] = yield* Effect.timed(Effect.flip(get("key")))
        assert.isTrue(within(took, 0, 700), Duration.format(took))
        assert.include(error.message, "Memcached")
        const { lines, result } = yield* logged(Effect.timed(exclusive("key")(Effect.succeed(1))))
        assert.isTrue(within(result[0], 0, 700), Duration.format(result[0]))
        assert.strictEqual(result[1], 1)
        assert.include(lines, "The token storage failed at exclusive: Memcached: ECONNREFUSED")

        yield* own.start
        yield* eventually(Effect.timeout(set("key", token), "1 second"))
        assert.isTrue(Option.isSome(yield* get("key")))
        assert.notInclude((yield* logged(exclusive("key")(Effect.void))).lines, "failed")
      }))

    it.scopedLive("is noticed in the middle of a section, which goes on", () =>
      Effect.gen(function*() {
        const own = yield* memcachedServer()
        const { exclusive } = yield* build(
          TokenStorageMemcached.layer({ servers: `127.0.0.1:${own.port}`, term: "300 millis" })
        )
        const { lines, result } = yield* logged(
          exclusive("key")(Effect.zipRight(own.kill, Effect.delay(Effect.succeed(1), "500 millis")))
        )
        assert.strictEqual(result, 1)
        assert.include(lines, "failed at exclusive")
      }))

    it.scopedLive("that hangs is given up: by a command after 3 seconds, by all who want the section after one at most", () =>
      Effect.gen(function*() {
        const own = yield* memcachedServer()
        const { exclusive, get } = yield* build(TokenStorageMemcached.layer({ servers: `127.0.0.1:${own.port}` }))
        yield* get("key")
        yield* own.freeze
        const [took] = yield* Effect.timed(Effect.exit(get("key")))
        assert.isTrue(within(took, 2900, 5000), Duration.format(took))
        const [all] = yield* Effect.timed(
          Effect.all(Array.from({ length: 20 }, () => exclusive("key")(Effect.void)), { concurrency: "unbounded" })
        )
        assert.isTrue(within(all, 0, 4000), Duration.format(all))
        yield* own.thaw
        yield* eventually(Effect.timeout(get("key"), "1 second"))
      }))

    it.scopedLive("or whose connection was dropped silently: it is given up after 3 seconds, and made anew", () =>
      outlivesADrop(server().port, (port) => TokenStorageMemcached.layer({ servers: `127.0.0.1:${port}` })))
  })

  describe("the environment", () => {
    const variables = ["MEMCACHE_USERNAME", "MEMCACHE_PASSWORD", "MEMCACHE_SERVERS"] as const
    afterEach(() => {
      for (const name of variables) delete process.env[name]
    })

    it.scopedLive("gives no credentials and no servers to the client", () =>
      Effect.gen(function*() {
        const received: Array<Buffer> = []
        const recorder = yield* Effect.acquireRelease(
          Effect.async<NetServer>((resume) => {
            const server = createServer((socket) => {
              socket.on("error", () => {}).on("data", (bytes) => {
                received.push(bytes)
                socket.pause()
              })
            }).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => server.close())
        )
        const { port } = recorder.address() as AddressInfo
        process.env["MEMCACHE_USERNAME"] = "user"
        process.env["MEMCACHE_PASSWORD"] = "hunter2"
        process.env["MEMCACHE_SERVERS"] = address()
        // this server never responds
        yield* Effect.ignore(
          Effect.timeout((yield* storage({ servers: `127.0.0.1:${port}` })).get("key"), "500 millis")
        )
        // the first command is the get itself, not a SASL one
        const sent = Buffer.concat(received)
        assert.strictEqual(sent.readUInt8(1), 0x00)
        assert.notInclude(sent.toString("latin1"), "hunter2")
      }))
  })

  it.scopedLive("layerConfig reads its options from the configuration", () =>
    Effect.gen(function*() {
      const token = newToken()
      const { set } = yield* storage({ prefix: "config:" })
      yield* set("key", token)
      const configured = build(TokenStorageMemcached.layerConfig({
        servers: Config.string("SERVERS"),
        prefix: Config.string("PREFIX"),
        term: "5 seconds"
      }))
      const provider = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries)))
      const { get } = yield* provider([["SERVERS", address()], ["PREFIX", "config:"]])(configured)
      same(yield* get("key"), token)
      assert.isTrue(ConfigError.isConfigError(yield* Effect.flip(provider([["PREFIX", "x"]])(configured))))
    }))

  describe("what cannot work", () => {
    it.scopedLive("a wrong password is a failure of each call, and in no text", () =>
      Effect.gen(function*() {
        const port = yield* refusingMemcached
        const { lines, result } = yield* logged(Effect.flatMap(
          build(
            TokenStorageMemcached.layer({
              servers: `127.0.0.1:${port}`,
              username: "user",
              password: Redacted.make("hunter2")
            })
          ),
          ({ exclusive, get }) => Effect.zipRight(exclusive("key")(Effect.void), Effect.flip(get("key")))
        ))
        assert.include(result.message, "the password was refused")
        assert.include(lines, "the password was refused")
        assert.notInclude(lines + inspect(result, { depth: 9 }), "hunter2")
      }))

    for (const options of [{ username: "user" }, { password: Redacted.make("hunter2") }]) {
      it.scopedLive(`${Object.keys(options).join()} alone is a ConfigurationError`, () =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(build(TokenStorageMemcached.layer(options)))
          assert.instanceOf(error, TokenError.ConfigurationError)
          assert.include(error.issue, "username and password go together")
        }))
    }

    const bad: ReadonlyArray<TokenStorageMemcached.Options> = [
      { servers: "" },
      { servers: [] },
      { servers: "user:hunter2@localhost" },
      { servers: "localhost:0" },
      { servers: "localhost:99999" },
      { servers: ["localhost", "memcached://localhost:11211"] },
      { term: -1 }
    ]
    for (const options of [{}, { servers: "localhost" }, { servers: "a.example:65535,b.example" }]) {
      it.scopedLive(`${inspect(options)} is a list of servers`, () => build(TokenStorageMemcached.layer(options)))
    }

    for (const options of bad) {
      it.scopedLive(`${inspect(options)} is a ConfigurationError`, () =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(build(TokenStorageMemcached.layer(options)))
          assert.instanceOf(error, TokenError.ConfigurationError)
          assert.match(error.issue, "term" in options ? /^term / : /^servers is not a list of servers/)
          assert.notInclude(inspect(error, { depth: 9 }), "hunter2")
        }))
    }
  })

  it.scopedLive("connections of its own are closed with the layer, and not opened again", () =>
    Effect.gen(function*() {
      const memcached = yield* client
      const connections = Effect.async<number>((resume) =>
        memcached.stats((_error, _server, stats) => resume(Effect.succeed(Number(stats?.["curr_connections"]))))
      )
      const before = yield* connections
      const scope = yield* Scope.make()
      const closing = yield* Scope.extend(storage(), scope)
      yield* closing.set("closed", newToken())
      const holder = yield* entered(closing.exclusive("closed"))
      assert.strictEqual(yield* connections, before + 1)
      yield* Scope.close(scope, Exit.void)
      yield* eventually(Effect.filterOrFail(connections, (count) => count === before, () => "open"))
      // the lease that it gives back now is too late
      yield* Fiber.interrupt(holder)
      yield* Effect.sleep("50 millis")
      assert.strictEqual(yield* connections, before)
      assert.include((yield* Effect.flip(closing.get("closed"))).message, "Memcached: no response")
    }))

  it.scopedLive("layerClient uses a client and leaves it open", () =>
    Effect.gen(function*() {
      const memcached = yield* client
      const token = newToken({ lifetime: "1 hour" })
      yield* Effect.scoped(
        Effect.flatMap(
          build(TokenStorageMemcached.layerClient(memcached, { prefix: "given:" })),
          ({ exclusive, set }) => exclusive("key")(set("key", token))
        )
      )
      assert.strictEqual(yield* stored(memcached, "given:key"), AccessToken.encode(token))
    }))
})
