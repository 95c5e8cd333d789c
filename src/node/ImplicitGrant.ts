/**
 * A person signs in through a browser, and the browser brings the token itself: the implicit grant (RFC 6749 §4.2).
 *
 * **RFC 9700 and OAuth 2.1 say not to use it**: the token passes through the browser's address bar, anyone who gets hold
 * of the response has the token, and there is no refresh token. It is here for authorization servers that know nothing
 * else; where the server can do it, use `AuthorizationCodeGrant`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Grant } from "../Grant.ts"
import { decodeToken } from "../internal/endpoint/decodeToken.ts"
import { AuthorizationError } from "../TokenError.ts"
import type { Browser } from "./Browser.ts"
import * as SignIn from "./internal/signIn.ts"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options extends SignIn.Options {
  /**
   * The host of the redirect URI. With `localhost`, both loopback addresses are listened on. Defaults to `localhost`.
   */
  readonly redirectHost?: "127.0.0.1" | "::1" | "localhost" | undefined
}

/**
 * Asks a person to sign in, and takes the token from the fragment of the redirect.
 *
 * **Details**
 *
 * The fragment never reaches a URL that a log or a history keeps: the page behind the redirect takes it out of the
 * address bar and posts it to the program. The same rules apply to the token as to one from a token endpoint; its
 * lifetime is counted from its arrival.
 *
 * It needs no token endpoint: give `authorizationEndpoint`, or metadata that names one.
 *
 * It fails with an `AuthorizationError`: `AccessDenied` if the person or the server said no, `ErrorResponse` for any other
 * error that the server returns, `IssuerMismatch` for a response of another issuer, `Timeout`, `NoPort`, and `Failed` for a
 * response without a usable token. A request that does not belong to the sign-in is refused and does not end it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Grant<Browser> =>
  SignIn.make(options, {
    name: "implicit",
    responseType: "token",
    part: "fragment",
    redirectHost: options.redirectHost ?? "localhost",
    par: "never",
    begin: Effect.succeed({
      params: {},
      read: ({ access_token, expires_in, scope, token_type }, request) =>
        access_token === undefined || access_token === ""
          ? Option.none()
          // a refresh token is not allowed here (§4.2.2), and not taken
          : Option.some(decode({ access_token, expires_in, scope, token_type }, request.scope))
    })
  })

const decode = (response: Readonly<Record<string, string | undefined>>, requestedScope: ReadonlyArray<string>) =>
  Effect.flatMap(
    Clock.currentTimeMillis,
    (sentAt) =>
      Effect.mapBoth(
        decodeToken(response, { sentAt, requestedScope, defaultExpiresIn: Option.none(), isDPoP: false }),
        {
          onFailure: (issue) => new AuthorizationError({ reason: "Failed", errorDescription: issue }),
          onSuccess: ({ token }) => token
        }
      )
  )
