import { Context, type Effect, type Layer, Redacted, type Scope } from "effect"
import {
  type AccessToken,
  type AuthorizationServer,
  Grant,
  type TokenEndpoint,
  type TokenError,
  TokenService
} from "effect-alf"
import { describe, expectTypeOf, test } from "vitest"

class Vault extends Context.Tag("Vault")<Vault, string>() {}
declare const vaultGrant: Grant.Grant<Vault>

describe("TokenService", () => {
  test("get, refresh and revoke can fail, with TokenErrors alone; invalidate and reject cannot", () => {
    expectTypeOf<TokenService.TokenService["Type"]>().toEqualTypeOf<{
      readonly get: Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
      readonly refresh: (
        rejected: AccessToken.AccessToken
      ) => Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
      readonly invalidate: Effect.Effect<void>
      readonly revoke: Effect.Effect<void, TokenError.TokenError>
      readonly reject?: (token: AccessToken.AccessToken) => Effect.Effect<void>
    }>()
  })

  test("layer fails with a ConfigurationError only and needs a server, a token endpoint, and what its grant requires", () => {
    expectTypeOf(TokenService.layer({ grant: Grant.clientCredentials() })).toEqualTypeOf<
      Layer.Layer<
        TokenService.TokenService,
        TokenError.ConfigurationError,
        AuthorizationServer.AuthorizationServer | TokenEndpoint.TokenEndpoint
      >
    >()
    expectTypeOf(TokenService.layer({ grant: vaultGrant, expiryLeeway: "1 second" })).toEqualTypeOf<
      Layer.Layer<
        TokenService.TokenService,
        TokenError.ConfigurationError,
        AuthorizationServer.AuthorizationServer | TokenEndpoint.TokenEndpoint | Vault
      >
    >()
  })

  test("make needs a Scope too", () => {
    expectTypeOf(TokenService.make({ grant: vaultGrant })).toEqualTypeOf<
      Effect.Effect<
        TokenService.TokenService["Type"],
        TokenError.ConfigurationError,
        AuthorizationServer.AuthorizationServer | TokenEndpoint.TokenEndpoint | Vault | Scope.Scope
      >
    >()
  })

  test("layer does not compile without a grant, or with options of the token endpoint", () => {
    // @ts-expect-error grant is missing
    TokenService.layer({})
    // @ts-expect-error defaultExpiresIn belongs to TokenEndpoint.layer
    TokenService.layer({ grant: Grant.clientCredentials(), defaultExpiresIn: "1 hour" })
  })

  test("layerStatic needs nothing and fails with a ConfigurationError only", () => {
    expectTypeOf(TokenService.layerStatic("key")).toEqualTypeOf<
      Layer.Layer<TokenService.TokenService, TokenError.ConfigurationError>
    >()
    expectTypeOf(TokenService.layerStatic(Redacted.make("key"))).toEqualTypeOf<
      Layer.Layer<TokenService.TokenService, TokenError.ConfigurationError>
    >()
  })
})
