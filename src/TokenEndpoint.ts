/**
 * The token endpoint (RFC 6749 §3.2): token requests over the `AuthorizationServer`, each of which ends in a token or in a
 * typed error.
 *
 * @since 0.1.0
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as UrlParams from "@effect/platform/UrlParams"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { AccessToken } from "./AccessToken.ts"
import * as AuthorizationServer from "./AuthorizationServer.ts"
import { decodeToken } from "./internal/endpoint/decodeToken.ts"
import * as Retry from "./internal/endpoint/retry.ts"
import { inModule } from "./internal/log.ts"
import { finiteDuration } from "./internal/options.ts"
import { scopes } from "./internal/scope.ts"
import { type ConfigurationError, InvalidTokenResponse, type TokenError } from "./TokenError.ts"

/**
 * The token endpoint.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenEndpoint extends Context.Tag("effect-alf/TokenEndpoint")<TokenEndpoint, {
  /**
   * Sends a token request with these parameters; client authentication is added to them. Parameters that are given as an
   * Effect are made anew for every attempt.
   */
  readonly request: (
    params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError>,
    options?: AuthorizationServer.RequestOptions
  ) => Effect.Effect<AccessToken, TokenError>
  /** Server, client and method of authentication as configured, for the storage key. Holds no secret. */
  readonly identity: string
}>() {}

/**
 * When and how often a token request is retried.
 *
 * @since 0.1.0
 * @category models
 */
export type RetryOptions = AuthorizationServer.RetryOptions

/**
 * @since 0.1.0
 * @category models
 */
export type Options = AuthorizationServer.Options & LifetimeOptions

/**
 * @since 0.2.0
 * @category models
 */
export interface LifetimeOptions {
  /**
   * How long a token lives whose response has no `expires_in`. Defaults to none: such a token is used until the API
   * rejects it.
   */
  readonly defaultExpiresIn?: Duration.DurationInput | undefined
}

/**
 * The token endpoint, and the authorization server that it belongs to.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<
  {
    readonly tokenEndpoint: TokenEndpoint["Type"]
    readonly authorizationServer: AuthorizationServer.AuthorizationServer["Type"]
  },
  ConfigurationError,
  HttpClient.HttpClient
> =>
  Effect.gen(function*() {
    const defaultExpiresIn = options.defaultExpiresIn === undefined
      ? Option.none()
      : Option.some(yield* finiteDuration("defaultExpiresIn", options.defaultExpiresIn))
    const { send, server } = yield* AuthorizationServer.makeWithSend(options)
    const request = makeRequest(send, defaultExpiresIn, options.dpop !== undefined)
    return { tokenEndpoint: { identity: server.identity, request }, authorizationServer: server }
  })

const makeRequest = (
  send: AuthorizationServer.Send,
  defaultExpiresIn: Option.Option<Duration.Duration>,
  isDPoP: boolean
): TokenEndpoint["Type"]["request"] => {
  let warned: Set<string> | undefined
  return (params, requestOptions = {}) =>
    pipe(
      send("token", params, requestOptions, ({ endpoint, members, requestedScope, sentAt }) => {
        const requested = scopes(requestedScope)
        return pipe(
          decodeToken(members, {
            sentAt,
            requestedScope: requested,
            defaultExpiresIn,
            isDPoP
          }),
          Either.map((decoded) => ({ ...decoded, requested })),
          Either.mapLeft((issue) => new InvalidTokenResponse({ endpoint, issue }))
        )
      }),
      Effect.tap(({ requested, token, warning }) => {
        const isNarrower = requested.some((scope) => !token.scope.includes(scope))
        const isNew = Option.isSome(warning) && warned?.has(warning.value) !== true
        if (isNew) {
          warned ??= new Set()
          warned.add(warning.value)
        }
        return pipe(
          isNew ? Effect.logWarning(`The token response was used, but ${warning.value}`) : Effect.void,
          Effect.zipRight(
            isNarrower
              ? Effect.logDebug("less scope was granted than asked for", { requested, granted: token.scope })
              : Effect.void
          ),
          inModule("TokenEndpoint")
        )
      }),
      Effect.map(({ token }) => token)
    )
}

/**
 * The longest that a request may take by these options: all attempts, timeouts and pauses.
 *
 * @since 0.2.0
 * @category getters
 */
export const longestRequest = (options: AuthorizationServer.RequestSettings): Duration.Duration =>
  Retry.longestRequest(
    options.tokenRetry ?? {},
    Option.getOrElse(Duration.decodeUnknown(options.tokenTimeout ?? "10 seconds"), () => Duration.seconds(10))
  )

/**
 * @example
 * ```ts
 * import { TokenEndpoint } from "effect-alf"
 * import { Redacted } from "effect"
 *
 * export const layer = TokenEndpoint.layer({
 *   tokenEndpoint: "https://auth.example.com/oauth/token",
 *   clientId: "reports",
 *   clientSecret: Redacted.make("secret")
 * })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<
  AuthorizationServer.AuthorizationServer | TokenEndpoint,
  ConfigurationError,
  HttpClient.HttpClient
> =>
  Layer.effectContext(
    Effect.map(make(options), ({ authorizationServer, tokenEndpoint }) =>
      Context.make(TokenEndpoint, tokenEndpoint).pipe(
        Context.add(AuthorizationServer.AuthorizationServer, authorizationServer)
      ))
  )
