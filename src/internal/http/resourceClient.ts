/**
 * A client for an API of which nothing is known at first: its first request goes out without a token, and the 401 leads to
 * the authorization server. A missing scope is asked for once.
 */
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import type { TokenError } from "../../TokenError.ts"
import { discardBody, isReplayable } from "./body.ts"
import { responseIn } from "./httpClientError.ts"
import { originIn } from "./origins.ts"

type Request = HttpClientRequest.HttpClientRequest
type Response = HttpClientResponse.HttpClientResponse

/** What is known of the API. `C` stands for a connection to its authorization server. */
export interface Resource<C> {
  readonly origin: string
  readonly current: () => C | undefined
  /** Finds the authorization server, and registers there: one flight for all. `challenge` is a `WWW-Authenticate` header. */
  readonly connect: (challenge: string | undefined) => Effect.Effect<unknown, TokenError>
  /** Asks for more scope; false if that would only ask for what the request had already. */
  readonly widen: (from: C | undefined, required: ReadonlyArray<string>) => Effect.Effect<boolean, TokenError>
}

/** A flavour of the client, below the part that this module adds. */
export interface Inner<E> {
  readonly execute: (request: Request) => Effect.Effect<Response, E>
  /** The scopes that a result asks for; nothing if it is not about scopes. */
  readonly requiredIn: (response: Response) => ReadonlyArray<string> | undefined
  readonly requiredInError: (error: E) => ReadonlyArray<string> | undefined
  readonly fail: (error: TokenError, request: Request) => Effect.Effect<never, E>
}

/** How far the first request has come: both flavours share it. */
export interface Probe {
  isOpen: boolean
  first: Deferred.Deferred<void> | undefined
}

export const makeResourceClient = <C, E>(
  base: HttpClient.HttpClient,
  resource: Resource<C>,
  probe: Probe,
  inner: Inner<E | HttpClientError.HttpClientError>
): HttpClient.HttpClient.With<E | HttpClientError.HttpClientError> => {
  type Result = Effect.Effect<Response, E | HttpClientError.HttpClientError>

  /** Sends with a token; after a missing scope was asked for, once more. */
  const send = (request: Request): Result =>
    Effect.suspend(() => {
      const connection = resource.current()
      const widen = (required: ReadonlyArray<string> | undefined, result: Result): Result =>
        required === undefined || !isReplayable(request.body) ? result : Effect.matchEffect(
          resource.widen(connection, required),
          {
            onFailure: (error) => inner.fail(error, request),
            onSuccess: (isWider) => isWider ? inner.execute(request) : result
          }
        )
      return Effect.matchEffect(inner.execute(request), {
        onFailure: (error): Result => widen(inner.requiredInError(error), Effect.fail(error)),
        onSuccess: (response): Result => widen(inner.requiredIn(response), Effect.succeed(response))
      })
    })

  const connectAndSend = (request: Request, challenge: string | undefined): Result =>
    Effect.matchEffect(resource.connect(challenge), {
      onFailure: (error) => inner.fail(error, request),
      onSuccess: () => send(request)
    })

  const sendWithoutToken = (request: Request): Result => {
    // what can be read once is not risked on a request that may be refused
    if (!isReplayable(request.body)) return connectAndSend(request, undefined)
    return Effect.matchCauseEffect(base.execute(request), {
      onSuccess: (response): Result => judge(request, response, Effect.succeed(response)),
      onFailure: (cause): Result => {
        const response = responseIn(cause)
        return response === undefined ? Effect.failCause(cause) : judge(request, response, Effect.failCause(cause))
      }
    })
  }

  const judge = (request: Request, response: Response, result: Result): Result => {
    if (response.status === 401) {
      return Effect.zipRight(discardBody(response), connectAndSend(request, response.headers["www-authenticate"] ?? ""))
    }
    if (response.status < 500) probe.isOpen = true
    return result
  }

  const begin = (request: Request): Result =>
    Effect.suspend(() => {
      if (resource.current() !== undefined) return send(request)
      if (probe.isOpen) return sendWithoutToken(request)
      if (probe.first !== undefined) {
        return Effect.zipRight(
          Deferred.await(probe.first),
          Effect.suspend(() => resource.current() === undefined ? sendWithoutToken(request) : send(request))
        )
      }
      const first = Deferred.unsafeMake<void>(FiberId.none)
      probe.first = first
      return Effect.ensuring(
        sendWithoutToken(request),
        Effect.suspend(() => {
          probe.first = undefined
          return Deferred.succeed(first, undefined)
        })
      )
    })

  return HttpClient.makeWith(
    Effect.flatMap((request: Request) =>
      originIn(request.url) === resource.origin ? begin(request) : inner.execute(request)
    ),
    Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
  )
}
