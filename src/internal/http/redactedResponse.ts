/**
 * A response as it may be shown. A response and its errors hold the request as it was sent, and `JSON.stringify` and
 * `inspect` print a request's headers: here the token is redacted in both, and in headers that echo it.
 */
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as HttpIncomingMessage from "@effect/platform/HttpIncomingMessage"
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as Stream from "effect/Stream"
import { redact } from "../endpoint/redact.ts"
import { type Concealed, concealRequest, makeConceal } from "./conceal.ts"

/** No private fields, so that it works behind a `Proxy` and under `Object.create`. */
export class RedactedResponse implements HttpClientResponse.HttpClientResponse {
  /** A function, so that nothing prints what stands behind it. */
  readonly original: () => HttpClientResponse.HttpClientResponse
  readonly concealed: Concealed

  constructor(original: HttpClientResponse.HttpClientResponse, concealed: Concealed) {
    this.original = () => original
    this.concealed = concealed
  }
  get [HttpClientResponse.TypeId](): HttpClientResponse.TypeId {
    return HttpClientResponse.TypeId
  }
  get [HttpIncomingMessage.TypeId](): HttpIncomingMessage.TypeId {
    return HttpIncomingMessage.TypeId
  }
  get request() {
    return concealRequest(this.original().request, this.concealed.headers)
  }
  get status() {
    return this.original().status
  }
  get headers() {
    return this.original().headers
  }
  get cookies() {
    return this.original().cookies
  }
  get remoteAddress() {
    return this.original().remoteAddress
  }
  get text() {
    return Effect.mapError(this.original().text, concealIn(this.concealed))
  }
  get json() {
    return Effect.mapError(this.original().json, concealIn(this.concealed))
  }
  get urlParamsBody() {
    return Effect.mapError(this.original().urlParamsBody, concealIn(this.concealed))
  }
  get formData() {
    return Effect.mapError(this.original().formData, concealIn(this.concealed))
  }
  get arrayBuffer() {
    return Effect.mapError(this.original().arrayBuffer, concealIn(this.concealed))
  }
  get stream() {
    return Stream.mapError(this.original().stream, concealIn(this.concealed))
  }
  toJSON(): unknown {
    const secrets = this.concealed.secrets()
    const headers = Object.fromEntries(
      Object.entries(this.headers).map(([name, value]) => [name, redact(String(value), secrets)])
    )
    return Object.assign({}, this.original().toJSON(), { request: this.request.toJSON(), headers })
  }
  toString(): string {
    return Inspectable.format(this.toJSON())
  }
  [Inspectable.NodeInspectSymbol](): unknown {
    return this.toJSON()
  }
}

/** Conceals the errors of requests that carry these secrets. */
export const concealIn = (concealed: Concealed): <A>(value: A) => A =>
  makeConceal(
    concealed,
    (response) => response instanceof RedactedResponse ? response : new RedactedResponse(response, concealed)
  )
