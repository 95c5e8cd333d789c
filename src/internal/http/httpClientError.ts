import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import type { TokenError } from "../../TokenError.ts"
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
    case "AuthorizationError":
    case "DiscoveryError":
    case "LayerClosed":
      return new HttpClientError.RequestError({
        request: HttpClientRequest.make(request.method)(withoutQuery(request.url)),
        reason: "Transport",
        cause: error,
        description
      })
  }
}

/** A web response of any status; its constructor does not take all of them. */
const toResponse = (
  request: HttpClientRequest.HttpClientRequest,
  status: number,
  body: string
): HttpClientResponse.HttpClientResponse =>
  Object.create(HttpClientResponse.fromWeb(request, new Response(body)), { status: { value: status } })
