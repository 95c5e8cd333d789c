import { HttpClient, UrlParams } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Exit, Fiber, Layer, Option, Redacted, Ref, Schedule, TestClock } from "effect"
import { Alf, ClientAuthentication, Grant, TokenEndpoint, TokenError, TokenService } from "effect-alf"
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
  transportError
} from "../support/scriptedServer.ts"

const secret = Redacted.make("swordfish")
const once = { tokenRetry: { times: 0 } } as const

/** The error of the first need of a token, whatever time it takes. */
const failure = (
  server: Server,
  options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
) => Effect.flatMap(pipeline(server, options), (_) => advancing(Effect.flip(_.tokens.get), "10 seconds"))

const answering = (...answers: ReadonlyArray<() => Response>): Script => (_, n) =>
  (answers[Math.min(n, answers.length) - 1] as () => Response)()

const basic = (id: string, password: string) => `Basic ${Buffer.from(`${id}:${password}`).toString("base64")}`

describe("the request", () => {
  it.scoped("is a form POST that accepts JSON", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server, {
        scope: ["write", "read"],
        audience: "https://aud.example",
        resource: ["https://r1.example", "https://r2.example"],
        params: { tenant: "a b&c" }
      })
      yield* tokens.get
      const sent = server.tokenRequests[0]!
      assert.strictEqual(sent.method, "POST")
      assert.strictEqual(sent.url, tokenEndpoint)
      assert.isTrue(sent.headers["content-type"]!.startsWith("application/x-www-form-urlencoded"))
      assert.strictEqual(sent.headers["accept"], "application/json")
      assert.strictEqual(sent.form.get("grant_type"), "client_credentials")
      assert.sameMembers(sent.form.get("scope")!.split(" "), ["write", "read"])
      assert.strictEqual(sent.form.get("audience"), "https://aud.example")
      assert.deepStrictEqual(sent.form.getAll("resource"), ["https://r1.example", "https://r2.example"])
      assert.strictEqual(sent.form.get("tenant"), "a b&c")
      assert.isFalse(sent.form.has("client_secret"))
      assert.strictEqual(sent.headers["authorization"], basic("client", "swordfish"))
    }))

  it.scoped("leaves out what was not asked", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server)
      yield* tokens.get
      assert.deepStrictEqual([...server.tokenRequests[0]!.form.keys()], ["grant_type"])
    }))

  it.scoped("basic encodes id and secret as a form does", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server, {
        clientId: "client %&+-_.!~*'()",
        clientSecret: Redacted.make("pass:word ü"),
        clientAuthentication: ClientAuthentication.basic
      })
      yield* tokens.get
      assert.strictEqual(
        server.tokenRequests[0]!.headers["authorization"],
        basic("client+%25%26%2B-_.%21%7E*%27%28%29", "pass%3Aword+%C3%BC")
      )
    }))

  it.scoped("basicRaw sends them plain", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server, {
        clientId: "client %&+",
        clientSecret: Redacted.make("p+/="),
        clientAuthentication: ClientAuthentication.basicRaw
      })
      yield* tokens.get
      assert.strictEqual(server.tokenRequests[0]!.headers["authorization"], basic("client %&+", "p+/="))
    }))

  it.scoped("post puts them into the form", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server, { clientAuthentication: ClientAuthentication.post })
      yield* tokens.get
      const sent = server.tokenRequests[0]!
      assert.isUndefined(sent.headers["authorization"])
      assert.strictEqual(sent.form.get("client_id"), "client")
      assert.strictEqual(sent.form.get("client_secret"), "swordfish")
    }))

  it.scoped("without secret and method the client is public", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* Alf.make({ tokenEndpoint, clientId: "public", origins: [api] }).pipe(
        Effect.provide(server.layer)
      )
      yield* tokens.get
      const sent = server.tokenRequests[0]!
      assert.isUndefined(sent.headers["authorization"])
      assert.strictEqual(sent.form.get("client_id"), "public")
      assert.isFalse(sent.form.has("client_secret"))
    }))

  it.scoped("invalid_client is not answered by another method of authentication", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => json({ error: "invalid_client" }, { status: 401 }) })
      const error = yield* failure(server)
      assert.strictEqual(error._tag, "TokenErrorResponse")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("a redirect is not followed", () =>
    Effect.gen(function*() {
      const server = serve({
        token: () => new Response(null, { status: 307, headers: { location: "https://elsewhere.example/token" } })
      })
      const error = yield* failure(server)
      assert.strictEqual(error._tag, "TokenErrorResponse")
      if (error._tag === "TokenErrorResponse") assert.strictEqual(error.status, 307)
      assert.strictEqual(server.tokenRequests.length, 1)
      assert.strictEqual(server.apiRequests.length, 0)
    }))
})

describe("options that cannot work", () => {
  const issue = (options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>) =>
    Effect.scoped(Effect.flip(pipeline(serve(), options))).pipe(
      Effect.tap((error) =>
        Effect.sync(() => {
          assert.strictEqual(error._tag, "ConfigurationError")
          assert.isAbove(error.issue.length, 0)
          assert.notInclude(error.issue, "swordfish")
        })
      ),
      Effect.map((error) => error.issue)
    )

  for (
    const [name, options] of Object.entries<Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>>({
      "plain http": { tokenEndpoint: "http://auth.example/token" },
      "user info": { tokenEndpoint: "https://user:pw@auth.example/token" },
      "a fragment": { tokenEndpoint: "https://auth.example/token#x" },
      "no URL at all": { tokenEndpoint: "auth.example" },
      "another scheme": { tokenEndpoint: "ftp://auth.example/token" }
    })
  ) {
    it.effect(name, () => Effect.map(issue(options), (text) => assert.match(text, /tokenEndpoint/)))
  }

  it.effect("an empty client id", () => Effect.map(issue({ clientId: "" }), (text) => assert.match(text, /clientId/)))

  it.effect("a method that needs a secret, without one", () =>
    Effect.forEach(
      [ClientAuthentication.basic, ClientAuthentication.basicRaw, ClientAuthentication.post],
      (method) =>
        Effect.gen(function*() {
          const error = yield* Alf.make({ tokenEndpoint, clientId: "c", clientAuthentication: method, origins: [api] })
            .pipe(
              Effect.provide(serve().layer),
              Effect.scoped,
              Effect.flip
            )
          assert.strictEqual(error._tag, "ConfigurationError")
        })
    ))

  it.effect("the layer fails, before anything is asked", () =>
    Effect.gen(function*() {
      const server = serve()
      const layer = Alf.layer({ tokenEndpoint: "http://auth.example/token", clientId: "c", origins: "any" }).pipe(
        Layer.provide(server.layer)
      )
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      assert.instanceOf(error, TokenError.ConfigurationError)
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.effect("plain http is allowed on loopback, or when asked for", () =>
    Effect.forEach([
      { tokenEndpoint: "http://127.0.0.1:9/token" },
      { tokenEndpoint: "http://127.8.9.10/token" },
      { tokenEndpoint: "http://[::1]:9/token" },
      { tokenEndpoint: "http://localhost:9/token" },
      { tokenEndpoint: new URL("http://localhost:9/token") },
      { tokenEndpoint: "http://auth.example/token", allowInsecureTokenEndpoint: true }
    ], (options) => Effect.scoped(pipeline(serve(), options))))

  it.effect("a host that only looks like loopback is not", () =>
    Effect.forEach([
      "http://localhost.evil.example/token",
      "http://127.0.0.1.evil.example/token"
    ], (url) => issue({ tokenEndpoint: url })))

  it.effect("an origin that is no URL", () => issue({ origins: ["not a url"] }))

  it.effect("TokenEndpoint.layer finds them too", () =>
    Effect.gen(function*() {
      const layer = TokenEndpoint.layer({ tokenEndpoint: "http://auth.example/token", clientId: "c" })
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Layer.provide(layer, serve().layer))))
      assert.strictEqual(error._tag, "ConfigurationError")
    }))
})

describe("errors", () => {
  it.scoped("an answer that is an error, with all it says", () =>
    Effect.gen(function*() {
      const server = serve({
        token: () =>
          json({ error: "invalid_scope", error_description: "no such scope", error_uri: "https://auth.example/help" }, {
            status: 400
          })
      })
      const error = yield* failure(server)
      assert.instanceOf(error, TokenError.TokenErrorResponse)
      if (error._tag !== "TokenErrorResponse") return
      assert.strictEqual(error.endpoint, tokenEndpoint)
      assert.strictEqual(error.status, 400)
      assert.strictEqual(error.error, "invalid_scope")
      assert.strictEqual(error.errorDescription, "no such scope")
      assert.strictEqual(error.errorUri, "https://auth.example/help")
      assert.strictEqual(error.attempts, 1)
      assert.include(error.body, "no such scope")
      assert.isUndefined(error.retryAfter)
    }))

  it.scoped("an error code nobody has heard of", () =>
    Effect.gen(function*() {
      const error = yield* failure(serve({ token: () => json({ error: "quota.exhausted/7" }, { status: 400 }) }))
      assert.strictEqual(error._tag === "TokenErrorResponse" ? error.error : "", "quota.exhausted/7")
    }))

  it.scoped("an error with a 200", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => json({ error: "invalid_client" }) })
      const error = yield* failure(server)
      assert.strictEqual(error._tag, "TokenErrorResponse")
      if (error._tag !== "TokenErrorResponse") return
      assert.strictEqual(error.status, 200)
      assert.strictEqual(error.error, "invalid_client")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  for (
    const [name, body] of Object.entries({
      "a proxy's page": "<html>Bad gateway</html>",
      "an array": "[]",
      "null": "null",
      "nothing": ""
    })
  ) {
    it.scoped(`${name} is an InvalidTokenResponse with a 200`, () =>
      Effect.gen(function*() {
        const server = serve({ token: () => text(body) })
        const error = yield* failure(server)
        assert.strictEqual(error._tag, "InvalidTokenResponse")
        if (error._tag !== "InvalidTokenResponse") return
        assert.strictEqual(error.endpoint, tokenEndpoint)
        assert.isAbove(String(error.issue).length, 0)
        assert.strictEqual(server.tokenRequests.length, 1)
      }))

    it.scoped(`${name} is a TokenErrorResponse without error with a 400`, () =>
      Effect.gen(function*() {
        const error = yield* failure(serve({ token: () => text(body, 400) }), once)
        assert.strictEqual(error._tag, "TokenErrorResponse")
        if (error._tag !== "TokenErrorResponse") return
        assert.isUndefined(error.error)
        assert.strictEqual(error.body, body)
      }))
  }

  it.scoped("the body is kept up to 4 KiB, without the secret", () =>
    Effect.gen(function*() {
      const error = yield* failure(
        serve({ token: () => text(`you sent swordfish and ${"x".repeat(10_000)}`, 400) }),
        once
      )
      assert.strictEqual(error._tag, "TokenErrorResponse")
      if (error._tag !== "TokenErrorResponse") return
      assert.isAtMost(new TextEncoder().encode(error.body).length, 4096)
      assert.isAbove(error.body.length, 1000)
      assert.notInclude(error.body, "swordfish")
      assert.isTrue(error.body.startsWith("you sent "))
    }))

  it.scoped("an answer without end is not read to it", () =>
    Effect.gen(function*() {
      let read = 0
      let cancelled = false
      const server = serve({
        token: () =>
          new Response(
            new ReadableStream<Uint8Array>({
              pull(controller) {
                read += 65_536
                controller.enqueue(new Uint8Array(65_536).fill(32))
              },
              cancel() {
                cancelled = true
              }
            })
          )
      })
      const { tokens } = yield* pipeline(server)
      const error = yield* Effect.flip(tokens.get)
      assert.strictEqual(error._tag, "InvalidTokenResponse")
      assert.isBelow(read, 4 * 1024 * 1024)
      assert.isTrue(cancelled)
    }))

  it.scoped("no answer", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, __, request) => transportError(request) })
      const error = yield* failure(server)
      assert.strictEqual(error._tag, "TokenRequestError")
      if (error._tag !== "TokenRequestError") return
      assert.strictEqual(error.reason, "Transport")
      assert.strictEqual(error.endpoint, tokenEndpoint)
      assert.strictEqual(error.attempts, 4)
      assert.strictEqual(server.tokenRequests.length, 4)
    }))

  it.scoped("one attempt takes at most tokenTimeout", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => Effect.never })
      const { tokens } = yield* pipeline(server, {
        tokenTimeout: "3 seconds",
        tokenRetry: { times: 1, base: "1 second" }
      })
      const fiber = yield* Effect.fork(Effect.flip(tokens.get))
      yield* settle
      yield* TestClock.adjust("2999 millis")
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("1 millis")
      yield* TestClock.adjust("1200 millis")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 2)
      yield* TestClock.adjust("3 seconds")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "TokenRequestError")
      if (error._tag !== "TokenRequestError") return
      assert.strictEqual(error.reason, "Timeout")
      assert.strictEqual(error.attempts, 2)
    }))

  it.scoped("tokenTimeout is 10 seconds by default, the body included", () =>
    Effect.gen(function*() {
      const server = serve({
        token: () => new Response(new ReadableStream<Uint8Array>({ pull: () => new Promise<void>(() => {}) }))
      })
      const { tokens } = yield* pipeline(server, once)
      const fiber = yield* Effect.fork(Effect.flip(tokens.get))
      yield* settle
      yield* TestClock.adjust("9999 millis")
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag === "TokenRequestError" ? error.reason : error._tag, "Timeout")
    }))

  it.scoped("a client that turns statuses into errors makes no difference", () =>
    Effect.gen(function*() {
      const server = serve({
        token: answering(() => text("busy", 503), () => json({ error: "invalid_client" }, { status: 401 }))
      })
      const { tokens } = yield* Alf.make({ tokenEndpoint, clientId: "c", clientSecret: secret, origins: [api] }).pipe(
        Effect.provideService(HttpClient.HttpClient, HttpClient.filterStatusOk(server.client))
      )
      const error = yield* advancing(Effect.flip(tokens.get), "100 millis")
      assert.strictEqual(error._tag, "TokenErrorResponse")
      if (error._tag !== "TokenErrorResponse") return
      assert.strictEqual(error.error, "invalid_client")
      assert.strictEqual(error.status, 401)
      assert.strictEqual(error.attempts, 2)
    }))
})

describe("retries", () => {
  const count = (
    answer: () => Response,
    options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
  ) =>
    Effect.gen(function*() {
      const server = serve({ token: answer })
      yield* failure(server, options)
      return server.tokenRequests.length
    })

  it.scoped("by default three more, 300 ms apart and doubling, jittered", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => text("down", 503) })
      const { tokens } = yield* pipeline(server)
      const error = yield* advancing(Effect.flip(tokens.get), "10 seconds")
      const at = server.tokenRequests.map((sent) => sent.at)
      assert.strictEqual(at.length, 4)
      const pauses = [at[1]! - at[0]!, at[2]! - at[1]!, at[3]! - at[2]!]
      for (const [index, base] of [300, 600, 1200].entries()) {
        assert.isAtLeast(pauses[index]!, base * 0.8 - 2)
        assert.isAtMost(pauses[index]!, base * 1.2 + 2)
      }
      assert.strictEqual(error._tag === "TokenErrorResponse" ? error.attempts : 0, 4)
    }))

  it.scoped("pauses are whole milliseconds, which is all that a TestClock can tell", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => text("down", 503) })
      const { tokens } = yield* pipeline(server, { tokenRetry: { times: 3 } })
      yield* Effect.exit(advancing(tokens.get, "10 seconds"))
      for (const sent of server.tokenRequests) assert.isTrue(Number.isInteger(sent.at), `asked at ${sent.at}`)
    }))

  it.scoped("no pause is longer than maxDelay, by default 10 seconds", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => text("down", 503) })
      const { tokens } = yield* pipeline(server, { tokenRetry: { times: 8 } })
      yield* advancing(Effect.flip(tokens.get), "10 seconds")
      const at = server.tokenRequests.map((sent) => sent.at)
      assert.strictEqual(at.length, 9)
      for (let i = 1; i < at.length; i++) assert.isAtMost(at[i]! - at[i - 1]!, 12_100)
    }))

  it.scoped("statuses that are retried whatever the body says", () =>
    Effect.forEach([408, 421, 425, 429, 500, 502, 503, 504], (status) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* count(() => json({ error: "invalid_client" }, { status })), 4)
      })))

  it.scoped("any other 4xx is never retried, with or without an OAuth error", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* count(() => text("<html>", 404)), 1)
      assert.strictEqual(yield* count(() => text("<html>", 400)), 1)
      assert.strictEqual(yield* count(() => json({ error: "invalid_grant" }, { status: 400 })), 1)
      assert.strictEqual(yield* count(() => json({ error: "unauthorized_client" }, { status: 403 })), 1)
    }))

  it.scoped("temporarily_unavailable and server_error are retried with 400, and not in a 2xx", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* count(() => json({ error: "temporarily_unavailable" }, { status: 400 })), 4)
      assert.strictEqual(yield* count(() => json({ error: "server_error" }, { status: 400 })), 4)
      assert.strictEqual(yield* count(() => json({ error: "server_error" })), 1)
    }))

  it.scoped("an invalid token response is not retried", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* count(() => json({ access_token: "" })), 1)
    }))

  it.scoped("times: 0 turns retrying off", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* count(() => text("", 503), once), 1)
    }))

  it.scoped("times, base and factor are heeded", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => text("down", 500) })
      const { tokens } = yield* pipeline(server, {
        tokenRetry: { times: 5, statuses: [500], base: "1 second", factor: 3, maxDelay: "4 seconds" }
      })
      yield* advancing(Effect.flip(tokens.get), "10 seconds")
      const at = server.tokenRequests.map((sent) => sent.at)
      assert.strictEqual(at.length, 6)
      for (const [index, base] of [1000, 3000, 4000, 4000, 4000].entries()) {
        assert.isAtLeast(at[index + 1]! - at[index]!, base * 0.8 - 20)
        assert.isAtMost(at[index + 1]! - at[index]!, base * 1.2 + 20)
      }
    }))

  it.scoped("statuses replaces every rule about statuses", () =>
    Effect.gen(function*() {
      const options = { tokenRetry: { times: 2, statuses: [418] } } as const
      assert.strictEqual(yield* count(() => text("", 503), options), 1)
      assert.strictEqual(yield* count(() => text("", 418), options), 3)
      assert.strictEqual(yield* count(() => json({ error: "invalid_client" }, { status: 418 }), options), 3)
      const server = serve({ token: (_, __, request) => transportError(request) })
      yield* failure(server, options)
      assert.strictEqual(server.tokenRequests.length, 3)
    }))

  it.scoped("a Schedule replaces it all", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* count(() => text("", 503), { tokenRetry: Schedule.recurs(2) }), 3)
      assert.strictEqual(
        yield* count(() => json({ error: "invalid_client" }, { status: 401 }), { tokenRetry: Schedule.recurs(2) }),
        3
      )
      assert.strictEqual(yield* count(() => text("", 503), { tokenRetry: Schedule.stop }), 1)
    }))

  it.scoped("a Schedule sees the errors and sets the pauses", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const server = serve({ token: answering(() => text("", 503), () => text("", 502), () => bearer("third")) })
      const { tokens } = yield* pipeline(server, {
        tokenRetry: Schedule.spaced("7 seconds").pipe(
          Schedule.tapInput((error: TokenError.TokenError) => Effect.sync(() => void seen.push(error._tag))),
          Schedule.intersect(Schedule.recurs(4))
        )
      })
      const token = yield* advancing(tokens.get, "1 second")
      assert.strictEqual(Redacted.value(token.value), "third")
      assert.deepStrictEqual(server.tokenRequests.map((sent) => sent.at), [0, 7000, 14_000])
      assert.deepStrictEqual(seen, ["TokenErrorResponse", "TokenErrorResponse"])
    }))

  it.scoped("a Schedule that looks at the error", () =>
    Effect.gen(function*() {
      const tokenRetry = Schedule.recurWhile((error: TokenError.TokenError) => error._tag === "TokenRequestError").pipe(
        Schedule.intersect(Schedule.recurs(3))
      )
      assert.strictEqual(yield* count(() => text("", 503), { tokenRetry }), 1)
      const server = serve({ token: (_, __, request) => transportError(request) })
      yield* failure(server, { tokenRetry })
      assert.strictEqual(server.tokenRequests.length, 4)
    }))

  it.scoped("Retry-After in seconds is waited for when it is longer than the pause", () =>
    Effect.gen(function*() {
      const server = serve({
        token: answering(() => text("slow down", 429, { "retry-after": "5" }), () => bearer("second"))
      })
      const { tokens } = yield* pipeline(server)
      const fiber = yield* Effect.fork(tokens.get)
      yield* settle
      yield* TestClock.adjust("4999 millis")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("1001 millis")
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "second")
    }))

  it.scoped("a shorter Retry-After does not shorten the pause", () =>
    Effect.gen(function*() {
      const server = serve({
        token: answering(() => text("slow down", 503, { "retry-after": "0" }), () => bearer("second"))
      })
      const { tokens } = yield* pipeline(server)
      yield* advancing(tokens.get, "1 second")
      assert.isAtLeast(server.tokenRequests[1]!.at, 239)
    }))

  it.scoped("Retry-After as a date", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.UTC(2026, 0, 1))
      const server = serve({
        token: answering(
          () => text("slow down", 503, { "retry-after": new Date(Date.UTC(2026, 0, 1, 0, 0, 20)).toUTCString() }),
          () => bearer("second")
        )
      })
      const { tokens } = yield* pipeline(server)
      yield* advancing(tokens.get, "1 second")
      assert.isAtLeast(server.tokenRequests[1]!.at - Date.UTC(2026, 0, 1), 20_000)
      assert.isAtMost(server.tokenRequests[1]!.at - Date.UTC(2026, 0, 1), 22_000)
    }))

  it.scoped("60 seconds are waited for, more end the retries", () =>
    Effect.gen(function*() {
      const patient = serve({
        token: answering(() => text("", 429, { "retry-after": "60" }), () => bearer("second"))
      })
      const { tokens } = yield* pipeline(patient)
      yield* advancing(tokens.get, "1 second")
      assert.strictEqual(patient.tokenRequests.length, 2)

      const server = serve({ token: () => text("", 429, { "retry-after": "61" }) })
      const error = yield* failure(server)
      assert.strictEqual(server.tokenRequests.length, 1)
      assert.strictEqual(error._tag, "TokenErrorResponse")
      if (error._tag !== "TokenErrorResponse") return
      assert.strictEqual(Duration.toSeconds(error.retryAfter!), 61)
      assert.strictEqual(error.attempts, 1)
    }))
})

describe("the secret", () => {
  it.scoped("given as an Effect it is read again for every attempt", () =>
    Effect.gen(function*() {
      const reads = yield* Ref.make(0)
      const server = serve({ token: answering(() => text("", 503), () => bearer("second")) })
      const { tokens } = yield* pipeline(server, {
        clientSecret: Effect.map(Ref.updateAndGet(reads, (n) => n + 1), (n) => Redacted.make(`secret-${n}`))
      })
      yield* advancing(tokens.get, "100 millis")
      assert.deepStrictEqual(server.tokenRequests.map((sent) => sent.headers["authorization"]), [
        basic("client", "secret-1"),
        basic("client", "secret-2")
      ])
    }))

  it.scoped("its failure is a TokenRequestError that does not tell", () =>
    Effect.gen(function*() {
      const server = serve()
      const error = yield* failure(server, {
        ...once,
        clientSecret: Effect.fail(new Error("vault token hvs.123 expired"))
      })
      assert.strictEqual(error._tag, "TokenRequestError")
      if (error._tag !== "TokenRequestError") return
      assert.strictEqual(error.reason, "Secret")
      assert.notInclude(`${String(error)} ${JSON.stringify(error)} ${error.message}`, "hvs.123")
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.scoped("a defect in it does not hang anyone", () =>
    Effect.gen(function*() {
      const { tokens } = yield* pipeline(serve(), { ...once, clientSecret: Effect.die(new Error("boom")) })
      const exit = yield* advancing(Effect.exit(tokens.get), "1 second")
      assert.isTrue(Exit.isFailure(exit))
    }))
})

describe("a permanent refusal", () => {
  const refuse: Script = () => json({ error: "invalid_client" }, { status: 401 })

  it.scoped("is remembered for a second, doubling to thirty", () =>
    Effect.gen(function*() {
      const server = serve({ token: refuse })
      const { tokens } = yield* pipeline(server)
      for (let i = 0; i < 92; i++) {
        yield* Effect.flip(tokens.get)
        yield* TestClock.adjust("1 second")
      }
      const at = server.tokenRequests.map((sent) => sent.at / 1000)
      const pauses = at.slice(1).map((time, index) => Math.round(time - at[index]!))
      assert.deepStrictEqual(pauses, [1, 2, 4, 8, 16, 30, 30])
    }))

  it.scoped("gives callers the same error without a request", () =>
    Effect.gen(function*() {
      const server = serve({ token: refuse })
      const { tokens } = yield* pipeline(server, { refusalCooldown: "5 seconds" })
      const first = yield* Effect.flip(tokens.get)
      yield* TestClock.adjust("4900 millis")
      const second = yield* Effect.flip(tokens.get)
      assert.deepStrictEqual(second, first)
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("100 millis")
      yield* Effect.flip(tokens.get)
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("is ended by invalidate", () =>
    Effect.gen(function*() {
      const server = serve({
        token: answering(() => json({ error: "invalid_client" }, { status: 401 }), () => bearer("t"))
      })
      const { tokens } = yield* pipeline(server)
      yield* Effect.flip(tokens.get)
      yield* tokens.invalidate
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "t")
    }))

  it.scoped("a success starts the pauses anew", () =>
    Effect.gen(function*() {
      let broken = true
      const server = serve({
        token: (_, n) => broken ? json({ error: "invalid_client" }, { status: 401 }) : bearer(`t${n}`)
      })
      const { tokens } = yield* pipeline(server)
      yield* Effect.flip(tokens.get)
      yield* TestClock.adjust("1 second")
      yield* Effect.flip(tokens.get)
      yield* TestClock.adjust("2 seconds")
      broken = false
      yield* tokens.get
      yield* tokens.invalidate
      broken = true
      yield* Effect.flip(tokens.get)
      const before = server.tokenRequests.length
      yield* TestClock.adjust("1 second")
      yield* Effect.flip(tokens.get)
      assert.strictEqual(server.tokenRequests.length, before + 1)
    }))

  it.scoped("an invalid token response is remembered too", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => text("<html>") })
      const { tokens } = yield* pipeline(server)
      yield* Effect.repeatN(Effect.flip(tokens.get), 999)
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("after a transient failure no fetch starts within refusalCooldown of the start of the failed one", () =>
    Effect.gen(function*() {
      const server = serve({ token: answering(() => text("", 503), () => bearer("t")) })
      const { tokens } = yield* pipeline(server, once)
      const first = yield* Effect.flip(tokens.get)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(yield* Effect.flip(tokens.get), first)
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "t")
    }))
})

describe("TokenEndpoint on its own", () => {
  const options = { tokenEndpoint, clientId: "client", clientSecret: secret } as const

  it.effect("sends what it is given", () =>
    Effect.gen(function*() {
      const server = serve()
      const token = yield* Effect.gen(function*() {
        const endpoint = yield* TokenEndpoint.TokenEndpoint
        return yield* endpoint.request(UrlParams.fromInput({ grant_type: "urn:mine", extra: "1" }))
      }).pipe(Effect.provide(TokenEndpoint.layer(options)), Effect.provide(server.layer))
      assert.strictEqual(Redacted.value(token.value), "token-1")
      assert.strictEqual(server.tokenRequests[0]!.form.get("grant_type"), "urn:mine")
      assert.strictEqual(server.tokenRequests[0]!.form.get("extra"), "1")
    }))

  it.effect("its identity tells endpoints, clients and methods apart", () =>
    Effect.gen(function*() {
      const identity = (
        more: Partial<Extract<TokenEndpoint.Options, { readonly tokenEndpoint: string | URL }>>
      ) =>
        Effect.map(TokenEndpoint.TokenEndpoint, (_) => _.identity).pipe(
          Effect.provide(TokenEndpoint.layer({ ...options, ...more })),
          Effect.provide(serve().layer)
        )
      const identities = yield* Effect.all([
        identity({}),
        identity({ tokenEndpoint: "https://auth.example/token2" }),
        identity({ clientId: "other" }),
        identity({ clientAuthentication: ClientAuthentication.post })
      ])
      assert.strictEqual(new Set(identities).size, 4)
      assert.strictEqual(yield* identity({ tokenEndpoint: new URL(tokenEndpoint) }), identities[0])
      for (const identity of identities) assert.notInclude(identity, "swordfish")
    }))

  it.effect("below a TokenService of one's own", () =>
    Effect.gen(function*() {
      const server = serve({ token: counting() })
      const layer = TokenService.layer({ grant: Grant.clientCredentials({ scope: "read" }) }).pipe(
        Layer.provide(TokenEndpoint.layer({ ...options, defaultExpiresIn: "1 minute" })),
        Layer.provide(server.layer)
      )
      const token = yield* Effect.flatMap(TokenService.TokenService, (_) => _.get).pipe(Effect.provide(layer))
      assert.strictEqual(Redacted.value(token.value), "token-1")
      assert.isTrue(DateTime.isDateTime(token.issuedAt))
      assert.strictEqual(server.tokenRequests[0]!.form.get("scope"), "read")
    }))

  it.scoped("Alf and the request together", () =>
    Effect.gen(function*() {
      const server = serve()
      const { httpClient } = yield* pipeline(server)
      const response = yield* httpClient.get(`${api}/things`)
      assert.deepStrictEqual(yield* response.json, { ok: true })
      assert.deepStrictEqual(bearers(server), ["Bearer token-1"])
    }))
})
