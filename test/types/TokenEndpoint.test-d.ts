import type { HttpClient, UrlParams } from "@effect/platform"
import { Context, type DateTime, type Effect, type Layer, type Option, Redacted } from "effect"
import {
  type AccessToken,
  type AuthorizationServer,
  ClientAuthentication,
  Grant,
  TokenEndpoint,
  type TokenError
} from "effect-alf"
import { describe, expectTypeOf, test } from "vitest"

class Vault extends Context.Tag("Vault")<Vault, string>() {}
declare const vaultGrant: Grant.Grant<Vault>

describe("TokenEndpoint", () => {
  test("layer may fail with ConfigurationError and needs an HttpClient", () => {
    expectTypeOf(TokenEndpoint.layer({ tokenEndpoint: "https://auth.test/token", clientId: "client" })).toEqualTypeOf<
      Layer.Layer<
        AuthorizationServer.AuthorizationServer | TokenEndpoint.TokenEndpoint,
        TokenError.ConfigurationError,
        HttpClient.HttpClient
      >
    >()
  })

  test("has request and identity", () => {
    expectTypeOf<TokenEndpoint.TokenEndpoint["Type"]>().toEqualTypeOf<{
      readonly request: (
        params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, TokenError.TokenError>,
        options?: AuthorizationServer.RequestOptions
      ) => Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
      readonly identity: string
    }>()
  })
})

describe("AccessToken", () => {
  test("holds its secrets redacted", () => {
    expectTypeOf<AccessToken.AccessToken["value"]>().toEqualTypeOf<Redacted.Redacted>()
    expectTypeOf<AccessToken.AccessToken["refreshToken"]>().toEqualTypeOf<Option.Option<Redacted.Redacted>>()
  })

  test("has the fields of the contract", () => {
    expectTypeOf<AccessToken.AccessToken["type"]>().toEqualTypeOf<string>()
    expectTypeOf<AccessToken.AccessToken["scope"]>().toEqualTypeOf<ReadonlyArray<string>>()
    expectTypeOf<AccessToken.AccessToken["issuedAt"]>().toEqualTypeOf<DateTime.Utc>()
    expectTypeOf<AccessToken.AccessToken["expiresAt"]>().toEqualTypeOf<Option.Option<DateTime.Utc>>()
  })
})

describe("ClientAuthentication", () => {
  test("has methods of one type", () => {
    for (
      const method of [
        ClientAuthentication.basic,
        ClientAuthentication.basicRaw,
        ClientAuthentication.post,
        ClientAuthentication.none,
        ClientAuthentication.tls
      ]
    ) {
      expectTypeOf(method).toEqualTypeOf<ClientAuthentication.ClientAuthentication>()
    }
  })
})

describe("Grant", () => {
  test("clientCredentials requires nothing beside the token endpoint", () => {
    expectTypeOf(Grant.clientCredentials()).toEqualTypeOf<Grant.Grant>()
    expectTypeOf(Grant.clientCredentials({ scope: "a", audience: "b", resource: ["c"], params: { d: "e" } }))
      .toEqualTypeOf<Grant.Grant>()
  })

  test("acquire requires the token endpoint and what the grant requires", () => {
    expectTypeOf(vaultGrant.acquire).toEqualTypeOf<
      (
        previous: Option.Option<AccessToken.AccessToken>
      ) => Effect.Effect<
        AccessToken.AccessToken,
        TokenError.TokenError,
        AuthorizationServer.AuthorizationServer | TokenEndpoint.TokenEndpoint | Vault
      >
    >()
  })

  test("refreshToken requires what the other grant requires", () => {
    expectTypeOf(Grant.refreshToken(Grant.clientCredentials())).toEqualTypeOf<Grant.Grant>()
    expectTypeOf(Grant.refreshToken(vaultGrant, { initial: Redacted.make("r") })).toEqualTypeOf<Grant.Grant<Vault>>()
  })

  test("a first refresh token is redacted", () => {
    // @ts-expect-error a Redacted is meant
    Grant.refreshToken(Grant.clientCredentials(), { initial: "r" })
  })

  test("a grant that requires something is not one that requires nothing", () => {
    expectTypeOf<Grant.Grant<Vault>>().not.toExtend<Grant.Grant>()
    expectTypeOf<Grant.Grant>().toExtend<Grant.Grant<Vault>>()
  })
})
