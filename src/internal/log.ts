/** How the library logs. */
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Metric from "effect/Metric"
import * as TokenMetrics from "../TokenMetrics.ts"

/** Marks the log lines of a module. */
export const inModule = (module: string) => Effect.annotateLogs({ package: "effect-alf", module })

/** Counts a failure of the token storage that was logged before. */
export const countFailure = Metric.increment(TokenMetrics.storageFailures)

/** Counts a failure of the token storage, and logs it for a module. The description must be safe to log. */
export const degradedStorage = (
  module: "TokenService" | "TokenStorage",
  operation: string,
  description: string
): Effect.Effect<void> =>
  pipe(
    Effect.logWarning(`The token storage failed at ${operation}: ${description}`),
    inModule(module),
    Effect.zipRight(countFailure)
  )
