/**
 * What one origin does with new tokens, as pure functions: an API that rejects them too must not turn every call into a
 * token request. All times are milliseconds.
 *
 * After a rejected replay there is a pause, doubling from one to the next. An accepted token ends it. If the next new
 * token is rejected soon after that, the origin does both (one of its paths rejects every token, say): from then on an
 * accepted token ends the doubling, and no longer the pause.
 */
import { type AccessToken, isSame, supersedes } from "../../AccessToken.ts"

/** Kept for an origin from the first doubt to some time after the next accepted token. */
export interface Rejection {
  /** The newest token of this origin, fetched after a 401. */
  readonly token: AccessToken
  /** What the origin did with it. */
  readonly status: "untried" | "rejected" | "accepted"
  /** When it was fetched, or rejected. */
  readonly from: number
  /** How long nothing is refreshed after a rejection; 0 as long as there was none. */
  readonly pause: number
  /** When a token was first accepted since. */
  readonly acceptedAt: number | undefined
  /** Whether the origin accepts some requests and rejects others. */
  readonly isMixed: boolean
}

const firstPause = 1_000
const longestPause = 30_000

/** A new token was fetched after a 401, for the next request. */
export const fetched = (before: Rejection | undefined, token: AccessToken, now: number): Rejection => ({
  token,
  status: "untried",
  from: now,
  pause: before === undefined || before.acceptedAt !== undefined ? 0 : before.pause,
  acceptedAt: undefined,
  isMixed: isMixed(before, now)
})

/** A new token was rejected. However many requests carried it, or an older one, it counts once. */
export const rejected = (before: Rejection | undefined, token: AccessToken, now: number): Rejection => {
  if (before !== undefined && before.from <= now && !supersedes(token, before.token)) {
    const isNews = isSame(token, before.token) && before.status !== "rejected"
    if (!isNews) return before
  }
  return {
    token,
    status: "rejected",
    from: now,
    pause: before === undefined || before.pause === 0 || before.acceptedAt !== undefined
      ? firstPause
      : Math.min(2 * before.pause, longestPause),
    acceptedAt: undefined,
    isMixed: isMixed(before, now)
  }
}

/** A token was accepted. Nothing is left once that is no news. */
export const accepted = (before: Rejection | undefined, now: number): Rejection | undefined => {
  if (before === undefined) return undefined
  if (before.acceptedAt !== undefined) return isRecent(before.acceptedAt, longestPause, now) ? before : undefined
  const isPauseOver = !before.isMixed || !isPaused(before, now)
  return { ...before, status: isPauseOver ? "accepted" : before.status, acceptedAt: now }
}

/** Whether a 401 passes through without a refresh. */
export const isPaused = (rejection: Rejection | undefined, now: number): rejection is Rejection =>
  rejection?.status === "rejected" && isRecent(rejection.from, rejection.pause, now)

/** Whether this token was fetched after a 401 and has been neither accepted nor rejected. */
export const isUntried = (rejection: Rejection | undefined, token: AccessToken): boolean =>
  rejection?.status === "untried" && isSame(rejection.token, token)

/** Whether a token was fetched so recently that a request which is not replayed does not fetch another. */
export const isFresh = (rejection: Rejection | undefined, now: number): boolean =>
  rejection !== undefined && isRecent(rejection.from, firstPause, now)

const isMixed = (before: Rejection | undefined, now: number): boolean =>
  before !== undefined &&
  (before.isMixed || (before.acceptedAt !== undefined && isRecent(before.acceptedAt, longestPause, now)))

/** A clock that was set back does not count as recent. */
const isRecent = (moment: number, duration: number, now: number): boolean => moment <= now && now < moment + duration
