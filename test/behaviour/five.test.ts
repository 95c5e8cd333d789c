import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted, TestClock } from "effect"
import { Alf, AuthorizedHttpClient } from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"

// the program under test
const orders = Effect.flatMap(
  AuthorizedHttpClient.AuthorizedHttpClient,
  (client) => client.get("https://api.test/orders")
)

const testLayer = (scope: string) =>
  Alf.layer({
    tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
    clientId: "my-client",
    clientSecret: Redacted.make("my-secret"),
    scope,
    origins: ["https://api.test"]
  }).pipe(
    Layer.provideMerge(TestAuthorizationServer.layer({ scopes: ["orders:read"], expiresIn: "1 hour" }))
  )

it.effect("all requests go on one token", () =>
  Effect.gen(function*() {
    const server = yield* TestAuthorizationServer.TestAuthorizationServer
    const responses = yield* Effect.replicateEffect(orders, 10)
    assert.isTrue(responses.every((response) => response.status === 200))
    assert.strictEqual(yield* server.issued, 1)
  }).pipe(Effect.provide(testLayer("orders:read"))))

it.effect("a token that expires is renewed", () =>
  Effect.gen(function*() {
    const server = yield* TestAuthorizationServer.TestAuthorizationServer
    yield* orders
    yield* TestClock.adjust("1 hour")
    yield* orders
    const requests = (yield* server.requests).map((request) => `${request.endpoint} ${request.status}`)
    assert.deepStrictEqual(requests, ["token 200", "api 200", "token 200", "api 200"])
  }).pipe(Effect.provide(testLayer("orders:read"))))

it.effect("a token that is revoked is replaced, and the request sent again", () =>
  Effect.gen(function*() {
    const server = yield* TestAuthorizationServer.TestAuthorizationServer
    yield* orders
    yield* server.revokeAll
    const response = yield* orders
    assert.strictEqual(response.status, 200)
    assert.strictEqual(yield* server.issued, 2)
  }).pipe(Effect.provide(testLayer("orders:read"))))

it.effect("while the token endpoint is down, the API is not called", () =>
  Effect.gen(function*() {
    const server = yield* TestAuthorizationServer.TestAuthorizationServer
    yield* server.failNext(Infinity, 503)
    const fiber = yield* Effect.fork(Effect.flip(orders))
    yield* TestClock.adjust("1 minute")
    const error = yield* Fiber.join(fiber)
    assert.strictEqual(error._tag, "TokenErrorResponse")
    const endpoints = (yield* server.requests).map((request) => request.endpoint)
    assert.deepStrictEqual(endpoints, ["token", "token", "token", "token"])
  }).pipe(Effect.provide(testLayer("orders:read"))))

it.effect("a scope that is not granted is a typed error", () =>
  Effect.gen(function*() {
    const error = yield* Effect.flip(orders)
    assert(error._tag === "TokenErrorResponse")
    assert.strictEqual(error.error, "invalid_scope")
  }).pipe(Effect.provide(testLayer("orders:write"))))
