/**
 * The middleware: an `HttpClient` whose requests carry a valid token (RFC 6750 §2.1), in two flavours.
 *
 * - typed (`AuthorizedHttpClient`, `withToken`): its error type says that there may be no token, that a 401 may survive the
 *   replay, and that a scope may be missing
 * - drop-in (`layerHttpClient`): an `HttpClient` like any other; a 401 that survives is a response
 *
 * On a 401 the token is refreshed and the request is sent again, exactly once. A token goes to the listed origins only.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { challengesOf, requiredScope } from "./internal/http/challenges.ts"
import { discardBody, markReplayable } from "./internal/http/body.ts"
import { toHttpClientError } from "./internal/http/httpClientError.ts"
import { type Flavour, makeMiddleware } from "./internal/http/middleware.ts"
import { withoutQuery } from "./internal/http/origins.ts"
import type { DPoP, HeaderOptions } from "./internal/http/presentation.ts"
import { printable } from "./internal/printable.ts"
import { type ConfigurationError, isTokenError, type TokenError } from "./TokenError.ts"
import { TokenService } from "./TokenService.ts"

export type {
  /**
   * How the header that carries the token is written.
   *
   * @since 0.2.0
   * @category models
   */
  HeaderOptions
}

export {
  /**
   * A `fetch` over the client of the context, for libraries that take one.
   *
   * **Details**
   *
   * Method, headers, body, `signal` and `redirect` mean what they mean to fetch; an abort interrupts the request. A failure
   * rejects with a `TypeError` whose `cause` is the typed error.
   *
   * @example
   * ```ts
   * import { AuthorizedHttpClient } from "effect-alf"
   * import { Effect } from "effect"
   *
   * export const program = Effect.gen(function*() {
   *   const fetch = yield* AuthorizedHttpClient.toFetch
   *   return yield* Effect.promise(() => fetch("https://api.example.com/reports"))
   * })
   * ```
   *
   * @since 0.2.0
   * @category conversions
   */
  toFetch
} from "./internal/http/toFetch.ts"

const Challenges = Schema.Array(
  Schema.Struct({ scheme: Schema.String, params: Schema.Record({ key: Schema.String, value: Schema.String }) })
)

/**
 * The API rejected the token: that of the replay too, or that of a request that could not be sent again (RFC 6750 §3.1).
 *
 * @since 0.1.0
 * @category errors
 */
export class Unauthorized extends Schema.TaggedError<Unauthorized>("effect-alf/Unauthorized")("Unauthorized", {
  method: Schema.String,
  /** The URL without its query. */
  url: Schema.String,
  /** 401, or what `isRejected` says. */
  status: Schema.Number,
  /** What the API wants, from `WWW-Authenticate` (RFC 9110 §11.6.1): schemes, and parameters by lower-case name. */
  challenges: Challenges
}) {
  override get message(): string {
    const why = this.challenges
      .map(({ params }) => params["error_description"] ?? params["error"])
      .filter((text) => text !== undefined)
    return printable([`${this.method} ${this.url} was answered with ${this.status}`, ...why].join(": "))
  }
}

/**
 * The token was accepted, but it has not the scope that the request needs: 403 with `error="insufficient_scope"` (RFC 6750
 * §3.1). The drop-in client returns the response instead.
 *
 * @since 0.2.0
 * @category errors
 */
export class InsufficientScope
  extends Schema.TaggedError<InsufficientScope>("effect-alf/InsufficientScope")("InsufficientScope", {
    method: Schema.String,
    /** The URL without its query. */
    url: Schema.String,
    /** The scopes that the API asks for; empty if it does not say. */
    required: Schema.Array(Schema.String),
    /** The scopes of the token that was sent. */
    granted: Schema.Array(Schema.String),
    challenges: Challenges
  })
{
  override get message(): string {
    const needed = this.required.length === 0 ? "more scope" : `the scope ${this.required.join(" ")}`
    return printable(
      `${this.method} ${this.url} needs ${needed}, and the token has ${this.granted.join(" ") || "none"}`
    )
  }
}

/**
 * What the typed client fails with.
 *
 * @since 0.2.0
 * @category errors
 */
export type ClientError = HttpClientError.HttpClientError | TokenError | Unauthorized | InsufficientScope

/**
 * The type of the typed client, for tags of one's own.
 *
 * @example
 * ```ts
 * import type { AuthorizedHttpClient } from "effect-alf"
 * import { Context } from "effect"
 *
 * export class Billing extends Context.Tag("Billing")<Billing, AuthorizedHttpClient.Client>() {}
 * ```
 *
 * @since 0.2.0
 * @category models
 */
export type Client = HttpClient.HttpClient.With<ClientError>

/**
 * The typed client. Beside the errors of any `HttpClient`, a request can fail with a `TokenError` (there is no token, and
 * the request was not sent), with `Unauthorized` (the API rejected the new token too) or with `InsufficientScope`.
 *
 * @since 0.1.0
 * @category tags
 */
export class AuthorizedHttpClient extends Context.Tag("effect-alf/AuthorizedHttpClient")<
  AuthorizedHttpClient,
  Client
>() {}

/**
 * Whether a response says that the token was rejected.
 *
 * @since 0.2.0
 * @category models
 */
export type IsRejected = (response: HttpClientResponse.HttpClientResponse) => boolean

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
  /** How the header that carries the token is written. Not together with `dpop`. Defaults to `Authorization: Bearer …`. */
  readonly header?: HeaderOptions | undefined
  /** Whether a response says that the token was rejected. Defaults to the status 401. */
  readonly isRejected?: IsRejected | undefined
  /** The key that tokens are bound to, from `effect-alf/DPoP` (RFC 9449). Defaults to none. */
  readonly dpop?: Effect.Effect<DPoP, ConfigurationError> | undefined
}

/**
 * Both clients, over one memory of what the API rejected.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<
  { readonly httpClient: HttpClient.HttpClient; readonly authorizedHttpClient: Client },
  ConfigurationError,
  HttpClient.HttpClient | TokenService
> =>
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    const authorize = yield* makeMiddleware(options, yield* TokenService)
    return { httpClient: authorize(client, dropIn), authorizedHttpClient: authorize(client, typed) }
  })

/**
 * Puts the token on the requests of a client. Origins that cannot be used are a `ConfigurationError`.
 *
 * @example
 * ```ts
 * import { HttpClient } from "@effect/platform"
 * import { AuthorizedHttpClient } from "effect-alf"
 * import { Effect } from "effect"
 *
 * export const client = Effect.flatMap(
 *   HttpClient.HttpClient,
 *   AuthorizedHttpClient.withToken({ origins: ["https://api.example.com"] })
 * )
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const withToken: {
  (options: Options): <E, R>(
    client: HttpClient.HttpClient.With<E, R>
  ) => Effect.Effect<
    HttpClient.HttpClient.With<E | HttpClientError.RequestError | TokenError | Unauthorized | InsufficientScope, R>,
    ConfigurationError,
    TokenService
  >
  <E, R>(client: HttpClient.HttpClient.With<E, R>, options: Options): Effect.Effect<
    HttpClient.HttpClient.With<E | HttpClientError.RequestError | TokenError | Unauthorized | InsufficientScope, R>,
    ConfigurationError,
    TokenService
  >
} = dual(2, <E, R>(client: HttpClient.HttpClient.With<E, R>, options: Options) =>
  Effect.map(
    Effect.flatMap(TokenService, (tokens) => makeMiddleware(options, tokens)),
    (authorize) => authorize(client, typed)
  ))

/**
 * The typed client as a layer.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: Options
): Layer.Layer<AuthorizedHttpClient, ConfigurationError, HttpClient.HttpClient | TokenService> =>
  Layer.effect(
    AuthorizedHttpClient,
    Effect.flatMap(HttpClient.HttpClient, withToken(options))
  )

/**
 * The drop-in client as a layer: an `HttpClient` takes the place of another. A `TokenError` becomes an
 * `HttpClientError` whose `cause` it is; a 401 that survives the replay is a response.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerHttpClient = (
  options: Options
): Layer.Layer<HttpClient.HttpClient, ConfigurationError, HttpClient.HttpClient | TokenService> =>
  Layer.effect(HttpClient.HttpClient, Effect.map(make(options), ({ httpClient }) => httpClient))

/**
 * Marks a request whose body is a `Stream` (or another body that is read once) that can be run again: after a 401 it is
 * replayed like any other. It is the body that is marked: combinators that copy the request keep the mark.
 *
 * @since 0.1.0
 * @category combinators
 */
export const replayable = (request: HttpClientRequest.HttpClientRequest): HttpClientRequest.HttpClientRequest => {
  markReplayable(request.body)
  return request
}

const typed: Flavour<TokenError | Unauthorized | InsufficientScope> = {
  fail: Effect.failCause,
  reject: ({ request, response, secrets }) =>
    Effect.zipRight(
      discardBody(response),
      Effect.suspend(() =>
        Effect.fail(
          new Unauthorized({
            method: request.method,
            url: withoutQuery(request.url),
            status: response.status,
            challenges: challengesOf(response, secrets())
          })
        )
      )
    ),
  forbid: (forbidden) => {
    const { request, response, secrets, token } = forbidden
    const challenges = challengesOf(response, secrets())
    const required = requiredScope(challenges)
    return required === undefined ? forbidden.result : Effect.zipRight(
      discardBody(response),
      Effect.fail(
        new InsufficientScope({
          method: request.method,
          url: withoutQuery(request.url),
          required,
          granted: token.scope,
          challenges
        })
      )
    )
  }
}

const dropIn: Flavour<HttpClientError.HttpClientError> = {
  fail: (cause, request) =>
    Effect.failCause(Cause.map(cause, (error) => isTokenError(error) ? toHttpClientError(error, request) : error)),
  reject: ({ result }) => result,
  forbid: ({ result }) => result
}
