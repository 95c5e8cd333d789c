/**
 * Tokens in Redis, shared by all processes that use the same server: `TokenStorage` on `ioredis` 5 or 6.
 *
 * Comparing and removing, and renewing and giving back the lease, are Lua scripts of one line, run by the server in one
 * step. Tokens and leases carry the server's own expiry.
 *
 * While the server cannot be reached every command fails at once, and the connection is tried anew in the background:
 * each process fetches for itself meanwhile, and shares again as soon as the server is back.
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
import { type Cluster, Redis, type RedisOptions } from "ioredis"
import { check, issue, resolve } from "../internal/options.ts"
import { leaseTerm } from "../internal/storage/lease.ts"
import { leaseKey } from "../internal/storage/leaseRecord.ts"
import { inModule } from "../internal/log.ts"
import { hardTimeout } from "../internal/timeout.ts"
import type { ConfigurationError } from "../TokenError.ts"
import { type LeaseOptions, make, type Storage, TokenStorage } from "../TokenStorage.ts"

/**
 * How a server is shared.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientOptions extends LeaseOptions {
  /** What each key begins with. The keys of tokens begin with `effect-alf:` already. Defaults to nothing. */
  readonly prefix?: string | undefined
}

/**
 * Which server, and how it is shared. For a cluster, sentinels or anything else that `ioredis` can do there is
 * `layerClient`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends ClientOptions {
  /**
   * `redis://user:password@host:6379/0`, or `rediss://` for TLS; redacted where it holds a password. What it says goes
   * before the other options. Defaults to none.
   */
  readonly url?: string | URL | Redacted.Redacted | undefined
  /** Defaults to `localhost`. */
  readonly host?: string | undefined
  /** Defaults to 6379. */
  readonly port?: number | undefined
  /** Defaults to none: the server's default user. */
  readonly username?: string | undefined
  /** Defaults to none. */
  readonly password?: Redacted.Redacted | undefined
  /** The number of the database. Defaults to 0. */
  readonly db?: number | undefined
  /** TLS, with the options of Node's `tls.connect`; `{}` for its defaults. Defaults to none. */
  readonly tls?: RedisOptions["tls"]
}

/**
 * Tokens in Redis, over a connection of its own that is closed with the layer.
 *
 * **Details**
 *
 * Building the layer waits for the connection, at most a second. A server that cannot be reached, or that refuses the
 * password, is a warning in the log; options that cannot work are a `ConfigurationError`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<TokenStorage, ConfigurationError> =>
  Layer.scoped(
    TokenStorage,
    Effect.gen(function*() {
      const term = yield* leaseTerm(options)
      const client = yield* connect(options)
      return fromClient(client, options.prefix, term, inTime(client))
    })
  )

/**
 * As `layer`, with options that are plain values or `Config`s, side by side.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  options: { readonly [K in keyof Options]: Options[K] | Config.Config<Options[K]> }
): Layer.Layer<TokenStorage, ConfigurationError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(
    Effect.all({
      url: resolve(options.url),
      host: resolve(options.host),
      port: resolve(options.port),
      username: resolve(options.username),
      password: resolve(options.password),
      db: resolve(options.db),
      tls: resolve(options.tls),
      prefix: resolve(options.prefix),
      term: resolve(options.term)
    }),
    layer
  ))

/**
 * Tokens in Redis, over a client that the program has already: a `Redis` or a `Cluster` of `ioredis`. It stays open when
 * the layer is closed, and whether commands wait for a lost connection is up to its options.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerClient = (
  client: Redis | Cluster,
  options: ClientOptions = {}
): Layer.Layer<TokenStorage, ConfigurationError> =>
  Layer.effect(TokenStorage, Effect.map(leaseTerm(options), (term) => fromClient(client, options.prefix, term)))

/** Deletes a key, or lets it live for another time in milliseconds, if it still has the value. */
const removeIf = `return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("del", KEYS[1]) or 0`
const renewIf = `return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("pexpire", KEYS[1], ARGV[2]) or 0`

/** How the response to a command is waited for. */
type Wait = <A>(response: Effect.Effect<A, string>) => Effect.Effect<A, string>

const fromClient = (
  client: Redis | Cluster,
  prefix = "",
  term: Duration.Duration,
  wait: Wait = (response) => response
): Storage => {
  const run = <A>(command: () => Promise<A>) =>
    wait(Effect.tryPromise({ try: command, catch: (error) => `Redis: ${describe(error)}` }))
  return make({
    get: (key) => Effect.map(run(() => client.get(prefix + key)), Option.fromNullable),
    set: (key, text, timeToLive) =>
      run(() =>
        Option.match(timeToLive, {
          onNone: () => client.set(prefix + key, text),
          onSome: (ttl) => client.set(prefix + key, text, "PX", millis(ttl))
        })
      ),
    remove: (key, text) => run(() => client.eval(removeIf, 1, prefix + key, text)),
    lease: {
      term,
      take: (key, owner) =>
        Effect.map(
          run(() => client.set(prefix + leaseKey(key), owner, "PX", millis(term), "NX")),
          (response) => response === "OK"
        ),
      renew: (key, owner) =>
        Effect.map(
          run(() => client.eval(renewIf, 1, prefix + leaseKey(key), owner, millis(term))),
          (response) => response === 1
        ),
      release: (key, owner) => run(() => client.eval(removeIf, 1, prefix + leaseKey(key), owner))
    }
  })
}

const millis = (duration: Duration.Duration): number => Math.ceil(Duration.toMillis(duration))

/** How long a command may take. */
const commandTimeout = Duration.seconds(3)

/**
 * Fails if there is no response in time, and has the connection made anew: it may have been dropped silently. The client's
 * own timeout would take a process that had no time itself for one: a timer that is due goes before what was received.
 */
const inTime = (client: Redis): Wait => {
  let isGivenUp = false
  const whenReady = () => {
    isGivenUp = false
    delete client.options.commandTimeout
  }
  if (client.status === "ready") whenReady()
  client.on("ready", whenReady)
  // for what is said before it is ready
  client.on("close", () => {
    client.options.commandTimeout = millis(commandTimeout)
  })
  return hardTimeout(commandTimeout, () => {
    // several commands find it at once
    if (!isGivenUp) client.disconnect(true)
    isGivenUp = true
    return `Redis: ${silence}`
  })
}

const connect = (options: Options): Effect.Effect<Redis, ConfigurationError, Scope.Scope> =>
  Effect.gen(function*() {
    const url = yield* checkedUrl(options.url)
    yield* check(options.port === undefined || (Number.isInteger(options.port) && options.port > 0), () =>
      "port is not a port: write a number such as 6379")
    const settings: RedisOptions = {
      ...(options.host === undefined ? {} : { host: options.host }),
      ...(options.port === undefined ? {} : { port: options.port }),
      ...(options.username === undefined ? {} : { username: options.username }),
      ...(options.password === undefined ? {} : { password: Redacted.value(options.password) }),
      ...(options.db === undefined ? {} : { db: options.db }),
      ...(options.tls === undefined ? {} : { tls: options.tls }),
      lazyConnect: true,
      // without a connection a command fails now, instead of waiting and being sent when nobody wants it any more
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      commandTimeout: millis(commandTimeout),
      // how long a connection that is given up may take to close; one that was dropped silently never does
      disconnectTimeout: 500,
      // connections that something on the way has dropped silently
      keepAlive: 30_000
    }
    const client = yield* Effect.acquireRelease(
      Effect.try({
        try: () =>
          url === undefined ? new Redis(settings) : new Redis(url, settings),
        catch: () => badUrl
      }),
      (client) => Effect.sync(() => client.disconnect())
    )
    let first: unknown
    client.on("error", (error) => {
      first ??= error
    })
    yield* pipe(
      Effect.tryPromise(() => client.connect()),
      Effect.timeout("1 second"),
      Effect.catchAll(() =>
        Effect.logWarning(`Redis cannot be used, tokens are not shared until it can: ${describe(first)}`)
      ),
      inModule("TokenStorage/Redis")
    )
    return client
  })

const badUrl = issue("url is not a Redis URL: write one such as redis://user:password@host:6379/0")

const checkedUrl = (url: Options["url"]): Effect.Effect<string | undefined, ConfigurationError> => {
  if (url === undefined) return Effect.succeed(undefined)
  const text = String(Redacted.isRedacted(url) ? Redacted.value(url) : url)
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  const isValid = parsed !== undefined && /^rediss?:$/.test(parsed.protocol) && /^\/?\d*$/.test(parsed.pathname)
  return isValid ? Effect.succeed(parsed.href) : Effect.fail(badUrl)
}

const silence = "no response in time"

/** Never the words of an error: Redis may quote the command that it refused, and the token with it. */
const describe = (error: unknown): string => {
  if (!(error instanceof Error)) return "no response in time"
  if ("code" in error && typeof error.code === "string") return error.code
  return /^[A-Z]{2,}(?= )/.exec(error.message)?.[0] ??
    (error.message.includes("timed out") ? silence : "no connection")
}
