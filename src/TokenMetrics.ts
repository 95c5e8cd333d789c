/**
 * What the library counts. Read them with Effect's `Metric`, or export them with the rest of a program's metrics.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Requests to the token endpoint, each attempt one. Tag `outcome`: `success`, or the `_tag` of the error.
 *
 * @since 0.1.0
 * @category metrics
 */
export const tokenRequests = Metric.counter("alf_token_requests", {
  description: "Requests to the token endpoint",
  incremental: true
})

/**
 * How long an attempt at the token endpoint took, in milliseconds.
 *
 * @since 0.1.0
 * @category metrics
 */
export const tokenRequestDuration = Metric.timer("alf_token_request_duration", "Duration of a token request")

/**
 * Times a new token was needed. Tag `reason`: `absent` (none, or it had expired), `expiring` (renewed ahead of its
 * end), `rejected` (the API refused it).
 *
 * @since 0.1.0
 * @category metrics
 */
export const tokenRefreshes = Metric.counter("alf_token_refreshes", {
  description: "Times a new token was needed",
  incremental: true
})

/**
 * Requests sent a second time after a 401. Tag `outcome`: `accepted`, `refused` (401 again), `failed` (no response).
 *
 * @since 0.1.0
 * @category metrics
 */
export const replays = Metric.counter("alf_replays", {
  description: "Requests sent again after a 401",
  incremental: true
})

/**
 * Times the token storage failed, hung or held something that is not a token.
 *
 * @since 0.1.0
 * @category metrics
 */
export const storageFailures = Metric.counter("alf_storage_failures", {
  description: "Failures of the token storage",
  incremental: true
})
