/** A timeout that nothing can outlast. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
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
    Effect.uninterruptibleMask((restore) =>
      Effect.zipWith(
        Effect.forkDaemon(Effect.interruptible(Effect.exit(effect))),
        Effect.forkDaemon(timer(duration)),
        (running, time) =>
          restore(Effect.async<A, E | E2>((resume) => {
            const leave = () => {
              running.unsafeInterruptAsFork(FiberId.none)
              time.unsafeInterruptAsFork(FiberId.none)
            }
            running.addObserver((exit) => {
              resume(Exit.flatten(exit))
              leave()
            })
            time.addObserver(() => {
              resume(Effect.suspend(() => Effect.fail(onTimeout())))
              leave()
            })
            return Effect.sync(leave)
          }))
      ).pipe(Effect.flatten)
    )
)

/** The end comes in short sleeps: a process that got no time to run sees the result before the timeout. */
const timer = (duration: Duration.Duration): Effect.Effect<void> => {
  const short = Effect.sleep(Duration.times(duration, 0.05))
  return Effect.interruptible(
    Effect.zipRight(Effect.sleep(Duration.times(duration, 0.9)), Effect.zipRight(short, short))
  )
}
