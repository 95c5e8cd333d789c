/**
 * What is asked of the token endpoint (RFC 6749 §1.3): an Effect that ends in an `AccessToken`.
 *
 * A grant knows nothing of caching: it is run when a token is needed, and gets the last token there was.
 *
 * @since 0.1.0
 */
import * as UrlParams from "@effect/platform/UrlParams"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken } from "./AccessToken.ts"
import type { AuthorizationServer } from "./AuthorizationServer.ts"
import { digest } from "./internal/digest.ts"
import { scopes } from "./internal/endpoint/decodeToken.ts"
import { TokenEndpoint } from "./TokenEndpoint.ts"
import type { ConfigurationError, TokenError } from "./TokenError.ts"

/**
 * A way to get a token. `R` is what it needs beside the token endpoint.
 *
 * @since 0.1.0
 * @category models
 */
export interface Grant<R = never> {
  /** All that tells this grant's tokens from another grant's; part of the storage key. Holds no secret. */
  readonly key: string
  /** Whether a person has to do something for it. Defaults to false. */
  readonly signsIn?: boolean | undefined
  /** What it adds to the deadline of a fetch: how long a person may take. Defaults to nothing. */
  readonly patience?: Duration.Duration | undefined
  /** Gets a token. `previous` is the last one there was, expired or refused or not. */
  readonly acquire: (
    previous: Option.Option<AccessToken>
  ) => Effect.Effect<AccessToken, TokenError, AuthorizationServer | TokenEndpoint | R>
  /** Checks the grant's own options; `Alf` runs it when its layer is built. Defaults to no check. */
  readonly validate?: Effect.Effect<void, ConfigurationError> | undefined
}

/**
 * What a client-credentials grant asks for.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientCredentialsOptions {
  /** The scopes to ask for (RFC 6749 §3.3): one string with spaces, or a list. Defaults to none. */
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** The `audience` parameter, which some authorization servers need. Defaults to none. */
  readonly audience?: string | undefined
  /** The resources that the token is for (RFC 8707). Defaults to none. */
  readonly resource?: string | ReadonlyArray<string> | undefined
  /** Further form parameters. Defaults to none. */
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * The client's own credentials (RFC 6749 §4.4).
 *
 * @since 0.1.0
 * @category constructors
 */
export const clientCredentials = (options: ClientCredentialsOptions = {}): Grant => {
  const scope = list(options.scope).flatMap(scopes)
  const resource = list(options.resource)
  const further = Object.entries(options.params ?? {})
  const params = UrlParams.fromInput([
    ["grant_type", "client_credentials"],
    ...(scope.length === 0 ? [] : [["scope", scope.join(" ")] as const]),
    ["audience", options.audience],
    ...resource.map((uri) => ["resource", uri] as const),
    ...further
  ])
  return {
    key: JSON.stringify([
      "client_credentials",
      [...new Set(scope)].sort(),
      options.audience ?? null,
      [...new Set(resource)].sort(),
      further.sort(([a], [b]) => a < b ? -1 : 1)
    ]),
    acquire: () => Effect.flatMap(TokenEndpoint, (endpoint) => endpoint.request(params))
  }
}

/**
 * The refresh token of the token before (RFC 6749 §6), and `otherwise` where there is none or it is no longer good
 * (`invalid_grant`).
 *
 * **Details**
 *
 * `initial` is a refresh token that was got elsewhere; it is used as long as there is no token yet. A refresh token
 * that the server does not replace stays in use, and so do the scopes.
 *
 * @since 0.1.0
 * @category constructors
 */
export const refreshToken = <R = never>(
  otherwise: Grant<R>,
  options: { readonly initial?: Redacted.Redacted | undefined } = {}
): Grant<R> => ({
  validate: otherwise.validate,
  signsIn: otherwise.signsIn,
  patience: otherwise.patience,
  // two people's first refresh tokens must not share a key, and a key must not hold a secret
  key: JSON.stringify([
    "refresh_token",
    otherwise.key,
    options.initial === undefined ? null : digest(Redacted.value(options.initial))
  ]),
  acquire: (previous) => {
    const secret = Option.match(previous, {
      onNone: () => Option.fromNullable(options.initial),
      onSome: (token) => token.refreshToken
    })
    if (Option.isNone(secret)) return otherwise.acquire(previous)
    return pipe(
      Effect.flatMap(TokenEndpoint, (endpoint) =>
        endpoint.request(
          UrlParams.fromInput({ grant_type: "refresh_token", refresh_token: Redacted.value(secret.value) })
        )),
      Effect.map((token) =>
        new AccessToken({
          ...token,
          refreshToken: Option.orElse(token.refreshToken, () => secret),
          scope: token.scope.length > 0 || Option.isNone(previous) ? token.scope : previous.value.scope
        })
      ),
      Effect.catchTag(
        "TokenErrorResponse",
        (error) => error.error === "invalid_grant" ? otherwise.acquire(Option.none()) : Effect.fail(error)
      )
    )
  }
})

const list = (input: string | ReadonlyArray<string> | undefined): ReadonlyArray<string> =>
  input === undefined ? [] : typeof input === "string" ? [input] : input
