/** The callers that wait for a flight. Each leaves by a timer of its own, so that a flight that hangs holds nobody. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"

/** What waiting callers get; `None` if they have to ask again. */
type Outcome<A, E> = Exit.Exit<Option.Option<A>, E>

export interface Waiting<A, E> {
  outcome: Outcome<A, E> | undefined
  readonly callers: Set<(outcome: Outcome<A, E>) => void>
}

export const make = <A, E>(): Waiting<A, E> => ({ outcome: undefined, callers: new Set() })

/** Ends the waiting of all, once: with an exit, or by making them ask again. */
export const end = <A, E>(waiting: Waiting<A, E>, exit: Option.Option<Exit.Exit<A, E>>): void => {
  if (waiting.outcome !== undefined) return
  const outcome = Option.match(exit, { onNone: () => again, onSome: Exit.map(Option.some<A>) })
  waiting.outcome = outcome
  for (const caller of Array.from(waiting.callers)) caller(outcome)
}

/** Waits no longer than this; `None` if that was too short. It ends even where the caller cannot be interrupted. */
export const wait = <A, E, R>(
  waiting: Waiting<A, E>,
  millis: number,
  runtime: Runtime.Runtime<R>
): Effect.Effect<Option.Option<A>, E> =>
  Effect.async<Option.Option<A>, E>((resume) => {
    if (waiting.outcome !== undefined) return resume(waiting.outcome)
    const timer = Runtime.runFork(runtime)(Effect.interruptible(Clock.sleep(Duration.millis(Math.max(1, millis)))))
    const leave = (outcome: Outcome<A, E>) => {
      if (!waiting.callers.delete(leave)) return
      timer.unsafeInterruptAsFork(FiberId.none)
      resume(outcome)
    }
    waiting.callers.add(leave)
    timer.addObserver(() => leave(again))
    return Effect.sync(() => {
      waiting.callers.delete(leave)
      timer.unsafeInterruptAsFork(FiberId.none)
    })
  })

const again = Exit.succeed(Option.none<never>())
