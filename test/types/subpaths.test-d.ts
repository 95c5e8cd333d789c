import type { HttpClient } from "@effect/platform"
import { type Effect, type Layer, Redacted } from "effect"
import { Alf, type AuthorizedHttpClient, type Grant, type TokenError, type TokenService } from "effect-alf"
import { AuthorizationCodeGrant, Browser, ImplicitGrant } from "effect-alf/node"
import { TestAuthorizationServer, TestTokenService } from "effect-alf/testing"
import { describe, expectTypeOf, test } from "vitest"

describe("effect-alf/testing", () => {
  test("TestTokenService.layer needs nothing, cannot fail, and stands in for the token service", () => {
    expectTypeOf(TestTokenService.layer({ tokens: ["a", "b"] })).toEqualTypeOf<
      Layer.Layer<TokenService.TokenService | TestTokenService.TestTokenService>
    >()
    expectTypeOf<TestTokenService.TestTokenService["Type"]["calls"]>().toEqualTypeOf<
      Effect.Effect<ReadonlyArray<"get" | "refresh" | "invalidate" | "revoke">>
    >()
  })

  test("TestAuthorizationServer.layer needs nothing, cannot fail, and stands in for the network", () => {
    expectTypeOf(TestAuthorizationServer.layer()).toEqualTypeOf<
      Layer.Layer<HttpClient.HttpClient | TestAuthorizationServer.TestAuthorizationServer>
    >()
  })
})

describe("effect-alf/node", () => {
  const options = { authorizationEndpoint: "https://auth.test/authorize", clientId: "client" }

  test("grants through a browser require one, and so does the layer that they are given to", () => {
    expectTypeOf(ImplicitGrant.make(options)).toEqualTypeOf<Grant.Grant<Browser.Browser>>()
    expectTypeOf(AuthorizationCodeGrant.make(options)).toEqualTypeOf<Grant.Grant<Browser.Browser>>()
    expectTypeOf(Alf.layer({
      tokenEndpoint: "https://auth.test/token",
      clientId: "client",
      clientSecret: Redacted.make("secret"),
      grant: AuthorizationCodeGrant.make(options),
      origins: "any"
    })).toEqualTypeOf<
      Layer.Layer<
        HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
        TokenError.ConfigurationError,
        HttpClient.HttpClient | Browser.Browser
      >
    >()
  })

  test("the browsers need nothing", () => {
    expectTypeOf(Browser.layer).toEqualTypeOf<Layer.Layer<Browser.Browser>>()
    expectTypeOf(Browser.layerLog).toEqualTypeOf<Layer.Layer<Browser.Browser>>()
    expectTypeOf<Browser.Browser["Type"]["open"]>().toEqualTypeOf<(url: URL) => Effect.Effect<void>>()
  })
})
