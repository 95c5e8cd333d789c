/**
 * From the URL of an API to a client that is authorized (RFC 9728), as MCP and others want it: the API names its
 * authorization server, the client registers there, a grant fetches tokens for the API, and the pipeline of `Alf` does the
 * rest.
 *
 * @since 0.2.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import type { AccessToken } from "./AccessToken.ts"
import * as Alf from "./Alf.ts"
import * as AuthorizationServer from "./AuthorizationServer.ts"
import * as AuthorizedHttpClient from "./AuthorizedHttpClient.ts"
import * as ClientRegistration from "./ClientRegistration.ts"
import * as Grant from "./Grant.ts"
import { shownUrl } from "./internal/endpoint/discovery.ts"
import { discover, Metadata } from "./internal/endpoint/resourceMetadata.ts"
import { challengeParam, challengesOf, requiredScope } from "./internal/http/challenges.ts"
import { toHttpClientError } from "./internal/http/httpClientError.ts"
import { makeResourceClient } from "./internal/http/resourceClient.ts"
import { anyDuration, endpointUrl, issue } from "./internal/options.ts"
import { list, scopes } from "./internal/scope.ts"
import type * as TokenEndpoint from "./TokenEndpoint.ts"
import { type ConfigurationError, DiscoveryError, LayerClosed, type TokenError } from "./TokenError.ts"
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

/** An authorization server that the client is known to. */
interface Connection {
  readonly metadata: AuthorizationServer.Metadata
  readonly resource: Metadata
  readonly scope: ReadonlyArray<string>
  readonly registration: ClientRegistration.ClientRegistration
  readonly client: AuthorizationServer.Client
  readonly tokens: TokenService.TokenService["Type"]
  readonly lifetime: Scope.CloseableScope
}

/** A failure to connect that is remembered, so that requests do not repeat it. All times are milliseconds. */
interface Failure {
  readonly error: TokenError
  readonly from: number
  readonly pause: number
}

const longestPause = 30_000

/** The metadata of the API is not read again sooner than this, in milliseconds. */
const rereadPause = 1_000

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
    const cooldown = Duration.toMillis(yield* anyDuration("refusalCooldown", options.refusalCooldown ?? "1 second"))
    if (options.grant !== undefined && options.params !== undefined) {
      return yield* issue("params is given beside grant, which would ignore it: give params to the grant")
    }
    const grant: Grant.Grant<R> = options.grant ?? Grant.clientCredentials({ params: options.params })
    if (grant.validate !== undefined) yield* grant.validate
    const base = yield* HttpClient.HttpClient
    const runtime = yield* Effect.runtime<HttpClient.HttpClient | R>()
    const clock = yield* Effect.clock
    const layerScope = yield* Effect.scope
    const dpop = options.dpop === undefined ? undefined : Effect.succeed(yield* options.dpop)
    const registrations = "_tag" in options.client ? [options.client] : options.client
    const description = {
      grantTypes: grant.registration?.grantTypes ?? [],
      redirectUris: grant.registration?.redirectUris ?? [],
      signsIn: grant.signsIn === true
    }

    /** To which issuer a client without one was shown first. */
    const bound = new Map<ClientRegistration.ClientRegistration, string>()
    let connection: Connection | undefined
    let connecting: Deferred.Deferred<Connection, TokenError> | undefined
    let replacing: Deferred.Deferred<Connection, TokenError> | undefined
    let rereading: Deferred.Deferred<Option.Option<Metadata>, LayerClosed> | undefined
    let rereadAt = -Infinity
    let failure: Failure | undefined
    let isClosed = false
    const widening = Effect.unsafeMakeSemaphore(1)

    /** Work for all callers, which goes on when the first one has left. */
    const launch = <A, E>(
      effect: Effect.Effect<A, E, HttpClient.HttpClient | R>
    ): Deferred.Deferred<A, E | LayerClosed> => {
      const handle = Deferred.unsafeMake<A, E | LayerClosed>(FiberId.none)
      Runtime.runFork(runtime)(
        Effect.onExit(effect, (exit) =>
          Deferred.done(handle, Exit.isInterrupted(exit) ? Exit.fail(new LayerClosed()) : exit)),
        { scope: layerScope }
      )
      return handle
    }

    const registrationFor = (
      metadata: AuthorizationServer.Metadata
    ): Either.Either<ClientRegistration.ClientRegistration, DiscoveryError> => {
      const isBoundElsewhere = (registration: ClientRegistration.ClientRegistration) =>
        (bound.get(registration) ?? metadata.issuer) !== metadata.issuer
      const found = registrations.find((registration) =>
        ClientRegistration.fits(registration, metadata) && !isBoundElsewhere(registration)
      )
      if (found !== undefined) {
        return Either.right(found)
      }
      const isElsewhere = registrations.some(({ _tag }) =>
        _tag === "PreRegistered"
      )
      return Either.left(
        new DiscoveryError({
          url: shownUrl(metadata.issuer),
          reason: isElsewhere ? "IssuerMismatch" : "Unsupported",
          description: isElsewhere
            ? "The client is registered with another issuer than the API's authorization server: register it there"
            : "The authorization server takes none of the client registrations: give ClientRegistration.preRegistered"
        })
      )
    }

    const openAt = (
      issuer: string,
      resource: Metadata,
      scope: ReadonlyArray<string>
    ): Effect.Effect<Connection, TokenError, HttpClient.HttpClient | R> =>
      Effect.gen(function*() {
        const metadata = yield* AuthorizationServer.discover(issuer)
        const registration = yield* registrationFor(metadata)
        const client = yield* ClientRegistration.register(registration, metadata, description)
        if (registration._tag === "PreRegistered") bound.set(registration, metadata.issuer)
        const isLasting = description.signsIn && metadata.scopesSupported?.includes("offline_access") === true
        const asked = [...new Set([...scope, ...(isLasting ? ["offline_access"] : [])])]
        const lifetime = yield* Scope.make()
        const { tokens } = yield* pipe(
          Alf.make<R>({
            ...tokenOptions(options),
            ...client,
            metadata,
            dpop,
            grant: grant.narrow?.({ scope: asked, resource: resource.resource }) ?? grant,
            origins: [url.origin]
          }),
          Scope.extend(lifetime),
          Effect.mapError(({ issue }) =>
            new DiscoveryError({ url: shownUrl(issuer), reason: "Unsupported", description: issue })
          )
        )
        return { metadata, resource, scope, registration, client, tokens, lifetime }
      })

    /** The first listed authorization server that can be used. */
    const open = (resource: Metadata, scope: ReadonlyArray<string>) =>
      Effect.gen(function*() {
        let last: TokenError = new DiscoveryError({
          url: shownUrl(url.href),
          reason: "Unsupported",
          description: "The metadata of the API names no authorization server"
        })
        for (const issuer of resource.authorizationServers) {
          const opened = yield* Effect.either(openAt(issuer, resource, scope))
          if (Either.isRight(opened)) return opened.right
          last = opened.left
        }
        return yield* Effect.fail(last)
      })

    const replaceBy = (next: Connection): Effect.Effect<void> =>
      Effect.suspend(() => {
        const before = connection
        connection = next
        return before === undefined ? Effect.void : Effect.asVoid(
          Effect.forkIn(Scope.close(before.lifetime, Exit.void), layerScope)
        )
      })

    const connectNow = (challenge: string | undefined) =>
      pipe(
        discover(url, { challenge }),
        Effect.flatMap((resource) => open(resource, wantedScope(challenge, options.scope, resource))),
        Effect.tap(replaceBy)
      )

    const connect = (challenge: string | undefined): Effect.Effect<Connection, TokenError> =>
      Effect.suspend(() => {
        if (connection !== undefined) return Effect.succeed(connection)
        if (isClosed) return Effect.fail(new LayerClosed())
        const now = clock.unsafeCurrentTimeMillis()
        if (failure !== undefined && failure.from <= now && now < failure.from + failure.pause) {
          return Effect.fail(failure.error)
        }
        connecting ??= launch(Effect.onExit(connectNow(challenge), (exit) =>
          Effect.map(Clock.currentTimeMillis, (from) => {
            connecting = undefined
            failure = failureAfter(Option.flatMap(Exit.causeOption(exit), Cause.failureOption), failure, from, cooldown)
          })))
        return Deferred.await(connecting)
      })

    /** Reads the API's metadata again; nothing if it cannot be read, or was read just now. */
    const reread: Effect.Effect<Option.Option<Metadata>> = Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeMillis()
      if (rereading === undefined && rereadAt <= now && now < rereadAt + rereadPause) return Effect.succeedNone
      rereading ??= launch(Effect.onExit(Effect.option(discover(url)), () =>
        Effect.map(Clock.currentTimeMillis, (at) => {
          rereading = undefined
          rereadAt = at
        })))
      return Effect.catchAll(Deferred.await(rereading), () => Effect.succeedNone)
    })

    /** Replaces a connection: once for all who found that it has to be. */
    const replace = (
      from: Connection,
      opening: Effect.Effect<Connection, TokenError, HttpClient.HttpClient | R>
    ): Effect.Effect<Connection, TokenError> =>
      Effect.suspend(() => {
        if (connection !== undefined && connection !== from) return Effect.succeed(connection)
        if (isClosed) return Effect.fail(new LayerClosed())
        replacing ??= launch(Effect.ensuring(
          Effect.tap(opening, replaceBy),
          Effect.sync(() => {
            replacing = undefined
          })
        ))
        return Deferred.await(replacing)
      })

    /** Where the API's tokens come from now: it may have moved to another authorization server. */
    const connectionFor = (from: Connection, resource: Metadata): Effect.Effect<Connection, TokenError> => {
      const at = resource.authorizationServers.indexOf(from.metadata.issuer)
      const authorizationServers = at === -1
        ? resource.authorizationServers
        : resource.authorizationServers.slice(0, at)
      // the tokens and the registration of the old authorization server are left alone
      const moved = replace(from, open(new Metadata({ ...resource, authorizationServers }), from.scope))
      return authorizationServers.length === 0
        ? Effect.succeed(from)
        : at === -1
        ? moved
        : Effect.catchAll(moved, () => Effect.succeed(from))
    }

    /** A dynamic registration that the server has forgotten is made once more. */
    const registeredAnew = (
      from: Connection,
      fetched: Effect.Effect<AccessToken, TokenError>
    ): Effect.Effect<AccessToken, TokenError> =>
      Effect.catchIf(
        fetched,
        (error) =>
          error._tag === "TokenErrorResponse" && error.error === "invalid_client" &&
          from.registration._tag === "Dynamic",
        () => {
          const { client, metadata, registration, resource, scope } = from
          const opening = Effect.zipRight(
            ClientRegistration.forget(registration, metadata, description, client),
            openAt(metadata.issuer, resource, scope)
          )
          return Effect.flatMap(replace(from, opening), (next) => next.tokens.get)
        }
      )

    const tokens: TokenService.TokenService["Type"] = {
      get: Effect.flatMap(connect(undefined), (connection) => registeredAnew(connection, connection.tokens.get)),
      refresh: (rejected) =>
        Effect.gen(function*() {
          const from = yield* connect(undefined)
          const resource = yield* reread
          const current = Option.isSome(resource) ? yield* connectionFor(from, resource.value) : connection ?? from
          return yield* current === from
            ? registeredAnew(from, from.tokens.refresh(rejected))
            : current.tokens.get
        }),
      reject: (token) => connection?.tokens.reject?.(token) ?? Effect.void,
      invalidate: Effect.suspend(() => connection?.tokens.invalidate ?? Effect.void),
      revoke: Effect.suspend(() => connection?.tokens.revoke ?? Effect.void)
    }

    const widen = (from: Connection | undefined, required: ReadonlyArray<string>): Effect.Effect<boolean, TokenError> =>
      widening.withPermits(1)(Effect.gen(function*() {
        if (!description.signsIn || connection === undefined) return false
        const current = connection
        const missing = required.filter((scope) => !current.scope.includes(scope))
        if (missing.length === 0) return current !== from
        const next = yield* Deferred.await(
          launch(openAt(current.metadata.issuer, current.resource, [...current.scope, ...missing]))
        )
        yield* Effect.onError(next.tokens.get, () => Scope.close(next.lifetime, Exit.void))
        yield* replaceBy(next)
        return true
      }))

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        isClosed = true
        return connection === undefined ? Effect.void : Scope.close(connection.lifetime, Exit.void)
      })
    )

    const { header, isRejected } = options
    const inner = yield* pipe(
      AuthorizedHttpClient.make({ origins: [url.origin], header, isRejected, dpop }),
      Effect.provideService(TokenService.TokenService, tokens)
    )
    const resource = { origin: url.origin, current: () => connection, connect, widen }
    const probe = { isOpen: false, first: undefined }
    return {
      tokens,
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

const failureAfter = (
  error: Option.Option<TokenError>,
  before: Failure | undefined,
  from: number,
  cooldown: number
): Failure | undefined =>
  Option.match(error, {
    onNone: () => undefined,
    onSome: (error) => ({
      error,
      from,
      pause: before === undefined ? cooldown : Math.min(2 * before.pause, Math.max(cooldown, longestPause))
    })
  })
