/**
 * The life of a service's token as a pure function: `step(state, event, now)` gives the next state and what to do.
 *
 * At most one flight (a fetch of a new token) is under way. `F` is whatever stands for one; the service uses a Deferred.
 * All times are milliseconds. Each stretch of time has a beginning too: a clock that was set back ends it.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type AccessToken, isSame } from "../AccessToken.ts"
import { isRefusal, type TokenError } from "../TokenError.ts"

/** The last token there was. */
export interface Held {
  readonly token: AccessToken
  /** Succeeds with the token: made once, handed out many times. */
  readonly ready: Effect.Effect<AccessToken>
  /** Used from here … */
  readonly from: number
  /** … renewed in the background from here … */
  readonly refreshAt: number
  /** … and not used any more from here. */
  readonly until: number
  /** Whether an API has refused it. */
  readonly isRefused: boolean
}

/** Why a flight was started. */
export type Reason = "absent" | "expiring" | "rejected"

export interface Flight<F> {
  readonly handle: F
  readonly reason: Reason
  /** Whether the token was forgotten meanwhile: what arrives serves those who wait, and is not kept. */
  readonly isOutdated: boolean
}

interface Pause {
  readonly from: number
  readonly until: number
}

/** A refusal that is remembered, so that callers do not repeat the request. */
interface Refusal extends Pause {
  readonly error: TokenError
}

export interface State<F> {
  readonly held: Held | undefined
  /** The token that was last refused or forgotten: no storage may bring it back. */
  readonly rejected: AccessToken | undefined
  readonly flight: Flight<F> | undefined
  readonly refusal: Refusal | undefined
  /** No renewal in the background meanwhile: the last one failed. */
  readonly respite: Pause | undefined
}

export type Event<F> =
  /** A caller needs a token. `flight` is the one to start if one is needed. */
  | { readonly _tag: "Needed"; readonly flight: F }
  /** A caller needs another token than this one. */
  | { readonly _tag: "Rejected"; readonly token: AccessToken; readonly flight: F }
  | { readonly _tag: "Forgotten" }
  /** The flight ended with a token. */
  | { readonly _tag: "Arrived"; readonly held: Held }
  /** The flight ended without one; no error if it was interrupted. */
  | { readonly _tag: "Failed"; readonly error: Option.Option<TokenError> }

export type Action<F> =
  | { readonly _tag: "Use"; readonly held: Held }
  /** Use the token and start the flight; nobody waits for it. */
  | { readonly _tag: "Renew"; readonly held: Held; readonly flight: Flight<F> }
  /** Start the flight and wait for what it brings. */
  | { readonly _tag: "Start"; readonly flight: Flight<F> }
  /** Wait for what the flight brings. */
  | { readonly _tag: "Join"; readonly flight: Flight<F> }
  /** Wait for the flight to end, then ask again. */
  | { readonly _tag: "Queue"; readonly flight: Flight<F> }
  | { readonly _tag: "Fail"; readonly error: TokenError }
  /** Nothing more to do. `isKept` tells whether what arrived is the current token now. */
  | { readonly _tag: "Done"; readonly isKept: boolean }

export interface Windows {
  readonly expiryLeeway: Duration.Duration
  readonly refreshAhead: Duration.Duration
  readonly refusalCooldown: Duration.Duration
}

export const initial: State<never> = {
  held: undefined,
  rejected: undefined,
  flight: undefined,
  refusal: undefined,
  respite: undefined
}

/** The longest time that a refusal is remembered, unless `refusalCooldown` is longer. */
const maxCooldown = 30_000

/** A token with its windows. `jitter`, between 0.8 and 1.2, spreads renewals; each window is capped by the lifetime. */
export const hold = (token: AccessToken, windows: Windows, jitter: number): Held => {
  const from = DateTime.toEpochMillis(token.issuedAt)
  const end = Option.match(token.expiresAt, { onNone: () => Infinity, onSome: DateTime.toEpochMillis })
  const before = (window: Duration.Duration, share: number, factor = 1): number =>
    end === Infinity ? end : end - factor * Math.min(Duration.toMillis(window), share * (end - from))
  const until = before(windows.expiryLeeway, 0.05)
  return {
    token,
    ready: Effect.succeed(token),
    from,
    refreshAt: Math.min(until, before(windows.refreshAhead, 0.2, jitter)),
    until,
    isRefused: false
  }
}

/** Whether a token may be sent now. */
export const isUsable = (held: Held | undefined, now: number): held is Held =>
  held !== undefined && !held.isRefused && held.from <= now && now < held.until

export const step = <F>(
  state: State<F>,
  event: Event<F>,
  now: number,
  windows: Windows
): readonly [Action<F>, State<F>] => {
  switch (event._tag) {
    case "Needed": {
      const { held } = state
      if (!isUsable(held, now)) return wait(state, event.flight, "absent", now)
      if (
        now < held.refreshAt || state.flight !== undefined || isWithin(state.respite, now) ||
        isWithin(state.refusal, now)
      ) return [{ _tag: "Use", held }, state]
      const flight: Flight<F> = { handle: event.flight, reason: "expiring", isOutdated: false }
      return [{ _tag: "Renew", held, flight }, { ...state, flight }]
    }
    case "Rejected": {
      const { held } = state
      const isHeld = held !== undefined && isSame(held.token, event.token)
      if (isUsable(held, now) && !isHeld) return [{ _tag: "Use", held }, state]
      return wait(
        { ...state, held: isHeld ? { ...held, isRefused: true } : held, rejected: event.token },
        event.flight,
        "rejected",
        now
      )
    }
    case "Forgotten":
      return [{ _tag: "Done", isKept: false }, {
        ...initial,
        rejected: state.held?.token ?? state.rejected,
        flight: state.flight === undefined ? undefined : { ...state.flight, isOutdated: true }
      }]
    case "Arrived":
      return state.flight?.isOutdated === true
        ? [{ _tag: "Done", isKept: false }, { ...state, flight: undefined }]
        : [{ _tag: "Done", isKept: true }, { ...initial, held: event.held }]
    case "Failed":
      return [{ _tag: "Done", isKept: false }, {
        ...state,
        flight: undefined,
        refusal: state.flight?.isOutdated === true
          ? state.refusal
          : Option.match(Option.filter(event.error, isRefusal), {
            onNone: () => state.refusal,
            onSome: (error) => ({ error, ...cooldown(state.refusal, windows, now) })
          }),
        respite: isUsable(state.held, now) ? { from: now, until: now + left(state.held, now) / 4 } : undefined
      }]
  }
}

/** There is no token to use: wait for one, or for the reason why there is none. */
const wait = <F>(state: State<F>, handle: F, reason: Reason, now: number): readonly [Action<F>, State<F>] => {
  if (state.flight !== undefined) {
    return [{ _tag: state.flight.isOutdated ? "Queue" : "Join", flight: state.flight }, state]
  }
  if (isWithin(state.refusal, now)) return [{ _tag: "Fail", error: state.refusal.error }, state]
  const flight: Flight<F> = { handle, reason, isOutdated: false }
  return [{ _tag: "Start", flight }, { ...state, flight }]
}

const isWithin = <P extends Pause>(pause: P | undefined, now: number): pause is P =>
  pause !== undefined && pause.from <= now && now < pause.until

const cooldown = (before: Refusal | undefined, windows: Windows, now: number): Pause => {
  const base = Duration.toMillis(windows.refusalCooldown)
  const pause = before === undefined ? base : Math.min(2 * (before.until - before.from), Math.max(base, maxCooldown))
  return { from: now, until: now + pause }
}

const left = (held: Held, now: number): number =>
  Option.match(held.token.expiresAt, {
    onNone: () => Infinity,
    onSome: (expiresAt) => DateTime.toEpochMillis(expiresAt) - now
  })
