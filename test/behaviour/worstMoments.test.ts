/**
 * What a program, an authorization server and an API can do to the token at the worst moment, under TestClock.
 */
import { HttpBody, HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Option, Random, Redacted, Ref, Stream, TestClock } from "effect"
import { Alf, AuthorizedHttpClient, Grant, TokenService, TokenStorage } from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"
import { inspect } from "node:util"
import { overEach, type Presentation } from "../support/presentations.ts"
import { adjust, many, settle } from "../support/testClock.ts"

const server = TestAuthorizationServer.TestAuthorizationServer
const url = "https://api.test/orders"

/** What the tests need of a presentation. */
const over = ({ options: presented, scheme }: Presentation) => ({
  setup: (alf: Parameters<typeof setup>[0] = {}, options: TestAuthorizationServer.Options = {}) =>
    setup({ ...presented, ...alf }, options),
  /** How a token stands in `Authorization`. */
  shown: (token: string) => `${scheme} ${token}`
})

const setup = (
  alf: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {},
  options: TestAuthorizationServer.Options = {}
) =>
  Alf.layer({
    tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
    clientId: "client",
    clientSecret: Redacted.make("secret"),
    origins: ["https://api.test"],
    ...alf
  }).pipe(Layer.provideMerge(TestAuthorizationServer.layer(options)))

/** A call over the drop-in client: the answer's status. */
const call = Effect.flatMap(
  HttpClient.HttpClient,
  (client) => Effect.map(client.get(url), (response) => response.status)
)

/** A call over the typed client. */
const typed = Effect.flatMap(
  AuthorizedHttpClient.AuthorizedHttpClient,
  (client) => Effect.map(client.get(url), (response) => response.status)
)

const get = Effect.flatMap(TokenService.TokenService, (tokens) => tokens.get)
const invalidate = Effect.flatMap(TokenService.TokenService, (tokens) => tokens.invalidate)
const value = Effect.map((token: { readonly value: Redacted.Redacted }) => Redacted.value(token.value))

/** The statuses of the answers so far; 0 for a request that is under way. */
const statuses = (endpoint: "token" | "api") =>
  Effect.flatMap(
    server,
    (controls) =>
      Effect.map(controls.requests, (requests) =>
        requests.filter((request) => request.endpoint === endpoint).map(({ status }) => status))
  )

const count = (endpoint: "token" | "api") => Effect.map(statuses(endpoint), (all) => all.length)
const underWay = Effect.map(statuses("token"), (all) => all.filter((status) => status === 0).length)
const bearer = (request: TestAuthorizationServer.Request) => request.headers["authorization"]

overEach("one token for all", (presentation) => {
  const { setup, shown } = over(presentation)
  const { storm } = presentation

  it.effect("many first requests: one token request", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("1 second")
      const fiber = yield* Effect.fork(many(storm, call))
      yield* adjust("1 second")
      const all = yield* Fiber.join(fiber)
      assert.isTrue(all.every((status) => status === 200))
      assert.strictEqual(yield* count("token"), 1)
      assert.strictEqual(yield* count("api"), storm)
    }).pipe(Effect.provide(setup())))

  it.effect("many 401s: one refresh, a replay each", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.revokeAll
      // less than the second for which a refused answer is drained: TestClock wakes each of those timers on its own
      yield* controls.delay("500 millis")
      const fiber = yield* Effect.fork(many(storm / 2, Effect.zip(call, typed, { concurrent: true })))
      yield* adjust("500 millis")
      const all = yield* Fiber.join(fiber)
      assert.isTrue(all.every(([a, b]) => a === 200 && b === 200))
      assert.strictEqual(yield* count("token"), 2)
      const answers = (yield* statuses("api")).slice(1)
      assert.strictEqual(answers.filter((status) => status === 401).length, storm)
      assert.strictEqual(answers.filter((status) => status === 200).length, storm)
    }).pipe(Effect.provide(setup())))

  it.effect("a failed refresh is the answer to all who wait, and the next caller tries anew", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.revokeAll
      yield* controls.failNext(4, 503)
      const fiber = yield* Effect.fork(many(100, Effect.flip(typed)))
      yield* adjust("1 minute")
      const all = yield* Fiber.join(fiber)
      assert.isTrue(all.every((error) => error._tag === "TokenErrorResponse" && error.attempts === 4))
      assert.strictEqual(yield* count("token"), 5)
      assert.strictEqual(yield* count("api"), 101)
      assert.strictEqual(yield* typed, 200)
    }).pipe(Effect.provide(setup())))

  it.effect("a straggler's 401 uses the token that came meanwhile", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.resource((request) =>
        bearer(request) === shown("token-1")
          ? Effect.delay(Effect.succeed(new Response(null, { status: 401 })), request.url === url ? 0 : "10 seconds")
          : new Response("fine")
      )
      const client = yield* HttpClient.HttpClient
      const straggler = yield* Effect.fork(client.get(`${url}/slow`))
      yield* settle
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* controls.issued, 2)
      yield* adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(straggler)).status, 200)
      assert.strictEqual(yield* controls.issued, 2)
    }).pipe(Effect.provide(setup())))
})

describe("a straggler of the token service", () => {
  it.effect("a straggler two tokens late does not touch the current one", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      const first = yield* tokens.get
      const second = yield* tokens.refresh(first)
      const third = yield* tokens.refresh(second)
      assert.strictEqual(yield* tokens.refresh(first), third)
      assert.strictEqual(yield* tokens.refresh(second), third)
      assert.strictEqual(yield* tokens.get, third)
      assert.strictEqual(yield* count("token"), 3)
    }).pipe(Effect.provide(setup())))

  it.effect("a straggler's 401 after an expiry leads to one token request", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      const first = yield* tokens.get
      yield* TestClock.adjust("1 hour")
      const both = yield* Effect.all([tokens.refresh(first), tokens.get, tokens.refresh(first)], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(both.map((token) => Redacted.value(token.value)), ["token-2", "token-2", "token-2"])
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))
})

overEach("expiry under load", (presentation) => {
  const { setup } = over(presentation)
  const { storm } = presentation

  it.effect("a 20 s token with default settings costs a request every sixteen seconds or so", () =>
    Effect.gen(function*() {
      yield* Effect.forEach(
        Array.from({ length: 60 }),
        () => Effect.zipLeft(many(storm / 50, call), adjust("1 second"))
      )
      const requests = yield* count("token")
      assert.isAtLeast(requests, 3)
      assert.isAtMost(requests, 4)
      assert.isTrue((yield* statuses("api")).every((status) => status === 200))
    }).pipe(Effect.provide(setup({}, { expiresIn: "20 seconds" }))))

  for (const life of ["1 second", "2 seconds", "3 seconds"] as const) {
    it.effect(`a ${life} token serves too, and never goes out expired`, () =>
      Effect.gen(function*() {
        yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.zipLeft(call, adjust("200 millis")))
        assert.isTrue((yield* statuses("api")).every((status) => status === 200))
        assert.isAtMost(yield* count("token"), 14)
      }).pipe(Effect.provide(setup({}, { expiresIn: life }))))
  }

  it.effect("the lifetime counts from when the request was sent", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("9 seconds")
      const first = yield* Effect.fork(call)
      yield* adjust("9 seconds")
      assert.strictEqual(yield* Fiber.join(first), 200)
      yield* controls.delay(0)
      yield* adjust("10 seconds")
      assert.strictEqual(yield* call, 200)
      assert.deepStrictEqual(yield* statuses("api"), [200, 200])
      assert.strictEqual(yield* controls.issued, 2)
    }).pipe(Effect.provide(setup({ refreshAhead: 0 }, { expiresIn: "20 seconds" }))))
})

describe("expiry", () => {
  it.effect("a 20 s token is used for 19 s", () =>
    Effect.gen(function*() {
      const seconds = yield* Effect.forEach(Array.from({ length: 20 }), () =>
        Effect.zipLeft(value(get), TestClock.adjust("1 second")))
      assert.deepStrictEqual(seconds, [
        ...Array.from({ length: 19 }, () =>
          "token-1"),
        "token-2"
      ])
    }).pipe(Effect.provide(setup({ refreshAhead: 0 }, { expiresIn: "20 seconds" }))))

  it.effect("a token that lives for no time serves those who wait, and is not kept", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(2, 200, { access_token: "brief", token_type: "bearer", expires_in: 0 })
      const all = yield* many(100, value(get))
      assert.isTrue(all.every((token) => token === "brief"))
      assert.strictEqual(yield* count("token"), 1)
      assert.strictEqual(yield* value(get), "brief")
      assert.strictEqual(yield* value(get), "token-1")
      assert.strictEqual(yield* count("token"), 3)
    }).pipe(Effect.provide(setup())))

  it.effect("a clock set back before the token's issue fetches a new one", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(3_600_000)
      yield* call
      yield* TestClock.setTime(3_599_999)
      yield* call
      assert.strictEqual(yield* count("token"), 2)
      yield* TestClock.setTime(3_600_000)
      yield* call
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))

  it.effect("a clock set back while the token request is under way", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* TestClock.setTime(3_600_000)
      yield* controls.resource(() => new Response("fine"))
      yield* controls.delay("5 seconds")
      const fiber = yield* Effect.fork(call)
      yield* settle
      yield* TestClock.setTime(0)
      yield* settle
      yield* TestClock.setTime(3_605_000)
      assert.strictEqual(yield* Fiber.join(fiber), 200)
      yield* controls.delay(0)
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* count("token"), 1)
    }).pipe(Effect.provide(setup())))

  it.effect("a clock set back ends a cooldown", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(3_600_000)
      const controls = yield* server
      yield* controls.failNext(1, 400, { error: "invalid_scope" })
      yield* Effect.flip(get)
      yield* Effect.flip(get)
      assert.strictEqual(yield* count("token"), 1)
      yield* TestClock.setTime(0)
      yield* get
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))
})

overEach("in the background", (presentation) => {
  const { setup } = over(presentation)

  /** Calls once a second for so long; nobody may wait, and each answer is 200. */
  const callsEachSecond = (seconds: number) =>
    Effect.forEach(
      Array.from({ length: seconds }),
      () => Effect.zipLeft(Effect.map(call, (status) => assert.strictEqual(status, 200)), adjust("1 second")),
      { discard: true }
    )

  it.effect("nobody waits, and one request is under way", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* adjust("59 minutes")
      yield* controls.delay("5 seconds")
      assert.isTrue((yield* many(100, call)).every((status) => status === 200))
      yield* settle
      assert.strictEqual(yield* count("token"), 2)
      assert.strictEqual(yield* underWay, 1)
      yield* adjust("5 seconds")
      assert.strictEqual(yield* value(get), "token-2")
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))

  it.effect("a refusal is invisible as long as the token is good", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.failNext(Infinity, 401, { error: "invalid_client" })
      yield* adjust("59 minutes")
      yield* callsEachSecond(50)
      const error = yield* Effect.flip(typed)
      assert(error._tag === "TokenErrorResponse")
      assert.strictEqual(error.error, "invalid_client")
    }).pipe(Effect.provide(setup())))

  it.effect("the time-outs of a hanging token endpoint are invisible", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.delay("1 hour")
      yield* adjust("58.5 minutes")
      yield* callsEachSecond(79)
      assert.isAtMost(yield* count("token"), 10)
    }).pipe(Effect.provide(setup())))

  it.effect("who comes when the token ends joins the background's request", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* adjust("3580 seconds")
      yield* controls.delay("15 seconds")
      yield* call
      yield* adjust("12 seconds")
      const waiting = yield* Effect.fork(many(100, call))
      yield* settle
      assert.strictEqual(yield* count("token"), 2)
      yield* adjust("3 seconds")
      assert.isTrue((yield* Fiber.join(waiting)).every((status) => status === 200))
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup({ tokenTimeout: "20 seconds" }))))

  it.effect("a 401 meanwhile joins the background's request", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* adjust("59 minutes")
      yield* controls.revokeAll
      yield* controls.delay("500 millis")
      const fiber = yield* Effect.fork(many(100, call))
      yield* adjust("500 millis")
      assert.isTrue((yield* Fiber.join(fiber)).every((status) => status === 200))
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))
})

describe("invalidate", () => {
  it.effect("during a flight that then fails: the later ones are not told of it", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("5 seconds")
      yield* controls.failNext(1, 400, { error: "invalid_scope" })
      const early = yield* Effect.fork(Effect.flip(get))
      yield* TestClock.adjust("1 second")
      yield* invalidate
      const late = yield* Effect.fork(value(get))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual((yield* Fiber.join(early))._tag, "TokenErrorResponse")
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(late), "token-1")
    }).pipe(Effect.provide(setup())))

  it.effect("ends a cooldown", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(1, 401, { error: "invalid_client" })
      yield* Effect.flip(get)
      yield* invalidate
      assert.strictEqual(yield* value(get), "token-1")
    }).pipe(Effect.provide(setup())))
})

overEach("interruption", (presentation) => {
  const { setup } = over(presentation)
  const { storm } = presentation

  it.effect("the first caller leaves, the others get the token", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("5 seconds")
      const first = yield* Effect.fork(call)
      yield* settle
      const others = yield* Effect.fork(many(100, call))
      yield* adjust("1 second")
      yield* Fiber.interrupt(first)
      yield* adjust("4 seconds")
      assert.isTrue((yield* Fiber.join(others)).every((status) => status === 200))
      assert.strictEqual(yield* count("token"), 1)
      assert.strictEqual(yield* count("api"), 100)
    }).pipe(Effect.provide(setup())))

  it.effect("all callers leave, the token comes all the same", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("5 seconds")
      const all = yield* Effect.fork(many(100, call))
      yield* adjust("1 second")
      yield* Fiber.interrupt(all)
      yield* adjust("4 seconds")
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* count("token"), 1)
      assert.strictEqual(yield* count("api"), 1)
    }).pipe(Effect.provide(setup())))

  it.effect("callers that leave at once leave nothing behind", () =>
    Effect.gen(function*() {
      for (let i = 0; i < storm; i++) {
        const fiber = yield* Effect.fork(call)
        if (i % 2 === 0) yield* Effect.yieldNow()
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* count("token"), 1)
    }).pipe(Effect.provide(setup())))

  it.effect("the callers of a refresh leave, the next one gets its token", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.revokeAll
      yield* controls.delay("5 seconds")
      const all = yield* Effect.fork(many(100, call))
      yield* adjust("1 second")
      yield* Fiber.interrupt(all)
      yield* adjust("4 seconds")
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))

  it.effect("a caller with a time-out of its own leaves in time", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("5 seconds")
      const fiber = yield* Effect.fork(Effect.timeoutOption(call, "1 second"))
      yield* adjust("1 second")
      assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
    }).pipe(Effect.provide(setup())))
})

describe("the end of the layer", () => {
  const options = {
    tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
    clientId: "client",
    origins: ["https://api.test"]
  }

  it.effect("a token that is good serves on", () =>
    Effect.gen(function*() {
      const scoped = Effect.scoped(Effect.tap(Alf.make(options), ({ tokens }) => tokens.get))
      const { httpClient } = yield* scoped
      assert.strictEqual((yield* httpClient.get(url)).status, 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))
})

const refuseAll = Effect.flatMap(server, (controls) => controls.resource(() => new Response(null, { status: 401 })))

describe("refusals", () => {
  it.effect("of the token endpoint cost fewer and fewer requests", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(Infinity, 401, { error: "invalid_client" })
      const times: Array<number> = []
      for (let halves = 0; halves < 200; halves++) {
        const before = yield* count("token")
        const error = yield* Effect.flip(typed)
        assert(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
        if ((yield* count("token")) > before) times.push(halves / 2)
        yield* TestClock.adjust("500 millis")
      }
      assert.deepStrictEqual(times, [0, 1, 3, 7, 15, 31, 61, 91])
      assert.strictEqual(yield* count("api"), 0)
    }).pipe(Effect.provide(setup())))

  it.effect("end with a success, and begin anew at one second", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(2, 401, { error: "invalid_client" })
      yield* Effect.flip(get)
      yield* TestClock.adjust("1 second")
      yield* Effect.flip(get)
      yield* TestClock.adjust("2 seconds")
      yield* get
      yield* controls.failNext(1, 401, { error: "invalid_client" })
      yield* TestClock.adjust("1 hour")
      yield* Effect.flip(get)
      yield* TestClock.adjust("1 second")
      yield* get
      assert.strictEqual(yield* count("token"), 5)
    }).pipe(Effect.provide(setup())))

  it.effect("a rotated secret heals by itself when the secret is read anew", () =>
    Effect.gen(function*() {
      const vault = yield* Ref.make("old")
      yield* Effect.gen(function*() {
        const controls = yield* server
        yield* call
        yield* controls.rotateSecret("client", "new")
        yield* controls.revokeAll
        const error = yield* Effect.flip(typed)
        assert(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
        yield* Ref.set(vault, "new")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* typed, 200)
      }).pipe(Effect.provide(
        setup({ clientSecret: Effect.map(Ref.get(vault), Redacted.make) }, {
          clients: [{ id: "client", secret: "old" }]
        })
      ))
    }))

  it.effect("of an API that refuses everything cost about ten token requests in a minute", () =>
    Effect.gen(function*() {
      yield* refuseAll
      for (let quarters = 0; quarters < 240; quarters++) {
        assert.strictEqual(yield* call, 401)
        assert.strictEqual((yield* Effect.flip(typed))._tag, "Unauthorized")
        yield* TestClock.adjust("250 millis")
      }
      assert.isAtMost(yield* count("token"), 10)
      assert.isAtLeast(yield* count("token"), 5)
      // each call once, and one replay for each refresh
      assert.isAtMost(yield* count("api"), 490)
    }).pipe(Effect.provide(setup())))

  it.effect("of such an API cost no more with short tokens", () =>
    Effect.gen(function*() {
      yield* refuseAll
      for (let quarters = 0; quarters < 240; quarters++) {
        yield* call
        yield* TestClock.adjust("250 millis")
      }
      // a 20 s token has to be renewed three or four times anyway
      assert.isAtMost(yield* count("token"), 14)
    }).pipe(Effect.provide(setup({}, { expiresIn: "20 seconds" }))))
})

overEach("refusals of an API", (presentation) => {
  const { setup, shown } = over(presentation)
  const { scheme } = presentation

  it.effect("of such an API by a hundred requests at once cost one refresh", () =>
    Effect.gen(function*() {
      yield* refuseAll
      const all = yield* many(100, call)
      assert.isTrue(all.every((status) => status === 401))
      assert.strictEqual(yield* count("token"), 2)
      assert.strictEqual(yield* count("api"), 200)
      yield* many(100, call)
      assert.strictEqual(yield* count("token"), 2)
      assert.strictEqual(yield* count("api"), 300)
    }).pipe(Effect.provide(setup())))

  it.effect("are shared by both clients", () =>
    Effect.gen(function*() {
      yield* refuseAll
      yield* call
      assert.strictEqual(yield* count("token"), 2)
      const error = yield* Effect.flip(typed)
      assert.strictEqual(error._tag, "Unauthorized")
      assert.strictEqual(yield* count("token"), 2)
      assert.strictEqual(yield* count("api"), 3)
    }).pipe(Effect.provide(setup())))

  it.effect("end with the first accepted token", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* refuseAll
      yield* call
      assert.strictEqual(yield* count("token"), 2)
      yield* controls.resource(() => new Response("fine"))
      assert.strictEqual(yield* call, 200)
      yield* controls.revokeAll
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* count("token"), 3)
    }).pipe(Effect.provide(setup())))

  it.effect("of one origin leave another alone", () =>
    Effect.gen(function*() {
      const controls = yield* server
      const client = yield* HttpClient.HttpClient
      yield* controls.resource((request) =>
        request.url === url ? new Response(null, { status: 401 }) : new Response("fine")
      )
      yield* call
      assert.strictEqual(yield* count("token"), 2)
      yield* controls.revokeAll
      assert.strictEqual((yield* client.get("https://other.test/")).status, 200)
      assert.strictEqual(yield* count("token"), 3)
    }).pipe(Effect.provide(setup({ origins: ["https://api.test", "https://other.test"] }))))

  it.effect("of stream uploads renew the token for the next request, and are paused too", () =>
    Effect.gen(function*() {
      const controls = yield* server
      const client = yield* HttpClient.HttpClient
      const upload = Effect.suspend(() =>
        client.post(url, { body: HttpBody.stream(Stream.encodeText(Stream.make("a", "b"))) })
      )
      yield* upload
      yield* controls.revokeAll
      assert.strictEqual((yield* upload).status, 401)
      assert.strictEqual((yield* upload).status, 200)
      assert.strictEqual(yield* count("token"), 2)

      yield* refuseAll
      for (let seconds = 0; seconds < 60; seconds++) {
        assert.strictEqual((yield* upload).status, 401)
        yield* adjust("1 second")
      }
      assert.isAtMost(yield* count("token"), 12)
    }).pipe(Effect.provide(setup())))

  it.effect("a body that can be sent again is, byte for byte", () =>
    Effect.gen(function*() {
      const controls = yield* server
      const client = yield* HttpClient.HttpClient
      const stream = AuthorizedHttpClient.replayable(
        HttpClientRequest.post(url, { body: HttpBody.stream(Stream.encodeText(Stream.make("a", "b"))) })
      )
      for (const request of [stream, HttpClientRequest.post(url, { body: HttpBody.text("ab") })]) {
        yield* call
        yield* controls.revokeAll
        assert.strictEqual((yield* client.execute(request)).status, 200)
      }
      const uploads = (yield* controls.requests).filter((request) => request.method === "POST" && request.url === url)
      assert.deepStrictEqual(uploads.map(({ body, status }) => [body, status]), [
        ["ab", 401],
        ["ab", 200],
        ["ab", 401],
        ["ab", 200]
      ])
    }).pipe(Effect.provide(setup())))

  it.effect("a 401 whose body never ends, or never begins, does not hang", () =>
    Effect.gen(function*() {
      const controls = yield* server
      for (const pull of [(c: ReadableStreamDefaultController) => c.enqueue(new Uint8Array(1024)), () => undefined]) {
        const stale = yield* value(get)
        yield* controls.resource((request) =>
          bearer(request) === shown(stale)
            ? new Response(new ReadableStream({ pull }), { status: 401 })
            : new Response("fine")
        )
        const fiber = yield* Effect.fork(call)
        yield* adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), 200)
      }
      assert.strictEqual(yield* count("token"), 3)
    }).pipe(Effect.provide(setup())))

  it.effect("the refused token handed out again counts as the new one", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.revokeAll
      yield* controls.failNext(1, 200, { access_token: "token-1", token_type: scheme, expires_in: 3600 })
      assert.strictEqual(yield* call, 401)
      assert.deepStrictEqual(yield* statuses("api"), [200, 401, 401])
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(setup())))

  it.effect("the refused token handed out again in the same millisecond stops nobody for long", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* controls.revokeAll
      yield* controls.failNext(1, 200, { access_token: "token-1", token_type: scheme, expires_in: 3600 })
      yield* call
      yield* adjust("1 second")
      assert.strictEqual(yield* call, 200)
      assert.strictEqual(yield* controls.issued, 2)
    }).pipe(Effect.provide(setup())))
})

describe("the token endpoint", () => {
  it.effect("that hangs is given up after its attempts", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("1 hour")
      const fiber = yield* Effect.fork(Effect.flip(typed))
      yield* TestClock.adjust("40 seconds")
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      yield* TestClock.adjust("5 seconds")
      const error = yield* Fiber.join(fiber)
      assert(error._tag === "TokenRequestError")
      assert.deepStrictEqual([error.reason, error.attempts], ["Timeout", 4])
      yield* controls.recover
      assert.strictEqual(yield* typed, 200)
    }).pipe(Effect.provide(setup())))

  it.effect("that breaks the connection is tried again", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(3, 0)
      const fiber = yield* Effect.fork(call)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(fiber), 200)
      assert.strictEqual(yield* count("token"), 4)
    }).pipe(Effect.provide(setup())))

  it.effect("is waited for as long as it asks, up to a minute", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(1, 429, undefined, { "retry-after": "60" })
      const fiber = yield* Effect.fork(call)
      yield* TestClock.adjust("59999 millis")
      assert.strictEqual(yield* count("token"), 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(fiber), 200)

      yield* controls.revokeAll
      yield* controls.failNext(1, 503, undefined, { "retry-after": "61" })
      const error = yield* Effect.flip(typed)
      assert(error._tag === "TokenErrorResponse")
      assert.strictEqual(error.attempts, 1)
      assert.strictEqual(String(error.retryAfter), "Duration(1m 1s)")
    }).pipe(Effect.provide(setup())))

  it.effect("under a client that fails on statuses makes no difference", () =>
    Effect.gen(function*() {
      const controls = yield* server
      assert.strictEqual(yield* call, 200)
      yield* controls.revokeAll
      assert.strictEqual(yield* call, 200)
      yield* controls.revokeAll
      yield* controls.failNext(1, 400, { error: "invalid_scope" })
      const error = yield* Effect.flip(typed)
      assert(error._tag === "TokenErrorResponse")
      assert.strictEqual(error.error, "invalid_scope")
      yield* TestClock.adjust("1 minute")
      yield* controls.resource(() => new Response(null, { status: 401 }))
      const refused = yield* Effect.flip(call)
      assert(refused._tag === "ResponseError")
      assert.strictEqual(refused.response.status, 401)
      assert.strictEqual((yield* Effect.flip(typed))._tag, "Unauthorized")
    }).pipe(Effect.provide(
      Alf.layer({
        tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
        clientId: "client",
        origins: ["https://api.test"]
      }).pipe(
        Layer.provideMerge(
          Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, HttpClient.filterStatusOk))
        ),
        Layer.provideMerge(TestAuthorizationServer.layer())
      )
    )))

  it.effect("secrets that cannot be read, or that never come, fail in time", () =>
    Effect.gen(function*() {
      const read = (clientSecret: Effect.Effect<Redacted.Redacted, string>) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Effect.flip(typed))
          yield* TestClock.adjust("1 minute")
          const error = yield* Fiber.join(fiber)
          assert(error._tag === "TokenRequestError")
          assert.notInclude(JSON.stringify(error), "hunter2")
          assert.notInclude(Cause.pretty(Cause.fail(error)), "hunter2")
          assert.strictEqual(yield* count("token"), 0)
          return error.reason
        }).pipe(Effect.provide(setup({ clientSecret })))
      assert.strictEqual(yield* read(Effect.fail("the secret hunter2 is locked")), "Secret")
      assert.strictEqual(yield* read(Effect.never), "Timeout")
    }))
})

describe("refresh tokens", () => {
  const layer = setup(
    { grant: Grant.refreshToken(Grant.clientCredentials({ scope: "read" })) },
    { refreshTokens: true, expiresIn: "1 minute" }
  )
  const grants = Effect.flatMap(
    server,
    (controls) =>
      Effect.map(
        controls.requests,
        (requests) =>
          requests.filter(({ endpoint }) => endpoint === "token").map(({ body }) =>
            new URLSearchParams(body).get("grant_type")
          )
      )
  )

  it.effect("are each used once, however many callers there are", () =>
    Effect.gen(function*() {
      yield* many(100, call)
      yield* TestClock.adjust("1 minute")
      yield* many(100, call)
      yield* Effect.flatMap(server, (controls) => controls.revokeAll)
      assert.isTrue((yield* many(100, call)).every((status) => status === 200))
      assert.deepStrictEqual(yield* grants, ["client_credentials", "refresh_token", "refresh_token"])
    }).pipe(Effect.provide(layer)))

  it.effect("whose answer got lost are no longer good: the other grant takes over", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* call
      yield* TestClock.adjust("1 minute")
      yield* controls.delay("11 seconds")
      const fiber = yield* Effect.fork(call)
      yield* TestClock.adjust("10 seconds")
      yield* controls.delay(0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), 200)
      assert.deepStrictEqual(yield* grants, [
        "client_credentials",
        "refresh_token",
        "refresh_token",
        "client_credentials"
      ])
    }).pipe(Effect.provide(layer)))

  it.effect("are forgotten by invalidate", () =>
    Effect.gen(function*() {
      yield* call
      yield* invalidate
      yield* call
      assert.deepStrictEqual(yield* grants, ["client_credentials", "client_credentials"])
    }).pipe(Effect.provide(layer)))
})

describe("two programs", () => {
  const options = {
    tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
    clientId: "client",
    origins: ["https://api.test"]
  }
  const two = Effect.all([Alf.make(options), Alf.make(options)])

  it.scoped("have a token each", () =>
    Effect.gen(function*() {
      const [one, other] = yield* two
      assert.strictEqual(yield* value(one.tokens.get), "token-1")
      assert.strictEqual(yield* value(other.tokens.get), "token-2")
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.scoped("share one where they share a storage, and heal together", () =>
    Effect.gen(function*() {
      const controls = yield* server
      const programs = yield* two
      const calls = Effect.forEach(
        programs,
        ({ httpClient }) => many(50, Effect.map(httpClient.get(url), (response) => response.status)),
        { concurrency: "unbounded" }
      )
      yield* controls.delay("5 seconds")
      const cold = yield* Effect.fork(calls)
      yield* TestClock.adjust("1 minute")
      assert.isTrue((yield* Fiber.join(cold)).flat().every((status) => status === 200))
      assert.strictEqual(yield* count("token"), 1)
      yield* controls.revokeAll
      const revoked = yield* Effect.fork(calls)
      yield* TestClock.adjust("1 minute")
      assert.isTrue((yield* Fiber.join(revoked)).flat().every((status) => status === 200))
      assert.strictEqual(yield* count("token"), 2)
    }).pipe(Effect.provide(Layer.merge(TestAuthorizationServer.layer(), TokenStorage.layerMemory))))
})

describe("a random life", () => {
  /** Every token is good as long as the client can know: whatever happens, nothing but the clock ends it. */
  for (const seed of [1, 2, 3]) {
    it.effect(
      `few token requests at once, never an expired token sent, all calls end (seed ${seed})`,
      () =>
        Effect.gen(function*() {
          const controls = yield* server
          const random = Random.make(seed)
          const below = (n: number) => random.nextIntBetween(0, n)
          const fibers: Array<Fiber.Fiber<number, unknown>> = []
          for (let step = 0; step < 150; step++) {
            switch (yield* below(8)) {
              case 0:
                yield* invalidate
                break
              case 1:
                yield* controls.failNext(yield* below(3), [500, 503, 429, 0][yield* below(4)] ?? 500)
                break
              case 2:
                yield* controls.delay(yield* below(12_000))
                break
              case 3: {
                const fiber = fibers[yield* below(fibers.length + 1)]
                if (fiber !== undefined) yield* Fiber.interruptFork(fiber)
                break
              }
              default:
                fibers.push(yield* Effect.fork(call))
            }
            yield* TestClock.adjust(yield* below(3_000))
          }
          yield* controls.recover
          yield* TestClock.adjust("10 minutes")
          assert.isTrue((yield* Effect.forEach(fibers, Fiber.poll)).every(Option.isSome))
          assert.strictEqual(yield* call, 200)
          assert.isTrue((yield* statuses("api")).every((status) => status === 200))
          // each invalidate may start one beside the flight that it has made useless
          assert.isAtMost(yield* Ref.get(yield* Concurrency), 4)
        }).pipe(Effect.provide(
          Alf.layer({
            tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
            clientId: "client",
            origins: ["https://api.test"]
          }).pipe(
            Layer.provideMerge(layerConcurrency),
            Layer.provideMerge(TestAuthorizationServer.layer({ expiresIn: "30 seconds" }))
          )
        )),
      60_000
    )
  }
})

/** The most token requests that were under way at once. */
class Concurrency extends Context.Tag("Concurrency")<Concurrency, Ref.Ref<number>>() {}

const layerConcurrency = Layer.effectContext(
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    const most = yield* Ref.make(0)
    const now = yield* Ref.make(0)
    return Context.make(Concurrency, most).pipe(Context.add(
      HttpClient.HttpClient,
      HttpClient.transform(client, (response, request) =>
        request.url === TestAuthorizationServer.tokenEndpoint
          ? Effect.acquireUseRelease(
            Effect.flatMap(
              Ref.updateAndGet(now, (n) => n + 1),
              (n) => Ref.update(most, (before) => Math.max(before, n))
            ),
            () => response,
            () => Ref.update(now, (n) => n - 1)
          )
          : response)
    ))
  })
)

describe("beside healthy traffic", () => {
  it.effect("of one path, while the others are fine, do not cost a token request each", () =>
    Effect.gen(function*() {
      const controls = yield* server
      const client = yield* HttpClient.HttpClient
      yield* controls.resource((request) =>
        request.url === url ? new Response(null, { status: 401 }) : new Response("fine")
      )
      for (let round = 0; round < 100; round++) {
        assert.strictEqual(yield* call, 401)
        assert.strictEqual((yield* client.get("https://api.test/fine")).status, 200)
        yield* TestClock.adjust("100 millis")
      }
      assert.isAtMost(yield* count("token"), 20)
    }).pipe(Effect.provide(setup())))

  it.effect("a secret whose Effect dies (Effect.promise of a vault that is down) is a typed error, and not shown", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(typed)
      const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined
      assert.strictEqual(error?._tag, "TokenRequestError")
      assert.notInclude(inspect(exit, { depth: Infinity }), "hunter2")
    }).pipe(Effect.provide(setup({
      clientSecret: Effect.promise(() => Promise.reject(new Error("hunter2"))),
      tokenRetry: { times: 0 }
    }))))
})
