import {
  FetchHttpClient,
  HttpClient,
  HttpClientError,
  HttpClientRequest,
  HttpClientResponse,
  UrlParams
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Redacted,
  Ref,
  Schedule,
  TestClock
} from "effect"
import { Alf, ClientAuthentication, TokenEndpoint, TokenError, TokenMetrics } from "effect-alf"
import { inspect } from "node:util"
import { recordLogs, recordSpans } from "../support/recorders.ts"
import { broken, goodToken, json, type Received, type Scripted, scripted } from "../support/scriptedClient.ts"

const url = "https://auth.test/token"
const secret = "s3cret of %&+ \"quoted\"/slash"
const params = UrlParams.fromInput({ grant_type: "client_credentials" })

type Overrides = Partial<Extract<TokenEndpoint.Options, { readonly tokenEndpoint: string | URL }>>

const make = (http: Scripted, overrides: Overrides = {}) =>
  TokenEndpoint.make({
    tokenEndpoint: url,
    clientId: "client",
    clientSecret: Redacted.make(secret),
    ...overrides
  }).pipe(
    Effect.map(({ tokenEndpoint }) => tokenEndpoint),
    Effect.provide(http.layer)
  )

const request = (
  http: Scripted,
  overrides?: Overrides,
  form: Parameters<TokenEndpoint.TokenEndpoint["Type"]["request"]>[0] = params
) => Effect.flatMap(make(http, overrides), (endpoint) => endpoint.request(form))

/** Lets as much time go by as it takes. */
const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(effect)
    yield* TestClock.adjust("1 hour")
    return yield* Fiber.join(fiber)
  })

const failure = <E>(effect: Effect.Effect<unknown, E>) => eventually(Effect.flip(effect))

const errorResponse = (effect: Effect.Effect<unknown, TokenError.TokenError | TokenError.ConfigurationError>) =>
  Effect.map(failure(effect), (error) => {
    assert.instanceOf(error, TokenError.TokenErrorResponse)
    return error
  })

const invalidResponse = (effect: Effect.Effect<unknown, TokenError.TokenError | TokenError.ConfigurationError>) =>
  Effect.map(failure(effect), (error) => {
    assert.instanceOf(error, TokenError.InvalidTokenResponse)
    return error
  })

/** Answers from a script, and remembers when each request came. */
const timed = (
  answer: (n: number, request: Received) => Response | Effect.Effect<Response, HttpClientError.HttpClientError>
) => {
  const moments: Array<number> = []
  const http = scripted((request, n) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      moments.push(now)
      const response = answer(n, request)
      return response instanceof Response ? Effect.succeed(response) : response
    })
  )
  return { ...http, pauses: () => moments.slice(1).map((moment, i) => moment - (moments[i] ?? 0)) }
}

const assertPauses = (pauses: ReadonlyArray<number>, expected: ReadonlyArray<number>) => {
  assert.strictEqual(pauses.length, expected.length, `pauses: ${pauses}`)
  pauses.forEach((pause, i) => {
    assert.isAtLeast(pause, Math.floor((expected[i] ?? 0) * 0.8), `pause ${i} of ${pauses}`)
    assert.isAtMost(pause, Math.ceil((expected[i] ?? 0) * 1.2), `pause ${i} of ${pauses}`)
  })
}

const oauthError = (error: string, status: number, init?: ResponseInit) => json({ error }, { ...init, status })
const proxyPage = (status: number) =>
  new Response("<html><h1>Bad gateway</h1></html>", { status, headers: { "content-type": "text/html" } })

const once: Overrides = { tokenRetry: { times: 0 } }

describe("the request", () => {
  const sent = (overrides?: Overrides, form?: UrlParams.UrlParams) =>
    Effect.gen(function*() {
      const http = scripted(() => goodToken("t"))
      yield* request(http, overrides, form)
      assert.strictEqual(http.requests.length, 1)
      return http.requests[0] as Received
    })

  it.effect("is a POST of a form that accepts JSON", () =>
    Effect.gen(function*() {
      const { body, headers, method, url: to } = yield* sent()
      assert.strictEqual(method, "POST")
      assert.strictEqual(to, url)
      assert.match(headers["content-type"] ?? "", /^application\/x-www-form-urlencoded(;\s*charset=utf-8)?$/i)
      assert.strictEqual(headers["accept"], "application/json")
      assert.strictEqual(body, "grant_type=client_credentials")
    }))

  it.effect("proves who the client is by HTTP Basic, id and secret form-encoded first", () =>
    Effect.gen(function*() {
      const { body, headers } = yield* sent({
        clientId: "client %&+-_.!~*'()",
        clientSecret: Redacted.make("sécret")
      })
      const expected = Buffer.from("client+%25%26%2B-_.%21%7E*%27%28%29:s%C3%A9cret").toString("base64")
      assert.strictEqual(headers["authorization"], `Basic ${expected}`)
      assert.notInclude(body, "client_id")
      assert.notInclude(body, "client_secret")
    }))

  it.effect("carries id and secret plain with basicRaw", () =>
    Effect.gen(function*() {
      const { headers } = yield* sent({
        clientId: "client %&+",
        clientSecret: Redacted.make("a:b %"),
        clientAuthentication: ClientAuthentication.basicRaw
      })
      assert.strictEqual(headers["authorization"], `Basic ${Buffer.from("client %&+:a:b %").toString("base64")}`)
    }))

  it.effect("carries id and secret in the form with post", () =>
    Effect.gen(function*() {
      const { body, headers } = yield* sent({ clientAuthentication: ClientAuthentication.post })
      assert.notProperty(headers, "authorization")
      assert.deepStrictEqual([...new URLSearchParams(body)], [
        ["grant_type", "client_credentials"],
        ["client_id", "client"],
        ["client_secret", secret]
      ])
    }))

  it.effect("of a public client carries client_id in the form: without secret and method the client is public", () =>
    Effect.gen(function*() {
      const { body, headers } = yield* sent({ clientSecret: undefined })
      assert.notProperty(headers, "authorization")
      assert.deepStrictEqual([...new URLSearchParams(body)], [
        ["grant_type", "client_credentials"],
        ["client_id", "client"]
      ])
    }))

  it.effect("carries no secret with none, even where there is one", () =>
    Effect.gen(function*() {
      const { body, headers } = yield* sent({ clientAuthentication: ClientAuthentication.none })
      assert.notProperty(headers, "authorization")
      assert.notProperty(Object.fromEntries(new URLSearchParams(body)), "client_secret")
    }))

  it.effect("keeps the query of the token endpoint (RFC 6749 §3.2), which no error shows", () =>
    Effect.gen(function*() {
      const http = scripted(() => oauthError("invalid_client", 401))
      const error = yield* errorResponse(request(http, { tokenEndpoint: `${url}?tenant=blue&key=hidden` }))
      assert.strictEqual(http.requests[0]?.url, `${url}?tenant=blue&key=hidden`)
      assert.strictEqual(http.requests[0]?.body, "grant_type=client_credentials")
      assert.strictEqual(error.endpoint, url)
      assert.notInclude(inspect(error, { depth: Infinity }), "hidden")
    }))

  it.effect("sends every parameter of the grant, in its order and as often as it is given", () =>
    Effect.gen(function*() {
      const form = UrlParams.fromInput([["grant_type", "x y"], ["resource", "b"], ["resource", "a"]])
      assert.strictEqual((yield* sent({}, form)).body, "grant_type=x+y&resource=b&resource=a")
    }))

  it.effect("goes to a token endpoint given as a URL, on loopback over plain http too", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        (yield* sent({ tokenEndpoint: new URL("http://127.0.0.1:9000/token") })).url,
        "http://127.0.0.1:9000/token"
      )
    }))

  it.effect("is never sent a second time with another method of authentication", () =>
    Effect.gen(function*() {
      for (const status of [400, 401]) {
        const http = scripted(() => oauthError("invalid_client", status))
        yield* errorResponse(request(http))
        assert.strictEqual(http.requests.length, 1)
      }
    }))
})

describe("the token", () => {
  /** A token whose request was sent at second 100. */
  const got = (members: object, overrides?: Overrides, form?: UrlParams.UrlParams) =>
    Effect.gen(function*() {
      yield* TestClock.setTime(100_000)
      const body = JSON.stringify({ access_token: "abc", token_type: "Bearer", ...members })
      return yield* request(scripted(() => new Response(body)), overrides, form)
    })
  const lifetime = (members: object, overrides?: Overrides) =>
    Effect.map(got(members, overrides), ({ expiresAt, issuedAt }) => {
      assert.strictEqual(DateTime.toEpochMillis(issuedAt), 100_000)
      return Option.getOrUndefined(Option.map(expiresAt, (end) => DateTime.toEpochMillis(end) - 100_000))
    })
  const refused = (members: object) =>
    Effect.gen(function*() {
      const http = scripted(() => json({ access_token: "abc", token_type: "Bearer", ...members }))
      const error = yield* invalidResponse(request(http))
      assert.strictEqual(http.requests.length, 1, "an InvalidTokenResponse is never retried")
      assert.strictEqual(error.endpoint, url)
      return error.issue
    })

  it.effect("is that of the answer", () =>
    Effect.gen(function*() {
      const token = yield* got({ expires_in: 60, refresh_token: "r", scope: "a b" })
      assert.strictEqual(Redacted.value(token.value), "abc")
      assert.strictEqual(token.type, "Bearer")
      assert.deepStrictEqual(token.scope, ["a", "b"])
      assert.strictEqual(Redacted.value(Option.getOrThrow(token.refreshToken)), "r")
    }))

  it.effect.each([
    ["a number", 3600, 3_600_000],
    ["a string of digits", "3600", 3_600_000],
    ["a string of digits with spaces around it", " 3600 ", 3_600_000],
    ["a string of digits that begins with zeros", "0060", 60_000],
    ["a fraction, rounded down", 59.99, 59_000],
    ["a fraction of a second, rounded down", 0.9, 0],
    ["0", 0, 0],
    ["\"0\"", "0", 0]
  ])("expires_in is seconds: %s", ([_, expiresIn, millis]) =>
    Effect.gen(function*() {
      assert.strictEqual(yield* lifetime({ expires_in: expiresIn }), millis)
    }))

  it.effect.each(
    [
      ["missing", {}],
      ["null", { expires_in: null }]
    ] as const
  )(
    "expires_in %s: defaultExpiresIn if given, else valid until the API refuses it",
    ([_, members]) =>
      Effect.gen(function*() {
        assert.isUndefined(yield* lifetime(members))
        assert.strictEqual(yield* lifetime(members, { defaultExpiresIn: "5 minutes" }), 300_000)
      })
  )

  it.effect("expires_in is believed in place of defaultExpiresIn", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* lifetime({ expires_in: 60 }, { defaultExpiresIn: "5 minutes" }), 60_000)
    }))

  it.effect.each([
    ["negative", -1],
    ["a little negative", -0.5],
    ["negative digits", "-1"],
    ["a string with a unit", "3600s"],
    ["a date", "2026-11-26T20:00:00Z"],
    ["a string that is not a number", "soon"],
    ["NaN in words", "NaN"],
    ["an empty string", ""],
    ["a boolean", true],
    ["an array", [3600]],
    ["an object", { seconds: 3600 }]
  ])("an expires_in that is %s counts as absent, with a warning", ([_, expiresIn]) =>
    Effect.gen(function*() {
      const { layer, lines } = recordLogs()
      assert.isUndefined(yield* Effect.provide(lifetime({ expires_in: expiresIn }), layer))
      assert.deepStrictEqual(lines.filter(({ level }) => level === "WARN").map(({ message }) => message), [
        "The token response was used, but its expires_in is not a number of seconds and was ignored"
      ])
      assert.strictEqual(
        yield* lifetime({ expires_in: expiresIn }, { defaultExpiresIn: "5 minutes" }),
        300_000
      )
    }))

  it.effect("an odd expires_in logs one warning for all responses", () =>
    Effect.gen(function*() {
      const { layer, lines } = recordLogs()
      const endpoint = yield* make(scripted(() => goodToken("abc", { expires_in: -1 })))
      yield* Effect.provide(Effect.repeatN(endpoint.request(params), 2), layer)
      assert.strictEqual(lines.filter(({ level }) => level === "WARN").length, 1)
    }))

  it.effect("a missing expires_in logs no warning", () =>
    Effect.gen(function*() {
      const { layer, lines } = recordLogs()
      yield* Effect.provide(got({}), layer)
      yield* Effect.provide(got({ expires_in: null }), layer)
      assert.deepStrictEqual(lines.filter(({ level }) => level === "WARN"), [])
    }))

  it.effect.each([
    ["1e300", "1e300"],
    ["1e999, which is Infinity", "1e999"],
    ["a hundred digits", `"${"9".repeat(100)}"`],
    ["four hundred digits, which are Infinity", `"${"9".repeat(400)}"`],
    ["a number that no date can hold", "9007199254740991"]
  ])("expires_in huge is capped, no overflow: %s", ([_, expiresIn]) =>
    Effect.gen(function*() {
      yield* TestClock.setTime(100_000)
      const http = scripted(() =>
        new Response(`{"access_token":"abc","token_type":"Bearer","expires_in":${expiresIn}}`)
      )
      const token = yield* request(http)
      const end = DateTime.toEpochMillis(Option.getOrThrow(token.expiresAt))
      assert.isTrue(Number.isSafeInteger(end))
      assert.isAbove(end, Duration.toMillis("3650 days"))
      assert.isFalse(Number.isNaN(DateTime.toDateUtc(Option.getOrThrow(token.expiresAt)).getTime()))
    }))

  it.effect("its life counts from the moment the request was sent: elapsed time is subtracted", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(100_000)
      const http = scripted(() => Effect.delay(Effect.sync(() => goodToken("abc", { expires_in: 60 })), "3 seconds"))
      const token = yield* eventually(request(http))
      assert.strictEqual(DateTime.toEpochMillis(token.issuedAt), 100_000)
      assert.strictEqual(DateTime.toEpochMillis(Option.getOrThrow(token.expiresAt)), 160_000)
    }))

  it.effect("its life counts from the attempt that brought it, not from the first, nor from the reading of the secret", () =>
    Effect.gen(function*() {
      const http = timed((n) => n === 0 ? oauthError("server_error", 500) : goodToken("abc", { expires_in: 60 }))
      const token = yield* eventually(request(http, {
        clientSecret: Effect.delay(Effect.succeed(Redacted.make(secret)), "2 seconds"),
        tokenRetry: Schedule.spaced("10 seconds")
      }))
      assert.strictEqual(DateTime.toEpochMillis(token.issuedAt), 14_000)
    }))

  it.effect("that has expired already when the answer arrives (a slow endpoint) is handed out with its true end", () =>
    Effect.gen(function*() {
      const http = scripted(() => Effect.delay(Effect.sync(() => goodToken("abc", { expires_in: 2 })), "5 seconds"))
      const token = yield* eventually(request(http))
      assert.strictEqual(DateTime.toEpochMillis(Option.getOrThrow(token.expiresAt)), 2_000)
    }))

  it.effect.each<unknown>([
    "Bearer",
    "bearer",
    "BEARER",
    "BearerToken",
    "Application Access Token",
    "bot",
    "Bearer\r\nX-Evil: 1",
    "",
    null,
    undefined
  ])(
    "token_type %j is presented as Bearer",
    (type) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* got({ token_type: type })).type, "Bearer")
      })
  )

  it.effect.each<unknown>(["mac", "MAC", "hmac", "pop", "DPoP", "dpop", "N_A", 1, true, {}])(
    "token_type %j needs a proof or is not a type of access token: InvalidTokenResponse",
    (type) =>
      Effect.gen(function*() {
        assert.include(yield* refused({ token_type: type }), "token_type")
      })
  )

  it.effect.each([
    ["empty", ""],
    ["missing", undefined],
    ["null", null],
    ["a number", 42],
    ["an object", { token: "abc" }],
    ["with CR", "a\rb"],
    ["with LF", "a\nb"],
    ["with a line break at the end", "ab\n"],
    ["with NUL", "a\0b"],
    ["with a control character", "a\u001bb"],
    ["with DEL", "a\u007fb"],
    ["with a space", "a b"],
    ["with a tab", "a\tb"],
    ["with a letter beyond ASCII", "aéb"]
  ])("access_token %s: InvalidTokenResponse that does not show it", ([_, value]) =>
    Effect.gen(function*() {
      const issue = yield* refused({ access_token: value })
      assert.include(issue, "access_token")
      if (typeof value === "string" && value !== "") assert.notInclude(issue, value)
    }))

  it.effect("has the scopes of the answer, or else those that were asked for (RFC 6749 §5.1)", () =>
    Effect.gen(function*() {
      const form = UrlParams.append(params, "scope", "read write")
      assert.deepStrictEqual((yield* got({}, {}, form)).scope, ["read", "write"])
      assert.deepStrictEqual((yield* got({ scope: null }, {}, form)).scope, ["read", "write"])
      assert.deepStrictEqual((yield* got({ scope: "read" }, {}, form)).scope, ["read"])
      assert.deepStrictEqual((yield* got({ scope: " read  write " }, {}, form)).scope, ["read", "write"])
      assert.deepStrictEqual((yield* got({})).scope, [])
    }))

  it.effect("has a refresh token only where the answer has one that is a text", () =>
    Effect.gen(function*() {
      for (const refresh_token of [undefined, null, "", 42, {}]) {
        assert.isTrue(Option.isNone((yield* got({ refresh_token })).refreshToken))
      }
    }))

  it.effect("is read from an answer in pieces, whose letters are cut in the middle", () =>
    Effect.gen(function*() {
      const bytes = new TextEncoder().encode(
        JSON.stringify({ access_token: "abc", token_type: "Bearer", scope: "prüfen €" })
      )
      const http = scripted(() =>
        new Response(
          new ReadableStream({
            start(controller) {
              for (const byte of bytes) controller.enqueue(Uint8Array.of(byte))
              controller.close()
            }
          })
        )
      )
      assert.deepStrictEqual((yield* request(http)).scope, ["prüfen", "€"])
    }))

  it.effect("is read whatever content type the answer claims, and from any 2xx", () =>
    Effect.gen(function*() {
      const body = JSON.stringify({ access_token: "abc", token_type: "Bearer" })
      for (const type of ["text/plain", "text/html", "application/json;charset=UTF-8"]) {
        const http = scripted(() => new Response(body, { status: 201, headers: { "content-type": type } }))
        assert.strictEqual(Redacted.value((yield* request(http)).value), "abc")
      }
    }))
})

describe("an answer that is an error", () => {
  it.effect("200 with an `error` member: TokenErrorResponse", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({ error: "invalid_scope", access_token: "abc", token_type: "Bearer" }))
      const error = yield* errorResponse(request(http))
      assert.strictEqual(error.status, 200)
      assert.strictEqual(error.error, "invalid_scope")
      assert.strictEqual(http.requests.length, 1)
    }))

  it.effect("200 with `error: null` is no error", () =>
    Effect.gen(function*() {
      const token = yield* request(scripted(() => goodToken("abc", { error: null, error_description: null })))
      assert.strictEqual(Redacted.value(token.value), "abc")
    }))

  it.effect("200 with an `error` that is no text: TokenErrorResponse, never a decoding crash", () =>
    Effect.gen(function*() {
      for (const error of [42, { code: "x" }, ["x"], true]) {
        const response = yield* errorResponse(request(scripted(() => goodToken("abc", { error }))))
        assert.isUndefined(response.error)
        assert.include(response.body, JSON.stringify(error))
      }
    }))

  it.effect("200 with an empty `error` beside a token is a success", () =>
    Effect.gen(function*() {
      for (const error of ["", false, 0, {}]) {
        const token = yield* request(scripted(() => goodToken("abc", { error })))
        assert.strictEqual(Redacted.value(token.value), "abc")
      }
    }))

  it.effect("200 with an empty `error` and without a token: TokenErrorResponse", () =>
    Effect.gen(function*() {
      for (const access_token of [undefined, "", 1]) {
        for (const error of ["", false, 0, {}]) {
          yield* errorResponse(request(scripted(() => json({ error, access_token }))))
        }
      }
    }))

  it.effect("tells status, error, description, URI, endpoint and attempts (RFC 6749 §5.2)", () =>
    Effect.gen(function*() {
      const answer = { error: "invalid_scope", error_description: "no such scope", error_uri: "https://auth.test/why" }
      const error = yield* errorResponse(request(scripted(() => json(answer, { status: 400 }))))
      assert.strictEqual(error.status, 400)
      assert.strictEqual(error.error, "invalid_scope")
      assert.strictEqual(error.errorDescription, "no such scope")
      assert.strictEqual(error.errorUri, "https://auth.test/why")
      assert.strictEqual(error.endpoint, url)
      assert.strictEqual(error.attempts, 1)
      assert.isUndefined(error.retryAfter)
      assert.deepStrictEqual(JSON.parse(error.body), answer)
    }))

  it.effect.each(["my_very_own_code", "Ungültig!", "invalid_client ", "x".repeat(300)])(
    "an unknown error code is kept as it came: %j",
    (code) =>
      Effect.gen(function*() {
        const error = yield* errorResponse(request(scripted(() => oauthError(code, 400)), once))
        assert.strictEqual(error.error, code)
      })
  )

  it.effect.each([
    ["HTML from a proxy", "<html><h1>Welcome</h1></html>"],
    ["an empty text", ""],
    ["an array", "[]"],
    ["an array with an error", "[{\"error\":\"invalid_scope\"}]"],
    ["null", "null"],
    ["a number", "42"],
    ["a string", "\"abc\""],
    ["half a JSON", "{\"error\":\"invalid_scope\",\"error_desc"],
    ["a form", "error=invalid_scope"]
  ])(
    "%s: with 2xx InvalidTokenResponse, else TokenErrorResponse without `error`",
    ([_, text]) =>
      Effect.gen(function*() {
        const ok = scripted(() => new Response(text))
        yield* invalidResponse(request(ok))
        assert.strictEqual(ok.requests.length, 1)
        for (const status of [400, 403, 502]) {
          const error = yield* errorResponse(request(scripted(() => new Response(text, { status })), once))
          assert.strictEqual(error.status, status)
          assert.isUndefined(error.error)
          assert.strictEqual(error.body, text)
        }
      })
  )

  it.effect("an answer without any body (204) is no token: InvalidTokenResponse", () =>
    invalidResponse(request(scripted(() => new Response(null, { status: 204 })))))

  it.effect("an answer without any body (503): TokenErrorResponse with an empty body", () =>
    Effect.gen(function*() {
      const error = yield* errorResponse(request(scripted(() => new Response(null, { status: 503 })), once))
      assert.strictEqual(error.body, "")
    }))

  /** An answer without end, and how much of it was taken. */
  const endless = (status: number, text = "x") => {
    const taken = { bytes: 0, isCancelled: false }
    const piece = new TextEncoder().encode(text.repeat(Math.ceil(64 * 1024 / text.length)))
    const response = new Response(
      new ReadableStream(
        {
          pull(controller) {
            taken.bytes += piece.length
            controller.enqueue(piece)
          },
          cancel() {
            taken.isCancelled = true
          }
        },
        { highWaterMark: 0 }
      ),
      { status }
    )
    return { response, taken }
  }

  it.effect("an answer over 1 MiB: stopped reading, InvalidTokenResponse", () =>
    Effect.gen(function*() {
      const { response, taken } = endless(200)
      const http = scripted(() => response)
      const error = yield* invalidResponse(request(http))
      assert.include(error.issue, "1 MiB")
      assert.isTrue(taken.isCancelled)
      assert.isAtMost(taken.bytes, 1.25 * 1024 * 1024)
      assert.strictEqual(http.requests.length, 1)
    }))

  it.effect("an answer of just 1 MiB is read", () =>
    Effect.gen(function*() {
      const text = JSON.stringify({ access_token: "abc", token_type: "Bearer" })
      const token = yield* request(scripted(() => new Response(text.padEnd(1024 * 1024))))
      assert.strictEqual(Redacted.value(token.value), "abc")
      yield* invalidResponse(request(scripted(() => new Response(text.padEnd(1024 * 1024 + 1)))))
    }))

  it.effect("an error page over 1 MiB: stopped reading, its status and its beginning are told", () =>
    Effect.gen(function*() {
      const { response, taken } = endless(502, "<h1>Bad gateway</h1>")
      const error = yield* errorResponse(request(scripted(() => response), once))
      assert.strictEqual(error.status, 502)
      assert.isTrue(taken.isCancelled)
      assert.isAtMost(new TextEncoder().encode(error.body).length, 4096)
      assert.include(error.body, "Bad gateway")
    }))

  it.effect("an answer in the smallest pieces is read in a time that grows with its size only", () =>
    Effect.gen(function*() {
      let left = 32
      const response = new Response(
        new ReadableStream({
          pull(controller) {
            for (let i = 0; i < 1024; i++) controller.enqueue(Uint8Array.of(0x20))
            if (--left === 0) controller.close()
          }
        })
      )
      const before = process.cpuUsage()
      yield* invalidResponse(request(scripted(() => response)))
      assert.isBelow(process.cpuUsage(before).user / 1000, 3_000)
    }))

  it.effect("a body that breaks off: no answer, TokenRequestError with reason Transport", () =>
    Effect.gen(function*() {
      const http = scripted(() =>
        new Response(
          new ReadableStream({
            start(controller) {
              controller.enqueue(new TextEncoder().encode("{\"access_token\":"))
            },
            pull(controller) {
              controller.error(new Error("socket hang up"))
            }
          })
        )
      )
      const error = yield* failure(request(http))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Transport")
      assert.strictEqual(error.description, "No response: the request failed")
      assert.strictEqual(http.requests.length, 4)
    }))
})

describe("a redirect", () => {
  it.effect.each([301, 302, 303, 307, 308])(
    "%i is not followed: TokenErrorResponse",
    (status) =>
      Effect.gen(function*() {
        const http = scripted(() => new Response(null, { status, headers: { location: "https://evil.test/token" } }))
        const error = yield* errorResponse(request(http))
        assert.strictEqual(error.status, status)
        assert.strictEqual(http.requests.length, 1)
      })
  )

  const overFetch = (requestInit?: RequestInit) =>
    Effect.gen(function*() {
      const inits: Array<RequestInit | undefined> = []
      const fetch: typeof globalThis.fetch = async (_, init) => {
        inits.push(init)
        return new Response(null, { status: 302, headers: { location: "https://evil.test/token" } })
      }
      const error = yield* TokenEndpoint.make({
        tokenEndpoint: url,
        clientId: "client",
        clientSecret: Redacted.make(secret)
      }).pipe(
        Effect.flatMap(({ tokenEndpoint }) => tokenEndpoint.request(params)),
        Effect.provide(FetchHttpClient.layer),
        Effect.provideService(FetchHttpClient.Fetch, fetch),
        requestInit === undefined ? (self) => self : Effect.provideService(FetchHttpClient.RequestInit, requestInit),
        Effect.flip
      )
      assert.instanceOf(error, TokenError.TokenErrorResponse)
      assert.strictEqual(error.status, 302)
      assert.strictEqual(inits.length, 1)
      return inits[0]
    })

  it.effect("over fetch is handed back by redirect: \"manual\"", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* overFetch())?.redirect, "manual")
    }))

  it.effect("over fetch is handed back even where the program asked fetch to follow, whose other wishes are kept", () =>
    Effect.gen(function*() {
      const init = yield* overFetch({ redirect: "follow", credentials: "include" })
      assert.strictEqual(init?.redirect, "manual")
      assert.strictEqual(init?.credentials, "include")
    }))

  it.effect("that a browser hides (status 0): TokenErrorResponse", () =>
    Effect.gen(function*() {
      const error = yield* errorResponse(request(scripted(() => Response.error()), once))
      assert.strictEqual(error.status, 0)
    }))
})

describe("retries", () => {
  const attempts = (
    answer: (n: number, request: Received) => Response | Effect.Effect<Response, HttpClientError.HttpClientError>,
    tokenRetry?: TokenEndpoint.Options["tokenRetry"]
  ) =>
    Effect.gen(function*() {
      const http = timed(answer)
      const error = yield* failure(request(http, { tokenRetry }))
      if (error._tag === "TokenRequestError" || error._tag === "TokenErrorResponse") {
        assert.strictEqual(error.attempts, http.requests.length)
      }
      return http.requests.length
    })

  it.effect("by default makes 3 more attempts, 300 ms apart and doubling, jittered", () =>
    Effect.gen(function*() {
      const http = timed(() => proxyPage(503))
      yield* errorResponse(request(http))
      assertPauses(http.pauses(), [300, 600, 1200])
    }))

  it.effect("are jittered: clients that fail together do not come back together", () =>
    Effect.gen(function*() {
      const pauses = new Set<number | undefined>()
      for (let i = 0; i < 20; i++) {
        const http = timed(() => proxyPage(503))
        yield* errorResponse(request(http, { tokenRetry: { times: 1, base: "5 seconds" } }))
        pauses.add(http.pauses()[0])
      }
      assert.isAbove(pauses.size, 10)
    }))

  it.effect("end with the first success", () =>
    Effect.gen(function*() {
      const http = timed((n) => n < 2 ? proxyPage(503) : goodToken("abc"))
      const token = yield* eventually(request(http))
      assert.strictEqual(Redacted.value(token.value), "abc")
      assert.strictEqual(http.requests.length, 3)
    }))

  it.effect("begin afresh with the next call", () =>
    Effect.gen(function*() {
      const http = timed((n) => n < 4 ? proxyPage(503) : goodToken("abc"))
      const endpoint = yield* make(http)
      const error = yield* errorResponse(endpoint.request(params))
      assert.strictEqual(error.attempts, 4)
      yield* endpoint.request(params)
      assert.strictEqual(http.requests.length, 5)
    }))

  it.effect.each([408, 421, 425, 429, 500, 501, 502, 503, 504])(
    "are made for %i, whatever its body says",
    (status) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* attempts(() => proxyPage(status)), 4)
        assert.strictEqual(yield* attempts(() => oauthError("invalid_client", status)), 4)
      })
  )

  it.effect.each([400, 401, 403, 404, 407, 413, 451])(
    "are never made for %i, with or without an OAuth error",
    (status) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* attempts(() => proxyPage(status)), 1)
        assert.strictEqual(yield* attempts(() => json({ message: "no" }, { status })), 1)
        assert.strictEqual(yield* attempts(() => oauthError("invalid_client", status)), 1)
      })
  )

  it.effect.each(["temporarily_unavailable", "server_error"])(
    "are made for %s with 400, and with no other permanent status",
    (code) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* attempts(() => oauthError(code, 400)), 4)
        for (const status of [200, 401, 403, 404]) {
          assert.strictEqual(yield* attempts(() => oauthError(code, status)), 1, `${status}`)
        }
      })
  )

  it.effect.each([
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "my_own_code"
  ])("are never made for %s on another 4xx or on a 2xx", (code) =>
    Effect.gen(function*() {
      for (const status of [200, 400, 401, 403]) {
        assert.strictEqual(yield* attempts(() => oauthError(code, status)), 1, `${status}`)
      }
    }))

  it.effect("are never made for an InvalidTokenResponse", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* attempts(() => proxyPage(200)), 1)
      assert.strictEqual(yield* attempts(() => json({ access_token: "" })), 1)
    }))

  it.effect("are made without an answer, and the error tells what broke", () =>
    Effect.gen(function*() {
      const cause = new TypeError("fetch failed", { cause: Object.assign(new Error(""), { code: "ECONNREFUSED" }) })
      const http = timed((_, request) => broken(request, cause))
      const error = yield* failure(request(http))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Transport")
      assert.strictEqual(error.attempts, 4)
      assert.strictEqual(error.endpoint, url)
      assert.include(error.message, "ECONNREFUSED")
      assert.strictEqual(http.requests.length, 4)
    }))

  it.effect("times: 0 turns retrying off", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* attempts(() => proxyPage(503), { times: 0 }), 1)
      assert.strictEqual(yield* attempts((_, request) => broken(request), { times: 0 }), 1)
    }))

  it.effect("times: 1 makes one more attempt", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* attempts(() => proxyPage(503), { times: 1 }), 2)
    }))

  it.effect("times: 5, statuses: [500], base: \"300 millis\" is alf's Retry(total=5, status_forcelist=[500], backoff_factor=0.3)", () =>
    Effect.gen(function*() {
      const tokenRetry = { times: 5, statuses: [500], base: "300 millis" } as const
      const http = timed(() => oauthError("server_error", 500))
      const error = yield* errorResponse(request(http, { tokenRetry }))
      assert.strictEqual(error.attempts, 6)
      assertPauses(http.pauses(), [300, 600, 1200, 2400, 4800])
      assert.strictEqual(yield* attempts(() => proxyPage(503), tokenRetry), 1)
      assert.strictEqual(yield* attempts((_, request) => broken(request), tokenRetry), 6)
    }))

  it.effect("statuses replaces all rules about statuses; no answer is retried still", () =>
    Effect.gen(function*() {
      const tokenRetry = { statuses: [401] }
      assert.strictEqual(yield* attempts(() => oauthError("invalid_client", 401), tokenRetry), 4)
      for (const status of [400, 408, 429, 500, 503]) {
        assert.strictEqual(yield* attempts(() => proxyPage(status), tokenRetry), 1, `${status}`)
      }
      assert.strictEqual(yield* attempts(() => oauthError("temporarily_unavailable", 400), tokenRetry), 1)
      assert.strictEqual(yield* attempts((_, request) => broken(request), tokenRetry), 4)
      assert.strictEqual(yield* attempts(() => proxyPage(503), { statuses: [] }), 1)
    }))

  it.effect("statuses does not make an InvalidTokenResponse worth another attempt", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* attempts(() => proxyPage(200), { statuses: [200] }), 1)
    }))

  it.effect("grow by factor, up to maxDelay", () =>
    Effect.gen(function*() {
      const http = timed(() => proxyPage(503))
      yield* errorResponse(
        request(http, { tokenRetry: { times: 5, base: "1 second", factor: 3, maxDelay: "20 seconds" } })
      )
      const pauses = http.pauses()
      assertPauses(pauses.slice(0, 3), [1_000, 3_000, 9_000])
      assert.strictEqual(pauses.length, 5)
      for (const pause of pauses.slice(3)) {
        assert.isAtLeast(pause, 16_000)
        assert.isAtMost(pause, 20_001)
      }
    }))

  it.effect("are at most 10 s apart by default", () =>
    Effect.gen(function*() {
      const http = timed(() => proxyPage(503))
      yield* errorResponse(request(http, { tokenRetry: { times: 12 } }))
      assert.strictEqual(http.requests.length, 13)
      assert.isAtMost(Math.max(...http.pauses()), 10_001)
      assert.isAtLeast(http.pauses().at(-1) ?? 0, 8_000)
    }))

  it.effect("with options that cannot work are a ConfigurationError, of the whole layer too", () =>
    Effect.gen(function*() {
      // what a program in JavaScript may give
      const bad = JSON.parse("\"soon\"")
      for (const tokenRetry of [{ maxDelay: bad }, { base: bad }, { factor: 0 }, { times: -1 }, { statuses: [bad] }]) {
        const options = { tokenEndpoint: url, clientId: "client", origins: ["https://api.test"], tokenRetry }
        const http = scripted(() => goodToken("token"))
        const error = yield* Effect.flip(Effect.scoped(Effect.provide(Alf.make(options), http.layer)))
        assert.strictEqual(error._tag, "ConfigurationError")
      }
    }))

  it.effect("by a Schedule of one's own replace it all: it sees each error and decides", () =>
    Effect.gen(function*() {
      const http = timed(() => proxyPage(200))
      const seen: Array<string> = []
      const tokenRetry = Schedule.intersect(
        Schedule.spaced("7 seconds"),
        Schedule.recurWhile((error: TokenError.TokenError) => seen.push(error._tag) < 3)
      )
      yield* invalidResponse(request(http, { tokenRetry }))
      assert.deepStrictEqual(http.pauses(), [7_000, 7_000])
      assert.deepStrictEqual(seen, ["InvalidTokenResponse", "InvalidTokenResponse", "InvalidTokenResponse"])
    }))

  it.effect("by a Schedule of one's own do not wait for Retry-After", () =>
    Effect.gen(function*() {
      const http = timed(() => new Response(null, { status: 503, headers: { "retry-after": "50" } }))
      yield* errorResponse(request(http, { tokenRetry: Schedule.recurs(2) }))
      assert.deepStrictEqual(http.pauses(), [0, 0])
    }))

  it.effect("by one Schedule are the same for each call", () =>
    Effect.gen(function*() {
      const http = timed(() => proxyPage(503))
      const endpoint = yield* make(http, { tokenRetry: Schedule.recurs(1) })
      yield* errorResponse(endpoint.request(params))
      yield* errorResponse(endpoint.request(params))
      assert.strictEqual(http.requests.length, 4)
    }))
})

describe("Retry-After", () => {
  const refusal = (retryAfter: string, status = 503) =>
    new Response("later", { status, headers: { "retry-after": retryAfter } })

  const pausesFor = (retryAfter: string, tokenRetry: TokenEndpoint.RetryOptions = { times: 1 }) =>
    Effect.gen(function*() {
      const http = timed(() => refusal(retryAfter))
      const error = yield* errorResponse(request(http, { tokenRetry }))
      return { pauses: http.pauses(), error }
    })

  it.effect("in seconds is waited for when it is longer than the schedule's pause", () =>
    Effect.gen(function*() {
      const { error, pauses } = yield* pausesFor("7", { times: 2 })
      assert.deepStrictEqual(pauses, [7_000, 7_000])
      assert.deepStrictEqual(error.retryAfter, Duration.seconds(7))
    }))

  it.effect("that is shorter than the schedule's pause shortens nothing", () =>
    Effect.gen(function*() {
      assertPauses((yield* pausesFor("1", { times: 1, base: "5 seconds" })).pauses, [5_000])
      assertPauses((yield* pausesFor("0")).pauses, [300])
    }))

  it.effect("as a date is waited for", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.UTC(2026, 10, 21, 12, 0, 0))
      const { error, pauses } = yield* pausesFor("Sat, 21 Nov 2026 12:00:30 GMT")
      assert.deepStrictEqual(pauses, [30_000])
      assert.strictEqual(error.attempts, 2)
      assert.deepStrictEqual(error.retryAfter, Duration.zero)
    }))

  it.effect("as a date that is over is not waited for", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.UTC(2026, 10, 21, 12, 0, 0))
      assertPauses((yield* pausesFor("Sat, 21 Nov 2026 11:00:00 GMT")).pauses, [300])
    }))

  it.effect("goes beyond maxDelay: the server's word counts", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* pausesFor("30", { times: 1, maxDelay: "1 second" })).pauses, [30_000])
    }))

  it.effect("up to 60 s is waited for", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* pausesFor("60")).pauses, [60_000])
    }))

  it.effect.each(["61", "3600", "9".repeat(400)])(
    "longer than 60 s (%s) ends the retries, with retryAfter in the error",
    (seconds) =>
      Effect.gen(function*() {
        const { error, pauses } = yield* pausesFor(seconds, { times: 3 })
        assert.deepStrictEqual(pauses, [])
        assert.strictEqual(error.attempts, 1)
        assert.deepStrictEqual(error.retryAfter, Duration.seconds(Math.min(Number(seconds), 2 ** 31 - 1)))
      })
  )

  it.effect("as a date further than 60 s away ends the retries", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.UTC(2026, 10, 21, 12, 0, 0))
      const { error, pauses } = yield* pausesFor("Sat, 21 Nov 2026 12:05:00 GMT")
      assert.deepStrictEqual(pauses, [])
      assert.deepStrictEqual(error.retryAfter, Duration.minutes(5))
    }))

  it.effect.each(["soon", "", "later, much later"])(
    "that is neither (%j) is not heeded",
    (text) =>
      Effect.gen(function*() {
        const { error, pauses } = yield* pausesFor(text)
        assertPauses(pauses, [300])
        assert.isUndefined(error.retryAfter)
      })
  )

  it.effect("does not make a permanent refusal worth another attempt", () =>
    Effect.gen(function*() {
      const http = timed(() => oauthError("invalid_client", 401, { headers: { "retry-after": "5" } }))
      const error = yield* errorResponse(request(http))
      assert.strictEqual(http.requests.length, 1)
      assert.deepStrictEqual(error.retryAfter, Duration.seconds(5))
    }))
})

describe("the time-out", () => {
  it.effect("of one attempt is 10 s by default: TokenRequestError with reason Timeout, retried", () =>
    Effect.gen(function*() {
      const http = timed(() => Effect.never)
      const error = yield* failure(request(http))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Timeout")
      assert.strictEqual(error.attempts, 4)
      assert.include(error.message, "10s")
      assertPauses(http.pauses().map((pause) => pause - 10_000), [300, 600, 1200])
    }))

  it.effect("is tokenTimeout, for each attempt anew", () =>
    Effect.gen(function*() {
      const http = timed((n) => n < 2 ? Effect.never : Effect.delay(Effect.sync(() => goodToken("abc")), "1900 millis"))
      const token = yield* eventually(request(http, { tokenTimeout: "2 seconds" }))
      assert.strictEqual(Redacted.value(token.value), "abc")
      assert.strictEqual(http.requests.length, 3)
    }))

  it.effect("interrupts the request", () =>
    Effect.gen(function*() {
      const interrupted = yield* Deferred.make<void>()
      const http = scripted(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, void 0)))
      yield* failure(request(http, once))
      assert.isTrue(yield* Deferred.isDone(interrupted))
    }))

  it.effect("covers the body: an answer that stalls half-way is given up, and its connection closed", () =>
    Effect.gen(function*() {
      let isCancelled = false
      const http = scripted(() =>
        new Response(
          new ReadableStream({
            start(controller) {
              controller.enqueue(new TextEncoder().encode("{\"access_token\":"))
            },
            cancel() {
              isCancelled = true
            }
          })
        )
      )
      const error = yield* failure(request(http, once))
      assert.strictEqual(error._tag, "TokenRequestError")
      assert.isTrue(isCancelled)
    }))

  it.effect("covers a secret Effect that hangs", () =>
    Effect.gen(function*() {
      const http = scripted(() => goodToken("abc"))
      const error = yield* failure(request(http, { clientSecret: Effect.never, tokenRetry: { times: 1 } }))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Timeout")
      assert.strictEqual(error.attempts, 2)
      assert.strictEqual(http.requests.length, 0)
    }))

  it.effect("does not wait for a secret or a client that cannot be interrupted", () =>
    Effect.gen(function*() {
      const stuck = Effect.uninterruptible(Effect.never)
      for (
        const [http, overrides] of [
          [scripted(() => goodToken("abc")), { clientSecret: stuck }],
          [scripted(() => stuck), {}]
        ] as const
      ) {
        const error = yield* failure(request(http, { ...once, ...overrides }))
        assert.instanceOf(error, TokenError.TokenRequestError)
        assert.strictEqual(error.reason, "Timeout")
      }
    }))

  it.effect("leaves no request behind when the caller is interrupted", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const http = scripted(() =>
        Effect.zipRight(
          Deferred.succeed(started, void 0),
          Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, void 0))
        )
      )
      const fiber = yield* Effect.fork(request(http))
      yield* Deferred.await(started)
      const exit = yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.isInterrupted(exit))
      yield* Deferred.await(interrupted)
    }))
})

describe("the secret", () => {
  it.effect("given as an Effect is read for each attempt: every attempt is made anew", () =>
    Effect.gen(function*() {
      const counter = yield* Ref.make(0)
      const clientSecret = Effect.map(Ref.updateAndGet(counter, (n) => n + 1), (n) => Redacted.make(`secret-${n}`))
      const http = timed((n) => n < 2 ? proxyPage(503) : goodToken("abc"))
      const endpoint = yield* make(http, { clientSecret })
      assert.strictEqual(yield* Ref.get(counter), 0, "not read before it is needed")
      yield* eventually(endpoint.request(params))
      yield* endpoint.request(params)
      assert.deepStrictEqual(
        http.requests.map(({ headers }) => headers["authorization"]),
        ["secret-1", "secret-2", "secret-3", "secret-4"].map((text) =>
          `Basic ${Buffer.from(`client:${text}`).toString("base64")}`
        )
      )
    }))

  it.effect("that cannot be read: TokenRequestError with reason Secret, whose text is not shown", () =>
    Effect.gen(function*() {
      const http = scripted(() => goodToken("abc"))
      const error = yield* failure(request(http, { ...once, clientSecret: Effect.fail(new Error("MARKED vault")) }))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Secret")
      assert.strictEqual(error.description, "The client secret could not be read")
      assert.strictEqual(error.endpoint, url)
      assert.strictEqual(http.requests.length, 0)
      assert.notInclude(inspect(error, { depth: Infinity, showHidden: true }), "MARKED")
      assert.notInclude(Cause.pretty(Cause.fail(error)), "MARKED")
    }))

  it.effect("that cannot be read once is read again", () =>
    Effect.gen(function*() {
      const counter = yield* Ref.make(0)
      const clientSecret = Effect.flatMap(
        Ref.updateAndGet(counter, (n) => n + 1),
        (n) => n < 3 ? Effect.fail("vault is sealed") : Effect.succeed(Redacted.make("open"))
      )
      const http = scripted(() => goodToken("abc"))
      yield* eventually(request(http, { clientSecret }))
      assert.strictEqual(http.requests.length, 1)
      assert.strictEqual(yield* Ref.get(counter), 3)
    }))

  it.effect("whose Effect dies is a secret that cannot be read: the defect's text is not shown", () =>
    Effect.gen(function*() {
      const http = scripted(() => goodToken("abc"))
      const clientSecret = Effect.promise(() => Promise.reject(new Error("MARKED vault")))
      const exit = yield* eventually(Effect.exit(request(http, { ...once, clientSecret })))
      assert.notInclude(inspect(exit, { depth: Infinity, showHidden: true }), "MARKED")
      const error = Option.getOrThrow(Option.flatMap(Exit.causeOption(exit), Cause.failureOption))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Secret")
    }))

  const clientId = "client"
  const marked = "m/A\"R\\K+é d&<"
  const credentials = Buffer.from(
    `${clientId}:${new URLSearchParams({ "": marked }).toString().slice(1)}`
  ).toString("base64")
  const asciiJson = JSON.stringify(marked).slice(1, -1).replace(
    /[^\x20-\x7e]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`
  )

  it.effect.each<readonly [string, string]>([
    ["as it is", marked],
    ["form-encoded", new URLSearchParams({ "": marked }).toString().slice(1)],
    ["percent-encoded", encodeURIComponent(marked)],
    ["percent-encoded in lower case", encodeURIComponent(marked).replace(/%../g, (code) => code.toLowerCase())],
    ["JSON-escaped", JSON.stringify(marked).slice(1, -1)],
    ["JSON-escaped with slashes escaped, as PHP does", JSON.stringify(marked).slice(1, -1).replaceAll("/", "\\/")],
    ["JSON-escaped to ASCII, as Python does", asciiJson],
    ["HTML-escaped", marked.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("\"", "&quot;")],
    ["as the credentials of the header", credentials],
    ["as the whole header", `Basic ${credentials}`]
  ])(
    "is struck out of the body, in every writing in which a server may echo it: %s",
    ([_, echo]) =>
      Effect.gen(function*() {
        const http = scripted(() => new Response(`<p>You sent [${echo}], twice: [${echo}]</p>`, { status: 400 }))
        const error = yield* errorResponse(request(http, { ...once, clientId, clientSecret: Redacted.make(marked) }))
        assert.notInclude(error.body, echo)
        assert.match(error.body, /^<p>You sent \[.*redacted.*\], twice: \[.*redacted.*\]<\/p>$/)
      })
  )

  it.effect("is struck out of a JSON body, and of its members", () =>
    Effect.gen(function*() {
      const http = scripted(() =>
        json({
          error: `bad secret ${marked}`,
          error_description: `secret ${marked} of ${credentials} is wrong`,
          error_uri: `https://auth.test/why?secret=${encodeURIComponent(marked)}`
        }, { status: 400 })
      )
      const error = yield* errorResponse(request(http, { ...once, clientId, clientSecret: Redacted.make(marked) }))
      assert.strictEqual(error.error, "bad secret <redacted>")
      assert.strictEqual(error.errorDescription, "secret <redacted> of <redacted> is wrong")
      assert.strictEqual(error.errorUri, "https://auth.test/why?secret=<redacted>")
      assert.notInclude(error.body, JSON.stringify(marked).slice(1, -1))
      assert.notInclude(error.message, marked)
    }))

  it.effect("is struck out before the body is cut, so that no half of it is left at the end", () =>
    Effect.gen(function*() {
      const long = "abcdefghijklmnopqrstuvwxyz0123456789"
      const http = scripted(() => new Response(" ".repeat(4096 - 10) + long, { status: 400 }))
      const error = yield* errorResponse(request(http, { ...once, clientSecret: Redacted.make(long) }))
      assert.notInclude(error.body, long.slice(0, 5))
    }))

  it.effect("is not part of a failure or a defect of the client below, whatever that quotes", () =>
    Effect.gen(function*() {
      const quoting = new Error(`cannot send Basic ${credentials} or ${marked}`, { cause: { raw: marked } })
      const failures = [
        (request: Received) => broken(request, quoting),
        () => Effect.die(quoting),
        () => Effect.die(marked),
        () => {
          throw quoting
        }
      ]
      for (const respond of failures) {
        const http = scripted(respond)
        const exit = yield* eventually(
          Effect.exit(request(http, { ...once, clientId, clientSecret: Redacted.make(marked) }))
        )
        const error = Option.getOrThrow(Option.flatMap(Exit.causeOption(exit), Cause.failureOption))
        assert(error._tag === "TokenRequestError")
        assert.strictEqual(error.reason, "Transport")
        assert.strictEqual(error.description, "No response: the request failed")
        const shown = `${inspect(exit, { depth: Infinity, showHidden: true })}${JSON.stringify(exit)}`
        for (const part of [marked, credentials, JSON.stringify(marked).slice(1, -1)]) assert.notInclude(shown, part)
      }
    }))

  it.effect("of post, and refresh tokens, codes and assertions of the form are struck out too", () =>
    Effect.gen(function*() {
      const form = UrlParams.fromInput({
        grant_type: "refresh_token",
        refresh_token: "MARKED-1",
        code: "MARKED-2",
        code_verifier: "MARKED-3",
        assertion: "MARKED-4",
        client_assertion: "MARKED-5",
        password: "MARKED-6",
        subject_token: "MARKED-7",
        device_code: "MARKED-8"
      })
      const http = scripted(({ body }) => new Response(`You sent ${body}`, { status: 400 }))
      const error = yield* errorResponse(
        request(http, {
          ...once,
          clientAuthentication: ClientAuthentication.post,
          clientSecret: Redacted.make("MARKED-9")
        }, form)
      )
      assert.include(error.body, "grant_type=refresh_token")
      assert.notInclude(inspect(error, { depth: Infinity }), "MARKED")
    }))

  it.effect("tokens in an answer that is an error are struck out", () =>
    Effect.gen(function*() {
      const answer = { error: "odd", access_token: "MARKED-1", refresh_token: "MARKED-2", id_token: "MARKED-3" }
      for (const status of [200, 400]) {
        const error = yield* errorResponse(request(scripted(() => json(answer, { status })), once))
        assert.include(error.body, "odd")
        assert.notInclude(inspect(error, { depth: Infinity }), "MARKED")
      }
    }))

  it.effect.each<readonly [string, string]>([
    ["a form", "access_token=MARKED-1&refresh_token=MARKED-2&token_type=bearer"],
    ["half a JSON", "{\"token_type\":\"Bearer\", \"access_token\" : \"MARKED-1\", \"refresh_token\": \"MARKED-2"],
    ["members of a member", JSON.stringify({ data: { access_token: "MARKED-1" }, list: [{ id_token: "MARKED-2" }] })],
    ["the beginning of an answer over 1 MiB", `{"access_token":"MARKED-1","padding":"${"x".repeat(1024 * 1024)}"}`]
  ])(
    "tokens in an answer that is an error are struck out where it is no OAuth answer: %s",
    ([_, text]) =>
      Effect.gen(function*() {
        const error = yield* errorResponse(request(scripted(() => new Response(text, { status: 500 })), once))
        assert.notInclude(inspect(error, { depth: Infinity }), "MARKED")
      })
  )

  it.effect("a token with half a character in an answer that is an error is no crash", () =>
    Effect.gen(function*() {
      const http = scripted(() =>
        new Response("{\"error\":\"invalid_scope\",\"access_token\":\"\\ud800\"}", { status: 400 })
      )
      const error = yield* errorResponse(request(http, once))
      assert.strictEqual(error.error, "invalid_scope")
    }))

  it.effect("with half a character is no crash", () =>
    Effect.gen(function*() {
      const http = scripted(() => oauthError("invalid_client", 401))
      const error = yield* errorResponse(request(http, { clientSecret: Redacted.make("\ud800") }))
      assert.strictEqual(error.error, "invalid_client")
    }))
})

describe("the body in an error", () => {
  it.effect("is at most 4 KiB", () =>
    Effect.gen(function*() {
      const error = yield* errorResponse(
        request(scripted(() => new Response("x".repeat(10_000), { status: 400 })), once)
      )
      assert.strictEqual(error.body, "x".repeat(4096))
    }))

  it.effect("is at most 4 KiB of UTF-8, no character cut", () =>
    Effect.gen(function*() {
      const error = yield* errorResponse(
        request(scripted(() => new Response("a" + "€".repeat(5_000), { status: 400 })), once)
      )
      assert.strictEqual(error.body, "a" + "€".repeat(1365))
    }))

  it.effect("leaves no long words in the other fields either", () =>
    Effect.gen(function*() {
      const long = "x".repeat(10_000)
      const answer = { error: long, error_description: long, error_uri: long }
      const error = yield* errorResponse(request(scripted(() => json(answer, { status: 400 }))))
      assert.isAtMost(error.error?.length ?? 0, 4096)
      assert.isAtMost(error.errorDescription?.length ?? 0, 4096)
      assert.isAtMost(error.errorUri?.length ?? 0, 4096)
    }))
})

describe("a client that turns statuses into errors (filterStatusOk below)", () => {
  const filtered = (http: Scripted): Scripted => {
    const client = HttpClient.filterStatusOk(http.client)
    return { ...http, client, layer: Layer.succeed(HttpClient.HttpClient, client) }
  }

  it.effect("makes no difference: its ResponseError is read as the answer it carries", () =>
    Effect.gen(function*() {
      const answers = [
        () => json({ error: "invalid_scope", error_description: "no" }, { status: 400 }),
        () => oauthError("invalid_client", 401),
        () => proxyPage(502),
        () => new Response(null, { status: 302, headers: { location: "https://evil.test" } }),
        () => new Response("later", { status: 503, headers: { "retry-after": "3" } })
      ]
      for (const answer of answers) {
        const plain = timed(answer)
        const under = timed(answer)
        const expected = yield* errorResponse(request(plain))
        const error = yield* errorResponse(request(filtered(under)))
        assert.deepStrictEqual(Object.entries(error), Object.entries(expected))
        assert.strictEqual(under.requests.length, plain.requests.length)
      }
    }))

  it.effect("gives a token as the client below it does", () =>
    Effect.gen(function*() {
      const token = yield* request(filtered(scripted(() => goodToken("abc"))))
      assert.strictEqual(Redacted.value(token.value), "abc")
    }))

  it.effect("other errors of a client are no answer: TokenRequestError", () =>
    Effect.gen(function*() {
      const http = scripted(({ request }) =>
        Effect.fail(
          new HttpClientError.ResponseError({
            request,
            response: HttpClientResponse.fromWeb(request, new Response("{}")),
            reason: "Decode",
            description: "gzip is broken"
          })
        )
      )
      const error = yield* failure(request(http, once))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.strictEqual(error.reason, "Transport")
      assert.notInclude(error.message, "gzip is broken")
    }))

  it.effect("a client that sets headers or a base URL of its own is used as it is", () =>
    Effect.gen(function*() {
      const http = scripted(() => goodToken("abc"))
      const client = HttpClient.mapRequest(http.client, HttpClientRequest.setHeader("x-tenant", "blue"))
      yield* request({ ...http, client, layer: Layer.succeed(HttpClient.HttpClient, client) })
      assert.strictEqual(http.requests[0]?.headers["x-tenant"], "blue")
    }))
})

describe("identity", () => {
  const identity = (overrides?: Overrides) =>
    Effect.map(make(scripted(() => goodToken("abc")), overrides), (endpoint) => endpoint.identity)

  it.effect("is the same for the same endpoint, client and method, whatever the secret", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* identity(), yield* identity({ clientSecret: Redacted.make("rotated") }))
      assert.strictEqual(yield* identity(), yield* identity({ tokenEndpoint: new URL(url) }))
    }))

  it.effect("differs as soon as one of them differs", () =>
    Effect.gen(function*() {
      const all = [
        yield* identity(),
        yield* identity({ tokenEndpoint: "https://other.test/token" }),
        yield* identity({ tokenEndpoint: `${url}?tenant=blue` }),
        yield* identity({ clientId: "other" }),
        yield* identity({ clientAuthentication: ClientAuthentication.post }),
        yield* identity({ clientAuthentication: ClientAuthentication.basicRaw }),
        yield* identity({ clientAuthentication: ClientAuthentication.none })
      ]
      assert.strictEqual(new Set(all).size, all.length)
    }))

  it.effect("holds no secret", () =>
    Effect.gen(function*() {
      assert.notInclude(yield* identity({ clientSecret: Redacted.make("MARKED") }), "MARKED")
    }))
})

describe("what is seen", () => {
  const outcomes = ["success", "TokenErrorResponse", "TokenRequestError", "InvalidTokenResponse"] as const
  const counts = Effect.forEach(outcomes, (outcome) =>
    Effect.map(
      Metric.value(Metric.tagged(TokenMetrics.tokenRequests, "outcome", outcome)),
      ({ count }) => Number(count)
    ))

  /** By how much each outcome went up. */
  const counted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const before = yield* counts
      yield* eventually(Effect.exit(effect))
      const after = yield* counts
      return Object.fromEntries(outcomes.map((outcome, i) => [outcome, (after[i] ?? 0) - (before[i] ?? 0)]))
    })

  it.effect("alf_token_requests counts each attempt by its outcome", () =>
    Effect.gen(function*() {
      const none = { success: 0, TokenErrorResponse: 0, TokenRequestError: 0, InvalidTokenResponse: 0 }
      assert.deepStrictEqual(
        yield* counted(request(timed((n) => n < 2 ? proxyPage(503) : goodToken("abc")))),
        { ...none, success: 1, TokenErrorResponse: 2 }
      )
      assert.deepStrictEqual(
        yield* counted(request(scripted(broken))),
        { ...none, TokenRequestError: 4 }
      )
      assert.deepStrictEqual(
        yield* counted(request(scripted(() => Effect.never), once)),
        { ...none, TokenRequestError: 1 }
      )
      assert.deepStrictEqual(
        yield* counted(request(scripted(() => proxyPage(200)))),
        { ...none, InvalidTokenResponse: 1 }
      )
    }))

  it.effect("the metrics are called alf_token_requests (tag outcome) and alf_token_request_duration", () =>
    Effect.gen(function*() {
      yield* request(scripted(() => goodToken("abc")))
      const names = (yield* Metric.snapshot).map(({ metricKey }) =>
        [metricKey.name, ...metricKey.tags.map(({ key, value }) => `${key}=${value}`)].join(" ")
      )
      assert.include(names, "alf_token_requests outcome=success")
      assert.include(names, "alf_token_request_duration time_unit=milliseconds")
    }))

  it.effect("alf_token_request_duration times each attempt, pauses left out", () =>
    Effect.gen(function*() {
      const before = yield* Metric.value(TokenMetrics.tokenRequestDuration)
      const http = scripted((_, n) =>
        Effect.delay(Effect.sync(() => n === 0 ? proxyPage(503) : goodToken("abc")), "2 seconds")
      )
      yield* eventually(request(http))
      const after = yield* Metric.value(TokenMetrics.tokenRequestDuration)
      assert.strictEqual(after.count - before.count, 2)
      assert.closeTo(after.sum - before.sum, 4_000, 1)
    }))

  it.effect("what broke is told by its code, in fixed words", () =>
    Effect.gen(function*() {
      const told = (cause: unknown) =>
        Effect.map(failure(request(scripted((request) => broken(request, cause)), once)), (error) => {
          assert(error._tag === "TokenRequestError")
          return error.description
        })
      const withCode = (code: unknown, cause?: unknown) => Object.assign(new Error("quotes", { cause }), { code })
      for (const cause of [undefined, "text", 1, new Error("quotes"), withCode(7), withCode("a code\n")]) {
        assert.strictEqual(yield* told(cause), "No response: the request failed")
      }
      assert.strictEqual(yield* told(withCode("ENOTFOUND")), "No response: the host was not found (ENOTFOUND)")
      assert.strictEqual(
        yield* told(new Error("fetch failed", { cause: withCode("ECONNREFUSED") })),
        "No response: the connection was refused (ECONNREFUSED)"
      )
      assert.strictEqual(
        yield* told(new AggregateError([withCode("ETIMEDOUT")])),
        "No response: the connection timed out (ETIMEDOUT)"
      )
      assert.strictEqual(yield* told(withCode("E_UNHEARD_OF")), "No response: the request failed (E_UNHEARD_OF)")
      const hostile = Object.defineProperty(new Error(""), "cause", {
        get: () => {
          throw new Error("mine")
        }
      })
      assert.strictEqual(yield* told(hostile), "No response: the request failed")
      const loop = new Error("")
      loop.cause = loop
      assert.strictEqual(yield* told(loop), "No response: the request failed")
    }))

  it.effect("a debug log line for each attempt, annotated with package and module; none at info", () =>
    Effect.gen(function*() {
      const { layer, lines } = recordLogs()
      const http = timed((n) => n === 0 ? proxyPage(503) : goodToken("abc"))
      yield* Effect.provide(eventually(request(http)), layer)
      assert.deepStrictEqual(lines.map(({ message }) => message), [
        `token request {"endpoint":"${url}","outcome":"TokenErrorResponse"}`,
        `token request {"endpoint":"${url}","outcome":"success"}`
      ])
      for (const line of lines) {
        assert.strictEqual(line.level, "DEBUG")
        assert.strictEqual(line.annotations["package"], "effect-alf")
        assert.strictEqual(line.annotations["module"], "TokenEndpoint")
      }
    }))

  it.effect("one span TokenEndpoint.request around all attempts, within the caller's", () =>
    Effect.gen(function*() {
      const { layer, named, spans } = recordSpans()
      const http = timed((n) => n === 0 ? proxyPage(503) : goodToken("abc"))
      yield* eventually(request(http, { tokenEndpoint: `${url}?key=hidden` })).pipe(
        Effect.withSpan("caller"),
        Effect.provide(layer)
      )
      const [span, ...rest] = named("TokenEndpoint.request")
      assert.deepStrictEqual(rest, [])
      assert.strictEqual(Option.getOrUndefined(span?.parent ?? Option.none())?.spanId, named("caller")[0]?.spanId)
      assert.strictEqual(span?.attributes.get("endpoint"), url)
      assert.strictEqual(span?.status._tag, "Ended")
      const sent = spans.filter(({ kind }) => kind === "client")
      assert.strictEqual(sent.length, 2)
      for (const { parent } of sent) {
        assert.strictEqual(Option.getOrUndefined(parent)?.spanId, span?.spanId)
      }
    }))
})
