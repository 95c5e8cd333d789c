/** When and how often a request to the authorization server is sent again. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { type ConfigurationError, isTransient, type TokenError } from "../../TokenError.ts"
import { check, finiteDuration } from "../options.ts"

/** When and how often a token request is retried, by `Schedule.exponential` with jitter. */
export interface RetryOptions {
  /** How many more attempts are made after the first. `0` turns retrying off. Defaults to 3. */
  readonly times?: number | undefined
  /** The first pause. Defaults to 300 milliseconds. */
  readonly base?: Duration.DurationInput | undefined
  /** The factor by which each pause is longer than the one before. Defaults to 2. */
  readonly factor?: number | undefined
  /** The longest pause. Defaults to 10 seconds. */
  readonly maxDelay?: Duration.DurationInput | undefined
  /**
   * The statuses that are retried, in place of all rules about statuses; a request without a response is still retried.
   * Defaults to 408, 421, 425, 429 and 5xx.
   */
  readonly statuses?: ReadonlyArray<number> | undefined
}

export type Retry = RetryOptions | Schedule.Schedule<unknown, TokenError>

/** A longer `Retry-After` is not waited for. */
const maxRetryAfter = Duration.seconds(60)

const defaults = { times: 3, base: "300 millis", factor: 2, maxDelay: "10 seconds" } as const

/** Makes the schedule of one request. It is not kept between two requests: programs hold many clients, most of them idle. */
export type MakeSchedule = () => Schedule.Schedule<unknown, TokenError>

export const retrySchedule = (retry: Retry | undefined): Effect.Effect<MakeSchedule, ConfigurationError> =>
  retry === undefined
    ? Effect.succeed(usualSchedule)
    : Schedule.isSchedule(retry)
    ? Effect.succeed(() => retry)
    : Effect.map(checkRetry(retry), (rules) => () => scheduleOf(rules))

interface Rules {
  readonly times: number
  readonly base: Duration.Duration
  readonly factor: number
  readonly maxDelay: Duration.Duration
  readonly statuses: ReadonlyArray<number> | undefined
}

const usualSchedule: MakeSchedule = () =>
  scheduleOf({
    ...defaults,
    base: Duration.decode(defaults.base),
    maxDelay: Duration.decode(defaults.maxDelay),
    statuses: undefined
  })

const checkRetry = (retry: RetryOptions): Effect.Effect<Rules, ConfigurationError> =>
  Effect.gen(function*() {
    const { factor = defaults.factor, statuses, times = defaults.times } = retry
    yield* check(Number.isInteger(times) && times >= 0, () =>
      "tokenRetry.times must be a whole number: write how many more attempts are made, 0 for none")
    yield* check(Number.isFinite(factor) && factor >= 1, () =>
      "tokenRetry.factor must be at least 1: write the factor by which each pause grows, such as 2")
    yield* check(statuses === undefined || statuses.every(Number.isInteger), () =>
      "tokenRetry.statuses must hold HTTP statuses: write numbers such as 503")
    const base = yield* finiteDuration("tokenRetry.base", retry.base ?? defaults.base)
    const maxDelay = yield* finiteDuration("tokenRetry.maxDelay", retry.maxDelay ?? defaults.maxDelay)
    return { times, base, factor, maxDelay, statuses }
  })

const scheduleOf = ({ base, factor, maxDelay, statuses, times }: Rules): Schedule.Schedule<unknown, TokenError> =>
  pipe(
    Schedule.exponential(base, factor),
    Schedule.jittered,
    Schedule.modifyDelay((_, pause) => Duration.min(pause, maxDelay)),
    Schedule.zipRight(Schedule.identity<TokenError>()),
    // whole milliseconds: a TestClock that stands between two of them cannot tell the time in nanoseconds
    Schedule.modifyDelay((error, pause) =>
      Duration.millis(Math.ceil(Duration.toMillis(Duration.max(pause, retryAfter(error)))))
    ),
    Schedule.whileInput((error: TokenError) =>
      isRetried(error, statuses) && Duration.lessThanOrEqualTo(retryAfter(error), maxRetryAfter)
    ),
    Schedule.intersect(Schedule.recurs(times))
  )

const isRetried = (error: TokenError, statuses: ReadonlyArray<number> | undefined): boolean =>
  statuses !== undefined && error._tag === "TokenErrorResponse" ? statuses.includes(error.status) : isTransient(error)

/** With a schedule of one's own nobody can tell how long the retries last. */
const longestOfSchedule = Duration.minutes(5)

/** What discovery and a storage may add. */
const slack = Duration.seconds(30)

/**
 * The longest that all attempts and pauses of a request may take. Options that cannot work are left to `retrySchedule`.
 */
export const longestRequest = (retry: Retry, timeout: Duration.Duration): Duration.Duration => {
  if (Schedule.isSchedule(retry)) return longestOfSchedule
  const times = retry.times ?? defaults.times
  const maxDelay = Option.getOrElse(Duration.decodeUnknown(retry.maxDelay ?? defaults.maxDelay), () => maxRetryAfter)
  const pauses = Duration.times(Duration.max(maxRetryAfter, maxDelay), times)
  return Duration.sum(Duration.sum(Duration.times(timeout, times + 1), pauses), slack)
}

const retryAfter = (error: TokenError): Duration.Duration =>
  "retryAfter" in error && error.retryAfter !== undefined ? error.retryAfter : Duration.zero
