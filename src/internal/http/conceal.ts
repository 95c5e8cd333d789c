/**
 * What a client below fails with, as it may be shown: without the header that carries the token, and without the token
 * wherever else it stands. An error that holds neither stays the very same error.
 */
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { isTokenError } from "../../TokenError.ts"
import { makeRedact } from "../endpoint/redact.ts"

/** The headers of a request that hold a secret, and the secrets that a response may echo. */
export interface Concealed {
  readonly headers: ReadonlyArray<string>
  readonly secrets: () => ReadonlyArray<string>
}

/** How many objects of an error are searched. What lies beyond is left out of the error. */
const maxObjects = 1_000

/** How many members all of them may have together. What lies beyond is left out. */
const maxMembers = 4_000

/** How many characters of text are searched. What lies beyond is not shown. */
const maxText = 128 * 1024

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

/** An object that was searched. */
interface Searched {
  readonly members: Members
  /** Whether it is or leads to a secret, or to what was not searched. */
  isTainted: boolean
  readonly parents: Array<Searched>
}

/** The value itself if nothing in it has to be concealed, else a copy of the same class. */
export const makeConceal = (
  concealed: Concealed,
  showResponse: (response: HttpClientResponse.HttpClientResponse) => HttpClientResponse.HttpClientResponse
) => {
  /** Redacts texts until there are too many of them. */
  const makeText = (): (value: string) => string => {
    const redact = makeRedact(concealed.secrets())
    const known = new Map<string, string>()
    let left = maxText
    return (value) => {
      const before = known.get(value)
      if (before !== undefined) return before
      left -= value.length
      const shown = left < 0 ? "<redacted>" : redact(value)
      known.set(value, shown)
      return shown
    }
  }

  /** Whether an object is or shows a secret, whatever it refers to. */
  const isSecret = (value: object, members: Members, text: (value: string) => string): boolean => {
    if (isRequest(value)) return concealed.headers.some((name) => value.headers[name] !== undefined)
    if (isResponse(value)) return showResponse(value) !== value
    if (isBytes(value)) return value.byteLength > maxBytes || text(latin1(value)) !== latin1(value)
    return !members.isWhole || members.values.some((member) => typeof member === "string" && text(member) !== member)
  }

  const search = (root: object, text: (value: string) => string): ReadonlyMap<object, Searched> => {
    const found = new Map<object, Searched>()
    const tainted: Array<Searched> = []
    let left = maxMembers
    const visit = (value: object): Searched => {
      const members = isLeaf(value) ? none : membersOf(value, left)
      left -= members.values.length
      const searched: Searched = { members, isTainted: false, parents: [] }
      found.set(value, searched)
      if (isSecret(value, members, text)) tainted.push(searched)
      return searched
    }
    visit(root)
    for (const searched of found.values()) {
      for (const child of searched.members.values.filter(isSearched)) {
        const known = found.get(child) ?? (found.size < maxObjects ? visit(child) : undefined)
        if (known === undefined) tainted.push(searched)
        else known.parents.push(searched)
      }
    }
    for (let searched = tainted.pop(); searched !== undefined; searched = tainted.pop()) {
      if (searched.isTainted) continue
      searched.isTainted = true
      tainted.push(...searched.parents)
    }
    return found
  }

  const conceal = (root: object): unknown => {
    const text = makeText()
    const found = search(root, text)
    const copies = new Map<object, unknown>()
    const copy = (value: unknown): unknown => {
      if (typeof value === "string") return text(value)
      if (!isSearched(value)) return value
      const searched = found.get(value)
      if (searched?.isTainted !== true) return searched === undefined ? undefined : value
      if (isRequest(value)) return concealRequest(value, concealed.headers)
      if (isResponse(value)) return showResponse(value)
      if (copies.has(value)) return copies.get(value)
      if (HttpClientError.isHttpClientError(value)) {
        copies.set(value, undefined)
        return copyHttpError(value, text, copy)
      }
      if (!(value instanceof Error) && !isPlain(value)) return "<redacted>"
      const shell: object = Array.isArray(value) ? [] : Object.create(Object.getPrototypeOf(value))
      copies.set(value, shell)
      for (const [name, member] of searched.members.data) {
        const enumerable = Object.getOwnPropertyDescriptor(value, name)?.enumerable === true
        const shown = copy(member)
        Object.defineProperty(shell, name, {
          value: shown,
          enumerable,
          configurable: name !== "length",
          writable: true
        })
      }
      return shell
    }
    return copy(root)
  }

  const copyHttpError = (
    error: HttpClientError.HttpClientError,
    text: (value: string) => string,
    copy: (value: unknown) => unknown
  ): HttpClientError.HttpClientError => {
    const why = {
      request: concealRequest(error.request, concealed.headers),
      ...(error.cause === undefined ? {} : { cause: copy(error.cause) }),
      ...(error.description === undefined ? {} : { description: text(error.description) })
    }
    return error._tag === "RequestError"
      ? new HttpClientError.RequestError({ ...why, reason: error.reason })
      : new HttpClientError.ResponseError({ ...why, reason: error.reason, response: showResponse(error.response) })
  }

  const concealValue = (value: unknown): unknown =>
    isSearched(value) ? conceal(value) : typeof value === "string" ? makeText()(value) : value

  // what is concealed keeps its type: a request stays a request, an error one of its class
  return <A>(value: A): A => Option.getOrElse(Option.liftThrowable(concealValue)(value), unreadable) as A
}

/** In place of a value that throws when it is looked at. */
const unreadable = (): Error => new Error("<redacted>")

/** The members of an object that a debugger shows; an error has its stack, a collection what it contains. */
interface Members {
  readonly data: ReadonlyMap<PropertyKey, unknown>
  readonly values: ReadonlyArray<unknown>
  /** Whether these are all members that it has. What an accessor returns is not known. */
  readonly isWhole: boolean
}

const none: Members = { data: new Map(), values: [], isWhole: true }

const membersOf = (value: object, limit: number): Members => {
  const names = Array.isArray(value) && value.length > limit
    ? Array.from({ length: limit }, (_, index) => index)
    : Reflect.ownKeys(value)
  const data = new Map<PropertyKey, unknown>()
  let hasAccessor = false
  for (const name of names.slice(0, limit)) {
    const member = Object.getOwnPropertyDescriptor(value, name)
    if (member !== undefined && "value" in member) data.set(name, member.value)
    else if (name === "stack" && value instanceof Error) data.set(name, value.stack)
    else hasAccessor = true
  }
  const values = Array.from(data.values())
  const size = value instanceof Map || value instanceof Set ? value.size : 0
  const isWhole = !hasAccessor && (Array.isArray(value) ? value.length : names.length) + size <= limit
  if (isWhole && value instanceof Map) values.push(...value.keys(), ...value.values())
  if (isWhole && value instanceof Set) values.push(...value)
  return { data, values, isWhole }
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
