/** The errors of a client: token errors where its error type has no place for them, and the response in an error. */
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import { isTokenError, type TokenError } from "../../TokenError.ts"
import { withoutQuery } from "./origins.ts"

/** What a client whose error type has no place for a `TokenError` fails with instead. */
export const toHttpClientError = (
  error: TokenError,
  request: HttpClientRequest.HttpClientRequest
): HttpClientError.HttpClientError => {
  const description = error.message
  switch (error._tag) {
    case "TokenRequestError":
      return new HttpClientError.RequestError({
        request: HttpClientRequest.post(error.endpoint),
        reason: "Transport",
        cause: error,
        description
      })
    case "TokenErrorResponse": {
      const request = HttpClientRequest.post(error.endpoint)
      return new HttpClientError.ResponseError({
        request,
        response: toResponse(request, error.status, error.body),
        reason: "StatusCode",
        cause: error,
        description
      })
    }
    case "InvalidTokenResponse": {
      const request = HttpClientRequest.post(error.endpoint)
      return new HttpClientError.ResponseError({
        request,
        response: HttpClientResponse.fromWeb(request, new Response()),
        reason: "Decode",
        cause: error,
        description
      })
    }
    case "DiscoveryError":
      return error.reason === "Transport"
        ? new HttpClientError.RequestError({
          request: shownRequest(request),
          reason: "Transport",
          cause: error,
          description
        })
        : final(error, request, 404)
    // a client above that retries what is transient must not open another window
    case "AuthorizationError":
    case "LayerClosed":
      return final(error, request, 401)
  }
}

/** A failure that no attempt changes. */
const final = (
  error: TokenError,
  request: HttpClientRequest.HttpClientRequest,
  status: number
): HttpClientError.HttpClientError => {
  const shown = shownRequest(request)
  return new HttpClientError.ResponseError({
    request: shown,
    response: toResponse(shown, status, ""),
    reason: "StatusCode",
    cause: error,
    description: error.message
  })
}

const shownRequest = (request: HttpClientRequest.HttpClientRequest): HttpClientRequest.HttpClientRequest =>
  HttpClientRequest.make(request.method)(withoutQuery(request.url))

/** A web response of any status; its constructor does not take all of them. */
const toResponse = (
  request: HttpClientRequest.HttpClientRequest,
  status: number,
  body: string
): HttpClientResponse.HttpClientResponse =>
  Object.create(HttpClientResponse.fromWeb(request, new Response(body)), { status: { value: status } })

/** The response in the error of a client that turns statuses into errors; not that of a token endpoint. */
export const responseIn = (cause: Cause.Cause<unknown>): HttpClientResponse.HttpClientResponse | undefined => {
  const error = Option.getOrUndefined(Cause.failureOption(cause))
  return HttpClientError.isHttpClientError(error) && error._tag === "ResponseError" && error.reason === "StatusCode" &&
      !isTokenError(error.cause)
    ? error.response
    : undefined
}
