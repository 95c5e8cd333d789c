/**
 * The ways in which getting a token can fail.
 *
 * Each error has a `_tag` of its own and plain fields that say what happened; `TokenError` is all of them.
 * None holds a request, a header, a secret or a token: what a server echoed back is redacted before it gets here.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { printable } from "./internal/printable.ts"

/**
 * The token endpoint gave no response.
 *
 * - `Transport`: no connection, or it broke before the response was complete
 * - `Timeout`: an attempt took longer than `tokenTimeout`
 * - `Secret`: the Effect that reads the client secret failed; its failure is not shown, since it may name the secret
 *
 * @since 0.1.0
 * @category errors
 */
export class TokenRequestError extends Schema.TaggedError<TokenRequestError>("effect-alf/TokenRequestError")(
  "TokenRequestError",
  {
    reason: Schema.Literal("Transport", "Timeout", "Secret"),
    /** The URL of the token endpoint, without its query. */
    endpoint: Schema.String,
    /** How many attempts were made. */
    attempts: Schema.Number,
    description: Schema.String
  }
) {
  override get message(): string {
    return printable(`${this.description} (${this.reason}, ${this.endpoint}, ${times(this.attempts)})`)
  }
}

/**
 * The token endpoint answered with an error (RFC 6749 §5.2).
 *
 * @since 0.1.0
 * @category errors
 */
export class TokenErrorResponse extends Schema.TaggedError<TokenErrorResponse>("effect-alf/TokenErrorResponse")(
  "TokenErrorResponse",
  {
    /** The URL of the token endpoint, without its query. */
    endpoint: Schema.String,
    /** The HTTP status. */
    status: Schema.Number,
    /** The error code, as it came: `invalid_client`, `invalid_scope`, …; absent if the response was not an OAuth error. */
    error: Schema.optional(Schema.String),
    errorDescription: Schema.optional(Schema.String),
    errorUri: Schema.optional(Schema.String),
    /** What the server asked to wait for in `Retry-After`. */
    retryAfter: Schema.optional(Schema.DurationFromMillis),
    /** How many attempts were made. */
    attempts: Schema.Number,
    /** The beginning of the response's text, at most 4 KiB, with every secret redacted. */
    body: Schema.String,
    /** What to try, if the response suggests something. */
    hint: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const what = this.error === undefined
      ? this.body.trim() === "" ? "no OAuth error" : `no OAuth error: ${this.body.slice(0, 200)}`
      : this.errorDescription === undefined
      ? this.error
      : `${this.error}: ${this.errorDescription}`
    const wait = this.retryAfter === undefined ? "" : `, retry after ${Duration.format(this.retryAfter)}`
    const hint = this.hint === undefined ? "" : `. ${this.hint}`
    return printable(
      `The token endpoint answered ${this.status}: ${what} (${this.endpoint}, ${times(this.attempts)}${wait})${hint}`
    )
  }
}

/**
 * The token endpoint answered with a success that holds no usable token (RFC 6749 §5.1).
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidTokenResponse extends Schema.TaggedError<InvalidTokenResponse>("effect-alf/InvalidTokenResponse")(
  "InvalidTokenResponse",
  {
    /** The URL of the token endpoint, without its query. */
    endpoint: Schema.String,
    /** What is wrong with the response. */
    issue: Schema.String
  }
) {
  override get message(): string {
    return printable(`The token endpoint's response cannot be used: ${this.issue} (${this.endpoint})`)
  }
}

/**
 * A sign-in ended without a token.
 *
 * - `AccessDenied`: the person or the authorization server said no (`access_denied`, RFC 6749 §4.1.2.1)
 * - `ErrorResponse`: the authorization server returned another error; `error` and `errorDescription` are its words
 * - `IssuerMismatch`: the response names another issuer in `iss` (RFC 9207)
 * - `Timeout`: nobody signed in in time
 * - `NoPort`: no port of the range was free for the redirect
 * - `Failed`: anything else
 *
 * @since 0.1.0
 * @category errors
 */
export class AuthorizationError extends Schema.TaggedError<AuthorizationError>("effect-alf/AuthorizationError")(
  "AuthorizationError",
  {
    reason: Schema.Literal("AccessDenied", "ErrorResponse", "IssuerMismatch", "Timeout", "NoPort", "Failed"),
    error: Schema.optional(Schema.String),
    errorDescription: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const words = [this.error, this.errorDescription].filter((word) => word !== undefined)
    return printable([`The sign-in ended without a token (${this.reason})`, ...words].join(": "))
  }
}

/**
 * The metadata of an authorization server or of a protected resource cannot be used (RFC 8414, RFC 9728).
 *
 * - `Transport`: no response, or a certificate that is not trusted
 * - `NotFound`: none of the well-known URLs has metadata
 * - `Invalid`: a document that cannot be used, or that names an endpoint that is neither https nor loopback
 * - `IssuerMismatch`: the document names another issuer than the one that was asked for
 * - `ResourceMismatch`: the document is about another resource
 * - `Unsupported`: the server does not offer what is needed
 *
 * @since 0.2.0
 * @category errors
 */
export class DiscoveryError extends Schema.TaggedError<DiscoveryError>("effect-alf/DiscoveryError")("DiscoveryError", {
  /** The URL that was asked, or the issuer, without a query. */
  url: Schema.String,
  reason: Schema.Literal("Transport", "NotFound", "Invalid", "IssuerMismatch", "ResourceMismatch", "Unsupported"),
  description: Schema.String,
  /** What the server asked to wait for in `Retry-After`. */
  retryAfter: Schema.optional(Schema.DurationFromMillis)
}) {
  override get message(): string {
    return printable(`${this.description} (${this.reason}, ${this.url})`)
  }
}

/**
 * The layer that the client or the token service came from was closed, so no token can be fetched any more.
 *
 * @since 0.2.0
 * @category errors
 */
export class LayerClosed extends Schema.TaggedError<LayerClosed>("effect-alf/LayerClosed")("LayerClosed", {}) {
  override get message(): string {
    return "The layer that this client came from is closed: use the client while the layer's scope is open"
  }
}

/**
 * Why there is no token.
 *
 * @since 0.1.0
 * @category errors
 */
export type TokenError =
  | TokenRequestError
  | TokenErrorResponse
  | InvalidTokenResponse
  | AuthorizationError
  | DiscoveryError
  | LayerClosed

/**
 * Options that cannot work. Found when a layer is built, before any request.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConfigurationError extends Schema.TaggedError<ConfigurationError>("effect-alf/ConfigurationError")(
  "ConfigurationError",
  {
    /** Which option, what is wrong with it, and what to write instead. */
    issue: Schema.String
  }
) {
  override get message(): string {
    return this.issue
  }
}

/**
 * Whether a value is one of the errors of `TokenError`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isTokenError: (u: unknown) => u is TokenError = Schema.is(
  Schema.Union(
    TokenRequestError,
    TokenErrorResponse,
    InvalidTokenResponse,
    AuthorizationError,
    DiscoveryError,
    LayerClosed
  )
)

/**
 * Whether another attempt could end differently: the rule by which requests to the token endpoint are retried.
 *
 * True without a response; for the statuses 408, 421, 425, 429 and 5xx; for the codes `temporarily_unavailable` and
 * `server_error` with status 400. Everything else is permanent.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isTransient = (error: TokenError): boolean => {
  switch (error._tag) {
    case "TokenRequestError":
      return true
    case "TokenErrorResponse":
      return error.status >= 500 || error.status === 408 || error.status === 421 || error.status === 425 ||
        error.status === 429 ||
        (error.status === 400 && (error.error === "temporarily_unavailable" || error.error === "server_error"))
    case "DiscoveryError":
      return error.reason === "Transport"
    case "InvalidTokenResponse":
    case "AuthorizationError":
    case "LayerClosed":
      return false
  }
}

/**
 * Whether the authorization server refused for good: an error response that another attempt would only repeat, or a
 * sign-in that was denied.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isRefusal = (error: TokenError): boolean =>
  error._tag === "TokenErrorResponse"
    ? !isTransient(error)
    : error._tag === "AuthorizationError" && error.reason === "AccessDenied"

const times = (attempts: number): string => attempts === 1 ? "1 attempt" : `${attempts} attempts`
