/** The metadata of a protected resource (RFC 9728): how it is found, and what it has to be about. */
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { DiscoveryError } from "../../TokenError.ts"
import { challengeParam } from "../http/challenges.ts"
import { endpointUrl } from "../options.ts"
import { defined, fetchDocument, insertedUrl, isSecure, reader, shownUrl } from "./discovery.ts"
import { type Execute, makeExecute } from "./execute.ts"
import type { Members } from "./parseMembers.ts"

/**
 * What a protected resource says of itself (RFC 9728 §2), with names in camel case.
 *
 * @since 0.2.0
 * @category models
 */
export class Metadata extends Schema.Class<Metadata>("effect-alf/ProtectedResource/Metadata")({
  resource: Schema.String,
  authorizationServers: Schema.Array(Schema.String),
  scopesSupported: Schema.optional(Schema.Array(Schema.String)),
  bearerMethodsSupported: Schema.optional(Schema.Array(Schema.String)),
  resourceName: Schema.optional(Schema.String),
  resourceDocumentation: Schema.optional(Schema.String),
  dpopSigningAlgValuesSupported: Schema.optional(Schema.Array(Schema.String)),
  dpopBoundAccessTokensRequired: Schema.optional(Schema.Boolean)
}) {}

/**
 * The metadata of a protected resource: from the URL that a challenge names in `resource_metadata`, else from the
 * well-known URLs, first with the resource's path inserted, then at the root (RFC 9728 §3).
 *
 * @example
 * ```ts
 * import { ProtectedResource } from "effect-alf"
 *
 * export const metadata = ProtectedResource.discover("https://api.example.com/mcp")
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const discover = (
  resource: string | URL,
  options: {
    /** The text of a `WWW-Authenticate` header. Defaults to none: the well-known URLs are asked. */
    readonly challenge?: string | undefined
  } = {}
): Effect.Effect<Metadata, DiscoveryError, HttpClient.HttpClient> =>
  Effect.flatMap(makeExecute, (execute) => discoverWith(execute, resource, options))

export const discoverWith = (
  execute: Execute,
  resource: string | URL,
  { challenge = "", timeout }: { readonly challenge?: string | undefined; readonly timeout?: Duration.Duration }
): Effect.Effect<Metadata, DiscoveryError> =>
  Effect.gen(function*() {
    const url = yield* Either.mapLeft(
      endpointUrl("resource", resource),
      ({ issue }) => new DiscoveryError({ url: shownUrl(String(resource)), reason: "Invalid", description: issue })
    )
    const named = challengeParam(challenge, "resource_metadata")
    if (named !== undefined && !isSecure(named)) {
      return yield* new DiscoveryError({
        url: shownUrl(named),
        reason: "Invalid",
        description: "The API names a metadata document at a URL that is neither https nor loopback"
      })
    }
    const name = "oauth-protected-resource"
    const candidates = named === undefined
      ? new Set([insertedUrl(url, name), insertedUrl(new URL(url.origin), name)])
      : new Set([named])
    for (const candidate of candidates) {
      const hasResource = (members: Members) => typeof members["resource"] === "string"
      const document = yield* fetchDocument(execute, candidate, hasResource, timeout)
      if (Option.isSome(document)) return yield* decode(document.value, candidate, url)
    }
    return yield* new DiscoveryError({
      url: shownUrl(url.href),
      reason: "NotFound",
      description:
        "The API has no metadata at the well-known URLs (RFC 9728): use Alf.layer with its token endpoint or issuer"
    })
  })

const decode = (
  members: Readonly<Record<string, unknown>>,
  at: string,
  url: URL
): Either.Either<Metadata, DiscoveryError> => {
  const { flag, text, texts } = reader(members)
  const resource = text("resource") ?? ""
  if (!isAbout(resource, url)) {
    return Either.left(
      new DiscoveryError({
        url: shownUrl(at),
        reason: "ResourceMismatch",
        description: `The metadata is about another resource than ${shownUrl(url.href)}`
      })
    )
  }
  return Either.right(
    new Metadata({
      resource,
      authorizationServers: texts("authorization_servers") ?? [],
      ...defined({
        scopesSupported: texts("scopes_supported"),
        bearerMethodsSupported: texts("bearer_methods_supported"),
        resourceName: text("resource_name"),
        resourceDocumentation: text("resource_documentation"),
        dpopSigningAlgValuesSupported: texts("dpop_signing_alg_values_supported"),
        dpopBoundAccessTokensRequired: flag("dpop_bound_access_tokens_required")
      })
    })
  )
}

/** Whether a resource identifier is the resource, or a path prefix of it on the same origin. */
const isAbout = (identifier: string, url: URL): boolean => {
  if (!URL.canParse(identifier)) return false
  const { origin, pathname } = new URL(identifier)
  const prefix = pathname.endsWith("/") ? pathname : `${pathname}/`
  return origin === url.origin && `${url.pathname}/`.startsWith(prefix)
}
