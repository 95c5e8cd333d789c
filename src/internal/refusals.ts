/**
 * What one origin does with new tokens, as pure functions: an API that refuses them too must not turn every call into a
 * token request. All times are milliseconds.
 */
import type { AccessToken } from "../AccessToken.ts"

/** Kept for an origin from the first doubt to the next accepted token. */
export interface Refusal {
  /** The newest token of this origin. */
  readonly token: AccessToken
  /** Whether the origin has refused it; else it has not been seen to accept it yet. */
  readonly isRefused: boolean
  /** After a refusal nothing is refreshed from here … */
  readonly from: number
  /** … for this long. */
  readonly pause: number
}

const firstPause = 1_000
const longestPause = 30_000

/** A new token was fetched after a 401, and not tried yet. */
export const fetched = (before: Refusal | undefined, token: AccessToken, now: number): Refusal => ({
  token,
  isRefused: false,
  from: now,
  pause: before?.pause ?? 0
})

/** A new token was refused. However many requests carried it, it counts once. */
export const refused = (before: Refusal | undefined, token: AccessToken, now: number): Refusal =>
  before?.isRefused === true && before.token === token ? before : {
    token,
    isRefused: true,
    from: now,
    pause: before === undefined || before.pause === 0 ? firstPause : Math.min(2 * before.pause, longestPause)
  }

/** Whether a 401 passes through without a refresh. */
export const isPaused = (refusal: Refusal | undefined, now: number): boolean =>
  refusal?.isRefused === true && refusal.from <= now && now < refusal.from + refusal.pause

/** Whether this token was fetched after a 401 and has never been accepted. */
export const isUntried = (refusal: Refusal | undefined, token: AccessToken): boolean =>
  refusal?.isRefused === false && refusal.token === token
