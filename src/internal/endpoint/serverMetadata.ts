/** The metadata of an authorization server (RFC 8414): how it is found, and what it has to hold. */
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { DiscoveryError } from "../../TokenError.ts"
import { endpointUrl } from "../options.ts"
import {
  appendedUrl,
  defined,
  fetchDocument,
  insertedUrl,
  invalidDocument,
  isSecure,
  isText,
  reader,
  shownUrl
} from "./discovery.ts"
import { type Execute, makeExecute } from "./execute.ts"
import type { Members } from "./parseMembers.ts"

/**
 * What an authorization server says of itself (RFC 8414 §2), with names in camel case.
 *
 * @since 0.2.0
 * @category models
 */
export class Metadata extends Schema.Class<Metadata>("effect-alf/AuthorizationServer/Metadata")({
  /** Empty where the options name nothing but a token endpoint. */
  issuer: Schema.String,
  /** Empty where a server has none, because it knows nothing but the implicit grant. */
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
  /** The endpoints for clients with a certificate (RFC 8705 §5), by the names of this class. */
  mtlsEndpointAliases: Schema.optional(Schema.Record({ key: Schema.String, value: Schema.String }))
}) {
  /**
   * Metadata from the JSON that a server publishes. Members that are unknown, or of another type than RFC 8414 says, are
   * ignored; an endpoint that is neither https nor loopback makes the document unusable.
   */
  static fromJson(json: unknown): Either.Either<Metadata, DiscoveryError> {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      return invalidDocument("", "The metadata document is not a JSON object")
    }
    const { flag, text, texts } = reader(json)
    const issuer = text("issuer")
    if (issuer === undefined) return invalidDocument("", "The metadata document has no issuer")
    const aliases = aliasesOf(Reflect.get(json, "mtls_endpoint_aliases"))
    const endpoints = {
      tokenEndpoint: text("token_endpoint"),
      authorizationEndpoint: text("authorization_endpoint"),
      deviceAuthorizationEndpoint: text("device_authorization_endpoint"),
      revocationEndpoint: text("revocation_endpoint"),
      pushedAuthorizationRequestEndpoint: text("pushed_authorization_request_endpoint"),
      registrationEndpoint: text("registration_endpoint")
    }
    const { authorizationEndpoint, tokenEndpoint = "" } = endpoints
    if (tokenEndpoint === "" && authorizationEndpoint === undefined) {
      return invalidDocument(issuer, "The metadata document has no token_endpoint")
    }
    const insecure = insecureEndpoint({ ...endpoints, mtlsEndpointAliases: aliases })
    if (insecure !== undefined) {
      return invalidDocument(issuer, `${insecure} in the metadata document is neither https nor loopback`)
    }
    return Either.right(
      new Metadata({
        issuer,
        tokenEndpoint,
        ...defined({
          ...endpoints,
          tokenEndpoint,
          requirePushedAuthorizationRequests: flag("require_pushed_authorization_requests"),
          grantTypesSupported: texts("grant_types_supported"),
          scopesSupported: texts("scopes_supported"),
          codeChallengeMethodsSupported: texts("code_challenge_methods_supported"),
          tokenEndpointAuthMethodsSupported: texts("token_endpoint_auth_methods_supported"),
          dpopSigningAlgValuesSupported: texts("dpop_signing_alg_values_supported"),
          authorizationResponseIssParameterSupported: flag("authorization_response_iss_parameter_supported"),
          clientIdMetadataDocumentSupported: flag("client_id_metadata_document_supported"),
          mtlsEndpointAliases: aliases
        })
      })
    )
  }
}

const endpointNames = [
  "tokenEndpoint",
  "authorizationEndpoint",
  "deviceAuthorizationEndpoint",
  "revocationEndpoint",
  "pushedAuthorizationRequestEndpoint",
  "registrationEndpoint"
] as const

/** The name of an endpoint that secrets must not be sent to. The name of an alias is the server's own, and not shown. */
export const insecureEndpoint = (
  metadata:
    & {
      readonly [name in typeof endpointNames[number]]?: string | undefined
    }
    & { readonly mtlsEndpointAliases?: Readonly<Record<string, string>> | undefined }
): string | undefined => {
  const isInsecure = (url = "") => url !== "" && !isSecure(url)
  const aliases = Object.values(metadata.mtlsEndpointAliases ?? {})
  return endpointNames.find((name) => isInsecure(metadata[name])) ??
    (aliases.some((url) => isInsecure(url)) ? "an endpoint of mtlsEndpointAliases" : undefined)
}

/** Aliases after these are ignored: no server has so many endpoints, … */
const maxAliases = 100

/** … or one with a longer name, in characters. */
const maxAliasName = 100

const aliasesOf = (value: unknown): Readonly<Record<string, string>> | undefined =>
  typeof value !== "object" || value === null ? undefined : Object.fromEntries(
    Object.entries(value).slice(0, maxAliases).flatMap(([name, url]) =>
      isText(url) && name.length <= maxAliasName ? [[camelCase(name), url]] : []
    )
  )

const camelCase = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

/**
 * Discovers the metadata of an issuer (RFC 8414 §3, OpenID Connect Discovery §4).
 *
 * **Details**
 *
 * The URLs are asked in this order: RFC 8414 with the issuer's path inserted, OpenID with the path inserted, OpenID
 * appended. The document must name the issuer character for character, and no redirect is followed.
 *
 * @example
 * ```ts
 * import { AuthorizationServer } from "effect-alf"
 *
 * export const metadata = AuthorizationServer.discover("https://auth.example.com")
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const discover = (
  issuer: string,
  options: {
    /** The `issuer` that the document has to name. Defaults to `issuer`. */
    readonly expectedIssuer?: string | undefined
  } = {}
): Effect.Effect<Metadata, DiscoveryError, HttpClient.HttpClient> =>
  Effect.flatMap(makeExecute, (execute) => discoverWith(execute, { issuer, expectedIssuer: options.expectedIssuer }))

export const discoverWith = (
  execute: Execute,
  { expectedIssuer: expected, issuer }: { readonly issuer: string; readonly expectedIssuer?: string | undefined },
  timeout?: Duration.Duration
): Effect.Effect<Metadata, DiscoveryError> =>
  Effect.gen(function*() {
    const expectedIssuer = expected ?? issuer
    const url = yield* Either.mapLeft(
      endpointUrl("issuer", issuer),
      ({ issue }) => new DiscoveryError({ url: shownUrl(issuer), reason: "Invalid", description: issue })
    )
    const candidates = new Set([
      insertedUrl(url, "oauth-authorization-server"),
      insertedUrl(url, "openid-configuration"),
      appendedUrl(url, "openid-configuration")
    ])
    for (const candidate of candidates) {
      const hasIssuer = (members: Members) => typeof members["issuer"] === "string"
      const document = yield* fetchDocument(execute, candidate, hasIssuer, timeout)
      if (Option.isNone(document)) continue
      if (document.value["issuer"] !== expectedIssuer) {
        return yield* new DiscoveryError({
          url: shownUrl(candidate),
          reason: "IssuerMismatch",
          description:
            `The metadata document names another issuer than ${shownUrl(expectedIssuer)}: write the issuer as ` +
            "the document does, or give expectedIssuer"
        })
      }
      return yield* Metadata.fromJson(document.value)
    }
    return yield* new DiscoveryError({
      url: shownUrl(issuer),
      reason: "NotFound",
      description: "No metadata was found at the well-known URLs of the issuer: check it, or give tokenEndpoint"
    })
  }).pipe(
    Effect.withSpan("AuthorizationServer.discover", {
      captureStackTrace: false,
      attributes: { issuer: shownUrl(issuer) }
    })
  )
