/** The guard in front of a storage: it decides what a failure of the storage means. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import type { AccessToken } from "../../AccessToken.ts"
import { type Storage, TokenStorageError } from "../../TokenStorage.ts"
import { countFailure, degradedStorage } from "../log.ts"
import { hardTimeout } from "../timeout.ts"

/** A storage that has not responded by then counts as down. */
const timeout = Duration.seconds(1)

/**
 * One key of a storage, for one flight. A storage failure never fails the flight: it is a warning (the first of each
 * operation), a metric and a miss. After the storage has hung once, the flight does not use it again.
 */
export const guard = (storage: Storage, key: string) => {
  let isDown = false
  const warned = new Set<TokenStorageError["operation"]>()

  const failed = (operation: TokenStorageError["operation"], cause: Cause.Cause<unknown>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (warned.has(operation)) return countFailure
      warned.add(operation)
      return degradedStorage("TokenService", operation, describe(cause))
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
          return new TokenStorageError({ operation, description: "no response within 1 second" })
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

    /** The storage may fail before the effect or after it: the exit of the effect is what counts. */
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

/** Only our own words are logged: those of a defect may contain a secret. */
const describe = (cause: Cause.Cause<unknown>): string => {
  const error = Option.getOrUndefined(Cause.failureOption(cause))
  return error instanceof TokenStorageError ? error.description : "a defect"
}

export type GuardedStorage = ReturnType<typeof guard>
