/**
 * The authorization server: where its endpoints are (RFC 8414), and one authenticated POST to any of them.
 *
 * @since 0.2.0
 */
import type * as UrlParams from "@effect/platform/UrlParams"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { TokenError } from "./TokenError.ts"

/**
 * What an authorization server says of itself (RFC 8414 §2), with names in camel case.
 *
 * @since 0.2.0
 * @category models
 */
export class Metadata extends Schema.Class<Metadata>("effect-alf/AuthorizationServer/Metadata")({
  issuer: Schema.String,
  tokenEndpoint: Schema.String,
  authorizationEndpoint: Schema.optional(Schema.String),
  deviceAuthorizationEndpoint: Schema.optional(Schema.String),
  revocationEndpoint: Schema.optional(Schema.String),
  pushedAuthorizationRequestEndpoint: Schema.optional(Schema.String),
  requirePushedAuthorizationRequests: Schema.optional(Schema.Boolean),
  registrationEndpoint: Schema.optional(Schema.String),
  grantTypesSupported: Schema.optional(Schema.Array(Schema.String)),
  scopesSupported: Schema.optional(Schema.Array(Schema.String)),
  codeChallengeMethodsSupported: Schema.optional(Schema.Array(Schema.String)),
  tokenEndpointAuthMethodsSupported: Schema.optional(Schema.Array(Schema.String)),
  dpopSigningAlgValuesSupported: Schema.optional(Schema.Array(Schema.String)),
  authorizationResponseIssParameterSupported: Schema.optional(Schema.Boolean),
  clientIdMetadataDocumentSupported: Schema.optional(Schema.Boolean),
  mtlsEndpointAliases: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String }))
}) {}

/**
 * An endpoint by its name, or by its URL.
 *
 * @since 0.2.0
 * @category models
 */
export type Endpoint = "token" | "revocation" | "deviceAuthorization" | "pushedAuthorizationRequest" | URL

/**
 * @since 0.2.0
 * @category models
 */
export interface RequestOptions {
  /** `false` sends the request once. Defaults to the retries of the options. */
  readonly retry?: false | undefined
  /** `false` leaves the request out of the metrics. Defaults to counting it. */
  readonly count?: false | undefined
  /**
   * `true` for what may be used once, such as an authorization code: it is sent again only if the connection was refused,
   * so that the server cannot have received it. Defaults to false.
   */
  readonly once?: boolean | undefined
}

/**
 * The authorization server, as one client sees it.
 *
 * @since 0.2.0
 * @category tags
 */
export class AuthorizationServer extends Context.Tag("effect-alf/AuthorizationServer")<AuthorizationServer, {
  /** Fetched once and kept for an hour; the last good document if a later fetch fails. */
  readonly metadata: Effect.Effect<Metadata, TokenError>
  /** Sends an authenticated POST and returns the members of the response, unjudged. */
  readonly request: (
    endpoint: Endpoint,
    params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError>,
    options?: RequestOptions
  ) => Effect.Effect<Readonly<Record<string, unknown>>, TokenError>
  /** Server, client and method of authentication as configured, for the storage key. Holds no secret. */
  readonly identity: string
}>() {}
