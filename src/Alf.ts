/**
 * The front door: tell it a token endpoint, a client and where the token may go, and every request to those places
 * carries a valid access token.
 *
 * It wires the street: a grant asks the token endpoint, the token service keeps one token valid, the middleware puts it
 * on requests. Each part can be used, and replaced in a test, on its own.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { AuthorizationServer } from "./AuthorizationServer.ts"
import * as AuthorizedHttpClient from "./AuthorizedHttpClient.ts"
import * as Grant from "./Grant.ts"
import { anyDuration, check } from "./internal/options.ts"
import * as TokenEndpoint from "./TokenEndpoint.ts"
import { type ConfigurationError, DiscoveryError } from "./TokenError.ts"
import * as TokenService from "./TokenService.ts"

/**
 * `R` is what the grant requires; the layer requires it too.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never>
  extends
    TokenEndpoint.Options,
    Grant.ClientCredentialsOptions,
    TokenService.WindowOptions,
    AuthorizedHttpClient.Options
{
  /**
   * How a token is got. With a grant of your own, `scope`, `audience`, `resource` and `params` belong to that grant.
   * Defaults to `Grant.clientCredentials` with those four options.
   */
  readonly grant?: Grant.Grant<R> | undefined
}

/**
 * Both clients and the token service, for programs with two APIs: one `make` each, each under a tag of one's own.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <R = never>(options: Options<R>): Effect.Effect<
  {
    /** The drop-in client: an `HttpClient` like any other. */
    readonly httpClient: HttpClient.HttpClient
    /** The typed client: token errors and surviving 401s in its error type. */
    readonly authorizedHttpClient: AuthorizedHttpClient.AuthorizedHttpClient["Type"]
    readonly tokens: TokenService.TokenService["Type"]
  },
  ConfigurationError,
  HttpClient.HttpClient | Scope.Scope | R
> =>
  Effect.gen(function*() {
    for (const field of ["expiryLeeway", "refreshAhead", "refusalCooldown"] as const) {
      const duration = options[field]
      if (duration !== undefined) yield* anyDuration(field, duration)
    }
    for (const name of ["grant_type", "client_id", "client_secret"]) {
      yield* check(!Object.hasOwn(options.params ?? {}, name), () =>
        `params.${name} is not yours to set: use grant, clientId or clientSecret`)
    }
    for (const name of ["scope", "audience"] as const) {
      yield* check(options[name] === undefined || !Object.hasOwn(options.params ?? {}, name), () =>
        `params.${name} is given beside ${name}: give one of the two (RFC 6749 §3.2)`)
    }
    const grant: Grant.Grant<R> = options.grant ?? Grant.clientCredentials(options)
    if (grant.validate !== undefined) {
      yield* grant.validate
    }

    const endpoint = yield* TokenEndpoint.make(options)
    const unsupported = new DiscoveryError({ url: "", reason: "Unsupported", description: "no metadata" })
    const tokens = yield* TokenService.make({ ...options, grant }).pipe(
      Effect.provideService(TokenEndpoint.TokenEndpoint, endpoint),
      Effect.provideService(AuthorizationServer, {
        identity: endpoint.identity,
        metadata: Effect.fail(unsupported),
        request: () =>
          Effect.fail(unsupported)
      })
    )
    const clients = yield* Effect.provideService(AuthorizedHttpClient.make(options), TokenService.TokenService, tokens)
    return { ...clients, tokens }
  })

/**
 * An `HttpClient` that carries a valid token to the listed origins, over the `HttpClient` that it is given.
 *
 * **Gotchas**
 *
 * - `HttpClient.followRedirects` belongs over this client, where each hop is judged by its own origin. Under it, every
 *   header is forwarded to wherever a redirect leads, the token too.
 * - A base URL (`HttpClientRequest.prependUrl`) belongs over it too: the origin has to be known here.
 * - A token that is sent to plain http can be read on the way. List such origins only if you know the way.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <R = never>(options: Options<R>): Layer.Layer<
  HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
  ConfigurationError,
  HttpClient.HttpClient | R
> => Layer.scopedContext(Effect.map(make(options), toContext))

/**
 * The same, with options that are plain values or `Config`s, side by side.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = <R = never>(
  options: { readonly [K in keyof Options<R>]: Options<R>[K] | Config.Config<Options<R>[K]> }
): Layer.Layer<
  HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
  ConfigurationError | ConfigError.ConfigError,
  HttpClient.HttpClient | R
> => Layer.unwrapEffect(Effect.map(resolve<Options<R>>(options), layer))

const resolve = <O>(
  options: { readonly [K in keyof O]: O[K] | Config.Config<O[K]> }
): Effect.Effect<O, ConfigError.ConfigError> =>
  Effect.map(
    Effect.forEach(Object.entries(options), ([name, value]) =>
      Effect.map(Config.isConfig(value) ? value : Effect.succeed(value), (resolved) =>
        [name, resolved] as const)),
    // the entries of `options`, each config replaced by what it holds
    (entries) =>
      Object.fromEntries(entries) as O
  )

const toContext = (
  { authorizedHttpClient, httpClient, tokens }: Effect.Effect.Success<ReturnType<typeof make>>
) =>
  Context.make(HttpClient.HttpClient, httpClient).pipe(
    Context.add(AuthorizedHttpClient.AuthorizedHttpClient, authorizedHttpClient),
    Context.add(TokenService.TokenService, tokens)
  )
