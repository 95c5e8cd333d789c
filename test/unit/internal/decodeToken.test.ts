import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Either, FastCheck as fc, Option, Redacted } from "effect"
import { AccessToken } from "effect-alf"
import { decodeToken } from "../../../src/internal/endpoint/decodeToken.ts"
import { scopes } from "../../../src/internal/scope.ts"

const sentAt = 1_000_000
const options = {
  sentAt,
  requestedScope: ["asked"],
  defaultExpiresIn: Option.none<Duration.Duration>(),
  isDPoP: false
}

const assertSound = (answer: Readonly<Record<string, unknown>>) =>
  Either.match(decodeToken(answer, options), {
    onLeft: (issue) => {
      assert.isNotEmpty(issue)
      return false
    },
    onRight: ({ token }) => {
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
  const decoded = (members: Readonly<Record<string, unknown>>) =>
    Either.getOrThrow(decodeToken({ access_token: "abc", token_type: "Bearer", ...members }, options))
  const lifeOf = (expires_in: unknown) =>
    decoded({ expires_in }).token.expiresAt.pipe(
      Option.map((end) => DateTime.toEpochMillis(end) - sentAt),
      Option.getOrNull
    )

  it("takes seconds as a number or as its text, parts of a second left out, 68 years at most", () => {
    for (
      const [expiresIn, life] of [[90, 90], ["90", 90], [" 90 ", 90], ["90.75", 90], [90.75, 90], [0, 0], [
        1e12,
        2 ** 31 - 1
      ]]
    ) {
      assert.strictEqual(lifeOf(expiresIn), Number(life) * 1000, `${expiresIn}`)
    }
    for (const nothing of [undefined, null]) assert.isNull(lifeOf(nothing))
  })

  it("ignores any other expires_in, with a warning", () => {
    for (const nothing of [undefined, null, 90, "90", 0]) {
      assert.isTrue(Option.isNone(decoded({ expires_in: nothing }).warning), `${nothing}`)
    }
    for (const wrong of ["", "90s", "x90", "1e5", "0x10", "90.", ".5", "-1", -1, NaN, true, [90], {}]) {
      const { token, warning } = decoded({ expires_in: wrong })
      assert.isTrue(Option.isNone(token.expiresAt), `${wrong}`)
      assert.deepStrictEqual(
        warning,
        Option.some("its expires_in is not a number of seconds and was ignored"),
        `${wrong}`
      )
    }
  })

  it("keeps the other members, redacted", () => {
    const members = { instance_url: "https://x.test", id_token: "SECRET", patient: 7, nested: { a: [1] } }
    const { token } = decoded({ ...members, expires_in: 60, scope: "a", refresh_token: "r" })
    assert.deepStrictEqual(Redacted.value(token.extra), members)
    assert.deepStrictEqual(AccessToken.extra(token, "patient"), Option.some(7))
    assert.notInclude(`${JSON.stringify(token)}${String(token)}`, "SECRET")
  })

  it("leaves other members out where they are larger than 64 KiB, with a warning", () => {
    const { token, warning } = decoded({ id_token: "x".repeat(64 * 1024) })
    assert.deepStrictEqual(Redacted.value(token.extra), {})
    assert.include(Option.getOrThrow(warning), "64 KiB")
    assert.isTrue(Option.isNone(decoded({ id_token: "x".repeat(60 * 1024) }).warning))
  })

  it("leaves other members out that cannot be written as JSON, with a warning", () => {
    const circular: Record<string, unknown> = {}
    circular["self"] = circular
    const deep: unknown = JSON.parse("[".repeat(400_000) + "]".repeat(400_000))
    for (const member of [deep, circular, 10n]) {
      const { token, warning } = decoded({ member })
      assert.deepStrictEqual(Redacted.value(token.extra), {})
      assert.include(Option.getOrThrow(warning), "left out")
    }
  })

  it("ends a token at the last date there is, however long defaultExpiresIn", () => {
    const result = decodeToken({ access_token: "abc" }, {
      ...options,
      defaultExpiresIn: Option.some(Duration.days(1e12))
    })
    assert.isTrue(Either.isRight(result))
  })

  it("reads an access token of 64 KiB, and refuses a longer one", () => {
    const longest = "x".repeat(64 * 1024)
    assert.strictEqual(Redacted.value(decoded({ access_token: longest }).token.value), longest)
    assert.strictEqual(issueOf({ access_token: `${longest}x` }), "access_token is longer than 64 KiB")
  })

  it("takes a token for a request with a proof only if it is bound to the key (RFC 9449 §5)", () => {
    const withProof = (token_type: unknown) =>
      decodeToken({ access_token: "abc", token_type }, { ...options, isDPoP: true })
    for (const type of ["DPoP", "dpop"]) {
      assert.strictEqual(Either.getOrThrow(withProof(type)).token.type, "DPoP")
    }
    for (const type of ["Bearer", undefined, null, "", 1]) assert.isTrue(Either.isLeft(withProof(type)), `${type}`)
  })

  it("says what is missing", () => {
    for (const access_token of [undefined, null, "", 1]) {
      assert.strictEqual(issueOf({ access_token }), "access_token is missing or not a string")
    }
    assert.strictEqual(issueOf({ access_token: "a b" }), "access_token has a character that a header must not carry")
    assert.include(issueOf({ token_type: "mac" }), "cannot be presented as Bearer")
    assert.include(issueOf({ token_type: "DPoP" }), "give the dpop option")
    assert.strictEqual(issueOf({ token_type: 1 }), "token_type is not a string")
  })

  it.prop("shows no value of the response in an issue or a warning", [
    fc.constantFrom("access_token", "expires_in", "scope"),
    fc.string({ unit: fc.constantFrom(..."0123456789é \r\n"), minLength: 8 }).map((text) => `QQ${text}é`)
  ], ([member, marked]) => {
    const result = decodeToken({ access_token: "abc", token_type: "Bearer", [member]: marked }, options)
    const said = Either.match(result, { onLeft: (issue) => issue, onRight: ({ warning }) => JSON.stringify(warning) })
    assert.notInclude(said, "QQ")
  })
})

describe("a response that is made to be slow", () => {
  const many = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`k${i}`, ""]))

  it("keeps none of its other members if there are more than a thousand", () => {
    const { token, warning } = Either.getOrThrow(decodeToken({ access_token: "abc", ...many }, options))
    assert.deepStrictEqual(Redacted.value(token.extra), {})
    assert.include(Option.getOrThrow(warning), "1000")
  })

  it("has no scope if its scope is longer than 64 KiB", () => {
    const { token } = Either.getOrThrow(decodeToken({ access_token: "abc", scope: "a ".repeat(500_000) }, options))
    assert.deepStrictEqual(token.scope, ["asked"])
  })
})

describe("scopes", () => {
  it("are the words of a scope (RFC 6749 §3.3)", () => {
    assert.deepStrictEqual(scopes("read write"), ["read", "write"])
    assert.deepStrictEqual(scopes("  read   write "), ["read", "write"])
    assert.deepStrictEqual(scopes(""), [])
  })
})
