// @ts-nocheck
import { Context, type Effect, type Layer, Redacted, type Scope } from "effect"
import { type AccessToken, Grant, type TokenEndpoint, type TokenError, TokenService } from "effect-alf"
import { describe, expectTypeOf, test } from "vitest"

class Vault extends Context.Tag("Vault")<Vault, string>() {}
declare const vaultGrant: Grant.Grant<Vault>

describe("TokenService", () => {
  test("has get, refresh and invalidate; only the first two can fail, with TokenErrors alone", () => {
    expectTypeOf<TokenService.TokenService["Type"]>().toEqualTypeOf<{
      readonly get: Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
      readonly refresh: (
        rejected: AccessToken.AccessToken
      ) => Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
      readonly invalidate: Effect.Effect<void>
    }>()
  })

  test("layer cannot fail and needs a token endpoint, and what its grant requires", () => {
    expectTypeOf(TokenService.layer({ grant: Grant.clientCredentials() })).toEqualTypeOf<
      Layer.Layer<TokenService.TokenService, never, TokenEndpoint.TokenEndpoint>
    >()
    expectTypeOf(TokenService.layer({ grant: vaultGrant, expiryLeeway: "1 second" })).toEqualTypeOf<
      Layer.Layer<TokenService.TokenService, never, TokenEndpoint.TokenEndpoint | Vault>
    >()
  })

  test("make needs a Scope too", () => {
    expectTypeOf(TokenService.make({ grant: vaultGrant })).toEqualTypeOf<
      Effect.Effect<
        TokenService.TokenService["Type"],
        never,
        TokenEndpoint.TokenEndpoint | Vault | Scope.Scope
      >
    >()
  })

  test("layer does not compile without a grant, or with options of the token endpoint", () => {
    //  grant is missing
    TokenService.layer({})
    //  defaultExpiresIn belongs to TokenEndpoint.layer
    TokenService.layer({ grant: Grant.clientCredentials(), defaultExpiresIn: "1 hour" })
  })

  test("layerStatic needs nothing and cannot fail", () => {
    expectTypeOf(TokenService.layerStatic("key")).toEqualTypeOf<Layer.Layer<TokenService.TokenService>>()
    expectTypeOf(TokenService.layerStatic(Redacted.make("key"))).toEqualTypeOf<Layer.Layer<TokenService.TokenService>>()
  })
})
