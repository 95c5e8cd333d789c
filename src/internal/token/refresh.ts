/** How a refresh token is used, and what happens when the server refuses it (RFC 6749 §6). */
import * as UrlParams from "@effect/platform/UrlParams"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken, isSame } from "../../AccessToken.ts"
import { isTransient, type TokenError, type TokenErrorResponse } from "../../TokenError.ts"
import { type Asked, toParams } from "../grantParams.ts"
import { list, scopes } from "../scope.ts"
import { Flight } from "./flight.ts"

/** The refresh token to use: that of the last token, or the first one. */
export const refreshTokenOf = (
  previous: Option.Option<AccessToken>,
  initial: Redacted.Redacted | undefined
): Option.Option<Redacted.Redacted> =>
  Option.match(previous, {
    onNone: () => Option.fromNullable(initial),
    onSome: ({ refreshToken }) => refreshToken
  })

/**
 * Spends a refresh token. If the server refuses it, another process may have renewed the token already: then its token is
 * used, or its refresh token is tried once. If that leads nowhere, `onRefused` runs.
 */
export const makeRefresh = <R>(
  request: (params: UrlParams.UrlParams) => Effect.Effect<AccessToken, TokenError, R>,
  options: Asked
) => {
  const params = toParams("refresh_token", options)
  const asked = list(options.scope).flatMap(scopes)

  const spend = (previous: Option.Option<AccessToken>, refreshToken: Redacted.Redacted) =>
    Effect.flatMap(Flight, (flight) =>
      pipe(
        flight.spend(request(UrlParams.append(params, "refresh_token", Redacted.value(refreshToken)))),
        Effect.map((token) => completed(token, previous, refreshToken, asked))
      ))

  const ofAnotherProcess = (previous: Option.Option<AccessToken>, refused: Redacted.Redacted) =>
    Effect.gen(function*() {
      const stored = yield* (yield* Flight).stored
      if (Option.isNone(stored) || Option.exists(previous, (token) => isSame(token, stored.value))) return Option.none()
      const { refreshToken } = stored.value
      if (Option.isNone(refreshToken) || Redacted.value(refreshToken.value) === Redacted.value(refused)) {
        return Option.none()
      }
      if (yield* isGood(stored.value)) return stored
      return yield* pipe(
        Effect.asSome(spend(stored, refreshToken.value)),
        Effect.catchIf(isRefused, () => Effect.succeedNone)
      )
    })

  return <R2>(
    previous: Option.Option<AccessToken>,
    refreshToken: Redacted.Redacted,
    onRefused: (refusal: TokenErrorResponse) => Effect.Effect<AccessToken, TokenError, R2>
  ): Effect.Effect<AccessToken, TokenError, R | R2> =>
    pipe(
      spend(previous, refreshToken),
      Effect.catchIf(isRefused, (refusal) =>
        Effect.flatMap(
          ofAnotherProcess(previous, refreshToken),
          Option.match({ onNone: () => onRefused(refusal), onSome: Effect.succeed })
        ))
    )
}

/** What the response leaves out is kept from the token before. */
const completed = (
  token: AccessToken,
  previous: Option.Option<AccessToken>,
  refreshToken: Redacted.Redacted,
  asked: ReadonlyArray<string>
): AccessToken => {
  const before = Option.getOrUndefined(previous)
  // a server may have granted less before than is asked for now (RFC 6749 §6)
  const isNamed = token.scope.length > 0 && (asked.length === 0 || !isEqual(token.scope, asked))
  return new AccessToken({
    ...token,
    refreshToken: Option.orElse(token.refreshToken, () => Option.some(refreshToken)),
    scope: isNamed || before === undefined || before.scope.length === 0 ? token.scope : before.scope,
    extra: before === undefined
      ? token.extra
      : Redacted.make({ ...Redacted.value(before.extra), ...Redacted.value(token.extra) })
  })
}

const isEqual = (a: ReadonlyArray<string>, b: ReadonlyArray<string>): boolean =>
  a.length === b.length && a.every((scope, i) => scope === b[i])

/** Whether the refresh token is no longer good. `invalid_client` says nothing about it. */
const isRefused = (error: TokenError): error is TokenErrorResponse =>
  error._tag === "TokenErrorResponse" && !isTransient(error) && error.error !== "invalid_client"

const isGood = ({ expiresAt }: AccessToken): Effect.Effect<boolean> =>
  Effect.map(
    Clock.currentTimeMillis,
    (now) => Option.match(expiresAt, { onNone: () => true, onSome: ({ epochMillis }) => now < epochMillis })
  )
