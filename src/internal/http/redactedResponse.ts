import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as HttpIncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as Stream from "effect/Stream"
import { isTokenError } from "../../TokenError.ts"

const conceal = HttpClientRequest.setHeader("authorization", "<redacted>")

/**
 * An answer as it may be shown. An answer and its errors hold the request as it was sent, and `JSON.stringify` and
 * `inspect` print a request's headers: here the token is struck out of both.
 */
export class Answer implements HttpClientResponse.HttpClientResponse {
  readonly [HttpClientResponse.TypeId]: HttpClientResponse.TypeId = HttpClientResponse.TypeId
  readonly [HttpIncomingMessage.TypeId]: HttpIncomingMessage.TypeId = HttpIncomingMessage.TypeId
  readonly #original: HttpClientResponse.HttpClientResponse

  constructor(original: HttpClientResponse.HttpClientResponse) {
    this.#original = original
  }
  get request() {
    return conceal(this.#original.request)
  }
  get status() {
    return this.#original.status
  }
  get headers() {
    return this.#original.headers
  }
  get cookies() {
    return this.#original.cookies
  }
  get remoteAddress() {
    return this.#original.remoteAddress
  }
  get text() {
    return Effect.mapError(this.#original.text, withoutToken)
  }
  get json() {
    return Effect.mapError(this.#original.json, withoutToken)
  }
  get urlParamsBody() {
    return Effect.mapError(this.#original.urlParamsBody, withoutToken)
  }
  get formData() {
    return Effect.mapError(this.#original.formData, withoutToken)
  }
  get arrayBuffer() {
    return Effect.mapError(this.#original.arrayBuffer, withoutToken)
  }
  get stream() {
    return Stream.mapError(this.#original.stream, withoutToken)
  }
  toJSON(): unknown {
    return Object.assign({}, this.#original.toJSON(), { request: this.request.toJSON() })
  }
  toString(): string {
    return Inspectable.format(this.toJSON())
  }
  [Inspectable.NodeInspectSymbol](): unknown {
    return this.toJSON()
  }
}

/** An error of the transport as it may be shown. */
export const withoutToken = <E>(error: E): E => {
  if (!HttpClientError.isHttpClientError(error) || isTokenError(error.cause)) return error
  const why = {
    request: conceal(error.request),
    ...(error.cause === undefined ? {} : { cause: error.cause }),
    ...(error.description === undefined ? {} : { description: error.description })
  }
  const shown: HttpClientError.HttpClientError = error._tag === "RequestError"
    ? new HttpClientError.RequestError({ ...why, reason: error.reason })
    : new HttpClientError.ResponseError({ ...why, reason: error.reason, response: new Answer(error.response) })
  // the same error, of the same class
  return shown as typeof error
}
