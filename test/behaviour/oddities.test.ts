import { HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Effect,
  Exit,
  Fiber,
  Layer,
  ManagedRuntime,
  Option,
  Redacted,
  Schema,
  Scope,
  Stream,
  TestClock
} from "effect"
import {
  AccessToken,
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenError,
  TokenService,
  TokenStorage
} from "effect-alf"
import {
  advancing,
  api,
  bearer,
  bearers,
  json,
  pipeline,
  serve,
  type Server,
  settle,
  text,
  tokenEndpoint,
  unauthorized
} from "../support/scriptedServer.ts"

const value = (token: AccessToken.AccessToken) => Redacted.value(token.value)
const once = { tokenRetry: { times: 0 } } as const
const options = { tokenEndpoint, clientId: "client", clientSecret: Redacted.make("swordfish"), origins: [api] } as const

const slowly = (duration: "1 second" | "5 seconds" | "1 minute", from = 1) =>
  serve({
    token: (_, n) => n < from ? bearer(`t${n}`) : Effect.delay(Effect.succeed(bearer(`t${n}`)), duration)
  })

describe("flights", () => {
  it.effect("asking after the scope has closed ends", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { tokens } = yield* Scope.extend(pipeline(serve()), scope)
      yield* Scope.close(scope, Exit.void)
      const fiber = yield* Effect.fork(Effect.exit(tokens.get))
      yield* settle
      assert.isTrue(Option.isSome(yield* Fiber.poll(fiber)))
    }))

  it.scoped("who needs a token when the current one ends joins the background refresh", () =>
    Effect.gen(function*() {
      const server = slowly("1 minute", 2)
      const { tokens } = yield* pipeline(server, { tokenTimeout: "2 minutes" })
      yield* tokens.get
      yield* TestClock.adjust("3540 seconds")
      assert.strictEqual(value(yield* tokens.get), "t1")
      yield* settle
      yield* TestClock.adjust("51 seconds")
      const late = yield* Effect.fork(tokens.get)
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 2)
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(value(yield* Fiber.join(late)), "t2")
    }))

  it.scoped("refresh joins a background refresh", () =>
    Effect.gen(function*() {
      const server = slowly("5 seconds", 2)
      const { tokens } = yield* pipeline(server)
      const first = yield* tokens.get
      yield* TestClock.adjust("3520 seconds")
      yield* tokens.get
      yield* settle
      const refreshed = yield* Effect.fork(tokens.refresh(first))
      yield* settle
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(value(yield* Fiber.join(refreshed)), "t2")
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("a caller's own time-out leaves the flight alone", () =>
    Effect.gen(function*() {
      const server = slowly("5 seconds")
      const { tokens } = yield* pipeline(server)
      const impatient = yield* Effect.fork(Effect.timeoutOption(tokens.get, "1 second"))
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.isTrue(Option.isNone(yield* Fiber.join(impatient)))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(value(yield* advancing(tokens.get, "1 second")), "t1")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("a refusal in the background leaves the token in use", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) => n === 1 ? bearer("t1") : json({ error: "invalid_client" }, { status: 401 })
      })
      const { tokens } = yield* pipeline(server)
      yield* tokens.get
      yield* TestClock.adjust("3520 seconds")
      for (let i = 0; i < 6; i++) {
        assert.strictEqual(value(yield* tokens.get), "t1")
        yield* settle
        yield* TestClock.adjust("10 seconds")
      }
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Effect.flip(tokens.get))._tag, "TokenErrorResponse")
    }))

  it.scoped("interrupted requests leave the service whole", () =>
    Effect.gen(function*() {
      const server = slowly("1 second")
      const { httpClient } = yield* pipeline(server)
      for (let i = 0; i < 20; i++) {
        const fiber = yield* Effect.fork(httpClient.get(api))
        yield* Effect.yieldNow()
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual((yield* advancing(httpClient.get(api), "1 second")).status, 200)
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it("in a ManagedRuntime", async () => {
    const server = serve()
    const runtime = ManagedRuntime.make(Alf.layer(options).pipe(Layer.provide(server.layer)))
    const get = Effect.flatMap(HttpClient.HttpClient, (client) => Effect.map(client.get(api), (_) => _.status))
    assert.strictEqual(await runtime.runPromise(get), 200)
    assert.strictEqual(await runtime.runPromise(get), 200)
    assert.strictEqual(server.tokenRequests.length, 1)
    await runtime.dispose()
  })
})

describe("the token endpoint's oddities", () => {
  it.scoped("an error member of another type never crashes", () =>
    Effect.forEach([5, {}, { code: 401, message: "no" }, [], true], (error) =>
      Effect.gen(function*() {
        const { tokens } = yield* pipeline(
          serve({ token: () => json({ error, error_description: 7, error_uri: [] }, { status: 400 }) }),
          once
        )
        const failed = yield* Effect.flip(tokens.get)
        assert.strictEqual(failed._tag, "TokenErrorResponse")
        if (failed._tag === "TokenErrorResponse") assert.strictEqual(failed.status, 400)
      })))

  it.scoped("a Retry-After that is none is not heeded", () =>
    Effect.forEach(["soon", "-5", "", new Date(0).toUTCString()], (header) =>
      Effect.gen(function*() {
        const server = serve({ token: (_, n) => n === 1 ? text("", 503, { "retry-after": header }) : bearer("t") })
        const { tokens } = yield* pipeline(server)
        const start = yield* TestClock.currentTimeMillis
        yield* advancing(tokens.get, "1 second")
        assert.isAtMost(server.tokenRequests[1]!.at - start, 400)
      })))

  it.scoped("a secret whose reading never ends is bound by tokenTimeout", () =>
    Effect.gen(function*() {
      const { tokens } = yield* pipeline(serve(), { ...once, clientSecret: Effect.never, tokenTimeout: "2 seconds" })
      const error = yield* advancing(Effect.flip(tokens.get), "1 second", 5)
      assert.strictEqual(error._tag, "TokenRequestError")
    }))

  it.scoped("none sends no secret even if there is one", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server, { clientAuthentication: ClientAuthentication.none })
      yield* tokens.get
      const sent = server.tokenRequests[0]!
      assert.notInclude(JSON.stringify(sent.headers) + sent.body, "swordfish")
      assert.isUndefined(sent.headers["authorization"])
      assert.strictEqual(sent.form.get("client_id"), "client")
    }))

  it.scoped("a success that never ends its body is a Timeout", () =>
    Effect.gen(function*() {
      const server = serve({
        token: () =>
          new Response(
            new ReadableStream<Uint8Array>({
              start: (controller) => controller.enqueue(new TextEncoder().encode("{\"access_token\":"))
            })
          )
      })
      const { tokens } = yield* pipeline(server, once)
      const error = yield* advancing(Effect.flip(tokens.get), "5 seconds", 5)
      assert.strictEqual(error._tag === "TokenRequestError" ? error.reason : error._tag, "Timeout")
    }))
})

describe("an API that refuses everything", () => {
  it.scoped("does not turn uploads, which cannot be replayed, into token requests", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { httpClient } = yield* pipeline(server)
      const upload = HttpClientRequest.post(api).pipe(
        HttpClientRequest.bodyStream(Stream.make("a").pipe(Stream.encodeText))
      )
      for (let i = 0; i < 60; i++) {
        assert.strictEqual((yield* httpClient.execute(upload)).status, 401)
        yield* TestClock.adjust("1 second")
      }
      assert.isAtMost(server.tokenRequests.length, 12)
    }))

  it.scoped("nor many callers at once", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { authorizedHttpClient, httpClient } = yield* pipeline(server)
      for (let i = 0; i < 60; i++) {
        yield* Effect.all(
          Array.from({ length: 4 }, (_, index) =>
            Effect.exit(index % 2 === 0 ? httpClient.get(api) : authorizedHttpClient.get(api) as never)),
          { concurrency: "unbounded" }
        )
        yield* TestClock.adjust("1 second")
      }
      assert.isAtMost(server.tokenRequests.length, 12)
    }))

  it.scoped("nor a fixed token that the endpoint hands out again and again", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized, token: () => bearer("same") })
      const { httpClient } = yield* pipeline(server)
      for (let i = 0; i < 60; i++) {
        yield* httpClient.get(api)
        yield* TestClock.adjust("1 second")
      }
      assert.isAtMost(server.tokenRequests.length, 12)
    }))
})

describe("origins", () => {
  it.scoped("user info does not make an origin", () =>
    Effect.gen(function*() {
      const server = serve()
      const { httpClient } = yield* pipeline(server)
      yield* httpClient.get("https://api.example@evil.example/x")
      yield* httpClient.get("https://api.example:pw@evil.example/x")
      yield* httpClient.get(new URL("https://api.example/x"), { urlParams: { a: "1" } })
      assert.deepStrictEqual(bearers(server), [undefined, undefined, "Bearer token-1"])
    }))

  it.scoped("Unauthorized does not quote user info", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { authorizedHttpClient } = yield* pipeline(server)
      const error = yield* Effect.flip(authorizedHttpClient.get("https://me:pa55@api.example/x?token=1"))
      assert.strictEqual(error._tag, "Unauthorized")
      assert.notInclude(JSON.stringify(error), "pa55")
    }))
})

describe("schemas", () => {
  const roundTrip = <A, I>(schema: Schema.Schema<A, I>, value_: A): A =>
    Schema.decodeUnknownSync(schema)(JSON.parse(JSON.stringify(Schema.encodeSync(schema)(value_))))

  it.scoped("errors can be sent and received", () =>
    Effect.gen(function*() {
      const refused = yield* pipeline(serve({ token: () => json({ error: "invalid_scope" }, { status: 400 }) }))
      const error = yield* Effect.flip(refused.tokens.get)
      if (error._tag === "TokenErrorResponse") {
        const back = roundTrip(TokenError.TokenErrorResponse, error)
        assert.instanceOf(back, TokenError.TokenErrorResponse)
        assert.strictEqual(back.error, "invalid_scope")
        assert.strictEqual(back.message, error.message)
      }
      const unauthorized_ = yield* Effect.flip(
        (yield* pipeline(serve({ api: unauthorized }))).authorizedHttpClient.get(api)
      )
      if (unauthorized_._tag === "Unauthorized") {
        const back = roundTrip(AuthorizedHttpClient.Unauthorized, unauthorized_)
        assert.strictEqual(back.challenges[0]!.params["error"], "invalid_token")
      }
      assert.strictEqual(unauthorized_._tag, "Unauthorized")
    }))

  it.scoped("so can an AccessToken, by who wants to", () =>
    Effect.gen(function*() {
      const { tokens } = yield* pipeline(serve({ token: () => bearer("t", { refresh_token: "r", scope: "a b" }) }))
      const token = yield* tokens.get
      const back = roundTrip(AccessToken.AccessToken, token)
      assert.strictEqual(value(back), "t")
      assert.deepStrictEqual(back.scope, ["a", "b"])
    }))
})

describe("the typed client", () => {
  it.scoped("works with HttpClient's combinators", () =>
    Effect.gen(function*() {
      const { authorizedHttpClient } = yield* pipeline(serve({ api: unauthorized }))
      const client = authorizedHttpClient.pipe(
        HttpClient.mapRequest(HttpClientRequest.prependUrl(api)),
        HttpClient.catchTag("Unauthorized", (error) => Effect.die(error.url)),
        HttpClient.catchTag("TokenErrorResponse", (error) => Effect.die(error.status))
      )
      const exit = yield* Effect.exit(client.get("/x"))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
    }))
})

const peers = (
  server: Server,
  count: number,
  more: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(TokenStorage.layerMemory)
    return yield* Effect.all(
      Array.from({ length: count }, () =>
        Alf.make({ ...options, ...more }).pipe(Effect.provide(context), Effect.provide(server.layer)))
    )
  })

describe("sharing", () => {
  it.scoped("an expiry under load: one background refresh for all", () =>
    Effect.gen(function*() {
      const server = slowly("5 seconds", 2)
      const all = yield* peers(server, 3)
      for (const { tokens } of all) yield* tokens.get
      yield* TestClock.adjust("3520 seconds")
      for (const { tokens } of all) assert.strictEqual(value(yield* tokens.get), "t1")
      yield* settle
      for (let i = 0; i < 20; i++) {
        for (const { tokens } of all) yield* tokens.get
        yield* TestClock.adjust("1 second")
        yield* settle
      }
      for (const { tokens } of all) assert.strictEqual(value(yield* tokens.get), "t2")
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("a refresh token is found in the storage by who starts later", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => bearer(`t${n}`, { refresh_token: `r${n}` }) })
      const [a, b] = yield* peers(server, 2, { grant: Grant.refreshToken(Grant.clientCredentials({})) })
      yield* a!.tokens.get
      yield* TestClock.adjust("2 hours")
      yield* b!.tokens.get
      assert.deepStrictEqual(server.tokenRequests.map(({ form }) => form.get("refresh_token")), [null, "r1"])
    }))

  it.effect("the storage may be provided further out", () =>
    Effect.gen(function*() {
      const server = serve()
      const alf = Alf.layer(options).pipe(Layer.provide(server.layer))
      const get = Effect.flatMap(TokenService.TokenService, (_) => _.get)
      yield* Effect.zipRight(
        get.pipe(Effect.provide(Layer.fresh(alf))),
        get.pipe(Effect.provide(Layer.fresh(alf)))
      ).pipe(Effect.provide(TokenStorage.layerMemory))
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("who cannot enter finds the token of who did", () =>
    Effect.gen(function*() {
      const server = serve()
      const [other] = yield* peers(serve({ token: () => bearer("of-another") }), 1)
      const token = yield* other!.tokens.get
      let stored = false
      const storage = {
        get: () => Effect.sync(() => stored ? Option.some(token) : Option.none()),
        set: () => Effect.void,
        remove: () => Effect.void,
        exclusive: () => () => Effect.never
      }
      const { httpClient } = yield* pipeline(server).pipe(Effect.provideService(TokenStorage.TokenStorage, storage))
      const fiber = yield* Effect.fork(httpClient.get(api))
      yield* settle
      yield* TestClock.adjust("1 second")
      stored = true
      let exit = yield* Fiber.poll(fiber)
      for (let i = 0; i < 20 && Option.isNone(exit); i++) {
        yield* settle
        yield* TestClock.adjust("500 millis")
        exit = yield* Fiber.poll(fiber)
      }
      yield* Fiber.interruptFork(fiber)
      assert.isTrue(Option.isSome(exit))
      assert.deepStrictEqual(bearers(server), ["Bearer of-another"])
      assert.strictEqual(server.tokenRequests.length, 0)
    }))
})
