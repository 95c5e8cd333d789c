/**
 * What one origin does with new tokens, as pure functions: an API that refuses them too must not turn every call into a
 * token request. All times are milliseconds.
 *
 * After a refused replay there is a pause, doubling from one to the next. An accepted token ends it. If the next new
 * token is refused soon after that, the origin does both (one of its paths refuses every token, say): from then on an
 * accepted token ends the doubling, and no longer the pause.
 */
import type { AccessToken } from "../AccessToken.ts"

/** Kept for an origin from the first doubt to some time after the next accepted token. */
export interface Refusal {
  /** The newest token of this origin, unless it has been accepted. */
  readonly token: AccessToken | undefined
  /** Whether the origin has refused that token; else it has not been tried yet. */
  readonly isRefused: boolean
  /** After a refusal nothing is refreshed from here … */
  readonly from: number
  /** … for this long. */
  readonly pause: number
  /** When a token was first accepted after the refusal. */
  readonly acceptedAt: number | undefined
  /** Whether the origin accepts some requests and refuses others. */
  readonly isMixed: boolean
}

const firstPause = 1_000
const longestPause = 30_000

const undoubted: Refusal = {
  token: undefined,
  isRefused: false,
  from: 0,
  pause: 0,
  acceptedAt: undefined,
  isMixed: false
}

/** A new token was fetched after a 401, and has not been tried yet. */
export const fetched = (before: Refusal = undoubted, token: AccessToken): Refusal => ({
  ...before,
  token,
  isRefused: false
})

/** A new token was refused. However many requests carried it, it counts once. */
export const refused = (before: Refusal = undoubted, token: AccessToken, now: number): Refusal =>
  before.isRefused && before.token === token ? before : {
    token,
    isRefused: true,
    from: now,
    pause: before.pause === 0 || before.acceptedAt !== undefined
      ? firstPause
      : Math.min(2 * before.pause, longestPause),
    acceptedAt: undefined,
    isMixed: before.isMixed || wasAcceptedLately(before, now)
  }

/** A token was accepted. None is left once that is no news. */
export const accepted = (before: Refusal | undefined, now: number): Refusal | undefined => {
  if (before === undefined || before.pause === 0) return undefined
  if (before.acceptedAt !== undefined) return wasAcceptedLately(before, now) ? before : undefined
  const isPauseOver = !before.isMixed || !isPaused(before, now)
  return {
    ...before,
    token: isPauseOver ? undefined : before.token,
    isRefused: !isPauseOver,
    acceptedAt: now
  }
}

/** Whether a 401 passes through without a refresh. */
export const isPaused = (refusal: Refusal | undefined, now: number): boolean =>
  refusal?.isRefused === true && refusal.from <= now && now < refusal.from + refusal.pause

/** Whether this token was fetched after a 401 and has never been accepted. */
export const isUntried = (refusal: Refusal | undefined, token: AccessToken): boolean =>
  refusal?.isRefused === false && refusal.token === token

const wasAcceptedLately = ({ acceptedAt }: Refusal, now: number): boolean =>
  acceptedAt !== undefined && acceptedAt <= now && now < acceptedAt + longestPause
