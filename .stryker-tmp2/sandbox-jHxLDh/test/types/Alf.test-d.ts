// @ts-nocheck
import type { HttpClient } from "@effect/platform"
import { Config, type ConfigError, Context, Effect, type Layer, Redacted, Schedule, type Scope } from "effect"
import {
  Alf,
  type AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  type TokenError,
  type TokenService
} from "effect-alf"
import { describe, expectTypeOf, test } from "vitest"

type Services = HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService

class Vault extends Context.Tag("Vault")<Vault, { readonly read: Effect.Effect<Redacted.Redacted, Error> }>() {}
declare const vaultGrant: Grant.Grant<Vault>
declare const failing: Effect.Effect<Redacted.Redacted, Error>

const options = {
  tokenEndpoint: "https://auth.test/token",
  clientId: "client",
  clientSecret: Redacted.make("secret"),
  origins: ["https://api.test"]
} as const

describe("layer", () => {
  test("gives the client, the typed client and the service, may fail with ConfigurationError, needs an HttpClient", () => {
    expectTypeOf(Alf.layer(options)).toEqualTypeOf<
      Layer.Layer<Services, TokenError.ConfigurationError, HttpClient.HttpClient>
    >()
  })

  test("requires what its grant requires", () => {
    expectTypeOf(Alf.layer({ ...options, grant: vaultGrant })).toEqualTypeOf<
      Layer.Layer<Services, TokenError.ConfigurationError, HttpClient.HttpClient | Vault>
    >()
    expectTypeOf(Alf.layer({ ...options, grant: Grant.refreshToken(vaultGrant) })).toEqualTypeOf<
      Layer.Layer<Services, TokenError.ConfigurationError, HttpClient.HttpClient | Vault>
    >()
  })

  test("requires nothing more for the grants of this library, or for undefined", () => {
    for (const grant of [Grant.clientCredentials(), undefined]) {
      expectTypeOf(Alf.layer({ ...options, grant })).toEqualTypeOf<
        Layer.Layer<Services, TokenError.ConfigurationError, HttpClient.HttpClient>
      >()
    }
  })

  test("does not compile without origins, token endpoint or client id", () => {
    //  origins is missing
    Alf.layer({ tokenEndpoint: "https://auth.test/token", clientId: "client" })
    //  tokenEndpoint is missing
    Alf.layer({ clientId: "client", origins: "any" })
    //  clientId is missing
    Alf.layer({ tokenEndpoint: "https://auth.test/token", origins: "any" })
  })

  test("does not compile with origins that are one text, but \"any\"", () => {
    //  a list is meant
    Alf.layer({ ...options, origins: "https://api.test" })
    Alf.layer({ ...options, origins: "any" })
    Alf.layer({ ...options, origins: [new URL("https://api.test"), "https://other.test"] })
  })

  test("does not compile with a secret that is not redacted", () => {
    //  a Redacted is meant
    Alf.layer({ ...options, clientSecret: "secret" })
    //  a Redacted is meant
    Alf.layer({ ...options, clientSecret: Effect.succeed("secret") })
  })

  test("takes the Effect of a secret, whatever it fails with, but none that requires something", () => {
    Alf.layer({ ...options, clientSecret: failing })
    //  nobody would provide the Vault
    Alf.layer({ ...options, clientSecret: Effect.flatMap(Vault, (vault) => vault.read) })
  })

  test("does not compile with a name that is no option", () => {
    //  audiences is no option
    Alf.layer({ ...options, audiences: "x" })
  })

  test("takes every option in every form of the contract", () => {
    Alf.layer({
      tokenEndpoint: new URL("https://auth.test/token"),
      clientId: "client",
      clientSecret: Effect.succeed(Redacted.make("secret")),
      clientAuthentication: ClientAuthentication.post,
      scope: ["a", "b"],
      audience: "a",
      resource: ["https://a.test"],
      params: { tenant: "blue" },
      origins: "any",
      tokenRetry: { times: 5, statuses: [500], base: "300 millis", factor: 2, maxDelay: "10 seconds" },
      tokenTimeout: "10 seconds",
      expiryLeeway: 10_000,
      refreshAhead: "2 minutes",
      defaultExpiresIn: "1 hour",
      refusalCooldown: "1 second",
      allowInsecureTokenEndpoint: true
    })
    Alf.layer({ ...options, scope: "a b", resource: "https://a.test", tokenRetry: Schedule.recurs(3) })
    Alf.layer({
      ...options,
      tokenRetry: Schedule.recurWhile((error: TokenError.TokenError) => error._tag === "TokenRequestError")
    })
  })

  test("does not compile with a Schedule that wants another input than a TokenError", () => {
    //  a TokenError is no number
    Alf.layer({ ...options, tokenRetry: Schedule.recurWhile((n: number) => n > 0) })
  })
})

describe("layerConfig", () => {
  type Built = Layer.Layer<
    Services,
    TokenError.ConfigurationError | ConfigError.ConfigError,
    HttpClient.HttpClient
  >

  test("is the same with ConfigError added", () => {
    expectTypeOf(Alf.layerConfig(options)).toEqualTypeOf<Built>()
  })

  test("takes plain values and Configs side by side", () => {
    expectTypeOf(Alf.layerConfig({
      tokenEndpoint: Config.string("URL"),
      clientId: "client",
      clientSecret: Config.redacted("SECRET"),
      scope: Config.array(Config.string(), "SCOPE"),
      audience: "plain",
      tokenTimeout: Config.duration("TIMEOUT"),
      tokenRetry: { times: 1 },
      origins: ["https://api.test"]
    })).toEqualTypeOf<Built>()
    expectTypeOf(Alf.layerConfig({
      tokenEndpoint: Config.url("URL"),
      clientId: Config.string("ID"),
      clientSecret: Effect.succeed(Redacted.make("secret")),
      audience: Config.string("AUDIENCE").pipe(Config.withDefault(undefined)),
      allowInsecureTokenEndpoint: Config.boolean("INSECURE"),
      origins: Config.array(Config.string(), "ORIGINS")
    })).toEqualTypeOf<Built>()
  })

  test("requires what its grant requires", () => {
    expectTypeOf(Alf.layerConfig({ ...options, clientId: Config.string("ID"), grant: vaultGrant })).toEqualTypeOf<
      Layer.Layer<
        Services,
        TokenError.ConfigurationError | ConfigError.ConfigError,
        HttpClient.HttpClient | Vault
      >
    >()
  })

  test("does not compile without origins, or with a Config of something else", () => {
    //  origins is missing
    Alf.layerConfig({ tokenEndpoint: Config.string("URL"), clientId: "client" })
    //  a number is no client id
    Alf.layerConfig({ ...options, clientId: Config.number("ID") })
    //  a secret is redacted
    Alf.layerConfig({ ...options, clientSecret: Config.string("SECRET") })
  })
})

describe("make", () => {
  test("gives both clients and the service; it needs a Scope", () => {
    expectTypeOf(Alf.make(options)).toEqualTypeOf<
      Effect.Effect<
        {
          readonly httpClient: HttpClient.HttpClient
          readonly authorizedHttpClient: AuthorizedHttpClient.AuthorizedHttpClient["Type"]
          readonly tokens: TokenService.TokenService["Type"]
        },
        TokenError.ConfigurationError,
        HttpClient.HttpClient | Scope.Scope
      >
    >()
  })

  test("requires what its grant requires", () => {
    expectTypeOf(Alf.make({ ...options, grant: vaultGrant })).toExtend<
      Effect.Effect<unknown, TokenError.ConfigurationError, HttpClient.HttpClient | Scope.Scope | Vault>
    >()
    expectTypeOf<Effect.Effect.Context<ReturnType<typeof Alf.make<Vault>>>>().toEqualTypeOf<
      HttpClient.HttpClient | Scope.Scope | Vault
    >()
  })
})
