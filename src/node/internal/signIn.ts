import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import { randomBytes, timingSafeEqual } from "node:crypto"
import type { AccessToken } from "../../AccessToken.ts"
import type { Grant } from "../../Grant.ts"
import { check, endpointUrl, finiteDuration } from "../../internal/options.ts"
import { truncate } from "../../internal/endpoint/redact.ts"
import { scopes } from "../../internal/scope.ts"
import type { TokenEndpoint } from "../../TokenEndpoint.ts"
import { AuthorizationError, type ConfigurationError, type TokenError } from "../../TokenError.ts"
import { Browser } from "../Browser.ts"
import { type Answer, type RedirectHost, withListener } from "./listener.ts"
import * as Page from "./page.ts"

/** What both grants ask for. */
export interface Options {
  /** The authorization endpoint: https, or loopback. A query is kept, a fragment is refused (RFC 6749 §3.1). */
  readonly authorizationEndpoint: string | URL
  /** The client identifier (RFC 6749 §2.2). */
  readonly clientId: string
  /** The scopes to ask for (RFC 6749 §3.3): one string with spaces, or a list. Defaults to none. */
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** Further parameters of the authorization request, such as `{ prompt: "consent" }`. Defaults to none. */
  readonly params?: Readonly<Record<string, string>> | undefined
  /**
   * The first and the last port that may be listened on for the answer; the first free one is taken. Between 1024 and
   * 65535. Defaults to `[32000, 32009]`.
   */
  readonly portRange?: readonly [first: number, last: number] | undefined
  /** The path of the redirect URI, such as `/callback`. Defaults to none: `http://127.0.0.1:32000`. */
  readonly redirectPath?: string | undefined
  /**
   * The authorization server's issuer identifier. With it, an answer has to name this issuer in `iss` (RFC 9207), which
   * protects programs that use several authorization servers. Defaults to none: `iss` is not looked at.
   */
  readonly issuer?: string | undefined
  /** How long a sign-in is awaited. Defaults to 5 minutes. */
  readonly timeout?: Duration.DurationInput | undefined
}

/** What is different between the grants. */
export interface Flow {
  readonly name: "authorization_code" | "implicit"
  readonly responseType: "code" | "token"
  /** Where the answer stands in the redirect URI. */
  readonly part: "query" | "fragment"
  readonly redirectHost: RedirectHost
  /** Begins one sign-in: whatever secret it has is made here. */
  readonly begin: Effect.Effect<{
    /** Parameters of the authorization request. */
    readonly params: Readonly<Record<string, string>>
    /** What follows from an answer that is no error; none if it is malformed. */
    readonly read: (answer: Answer, request: Request) => Option.Option<Next>
  }>
}

/** What an answer answers. */
export interface Request {
  readonly redirectUri: string
  readonly scope: ReadonlyArray<string>
}

type Next = Effect.Effect<AccessToken, TokenError, TokenEndpoint>

export const make = (options: Options, flow: Flow): Grant<Browser> => {
  const scope = [options.scope ?? []].flat().flatMap(scopes)
  const further = Object.entries(options.params ?? {})
  const settings = decode(options, flow, scope)
  return {
    key: JSON.stringify([
      flow.name,
      String(options.authorizationEndpoint),
      options.clientId,
      [...new Set(scope)].sort(),
      further.sort(([a], [b]) => a < b ? -1 : 1)
    ]),
    validate: Effect.asVoid(settings),
    acquire: () =>
      Effect.matchEffect(settings, {
        onFailure: ({ issue }) => Effect.fail(new AuthorizationError({ reason: "Failed", errorDescription: issue })),
        onSuccess: signIn
      })
  }
}

interface Settings {
  readonly flow: Flow
  readonly endpoint: URL
  readonly params: Readonly<Record<string, string>>
  readonly scope: ReadonlyArray<string>
  readonly firstPort: number
  readonly lastPort: number
  readonly path: string
  readonly issuer: string | undefined
  readonly timeout: Duration.Duration
}

/** The parameters that this module sets. */
const reserved: ReadonlyArray<string> = [
  "response_type",
  "response_mode",
  "client_id",
  "redirect_uri",
  "scope",
  "state",
  "code_challenge",
  "code_challenge_method"
]

const redirectHosts: ReadonlyArray<RedirectHost> = ["localhost", "127.0.0.1", "::1"]

const decode = (
  options: Options,
  flow: Flow,
  scope: ReadonlyArray<string>
): Effect.Effect<Settings, ConfigurationError> =>
  Effect.gen(function*() {
    const { clientId, issuer, params = {}, portRange = [32000, 32009], redirectPath: path = "" } = options
    const endpoint = yield* endpointUrl("authorizationEndpoint", options.authorizationEndpoint)
    yield* check(typeof clientId === "string" && clientId !== "", () =>
      "clientId is empty: write the identifier that the authorization server gave this client")
    for (const name of reserved) {
      yield* check(!Object.hasOwn(params, name), () =>
        `params.${name} is not yours to set: it is made of the other options`)
    }
    const [firstPort, lastPort] = portRange
    yield* check(Number.isInteger(firstPort) && Number.isInteger(lastPort), () =>
      "portRange is not two whole numbers: write the first and the last port, such as [32000, 32009]")
    yield* check(firstPort <= lastPort, () =>
      "portRange is reversed, so that it holds no port: write the lower port first, such as [32000, 32009]")
    yield* check(firstPort >= 1024 && lastPort <= 65535, () =>
      "portRange leaves the ports that a program may listen on: stay between 1024 and 65535")
    yield* check(path === "" || isPath(path), () =>
      "redirectPath is not the path of a URL: write one such as \"/callback\"")
    yield* check(redirectHosts.includes(flow.redirectHost), () =>
      "redirectHost is not this machine: write \"localhost\", \"127.0.0.1\" or \"::1\"")
    yield* check(issuer !== "", () =>
      "issuer is empty: write the authorization server's issuer identifier, or leave it out")
    return {
      flow,
      endpoint,
      params: {
        ...params,
        response_type: flow.responseType,
        client_id: clientId,
        ...(scope.length === 0 ? {} : { scope: scope.join(" ") })
      },
      scope,
      firstPort,
      lastPort,
      path,
      issuer,
      timeout: yield* finiteDuration("timeout", options.timeout ?? "5 minutes")
    }
  })

/** Whether a URL has this path as it is written. */
const isPath = (text: string): boolean => /^\/(?!\/)/.test(text) && new URL(text, "http://localhost").pathname === text

/** Opens the browser, waits for the answer, and does what follows from it. */
const signIn = (settings: Settings): Effect.Effect<AccessToken, TokenError, Browser | TokenEndpoint> =>
  Effect.gen(function*() {
    const { flow, scope, timeout } = settings
    const browser = yield* Browser
    const outer = yield* Effect.scope
    const state = randomText(16)
    const { params, read } = yield* flow.begin
    const answered = yield* Deferred.make<Next>()
    const outcome = yield* Deferred.make<Page.Page>()

    const receive = (answer: Answer, redirectUri: string): Effect.Effect<Page.Page> => {
      if (!isSame(answer["state"] ?? "", state)) return Effect.succeed(Page.expired)
      return Option.match(Option.orElse(refusal(answer, settings.issuer), () => read(answer, { redirectUri, scope })), {
        onNone: () => Effect.succeed(Page.malformed),
        // the window shows how it ended, so it waits for the end
        onSome: (next) => Effect.zipRight(Deferred.succeed(answered, next), Deferred.await(outcome))
      })
    }

    const ask = (redirectUri: string) =>
      Effect.gen(function*() {
        const url = authorizationUrl(settings, { ...params, redirect_uri: redirectUri, state })
        // it may stay until it has seen the last page, and that page comes from the listener
        const opened = yield* Effect.forkIn(browser.open(url), outer)
        return yield* pipe(
          Deferred.await(answered),
          Effect.raceFirst(Effect.zipRight(Fiber.join(opened), Effect.never)),
          Effect.raceFirst(process.stderr.isTTY ? countdown(timeout, redirectUri) : Effect.never),
          Effect.timeoutFail({
            duration: timeout,
            onTimeout: () =>
              new AuthorizationError({
                reason: "Timeout",
                errorDescription: `nobody signed in within ${Duration.format(timeout)}`
              })
          }),
          Effect.flatten
        )
      }).pipe(Effect.onExit((exit) => Deferred.succeed(outcome, lastPage(exit))))

    return yield* withListener({ ...settings, host: flow.redirectHost, part: flow.part, receive }, ask)
  }).pipe(Effect.scoped)

const authorizationUrl = (settings: Settings, params: Readonly<Record<string, string>>): URL => {
  const url = new URL(settings.endpoint)
  for (const [name, value] of Object.entries({ ...settings.params, ...params })) url.searchParams.set(name, value)
  return url
}

/** The end that an answer brings by itself: it comes from another server, or it is an error. */
const refusal = (answer: Answer, issuer: string | undefined): Option.Option<Next> => {
  if (issuer !== undefined && answer["iss"] !== issuer) {
    return Option.some(
      Effect.fail(new AuthorizationError({ reason: "IssuerMismatch", errorDescription: "iss names another issuer" }))
    )
  }
  const { error, error_description: description } = answer
  return error === undefined || error === "" ? Option.none() : Option.some(
    Effect.fail(
      new AuthorizationError({
        reason: error === "access_denied" ? "AccessDenied" : "ErrorResponse",
        error: printable(error),
        errorDescription: description === undefined ? undefined : printable(description)
      })
    )
  )
}

/** Words of the server that a terminal may show: no control characters, not too many. */
const printable = (text: string): string => truncate(text.replace(/\p{Cc}+/gu, " "), 1024)

const lastPage = (exit: Exit.Exit<AccessToken, TokenError>): Page.Page => {
  if (Exit.isSuccess(exit)) return Page.signedIn
  const error = Option.getOrUndefined(Cause.failureOption(exit.cause))
  if (error === undefined) return Page.expired
  if (error._tag !== "AuthorizationError") return Page.failed
  switch (error.reason) {
    case "AccessDenied":
    case "ErrorResponse":
      return Page.refused([error.error, error.errorDescription].filter((words) => words !== undefined).join(": "))
    case "Timeout":
      return Page.expired
    default:
      return Page.failed
  }
}

/** Tells once a minute that somebody is waited for. */
const countdown = (left: Duration.Duration, redirectUri: string): Effect.Effect<never> =>
  Console.error(
    `Waiting for the sign-in in the browser, ${Duration.format(left)} left (the answer comes to ${redirectUri})`
  ).pipe(
    Effect.zipRight(Effect.sleep("1 minute")),
    Effect.zipRight(
      Effect.suspend(() =>
        Duration.greaterThan(left, "1 minute")
          ? countdown(Duration.subtract(left, "1 minute"), redirectUri)
          : Effect.never
      )
    )
  )

/** Text that nobody can guess. */
export const randomText = (bytes: number): string => randomBytes(bytes).toString("base64url")

const isSame = (a: string, b: string): boolean => {
  const [x, y] = [Buffer.from(a), Buffer.from(b)]
  return x.length === y.length && timingSafeEqual(x, y)
}
