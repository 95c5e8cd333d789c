/**
 * What to do when an API rejects a token, as pure functions of what was rejected, what the API did before, and the time. An
 * API that rejects every token must not turn every call into a token request. All times are milliseconds.
 */
import { type AccessToken, isSame, supersedes } from "../../AccessToken.ts"
import * as Rejections from "./rejections.ts"

/** What is remembered of an origin. */
export interface Memory {
  readonly rejection: Rejections.Rejection | undefined
  readonly budget: Budget
}

/** How many more refreshes an origin may cause: some at once, then one from time to time. */
interface Budget {
  readonly left: number
  readonly since: number
  /** The rejected token that was paid for last: other requests that carried it pay nothing. */
  readonly paid: AccessToken | undefined
}

export type Decision =
  /** The response is the result. */
  | "PassThrough"
  /** Get another token and send the request again. */
  | "Replay"
  /** Get another token for the next request; the response is the result. */
  | "Renew"

const capacity = 10
const refill = 30_000

const unspent: Budget = { left: capacity, since: -Infinity, paid: undefined }

export const forgotten: Memory = { rejection: undefined, budget: unspent }

export const on401 = (
  memory: Memory,
  rejected: { readonly token: AccessToken; readonly isReplayable: boolean },
  now: number
): readonly [Decision, Memory] => {
  const { rejection } = memory
  const { isReplayable, token } = rejected
  if (Rejections.isPaused(rejection, now)) {
    // the pause is about this token and later ones: a late 401 to an earlier one is replayed with the current one
    const isEarlier = supersedes(rejection.token, token) && !supersedes(token, rejection.token)
    return [isEarlier && isReplayable ? "Replay" : "PassThrough", memory]
  }
  if (Rejections.isUntried(rejection, token)) {
    return ["PassThrough", { ...memory, rejection: Rejections.rejected(rejection, token, now) }]
  }
  if (!isReplayable && Rejections.isFresh(rejection, now)) return ["PassThrough", memory]
  const budget = pay(memory.budget, token, now)
  return budget === undefined
    ? ["PassThrough", memory]
    : [isReplayable ? "Replay" : "Renew", { ...memory, budget }]
}

/** The budget after a refresh; nothing if it is used up. */
const pay = (budget: Budget, token: AccessToken, now: number): Budget | undefined => {
  const { paid } = budget
  const isPaid = paid !== undefined && (isSame(paid, token) || paid.generation > token.generation)
  if (isPaid) return budget
  // a clock that was set back begins anew
  const isKnown = budget.since <= now && budget.left < capacity
  const periods = isKnown ? Math.floor((now - budget.since) / refill) : 0
  const left = isKnown ? Math.min(capacity, budget.left + periods) : capacity
  const since = isKnown && left < capacity ? budget.since + periods * refill : now
  return left === 0 ? undefined : { left: left - 1, since, paid: token }
}

/** A replay was rejected too. */
export const onRejectedReplay = (memory: Memory, token: AccessToken, now: number): Memory => ({
  ...memory,
  rejection: Rejections.rejected(memory.rejection, token, now)
})

/** A token was fetched after a 401, for the next request. */
export const onFetched = (memory: Memory, token: AccessToken, now: number): Memory => ({
  ...memory,
  rejection: Rejections.fetched(memory.rejection, token, now)
})

/** A request was accepted. */
export const onAccepted = (memory: Memory, now: number): Memory =>
  memory.rejection === undefined ? memory : { ...memory, rejection: Rejections.accepted(memory.rejection, now) }
