/**
 * The middleware: an `HttpClient` whose requests carry a valid token (RFC 6750 §2.1), in two flavours.
 *
 * - typed (`AuthorizedHttpClient`, `withToken`): says in its error type that there may be no token, and that a 401 may
 *   survive the replay
 * - drop-in (`layerHttpClient`): an `HttpClient` like any other; a 401 that survives is a response
 *
 * On a 401 the token is refreshed and the request is sent again, exactly once. A token goes to the listed origins only.
 *
 * @since 0.1.0
 */
import type * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual, pipe } from "effect/Function"
import { globalValue } from "effect/GlobalValue"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { AccessToken } from "./AccessToken.ts"
import { Answer, withoutToken } from "./internal/http/redactedResponse.ts"
import { parseChallenges } from "./internal/http/challenges.ts"
import { toHttpClientError } from "./internal/http/httpClientError.ts"
import { inModule } from "./internal/log.ts"
import * as Origins from "./internal/http/origins.ts"
import * as Refusals from "./internal/http/rejections.ts"
import { scrub } from "./internal/endpoint/redact.ts"
import { hardTimeout } from "./internal/timeout.ts"
import { type ConfigurationError, isTokenError, type TokenError } from "./TokenError.ts"
import * as TokenMetrics from "./TokenMetrics.ts"
import { TokenService } from "./TokenService.ts"

/**
 * The API answered 401, to the replay too or to a request that could not be sent again (RFC 6750 §3.1).
 *
 * @since 0.1.0
 * @category errors
 */
export class Unauthorized extends Schema.TaggedError<Unauthorized>("effect-alf/Unauthorized")("Unauthorized", {
  method: Schema.String,
  /** The URL without its query. */
  url: Schema.String,
  status: Schema.Literal(401),
  /** What the API wants, from `WWW-Authenticate` (RFC 9110 §11.6.1): schemes, and parameters by lower-case name. */
  challenges: Schema.Array(
    Schema.Struct({ scheme: Schema.String, params: Schema.Record({ key: Schema.String, value: Schema.String }) })
  )
}) {
  override get message(): string {
    const why = this.challenges
      .map(({ params }) => params["error_description"] ?? params["error"])
      .filter((text) => text !== undefined)
    return [`${this.method} ${this.url} was answered with 401`, ...why].join(": ")
  }
}

/**
 * The typed client. Beside the errors of any `HttpClient`, a request can fail with a `TokenError` (there is no token,
 * and the request was not sent) or with `Unauthorized` (the API refused the new token too).
 *
 * @since 0.1.0
 * @category tags
 */
export class AuthorizedHttpClient extends Context.Tag("effect-alf/AuthorizedHttpClient")<
  AuthorizedHttpClient,
  HttpClient.HttpClient.With<HttpClientError.HttpClientError | TokenError | Unauthorized>
>() {}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Where the token may go: scheme, host and port have to be equal; a path is ignored. Other requests pass through
   * untouched. `"any"` is every https or loopback URL.
   */
  readonly origins: ReadonlyArray<string | URL> | "any"
}

/**
 * Both clients, over one memory of what the API refused.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<
  { readonly httpClient: HttpClient.HttpClient; readonly authorizedHttpClient: AuthorizedHttpClient["Type"] },
  ConfigurationError,
  HttpClient.HttpClient | TokenService
> =>
  Effect.zipWith(HttpClient.HttpClient, middleware(options), (client, authorize) => ({
    httpClient: authorize(client, dropIn),
    authorizedHttpClient: authorize(client, typed)
  }))

/**
 * Puts the token on the requests of a client.
 *
 * **Gotchas**
 *
 * Origins that are no URLs are a defect here; `Alf.layer` reports them as `ConfigurationError`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withToken: {
  (options: Options): <E, R>(
    client: HttpClient.HttpClient.With<E, R>
  ) => Effect.Effect<
    HttpClient.HttpClient.With<E | HttpClientError.RequestError | TokenError | Unauthorized, R>,
    never,
    TokenService
  >
  <E, R>(client: HttpClient.HttpClient.With<E, R>, options: Options): Effect.Effect<
    HttpClient.HttpClient.With<E | HttpClientError.RequestError | TokenError | Unauthorized, R>,
    never,
    TokenService
  >
} = dual(2, <E, R>(client: HttpClient.HttpClient.With<E, R>, options: Options) =>
  pipe(
    middleware(options),
    Effect.map((authorize) => authorize(client, typed)),
    Effect.catchAll(Effect.die)
  ))

/**
 * The typed client as a layer. Origins that are no URLs are a defect, as for `withToken`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options
): Layer.Layer<AuthorizedHttpClient, never, HttpClient.HttpClient | TokenService> =>
  Layer.effect(
    AuthorizedHttpClient,
    Effect.flatMap(HttpClient.HttpClient, withToken(options))
  )

/**
 * The drop-in client as a layer: an `HttpClient` takes the place of another. A `TokenError` becomes an
 * `HttpClientError` whose `cause` it is; a 401 that survives the replay is a response. Origins that are no URLs are a
 * defect, as for `withToken`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerHttpClient = (
  options: Options
): Layer.Layer<HttpClient.HttpClient, never, HttpClient.HttpClient | TokenService> =>
  Layer.effect(
    HttpClient.HttpClient,
    pipe(make(options), Effect.map(({ httpClient }) => httpClient), Effect.catchAll(Effect.die))
  )

/**
 * Marks a request whose body is a `Stream` (or another body that is read once) that can be run again: after a 401 it is
 * replayed like any other. It is the body that is marked: combinators that copy the request keep the mark.
 *
 * @since 0.1.0
 * @category combinators
 */
export const replayable = (request: HttpClientRequest.HttpClientRequest): HttpClientRequest.HttpClientRequest => {
  replayableBodies.add(request.body)
  return request
}

const replayableBodies = globalValue(
  "effect-alf/AuthorizedHttpClient/replayable",
  () => new WeakSet<HttpBody.HttpBody>()
)

type Response = HttpClientResponse.HttpClientResponse
type Request = HttpClientRequest.HttpClientRequest

/** A 401, and the request and token that it answers. */
interface Refused<E, R> {
  readonly request: Request
  readonly token: AccessToken
  readonly response: Response
  /** The 401 as the client below gave it: a response, or the error of a client under `filterStatusOk`. */
  readonly answer: Effect.Effect<Response, E, R>
}

/** How a flavour says that there is no token, and that a 401 is final. */
interface Flavour<E2> {
  readonly fail: <E>(cause: Cause.Cause<E | TokenError>, request: Request) => Effect.Effect<never, E | E2>
  readonly refuse: <E, R>(refused: Refused<E, R>, error: Unauthorized) => Effect.Effect<Response, E | E2, R>
}

const typed: Flavour<TokenError | Unauthorized> = {
  fail: Effect.failCause,
  refuse: ({ response }, error) => Effect.zipRight(discardBody(response), Effect.fail(error))
}

const dropIn: Flavour<HttpClientError.HttpClientError> = {
  fail: (cause, request) =>
    Effect.failCause(Cause.map(cause, (error) => isTokenError(error) ? toHttpClientError(error, request) : error)),
  refuse: ({ answer }) => answer
}

type Authorize = <E, R, E2>(
  client: HttpClient.HttpClient.With<E, R>,
  flavour: Flavour<E2>
) => HttpClient.HttpClient.With<E | E2 | HttpClientError.RequestError, R>

const middleware = (options: Options): Effect.Effect<Authorize, ConfigurationError, TokenService> =>
  Effect.gen(function*() {
    const tokens = yield* TokenService
    const originOf = yield* Origins.originOf(options.origins)
    const withBearer = bearer()
    const refusals = new Map<string, Refusals.Refusal>()

    /** Notes what an origin did. */
    const note = (
      origin: string,
      change: (before: Refusals.Refusal | undefined, now: number) => Refusals.Refusal | undefined
    ) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const refusal = change(refusals.get(origin), now)
        if (refusal === undefined) refusals.delete(origin)
        else refusals.set(origin, refusal)
      })
    const noteRefused = (origin: string, token: AccessToken) =>
      note(origin, (before, now) => Refusals.refused(before, token, now))
    const noteFetched = (origin: string, token: AccessToken) =>
      note(origin, (before, now) => Refusals.fetched(before, token, now))
    const noteAccepted = (origin: string) => note(origin, Refusals.accepted)

    return <E, R, E2>(client: HttpClient.HttpClient.With<E, R>, flavour: Flavour<E2>) => {
      type Sent = Effect.Effect<Response, E | E2, R>

      /**
       * Gets a token and sends the request once. It is wrapped around `execute`: what the client below does to a request,
       * it does to each one that is sent.
       */
      const attempt = (
        request: Request,
        origin: string,
        token: Effect.Effect<AccessToken, TokenError>,
        onRefused: (refused: Refused<E | E2, R>) => Sent
      ): Sent => {
        let sent: AccessToken | undefined
        return Effect.matchCauseEffect(
          Effect.flatMap(token, (token) => {
            sent = token
            return client.execute(withBearer(request, token))
          }),
          {
            onSuccess: (response): Sent => {
              const answer = Effect.succeed(new Answer(response))
              if (response.status === 401 && sent !== undefined) {
                return onRefused({ request, token: sent, response, answer })
              }
              return refusals.size > 0 && response.status < 500 ? Effect.zipRight(noteAccepted(origin), answer) : answer
            },
            onFailure: (cause): Sent => {
              const answer = flavour.fail(Cause.map(cause, withoutToken), request)
              const response = responseIn(cause)
              if (response === undefined || sent === undefined) return answer
              if (response.status === 401) return onRefused({ request, token: sent, response, answer })
              return response.status < 500 ? Effect.zipRight(noteAccepted(origin), answer) : answer
            }
          }
        )
      }

      /** The 401's body is let go of, the token is refreshed, the request is sent again: once. */
      const replay = (origin: string, { request, response, token }: Refused<E | E2, R>): Sent =>
        Effect.suspend(() => {
          let outcome: "unsent" | "refused" | "answered" = "unsent"
          const fresh = Effect.tap(tokens.refresh(token), () =>
            Effect.sync(() => {
              outcome = "answered"
            }))
          return pipe(
            Effect.logDebug("refreshing the token and sending the request again after a 401", { origin }),
            inModule("AuthorizedHttpClient"),
            Effect.zipRight(discardBody(response)),
            Effect.zipRight(attempt(request, origin, fresh, (refused) => {
              outcome = "refused"
              return Effect.zipRight(
                noteRefused(origin, refused.token),
                flavour.refuse(refused, toUnauthorized(refused))
              )
            })),
            Effect.onExit((exit) =>
              outcome === "unsent"
                ? Effect.void
                : Metric.increment(Metric.tagged(
                  TokenMetrics.replays,
                  "outcome",
                  outcome === "refused" ? outcome : Exit.isSuccess(exit) ? "accepted" : "failed"
                ))
            ),
            Effect.withSpan("AuthorizedHttpClient.replay", { captureStackTrace: false, attributes: { origin } })
          )
        })

      /** Without a replay the caller is answered at once; the token is renewed for the next request. */
      const renew = (origin: string, { token }: Refused<E | E2, R>, now: number) =>
        pipe(
          tokens.refresh(token),
          // one that was there already may have been accepted before
          Effect.flatMap((fresh) =>
            DateTime.toEpochMillis(fresh.issuedAt) >= now ? noteFetched(origin, fresh) : Effect.void
          ),
          Effect.ignore,
          Effect.forkDaemon,
          // lets the refresh begin, so that the refused token is not handed out again
          Effect.zipRight(Effect.yieldNow())
        )

      const recover = (origin: string, refused: Refused<E | E2, R>, error: Unauthorized): Sent =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const refusal = refusals.get(origin)
          if (Refusals.isPaused(refusal, now)) return flavour.refuse(refused, error)
          if (Refusals.isUntried(refusal, refused.token)) {
            return Effect.zipRight(noteRefused(origin, refused.token), flavour.refuse(refused, error))
          }
          if (isReplayable(refused.request.body)) return replay(origin, refused)
          return Refusals.isFresh(refusal, now)
            ? flavour.refuse(refused, error)
            : Effect.zipRight(renew(origin, refused, now), flavour.refuse(refused, error))
        })

      return HttpClient.makeWith(
        Effect.flatMap((request: Request): Effect.Effect<Response, E | E2 | HttpClientError.RequestError, R> => {
          const origin = originOf(request.url)
          if (origin === "other") return client.execute(request)
          if (origin === "relative") return Effect.fail(relativeUrl(request))
          return attempt(
            request,
            origin,
            tokens.get,
            (refused) =>
              Effect.catchTag(
                Effect.fail(toUnauthorized(refused)),
                "Unauthorized",
                (error) => recover(origin, refused, error)
              )
          )
        }),
        Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
      )
    }
  })

/** Sets the header. Its text is made once per token. */
const bearer = () => {
  let current: AccessToken | undefined
  let text = ""
  return (request: Request, token: AccessToken): Request => {
    if (token !== current) {
      current = token
      text = `${token.type} ${Redacted.value(token.value)}`
    }
    return HttpClientRequest.setHeader(request, "authorization", text)
  }
}

/** The answer in the error of a client that turns statuses into errors; not that of a token endpoint. */
const responseIn = (cause: Cause.Cause<unknown>): Response | undefined => {
  const error = Option.getOrUndefined(Cause.failureOption(cause))
  return HttpClientError.isHttpClientError(error) && error._tag === "ResponseError" && error.reason === "StatusCode" &&
      !isTokenError(error.cause)
    ? error.response
    : undefined
}

const toUnauthorized = (refused: Refused<unknown, unknown>): Unauthorized =>
  new Unauthorized({
    method: refused.request.method,
    url: Origins.withoutQuery(refused.request.url),
    status: 401,
    challenges: parseChallenges(
      scrub(refused.response.headers["www-authenticate"] ?? "", [Redacted.value(refused.token.value)])
    )
  })

const relativeUrl = (request: Request): HttpClientError.RequestError =>
  new HttpClientError.RequestError({
    request,
    reason: "InvalidUrl",
    description: "the URL is relative where the token is put on: set the base URL above the authorized client, " +
      "with HttpClient.mapRequest(HttpClientRequest.prependUrl(…))"
  })

/** No more of a refused answer is read than this, in bytes, … */
const maxDrained = 64 * 1024

/** … and not for longer than this. */
const drainTimeout = Duration.seconds(1)

/** Gives the connection of an answer back: reads a small rest, cuts a large one off. */
const discardBody = (response: Response): Effect.Effect<void> =>
  pipe(
    // the runtime logs the error of a stream that fails, and the request with it
    Stream.catchAllCause(response.stream, () => Stream.empty),
    Stream.runFoldWhile(0, (size) => size <= maxDrained, (size, chunk) => size + chunk.length),
    hardTimeout(drainTimeout, () => "slow"),
    Effect.ignore
  )

/** Whether a body is sent again byte for byte. */
const isReplayable = (body: HttpBody.HttpBody): boolean =>
  (body._tag !== "Stream" && (body._tag !== "Raw" || isValue(body.body))) || replayableBodies.has(body)

/** Whether a raw body is a value, and not something that is read once. */
const isValue = (body: unknown): boolean =>
  body === null || body === undefined || typeof body === "string" || body instanceof ArrayBuffer ||
  ArrayBuffer.isView(body) || body instanceof Blob || body instanceof FormData || body instanceof URLSearchParams
