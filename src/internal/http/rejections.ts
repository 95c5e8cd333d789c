/**
 * What one origin does with new tokens, as pure functions: an API that refuses them too must not turn every call into a
 * token request. All times are milliseconds.
 *
 * After a refused replay there is a pause, doubling from one to the next. An accepted token ends it. If the next new
 * token is refused soon after that, the origin does both (one of its paths refuses every token, say): from then on an
 * accepted token ends the doubling, and no longer the pause.
 */
import { type AccessToken, isSame, supersedes } from "../../AccessToken.ts"

/** Kept for an origin from the first doubt to some time after the next accepted token. */
export interface Refusal {
  /** The newest token of this origin, fetched after a 401. */
  readonly token: AccessToken
  /** What the origin did with it. */
  readonly status: "untried" | "refused" | "accepted"
  /** When it was fetched, or refused. */
  readonly from: number
  /** How long nothing is refreshed after a refusal; 0 as long as there was none. */
  readonly pause: number
  /** When a token was first accepted since. */
  readonly acceptedAt: number | undefined
  /** Whether the origin accepts some requests and refuses others. */
  readonly isMixed: boolean
}

const firstPause = 1_000
const longestPause = 30_000

/** A new token was fetched after a 401, for the next request. */
export const fetched = (before: Refusal | undefined, token: AccessToken, now: number): Refusal => ({
  token,
  status: "untried",
  from: now,
  pause: before === undefined || before.acceptedAt !== undefined ? 0 : before.pause,
  acceptedAt: undefined,
  isMixed: isMixed(before, now)
})

/** A new token was refused. However many requests carried it, or an older one, it counts once. */
export const refused = (before: Refusal | undefined, token: AccessToken, now: number): Refusal => {
  if (before !== undefined && before.from <= now && !supersedes(token, before.token)) {
    const isNews = isSame(token, before.token) && before.status !== "refused"
    if (!isNews) return before
  }
  return {
    token,
    status: "refused",
    from: now,
    pause: before === undefined || before.pause === 0 || before.acceptedAt !== undefined
      ? firstPause
      : Math.min(2 * before.pause, longestPause),
    acceptedAt: undefined,
    isMixed: isMixed(before, now)
  }
}

/** A token was accepted. Nothing is left once that is no news. */
export const accepted = (before: Refusal | undefined, now: number): Refusal | undefined => {
  if (before === undefined) return undefined
  if (before.acceptedAt !== undefined) return isLately(before.acceptedAt, longestPause, now) ? before : undefined
  const isPauseOver = !before.isMixed || !isPaused(before, now)
  return { ...before, status: isPauseOver ? "accepted" : before.status, acceptedAt: now }
}

/** Whether a 401 passes through without a refresh. */
export const isPaused = (refusal: Refusal | undefined, now: number): boolean =>
  refusal?.status === "refused" && isLately(refusal.from, refusal.pause, now)

/** Whether this token was fetched after a 401 and has been neither accepted nor refused. */
export const isUntried = (refusal: Refusal | undefined, token: AccessToken): boolean =>
  refusal?.status === "untried" && isSame(refusal.token, token)

/** Whether a token was fetched so lately that a request which is not replayed does not fetch another. */
export const isFresh = (refusal: Refusal | undefined, now: number): boolean =>
  refusal !== undefined && isLately(refusal.from, firstPause, now)

const isMixed = (before: Refusal | undefined, now: number): boolean =>
  before !== undefined &&
  (before.isMixed || (before.acceptedAt !== undefined && isLately(before.acceptedAt, longestPause, now)))

/** A clock that was set back is not lately. */
const isLately = (moment: number, duration: number, now: number): boolean => moment <= now && now < moment + duration
