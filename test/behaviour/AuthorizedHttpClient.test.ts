import { HttpBody, HttpClient, HttpClientRequest, type HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Config,
  ConfigProvider,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Redacted,
  Schedule,
  Stream,
  TestClock
} from "effect"
import {
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenEndpoint,
  TokenError,
  TokenService
} from "effect-alf"
import {
  advancing,
  api,
  bearer,
  bearers,
  counting,
  json,
  pipeline,
  type Script,
  serve,
  type Server,
  settle,
  text,
  tokenEndpoint,
  transportError,
  unauthorized
} from "../support/scriptedServer.ts"
import { bearer as overBearer, overEach, type Presentation } from "../support/presentations.ts"
import { adjust } from "../support/testClock.ts"

const once = { tokenRetry: { times: 0 } } as const

/** What the tests need of a presentation. */
const over = ({ checked, options, scheme }: Presentation) => {
  /** How a token stands in `Authorization`. */
  const shown = (token: string) => `${scheme} ${token}`
  return {
    shown,
    /** A response with a token. */
    token: (value: string) => bearer(value, { token_type: scheme }),
    /** An API that accepts only these tokens, given as a set that may change. */
    accepting: (valid: ReadonlySet<string>): Script => ({ headers }) =>
      Array.from(valid, shown).includes(headers["authorization"] ?? "") ? json({ ok: true }) : unauthorized(),
    serve: (script: Parameters<typeof serve>[0] = {}): Server => {
      const server = serve({ token: counting({ token_type: scheme }), ...script })
      const client = checked(server.client)
      return { ...server, client, layer: Layer.succeed(HttpClient.HttpClient, client) }
    },
    pipeline: (server: Server, more: Parameters<typeof pipeline>[1] = {}) => pipeline(server, { ...options, ...more })
  }
}

const { accepting } = over(overBearer)

const full = (server: Server, more: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}) =>
  Alf.layer({ tokenEndpoint, clientId: "client", clientSecret: Redacted.make("swordfish"), origins: [api], ...more })
    .pipe(
      Layer.provide(server.layer)
    )

overEach("where the token goes", (presentation) => {
  const { pipeline, serve, shown } = over(presentation)

  it.scoped("to the listed origins, with default ports spelled or not", () =>
    Effect.gen(function*() {
      const server = serve()
      const { httpClient } = yield* pipeline(server, {
        origins: ["https://a.example", new URL("https://b.example:8443/base")]
      })
      for (
        const url of [
          "https://a.example/x",
          "https://a.example:443/x?y=1",
          "https://A.EXAMPLE/x",
          "https://b.example:8443/other",
          "http://a.example/x",
          "https://a.example:444/x",
          "https://b.example/x",
          "https://sub.a.example/x",
          "https://a.example.evil.example/x"
        ]
      ) yield* httpClient.get(url)
      const yes = shown("token-1")
      assert.deepStrictEqual(bearers(server), [
        yes,
        yes,
        yes,
        yes,
        undefined,
        undefined,
        undefined,
        undefined,
        undefined
      ])
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("others pass untouched, without a token request", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { httpClient, authorizedHttpClient } = yield* pipeline(server)
      const request = HttpClientRequest.get("https://other.example/x").pipe(
        HttpClientRequest.setHeader("authorization", "mine")
      )
      assert.strictEqual((yield* httpClient.execute(request)).status, 401)
      assert.strictEqual((yield* authorizedHttpClient.execute(request)).status, 401)
      assert.deepStrictEqual(bearers(server), ["mine", "mine"])
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.scoped("\"any\" is every https or loopback URL", () =>
    Effect.gen(function*() {
      const server = serve()
      const { httpClient } = yield* pipeline(server, { origins: "any" })
      for (
        const url of [
          "https://x.example",
          "http://localhost:1",
          "http://127.0.0.1:2",
          "http://[::1]:3",
          "http://x.example"
        ]
      ) {
        yield* httpClient.get(url)
      }
      const yes = shown("token-1")
      assert.deepStrictEqual(bearers(server), [yes, yes, yes, yes, undefined])
    }))

  it.scoped("the caller's Authorization is replaced", () =>
    Effect.gen(function*() {
      const server = serve()
      const { httpClient } = yield* pipeline(server)
      yield* httpClient.execute(HttpClientRequest.get(api).pipe(HttpClientRequest.basicAuth("a", "b")))
      assert.deepStrictEqual(bearers(server), [shown("token-1")])
    }))

  it.scoped("a relative URL is refused with words", () =>
    Effect.gen(function*() {
      const server = serve()
      const { httpClient, authorizedHttpClient } = yield* pipeline(server)
      for (const client of [httpClient, authorizedHttpClient]) {
        const error = yield* Effect.flip(client.get("/things"))
        assert.strictEqual(error._tag, "RequestError")
        if (error._tag !== "RequestError") return
        assert.strictEqual(error.reason, "InvalidUrl")
        assert.match(`${error.description} ${error.message}`, /prependUrl|relative|absolute/i)
      }
      assert.strictEqual(server.tokenRequests.length, 0)
      const above = httpClient.pipe(HttpClient.mapRequest(HttpClientRequest.prependUrl(api)))
      assert.strictEqual((yield* above.get("/things")).status, 200)
      assert.strictEqual(server.apiRequests[0]!.url, `${api}/things`)
    }))

  it.scoped("a redirect is judged by its own origin", () =>
    Effect.gen(function*() {
      const server = serve({
        api: (sent) =>
          sent.url.startsWith(api)
            ? new Response(null, { status: 302, headers: { location: "https://elsewhere.example/x" } })
            : json({})
      })
      const { httpClient } = yield* pipeline(server)
      yield* HttpClient.followRedirects(httpClient, 3).get(`${api}/x`)
      assert.deepStrictEqual(bearers(server), [shown("token-1"), undefined])
    }))

  it.scoped("no token, no request", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => json({ error: "invalid_scope" }, { status: 400 }) })
      const { httpClient, authorizedHttpClient } = yield* pipeline(server)
      const error = yield* Effect.flip(authorizedHttpClient.get(api))
      assert.strictEqual(error._tag, "TokenErrorResponse")
      yield* Effect.flip(httpClient.get(api))
      assert.strictEqual(server.apiRequests.length, 0)
    }))
})

overEach("401", (presentation) => {
  const { accepting, pipeline, serve, shown, token } = over(presentation)

  it.scoped("refreshes and replays once", () =>
    Effect.gen(function*() {
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const { httpClient } = yield* pipeline(server)
      const response = yield* httpClient.get(`${api}/x?y=1`)
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(bearers(server), [shown("token-1"), shown("token-2")])
      assert.deepStrictEqual(server.apiRequests.map((sent) => sent.url), [`${api}/x?y=1`, `${api}/x?y=1`])
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("twice is the answer: a response from the drop-in, Unauthorized from the typed", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const dropIn = yield* pipeline(server)
      const response = yield* dropIn.httpClient.get(api)
      assert.strictEqual(response.status, 401)
      assert.strictEqual(yield* response.text, "no")
      assert.strictEqual(server.apiRequests.length, 2)

      const typed = yield* pipeline(server)
      const error = yield* Effect.flip(typed.authorizedHttpClient.post(`${api}/x?secret=1#f`))
      assert.instanceOf(error, AuthorizedHttpClient.Unauthorized)
      if (error._tag !== "Unauthorized") return
      assert.strictEqual(error.method, "POST")
      assert.strictEqual(error.url, `${api}/x`)
      assert.strictEqual(error.status, 401)
      assert.strictEqual(error.challenges.length, 1)
      const challenge = error.challenges[0]!
      assert.strictEqual(challenge.scheme, "Bearer")
      assert.strictEqual(challenge.params["realm"], "api")
      assert.strictEqual(challenge.params["error"], "invalid_token")
      assert.strictEqual(challenge.params["error_description"], "expired, or so")
      assert.strictEqual(server.apiRequests.length, 4)
    }))

  it.scoped("without a challenge has none, with two has two", () =>
    Effect.gen(function*() {
      const header = (value?: string) =>
        Effect.gen(function*() {
          const server = serve({
            api: () =>
              new Response(null, { status: 401, headers: value === undefined ? {} : { "www-authenticate": value } })
          })
          const { authorizedHttpClient } = yield* pipeline(server)
          const error = yield* Effect.flip(authorizedHttpClient.get(api))
          return error._tag === "Unauthorized" ? error.challenges.map((_) => _.scheme.toLowerCase()) : error._tag
        })
      assert.deepStrictEqual(yield* header(), [])
      assert.deepStrictEqual(yield* header("Bearer"), ["bearer"])
      assert.deepStrictEqual(yield* header("Basic realm=\"a, Bearer b\", Bearer error=\"invalid_token\""), [
        "basic",
        "bearer"
      ])
      assert.isArray(yield* header("=,=,\"\"\"\\"))
    }))

  it.scoped("can be caught by its tag", () =>
    Effect.gen(function*() {
      const { authorizedHttpClient } = yield* pipeline(serve({ api: unauthorized }))
      const said = yield* authorizedHttpClient.get(api).pipe(
        Effect.as("response"),
        Effect.catchTag("Unauthorized", (error) => Effect.succeed(`${error.method} ${error.status}`))
      )
      assert.strictEqual(said, "GET 401")
    }))

  it.scoped("of a client under filterStatusOk is one too", () =>
    Effect.gen(function*() {
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const { httpClient, authorizedHttpClient } = yield* pipeline(
        { ...server, layer: Layer.succeed(HttpClient.HttpClient, HttpClient.filterStatusOk(server.client)) }
      )
      assert.strictEqual((yield* httpClient.get(api)).status, 200)
      assert.deepStrictEqual(bearers(server), [shown("token-1"), shown("token-2")])
      assert.strictEqual((yield* authorizedHttpClient.get(api)).status, 200)

      const refusing = serve({ api: unauthorized })
      const below = {
        ...refusing,
        layer: Layer.succeed(HttpClient.HttpClient, HttpClient.filterStatusOk(refusing.client))
      }
      const error = yield* Effect.flip((yield* pipeline(below)).authorizedHttpClient.get(api))
      assert.strictEqual(error._tag, "Unauthorized")
      assert.strictEqual(refusing.apiRequests.length, 2)
    }))

  it.scoped("the refresh that fails is the answer", () =>
    Effect.gen(function*() {
      const server = serve({
        api: unauthorized,
        token: (_, n) => n === 1 ? token("t1") : json({ error: "unauthorized_client" }, { status: 400 })
      })
      const { authorizedHttpClient } = yield* pipeline(server)
      const error = yield* Effect.flip(authorizedHttpClient.get(api))
      assert.strictEqual(error._tag === "TokenErrorResponse" ? error.error : error._tag, "unauthorized_client")
      assert.strictEqual(server.apiRequests.length, 1)
    }))

  it.scoped("replays once with the same token if the endpoint hands it out again", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => token("same"), api: (_, n) => n === 1 ? unauthorized() : json({}) })
      const { httpClient } = yield* pipeline(server)
      assert.strictEqual((yield* httpClient.get(api)).status, 200)
      assert.deepStrictEqual(bearers(server), [shown("same"), shown("same")])
    }))

  it.scoped("hundreds at once: one refresh, and a replay each", () =>
    Effect.gen(function*() {
      const valid = new Set(["token-1"])
      const check = accepting(valid)
      const gate = yield* Deferred.make<void>()
      const server = serve({
        api: (sent, n, request) => {
          const answer = Effect.sync(() => check(sent, n, request) as Response)
          return n === 1 ? answer : Effect.zipRight(Deferred.await(gate), answer)
        }
      })
      const { httpClient } = yield* pipeline(server)
      yield* httpClient.get(api)
      valid.clear()
      valid.add("token-2")
      const fiber = yield* Effect.fork(
        Effect.all(Array.from({ length: 250 }, () => Effect.map(httpClient.get(api), (_) => _.status)), {
          concurrency: "unbounded"
        })
      )
      yield* settle
      assert.strictEqual(server.apiRequests.length, 251)
      yield* Deferred.succeed(gate, void 0)
      const all = yield* Fiber.join(fiber)
      assert.deepStrictEqual([...new Set(all)], [200])
      assert.strictEqual(server.tokenRequests.length, 2)
      assert.strictEqual(server.apiRequests.length, 501)
    }))

  it.scoped("a late one uses the token that has replaced the refused", () =>
    Effect.gen(function*() {
      const valid = new Set(["token-2"])
      const check = accepting(valid)
      const server = serve({
        api: (sent, n, request) =>
          Effect.delay(
            Effect.sync(() => check(sent, n, request) as Response),
            sent.url.endsWith("slow") ? "5 seconds" : "1 second"
          )
      })
      const { httpClient } = yield* pipeline(server)
      const slow = yield* Effect.fork(httpClient.get(`${api}/slow`))
      yield* settle
      const fast = yield* Effect.fork(httpClient.get(`${api}/fast`))
      yield* settle
      yield* adjust("2 seconds")
      yield* settle
      assert.strictEqual((yield* Fiber.join(fast)).status, 200)
      assert.strictEqual((yield* advancing(Fiber.join(slow), "1 second")).status, 200)
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("403 and the rest pass", () =>
    Effect.forEach([403, 400, 404, 407, 429, 500, 503], (status) =>
      Effect.gen(function*() {
        const server = serve({
          api: () => text("", status, { "www-authenticate": "Bearer error=\"insufficient_scope\"" })
        })
        const { httpClient, authorizedHttpClient } = yield* pipeline(server)
        assert.strictEqual((yield* httpClient.get(api)).status, status)
        if (status === 403) {
          const error = yield* Effect.flip(authorizedHttpClient.get(api))
          assert.strictEqual(error._tag, "InsufficientScope")
        } else assert.strictEqual((yield* authorizedHttpClient.get(api)).status, status)
        assert.strictEqual(server.tokenRequests.length, 1)
        assert.strictEqual(server.apiRequests.length, 2)
      })))

  it.scoped("lets go of the first body, even of one without end", () =>
    Effect.gen(function*() {
      let read = 0
      let cancelled = false
      const server = serve({
        api: (_, n) =>
          n > 1 ? json({ ok: true }) : new Response(
            new ReadableStream<Uint8Array>({
              pull(controller) {
                read += 16_384
                controller.enqueue(new Uint8Array(16_384))
              },
              cancel() {
                cancelled = true
              }
            }),
            { status: 401 }
          )
      })
      const { httpClient } = yield* pipeline(server)
      const response = yield* advancing(httpClient.get(api), "100 millis")
      assert.strictEqual(response.status, 200)
      assert.isAtMost(read, 256 * 1024)
      assert.isTrue(cancelled)
    }))

  it.scoped("and of one that stalls", () =>
    Effect.gen(function*() {
      const server = serve({
        api: (_, n) =>
          n > 1
            ? json({ ok: true })
            : new Response(new ReadableStream<Uint8Array>({ pull: () => new Promise<void>(() => {}) }), { status: 401 })
      })
      const { httpClient } = yield* pipeline(server)
      const fiber = yield* Effect.fork(httpClient.get(api))
      yield* settle
      yield* adjust("1 second")
      yield* settle
      assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
    }))
})

describe("an API that refuses everything", () => {
  it.scoped("costs about ten token requests in the first minute", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { httpClient } = yield* pipeline(server)
      for (let i = 0; i < 120; i++) {
        assert.strictEqual((yield* httpClient.get(api)).status, 401)
        yield* TestClock.adjust("500 millis")
      }
      assert.isAtLeast(server.tokenRequests.length, 5)
      assert.isAtMost(server.tokenRequests.length, 12)
      assert.isAtLeast(server.apiRequests.length, 120)
    }))

  it.scoped("pauses the typed client too", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { httpClient, authorizedHttpClient } = yield* pipeline(server)
      yield* httpClient.get(api)
      const before = server.tokenRequests.length
      const error = yield* Effect.flip(authorizedHttpClient.get(api))
      assert.strictEqual(error._tag, "Unauthorized")
      assert.strictEqual(server.tokenRequests.length, before)
      yield* TestClock.adjust("1 second")
      yield* Effect.flip(authorizedHttpClient.get(api))
      assert.strictEqual(server.tokenRequests.length, before + 1)
    }))

  it.scoped("only that origin", () =>
    Effect.gen(function*() {
      const other = new Set<string>()
      const check = accepting(other)
      const server = serve({
        api: (sent, n, request) => sent.url.startsWith(api) ? unauthorized() : check(sent, n, request)
      })
      const { httpClient } = yield* pipeline(server, { origins: [api, "https://other.example"] })
      yield* httpClient.get(api)
      const latest = server.tokenRequests.length
      other.add(`token-${latest + 1}`)
      assert.strictEqual((yield* httpClient.get("https://other.example")).status, 200)
    }))

  it.scoped("the first accepted token ends the pause", () =>
    Effect.gen(function*() {
      const valid = new Set<string>()
      const server = serve({ api: accepting(valid) })
      const { httpClient } = yield* pipeline(server)
      yield* httpClient.get(api)
      const current = server.tokenRequests.length
      valid.add(`token-${current}`)
      assert.strictEqual((yield* httpClient.get(api)).status, 200)
      valid.clear()
      valid.add(`token-${current + 1}`)
      assert.strictEqual((yield* httpClient.get(api)).status, 200)
    }))
})

describe("bodies", () => {
  const form = new FormData()
  form.append("a", "1")
  const bodies: Record<string, HttpBody.HttpBody> = {
    empty: HttpBody.empty,
    text: HttpBody.text("grüße"),
    bytes: HttpBody.uint8Array(new Uint8Array([104, 105])),
    json: HttpBody.unsafeJson({ a: [1, "ü"] }),
    "URL parameters": HttpBody.urlParams([["a", "1 2"], ["b", "&"]]),
    "form data": HttpBody.formData(form)
  }
  for (const [name, body] of Object.entries(bodies)) {
    it.scoped(`${name} is sent again`, () =>
      Effect.gen(function*() {
        const server = serve({ api: accepting(new Set(["token-2"])) })
        const { httpClient } = yield* pipeline(server)
        const response = yield* httpClient.post(`${api}/x`, { body, headers: { "x-mine": "1" } })
        assert.strictEqual(response.status, 200)
        assert.strictEqual(server.apiRequests.length, 2)
        assert.strictEqual(server.apiRequests[0]!.body, server.apiRequests[1]!.body)
        assert.strictEqual(server.apiRequests[1]!.headers["x-mine"], "1")
        assert.strictEqual(server.apiRequests[1]!.method, "POST")
      }))
  }

  const streaming = HttpClientRequest.post(`${api}/x`).pipe(
    HttpClientRequest.bodyStream(Stream.make("a", "b").pipe(Stream.encodeText))
  )

  it.scoped("a Stream is not, but the next request has a new token", () =>
    Effect.gen(function*() {
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const { httpClient, authorizedHttpClient } = yield* pipeline(server)
      assert.strictEqual((yield* httpClient.execute(streaming)).status, 401)
      assert.strictEqual(server.apiRequests.length, 1)
      assert.strictEqual((yield* httpClient.get(api)).status, 200)
      assert.deepStrictEqual(bearers(server), ["Bearer token-1", "Bearer token-2"])
      assert.strictEqual((yield* authorizedHttpClient.execute(streaming)).status, 200)
    }))

  it.scoped("from the typed client that is Unauthorized", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { authorizedHttpClient } = yield* pipeline(server)
      const error = yield* Effect.flip(authorizedHttpClient.execute(streaming))
      assert.strictEqual(error._tag, "Unauthorized")
      assert.strictEqual(server.apiRequests.length, 1)
    }))

  it.scoped("unless it is marked replayable", () =>
    Effect.gen(function*() {
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const { httpClient } = yield* pipeline(server)
      const response = yield* httpClient.execute(AuthorizedHttpClient.replayable(streaming))
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(server.apiRequests.map((sent) => sent.body), ["ab", "ab"])
    }))

  it.scoped("replayable holds for what is made of the request afterwards", () =>
    Effect.gen(function*() {
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const { httpClient } = yield* pipeline(server)
      const client = httpClient.pipe(HttpClient.mapRequest(HttpClientRequest.setHeader("x-a", "1")))
      const request = AuthorizedHttpClient.replayable(streaming).pipe(HttpClientRequest.setHeader("x-b", "2"))
      assert.strictEqual((yield* client.execute(request)).status, 200)
    }))

  it.scoped("a raw body that can be read once is not sent again", () =>
    Effect.gen(function*() {
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const { httpClient } = yield* pipeline(server)
      const body = new ReadableStream<Uint8Array>({ start: (controller) => controller.close() })
      assert.strictEqual((yield* httpClient.post(api, { body: HttpBody.raw(body) })).status, 401)
      assert.strictEqual(server.apiRequests.length, 1)
    }))
})

describe("errors of the drop-in", () => {
  const failing = (token: Script, more: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}) =>
    Effect.gen(function*() {
      const server = serve({ token })
      const { httpClient } = yield* pipeline(server, { ...once, ...more })
      return yield* advancing(Effect.flip(httpClient.get(`${api}/x`)), "1 second")
    })

  it.scoped("TokenErrorResponse", () =>
    Effect.gen(function*() {
      const error = yield* failing(() => json({ error: "invalid_scope", error_description: "no" }, { status: 400 }))
      assert.strictEqual(error._tag, "ResponseError")
      if (error._tag !== "ResponseError") return
      assert.strictEqual(error.reason, "StatusCode")
      assert.instanceOf(error.cause, TokenError.TokenErrorResponse)
      assert.strictEqual(error.response.status, 400)
      assert.deepStrictEqual(yield* error.response.json, { error: "invalid_scope", error_description: "no" })
      assert.strictEqual(error.request.url, tokenEndpoint)
      assert.deepStrictEqual(Object.keys(error.request.headers), [])
      assert.strictEqual(error.request.body._tag, "Empty")
    }))

  it.scoped("InvalidTokenResponse", () =>
    Effect.gen(function*() {
      const error = yield* failing(() => text("<html>"))
      assert.strictEqual(error._tag, "ResponseError")
      assert.strictEqual(error.reason, "Decode")
      assert.instanceOf(error.cause, TokenError.InvalidTokenResponse)
    }))

  it.scoped("TokenRequestError", () =>
    Effect.gen(function*() {
      for (
        const error of [
          yield* failing((_, __, request) => transportError(request)),
          yield* failing(() => Effect.never),
          yield* failing(() => bearer("t"), { clientSecret: Effect.fail("no") })
        ]
      ) {
        assert.strictEqual(error._tag, "RequestError")
        assert.strictEqual(error.reason, "Transport")
        assert.instanceOf(error.cause, TokenError.TokenRequestError)
      }
    }))

  it.scoped("AuthorizationError", () =>
    Effect.gen(function*() {
      const grant: Grant.Grant = {
        key: "k",
        acquire: () => Effect.fail(new TokenError.AuthorizationError({ reason: "Timeout" }))
      }
      const error = yield* failing(() => bearer("t"), { grant })
      assert.strictEqual(error._tag, "ResponseError")
      assert.strictEqual(error.reason, "StatusCode")
      assert.instanceOf(error.cause, TokenError.AuthorizationError)
    }))

  it.scoped("an outer retryTransient sees a failing token endpoint as transient", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => n < 3 ? text("", 503) : bearer("t") })
      const { httpClient } = yield* pipeline(server, once)
      const client = HttpClient.retryTransient(httpClient, { times: 3, schedule: Schedule.spaced("1 second") })
      const response = yield* advancing(client.get(api), "1 second")
      assert.strictEqual(response.status, 200)
      assert.strictEqual(server.tokenRequests.length, 3)
    }))

  it.scoped("and does not try a refusal again", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => json({ error: "invalid_client" }, { status: 401 }) })
      const { httpClient } = yield* pipeline(server, { refusalCooldown: 0 })
      const client = HttpClient.retryTransient(httpClient, { times: 3, schedule: Schedule.spaced("1 second") })
      yield* advancing(Effect.flip(client.get(api)), "1 second")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("the API's own errors stay", () =>
    Effect.gen(function*() {
      const server = serve({ api: (_, __, request) => transportError(request) })
      const { httpClient, authorizedHttpClient } = yield* pipeline(server)
      for (const client of [httpClient, authorizedHttpClient]) {
        const error = yield* Effect.flip(client.get(`${api}/x`))
        assert.strictEqual(error._tag, "RequestError")
        if (error._tag === "RequestError") assert.strictEqual(error.reason, "Transport")
      }
      assert.strictEqual(server.apiRequests.length, 2)
    }))
})

describe("around and below", () => {
  it.scoped("interrupting the caller interrupts its request", () =>
    Effect.gen(function*() {
      let interrupted = false
      const server = serve({
        api: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => void (interrupted = true)))
      })
      const { httpClient } = yield* pipeline(server)
      const fiber = yield* Effect.fork(httpClient.get(api))
      yield* settle
      yield* Fiber.interrupt(fiber)
      assert.isTrue(interrupted)
    }))

  it.scoped("mapRequest runs once, retry runs again", () =>
    Effect.gen(function*() {
      let mapped = 0
      const server = serve({ api: (_, n) => n === 1 ? unauthorized() : n === 2 ? text("", 503) : json({}) })
      const { httpClient } = yield* pipeline(server)
      const client = httpClient.pipe(
        HttpClient.mapRequest((request) => {
          mapped++
          return HttpClientRequest.setHeader(request, "x-id", String(mapped))
        })
      )
      yield* client.get(api)
      assert.strictEqual(mapped, 1)
      assert.deepStrictEqual(server.apiRequests.map((sent) => sent.headers["x-id"]), ["1", "1"])
      const retried = HttpClient.filterStatusOk(httpClient).pipe(HttpClient.retry({ times: 1 }))
      assert.strictEqual((yield* retried.get(api)).status, 200)
    }))

  it.scoped("withToken over a client with errors and requirements of its own", () =>
    Effect.gen(function*() {
      class Trace extends Context.Tag("test/Trace")<Trace, { readonly id: string }>() {}
      const server = serve({ api: accepting(new Set(["token-2"])) })
      const below = server.client.pipe(
        HttpClient.mapRequestEffect((request) =>
          Effect.map(Trace, ({ id }) => HttpClientRequest.setHeader(request, "x-trace", id))
        ),
        HttpClient.filterOrFail((response) => response.status !== 418, () => "teapot" as const)
      )
      const tokens = TokenService.layer({ grant: Grant.clientCredentials({}) }).pipe(
        Layer.provide(TokenEndpoint.layer({
          tokenEndpoint,
          clientId: "c",
          clientSecret: Redacted.make("s"),
          clientAuthentication: ClientAuthentication.basic
        })),
        Layer.provide(server.layer)
      )
      yield* Effect.gen(function*() {
        const last = yield* below.pipe(AuthorizedHttpClient.withToken({ origins: [api] }))
        const first = yield* AuthorizedHttpClient.withToken(below, { origins: [api] })
        const program: Effect.Effect<HttpClientResponse.HttpClientResponse, unknown, Trace> = last.get(api)
        assert.strictEqual((yield* Effect.provideService(program, Trace, { id: "7" })).status, 200)
        assert.strictEqual((yield* Effect.provideService(first.get(api), Trace, { id: "8" })).status, 200)
      }).pipe(Effect.provide(tokens))
      assert.deepStrictEqual(bearers(server), ["Bearer token-1", "Bearer token-2", "Bearer token-2"])
      assert.deepStrictEqual(server.apiRequests.map((sent) => sent.headers["x-trace"]), ["7", "7", "8"])
    }))

  it.effect("layerHttpClient is a drop-in over a TokenService", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const status = yield* Effect.gen(function*() {
        const client = yield* HttpClient.HttpClient
        return (yield* client.get(api)).status
      }).pipe(
        Effect.provide(AuthorizedHttpClient.layerHttpClient({ origins: [api] })),
        Effect.provide(TokenService.layerStatic("k")),
        Effect.provide(server.layer)
      )
      assert.strictEqual(status, 401)
      assert.strictEqual(bearers(server)[0], "Bearer k")
    }))
})

describe("Alf.layer", () => {
  it.effect("gives the drop-in, the typed client and the tokens, all of one pipeline", () =>
    Effect.gen(function*() {
      const server = serve()
      yield* Effect.gen(function*() {
        const dropIn = yield* HttpClient.HttpClient
        const typed = yield* AuthorizedHttpClient.AuthorizedHttpClient
        const tokens = yield* TokenService.TokenService
        yield* dropIn.get(api)
        yield* typed.get(api)
        assert.strictEqual(Redacted.value((yield* tokens.get).value), "token-1")
        yield* tokens.invalidate
        yield* dropIn.get(api)
      }).pipe(Effect.provide(full(server)))
      assert.deepStrictEqual(bearers(server), ["Bearer token-1", "Bearer token-1", "Bearer token-2"])
    }))

  it.scoped("two APIs, one make each", () =>
    Effect.gen(function*() {
      class Billing extends Context.Tag("test/Billing")<Billing, HttpClient.HttpClient>() {}
      class Mail extends Context.Tag("test/Mail")<Mail, HttpClient.HttpClient>() {}
      const server = serve()
      const of = (clientId: string, origin: string) =>
        Effect.map(
          Alf.make({ tokenEndpoint, clientId, clientSecret: Redacted.make("s"), origins: [origin] }),
          (_) => _.httpClient
        )
      const layer = Layer.mergeAll(
        Layer.scoped(Billing, of("billing", "https://billing.example")),
        Layer.scoped(Mail, of("mail", "https://mail.example"))
      ).pipe(Layer.provide(server.layer))
      yield* Effect.gen(function*() {
        yield* (yield* Billing).get("https://billing.example")
        yield* (yield* Mail).get("https://mail.example")
        yield* (yield* Mail).get("https://billing.example")
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(bearers(server), ["Bearer token-1", "Bearer token-2", undefined])
      assert.notStrictEqual(
        server.tokenRequests[0]!.headers["authorization"],
        server.tokenRequests[1]!.headers["authorization"]
      )
    }))

  const provider = (entries: ReadonlyArray<readonly [string, string]>) =>
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries), { seqDelim: "," }))

  it.effect("layerConfig mixes Configs and plain values", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`)), "5 seconds") })
      const layer = Alf.layerConfig({
        tokenEndpoint: Config.string("TOKEN_URL"),
        clientId: Config.string("CLIENT_ID"),
        clientSecret: Config.redacted("CLIENT_SECRET"),
        clientAuthentication: ClientAuthentication.post,
        scope: Config.array(Config.string(), "SCOPE"),
        audience: "plain",
        origins: Config.array(Config.string(), "ORIGINS"),
        tokenTimeout: Config.duration("TIMEOUT"),
        tokenRetry: { times: 0 }
      }).pipe(Layer.provide(server.layer))
      const error = yield* Effect.gen(function*() {
        const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
        const fiber = yield* Effect.fork(Effect.flip(client.get("https://two.example")))
        yield* settle
        yield* TestClock.adjust("2 seconds")
        return yield* Fiber.join(fiber)
      }).pipe(
        Effect.provide(layer),
        provider([
          ["TOKEN_URL", tokenEndpoint],
          ["CLIENT_ID", "from-config"],
          ["CLIENT_SECRET", "hidden"],
          ["SCOPE", "a,b"],
          ["ORIGINS", "https://one.example,https://two.example"],
          ["TIMEOUT", "2 seconds"]
        ])
      )
      assert.strictEqual(error._tag, "TokenRequestError")
      const form = server.tokenRequests[0]!.form
      assert.strictEqual(form.get("client_id"), "from-config")
      assert.strictEqual(form.get("client_secret"), "hidden")
      assert.strictEqual(form.get("audience"), "plain")
      assert.deepStrictEqual(form.get("scope")!.split(" ").sort(), ["a", "b"])
    }))

  it.scoped("\"any\": two thousand origins that reject every token share one budget of about ten token requests", () =>
    Effect.gen(function*() {
      const server = serve({ api: () => text("no", 401) })
      const { httpClient } = yield* pipeline(server, { origins: "any" })
      for (let n = 0; n < 2_000; n++) {
        assert.strictEqual((yield* httpClient.get(`https://api-${n}.example`)).status, 401)
      }
      assert.isAtMost(server.tokenRequests.length, 12)
      // each request is sent, and at most once more
      assert.isAtMost(server.apiRequests.length, 2_012)
    }))

  it.effect("layerConfig: the secret as an Effect, tokenRetry as a Schedule, a grant, and \"any\"", () =>
    Effect.gen(function*() {
      let reads = 0
      const server = serve({
        token: (_, n) => n < 3 ? json({ error: "invalid_client" }, { status: 401 }) : bearer("t")
      })
      const layer = Alf.layerConfig({
        tokenEndpoint: new URL(tokenEndpoint),
        clientId: Config.string("CLIENT_ID"),
        clientSecret: Effect.sync(() => Redacted.make(`s${++reads}`)),
        grant: Grant.clientCredentials({ scope: "g" }),
        tokenRetry: Schedule.recurs(2),
        origins: "any"
      }).pipe(Layer.provide(server.layer))
      yield* Effect.gen(function*() {
        yield* (yield* HttpClient.HttpClient).get("https://anywhere.example")
      }).pipe(Effect.provide(layer), provider([["CLIENT_ID", "c"]]))
      assert.strictEqual(server.tokenRequests.length, 3)
      assert.strictEqual(reads, 3)
      assert.strictEqual(server.tokenRequests[0]!.form.get("scope"), "g")
      assert.deepStrictEqual(bearers(server), ["Bearer t"])
    }))

  it.effect("layerConfig fails with a ConfigError, or a ConfigurationError", () =>
    Effect.gen(function*() {
      const layer = Alf.layerConfig({
        tokenEndpoint: Config.string("TOKEN_URL"),
        clientId: "c",
        origins: "any"
      }).pipe(Layer.provide(serve().layer))
      const build = Effect.exit(Effect.scoped(Layer.build(layer)))
      const missing = yield* build.pipe(provider([]))
      assert.isTrue(Exit.isFailure(missing))
      const flipped = yield* Effect.flip(Effect.scoped(Layer.build(layer))).pipe(
        provider([["TOKEN_URL", "http://a.example"]])
      )
      assert.strictEqual(flipped._tag, "ConfigurationError")
      const absent = yield* Effect.flip(Effect.scoped(Layer.build(layer))).pipe(provider([]))
      assert.strictEqual("_op" in absent ? absent._op : absent._tag, "MissingData")
    }))

  it.effect("layerConfig with a Config that gives nothing leaves the default", () =>
    Effect.gen(function*() {
      const server = serve()
      const layer = Alf.layerConfig({
        tokenEndpoint,
        clientId: "c",
        origins: [api],
        defaultExpiresIn: Config.withDefault(Config.duration("EXPIRES"), Duration.minutes(1))
      }).pipe(Layer.provide(server.layer))
      const token = yield* Effect.flatMap(TokenService.TokenService, (_) => _.get).pipe(
        Effect.provide(layer),
        provider([])
      )
      assert.isTrue(Option.isSome(token.expiresAt))
    }))
})
