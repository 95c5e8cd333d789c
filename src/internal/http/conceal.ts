/**
 * What a client below fails with, as it may be shown: without the header that carries the token, and without the token
 * wherever else it stands. An error that holds neither stays the very same error.
 */
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Redacted from "effect/Redacted"
import { isTokenError } from "../../TokenError.ts"
import { redact } from "../endpoint/redact.ts"

/** The headers of a request that hold a secret, and the secrets that a response may echo. */
export interface Concealed {
  readonly headers: ReadonlyArray<string>
  readonly secrets: () => ReadonlyArray<string>
}

/** Errors are searched this deep; what lies deeper is left out of an error that has to be changed. */
const maxDepth = 8

export const concealRequest = (
  request: HttpClientRequest.HttpClientRequest,
  headers: ReadonlyArray<string>
): HttpClientRequest.HttpClientRequest => {
  let concealed = request
  for (const name of headers) {
    if (request.headers[name] !== undefined) {
      concealed = HttpClientRequest.setHeader(concealed, name, "<redacted>")
    }
  }
  return concealed
}

/** Every error and every defect of a cause, concealed. */
export const concealCause = <E>(
  cause: Cause.Cause<E>,
  conceal: <A>(value: A) => A
): Cause.Cause<E> =>
  Cause.match(cause, {
    onEmpty: Cause.empty as Cause.Cause<E>,
    onFail: (error) => Cause.fail(conceal(error)),
    onDie: (defect) => Cause.die(conceal(defect)),
    onInterrupt: (fiberId): Cause.Cause<E> => Cause.interrupt(fiberId),
    onSequential: (left, right) => Cause.sequential(left, right),
    onParallel: (left, right) => Cause.parallel(left, right)
  })

export const makeConceal = (
  concealed: Concealed,
  showResponse: (response: HttpClientResponse.HttpClientResponse) => HttpClientResponse.HttpClientResponse
) => {
  const text = (value: string): string => redact(value, concealed.secrets())

  /** The value itself if nothing in it has to be concealed; `undefined` stands for what lies too deep to be searched. */
  const visit = (value: unknown, depth: number, seen: Map<object, unknown>): unknown => {
    if (typeof value === "string") return text(value)
    if (typeof value !== "object" || value === null || Redacted.isRedacted(value)) return value
    if (isRequest(value)) return concealRequest(value, concealed.headers)
    if (isResponse(value)) return showResponse(value)
    if (isTokenError(value)) return value
    if (ArrayBuffer.isView(value)) return visitBytes(value)
    if (seen.has(value)) return seen.get(value)
    if (depth > maxDepth) return undefined
    if (HttpClientError.isHttpClientError(value)) return visitHttpError(value, depth, seen)
    return value instanceof Error || isPlain(value) ? visitMembers(value, depth, seen) : value
  }

  const visitBytes = (value: ArrayBufferView): unknown => {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    const shown = new TextDecoder("latin1").decode(bytes.subarray(0, 64 * 1024))
    return text(shown) === shown ? value : "<redacted>"
  }

  const visitHttpError = (error: HttpClientError.HttpClientError, depth: number, seen: Map<object, unknown>) => {
    if (isTokenError(error.cause)) return error
    seen.set(error, undefined)
    const why = {
      request: concealRequest(error.request, concealed.headers),
      ...(error.cause === undefined ? {} : { cause: visit(error.cause, depth + 1, seen) }),
      ...(error.description === undefined ? {} : { description: text(error.description) })
    }
    return error._tag === "RequestError"
      ? new HttpClientError.RequestError({ ...why, reason: error.reason })
      : new HttpClientError.ResponseError({ ...why, reason: error.reason, response: showResponse(error.response) })
  }

  /** A copy of the same class, if a member has to be concealed. */
  const visitMembers = (value: object, depth: number, seen: Map<object, unknown>): unknown => {
    seen.set(value, value)
    const changed = new Map<PropertyKey, unknown>()
    for (const name of Reflect.ownKeys(value)) {
      const member = Object.getOwnPropertyDescriptor(value, name)
      if (member === undefined || !("value" in member)) continue
      const shown = visit(member.value, depth + 1, seen)
      if (shown !== member.value) changed.set(name, shown)
    }
    if (changed.size === 0) return value
    const copy: object = Object.create(Object.getPrototypeOf(value), Object.getOwnPropertyDescriptors(value))
    for (const [name, shown] of changed) {
      const { enumerable = true } = Object.getOwnPropertyDescriptor(value, name) ?? {}
      Object.defineProperty(copy, name, { value: shown, enumerable, configurable: true, writable: true })
    }
    return copy
  }

  // what is concealed keeps its type: a request stays a request, an error one of its class
  return <A>(value: A): A => visit(value, 0, new Map()) as A
}

const isRequest = (value: object): value is HttpClientRequest.HttpClientRequest => HttpClientRequest.TypeId in value

const isResponse = (value: object): value is HttpClientResponse.HttpClientResponse => HttpClientResponse.TypeId in value

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return Array.isArray(value) || prototype === Object.prototype || prototype === null || "_tag" in value
}
