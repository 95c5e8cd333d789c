/** What is logged once per origin: requests that go without a token, and 401s to them. */
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import { inModule } from "../log.ts"
import { responseIn } from "./httpClientError.ts"
import { originIn } from "./origins.ts"

type Request = HttpClientRequest.HttpClientRequest
type Response = HttpClientResponse.HttpClientResponse

export interface Notes {
  readonly passThrough: <E, R>(
    request: Request,
    sent: Effect.Effect<Response, E, R>
  ) => Effect.Effect<Response, E, R>
}

/** More origins than this are not told apart in the log. */
const maxNoted = 100

/** Tells, once per origin, of requests that go without a token: what is missing may be an origin in the list. */
export const makeNotes = (origins: ReadonlyArray<string | URL> | "any"): Notes => {
  // made when they are needed: most clients send nothing to other origins
  let passed: Set<string> | undefined
  let refused: Set<string> | undefined
  const once = (seen: Set<string>, origin: string, log: Effect.Effect<void>) => {
    if (seen.has(origin) || seen.size >= maxNoted) return Effect.void
    seen.add(origin)
    return inModule("AuthorizedHttpClient")(log)
  }
  const warn = (origin: string) =>
    Effect.suspend(() =>
      once(
        refused ??= new Set(),
        origin,
        Effect.logWarning(
          `${origin} answered 401 to a request without a token: it is not in origins (${String(origins)}). ` +
            "Add it if it is your API"
        )
      )
    )
  return {
    passThrough: (request, sent) => {
      const origin = originIn(request.url)
      return pipe(
        once(passed ??= new Set(), origin, Effect.logDebug("requests to this origin go without a token", { origin })),
        Effect.zipRight(sent),
        Effect.tap((response) => response.status === 401 ? warn(origin) : Effect.void),
        Effect.tapErrorCause((cause) => responseIn(cause)?.status === 401 ? warn(origin) : Effect.void)
      )
    }
  }
}
