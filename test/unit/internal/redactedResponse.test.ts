/** Responses and errors as the authorized clients give them: all that they hold, and no token. */
import { HttpClientError, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { TokenError } from "effect-alf"
import { inspect } from "node:util"
import { concealIn, RedactedResponse } from "../../../src/internal/http/redactedResponse.ts"
import { toHttpClientError } from "../../../src/internal/http/httpClientError.ts"

const request = HttpClientRequest.get("https://api.example.com/users?page=1", {
  headers: { authorization: "Bearer SECRET", accept: "text/plain" }
})

const concealed = { headers: ["authorization", "dpop"], secrets: () => ["SECRET"] }
const conceal = concealIn(concealed)

const answerTo = (response: Response) => {
  const original = HttpClientResponse.fromWeb(request, response)
  return { original, answer: new RedactedResponse(original, concealed) }
}

const text = (body: string, type = "text/plain") =>
  answerTo(new Response(body, { status: 203, headers: { "content-type": type, "set-cookie": "a=b" } }))

/** How it may be shown to somebody. */
const shown = (u: unknown): string => `${u} ${JSON.stringify(u)} ${inspect(u, { depth: 9 })}`

describe("RedactedResponse", () => {
  it("has the status, headers, cookies and address of the original", () => {
    const { answer, original } = text("hello")
    assert.isTrue(HttpClientResponse.TypeId in answer)
    assert.strictEqual(answer.status, 203)
    assert.deepStrictEqual({ ...answer.headers }, { ...original.headers })
    assert.strictEqual(answer.cookies, original.cookies)
    assert.strictEqual(answer.remoteAddress, original.remoteAddress)
    assert.strictEqual(answer.request.url, request.url)
    assert.strictEqual(answer.request.headers["accept"], "text/plain")
    assert.strictEqual(answer.request.headers["authorization"], "<redacted>")
  })

  it.effect("works behind a Proxy and under Object.create, as observers and spies wrap it", () =>
    Effect.gen(function*() {
      for (
        const wrap of [(answer: object) => new Proxy(answer, {}), (answer: object) => Object.create(answer) as object]
      ) {
        const wrapped = wrap(text("hello").answer) as RedactedResponse
        assert.isTrue(HttpClientResponse.TypeId in wrapped)
        assert.deepStrictEqual([wrapped.status, wrapped.request.url], [203, request.url])
        assert.strictEqual(yield* wrapped.text, "hello")
        assert.notInclude(shown(wrapped), "SECRET")
      }
    }))

  it("that echoes the token in a header is shown without it, and gives the header as it came", () => {
    const { answer } = answerTo(new Response("", { headers: { "x-echo": "Bearer SECRET" } }))
    assert.strictEqual(answer.headers["x-echo"], "Bearer SECRET")
    assert.notInclude(shown(answer), "SECRET")
  })

  it.effect("has the body of the original, in each form", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* text("hello").answer.text, "hello")
      assert.deepStrictEqual(yield* text("{\"a\":1}").answer.json, { a: 1 })
      assert.strictEqual(new TextDecoder().decode(yield* text("hello").answer.arrayBuffer), "hello")
      assert.strictEqual(yield* Stream.mkString(Stream.decodeText(text("hello").answer.stream)), "hello")
      assert.deepStrictEqual([...yield* text("a=1&b=2").answer.urlParamsBody], [["a", "1"], ["b", "2"]])
      const form = new FormData()
      form.append("a", "1")
      assert.strictEqual((yield* answerTo(new Response(form)).answer.formData).get("a"), "1")
    }))

  it.effect("the errors of its body are those of the original, without the token", () =>
    Effect.gen(function*() {
      const broken = () =>
        answerTo(
          new Response(new ReadableStream({ start: (controller) => controller.error(new Error("reset")) }))
        ).answer
      const errors = [
        yield* Effect.flip(broken().text),
        yield* Effect.flip(broken().json),
        yield* Effect.flip(broken().arrayBuffer),
        yield* Effect.flip(broken().urlParamsBody),
        yield* Effect.flip(broken().formData),
        yield* Effect.flip(Stream.runDrain(broken().stream))
      ]
      for (const error of errors) {
        assert.strictEqual(error._tag, "ResponseError")
        assert.strictEqual(error.reason, "Decode")
        assert.include(error.message, "GET https://api.example.com/users")
        assert.notInclude(shown(error), "SECRET")
      }
    }))

  it("shows what the original shows, without the token", () => {
    const { answer } = text("hello")
    assert.notInclude(shown(answer), "SECRET")
    for (const part of [String(answer), JSON.stringify(answer), inspect(answer, { depth: 9 })]) {
      assert.include(part, "203")
      assert.include(part, "https://api.example.com/users")
      assert.include(part, "text/plain")
      assert.include(part, "<redacted>")
    }
  })
})

describe("concealIn", () => {
  const cause = new Error("ECONNRESET")
  const { original } = text("hello")

  it("keeps all that an error of the transport says", () => {
    for (const why of [{}, { cause }, { description: "it broke" }, { cause, description: "it broke" }]) {
      const requestError = conceal(new HttpClientError.RequestError({ request, reason: "Transport", ...why }))
      const responseError = conceal(
        new HttpClientError.ResponseError({ request, response: original, reason: "StatusCode", ...why })
      )
      assert.instanceOf(requestError, HttpClientError.RequestError)
      assert.instanceOf(responseError, HttpClientError.ResponseError)
      assert.deepStrictEqual([requestError.reason, responseError.reason], ["Transport", "StatusCode"])
      assert.strictEqual(responseError.response.status, 203)
      for (const error of [requestError, responseError]) {
        assert.strictEqual(error.cause, "cause" in why ? cause : undefined)
        assert.strictEqual(error.description, "description" in why ? "it broke" : undefined)
        assert.strictEqual("cause" in error, "cause" in why)
        assert.strictEqual("description" in error, "description" in why)
        assert.strictEqual(error.request.url, request.url)
        assert.notInclude(shown(error), "SECRET")
      }
    }
  })

  it("leaves other errors as they are", () => {
    const ofToken = toHttpClientError(
      new TokenError.TokenRequestError({
        reason: "Timeout",
        endpoint: "https://auth.test/token",
        attempts: 1,
        description: "No answer"
      }),
      request
    )
    for (const error of [new Error("mine"), "text", undefined, ofToken]) assert.strictEqual(conceal(error), error)
  })
})
