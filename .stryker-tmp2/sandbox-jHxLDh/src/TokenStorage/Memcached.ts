/**
 * Tokens in Memcached, shared by all who use the same servers: `TokenStorage` on `memjs` 1.3.
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
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Client, Utils } from "memjs"
import { check } from "../internal/configuration.ts"
import { digest } from "../internal/digest.ts"
import { leaseTerm } from "../internal/lease.ts"
import { leaseKey } from "../internal/leaseRecord.ts"
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
  /** For servers with SASL authentication. Defaults to none. */
  readonly username?: string | undefined
  /** For servers with SASL authentication. Defaults to none. */
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
  readonly header: {
    readonly status?: number
    readonly cas?: Uint8Array
  }
  readonly val: Uint8Array
}

/**
 * Tokens in Memcached, over connections of its own that are closed with the layer. They are opened when they are needed.
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
    const servers = (stryMutAct_9fa48("2")
        ? typeof options.servers !== "string"
        : stryMutAct_9fa48("1")
        ? false
        : stryMutAct_9fa48("0")
        ? true
        : (stryCov_9fa48("0", "1", "2"),
          typeof options.servers === (stryMutAct_9fa48("3") ? "" : (stryCov_9fa48("3"), "string"))))
      ? options.servers.split(stryMutAct_9fa48("4") ? "" : (stryCov_9fa48("4"), ","))
      : stryMutAct_9fa48("5")
      ? options.servers && ["localhost"]
      : (stryCov_9fa48("5"),
        options.servers ?? (stryMutAct_9fa48("6")
          ? []
          : (stryCov_9fa48("6"), [stryMutAct_9fa48("7") ? "" : (stryCov_9fa48("7"), "localhost")])))
    yield* check(servers.length > 0 && servers.every(isServer), () =>
      stryMutAct_9fa48("8")
        ? ""
        : (stryCov_9fa48("8"), "servers is not a list of servers: write host:port such as localhost:11211"))
    return yield* Effect.acquireRelease(
      Effect.sync(() =>
        Client.create(servers.join(stryMutAct_9fa48("9") ? "" : (stryCov_9fa48("9"), ",")), {
          // one try, and a server that is slow is given up by those who wait before it is dropped by the client
          retries: 1,
          timeout: 3,
          conntimeout: 3,
          logger: {
            log: () => {}
          },
          ...((stryMutAct_9fa48("12")
              ? options.username !== undefined
              : stryMutAct_9fa48("11")
              ? false
              : stryMutAct_9fa48("10")
              ? true
              : (stryCov_9fa48("10", "11", "12"), options.username === undefined)) ?
            {} :
            stryMutAct_9fa48("13") ?
            {} :
            (stryCov_9fa48("13"), {
              username: options.username
            })),
          ...(options.password === undefined ? {} : {
            password: Redacted.value(options.password)
          })
        })
      ),
      (client) =>
        Effect.sync(() => {
          client.close()
          // it would connect again for whatever comes late
          client.perform = (_key, _request, _seq, callback) =>
            stryMutAct_9fa48("14")
              ? callback(new Error("closed"), null)
              : (stryCov_9fa48("14"),
                callback?.(new Error(stryMutAct_9fa48("15") ? "" : (stryCov_9fa48("15"), "closed")), null))
        })
    )
  })
const isServer = (server: string): boolean => {
  const [, port] = stryMutAct_9fa48("16")
    ? /^[\w.-]+(?::(\d{1,5}))?$/.exec(server) && [undefined, "0"]
    : (stryCov_9fa48("16"),
      (stryMutAct_9fa48("24")
        ? /^[\w.-]+(?::(\D{1,5}))?$/
        : stryMutAct_9fa48("23")
        ? /^[\w.-]+(?::(\d))?$/
        : stryMutAct_9fa48("22")
        ? /^[\w.-]+(?::(\d{1,5}))$/
        : stryMutAct_9fa48("21")
        ? /^[\W.-]+(?::(\d{1,5}))?$/
        : stryMutAct_9fa48("20")
        ? /^[^\w.-]+(?::(\d{1,5}))?$/
        : stryMutAct_9fa48("19")
        ? /^[\w.-](?::(\d{1,5}))?$/
        : stryMutAct_9fa48("18")
        ? /^[\w.-]+(?::(\d{1,5}))?/
        : stryMutAct_9fa48("17")
        ? /[\w.-]+(?::(\d{1,5}))?$/
        : (stryCov_9fa48("17", "18", "19", "20", "21", "22", "23", "24"), /^[\w.-]+(?::(\d{1,5}))?$/)).exec(server) ??
        (stryMutAct_9fa48("25")
          ? []
          : (stryCov_9fa48("25"), [undefined, stryMutAct_9fa48("26") ? "" : (stryCov_9fa48("26"), "0")])))
  return stryMutAct_9fa48("29")
    ? port === undefined && Number(port) > 0 && Number(port) < 65536
    : stryMutAct_9fa48("28")
    ? false
    : stryMutAct_9fa48("27")
    ? true
    : (stryCov_9fa48("27", "28", "29"),
      (stryMutAct_9fa48("31")
        ? port !== undefined
        : stryMutAct_9fa48("30")
        ? false
        : (stryCov_9fa48("30", "31"), port === undefined)) || (stryMutAct_9fa48("33")
          ? Number(port) > 0 || Number(port) < 65536
          : stryMutAct_9fa48("32")
          ? false
          : (stryCov_9fa48("32", "33"),
            (stryMutAct_9fa48("36")
              ? Number(port) <= 0
              : stryMutAct_9fa48("35")
              ? Number(port) >= 0
              : stryMutAct_9fa48("34")
              ? true
              : (stryCov_9fa48("34", "35", "36"), Number(port) > 0)) && (stryMutAct_9fa48("39")
                ? Number(port) >= 65536
                : stryMutAct_9fa48("38")
                ? Number(port) <= 65536
                : stryMutAct_9fa48("37")
                ? true
                : (stryCov_9fa48("37", "38", "39"), Number(port) < 65536)))))
}

/** The operations of the binary protocol, and the statuses that are answers to them. */
const operation = {
  get: 0x00,
  set: 0x01,
  add: 0x02,
  delete: 0x04
} as const
const status = {
  done: 0,
  notFound: 1,
  exists: 2
} as const
const answers: ReadonlyArray<number> = Object.values(status)

/** A longer time is taken for a date (memcached's protocol.txt); a token that lives longer is dropped by then. */
const longestExpiry = Duration.days(30)

/** The longest key, in bytes. */
const longestKey = 250
const fromClient = (client: MemjsClient, prefix = "", term: Duration.Duration): Storage => {
  const named = (key: string): string =>
    (stryMutAct_9fa48("43")
        ? Buffer.byteLength(prefix + leaseKey(key)) <= longestKey
        : stryMutAct_9fa48("42")
        ? Buffer.byteLength(prefix + leaseKey(key)) >= longestKey
        : stryMutAct_9fa48("41")
        ? false
        : stryMutAct_9fa48("40")
        ? true
        : (stryCov_9fa48("40", "41", "42", "43"),
          Buffer.byteLength(
            stryMutAct_9fa48("44") ? prefix - leaseKey(key) : (stryCov_9fa48("44"), prefix + leaseKey(key))
          ) > longestKey))
      ? digest(stryMutAct_9fa48("45") ? prefix - key : (stryCov_9fa48("45"), prefix + key))
      : stryMutAct_9fa48("46")
      ? prefix - key
      : (stryCov_9fa48("46"), prefix + key)
  const read = (key: string): Effect.Effect<
    Option.Option<{
      readonly text: string
      readonly version: Uint8Array
    }>,
    string
  > =>
    Effect.map(send(client, operation.get, key), ({
      header,
      val
    }) =>
      (stryMutAct_9fa48("49")
          ? header.status === status.notFound && header.cas === undefined
          : stryMutAct_9fa48("48")
          ? false
          : stryMutAct_9fa48("47")
          ? true
          : (stryCov_9fa48("47", "48", "49"),
            (stryMutAct_9fa48("51")
              ? header.status !== status.notFound
              : stryMutAct_9fa48("50")
              ? false
              : (stryCov_9fa48("50", "51"), header.status === status.notFound)) || (stryMutAct_9fa48("53")
                ? header.cas !== undefined
                : stryMutAct_9fa48("52")
                ? false
                : (stryCov_9fa48("52", "53"), header.cas === undefined)))) ?
        Option.none() :
        Option.some({
          text: new TextDecoder().decode(val),
          version: header.cas
        }))

  /** Does something with a key, in one step with seeing that it still has this text: whether it did. */
  const onlyIf = (key: string, text: string, opcode: number, write: Omit<Write, "version">) =>
    pipe(
      read(key),
      Effect.map(Option.filter((found) => found.text === text)),
      Effect.flatMap(Option.match({
        onNone: () => Effect.succeed(false),
        onSome: ({
          version
        }) =>
          Effect.map(
            send(
              client,
              opcode,
              key,
              stryMutAct_9fa48("54") ? {} : (stryCov_9fa48("54"), {
                ...write,
                version
              })
            ),
            stryMutAct_9fa48("55") ?
              () => undefined :
              (stryCov_9fa48("55"), ({
                header
              }) =>
                stryMutAct_9fa48("58")
                  ? header.status !== status.done
                  : stryMutAct_9fa48("57")
                  ? false
                  : stryMutAct_9fa48("56")
                  ? true
                  : (stryCov_9fa48("56", "57", "58"), header.status === status.done))
          )
      }))
    )
  return make({
    get: (key) =>
      Effect.map(
        read(named(key)),
        Option.map(({
          text
        }) => text)
      ),
    set: (key, text, timeToLive) =>
      send(client, operation.set, named(key), {
        value: text,
        expiry: Option.match(timeToLive, {
          onNone: () => 0,
          onSome: seconds
        })
      }),
    remove: (key, text) => onlyIf(named(key), text, operation.delete, {}),
    lease: {
      term,
      take: (key, owner) =>
        Effect.map(
          send(client, operation.add, leaseKey(named(key)), {
            value: owner,
            expiry: leaseSeconds(term)
          }),
          ({
            header
          }) => header.status === status.done
        ),
      renew: (key, owner) =>
        onlyIf(leaseKey(named(key)), owner, operation.set, {
          value: owner,
          expiry: leaseSeconds(term)
        }),
      release: (key, owner) => onlyIf(leaseKey(named(key)), owner, operation.delete, {})
    }
  })
}
const seconds = (duration: Duration.Duration): number =>
  Math.ceil(Duration.toSeconds(Duration.min(duration, longestExpiry)))

/** The server counts whole seconds by a clock that ticks once in a second: a lease must not end before its term. */
const leaseSeconds = stryMutAct_9fa48("59") ? () => undefined : (stryCov_9fa48("59"),
  (() => {
    const leaseSeconds = (term: Duration.Duration): number =>
      stryMutAct_9fa48("60") ? seconds(term) - 1 : (stryCov_9fa48("60"), seconds(term) + 1)
    return leaseSeconds
  })())
interface Write {
  readonly value?: string
  /** In seconds from now; 0 for ever. */
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
      const code = stryMutAct_9fa48("61")
        ? response?.header.status && -1
        : (stryCov_9fa48("61"),
          (stryMutAct_9fa48("62") ? response.header.status : (stryCov_9fa48("62"), response?.header.status)) ??
            (stryMutAct_9fa48("63") ? +1 : (stryCov_9fa48("63"), -1)))
      resume(
        (stryMutAct_9fa48("66")
            ? response !== null || answers.includes(code)
            : stryMutAct_9fa48("65")
            ? false
            : stryMutAct_9fa48("64")
            ? true
            : (stryCov_9fa48("64", "65", "66"),
              (stryMutAct_9fa48("68")
                ? response === null
                : stryMutAct_9fa48("67")
                ? true
                : (stryCov_9fa48("67", "68"), response !== null)) && answers.includes(code)))
          ? Effect.succeed(response)
          : Effect.fail(
            stryMutAct_9fa48("69") ? `` : (stryCov_9fa48("69"),
              `Memcached: ${
                (stryMutAct_9fa48("72")
                    ? response !== null
                    : stryMutAct_9fa48("71")
                    ? false
                    : stryMutAct_9fa48("70")
                    ? true
                    : (stryCov_9fa48("70", "71", "72"), response === null))
                  ? describe(error)
                  : stryMutAct_9fa48("73")
                  ? ``
                  : (stryCov_9fa48("73"), `status ${code}`)
              }`)
          )
      )
    })
  })

/** Never the words of an error. The client's own for a refused password is a plain string. */
const describe = (error: unknown): string => {
  if (typeof error === "string") return "the password was refused"
  return (stryMutAct_9fa48("76")
      ? error instanceof Error && "code" in error || typeof error.code === "string"
      : stryMutAct_9fa48("75")
      ? false
      : stryMutAct_9fa48("74")
      ? true
      : (stryCov_9fa48("74", "75", "76"),
        (stryMutAct_9fa48("78")
          ? error instanceof Error || "code" in error
          : stryMutAct_9fa48("77")
          ? true
          : (stryCov_9fa48("77", "78"),
            error instanceof Error && (stryMutAct_9fa48("79") ? "" : (stryCov_9fa48("79"), "code")) in error)) &&
        (stryMutAct_9fa48("81")
          ? typeof error.code !== "string"
          : stryMutAct_9fa48("80")
          ? true
          : (stryCov_9fa48("80", "81"),
            typeof error.code === (stryMutAct_9fa48("82") ? "" : (stryCov_9fa48("82"), "string"))))))
    ? error.code
    : stryMutAct_9fa48("83")
    ? ""
    : (stryCov_9fa48("83"), "no answer")
}
