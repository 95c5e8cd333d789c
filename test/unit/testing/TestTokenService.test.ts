import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { AuthorizedHttpClient, TokenError, TokenService } from "effect-alf"
import { TestAuthorizationServer, TestTokenService } from "effect-alf/testing"

const get = Effect.flatMap(TokenService.TokenService, (tokens) => tokens.get)
const refresh = Effect.flatMap(
  TokenService.TokenService,
  (tokens) => Effect.flatMap(tokens.get, tokens.refresh)
)
const invalidate = Effect.flatMap(TokenService.TokenService, (tokens) => tokens.invalidate)
const calls = Effect.flatMap(TestTokenService.TestTokenService, (test) => test.calls)
const value = Effect.map((token: { readonly value: Redacted.Redacted }) => Redacted.value(token.value))

describe("TestTokenService", () => {
  it.effect("hands out the next token with each refresh, the last one again and again", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* value(get), "a")
      assert.strictEqual(yield* value(get), "a")
      assert.strictEqual(yield* value(refresh), "b")
      assert.strictEqual(yield* value(get), "b")
      assert.strictEqual(yield* value(refresh), "b")
    }).pipe(Effect.provide(TestTokenService.layer({ tokens: ["a", "b"] }))))

  it.effect("moves on after invalidate", () =>
    Effect.gen(function*() {
      yield* invalidate
      assert.strictEqual(yield* value(get), "b")
    }).pipe(Effect.provide(TestTokenService.layer({ tokens: ["a", "b"] }))))

  it.effect("has tokens without end where none are listed", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* value(get), "token-1")
      assert.strictEqual(yield* value(refresh), "token-2")
      assert.strictEqual(yield* value(refresh), "token-3")
    }).pipe(Effect.provide(TestTokenService.layer())))

  it.effect("records each call", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* calls, [])
      yield* refresh
      yield* invalidate
      yield* get
      assert.deepStrictEqual(yield* calls, ["get", "refresh", "invalidate", "get"])
    }).pipe(Effect.provide(TestTokenService.layer())))

  it.effect("does nothing until an effect is run", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      const token = yield* tokens.get
      const later = tokens.refresh(token)
      assert.deepStrictEqual(yield* calls, ["get"])
      yield* later
      yield* later
      assert.deepStrictEqual(yield* calls, ["get", "refresh", "refresh"])
    }).pipe(Effect.provide(TestTokenService.layer())))

  const down = new TokenError.TokenRequestError({
    reason: "Transport",
    endpoint: TestAuthorizationServer.tokenEndpoint,
    attempts: 4,
    description: "no connection"
  })

  it.effect("fails with the given error, and records the calls", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      assert.strictEqual(yield* Effect.flip(get), down)
      const { get: first } = yield* TokenService.TokenService.pipe(Effect.provide(TestTokenService.layer()))
      assert.strictEqual(yield* Effect.flip(tokens.refresh(yield* first)), down)
      assert.deepStrictEqual(yield* calls, ["get", "refresh"])
    }).pipe(Effect.provide(TestTokenService.layer({ fail: down }))))

  it.effect("drives the middleware: a 401 asks for one refresh", () =>
    Effect.gen(function*() {
      const client = yield* HttpClient.HttpClient
      const response = yield* client.get("https://api.test/")
      assert.strictEqual(response.status, 401)
      assert.deepStrictEqual(yield* calls, ["get", "refresh"])
      const server = yield* TestAuthorizationServer.TestAuthorizationServer
      const sent = (yield* server.requests).map((request) => request.headers["authorization"])
      assert.deepStrictEqual(sent, ["Bearer stale", "Bearer staler"])
    }).pipe(Effect.provide(
      AuthorizedHttpClient.layerHttpClient({ origins: ["https://api.test"] }).pipe(
        Layer.provideMerge(TestTokenService.layer({ tokens: ["stale", "staler"] })),
        Layer.provideMerge(TestAuthorizationServer.layer())
      )
    )))
})
