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

/** How many objects of an error are searched. What lies beyond is left out of the error. */
const maxObjects = 1_000

/** Longer bytes are not shown. */
const maxBytes = 64 * 1024

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

/** The value itself if nothing in it has to be concealed, else a copy of the same class. */
export const makeConceal = (
  concealed: Concealed,
  showResponse: (response: HttpClientResponse.HttpClientResponse) => HttpClientResponse.HttpClientResponse
) => {
  const text = (value: string): string => redact(value, concealed.secrets())

  /** Whether an object is or shows a secret, whatever it refers to. */
  const isSecret = (value: object): boolean =>
    isRequest(value)
      ? concealed.headers.some((name) => value.headers[name] !== undefined)
      : isResponse(value)
      ? showResponse(value) !== value
      : isBytes(value)
      ? value.byteLength > maxBytes || text(latin1(value)) !== latin1(value)
      : membersOf(value).some((member) => typeof member === "string" && text(member) !== member)

  /** All objects that were searched, each with whether it leads to a secret. */
  const search = (root: object): ReadonlyMap<object, boolean> => {
    const found = new Map<object, boolean>([[root, false]])
    const parents = new Map<object, Array<object>>()
    const tainted: Array<object> = []
    for (const value of found.keys()) {
      const children = isLeaf(value) ? [] : membersOf(value).filter(isSearched)
      for (const child of children) {
        if (found.size < maxObjects) found.set(child, found.get(child) ?? false)
        if (found.has(child)) parents.set(child, [...parents.get(child) ?? [], value])
      }
      if (isSecret(value) || children.some((child) => !found.has(child))) tainted.push(value)
    }
    for (let value = tainted.pop(); value !== undefined; value = tainted.pop()) {
      if (found.get(value) === true) continue
      found.set(value, true)
      tainted.push(...parents.get(value) ?? [])
    }
    return found
  }

  const copy = (value: unknown, found: ReadonlyMap<object, boolean>, copies: Map<object, unknown>): unknown => {
    if (typeof value === "string") return text(value)
    if (!isSearched(value)) return value
    const isTainted = found.get(value)
    if (isTainted !== true) return isTainted === undefined ? undefined : value
    if (isRequest(value)) return concealRequest(value, concealed.headers)
    if (isResponse(value)) return showResponse(value)
    if (copies.has(value)) return copies.get(value)
    if (HttpClientError.isHttpClientError(value)) {
      copies.set(value, undefined)
      return copyHttpError(value, (cause) => copy(cause, found, copies))
    }
    if (!(value instanceof Error) && !isPlain(value)) return "<redacted>"
    const shell: object = Array.isArray(value) ? [] : Object.create(Object.getPrototypeOf(value))
    copies.set(value, shell)
    for (const [name, member] of dataOf(value)) {
      const enumerable = Object.getOwnPropertyDescriptor(value, name)?.enumerable === true
      const shown = copy(member, found, copies)
      Object.defineProperty(shell, name, { value: shown, enumerable, configurable: name !== "length", writable: true })
    }
    return shell
  }

  const copyHttpError = (
    error: HttpClientError.HttpClientError,
    conceal: (cause: unknown) => unknown
  ): HttpClientError.HttpClientError => {
    const why = {
      request: concealRequest(error.request, concealed.headers),
      ...(error.cause === undefined ? {} : { cause: conceal(error.cause) }),
      ...(error.description === undefined ? {} : { description: text(error.description) })
    }
    return error._tag === "RequestError"
      ? new HttpClientError.RequestError({ ...why, reason: error.reason })
      : new HttpClientError.ResponseError({ ...why, reason: error.reason, response: showResponse(error.response) })
  }

  // what is concealed keeps its type: a request stays a request, an error one of its class
  return <A>(value: A): A =>
    (isSearched(value) ? copy(value, search(value), new Map()) : typeof value === "string" ? text(value) : value) as A
}

/** The members of an object that a debugger shows; an error has its stack, a collection what it contains. */
const membersOf = (value: object): ReadonlyArray<unknown> => {
  const members = Array.from(dataOf(value).values())
  if (value instanceof Map) members.push(...value.keys(), ...value.values())
  if (value instanceof Set) members.push(...value)
  return members
}

const dataOf = (value: object): ReadonlyMap<PropertyKey, unknown> => {
  const members = new Map<PropertyKey, unknown>()
  for (const name of Reflect.ownKeys(value)) {
    const member = Object.getOwnPropertyDescriptor(value, name)
    if (member !== undefined && "value" in member) members.set(name, member.value)
    else if (name === "stack" && value instanceof Error) members.set(name, value.stack)
  }
  return members
}

/** Ours hold no secret, and what is `Redacted` shows none. */
const isSearched = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Redacted.isRedacted(value) && !isTokenError(value)

/** What is judged as a whole. */
const isLeaf = (value: object): boolean => isRequest(value) || isResponse(value) || isBytes(value)

const isRequest = (value: object): value is HttpClientRequest.HttpClientRequest => HttpClientRequest.TypeId in value

const isResponse = (value: object): value is HttpClientResponse.HttpClientResponse => HttpClientResponse.TypeId in value

const isBytes = (value: object): value is ArrayBufferView | ArrayBuffer =>
  ArrayBuffer.isView(value) || value instanceof ArrayBuffer

const latin1 = (bytes: ArrayBufferView | ArrayBuffer): string => new TextDecoder("latin1").decode(bytes)

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return Array.isArray(value) || prototype === Object.prototype || prototype === null || "_tag" in value
}
