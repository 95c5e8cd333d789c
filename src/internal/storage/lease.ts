/** Exclusive sections: among the fibers of one process, and as a lease among all who share a store. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { ConfigurationError } from "../../TokenError.ts"
import * as TokenMetrics from "../../TokenMetrics.ts"
import type { Lease, LeaseOptions, Storage } from "../../TokenStorage.ts"
import { finiteDuration } from "../options.ts"
import { inModule } from "../log.ts"
import { hardTimeout } from "../timeout.ts"

const defaultTerm = Duration.seconds(10)

/** A store that has not answered by then counts as down. */
const patience = Duration.seconds(1)

/** The pauses between two tries to take a lease, in milliseconds. */
const firstPause = 25
const longestPause = 500

export const leaseTerm = (options: LeaseOptions): Either.Either<Duration.Duration, ConfigurationError> =>
  finiteDuration("term", options.term ?? defaultTerm)

/** 128 random bits in hex. */
export const randomName: Effect.Effect<string> = Effect.map(
  Effect.replicateEffect(Random.nextIntBetween(0, 2 ** 32), 4),
  (words) => words.map((word) => word.toString(16).padStart(8, "0")).join("")
)

/** One holder per key among the fibers that use this function. A key that nobody uses any more is forgotten. */
export const makeLocalMutex = (): Storage["exclusive"] => {
  const sections = new Map<string, { readonly semaphore: Effect.Semaphore; users: number }>()
  const join = (key: string) =>
    Effect.sync(() => {
      const section = sections.get(key) ?? { semaphore: Effect.unsafeMakeSemaphore(1), users: 0 }
      sections.set(key, section)
      section.users++
      return section
    })
  return (key) => (effect) =>
    Effect.acquireUseRelease(
      join(key),
      ({ semaphore }) => semaphore.withPermits(1)(effect),
      (section) =>
        Effect.sync(() => {
          if (--section.users === 0) sections.delete(key)
        })
    )
}

/**
 * One holder per key among all who share the store: a lease that its holder renews while the effect runs.
 *
 * Within the process callers queue up, so that one at a time asks the store. If the store fails or does not answer, its
 * caller and those who wait behind it go on without the lease, one at a time, each with a warning.
 */
export const makeLeased = (lease: Lease): Storage["exclusive"] => {
  const local = makeLocalMutex()
  const term = Duration.decode(lease.term ?? defaultTerm)
  let failures = 0

  /** Waits until the lease is taken; false if the store could not answer. Only the waiting can be interrupted. */
  const take = (key: string, owner: string, restore: Restore): Effect.Effect<boolean> => {
    const attempt = (pause: number): Effect.Effect<boolean> =>
      Effect.flatMap(send(() => lease.take(key, owner, term)), (sent) => {
        // the store may have given the lease, or give it yet, to one who is no longer there
        const giveBack = Effect.zipRight(Fiber.await(sent), send(() => lease.release(key, owner)))
        return pipe(
          restore(answer(sent)),
          Effect.onInterrupt(() => Effect.forkDaemon(giveBack)),
          Effect.flatMap(Option.match({
            onNone: () =>
              Effect.zipRight(
                Effect.forkDaemon(giveBack),
                Effect.sync(() => {
                  failures++
                  return false
                })
              ),
            onSome: (isTaken) =>
              isTaken
                ? Effect.succeed(true)
                : Effect.zipRight(restore(sleepAbout(pause)), attempt(Math.min(2 * pause, longestPause)))
          }))
        )
      })
    return attempt(firstPause)
  }

  const renewing = (key: string, owner: string) =>
    pipe(
      // not to be interrupted: a renewal must not arrive after the lease was given back
      ask(() => lease.renew(key, owner, term)),
      Effect.delay(Duration.times(term, 1 / 3)),
      Effect.repeat({ until: Option.contains(false) }),
      Effect.zipRight(warn("the lease was lost while its holder was at work"))
    )

  const hold = <A, E, R>(key: string, owner: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    pipe(
      Effect.acquireUseRelease(
        Effect.forkDaemon(Effect.interruptible(renewing(key, owner))),
        () => effect,
        Fiber.interrupt
      ),
      Effect.ensuring(ask(() => lease.release(key, owner)))
    )

  return (key) => (effect) =>
    Effect.suspend(() => {
      const before = failures
      return pipe(
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function*() {
            const owner = yield* randomName
            const isTaken = failures === before
              ? yield* take(key, owner, restore)
              : yield* Effect.as(warn("it did not answer the caller before"), false)
            return yield* (isTaken ? hold(key, owner, restore(effect)) : restore(effect))
          })
        ),
        local(key)
      )
    })
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

type Sent<A> = Fiber.Fiber<Either.Either<A, string>>

/** Runs a step on the store to its end, whoever waits for it: what has been sent cannot be called back. */
const send = <A>(step: () => Effect.Effect<A, string>): Effect.Effect<Sent<A>> =>
  pipe(
    Effect.suspend(step),
    // only our own words are logged: a defect's may hold anything
    Effect.catchAllDefect(() => Effect.fail("a defect")),
    Effect.either,
    Effect.uninterruptible,
    Effect.forkDaemon
  )

/** What the store answers; none, after a warning, if it fails or takes too long. */
const answer = <A>(sent: Sent<A>): Effect.Effect<Option.Option<A>> =>
  pipe(
    Effect.flatten(Fiber.join(sent)),
    hardTimeout(patience, () => `no answer within ${Duration.format(patience)}`),
    Effect.asSome,
    Effect.catchAll((description) => Effect.as(warn(description), Option.none()))
  )

/** A step and what the store answers. Nothing interrupts the waiting. */
const ask = <A>(step: () => Effect.Effect<A, string>): Effect.Effect<Option.Option<A>> =>
  pipe(
    send(step),
    // an interruption reaches the children of a fiber even while it cannot be interrupted itself: this is nobody's child
    Effect.flatMap((sent) => Effect.forkDaemon(answer(sent))),
    Effect.flatMap(Fiber.join),
    Effect.uninterruptible
  )

const warn = (description: string): Effect.Effect<void> =>
  pipe(
    Effect.logWarning(`The token storage failed at exclusive: ${description}`),
    Effect.zipRight(Metric.increment(TokenMetrics.storageFailures)),
    inModule("TokenStorage")
  )

const sleepAbout = (millis: number): Effect.Effect<void> =>
  Effect.flatMap(Random.nextIntBetween(0.75 * millis, 1.25 * millis), Effect.sleep)
