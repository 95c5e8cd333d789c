/**
 * Tokens in Redis, shared by all who use the same server: `TokenStorage` on `ioredis` 5.
 *
 * Comparing and removing, and renewing and giving back the lease, are Lua scripts of one line, run by the server in one
 * step. Tokens and leases carry the server's own expiry.
 *
 * While the server cannot be reached every command fails at once, and the connection is tried anew in the background:
 * each process fetches for itself meanwhile, and shares again as soon as the server is back.
 *
 * @since 0.1.0
 */
// @ts-nocheck
function stryNS_9fa48() {
  var g = typeof globalThis === "object" && globalThis && globalThis.Math === Math && globalThis ||
    new Function("return this")()
  var ns = g.__stryker__ || (g.__stryker__ = {})
  if (ns.activeMutant === undefined && g.process && g.process.env && g.process.env.__STRYKER_ACTIVE_MUTANT__) {
    ns.activeMutant = g.process.env.__STRYKER_ACTIVE_MUTANT__
  }
  function retrieveNS() {
    return ns
  }
  stryNS_9fa48 = retrieveNS
  return retrieveNS()
}
stryNS_9fa48()
function stryCov_9fa48() {
  var ns = stryNS_9fa48()
  var cov = ns.mutantCoverage || (ns.mutantCoverage = {
    static: {},
    perTest: {}
  })
  function cover() {
    var c = cov.static
    if (ns.currentTestId) {
      c = cov.perTest[ns.currentTestId] = cov.perTest[ns.currentTestId] || {}
    }
    var a = arguments
    for (var i = 0; i < a.length; i++) {
      c[a[i]] = (c[a[i]] || 0) + 1
    }
  }
  stryCov_9fa48 = cover
  cover.apply(null, arguments)
}
function stryMutAct_9fa48(id) {
  var ns = stryNS_9fa48()
  function isActive(id) {
    if (ns.activeMutant === id) {
      if (ns.hitCount !== void 0 && ++ns.hitCount > ns.hitLimit) {
        throw new Error("Stryker: Hit count limit reached (" + ns.hitCount + ")")
      }
      return true
    }
    return false
  }
  stryMutAct_9fa48 = isActive
  return isActive(id)
}
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { type Cluster, Redis, type RedisOptions } from "ioredis"
import { check, issue } from "../internal/configuration.ts"
import { leaseTerm } from "../internal/lease.ts"
import { leaseKey } from "../internal/leaseRecord.ts"
import { inModule } from "../internal/log.ts"
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
      // a connection that does not answer may have been dropped silently
      return fromClient(
        client,
        options.prefix,
        term,
        stryMutAct_9fa48("84")
          ? () => undefined
          : (stryCov_9fa48("84"), () => client.disconnect(stryMutAct_9fa48("85") ? false : (stryCov_9fa48("85"), true)))
      )
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
const resolve = <A>(value: A | Config.Config<A>): Effect.Effect<A, ConfigError> =>
  Config.isConfig(value) ? value : Effect.succeed(value)

/** Deletes a key, or lets it live for another time in milliseconds, if it still has the value. */
const removeIf = `return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("del", KEYS[1]) or 0`
const renewIf = `return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("pexpire", KEYS[1], ARGV[2]) or 0`
const fromClient = (client: Redis | Cluster, prefix = "", term: Duration.Duration, onSilence = () => {}): Storage => {
  const run = <A>(command: () => Promise<A>) =>
    Effect.tryPromise({
      try: command,
      catch: (error) => {
        const description = describe(error)
        if (
          stryMutAct_9fa48("88")
            ? description !== silence
            : stryMutAct_9fa48("87")
            ? false
            : stryMutAct_9fa48("86")
            ? true
            : (stryCov_9fa48("86", "87", "88"), description === silence)
        ) onSilence()
        return `Redis: ${description}`
      }
    })
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
          (answer) => answer === "OK"
        ),
      renew: (key, owner) =>
        Effect.map(
          run(() => client.eval(renewIf, 1, prefix + leaseKey(key), owner, millis(term))),
          stryMutAct_9fa48("89")
            ? () => undefined
            : (stryCov_9fa48("89"), (answer) =>
              stryMutAct_9fa48("92")
                ? answer !== 1
                : stryMutAct_9fa48("91")
                ? false
                : stryMutAct_9fa48("90")
                ? true
                : (stryCov_9fa48("90", "91", "92"), answer === 1))
        ),
      release: (key, owner) => run(() => client.eval(removeIf, 1, prefix + leaseKey(key), owner))
    }
  })
}
const millis = (duration: Duration.Duration): number => Math.ceil(Duration.toMillis(duration))
const connect = (options: Options): Effect.Effect<Redis, ConfigurationError, Scope.Scope> =>
  Effect.gen(function*() {
    const url = yield* checkedUrl(options.url)
    yield* check(options.port === undefined || Number.isInteger(options.port) && options.port > 0, () =>
      stryMutAct_9fa48("93") ? "" : (stryCov_9fa48("93"), "port is not a port: write a number such as 6379"))
    const settings: RedisOptions = {
      ...((stryMutAct_9fa48("96")
          ? options.host !== undefined
          : stryMutAct_9fa48("95")
          ? false
          : stryMutAct_9fa48("94")
          ? true
          : (stryCov_9fa48("94", "95", "96"), options.host === undefined)) ?
        {} :
        stryMutAct_9fa48("97") ?
        {} :
        (stryCov_9fa48("97"), {
          host: options.host
        })),
      ...((stryMutAct_9fa48("100")
          ? options.port !== undefined
          : stryMutAct_9fa48("99")
          ? false
          : stryMutAct_9fa48("98")
          ? true
          : (stryCov_9fa48("98", "99", "100"), options.port === undefined)) ?
        {} :
        stryMutAct_9fa48("101") ?
        {} :
        (stryCov_9fa48("101"), {
          port: options.port
        })),
      ...((stryMutAct_9fa48("104")
          ? options.username !== undefined
          : stryMutAct_9fa48("103")
          ? false
          : stryMutAct_9fa48("102")
          ? true
          : (stryCov_9fa48("102", "103", "104"), options.username === undefined)) ?
        {} :
        stryMutAct_9fa48("105") ?
        {} :
        (stryCov_9fa48("105"), {
          username: options.username
        })),
      ...(options.password === undefined ? {} : {
        password: Redacted.value(options.password)
      }),
      ...((stryMutAct_9fa48("108")
          ? options.db !== undefined
          : stryMutAct_9fa48("107")
          ? false
          : stryMutAct_9fa48("106")
          ? true
          : (stryCov_9fa48("106", "107", "108"), options.db === undefined)) ?
        {} :
        stryMutAct_9fa48("109") ?
        {} :
        (stryCov_9fa48("109"), {
          db: options.db
        })),
      ...((stryMutAct_9fa48("112")
          ? options.tls !== undefined
          : stryMutAct_9fa48("111")
          ? false
          : stryMutAct_9fa48("110")
          ? true
          : (stryCov_9fa48("110", "111", "112"), options.tls === undefined)) ?
        {} :
        stryMutAct_9fa48("113") ?
        {} :
        (stryCov_9fa48("113"), {
          tls: options.tls
        })),
      lazyConnect: true,
      // without a connection a command fails now, instead of waiting and being sent when nobody wants it any more
      enableOfflineQueue: stryMutAct_9fa48("114") ? true : (stryCov_9fa48("114"), false),
      maxRetriesPerRequest: 0,
      commandTimeout: 3000,
      // connections that something on the way has dropped silently
      keepAlive: 30_000
    }
    const client = yield* Effect.acquireRelease(
      Effect.try({
        try: () =>
          (stryMutAct_9fa48("117")
              ? url !== undefined
              : stryMutAct_9fa48("116")
              ? false
              : stryMutAct_9fa48("115")
              ? true
              : (stryCov_9fa48("115", "116", "117"), url === undefined))
            ? new Redis(settings)
            : new Redis(url, settings),
        catch: () =>
          badUrl
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
      inModule(stryMutAct_9fa48("118") ? "" : (stryCov_9fa48("118"), "TokenStorage/Redis"))
    )
    return client
  })
const badUrl = issue("url is no Redis URL: write one such as redis://user:password@host:6379/0")
const checkedUrl = (url: Options["url"]): Effect.Effect<string | undefined, ConfigurationError> => {
  if (url === undefined) return Effect.succeed(undefined)
  const text = String(Redacted.isRedacted(url) ? Redacted.value(url) : url)
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  const isValid = stryMutAct_9fa48("121")
    ? parsed !== undefined && /^rediss?:$/.test(parsed.protocol) || /^\/?\d*$/.test(parsed.pathname)
    : stryMutAct_9fa48("120")
    ? false
    : stryMutAct_9fa48("119")
    ? true
    : (stryCov_9fa48("119", "120", "121"),
      (stryMutAct_9fa48("123")
        ? parsed !== undefined || /^rediss?:$/.test(parsed.protocol)
        : stryMutAct_9fa48("122")
        ? true
        : (stryCov_9fa48("122", "123"),
          (stryMutAct_9fa48("125")
            ? parsed === undefined
            : stryMutAct_9fa48("124")
            ? true
            : (stryCov_9fa48("124", "125"), parsed !== undefined)) && (stryMutAct_9fa48("128")
              ? /^rediss:$/
              : stryMutAct_9fa48("127")
              ? /^rediss?:/
              : stryMutAct_9fa48("126")
              ? /rediss?:$/
              : (stryCov_9fa48("126", "127", "128"), /^rediss?:$/)).test(parsed.protocol))) &&
      (stryMutAct_9fa48("133")
        ? /^\/?\D*$/
        : stryMutAct_9fa48("132")
        ? /^\/?\d$/
        : stryMutAct_9fa48("131")
        ? /^\/\d*$/
        : stryMutAct_9fa48("130")
        ? /^\/?\d*/
        : stryMutAct_9fa48("129")
        ? /\/?\d*$/
        : (stryCov_9fa48("129", "130", "131", "132", "133"), /^\/?\d*$/)).test(parsed.pathname))
  return isValid ? Effect.succeed(parsed.href) : Effect.fail(badUrl)
}
const silence = "no answer in time"

/** Never the words of an error: Redis may quote the command that it refused, and the token with it. */
const describe = (error: unknown): string => {
  if (
    stryMutAct_9fa48("136")
      ? false
      : stryMutAct_9fa48("135")
      ? true
      : stryMutAct_9fa48("134")
      ? error instanceof Error
      : (stryCov_9fa48("134", "135", "136"), !(error instanceof Error))
  ) return stryMutAct_9fa48("137") ? "" : (stryCov_9fa48("137"), "no answer in time")
  if (
    stryMutAct_9fa48("140")
      ? "code" in error || typeof error.code === "string"
      : stryMutAct_9fa48("139")
      ? false
      : stryMutAct_9fa48("138")
      ? true
      : (stryCov_9fa48("138", "139", "140"),
        (stryMutAct_9fa48("141") ? "" : (stryCov_9fa48("141"), "code")) in error && (stryMutAct_9fa48("143")
          ? typeof error.code !== "string"
          : stryMutAct_9fa48("142")
          ? true
          : (stryCov_9fa48("142", "143"),
            typeof error.code === (stryMutAct_9fa48("144") ? "" : (stryCov_9fa48("144"), "string")))))
  ) return error.code
  return (stryMutAct_9fa48("145") ?
    /^[A-Z]{2,}(?= )/.exec(error.message)[0] :
    (stryCov_9fa48("145"),
      (stryMutAct_9fa48("149")
        ? /^[A-Z]{2,}(?! )/
        : stryMutAct_9fa48("148")
        ? /^[^A-Z]{2,}(?= )/
        : stryMutAct_9fa48("147")
        ? /^[A-Z](?= )/
        : stryMutAct_9fa48("146")
        ? /[A-Z]{2,}(?= )/
        : (stryCov_9fa48("146", "147", "148", "149"), /^[A-Z]{2,}(?= )/)).exec(error.message)?.[0])) ??
    (error.message.includes(stryMutAct_9fa48("150") ? "" : (stryCov_9fa48("150"), "timed out"))
      ? silence
      : stryMutAct_9fa48("151")
      ? ""
      : (stryCov_9fa48("151"), "no connection"))
}
