import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { AccessToken } from "../../AccessToken.ts"
import { InvalidTokenResponse, TokenErrorResponse } from "../../TokenError.ts"
import { scrub, tokenValues, truncate } from "./redact.ts"
import { decodeToken, type DecodeTokenOptions } from "./decodeToken.ts"

/** No more of an answer is read than this, in bytes. */
const maxAnswer = 1024 * 1024

/** No more of an answer is shown than this, in bytes. */
const maxShown = 4 * 1024

export interface Answer {
  readonly status: number
  readonly retryAfter: string | undefined
  /** The answer's text, or its beginning. */
  readonly text: string
  /** Whether there was more than `maxAnswer`. */
  readonly isCut: boolean
}

/** Reads an answer, up to `maxAnswer`; the rest is cut off. */
export const readTokenResponse = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<Answer, HttpClientError.ResponseError> =>
  Effect.suspend(() => {
    const decoder = new TextDecoder()
    const texts: Array<string> = []
    let failure: HttpClientError.ResponseError | undefined
    return pipe(
      // as values, since the runtime logs the error of a stream that fails, and the request with it
      Stream.either(response.stream),
      Stream.runFoldWhile(0, (size) => size <= maxAnswer, (size, piece) => {
        if (Either.isLeft(piece)) {
          failure = piece.left
          return size
        }
        texts.push(decoder.decode(piece.right, { stream: true }))
        return size + piece.right.length
      }),
      Effect.flatMap((size) => {
        if (failure !== undefined && failure.reason !== "EmptyBody") return Effect.fail(failure)
        // a body that broke off before it was read can come as an empty one
        if (size <= maxAnswer && size < announced(response)) {
          const description = "the connection broke in the middle of the answer"
          return Effect.fail(
            new HttpClientError.ResponseError({ request: response.request, response, reason: "Decode", description })
          )
        }
        return Effect.succeed({
          status: response.status,
          retryAfter: response.headers["retry-after"],
          text: texts.join("") + decoder.decode(),
          isCut: size > maxAnswer
        })
      })
    )
  })

/** How long the body has to be; 0 if nobody said, or if it was decoded on the way. */
const announced = ({ headers }: HttpClientResponse.HttpClientResponse): number =>
  headers["content-encoding"] === undefined ? Number(headers["content-length"] ?? 0) : 0

export interface DecodeOptions extends DecodeTokenOptions {
  readonly endpoint: string
  readonly attempts: number
  /** What must not be shown. */
  readonly secrets: ReadonlyArray<string>
  readonly receivedAt: number
}

/** The token that an answer holds, or the error that it is. No secret is part of either error. */
export const decodeResponse = (
  answer: Answer,
  options: DecodeOptions
): Either.Either<AccessToken, TokenErrorResponse | InvalidTokenResponse> => {
  const { attempts, endpoint } = options
  const invalid = (issue: string) => Either.left(new InvalidTokenResponse({ endpoint, issue }))
  const members = parseObject(answer.text)
  const isSuccess = answer.status >= 200 && answer.status < 300
  const error = Option.map(members, (object) => object["error"])
  if (!isSuccess || Option.exists(error, (value) => value !== undefined && value !== null)) {
    const secrets = [...options.secrets, ...tokenValues(answer.text)]
    const shown = (text: string) => truncate(scrub(text, secrets), maxShown)
    const text = (name: string) =>
      Option.match(Option.filter(Option.map(members, (object) => object[name]), isString), {
        onNone: () => undefined,
        onSome: shown
      })
    return Either.left(
      new TokenErrorResponse({
        endpoint,
        attempts,
        status: answer.status,
        error: Option.getOrUndefined(Option.filter(error, isErrorCode)) ?? text("error"),
        errorDescription: text("error_description"),
        errorUri: text("error_uri"),
        retryAfter: parseRetryAfter(answer.retryAfter, options.receivedAt),
        body: shown(answer.text)
      })
    )
  }
  if (answer.isCut) return invalid("it is longer than 1 MiB")
  if (Option.isNone(members)) return invalid("it is not a JSON object")
  return Either.mapLeft(
    decodeToken(members.value, options),
    (issue) => new InvalidTokenResponse({ endpoint, issue })
  )
}

/** Registered codes are shown even where a short secret happens to be part of one. */
const isErrorCode = (u: unknown): u is string =>
  u === "invalid_request" || u === "invalid_client" || u === "invalid_grant" || u === "invalid_scope" ||
  u === "invalid_target" || u === "unauthorized_client" || u === "unsupported_grant_type" || u === "access_denied" ||
  u === "server_error" || u === "temporarily_unavailable"

const isString = (u: unknown): u is string => typeof u === "string"

const parseObject = (text: string): Option.Option<Readonly<Record<string, unknown>>> =>
  Option.filter(
    Option.liftThrowable((text: string): unknown => JSON.parse(text))(text),
    (value): value is Readonly<Record<string, unknown>> =>
      typeof value === "object" && value !== null && !Array.isArray(value)
  )

/** Seconds or a date (RFC 9110 §10.2.3). */
const parseRetryAfter = (value: string | undefined, now: number): Duration.Duration | undefined => {
  if (value === undefined) return undefined
  if (/^\s*\d+\s*$/.test(value)) return Duration.seconds(Number(value))
  // Date.parse finds a date in "-5"
  const date = /[a-z]/i.test(value) ? Date.parse(value) : NaN
  return Number.isNaN(date) ? undefined : Duration.millis(date - now)
}
