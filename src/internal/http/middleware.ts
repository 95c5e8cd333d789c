/** Sends requests with a token, and does what `on401` decides when an API rejects it. */
import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
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
import { check } from "../options.ts"
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

/** A response, and the request and the token that it belongs to. */
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
  readonly atHand: () => AccessToken | undefined
  readonly originOf: (url: string) => string
  readonly memories: Memories
  readonly isRejected: (response: Response) => boolean
  readonly put: (request: Request, token: AccessToken) => Request
  readonly dpop: DPoP | undefined
  readonly headers: ReadonlyArray<string>
  readonly notes: Notes
  /** The last failure of a refresh: a request that meets it again has not caused it. */
  lastFailure: TokenError | undefined
  /** What is concealed for the newest token. */
  concealed: { readonly token: AccessToken; readonly by: Concealed } | undefined
  /** The last list of headers that spans do not show which had all of ours in it. */
  redactedNames: ReadonlyArray<string | RegExp> | undefined
}

/** One of the clients of a middleware. */
interface Client<E, R, E2> {
  readonly shared: Shared
  readonly flavour: Flavour<E2>
  readonly send: (
    request: Request,
    token: AccessToken,
    proofs: Array<string>
  ) => Effect.Effect<Response, E | TokenError, R>
}

type Result<E, R, E2> = Effect.Effect<Response, E | E2, R>

type OnRejected = <E, R, E2>(
  self: Client<E, R, E2>,
  rejected: Sent<E | E2, R>,
  origin: string
) => Result<E, R, E2>

export const makeMiddleware = (options: Options, tokens: Tokens): Effect.Effect<Authorize, ConfigurationError> =>
  Effect.gen(function*() {
    yield* checkHeader(options.header ?? {})
    yield* check(
      options.dpop === undefined || options.header === undefined,
      () => "header cannot be combined with dpop, which sends Authorization: DPoP (RFC 9449 §7.1): leave header out"
    )
    const originOf = yield* Origins.originOf(options.origins)
    const dpop = options.dpop === undefined ? undefined : yield* options.dpop
    return makeAuthorize({
      tokens,
      atHand: atHandOf(tokens.get),
      originOf,
      memories: makeMemories(options.origins === "any"),
      isRejected: options.isRejected ?? isUnauthorized,
      put: putHeader(options.header),
      dpop,
      headers: dpop === undefined ? [headerName(options.header)] : ["authorization", "dpop"],
      notes: makeNotes(options.origins),
      lastFailure: undefined,
      concealed: undefined,
      redactedNames: undefined
    })
  })

const isUnauthorized = (response: Response): boolean => response.status === 401

/** Nothing but `shared` is kept as long as the clients are. */
const makeAuthorize =
  (shared: Shared): Authorize => <E, R, E2>(below: HttpClient.HttpClient.With<E, R>, flavour: Flavour<E2>) => {
    const self = {
      shared,
      flavour,
      send: shared.dpop === undefined ? sendOver(below, shared.put) : sendWithProof(below, shared.dpop)
    }
    return HttpClient.makeWith(
      Effect.flatMap((request: Request): Result<E | HttpClientError.RequestError, R, E2> => {
        const origin = shared.originOf(request.url)
        if (origin === "other") return shared.notes.passThrough(request, below.execute(request))
        if (origin === "relative") return Effect.fail(relativeUrl(request))
        return concealedInSpans(shared, authorized(self, request, origin))
      }),
      Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
    )
  }

const sendOver =
  <E, R>(below: HttpClient.HttpClient.With<E, R>, put: Shared["put"]) =>
  (request: Request, token: AccessToken): Effect.Effect<Response, E | TokenError, R> => {
    try {
      return below.execute(put(request, token))
    } catch (defect) {
      // it may show the request: it is concealed like any other
      return Effect.die(defect)
    }
  }

const authorized = <E, R, E2>(self: Client<E, R, E2>, request: Request, origin: string): Result<E, R, E2> => {
  const { atHand, tokens } = self.shared
  const token = atHand()
  return token === undefined
    ? Effect.matchCauseEffect(tokens.get, {
      onSuccess: (token) => attempt(self, request, origin, token, onFirstRejected),
      onFailure: (cause) => self.flavour.fail<never>(cause, request)
    })
    : attempt(self, request, origin, token, onFirstRejected)
}

/**
 * Sends the request. It is wrapped around `execute`: what the client below does to a request, it does to each one that is
 * sent.
 */
const attempt = <E, R, E2>(
  self: Client<E, R, E2>,
  request: Request,
  origin: string,
  token: AccessToken,
  onRejected: OnRejected
): Result<E, R, E2> => {
  const { flavour, send, shared } = self
  const proofs = shared.dpop === undefined ? noProofs : []
  return Effect.matchCauseEffect(send(request, token, proofs), {
    onSuccess: (response): Result<E, R, E2> => {
      const concealed = concealedBy(shared, token, proofs)
      const result = Effect.succeed(new RedactedResponse(response, concealed))
      // what nearly every response is
      if (response.status < 300 && shared.memories.isEmpty() && !shared.isRejected(response)) return result
      return judge(self, { request, token, response, result, secrets: concealed.secrets }, origin, onRejected)
    },
    onFailure: (cause): Result<E, R, E2> => {
      const concealed = concealedBy(shared, token, proofs)
      const result = flavour.fail(concealCause(cause, concealIn(concealed)), request)
      const response = responseIn(cause)
      return response === undefined
        ? result
        : judge(self, { request, token, response, result, secrets: concealed.secrets }, origin, onRejected)
    }
  })
}

const judge = <E, R, E2>(
  self: Client<E, R, E2>,
  sent: Sent<E | E2, R>,
  origin: string,
  onRejected: OnRejected
): Result<E, R, E2> => {
  const { flavour, shared } = self
  const { response, result } = sent
  if (shared.isRejected(response)) return onRejected(self, sent, origin)
  const shown = response.status === 403 ? flavour.forbid(sent) : result
  return shared.memories.isEmpty() || response.status >= 500
    ? shown
    : Effect.zipRight(shared.memories.change(origin, On401.onAccepted), shown)
}

const onFirstRejected: OnRejected = (self, rejected, origin) =>
  self.shared.dpop !== undefined && isNonceChallenge(rejected.response)
    ? self.flavour.reject(rejected)
    : Effect.catchTag(Effect.fail(unauthorized), "Unauthorized", () => recover(self, rejected, origin))

const recover: OnRejected = (self, rejected, origin) => {
  const { flavour, shared } = self
  return Effect.flatMap(
    shared.memories.decide(origin, {
      token: rejected.token,
      isReplayable: isReplayable(rejected.request.body)
    }),
    (decision) => {
      switch (decision) {
        case "PassThrough":
          return flavour.reject(rejected)
        case "Replay":
          return replay(self, rejected, origin)
        case "Renew":
          return Effect.zipRight(renew(shared, origin, rejected.token), flavour.reject(rejected))
      }
    }
  )
}

/** The response's body is discarded, the token is refreshed, the request is sent again: once. */
const replay: OnRejected = <E, R, E2>(self: Client<E, R, E2>, rejected: Sent<E | E2, R>, origin: string) =>
  Effect.suspend(() => {
    const { flavour, shared } = self
    const { request, response, token } = rejected
    const known = shared.lastFailure
    let outcome: "unsent" | "rejected" | "received" = "unsent"
    const fresh = pipe(
      shared.tokens.refresh(token),
      Effect.tap(() =>
        Effect.sync(() => {
          outcome = "received"
          shared.lastFailure = undefined
        })
      ),
      Effect.tapError((error) =>
        Effect.sync(() => {
          shared.lastFailure = error
        })
      )
    )
    const onRejectedAgain: OnRejected = (self, again) => {
      outcome = "rejected"
      // a demand for another nonce says nothing of the token
      return shared.dpop !== undefined && isNonceChallenge(again.response)
        ? self.flavour.reject(again)
        : Effect.zipRight(noteRejected(shared, origin, token, again.token), self.flavour.reject(again))
    }
    return pipe(
      Effect.logDebug("refreshing the token and sending the request again after a 401", { origin }),
      inModule("AuthorizedHttpClient"),
      Effect.zipRight(known === undefined ? discardBody(response) : Effect.void),
      Effect.zipRight(Effect.either(fresh)),
      Effect.flatMap((refreshed): Result<E, R, E2> => {
        if (Either.isRight(refreshed)) {
          return Effect.zipRight(
            known === undefined ? Effect.void : discardBody(response),
            attempt(self, request, origin, refreshed.right, onRejectedAgain)
          )
        }
        // during an outage the token stays in use: one request has told of it, the others get their response
        return refreshed.left === known && isTransient(refreshed.left)
          ? flavour.reject(rejected)
          : Effect.zipRight(
            known === undefined ? Effect.void : discardBody(response),
            flavour.fail<never>(Cause.fail(refreshed.left), request)
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

/** What a rejected token is inside: the error itself is made only if the rejection is final. */
const unauthorized = { _tag: "Unauthorized" } as const

const noProofs: Array<string> = []

const replays = {
  accepted: Metric.tagged(TokenMetrics.replays, "outcome", "accepted"),
  refused: Metric.tagged(TokenMetrics.replays, "outcome", "refused"),
  failed: Metric.tagged(TokenMetrics.replays, "outcome", "failed")
}

/** Made once per token, as long as there are no proofs. */
const concealedBy = (shared: Shared, token: AccessToken, proofs: ReadonlyArray<string>): Concealed => {
  if (proofs === noProofs && shared.concealed?.token === token) return shared.concealed.by
  const by = { headers: shared.headers, secrets: () => [Redacted.value(token.value), ...proofs] }
  shared.concealed = { token, by }
  return by
}

/** A program may have replaced the list of headers that spans do not show. Nearly always it holds these. */
const concealedInSpans = <A, E, R>(shared: Shared, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const fiber = Option.getOrUndefined(Fiber.getCurrentFiber())
  const redacted: ReadonlyArray<string | RegExp> = fiber?.getFiberRef(Headers.currentRedactedNames) ?? []
  if (redacted === shared.redactedNames) return effect
  if (!shared.headers.every((name) => redacted.includes(name))) {
    return Effect.locally(effect, Headers.currentRedactedNames, [...redacted, ...shared.headers])
  }
  shared.redactedNames = redacted
  return effect
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
