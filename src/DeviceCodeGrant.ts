/**
 * A person signs in on another device: the device authorization grant (RFC 8628), for programs without a browser or on a
 * machine that nobody sits at.
 *
 * @since 0.2.0
 */
import * as UrlParams from "@effect/platform/UrlParams"
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken } from "./AccessToken.ts"
import { AuthorizationServer } from "./AuthorizationServer.ts"
import { type Grant, refreshToken } from "./Grant.ts"
import { isSecure, shownUrl } from "./internal/endpoint/discovery.ts"
import { keyOf, toParams, validate } from "./internal/grantParams.ts"
import { check, endpointUrl } from "./internal/options.ts"
import { printable } from "./internal/printable.ts"
import { list, scopes } from "./internal/scope.ts"
import { Flight } from "./internal/token/flight.ts"
import { TokenEndpoint } from "./TokenEndpoint.ts"
import { AuthorizationError, InvalidTokenResponse, isTransient, type TokenError } from "./TokenError.ts"

/**
 * @since 0.2.0
 * @category models
 */
export interface Options {
  /** The scopes to ask for: one string with spaces, or a list. Many servers give a refresh token for `offline_access` only. */
  readonly scope?: string | ReadonlyArray<string> | undefined
  /** The `audience` parameter, which some authorization servers need. Defaults to none. */
  readonly audience?: string | undefined
  /** The resources that the token is for (RFC 8707). Defaults to none. */
  readonly resource?: string | ReadonlyArray<string> | undefined
  /** Further parameters of the device authorization request; they do not go with a refresh. Defaults to none. */
  readonly params?: Readonly<Record<string, string>> | undefined
  /** Where codes come from. Defaults to the endpoint in the metadata of the authorization server. */
  readonly deviceAuthorizationEndpoint?: string | URL | undefined
  /** Whose tokens these are, where several people share a storage. Defaults to nobody's in particular. */
  readonly account?: string | undefined
}

/**
 * What a person needs to sign in.
 *
 * @since 0.2.0
 * @category models
 */
export interface DeviceCode {
  /** The code to type in. */
  readonly userCode: string
  /** Where to type it in. */
  readonly verificationUri: string
  /** The same with the code in it, for a link or a QR code. */
  readonly verificationUriComplete: Option.Option<string>
  /** When the code ends. */
  readonly expiresAt: DateTime.Utc
}

/**
 * Shows a code to a person. Polling does not wait for `show`; when the sign-in has ended, a `show` that still runs is
 * interrupted.
 *
 * @since 0.2.0
 * @category tags
 */
export class DevicePrompt extends Context.Tag("effect-alf/DevicePrompt")<DevicePrompt, {
  readonly show: (code: DeviceCode) => Effect.Effect<void>
}>() {}

/**
 * Writes URL, code and the time that is left to the standard error.
 *
 * @example
 * ```ts
 * import { Layer, Redacted } from "effect"
 * import { Alf, DeviceCodeGrant } from "effect-alf"
 *
 * export const layer = Alf.layer({
 *   issuer: "https://auth.example.com",
 *   clientId: "command-line-tool",
 *   grant: DeviceCodeGrant.make({ scope: "openid offline_access" }),
 *   origins: ["https://api.example.com"]
 * }).pipe(Layer.provide(DeviceCodeGrant.layerConsole))
 * ```
 *
 * @since 0.2.0
 * @category layers
 */
export const layerConsole: Layer.Layer<DevicePrompt> = Layer.succeed(DevicePrompt, {
  show: ({ expiresAt, userCode, verificationUri, verificationUriComplete }) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const minutes = Math.max(1, Math.round((DateTime.toEpochMillis(expiresAt) - now) / 60_000))
      return Console.error(
        [
          "",
          `To sign in, open ${verificationUri}`,
          `and enter the code ${userCode}`,
          ...Option.toArray(Option.map(verificationUriComplete, (url) => `or open ${url}`)),
          `The code is good for ${minutes === 1 ? "1 minute" : `${minutes} minutes`}.`,
          ""
        ].join("\n")
      )
    })
})

const grantType = "urn:ietf:params:oauth:grant-type:device_code"

/**
 * Shows a code to a person, and asks the token endpoint until the person has signed in.
 *
 * **Details**
 *
 * A refresh token is used before anybody is asked again (`Grant.refreshToken`). The code is shown once, however many callers
 * wait. Polls come as often as the server says (5 seconds unless it says otherwise, never less than 1), and back off when it
 * asks for that or cannot be reached.
 *
 * It fails with an `AuthorizationError`: `AccessDenied` if the person said no, `Timeout` when the code has ended. A response
 * without a usable code is an `InvalidTokenResponse`; without a device authorization endpoint it is a `DiscoveryError`
 * "Unsupported".
 *
 * @example
 * ```ts
 * import { DeviceCodeGrant } from "effect-alf"
 *
 * export const grant = DeviceCodeGrant.make({ scope: ["openid", "offline_access"] })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const make = (options: Options = {}): Grant<DevicePrompt> => {
  const { account, deviceAuthorizationEndpoint, resource, scope } = options
  return refreshToken<DevicePrompt>({
    key: JSON.stringify([
      keyOf(grantType, options),
      deviceAuthorizationEndpoint === undefined ? null : String(deviceAuthorizationEndpoint),
      account ?? null
    ]),
    signsIn: true,
    registration: { grantTypes: [grantType], redirectUris: [] },
    narrow: ({ resource, scope }) => make({ ...options, resource, scope }),
    validate: Effect.gen(function*() {
      yield* validate(options)
      yield* check(account !== "", () => "account is empty: write whose tokens these are, or leave it out")
      if (deviceAuthorizationEndpoint !== undefined) {
        yield* endpointUrl("deviceAuthorizationEndpoint", deviceAuthorizationEndpoint)
      }
    }),
    acquire: () => signIn(options)
  }, scope === undefined && resource === undefined ? {} : { scope, resource })
}

const signIn = (
  options: Options
): Effect.Effect<AccessToken, TokenError, AuthorizationServer | TokenEndpoint | DevicePrompt> =>
  Effect.gen(function*() {
    const server = yield* AuthorizationServer
    const prompt = yield* DevicePrompt
    const flight = yield* Flight
    const { deviceAuthorizationEndpoint: given } = options
    const form = UrlParams.remove(toParams("", options), "grant_type")
    const members = yield* server.request(given === undefined ? "deviceAuthorization" : new URL(given), form)
    const endpoint = given === undefined ? (yield* server.metadata).deviceAuthorizationEndpoint ?? "" : String(given)
    const code = yield* decode(members, shownUrl(endpoint), yield* Clock.currentTimeMillis)
    yield* flight.extend(code.lifetime)
    const token = yield* Effect.raceFirst(
      poll(code),
      // if it dies, nobody sees the code
      Effect.zipRight(Effect.suspend(() => prompt.show(code.shown)), Effect.never)
    )
    const asked = list(options.scope).flatMap(scopes)
    return token.scope.length > 0 || asked.length === 0 ? token : new AccessToken({ ...token, scope: asked })
  })

interface Code {
  readonly deviceCode: Redacted.Redacted
  readonly shown: DeviceCode
  readonly lifetime: Duration.Duration
  /** In milliseconds, as the end. */
  readonly interval: number
  readonly end: number
}

/** A code is not waited for longer than this, whatever the server says: in seconds. */
const longestLife = 24 * 60 * 60

/** How long a code is good for if the server does not say: in seconds. */
const usualLife = 5 * 60

/** No text of the server is shown that is longer. */
const longestText = 2_048

const decode = (
  members: Readonly<Record<string, unknown>>,
  endpoint: string,
  now: number
): Effect.Effect<Code, InvalidTokenResponse> => {
  const text = (name: string): string | undefined => {
    const value = members[name]
    return typeof value === "string" && value !== "" && value.length <= longestText ? value : undefined
  }
  const invalid = (issue: string) =>
    new InvalidTokenResponse({ endpoint, issue: `${issue} in the device authorization response (RFC 8628 §3.2)` })
  const deviceCode = text("device_code")
  const userCode = text("user_code")
  // Google's name for it
  const verificationUri = text("verification_uri") ?? text("verification_url")
  const complete = text("verification_uri_complete")
  const seconds = members["expires_in"] === undefined ? usualLife : numberOf(members["expires_in"])
  if (deviceCode === undefined) return invalid("there is no device_code")
  if (userCode === undefined) return invalid("there is no user_code")
  if (verificationUri === undefined || !isSecure(verificationUri)) {
    return invalid("there is no verification_uri that is https or loopback")
  }
  if (seconds === undefined || seconds <= 0) return invalid("expires_in is not a number of seconds above 0")
  const lifetime = Math.min(seconds, longestLife)
  const interval = numberOf(members["interval"]) ?? 5
  return Effect.succeed({
    deviceCode: Redacted.make(deviceCode),
    shown: {
      userCode: printable(userCode),
      verificationUri: printable(verificationUri),
      verificationUriComplete: Option.map(Option.filter(Option.fromNullable(complete), isSecure), printable),
      expiresAt: DateTime.unsafeMake(now + 1000 * lifetime)
    },
    lifetime: Duration.seconds(lifetime),
    interval: 1000 * Math.min(Math.max(1, interval), lifetime),
    end: now + 1000 * lifetime
  })
}

/** A number, or its text: some servers write one. */
const numberOf = (value: unknown): number | undefined => {
  const number = typeof value === "string" && /^\s*\d{1,15}\s*$/.test(value) ? Number(value) : value
  return typeof number === "number" && Number.isFinite(number) ? number : undefined
}

/** What `slow_down` adds to the interval, for good (RFC 8628 §3.5). */
const slower = 5_000

/** The longest pause after transient failures. */
const longestPause = 60_000

/** What to do after a poll that brought no token: how long to pause before the next one, in milliseconds. */
interface Pace {
  readonly interval: number
  /** Longer than `interval` while the server cannot be reached. */
  readonly pause: number
}

const poll = (code: Code): Effect.Effect<AccessToken, TokenError, TokenEndpoint> =>
  Effect.gen(function*() {
    const endpoint = yield* TokenEndpoint
    const { spend } = yield* Flight
    const request = spend(endpoint.request(
      UrlParams.fromInput({ grant_type: grantType, device_code: Redacted.value(code.deviceCode) }),
      { retry: false, count: false }
    ))
    let pace: Pace = { interval: code.interval, pause: code.interval }
    while (true) {
      const left = code.end - (yield* Clock.currentTimeMillis)
      yield* Effect.sleep(Duration.millis(Math.max(0, Math.min(left, pace.pause))))
      if (left <= pace.pause) return yield* ended
      const polled = yield* Effect.either(request)
      if (Either.isRight(polled)) return polled.right
      pace = yield* paceAfter(polled.left, pace)
    }
  })

const paceAfter = (error: TokenError, { interval, pause }: Pace): Effect.Effect<Pace, TokenError> => {
  switch (error._tag === "TokenErrorResponse" ? error.error : undefined) {
    case "authorization_pending":
      return Effect.succeed({ interval, pause: interval })
    case "slow_down":
      return Effect.succeed({ interval: interval + slower, pause: interval + slower })
    case "access_denied":
      return Effect.fail(denied(error))
    case "expired_token":
      return ended
    default:
      return isTransient(error)
        ? Effect.succeed({ interval, pause: Math.max(interval, Math.min(2 * pause, longestPause)) })
        : Effect.fail(error)
  }
}

const ended = Effect.suspend(() =>
  new AuthorizationError({
    reason: "Timeout",
    errorDescription: "nobody signed in before the code ended: the next request shows a new one"
  })
)

const denied = (error: TokenError): AuthorizationError =>
  error._tag === "TokenErrorResponse" && error.errorDescription !== undefined
    ? new AuthorizationError({
      reason: "AccessDenied",
      error: "access_denied",
      errorDescription: error.errorDescription
    })
    : new AuthorizationError({ reason: "AccessDenied", error: "access_denied" })
