/**
 * The ways in which getting a token can fail.
 *
 * Each error has a `_tag` of its own and plain fields that say what happened; `TokenError` is all of them.
 * None holds a request, a header, a secret or a token: what a server echoed back is struck out before it gets here.
 *
 * @since 0.1.0
 */
// @ts-nocheck

import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * The token endpoint gave no answer.
 *
 * - `Transport`: no connection, or it broke before the answer was complete
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
    return `${this.description} (${this.reason}, ${this.endpoint}, ${times(this.attempts)})`
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
    /** The error code, as it came: `invalid_client`, `invalid_scope`, …; absent if the answer was no OAuth error. */
    error: Schema.optional(Schema.String),
    errorDescription: Schema.optional(Schema.String),
    errorUri: Schema.optional(Schema.String),
    /** What the server asked to wait for in `Retry-After`. */
    retryAfter: Schema.optional(Schema.DurationFromMillis),
    /** How many attempts were made. */
    attempts: Schema.Number,
    /** The beginning of the answer's text, at most 4 KiB, with every secret struck out. */
    body: Schema.String
  }
) {
  override get message(): string {
    const what = this.error === undefined
      ? "no OAuth error"
      : this.errorDescription === undefined
      ? this.error
      : `${this.error}: ${this.errorDescription}`
    const wait = this.retryAfter === undefined ? "" : `, retry after ${Duration.format(this.retryAfter)}`
    return `The token endpoint answered ${this.status}: ${what} (${this.endpoint}, ${times(this.attempts)}${wait})`
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
    /** What is wrong with the answer. */
    issue: Schema.String
  }
) {
  override get message(): string {
    return `The token endpoint's answer cannot be used: ${this.issue} (${this.endpoint})`
  }
}

/**
 * An interactive grant ended without a token.
 *
 * - `Denied`: the authorization server said no (RFC 6749 §4.1.2.1); `error` and `errorDescription` are its words
 * - `Timeout`: nobody signed in in time
 * - `StateMismatch`: the answer does not belong to this sign-in
 * - `NoPort`: no port of the range was free for the redirect
 * - `Failed`: anything else
 *
 * @since 0.1.0
 * @category errors
 */
export class AuthorizationError extends Schema.TaggedError<AuthorizationError>("effect-alf/AuthorizationError")(
  "AuthorizationError",
  {
    reason: Schema.Literal("Denied", "Timeout", "StateMismatch", "NoPort", "Failed"),
    error: Schema.optional(Schema.String),
    errorDescription: Schema.optional(Schema.String)
  }
) {
  override get message(): string {
    const words = [this.error, this.errorDescription].filter((word) => word !== undefined)
    return [`The sign-in ended without a token (${this.reason})`, ...words].join(": ")
  }
}

/**
 * Why there is no token.
 *
 * @since 0.1.0
 * @category errors
 */
export type TokenError = TokenRequestError | TokenErrorResponse | InvalidTokenResponse | AuthorizationError

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
  Schema.Union(TokenRequestError, TokenErrorResponse, InvalidTokenResponse, AuthorizationError)
)

/**
 * Whether another attempt could end otherwise: the rule by which the token endpoint is retried.
 *
 * True without an answer; for 408, 425, 429 and 5xx whatever the body says; for another 4xx that carries no OAuth
 * `error`; for the codes `temporarily_unavailable` and `server_error`.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isTransient = (error: TokenError): boolean => {
  switch (error._tag) {
    case "TokenRequestError":
      return true
    case "TokenErrorResponse":
      return error.status >= 500 || error.status === 408 || error.status === 425 || error.status === 429 ||
        (error.error === undefined
          ? error.status >= 400
          : error.error === "temporarily_unavailable" || error.error === "server_error")
    case "InvalidTokenResponse":
    case "AuthorizationError":
      return false
  }
}

/**
 * Whether the authorization server refused for good: an OAuth error code that another attempt would only repeat, or a
 * sign-in that was denied.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isRefusal = (error: TokenError): boolean =>
  error._tag === "TokenErrorResponse"
    ? error.error !== undefined && !isTransient(error)
    : error._tag === "AuthorizationError" && error.reason === "Denied"

const times = (attempts: number): string => attempts === 1 ? "1 attempt" : `${attempts} attempts`
