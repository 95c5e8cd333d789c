/** An exclusive section per key among all processes that share a store: a lease with a term. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import type { ConfigurationError } from "../../TokenError.ts"
import { degradedStorage } from "../log.ts"
import { finiteDuration } from "../options.ts"
import { sleepAbout, withPolitePause } from "../politePause.ts"
import { hardTimeout } from "../timeout.ts"
import { makeLocalMutex } from "./localMutex.ts"
import { randomName } from "../random.ts"
import type { Exclusive, Lease, LeaseOptions } from "./textStore.ts"

const defaultTerm = Duration.seconds(10)

/** A store that has not responded by then counts as down. */
const patience = Duration.seconds(1)

/** The pauses between two attempts to take a lease, in milliseconds. */
const firstPause = 25
const longestPause = 500

export const leaseTerm = (options: LeaseOptions): Either.Either<Duration.Duration, ConfigurationError> =>
  finiteDuration("term", options.term ?? defaultTerm)

/**
 * One holder per key among all processes that share the store: a lease that its holder renews while the effect runs.
 *
 * Within the process callers queue up, so that one at a time asks the store. If the store fails or does not respond, the
 * caller and those queued behind it go on without the lease, one at a time, each with a warning.
 */
export const makeLeased = (lease: Lease): Exclusive => {
  const local = makeLocalMutex()
  const term = Duration.decode(lease.term ?? defaultTerm)
  let failures = 0

  /** Waits until the lease is taken; false if the store failed. Only the waiting can be interrupted. */
  const take = (key: string, owner: string, restore: Restore): Effect.Effect<boolean> => {
    const attempt = (pause: number): Effect.Effect<boolean> =>
      Effect.flatMap(send(() => lease.take(key, owner, term)), (sent) => {
        // the store may have given the lease, or may still give it, to a caller that has left
        const giveBack = Effect.zipRight(Fiber.await(sent), send(() => lease.release(key, owner)))
        return pipe(
          withPolitePause(restore(response(sent)), pause),
          Effect.onInterrupt(() => Effect.forkDaemon(giveBack)),
          Effect.flatMap(([isTaken, polite]) =>
            Option.match(isTaken, {
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
                  : Effect.zipRight(restore(sleepAbout(polite)), attempt(Math.min(2 * pause, longestPause)))
            })
          )
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
      Effect.zipRight(warn("the lease ended while its holder still used it"))
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
            const owner = randomName()
            const isTaken = failures === before
              ? yield* take(key, owner, restore)
              : yield* Effect.as(warn("it did not respond to the previous caller"), false)
            return yield* (isTaken ? hold(key, owner, restore(effect)) : restore(effect))
          })
        ),
        local(key)
      )
    })
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

type Sent<A> = Fiber.Fiber<Either.Either<A, string>>

/** Runs a step on the store to its end, even if its caller leaves: a sent command cannot be taken back. */
const send = <A>(step: () => Effect.Effect<A, string>): Effect.Effect<Sent<A>> =>
  pipe(
    Effect.suspend(step),
    // only our own words are logged: a defect's may hold anything
    Effect.catchAllDefect(() => Effect.fail("a defect")),
    Effect.either,
    Effect.uninterruptible,
    Effect.forkDaemon
  )

/** The response of the store; `None`, after a warning, if it fails or takes too long. */
const response = <A>(sent: Sent<A>): Effect.Effect<Option.Option<A>> =>
  pipe(
    Effect.flatten(Fiber.join(sent)),
    hardTimeout(patience, () => `no response within ${Duration.format(patience)}`),
    Effect.asSome,
    Effect.catchAll((description) => Effect.as(warn(description), Option.none()))
  )

/** Runs a step and waits for its response. Nothing interrupts the waiting. */
const ask = <A>(step: () => Effect.Effect<A, string>): Effect.Effect<Option.Option<A>> =>
  pipe(
    send(step),
    // an interruption reaches the children of a fiber that itself cannot be interrupted, so this runs as a daemon
    Effect.flatMap((sent) => Effect.forkDaemon(response(sent))),
    Effect.flatMap(Fiber.join),
    Effect.uninterruptible
  )

const warn = (description: string): Effect.Effect<void> => degradedStorage("TokenStorage", "exclusive", description)
