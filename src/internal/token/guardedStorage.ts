import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { pipe } from "effect/Function"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type { AccessToken } from "../../AccessToken.ts"
import * as TokenMetrics from "../../TokenMetrics.ts"
import { type Storage, TokenStorageError } from "../../TokenStorage.ts"
import { inModule } from "../log.ts"
import { hardTimeout } from "../timeout.ts"

/** A storage that has not answered by then counts as down. */
const timeout = Duration.seconds(1)

/**
 * One key of a storage, for one flight. Whatever the storage does, the program goes on: a failure is a warning
 * (the first of each operation), a metric and a miss. After it has hung once, it is left alone.
 */
export const guard = (storage: Storage, key: string) => {
  let isDown = false
  const warned = new Set<TokenStorageError["operation"]>()

  const failed = (operation: TokenStorageError["operation"], cause: Cause.Cause<unknown>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (warned.has(operation)) return countFailure
      warned.add(operation)
      return degraded(operation, cause)
    })

  const attempt = <A>(
    operation: TokenStorageError["operation"],
    run: () => Effect.Effect<A, TokenStorageError>,
    fallback: A
  ): Effect.Effect<A> =>
    Effect.suspend(() =>
      isDown ? Effect.succeed(fallback) : pipe(
        Effect.suspend(run),
        hardTimeout(timeout, () => {
          isDown = true
          return new TokenStorageError({ operation, description: "no answer within 1 second" })
        }),
        Effect.catchAllCause((cause) =>
          Effect.as(Cause.isInterruptedOnly(cause) ? Effect.void : failed(operation, cause), fallback)
        )
      )
    )

  return {
    get: attempt("get", () => storage.get(key), Option.none()),
    set: (token: AccessToken) => attempt("set", () => storage.set(key, token), undefined),
    remove: (token: AccessToken) => attempt("remove", () => storage.remove(key, token), undefined),

    /** The storage may fail before the effect, or after it: what the effect ended in is what counts. */
    exclusive: <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.suspend(() => {
        if (isDown) return effect
        let outcome: Exit.Exit<A, E> | undefined
        const observed = Effect.onExit(effect, (exit) =>
          Effect.sync(() => {
            outcome = exit
          }))
        return Effect.flatMap(
          Effect.exit(Effect.suspend(() => storage.exclusive(key)(observed))),
          (exit) =>
            outcome !== undefined && !Exit.isInterrupted(outcome)
              ? outcome
              : Exit.isSuccess(exit)
              ? exit
              : Effect.zipRight(failed("exclusive", exit.cause), effect)
        )
      })
  }
}

const countFailure = Metric.increment(TokenMetrics.storageFailures)

/** Only our own words are logged: a defect's may hold anything. */
export const degraded = (
  operation: TokenStorageError["operation"],
  cause: Cause.Cause<unknown>
): Effect.Effect<void> =>
  pipe(
    Effect.logWarning(
      Option.match(Option.filter(Cause.failureOption(cause), (error) => error instanceof TokenStorageError), {
        onNone: () => `The token storage failed at ${operation}: a defect`,
        onSome: (error) => error.message
      })
    ),
    Effect.zipRight(countFailure),
    inModule("TokenService")
  )

export type GuardedStorage = ReturnType<typeof guard>
