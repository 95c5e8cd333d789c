import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"

/**
 * Ends with an error if the effect takes longer, even where it cannot be interrupted (it is left behind then), and even in
 * a region that is uninterruptible. Its fiber never fails, since the runtime would log that, and what it would log is not ours.
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
      Effect.zipRight(patience(duration), Effect.suspend(() => Effect.fail(onTimeout())))
    )
)

/** Twenty short sleeps: one whose own process got no time to run reads the answer before it gives up. */
const patience = (duration: Duration.Duration): Effect.Effect<void> =>
  Effect.interruptible(Effect.asVoid(Effect.repeatN(Effect.sleep(Duration.times(duration, 0.05)), 19)))
