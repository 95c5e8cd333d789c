import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Inspectable from "effect/Inspectable"
import { isTokenError, type TokenError } from "../TokenError.ts"
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
        // a web response cannot have every status
        response: derive(HttpClientResponse.fromWeb(request, new Response(error.body)), request, error.status),
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
      return new HttpClientError.RequestError({
        request: HttpClientRequest.make(request.method)(withoutQuery(request.url)),
        reason: "Encode",
        cause: error,
        description
      })
  }
}

/** An error of the transport as it may be shown: `JSON.stringify` prints a request's headers, and so the token. */
export const withoutToken = <E>(error: E): E => {
  if (!HttpClientError.isHttpClientError(error) || isTokenError(error.cause)) return error
  const request = concealed(error.request)
  const why = {
    ...(error.cause === undefined ? {} : { cause: error.cause }),
    ...(error.description === undefined ? {} : { description: error.description })
  }
  const shown: HttpClientError.HttpClientError = error._tag === "RequestError"
    ? new HttpClientError.RequestError({ request, reason: error.reason, ...why })
    : new HttpClientError.ResponseError({
      request,
      response: responseWithoutToken(error.response),
      reason: error.reason,
      ...why
    })
  // the same error, of the same class
  return shown as typeof error
}

/** An answer as it may be shown. */
export const responseWithoutToken = (
  response: HttpClientResponse.HttpClientResponse
): HttpClientResponse.HttpClientResponse => derive(response, concealed(response.request), response.status)

const concealed = HttpClientRequest.setHeader("authorization", "<redacted>")

/** An answer with another request or status, and its body. */
const derive = (
  response: HttpClientResponse.HttpClientResponse,
  request: HttpClientRequest.HttpClientRequest,
  status: number
): HttpClientResponse.HttpClientResponse => {
  const toJSON = () => Object.assign({}, response.toJSON(), { request: request.toJSON(), status })
  return Object.create(response, {
    request: { value: request },
    status: { value: status },
    toJSON: { value: toJSON },
    [Inspectable.NodeInspectSymbol]: { value: toJSON }
  })
}
