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
import type { AccessToken } from "./AccessToken.ts"
import * as ClientAuthentication from "./ClientAuthentication.ts"
import { check, endpointUrl, finiteDuration, issue } from "./internal/options.ts"
import { inModule } from "./internal/log.ts"
import { scrub, secretValues } from "./internal/endpoint/redact.ts"
import { scopes } from "./internal/endpoint/decodeToken.ts"
import { decodeResponse, readTokenResponse } from "./internal/endpoint/readTokenResponse.ts"
import { hardTimeout } from "./internal/timeout.ts"
import { type ConfigurationError, isTransient, type TokenError, TokenRequestError } from "./TokenError.ts"
import * as TokenMetrics from "./TokenMetrics.ts"

/**
 * The token endpoint.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenEndpoint extends Context.Tag("effect-alf/TokenEndpoint")<TokenEndpoint, {
  /** Sends a token request with these form parameters; client authentication is added to them. */
  readonly request: (
    params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError>,
    options?: { readonly once?: boolean | undefined }
  ) => Effect.Effect<AccessToken, TokenError>
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
    yield* check(
      options.clientSecret === undefined || Redacted.isRedacted(options.clientSecret) ||
        Effect.isEffect(options.clientSecret),
      () =>
        "clientSecret is neither Redacted nor an Effect: write Redacted.make(…), or Config.redacted(…)"
    )
    yield* check(!authentication.requiresSecret || options.clientSecret !== undefined, () =>
      `clientAuthentication (${authentication.method}) needs a clientSecret: give one, or use ClientAuthentication.none`)
    const wrong = authentication.issue(clientId)
    if (Option.isSome(wrong)) {
      return yield* issue(`clientId: ${wrong.value}`)
    }
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
        const at = { endpoint: url.toString(), tokenEndpoint: url.toString(), issuer: Option.none() }
        const proof = yield* Effect.mapError(
          authentication.prove({ id: clientId, secret: clientSecret }, at),
          () =>
            new TokenRequestError({
              reason: "Secret",
              endpoint,
              attempts,
              description: "The client could not prove who it is"
            })
        )
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
          Effect.flatMap(execute(request), readTokenResponse),
          (error) =>
            new TokenRequestError({
              reason: "Transport",
              endpoint,
              attempts,
              description: scrub(describe(error), secrets)
            })
        )
        return yield* decodeResponse(answer, {
          endpoint,
          attempts,
          secrets,
          sentAt,
          receivedAt: yield* Clock.currentTimeMillis,
          requestedScope: scopes(Option.getOrElse(UrlParams.getFirst(params, "scope"), () =>
            "")),
          defaultExpiresIn
        })
      }).pipe(
        hardTimeout(timeout, () =>
          new TokenRequestError({
            reason: "Timeout",
            endpoint,
            attempts,
            description: `No answer within ${Duration.format(timeout)}`
          })),
        Effect.either,
        Effect.timedWith(nanos),
        Effect.tap(([duration, outcome]) =>
          observe(duration, Either.isRight(outcome) ? "success" : outcome.left._tag)
        ),
        Effect.flatMap(([_, outcome]) => outcome)
      )

    const observe = (duration: Duration.Duration, outcome: string) =>
      pipe(
        Effect.logDebug("token request", { endpoint, outcome }),
        inModule("TokenEndpoint"),
        Effect.zipRight(Metric.update(TokenMetrics.tokenRequestDuration, duration)),
        Effect.zipRight(Metric.increment(Metric.tagged(TokenMetrics.tokenRequests, "outcome", outcome)))
      )

    return {
      identity: JSON.stringify([url.toString(), clientId, authentication.method]),
      request: (params) =>
        Effect.suspend(() => {
          let attempts = 0
          const once: Effect.Effect<AccessToken, TokenError> = Effect.flatMap(
            resolveParams(params),
            (params) => attempt(params, ++attempts)
          )
          return Effect.retry(once, schedule)
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

const resolveParams = (
  params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError>
): Effect.Effect<UrlParams.UrlParams, TokenError> => Effect.isEffect(params) ? params : Effect.succeed(params)

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
      // whole milliseconds: a TestClock that stands between two of them cannot tell the time in nanoseconds
      Schedule.modifyDelay((error, pause) =>
        Duration.millis(Math.ceil(Duration.toMillis(Duration.max(pause, retryAfter(error)))))
      ),
      Schedule.whileInput((error: TokenError) =>
        isRetried(error) && Duration.lessThanOrEqualTo(retryAfter(error), maxRetryAfter)
      ),
      Schedule.intersect(Schedule.recurs(times))
    )
  })

/** The clock's nanoseconds, from its milliseconds: a TestClock has no others. */
const nanos = Effect.map(Clock.currentTimeMillis, (millis) => BigInt(Math.round(millis)) * 1_000_000n)

const retryAfter = (error: TokenError): Duration.Duration =>
  error._tag === "TokenErrorResponse" && error.retryAfter !== undefined ? error.retryAfter : Duration.zero
