/**
 * The authorization server: where its endpoints are (RFC 8414), and one authenticated POST to any of them.
 *
 * The client's secret, assertion and proof are made for each attempt, put on the wire, and redacted in whatever comes back.
 *
 * @since 0.2.0
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import type * as UrlParams from "@effect/platform/UrlParams"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as ClientAuthentication from "./ClientAuthentication.ts"
import { makeAuthenticatedRequest, type Received } from "./internal/endpoint/authenticatedRequest.ts"
import { isSecure, shownUrl } from "./internal/endpoint/discovery.ts"
import { makeExecute } from "./internal/endpoint/execute.ts"
import { keepFresh } from "./internal/endpoint/keepFresh.ts"
import { sharesFetches } from "./internal/sharing.ts"
import type { MapTokenResponse } from "./internal/endpoint/readTokenResponse.ts"
import { type Retry, type RetryOptions, retrySchedule } from "./internal/endpoint/retry.ts"
import { discoverWith, insecureEndpoint, Metadata } from "./internal/endpoint/serverMetadata.ts"
import type { DPoP } from "./internal/http/presentation.ts"
import { check, checkSecret, endpointUrl, finiteDuration, issue } from "./internal/options.ts"
import { type ConfigurationError, DiscoveryError, type TokenError } from "./TokenError.ts"

export type {
  /**
   * @since 0.2.0
   * @category models
   */
  RetryOptions
}

export {
  /**
   * Discovers the metadata of an issuer (RFC 8414 §3, OpenID Connect Discovery §4).
   *
   * @since 0.2.0
   * @category constructors
   */
  discover,
  /**
   * What an authorization server says of itself (RFC 8414 §2), with names in camel case.
   *
   * @since 0.2.0
   * @category models
   */
  Metadata
} from "./internal/endpoint/serverMetadata.ts"

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
  /** The client identifier, for grants that send a person to the authorization endpoint. */
  readonly clientId: string
}>() {}

/**
 * Where the endpoints are: one of three.
 *
 * @since 0.2.0
 * @category models
 */
export type Server =
  | {
    /** The token endpoint: https, or loopback. A query is kept, a fragment is refused (RFC 6749 §3.2). */
    readonly tokenEndpoint: string | URL
    readonly issuer?: undefined
    readonly expectedIssuer?: undefined
    readonly metadata?: undefined
  }
  | {
    /**
     * The issuer identifier: the metadata is discovered when the first token is needed (RFC 8414, OpenID Connect
     * Discovery).
     */
    readonly issuer: string
    /** The `issuer` that the document has to name. Defaults to `issuer`, character for character. */
    readonly expectedIssuer?: string | undefined
    readonly tokenEndpoint?: undefined
    readonly metadata?: undefined
  }
  | {
    /** Metadata that is known already. */
    readonly metadata: Metadata
    readonly tokenEndpoint?: undefined
    readonly issuer?: undefined
    readonly expectedIssuer?: undefined
  }

/**
 * Who the client is.
 *
 * @since 0.2.0
 * @category models
 */
export interface Client {
  /** The client identifier (RFC 6749 §2.2). */
  readonly clientId: string
  /**
   * The client secret. An Effect (a vault, a file) is run again for each token request. Defaults to none: a public
   * client.
   */
  readonly clientSecret?: Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown> | undefined
  /**
   * How the client proves who it is. Defaults to what the metadata lists: `basic`, else `post`, else `none`; without
   * metadata to `basic`, and without a secret to `none`.
   */
  readonly clientAuthentication?: ClientAuthentication.ClientAuthentication | undefined
}

/**
 * How requests to the authorization server are sent.
 *
 * @since 0.2.0
 * @category models
 */
export interface RequestSettings {
  /**
   * When a token request is retried. A `Schedule` replaces all rules: it sees each error and decides. Defaults to three
   * more attempts, 300 milliseconds apart and doubling.
   */
  readonly tokenRetry?: Retry | undefined
  /** How long one attempt may take. Defaults to 10 seconds. */
  readonly tokenTimeout?: Duration.DurationInput | undefined
  /** Whether the configured token endpoint may be plain http beyond loopback. Defaults to false. */
  readonly allowInsecureTokenEndpoint?: boolean | undefined
  /** How token requests are written. `"json"` is for servers that do not take forms. Defaults to `"form"`. */
  readonly tokenRequestFormat?: "form" | "json" | undefined
  /** Changes the members of each response before anything else sees them, for servers with other names or units. */
  readonly mapTokenResponse?: MapTokenResponse | undefined
  /** The key that tokens are bound to, from `effect-alf/DPoP` (RFC 9449). Defaults to none: Bearer tokens. */
  readonly dpop?: Effect.Effect<DPoP, ConfigurationError> | undefined
  /**
   * Whether callers who need the metadata at the same time share one discovery. Defaults to true; to false on Cloudflare
   * Workers, where a request cannot wait for what another one has begun.
   */
  readonly sharedFetch?: boolean | undefined
}

/**
 * @since 0.2.0
 * @category models
 */
export type Options = Server & Client & RequestSettings

/** Sends a request to an endpoint and reads the members of the response with what belongs to them. */
export type Send = <A>(
  endpoint: Endpoint,
  params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError>,
  options: RequestOptions,
  read: (received: Received) => Either.Either<A, TokenError>
) => Effect.Effect<A, TokenError>

/**
 * @since 0.2.0
 * @category constructors
 */
export const make = (
  options: Options
): Effect.Effect<AuthorizationServer["Type"], ConfigurationError, HttpClient.HttpClient> =>
  Effect.map(makeWithSend(options), ({ server }) => server)

/**
 * The server, and the function behind its `request`, which the token endpoint needs to read a token.
 *
 * @internal
 */
export const makeWithSend = (options: Options): Effect.Effect<
  { readonly server: AuthorizationServer["Type"]; readonly send: Send },
  ConfigurationError,
  HttpClient.HttpClient
> =>
  Effect.gen(function*() {
    const execute = yield* makeExecute
    const schedule = yield* retrySchedule(options.tokenRetry)
    const timeout = yield* finiteDuration("tokenTimeout", options.tokenTimeout ?? "10 seconds")
    yield* checkClient(options)
    const configured = yield* configuredServer(options)
    const dpop = options.dpop === undefined ? Option.none() : Option.some(yield* options.dpop)
    yield* checkAuthentication(options, configured)

    const metadata = configured._tag === "Known" ? Effect.succeed(configured.metadata) : yield* keepFresh(
      Effect.suspend(() => Effect.retry(discoverWith(execute, configured, timeout), schedule())),
      sharesFetches(options.sharedFetch)
    )
    const request = makeAuthenticatedRequest({
      execute,
      schedule,
      timeout,
      dpop,
      clientId: options.clientId,
      clientSecret: options.clientSecret,
      format: options.tokenRequestFormat ?? "form",
      mapTokenResponse: options.mapTokenResponse,
      isConfiguredEndpoint: options.tokenEndpoint !== undefined
    })

    const send: Send = (endpoint, params, requestOptions, read) =>
      Effect.flatMap(metadata, (metadata) => {
        const authentication = options.clientAuthentication ??
          authenticationOf(metadata, options.clientSecret !== undefined)
        return Effect.flatMap(endpointOf(metadata, endpoint, authentication), (url) =>
          request(
            {
              url,
              authentication,
              isToken: endpoint === "token",
              isBodyIgnored: endpoint === "revocation",
              destination: {
                endpoint: url,
                tokenEndpoint: metadata.tokenEndpoint,
                issuer: Option.liftPredicate((issuer: string) => issuer !== "")(metadata.issuer)
              }
            },
            params,
            requestOptions,
            read
          ))
      })

    return {
      send,
      server: {
        metadata,
        request: (endpoint, params, requestOptions = {}) =>
          send(endpoint, params, requestOptions, ({ members }) => Either.right(members)),
        clientId: options.clientId,
        identity: JSON.stringify([
          ...configured.identity,
          options.clientId,
          methodOf(options),
          ...Option.toArray(Option.map(dpop, ({ thumbprint }) => thumbprint))
        ])
      }
    }
  })

/**
 * **Gotchas**
 *
 * A redirect is an error and is not followed: the secret goes to one URL only. Over fetch that is done with
 * `redirect: "manual"`, in a `FetchHttpClient.RequestInit` that replaces one which the client's own layer was built with,
 * for token requests only. A client below that follows redirects by itself (`HttpClient.followRedirects`, undici's
 * `redirect` interceptor, a `RequestInit` that is provided around each request) has sent the secret before this library
 * sees the response. Put `followRedirects` above the authorized client instead.
 *
 * @example
 * ```ts
 * import { AuthorizationServer } from "effect-alf"
 *
 * export const layer = AuthorizationServer.layer({ issuer: "https://auth.example.com", clientId: "reports" })
 * ```
 *
 * @since 0.2.0
 * @category layers
 */
export const layer = (
  options: Options
): Layer.Layer<AuthorizationServer, ConfigurationError, HttpClient.HttpClient> =>
  Layer.effect(AuthorizationServer, make(options))

type Configured =
  & { readonly identity: ReadonlyArray<string> }
  & (
    | { readonly _tag: "Known"; readonly metadata: Metadata }
    | { readonly _tag: "Discovered"; readonly issuer: string; readonly expectedIssuer: string | undefined }
  )

const configuredServer = (options: Options): Effect.Effect<Configured, ConfigurationError> =>
  Effect.gen(function*() {
    const given = [options.tokenEndpoint, options.issuer, options.metadata].filter((option) => option !== undefined)
    yield* check(given.length === 1, () =>
      "give exactly one of tokenEndpoint, issuer and metadata, such as tokenEndpoint: \"https://auth.example.com/oauth/token\"")
    if (options.metadata !== undefined) {
      const { metadata } = options
      const { authorizationEndpoint, tokenEndpoint } = metadata
      if (tokenEndpoint !== "" || authorizationEndpoint === undefined) {
        yield* endpointUrl("metadata.tokenEndpoint", tokenEndpoint)
      }
      const insecure = insecureEndpoint(metadata)
      yield* check(insecure === undefined, () =>
        `metadata: ${insecure} is neither https nor loopback: write an absolute URL that is`)
      return { _tag: "Known", metadata, identity: [metadata.issuer, metadata.tokenEndpoint] }
    }
    if (options.issuer !== undefined) {
      yield* endpointUrl("issuer", options.issuer)
      return {
        _tag: "Discovered",
        issuer: options.issuer,
        expectedIssuer: options.expectedIssuer,
        identity: [options.issuer]
      }
    }
    const url = yield* endpointUrl("tokenEndpoint", options.tokenEndpoint ?? "", {
      allowInsecure: options.allowInsecureTokenEndpoint
    })
    const tokenEndpoint = url.toString()
    return { _tag: "Known", metadata: new Metadata({ issuer: "", tokenEndpoint }), identity: [tokenEndpoint] }
  })

const checkClient = (
  { clientId, clientSecret, tokenRequestFormat }: Options
): Effect.Effect<void, ConfigurationError> =>
  Effect.gen(function*() {
    yield* check(typeof clientId === "string" && clientId !== "", () =>
      "clientId is empty: write the identifier that the authorization server gave this client")
    yield* check(
      clientSecret === undefined || Redacted.isRedacted(clientSecret) || Effect.isEffect(clientSecret),
      () =>
        "clientSecret must be a Redacted or an Effect: write Redacted.make(…), or Config.redacted(…)"
    )
    if (Redacted.isRedacted(clientSecret)) yield* checkSecret("clientSecret", Redacted.value(clientSecret))
    yield* check(
      tokenRequestFormat === undefined || tokenRequestFormat === "form" || tokenRequestFormat === "json",
      () => "tokenRequestFormat must be \"form\" or \"json\""
    )
  })

const checkAuthentication = (options: Options, configured: Configured): Effect.Effect<void, ConfigurationError> =>
  Effect.gen(function*() {
    const authentication = options.clientAuthentication
    if (authentication === undefined) return
    yield* check(
      !authentication.requiresSecret || options.clientSecret !== undefined,
      () =>
        `clientAuthentication (${authentication.method}) needs a clientSecret: give one, or use ClientAuthentication.none`
    )
    const wrong = authentication.issue(options.clientId)
    if (Option.isSome(wrong)) return yield* issue(`clientId: ${wrong.value}`)
    const isIssuerKnown = configured._tag === "Discovered" || configured.metadata.issuer !== ""
    const unknown = authentication.issueWithoutIssuer
    if (!isIssuerKnown && unknown !== undefined) return yield* issue(unknown)
    if (authentication.validate !== undefined) yield* authentication.validate
  })

/** What the storage key says of the method: never what was discovered. */
const methodOf = (options: Options): string =>
  options.clientAuthentication?.method ??
    (options.clientSecret === undefined ? ClientAuthentication.none : ClientAuthentication.basic).method

const authenticationOf = (
  { tokenEndpointAuthMethodsSupported: supported }: Metadata,
  hasSecret: boolean
): ClientAuthentication.ClientAuthentication => {
  if (!hasSecret) return ClientAuthentication.none
  if (supported === undefined || supported.includes("client_secret_basic")) return ClientAuthentication.basic
  if (supported.includes("client_secret_post")) return ClientAuthentication.post
  return supported.includes("none") ? ClientAuthentication.none : ClientAuthentication.basic
}

const endpointOf = (
  metadata: Metadata,
  endpoint: Endpoint,
  { method }: ClientAuthentication.ClientAuthentication
): Effect.Effect<string, DiscoveryError> => {
  if (endpoint instanceof URL) {
    return isSecure(endpoint.href)
      ? Effect.succeed(endpoint.href)
      : Effect.fail(
        new DiscoveryError({
          url: shownUrl(endpoint.href),
          reason: "Invalid",
          description: "The endpoint must be an https or loopback URL"
        })
      )
  }
  const name = `${endpoint}Endpoint` as const
  const alias = method === ClientAuthentication.tls.method ? metadata.mtlsEndpointAliases?.[name] : undefined
  const url = alias ?? metadata[name]
  return url !== undefined && url !== "" ? Effect.succeed(url) : Effect.fail(
    new DiscoveryError({
      url: shownUrl(metadata.issuer === "" ? metadata.tokenEndpoint : metadata.issuer),
      reason: "Unsupported",
      description: `The authorization server has no ${name}: give issuer or metadata that names one`
    })
  )
}
