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
import type * as Clock from "effect/Clock"
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
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { AccessToken, isHeaderSafe } from "./AccessToken.ts"
import { AuthorizationServer } from "./AuthorizationServer.ts"
import type { Grant } from "./Grant.ts"
import { digest } from "./internal/digest.ts"
import { layerRuntime } from "./internal/layerRuntime.ts"
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
import { type Storage, TokenStorage } from "./TokenStorage.ts"

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
  /** Forgets the token, here and in the storage. A fetch that is under way serves the callers that wait for it. */
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
   * How long before it expires a token is no longer used: callers wait for the next one. At most 5 % of the token's
   * lifetime. Defaults to 10 seconds.
   */
  readonly expiryLeeway?: Duration.DurationInput | undefined
  /**
   * How long before it expires a token is renewed in the background, while callers go on with it. At most 20 % of the
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
  Effect.flatMap(
    layerRuntime<AuthorizationServer | TokenEndpoint | R>(),
    (runtime) => makeIn(options, runtime, Context.pick(AuthorizationServer, TokenEndpoint)(runtime.context))
  )

/**
 * The same, run by a runtime that many services may share. What belongs to this one only is beside it.
 *
 * @internal
 */
export const makeIn = <R>(
  options: Options<R>,
  runtime: Runtime.Runtime<R>,
  server: Context.Context<AuthorizationServer | TokenEndpoint>
): Effect.Effect<TokenService["Type"], ConfigurationError, Scope.Scope> =>
  Effect.gen(function*() {
    const windows = yield* decodeWindows(options)
    const tokenTimeout = yield* finiteDuration("tokenTimeout", options.tokenTimeout ?? usualTimeout)
    const clock = yield* Effect.clock
    const self: Self<R> = {
      acquire: options.grant.acquire,
      key: storageKey(Context.get(server, TokenEndpoint).identity, options.grant.key, options.storageKey),
      storage: yield* TokenStorage,
      runtime,
      server,
      windows,
      tokenTimeout,
      clock,
      state: yield* Ref.make<TokenState.State<Handle>>(TokenState.initial),
      handout: undefined,
      lastUsed: 0,
      running: undefined
    }
    // the finalizer of an Effect keeps the FiberRefs for as long
    yield* Effect.flatMap(Effect.scope, (scope) => Scope.addFinalizer(scope, close(self)))
    return serviceOf(self)
  })

/** What a service is made of. Its functions are made once, since a program may hold thousands of services. */
interface Self<R> {
  readonly acquire: Grant<R>["acquire"]
  /** What the storage keeps the tokens under. */
  readonly key: string
  readonly storage: Storage
  readonly runtime: Runtime.Runtime<R>
  readonly server: Context.Context<AuthorizationServer | TokenEndpoint>
  readonly windows: TokenState.Windows
  readonly tokenTimeout: Duration.Duration
  readonly clock: Clock.Clock
  readonly state: Ref.Ref<TokenState.State<Handle>>
  /** What the state hands out, for those who look without a step of the runtime. */
  handout: TokenState.Held | undefined
  lastUsed: number
  /** The flights under way; undefined if there is none. */
  running: Map<Running.Running, Fiber.RuntimeFiber<unknown>> | undefined
}

type Ask = (flight: Handle) => TokenState.Question<Handle>

const serviceOf = <R>(self: Self<R>): TokenService["Type"] => ({
  get: withAtHand(Effect.suspend(() => settled(self)?.ready ?? ask(self, needed)), () => settled(self)?.token),
  refresh: (token) => ask(self, (flight) => ({ _tag: "Rejected", token, flight })),
  reject: (token) => tell(self, { _tag: "Rejected", token }),
  invalidate: Effect.suspend(() => invalidate(self)),
  revoke: Effect.suspend(() => revoke(self))
})

/** The path of nearly every request. */
const settled = <R>(self: Self<R>): TokenState.Held | undefined => {
  const { clock, handout } = self
  const now = clock.unsafeCurrentTimeMillis()
  self.lastUsed = now
  return TokenState.isUsable(handout, now) && now < handout.refreshAt ? handout : undefined
}

const now = <R>(self: Self<R>): number => self.clock.unsafeCurrentTimeMillis()

const modify = <A, R>(
  self: Self<R>,
  f: (before: TokenState.State<Handle>) => readonly [A, TokenState.State<Handle>]
): Effect.Effect<A> =>
  Ref.modify(self.state, (before) => {
    const [result, after] = f(before)
    self.handout = after.handout
    return [result, after]
  })

const tell = <R>(self: Self<R>, news: TokenState.News<Handle>): Effect.Effect<boolean> =>
  modify(self, (before) => TokenState.tell(before, news, now(self), self.windows))

const needed: Ask = (flight) => ({ _tag: "Needed", flight })

/** Asks the state machine and does what it says. Only the waiting can be interrupted. */
const ask = <R>(self: Self<R>, question: Ask): Effect.Effect<AccessToken, TokenError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      modify(self, (before) => {
        self.lastUsed = now(self)
        return TokenState.ask(before, question(Waiting.make()), self.lastUsed, self.windows)
      }),
      (decision): Effect.Effect<AccessToken, TokenError> => {
        switch (decision._tag) {
          case "Use":
            return decision.held.ready
          case "Renew":
            return Effect.zipRight(launch(self, decision.flight), decision.held.ready)
          case "Start":
            return Effect.zipRight(
              launch(self, decision.flight),
              restore(awaitFlight(self, decision.flight, decision.flight.deadline, question))
            )
          case "Join":
            return restore(awaitFlight(self, decision.flight, decision.until, question))
          case "Fail":
            return Effect.fail(decision.error)
        }
      }
    )
  )

const awaitFlight = <R>(
  self: Self<R>,
  { handle }: TokenFlight,
  until: number,
  question: Ask
): Effect.Effect<AccessToken, TokenError> =>
  Effect.flatMap(
    Effect.suspend(() => Waiting.wait(handle, until - now(self), self.runtime)),
    Option.match({ onNone: () => ask(self, question), onSome: Effect.succeed })
  )

/** Ends by an interruption when a flight is past its time. */
const ending = <R>(self: Self<R>, { reason }: TokenFlight, mine: Running.Running): Effect.Effect<never> => {
  const overdue = Running.overdue(mine, self.windows.flightTimeout, () => now(self))
  return reason === "expiring"
    ? Effect.raceFirst(overdue, Running.unattended(mine, patience(self), () => self.lastUsed, () => now(self)))
    : overdue
}

/**
 * How long a renewal goes on that nobody needs; twice as long if it has sent a refresh token, so that one attempt has its
 * whole timeout. Another attempt follows when the service is used again.
 */
const patience = <R>(self: Self<R>): number =>
  Duration.toMillis(Duration.greaterThan(self.tokenTimeout, usualTimeout) ? self.tokenTimeout : farewell(self))

const farewell = <R>(self: Self<R>): Duration.Duration => Duration.min(self.tokenTimeout, longestFarewell)

/** Runs a flight with the FiberRefs of the layer; of the caller it takes the span. */
const launch = <R>(self: Self<R>, flight: TokenFlight): Effect.Effect<void> =>
  Effect.map(Effect.context<never>(), (caller) => {
    const mine: Running.Running = { handle: flight.handle, isSpending: false, deadline: flight.deadline }
    const running = self.running ??= new Map()
    if (!self.windows.isShared) Running.forgetOverdue(running, now(self))
    const fiber = Runtime.runFork(self.runtime)(pipe(
      Effect.raceFirst(acquire(self, flight, mine), ending(self, flight, mine)),
      // the layer may have been built where nothing can be interrupted
      Effect.interruptible,
      Effect.exit,
      Effect.flatMap((exit) => land(self, flight, exit)),
      Effect.uninterruptible,
      Effect.mapInputContext((context: Context.Context<R>) =>
        pipe(
          context,
          Context.merge(self.server),
          Context.merge(Context.pick(Tracer.ParentSpan)(caller as Context.Context<Tracer.ParentSpan>))
        )
      )
    ))
    running.set(mine, fiber)
    fiber.addObserver(() => {
      running.delete(mine)
      if (running.size === 0 && self.running === running) self.running = undefined
    })
  })

const land = <R>(
  self: Self<R>,
  flight: TokenFlight,
  exit: Exit.Exit<AccessToken, TokenError>
): Effect.Effect<void> =>
  Effect.zipRight(
    Exit.match(exit, {
      onSuccess: (token) =>
        Effect.gen(function*() {
          const held = TokenState.hold(token, self.windows, yield* Random.nextRange(0.8, 1.2), now(self))
          yield* tell(self, { _tag: "Arrived", flight, held })
          const isForgotten = (yield* self.state).epoch !== flight.epoch
          if (isForgotten) yield* guard(self.storage, self.key).remove(token)
        }),
      onFailure: (cause) => tell(self, { _tag: "Failed", flight, error: Cause.failureOption(cause) })
    }),
    Effect.sync(() => Waiting.end(flight.handle, Exit.isInterrupted(exit) ? Option.none() : Option.some(exit)))
  )

const acquire = <R>(self: Self<R>, flight: TokenFlight, mine: Running.Running) =>
  pipe(
    Effect.logDebug("a new token is needed", { reason: flight.reason }),
    Effect.zipRight(Metric.increment(Metric.tagged(TokenMetrics.tokenRefreshes, "reason", flight.reason))),
    Effect.zipRight(Effect.suspend(() => {
      const shared = guard(self.storage, self.key)
      return Effect.provideService(
        fetchShared({
          shared,
          acquire: self.acquire,
          state: self.state,
          windows: self.windows,
          now: () => now(self),
          epoch: flight.epoch
        }),
        Flight,
        {
          spend: (effect) => Running.spend(mine, effect),
          stored: shared.get,
          extend: (duration) =>
            Effect.suspend(() => {
              mine.deadline = Math.max(mine.deadline, now(self) + Duration.toMillis(duration))
              return tell(self, { _tag: "Extended", flight, deadline: mine.deadline })
            })
        }
      )
    })),
    inModule("TokenService"),
    Effect.withSpan("TokenService.acquire", { captureStackTrace: false, attributes: { reason: flight.reason } })
  )

/** Forgets what is held, and what the storage holds now. */
const forget = <R>(
  self: Self<R>,
  shared: GuardedStorage,
  stored: Option.Option<AccessToken>
): Effect.Effect<void> =>
  Effect.zipRight(
    tell(self, {
      _tag: "Forgotten",
      generation: Option.match(stored, { onNone: () => -1, onSome: ({ generation }) => generation })
    }),
    Option.match(stored, { onNone: () => Effect.void, onSome: shared.remove })
  )

/** What is held is forgotten at once, whatever the storage does. */
const invalidate = <R>(self: Self<R>): Effect.Effect<void> => {
  const shared = guard(self.storage, self.key)
  return Effect.zipRight(
    tell(self, { _tag: "Forgotten", generation: -1 }),
    Effect.flatMap(shared.get, (stored) => forget(self, shared, stored))
  )
}

const revoke = <R>(self: Self<R>): Effect.Effect<void, TokenError> =>
  Effect.gen(function*() {
    if ((yield* self.state).isClosed) return yield* new LayerClosed()
    const shared = guard(self.storage, self.key)
    yield* shared.exclusive(Effect.gen(function*() {
      const stored = yield* shared.get
      const { held } = yield* self.state
      const tokens = [...Option.toArray(Option.fromNullable(held?.token)), ...Option.toArray(stored)]
      yield* revokeTokens(Context.getOption(self.server, AuthorizationServer), tokens, forget(self, shared, stored))
    }))
  })

const close = <R>(self: Self<R>): Effect.Effect<void> =>
  Effect.suspend(() =>
    Effect.zipRight(
      tell(self, { _tag: "Closed" }),
      Effect.suspend(() => Running.close(self.running ?? new Map(), farewell(self)))
    )
  )

/** What the storage keeps the tokens under. Without a `storageKey` it is the key of version 0.1. */
const storageKey = (identity: string, grant: string, further: string | undefined): string =>
  `effect-alf:1:${digest(JSON.stringify([identity, grant, ...(further === undefined ? [] : [further])]))}`

const decodeWindows = <R>(options: Options<R>): Effect.Effect<TokenState.Windows, ConfigurationError> =>
  Effect.gen(function*() {
    const { storageKey } = options
    if (storageKey !== undefined && (typeof storageKey !== "string" || storageKey === "")) {
      return yield* issue("storageKey is empty: write what tells these tokens apart, or leave it out")
    }
    return {
      expiryLeeway: yield* anyDuration("expiryLeeway", options.expiryLeeway ?? usualLeeway),
      refreshAhead: yield* anyDuration("refreshAhead", options.refreshAhead ?? usualAhead),
      refusalCooldown: yield* anyDuration("refusalCooldown", options.refusalCooldown ?? usualCooldown),
      flightTimeout: Duration.sum(
        yield* finiteDuration("flightTimeout", options.flightTimeout ?? "1 minute"),
        options.grant.patience ?? Duration.zero
      ),
      isShared: sharesFetches(options.sharedFetch)
    }
  })

const usualLeeway = Duration.seconds(10)
const usualAhead = Duration.minutes(2)
const usualCooldown = Duration.seconds(1)

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
