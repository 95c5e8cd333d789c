/** The token endpoint's answers, read and decoded. */
import { Headers, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Either } from "effect"
import {
  decodeMembers,
  type MapTokenResponse,
  type RawResponse,
  readTokenResponse
} from "../../../src/internal/endpoint/readTokenResponse.ts"

const endpoint = "https://auth.test/token"
const token = JSON.stringify({ access_token: "abc", token_type: "Bearer" })

interface Given extends Partial<RawResponse> {
  readonly secrets?: ReadonlyArray<string>
  readonly mapTokenResponse?: MapTokenResponse
}

const decode = (text: string, { mapTokenResponse, secrets = [], ...response }: Given = {}) =>
  decodeMembers({
    text,
    status: 200,
    headers: Headers.empty,
    retryAfter: undefined,
    location: undefined,
    date: undefined,
    isCut: false,
    encoding: undefined,
    ...response
  }, { endpoint, attempts: 1, secrets, mapTokenResponse })

const refusal = (...args: Parameters<typeof decode>) => {
  const error = Either.getOrThrowWith(Either.flip(decode(...args)), () => new Error("it is a token"))
  if (error._tag !== "TokenErrorResponse") throw error
  return error
}

const invalid = (...args: Parameters<typeof decode>) => {
  const error = Either.getOrThrowWith(Either.flip(decode(...args)), () => new Error("it is a token"))
  if (error._tag !== "InvalidTokenResponse") throw error
  return error.issue
}

describe("decodeMembers", () => {
  const registered = [
    // RFC 6749 §4.1.2.1, §5.2, RFC 8707 §2
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "server_error",
    "temporarily_unavailable"
  ]
  for (const code of registered) {
    it(`shows ${code}, even where a secret is part of it`, () => {
      const { body, error } = refusal(JSON.stringify({ error: code }), { status: 400, secrets: [code.slice(2)] })
      assert.strictEqual(error, code)
      assert.notInclude(body, code)
    })
  }

  it("strikes a secret out of any other code", () => {
    const { error } = refusal(JSON.stringify({ error: "bad_hunter2" }), { status: 400, secrets: ["hunter2"] })
    assert.strictEqual(error, "bad_<redacted>")
  })

  it("strikes a secret out of the hint that names a redirect's URL", () => {
    const error = refusal("", {
      status: 302,
      location: "https://auth.test/login/a-long-client-secret",
      secrets: ["a-long-client-secret"]
    })
    assert.include(error.hint, "https://auth.test/login/")
    assert.notInclude(`${error.hint}${error.message}`, "a-long-client-secret")
  })

  it("takes only a 2xx for a success", () => {
    for (const status of [200, 201, 299]) assert.isTrue(Either.isRight(decode(token, { status })), `${status}`)
    for (const status of [199, 300, 302, 400, 500]) assert.strictEqual(refusal(token, { status }).status, status)
  })

  it("says what is wrong with a response that is not a JSON object", () => {
    for (const text of ["", "<html>", "null", "1", "[]", "\"text\"", "{"]) {
      assert.strictEqual(invalid(text), "it is not a JSON object", text)
    }
    assert.strictEqual(invalid(token, { isCut: true }), "it is longer than 1 MiB")
  })
})

describe("readTokenResponse", () => {
  const mebibyte = 1024 * 1024
  const read = (length: number, headers: Readonly<Record<string, string>> = {}) =>
    readTokenResponse(HttpClientResponse.fromWeb(
      HttpClientRequest.get(endpoint),
      new Response(new Uint8Array(length).fill(97), { headers })
    ))
  const lengthOf = (...args: Parameters<typeof read>) =>
    Effect.map(read(...args), ({ isCut, text }) => [text.length >= mebibyte ? "long" : text.length, isCut])

  it.effect("reads an answer of 1 MiB, and cuts a longer one", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* lengthOf(0), [0, false])
      assert.deepStrictEqual(yield* lengthOf(10), [10, false])
      assert.deepStrictEqual(yield* lengthOf(mebibyte), ["long", false])
      assert.deepStrictEqual(yield* lengthOf(mebibyte + 1), ["long", true])
    }))

  it.effect("an answer that is shorter than it says broke off", () =>
    Effect.gen(function*() {
      for (const length of [0, 10, mebibyte]) {
        const error = yield* Effect.flip(read(length, { "content-length": `${length + 1}` }))
        assert.strictEqual(error.reason, "Decode")
        assert.strictEqual(error.description, "the connection broke in the middle of the response")
        assert.strictEqual(error.request.url, endpoint)
        assert.strictEqual(error.response.status, 200)
      }
    }))

  it.effect("an answer is not judged by a length that says nothing of it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* lengthOf(10, { "content-length": "10" }), [10, false])
      assert.deepStrictEqual(yield* lengthOf(10, { "content-length": "5" }), [10, false])
      assert.deepStrictEqual(yield* lengthOf(10, { "content-length": "20", "content-encoding": "gzip" }), [10, false])
      // what was cut off is no broken connection
      assert.deepStrictEqual(yield* lengthOf(mebibyte + 1, { "content-length": `${2 * mebibyte}` }), ["long", true])
    }))

  const headersOf = (headers: Readonly<Record<string, string>>, body: BodyInit | null = "") =>
    readTokenResponse(
      HttpClientResponse.fromWeb(HttpClientRequest.post(endpoint), new Response(body, { status: 503, headers }))
    )

  it.effect("reads Retry-After: seconds or a date, at most 2^31 - 1 seconds (RFC 9110 §10.2.3)", () =>
    Effect.gen(function*() {
      const pause = (retryAfter: string) =>
        Effect.map(
          headersOf({ "retry-after": retryAfter }),
          (read) => read.retryAfter === undefined ? null : Duration.toMillis(read.retryAfter)
        )
      assert.strictEqual(yield* pause("120"), 120_000)
      assert.strictEqual(yield* pause("0"), 0)
      assert.strictEqual(yield* pause("Thu, 01 Jan 1970 00:01:01 GMT"), 61_000)
      assert.strictEqual(yield* pause("9".repeat(300)), 1000 * (2 ** 31 - 1))
      assert.strictEqual(yield* pause("Fri, 31 Dec 9999 23:59:59 GMT"), 1000 * (2 ** 31 - 1))
      for (const nonsense of ["", "-5", "5.5", "5x", "x5", "5 5", "soon", `${"x".repeat(200)} 1 Jan 2030`]) {
        assert.isNull(yield* pause(nonsense), nonsense)
      }
      assert.isUndefined((yield* headersOf({})).retryAfter)
    }))

  it.effect("reads a date in Retry-After against the Date of the response", () =>
    Effect.gen(function*() {
      const { date, retryAfter } = yield* headersOf({
        "retry-after": "Sat, 21 Nov 2026 12:00:30 GMT",
        date: "Sat, 21 Nov 2026 12:00:00 GMT"
      })
      assert.strictEqual(date, Date.UTC(2026, 10, 21, 12))
      assert.deepStrictEqual(retryAfter, Duration.seconds(30))
    }))

  it.effect("tells where a redirect leads, without query and fragment", () =>
    Effect.gen(function*() {
      const to = (location: string) => Effect.map(headersOf({ location }), (read) => read.location)
      assert.strictEqual(yield* to("https://b.test/token/?key=SECRET#x"), "https://b.test/token/")
      assert.strictEqual(yield* to("/token/?key=SECRET"), "https://auth.test/token/")
      assert.isUndefined(yield* to("http://["))
      assert.isUndefined(yield* to(`/${"x".repeat(3000)}`))
    }))

  const compressed = (text: string, format: CompressionFormat) =>
    Effect.promise(() =>
      new Response(new Blob([text]).stream().pipeThrough(new CompressionStream(format))).arrayBuffer()
    )

  it.effect.each(
    [
      ["gzip", "gzip"],
      ["GZIP", "gzip"],
      ["x-gzip", "gzip"],
      ["deflate", "deflate"],
      ["deflate", "deflate-raw"],
      ["deflate", "gzip"]
    ] as const
  )("decodes a body whose Content-Encoding is %s, written as %s", ([encoding, format]) =>
    Effect.gen(function*() {
      const body = yield* compressed(token, format)
      const read = yield* headersOf({ "content-encoding": encoding, "content-length": `${body.byteLength}` }, body)
      assert.strictEqual(read.text, token)
      assert.isFalse(read.isCut)
    }))

  it.effect.each(["gzip", "deflate", "br", "identity"])(
    "leaves a body as it is that was decoded below, although its Content-Encoding is %s",
    (encoding) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* headersOf({ "content-encoding": encoding }, token)).text, token)
      })
  )

  it.effect("cuts a body that grows beyond 1 MiB by decoding", () =>
    Effect.gen(function*() {
      const bomb = yield* compressed("x".repeat(64 * mebibyte), "gzip")
      assert.isBelow(bomb.byteLength, mebibyte)
      const read = yield* headersOf({ "content-encoding": "gzip" }, bomb)
      assert.isTrue(read.isCut)
      assert.strictEqual(read.text.length, mebibyte)
    }))

  it.effect("names an encoding that it cannot decode, and a body that is broken gzip", () =>
    Effect.gen(function*() {
      for (const encoding of ["br", "gzip"]) {
        const read = yield* headersOf({ "content-encoding": encoding }, Uint8Array.of(0x1f, 0x8b, 8, 0, 1, 2, 3, 255))
        assert.include(invalid(read.text, { encoding: read.encoding }), `Content-Encoding is ${encoding}`)
      }
    }))
})
