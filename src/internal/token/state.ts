/**
 * The life of a service's token as pure functions: `ask` and `tell` take the state, what a caller asks or what happened,
 * and the time; they return what to do and the next state.
 *
 * At most one flight (a fetch of a new token) is current. `F` is whatever stands for one; the service uses a Deferred. All
 * times are milliseconds. Each stretch of time has a beginning too: a clock that was set back ends it.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type AccessToken, isSame, supersedes } from "../../AccessToken.ts"
import { isTransient, LayerClosed, type TokenError } from "../../TokenError.ts"

/** A token with its windows. */
export interface Held {
  readonly token: AccessToken
  /** Succeeds with the token: made once, handed out many times. */
  readonly ready: Effect.Effect<AccessToken>
  /** Used from here … */
  readonly from: number
  /** … renewed in the background from here … */
  readonly refreshAt: number
  /** … not used any more from here … */
  readonly until: number
  /** … and expired here. */
  readonly end: number
  /** Whether an API has rejected it, and a replacement is on its way. */
  readonly isRejected: boolean
}

/** Why a flight was started. */
export type Reason = "absent" | "expiring" | "rejected"

export interface Flight<F> {
  readonly handle: F
  readonly reason: Reason
  readonly startedAt: number
  /** From here on nobody waits for it. */
  readonly deadline: number
  /** The epoch in which it began: what arrives in another one was forgotten. */
  readonly epoch: number
}

interface Pause {
  readonly from: number
  readonly until: number
}

/** A failure that is remembered, so that callers do not repeat the request. */
interface Cooldown extends Pause {
  readonly error: TokenError
  /** How long a permanent refusal is remembered; it doubles from one to the next. 0 for a transient failure. */
  readonly pause: number
}

export interface State<F> {
  /** The newest token. */
  readonly held: Held | undefined
  /** The token that is handed out: `held`, or `before` as long as an API does not know `held` yet. */
  readonly handout: Held | undefined
  /** The token before `held`, if it was still good when `held` arrived. */
  readonly before: Held | undefined
  /** The newest token that was rejected, or those of one generation: no storage may bring them back. */
  readonly rejected: ReadonlyArray<AccessToken>
  /** No storage may bring back a token of this generation or an older one. */
  readonly forgotten: number
  readonly epoch: number
  readonly flight: Flight<F> | undefined
  readonly cooldown: Cooldown | undefined
  /** No renewal in the background during this pause: the last one failed. */
  readonly renewalPause: Pause | undefined
  readonly isClosed: boolean
}

/** What a caller asks. `flight` is the one to start if one is needed. */
export type Question<F> =
  | { readonly _tag: "Needed"; readonly flight: F }
  /** Another token than this one is needed. */
  | { readonly _tag: "Rejected"; readonly token: AccessToken; readonly flight: F }

/** What the caller gets, or has to do. */
export type Decision<F> =
  | { readonly _tag: "Use"; readonly held: Held }
  /** Use the token and start the flight; nobody waits for it. */
  | { readonly _tag: "Renew"; readonly held: Held; readonly flight: Flight<F> }
  /** Start the flight and wait for its token. */
  | { readonly _tag: "Start"; readonly flight: Flight<F> }
  /** Wait for the flight's token, but no longer than `until`; then ask again. */
  | { readonly _tag: "Join"; readonly flight: Flight<F>; readonly until: number }
  | { readonly _tag: "Fail"; readonly error: TokenError }

/** What happened. */
export type News<F> =
  /** A flight ended with a token. */
  | { readonly _tag: "Arrived"; readonly flight: Flight<F>; readonly held: Held }
  /** A flight ended without one; no error if it was interrupted. */
  | { readonly _tag: "Failed"; readonly flight: Flight<F>; readonly error: Option.Option<TokenError> }
  /** A flight needs longer. */
  | { readonly _tag: "Extended"; readonly flight: Flight<F>; readonly deadline: number }
  /** An API has rejected this token, and nobody asks for another one now. */
  | { readonly _tag: "Rejected"; readonly token: AccessToken }
  /** Forget every token up to this generation. */
  | { readonly _tag: "Forgotten"; readonly generation: number }
  | { readonly _tag: "Closed" }

export interface Windows {
  readonly expiryLeeway: Duration.Duration
  readonly refreshAhead: Duration.Duration
  readonly refusalCooldown: Duration.Duration
  readonly flightTimeout: Duration.Duration
  /** Whether callers wait for a flight that another one has started. Without, nothing is renewed in the background. */
  readonly isShared: boolean
}

export const initial: State<never> = {
  held: undefined,
  handout: undefined,
  before: undefined,
  rejected: [],
  forgotten: -1,
  epoch: 0,
  flight: undefined,
  cooldown: undefined,
  renewalPause: undefined,
  isClosed: false
}

/** The longest time that a refusal is remembered, unless `refusalCooldown` is longer. */
const maxCooldown = 30_000

/** More rejected tokens of one generation are not remembered. */
const maxRejected = 16

/** The longest `Retry-After` that is obeyed. */
const maxRetryAfter = 5 * 60_000

/** How long an API may take to know a new token. */
const overlap = 10_000

/** How far the clocks of processes that share a storage may be apart. */
const largestSkew = 15 * 60_000

/** How long others wait for the replacement of a token that one API has rejected, before they go on with it. */
const patience = 1_000

/**
 * A token with its windows. `jitter`, between 0.8 and 1.2, spreads renewals; each window is capped by the lifetime. A
 * token that another clock dates a little ahead of ours counts as issued now.
 */
export const hold = (token: AccessToken, windows: Windows, jitter: number, now: number): Held => {
  const issued = DateTime.toEpochMillis(token.issuedAt)
  const ahead = issued <= now + largestSkew ? Math.max(0, issued - now) : 0
  const from = issued - ahead
  const end = Option.match(token.expiresAt, { onNone: () => Infinity, onSome: DateTime.toEpochMillis }) - ahead
  const before = (window: Duration.Duration, share: number, factor = 1): number =>
    end === Infinity ? end : end - factor * Math.min(Duration.toMillis(window), share * (end - from))
  const until = before(windows.expiryLeeway, 0.05)
  return {
    token,
    ready: Effect.succeed(token),
    from,
    refreshAt: Math.min(until, before(windows.refreshAhead, 0.2, jitter)),
    until,
    end,
    isRejected: false
  }
}

/** Whether a token may be sent now. */
export const isUsable = (held: Held | undefined, now: number): held is Held =>
  held !== undefined && !held.isRejected && held.from <= now && now < held.until

/** Whether a token had a life that was over before it arrived. */
export const isOver = (token: AccessToken, now: number): boolean =>
  Option.exists(
    token.expiresAt,
    (end) => DateTime.toEpochMillis(end) <= now && DateTime.toEpochMillis(end) > DateTime.toEpochMillis(token.issuedAt)
  )

/** Whether a token that a storage holds was forgotten here: the storage has not been told yet, or did not listen. */
export const isForgotten = <F>(state: State<F>, stored: AccessToken): boolean => stored.generation <= state.forgotten

/** Whether a token that a storage holds can be used now in place of a new one. */
export const isReplacement = <F>(state: State<F>, stored: Held, now: number): boolean =>
  isUsable(stored, now) &&
  !isForgotten(state, stored.token) &&
  (state.held === undefined || supersedes(stored.token, state.held.token)) &&
  state.rejected.every((rejected) => supersedes(stored.token, rejected))

/** The generation of a token that is fetched now. */
export const nextGeneration = <F>(state: State<F>, stored: Option.Option<AccessToken>): number =>
  1 + Math.max(
    state.forgotten,
    state.held?.token.generation ?? 0,
    Option.match(stored, { onNone: () => 0, onSome: ({ generation }) => generation })
  )

/** A caller asks: what it gets, and the next state. */
export const ask = <F>(
  state: State<F>,
  question: Question<F>,
  now: number,
  windows: Windows
): readonly [Decision<F>, State<F>] => {
  const [decision, next] = question._tag === "Needed"
    ? need(state, question.flight, now, windows)
    : replace(state, question.token, question.flight, now, windows)
  if (!state.isClosed || decision._tag === "Use" || decision._tag === "Fail") return [decision, next]
  return decision._tag === "Renew"
    ? [{ _tag: "Use", held: decision.held }, state]
    : [{ _tag: "Fail", error: new LayerClosed() }, state]
}

const need = <F>(state: State<F>, handle: F, now: number, windows: Windows): readonly [Decision<F>, State<F>] => {
  const { flight, handout, held } = endOverlap(state, now)
  const settled = handout === state.handout ? state : { ...state, handout }
  if (isUsable(handout, now)) {
    const isQuiet = !windows.isShared || handout !== held || now < handout.refreshAt || isUnderWay(flight, now) ||
      isWithin(state.renewalPause, now) || isWithin(state.cooldown, now)
    if (isQuiet) return [{ _tag: "Use", held: handout }, settled]
    const next = newFlight(settled, handle, "expiring", now, windows)
    return [{ _tag: "Renew", held: handout, flight: next }, { ...settled, flight: next }]
  }
  if (held?.isRejected !== true || !isLasting(held, now)) return wait(settled, handle, "absent", now, windows)
  // there is no replacement yet: one API's rejection must not take the others down
  if (!windows.isShared || !isUnderWay(flight, now)) return wait(settled, handle, "absent", now, windows)
  const until = flight.startedAt + patience
  return now < until ? [{ _tag: "Join", flight, until }, settled] : [{ _tag: "Use", held }, settled]
}

const replace = <F>(
  before: State<F>,
  token: AccessToken,
  handle: F,
  now: number,
  windows: Windows
): readonly [Decision<F>, State<F>] => {
  const state = { ...before, handout: endOverlap(before, now).handout }
  const { handout, held } = state
  if (held === undefined) return wait(reject(state, token), handle, "rejected", now, windows)
  const earlier = handout === held ? state.before : handout
  if (isSame(held.token, token) && isYoung(held, now) && isUsable(earlier, now)) {
    return [{ _tag: "Use", held: earlier }, { ...state, handout: earlier }]
  }
  if (
    !isSame(held.token, token) && !(handout !== undefined && isSame(handout.token, token)) && isUsable(handout, now)
  ) {
    // others may have given a newer one away, through the storage
    return [{ _tag: "Use", held: handout }, supersedes(token, held.token) ? reject(state, token) : state]
  }
  if (isWithin(state.cooldown, now) && isTransient(state.cooldown.error) && isLasting(held, now)) {
    return [{ _tag: "Fail", error: state.cooldown.error }, state]
  }
  return wait(rejectHeld(state, token), handle, "rejected", now, windows)
}

/** Something happened: whether there is a new current token, and the next state. */
export const tell = <F>(
  state: State<F>,
  news: News<F>,
  now: number,
  windows: Windows
): readonly [boolean, State<F>] => {
  switch (news._tag) {
    case "Arrived":
      return arrive(state, news.flight, news.held, now)
    case "Failed":
      return [false, fail(state, news.flight, news.error, now, windows)]
    case "Extended":
      return [
        false,
        isCurrent(state, news.flight)
          ? { ...state, flight: { ...state.flight, deadline: Math.max(state.flight.deadline, news.deadline) } }
          : state
      ]
    case "Rejected": {
      const { handout, held } = state
      const isKnown = held !== undefined &&
        (isSame(held.token, news.token) || (handout !== undefined && isSame(handout.token, news.token)))
      return [
        false,
        isKnown ? { ...rejectHeld(state, news.token), cooldown: state.cooldown } : reject(state, news.token)
      ]
    }
    case "Forgotten":
      return [false, {
        ...initial,
        isClosed: state.isClosed,
        epoch: state.epoch + 1,
        forgotten: Math.max(state.forgotten, news.generation, state.held?.token.generation ?? -1)
      }]
    case "Closed":
      // a token that is good serves on; nothing is fetched any more
      return [false, { ...state, isClosed: true, flight: undefined }]
  }
}

const arrive = <F>(state: State<F>, flight: Flight<F>, held: Held, now: number): readonly [boolean, State<F>] => {
  if (flight.epoch !== state.epoch) {
    return [false, { ...state, forgotten: Math.max(state.forgotten, held.token.generation) }]
  }
  const isLate = !isCurrent(state, flight)
  const landed = isLate ? state : { ...state, flight: undefined }
  // one that is over when it comes, or that nobody waits for any more, does not replace one that can be used
  if (isUsable(state.held, now) && (isLate || now >= held.until)) {
    return [false, isLate ? landed : { ...landed, renewalPause: renewalPause(state, now) }]
  }
  const before = flight.reason === "expiring" && isUsable(state.held, now) ? state.held : undefined
  return [true, {
    ...initial,
    isClosed: state.isClosed,
    epoch: state.epoch,
    forgotten: state.forgotten,
    flight: landed.flight,
    held,
    handout: held,
    before
  }]
}

const fail = <F>(
  state: State<F>,
  flight: Flight<F>,
  error: Option.Option<TokenError>,
  now: number,
  windows: Windows
): State<F> => {
  if (!isCurrent(state, flight)) return state
  const isLasted = Option.exists(error, isTransient) && state.held !== undefined && isLasting(state.held, now)
  const held = isLasted && state.held.isRejected ? { ...state.held, isRejected: false } : state.held
  return {
    ...state,
    held,
    handout: state.handout === state.held ? held : state.handout,
    flight: undefined,
    cooldown: Option.match(error, {
      onNone: () => state.cooldown,
      onSome: (error) => cooldownAfter(error, flight, state.cooldown, windows, now)
    }),
    renewalPause: renewalPause(state, now)
  }
}

/** There is no token to use: wait for one, or get the reason why there is none. */
const wait = <F>(
  state: State<F>,
  handle: F,
  reason: Reason,
  now: number,
  windows: Windows
): readonly [Decision<F>, State<F>] => {
  if (windows.isShared && isUnderWay(state.flight, now)) {
    return [{ _tag: "Join", flight: state.flight, until: state.flight.deadline }, state]
  }
  if (isWithin(state.cooldown, now)) return [{ _tag: "Fail", error: state.cooldown.error }, state]
  const flight = newFlight(state, handle, reason, now, windows)
  return [{ _tag: "Start", flight }, { ...state, flight }]
}

const newFlight = <F>(state: State<F>, handle: F, reason: Reason, now: number, windows: Windows): Flight<F> => ({
  handle,
  reason,
  startedAt: now,
  deadline: now + Duration.toMillis(windows.flightTimeout),
  epoch: state.epoch
})

const isCurrent = <F>(
  state: State<F>,
  flight: Flight<F>
): state is State<F> & { readonly flight: Flight<F> } => state.flight?.handle === flight.handle

const isUnderWay = <F>(flight: Flight<F> | undefined, now: number): flight is Flight<F> =>
  flight !== undefined && flight.startedAt <= now && now < flight.deadline

/** Hands the newest token out again when its time has come, or when the one before it cannot be used any more. */
const endOverlap = <F>(state: State<F>, now: number): State<F> =>
  state.handout !== state.held &&
    (state.held === undefined || !isYoung(state.held, now) || !isUsable(state.handout, now))
    ? { ...state, handout: state.held }
    : state

const isYoung = (held: Held, now: number): boolean => held.from <= now && now < held.from + overlap

/** Whether a token could still be sent, rejected or not. */
const isLasting = (held: Held, now: number): boolean => held.from <= now && now < held.until

/** The newest token counts as rejected; if the one before it was handed out in its place, both do. */
const rejectHeld = <F>(state: State<F>, token: AccessToken): State<F> => {
  const { held } = state
  const rejected = held === undefined ? state : reject(state, held.token)
  const isKnown = held !== undefined &&
    (isSame(held.token, token) || (state.handout !== undefined && isSame(state.handout.token, token)))
  if (!isKnown) return reject(state, token)
  const gone = { ...held, isRejected: true }
  return { ...rejected, held: gone, handout: gone, before: undefined }
}

const reject = <F>(state: State<F>, token: AccessToken): State<F> =>
  state.rejected.every((other) => supersedes(token, other))
    ? { ...state, rejected: [...state.rejected.filter((other) => supersedes(other, token)), token].slice(-maxRejected) }
    : state

const isWithin = <P extends Pause>(pause: P | undefined, now: number): pause is P =>
  pause !== undefined && pause.from <= now && now < pause.until

const cooldownAfter = <F>(
  error: TokenError,
  flight: Flight<F>,
  before: Cooldown | undefined,
  windows: Windows,
  now: number
): Cooldown | undefined => {
  const base = Duration.toMillis(windows.refusalCooldown)
  if (isTransient(error)) {
    const asked = "retryAfter" in error && error.retryAfter !== undefined
      ? Math.min(Duration.toMillis(error.retryAfter), maxRetryAfter)
      : 0
    return { error, from: flight.startedAt, until: Math.max(flight.startedAt + base, now + asked), pause: 0 }
  }
  if (!isRemembered(error)) return before
  const pause = before === undefined || before.pause === 0
    ? base
    : Math.min(2 * before.pause, Math.max(base, maxCooldown))
  return { error, from: now, until: now + pause, pause }
}

/** Whether another attempt would only repeat the failure. A sign-in that timed out may be begun anew at once. */
const isRemembered = (error: TokenError): boolean =>
  error._tag === "TokenErrorResponse" || error._tag === "InvalidTokenResponse" || error._tag === "DiscoveryError" ||
  (error._tag === "AuthorizationError" && error.reason === "AccessDenied")

/** After a renewal that failed a quarter of the time that is left passes before the next. */
const renewalPause = <F>({ held }: State<F>, now: number): Pause | undefined =>
  isUsable(held, now) ? { from: now, until: now + (held.end - now) / 4 } : undefined
