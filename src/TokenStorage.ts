/**
 * A place where several services, or several processes, share tokens.
 *
 * A storage has four operations: `get`, `set`, `remove` and an `exclusive` section per key. Atomicity belongs to the
 * storage; when to fetch belongs to `TokenService`. Whatever a storage does, no request fails because of it.
 *
 * `TokenStorage` is a reference with a default, `none`: without a layer each service keeps its token to itself. The
 * storages in this module need nothing but a place to write to; Redis and Memcached are modules of their own.
 *
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as KeyValueStore from "@effect/platform/KeyValueStore"
import type * as Path from "@effect/platform/Path"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity, pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { AccessToken, decode, encode, isSame, timeToLive } from "./AccessToken.ts"
import { makeAesGcm } from "./internal/storage/aesGcm.ts"
import { describe, makeFiles, unless } from "./internal/storage/files.ts"
import { leaseTerm, makeLeased } from "./internal/storage/lease.ts"
import { plainLease, type PlainStore } from "./internal/storage/leaseRecord.ts"
import { makeLocalMutex } from "./internal/storage/localMutex.ts"
import type { LeaseOptions, TextStore } from "./internal/storage/textStore.ts"
import type { ConfigurationError } from "./TokenError.ts"

/**
 * A storage could not do what it was asked to.
 *
 * @since 0.1.0
 * @category errors
 */
export class TokenStorageError extends Schema.TaggedError<TokenStorageError>("effect-alf/TokenStorageError")(
  "TokenStorageError",
  {
    operation: Schema.Literal("get", "set", "remove", "exclusive"),
    /** What happened; never a token, a key of encryption or a password. */
    description: Schema.String
  }
) {
  override get message(): string {
    return `The token storage failed at ${this.operation}: ${this.description}`
  }
}

/**
 * What a storage can do.
 *
 * @since 0.1.0
 * @category models
 */
export interface Storage {
  /** The token under a key. It fails if there is something under the key that is not a token. */
  readonly get: (key: string) => Effect.Effect<Option.Option<AccessToken>, TokenStorageError>
  /** Puts a token under a key, and lets the store drop it at the end of its life where the store can. */
  readonly set: (key: string, token: AccessToken) => Effect.Effect<void, TokenStorageError>
  /** Removes the token under a key, but only if it still is this one. Comparing and removing are one step. */
  readonly remove: (key: string, token: AccessToken) => Effect.Effect<void, TokenStorageError>
  /**
   * Runs an effect while no other process that shares the store runs one for the same key. It waits until it can; if the
   * store does not respond, the effect runs without it. The holder may die at any moment: the others go on.
   */
  readonly exclusive: (key: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Whether tokens outlive the process. Defaults to true. */
  readonly persistent?: boolean | undefined
}

export type {
  /**
   * How a lease is taken, renewed and given back.
   *
   * @since 0.1.0
   * @category models
   */
  Lease,
  /**
   * How long a lease lasts.
   *
   * @since 0.1.0
   * @category models
   */
  LeaseOptions,
  /**
   * A store of text, from which `make` makes a storage.
   *
   * @since 0.1.0
   * @category models
   */
  TextStore
} from "./internal/storage/textStore.ts"

/**
 * No storage: each service keeps its token to itself. The default.
 *
 * @since 0.1.0
 * @category storages
 */
export const none: Storage = {
  get: () => Effect.succeedNone,
  set: () => Effect.void,
  remove: () => Effect.void,
  exclusive: () => identity,
  persistent: false
}

/**
 * The storage that services share tokens through. Defaults to `none`.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenStorage extends Context.Reference<TokenStorage>()("effect-alf/TokenStorage", {
  defaultValue: (): Storage => none
}) {}

/**
 * A storage over a store of text.
 *
 * **Details**
 *
 * Tokens are written as `AccessToken.encode` writes them. Callers of `exclusive` in this process queue up, so that one at
 * a time asks the store for the lease; a caller that cannot have it asks again with growing pauses. If the store fails, or
 * has not responded within a second, the effect runs without the section, after a warning in the log.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (store: TextStore): Storage => ({
  get: (key) =>
    Effect.flatMap(
      Effect.mapError(store.get(key), failedAt("get")),
      Option.match({
        onNone: () => Effect.succeedNone,
        onSome: (text) =>
          Option.match(decode(text), {
            onNone: () => Effect.fail(failedAt("get")("the stored value is not a token, or is one of another version")),
            onSome: Effect.succeedSome
          })
      })
    ),
  set: (key, token) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      // no store takes a time to live of nothing
      const ttl = Option.map(timeToLive(token, now), (millis) => Duration.millis(Math.max(1, millis)))
      return Effect.mapError(store.set(key, encode(token), ttl), failedAt("set"))
    }),
  remove: (key, token) =>
    pipe(
      store.get(key),
      Effect.map(Option.filter((text) => Option.exists(decode(text), (stored) => isSame(stored, token)))),
      Effect.flatMap(Option.match({ onNone: () => Effect.void, onSome: (text) => store.remove(key, text) })),
      Effect.mapError(failedAt("remove"))
    ),
  exclusive: store.lease === undefined ? makeLocalMutex() : makeLeased(store.lease)
})

/**
 * Tokens in memory, shared between the services of one process that were built with this layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<TokenStorage> = Layer.sync(TokenStorage, () => {
  const tokens = new Map<string, AccessToken>()
  return {
    get: (key) => Effect.sync(() => Option.fromNullable(tokens.get(key))),
    set: (key, token) => Effect.sync(() => tokens.set(key, token)),
    remove: (key, token) =>
      Effect.sync(() => {
        const found = tokens.get(key)
        if (found !== undefined && isSame(found, token)) tokens.delete(key)
      }),
    exclusive: makeLocalMutex(),
    persistent: false
  }
})

/**
 * Tokens as files in a folder, for the processes that share it.
 *
 * **Details**
 *
 * Files are created with mode 0600, in a folder that is created with mode 0700, and replaced atomically: nobody reads
 * half a token. The lease is a file too; that of a process that was killed is taken over by one other when its term is
 * over. The file system must have hard links, and the clocks of the machines may differ by about half a term.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerFileSystem = (
  directory: string,
  options: LeaseOptions = {}
): Layer.Layer<TokenStorage, ConfigurationError, FileSystem.FileSystem | Path.Path> =>
  Layer.effect(
    TokenStorage,
    Effect.gen(function*() {
      const term = yield* leaseTerm(options)
      const { lease, ...store } = yield* makeFiles(directory)
      return make({ ...store, lease: { ...lease, term } })
    })
  )

/**
 * Tokens in a `KeyValueStore` of `@effect/platform`.
 *
 * **Gotchas**
 *
 * A `KeyValueStore` can read and write, but not compare. Among processes the exclusive section is therefore best effort:
 * a lease is written, and read again 100 milliseconds later, when the writes of others have settled. A process that is
 * stopped just then can be a second holder, which costs one more token request. `remove` compares in one step within the
 * process only.
 *
 * `KeyValueStore.layerFileSystem` writes in place, and files that everybody on the machine can read: a process that reads at
 * that moment finds half a token, which counts as none. `layerFileSystem` does neither.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerKeyValueStore = (options: {
  /** What each key begins with. Defaults to nothing. */
  readonly prefix?: string | undefined
} = {}): Layer.Layer<TokenStorage, never, KeyValueStore.KeyValueStore> =>
  Layer.effect(
    TokenStorage,
    Effect.map(KeyValueStore.KeyValueStore, (keyValueStore) => {
      const prefixed = KeyValueStore.prefix(keyValueStore, options.prefix ?? "")
      const store: PlainStore = {
        get: (key) => Effect.mapError(prefixed.get(key), describe),
        set: (key, text) => Effect.mapError(prefixed.set(key, text), describe),
        // of two processes that remove a file, the second does not find it
        remove: (key) => Effect.mapError(unless("NotFound", prefixed.remove(key), undefined), describe)
      }
      return make({ ...comparing(store), lease: plainLease(store) })
    })
  )

/**
 * Any object with `get` and `set`: a `Map`, Keyv, the client of a cache. What they return may be a promise.
 *
 * @since 0.1.0
 * @category models
 */
export interface GetSetStore {
  /** The text that was set; `undefined`, `null` or an empty text if there is none. */
  get(key: string): unknown
  set(key: string, text: string): unknown
  /** Without it a token is removed by setting an empty text in its place. */
  delete?(key: string): unknown
}

/**
 * Tokens in any object with `get` and `set`.
 *
 * **Details**
 *
 * `set` is called with key and text. Many caches take a third argument, after how long they may drop a text, some in
 * milliseconds (Keyv, cache-manager), some in seconds (node-cache); `timeToLive` says which. Without it a cache drops
 * texts by its own rules.
 *
 * **Gotchas**
 *
 * Such an object can neither compare nor create: the exclusive section, and comparing at `remove`, hold within the process
 * only. Where several processes share the store, each makes its own token request when it starts cold.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStore = (store: GetSetStore, options: {
  /** What each key begins with. Defaults to nothing. */
  readonly prefix?: string | undefined
  /** The unit in which `set` takes a time to live as its third argument. Defaults to none: it gets two. */
  readonly timeToLive?: "millis" | "seconds" | undefined
} = {}): Layer.Layer<TokenStorage> =>
  Layer.sync(TokenStorage, () => {
    const prefix = options.prefix ?? ""
    // an error of the store may quote what it was given
    const call = <A>(method: string, f: () => A) =>
      Effect.tryPromise({ try: async () => f(), catch: () => `the store's ${method} failed` })
    const third = (ttl: Option.Option<Duration.Duration>): ReadonlyArray<number> =>
      options.timeToLive === undefined
        ? []
        : Option.toArray(
          Option.map(
            ttl,
            (duration) =>
              options.timeToLive === "millis" ? Duration.toMillis(duration) : Math.ceil(Duration.toSeconds(duration))
          )
        )
    return make(comparing({
      get: (key) =>
        Effect.flatMap(call("get", () => store.get(prefix + key)), (found) =>
          found === undefined || found === null || found === ""
            ? Effect.succeedNone
            : typeof found === "string"
            ? Effect.succeedSome(found)
            : Effect.fail("the stored value is not a text")),
      set: (key, text, ttl) =>
        call("set", () =>
          Reflect.apply(store.set, store, [prefix + key, text, ...third(ttl)])),
      remove: (key) =>
        call("delete", () => store.delete === undefined ? store.set(prefix + key, "") : store.delete(prefix + key))
    }))
  })

/**
 * @since 0.1.0
 * @category models
 */
export interface EncryptionOptions {
  /**
   * The keys, each 32 bytes in base64 or hex, such as `openssl rand -base64 32` makes. The first one writes, all of them
   * read: a new key is first added at the end everywhere, then moved to the front, then the old one is taken away.
   */
  readonly keys: NonEmptyReadonlyArray<Redacted.Redacted>
}

/**
 * Encrypts what a storage keeps, with AES-256-GCM. The storage key is authenticated too: a text that was moved to another
 * key is not read.
 *
 * **Details**
 *
 * What cannot be decrypted is a failure of `get`, which counts as a miss and is overwritten by the next token. The store
 * sees when a token ends, so that it can drop it, and nothing else of it.
 *
 * @since 0.1.0
 * @category combinators
 */
export const encrypted = <E, R>(
  layer: Layer.Layer<TokenStorage, E, R>,
  options: EncryptionOptions
): Layer.Layer<TokenStorage, E | ConfigurationError, R> =>
  pipe(
    Layer.effect(
      TokenStorage,
      Effect.gen(function*() {
        const storage = yield* TokenStorage
        const seal = yield* makeAesGcm(options.keys)

        const open = (key: string, sealed: AccessToken) =>
          sealed.type === sealedType
            ? Effect.map(seal.open(Redacted.value(sealed.value), key), Option.flatMap(decode))
            : Effect.succeedNone

        return {
          get: (key) =>
            Effect.flatMap(
              storage.get(key),
              Option.match({
                onNone: () => Effect.succeedNone,
                onSome: (sealed) =>
                  Effect.flatMap(
                    open(key, sealed),
                    Option.match({
                      onNone: () =>
                        Effect.fail(failedAt("get")("the stored value is not encrypted, or with none of the keys")),
                      onSome: Effect.succeedSome
                    })
                  )
              })
            ),
          set: (key, token) =>
            Effect.flatMap(seal.close(encode(token), key), (closed) =>
              storage.set(
                key,
                new AccessToken({
                  value: Redacted.make(closed),
                  type: sealedType,
                  // never in use: a service that reads it without the keys must not take it for a token
                  issuedAt: DateTime.unsafeMake(8.64e15),
                  expiresAt: Option.isSome(token.refreshToken) ? Option.none() : token.expiresAt
                })
              )),
          // each text has its own nonce: the storage compares the very text in which the token was found
          remove: (key, token) =>
            pipe(
              storage.get(key),
              Effect.flatMap(Option.match({
                onNone: () => Effect.void,
                onSome: (sealed) =>
                  Effect.flatMap(open(key, sealed), (found) =>
                    Option.exists(found, (stored) => isSame(stored, token))
                      ? storage.remove(key, sealed)
                      : Effect.void)
              }))
            ),
          exclusive: storage.exclusive,
          persistent: storage.persistent
        }
      })
    ),
    Layer.provide(layer)
  )

/** The type of a token that is an encrypted one (RFC 7518 §5.3). */
const sealedType = "A256GCM"

/** Comparing and removing as one step among the fibers of this process, for a store that cannot do it. */
const comparing = (store: PlainStore): TextStore => {
  const section = makeLocalMutex()
  return {
    get: store.get,
    set: (key, text, ttl) => section(key)(store.set(key, text, ttl)),
    remove: (key, text) =>
      section(key)(
        Effect.flatMap(store.get(key), (found) => Option.contains(found, text) ? store.remove(key) : Effect.void)
      )
  }
}

const failedAt = (operation: TokenStorageError["operation"]) => (description: string) =>
  new TokenStorageError({ operation, description })
