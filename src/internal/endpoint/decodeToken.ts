import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken, isHeaderSafe } from "../../AccessToken.ts"

export interface DecodeTokenOptions {
  /** When the request was sent, in milliseconds: the lifetime is counted from here. */
  readonly sentAt: number
  /** The scopes that were asked for: those of an answer that names none (RFC 6749 §5.1). */
  readonly requestedScope: ReadonlyArray<string>
  readonly defaultExpiresIn: Option.Option<Duration.Duration>
}

/** The longest life that is believed: 68 years, the largest signed 32-bit number of seconds. */
const maxExpiresIn = 2 ** 31 - 1

export const scopes = (scope: string): ReadonlyArray<string> => scope.split(" ").filter((part) => part !== "")

/**
 * A token from the members of a successful answer (RFC 6749 §5.1), or from the parameters of a redirect's fragment
 * (§4.2.2); else what is wrong with it. No value of the answer is part of the issue.
 */
export const decodeToken = (
  answer: Readonly<Record<string, unknown>>,
  options: DecodeTokenOptions
): Either.Either<AccessToken, string> => {
  const { access_token: value, refresh_token: refreshToken, scope, token_type: type } = answer
  if (typeof value !== "string" || value === "") return Either.left("access_token is missing or not a string")
  if (!isHeaderSafe(value)) return Either.left("access_token has a character that a header must not carry")
  if (typeof type !== "string") return Either.left("token_type is missing or not a string")
  if (type.toLowerCase() !== "bearer") return Either.left("token_type is not Bearer, the only one supported")
  return Either.map(lifetime(answer["expires_in"], options.defaultExpiresIn), (expiresIn) =>
    new AccessToken({
      value: Redacted.make(value),
      type: "Bearer",
      scope: typeof scope === "string" ? scopes(scope) : options.requestedScope,
      issuedAt: DateTime.unsafeMake(options.sentAt),
      expiresAt: Option.map(expiresIn, (duration) => DateTime.unsafeMake(options.sentAt + Duration.toMillis(duration))),
      refreshToken: typeof refreshToken === "string" && refreshToken !== ""
        ? Option.some(Redacted.make(refreshToken))
        : Option.none()
    }))
}

const lifetime = (
  expiresIn: unknown,
  defaultExpiresIn: Option.Option<Duration.Duration>
): Either.Either<Option.Option<Duration.Duration>, string> => {
  if (expiresIn === undefined || expiresIn === null) return Either.right(defaultExpiresIn)
  const seconds = typeof expiresIn === "string" && /^\d+(\.\d+)?$/.test(expiresIn) ? Number(expiresIn) : expiresIn
  return typeof seconds === "number" && seconds >= 0
    ? Either.right(Option.some(Duration.seconds(Math.min(Math.floor(seconds), maxExpiresIn))))
    : Either.left("expires_in is not a number of seconds")
}
