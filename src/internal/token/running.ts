/** The flights under way: what has been spent is awaited, what is past its deadline or not needed any more is interrupted. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import type { AccessToken } from "../../AccessToken.ts"
import { LayerClosed, type TokenError } from "../../TokenError.ts"
import { hardTimeout } from "../timeout.ts"
import * as Waiting from "./waiting.ts"

export interface Running {
  readonly handle: Waiting.Waiting<AccessToken, TokenError>
  /** Whether it has sent what can be spent only once, and the response is not stored yet. */
  isSpending: boolean
  deadline: number
}

/** What was spent successfully counts as under way until the flight has landed; what failed does not. */
export const spend = <A, E, R>(running: Running, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    running.isSpending = true
    return Effect.tapErrorCause(effect, () =>
      Effect.sync(() => {
        running.isSpending = false
      }))
  })

/**
 * Ends by an interruption when a flight has been past its deadline for this long, so that it does not keep the section
 * from the next one for good. Until then it may still arrive.
 */
export const overdue = (running: Running, grace: Duration.Duration, now: () => number): Effect.Effect<never> =>
  Effect.suspend(() => {
    const left = running.deadline + Duration.toMillis(grace) - now()
    if (left <= 0 && !running.isSpending) return Effect.interrupt
    return Effect.zipRight(Effect.sleep(Duration.millis(left > 0 ? left : 1_000)), overdue(running, grace, now))
  })

/**
 * Ends by an interruption when nobody has used the service for so many milliseconds, for twice as many if something was
 * spent: a renewal that hangs does not keep a program from ending that has done its work.
 */
export const unattended = (
  running: Running,
  patience: number,
  lastUsed: () => number,
  now: () => number
): Effect.Effect<never> =>
  Effect.suspend(() => {
    const limit = running.isSpending ? 2 * patience : patience
    const left = lastUsed() + limit - now()
    if (left <= 0 && running.handle.callers.size === 0) return Effect.interrupt
    // a clock that was set back does not make it longer
    const pause = Duration.millis(left > 0 ? Math.min(left, patience) : 1_000)
    return Effect.zipRight(Effect.sleep(pause), unattended(running, patience, lastUsed, now))
  })

/** Where a flight ends without a sound when the request that started it does, those that are long overdue have ended. */
export const forgetOverdue = (all: Map<Running, unknown>, now: number): void => {
  for (const running of all.keys()) {
    if (now > running.deadline + longOverdue) all.delete(running)
  }
}

const longOverdue = 60 * 60_000

/** Ends the waiting of all with `LayerClosed`. What has been spent is awaited, so that its token is stored. */
export const close = (
  all: ReadonlyMap<Running, Fiber.RuntimeFiber<unknown>>,
  farewell: Duration.Duration
): Effect.Effect<void> =>
  Effect.forEach(
    Array.from(all),
    ([{ handle, isSpending }, fiber]) =>
      pipe(
        Effect.sync(() => Waiting.end(handle, Option.some(Exit.fail(new LayerClosed())))),
        Effect.zipRight(
          isSpending ? hardTimeout(Effect.asVoid(Fiber.await(fiber)), farewell, () => "late") : Effect.void
        ),
        // the other processes that share the storage wait until the section is left
        Effect.zipRight(hardTimeout(Effect.asVoid(Fiber.interrupt(fiber)), Duration.seconds(1), () => "late")),
        Effect.ignore
      ),
    { concurrency: "unbounded", discard: true }
  )
