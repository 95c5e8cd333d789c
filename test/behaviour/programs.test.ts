import {
  Cookies,
  HttpApi,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiSchema,
  HttpBody,
  HttpClient,
  HttpClientRequest,
  HttpClientResponse
} from "@effect/platform"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import {
  Config,
  type ConfigError,
  ConfigProvider,
  Context,
  Effect,
  Exit,
  Layer,
  Redacted,
  Ref,
  Schedule,
  Schema,
  type Scope,
  Stream,
  TestClock
} from "effect"
import {
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  type TokenError,
  TokenService,
  TokenStorage
} from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"
import { inspect } from "node:util"
import {
  advancing,
  api,
  bearers,
  counting,
  json,
  pipeline,
  serve,
  text,
  tokenEndpoint,
  unauthorized
} from "../support/scriptedServer.ts"

const options = { tokenEndpoint, clientId: "client", clientSecret: Redacted.make("swordfish"), origins: [api] } as const

class Thing extends Schema.Class<Thing>("Thing")({ id: Schema.Number, name: Schema.String }) {}

/** A service as programs write them: over the plain HttpClient, which knows nothing of tokens. */
class Things extends Effect.Service<Things>()("test/Things", {
  effect: Effect.gen(function*() {
    const client = (yield* HttpClient.HttpClient).pipe(
      HttpClient.mapRequest(HttpClientRequest.prependUrl(api)),
      HttpClient.filterStatusOk
    )
    return {
      get: (id: number) => client.get(`/things/${id}`).pipe(Effect.flatMap(HttpClientResponse.schemaBodyJson(Thing))),
      put: (thing: Thing) =>
        HttpClientRequest.put(`/things/${thing.id}`).pipe(
          HttpClientRequest.schemaBodyJson(Thing)(thing),
          Effect.flatMap(client.execute),
          Effect.flatMap(HttpClientResponse.schemaBodyJson(Thing))
        )
    }
  })
}) {}

describe("a program", () => {
  it.effect("whose service knows nothing of tokens", () =>
    Effect.gen(function*() {
      const server = serve({
        api: (sent, n) => n === 1 ? unauthorized() : sent.body === "" ? json({ id: 7, name: "seven" }) : text(sent.body)
      })
      yield* Effect.gen(function*() {
        const things = yield* Things
        assert.strictEqual((yield* things.get(7)).name, "seven")
        assert.strictEqual((yield* things.put(new Thing({ id: 8, name: "eight" }))).name, "eight")
      }).pipe(
        Effect.provide(Things.Default.pipe(Layer.provide(Alf.layer(options)), Layer.provide(server.layer)))
      )
      assert.deepStrictEqual(bearers(server), ["Bearer token-1", "Bearer token-2", "Bearer token-2"])
    }))

  it.effect("with a client derived from an HttpApi", () =>
    Effect.gen(function*() {
      const definition = HttpApi.make("things").add(
        HttpApiGroup.make("things")
          .add(
            HttpApiEndpoint.get("one")`/things/${HttpApiSchema.param("id", Schema.NumberFromString)}`.addSuccess(Thing)
          )
          .add(HttpApiEndpoint.post("add", "/things").setPayload(Thing).addSuccess(Thing))
      )
      const server = serve({
        api: (sent, n) =>
          n === 1
            ? unauthorized()
            : sent.method === "POST"
            ? text(sent.body, 200, { "content-type": "application/json" })
            : json({ id: 1, name: "one" })
      })
      yield* Effect.gen(function*() {
        const client = yield* HttpApiClient.make(definition, { baseUrl: api })
        assert.strictEqual((yield* client.things.one({ path: { id: 1 } })).name, "one")
        assert.strictEqual((yield* client.things.add({ payload: new Thing({ id: 2, name: "two" }) })).name, "two")
      }).pipe(Effect.provide(Alf.layer(options)), Effect.provide(server.layer))
      assert.strictEqual(server.apiRequests.length, 3)
    }))

  it.effect("that handles each error by its tag", () =>
    Effect.gen(function*() {
      const said = (server: ReturnType<typeof serve>) =>
        Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (_) => _.get(api)).pipe(
          Effect.map((response) => `status ${response.status}`),
          Effect.catchTags({
            Unauthorized: (error) => Effect.succeed(`refused ${error.url}`),
            TokenErrorResponse: (error) => Effect.succeed(`said no: ${error.error}`),
            TokenRequestError: (error) => Effect.succeed(`no answer: ${error.reason}`),
            InvalidTokenResponse: () => Effect.succeed("nonsense"),
            AuthorizationError: (error) => Effect.succeed(`nobody: ${error.reason}`),
            DiscoveryError: (error) => Effect.succeed(`no metadata: ${error.reason}`),
            LayerClosed: () => Effect.succeed("closed"),
            InsufficientScope: (error) => Effect.succeed(`needs ${error.required.join(" ")}`),
            RequestError: (error) => Effect.succeed(`request: ${error.reason}`),
            ResponseError: (error) => Effect.succeed(`response: ${error.reason}`)
          }),
          Effect.provide(Alf.layer({ ...options, tokenRetry: { times: 0 } })),
          Effect.provide(server.layer)
        )
      expectTypeOf<Effect.Effect.Error<ReturnType<typeof said>>>().toEqualTypeOf<TokenError.ConfigurationError>()
      assert.strictEqual(yield* said(serve()), "status 200")
      assert.strictEqual(yield* said(serve({ api: unauthorized })), `refused ${api}/`)
      assert.strictEqual(
        yield* said(serve({ token: () => json({ error: "invalid_scope" }, { status: 400 }) })),
        "said no: invalid_scope"
      )
      assert.strictEqual(yield* said(serve({ token: () => text("<html>") })), "nonsense")
    }))

  it.effect("that substitutes the tokens in its tests", () =>
    Effect.gen(function*() {
      const server = serve()
      yield* Effect.flatMap(Things, (_) => Effect.exit(_.get(1))).pipe(
        Effect.provide(Things.Default),
        Effect.provide(AuthorizedHttpClient.layerHttpClient({ origins: [api] })),
        Effect.provide(TokenService.layerStatic("test")),
        Effect.provide(server.layer)
      )
      assert.deepStrictEqual(bearers(server), ["Bearer test"])
    }))

  it.effect("with two APIs under tags of their own, of which one has a grant with requirements", () =>
    Effect.gen(function*() {
      class Tenant extends Context.Tag("test/Tenant")<Tenant, string>() {}
      class One extends Context.Tag("test/One")<One, HttpClient.HttpClient>() {}
      const grant: Grant.Grant<Tenant> = {
        key: "tenant",
        acquire: (previous) =>
          Effect.flatMap(Tenant, (tenant) => Grant.clientCredentials({ params: { tenant } }).acquire(previous))
      }
      const made = Alf.make({ ...options, grant })
      expectTypeOf<Effect.Effect.Context<typeof made>>().toEqualTypeOf<HttpClient.HttpClient | Scope.Scope | Tenant>()
      const layer = Layer.scoped(One, Effect.map(made, (_) => _.httpClient))
      expectTypeOf(layer).toEqualTypeOf<
        Layer.Layer<One, TokenError.ConfigurationError, HttpClient.HttpClient | Tenant>
      >()
      const server = serve()
      yield* Effect.flatMap(One, (_) => _.get(api)).pipe(
        Effect.provide(layer),
        Effect.provideService(Tenant, "acme"),
        Effect.provide(server.layer)
      )
      assert.strictEqual(server.tokenRequests[0]!.form.get("tenant"), "acme")
    }))
})

describe("answers", () => {
  const answered = (response: () => Response) =>
    Effect.flatMap(pipeline(serve({ api: response })), (_) => _.httpClient.get(api))

  it.scoped("can be read in every way", () =>
    Effect.gen(function*() {
      const one = () => json({ id: 1, name: "one" }, { headers: { "x-mine": "1" } })
      const response = yield* answered(one)
      assert.strictEqual(response.status, 200)
      assert.strictEqual(response.headers["x-mine"], "1")
      assert.strictEqual((yield* HttpClientResponse.schemaBodyJson(Thing)(response)).name, "one")
      assert.strictEqual(yield* (yield* answered(one)).text, "{\"id\":1,\"name\":\"one\"}")
      assert.strictEqual((yield* (yield* answered(one)).arrayBuffer).byteLength, 21)
      const streamed = yield* Stream.mkString(Stream.decodeText((yield* answered(one)).stream))
      assert.strictEqual(streamed.length, 21)
      const viaEffect = yield* Stream.mkString(Stream.decodeText(HttpClientResponse.stream(answered(one))))
      assert.strictEqual(viaEffect.length, 21)
      const form = yield* (yield* answered(() => text("a=1&b=2"))).urlParamsBody
      assert.deepStrictEqual([...form], [["a", "1"], ["b", "2"]])
      const matched = yield* answered(one).pipe(
        Effect.flatMap(HttpClientResponse.matchStatus({ "2xx": (_) => _.text, orElse: () => Effect.succeed("other") }))
      )
      assert.strictEqual(matched.length, 21)
    }))

  it.scoped("of a replay, too", () =>
    Effect.gen(function*() {
      const { httpClient } = yield* pipeline(
        serve({ api: (_, n) => n === 1 ? unauthorized() : json({ id: 1, name: "one" }) })
      )
      const response = yield* httpClient.get(api)
      assert.strictEqual((yield* HttpClientResponse.schemaBodyJson(Thing)(response)).name, "one")
    }))

  it.scoped("keep their cookies", () =>
    Effect.gen(function*() {
      const server = serve({ api: () => new Response("", { headers: { "set-cookie": "a=1; Path=/" } }) })
      const { httpClient } = yield* pipeline(server)
      const jar = yield* Ref.make(Cookies.empty)
      const client = HttpClient.withCookiesRef(httpClient, jar)
      yield* client.get(api)
      yield* client.get(api)
      assert.strictEqual(server.apiRequests[1]!.headers["cookie"], "a=1")
    }))

  it.scoped("do not show the token when they are looked at", () =>
    Effect.gen(function*() {
      const { httpClient } = yield* pipeline(serve({ token: counting() }))
      const response = yield* httpClient.get(api)
      assert.notInclude(`${inspect(response, { depth: 10 })}${JSON.stringify(response)}${String(response)}`, "token-1")
    }))

  it.scoped("errors of a body keep their class", () =>
    Effect.gen(function*() {
      const response = yield* answered(() => text("no JSON"))
      const error = yield* Effect.flip(response.json)
      assert.strictEqual(error._tag, "ResponseError")
      assert.strictEqual(error.reason, "Decode")
      assert.strictEqual(error.response.status, 200)
    }))
})

describe("layerConfig", () => {
  const provider = (entries: ReadonlyArray<readonly [string, string]>) =>
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries), { seqDelim: "," }))

  it.effect("every option may be a Config", () =>
    Effect.gen(function*() {
      const server = serve()
      const layer = Alf.layerConfig({
        tokenEndpoint: Config.url("TOKEN_URL"),
        clientId: Config.string("CLIENT_ID"),
        clientSecret: Config.redacted("CLIENT_SECRET"),
        clientAuthentication: Config.map(
          Config.string("METHOD"),
          (name) => name === "post" ? ClientAuthentication.post : ClientAuthentication.basic
        ),
        grant: Config.map(Config.string("SCOPE"), (scope) => Grant.clientCredentials({ scope })),
        origins: Config.literal("any")("ORIGINS"),
        tokenRetry: Config.all({ times: Config.integer("TIMES"), base: Config.duration("BASE") }),
        tokenTimeout: Config.duration("TIMEOUT"),
        expiryLeeway: Config.duration("TIMEOUT"),
        refreshAhead: Config.duration("TIMEOUT"),
        defaultExpiresIn: Config.duration("TIMEOUT"),
        refusalCooldown: Config.duration("TIMEOUT"),
        allowInsecureTokenEndpoint: Config.boolean("INSECURE")
      })
      expectTypeOf(layer).toEqualTypeOf<
        Layer.Layer<
          HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient | TokenService.TokenService,
          TokenError.ConfigurationError | ConfigError.ConfigError,
          HttpClient.HttpClient
        >
      >()
      yield* Effect.flatMap(HttpClient.HttpClient, (_) => _.get("https://anywhere.example")).pipe(
        Effect.provide(layer),
        Effect.provide(server.layer),
        provider([
          ["TOKEN_URL", tokenEndpoint],
          ["CLIENT_ID", "c"],
          ["CLIENT_SECRET", "s"],
          ["METHOD", "post"],
          ["SCOPE", "x"],
          ["ORIGINS", "any"],
          ["TIMES", "2"],
          ["BASE", "1 second"],
          ["TIMEOUT", "5 seconds"],
          ["INSECURE", "false"]
        ])
      )
      assert.strictEqual(server.tokenRequests[0]!.form.get("scope"), "x")
      assert.strictEqual(server.tokenRequests[0]!.form.get("client_secret"), "s")
      assert.deepStrictEqual(bearers(server), ["Bearer token-1"])
    }))

  it("a Config for a grant requires what the grant requires", () => {
    class Tenant extends Context.Tag("test/Tenant")<Tenant, string>() {}
    const grant: Grant.Grant<Tenant> = {
      key: "tenant",
      acquire: (previous) => Effect.zipRight(Tenant, Grant.clientCredentials({}).acquire(previous))
    }
    const layer = Alf.layerConfig({ ...options, grant: Config.succeed(grant) })
    expectTypeOf<Layer.Layer.Context<typeof layer>>().toEqualTypeOf<HttpClient.HttpClient | Tenant>()
    assert.isTrue(Layer.isLayer(layer))
  })

  it.effect("a Config for a list of origins and resources, by name", () =>
    Effect.gen(function*() {
      const server = serve()
      const layer = Alf.layerConfig({
        ...options,
        resource: Config.array(Config.string(), "RESOURCES"),
        audience: Config.string("AUDIENCE"),
        origins: Config.nested(Config.array(Config.string(), "ORIGINS"), "API")
      })
      yield* Effect.flatMap(HttpClient.HttpClient, (_) => _.get("https://two.example")).pipe(
        Effect.provide(layer),
        Effect.provide(server.layer),
        Effect.withConfigProvider(
          ConfigProvider.fromMap(
            new Map([["RESOURCES", "https://r1.example,https://r2.example"], ["AUDIENCE", "a"], [
              "API.ORIGINS",
              "https://one.example,https://two.example"
            ]]),
            { seqDelim: "," }
          )
        )
      )
      assert.deepStrictEqual(server.tokenRequests[0]!.form.getAll("resource"), [
        "https://r1.example",
        "https://r2.example"
      ])
      assert.deepStrictEqual(bearers(server), ["Bearer token-1"])
    }))

  it.effect("does not show a secret that is wrong", () =>
    Effect.gen(function*() {
      const layer = Alf.layerConfig({
        ...options,
        clientId: Config.string("ABSENT"),
        clientSecret: Config.redacted("SECRET")
      })
      const exit = yield* Effect.exit(Effect.scoped(Layer.build(Layer.provide(layer, serve().layer)))).pipe(
        provider([["SECRET", "swordfish"]])
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.notInclude(inspect(exit, { depth: 10 }), "swordfish")
    }))
})

describe("everything together", () => {
  it.effect("a program over the in-memory servers, shared between two services, encrypted", () =>
    Effect.gen(function*() {
      const keys = [Redacted.make(Buffer.alloc(32, 3).toString("base64"))] as const
      const values = new Map<string, string>()
      const alf = Alf.layer({
        tokenEndpoint: "https://auth.test/token",
        clientId: "client",
        clientSecret: Redacted.make("secret"),
        origins: [api],
        grant: Grant.refreshToken(Grant.clientCredentials({ scope: "things" })),
        tokenRetry: Schedule.recurs(2)
      }).pipe(Layer.provide(TokenStorage.encrypted(TokenStorage.layerStore(values), { keys })))
      yield* Effect.gen(function*() {
        const server = yield* TestAuthorizationServer.TestAuthorizationServer
        const status = Effect.flatMap(
          HttpClient.HttpClient,
          (client) => Effect.map(client.get(`${api}/x`), (_) => _.status)
        ).pipe(
          Effect.provide(Layer.fresh(alf))
        )
        assert.strictEqual(yield* status, 200)
        assert.strictEqual(yield* status, 200)
        assert.strictEqual(yield* server.issued, 1)
        yield* server.revokeAll
        yield* server.failNext(2, 503)
        assert.strictEqual(yield* advancing(status, "1 second"), 200)
        assert.strictEqual(yield* server.issued, 2)
        yield* TestClock.adjust("1 day")
        assert.strictEqual(yield* status, 200)
        assert.strictEqual(yield* server.issued, 3)
      }).pipe(Effect.provide(TestAuthorizationServer.layer({})))
    }))

  it.scoped("an upload of every kind survives a revocation", () =>
    Effect.gen(function*() {
      const valid = new Set(["Bearer token-1"])
      const server = serve({ api: (sent) => valid.has(sent.headers["authorization"]!) ? json({}) : unauthorized() })
      const { authorizedHttpClient } = yield* pipeline(server)
      yield* authorizedHttpClient.get(api)
      let current = 1
      for (const body of [HttpBody.text("a"), HttpBody.unsafeJson([1]), HttpBody.uint8Array(new Uint8Array(3))]) {
        valid.clear()
        valid.add(`Bearer token-${++current}`)
        assert.strictEqual((yield* authorizedHttpClient.post(api, { body })).status, 200)
      }
    }))
})
