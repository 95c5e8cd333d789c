/** What options have in common: how they are checked, and the error for a bad one. */
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { ConfigurationError } from "../TokenError.ts"

export const issue = (text: string): ConfigurationError => new ConfigurationError({ issue: text })

/** The host names that never leave the machine: 127.0.0.0/8, ::1 and localhost. */
export const isLoopback = (url: URL): boolean =>
  url.hostname === "localhost" || url.hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(url.hostname)

/** An endpoint that secrets may be sent to. The URL is not part of the issue: it may hold a password. */
export const endpointUrl = (
  field: string,
  input: string | URL,
  options?: { readonly allowInsecure?: boolean | undefined }
): Either.Either<URL, ConfigurationError> => {
  const example = "write an absolute URL such as https://auth.example.com/oauth/token"
  if (!URL.canParse(String(input))) return Either.left(issue(`${field} is not a URL: ${example}`))
  const url = new URL(input)
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return Either.left(issue(`${field} is neither https nor http: ${example}`))
  }
  if (url.username !== "" || url.password !== "") {
    return Either.left(issue(`${field} holds user info: leave it out, and give the client's id and secret as options`))
  }
  if (url.hash !== "") {
    return Either.left(issue(`${field} has a fragment, which RFC 6749 §3 does not allow: leave out all from the #`))
  }
  if (url.protocol === "http:" && !isLoopback(url) && options?.allowInsecure !== true) {
    return Either.left(
      issue(
        `${field} is plain http beyond loopback, where anyone on the way can read secrets: use https` +
          (field === "tokenEndpoint" ? ", or set allowInsecureTokenEndpoint" : "")
      )
    )
  }
  return Either.right(url)
}

/** A duration that is more than nothing and ends. */
export const finiteDuration = (
  field: string,
  input: Duration.DurationInput
): Either.Either<Duration.Duration, ConfigurationError> =>
  Option.match(Option.filter(Duration.decodeUnknown(input), (d) => Duration.isFinite(d) && Duration.toMillis(d) > 0), {
    onNone: () => Either.left(issue(`${field} is not a positive, finite duration: write one such as "10 seconds"`)),
    onSome: Either.right
  })

/** A duration; zero and infinity are allowed. */
export const anyDuration = (
  field: string,
  input: Duration.DurationInput
): Either.Either<Duration.Duration, ConfigurationError> =>
  Option.match(Duration.decodeUnknown(input), {
    onNone: () => Either.left(issue(`${field} is not a duration: write one such as "10 seconds"`)),
    onSome: Either.right
  })

/** What is wrong with a secret that was not set, or not as it was meant. */
export const secretIssue = (secret: string): Option.Option<string> => {
  if (secret.trim() === "") return Option.some("is empty: is the variable or file that it comes from set?")
  if (secret.trim() !== secret) return Option.some("has white space around it: trim it")
  return secret === "undefined"
    ? Option.some("is the text \"undefined\": is the variable that it comes from set?")
    : Option.none()
}

export const checkSecret = (field: string, secret: string): Effect.Effect<void, ConfigurationError> =>
  Option.match(secretIssue(secret), {
    onNone: () => Effect.void,
    onSome: (text) => Effect.fail(issue(`${field} ${text}`))
  })

export const check = (condition: boolean, text: () => string): Effect.Effect<void, ConfigurationError> =>
  condition ? Effect.void : Effect.fail(issue(text()))

/** An option that is a plain value or a `Config`. */
export const resolve = <A>(value: A | Config.Config<A>): Effect.Effect<A, ConfigError> =>
  Config.isConfig(value) ? value : Effect.succeed(value)
