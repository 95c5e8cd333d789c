import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, DateTime, Effect, Exit, Layer, Option, Redacted, Scope } from "effect"
import { AccessToken, Alf, TokenStorage } from "effect-alf"
import * as MemcachedStorage from "effect-alf/TokenStorage/Memcached"
import * as RedisStorage from "effect-alf/TokenStorage/Redis"
import { Redis } from "ioredis"
import memjs from "memjs"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { connect, createServer } from "node:net"
import { inspect } from "node:util"
import { afterAll, beforeAll } from "vitest"
import { api, serve, tokenEndpoint } from "../support/scriptedServer.ts"

const has = (program: string) => {
  try {
    execFileSync("which", [program], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

const freePort = () =>
  new Promise<number>((resolve, reject) => {
    const server = createServer().on("error", reject).listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })

const listening = async (port: number): Promise<void> => {
  for (let i = 0; i < 200; i++) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => (socket.destroy(), resolve(true)))
      socket.on("error", () => resolve(false))
    })
    if (open) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`nothing listens on ${port}`)
}

const started = (program: string, args: (port: number) => ReadonlyArray<string>) => {
  const running: { port: number; child?: ChildProcess } = { port: 0 }
  beforeAll(async () => {
    running.port = await freePort()
    running.child = spawn(program, args(running.port), { stdio: "ignore" })
    await listening(running.port)
  })
  afterAll(() => void running.child?.kill("SIGKILL"))
  return running
}

const token = (text: string) =>
  Effect.map(DateTime.now, (issuedAt) =>
    new AccessToken.AccessToken({
      value: Redacted.make(text),
      type: "Bearer",
      scope: ["a"],
      issuedAt,
      expiresAt: Option.some(DateTime.add(issuedAt, { hours: 1 })),
      refreshToken: Option.none()
    }))

type Made = Layer.Layer<never, unknown>

const works = (layer: Made) =>
  Effect.gen(function*() {
    const storage = yield* TokenStorage.TokenStorage
    const one = yield* token("one")
    const two = yield* token("two")
    const value = Effect.map(storage.get("contract"), Option.map((_) => Redacted.value(_.value)))
    yield* storage.set("contract", one)
    assert.strictEqual(Option.getOrNull(yield* value), "one")
    yield* storage.set("contract", two)
    yield* storage.remove("contract", one)
    assert.strictEqual(Option.getOrNull(yield* value), "two")
    yield* storage.remove("contract", two)
    assert.strictEqual(Option.getOrNull(yield* value), null)
    let inside = 0
    let most = 0
    yield* Effect.all(
      Array.from({ length: 4 }, () =>
        storage.exclusive("contract")(Effect.gen(function*() {
          most = Math.max(most, ++inside)
          yield* Effect.sleep("5 millis")
          inside--
        }))),
      { concurrency: "unbounded" }
    )
    assert.strictEqual(most, 1)
  }).pipe(Effect.provide(layer))

/** Two services, each with a layer of its own, as two processes have. */
const sharing = (layer: () => Made, clientId: string) =>
  Effect.gen(function*() {
    const server = serve()
    const make = Effect.gen(function*() {
      const scope = yield* Effect.scope
      const context = yield* Layer.buildWithScope(layer(), scope)
      return yield* Alf.make({ tokenEndpoint, clientId, origins: [api] }).pipe(
        Effect.provide(context),
        Effect.provide(server.layer)
      )
    })
    const peers = yield* Effect.all([make, make, make])
    yield* Effect.all(peers.map((_) => _.httpClient.get(api)), { concurrency: "unbounded" })
    assert.strictEqual(server.tokenRequests.length, 1)
  })

describe.skipIf(!has("redis-server"))("Redis", () => {
  const redis = started(
    "redis-server",
    (port) => ["--port", String(port), "--save", "", "--bind", "127.0.0.1", "--requirepass", "pa55word"]
  )
  const url = () => `redis://:pa55word@127.0.0.1:${redis.port}`

  it.live("layer", () => works(RedisStorage.layer({ url: url() })))

  it.live("layerConfig", () =>
    works(RedisStorage.layerConfig({ url: Config.redacted("REDIS_URL"), prefix: "contract:" })).pipe(
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["REDIS_URL", url()]])))
    ))

  it.live("layerClient leaves the client open", () =>
    Effect.gen(function*() {
      const client = new Redis(url())
      yield* works(RedisStorage.layerClient(client))
      assert.strictEqual(yield* Effect.promise(() => client.ping()), "PONG")
      yield* Effect.promise(() => client.quit())
    }))

  it.scopedLive("is shared, with the store's own expiry", () =>
    Effect.gen(function*() {
      yield* sharing(() => RedisStorage.layer({ url: url(), prefix: "shared:" }), "redis")
      const client = yield* Effect.acquireRelease(Effect.sync(() => new Redis(url())), (_) =>
        Effect.sync(() => _.disconnect()))
      const keys = yield* Effect.promise(() =>
        client.keys("shared:*")
      )
      assert.isAbove(keys.length, 0)
      const ttl = yield* Effect.promise(() => client.pttl(keys[0]!))
      assert.isAbove(ttl, 0)
      assert.isAtMost(ttl, 3_600_000)
    }))

  it.live("encrypted", () =>
    works(TokenStorage.encrypted(RedisStorage.layer({ url: url(), prefix: "sealed:" }), {
      keys: [Redacted.make(Buffer.alloc(32, 1).toString("base64"))]
    })))

  it.live("a refused password: a warning or a ConfigurationError, never a failed request, never shown", () =>
    Effect.gen(function*() {
      const layer = RedisStorage.layer({ url: `redis://:wr0ngpass@127.0.0.1:${redis.port}` })
      const scope = yield* Scope.make()
      const exit = yield* Effect.exit(Layer.buildWithScope(layer, scope))
      if (Exit.isFailure(exit)) {
        assert.notInclude(Cause.pretty(exit.cause), "wr0ngpass")
        return
      }
      const server = serve()
      const response = yield* Effect.scoped(
        Effect.flatMap(Alf.make({ tokenEndpoint, clientId: "c", origins: [api] }), (_) => _.httpClient.get(api)).pipe(
          Effect.provide(exit.value),
          Effect.provide(server.layer)
        )
      )
      assert.strictEqual(response.status, 200)
      yield* Scope.close(scope, Exit.void)
    }))

  it.effect("a URL that is none is a ConfigurationError", () =>
    Effect.forEach(["not a url", "http://:pa55word@localhost"], (wrong) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(RedisStorage.layer({ url: wrong }))))
        assert.strictEqual(error._tag, "ConfigurationError")
        assert.notInclude(`${inspect(error)}${error.message}`, "pa55word")
      })))
})

describe.skipIf(!has("memcached"))("Memcached", () => {
  const memcached = started("memcached", (port) => [
    "-p",
    String(port),
    "-l",
    "127.0.0.1",
    "-U",
    "0",
    ...(process.getuid?.() === 0 ? ["-u", "root"] : [])
  ])

  it.live("layer", () => works(MemcachedStorage.layer({ servers: `127.0.0.1:${memcached.port}` })))

  it.live("layerClient", () =>
    Effect.gen(function*() {
      const client = memjs.Client.create(`127.0.0.1:${memcached.port}`)
      yield* works(MemcachedStorage.layerClient(client))
      client.close()
    }))

  it.scopedLive("is shared", () =>
    sharing(() => MemcachedStorage.layer({ servers: [`127.0.0.1:${memcached.port}`], prefix: "shared:" }), "memcached"))
})

describe("a store that is not there", () => {
  it.live("each for itself", () =>
    Effect.gen(function*() {
      const port = yield* Effect.promise(freePort)
      for (
        const layer of [
          RedisStorage.layer({ url: `redis://127.0.0.1:${port}` }),
          MemcachedStorage.layer({ servers: `127.0.0.1:${port}` })
        ]
      ) {
        const server = serve()
        const response = yield* Effect.scoped(
          Effect.flatMap(Alf.make({ tokenEndpoint, clientId: "c", origins: [api] }), (_) => _.httpClient.get(api)).pipe(
            Effect.provide(layer),
            Effect.provide(server.layer)
          )
        )
        assert.strictEqual(response.status, 200)
      }
    }))
})
