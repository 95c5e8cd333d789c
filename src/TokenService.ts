/**
 * Keeps one token valid (RFC 6749 §1.4): each caller gets a token that is valid now.
 *
 * The state is held in a `Ref` and moved by the pure functions of `internal/token/state.ts`; this module runs what they
 * decide. However many callers need a token at once, one fetch is under way. Interrupting a caller does not cancel it: it
 * belongs to the scope of the layer.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { AccessToken, isHeaderSafe } from "./AccessToken.ts"
import { AuthorizationServer } from "./AuthorizationServer.ts"
import type { Grant } from "./Grant.ts"
import { digest } from "./internal/digest.ts"
import { inModule } from "./internal/log.ts"
import { anyDuration, finiteDuration, issue } from "./internal/options.ts"
import { sharesFetches } from "./internal/sharing.ts"
import { withAtHand } from "./internal/token/atHand.ts"
import { Flight } from "./internal/token/flight.ts"
import { guard, type GuardedStorage } from "./internal/token/guardedStorage.ts"
import { revokeTokens } from "./internal/token/revoke.ts"
import * as Running from "./internal/token/running.ts"
import { fetchShared } from "./internal/token/sharedFetch.ts"
import * as TokenState from "./internal/token/state.ts"
import * as Waiting from "./internal/token/waiting.ts"
import { TokenEndpoint } from "./TokenEndpoint.ts"
import { type ConfigurationError, LayerClosed, type TokenError } from "./TokenError.ts"
import * as TokenMetrics from "./TokenMetrics.ts"
import { TokenStorage } from "./TokenStorage.ts"

/**
 * The token that a program uses.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenService extends Context.Tag("effect-alf/TokenService")<TokenService, {
  /** A token that is valid now. Nothing is fetched while the current one is. */
  readonly get: Effect.Effect<AccessToken, TokenError>
  /**
   * Another token than `rejected`. Nothing is fetched if it has been replaced already. A token that was renewed less than
   * 10 seconds ago may be replaced by the one before it, since an API may not know the new one yet.
   */
  readonly refresh: (rejected: AccessToken) => Effect.Effect<AccessToken, TokenError>
  /** Forgets the token, here and in the storage. A fetch that is under way serves those who wait for it. */
  readonly invalidate: Effect.Effect<void>
  /**
   * Revokes the refresh token and the access token at the authorization server (RFC 7009), those that are held here and
   * those that are stored, and forgets them. Both are forgotten even if the server cannot be reached; that error is the
   * result then. Without a revocation endpoint nothing is forgotten, and it fails with a `DiscoveryError` "Unsupported".
   */
  readonly revoke: Effect.Effect<void, TokenError>
  /** Notes that an API has rejected this token too, without asking for another one. Test doubles may leave it out. */
  readonly reject?: (token: AccessToken) => Effect.Effect<void>
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
 * @since 0.2.0
 * @category models
 */
export interface SettingsOptions extends WindowOptions {
  /**
   * What else tells this client's tokens apart in a shared storage, for example a tenant that a header of a client below
   * names. Part of the storage key. Defaults to nothing.
   */
  readonly storageKey?: string | undefined
  /**
   * How long a fetch may take before a caller starts a new one. The time that a person may take to sign in is added.
   * Defaults to what the retry options allow; to 1 minute for a service that is built without them.
   */
  readonly flightTimeout?: Duration.DurationInput | undefined
  /**
   * Whether callers who need a token at the same time share one fetch. Without, each fetches its own and nothing is renewed
   * in the background: for runtimes where a request cannot wait for what another one has begun. Defaults to true; to false
   * on Cloudflare Workers.
   */
  readonly sharedFetch?: boolean | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> extends SettingsOptions {
  /** How a token is fetched. */
  readonly grant: Grant<R>
  /**
   * The timeout of one token request. When the layer is closed, a request that spends a refresh token or a code is awaited
   * this long, at most 5 seconds. Defaults to 10 seconds.
   */
  readonly tokenTimeout?: Duration.DurationInput | undefined
}

type Handle = Waiting.Waiting<AccessToken, TokenError>

type TokenFlight = TokenState.Flight<Handle>

const usualTimeout = Duration.seconds(10)

/** A token request that spends something is not awaited for longer than this at the end. */
const longestFarewell = Duration.seconds(5)

/**
 * @since 0.1.0
 * @category constructors
 */
export const make = <R = never>(options: Options<R>): Effect.Effect<
  TokenService["Type"],
  ConfigurationError,
  AuthorizationServer | TokenEndpoint | R | Scope.Scope
> =>
  Effect.gen(function*() {
    const { grant } = options
    const windows = yield* decodeWindows(options)
    const tokenTimeout = yield* finiteDuration("tokenTimeout", options.tokenTimeout ?? usualTimeout)
    const farewell = Duration.min(tokenTimeout, longestFarewell)
    // whoever allows more than usual has a slow token endpoint, whose response is worth waiting for
    const patience = Duration.toMillis(Duration.greaterThan(tokenTimeout, usualTimeout) ? tokenTimeout : farewell)
    const runtime = withoutSpan(yield* Effect.runtime<AuthorizationServer | TokenEndpoint | R>())
    const clock = yield* Effect.clock
    const now = () => clock.unsafeCurrentTimeMillis()
    const storage = yield* TokenStorage
    const { identity } = yield* TokenEndpoint
    const key = storageKey(identity, grant.key, options.storageKey)
    const state = yield* Ref.make<TokenState.State<Handle>>(TokenState.initial)
    const current = Ref.get(state)
    // what the state hands out, for those who look without a step of the runtime
    let handout: TokenState.Held | undefined
    let lastUsed = 0
    const modify = <A>(f: (before: TokenState.State<Handle>) => readonly [A, TokenState.State<Handle>]) =>
      Ref.modify(state, (before) => {
        const [result, after] = f(before)
        handout = after.handout
        return [result, after]
      })
    const running = new Map<Running.Running, Fiber.RuntimeFiber<unknown>>()

    const tell = (news: TokenState.News<Handle>): Effect.Effect<boolean> =>
      modify((before) => TokenState.tell(before, news, now(), windows))

    /** Asks the state machine and does what it says. Only the waiting can be interrupted. */
    const ask = (question: (flight: Handle) => TokenState.Question<Handle>): Effect.Effect<AccessToken, TokenError> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          modify((before) => {
            lastUsed = now()
            return TokenState.ask(before, question(Waiting.make()), lastUsed, windows)
          }),
          (decision): Effect.Effect<AccessToken, TokenError> => {
            switch (decision._tag) {
              case "Use":
                return decision.held.ready
              case "Renew":
                return Effect.zipRight(launch(decision.flight), decision.held.ready)
              case "Start":
                return Effect.zipRight(
                  launch(decision.flight),
                  restore(awaitFlight(decision.flight, decision.flight.deadline, question))
                )
              case "Join":
                return restore(awaitFlight(decision.flight, decision.until, question))
              case "Fail":
                return Effect.fail(decision.error)
            }
          }
        )
      )

    const awaitFlight = (
      { handle }: TokenFlight,
      until: number,
      question: (flight: Handle) => TokenState.Question<Handle>
    ): Effect.Effect<AccessToken, TokenError> =>
      Effect.flatMap(
        Effect.suspend(() => Waiting.wait(handle, until - now(), runtime)),
        Option.match({ onNone: () => ask(question), onSome: Effect.succeed })
      )

    /** Ends by an interruption when a flight is past its time. */
    const ending = ({ reason }: TokenFlight, mine: Running.Running): Effect.Effect<never> => {
      const overdue = Running.overdue(mine, windows.flightTimeout, now)
      return reason === "expiring"
        ? Effect.raceFirst(overdue, Running.unattended(mine, patience, () => lastUsed, now))
        : overdue
    }

    /** Runs a flight with the FiberRefs of the layer; of the caller it takes the span. */
    const launch = (flight: TokenFlight): Effect.Effect<void> =>
      Effect.map(Effect.context<never>(), (caller) => {
        const mine: Running.Running = { handle: flight.handle, isSpending: false, deadline: flight.deadline }
        if (!windows.isShared) Running.forgetOverdue(running, now())
        const fiber = Runtime.runFork(runtime)(pipe(
          Effect.raceFirst(acquire(flight, mine), ending(flight, mine)),
          // the layer may have been built where nothing can be interrupted
          Effect.interruptible,
          Effect.exit,
          Effect.flatMap((exit) => land(flight, exit)),
          Effect.uninterruptible,
          Effect.mapInputContext((context: Context.Context<AuthorizationServer | TokenEndpoint | R>) =>
            Context.merge(context, Context.pick(Tracer.ParentSpan)(caller as Context.Context<Tracer.ParentSpan>))
          )
        ))
        running.set(mine, fiber)
        fiber.addObserver(() => running.delete(mine))
      })

    const land = (flight: TokenFlight, exit: Exit.Exit<AccessToken, TokenError>): Effect.Effect<void> =>
      Effect.zipRight(
        Exit.match(exit, {
          onSuccess: (token) =>
            Effect.gen(function*() {
              const held = TokenState.hold(token, windows, yield* Random.nextRange(0.8, 1.2), now())
              yield* tell({ _tag: "Arrived", flight, held })
              const isForgotten = (yield* current).epoch !== flight.epoch
              if (isForgotten) yield* guard(storage, key).remove(token)
            }),
          onFailure: (cause) => tell({ _tag: "Failed", flight, error: Cause.failureOption(cause) })
        }),
        Effect.sync(() => Waiting.end(flight.handle, Exit.isInterrupted(exit) ? Option.none() : Option.some(exit)))
      )

    const acquire = (flight: TokenFlight, mine: Running.Running) =>
      pipe(
        Effect.logDebug("a new token is needed", { reason: flight.reason }),
        Effect.zipRight(Metric.increment(Metric.tagged(TokenMetrics.tokenRefreshes, "reason", flight.reason))),
        Effect.zipRight(Effect.suspend(() => {
          const shared = guard(storage, key)
          return Effect.provideService(
            fetchShared({ shared, acquire: grant.acquire, state: current, windows, now, epoch: flight.epoch }),
            Flight,
            {
              spend: (effect) => Running.spend(mine, effect),
              stored: shared.get,
              extend: (duration) =>
                Effect.suspend(() => {
                  mine.deadline = Math.max(mine.deadline, now() + Duration.toMillis(duration))
                  return tell({ _tag: "Extended", flight, deadline: mine.deadline })
                })
            }
          )
        })),
        inModule("TokenService"),
        Effect.withSpan("TokenService.acquire", { captureStackTrace: false, attributes: { reason: flight.reason } })
      )

    /** Forgets what is held, and what the storage holds now. */
    const forget = (shared: GuardedStorage, stored: Option.Option<AccessToken>): Effect.Effect<void> =>
      Effect.zipRight(
        tell({
          _tag: "Forgotten",
          generation: Option.match(stored, { onNone: () => -1, onSome: ({ generation }) => generation })
        }),
        Option.match(stored, { onNone: () => Effect.void, onSome: shared.remove })
      )

    yield* Effect.addFinalizer(() => Effect.zipRight(tell({ _tag: "Closed" }), Running.close(running, farewell)))

    const needed = ask((flight) => ({ _tag: "Needed", flight }))

    /** The path of nearly every request. */
    const settled = () => {
      lastUsed = clock.unsafeCurrentTimeMillis()
      return TokenState.isUsable(handout, lastUsed) && lastUsed < handout.refreshAt ? handout : undefined
    }

    return {
      get: withAtHand(Effect.suspend(() => settled()?.ready ?? needed), () => settled()?.token),
      refresh: (token) => ask((flight) => ({ _tag: "Rejected", token, flight })),
      reject: (token) => tell({ _tag: "Rejected", token }),
      invalidate: Effect.suspend(() => {
        const shared = guard(storage, key)
        // what is held is forgotten at once, whatever the storage does
        return Effect.zipRight(
          tell({ _tag: "Forgotten", generation: -1 }),
          Effect.flatMap(shared.get, (stored) => forget(shared, stored))
        )
      }),
      revoke: Effect.gen(function*() {
        if ((yield* current).isClosed) return yield* new LayerClosed()
        const shared = guard(storage, key)
        const server = Context.getOption(runtime.context as Context.Context<never>, AuthorizationServer)
        yield* shared.exclusive(Effect.gen(function*() {
          const stored = yield* shared.get
          const { held } = yield* current
          const tokens = [...Option.toArray(Option.fromNullable(held?.token)), ...Option.toArray(stored)]
          yield* revokeTokens(server, tokens, forget(shared, stored))
        }))
      })
    }
  })

/** What the storage keeps the tokens under. Without a `storageKey` it is the key of version 0.1. */
const storageKey = (identity: string, grant: string, further: string | undefined): string =>
  `effect-alf:1:${digest(JSON.stringify([identity, grant, ...(further === undefined ? [] : [further])]))}`

/** The span that a layer is built in is not the parent of what its flights do later. */
const withoutSpan = <R>(runtime: Runtime.Runtime<R>): Runtime.Runtime<R> => ({
  ...runtime,
  context: Context.omit(Tracer.ParentSpan)(
    runtime.context as Context.Context<R | Tracer.ParentSpan>
  ) as Context.Context<R>
})

const decodeWindows = <R>(options: Options<R>): Effect.Effect<TokenState.Windows, ConfigurationError> =>
  Effect.gen(function*() {
    const { storageKey } = options
    if (storageKey !== undefined && (typeof storageKey !== "string" || storageKey === "")) {
      return yield* issue("storageKey is empty: write what tells these tokens apart, or leave it out")
    }
    return {
      expiryLeeway: yield* anyDuration("expiryLeeway", options.expiryLeeway ?? "10 seconds"),
      refreshAhead: yield* anyDuration("refreshAhead", options.refreshAhead ?? "2 minutes"),
      refusalCooldown: yield* anyDuration("refusalCooldown", options.refusalCooldown ?? "1 second"),
      flightTimeout: Duration.sum(
        yield* finiteDuration("flightTimeout", options.flightTimeout ?? "1 minute"),
        options.grant.patience ?? Duration.zero
      ),
      isShared: sharesFetches(options.sharedFetch)
    }
  })

/**
 * @since 0.1.0
 * @category layers
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<TokenService, ConfigurationError, AuthorizationServer | TokenEndpoint | R> =>
  Layer.scoped(TokenService, make(options))

/**
 * One fixed token: an API key, or a token in a test. It is never renewed. White space around it is taken off; another
 * character that a header must not carry is a `ConfigurationError`.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { TokenService } from "effect-alf"
 *
 * export const layer = TokenService.layerStatic(Redacted.make("token"))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStatic = (token: string | Redacted.Redacted): Layer.Layer<TokenService, ConfigurationError> =>
  Layer.effect(
    TokenService,
    Effect.suspend(() => {
      const value = (typeof token === "string" ? token : Redacted.value(token)).trim()
      if (!isHeaderSafe(value)) {
        return issue("token is empty or has a character that a header must not carry: write the token alone")
      }
      const only = new AccessToken({ value: Redacted.make(value), issuedAt: DateTime.unsafeMake(0) })
      const ready = withAtHand(Effect.succeed(only), () => only)
      return Effect.succeed({ get: ready, refresh: () => ready, invalidate: Effect.void, revoke: Effect.void })
    })
  )
