/** Sends requests with a token, and does what `on401` decides when an API rejects it. */
import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type AccessToken, isSame } from "../../AccessToken.ts"
import { type ConfigurationError, isTransient, type TokenError } from "../../TokenError.ts"
import * as TokenMetrics from "../../TokenMetrics.ts"
import { inModule } from "../log.ts"
import { atHandOf } from "../token/atHand.ts"
import { discardBody, isReplayable } from "./body.ts"
import { isNonceChallenge } from "./challenges.ts"
import { concealCause, type Concealed } from "./conceal.ts"
import { responseIn } from "./httpClientError.ts"
import * as On401 from "./on401.ts"
import * as Origins from "./origins.ts"
import { makeMemories, type Memories } from "./memories.ts"
import { makeNotes, type Notes } from "./notes.ts"
import { checkHeader, type DPoP, headerName, type HeaderOptions, putHeader } from "./presentation.ts"
import { concealIn, RedactedResponse } from "./redactedResponse.ts"
import { sendWithProof } from "./sendWithProof.ts"

type Request = HttpClientRequest.HttpClientRequest
type Response = HttpClientResponse.HttpClientResponse

/** What is needed of a `TokenService`. */
export interface Tokens {
  readonly get: Effect.Effect<AccessToken, TokenError>
  readonly refresh: (rejected: AccessToken) => Effect.Effect<AccessToken, TokenError>
  readonly reject?: (token: AccessToken) => Effect.Effect<void>
}

export interface Options {
  readonly origins: ReadonlyArray<string | URL> | "any"
  readonly header?: HeaderOptions | undefined
  readonly isRejected?: ((response: Response) => boolean) | undefined
  readonly dpop?: Effect.Effect<DPoP, ConfigurationError> | undefined
}

/** A response, and the request and the token that it answers. */
export interface Sent<E, R> {
  readonly request: Request
  readonly token: AccessToken
  readonly response: Response
  /** The response as the client below returned it: as a success, or as the error of a client under `filterStatusOk`. */
  readonly result: Effect.Effect<Response, E, R>
  readonly secrets: () => ReadonlyArray<string>
}

/** How a flavour of the client says that there is no token, that a rejection is final, and that a scope is missing. */
export interface Flavour<E2> {
  readonly fail: <E>(cause: Cause.Cause<E | TokenError>, request: Request) => Effect.Effect<never, E | E2>
  readonly reject: <E, R>(rejected: Sent<E, R>) => Effect.Effect<Response, E | E2, R>
  readonly forbid: <E, R>(forbidden: Sent<E, R>) => Effect.Effect<Response, E | E2, R>
}

export type Authorize = <E, R, E2>(
  client: HttpClient.HttpClient.With<E, R>,
  flavour: Flavour<E2>
) => HttpClient.HttpClient.With<E | E2 | HttpClientError.RequestError, R>

/** What all requests of a middleware share. */
interface Shared {
  readonly tokens: Tokens
  readonly originOf: (url: string) => string
  readonly memories: Memories
  readonly isRejected: (response: Response) => boolean
  readonly put: (request: Request, token: AccessToken) => Request
  readonly dpop: DPoP | undefined
  readonly headers: ReadonlyArray<string>
  readonly notes: Notes
  /** The last failure of a refresh: who meets it again has not caused it. */
  readonly lastFailure: { error: TokenError | undefined }
  /** What is concealed for the newest token. */
  readonly concealed: { token: AccessToken | undefined; by: Concealed | undefined }
}

export const makeMiddleware = (options: Options, tokens: Tokens): Effect.Effect<Authorize, ConfigurationError> =>
  Effect.gen(function*() {
    yield* checkHeader(options.header ?? {})
    const originOf = yield* Origins.originOf(options.origins)
    const dpop = options.dpop === undefined ? undefined : yield* options.dpop
    const shared: Shared = {
      tokens,
      originOf,
      memories: makeMemories(options.origins === "any"),
      isRejected: options.isRejected ?? ((response) => response.status === 401),
      put: putHeader(options.header),
      dpop,
      headers: dpop === undefined ? [headerName(options.header)] : ["authorization", "dpop"],
      notes: makeNotes(options.origins),
      lastFailure: { error: undefined },
      concealed: { token: undefined, by: undefined }
    }
    return (client, flavour) => makeClient(shared, client, flavour)
  })

const makeClient = <E, R, E2>(
  shared: Shared,
  client: HttpClient.HttpClient.With<E, R>,
  flavour: Flavour<E2>
): HttpClient.HttpClient.With<E | E2 | HttpClientError.RequestError, R> => {
  type Result = Effect.Effect<Response, E | E2, R>
  type OnRejected = (rejected: Sent<E | E2, R>, origin: string) => Result

  const send = shared.dpop === undefined
    ? (request: Request, token: AccessToken, _: Array<string>): Effect.Effect<Response, E | TokenError, R> => {
      try {
        return client.execute(shared.put(request, token))
      } catch (defect) {
        // it may show the request: it is concealed like any other
        return Effect.die(defect)
      }
    }
    : sendWithProof(client, shared.dpop)

  /**
   * Sends the request. It is wrapped around `execute`: what the client below does to a request, it does to each one that is
   * sent.
   */
  const attempt = (request: Request, origin: string, token: AccessToken, onRejected: OnRejected): Result => {
    const proofs = shared.dpop === undefined ? noProofs : []
    return Effect.matchCauseEffect(send(request, token, proofs), {
      onSuccess: (response): Result => {
        const concealed = concealedBy(shared, token, proofs)
        const result = Effect.succeed(new RedactedResponse(response, concealed))
        // what nearly every response is
        if (response.status < 300 && shared.memories.isEmpty() && !shared.isRejected(response)) return result
        return judge({ request, token, response, result, secrets: concealed.secrets }, origin, onRejected)
      },
      onFailure: (cause): Result => {
        const concealed = concealedBy(shared, token, proofs)
        const result = flavour.fail(concealCause(cause, concealIn(concealed)), request)
        const response = responseIn(cause)
        return response === undefined
          ? result
          : judge({ request, token, response, result, secrets: concealed.secrets }, origin, onRejected)
      }
    })
  }

  const attemptWith = (
    request: Request,
    origin: string,
    token: Effect.Effect<AccessToken, TokenError>,
    onRejected: OnRejected
  ): Result =>
    Effect.matchCauseEffect(token, {
      onSuccess: (token) => attempt(request, origin, token, onRejected),
      onFailure: (cause) => flavour.fail<never>(cause, request)
    })

  const judge = (sent: Sent<E | E2, R>, origin: string, onRejected: OnRejected): Result => {
    const { response, result } = sent
    if (shared.isRejected(response)) return onRejected(sent, origin)
    const shown = response.status === 403 ? flavour.forbid(sent) : result
    return shared.memories.isEmpty() || response.status >= 500
      ? shown
      : Effect.zipRight(shared.memories.change(origin, On401.onAccepted), shown)
  }

  /** The response's body is discarded, the token is refreshed, the request is sent again: once. */
  const replay = (origin: string, rejected: Sent<E | E2, R>): Result =>
    Effect.suspend(() => {
      const { request, response, token } = rejected
      const known = shared.lastFailure.error
      let outcome: "unsent" | "rejected" | "answered" = "unsent"
      const fresh = pipe(
        shared.tokens.refresh(token),
        Effect.tap(() =>
          Effect.sync(() => {
            outcome = "answered"
            shared.lastFailure.error = undefined
          })
        ),
        Effect.tapError((error) =>
          Effect.sync(() => {
            shared.lastFailure.error = error
          })
        )
      )
      return pipe(
        Effect.logDebug("refreshing the token and sending the request again after a 401", { origin }),
        inModule("AuthorizedHttpClient"),
        Effect.zipRight(known === undefined ? discardBody(response) : Effect.void),
        Effect.zipRight(Effect.either(fresh)),
        Effect.flatMap((refreshed): Result => {
          // during an outage the token stays in use: one request has told of it, the others get their response
          const isKnown = refreshed._tag === "Left" && refreshed.left === known && isTransient(refreshed.left)
          return isKnown
            ? flavour.reject(rejected)
            : Effect.zipRight(
              known === undefined ? Effect.void : discardBody(response),
              attemptWith(request, origin, refreshed, (again) => {
                outcome = "rejected"
                return Effect.zipRight(noteRejected(shared, origin, token, again.token), flavour.reject(again))
              })
            )
        }),
        Effect.onExit((exit) =>
          outcome === "unsent"
            ? Effect.void
            : Metric.increment(
              replays[outcome === "rejected" ? "refused" : Exit.isSuccess(exit) ? "accepted" : "failed"]
            )
        ),
        Effect.withSpan("AuthorizedHttpClient.replay", { captureStackTrace: false, attributes: { origin } })
      )
    })

  const recover = (origin: string, rejected: Sent<E | E2, R>): Result =>
    Effect.flatMap(
      shared.memories.decide(origin, {
        token: rejected.token,
        isReplayable: isReplayable(rejected.request.body)
      }),
      (decision) => {
        switch (decision) {
          case "PassThrough":
            return flavour.reject(rejected)
          case "Replay":
            return replay(origin, rejected)
          case "Renew":
            return Effect.zipRight(renew(shared, origin, rejected.token), flavour.reject(rejected))
        }
      }
    )

  const onFirstRejected: OnRejected = (rejected, origin) =>
    shared.dpop !== undefined && isNonceChallenge(rejected.response)
      ? flavour.reject(rejected)
      : Effect.catchTag(Effect.fail(unauthorized), "Unauthorized", () => recover(origin, rejected))

  const { get } = shared.tokens
  const atHand = atHandOf(get)

  const authorized = (request: Request, origin: string): Result => {
    const token = atHand()
    return token === undefined
      ? attemptWith(request, origin, get, onFirstRejected)
      : attempt(request, origin, token, onFirstRejected)
  }

  const concealedInSpans = makeConcealedInSpans(shared.headers)

  return HttpClient.makeWith(
    Effect.flatMap((request: Request): Effect.Effect<Response, E | E2 | HttpClientError.RequestError, R> => {
      const origin = shared.originOf(request.url)
      if (origin === "other") return shared.notes.passThrough(request, client.execute(request))
      if (origin === "relative") return Effect.fail(relativeUrl(request))
      return concealedInSpans(authorized(request, origin))
    }),
    Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
  )
}

/** What a rejected token is inside: the error itself is made only if the rejection is final. */
const unauthorized = { _tag: "Unauthorized" } as const

const noProofs: Array<string> = []

const replays = {
  accepted: Metric.tagged(TokenMetrics.replays, "outcome", "accepted"),
  refused: Metric.tagged(TokenMetrics.replays, "outcome", "refused"),
  failed: Metric.tagged(TokenMetrics.replays, "outcome", "failed")
}

/** Made once per token, as long as there are no proofs. */
const concealedBy = (
  { concealed, headers }: Pick<Shared, "concealed" | "headers">,
  token: AccessToken,
  proofs: ReadonlyArray<string>
): Concealed => {
  if (proofs === noProofs && concealed.token === token && concealed.by !== undefined) return concealed.by
  const by = { headers, secrets: () => [Redacted.value(token.value), ...proofs] }
  concealed.token = token
  concealed.by = by
  return by
}

/** A program may have replaced the list of headers that spans do not show. Nearly always it holds these. */
const makeConcealedInSpans = (names: ReadonlyArray<string>) => {
  /** The last list that had all names in it. */
  let complete: ReadonlyArray<string | RegExp> | undefined
  return <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const fiber = Option.getOrUndefined(Fiber.getCurrentFiber())
    const redacted: ReadonlyArray<string | RegExp> = fiber?.getFiberRef(Headers.currentRedactedNames) ?? []
    if (redacted === complete) return effect
    if (!names.every((name) => redacted.includes(name))) {
      return Effect.locally(effect, Headers.currentRedactedNames, [...redacted, ...names])
    }
    complete = redacted
    return effect
  }
}

const relativeUrl = (request: Request): HttpClientError.RequestError =>
  new HttpClientError.RequestError({
    request,
    reason: "InvalidUrl",
    description: "the URL is relative where the token is put on: set the base URL above the authorized client, " +
      "with HttpClient.mapRequest(HttpClientRequest.prependUrl(…))"
  })

/** Without a replay the caller gets the response at once; the token is renewed for the next request. */
const renew = ({ memories, tokens }: Shared, origin: string, rejected: AccessToken) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    pipe(
      tokens.refresh(rejected),
      // one that was there already may have been accepted before
      Effect.flatMap((fresh) =>
        DateTime.toEpochMillis(fresh.issuedAt) >= now
          ? memories.change(origin, (memory, now) => On401.onFetched(memory, fresh, now))
          : Effect.void
      ),
      Effect.ignore,
      Effect.forkDaemon,
      // lets the refresh begin, so that the rejected token is not handed out again
      Effect.zipRight(Effect.yieldNow())
    ))

/** The token of the replay was rejected too. Where it was an earlier one, both are. */
const noteRejected = ({ memories, tokens }: Shared, origin: string, first: AccessToken, second: AccessToken) =>
  Effect.zipRight(
    memories.change(origin, (memory, now) => On401.onRejectedReplay(memory, second, now)),
    tokens.reject !== undefined && second.generation < first.generation && !isSame(first, second)
      ? tokens.reject(second)
      : Effect.void
  )
