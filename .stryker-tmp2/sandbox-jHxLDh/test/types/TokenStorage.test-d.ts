// @ts-nocheck
import type { FileSystem, KeyValueStore, Path } from "@effect/platform"
import { Config, type ConfigError, Effect, Layer, type Option, Redacted } from "effect"
import { type AccessToken, type TokenError, TokenStorage } from "effect-alf"
import * as Memcached from "effect-alf/TokenStorage/Memcached"
import * as Redis from "effect-alf/TokenStorage/Redis"
import { describe, expectTypeOf, test } from "vitest"

const key = Redacted.make("key")

describe("TokenStorage", () => {
  test("has get, set, remove and exclusive", () => {
    expectTypeOf<TokenStorage.TokenStorage["Type"]>().toEqualTypeOf<TokenStorage.Storage>()
    expectTypeOf<TokenStorage.Storage["get"]>().toEqualTypeOf<
      (key: string) => Effect.Effect<Option.Option<AccessToken.AccessToken>, TokenStorage.TokenStorageError>
    >()
    expectTypeOf<TokenStorage.Storage["set"]>().toEqualTypeOf<
      (key: string, token: AccessToken.AccessToken) => Effect.Effect<void, TokenStorage.TokenStorageError>
    >()
    expectTypeOf<TokenStorage.Storage["remove"]>().toEqualTypeOf<
      (key: string, token: AccessToken.AccessToken) => Effect.Effect<void, TokenStorage.TokenStorageError>
    >()
    expectTypeOf<TokenStorage.Storage["exclusive"]>().toEqualTypeOf<
      (key: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    >()
  })

  test("has a default: nobody has to provide it", () => {
    expectTypeOf(Effect.map(TokenStorage.TokenStorage, (storage) => storage)).toEqualTypeOf<
      Effect.Effect<TokenStorage.Storage>
    >()
  })

  test("catchTag narrows its error", () => {
    const program = Effect.flatMap(TokenStorage.TokenStorage, (storage) => storage.get("key"))
    Effect.catchTag(program, "TokenStorageError", (error) => {
      expectTypeOf(error.operation).toEqualTypeOf<"get" | "set" | "remove" | "exclusive">()
      return Effect.void
    })
  })
})

describe("the layers", () => {
  test("layerMemory and layerStore need nothing", () => {
    expectTypeOf(TokenStorage.layerMemory).toEqualTypeOf<Layer.Layer<TokenStorage.TokenStorage>>()
    expectTypeOf(TokenStorage.layerStore(new Map<string, string>())).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage>
    >()
    expectTypeOf(TokenStorage.layerStore({
      get: (_: string) => Promise.resolve<string | undefined>("text"),
      set: (_: string, __: string) => Promise.resolve()
    })).toEqualTypeOf<Layer.Layer<TokenStorage.TokenStorage>>()
  })

  test("layerStore does not take an object without get or set", () => {
    //  set is missing
    TokenStorage.layerStore({ get: () => undefined })
    //  get is missing
    TokenStorage.layerStore({ set: () => undefined })
  })

  test("layerKeyValueStore needs a KeyValueStore, layerFileSystem a file system: forgetting them does not compile", () => {
    expectTypeOf(TokenStorage.layerKeyValueStore()).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, never, KeyValueStore.KeyValueStore>
    >()
    expectTypeOf(TokenStorage.layerFileSystem("tokens")).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError, FileSystem.FileSystem | Path.Path>
    >()
    const program = Effect.asVoid(TokenStorage.TokenStorage)
    //  KeyValueStore is missing
    void Effect.runPromise(Effect.provide(program, TokenStorage.layerKeyValueStore()))
    //  FileSystem and Path are missing
    void Effect.runPromise(Effect.provide(program, TokenStorage.layerFileSystem("tokens")))
  })

  test("encrypted keeps what the layer needs and fails with, and adds ConfigurationError", () => {
    expectTypeOf(TokenStorage.encrypted(TokenStorage.layerMemory, { keys: [key] })).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError>
    >()
    expectTypeOf(TokenStorage.encrypted(TokenStorage.layerKeyValueStore(), { keys: [key, key] })).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError, KeyValueStore.KeyValueStore>
    >()
  })

  test("encrypted does not compile without a key, or with one that is not redacted", () => {
    //  at least one key
    TokenStorage.encrypted(TokenStorage.layerMemory, { keys: [] })
    //  a Redacted is meant
    TokenStorage.encrypted(TokenStorage.layerMemory, { keys: ["key"] })
  })
})

describe("the layers of subpaths", () => {
  test("Redis: layer and layerConfig need nothing", () => {
    expectTypeOf(Redis.layer()).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError>
    >()
    expectTypeOf(Redis.layerConfig({ host: "localhost", port: Config.number("REDIS_PORT") })).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError | ConfigError.ConfigError>
    >()
  })

  test("Memcached: layer needs nothing", () => {
    expectTypeOf(Memcached.layer()).toEqualTypeOf<
      Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError>
    >()
  })

  test("a storage is provided to Alf like any other layer", () => {
    expectTypeOf(Layer.provide(Layer.succeed(TokenStorage.TokenStorage, TokenStorage.none), Redis.layer()))
      .toEqualTypeOf<Layer.Layer<TokenStorage.TokenStorage, TokenError.ConfigurationError>>()
  })
})
