/**
 * From the URL of an API to a client that is authorized (RFC 9728), as MCP and others want it: the API names its
 * authorization server, the client registers there, a grant fetches tokens for the API, and the pipeline of `Alf` does the
 * rest.
 *
 * @since 0.2.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Alf from "./Alf.ts"
import * as AuthorizationServer from "./AuthorizationServer.ts"
import * as AuthorizedHttpClient from "./AuthorizedHttpClient.ts"
import * as ClientRegistration from "./ClientRegistration.ts"
import * as Grant from "./Grant.ts"
import { shownUrl } from "./internal/endpoint/discovery.ts"
import { makeExecute } from "./internal/endpoint/execute.ts"
import { discoverWith, type Metadata } from "./internal/endpoint/resourceMetadata.ts"
import { retrySchedule } from "./internal/endpoint/retry.ts"
import { discoverWith as discoverServer } from "./internal/endpoint/serverMetadata.ts"
import { challengeParam, challengesOf, requiredScope } from "./internal/http/challenges.ts"
import { type Connection, makeConnections, type Opener } from "./internal/http/connections.ts"
import { toHttpClientError } from "./internal/http/httpClientError.ts"
import { makeResourceClient } from "./internal/http/resourceClient.ts"
import { anyDuration, endpointUrl, finiteDuration, issue } from "./internal/options.ts"
import { list, scopes } from "./internal/scope.ts"
import type * as TokenEndpoint from "./TokenEndpoint.ts"
import { type ConfigurationError, DiscoveryError } from "./TokenError.ts"
import * as TokenService from "./TokenService.ts"

export {
  /**
   * The metadata of a protected resource: from the URL that a challenge names, else from the well-known URLs.
   *
   * @since 0.2.0
   * @category constructors
   */
  discover,
  /**
   * What a protected resource says of itself (RFC 9728 §2).
   *
   * @since 0.2.0
   * @category models
   */
  Metadata
} from "./internal/endpoint/resourceMetadata.ts"

/**
 * @since 0.2.0
 * @category models
 */
export interface Options<R = never>
  extends
    Omit<AuthorizationServer.RequestSettings, "allowInsecureTokenEndpoint">,
    TokenEndpoint.LifetimeOptions,
    TokenService.SettingsOptions,
    Pick<AuthorizedHttpClient.Options, "header" | "isRejected">
{
  /** The API; for MCP its endpoint. Tokens go to its origin only. */
  readonly resource: string | URL
  /** How the client becomes known to the authorization server: the first registration that the server takes. */
  readonly client:
    | ClientRegistration.ClientRegistration
    | NonEmptyReadonlyArray<ClientRegistration.ClientRegistration>
  /**
   * How a token is fetched. People sign in by `AuthorizationCodeGrant.make({})` or `DeviceCodeGrant.make({})`. Defaults to
   * `Grant.clientCredentials`.
   */
  readonly grant?: Grant.Grant<R> | undefined
  /** The scopes to ask for if the API's challenge names none. Defaults to those that the API lists. */
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** Further parameters of the default grant. Defaults to none. */
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * Both clients and the token service for an API.
 *
 * @since 0.2.0
 * @category constructors
 */
export const make = <R = never>(
  options: Options<R>
): Effect.Effect<Alf.Clients, ConfigurationError, HttpClient.HttpClient | Scope.Scope | R> =>
  Effect.gen(function*() {
    const url = yield* endpointUrl("resource", options.resource)
    const cooldown = yield* anyDuration("refusalCooldown", options.refusalCooldown ?? "1 second")
    const schedule = yield* retrySchedule(options.tokenRetry)
    const timeout = yield* finiteDuration("tokenTimeout", options.tokenTimeout ?? "10 seconds")
    if (options.grant !== undefined && options.params !== undefined) {
      return yield* issue("params is given beside grant, which would ignore it: give params to the grant")
    }
    const grant: Grant.Grant<R> = options.grant ?? Grant.clientCredentials({ params: options.params })
    const execute = yield* makeExecute
    const base = yield* HttpClient.HttpClient
    const context = yield* Effect.context<HttpClient.HttpClient | R>()
    const dpop = options.dpop === undefined ? undefined : Effect.succeed(yield* options.dpop)
    const signsIn = grant.signsIn === true
    const description = {
      grantTypes: grant.registration?.grantTypes ?? [],
      redirectUris: grant.registration?.redirectUris ?? [],
      signsIn
    }
    const registrations = "_tag" in options.client ? [options.client] : options.client
    const choose = ClientRegistration.chooser(registrations)
    const pipeline = { ...tokenOptions(options), dpop, origins: [url.origin] }
    // options that cannot work are found now, not at the first request
    const anyServer = new AuthorizationServer.Metadata({ issuer: url.origin, tokenEndpoint: url.origin })
    for (const registration of registrations) {
      const client = Option.getOrElse(ClientRegistration.clientOf(registration), () => ({ clientId: "client" }))
      yield* Effect.scoped(Alf.make<R>({ ...pipeline, ...client, metadata: anyServer, grant }))
    }

    let isFirst = true
    const open: Opener["open"] = (issuer, resource, scope) =>
      Effect.gen(function*() {
        const metadata = yield* Effect.retry(discoverServer(execute, { issuer }, timeout), schedule())
        const registration = yield* choose(metadata)
        const client = yield* ClientRegistration.register(registration, metadata, description)
        const isLasting = signsIn && metadata.scopesSupported?.includes("offline_access") === true
        const asked = [...new Set([...scope, ...(isLasting ? ["offline_access"] : [])])]
        const narrowed = grant.narrow?.({ scope: asked, resource: resource.resource, isFirst }) ?? grant
        const lifetime = yield* Scope.make()
        const { tokens } = yield* pipe(
          Alf.make<R>({ ...pipeline, ...client, metadata, grant: narrowed }),
          Scope.extend(lifetime),
          Effect.mapError(({ issue }) =>
            new DiscoveryError({ url: shownUrl(metadata.issuer), reason: "Unsupported", description: issue })
          )
        )
        const forget = ClientRegistration.forget(registration, metadata, description, client)
        isFirst = false
        return { issuer: metadata.issuer, resource, scope, tokens, lifetime, forget }
      }).pipe(Effect.provide(context))

    const connections = yield* makeConnections({
      url,
      signsIn,
      open,
      cooldown: Duration.toMillis(cooldown),
      discover: (challenge) =>
        Effect.suspend(() => Effect.retry(discoverWith(execute, url, { challenge, timeout }), schedule())),
      wantedScope: (challenge, resource) => wantedScope(challenge, options.scope, resource)
    })

    const { header, isRejected } = options
    const inner = yield* pipe(
      AuthorizedHttpClient.make({ origins: [url.origin], header, isRejected, dpop }),
      Effect.provideService(TokenService.TokenService, connections.tokens)
    )
    const resource = { ...connections, origin: url.origin }
    const probe = { isOpen: false, first: undefined }
    return {
      tokens: connections.tokens,
      httpClient: makeResourceClient(base, resource, probe, {
        execute: inner.httpClient.execute,
        requiredIn: (response) => response.status === 403 ? requiredScope(challengesOf(response, [])) : undefined,
        requiredInError: () => undefined,
        fail: (error, request) => Effect.fail(toHttpClientError(error, request))
      }),
      authorizedHttpClient: makeResourceClient<Connection, AuthorizedHttpClient.ClientError>(base, resource, probe, {
        execute: inner.authorizedHttpClient.execute,
        requiredIn: () => undefined,
        requiredInError: (error) => error._tag === "InsufficientScope" ? error.required : undefined,
        fail: (error) => Effect.fail(error)
      })
    }
  })

/**
 * A client for an API of which only the URL is known.
 *
 * **Details**
 *
 * The first request goes out without a token, and its 401 leads to the authorization server; requests beside it wait. After
 * a 401 to a token the API's metadata is read again: the API may have moved to another authorization server. A 403
 * `insufficient_scope` asks the person for the missing scope, once.
 *
 * @example
 * ```ts
 * import { ClientRegistration, ProtectedResource } from "effect-alf"
 * import { Redacted } from "effect"
 *
 * export const layer = ProtectedResource.layer({
 *   resource: "https://api.example.com/mcp",
 *   client: ClientRegistration.preRegistered({ clientId: "reports", clientSecret: Redacted.make("secret") })
 * })
 * ```
 *
 * @since 0.2.0
 * @category layers
 */
export const layer = <R = never>(options: Options<R>): Layer.Layer<
  HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
  ConfigurationError,
  HttpClient.HttpClient | R
> =>
  Layer.scopedContext(
    Effect.map(make(options), ({ authorizedHttpClient, httpClient, tokens }) =>
      Context.make(HttpClient.HttpClient, httpClient).pipe(
        Context.add(AuthorizedHttpClient.AuthorizedHttpClient, authorizedHttpClient),
        Context.add(TokenService.TokenService, tokens)
      ))
  )

/** The options that `Alf` takes as they are. */
const tokenOptions = <R>(options: Options<R>) => {
  const {
    client: _client,
    dpop: _dpop,
    grant: _grant,
    params: _params,
    resource: _resource,
    scope: _scope,
    ...further
  } = options
  return further
}

/** Those of the challenge, else those of the options, else those that the API lists. */
const wantedScope = (
  challenge: string | undefined,
  given: Options["scope"],
  { scopesSupported }: Metadata
): ReadonlyArray<string> => {
  const demanded = challengeParam(challenge ?? "", "scope")
  if (demanded !== undefined) return scopes(demanded)
  return given === undefined ? scopesSupported ?? [] : list(given).flatMap(scopes)
}
