/**
 * One pipeline per key: a token for each tenant or each user of a program.
 *
 * A pipeline is built from what `lookup` says about its key, when the key is first used. Its cooldowns, rejections and
 * renewals are its own. Pipelines that nobody uses are released: after `idleTimeToLive`, or earlier if the pool holds more
 * than `capacity` of them.
 *
 * @since 0.2.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { pipe } from "effect/Function"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import type { AccessToken } from "./AccessToken.ts"
import * as Alf from "./Alf.ts"
import type { InsufficientScope, Unauthorized } from "./AuthorizedHttpClient.ts"
import { layerRuntime } from "./internal/layerRuntime.ts"
import { inModule } from "./internal/log.ts"
import { finiteDuration, issue } from "./internal/options.ts"
import { ConfigurationError, LayerClosed, type TokenError } from "./TokenError.ts"
import type { TokenService } from "./TokenService.ts"

/**
 * @since 0.2.0
 * @category models
 */
export interface Options<K, E = never, R = never, G = never> {
  /**
   * The options of a key's pipeline. It runs once for all callers that wait, again after it failed, and again after `forget` or
   * `idleTimeToLive`.
   */
  readonly lookup: (key: K) => Alf.Options<G> | Effect.Effect<Alf.Options<G>, E, R>
  /** How long a pipeline is kept without a request. Defaults to 30 minutes. */
  readonly idleTimeToLive?: Duration.DurationInput | undefined
  /**
   * How many pipelines are kept. The least recently used idle one goes first; a pipeline in use is never released, so a
   * pool whose pipelines are all in use grows beyond it. Defaults to 10,000.
   */
  readonly capacity?: number | undefined
}

/**
 * Clients and token services by key. They are values: they borrow the key's pipeline while a request runs, and stay usable
 * after the pipeline was released.
 *
 * @since 0.2.0
 * @category models
 */
export interface TokenPool<K, E = never> {
  /**
   * The drop-in client of a key. A failure of `lookup` or bad options become an `HttpClientError` whose `cause` they are.
   */
  readonly httpClient: (key: K) => HttpClient.HttpClient
  /** The typed client of a key. */
  readonly authorizedHttpClient: (key: K) => HttpClient.HttpClient.With<
    HttpClientError.HttpClientError | TokenError | Unauthorized | InsufficientScope | ConfigurationError | E
  >
  /** The token service of a key. */
  readonly tokens: (key: K) => Tokens<E>
  /**
   * Forgets a key: the next request starts anew with `lookup` and a token. Requests under way are not ended, and stored
   * tokens stay.
   */
  readonly forget: (key: K) => Effect.Effect<void>
}

/**
 * A `TokenService` that can also fail with what its `lookup` fails with.
 *
 * @since 0.2.0
 * @category models
 */
export interface Tokens<E = never> {
  readonly get: Effect.Effect<AccessToken, TokenError | ConfigurationError | E>
  readonly refresh: (rejected: AccessToken) => Effect.Effect<AccessToken, TokenError | ConfigurationError | E>
  readonly invalidate: Effect.Effect<void, TokenError | ConfigurationError | E>
  readonly revoke: Effect.Effect<void, TokenError | ConfigurationError | E>
}

interface Pipeline {
  readonly httpClient: HttpClient.HttpClient
  readonly authorizedHttpClient: HttpClient.HttpClient.With<
    HttpClientError.HttpClientError | TokenError | Unauthorized | InsufficientScope
  >
  readonly tokens: TokenService["Type"]
}

interface Entry<E> {
  readonly scope: Scope.CloseableScope
  /** What nearly every request finds is built. */
  pipeline: Pipeline | Deferred.Deferred<Pipeline, E | ConfigurationError | LayerClosed>
  /** How many requests use it now. */
  users: number
  /** When the last one ended, in milliseconds. */
  idleSince: number
}

const isBuilt = <E>(pipeline: Entry<E>["pipeline"]): pipeline is Pipeline => "tokens" in pipeline

/**
 * A pool that lives in the scope of the caller: closing that scope closes every pipeline.
 *
 * **Details**
 *
 * Keys are compared by `Equal`; objects without it, a `URL` too, by reference. The pool's keys are part of nothing that is
 * stored: what tells tenants apart in a shared `TokenStorage` are their options. If two tenants differ in nothing but a
 * header or a secret, give them a `storageKey`.
 *
 * A `capacity` or `idleTimeToLive` that cannot work is the `ConfigurationError` of each request.
 *
 * @example
 * ```ts
 * import { Effect, Redacted } from "effect"
 * import { TokenPool } from "effect-alf"
 *
 * const makePool = TokenPool.make({
 *   lookup: (tenant: string) => ({
 *     tokenEndpoint: `https://${tenant}.example.com/oauth/token`,
 *     clientId: "reports",
 *     clientSecret: Redacted.make("secret"),
 *     origins: [`https://${tenant}.example.com`]
 *   })
 * })
 *
 * export const program = Effect.gen(function*() {
 *   const pool = yield* makePool
 *   return yield* pool.httpClient("acme").get("https://acme.example.com/reports")
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const make = <K, E = never, R = never, G = never>(
  options: Options<K, E, R, G>
): Effect.Effect<TokenPool<K, E>, never, HttpClient.HttpClient | Scope.Scope | R | G> =>
  Effect.gen(function*() {
    const runtime = yield* layerRuntime<HttpClient.HttpClient | R | G>()
    const clock = yield* Effect.clock
    const settings = decode(options)
    const entries = MutableHashMap.empty<K, Entry<E>>()
    /** Entries without a request, the least recently used first. */
    const idle = new Map<Entry<E>, K>()
    /** Entries that left the pool while requests use them: the last of these releases them. */
    const leaving = new Set<Entry<E>>()
    const building = new Map<Entry<E>, Fiber.RuntimeFiber<unknown, unknown>>()
    const releasing = new Set<Fiber.RuntimeFiber<unknown, unknown>>()
    let isClosed = false
    let isWarned = false

    /** Work of the pool itself, which no caller can interrupt. */
    const fork = Runtime.runFork(runtime)

    const release = (entry: Entry<E>) => {
      const builder = building.get(entry)
      if (!isBuilt(entry.pipeline)) Deferred.unsafeDone(entry.pipeline, Exit.fail(new LayerClosed()))
      const fiber = fork(
        Effect.zipRight(
          builder === undefined ? Effect.void : Fiber.interrupt(builder),
          Scope.close(entry.scope, Exit.void)
        )
      )
      releasing.add(fiber)
      fiber.addObserver(() => releasing.delete(fiber))
    }

    const remove = (key: K, entry: Entry<E>) => {
      const current = MutableHashMap.get(entries, key)
      if (Option.isSome(current) && current.value === entry) MutableHashMap.remove(entries, key)
      idle.delete(entry)
      if (entry.users === 0) release(entry)
      else leaving.add(entry)
    }

    /** Releases what is idle for too long, and what is more than `capacity`; the rest is left to the next requests. */
    const evict = ({ capacity, idleTimeToLive }: Settings, now: number) => {
      let left = mostReleased
      for (const [entry, key] of idle) {
        if (left-- === 0) return
        // a clock that was set back ends an idle time too
        const isOver = now - entry.idleSince >= idleTimeToLive || now < entry.idleSince
        if (!isOver && MutableHashMap.size(entries) <= capacity) return
        remove(key, entry)
      }
      if (MutableHashMap.size(entries) > capacity && !isWarned) {
        isWarned = true
        fork(
          inModule("TokenPool")(
            Effect.logWarning(`The token pool holds more than ${capacity} keys, all of them in use: raise its capacity`)
          )
        )
      }
    }

    const build = (key: K, entry: Entry<E>) =>
      pipe(
        Effect.suspend((): Effect.Effect<Alf.Options<G>, E, R> => {
          const found = options.lookup(key)
          return Effect.isEffect(found) ? found : Effect.succeed(found)
        }),
        Effect.flatMap((found) => Alf.makeIn(found, runtime)),
        // the pool may have been made where nothing can be interrupted
        Effect.interruptible,
        Scope.extend(entry.scope),
        Effect.onExit((exit) => {
          const { pipeline } = entry
          if (Exit.isSuccess(exit)) entry.pipeline = exit.value
          else remove(key, entry)
          return isBuilt(pipeline)
            ? Effect.void
            : Deferred.done(pipeline, Exit.isInterrupted(exit) ? Exit.fail(new LayerClosed()) : exit)
        })
      )

    const open = (key: K): Entry<E> => {
      const entry: Entry<E> = {
        scope: Effect.runSync(Scope.make()),
        pipeline: Deferred.unsafeMake(FiberId.none),
        users: 0,
        idleSince: 0
      }
      MutableHashMap.set(entries, key, entry)
      return entry
    }

    const start = (key: K, entry: Entry<E>) => {
      const builder = fork(build(key, entry))
      building.set(entry, builder)
      builder.addObserver(() => building.delete(entry))
    }

    const enter = (key: K, settings: Settings): Entry<E> => {
      const now = clock.unsafeCurrentTimeMillis()
      const found = Option.getOrUndefined(MutableHashMap.get(entries, key))
      const isKept = found !== undefined &&
        (found.users > 0 || (found.idleSince <= now && now - found.idleSince < settings.idleTimeToLive))
      if (found !== undefined && !isKept) remove(key, found)
      const entry = isKept ? found : open(key)
      idle.delete(entry)
      entry.users++
      if (!isKept) start(key, entry)
      evict(settings, now)
      return entry
    }

    const leave = (key: K, entry: Entry<E>) => {
      if (--entry.users > 0) return
      entry.idleSince = clock.unsafeCurrentTimeMillis()
      if (leaving.delete(entry)) release(entry)
      else if (!isClosed) idle.set(entry, key)
    }

    /** Uses the pipeline of a key. It is not released before the use has ended. */
    const borrow = <A, E2, R2>(
      key: K,
      use: (pipeline: Pipeline) => Effect.Effect<A, E2, R2>
    ): Effect.Effect<A, E | E2 | ConfigurationError | LayerClosed, R2> =>
      Effect.uninterruptibleMask((restore): Effect.Effect<A, E | E2 | ConfigurationError | LayerClosed, R2> => {
        if (Either.isLeft(settings)) return Effect.fail(settings.left)
        if (isClosed) return Effect.fail(new LayerClosed())
        const entry = enter(key, settings.right)
        const used = isBuilt(entry.pipeline) ? use(entry.pipeline) : Effect.flatMap(Deferred.await(entry.pipeline), use)
        return Effect.onExit(restore(used), () => Effect.sync(() => leave(key, entry)))
      })

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        isClosed = true
        for (const [_, entry] of entries) release(entry)
        leaving.forEach(release)
        MutableHashMap.clear(entries)
        idle.clear()
        leaving.clear()
        return Fiber.awaitAll(releasing)
      })
    )

    return {
      httpClient: (key) =>
        client((request) =>
          Effect.catchAll(
            borrow(key, ({ httpClient }) => httpClient.execute(request)),
            (error) => Effect.fail(asHttpClientError(error, request))
          )
        ),
      authorizedHttpClient: (key) =>
        client((request) => borrow(key, ({ authorizedHttpClient }) => authorizedHttpClient.execute(request))),
      tokens: (key) => ({
        get: borrow(key, ({ tokens }) => tokens.get),
        refresh: (rejected) => borrow(key, ({ tokens }) => tokens.refresh(rejected)),
        invalidate: borrow(key, ({ tokens }) => tokens.invalidate),
        revoke: borrow(key, ({ tokens }) => tokens.revoke)
      }),
      forget: (key) =>
        Effect.sync(() => {
          const entry = MutableHashMap.get(entries, key)
          if (Option.isSome(entry)) remove(key, entry.value)
        })
    }
  })

/** How many pipelines one request releases: thousands at once would hold up all others. */
const mostReleased = 100

interface Settings {
  readonly capacity: number
  /** In milliseconds. */
  readonly idleTimeToLive: number
}

const decode = (
  options: Pick<Options<never>, "capacity" | "idleTimeToLive">
): Either.Either<Settings, ConfigurationError> =>
  Either.flatMap(
    finiteDuration("idleTimeToLive", options.idleTimeToLive ?? "30 minutes"),
    (idleTimeToLive) => {
      const capacity = options.capacity ?? 10_000
      return Number.isInteger(capacity) && capacity > 0
        ? Either.right({ capacity, idleTimeToLive: Duration.toMillis(idleTimeToLive) })
        : Either.left(
          issue("capacity must be a whole number above 0: write how many keys the pool keeps, such as 10_000")
        )
    }
  )

const client = <E>(
  execute: (request: HttpClientRequest.HttpClientRequest) => Effect.Effect<
    HttpClientResponse.HttpClientResponse,
    E
  >
): HttpClient.HttpClient.With<E> =>
  HttpClient.makeWith(Effect.flatMap(execute), Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>)

/** What a client fails with whose error type has no place for the errors of a pool. */
const asHttpClientError = (
  error: unknown,
  request: HttpClientRequest.HttpClientRequest
): HttpClientError.HttpClientError =>
  HttpClientError.isHttpClientError(error) ? error : new HttpClientError.RequestError({
    request,
    reason: "Transport",
    cause: error,
    description: error instanceof ConfigurationError || error instanceof LayerClosed
      ? error.message
      : "the pool's lookup failed for this key"
  })
