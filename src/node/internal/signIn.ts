/** The part that both sign-ins share: a browser is opened, and a loopback port waits for its response. */
import * as UrlParams from "@effect/platform/UrlParams"
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
import { AuthorizationServer } from "../../AuthorizationServer.ts"
import type { Grant } from "../../Grant.ts"
import { shownUrl } from "../../internal/endpoint/discovery.ts"
import { check, endpointUrl, finiteDuration } from "../../internal/options.ts"
import { truncate } from "../../internal/endpoint/redact.ts"
import { list, scopes } from "../../internal/scope.ts"
import type { TokenEndpoint } from "../../TokenEndpoint.ts"
import {
  AuthorizationError,
  type ConfigurationError,
  DiscoveryError,
  InvalidTokenResponse,
  type TokenError
} from "../../TokenError.ts"
import { Browser } from "../Browser.ts"
import { type AuthorizationResponse, type RedirectHost, redirectUriAt, withListener } from "./listener.ts"
import * as Page from "./page.ts"

/** What both grants ask for. */
export interface Options {
  /**
   * The authorization endpoint: https, or loopback. A query is kept, a fragment is refused (RFC 6749 §3.1). Defaults to the
   * one in the metadata of the authorization server.
   */
  readonly authorizationEndpoint?: string | URL | undefined
  /** The client identifier (RFC 6749 §2.2). Defaults to that of the authorization server's client. */
  readonly clientId?: string | undefined
  /** The scopes to ask for (RFC 6749 §3.3): one string with spaces, or a list. Defaults to none. */
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** The resources that the token is for (RFC 8707). Defaults to none. */
  readonly resource?: string | ReadonlyArray<string> | undefined
  /**
   * Further parameters of the authorization request, such as `{ prompt: "consent" }`. They do not go with a refresh. Defaults
   * to none.
   */
  readonly params?: Readonly<Record<string, string>> | undefined
  /** Whose tokens these are, where several people share a storage. Defaults to nobody's in particular. */
  readonly account?: string | undefined
  /**
   * The first and the last port that may be listened on for the response; the first free one is taken. Between 1024 and
   * 65535. Defaults to `[32000, 32009]`.
   */
  readonly portRange?: readonly [first: number, last: number] | undefined
  /** The path of the redirect URI, such as `/callback`. Defaults to none: `http://127.0.0.1:32000`. */
  readonly redirectPath?: string | undefined
  /**
   * The issuer identifier that every response has to name in `iss` (RFC 9207), which protects programs that use several
   * authorization servers. Defaults to the issuer in the metadata, which has to be named where the metadata says so, and
   * must not differ where it is named.
   */
  readonly issuer?: string | undefined
  /** How long a sign-in is awaited. Defaults to 5 minutes. */
  readonly timeout?: Duration.DurationInput | undefined
}

/** What is different between the grants. */
export interface Flow {
  readonly name: "authorization_code" | "implicit"
  readonly responseType: "code" | "token"
  /** Where the response stands in the redirect URI. */
  readonly part: "query" | "fragment"
  readonly redirectHost: RedirectHost
  /** Whether the parameters are pushed to the server first (RFC 9126). */
  readonly par: "auto" | "always" | "never"
  /** Begins one sign-in: whatever secret it has is made here. */
  readonly begin: Effect.Effect<{
    /** Parameters of the authorization request. */
    readonly params: Readonly<Record<string, string>>
    /** What follows from a response that is not an error; `None` if it is malformed. */
    readonly read: (response: AuthorizationResponse, request: Request) => Option.Option<Next>
  }>
}

/** What a response is about. */
export interface Request {
  readonly redirectUri: string
  readonly scope: ReadonlyArray<string>
}

type Next = Effect.Effect<AccessToken, TokenError, TokenEndpoint>

export const make = (options: Options, flow: Flow): Grant<Browser> => {
  const scope = list(options.scope).flatMap(scopes)
  const further = Object.entries(options.params ?? {})
  const settings = decode(options, flow, scope)
  return {
    key: JSON.stringify([
      flow.name,
      options.authorizationEndpoint === undefined ? null : String(options.authorizationEndpoint),
      options.clientId ?? null,
      [...new Set(scope)].sort(),
      further.sort(([a], [b]) => a < b ? -1 : 1),
      [...new Set(list(options.resource))].sort(),
      options.issuer ?? null,
      options.account ?? null
    ]),
    signsIn: true,
    patience: Option.getOrElse(Duration.decodeUnknown(options.timeout ?? usualTimeout), () => usualTimeout),
    registration: { grantTypes: [flow.name], redirectUris: redirectUris(options, flow) },
    validate: Effect.asVoid(settings),
    acquire: () =>
      Effect.matchEffect(settings, {
        onFailure: ({ issue }) => Effect.fail(new AuthorizationError({ reason: "Failed", errorDescription: issue })),
        onSuccess: (settings) => Effect.flatMap(locate(settings), (target) => signIn(settings, target))
      })
  }
}

const usualTimeout = Duration.minutes(5)

const usualPorts: readonly [number, number] = [32000, 32009]

/** Every redirect URI that may be used: a client registers them all. */
const redirectUris = ({ portRange = usualPorts, redirectPath = "" }: Options, { redirectHost }: Flow) => {
  const [first, last] = portRange
  const count = Math.min(Math.max(0, last - first + 1), 1_000)
  return Array.from({ length: count }, (_, n) => redirectUriAt(redirectHost, first + n, redirectPath))
}

interface Settings {
  readonly flow: Flow
  readonly endpoint: URL | undefined
  readonly clientId: string | undefined
  readonly params: UrlParams.UrlParams
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
  "request_uri",
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
    const { account, clientId, issuer, params = {}, portRange = usualPorts, redirectPath: path = "" } = options
    const endpoint = options.authorizationEndpoint === undefined
      ? undefined
      : yield* endpointUrl("authorizationEndpoint", options.authorizationEndpoint)
    yield* check(clientId !== "", () =>
      "clientId is empty: write the identifier that the authorization server gave this client, or leave it out")
    yield* check(account !== "", () =>
      "account is empty: write whose tokens these are, or leave it out")
    for (const name of reserved) {
      yield* check(!Object.hasOwn(params, name), () =>
        `params.${name} is set by the library from the other options: leave it out`)
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
      clientId,
      params: UrlParams.fromInput([
        ...Object.entries(params),
        ["response_type", flow.responseType],
        ...(scope.length === 0 ? [] : [["scope", scope.join(" ")] as const]),
        ...list(options.resource).map((uri) =>
          ["resource", uri] as const
        )
      ]),
      scope,
      firstPort,
      lastPort,
      path,
      issuer,
      timeout: yield* finiteDuration("timeout", options.timeout ?? usualTimeout)
    }
  })

/** Whether a URL has this path as it is written. */
const isPath = (text: string): boolean => /^\/(?!\/)/.test(text) && new URL(text, "http://localhost").pathname === text

/** Where a person is sent to, and what is known of the server there. */
interface Target {
  readonly endpoint: URL
  readonly clientId: string
  /** The issuer that a response must not contradict; absent if it is not known. */
  readonly issuer: string | undefined
  /** Whether a response has to name it. */
  readonly isIssuerRequired: boolean
  readonly isPushed: boolean
}

/** What the options leave out comes from the authorization server. */
const locate = (
  { clientId, endpoint, flow, issuer }: Settings
): Effect.Effect<Target, TokenError, AuthorizationServer> =>
  Effect.gen(function*() {
    const server = yield* AuthorizationServer
    const metadata = yield* server.metadata
    const unsupported = (description: string) =>
      new DiscoveryError({
        url: shownUrl(metadata.issuer || metadata.tokenEndpoint),
        reason: "Unsupported",
        description
      })
    const found = endpoint ?? metadata.authorizationEndpoint
    if (found === undefined) {
      return yield* unsupported("The authorization server names no authorization endpoint: give authorizationEndpoint")
    }
    const methods = metadata.codeChallengeMethodsSupported
    if (flow.responseType === "code" && methods !== undefined && !methods.includes("S256")) {
      return yield* unsupported("The authorization server does not support PKCE with S256 (RFC 7636)")
    }
    const isPushed = flow.par === "always" ||
      (flow.par === "auto" && metadata.requirePushedAuthorizationRequests === true)
    if (isPushed && metadata.pushedAuthorizationRequestEndpoint === undefined) {
      return yield* unsupported(
        "The authorization server names no endpoint for pushed authorization requests (RFC 9126)"
      )
    }
    return {
      endpoint: new URL(found),
      clientId: clientId ?? server.clientId,
      issuer: issuer ?? (metadata.issuer === "" ? undefined : metadata.issuer),
      isIssuerRequired: issuer !== undefined || metadata.authorizationResponseIssParameterSupported === true,
      isPushed
    }
  })

/** Opens the browser, waits for the response, and does what follows from it. */
const signIn = (
  settings: Settings,
  target: Target
): Effect.Effect<AccessToken, TokenError, AuthorizationServer | Browser | TokenEndpoint> =>
  Effect.gen(function*() {
    const { flow, scope, timeout } = settings
    const browser = yield* Browser
    const outer = yield* Effect.scope
    const state = randomText(16)
    const { params, read } = yield* flow.begin
    const responded = yield* Deferred.make<Next>()
    const outcome = yield* Deferred.make<Page.Page>()

    const receive = (response: AuthorizationResponse, redirectUri: string): Effect.Effect<Page.Page> => {
      if (!isSame(response["state"] ?? "", state)) return Effect.succeed(Page.expired)
      return Option.match(Option.orElse(refusal(response, target), () => read(response, { redirectUri, scope })), {
        onNone: () => Effect.succeed(Page.malformed),
        // the window shows how it ended, so it waits for the end
        onSome: (next) => Effect.zipRight(Deferred.succeed(responded, next), Deferred.await(outcome))
      })
    }

    const ask = (redirectUri: string) =>
      Effect.gen(function*() {
        const url = yield* authorizationUrl(
          target,
          UrlParams.setAll(settings.params, {
            ...params,
            client_id: target.clientId,
            redirect_uri: redirectUri,
            state
          })
        )
        // it may stay until it has seen the last page, and that page comes from the listener
        const opened = yield* Effect.forkIn(browser.open(url), outer)
        return yield* pipe(
          Deferred.await(responded),
          Effect.raceFirst(Effect.zipRight(Fiber.join(opened), Effect.never)),
          Effect.raceFirst(process.stderr.isTTY ? countdown(timeout, redirectUri) : Effect.never),
          Effect.timeoutFail({
            duration: timeout,
            onTimeout: () =>
              new AuthorizationError({
                reason: "Timeout",
                errorDescription:
                  `nobody signed in within ${Duration.format(timeout)}: is ${redirectUri} registered as a ` +
                  "redirect URI of the client?"
              })
          }),
          Effect.flatten
        )
      }).pipe(Effect.onExit((exit) => Deferred.succeed(outcome, lastPage(exit))))

    return yield* withListener({ ...settings, host: flow.redirectHost, part: flow.part, receive }, ask)
  }).pipe(Effect.scoped)

/** The URL for the browser; the parameters are in it, or were pushed to the server before (RFC 9126). */
const authorizationUrl = (
  { clientId, endpoint, isPushed }: Target,
  params: UrlParams.UrlParams
): Effect.Effect<URL, TokenError, AuthorizationServer> =>
  Effect.gen(function*() {
    const shown = isPushed
      ? UrlParams.fromInput({ client_id: clientId, request_uri: yield* push(params) })
      : params
    const url = new URL(endpoint)
    for (const [name] of shown) url.searchParams.delete(name)
    for (const [name, value] of shown) url.searchParams.append(name, value)
    return url
  })

const push = (params: UrlParams.UrlParams): Effect.Effect<string, TokenError, AuthorizationServer> =>
  Effect.gen(function*() {
    const server = yield* AuthorizationServer
    const { request_uri: uri } = yield* server.request("pushedAuthorizationRequest", params)
    if (typeof uri === "string" && uri !== "" && uri.length <= 4096) return uri
    const { pushedAuthorizationRequestEndpoint = "" } = yield* server.metadata
    return yield* new InvalidTokenResponse({
      endpoint: shownUrl(pushedAuthorizationRequestEndpoint),
      issue: "there is no request_uri in the response to the pushed authorization request (RFC 9126 §2.2)"
    })
  })

/** The end that a response brings by itself: it comes from another server, or it is an error. */
const refusal = (response: AuthorizationResponse, { isIssuerRequired, issuer }: Target): Option.Option<Next> => {
  const { iss } = response
  const isOther = issuer !== undefined && (iss === undefined ? isIssuerRequired : iss !== issuer)
  if (isOther) {
    return Option.some(
      Effect.fail(
        new AuthorizationError({
          reason: "IssuerMismatch",
          errorDescription: iss === undefined
            ? "the response does not name its issuer in iss"
            : "the response names another issuer in iss"
        })
      )
    )
  }
  const { error, error_description: description } = response
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
    `Waiting for the sign-in in the browser, ${Duration.format(left)} left (the response comes to ${redirectUri})`
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
