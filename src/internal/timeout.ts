/** A timeout that nothing can outlast. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"

/**
 * Ends with an error if the effect takes longer, even if the effect cannot be interrupted (it then goes on in the
 * background) and even in an uninterruptible region. The background fiber never fails: the runtime would log its failure.
 */
export const hardTimeout: {
  <E2>(
    duration: Duration.Duration,
    onTimeout: () => E2
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | E2, R>
  <A, E, R, E2>(
    effect: Effect.Effect<A, E, R>,
    duration: Duration.Duration,
    onTimeout: () => E2
  ): Effect.Effect<A, E | E2, R>
} = dual(
  3,
  <A, E, R, E2>(effect: Effect.Effect<A, E, R>, duration: Duration.Duration, onTimeout: () => E2) =>
    Effect.raceFirst(
      Effect.flatten(Effect.interruptible(Effect.disconnect(Effect.exit(effect)))),
      Effect.zipRight(timer(duration), Effect.suspend(() => Effect.fail(onTimeout())))
    )
)

/** Twenty short sleeps: a process that got no time to run sees the result before the timeout. */
const timer = (duration: Duration.Duration): Effect.Effect<void> =>
  Effect.interruptible(Effect.asVoid(Effect.repeatN(Effect.sleep(Duration.times(duration, 0.05)), 19)))
