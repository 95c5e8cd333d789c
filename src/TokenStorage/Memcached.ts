/**
 * Tokens in Memcached, shared by all processes that use the same servers: `TokenStorage` on `memjs` 1.3.
 *
 * `memjs` has no call for compare-and-set, but its binary protocol has: a request is built with the version that was read
 * and given to the client's `perform`, and the server refuses it if there is another version by now. So comparing and
 * removing, and renewing and giving back the lease, are one step. The lease is taken with `add`.
 *
 * Memcached may drop anything at any moment when it needs the space: a token is then fetched anew, and a refresh token is
 * lost.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Client, Utils } from "memjs"
import { check, resolve } from "../internal/options.ts"
import { digest } from "../internal/digest.ts"
import { leaseTerm } from "../internal/storage/lease.ts"
import { leaseKey } from "../internal/storage/leaseRecord.ts"
import type { ConfigurationError } from "../TokenError.ts"
import { type LeaseOptions, make, type Storage, TokenStorage } from "../TokenStorage.ts"

/**
 * How the servers are shared.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions extends LeaseOptions {
  /** What each key begins with. The keys of tokens begin with `effect-alf:` already. Defaults to nothing. */
  readonly prefix?: string | undefined
}

/**
 * Which servers, and how they are shared.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends ClientOptions {
  /** `host:port`, one or several. Each key lives on one of them. Defaults to `localhost:11211`. */
  readonly servers?: string | ReadonlyArray<string> | undefined
  /** For servers with SASL authentication, together with `password`. Defaults to no authentication. */
  readonly username?: string | undefined
  /** For servers with SASL authentication, together with `username`. Defaults to no authentication. */
  readonly password?: Redacted.Redacted | undefined
}

/**
 * What is used of a client of `memjs`.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemjsClient {
  readonly seq: number
  incrSeq(): void
  perform(
    key: string,
    request: Uint8Array,
    seq: number,
    callback: (error: unknown, response: MemjsResponse | null) => void
  ): void
}

/**
 * @since 0.1.0
 * @category models
 */
export interface MemjsResponse {
  readonly header: { readonly status?: number; readonly cas?: Uint8Array }
  readonly val: Uint8Array
}

/**
 * Tokens in Memcached, over connections of its own that are closed with the layer. They are opened when they are needed.
 *
 * Only what the options say is sent: the `MEMCACHE_*` and `MEMCACHIER_*` variables that `memjs` reads are not used.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<TokenStorage, ConfigurationError> =>
  Layer.scoped(
    TokenStorage,
    Effect.gen(function*() {
      const term = yield* leaseTerm(options)
      return fromClient(yield* connect(options), options.prefix, term)
    })
  )

/**
 * As `layer`, with options that are plain values or `Config`s, side by side.
 *
 * @since 0.2.0
 * @category layers
 */
export const layerConfig = (
  options: { readonly [K in keyof Options]: Options[K] | Config.Config<Options[K]> }
): Layer.Layer<TokenStorage, ConfigurationError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(
    Effect.all({
      servers: resolve(options.servers),
      username: resolve(options.username),
      password: resolve(options.password),
      prefix: resolve(options.prefix),
      term: resolve(options.term)
    }),
    layer
  ))

/**
 * Tokens in Memcached, over a client of `memjs` that the program has already. It stays open when the layer is closed.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerClient = (
  client: MemjsClient,
  options: ClientOptions = {}
): Layer.Layer<TokenStorage, ConfigurationError> =>
  Layer.effect(TokenStorage, Effect.map(leaseTerm(options), (term) => fromClient(client, options.prefix, term)))

const connect = (options: Options): Effect.Effect<Client, ConfigurationError, Scope.Scope> =>
  Effect.gen(function*() {
    const servers = typeof options.servers === "string" ? options.servers.split(",") : options.servers ?? ["localhost"]
    yield* check(servers.length > 0 && servers.every(isServer), () =>
      "servers is not a list of servers: write host:port such as localhost:11211")
    yield* check((options.username === undefined) === (options.password === undefined), () =>
      "username and password go together: give both, or neither")
    const credentials = {
      username: options.username,
      password: options.password === undefined ? undefined : Redacted.value(options.password)
    }
    return yield* Effect.acquireRelease(
      Effect.sync(() => {
        const client = Client.create(servers.join(","), {
          // one try, and a server that is slow is given up by the callers before it is dropped by the client
          retries: 1,
          timeout: 3,
          conntimeout: 3,
          logger: { log: () => {} }
        })
        // the client takes what it is not given from the environment, so the credentials are set afterwards
        for (const server of client.servers) {
          Object.assign(server, credentials)
        }
        return client
      }),
      (client) =>
        Effect.sync(() => {
          client.close()
          // it would connect again for whatever comes late
          client.perform = (_key, _request, _seq, callback) =>
            callback?.(new Error("closed"), null)
        })
    )
  })

const isServer = (server: string): boolean => {
  const [, port] = /^[\w.-]+(?::(\d{1,5}))?$/.exec(server) ?? [undefined, "0"]
  return port === undefined || (Number(port) > 0 && Number(port) < 65536)
}

/** The operations of the binary protocol, and the statuses that respond to them. */
const operation = { get: 0x00, set: 0x01, add: 0x02, delete: 0x04 } as const
const status = { done: 0, notFound: 1, exists: 2 } as const
const responses: ReadonlyArray<number> = Object.values(status)

/** A longer time is taken for a date (memcached's protocol.txt); a token that lives longer is dropped by then. */
const longestExpiry = Duration.days(30)

/** The longest key, in bytes. */
const longestKey = 250

const fromClient = (client: MemjsClient, prefix = "", term: Duration.Duration): Storage => {
  const named = (key: string): string =>
    Buffer.byteLength(prefix + leaseKey(key)) > longestKey ? digest(prefix + key) : prefix + key

  const read = (
    key: string
  ): Effect.Effect<Option.Option<{ readonly text: string; readonly version: Uint8Array }>, string> =>
    Effect.map(
      send(client, operation.get, key),
      ({ header, val }) =>
        header.status === status.notFound || header.cas === undefined
          ? Option.none()
          : Option.some({ text: new TextDecoder().decode(val), version: header.cas })
    )

  /** Does something with a key, in one step with seeing that it still has this text: whether it did. */
  const onlyIf = (key: string, text: string, opcode: number, write: Omit<Write, "version">) =>
    pipe(
      read(key),
      Effect.map(Option.filter((found) => found.text === text)),
      Effect.flatMap(Option.match({
        onNone: () => Effect.succeed(false),
        onSome: ({ version }) =>
          Effect.map(send(client, opcode, key, { ...write, version }), ({ header }) => header.status === status.done)
      }))
    )

  return make({
    get: (key) => Effect.map(read(named(key)), Option.map(({ text }) => text)),
    set: (key, text, timeToLive) =>
      send(client, operation.set, named(key), {
        value: text,
        expiry: Option.match(timeToLive, { onNone: () => 0, onSome: seconds })
      }),
    remove: (key, text) => onlyIf(named(key), text, operation.delete, {}),
    lease: {
      term,
      take: (key, owner) =>
        Effect.map(
          send(client, operation.add, leaseKey(named(key)), { value: owner, expiry: leaseSeconds(term) }),
          ({ header }) => header.status === status.done
        ),
      renew: (key, owner) =>
        onlyIf(leaseKey(named(key)), owner, operation.set, { value: owner, expiry: leaseSeconds(term) }),
      release: (key, owner) => onlyIf(leaseKey(named(key)), owner, operation.delete, {})
    }
  })
}

const seconds = (duration: Duration.Duration): number =>
  Math.ceil(Duration.toSeconds(Duration.min(duration, longestExpiry)))

/** The server counts whole seconds by a clock that ticks once in a second: a lease must not end before its term. */
const leaseSeconds = (term: Duration.Duration): number => seconds(term) + 1

interface Write {
  readonly value?: string
  /** In seconds from now; 0 for no expiry. */
  readonly expiry?: number
  /** Refused if the key has another version by now. */
  readonly version?: Uint8Array
}

const send = (
  client: MemjsClient,
  opcode: number,
  key: string,
  write: Write = {}
): Effect.Effect<MemjsResponse, string> =>
  Effect.async((resume) => {
    const extras = Buffer.alloc(write.expiry === undefined ? 0 : 8)
    if (write.expiry !== undefined) extras.writeUInt32BE(write.expiry, 4)
    client.incrSeq()
    const request = Utils.makeRequestBuffer(opcode, key, extras, write.value ?? "", client.seq)
    if (write.version !== undefined) request.set(write.version, 16)
    client.perform(key, request, client.seq, (error, response) => {
      const code = response?.header.status ?? -1
      resume(
        response !== null && responses.includes(code)
          ? Effect.succeed(response)
          : Effect.fail(`Memcached: ${response === null ? describe(error) : `status ${code}`}`)
      )
    })
  })

/** Never the words of an error. The client's own for a refused password is a plain string. */
const describe = (error: unknown): string => {
  if (typeof error === "string") return "the password was refused"
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "no response"
}
