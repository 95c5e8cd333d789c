import { FileSystem, KeyValueStore } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Metric,
  Option,
  Redacted,
  TestClock
} from "effect"
import { AccessToken, Alf, Grant, TokenEndpoint, TokenError, TokenService, TokenStorage } from "effect-alf"
import {
  advancing,
  api,
  bearer,
  bearers,
  json,
  serve,
  type Server,
  settle,
  tokenEndpoint,
  unauthorized
} from "../support/scriptedServer.ts"

type Storage = Effect.Effect.Success<typeof TokenStorage.TokenStorage>

const value = (token: AccessToken.AccessToken) => Redacted.value(token.value)

const options = {
  tokenEndpoint,
  clientId: "client",
  clientSecret: Redacted.make("swordfish"),
  origins: [api]
} as const

/** One process: a pipeline of its own over a storage that it shares. */
const peer = <E>(
  server: Server,
  storage: Layer.Layer<never, E>,
  more: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
) =>
  Effect.flatMap(
    Layer.build(storage),
    (context) => Alf.make({ ...options, ...more }).pipe(Effect.provide(context), Effect.provide(server.layer))
  )

/** A layer that gives the same storage to all who provide it. */
const shared = (storage: Layer.Layer<never, unknown>) =>
  Effect.map(Layer.build(storage), (context) => Layer.succeedContext(context) as Layer.Layer<never>)

/** A user's own storage, as the documents describe one. */
const own = () => {
  const held = new Map<string, AccessToken.AccessToken>()
  const calls: Array<string> = []
  const lock = Effect.unsafeMakeSemaphore(1)
  const service: Storage = {
    get: (key) => Effect.sync(() => (calls.push("get"), Option.fromNullable(held.get(key)))),
    set: (key, token) => Effect.sync(() => void (calls.push("set"), held.set(key, token))),
    remove: (key, token) =>
      Effect.sync(() => {
        calls.push("remove")
        const found = held.get(key)
        if (found !== undefined && value(found) === value(token)) held.delete(key)
      }),
    exclusive: () => (effect) =>
      Effect.zipRight(Effect.sync(() => void calls.push("exclusive")), lock.withPermits(1)(effect))
  }
  return { held, calls, service, layer: Layer.succeed(TokenStorage.TokenStorage, service) }
}

const token = (text: string, seconds = 3600) =>
  Effect.map(DateTime.now, (issuedAt) =>
    new AccessToken.AccessToken({
      value: Redacted.make(text),
      type: "Bearer",
      scope: ["a", "b"],
      issuedAt,
      expiresAt: Option.some(DateTime.add(issuedAt, { seconds })),
      refreshToken: Option.some(Redacted.make("refresh"))
    }))

describe("without a storage", () => {
  it.scoped("two services share nothing", () =>
    Effect.gen(function*() {
      const server = serve()
      const a = yield* Alf.make(options).pipe(Effect.provide(server.layer))
      const b = yield* Alf.make(options).pipe(Effect.provide(server.layer))
      yield* a.tokens.get
      yield* b.tokens.get
      assert.strictEqual(server.tokenRequests.length, 2)
    }))
})

describe("a storage of one's own", () => {
  it.effect("is provided to the layer", () =>
    Effect.gen(function*() {
      const server = serve()
      const storage = own()
      const layer = Alf.layer(options).pipe(Layer.provide(server.layer), Layer.provide(storage.layer))
      const get = Effect.flatMap(TokenService.TokenService, (_) => _.get)
      assert.strictEqual(value(yield* get.pipe(Effect.provide(layer))), "token-1")
      assert.strictEqual(storage.held.size, 1)
      assert.isTrue(storage.calls.includes("exclusive"))
      assert.strictEqual(value(yield* get.pipe(Effect.provide(layer))), "token-1")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("own memory, then storage, then the exclusive section with the storage again", () =>
    Effect.gen(function*() {
      const server = serve()
      const storage = own()
      const { tokens } = yield* peer(server, storage.layer)
      yield* tokens.get
      assert.deepStrictEqual(storage.calls, ["get", "exclusive", "get", "get", "set"])
      yield* tokens.get
      assert.deepStrictEqual(storage.calls, ["get", "exclusive", "get", "get", "set"])
    }))

  it.scoped("a token that another has stored is used", () =>
    Effect.gen(function*() {
      const server = serve()
      const storage = own()
      const a = yield* peer(server, storage.layer)
      const b = yield* peer(server, storage.layer)
      yield* a.tokens.get
      assert.strictEqual(value(yield* b.tokens.get), "token-1")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("an expired one is not", () =>
    Effect.gen(function*() {
      const server = serve()
      const storage = own()
      const a = yield* peer(server, storage.layer)
      yield* a.tokens.get
      yield* TestClock.adjust("2 hours")
      const b = yield* peer(server, storage.layer)
      assert.strictEqual(value(yield* b.tokens.get), "token-2")
    }))

  it.scoped("a late 401 takes the newer token of another", () =>
    Effect.gen(function*() {
      const valid = new Set(["Bearer token-1"])
      const server = serve({ api: (sent) => valid.has(sent.headers["authorization"]!) ? json({}) : unauthorized() })
      const storage = own()
      const a = yield* peer(server, storage.layer)
      const b = yield* peer(server, storage.layer)
      yield* a.httpClient.get(api)
      yield* b.httpClient.get(api)
      valid.clear()
      valid.add("Bearer token-2")
      assert.strictEqual((yield* a.httpClient.get(api)).status, 200)
      assert.strictEqual((yield* b.httpClient.get(api)).status, 200)
      assert.strictEqual(server.tokenRequests.length, 2)
      assert.deepStrictEqual([...storage.held.values()].map(value), ["token-2"])
      assert.deepStrictEqual(bearers(server), [
        "Bearer token-1",
        "Bearer token-1",
        "Bearer token-1",
        "Bearer token-2",
        "Bearer token-1",
        "Bearer token-2"
      ])
    }))

  it.scoped("invalidate forgets there too", () =>
    Effect.gen(function*() {
      const server = serve()
      const storage = own()
      const { tokens } = yield* peer(server, storage.layer)
      yield* tokens.get
      yield* tokens.invalidate
      assert.strictEqual(storage.held.size, 0)
      assert.strictEqual(value(yield* tokens.get), "token-2")
    }))

  it.scoped("keys tell clients apart, and say nothing", () =>
    Effect.gen(function*() {
      const server = serve()
      const storage = own()
      const variants: ReadonlyArray<Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>> = [
        {},
        { clientId: "other" },
        { scope: "a" },
        { scope: "a b" },
        { audience: "a" },
        { resource: "a" },
        { params: { a: "b" } },
        { tokenEndpoint: "https://auth.example/token?x=1" },
        { grant: { key: "mine", acquire: Grant.clientCredentials({}).acquire } }
      ]
      for (const variant of variants) yield* (yield* peer(server, storage.layer, variant)).tokens.get
      assert.strictEqual(storage.held.size, variants.length)
      yield* (yield* peer(server, storage.layer, { scope: ["b", "a"] })).tokens.get
      yield* (yield* peer(server, storage.layer, { origins: "any", expiryLeeway: 0 })).tokens.get
      assert.strictEqual(storage.held.size, variants.length)
      for (const key of storage.held.keys()) {
        assert.notInclude(key, "swordfish")
        assert.notInclude(key, "auth.example")
        assert.match(key, /[0-9a-zA-Z_-]{43,}/)
      }
    }))

  it.scoped("a refusal is never stored", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => json({ error: "invalid_client" }, { status: 401 }) })
      const storage = own()
      const a = yield* peer(server, storage.layer)
      yield* Effect.flip(a.tokens.get)
      assert.strictEqual(storage.held.size, 0)
      const b = yield* peer(server, storage.layer)
      yield* Effect.flip(b.tokens.get)
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("a token of no lifetime is not kept there", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => bearer(`t${n}`, { expires_in: 0 }) })
      const storage = own()
      yield* (yield* peer(server, storage.layer)).tokens.get
      assert.strictEqual(value(yield* (yield* peer(server, storage.layer)).tokens.get), "t2")
    }))
})

const broken = (more: Partial<Storage>): Layer.Layer<never> =>
  Layer.succeed(TokenStorage.TokenStorage, { ...own().service, ...more })

describe("a storage in trouble", () => {
  const failures = Effect.map(
    Metric.snapshot,
    (pairs) =>
      pairs.filter((pair) => pair.metricKey.name === "alf_storage_failures")
        .map((pair) => "count" in pair.metricState ? Number(pair.metricState.count) : 0)
        .reduce((a, b) => a + b, 0)
  )

  for (
    const [name, layer] of Object.entries({
      "get dies": broken({ get: () => Effect.die(new Error("gone")) }),
      "set dies": broken({ set: () => Effect.die(new Error("gone")) }),
      "get throws": broken({
        get: () => {
          throw new Error("gone")
        }
      }),
      "exclusive dies": broken({ exclusive: () => () => Effect.die(new Error("gone")) }),
      "get hangs": broken({ get: () => Effect.never }),
      "set hangs": broken({ set: () => Effect.never }),
      "everything hangs": broken({ get: () => Effect.never, set: () => Effect.never, remove: () => Effect.never })
    })
  ) {
    it.scoped(`${name}: the request goes through, a warning and a count`, () =>
      Effect.gen(function*() {
        const warnings: Array<unknown> = []
        const logger = Logger.make(({ logLevel, message }) => {
          if (LogLevel.greaterThanEqual(logLevel, LogLevel.Warning)) warnings.push(message)
        })
        const before = yield* failures
        const server = serve()
        const status = yield* Effect.gen(function*() {
          const { httpClient } = yield* peer(server, layer)
          return (yield* advancing(httpClient.get(api), "1 second", 10)).status
        }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
        assert.strictEqual(status, 200)
        assert.deepStrictEqual(bearers(server), ["Bearer token-1"])
        assert.isAbove(yield* failures, before)
        assert.isAbove(warnings.length, 0)
      }))
  }

  it.scoped("invalidate and a 401 go through too", () =>
    Effect.gen(function*() {
      const server = serve({ api: (_, n) => n === 1 ? unauthorized() : json({}) })
      const layer = broken({ get: () => Effect.die("x"), set: () => Effect.die("x"), remove: () => Effect.die("x") })
      const { httpClient, tokens } = yield* peer(server, layer)
      assert.strictEqual((yield* advancing(httpClient.get(api), "1 second")).status, 200)
      yield* advancing(tokens.invalidate, "1 second")
      assert.strictEqual((yield* advancing(httpClient.get(api), "1 second")).status, 200)
    }))

  it.scoped("garbage is a miss, overwritten by a new token", () =>
    Effect.forEach(
      ["garbage", "{}", "null", "{\"version\":99}", "", 7, { a: 1 }, null],
      (garbage) =>
        Effect.gen(function*() {
          const values = new Map<string, unknown>()
          const store = {
            get: (key: string) => values.has(key) ? values.get(key) : garbage,
            set: (key: string, text: string) => values.set(key, text)
          }
          const server = serve()
          const storage = yield* shared(TokenStorage.layerStore(store))
          const a = yield* peer(server, storage)
          assert.strictEqual(value(yield* advancing(a.tokens.get, "1 second")), "token-1")
          const b = yield* peer(server, storage)
          assert.strictEqual(value(yield* advancing(b.tokens.get, "1 second")), "token-1")
          assert.strictEqual(server.tokenRequests.length, 1)
        })
    ))
})

const key = Redacted.make(Buffer.alloc(32, 7).toString("base64"))
const newKey = Redacted.make(Buffer.alloc(32, 8).toString("base64"))

const promises = () => {
  const values = new Map<string, string>()
  return {
    values,
    get: async (key: string) => values.get(key),
    set: async (key: string, text: string) => {
      values.set(key, text)
    },
    delete: async (key: string) => values.delete(key)
  }
}

const storages: Record<string, () => Layer.Layer<never, unknown>> = {
  "layerMemory": () => TokenStorage.layerMemory,
  "layerStore over a Map": () => TokenStorage.layerStore(new Map()),
  "layerStore over promises": () => TokenStorage.layerStore(promises()),
  "layerStore without delete": () => {
    const { get, set } = promises()
    return TokenStorage.layerStore({ get, set })
  },
  "layerStore with a prefix": () => TokenStorage.layerStore(new Map<string, string>(), { prefix: "mine:" }),
  "layerKeyValueStore": () => TokenStorage.layerKeyValueStore().pipe(Layer.provide(KeyValueStore.layerMemory)),
  "encrypted memory": () => TokenStorage.encrypted(TokenStorage.layerMemory, { keys: [key] }),
  "encrypted Map": () => TokenStorage.encrypted(TokenStorage.layerStore(new Map()), { keys: [newKey, key] }),
  "encrypted KeyValueStore": () =>
    TokenStorage.encrypted(TokenStorage.layerKeyValueStore().pipe(Layer.provide(KeyValueStore.layerMemory)), {
      keys: [key]
    })
}

describe.each(Object.entries(storages))("%s", (_name, make) => {
  const withStorage = <A, E>(f: (storage: Storage) => Effect.Effect<A, E>) =>
    Effect.flatMap(TokenStorage.TokenStorage, f).pipe(Effect.provide(make()))

  it.effect("gives back what was set, whole", () =>
    withStorage((storage) =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_700_000_000_123)
        assert.isTrue(Option.isNone(yield* storage.get("k")))
        const stored = yield* token("one")
        yield* storage.set("k", stored)
        const found = Option.getOrThrow(yield* storage.get("k"))
        assert.instanceOf(found, AccessToken.AccessToken)
        assert.strictEqual(value(found), "one")
        assert.strictEqual(found.type, "Bearer")
        assert.deepStrictEqual(found.scope, ["a", "b"])
        assert.strictEqual(DateTime.toEpochMillis(found.issuedAt), DateTime.toEpochMillis(stored.issuedAt))
        assert.deepStrictEqual(
          Option.map(found.expiresAt, DateTime.toEpochMillis),
          Option.map(stored.expiresAt, DateTime.toEpochMillis)
        )
        assert.strictEqual(Redacted.value(Option.getOrThrow(found.refreshToken)), "refresh")
        assert.isTrue(Option.isNone(yield* storage.get("other")))
      })
    ))

  it.effect("removes only the token that it holds", () =>
    withStorage((storage) =>
      Effect.gen(function*() {
        const one = yield* token("one")
        const two = yield* token("two")
        yield* storage.set("k", two)
        yield* storage.remove("k", one)
        assert.strictEqual(value(Option.getOrThrow(yield* storage.get("k"))), "two")
        yield* storage.remove("k", two)
        assert.isTrue(Option.isNone(yield* storage.get("k")))
        yield* storage.remove("k", two)
      })
    ))

  it.effect("exclusive lets one in at a time, per key, and lets go however it ends", () =>
    withStorage((storage) =>
      Effect.gen(function*() {
        let inside = 0
        let most = 0
        const enter = Effect.gen(function*() {
          inside++
          most = Math.max(most, inside)
          yield* settle
          inside--
        })
        yield* Effect.all(Array.from({ length: 3 }, () => storage.exclusive("k")(enter)), { concurrency: "unbounded" })
        assert.strictEqual(most, 1)

        const failed = yield* Effect.exit(storage.exclusive("k")(Effect.fail("no")))
        assert.deepStrictEqual(failed, Exit.fail("no"))
        const fiber = yield* Effect.fork(storage.exclusive("k")(Effect.never))
        yield* settle
        assert.strictEqual(yield* advancing(storage.exclusive("other")(Effect.succeed(1)), "1 second"), 1)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* advancing(storage.exclusive("k")(Effect.succeed(2)), "1 second"), 2)
      })
    ))

  it.effect("exclusive stays so while a test moves the clock", () =>
    withStorage((storage) =>
      Effect.gen(function*() {
        let inside = 0
        let most = 0
        const enter = Effect.gen(function*() {
          inside++
          most = Math.max(most, inside)
          yield* settle
          inside--
        })
        const all = yield* Effect.fork(
          Effect.all(Array.from({ length: 3 }, () => storage.exclusive("k")(enter)), { concurrency: "unbounded" })
        )
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(all)
        assert.strictEqual(most, 1)
      })
    ))

  it.scoped("services that start cold make one token request", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`)), "1 second") })
      const storage = yield* shared(make())
      const peers = yield* Effect.all(Array.from({ length: 8 }, () => peer(server, storage)))
      const all = yield* advancing(
        Effect.forEach(peers, (_) => Effect.map(_.tokens.get, value), { concurrency: "unbounded" }),
        "500 millis"
      )
      assert.deepStrictEqual([...new Set(all)], ["t1"])
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("a storm of 401s makes one token request", () =>
    Effect.gen(function*() {
      const valid = new Set(["Bearer token-1"])
      const server = serve({ api: (sent) => valid.has(sent.headers["authorization"]!) ? json({}) : unauthorized() })
      const storage = yield* shared(make())
      const peers = yield* Effect.all(Array.from({ length: 4 }, () => peer(server, storage)))
      for (const { httpClient } of peers) yield* advancing(httpClient.get(api), "100 millis")
      valid.clear()
      valid.add("Bearer token-2")
      const all = yield* advancing(
        Effect.all(
          peers.flatMap((_) => Array.from({ length: 5 }, () => Effect.map(_.httpClient.get(api), (r) => r.status))),
          {
            concurrency: "unbounded"
          }
        ),
        "100 millis"
      )
      assert.deepStrictEqual([...new Set(all)], [200])
      assert.strictEqual(server.tokenRequests.length, 2)
    }))
})

describe("layerStore", () => {
  it.scoped("takes a method's object as it is, this and all", () =>
    Effect.gen(function*() {
      class Cache {
        #values = new Map<string, string>()
        get(key: string) {
          return this.#values.get(key)
        }
        set(key: string, text: string) {
          this.#values.set(key, text)
        }
        delete(key: string) {
          this.#values.delete(key)
        }
      }
      const server = serve()
      const storage = yield* shared(TokenStorage.layerStore(new Cache()))
      yield* (yield* peer(server, storage)).tokens.get
      yield* (yield* peer(server, storage)).tokens.get
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("over an object that rejects or never answers", () =>
    Effect.gen(function*() {
      for (
        const store of [
          { get: () => Promise.reject(new Error("x")), set: () => Promise.reject(new Error("x")) },
          { get: () => new Promise(() => {}), set: () => new Promise(() => {}) },
          {
            get: () => {
              throw new Error("x")
            },
            set: () => {
              throw new Error("x")
            }
          }
        ]
      ) {
        const server = serve()
        const { httpClient } = yield* peer(server, TokenStorage.layerStore(store))
        assert.strictEqual((yield* advancing(httpClient.get(api), "1 second", 20)).status, 200)
      }
    }))

  it.scoped("its failures are TokenStorageErrors", () =>
    Effect.gen(function*() {
      const storage = yield* Effect.provide(
        TokenStorage.TokenStorage,
        TokenStorage.layerStore({
          get: () => Promise.reject(new Error("x")),
          set: () => Promise.reject(new Error("x"))
        })
      )
      const error = yield* Effect.flip(storage.get("k"))
      assert.strictEqual(error._tag, "TokenStorageError")
      assert.instanceOf(error, TokenStorage.TokenStorageError)
      assert.strictEqual((yield* Effect.flip(storage.set("k", yield* token("t"))))._tag, "TokenStorageError")
    }))
})

describe("encrypted", () => {
  it.scoped("shows nothing of the token", () =>
    Effect.gen(function*() {
      const values = new Map<string, string>()
      const storage = yield* shared(TokenStorage.encrypted(TokenStorage.layerStore(values), { keys: [key] }))
      const server = serve({ token: () => bearer("very-secret-token", { refresh_token: "very-secret-refresh" }) })
      yield* (yield* peer(server, storage)).tokens.get
      assert.isAbove(values.size, 0)
      const dump = JSON.stringify([...values])
      assert.notInclude(dump, "very-secret")
      assert.notInclude(dump, Buffer.from("very-secret-token").toString("base64").slice(0, 12))
    }))

  it.scoped("the first key writes, all keys read", () =>
    Effect.gen(function*() {
      const values = new Map<string, string>()
      const with_ = (keys: readonly [Redacted.Redacted, ...Array<Redacted.Redacted>]) =>
        TokenStorage.encrypted(TokenStorage.layerStore(values), { keys })
      const server = serve()
      const tokenWith = (keys: readonly [Redacted.Redacted, ...Array<Redacted.Redacted>]) =>
        Effect.gen(function*() {
          const storage = yield* shared(with_(keys))
          return value(yield* (yield* peer(server, storage)).tokens.get)
        })
      assert.strictEqual(yield* tokenWith([key]), "token-1")
      assert.strictEqual(yield* tokenWith([newKey, key]), "token-1")
      assert.strictEqual(yield* tokenWith([newKey]), "token-2")
      assert.strictEqual(yield* tokenWith([key, newKey]), "token-2")
      assert.strictEqual(yield* tokenWith([key]), "token-3")
    }))

  it.scoped("a value moved under another key is a miss", () =>
    Effect.gen(function*() {
      const values = new Map<string, string>()
      const layer = TokenStorage.encrypted(TokenStorage.layerStore(values), { keys: [key] })
      const storage = yield* Effect.provide(TokenStorage.TokenStorage, layer)
      yield* storage.set("a", yield* token("mine"))
      yield* storage.set("b", yield* token("yours"))
      const [[first], [second, text]] = [...values] as [[string, string], [string, string]]
      values.set(first, text)
      void second
      const found = yield* Effect.exit(storage.get("a"))
      if (Exit.isSuccess(found)) assert.isTrue(Option.isNone(found.value))
    }))

  it.effect("a key of the wrong length is a ConfigurationError that does not show it", () =>
    Effect.forEach(
      ["", "short", Buffer.alloc(16, 1).toString("base64"), Buffer.alloc(33, 1).toString("base64")],
      (wrong) =>
        Effect.gen(function*() {
          const error = yield* TokenStorage.TokenStorage.pipe(
            Effect.provide(TokenStorage.encrypted(TokenStorage.layerMemory, { keys: [key, Redacted.make(wrong)] })),
            Effect.flip
          )
          assert.instanceOf(error, TokenError.ConfigurationError)
          if (wrong.length > 5) assert.notInclude(`${error.issue}${Cause.pretty(Cause.fail(error))}`, wrong)
        })
    ))
})

describe("layerMemory", () => {
  it.effect("is shared by the services of one program", () =>
    Effect.gen(function*() {
      const server = serve()
      const tokens = TokenService.layer({ grant: Grant.clientCredentials({}) }).pipe(
        Layer.provide(TokenEndpoint.layer(options)),
        Layer.provide(server.layer)
      )
      const get = Effect.flatMap(TokenService.TokenService, (_) => _.get)
      yield* Effect.gen(function*() {
        const storage = yield* TokenStorage.TokenStorage
        const provided = Layer.fresh(tokens).pipe(Layer.provide(Layer.succeed(TokenStorage.TokenStorage, storage)))
        yield* get.pipe(Effect.provide(provided))
        yield* get.pipe(Effect.provide(provided))
      }).pipe(Effect.provide(TokenStorage.layerMemory))
      assert.strictEqual(server.tokenRequests.length, 1)
    }))
})

describe("layerKeyValueStore", () => {
  it.scopedLive("in a folder that two services share", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped()
      const server = serve()
      for (let i = 0; i < 2; i++) {
        const layer = TokenStorage.layerKeyValueStore().pipe(
          Layer.provide(KeyValueStore.layerFileSystem(folder)),
          Layer.provide(NodeContext.layer)
        )
        const { tokens } = yield* peer(server, layer)
        assert.strictEqual(value(yield* tokens.get), "token-1")
      }
      assert.strictEqual(server.tokenRequests.length, 1)
    }).pipe(Effect.provide(NodeContext.layer)))
})

describe("a slow peer", () => {
  it.scoped("the storage is asked before the token endpoint, and by who waits", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const server = serve({ token: (_, n) => Effect.as(Deferred.await(gate), bearer(`t${n}`)) })
      const storage = yield* shared(TokenStorage.layerMemory)
      const a = yield* peer(server, storage)
      const b = yield* peer(server, storage)
      const first = yield* Effect.fork(a.tokens.get)
      yield* settle
      const second = yield* Effect.fork(b.tokens.get)
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* Deferred.succeed(gate, void 0)
      assert.strictEqual(value(yield* Fiber.join(first)), "t1")
      assert.strictEqual(value(yield* advancing(Fiber.join(second), "1 second")), "t1")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))
})
