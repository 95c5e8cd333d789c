/** Revokes tokens at the authorization server (RFC 7009), and forgets them. */
import * as UrlParams from "@effect/platform/UrlParams"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { AccessToken } from "../../AccessToken.ts"
import { DiscoveryError, type TokenError } from "../../TokenError.ts"

/** What is needed of an `AuthorizationServer`. */
interface Server {
  readonly metadata: Effect.Effect<{ readonly revocationEndpoint?: string | undefined }, TokenError>
  readonly request: (endpoint: "revocation", params: UrlParams.UrlParams) => Effect.Effect<unknown, TokenError>
}

/** Both tokens are tried, and everything is forgotten even if the server cannot be reached: the first error is the result. */
export const revokeTokens = (
  server: Option.Option<Server>,
  tokens: ReadonlyArray<AccessToken>,
  forget: Effect.Effect<void>
): Effect.Effect<void, TokenError> =>
  Effect.gen(function*() {
    if (Option.isNone(server)) return yield* unsupported
    const { metadata, request } = server.value
    const found = yield* Effect.either(metadata)
    if (Either.isRight(found) && found.right.revocationEndpoint === undefined) return yield* unsupported
    const results = Either.isLeft(found)
      ? [Either.left(found.left)]
      : yield* Effect.onInterrupt(
        Effect.forEach(
          targets(tokens),
          ({ hint, value }) =>
            Effect.either(Effect.catchIf(
              request("revocation", UrlParams.fromInput({ token: value, token_type_hint: hint })),
              (error) => hint === "access_token" && isNotRevocable(error),
              () => Effect.void
            ))
        ),
        () => forget
      )
    yield* forget
    const failed = results.find(Either.isLeft)
    if (failed !== undefined) return yield* failed.left
  })

/** Every refresh token first: the server may end its access tokens with it. */
const targets = (tokens: ReadonlyArray<AccessToken>) => {
  const refresh = new Set(
    tokens.flatMap(({ refreshToken }) => Option.toArray(Option.map(refreshToken, Redacted.value)))
  )
  const access = new Set(tokens.map(({ value }) => Redacted.value(value)))
  return [
    ...Array.from(refresh, (value) => ({ value, hint: "refresh_token" })),
    ...Array.from(access, (value) => ({ value, hint: "access_token" }))
  ]
}

/** Servers with self-contained access tokens cannot revoke them. */
const isNotRevocable = (error: TokenError): boolean =>
  error._tag === "TokenErrorResponse" && (error.error === "unsupported_token_type" || error.status === 404)

const unsupported = new DiscoveryError({
  url: "revocation",
  reason: "Unsupported",
  description: "The authorization server has no revocation endpoint: give issuer or metadata that names one"
})
