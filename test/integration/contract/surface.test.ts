import { HttpClient, type HttpClientError, HttpClientRequest, type KeyValueStore, UrlParams } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import {
  Config,
  type ConfigError,
  Context,
  DateTime,
  Effect,
  Layer,
  Option,
  Redacted,
  Schedule,
  type Scope
} from "effect"
import {
  AccessToken,
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenEndpoint,
  TokenError,
  TokenMetrics,
  TokenService,
  TokenStorage
} from "effect-alf"
import { AuthorizationCodeGrant, Browser, ImplicitGrant } from "effect-alf/node"
import { TestAuthorizationServer, TestTokenService, TokenStorageConformance } from "effect-alf/testing"
import * as Memcached from "effect-alf/TokenStorage/Memcached"
import * as Redis from "effect-alf/TokenStorage/Redis"

class Tenant extends Context.Tag("test/Tenant")<Tenant, { readonly id: string }>() {}

const tokenEndpoint = "https://auth.example/token"
const minimal = {
  tokenEndpoint,
  clientId: "id",
  clientSecret: Redacted.make("secret"),
  origins: ["https://api.example"]
}

type Out = HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService

const tenantGrant: Grant.Grant<Tenant> = {
  key: "tenant",
  acquire: (previous) =>
    Effect.gen(function*() {
      expectTypeOf(previous).toEqualTypeOf<Option.Option<AccessToken.AccessToken>>()
      const endpoint = yield* TokenEndpoint.TokenEndpoint
      const tenant = yield* Tenant
      return yield* endpoint.request(UrlParams.fromInput({ grant_type: "urn:tenant", tenant: tenant.id }))
    })
}

describe("the barrel", () => {
  it("exports one namespace per module", () => {
    for (
      const namespace of [
        AccessToken,
        Alf,
        AuthorizedHttpClient,
        ClientAuthentication,
        Grant,
        TokenEndpoint,
        TokenError,
        TokenMetrics,
        TokenService,
        TokenStorage
      ]
    ) {
      assert.strictEqual(typeof namespace, "object")
      assert.isAbove(Object.keys(namespace).length, 0)
    }
  })

  it("has the subpaths", () => {
    for (
      const namespace of [
        AuthorizationCodeGrant,
        Browser,
        ImplicitGrant,
        TestAuthorizationServer,
        TestTokenService,
        TokenStorageConformance,
        Memcached,
        Redis
      ]
    ) assert.strictEqual(typeof namespace, "object")
  })

  it("names its tags", () => {
    assert.strictEqual(TokenService.TokenService.key, "effect-alf/TokenService")
  })
})

describe("Alf", () => {
  it("layer", () => {
    const layer = Alf.layer(minimal)
    expectTypeOf(layer).toEqualTypeOf<Layer.Layer<Out, TokenError.ConfigurationError, HttpClient.HttpClient>>()
    expectTypeOf(layer.pipe(Layer.provide(NodeHttpClient.layerUndici))).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError>
    >()
  })

  it("layer: every option by its name", () => {
    const options: Alf.Options = {
      tokenEndpoint: new URL(tokenEndpoint),
      clientId: "id",
      clientSecret: Effect.succeed(Redacted.make("secret")),
      clientAuthentication: ClientAuthentication.post,
      grant: Grant.clientCredentials({
        scope: ["a", "b"],
        audience: "x",
        resource: "https://r.example",
        params: { a: "b" }
      }),
      scope: "a b",
      audience: "https://api.example",
      resource: ["https://r.example"],
      params: { tenant: "t" },
      origins: ["https://api.example", new URL("https://b.example")],
      tokenRetry: { times: 1, base: "1 second", factor: 3, maxDelay: "5 seconds", statuses: [500] },
      tokenTimeout: "5 seconds",
      expiryLeeway: "5 seconds",
      refreshAhead: 1000,
      defaultExpiresIn: "1 hour",
      refusalCooldown: "1 second",
      allowInsecureTokenEndpoint: false
    }
    assert.isTrue(Layer.isLayer(Alf.layer(options)))
    assert.isTrue(Layer.isLayer(Alf.layer({ ...minimal, origins: "any", tokenRetry: Schedule.recurs(3) })))
    assert.isTrue(
      Layer.isLayer(Alf.layer({
        ...minimal,
        tokenRetry: Schedule.recurWhile((error: TokenError.TokenError) => error._tag === "TokenRequestError")
      }))
    )
    assert.isTrue(
      Layer.isLayer(
        Alf.layer({
          ...minimal,
          clientSecret: Effect.fail(new Error("no vault")) as Effect.Effect<Redacted.Redacted, Error>
        })
      )
    )
  })

  it("layer requires what its grant requires", () => {
    const layer = Alf.layer({ ...minimal, grant: tenantGrant })
    expectTypeOf(layer).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError, HttpClient.HttpClient | Tenant>
    >()
    const browser = Alf.layer({
      ...minimal,
      grant: AuthorizationCodeGrant.make({ authorizationEndpoint: "https://auth.example/authorize", clientId: "id" })
    })
    expectTypeOf(browser).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError, HttpClient.HttpClient | Browser.Browser>
    >()
  })

  it("does not compile without origins", () => {
    expectTypeOf<Omit<Alf.Options, "origins">>().not.toExtend<Alf.Options>()
    expectTypeOf<Omit<Alf.Options, "clientId">>().not.toExtend<Alf.Options>()
    expectTypeOf<Omit<Alf.Options, "tokenEndpoint">>().not.toExtend<Alf.Options>()
    // @ts-expect-error: where the token may go has to be said
    assert.isTrue(Layer.isLayer(Alf.layer({ tokenEndpoint, clientId: "id" })))
  })

  it("layerConfig", () => {
    const layer = Alf.layerConfig({
      tokenEndpoint: Config.string("TOKEN_ENDPOINT"),
      clientId: Config.string("CLIENT_ID"),
      clientSecret: Config.redacted("CLIENT_SECRET"),
      clientAuthentication: ClientAuthentication.basic,
      scope: Config.withDefault(Config.string("SCOPE"), "read"),
      origins: Config.array(Config.string(), "ORIGINS"),
      tokenRetry: { times: 5 },
      tokenTimeout: Config.duration("TOKEN_TIMEOUT"),
      allowInsecureTokenEndpoint: Config.boolean("INSECURE")
    })
    expectTypeOf(layer).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError | ConfigError.ConfigError, HttpClient.HttpClient>
    >()
    const plain = Alf.layerConfig({ ...minimal, tokenEndpoint: Config.url("TOKEN_ENDPOINT") })
    expectTypeOf(plain).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError | ConfigError.ConfigError, HttpClient.HttpClient>
    >()
    const secretEffect = Alf.layerConfig({
      ...minimal,
      clientId: Config.string("CLIENT_ID"),
      clientSecret: Effect.succeed(Redacted.make("read again")),
      tokenRetry: Schedule.recurs(2),
      origins: "any"
    })
    expectTypeOf(secretEffect).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError | ConfigError.ConfigError, HttpClient.HttpClient>
    >()
    const withGrant = Alf.layerConfig({ ...minimal, clientId: Config.string("CLIENT_ID"), grant: tenantGrant })
    expectTypeOf(withGrant).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError | ConfigError.ConfigError, HttpClient.HttpClient | Tenant>
    >()
  })

  it("make", () => {
    const made = Alf.make(minimal)
    expectTypeOf<Effect.Effect.Error<typeof made>>().toEqualTypeOf<TokenError.ConfigurationError>()
    expectTypeOf<Effect.Effect.Context<typeof made>>().toEqualTypeOf<HttpClient.HttpClient | Scope.Scope>()
    type Made = Effect.Effect.Success<typeof made>
    expectTypeOf<Made["httpClient"]>().toExtend<HttpClient.HttpClient>()
    expectTypeOf<Made["authorizedHttpClient"]>().toExtend<
      HttpClient.HttpClient.With<
        HttpClientError.HttpClientError | TokenError.TokenError | AuthorizedHttpClient.Unauthorized
      >
    >()
    expectTypeOf<Made["tokens"]>().toExtend<Context.Tag.Service<TokenService.TokenService>>()
    // one make each, each under a tag of one's own
    class Billing extends Context.Tag("test/Billing")<Billing, HttpClient.HttpClient>() {}
    const layer = Layer.scoped(Billing, Effect.map(Alf.make(minimal), (_) => _.httpClient))
    expectTypeOf(layer).toEqualTypeOf<Layer.Layer<Billing, TokenError.ConfigurationError, HttpClient.HttpClient>>()
  })
})

describe("TokenService", () => {
  it("has get, refresh and invalidate", () => {
    type Service = Context.Tag.Service<TokenService.TokenService>
    expectTypeOf<Service["get"]>().toEqualTypeOf<Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>>()
    expectTypeOf<Service["refresh"]>().toEqualTypeOf<
      (rejected: AccessToken.AccessToken) => Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
    >()
    expectTypeOf<Service["invalidate"]>().toEqualTypeOf<Effect.Effect<void>>()
  })

  it("layer requires the token endpoint and what the grant requires", () => {
    expectTypeOf(TokenService.layer({ grant: Grant.clientCredentials({}) })).toEqualTypeOf<
      Layer.Layer<TokenService.TokenService, never, TokenEndpoint.TokenEndpoint>
    >()
    expectTypeOf(
      TokenService.layer({ grant: tenantGrant, expiryLeeway: "1 second", refreshAhead: "1 minute", refusalCooldown: 0 })
    ).toEqualTypeOf<Layer.Layer<TokenService.TokenService, never, TokenEndpoint.TokenEndpoint | Tenant>>()
    const made = TokenService.make({ grant: tenantGrant })
    expectTypeOf<Effect.Effect.Success<typeof made>>().toExtend<Context.Tag.Service<TokenService.TokenService>>()
    expectTypeOf<Effect.Effect.Error<typeof made>>().toEqualTypeOf<never>()
  })

  it("layerStatic", () => {
    expectTypeOf(TokenService.layerStatic("k")).toEqualTypeOf<Layer.Layer<TokenService.TokenService>>()
    expectTypeOf(TokenService.layerStatic(Redacted.make("k"))).toEqualTypeOf<Layer.Layer<TokenService.TokenService>>()
  })

  it("can be substituted by an object", () => {
    const layer = Layer.effect(
      TokenService.TokenService,
      Effect.map(DateTime.now, (issuedAt) => {
        const token = new AccessToken.AccessToken({
          value: Redacted.make("mine"),
          type: "Bearer",
          scope: [],
          issuedAt,
          expiresAt: Option.none(),
          refreshToken: Option.none()
        })
        return { get: Effect.succeed(token), refresh: () => Effect.succeed(token), invalidate: Effect.void }
      })
    )
    expectTypeOf(layer).toEqualTypeOf<Layer.Layer<TokenService.TokenService>>()
  })
})

describe("AuthorizedHttpClient", () => {
  it("layers", () => {
    const options: AuthorizedHttpClient.Options = { origins: "any" }
    expectTypeOf(AuthorizedHttpClient.layer(options)).toEqualTypeOf<
      Layer.Layer<
        AuthorizedHttpClient.AuthorizedHttpClient,
        never,
        HttpClient.HttpClient | TokenService.TokenService
      >
    >()
    expectTypeOf(AuthorizedHttpClient.layerHttpClient({ origins: ["https://api.example"] })).toEqualTypeOf<
      Layer.Layer<HttpClient.HttpClient, never, HttpClient.HttpClient | TokenService.TokenService>
    >()
  })

  it("the typed client's errors", () => {
    const program = Effect.gen(function*() {
      const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
      return yield* client.get("https://api.example/a")
    })
    expectTypeOf<Effect.Effect.Error<typeof program>>().toEqualTypeOf<
      HttpClientError.HttpClientError | TokenError.TokenError | AuthorizedHttpClient.Unauthorized
    >()
    const handled = program.pipe(
      Effect.catchTags({
        Unauthorized: (_) => Effect.succeed([_.method, _.url, _.status, _.challenges]),
        TokenRequestError: (_) => Effect.succeed([_.reason, _.endpoint, _.attempts, _.description]),
        TokenErrorResponse: (_) =>
          Effect.succeed([
            _.endpoint,
            _.status,
            _.error,
            _.errorDescription,
            _.errorUri,
            _.retryAfter,
            _.attempts,
            _.body
          ]),
        InvalidTokenResponse: (_) => Effect.succeed([_.endpoint, _.issue]),
        AuthorizationError: (_) => Effect.succeed([_.reason, _.error, _.errorDescription])
      })
    )
    expectTypeOf<Effect.Effect.Error<typeof handled>>().toEqualTypeOf<HttpClientError.HttpClientError>()
    expectTypeOf<TokenError.TokenRequestError["reason"]>().toEqualTypeOf<"Transport" | "Timeout" | "Secret">()
    expectTypeOf<TokenError.AuthorizationError["reason"]>().toEqualTypeOf<
      "AccessDenied" | "Timeout" | "IssuerMismatch" | "NoPort" | "Failed"
    >()
    expectTypeOf<TokenError.TokenError>().toEqualTypeOf<
      | TokenError.TokenRequestError
      | TokenError.TokenErrorResponse
      | TokenError.InvalidTokenResponse
      | TokenError.AuthorizationError
    >()
    expectTypeOf<TokenError.ConfigurationError["issue"]>().toEqualTypeOf<string>()
    expectTypeOf<AuthorizedHttpClient.Unauthorized["url"]>().toEqualTypeOf<string>()
    expectTypeOf<AuthorizedHttpClient.Unauthorized["status"]>().toExtend<number>()
  })

  it("withToken, data first and data last", () => {
    const below = HttpClient.makeWith<never, never, HttpClientError.HttpClientError | "custom", Tenant>(
      () => Effect.flatMap(Tenant, () => Effect.fail("custom" as const)),
      Effect.succeed
    )
    type Expected = Effect.Effect<
      HttpClient.HttpClient.With<
        HttpClientError.HttpClientError | "custom" | TokenError.TokenError | AuthorizedHttpClient.Unauthorized,
        Tenant
      >,
      never,
      TokenService.TokenService
    >
    expectTypeOf(AuthorizedHttpClient.withToken(below, { origins: "any" })).toEqualTypeOf<Expected>()
    expectTypeOf(below.pipe(AuthorizedHttpClient.withToken({ origins: "any" }))).toEqualTypeOf<Expected>()
    expectTypeOf(AuthorizedHttpClient.withToken({ origins: "any" })(below)).toEqualTypeOf<Expected>()
  })

  it("replayable", () => {
    expectTypeOf(AuthorizedHttpClient.replayable(HttpClientRequest.post("https://api.example"))).toEqualTypeOf<
      HttpClientRequest.HttpClientRequest
    >()
  })
})

describe("Grant and TokenEndpoint", () => {
  it("grants", () => {
    expectTypeOf(Grant.clientCredentials({ scope: "a" })).toEqualTypeOf<Grant.Grant>()
    expectTypeOf(Grant.refreshToken(tenantGrant)).toEqualTypeOf<Grant.Grant<Tenant>>()
    expectTypeOf(Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make("r") })).toEqualTypeOf<
      Grant.Grant
    >()
    expectTypeOf<ReturnType<Grant.Grant<Tenant>["acquire"]>>().toEqualTypeOf<
      Effect.Effect<AccessToken.AccessToken, TokenError.TokenError, TokenEndpoint.TokenEndpoint | Tenant>
    >()
  })

  it("token endpoint", () => {
    const layer = TokenEndpoint.layer({
      tokenEndpoint,
      clientId: "id",
      clientSecret: Redacted.make("secret"),
      clientAuthentication: ClientAuthentication.basicRaw,
      tokenRetry: { times: 0 },
      tokenTimeout: "1 second",
      defaultExpiresIn: "1 hour",
      allowInsecureTokenEndpoint: false
    })
    expectTypeOf(layer).toEqualTypeOf<
      Layer.Layer<TokenEndpoint.TokenEndpoint, TokenError.ConfigurationError, HttpClient.HttpClient>
    >()
    type Service = Context.Tag.Service<TokenEndpoint.TokenEndpoint>
    expectTypeOf<Service["request"]>().toEqualTypeOf<
      (params: UrlParams.UrlParams) => Effect.Effect<AccessToken.AccessToken, TokenError.TokenError>
    >()
    expectTypeOf<Service["identity"]>().toEqualTypeOf<string>()
    expectTypeOf<TokenEndpoint.RetryOptions["times"]>().toExtend<number | undefined>()
    const methods: ReadonlyArray<ClientAuthentication.ClientAuthentication> = [
      ClientAuthentication.basic,
      ClientAuthentication.basicRaw,
      ClientAuthentication.post,
      ClientAuthentication.none
    ]
    assert.strictEqual(methods.length, 4)
  })
})

describe("TokenStorage", () => {
  it("asks nothing of who does not provide it", () => {
    expectTypeOf<Effect.Effect.Context<typeof TokenStorage.TokenStorage>>().toEqualTypeOf<never>()
  })

  it("a user's own object", () => {
    const held = new Map<string, AccessToken.AccessToken>()
    const lock = Effect.unsafeMakeSemaphore(1)
    const layer = Layer.succeed(TokenStorage.TokenStorage, {
      get: (key) => Effect.sync(() => Option.fromNullable(held.get(key))),
      set: (key, token) => Effect.sync(() => void held.set(key, token)),
      remove: (key, token) =>
        Effect.sync(() => {
          const found = held.get(key)
          if (found !== undefined && Redacted.value(found.value) === Redacted.value(token.value)) held.delete(key)
        }),
      exclusive: (_key) => (effect) => lock.withPermits(1)(effect)
    })
    assert.isTrue(Layer.isLayer(layer))
    const whole = Alf.layer(minimal).pipe(Layer.provide(layer))
    expectTypeOf(whole).toEqualTypeOf<
      Layer.Layer<Out, TokenError.ConfigurationError, HttpClient.HttpClient>
    >()
  })

  it("layers", () => {
    expectTypeOf<Layer.Layer.Context<typeof TokenStorage.layerMemory>>().toEqualTypeOf<never>()
    expectTypeOf<Layer.Layer.Error<typeof TokenStorage.layerMemory>>().toEqualTypeOf<never>()
    const keyValue = TokenStorage.layerKeyValueStore()
    expectTypeOf<Layer.Layer.Context<typeof keyValue>>().toEqualTypeOf<KeyValueStore.KeyValueStore>()
    const map = TokenStorage.layerStore(new Map())
    expectTypeOf<Layer.Layer.Context<typeof map>>().toEqualTypeOf<never>()
    const typedMap = TokenStorage.layerStore(new Map<string, string>())
    expectTypeOf<Layer.Layer.Context<typeof typedMap>>().toEqualTypeOf<never>()
    const values = new Map<string, string>()
    const promises = TokenStorage.layerStore({
      get: async (key: string) => values.get(key) ?? null,
      set: async (key: string, value: string) => {
        values.set(key, value)
      }
    })
    expectTypeOf<Layer.Layer.Context<typeof promises>>().toEqualTypeOf<never>()
    const encrypted = TokenStorage.encrypted(TokenStorage.layerMemory, { keys: [Redacted.make("k")] })
    expectTypeOf<Layer.Layer.Context<typeof encrypted>>().toEqualTypeOf<never>()
    expectTypeOf<Layer.Layer.Error<typeof encrypted>>().toEqualTypeOf<TokenError.ConfigurationError>()
    const encryptedFiles = TokenStorage.encrypted(TokenStorage.layerKeyValueStore(), {
      keys: [Redacted.make("k"), Redacted.make("l")]
    })
    expectTypeOf<Layer.Layer.Context<typeof encryptedFiles>>().toEqualTypeOf<KeyValueStore.KeyValueStore>()
  })
})

describe("node", () => {
  it("grants need a browser", () => {
    const options = {
      authorizationEndpoint: "https://auth.example/authorize",
      clientId: "id",
      scope: "a b",
      portRange: [32000, 32009],
      redirectHost: "localhost",
      timeout: "1 minute",
      params: { prompt: "login" }
    } as const
    expectTypeOf(ImplicitGrant.make(options)).toEqualTypeOf<Grant.Grant<Browser.Browser>>()
    expectTypeOf(AuthorizationCodeGrant.make(options)).toEqualTypeOf<Grant.Grant<Browser.Browser>>()
    const mine = Layer.succeed(Browser.Browser, { open: (url) => Effect.log(url.href) })
    expectTypeOf(mine).toEqualTypeOf<Layer.Layer<Browser.Browser>>()
    expectTypeOf(Browser.layer).toEqualTypeOf<Layer.Layer<Browser.Browser>>()
    expectTypeOf(Browser.layerLog).toEqualTypeOf<Layer.Layer<Browser.Browser>>()
  })
})

describe("testing", () => {
  it("TestTokenService", () => {
    const layer = TestTokenService.layer({ tokens: ["a", "b"] })
    expectTypeOf<Layer.Layer.Success<typeof layer>>().toEqualTypeOf<
      TokenService.TokenService | TestTokenService.TestTokenService
    >()
    expectTypeOf<Layer.Layer.Error<typeof layer>>().toEqualTypeOf<never>()
    expectTypeOf<Layer.Layer.Context<typeof layer>>().toEqualTypeOf<never>()
    expectTypeOf<Context.Tag.Service<TestTokenService.TestTokenService>["calls"]>().toEqualTypeOf<
      Effect.Effect<ReadonlyArray<"get" | "refresh" | "invalidate">>
    >()
  })

  it("TestAuthorizationServer", () => {
    const layer = TestAuthorizationServer.layer({})
    expectTypeOf<Layer.Layer.Success<typeof layer>>().toEqualTypeOf<
      HttpClient.HttpClient | TestAuthorizationServer.TestAuthorizationServer
    >()
    expectTypeOf<Layer.Layer.Context<typeof layer>>().toEqualTypeOf<never>()
    const controls = Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      yield* server.issued
      yield* server.requests
      yield* server.revokeAll
      yield* server.failNext(1, 503)
      yield* server.failNext(1, 400, { error: "invalid_scope" })
      yield* server.delay("1 second")
      yield* server.resource((request) => Effect.succeed(new Response(request.url)))
    })
    expectTypeOf<Effect.Effect.Error<typeof controls>>().toEqualTypeOf<never>()
  })

  it("TokenStorageConformance", () => {
    expectTypeOf(TokenStorageConformance.suite).toBeCallableWith("mine", () => TokenStorage.layerMemory)
  })
})
