/**
 * A person signs in through a browser: the authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636) and a loopback
 * redirect (RFC 8252 §7.3), as RFC 9700 tells programs on a person's own machine to do it.
 *
 * The browser brings a code that is worth nothing without a secret which never leaves the program; the tokens come from
 * the token endpoint.
 *
 * @since 0.1.0
 */
import * as UrlParams from "@effect/platform/UrlParams"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { createHash } from "node:crypto"
import { AccessToken } from "../AccessToken.ts"
import { type Grant, refreshToken } from "../Grant.ts"
import { list } from "../internal/scope.ts"
import { Flight } from "../internal/token/flight.ts"
import { TokenEndpoint } from "../TokenEndpoint.ts"
import type { Browser } from "./Browser.ts"
import * as SignIn from "./internal/signIn.ts"

/**
 * @since 0.1.0
 * @category models
 */
export interface Options extends SignIn.Options {
  /**
   * The host of the redirect URI. Defaults to `127.0.0.1`, which no name resolution can lead elsewhere (RFC 8252 §8.3).
   */
  readonly redirectHost?: "127.0.0.1" | "::1" | "localhost" | undefined
  /**
   * Whether the parameters are pushed to the server before the browser is opened (RFC 9126): `"auto"` where the metadata
   * requires it. Defaults to `"auto"`.
   */
  readonly par?: "auto" | "always" | "never" | undefined
}

/**
 * Asks a person to sign in, and exchanges the code for tokens at the token endpoint.
 *
 * **Details**
 *
 * What the options leave out comes from the authorization server. A refresh token is used before anybody is asked again
 * (`Grant.refreshToken`); the browser is opened only where there is none, or it is no longer good. The code challenge is
 * always S256: a server whose metadata does not list it is a `DiscoveryError` "Unsupported". The code is sent once.
 *
 * It fails with an `AuthorizationError`: `AccessDenied` if the person or the server said no, `ErrorResponse` for any other
 * error that the server returns, `IssuerMismatch` for a response of another issuer, `Timeout`, and `NoPort`. A request that
 * does not belong to the sign-in is refused and does not end it.
 *
 * **Gotchas**
 *
 * Many authorization servers give a refresh token only if `scope` holds `offline_access`, some only with
 * `params: { prompt: "consent" }` too. Without one, a person has to sign in again at each renewal.
 *
 * People who share a storage need an `account` each: otherwise the second one gets the first one's token.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { Alf } from "effect-alf"
 * import { AuthorizationCodeGrant, Browser } from "effect-alf/node"
 *
 * export const layer = Alf.layer({
 *   issuer: "https://auth.example.com",
 *   clientId: "command-line-tool",
 *   grant: AuthorizationCodeGrant.make({ scope: "openid offline_access", params: { prompt: "consent" } }),
 *   origins: ["https://api.example.com"]
 * }).pipe(Layer.provide(Browser.layer))
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: Options = {}): Grant<Browser> => {
  const { resource, scope } = options
  const signIn = SignIn.make(options, {
    name: "authorization_code",
    responseType: "code",
    part: "query",
    redirectHost: options.redirectHost ?? "127.0.0.1",
    par: options.par ?? "auto",
    begin: Effect.sync(() => {
      const verifier = Redacted.make(SignIn.randomText(32))
      return {
        params: {
          code_challenge: createHash("sha256").update(Redacted.value(verifier)).digest("base64url"),
          code_challenge_method: "S256"
        },
        read: ({ code }, request) =>
          code === undefined || code === ""
            ? Option.none()
            : Option.some(exchange(Redacted.make(code), verifier, request, resource))
      }
    })
  })
  return {
    ...refreshToken(signIn, scope === undefined && resource === undefined ? {} : { scope, resource }),
    narrow: (target) => make({ ...options, ...target })
  }
}

/** A code is good for one request: it is sent once (RFC 6749 §4.1.2). */
const exchange = (
  code: Redacted.Redacted,
  verifier: Redacted.Redacted,
  request: SignIn.Request,
  resource: Options["resource"]
) =>
  pipe(
    Effect.zip(TokenEndpoint, Flight),
    Effect.flatMap(([endpoint, { spend }]) =>
      spend(endpoint.request(
        UrlParams.fromInput([
          ["grant_type", "authorization_code"],
          ["code", Redacted.value(code)],
          ["redirect_uri", request.redirectUri],
          ["code_verifier", Redacted.value(verifier)],
          ...list(resource).map((uri) => ["resource", uri] as const)
        ]),
        { once: true }
      ))
    ),
    // the token request names no scope, so a response without one means those of the authorization request (§5.1)
    Effect.map((token) => token.scope.length > 0 ? token : new AccessToken({ ...token, scope: request.scope }))
  )
