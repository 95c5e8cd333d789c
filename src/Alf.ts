/**
 * The front door: given a token endpoint or an issuer, a client and the origins of an API, every request to that API
 * carries a valid access token.
 *
 * It wires the pipeline: a grant fetches tokens from the token endpoint, the token service keeps one valid, the middleware
 * puts it on requests. Each part can be used, and replaced in a test, on its own.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as AuthorizationServer from "./AuthorizationServer.ts"
import * as AuthorizedHttpClient from "./AuthorizedHttpClient.ts"
import * as Grant from "./Grant.ts"
import type { DPoP } from "./internal/http/presentation.ts"
import { layerRuntime } from "./internal/layerRuntime.ts"
import { check, issue } from "./internal/options.ts"
import * as TokenEndpoint from "./TokenEndpoint.ts"
import type { ConfigurationError } from "./TokenError.ts"
import * as TokenService from "./TokenService.ts"
import { TokenStorage } from "./TokenStorage.ts"

/**
 * `R` is what the grant requires; the layer requires it too.
 *
 * @since 0.1.0
 * @category models
 */
export type Options<R = never> = TokenEndpoint.Options & Common<R>

/**
 * The options beside the server and the client.
 *
 * @since 0.2.0
 * @category models
 */
export interface Common<R = never>
  extends Grant.ClientCredentialsOptions, TokenService.SettingsOptions, AuthorizedHttpClient.Options
{
  /**
   * How a token is fetched. With a grant of your own, `scope`, `audience`, `resource` and `params` belong to that grant;
   * beside it they are a `ConfigurationError`. Defaults to `Grant.clientCredentials` with those four options.
   */
  readonly grant?: Grant.Grant<R> | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Clients {
  /** The drop-in client: an `HttpClient` like any other. */
  readonly httpClient: HttpClient.HttpClient
  /** The typed client: token errors and surviving 401s are in its error type. */
  readonly authorizedHttpClient: AuthorizedHttpClient.AuthorizedHttpClient["Type"]
  readonly tokens: TokenService.TokenService["Type"]
}

/**
 * Both clients and the token service, for programs with two APIs: one `make` each, each under a tag of one's own.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = <R = never>(
  options: Options<R>
): Effect.Effect<Clients, ConfigurationError, HttpClient.HttpClient | Scope.Scope | R> =>
  Effect.flatMap(layerRuntime<HttpClient.HttpClient | R>(), (runtime) => makeIn(options, runtime))

/**
 * The same, run by a runtime that many pipelines may share.
 *
 * @internal
 */
export const makeIn = <R>(
  options: Options<R>,
  runtime: Runtime.Runtime<HttpClient.HttpClient | R>
): Effect.Effect<Clients, ConfigurationError, HttpClient.HttpClient | Scope.Scope | R> =>
  Effect.gen(function*() {
    const grant = yield* grantOf(options)
    if (grant.validate !== undefined) yield* grant.validate

    // a key that is generated must be the same in both places
    const dpop = options.dpop === undefined ? undefined : Effect.succeed(yield* options.dpop)
    if (dpop !== undefined) yield* checkKey(yield* dpop, grant)
    const shared = { ...options, dpop }

    const { authorizationServer, tokenEndpoint } = yield* TokenEndpoint.make(shared)
    const tokens = yield* TokenService.makeIn(
      {
        ...options,
        grant,
        flightTimeout: options.flightTimeout ?? TokenEndpoint.longestRequest(options)
      },
      runtime,
      Context.make(TokenEndpoint.TokenEndpoint, tokenEndpoint).pipe(
        Context.add(AuthorizationServer.AuthorizationServer, authorizationServer)
      )
    )
    const clients = yield* Effect.provideService(AuthorizedHttpClient.make(shared), TokenService.TokenService, tokens)
    return { ...clients, tokens }
  })

const grantOf = <R>(options: Options<R>): Effect.Effect<Grant.Grant<R>, ConfigurationError> => {
  const { grant } = options
  if (grant === undefined) return Effect.succeed(Grant.clientCredentials(options))
  const ignored = (["scope", "audience", "resource", "params"] as const).find((name) => options[name] !== undefined)
  return ignored === undefined
    ? Effect.succeed(grant)
    : Effect.fail(issue(`${ignored} is given beside grant, which would ignore it: give ${ignored} to the grant`))
}

/** Tokens of people outlive the process in a storage; the key that they are bound to must too. */
const checkKey = <R>({ isEphemeral }: DPoP, { signsIn }: Grant.Grant<R>): Effect.Effect<void, ConfigurationError> =>
  Effect.flatMap(
    TokenStorage,
    ({ persistent }) =>
      check(
        !isEphemeral || signsIn !== true || persistent === false,
        () =>
          "dpop is DPoP.generate(), whose key ends with the process, while the storage keeps the refresh token that is bound " +
          "to it: use DPoP.make with a key that is kept"
      )
  )

/**
 * An `HttpClient` that carries a valid token to the listed origins, over the `HttpClient` that it is given.
 *
 * **Gotchas**
 *
 * - `HttpClient.followRedirects` belongs above this client, where each hop is judged by its own origin. Below it, every
 *   header is forwarded to wherever a redirect leads, the token too.
 * - A base URL (`HttpClientRequest.prependUrl`) belongs above it too: the origin has to be known here.
 * - A token that is sent to plain http can be read on the way. List such origins only if you know the way.
 * - If a header that a client below adds, or a second secret of the same client id, tells tenants apart, give each a
 *   `storageKey`: without it they share a token in a shared storage.
 *
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { Layer, Redacted } from "effect"
 * import { Alf } from "effect-alf"
 *
 * export const layer = Alf.layer({
 *   tokenEndpoint: "https://auth.example.com/oauth/token",
 *   clientId: "reports",
 *   clientSecret: Redacted.make("secret"),
 *   origins: ["https://api.example.com"]
 * }).pipe(Layer.provide(FetchHttpClient.layer))
 * ```
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
 * The options, each a plain value or a `Config`.
 *
 * @since 0.2.0
 * @category models
 */
export type ConfigOptions<O> = O extends unknown ? { readonly [K in keyof O]: O[K] | Config.Config<O[K]> } : never

/**
 * The same, with options that are plain values or `Config`s, side by side.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { Alf } from "effect-alf"
 *
 * export const layer = Alf.layerConfig({
 *   tokenEndpoint: Config.string("TOKEN_ENDPOINT"),
 *   clientId: Config.string("CLIENT_ID"),
 *   clientSecret: Config.redacted("CLIENT_SECRET"),
 *   origins: ["https://api.example.com"]
 * })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = <R = never>(options: ConfigOptions<Options<R>>): Layer.Layer<
  HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
  ConfigurationError | ConfigError.ConfigError,
  HttpClient.HttpClient | R
> => Layer.unwrapEffect(Effect.map(resolve<R>(options), (resolved) => layer<R>(resolved)))

const resolve = <R>(options: ConfigOptions<Options<R>>): Effect.Effect<Options<R>, ConfigError.ConfigError> =>
  Effect.map(
    Effect.forEach(
      Object.entries(options),
      ([name, value]) =>
        Effect.map(Config.isConfig(value) ? value : Effect.succeed(value), (resolved) => [name, resolved] as const)
    ),
    // the entries of `options`, each config replaced by what it holds
    (entries) => Object.fromEntries(entries) as Options<R>
  )

const toContext = ({ authorizedHttpClient, httpClient, tokens }: Clients) =>
  Context.make(HttpClient.HttpClient, httpClient).pipe(
    Context.add(AuthorizedHttpClient.AuthorizedHttpClient, authorizedHttpClient),
    Context.add(TokenService.TokenService, tokens)
  )
