/** Reads a response of the authorization server, and finds the members or the error in it. No secret is part of an error. */
import type * as Headers from "@effect/platform/Headers"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { InvalidTokenResponse, TokenErrorResponse } from "../../TokenError.ts"
import { inflate, isCompressed } from "./inflate.ts"
import { isObject, type Members, parseMembers } from "./parseMembers.ts"
import { redact, tokenValues, truncate } from "./redact.ts"

/** No more of a response is read than this, in bytes. */
const maxResponse = 1024 * 1024

/** No more of a response is shown than this, in bytes. */
const maxShown = 4 * 1024

/** The longest pause that a server is believed to ask for, in seconds. */
const maxRetryAfter = 2 ** 31 - 1

export interface RawResponse {
  readonly status: number
  readonly headers: Headers.Headers
  readonly retryAfter: Duration.Duration | undefined
  /** Where a redirect leads, without query and fragment. */
  readonly location: string | undefined
  /** The server's clock, in milliseconds. */
  readonly date: number | undefined
  /** The response's text, or its beginning. */
  readonly text: string
  /** Whether there was more than 1 MiB. */
  readonly isCut: boolean
  /** The `Content-Encoding`, where it is the reason that the text cannot be read. */
  readonly encoding: string | undefined
}

/** Reads a response, up to 1 MiB; the rest is cut off. */
export const readTokenResponse = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<RawResponse, HttpClientError.ResponseError> =>
  Effect.gen(function*() {
    const { headers, status } = response
    const body = yield* readBody(response)
    const encoding = headers["content-encoding"]?.trim().toLowerCase()
    // fetch decodes, and leaves the header as it was: the first bytes tell
    const read = isCompressed(body.bytes, encoding)
      ? yield* inflate(body.bytes, encoding, maxResponse)
      : Option.some(body)
    const now = yield* Clock.currentTimeMillis
    const date = parseDate(headers["date"])
    const text = Option.match(read, { onNone: () => "", onSome: ({ bytes }) => new TextDecoder().decode(bytes) })
    const isUnreadable = Option.isNone(read) || text.slice(0, 1024).includes("\ufffd")
    return {
      status,
      headers,
      date,
      retryAfter: parseRetryAfter(headers["retry-after"], date ?? now),
      location: parseLocation(headers["location"], response.request.url),
      text,
      isCut: Option.exists(read, ({ isCut }) => isCut),
      encoding: isUnreadable && encoding !== undefined && /^[a-z0-9-]{1,40}$/.test(encoding) ? encoding : undefined
    }
  })

const readBody = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<{ readonly bytes: Uint8Array; readonly isCut: boolean }, HttpClientError.ResponseError> =>
  Effect.suspend(() => {
    const chunks: Array<Uint8Array> = []
    let failure: HttpClientError.ResponseError | undefined
    return pipe(
      // as values, since the runtime logs the error of a stream that fails, and the request with it
      Stream.either(response.stream),
      Stream.runFoldWhile(0, (size) => size <= maxResponse, (size, piece) => {
        if (Either.isLeft(piece)) {
          failure = piece.left
          return size
        }
        chunks.push(piece.right)
        return size + piece.right.length
      }),
      Effect.flatMap((size) => {
        if (failure !== undefined && failure.reason !== "EmptyBody") return Effect.fail(failure)
        const bytes = concat(chunks, size)
        // a body that broke off before it was read can come as an empty one
        if (size <= maxResponse && size < announced(response) && !isWhole(bytes)) {
          return Effect.fail(
            new HttpClientError.ResponseError({
              request: response.request,
              response,
              reason: "Decode",
              description: brokenConnection
            })
          )
        }
        return Effect.succeed({ bytes, isCut: size > maxResponse })
      })
    )
  })

const concat = (chunks: ReadonlyArray<Uint8Array>, size: number): Uint8Array => {
  const all = new Uint8Array(size)
  let offset = 0
  for (const chunk of chunks) {
    all.set(chunk, offset)
    offset += chunk.length
  }
  return all
}

export const brokenConnection = "the connection broke in the middle of the response"

/** How long the body has to be; 0 if nobody said, or if it was decoded on the way. */
const announced = ({ headers }: HttpClientResponse.HttpClientResponse): number =>
  headers["content-encoding"] === undefined ? Number(headers["content-length"] ?? 0) : 0

/** Across origins a browser shows `content-length` and hides `content-encoding`: what can be parsed is whole. */
const isWhole = (bytes: Uint8Array): boolean => Option.isSome(parseMembers(new TextDecoder().decode(bytes)))

export interface DecodeOptions {
  readonly endpoint: string
  readonly attempts: number
  /** What must not be shown. */
  readonly secrets: ReadonlyArray<string>
  readonly mapTokenResponse?: MapTokenResponse | undefined
  /** What to try after an error. */
  readonly hint?: ((status: number, error: string | undefined) => string | undefined) | undefined
}

export type MapTokenResponse = (members: Members) => Members

/** The members of a successful response, or the error that a response is. */
export const decodeMembers = (
  response: RawResponse,
  options: DecodeOptions
): Either.Either<Members, TokenErrorResponse | InvalidTokenResponse> => {
  const invalid = (issue: string) => Either.left(new InvalidTokenResponse({ endpoint: options.endpoint, issue }))
  const isSuccess = response.status >= 200 && response.status < 300
  const parsed = parseMembers(response.text)
  const mapped = mapMembers(parsed, options.mapTokenResponse)
  if (Either.isLeft(mapped)) return invalid(mapped.left)
  const members = mapped.right
  if (!isSuccess || Option.exists(members, isError)) {
    return Either.left(toErrorResponse(response, Option.getOrElse(members, () => ({})), options))
  }
  if (response.isCut) return invalid("it is longer than 1 MiB")
  return Either.fromOption(members, () =>
    new InvalidTokenResponse({
      endpoint: options.endpoint,
      issue: response.encoding === undefined
        ? "it is not a JSON object"
        : `it is not a JSON object, and its Content-Encoding is ${response.encoding}, which was not decoded`
    }))
}

const mapMembers = (
  members: Option.Option<Members>,
  map: MapTokenResponse | undefined
): Either.Either<Option.Option<Members>, string> => {
  if (map === undefined || Option.isNone(members)) return Either.right(members)
  return pipe(
    Option.liftThrowable(map)(members.value),
    Option.filter(isObject),
    Option.match({
      onNone: () => Either.left("mapTokenResponse threw, or returned something that is not an object"),
      onSome: (mapped) => Either.right(Option.some(mapped))
    })
  )
}

/** Some servers send an empty error beside a token. */
const isError = ({ access_token: token, error }: Members): boolean => {
  if (error === undefined || error === null) return false
  const isEmpty = error === "" || error === false || error === 0 || (isObject(error) && Object.keys(error).length === 0)
  return !isEmpty || typeof token !== "string" || token === ""
}

const toErrorResponse = (
  response: RawResponse,
  members: Members,
  { attempts, endpoint, hint, secrets }: DecodeOptions
): TokenErrorResponse => {
  // long enough to hold every token that could be shown in part
  const found = tokenValues(response.text.slice(0, 4 * maxShown))
  const hidden = found === undefined ? undefined : [...secrets, ...found]
  const shown = (text: string): string => {
    if (hidden === undefined) return "<redacted>"
    const beginning = truncate(text, maxShown)
    // what replaces a short secret is longer than the secret
    return truncate(redact(beginning, hidden, { isCut: beginning !== text }), maxShown)
  }
  const member = (name: string): string | undefined => {
    const value = members[name]
    return typeof value === "string" && value !== "" ? shown(value) : undefined
  }
  const code = members["error"]
  const error = isErrorCode(code) ? code : member("error")
  return new TokenErrorResponse({
    endpoint,
    attempts,
    status: response.status,
    error,
    errorDescription: member("error_description"),
    errorUri: member("error_uri"),
    retryAfter: response.retryAfter,
    body: shown(response.text),
    hint: Option.getOrUndefined(Option.map(redirectHint(response), shown)) ?? hint?.(response.status, error)
  })
}

const redirectHint = ({ location, status }: RawResponse): Option.Option<string> =>
  status >= 300 && status < 400 && location !== undefined
    ? Option.some(`It redirects to ${location}, which is not followed. Configure that URL if it is right`)
    : Option.none()

/** Registered codes are shown even where a short secret happens to be part of one. */
const isErrorCode = (u: unknown): u is string =>
  u === "invalid_request" || u === "invalid_client" || u === "invalid_grant" || u === "invalid_scope" ||
  u === "invalid_target" || u === "unauthorized_client" || u === "unsupported_grant_type" || u === "access_denied" ||
  u === "server_error" || u === "temporarily_unavailable" || u === "authorization_pending" || u === "slow_down" ||
  u === "expired_token" || u === "use_dpop_nonce" || u === "invalid_dpop_proof"

/** Seconds or a date (RFC 9110 §10.2.3). */
const parseRetryAfter = (value: string | undefined, now: number): Duration.Duration | undefined => {
  if (value === undefined) return undefined
  if (/^\s*\d+\s*$/.test(value)) return Duration.seconds(Math.min(Number(value), maxRetryAfter))
  const date = parseDate(value)
  return date === undefined
    ? undefined
    : Duration.millis(Math.min(Math.max(0, date - now), 1000 * maxRetryAfter))
}

const parseDate = (value: string | undefined): number | undefined => {
  // Date.parse finds a date in "-5"
  const date = value !== undefined && value.length < 100 && /[a-z]/i.test(value) ? Date.parse(value) : NaN
  return Number.isNaN(date) ? undefined : date
}

const parseLocation = (location: string | undefined, base: string): string | undefined => {
  if (location === undefined || location.length > 2048 || !URL.canParse(location, base)) return undefined
  const url = new URL(location, base)
  return `${url.origin}${url.pathname}`
}
