/**
 * How a token is fetched (RFC 6749 §1.3): an Effect that ends in an `AccessToken`.
 *
 * A grant knows nothing of caching: it runs when a token is needed, and gets the last token there was.
 *
 * @since 0.1.0
 */
import * as UrlParams from "@effect/platform/UrlParams"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { AccessToken } from "./AccessToken.ts"
import { AuthorizationServer, type Metadata } from "./AuthorizationServer.ts"
import { assertionIssue } from "./internal/assertionError.ts"
import { digest } from "./internal/digest.ts"
import { keyOf, toParams, validate } from "./internal/grantParams.ts"
import { inModule } from "./internal/log.ts"
import { check } from "./internal/options.ts"
import { makeRefresh, refreshTokenOf } from "./internal/token/refresh.ts"
import { TokenEndpoint } from "./TokenEndpoint.ts"
import { type ConfigurationError, type TokenError, TokenRequestError } from "./TokenError.ts"

/**
 * A way to fetch a token. `R` is what it needs beside the authorization server.
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
  /** Fetches a token. `previous` is the last one there was, expired or rejected or not. */
  readonly acquire: (
    previous: Option.Option<AccessToken>
  ) => Effect.Effect<AccessToken, TokenError, AuthorizationServer | TokenEndpoint | R>
  /** Checks the grant's own options; `Alf` runs it when its layer is built. Defaults to no check. */
  readonly validate?: Effect.Effect<void, ConfigurationError> | undefined
  /** How the grant describes itself when a client is registered for it (RFC 7591 §2). Defaults to nothing. */
  readonly registration?: Registration | undefined
  /** The same grant for another scope and resource, for `ProtectedResource`. A grant without it keeps its own. */
  readonly narrow?: ((target: Target) => Grant<R>) | undefined
}

/**
 * @since 0.2.0
 * @category models
 */
export interface Registration {
  /** `grant_types`. */
  readonly grantTypes: ReadonlyArray<string>
  /** `redirect_uris`; empty for grants without a browser. */
  readonly redirectUris: ReadonlyArray<string>
}

/**
 * What a token is for.
 *
 * @since 0.2.0
 * @category models
 */
export interface Target {
  readonly scope: ReadonlyArray<string>
  readonly resource: string
  /** False after the first: the target is another authorization server, or more scope. Defaults to true. */
  readonly isFirst?: boolean | undefined
}

/**
 * What a token request may ask for.
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
  /** Further parameters. Defaults to none. */
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * The client's own credentials (RFC 6749 §4.4).
 *
 * @example
 * ```ts
 * import { Grant } from "effect-alf"
 *
 * export const grant = Grant.clientCredentials({ scope: ["read", "write"], audience: "https://api.example.com" })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const clientCredentials = (options: ClientCredentialsOptions = {}): Grant => {
  const params = toParams("client_credentials", options)
  return {
    key: keyOf("client_credentials", options),
    acquire: () => request(params),
    validate: validate(options),
    registration: { grantTypes: ["client_credentials"], redirectUris: [] },
    narrow: ({ resource, scope }) => clientCredentials({ ...options, scope, resource })
  }
}

/**
 * Any other grant type, for example Zoom's `account_credentials`.
 *
 * **Details**
 *
 * A parameter that is `Redacted` is sent as it is and never shown; only its digest is part of the key. `key` replaces the
 * key that is made of all options.
 *
 * @example
 * ```ts
 * import { Grant } from "effect-alf"
 *
 * export const grant = Grant.make({ grantType: "account_credentials", params: { account_id: "account" } })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const make = (options: {
  /** The `grant_type`. */
  readonly grantType: string
  readonly params?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  readonly scope?: string | ReadonlyArray<string> | undefined
  readonly audience?: string | undefined
  readonly resource?: string | ReadonlyArray<string> | undefined
  readonly key?: string | undefined
}): Grant => {
  const params = toParams(options.grantType, options)
  return {
    key: options.key === undefined ? keyOf(options.grantType, options) : JSON.stringify(["make", options.key]),
    acquire: () => request(params),
    validate: Effect.zipRight(
      check(options.grantType !== "", () => "grantType is empty: write the grant_type that the server expects"),
      validate(options)
    ),
    registration: { grantTypes: [options.grantType], redirectUris: [] },
    narrow: ({ resource, scope }) => make({ ...options, scope, resource })
  }
}

/**
 * What goes along with each refresh (RFC 6749 §6).
 *
 * @since 0.2.0
 * @category models
 */
export interface RefreshOptions {
  /** The scope of each refresh, which some servers need. Defaults to none: that of the grant before. */
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** The resources of each refresh (RFC 8707). Defaults to none. */
  readonly resource?: string | ReadonlyArray<string> | undefined
  /** Further parameters of each refresh. Defaults to none. */
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * The refresh token of the token before (RFC 6749 §6), and `otherwise` where there is none or the server refuses it.
 *
 * **Details**
 *
 * `initial` is a refresh token from elsewhere; it is used as long as there is no token yet. What a response leaves out (the
 * refresh token, the scope, other members) is kept from the token before.
 *
 * A refusal is any permanent error response but `invalid_client`, since servers have many words for a refresh token that is
 * no longer good. Before `otherwise` runs, the storage is read again: if another process has renewed the token already, its
 * token is used, or its refresh token is tried once. If `otherwise` fails too, its error is the result.
 *
 * @example
 * ```ts
 * import { Grant } from "effect-alf"
 * import { Redacted } from "effect"
 *
 * export const grant = Grant.refreshToken(Grant.clientCredentials(), { initial: Redacted.make("refresh-token") })
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const refreshToken = <R = never>(
  otherwise: Grant<R>,
  options: RefreshOptions & { readonly initial?: Redacted.Redacted | undefined } = {}
): Grant<R> => {
  const refresh = makeRefresh(request<never>, options)
  const { narrow } = otherwise
  return {
    ...otherwise,
    // two people's first refresh tokens must not share a key, and a key must not hold a secret
    key: JSON.stringify([
      "refresh_token",
      otherwise.key,
      options.initial === undefined ? null : digest(Redacted.value(options.initial)),
      ...refreshKey(options)
    ]),
    validate: Effect.zipRight(validate(options, refreshReserved), otherwise.validate ?? Effect.void),
    narrow: narrow === undefined
      ? undefined
      : (target) =>
        refreshToken(narrow(target), {
          ...options,
          // it is not shown to another server, and does not widen a grant
          initial: target.isFirst === false ? undefined : options.initial,
          scope: undefined,
          resource: target.resource
        }),
    acquire: (previous) =>
      Option.match(refreshTokenOf(previous, options.initial), {
        onNone: () => otherwise.acquire(previous),
        onSome: (token) =>
          refresh(previous, token, (refusal) =>
            Effect.zipRight(
              inModule("Grant")(Effect.logDebug("the refresh token was refused", { error: refusal.error })),
              otherwise.acquire(Option.none())
            ))
      })
  }
}

/**
 * A refresh token from elsewhere, with nothing to fall back on: the server's refusal is the error (RFC 6749 §6).
 *
 * @example
 * ```ts
 * import { Grant } from "effect-alf"
 * import { Redacted } from "effect"
 *
 * export const grant = Grant.refreshTokenOnly({ initial: Redacted.make("refresh-token") })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const refreshTokenOnly = (
  options: RefreshOptions & { readonly initial: Redacted.Redacted }
): Grant => {
  const refresh = makeRefresh(request<never>, options)
  return {
    key: JSON.stringify(["refresh_token_only", digest(Redacted.value(options.initial)), ...refreshKey(options)]),
    validate: validate(options, refreshReserved),
    registration: { grantTypes: ["refresh_token"], redirectUris: [] },
    acquire: (previous) =>
      refresh(previous, Option.getOrElse(refreshTokenOf(previous, options.initial), () => options.initial), Effect.fail)
  }
}

/**
 * Where an assertion goes to.
 *
 * @since 0.2.0
 * @category models
 */
export interface AssertionTarget {
  readonly issuer: Option.Option<string>
  readonly tokenEndpoint: string
  readonly resource: Option.Option<string>
}

/**
 * An assertion about somebody (RFC 7523 §2.1), made anew for every attempt.
 *
 * @example
 * ```ts
 * import { Grant } from "effect-alf"
 * import { Effect, Redacted } from "effect"
 *
 * export const grant = Grant.jwtBearer({
 *   key: "user@example.com",
 *   assertion: Effect.sync(() => Redacted.make("signed-assertion"))
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const jwtBearer = (options: {
  /** The assertion, as an Effect or made for its target. If it fails, the result is a `TokenRequestError` "Secret". */
  readonly assertion:
    | Effect.Effect<Redacted.Redacted, unknown>
    | ((at: AssertionTarget) => Effect.Effect<Redacted.Redacted, unknown>)
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** The resource that the token is for (RFC 8707). Defaults to none. */
  readonly resource?: string | undefined
  readonly params?: Readonly<Record<string, string>> | undefined
  /** Whom the assertion is about: what tells these tokens from others in a storage. Holds no secret. */
  readonly key: string
}): Grant => {
  const grantType = "urn:ietf:params:oauth:grant-type:jwt-bearer"
  const params = toParams(grantType, options)
  const { assertion } = options
  return {
    key: JSON.stringify(["jwt_bearer", digest(options.key), keyOf(grantType, options)]),
    validate: Effect.zipRight(checkKey(options.key), validate(options, ["assertion"])),
    registration: { grantTypes: [grantType], redirectUris: [] },
    narrow: ({ resource, scope }) => jwtBearer({ ...options, scope, resource }),
    acquire: () =>
      request(Effect.flatMap(
        AuthorizationServer,
        (server) =>
          Effect.flatMap(server.metadata, (metadata) =>
            Effect.map(
              readSecret(
                "The assertion could not be made",
                metadata.tokenEndpoint,
                Effect.isEffect(assertion)
                  ? assertion
                  : Effect.suspend(() => assertion(targetOf(metadata, options.resource)))
              ),
              (value) => UrlParams.append(params, "assertion", value)
            ))
      ))
  }
}

/**
 * Exchanges a token for another one (RFC 8693): for the token of a service further down, or to act for somebody.
 *
 * **Details**
 *
 * Subject and actor token are read for every attempt. `key` tells subjects apart in a shared storage: only its digest is
 * kept. The `issued_token_type` of the response is in `AccessToken.extra`.
 *
 * @example
 * ```ts
 * import { Grant } from "effect-alf"
 * import { Effect, Redacted } from "effect"
 *
 * export const grant = Grant.tokenExchange({
 *   key: "user-42",
 *   subjectToken: Effect.succeed(Redacted.make("the-caller's-token")),
 *   audience: "https://downstream.example.com"
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const tokenExchange = (options: {
  readonly subjectToken: Effect.Effect<Redacted.Redacted, unknown>
  /** Defaults to `urn:ietf:params:oauth:token-type:access_token`. */
  readonly subjectTokenType?: string | undefined
  readonly actorToken?: Effect.Effect<Redacted.Redacted, unknown> | undefined
  /** Defaults to `urn:ietf:params:oauth:token-type:access_token`. */
  readonly actorTokenType?: string | undefined
  readonly requestedTokenType?: string | undefined
  readonly audience?: string | undefined
  readonly resource?: string | ReadonlyArray<string> | undefined
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** Whose token is exchanged. Holds no secret. */
  readonly key: string
}): Grant => {
  const grantType = "urn:ietf:params:oauth:grant-type:token-exchange"
  const { actorToken, subjectToken } = options
  const types = [
    ["subject_token_type", options.subjectTokenType ?? accessTokenType],
    ["actor_token_type", actorToken === undefined ? undefined : options.actorTokenType ?? accessTokenType],
    ["requested_token_type", options.requestedTokenType]
  ] as const
  const params = UrlParams.appendAll(toParams(grantType, options), types)
  return {
    key: JSON.stringify([
      "token_exchange",
      digest(options.key),
      types.map(([_, type]) => type ?? null),
      keyOf(grantType, options)
    ]),
    validate: Effect.zipRight(
      checkKey(options.key),
      check(
        types.every(([_, type]) => type !== ""),
        () => `a token type is empty: write one such as ${accessTokenType}, or leave it out`
      )
    ),
    registration: { grantTypes: [grantType], redirectUris: [] },
    narrow: ({ resource, scope }) => tokenExchange({ ...options, scope, resource }),
    acquire: () =>
      request(Effect.flatMap(TokenEndpoint, () =>
        Effect.zipWith(
          readSecret("The subject token could not be read", "the token endpoint", subjectToken),
          actorToken === undefined
            ? Effect.succeed(undefined)
            : readSecret("The actor token could not be read", "the token endpoint", actorToken),
          (subject, actor) => UrlParams.appendAll(params, [["subject_token", subject], ["actor_token", actor]])
        )))
  }
}

const accessTokenType = "urn:ietf:params:oauth:token-type:access_token"

const request = <R>(
  params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError, R>
): Effect.Effect<AccessToken, TokenError, TokenEndpoint | R> =>
  Effect.flatMap(TokenEndpoint, (endpoint) =>
    Effect.isEffect(params)
      ? Effect.flatMap(Effect.context<R>(), (context) => endpoint.request(Effect.provide(params, context)))
      : endpoint.request(params))

const targetOf = ({ issuer, tokenEndpoint }: Metadata, resource: string | undefined): AssertionTarget => ({
  issuer: issuer === "" ? Option.none() : Option.some(issuer),
  tokenEndpoint,
  resource: Option.fromNullable(resource)
})

/** The failure of an Effect of the user's own is not shown: it may name the secret. */
const readSecret = (description: string, endpoint: string, read: Effect.Effect<Redacted.Redacted, unknown>) =>
  Effect.catchAllCause(
    Effect.map(read, Redacted.value),
    (cause) =>
      Effect.fail(
        new TokenRequestError({
          reason: "Secret",
          endpoint,
          attempts: 1,
          description: assertionIssue(cause, description)
        })
      )
  )

const refreshKey = (options: RefreshOptions): ReadonlyArray<string> =>
  options.scope === undefined && options.resource === undefined && options.params === undefined
    ? []
    : [keyOf("refresh_token", options)]

const refreshReserved: ReadonlyArray<string> = ["refresh_token"]

const checkKey = (key: string): Effect.Effect<void, ConfigurationError> =>
  check(key !== "", () => "key is empty: write whose tokens these are")
