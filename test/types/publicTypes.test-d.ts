/** The shapes that programs are written against. */
import type { HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import type { SqlClient } from "@effect/sql"
import { describe, expectTypeOf, it } from "@effect/vitest"
import type { Context, Either, Layer, Option, Redacted, Scope } from "effect"
import { Effect } from "effect"
import {
  AccessToken,
  type Alf,
  AuthorizationServer,
  AuthorizedHttpClient,
  type ClientAuthentication,
  ClientRegistration,
  DeviceCodeGrant,
  Grant,
  ProtectedResource,
  type TokenEndpoint,
  type TokenError,
  TokenPool,
  type TokenService,
  type TokenStorage
} from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import * as DPoP from "effect-alf/DPoP"
import { AuthorizationCodeGrant, type Browser } from "effect-alf/node"
import * as TokenStorageSql from "effect-alf/TokenStorage/Sql"

class NoTenant {
  readonly _tag = "NoTenant"
}

declare const redacted: Redacted.Redacted

describe("public types", () => {
  it("of the typed client: every error is in its type", () => {
    type Client = Context.Tag.Service<typeof AuthorizedHttpClient.AuthorizedHttpClient>
    expectTypeOf<Client>().toEqualTypeOf<
      HttpClient.HttpClient.With<
        | HttpClientError.HttpClientError
        | TokenError.TokenError
        | AuthorizedHttpClient.Unauthorized
        | AuthorizedHttpClient.InsufficientScope
      >
    >()
    expectTypeOf<AuthorizedHttpClient.Unauthorized["status"]>().toEqualTypeOf<number>()
    expectTypeOf<AuthorizedHttpClient.InsufficientScope["required"]>().toEqualTypeOf<ReadonlyArray<string>>()
    expectTypeOf(AuthorizedHttpClient.toFetch).toEqualTypeOf<
      Effect.Effect<typeof globalThis.fetch, never, HttpClient.HttpClient>
    >()
  })

  it("of token errors: six tags", () => {
    expectTypeOf<TokenError.TokenError["_tag"]>().toEqualTypeOf<
      | "TokenRequestError"
      | "TokenErrorResponse"
      | "InvalidTokenResponse"
      | "AuthorizationError"
      | "DiscoveryError"
      | "LayerClosed"
    >()
  })

  it("of the authorization server", () => {
    expectTypeOf(AuthorizationServer.discover("https://auth.test")).toEqualTypeOf<
      Effect.Effect<AuthorizationServer.Metadata, TokenError.DiscoveryError, HttpClient.HttpClient>
    >()
    expectTypeOf(AuthorizationServer.Metadata.fromJson({})).toEqualTypeOf<
      Either.Either<AuthorizationServer.Metadata, TokenError.DiscoveryError>
    >()
    expectTypeOf(AuthorizationServer.layer({ issuer: "https://auth.test", clientId: "client" })).toEqualTypeOf<
      Layer.Layer<AuthorizationServer.AuthorizationServer, TokenError.ConfigurationError, HttpClient.HttpClient>
    >()
  })

  it("of grants: each says what it needs", () => {
    expectTypeOf(DeviceCodeGrant.make()).toEqualTypeOf<Grant.Grant<DeviceCodeGrant.DevicePrompt>>()
    expectTypeOf(AuthorizationCodeGrant.make()).toEqualTypeOf<Grant.Grant<Browser.Browser>>()
    expectTypeOf(Grant.make({ grantType: "a", params: { b: redacted } })).toEqualTypeOf<Grant.Grant>()
    expectTypeOf(Grant.refreshTokenOnly({ initial: redacted })).toEqualTypeOf<Grant.Grant>()
    expectTypeOf(Grant.tokenExchange({ key: "a", subjectToken: Effect.succeed(redacted) })).toEqualTypeOf<Grant.Grant>()
    expectTypeOf(Grant.jwtBearer({ key: "a", assertion: () => Effect.succeed(redacted) })).toEqualTypeOf<Grant.Grant>()
    expectTypeOf<ReturnType<Grant.Grant["acquire"]>>().toEqualTypeOf<
      Effect.Effect<
        AccessToken.AccessToken,
        TokenError.TokenError,
        AuthorizationServer.AuthorizationServer | TokenEndpoint.TokenEndpoint
      >
    >()
    expectTypeOf(DeviceCodeGrant.layerConsole).toEqualTypeOf<Layer.Layer<DeviceCodeGrant.DevicePrompt>>()
  })

  it("of keys", () => {
    expectTypeOf(ClientAssertion.privateKeyJwt({ key: redacted })).toEqualTypeOf<
      ClientAuthentication.ClientAuthentication
    >()
    expectTypeOf(ClientAssertion.clientSecretJwt()).toEqualTypeOf<ClientAuthentication.ClientAuthentication>()
    expectTypeOf(ClientAssertion.sign({ key: redacted, issuer: "a", subject: "b", audience: "c" })).toEqualTypeOf<
      Effect.Effect<Redacted.Redacted, ClientAssertion.ClientAssertionError>
    >()
    expectTypeOf(ClientAssertion.googleServiceAccount(redacted, { scope: "a" })).toEqualTypeOf<
      { readonly grant: Grant.Grant; readonly tokenEndpoint: string; readonly clientId: string }
    >()
    expectTypeOf(DPoP.generate()).toEqualTypeOf<Effect.Effect<DPoP.DPoP>>()
    expectTypeOf(DPoP.make({ key: redacted })).toEqualTypeOf<Effect.Effect<DPoP.DPoP, TokenError.ConfigurationError>>()
  })

  it("of a pool: its lookup's errors are in the typed client and the tokens", () => {
    const make = TokenPool.make({
      lookup: (_: string): Effect.Effect<Alf.Options, NoTenant, TokenStorage.TokenStorage> =>
        Effect.fail(new NoTenant())
    })
    expectTypeOf(make).toEqualTypeOf<
      Effect.Effect<
        TokenPool.TokenPool<string, NoTenant>,
        never,
        HttpClient.HttpClient | Scope.Scope | TokenStorage.TokenStorage
      >
    >()
    type Pool = Effect.Effect.Success<typeof make>
    expectTypeOf<ReturnType<Pool["httpClient"]>>().toEqualTypeOf<HttpClient.HttpClient>()
    expectTypeOf<ReturnType<Pool["tokens"]>["get"]>().toEqualTypeOf<
      Effect.Effect<AccessToken.AccessToken, TokenError.TokenError | TokenError.ConfigurationError | NoTenant>
    >()
    expectTypeOf<ReturnType<ReturnType<Pool["authorizedHttpClient"]>["get"]>>().toExtend<
      Effect.Effect<HttpClientResponse.HttpClientResponse, { readonly _tag: string }>
    >()
  })

  it("of protected resources", () => {
    expectTypeOf(ProtectedResource.layer({
      resource: "https://api.test/mcp",
      client: [
        ClientRegistration.metadataDocument("https://app.test"),
        ClientRegistration.dynamic({ clientName: "a" })
      ],
      grant: DeviceCodeGrant.make()
    })).toEqualTypeOf<
      Layer.Layer<
        HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
        TokenError.ConfigurationError,
        HttpClient.HttpClient | DeviceCodeGrant.DevicePrompt
      >
    >()
  })

  it("of what tokens carry, and of a database", () => {
    expectTypeOf(AccessToken.extra).returns.toEqualTypeOf<Option.Option<unknown>>()
    expectTypeOf(TokenStorageSql.layer()).toExtend<
      Layer.Layer<TokenStorage.TokenStorage, unknown, SqlClient.SqlClient>
    >()
  })

  it("of options: one server, no second one, and nothing unknown", () => {
    const client = { clientId: "client", origins: ["https://api.test"] }
    expectTypeOf({ ...client, issuer: "https://auth.test" }).toExtend<Alf.Options>()
    expectTypeOf({ ...client, tokenEndpoint: "https://auth.test" }).toExtend<Alf.Options>()
    // @ts-expect-error two servers
    const two: Alf.Options = { ...client, issuer: "https://auth.test", tokenEndpoint: "https://auth.test" }
    // @ts-expect-error none
    const none: Alf.Options = { clientId: "client", origins: ["https://api.test"] }
    expectTypeOf([two, none]).toEqualTypeOf<Array<Alf.Options>>()
  })
})
