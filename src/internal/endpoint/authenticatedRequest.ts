/** One POST with client authentication: a timeout for each attempt, retries with growing pauses, and typed errors. */
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as UrlParams from "@effect/platform/UrlParams"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { InvalidTokenResponse, isTokenError, type TokenError, TokenRequestError } from "../../TokenError.ts"
import * as TokenMetrics from "../../TokenMetrics.ts"
import { assertionIssue } from "../assertionError.ts"
import type { DPoP } from "../http/presentation.ts"
import { inModule } from "../log.ts"
import { secretIssue } from "../options.ts"
import { hardTimeout } from "../timeout.ts"
import { shownUrl } from "./discovery.ts"
import type { Execute } from "./execute.ts"
import { decodeMembers, type MapTokenResponse, type RawResponse } from "./readTokenResponse.ts"
import { secretParams } from "./redact.ts"
import type { MakeSchedule } from "./retry.ts"

/** What a method of client authentication has to do: `ClientAuthentication` is one. */
interface Authentication {
  readonly method: string
  readonly hint?: string | undefined
  readonly prove: (
    client: { readonly id: string; readonly secret: Option.Option<Redacted.Redacted> },
    at: Destination
  ) => Effect.Effect<Proof, unknown>
}

interface Proof {
  readonly authorization?: string | undefined
  readonly params?: Readonly<Record<string, string>> | undefined
}

export interface Destination {
  readonly endpoint: string
  readonly tokenEndpoint: string
  readonly issuer: Option.Option<string>
}

export interface Settings {
  readonly execute: Execute
  readonly schedule: MakeSchedule
  readonly timeout: Duration.Duration
  readonly dpop: Option.Option<DPoP>
  readonly clientId: string
  readonly clientSecret: Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown> | undefined
  readonly format: "form" | "json"
  readonly mapTokenResponse: MapTokenResponse | undefined
  /** Whether the token endpoint was configured, and not discovered. */
  readonly isConfiguredEndpoint: boolean
}

export interface Target {
  readonly url: string
  readonly authentication: Authentication
  readonly isToken: boolean
  /** Whether a success says nothing, whatever its body is (RFC 7009 §2.2). */
  readonly isBodyIgnored: boolean
  readonly destination: Destination
}

/** The members of a successful response, and what belongs to them. */
export interface Received {
  readonly members: Readonly<Record<string, unknown>>
  /** When the request was sent, in milliseconds. */
  readonly sentAt: number
  /** The `scope` that was asked for. */
  readonly requestedScope: string
  readonly endpoint: string
}

type Params = UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError>

interface Options {
  readonly retry?: false | undefined
  readonly count?: false | undefined
  readonly once?: boolean | undefined
}

/** An attempt's failure, and whether the server cannot have received the request. */
interface Failed {
  readonly error: TokenError
  readonly isUnsent: boolean
}

export const makeAuthenticatedRequest = (settings: Settings) =>
<A>(
  target: Target,
  params: Params,
  options: Options,
  read: (received: Received) => Either.Either<A, TokenError>
): Effect.Effect<A, TokenError> => {
  const endpoint = shownUrl(target.url)
  return Effect.suspend(() => {
    let attempts = 0
    let isUnsent = false
    const once = pipe(
      Effect.suspend(() => attempt(settings, target, { params, endpoint, attempts: ++attempts })),
      Effect.flatMap((received) => Either.mapLeft(read(received), (error): Failed => ({ error, isUnsent: false }))),
      hardTimeout(settings.timeout, (): Failed => ({
        isUnsent: false,
        error: requestError("Timeout", endpoint, attempts, `No response within ${Duration.format(settings.timeout)}`)
      })),
      options.count === false ? (effect) => effect : observed(endpoint),
      Effect.mapError((failed) => {
        isUnsent = failed.isUnsent
        return failed.error
      })
    )
    if (options.retry === false) return once
    return options.once === true
      ? Effect.retry(once, { schedule: settings.schedule(), while: () => isUnsent })
      : Effect.retry(once, settings.schedule())
  }).pipe(
    Effect.withSpan(target.isToken ? "TokenEndpoint.request" : "AuthorizationServer.request", {
      captureStackTrace: false,
      attributes: { endpoint }
    })
  )
}

interface Attempt {
  readonly params: Params
  readonly endpoint: string
  readonly attempts: number
}

/** One attempt. If the server asks for another nonce, the request is made anew and sent once more (RFC 9449 §8). */
const attempt = (settings: Settings, target: Target, attempt: Attempt): Effect.Effect<Received, Failed> =>
  Effect.gen(function*() {
    const first = yield* send(settings, target, attempt, Option.none())
    const repeat = yield* learned(settings.dpop, first)
    const { endpoint, members, requestedScope, sentAt } = Option.isNone(repeat)
      ? first
      : yield* Effect.tap(
        send(settings, target, attempt, repeat.value.nonce),
        (second) => learned(settings.dpop, second)
      )
    return yield* Either.mapBoth(members, {
      onLeft: (error): Failed => ({ error, isUnsent: false }),
      onRight: (members): Received => ({ members, sentAt, endpoint, requestedScope })
    })
  })

/** A request, and what came back. */
interface Exchange extends Omit<Received, "members"> {
  readonly sent: HttpClientRequest.HttpClientRequest
  readonly response: RawResponse
  readonly members: Either.Either<Readonly<Record<string, unknown>>, TokenError>
}

/** Everything is made anew: secret, assertion, proof and parameters. */
const send = (
  settings: Settings,
  target: Target,
  { attempts, endpoint, params }: Attempt,
  nonce: Option.Option<string>
): Effect.Effect<Exchange, Failed> =>
  Effect.gen(function*() {
    const failed = (reason: TokenRequestError["reason"], description: string, isUnsent = false): Failed => ({
      error: requestError(reason, endpoint, attempts, description),
      isUnsent
    })
    const given = yield* resolveParams(params, (description) => failed("Secret", description))
    const secret = yield* readSecret(settings.clientSecret, (description) => failed("Secret", description))
    const proof = yield* Effect.catchAllCause(
      Effect.suspend(() => target.authentication.prove({ id: settings.clientId, secret }, target.destination)),
      (cause) => Effect.fail(failed("Secret", assertionIssue(cause, "The client could not prove who it is")))
    )
    const form = withProof(given, proof.params ?? {})
    const request = buildRequest(target.url, form, proof, settings.format)
    const sent = Option.isNone(settings.dpop) ? request : yield* Effect.mapError(
      settings.dpop.value.prove(request, { token: Option.none(), nonce }),
      (description) => failed("Secret", description)
    )
    const sentAt = yield* Clock.currentTimeMillis
    const response = yield* Effect.mapError(
      settings.execute(sent),
      ({ description, isFinal, isUnsent }): Failed =>
        isFinal
          ? { error: new InvalidTokenResponse({ endpoint, issue: description }), isUnsent }
          : failed("Transport", description, isUnsent)
    )
    const isDone = target.isBodyIgnored && response.status >= 200 && response.status < 300
    const members = isDone ? Either.right({}) : decodeMembers(response, {
      endpoint,
      attempts,
      secrets: [
        ...Option.toArray(Option.map(secret, Redacted.value)),
        ...(proof.authorization === undefined
          ? []
          : [proof.authorization, ...proof.authorization.split(" ").slice(1)]),
        ...secretParams(form),
        ...Option.toArray(Option.fromNullable(sent.headers["dpop"]))
      ],
      mapTokenResponse: settings.mapTokenResponse,
      hint: hintFor(settings, target, secret)
    })
    const requestedScope = Option.getOrElse(UrlParams.getFirst(given, "scope"), () => "")
    return { sent, sentAt, response, members, endpoint, requestedScope }
  })

const resolveParams = (
  params: Params,
  failed: (description: string) => Failed
): Effect.Effect<UrlParams.UrlParams, Failed> =>
  Effect.catchAllCause(Effect.isEffect(params) ? params : Effect.succeed(params), (cause) =>
    Effect.fail(pipe(
      Cause.failureOption(cause),
      Option.filter(isTokenError),
      Option.match({
        onNone: () => failed("The parameters of the token request could not be made"),
        onSome: (error): Failed => ({ error, isUnsent: false })
      })
    )))

/** A pushed authorization request names the client itself: nothing is sent twice. */
const withProof = (given: UrlParams.UrlParams, proof: Readonly<Record<string, string>>): UrlParams.UrlParams =>
  UrlParams.appendAll(Object.keys(proof).reduce((params, name) => UrlParams.remove(params, name), given), proof)

/** What a proof's key learns of a response: whether the request is worth a new proof. */
const learned = (
  dpop: Option.Option<DPoP>,
  { members, response, sent }: Exchange
): Effect.Effect<Option.Option<{ readonly nonce: Option.Option<string> }>> =>
  Option.match(dpop, {
    onNone: () => Effect.succeedNone,
    onSome: (dpop) => {
      const error = Either.isLeft(members) && members.left._tag === "TokenErrorResponse"
        ? members.left.error
        : undefined
      return dpop.learn(sent, response, Option.fromNullable(error))
    }
  })

const buildRequest = (url: string, form: UrlParams.UrlParams, proof: Proof, format: Settings["format"]) =>
  pipe(
    HttpClientRequest.post(url, { acceptJson: true }),
    format === "json" ? HttpClientRequest.bodyUnsafeJson(toJson(form)) : HttpClientRequest.bodyUrlParams(form),
    proof.authorization === undefined
      ? (request) => request
      : HttpClientRequest.setHeader("authorization", proof.authorization)
  )

/** A parameter that is repeated becomes an array. */
const toJson = (form: UrlParams.UrlParams): Readonly<Record<string, string | ReadonlyArray<string>>> =>
  Object.fromEntries(
    Array.from(new Set(form.map(([name]) => name)), (name) => {
      const values = UrlParams.getAll(form, name)
      return [name, values.length === 1 ? values[0] ?? "" : values]
    })
  )

const readSecret = (
  secret: Settings["clientSecret"],
  failed: (description: string) => Failed
): Effect.Effect<Option.Option<Redacted.Redacted>, Failed> => {
  if (secret === undefined) return Effect.succeedNone
  if (Redacted.isRedacted(secret)) return Effect.succeedSome(secret)
  return pipe(
    Effect.catchAllCause(secret, () => Effect.fail(failed("The client secret could not be read"))),
    Effect.flatMap((value) =>
      Option.match(secretIssue(Redacted.value(value)), {
        onNone: () => Effect.succeedSome(value),
        onSome: (issue) => Effect.fail(failed(`The client secret ${issue}`))
      })
    )
  )
}

const requestError = (
  reason: TokenRequestError["reason"],
  endpoint: string,
  attempts: number,
  description: string
): TokenRequestError => new TokenRequestError({ reason, endpoint, attempts, description })

/** Errors that say that the client is right, and something else is wrong. */
const otherErrors: ReadonlyArray<string | undefined> = [
  "invalid_grant",
  "invalid_scope",
  "invalid_target",
  "unsupported_grant_type",
  "access_denied",
  "use_dpop_nonce",
  "invalid_dpop_proof"
]

const hintFor =
  (settings: Settings, { authentication, isToken }: Target, secret: Option.Option<Redacted.Redacted>) =>
  (status: number, error: string | undefined): string | undefined => {
    if (status === 404 && isToken && settings.isConfiguredEndpoint) {
      return "Is this the token endpoint? To discover it, give issuer in place of tokenEndpoint"
    }
    const isAboutClient = error === "invalid_client" || ((status === 400 || status === 401 || status === 403) &&
      !otherErrors.includes(error))
    if (!isAboutClient) return undefined
    if (authentication.method !== "client_secret_basic") return authentication.hint
    return [settings.clientId, Option.match(secret, { onNone: () => "", onSome: Redacted.value })].some(isFormEncoded)
      ? "The server may not decode Basic credentials: try ClientAuthentication.basicRaw or ClientAuthentication.post"
      : "Some servers only take client_secret_post: try ClientAuthentication.post"
  }

const isFormEncoded = (text: string): boolean => new URLSearchParams({ "": text }).toString() !== `=${text}`

const observed = (endpoint: string) => <A>(effect: Effect.Effect<A, Failed>): Effect.Effect<A, Failed> =>
  pipe(
    Effect.either(effect),
    Effect.timedWith(nanos),
    Effect.tap(([duration, result]) =>
      observe(endpoint, duration, Either.isRight(result) ? "success" : result.left.error._tag)
    ),
    Effect.flatMap(([_, result]) => result)
  )

const observe = (endpoint: string, duration: Duration.Duration, outcome: string) =>
  pipe(
    Effect.logDebug("token request", { endpoint, outcome }),
    inModule("TokenEndpoint"),
    Effect.zipRight(Metric.update(TokenMetrics.tokenRequestDuration, duration)),
    Effect.zipRight(Metric.increment(Metric.tagged(TokenMetrics.tokenRequests, "outcome", outcome)))
  )

/** The clock's nanoseconds, from its milliseconds: a TestClock has no others. */
const nanos = Effect.map(Clock.currentTimeMillis, (millis) => BigInt(Math.round(millis)) * 1_000_000n)
