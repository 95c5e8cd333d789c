import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { parseChallenges } from "../../../src/internal/http/challenges.ts"

describe("parseChallenges", () => {
  it("reads what an API says of a token that it refuses (RFC 6750 §3)", () => {
    assert.deepStrictEqual(
      parseChallenges("Bearer realm=\"example\", error=\"invalid_token\", error_description=\"The token expired\""),
      [{
        scheme: "Bearer",
        params: { realm: "example", error: "invalid_token", error_description: "The token expired" }
      }]
    )
  })

  it("reads several challenges in one header (RFC 9110 §11.6.1)", () => {
    assert.deepStrictEqual(
      parseChallenges("Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\""),
      [
        { scheme: "Newauth", params: { realm: "apps", type: "1", title: "Login to \"apps\"" } },
        { scheme: "Basic", params: { realm: "simple" } }
      ]
    )
    assert.deepStrictEqual(parseChallenges("Bearer, Basic realm=\"x\", Negotiate"), [
      { scheme: "Bearer", params: {} },
      { scheme: "Basic", params: { realm: "x" } },
      { scheme: "Negotiate", params: {} }
    ])
  })

  it("reads a scheme alone, and a scheme with a token68", () => {
    assert.deepStrictEqual(parseChallenges("Bearer"), [{ scheme: "Bearer", params: {} }])
    assert.deepStrictEqual(parseChallenges("Negotiate oRQwEqADCgEBoQ=="), [{ scheme: "Negotiate", params: {} }])
    assert.deepStrictEqual(parseChallenges("Negotiate oRQwEqADCgEBoQ==, Bearer scope=\"a b\""), [
      { scheme: "Negotiate", params: {} },
      { scheme: "Bearer", params: { scope: "a b" } }
    ])
  })

  it("takes names of parameters in any case, spaces around =, and empty elements of the list", () => {
    assert.deepStrictEqual(parseChallenges("bearer Realm = \"x\" ,, , ERROR=invalid_token"), [
      { scheme: "bearer", params: { realm: "x", error: "invalid_token" } }
    ])
    assert.deepStrictEqual(parseChallenges(", Bearer error=\"x\""), [{ scheme: "Bearer", params: { error: "x" } }])
  })

  it("is not misled by commas and equal signs in quotes", () => {
    assert.deepStrictEqual(parseChallenges("Bearer realm=\"a, Basic realm=b, c=\\\"d\\\"\""), [
      { scheme: "Bearer", params: { realm: "a, Basic realm=b, c=\"d\"" } }
    ])
  })

  it("reads an empty value in quotes", () => {
    assert.deepStrictEqual(parseChallenges("Bearer realm=\"\""), [{ scheme: "Bearer", params: { realm: "" } }])
  })

  it("ends where it cannot understand: what came before is kept", () => {
    assert.deepStrictEqual(parseChallenges("Bearer error=\"invalid_token\", scope=\"never ends"), [
      { scheme: "Bearer", params: { error: "invalid_token" } }
    ])
    assert.deepStrictEqual(parseChallenges(""), [])
    assert.deepStrictEqual(parseChallenges("   "), [])
    assert.deepStrictEqual(parseChallenges("realm=\"x\""), [])
    assert.deepStrictEqual(parseChallenges("\"quoted\""), [])
  })

  it("takes the names of what every object has for names of parameters", () => {
    const [challenge] = parseChallenges("Bearer __proto__=\"x\", constructor=\"y\", toString=\"z\"")
    assert.strictEqual(challenge?.params["constructor"], "y")
    assert.strictEqual(challenge?.params["tostring"], "z")
    assert.strictEqual(Object.getPrototypeOf(challenge?.params), Object.prototype)
    assert.notProperty({}, "x")
  })

  const pieces = fc.constantFrom(
    "Bearer",
    "Basic",
    "error",
    "realm",
    "=",
    "\"",
    "\\",
    ",",
    " ",
    "\t",
    "a",
    "==",
    "é",
    "\n",
    "\"x\"",
    "abc=",
    "\0"
  )
  const header = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(pieces, { maxLength: 60, size: "max" }).map((parts) => parts.join(""))
  )

  it.prop("never throws, and ends, whatever a server sends", [header], ([header]) => {
    for (const { params, scheme } of parseChallenges(header)) {
      assert.isNotEmpty(scheme)
      for (const [name, value] of Object.entries(params)) {
        assert.strictEqual(name, name.toLowerCase())
        assert.isString(value)
      }
    }
  }, { fastCheck: { numRuns: 2_000 } })

  it.each([
    ["spaces", " "],
    ["commas", ","],
    ["quotes", "\""],
    ["backslashes in quotes", "\\", "Bearer a=\""],
    ["letters", "a"],
    ["letters in quotes", "a", "Bearer a=\""],
    ["equal signs", "=", "Bearer a"],
    ["parameters", "a=b,", "Bearer "],
    ["schemes", "a "],
    ["spaces after a scheme", " ", "Bearer"],
    ["spaces after a parameter's name", " ", "Bearer a"],
    ["spaces after a parameter's value", " ", "Bearer a=b"]
  ])("ends soon for a header of 64 KiB of %s", (_, piece, start = "") => {
    const header = `${start}${piece.repeat(64 * 1024 / piece.length)}`
    const before = process.cpuUsage()
    parseChallenges(header)
    parseChallenges(`${header}\0`)
    assert.isBelow(process.cpuUsage(before).user / 1000, 1_000)
  })

  const token = fc.string({ unit: fc.constantFrom(..."abcXYZ019!#$%&'*+-.^_`|~"), minLength: 1 })
  const value = fc.oneof(token, fc.string({ unit: fc.constantFrom(..."abc ,=\"\\\t/é"), maxLength: 10 }))
  const challenges = fc.array(
    fc.record({
      scheme: token,
      params: fc.dictionary(token.map((name) => name.toLowerCase()), value, { noNullPrototype: true })
    })
  )
  const quote = (value: string) => `"${value.replace(/[\\"]/g, "\\$&")}"`

  it.prop("reads back every header that is well formed", [challenges], ([challenges]) => {
    const header = challenges.map(({ params, scheme }) =>
      [
        scheme,
        Object.entries(params).map(([name, value]) => `${name}=${quote(value)}`).join(", ")
      ].filter((part) => part !== "").join(" ")
    ).join(", ")
    assert.deepStrictEqual(parseChallenges(header), challenges)
  })
})
