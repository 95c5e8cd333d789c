/** How a caller that waits for another process polls a store. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

/** Looks take at most this share of the waiting time: a store or a process under load gets fewer of them. */
const share = 0.05

/** No pause is made longer than this, in milliseconds. */
const longest = 5_000

/** The result, and the pause until the next look: this one, in milliseconds, or longer where the look took long. */
export const withPolitePause = <A, E, R>(
  look: Effect.Effect<A, E, R>,
  pause: number
): Effect.Effect<readonly [result: A, pause: number], E, R> =>
  Effect.flatMap(Clock.currentTimeMillis, (before) =>
    Effect.zipWith(
      look,
      Clock.currentTimeMillis,
      (result, after) => [result, Math.max(pause, Math.min((after - before) / share, longest))] as const
    ))

/** Sleeps about so many milliseconds, so that callers do not all look at once. */
export const sleepAbout = (millis: number): Effect.Effect<void> =>
  Effect.flatMap(Random.nextIntBetween(Math.ceil(0.75 * millis), Math.ceil(1.25 * millis) + 1), Effect.sleep)
