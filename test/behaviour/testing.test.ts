import { HttpBody, HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Redacted, TestClock } from "effect"
import {
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenError,
  TokenService,
  TokenStorage
} from "effect-alf"
import { TestAuthorizationServer, TestTokenService } from "effect-alf/testing"
import * as TokenStorageConformance from "effect-alf/testing/TokenStorageConformance"
import { advancing, bearers, json, serve, settle, unauthorized } from "../support/scriptedServer.ts"

const api = "https://api.example"

describe("TestTokenService", () => {
  const authorized = AuthorizedHttpClient.layerHttpClient({ origins: [api] })

  it.effect("each refresh hands out the next token, and the calls are recorded", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      const test = yield* TestTokenService.TestTokenService
      assert.deepStrictEqual(yield* test.calls, [])
      const first = yield* tokens.get
      assert.strictEqual(Redacted.value(first.value), "a")
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "a")
      const second = yield* tokens.refresh(first)
      assert.strictEqual(Redacted.value(second.value), "b")
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "b")
      yield* tokens.invalidate
      assert.deepStrictEqual(yield* test.calls, ["get", "get", "refresh", "get", "invalidate"])
    }).pipe(Effect.provide(TestTokenService.layer({ tokens: ["a", "b"] }))))

  it.effect("under the authorized client: a 401 is get, refresh", () =>
    Effect.gen(function*() {
      const server = serve({ api: (sent) => sent.headers["authorization"] === "Bearer b" ? json({}) : unauthorized() })
      yield* Effect.gen(function*() {
        const client = yield* HttpClient.HttpClient
        assert.strictEqual((yield* client.get(api)).status, 200)
        assert.deepStrictEqual(yield* (yield* TestTokenService.TestTokenService).calls, ["get", "refresh"])
      }).pipe(
        Effect.provide(authorized),
        Effect.provide(TestTokenService.layer({ tokens: ["a", "b"] })),
        Effect.provide(server.layer)
      )
      assert.deepStrictEqual(bearers(server), ["Bearer a", "Bearer b"])
    }))

  it.effect("fails as it is told", () =>
    Effect.gen(function*() {
      const fail = new TokenError.AuthorizationError({ reason: "AccessDenied" })
      const server = serve()
      yield* Effect.gen(function*() {
        const tokens = yield* TokenService.TokenService
        const error = yield* Effect.flip(tokens.get)
        assert.strictEqual(error._tag, "AuthorizationError")
        const client = yield* HttpClient.HttpClient
        const failed = yield* Effect.flip(client.get(api))
        assert.strictEqual(failed._tag, "ResponseError")
        assert.strictEqual((failed.cause as TokenError.TokenError)._tag, "AuthorizationError")
      }).pipe(
        Effect.provide(authorized),
        Effect.provide(TestTokenService.layer({ fail })),
        Effect.provide(server.layer)
      )
      assert.strictEqual(server.apiRequests.length, 0)
    }))

  it.effect("errors can be made by a test: every field that the documents name", () =>
    Effect.forEach(
      [
        new TokenError.TokenRequestError({
          reason: "Timeout",
          endpoint: "https://auth.test/token",
          attempts: 4,
          description: "no answer within 10 seconds"
        }),
        new TokenError.TokenErrorResponse({
          endpoint: "https://auth.test/token",
          status: 400,
          error: "invalid_scope",
          errorDescription: "no",
          errorUri: "https://auth.test/help",
          attempts: 1,
          body: "{}"
        }),
        new TokenError.InvalidTokenResponse({ endpoint: "https://auth.test/token", issue: "no access_token" })
      ],
      (fail) =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(yield* Effect.map(TokenService.TokenService, (_) => _.get))
          assert.strictEqual(error._tag, fail._tag)
          assert.isAbove(error.message.length, 0)
        }).pipe(Effect.provide(TestTokenService.layer({ fail })))
    ))

  it.effect("has a token without options too", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      const token = yield* tokens.get
      assert.isAbove(Redacted.value(token.value).length, 0)
    }).pipe(Effect.provide(TestTokenService.layer({}))))
})

describe("TestAuthorizationServer", () => {
  const alf = (options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}) =>
    Alf.layer({
      tokenEndpoint: "https://auth.test/token",
      clientId: "client",
      clientSecret: Redacted.make("secret"),
      origins: [api],
      ...options
    })

  const world = (
    server: Parameters<typeof TestAuthorizationServer.layer>[0] = {},
    options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
  ) => Layer.provideMerge(alf(options), TestAuthorizationServer.layer(server))

  const status = Effect.flatMap(
    HttpClient.HttpClient,
    (client) => Effect.map(client.get(`${api}/things`), (_) => _.status)
  )

  it.effect("a happy path", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      assert.strictEqual(yield* status, 200)
      assert.strictEqual(yield* status, 200)
      assert.strictEqual(yield* server.issued, 1)
    }).pipe(Effect.provide(world())))

  it.effect("tokens age by the clock", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      yield* status
      yield* TestClock.adjust("1 day")
      assert.strictEqual(yield* status, 200)
      assert.strictEqual(yield* server.issued, 2)
    }).pipe(Effect.provide(world({ expiresIn: "1 hour" }))))

  it.effect("a revocation heals", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      yield* status
      yield* server.revokeAll
      assert.strictEqual(yield* status, 200)
      assert.strictEqual(yield* server.issued, 2)
    }).pipe(Effect.provide(world())))

  it.effect("a token endpoint that is down, then up", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
      yield* server.failNext(4, 503, "down")
      const error = yield* advancing(Effect.flip(client.get(api)), "10 seconds")
      assert.strictEqual(error._tag, "TokenErrorResponse")
      if (error._tag === "TokenErrorResponse") {
        assert.strictEqual(error.status, 503)
        assert.strictEqual(error.body, "down")
      }
      assert.strictEqual(yield* status, 200)
      yield* (yield* TokenService.TokenService).invalidate
      yield* server.failNext(2, 500)
      assert.strictEqual(yield* advancing(status, "10 seconds"), 200)
    }).pipe(Effect.provide(world())))

  it.effect("a wrong scope, and the API is not called", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
      yield* server.failNext(1, 400, { error: "invalid_scope" })
      const error = yield* Effect.flip(client.get(api))
      assert.strictEqual(error._tag === "TokenErrorResponse" ? error.error : error._tag, "invalid_scope")
      const urls = (yield* server.requests).map((request) => new URL(request.url).host)
      assert.deepStrictEqual(urls, ["auth.test"])
    }).pipe(Effect.provide(world())))

  it.effect("delay lasts as long as the clock says", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      yield* server.delay("5 seconds")
      const fiber = yield* Effect.fork(status)
      yield* settle
      yield* TestClock.adjust("4 seconds")
      assert.isNull(fiber.unsafePoll())
      assert.strictEqual(yield* advancing(Fiber.join(fiber), "5 seconds"), 200)
    }).pipe(Effect.provide(world())))

  it.effect("a resource of one's own, for valid tokens only", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      const client = yield* HttpClient.HttpClient
      yield* server.resource((request) => Effect.succeed(Response.json({ path: new URL(request.url).pathname })))
      const response = yield* client.get(`${api}/things/7`)
      assert.deepStrictEqual(yield* response.json, { path: "/things/7" })
    }).pipe(Effect.provide(world())))

  it.effect("without a valid bearer it is 401 with a challenge", () =>
    Effect.gen(function*() {
      const client = yield* HttpClient.HttpClient
      const none = yield* client.get(`${api}/x`)
      assert.strictEqual(none.status, 401)
      assert.match(none.headers["www-authenticate"]!, /^Bearer/)
      const wrong = yield* client.execute(
        HttpClientRequest.get(`${api}/x`).pipe(HttpClientRequest.bearerToken("nonsense"))
      )
      assert.strictEqual(wrong.status, 401)
      assert.match(wrong.headers["www-authenticate"]!, /invalid_token/)
    }).pipe(Effect.provide(TestAuthorizationServer.layer({}))))

  it.effect("speaks plain OAuth to any client", () =>
    Effect.gen(function*() {
      const client = yield* HttpClient.HttpClient
      const response = yield* client.post("https://auth.test/token", {
        body: HttpBody.urlParams([["grant_type", "client_credentials"], ["client_id", "me"], ["client_secret", "any"]])
      })
      assert.strictEqual(response.status, 200)
      const body = (yield* response.json) as { access_token: string; token_type: string; expires_in: number }
      assert.strictEqual(body.token_type.toLowerCase(), "bearer")
      assert.isAbove(body.expires_in, 0)
      const answer = yield* client.execute(
        HttpClientRequest.get(api).pipe(HttpClientRequest.bearerToken(body.access_token))
      )
      assert.strictEqual(answer.status, 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer({}))))

  it.effect("listed clients only, when they are listed, by every method", () =>
    Effect.gen(function*() {
      const clients = [{ id: "client: %", secret: "s:%+&" }]
      for (const method of [ClientAuthentication.basic, ClientAuthentication.post]) {
        const ok = world({ clients }, {
          clientId: "client: %",
          clientSecret: Redacted.make("s:%+&"),
          clientAuthentication: method
        })
        assert.strictEqual(yield* Effect.provide(status, ok), 200)
        const wrong = world({ clients }, {
          clientId: "client: %",
          clientSecret: Redacted.make("wrong"),
          clientAuthentication: method
        })
        const error = yield* Effect.flip(Effect.flatMap(TokenService.TokenService, (_) => _.get)).pipe(
          Effect.provide(wrong)
        )
        assert.strictEqual(error._tag === "TokenErrorResponse" ? error.error : error._tag, "invalid_client")
      }
    }))

  it.effect("refresh tokens", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      const tokens = yield* TokenService.TokenService
      const first = yield* tokens.get
      yield* tokens.refresh(first)
      assert.strictEqual(yield* server.issued, 2)
      const grants = (yield* server.requests).map((request) => new URLSearchParams(request.body).get("grant_type"))
      assert.deepStrictEqual(grants, ["client_credentials", "refresh_token"])
    }).pipe(
      Effect.provide(world({ refreshTokens: true }, { grant: Grant.refreshToken(Grant.clientCredentials({})) }))
    ))

  it.effect("each provide is a server of its own", () =>
    Effect.gen(function*() {
      const issued = Effect.gen(function*() {
        yield* status
        return yield* (yield* TestAuthorizationServer.TestAuthorizationServer).issued
      })
      assert.strictEqual(yield* Effect.provide(issued, world()), 1)
      assert.strictEqual(yield* Effect.provide(issued, world()), 1)
    }))

  it.layer(world())("in it.layer", (it) => {
    it.effect("one", () => Effect.map(status, (_) => assert.strictEqual(_, 200)))
    it.effect("two", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* status, 200)
        assert.strictEqual(yield* (yield* TestAuthorizationServer.TestAuthorizationServer).issued, 1)
      }))
    it.effect("three, a day later", () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 day")
        assert.strictEqual(yield* status, 200)
        assert.strictEqual(yield* (yield* TestAuthorizationServer.TestAuthorizationServer).issued, 2)
      }))
  })

  it.effect("what does not come in time is a Timeout", () =>
    Effect.gen(function*() {
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      yield* server.delay("1 minute")
      const exit = yield* advancing(Effect.exit(status), "10 seconds")
      assert.isTrue(Exit.isFailure(exit))
    }).pipe(Effect.provide(world({}, { tokenRetry: { times: 0 } }))))
})

// a user's storage under the suite that the library gives to those who write one
TokenStorageConformance.suite("a layer under the suite", () => TokenStorage.layerMemory, { describe, it })

describe("the suite", () => {
  /** Runs the suite over a storage without vitest, and gives the names of the tests that fail. */
  const failing = (layer: Layer.Layer<TokenStorage.TokenStorage>) => {
    const tests: Array<readonly [string, Effect.Effect<void, unknown>]> = []
    TokenStorageConformance.suite("a storage", () => layer, {
      describe: (_, tests) => tests(),
      it: { live: (name, test) => tests.push([name, test()]) }
    })
    return Effect.forEach(tests, ([name, test]) => Effect.map(Effect.exit(test), (exit) => ({ name, exit }))).pipe(
      Effect.map((results) => results.filter(({ exit }) => Exit.isFailure(exit)).map(({ name }) => name))
    )
  }
  const broken = (change: (storage: TokenStorage.Storage) => Partial<TokenStorage.Storage>) =>
    Layer.effect(
      TokenStorage.TokenStorage,
      Effect.map(TokenStorage.TokenStorage, (storage) => ({ ...storage, ...change(storage) }))
    ).pipe(Layer.provide(Layer.fresh(TokenStorage.layerMemory)))

  it.live("passes for a storage that keeps the contract", () =>
    Effect.map(failing(TokenStorage.layerMemory), (names) => assert.deepStrictEqual(names, [])))

  it.live("fails for a storage whose set stores nothing", () =>
    Effect.map(
      failing(broken(() => ({ set: () => Effect.void }))),
      (names) => assert.include(names, "replaces a token")
    ))

  it.live("fails for a storage whose exclusive section is open to all", () =>
    Effect.map(
      failing(broken(() => ({ exclusive: () => (effect) => effect }))),
      (names) => assert.include(names, "lets one at a time into the exclusive section")
    ))
})
