import { HttpClientError, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, FiberId, Redacted } from "effect"
import { inspect } from "node:util"
import { concealCause } from "../../../src/internal/http/conceal.ts"
import { concealIn } from "../../../src/internal/http/redactedResponse.ts"

const token = "a-secret-token-of-some-length"
const conceal = concealIn({ headers: ["authorization"], secrets: () => [token] })
const sent = HttpClientRequest.get("https://api.test", {
  headers: { authorization: `Bearer ${token}`, "x-other": "1" }
})

describe("an error of a client below", () => {
  it("stays the very same object if nothing in it is secret", () => {
    const plain = HttpClientRequest.get("https://api.test")
    const values: ReadonlyArray<unknown> = [
      new Error("other", {
        cause: { list: [1, new Map([["a", new Set(["b"])]])], when: new Date(0), bytes: Buffer.from("c") }
      }),
      new HttpClientError.RequestError({ request: plain, reason: "Transport", cause: new TypeError("x") }),
      { secret: Redacted.make(token) },
      () => token,
      undefined,
      null,
      1
    ]
    for (const value of values) assert.isTrue(conceal(value) === value)
  })

  it("keeps class, names, stack and what holds no secret", () => {
    class Own extends Error {
      override readonly name = "Own"
      readonly kept = { deep: [1] }
      readonly request = sent
    }
    const error = new Own(`sent ${token}`, { cause: [token] })
    const shown = conceal(error)
    assert.instanceOf(shown, Own)
    assert.strictEqual(shown.message, "sent <redacted>")
    assert.isTrue(shown.kept === error.kept)
    assert.deepStrictEqual(shown.cause, ["<redacted>"])
    assert.deepStrictEqual({ ...shown.request.headers }, { authorization: "<redacted>", "x-other": "1" })
    assert.match(shown.stack ?? "", /conceal\.test/)
    assert.strictEqual(error.message, `sent ${token}`)
  })

  it("shows no instance of a foreign class that holds a secret, and no collection", () => {
    class Socket {
      readonly header = `authorization: Bearer ${token}`
    }
    const shown = conceal(
      new Error("x", { cause: { a: new Socket(), b: new Map([[token, 1]]), c: new Set([token]), d: 1 } })
    )
    assert.deepStrictEqual(shown.cause, { a: "<redacted>", b: "<redacted>", c: "<redacted>", d: 1 })
  })

  it("shows no bytes that hold a secret or are longer than 64 KiB", () => {
    const bytes = (value: Uint8Array | ArrayBuffer): unknown => conceal({ bytes: value }).bytes
    assert.strictEqual(bytes(Buffer.from(`HTTP/1.1 200\r\nx: ${token}\r\n`)), "<redacted>")
    assert.strictEqual(bytes(new TextEncoder().encode(token).buffer), "<redacted>")
    assert.strictEqual(bytes(new Uint8Array(64 * 1024 + 1)), "<redacted>")
    assert.instanceOf(bytes(new Uint8Array(64 * 1024)), Uint8Array)
  })

  it("is searched to its end where it refers to itself", () => {
    const error: Error & { self?: unknown; more?: unknown } = new Error("cycle")
    error.self = { error }
    error.more = [{ token: `Bearer ${token}` }, error]
    const shown = conceal(error)
    assert.notInclude(inspect(shown, { depth: Infinity }), token)
    assert.isTrue(Array.isArray(shown.more) && shown.more[1] === shown)
  })

  it("is not searched without end: what lies beyond a thousand objects is left out", () => {
    const wide = new Error("wide", { cause: Array.from({ length: 100_000 }, (_, n) => ({ n, text: token })) })
    const start = performance.now()
    const shown = conceal(wide)
    assert.isBelow(performance.now() - start, 10_000)
    assert.notInclude(inspect(shown, { depth: Infinity, maxArrayLength: Infinity }), token)
    let deep: unknown = { text: token }
    for (let n = 0; n < 5_000; n++) deep = { deep }
    assert.notInclude(inspect(conceal(new Error("deep", { cause: deep })), { depth: Infinity }), token)
  })

  it("is not searched without end: what lies beyond 4,000 members or 128 KiB of text is left out", () => {
    class Failed extends Error {
      readonly _tag = "Failed"
      readonly rows: unknown
      constructor(rows: unknown) {
        super("a failure")
        this.rows = rows
      }
    }
    const text = "a%20\\u0041".repeat(2_000)
    for (
      const rows of [
        Array.from({ length: 1_000_000 }, (_, i) => i),
        Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`k${i}`, `${token}${i}`])),
        new Map(Array.from({ length: 100_000 }, (_, i) => [`k${i}`, `${token}${i}`])),
        Array.from({ length: 1_000 }, (_, i) => `${i}${text}`),
        `${text.repeat(500)}${token}`
      ]
    ) {
      const shown = conceal(new Failed(rows))
      assert.instanceOf(shown, Failed)
      assert.strictEqual(shown._tag, "Failed")
      assert.strictEqual(shown.message, "a failure")
      const printed = inspect(shown, { depth: 9, maxArrayLength: Infinity, maxStringLength: Infinity })
      assert.notInclude(printed, token)
      assert.isBelow(printed.length, 300_000)
    }
  })

  it("shows nothing of an accessor, or of an object that throws when it is looked at", () => {
    const accessor = Object.defineProperty(new TypeError("x"), "header", { get: () => token, enumerable: true })
    const shown = conceal(accessor)
    assert.instanceOf(shown, TypeError)
    assert.strictEqual(shown.message, "x")
    assert.isFalse("header" in shown)
    const throwing = () => {
      throw new Error(token)
    }
    for (const trap of ["ownKeys", "getPrototypeOf", "has", "getOwnPropertyDescriptor", "get"]) {
      const hostile = new Proxy(new Error(token), { [trap]: throwing })
      for (const value of [hostile, new Error("x", { cause: hostile })]) {
        assert.notInclude(inspect(conceal(value), { depth: 9 }), token, trap)
      }
    }
  })

  it("costs the same however its objects refer to each other", () => {
    const nodes: ReadonlyArray<Array<unknown>> = Array.from({ length: 900 }, () => [token])
    for (const node of nodes) node.push(...nodes)
    assert.notInclude(inspect(conceal(new Error("x", { cause: nodes })), { depth: 3 }), token)
  })

  it("is concealed in every node of a cause, which keeps its shape", () => {
    const error = new Error(token)
    const cause = Cause.parallel(
      Cause.sequential(Cause.fail(error), Cause.die(token)),
      Cause.sequential(Cause.interrupt(FiberId.none), Cause.empty)
    )
    const shown = concealCause<unknown>(cause, conceal)
    assert.notInclude(Cause.pretty(shown), token)
    assert.deepStrictEqual(
      [Cause.size(shown), Cause.isInterrupted(shown), [...Cause.defects(shown)]],
      [Cause.size(cause), true, ["<redacted>"]]
    )
  })
})
