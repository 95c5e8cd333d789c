/** The token endpoint's answers, read and decoded. */
import { HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Either, Option } from "effect"
import { decodeResponse, readTokenResponse } from "../../../src/internal/endpoint/readTokenResponse.ts"

const endpoint = "https://auth.test/token"
const token = JSON.stringify({ access_token: "abc", token_type: "Bearer" })

const decode = (
  text: string,
  { isCut = false, retryAfter, secrets = [], status = 200 }: {
    readonly isCut?: boolean
    readonly retryAfter?: string
    readonly secrets?: ReadonlyArray<string>
    readonly status?: number
  } = {}
) =>
  decodeResponse({ text, status, retryAfter, isCut }, {
    endpoint,
    attempts: 1,
    secrets,
    sentAt: 0,
    receivedAt: 1_000,
    requestedScope: [],
    defaultExpiresIn: Option.none()
  })

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

describe("decodeResponse", () => {
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

  it("takes only a 2xx for a success", () => {
    for (const status of [200, 201, 299]) assert.isTrue(Either.isRight(decode(token, { status })), `${status}`)
    for (const status of [199, 300, 302, 400, 500]) assert.strictEqual(refusal(token, { status }).status, status)
  })

  it("says what is wrong with an answer that is no token", () => {
    for (const text of ["", "<html>", "null", "1", "[]", "\"text\"", "{"]) {
      assert.strictEqual(invalid(text), "it is not a JSON object", text)
    }
    assert.strictEqual(invalid(token, { isCut: true }), "it is longer than 1 MiB")
  })

  it("reads Retry-After: seconds or a date (RFC 9110 §10.2.3)", () => {
    const pause = (retryAfter: string) =>
      Option.getOrNull(
        Option.map(Option.fromNullable(refusal("", { status: 503, retryAfter }).retryAfter), Duration.toMillis)
      )
    assert.strictEqual(pause("120"), 120_000)
    assert.strictEqual(pause(" 5 "), 5_000)
    assert.strictEqual(pause("0"), 0)
    assert.strictEqual(pause("Thu, 01 Jan 1970 00:01:01 GMT"), 60_000)
    for (const nonsense of ["", "-5", "5.5", "5x", "x5", "5 5", "soon"]) assert.isNull(pause(nonsense), nonsense)
    assert.isUndefined(refusal("", { status: 503 }).retryAfter)
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
        assert.strictEqual(error.description, "the connection broke in the middle of the answer")
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
})
