/**
 * The one place that talks to the token endpoint (RFC 6749 §3.2): a form POST with client authentication, a time-out for
 * each attempt, retries with growing pauses, and an answer that is either a token or a typed error.
 *
 * The client's secret is read for each attempt, put on the wire, and struck out of whatever comes back.
 *
 * @since 0.1.0
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import type { AccessToken } from "./AccessToken.ts"
import * as ClientAuthentication from "./ClientAuthentication.ts"
import { check, endpointUrl, finiteDuration } from "./internal/configuration.ts"
import { scrub, secretValues, truncate } from "./internal/scrub.ts"
import { decodeAnswer, scopes } from "./internal/tokenAnswer.ts"
import {
  type ConfigurationError,
  InvalidTokenResponse,
  isTransient,
  type TokenError,
  TokenErrorResponse,
  TokenRequestError
} from "./TokenError.ts"
import * as TokenMetrics from "./TokenMetrics.ts"

/**
 * The token endpoint.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenEndpoint extends Context.Tag("effect-alf/TokenEndpoint")<TokenEndpoint, {
  /** Sends a token request with these form parameters; client authentication is added to them. */
  readonly request: (params: UrlParams.UrlParams) => Effect.Effect<AccessToken, TokenError>
  /** Endpoint, client and method of authentication, for the storage key. Holds no secret. */
  readonly identity: string
}>() {}

/**
 * When and how often the token endpoint is asked again, by `Schedule.exponential` with jitter.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryOptions {
  /** How many more attempts are made after the first. `0` turns retrying off. Defaults to 3. */
  readonly times?: number | undefined
  /** The first pause. Defaults to 300 milliseconds. */
  readonly base?: Duration.DurationInput | undefined
  /** By what each pause is longer than the one before. Defaults to 2. */
  readonly factor?: number | undefined
  /** The longest pause. Defaults to 10 seconds. */
  readonly maxDelay?: Duration.DurationInput | undefined
  /**
   * The statuses that are asked again, in place of all rules about statuses; a request without an answer is retried
   * still. Defaults to 408, 425, 429, 5xx, and any other 4xx that carries no OAuth `error`.
   */
  readonly statuses?: ReadonlyArray<number> | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The token endpoint: https, or loopback. A query is kept, a fragment is refused (RFC 6749 §3.2). */
  readonly tokenEndpoint: string | URL
  /** The client identifier (RFC 6749 §2.2). */
  readonly clientId: string
  /**
   * The client secret. An Effect (a vault, a file) is run again for each token request. Defaults to none: a public
   * client.
   */
  readonly clientSecret?: Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown> | undefined
  /** How the client proves who it is. Defaults to `ClientAuthentication.basic`, and to `none` without a secret. */
  readonly clientAuthentication?: ClientAuthentication.ClientAuthentication | undefined
  /**
   * When the token endpoint is asked again. A `Schedule` replaces all rules: it sees each error and decides. Defaults to
   * three more attempts, 300 milliseconds apart and doubling.
   */
  readonly tokenRetry?: RetryOptions | Schedule.Schedule<unknown, TokenError> | undefined
  /** How long one attempt may take. Defaults to 10 seconds. */
  readonly tokenTimeout?: Duration.DurationInput | undefined
  /**
   * How long a token lives whose answer has no `expires_in`. Defaults to none: such a token is used until the API
   * refuses it.
   */
  readonly defaultExpiresIn?: Duration.DurationInput | undefined
  /** Whether the token endpoint may be plain http beyond loopback. Defaults to false. */
  readonly allowInsecureTokenEndpoint?: boolean | undefined
}

/** No more of an answer is read than this, in bytes. */
const maxAnswer = 1024 * 1024

/** No more of an answer is shown than this, in bytes. */
const maxShown = 4 * 1024

/** A longer `Retry-After` is not waited for. */
const maxRetryAfter = Duration.seconds(60)

/**
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Options
): Effect.Effect<TokenEndpoint["Type"], ConfigurationError, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    const url = yield* endpointUrl("tokenEndpoint", options.tokenEndpoint, {
      allowInsecure: options.allowInsecureTokenEndpoint
    })
    const clientId = options.clientId
    yield* check(typeof clientId === "string" && clientId !== "", () =>
      "clientId is empty: write the identifier that the authorization server gave this client")
    const authentication = options.clientAuthentication ??
      (options.clientSecret === undefined ? ClientAuthentication.none : ClientAuthentication.basic)
    yield* check(!authentication.requiresSecret || options.clientSecret !== undefined, () =>
      `clientAuthentication (${authentication.method}) needs a clientSecret: give one, or use ClientAuthentication.none`)
    yield* Option.match(authentication.issue(clientId), {
      onNone: () =>
        Effect.void,
      onSome: (text) =>
        check(false, () =>
          `clientId: ${text}`)
    })
    const timeout = yield* finiteDuration("tokenTimeout", options.tokenTimeout ?? "10 seconds")
    const defaultExpiresIn = options.defaultExpiresIn === undefined
      ? Option.none()
      : Option.some(yield* finiteDuration("defaultExpiresIn", options.defaultExpiresIn))
    const schedule = yield* retrySchedule(options.tokenRetry ?? {})

    const endpoint = `${url.origin}${url.pathname}`
    const base = HttpClientRequest.post(url.toString()).pipe(HttpClientRequest.acceptJson)
    const execute = yield* withoutRedirects(client)
    const secret = readSecret(options.clientSecret)

    const attempt = (params: UrlParams.UrlParams, attempts: number): Effect.Effect<AccessToken, TokenError> =>
      Effect.gen(function*() {
        const clientSecret = yield* Effect.catchAllCause(secret, () =>
          Effect.fail(
            new TokenRequestError({
              reason: "Secret",
              endpoint,
              attempts,
              description: "The client secret was not read"
            })
          ))
        const proof = authentication.prove({ id: clientId, secret: clientSecret })
        const form = UrlParams.appendAll(params, proof.params ?? {})
        const secrets = [
          ...Option.match(clientSecret, { onNone: () => [], onSome: (value) => [Redacted.value(value)] }),
          ...(proof.authorization?.split(" ") ?? []).slice(1),
          ...secretValues(form)
        ]
        const request = pipe(
          base,
          HttpClientRequest.bodyUrlParams(form),
          proof.authorization === undefined
            ? (request) =>
              request
            : HttpClientRequest.setHeader("authorization", proof.authorization)
        )

        const sentAt = yield* Clock.currentTimeMillis
        const answer = yield* Effect.mapError(
          Effect.flatMap(execute(request), readAnswer),
          (error) =>
            new TokenRequestError({
              reason: "Transport",
              endpoint,
              attempts,
              description: scrub(describe(error), secrets)
            })
        )
        return yield* decode(answer, {
          endpoint,
          attempts,
          secrets,
          sentAt,
          receivedAt: yield* Clock.currentTimeMillis,
          requestedScope: scopes(Option.getOrElse(UrlParams.getFirst(params, "scope"), () => "")),
          defaultExpiresIn
        })
      }).pipe(
        Effect.disconnect,
        Effect.timeoutFail({
          duration: timeout,
          onTimeout: () =>
            new TokenRequestError({
              reason: "Timeout",
              endpoint,
              attempts,
              description: `No answer within ${Duration.format(timeout)}`
            })
        }),
        Effect.tapBoth({
          onSuccess: () => observed("success"),
          onFailure: (error) => observed(error._tag)
        }),
        Metric.trackDuration(TokenMetrics.tokenRequestDuration)
      )

    const observed = (outcome: string) =>
      Effect.zipRight(
        Metric.increment(Metric.tagged(TokenMetrics.tokenRequests, "outcome", outcome)),
        Effect.annotateLogs(Effect.logDebug("token request", { endpoint, outcome }), {
          package: "effect-alf",
          module: "TokenEndpoint"
        })
      )

    return {
      identity: JSON.stringify([url.toString(), clientId, authentication.method]),
      request: (params) =>
        Effect.suspend(() => {
          let attempts = 0
          return Effect.retry(Effect.suspend(() => attempt(params, ++attempts)), schedule)
        }).pipe(Effect.withSpan("TokenEndpoint.request", { captureStackTrace: false, attributes: { endpoint } }))
    }
  })

/**
 * **Gotchas**
 *
 * A redirect is an error and is not followed. Over fetch that is done with `redirect: "manual"`, in a
 * `FetchHttpClient.RequestInit` that replaces one which the client's own layer was built with, for token requests only.
 * A client under `HttpClient.followRedirects` follows it all the same, secret and all: put that over the authorized
 * client instead.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options
): Layer.Layer<TokenEndpoint, ConfigurationError, HttpClient.HttpClient> => Layer.effect(TokenEndpoint, make(options))

const readSecret = (secret: Options["clientSecret"]): Effect.Effect<Option.Option<Redacted.Redacted>, unknown> =>
  secret === undefined
    ? Effect.succeedNone
    : Redacted.isRedacted(secret)
    ? Effect.succeedSome(secret)
    : Effect.asSome(secret)

/** The secret goes to one URL only: over fetch, a redirect is handed back instead of being followed. */
const withoutRedirects = (client: HttpClient.HttpClient) =>
  Effect.map(
    Effect.serviceOption(FetchHttpClient.RequestInit),
    (built) => (request: HttpClientRequest.HttpClientRequest) =>
      pipe(
        client.execute(request),
        Effect.provideService(FetchHttpClient.RequestInit, {
          ...Option.getOrElse(built, () => ({})),
          redirect: "manual"
        }),
        // a client that turns statuses into errors makes no difference
        Effect.catchIf(isStatusError, (error) => Effect.succeed(error.response))
      )
  )

const isStatusError = (error: HttpClientError.HttpClientError): error is HttpClientError.ResponseError =>
  error._tag === "ResponseError" && error.reason === "StatusCode"

interface Answer {
  readonly status: number
  readonly retryAfter: string | undefined
  /** None if there was more than `maxAnswer`. */
  readonly text: Option.Option<string>
}

const readAnswer = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<Answer, HttpClientError.ResponseError> =>
  pipe(
    Stream.runFoldWhile(
      response.stream,
      { chunks: [] as ReadonlyArray<Uint8Array>, size: 0 },
      ({ size }) => size <= maxAnswer,
      ({ chunks, size }, chunk) => ({ chunks: [...chunks, chunk], size: size + chunk.length })
    ),
    Effect.map(({ chunks, size }) => size > maxAnswer ? Option.none() : Option.some(decodeUtf8(chunks))),
    Effect.catchIf((error) => error.reason === "EmptyBody", () => Effect.succeedSome("")),
    Effect.map((text) => ({ status: response.status, retryAfter: response.headers["retry-after"], text }))
  )

const decodeUtf8 = (chunks: ReadonlyArray<Uint8Array>): string => {
  const decoder = new TextDecoder()
  return chunks.map((chunk) => decoder.decode(chunk, { stream: true })).join("") + decoder.decode()
}

interface DecodeOptions {
  readonly endpoint: string
  readonly attempts: number
  readonly secrets: ReadonlyArray<string>
  readonly sentAt: number
  readonly receivedAt: number
  readonly requestedScope: ReadonlyArray<string>
  readonly defaultExpiresIn: Option.Option<Duration.Duration>
}

const decode = (
  answer: Answer,
  options: DecodeOptions
): Either.Either<AccessToken, TokenErrorResponse | InvalidTokenResponse> => {
  const { attempts, endpoint } = options
  const invalid = (issue: string) => Either.left(new InvalidTokenResponse({ endpoint, issue }))
  const members = Option.flatMap(answer.text, parseObject)
  const isSuccess = answer.status >= 200 && answer.status < 300
  const error = Option.map(members, (object) => object["error"])
  if (!isSuccess || Option.exists(error, (value) => value !== undefined && value !== null)) {
    const secrets = [
      ...options.secrets,
      ...["access_token", "refresh_token", "id_token"].flatMap((name) =>
        Option.toArray(Option.filter(Option.map(members, (object) => object[name]), isString))
      )
    ]
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
        body: Option.match(answer.text, { onNone: () => "", onSome: shown })
      })
    )
  }
  if (Option.isNone(answer.text)) return invalid("it is longer than 1 MiB")
  if (Option.isNone(members)) return invalid("it is not a JSON object")
  return Either.mapLeft(
    decodeAnswer(members.value, options),
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
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Duration.millis(Math.max(0, date - now))
}

/** What broke, in the words of the transport: the messages of the error and of its causes. */
const describe = (error: HttpClientError.HttpClientError): string => {
  const messages: Array<string> = [error.description ?? `${error.reason} error`]
  for (let cause = error.cause; cause instanceof Error && messages.length < 4; cause = cause.cause) {
    messages.push(cause.message !== "" ? cause.message : "code" in cause ? String(cause.code) : cause.name)
  }
  return messages.join(": ")
}

const retrySchedule = (
  retry: RetryOptions | Schedule.Schedule<unknown, TokenError>
): Effect.Effect<Schedule.Schedule<unknown, TokenError>, ConfigurationError> =>
  Effect.gen(function*() {
    if (Schedule.isSchedule(retry)) return retry
    const { factor = 2, statuses, times = 3 } = retry
    yield* check(Number.isInteger(times) && times >= 0, () =>
      "tokenRetry.times is not a whole number: write how many more attempts are made, 0 for none")
    yield* check(Number.isFinite(factor) && factor >= 1, () =>
      "tokenRetry.factor is less than 1: write by what each pause grows, such as 2")
    yield* check(statuses === undefined || statuses.every(Number.isInteger), () =>
      "tokenRetry.statuses holds something that is no HTTP status: write numbers such as 503")
    const base = yield* finiteDuration("tokenRetry.base", retry.base ?? "300 millis")
    const maxDelay = yield* finiteDuration("tokenRetry.maxDelay", retry.maxDelay ?? "10 seconds")
    const isRetried = (error: TokenError) =>
      statuses !== undefined && error._tag === "TokenErrorResponse"
        ? statuses.includes(error.status)
        : isTransient(error)
    return pipe(
      Schedule.exponential(base, factor),
      Schedule.jittered,
      Schedule.modifyDelay((_, pause) =>
        Duration.min(pause, maxDelay)
      ),
      Schedule.zipRight(Schedule.identity<TokenError>()),
      Schedule.modifyDelay((error, pause) =>
        Duration.max(pause, retryAfter(error))
      ),
      Schedule.whileInput((error: TokenError) =>
        isRetried(error) && Duration.lessThanOrEqualTo(retryAfter(error), maxRetryAfter)
      ),
      Schedule.intersect(Schedule.recurs(times))
    )
  })

const retryAfter = (error: TokenError): Duration.Duration =>
  error._tag === "TokenErrorResponse" && error.retryAfter !== undefined ? error.retryAfter : Duration.zero
