import { assert, describe, it } from "@effect/vitest"
import { DateTime, type Duration, Either, FastCheck as fc, Option, Redacted } from "effect"
import { AccessToken } from "effect-alf"
import { decodeToken, scopes } from "../../../src/internal/endpoint/decodeToken.ts"

const sentAt = 1_000_000
const options = { sentAt, requestedScope: ["asked"], defaultExpiresIn: Option.none<Duration.Duration>() }

const assertSound = (answer: Readonly<Record<string, unknown>>) =>
  Either.match(decodeToken(answer, options), {
    onLeft: (issue) => {
      assert.isNotEmpty(issue)
      return false
    },
    onRight: (token) => {
      assert.isTrue(AccessToken.isHeaderSafe(Redacted.value(token.value)))
      assert.strictEqual(token.type, "Bearer")
      assert.strictEqual(DateTime.toEpochMillis(token.issuedAt), sentAt)
      for (const end of Option.toArray(token.expiresAt)) {
        assert.isAtLeast(DateTime.toEpochMillis(end), sentAt)
        assert.isTrue(Number.isSafeInteger(DateTime.toEpochMillis(end)))
      }
      for (const scope of token.scope) assert.match(scope, /^[^ ]+$/)
      return true
    }
  })

describe("decodeToken", () => {
  it.prop("is a sound token or an issue, for any JSON", [fc.object()], ([answer]) => {
    assertSound(JSON.parse(JSON.stringify(answer)))
  })

  it.prop("is a sound token or an issue, for an answer that has all members", [
    fc.record({
      access_token: fc.oneof(fc.string({ unit: "binary" }), fc.base64String(), fc.jsonValue()),
      token_type: fc.oneof(fc.constantFrom("Bearer", "bearer", "mac"), fc.jsonValue()),
      expires_in: fc.oneof(fc.double(), fc.integer(), fc.integer().map(String), fc.string(), fc.jsonValue()),
      scope: fc.oneof(fc.string(), fc.jsonValue()),
      refresh_token: fc.oneof(fc.string(), fc.jsonValue())
    }, { requiredKeys: ["access_token", "token_type"] })
  ], ([answer]) => {
    assertSound(answer)
  }, { fastCheck: { numRuns: 1_000 } })

  it.prop("is a token for every answer that RFC 6749 §5.1 allows", [
    fc.record({
      access_token: fc.base64String({ minLength: 4 }),
      token_type: fc.constantFrom("Bearer", "bearer", "BEARER"),
      expires_in: fc.nat()
    }),
    fc.dictionary(fc.string(), fc.jsonValue())
  ], ([answer, further]) => {
    const { access_token: _, expires_in: __, refresh_token: ___, scope: ____, token_type: _____, ...unknown } = further
    assert.isTrue(assertSound({ ...unknown, ...answer }))
  })

  const issueOf = (members: Readonly<Record<string, unknown>>) =>
    Option.getOrUndefined(
      Either.getLeft(decodeToken({ access_token: "abc", token_type: "Bearer", ...members }, options))
    )
  const lifeOf = (expires_in: unknown) =>
    Either.getOrThrow(decodeToken({ access_token: "abc", token_type: "Bearer", expires_in }, options)).expiresAt.pipe(
      Option.map((end) => DateTime.toEpochMillis(end) - sentAt),
      Option.getOrNull
    )

  it("takes seconds as a number or as its text, parts of a second left out, 68 years at most", () => {
    for (const [expiresIn, life] of [[90, 90], ["90", 90], ["90.75", 90], [90.75, 90], [0, 0], [1e12, 2 ** 31 - 1]]) {
      assert.strictEqual(lifeOf(expiresIn), Number(life) * 1000, `${expiresIn}`)
    }
    for (const nothing of [undefined, null]) assert.isNull(lifeOf(nothing))
    for (const wrong of ["", " 90", "90 ", "90s", "x90", "1e5", "0x10", "90.", ".5", "-1", -1, NaN, true, [90], {}]) {
      assert.strictEqual(issueOf({ expires_in: wrong }), "expires_in is not a number of seconds", `${wrong}`)
    }
  })

  it("says what is missing", () => {
    for (const access_token of [undefined, null, "", 1]) {
      assert.strictEqual(issueOf({ access_token }), "access_token is missing or not a string")
    }
    assert.strictEqual(issueOf({ access_token: "a b" }), "access_token has a character that a header must not carry")
    assert.strictEqual(issueOf({ token_type: undefined }), "token_type is missing or not a string")
    assert.strictEqual(issueOf({ token_type: "mac" }), "token_type is not Bearer, the only one supported")
  })

  it.prop("shows no value of the answer in an issue", [
    fc.constantFrom("access_token", "token_type", "expires_in"),
    fc.string({ unit: fc.constantFrom(..."0123456789é \r\n"), minLength: 8 }).map((text) => `QQ${text}é`)
  ], ([member, marked]) => {
    const issue = decodeToken({ access_token: "abc", token_type: "Bearer", [member]: marked }, options)
    assert.notInclude(Option.getOrThrow(Either.getLeft(issue)), "QQ")
  })
})

describe("scopes", () => {
  it("are the words of a scope (RFC 6749 §3.3)", () => {
    assert.deepStrictEqual(scopes("read write"), ["read", "write"])
    assert.deepStrictEqual(scopes("  read   write "), ["read", "write"])
    assert.deepStrictEqual(scopes(""), [])
  })
})
