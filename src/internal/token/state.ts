/**
 * The life of a service's token as pure functions: `ask` and `tell` take the state, what a caller asks or what happened,
 * and the time; they give what to do and the next state.
 *
 * At most one flight (a fetch of a new token) is under way. `F` is whatever stands for one; the service uses a Deferred.
 * All times are milliseconds. Each stretch of time has a beginning too: a clock that was set back ends it.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type AccessToken, isSame, supersedes } from "../../AccessToken.ts"
import { isRefusal, type TokenError } from "../../TokenError.ts"

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
  /** The newest token that was refused, or those of one millisecond: no storage may bring them back. */
  readonly rejected: ReadonlyArray<AccessToken>
  /** No storage may bring back a token that was issued until then. */
  readonly forgottenAt: number
  readonly flight: Flight<F> | undefined
  readonly refusal: Refusal | undefined
  /** No renewal in the background meanwhile: the last one was in vain. */
  readonly renewalPause: Pause | undefined
}

/** What a caller asks. `flight` is the one to start if one is needed. */
export type Question<F> =
  | { readonly _tag: "Needed"; readonly flight: F }
  /** Another token than this one is needed. */
  | { readonly _tag: "Rejected"; readonly token: AccessToken; readonly flight: F }

/** What the caller gets, or has to do. */
export type Answer<F> =
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

/** What happened. */
export type News =
  /** The flight ended with a token. */
  | { readonly _tag: "Arrived"; readonly held: Held }
  /** The flight ended without one; no error if it was interrupted. */
  | { readonly _tag: "Failed"; readonly error: Option.Option<TokenError> }
  | { readonly _tag: "Forgotten" }

export interface Windows {
  readonly expiryLeeway: Duration.Duration
  readonly refreshAhead: Duration.Duration
  readonly refusalCooldown: Duration.Duration
}

export const initial: State<never> = {
  held: undefined,
  rejected: [],
  forgottenAt: -Infinity,
  flight: undefined,
  refusal: undefined,
  renewalPause: undefined
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

/** Whether a token that a storage holds was forgotten here: the storage has not been told yet, or did not listen. */
export const isForgotten = <F>(state: State<F>, stored: AccessToken): boolean =>
  DateTime.toEpochMillis(stored.issuedAt) <= state.forgottenAt

/** Whether a token that a storage holds can be used now in place of a new one. */
export const isReplacement = <F>(state: State<F>, stored: Held, now: number): boolean =>
  isUsable(stored, now) &&
  !isForgotten(state, stored.token) &&
  (state.held === undefined || supersedes(stored.token, state.held.token)) &&
  state.rejected.every((rejected) => supersedes(stored.token, rejected))

/** A caller asks: what it gets, and the next state. */
export const ask = <F>(state: State<F>, question: Question<F>, now: number): readonly [Answer<F>, State<F>] => {
  const { held } = state
  switch (question._tag) {
    case "Needed": {
      if (!isUsable(held, now)) return wait(state, question.flight, "absent", now)
      const isQuiet = now < held.refreshAt || state.flight !== undefined ||
        isWithin(state.renewalPause, now) || isWithin(state.refusal, now)
      if (isQuiet) return [{ _tag: "Use", held }, state]
      const flight: Flight<F> = { handle: question.flight, reason: "expiring", isOutdated: false }
      return [{ _tag: "Renew", held, flight }, { ...state, flight }]
    }
    case "Rejected": {
      const isHeld = held !== undefined && isSame(held.token, question.token)
      if (!isHeld && isUsable(held, now)) {
        // others may have given a newer one away, through the storage
        return [{ _tag: "Use", held }, supersedes(question.token, held.token) ? reject(state, question.token) : state]
      }
      const refused = { ...reject(state, question.token), held: isHeld ? { ...held, isRefused: true } : held }
      return wait(refused, question.flight, "rejected", now)
    }
  }
}

/** Something happened: whether there is a new current token, and the next state. */
export const tell = <F>(
  state: State<F>,
  news: News,
  now: number,
  windows: Windows
): readonly [boolean, State<F>] => {
  const isOutdated = state.flight?.isOutdated === true
  switch (news._tag) {
    case "Arrived":
      if (isOutdated) return [false, { ...state, forgottenAt: now, flight: undefined }]
      // one that is over when it comes does not replace one that can be used
      return isUsable(state.held, now) && now >= news.held.until
        ? [false, { ...state, flight: undefined, renewalPause: renewalPause(state, now) }]
        : [true, { ...initial, held: news.held }]
    case "Failed":
      return [false, {
        ...state,
        flight: undefined,
        refusal: Option.match(Option.filter(news.error, (error) => !isOutdated && isRefusal(error)), {
          onNone: () => state.refusal,
          onSome: (error) => ({ error, ...cooldown(state.refusal, windows, now) })
        }),
        renewalPause: renewalPause(state, now)
      }]
    case "Forgotten":
      return [false, {
        ...initial,
        forgottenAt: now,
        flight: state.flight === undefined ? undefined : { ...state.flight, isOutdated: true }
      }]
  }
}

/** There is no token to use: wait for one, or get the reason why there is none. */
const wait = <F>(state: State<F>, handle: F, reason: Reason, now: number): readonly [Answer<F>, State<F>] => {
  if (state.flight !== undefined) {
    return [{ _tag: state.flight.isOutdated ? "Queue" : "Join", flight: state.flight }, state]
  }
  if (isWithin(state.refusal, now)) return [{ _tag: "Fail", error: state.refusal.error }, state]
  const flight: Flight<F> = { handle, reason, isOutdated: false }
  return [{ _tag: "Start", flight }, { ...state, flight }]
}

const reject = <F>(state: State<F>, token: AccessToken): State<F> =>
  state.rejected.every((other) => supersedes(token, other))
    ? { ...state, rejected: [...state.rejected.filter((other) => supersedes(other, token)), token] }
    : state

const isWithin = <P extends Pause>(pause: P | undefined, now: number): pause is P =>
  pause !== undefined && pause.from <= now && now < pause.until

const cooldown = (before: Refusal | undefined, windows: Windows, now: number): Pause => {
  const base = Duration.toMillis(windows.refusalCooldown)
  const pause = before === undefined ? base : Math.min(2 * (before.until - before.from), Math.max(base, maxCooldown))
  return { from: now, until: now + pause }
}

/** After a renewal in vain a quarter of the time that is left passes before the next. */
const renewalPause = <F>({ held }: State<F>, now: number): Pause | undefined =>
  isUsable(held, now) ? { from: now, until: now + left(held, now) / 4 } : undefined

const left = (held: Held, now: number): number =>
  Option.match(held.token.expiresAt, {
    onNone: () => Infinity,
    onSome: (expiresAt) => DateTime.toEpochMillis(expiresAt) - now
  })
