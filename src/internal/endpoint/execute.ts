/** One request to an authorization server over the client below: what breaks is told in fixed words. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as Headers from "@effect/platform/Headers"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import { isTokenError } from "../../TokenError.ts"
import { version } from "../version.ts"
import { brokenConnection, type RawResponse, readTokenResponse } from "./readTokenResponse.ts"

/** Why there is no response. */
export interface Broken {
  readonly _tag: "Broken"
  readonly description: string
  /** Whether the connection was refused, so that the server cannot have received the request. */
  readonly isUnsent: boolean
  /** Whether the same request would only break again. */
  readonly isFinal: boolean
}

export type Execute = (request: HttpClientRequest.HttpClientRequest) => Effect.Effect<RawResponse, Broken>

/** Headers that no span may show. */
const redactedNames = ["authorization", "dpop"]

/**
 * Sends requests over a client without following redirects: the secret goes to one URL only. Over fetch a redirect is
 * returned; a client below that follows it all the same fails.
 */
export const makeExecute: Effect.Effect<Execute, never, HttpClient.HttpClient> = Effect.gen(function*() {
  const client = yield* HttpClient.HttpClient
  const built = Option.getOrElse(yield* Effect.serviceOption(FetchHttpClient.RequestInit), () => ({}))
  return (request) =>
    pipe(
      client.execute(withUserAgent(request)),
      // a client that turns statuses into errors makes no difference
      Effect.catchIf(isStatusError, (error) => Effect.succeed(error.response)),
      Effect.flatMap((response): Effect.Effect<RawResponse, Broken | HttpClientError.ResponseError> =>
        Option.match(redirectOf(response), {
          onSome: (url) => Effect.fail(redirected(url)),
          onNone: () => readTokenResponse(response)
        })
      ),
      Effect.provideService(FetchHttpClient.RequestInit, { ...built, redirect: "manual" }),
      Effect.locally(HttpClient.currentTracerPropagation, false),
      Effect.locallyWith(Headers.currentRedactedNames, (names) => [...names, ...redactedNames]),
      Effect.catchAllCause((cause) => Effect.fail(toBroken(cause)))
    )
})

/** Some firewalls refuse requests without a user agent. A browser sends its own, and needs a preflight to send another. */
const withUserAgent = (request: HttpClientRequest.HttpClientRequest): HttpClientRequest.HttpClientRequest =>
  isBrowser() ? request : HttpClientRequest.setHeader(request, "user-agent", `effect-alf/${version}`)

const isBrowser = (): boolean => globalThis.navigator?.userAgent?.startsWith("Mozilla/") === true

/** A path may hold what was sent, so the origin is all that is shown. */
const redirected = (url: string): Broken => ({
  _tag: "Broken",
  description: `The HttpClient below followed a redirect${URL.canParse(url) ? ` to ${new URL(url).origin}` : ""}, ` +
    "so the response was not used: put followRedirects above, and configure the right URL",
  isUnsent: false,
  isFinal: true
})

/** Where a redirect led that was followed. The response of fetch is within one that ends the request when it is not read. */
const redirectOf = (response: object): Option.Option<string> => {
  if ("source" in response) {
    return response.source instanceof Response && response.source.redirected
      ? Option.some(response.source.url)
      : Option.none()
  }
  return "original" in response && typeof response.original === "object" && response.original !== null
    ? redirectOf(response.original)
    : Option.none()
}

const isStatusError = (error: HttpClientError.HttpClientError | Broken): error is HttpClientError.ResponseError =>
  error._tag === "ResponseError" && error.reason === "StatusCode" && !isTokenError(error.cause)

/** Codes of Node and undici, in plain words. */
const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was reset",
  ENOTFOUND: "the host was not found",
  EAI_AGAIN: "the host could not be looked up",
  EPIPE: "the connection was closed",
  ETIMEDOUT: "the connection timed out",
  UND_ERR_SOCKET: "the connection was closed",
  UND_ERR_CONNECT_TIMEOUT: "the connection timed out",
  DEPTH_ZERO_SELF_SIGNED_CERT: "the certificate is self-signed and not trusted",
  SELF_SIGNED_CERT_IN_CHAIN: "the certificate chain is self-signed and not trusted",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "the certificate is not trusted",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the certificate is not trusted",
  ERR_TLS_CERT_ALTNAME_INVALID: "the certificate is for another host",
  CERT_HAS_EXPIRED: "the certificate has expired"
}

/** Nothing of an error is shown but its code: its message may quote the request or the response. */
const toBroken = (cause: Cause.Cause<unknown>): Broken => {
  const error = Cause.squash(cause)
  if (isBroken(error)) return error
  const code = codeOf(error)
  const isCut = HttpClientError.isHttpClientError(error) && error.description === brokenConnection
  const why = isCut ? brokenConnection : code === undefined ? "the request failed" : words[code] ?? "the request failed"
  return {
    _tag: "Broken",
    description: `No response: ${why}${code === undefined ? "" : ` (${code})`}`,
    isUnsent: code === "ECONNREFUSED",
    isFinal: false
  }
}

const isBroken = (error: unknown): error is Broken =>
  typeof error === "object" && error !== null && "_tag" in error && error._tag === "Broken" && "isUnsent" in error

/** The code of the innermost error that has one. */
const codeOf = (error: unknown): string | undefined => {
  let code: string | undefined
  let current = error
  for (let depth = 0; depth < 8 && typeof current === "object" && current !== null; depth++) {
    const found = read(current, "code")
    if (typeof found === "string" && /^[A-Z][A-Z0-9_]{1,40}$/.test(found)) code = found
    const errors = read(current, "errors")
    current = read(current, "cause") ?? (Array.isArray(errors) ? errors[0] : undefined)
  }
  return code
}

/** A getter of a foreign error may throw. */
const read = (object: object, name: string): unknown =>
  Option.getOrUndefined(Option.liftThrowable((): unknown => Reflect.get(object, name))())
