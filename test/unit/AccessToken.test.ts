import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, DateTime, FastCheck as fc, Option, Redacted } from "effect"
import { AccessToken } from "effect-alf"
import { inspect } from "node:util"

const make = (fields: {
  readonly value?: string
  readonly issuedAt?: number
  readonly expiresAt?: number
  readonly refreshToken?: string
  readonly scope?: ReadonlyArray<string>
} = {}) =>
  new AccessToken.AccessToken({
    value: Redacted.make(fields.value ?? "secret-token"),
    issuedAt: DateTime.unsafeMake(fields.issuedAt ?? 0),
    expiresAt: Option.map(Option.fromNullable(fields.expiresAt), DateTime.unsafeMake),
    refreshToken: Option.map(Option.fromNullable(fields.refreshToken), (text) => Redacted.make(text)),
    scope: fields.scope ?? []
  })

/** Everything that two equal tokens have in common. */
const plain = (token: AccessToken.AccessToken) => ({
  value: Redacted.value(token.value),
  type: token.type,
  scope: [...token.scope],
  issuedAt: DateTime.toEpochMillis(token.issuedAt),
  expiresAt: Option.getOrNull(Option.map(token.expiresAt, DateTime.toEpochMillis)),
  refreshToken: Option.getOrNull(Option.map(token.refreshToken, Redacted.value))
})

const assertCanBeSent = (token: AccessToken.AccessToken) => {
  assert.isTrue(AccessToken.isHeaderSafe(Redacted.value(token.value)))
  assert.isTrue(AccessToken.isHeaderSafe(token.type))
}

const visible = fc.string({
  unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1
})
const moment = fc.date({ noInvalidDate: true }).map((date) => DateTime.unsafeMake(date))
const arbitrary = fc.record({
  value: visible.map((text) => Redacted.make(text)),
  type: fc.constant("Bearer"),
  scope: fc.array(fc.string()),
  issuedAt: moment,
  expiresAt: fc.option(moment).map(Option.fromNullable),
  refreshToken: fc.option(fc.string({ minLength: 1 }).map((text) => Redacted.make(text))).map(Option.fromNullable)
}).map((fields) => new AccessToken.AccessToken(fields))

describe("AccessToken", () => {
  it("is a Bearer token without scope, end or refresh token unless told otherwise", () => {
    const token = new AccessToken.AccessToken({ value: Redacted.make("a"), issuedAt: DateTime.unsafeMake(0) })
    assert.strictEqual(token.type, "Bearer")
    assert.deepStrictEqual(token.scope, [])
    assert.isTrue(Option.isNone(token.expiresAt))
    assert.isTrue(Option.isNone(token.refreshToken))
  })

  it("shows neither its secret nor its refresh token", () => {
    const token = make({ value: "MARKED-ACCESS", refreshToken: "MARKED-REFRESH" })
    for (
      const text of [
        String(token),
        JSON.stringify(token),
        inspect(token, { depth: Infinity }),
        inspect(token, { depth: Infinity, showHidden: true, customInspect: false })
      ]
    ) {
      assert.notInclude(text, "MARKED")
    }
  })
})

describe("isSame", () => {
  const token = make({ issuedAt: 5 })

  it("holds for the same secret issued at the same moment", () => {
    assert.isTrue(AccessToken.isSame(token, token))
    assert.isTrue(AccessToken.isSame(token, make({ issuedAt: 5, expiresAt: 99 })))
  })

  it("tells two tokens apart that carry the same secret and were issued at different moments", () => {
    assert.isFalse(AccessToken.isSame(token, make({ issuedAt: 6 })))
  })

  it("tells two secrets apart that were issued at the same moment", () => {
    assert.isFalse(AccessToken.isSame(token, make({ issuedAt: 5, value: "other" })))
  })
})

describe("supersedes", () => {
  const token = make({ issuedAt: 5 })
  const of = (generation: number, value: string) =>
    new AccessToken.AccessToken({ ...make({ issuedAt: 5, value }), generation })

  it("holds for another token that is newer or as new", () => {
    assert.isTrue(AccessToken.supersedes(make({ issuedAt: 6 }), token))
    assert.isTrue(AccessToken.supersedes(of(1, "other"), token))
    // whatever the clocks say
    assert.isTrue(AccessToken.supersedes(make({ issuedAt: 4, value: "other" }), token))
  })

  it("does not hold for the same token, or for an older one", () => {
    assert.isFalse(AccessToken.supersedes(make({ issuedAt: 5 }), token))
    assert.isFalse(AccessToken.supersedes(token, of(1, "other")))
  })
})

describe("isHeaderSafe", () => {
  it("allows all visible ASCII, and nothing else", () => {
    for (let code = 0; code < 0x180; code++) {
      const text = `a${String.fromCharCode(code)}b`
      assert.strictEqual(AccessToken.isHeaderSafe(text), code > 0x20 && code < 0x7f, `code ${code}`)
    }
  })

  it("refuses an empty text, and a line break at the end", () => {
    assert.isFalse(AccessToken.isHeaderSafe(""))
    assert.isFalse(AccessToken.isHeaderSafe("token\n"))
    assert.isFalse(AccessToken.isHeaderSafe("token\r\nX-Evil: 1"))
  })
})

describe("timeToLive", () => {
  it("is what is left of the token's life", () => {
    assert.strictEqual(Option.getOrThrow(AccessToken.timeToLive(make({ expiresAt: 3_000 }), 1_000)), 2_000)
  })

  it("is nothing after the token's end", () => {
    assert.strictEqual(Option.getOrThrow(AccessToken.timeToLive(make({ expiresAt: 3_000 }), 3_000)), 0)
    assert.strictEqual(Option.getOrThrow(AccessToken.timeToLive(make({ expiresAt: 3_000 }), 9_000)), 0)
  })

  it("has no end without expiry, and with a refresh token", () => {
    assert.isTrue(Option.isNone(AccessToken.timeToLive(make(), 1_000)))
    assert.isTrue(Option.isNone(AccessToken.timeToLive(make({ expiresAt: 3_000, refreshToken: "r" }), 9_000)))
  })
})

describe("encode and decode", () => {
  it.prop("give back every token that can be sent", [arbitrary], ([token]) => {
    const decoded = Option.getOrThrow(AccessToken.decode(AccessToken.encode(token)))
    assert.deepStrictEqual(plain(decoded), plain(token))
    assert.isTrue(AccessToken.isSame(decoded, token))
  })

  it.prop("never give back a token that cannot be sent", [Arbitrary.make(AccessToken.AccessToken)], ([token]) => {
    const decoded = AccessToken.decode(AccessToken.encode(token))
    if (Option.isSome(decoded)) assertCanBeSent(decoded.value)
    else assert.isFalse(AccessToken.isHeaderSafe(Redacted.value(token.value)) && token.type === "Bearer")
  })

  it("keep every field", () => {
    const token = make({ value: "t", issuedAt: 1, expiresAt: 2, refreshToken: "r", scope: ["a", "b"] })
    assert.deepStrictEqual(JSON.parse(AccessToken.encode(token)), {
      version: 2,
      token: {
        value: "t",
        type: "Bearer",
        scope: ["a", "b"],
        issuedAt: 1,
        expiresAt: 2,
        refreshToken: "r",
        extra: {},
        generation: 0
      }
    })
  })

  it("decode reads what version 1 wrote", () => {
    const token = make({ value: "t", issuedAt: 1, expiresAt: 2, refreshToken: "r", scope: ["a", "b"] })
    const { extra: _, generation: __, ...fields } = JSON.parse(AccessToken.encode(token)).token
    const decoded = AccessToken.decode(JSON.stringify({ version: 1, token: fields }))
    assert.deepStrictEqual(Option.map(decoded, AccessToken.encode), Option.some(AccessToken.encode(token)))
  })

  const stored = JSON.parse(AccessToken.encode(make({ expiresAt: 2 })))
  const withToken = (fields: object) => JSON.stringify({ ...stored, token: { ...stored.token, ...fields } })

  it.each([
    ["another version", JSON.stringify({ ...stored, version: 3 })],
    ["no version", JSON.stringify({ token: stored.token })],
    ["a token alone", JSON.stringify(stored.token)],
    ["a secret that a header must not carry", withToken({ value: "a\r\nX-Evil: 1" })],
    ["an empty secret", withToken({ value: "" })],
    ["a type that a header must not carry", withToken({ type: "Bearer\r\nX-Evil: 1" })],
    ["a secret that is no string", withToken({ value: 1 })],
    ["a moment beyond all dates", withToken({ issuedAt: 1e300 })],
    ["an end beyond all dates", withToken({ expiresAt: 1e300 })],
    ["an empty refresh token", withToken({ refreshToken: "" })],
    ["half a text", AccessToken.encode(make()).slice(0, 40)],
    ["an empty text", ""],
    ["null", "null"],
    ["no text at all", undefined],
    ["an object in place of a text", stored]
  ])("decode takes %s for no token", (_, text) => {
    assert.isTrue(Option.isNone(AccessToken.decode(text)))
  })

  it.prop("decode never throws, whatever a store holds", [
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.json(),
      fc.anything(),
      fc.object().map((token) => JSON.stringify({ version: 1, token })),
      fc.tuple(fc.constantFrom("value", "type", "scope", "issuedAt", "expiresAt", "refreshToken"), fc.jsonValue()).map(
        ([name, value]) => withToken({ [name]: value })
      )
    )
  ], ([text]) => {
    const decoded = AccessToken.decode(text)
    if (Option.isSome(decoded)) assertCanBeSent(decoded.value)
  }, { fastCheck: { numRuns: 500 } })
})
