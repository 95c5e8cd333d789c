/**
 * Keeps one token valid (RFC 6749 §1.4): whoever asks gets a token that is good now.
 *
 * The state is held in a `Ref` and moved by the pure function of `internal/tokenState.ts`; this module runs what that
 * function decides. However many callers need a token at once, one fetch is under way. Its fiber belongs to the scope of
 * the layer, so a caller that is interrupted only leaves.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { AccessToken, supersedes, timeToLive } from "./AccessToken.ts"
import type { AuthorizationServer } from "./AuthorizationServer.ts"
import type { Grant } from "./Grant.ts"
import { digest } from "./internal/digest.ts"
import { degraded, guard } from "./internal/token/guardedStorage.ts"
import { inModule } from "./internal/log.ts"
import * as TokenState from "./internal/token/state.ts"
import { TokenEndpoint } from "./TokenEndpoint.ts"
import type { TokenError } from "./TokenError.ts"
import * as TokenMetrics from "./TokenMetrics.ts"
import { TokenStorage, TokenStorageError } from "./TokenStorage.ts"

/**
 * The token that a program uses.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenService extends Context.Tag("effect-alf/TokenService")<TokenService, {
  /** A token that is valid now. Nothing is fetched while the current one is. */
  readonly get: Effect.Effect<AccessToken, TokenError>
  /** Another token than `rejected`. Nothing is fetched if it has been replaced already. */
  readonly refresh: (rejected: AccessToken) => Effect.Effect<AccessToken, TokenError>
  /** Forgets the token, here and in the storage. A fetch that is under way serves those who wait for it. */
  readonly invalidate: Effect.Effect<void>
}>() {}

/**
 * When a token is renewed.
 *
 * @since 0.1.0
 * @category models
 */
export interface WindowOptions {
  /**
   * How long before its end a token is no longer used: callers wait for the next one. At most 5 % of the token's
   * lifetime. Defaults to 10 seconds.
   */
  readonly expiryLeeway?: Duration.DurationInput | undefined
  /**
   * How long before its end a token is renewed in the background, while callers go on with it. At most 20 % of the
   * token's lifetime; jittered by ±20 %. Zero turns it off. Defaults to 2 minutes.
   */
  readonly refreshAhead?: Duration.DurationInput | undefined
  /**
   * How long a refusal (`invalid_client`, …) is remembered: callers get the same error without a request. It doubles
   * from one refusal to the next, up to 30 seconds. Zero turns it off. Defaults to 1 second.
   */
  readonly refusalCooldown?: Duration.DurationInput | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> extends WindowOptions {
  /** How a token is got. */
  readonly grant: Grant<R>
}

/**
 * How often, and how long, one who waits for another process looks at the storage; pauses of whole milliseconds. By
 * default no token request takes so long: who has waited for it fetches without the section.
 */
const polling = pipe(
  Schedule.exponential("50 millis", 1.5),
  Schedule.either(Schedule.spaced("1 second")),
  Schedule.jittered,
  Schedule.modifyDelay((_, pause) => Duration.millis(Math.ceil(Duration.toMillis(pause)))),
  Schedule.upTo("1 minute")
)

const tooLong = new TokenStorageError({ operation: "exclusive", description: "not entered within 1 minute" })

type GuardedStorage = ReturnType<typeof guard>

type Flight = Deferred.Deferred<AccessToken, TokenError>

/**
 * @since 0.1.0
 * @category constructors
 */
export const make = <R = never>(
  options: Options<R>
): Effect.Effect<TokenService["Type"], never, AuthorizationServer | TokenEndpoint | R | Scope.Scope> =>
  Effect.gen(function*() {
    const { grant } = options
    const windows: TokenState.Windows = {
      expiryLeeway: Duration.decode(options.expiryLeeway ?? "10 seconds"),
      refreshAhead: Duration.decode(options.refreshAhead ?? "2 minutes"),
      refusalCooldown: Duration.decode(options.refusalCooldown ?? "1 second")
    }
    const context = yield* Effect.context<AuthorizationServer | TokenEndpoint | R>()
    const scope = yield* Effect.scope
    const clock = yield* Effect.clock
    const storage = yield* TokenStorage
    const endpoint = yield* TokenEndpoint
    const key = `effect-alf:1:${digest(JSON.stringify([endpoint.identity, grant.key]))}`
    const state = yield* Ref.make<TokenState.State<Flight>>(TokenState.initial)
    const current = Ref.get(state)

    /** Asks the state machine and does what it says. Only the waiting can be interrupted. */
    const ask = (question: (flight: Flight) => TokenState.Question<Flight>): Effect.Effect<AccessToken, TokenError> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          Ref.modify(
            state,
            (before) =>
              TokenState.ask(before, question(Deferred.unsafeMake(FiberId.none)), clock.unsafeCurrentTimeMillis())
          ),
          (answer): Effect.Effect<AccessToken, TokenError> => {
            switch (answer._tag) {
              case "Use":
                return answer.held.ready
              case "Renew":
                return Effect.zipRight(launch(answer.flight), answer.held.ready)
              case "Start":
                return Effect.zipRight(launch(answer.flight), restore(Deferred.await(answer.flight.handle)))
              case "Join":
                return restore(Deferred.await(answer.flight.handle))
              case "Queue":
                return restore(Effect.zipRight(Effect.exit(Deferred.await(answer.flight.handle)), ask(question)))
              case "Fail":
                return Effect.fail(answer.error)
            }
          }
        )
      )

    const tell = (news: TokenState.News): Effect.Effect<boolean> =>
      Ref.modify(state, (before) => TokenState.tell(before, news, clock.unsafeCurrentTimeMillis(), windows))

    /** Runs a flight in the layer's scope. It starts uninterruptible, so that it always lands. */
    const launch = ({ handle, reason }: TokenState.Flight<Flight>) =>
      pipe(
        Effect.exit(Effect.interruptible(acquire(reason))),
        Effect.flatMap((exit) => Effect.zipRight(land(exit), Deferred.done(handle, exit))),
        Effect.forkIn(scope)
      )

    const land = Exit.match({
      onSuccess: (token: AccessToken) =>
        Effect.gen(function*() {
          const held = TokenState.hold(token, windows, yield* Random.nextRange(0.8, 1.2))
          const isCurrent = yield* tell({ _tag: "Arrived", held })
          if (!isCurrent) yield* guard(storage, key).remove(token)
        }),
      onFailure: (cause: Cause.Cause<TokenError>) => tell({ _tag: "Failed", error: Cause.failureOption(cause) })
    })

    const acquire = (reason: TokenState.Reason): Effect.Effect<AccessToken, TokenError> =>
      pipe(
        Effect.logDebug("a new token is needed", { reason }),
        Effect.zipRight(Metric.increment(Metric.tagged(TokenMetrics.tokenRefreshes, "reason", reason))),
        Effect.zipRight(Effect.suspend(() => fetchOnce(guard(storage, key)))),
        inModule("TokenService"),
        // what the layer was built with, whoever asks; of the caller there is only the span
        Effect.mapInputContext((caller: Context.Context<Tracer.ParentSpan>) =>
          Context.merge(context, Context.pick(Tracer.ParentSpan)(caller))
        ),
        Effect.withSpan("TokenService.acquire", { captureStackTrace: false, attributes: { reason } })
      )

    /** One fetch for all who share the storage; whoever cannot enter goes on as soon as the other's token is there. */
    const fetchOnce = (shared: GuardedStorage) =>
      Effect.flatMap(replacement(shared), (found) => {
        if (Option.isSome(found)) return Effect.succeed(found.value)
        let isEntered = false
        const section = shared.exclusive(Effect.suspend(() => {
          isEntered = true
          return fetch(shared)
        }))
        const watch = pipe(
          Effect.flatten(replacement(shared)),
          Effect.retry(polling),
          Effect.delay("50 millis"),
          Effect.option,
          Effect.flatMap((other) => isEntered ? Effect.never : Effect.succeed(other))
        )
        return pipe(
          Effect.asSome(section),
          Effect.raceFirst(watch),
          Effect.flatMap(Option.match({
            onNone: () => Effect.zipRight(degraded("exclusive", Cause.fail(tooLong)), fetch(shared)),
            onSome: Effect.succeed
          }))
        )
      })

    const fetch = (shared: GuardedStorage) =>
      Effect.gen(function*() {
        const found = yield* shared.get
        const state = yield* current
        if (Option.isSome(found) && isReplacement(state, found.value)) return found.value
        const previous = newest(
          Option.filter(found, (token) => !TokenState.isForgotten(state, token)),
          Option.map(Option.fromNullable(state.held), (held) => held.token)
        )
        const token = yield* grant.acquire(previous)
        const isOutdated = (yield* current).flight?.isOutdated === true
        const isOver = Option.contains(timeToLive(token, clock.unsafeCurrentTimeMillis()), 0)
        if (!isOver && !isOutdated) yield* shared.set(token)
        return token
      })

    /** The token of the storage, if it can be used in place of a new one. */
    const replacement = (shared: GuardedStorage) =>
      Effect.zipWith(
        shared.get,
        current,
        (found, state) => Option.filter(found, (token) => isReplacement(state, token))
      )

    const isReplacement = (state: TokenState.State<Flight>, token: AccessToken) =>
      TokenState.isReplacement(state, TokenState.hold(token, windows, 1), clock.unsafeCurrentTimeMillis())

    const needed = ask((flight) => ({ _tag: "Needed", flight }))

    return {
      // the path of nearly every request: one look at the state, no allocation but the flatMap's
      get: Effect.flatMap(current, ({ held }) => {
        const now = clock.unsafeCurrentTimeMillis()
        return TokenState.isUsable(held, now) && now < held.refreshAt ? held.ready : needed
      }),
      refresh: (token) => ask((flight) => ({ _tag: "Rejected", token, flight })),
      invalidate: Effect.suspend(() => {
        const shared = guard(storage, key)
        return Effect.zipRight(
          tell({ _tag: "Forgotten" }),
          Effect.flatMap(shared.get, Option.match({ onNone: () => Effect.void, onSome: shared.remove }))
        )
      })
    }
  })

/**
 * @since 0.1.0
 * @category layers
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<TokenService, never, AuthorizationServer | TokenEndpoint | R> =>
  Layer.scoped(TokenService, make(options))

/**
 * One fixed token: an API key, or a token in a test. It is never renewed.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStatic = (token: string | Redacted.Redacted): Layer.Layer<TokenService> => {
  const ready = Effect.succeed(
    new AccessToken({
      value: typeof token === "string" ? Redacted.make(token) : token,
      issuedAt: DateTime.unsafeMake(0)
    })
  )
  return Layer.succeed(TokenService, { get: ready, refresh: () => ready, invalidate: Effect.void })
}

const newest = (a: Option.Option<AccessToken>, b: Option.Option<AccessToken>): Option.Option<AccessToken> =>
  Option.isSome(a) && Option.isSome(b) ? (supersedes(b.value, a.value) ? b : a) : Option.orElse(a, () => b)
