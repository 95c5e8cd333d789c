/**
 * The connection of a client to the authorization server of an API: opened once for all requests, and replaced when the API
 * moves to another server, the server forgets the client, or a request needs more scope.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import type { AccessToken } from "../../AccessToken.ts"
import { DiscoveryError, LayerClosed, type TokenError } from "../../TokenError.ts"
import { shownUrl } from "../endpoint/discovery.ts"
import { Metadata } from "../endpoint/resourceMetadata.ts"

/** A token service: `TokenService` is one. */
interface Tokens {
  readonly get: Effect.Effect<AccessToken, TokenError>
  readonly refresh: (rejected: AccessToken) => Effect.Effect<AccessToken, TokenError>
  readonly reject?: (token: AccessToken) => Effect.Effect<void>
  readonly invalidate: Effect.Effect<void>
  readonly revoke: Effect.Effect<void, TokenError>
}

/** An authorization server that the client is known to. */
export interface Connection {
  readonly issuer: string
  readonly resource: Metadata
  readonly scope: ReadonlyArray<string>
  readonly tokens: Tokens
  readonly lifetime: Scope.CloseableScope
  /** Forgets a registration that can be made anew. */
  readonly forget: Option.Option<Effect.Effect<void>>
}

/** How connections are made. */
export interface Opener {
  /** The API. */
  readonly url: URL
  /** Whether a person signs in, who can be asked for more scope. */
  readonly signsIn: boolean
  /** How long a failure to connect is remembered at first, in milliseconds. */
  readonly cooldown: number
  /** Reads the metadata of the API. `challenge` is a `WWW-Authenticate` header. */
  readonly discover: (challenge: string | undefined) => Effect.Effect<Metadata, TokenError>
  readonly open: (
    issuer: string,
    resource: Metadata,
    scope: ReadonlyArray<string>
  ) => Effect.Effect<Connection, TokenError>
  readonly wantedScope: (challenge: string | undefined, resource: Metadata) => ReadonlyArray<string>
}

export interface Connections {
  readonly current: () => Connection | undefined
  readonly connect: (challenge: string | undefined) => Effect.Effect<Connection, TokenError>
  /** Asks for more scope; false if that would only ask for what the request had already. */
  readonly widen: (
    from: Connection | undefined,
    required: ReadonlyArray<string>
  ) => Effect.Effect<boolean, TokenError>
  readonly tokens: Tokens
}

/** A failure to connect that is remembered, so that requests do not repeat it. All times are milliseconds. */
interface Failure {
  readonly error: TokenError
  readonly from: number
  readonly until: number
  readonly pause: number
}

const longestPause = 30_000

/** A longer `Retry-After` is cut, in milliseconds. */
const maxRetryAfter = 300_000

/** The metadata of the API is not read again sooner than this, in milliseconds. */
const rereadPause = 1_000

/** An API that lists more authorization servers than this does not get them all tried. */
const maxServers = 8

export const makeConnections = (opener: Opener): Effect.Effect<Connections, never, Scope.Scope> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime()
    const clock = yield* Effect.clock
    const layerScope = yield* Effect.scope
    const widening = Effect.unsafeMakeSemaphore(1)
    let connection: Connection | undefined
    let connecting: Deferred.Deferred<Connection, TokenError> | undefined
    let replacing: Deferred.Deferred<Connection, TokenError> | undefined
    let rereading: Deferred.Deferred<Option.Option<Metadata>, LayerClosed> | undefined
    let rereadAt = -Infinity
    let failure: Failure | undefined
    let isClosed = false
    /** A connection whose client was registered anew and has not got a token yet. */
    let unproven: Connection | undefined

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        isClosed = true
        return connection === undefined ? Effect.void : Scope.close(connection.lifetime, Exit.void)
      })
    )

    /** Work for all callers, which goes on when the first one has left. */
    const launch = <A, E>(effect: Effect.Effect<A, E>): Deferred.Deferred<A, E | LayerClosed> => {
      const handle = Deferred.unsafeMake<A, E | LayerClosed>(FiberId.none)
      Runtime.runFork(runtime)(
        Effect.onExit(
          effect,
          (exit) => Deferred.done(handle, Exit.isInterrupted(exit) ? Exit.fail(new LayerClosed()) : exit)
        ),
        { scope: layerScope }
      )
      return handle
    }

    const replaceBy = (next: Connection): Effect.Effect<void> =>
      Effect.suspend(() => {
        const before = connection
        connection = next
        return before === undefined ? Effect.void : Effect.asVoid(
          Effect.forkIn(Scope.close(before.lifetime, Exit.void), layerScope)
        )
      })

    const connect: Connections["connect"] = (challenge) =>
      Effect.suspend(() => {
        if (connection !== undefined) return Effect.succeed(connection)
        if (isClosed) return Effect.fail(new LayerClosed())
        const now = clock.unsafeCurrentTimeMillis()
        if (failure !== undefined && failure.from <= now && now < failure.until) return Effect.fail(failure.error)
        const opening = pipe(
          opener.discover(challenge),
          Effect.flatMap((resource) => openFirst(opener, resource, opener.wantedScope(challenge, resource))),
          Effect.tap(replaceBy)
        )
        connecting ??= launch(Effect.onExit(opening, (exit) =>
          Effect.map(Clock.currentTimeMillis, (from) => {
            connecting = undefined
            const error = Option.flatMap(Exit.causeOption(exit), Cause.failureOption)
            failure = failureAfter(error, failure, from, opener.cooldown)
          })))
        return Deferred.await(connecting)
      })

    /** Reads the API's metadata again; nothing if it cannot be read, or was read just now. */
    const reread: Effect.Effect<Option.Option<Metadata>> = Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeMillis()
      if (rereading === undefined && rereadAt <= now && now < rereadAt + rereadPause) return Effect.succeedNone
      rereading ??= launch(
        Effect.onExit(Effect.option(opener.discover(undefined)), () =>
          Effect.map(Clock.currentTimeMillis, (at) => {
            rereading = undefined
            rereadAt = at
          }))
      )
      return Effect.catchAll(Deferred.await(rereading), () => Effect.succeedNone)
    })

    /** Replaces a connection: once for all requests that found it has to be. */
    const replace = (
      from: Connection,
      opening: Effect.Effect<Connection, TokenError>
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
      const at = resource.authorizationServers.indexOf(from.issuer)
      const authorizationServers = at === -1
        ? resource.authorizationServers
        : resource.authorizationServers.slice(0, at)
      // the tokens and the registration of the old authorization server are left alone
      const moved = replace(from, openFirst(opener, new Metadata({ ...resource, authorizationServers }), from.scope))
      return authorizationServers.length === 0
        ? Effect.succeed(from)
        : at === -1
        ? moved
        : Effect.catchAll(moved, () => Effect.succeed(from))
    }

    /** A registration that the server has forgotten is made once more. */
    const registeredAnew = (
      from: Connection,
      fetched: Effect.Effect<AccessToken, TokenError>
    ): Effect.Effect<AccessToken, TokenError> =>
      pipe(
        fetched,
        Effect.tap(() =>
          Effect.sync(() => {
            if (unproven === from) unproven = undefined
          })
        ),
        Effect.catchIf(
          // a server that refuses every new registration gets no further one
          (error) => error._tag === "TokenErrorResponse" && error.error === "invalid_client" && unproven !== from,
          (error) =>
            Option.match(from.forget, {
              onNone: () => Effect.fail(error),
              onSome: (forget) => {
                const opening = Effect.tap(
                  Effect.zipRight(forget, opener.open(from.issuer, from.resource, from.scope)),
                  (next) =>
                    Effect.sync(() => {
                      unproven = next
                    })
                )
                return Effect.flatMap(replace(from, opening), (next) => registeredAnew(next, next.tokens.get))
              }
            })
        )
      )

    const tokens: Tokens = {
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

    const widen: Connections["widen"] = (from, required) =>
      widening.withPermits(1)(Effect.gen(function*() {
        if (!opener.signsIn || connection === undefined) return false
        const current = connection
        const missing = required.filter((scope) => !current.scope.includes(scope))
        if (missing.length === 0) return current !== from
        const next = yield* Deferred.await(
          launch(opener.open(current.issuer, current.resource, [...current.scope, ...missing]))
        )
        yield* Effect.onError(next.tokens.get, () => Scope.close(next.lifetime, Exit.void))
        yield* replaceBy(next)
        return true
      }))

    return { current: () => connection, connect, widen, tokens }
  })

/** The first listed authorization server that can be used. */
const openFirst = (
  { open, url }: Opener,
  resource: Metadata,
  scope: ReadonlyArray<string>
): Effect.Effect<Connection, TokenError> =>
  Effect.gen(function*() {
    let last: TokenError = new DiscoveryError({
      url: shownUrl(url.href),
      reason: "Unsupported",
      description: "The metadata of the API names no authorization server"
    })
    for (const issuer of resource.authorizationServers.slice(0, maxServers)) {
      const opened = yield* Effect.either(open(issuer, resource, scope))
      if (Either.isRight(opened)) return opened.right
      last = opened.left
    }
    return yield* Effect.fail(last)
  })

const failureAfter = (
  error: Option.Option<TokenError>,
  before: Failure | undefined,
  from: number,
  cooldown: number
): Failure | undefined =>
  Option.match(error, {
    onNone: () => undefined,
    onSome: (error) => {
      const pause = before === undefined ? cooldown : Math.min(2 * before.pause, Math.max(cooldown, longestPause))
      return { error, from, pause, until: from + Math.max(pause, Math.min(retryAfter(error), maxRetryAfter)) }
    }
  })

const retryAfter = (error: TokenError): number =>
  "retryAfter" in error && error.retryAfter !== undefined ? Duration.toMillis(error.retryAfter) : 0
