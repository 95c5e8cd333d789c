/** Signed JWTs that say who their sender is (RFC 7523 §3). */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { SignJWT } from "jose"
import { randomName } from "../random.ts"
import { KeyError } from "./keys.ts"

export interface Jwt {
  readonly algorithm: string
  readonly keyId?: string | undefined
  /** The `typ` header; `null` for no such header. */
  readonly type: string | null
  /** The `x5t#S256` header. */
  readonly thumbprint?: string | undefined
  readonly issuer: string
  readonly subject?: string | undefined
  readonly audience: string
  /** Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /** Further claims. They do not replace those above. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}

/** Signs with a new `jti`, at the time of the clock. */
export const signJwt = (
  jwt: Jwt,
  key: Parameters<SignJWT["sign"]>[0]
): Effect.Effect<Redacted.Redacted, KeyError> =>
  Effect.flatMap(Clock.currentTimeMillis, (millis) =>
    Effect.tryPromise({
      try: async () => {
        const now = Math.floor(millis / 1000)
        const claims = {
          ...jwt.claims,
          iss: jwt.issuer,
          ...(jwt.subject === undefined ? {} : { sub: jwt.subject }),
          aud: jwt.audience,
          iat: now,
          exp: now + Math.ceil(Duration.toSeconds(jwt.expiresIn ?? Duration.minutes(1))),
          jti: randomName()
        }
        const header = {
          alg: jwt.algorithm,
          ...(jwt.type === null ? {} : { typ: jwt.type }),
          ...(jwt.keyId === undefined ? {} : { kid: jwt.keyId }),
          ...(jwt.thumbprint === undefined ? {} : { "x5t#S256": jwt.thumbprint })
        }
        return Redacted.make(await new SignJWT(claims).setProtectedHeader(header).sign(key))
      },
      catch: () => new KeyError({ description: "the key could not sign it" })
    }))
