/** A token from the members of a token response (RFC 6749 §5.1). */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken, isHeaderSafe } from "../../AccessToken.ts"
import { scopes } from "../scope.ts"

export interface DecodeTokenOptions {
  /** When the request was sent, in milliseconds: the lifetime is counted from here. */
  readonly sentAt: number
  /** The scopes that were asked for: those of a response that names none (RFC 6749 §5.1). */
  readonly requestedScope: ReadonlyArray<string>
  readonly defaultExpiresIn: Option.Option<Duration.Duration>
  /** Whether the request carried a proof, so that the token has to be bound to the key (RFC 9449 §5). */
  readonly isDPoP: boolean
}

export interface Decoded {
  readonly token: AccessToken
  /** What was odd about the response, though the token can be used. No value of the response is part of it. */
  readonly warning: Option.Option<string>
}

/** The longest life that is believed: 68 years, the largest signed 32-bit number of seconds. */
const maxExpiresIn = 2 ** 31 - 1

/** The longest access token, in bytes: no server takes a header of this length. */
const maxToken = 64 * 1024

/** Other members are kept up to this size, in bytes of JSON. */
const maxExtra = 64 * 1024

/** Other members are kept up to this number: more are slow to copy. */
const maxMembers = 1000

/** A longer scope counts as absent, in characters. */
const maxScope = 64 * 1024

/** Types of token whose use needs a proof that is not made here, or that are no access tokens (RFC 8693 §2.2.1). */
const unusableTypes: ReadonlySet<string> = new Set(["mac", "hmac", "pop", "n_a"])

/**
 * A token from the members of a successful response, or from the parameters of a redirect's fragment (RFC 6749 §4.2.2);
 * else what is wrong with it. No value of the response is part of the issue.
 */
export const decodeToken = (
  members: Readonly<Record<string, unknown>>,
  options: DecodeTokenOptions
): Either.Either<Decoded, string> => {
  const { access_token: value, expires_in, refresh_token: refreshToken, scope, token_type: type } = members
  if (typeof value !== "string" || value === "") return Either.left("access_token is missing or not a string")
  if (value.length > maxToken) return Either.left("access_token is longer than 64 KiB")
  if (!isHeaderSafe(value)) return Either.left("access_token has a character that a header must not carry")
  return Either.map(presentedType(type, options.isDPoP), (type) => {
    const lifetime = readLifetime(expires_in, options.defaultExpiresIn)
    const others = otherMembers(members)
    return {
      token: new AccessToken({
        value: Redacted.make(value),
        type,
        scope: typeof scope === "string" && scope.length <= maxScope ? scopes(scope) : options.requestedScope,
        issuedAt: DateTime.unsafeMake(options.sentAt),
        expiresAt: Option.map(lifetime.seconds, (seconds) => DateTime.unsafeMake(options.sentAt + 1000 * seconds)),
        refreshToken: typeof refreshToken === "string" && refreshToken !== ""
          ? Option.some(Redacted.make(refreshToken))
          : Option.none(),
        extra: Redacted.make(Either.getOrElse(others, () => ({})))
      }),
      warning: Option.orElse(lifetime.warning, () => Either.getLeft(others))
    }
  })
}

/**
 * The other members, or why they cannot be kept: too many, too large, nested too deeply, or made by `mapTokenResponse` of
 * what JSON does not have.
 */
const otherMembers = (
  members: Readonly<Record<string, unknown>>
): Either.Either<Readonly<Record<string, unknown>>, string> => {
  if (Object.keys(members).length > maxMembers) {
    return Either.left(`its other members are more than ${maxMembers} and were left out`)
  }
  const { access_token: _, expires_in: _in, refresh_token: _refresh, scope: _scope, token_type: _type, ...others } =
    members
  return Option.match(Option.liftThrowable(() => JSON.stringify(others).length)(), {
    onNone: () => Either.left("its other members cannot be written as JSON and were left out"),
    onSome: (length) =>
      length > maxExtra
        ? Either.left("its other members are larger than 64 KiB and were left out")
        : Either.right(others)
  })
}

const presentedType = (type: unknown, isDPoP: boolean): Either.Either<string, string> => {
  const name = typeof type === "string" ? type.toLowerCase() : ""
  if (isDPoP) {
    return name === "dpop"
      ? Either.right("DPoP")
      : Either.left(
        "token_type is not DPoP although the request carried a DPoP proof: the token is not bound to the key"
      )
  }
  if (type !== undefined && type !== null && typeof type !== "string") return Either.left("token_type is not a string")
  if (name === "dpop") return Either.left("token_type is DPoP: give the dpop option, so that requests carry a proof")
  return unusableTypes.has(name)
    ? Either.left("token_type is one that cannot be presented as Bearer")
    : Either.right("Bearer")
}

interface Lifetime {
  readonly seconds: Option.Option<number>
  readonly warning: Option.Option<string>
}

const readLifetime = (expiresIn: unknown, defaultExpiresIn: Option.Option<Duration.Duration>): Lifetime => {
  const fallback = Option.map(defaultExpiresIn, (duration) => Math.min(Duration.toSeconds(duration), maxExpiresIn))
  if (expiresIn === undefined || expiresIn === null) return { seconds: fallback, warning: Option.none() }
  const seconds = typeof expiresIn === "string" && /^\s*\d+(\.\d+)?\s*$/.test(expiresIn) ? Number(expiresIn) : expiresIn
  return typeof seconds === "number" && seconds >= 0
    ? { seconds: Option.some(Math.min(Math.floor(seconds), maxExpiresIn)), warning: Option.none() }
    : { seconds: fallback, warning: Option.some("its expires_in is not a number of seconds and was ignored") }
}
