import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { redact, secretParams, tokenValues, truncate } from "../../../src/internal/endpoint/redact.ts"

/** The characters of the mark that replaces a secret are left out: in the mark, a secret made of them is found. */
const withoutMark = (text: string) => !/[<>redact]/i.test(text)
const secret = fc.string({ unit: "grapheme", minLength: 6 }).filter(withoutMark)
const text = fc.string({ unit: "grapheme" }).filter(withoutMark)

const json = (secret: string) => JSON.stringify(secret).slice(1, -1)

/** The writings in which servers echo what they were sent. */
const writings: ReadonlyArray<readonly [string, (secret: string) => string]> = [
  ["as it is", (secret) => secret],
  ["form-encoded", (secret) => new URLSearchParams({ "": secret }).toString().slice(1)],
  ["percent-encoded", encodeURIComponent],
  [
    "percent-encoded in lower case",
    (secret) => encodeURIComponent(secret).replace(/%../g, (code) => code.toLowerCase())
  ],
  ["JSON-escaped", json],
  ["JSON-escaped with slashes escaped, as PHP does", (secret) => json(secret).replaceAll("/", "\\/")],
  [
    "JSON-escaped to ASCII, as Python does",
    (secret) =>
      json(secret).replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
  ],
  ["HTML-escaped", (secret) => secret.replaceAll("&", "&amp;").replaceAll("\"", "&quot;").replaceAll("'", "&#39;")]
]

describe("redact", () => {
  for (const [name, write] of writings) {
    it.prop(`leaves no secret that a server echoes ${name}`, [
      fc.array(secret, { minLength: 1, maxLength: 3 }),
      fc.array(text)
    ], ([secrets, texts]) => {
      const echo = texts.map((text, i) => text + write(secrets[i % secrets.length] ?? "")).join("")
      const redacted = redact(echo, secrets)
      for (const secret of secrets) {
        assert.notInclude(redacted, secret)
        assert.notInclude(redacted, write(secret))
      }
    })
  }

  it.prop("never throws, whatever the secrets and the text", [
    fc.string({ unit: "binary" }),
    fc.array(fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("\ud800", "a\udc00", "\\", "$&", "(?:", "[")))
  ], ([text, secrets]) => {
    assert.isString(redact(text + secrets.join(), secrets))
  })

  it.prop("leaves a text without secrets as it is", [fc.string({ unit: "binary" })], ([text]) => {
    assert.strictEqual(redact(text, []), text)
    assert.strictEqual(redact(text, [""]), text)
    assert.strictEqual(redact(text, ["a secret that is nowhere in there"]), text)
  })

  it("strikes out the longer of two secrets of which one is part of the other", () => {
    assert.strictEqual(redact("[abc-long] [abc]", ["abc", "abc-long"]), "[<redacted>] [<redacted>]")
  })

  it("finds an escape that a backslash of the text stands before", () => {
    assert.strictEqual(redact("C:\\\\ud800\\udc00 is it", ["\u{10000} is it"]), "C:\\<redacted>")
    assert.notInclude(redact("C:\\\\nsecret", ["\nsecret"]), "secret")
  })

  it("takes no character of a secret for a pattern", () => {
    assert.strictEqual(
      redact("a.c.c.c abc.c.c $&$&$& (x(x(x", ["a.c.c.c", "$&$&$&", "(x(x(x"]),
      "<redacted> abc.c.c <redacted> <redacted>"
    )
  })

  it("redacts the beginning of a secret from 16 characters on, and no shorter one", () => {
    const long = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.signature"
    assert.strictEqual(redact(`token ${long.slice(0, -1)}!`, [long]), "token <redacted>!")
    assert.strictEqual(redact(`token ${long.slice(0, 16)}!`, [long]), "token <redacted>!")
    assert.strictEqual(redact(`token ${long.slice(0, 15)}!`, [long]), `token ${long.slice(0, 15)}!`)
  })

  it("redacts a short secret as a whole word only", () => {
    assert.strictEqual(redact("wrong key: key", ["key"]), "wrong <redacted>: <redacted>")
    assert.strictEqual(redact("keyring, monkey", ["key"]), "keyring, monkey")
  })

  it("redacts a secret that was percent-encoded twice", () => {
    const secret = "a secret/with?signs"
    assert.strictEqual(redact(`[${encodeURIComponent(encodeURIComponent(secret))}]`, [secret]), "[<redacted>]")
  })

  it("redacts Basic credentials without their padding", () => {
    const basic = Buffer.from("client:hunter222").toString("base64")
    assert.match(basic, /=$/)
    assert.strictEqual(redact(`[${basic.replace(/=+$/, "")}]`, [basic]), "[<redacted>]")
  })

  it("redacts the beginning of a secret at the end of a text that was cut", () => {
    assert.strictEqual(redact("the secret is hunter2", ["hunter22222"], { isCut: true }), "the secret is <redacted>")
    assert.strictEqual(redact("the secret is hunter2", ["hunter22222"]), "the secret is hunter2")
  })

  it("does not block, whatever text and secret repeat", () => {
    for (
      const [text, secret] of [
        ["a".repeat(100_000), `${"a".repeat(50_000)}b`],
        ["\\".repeat(100_000), `${"\\".repeat(1_000)}b`],
        ["%25".repeat(30_000), "%".repeat(10_000)],
        ["&#x".repeat(30_000), "secret-secret"],
        ["access_token = ".repeat(5_000), "secret-secret"],
        ["-_.~".repeat(25_000), "-_.~".repeat(25_000).slice(0, -1)],
        [`access_token":"${"\\\\".repeat(50_000)}`, "secret-secret"]
      ] as const
    ) {
      const start = performance.now()
      redact(text, [secret])
      tokenValues(text)
      assert.isBelow(performance.now() - start, 5_000, text.slice(0, 9))
    }
  })
})

describe("secretParams", () => {
  it("are all parameters but those that everyone may see, those with names of the user's own too", () => {
    const secrets = [
      "client_secret",
      "client_assertion",
      "refresh_token",
      "assertion",
      "code",
      "code_verifier",
      "device_code",
      "password",
      "subject_token",
      "actor_token",
      "a_name_of_the_users_own"
    ]
    const open = ["grant_type", "client_id", "scope", "audience", "resource", "redirect_uri"]
    assert.deepStrictEqual(
      secretParams([...open, ...secrets].map((name) => [name, `value of ${name}`])),
      secrets.map((name) => `value of ${name}`)
    )
  })
})

describe("tokenValues", () => {
  it("are the tokens that a text names as such, whole or cut", () => {
    assert.deepStrictEqual(
      tokenValues(`{"access_token": "abc.def", 'refresh_token': 'ghi', "id_token":"a\\/b\\"c", "state":"open"}`),
      ["abc.def", "ghi", "a/b\"c"]
    )
    assert.deepStrictEqual(tokenValues("access_token=abc&token_type=Bearer&REFRESH_TOKEN=def"), ["abc", "def"])
    assert.deepStrictEqual(tokenValues("{\"access_token\":\"cut of"), ["cut of"])
    assert.deepStrictEqual(tokenValues("no access_token here"), [])
    // then the text is not shown at all
    assert.isDefined(tokenValues("access_token=a&".repeat(16)))
    assert.isUndefined(tokenValues("access_token=a&".repeat(17)))
  })
})

describe("truncate", () => {
  it.prop("gives the beginning of a text, at most so many bytes of UTF-8, no character cut", [
    fc.string({ unit: "grapheme" }),
    fc.nat({ max: 64 })
  ], ([text, bytes]) => {
    const cut = truncate(text, bytes)
    assert.isTrue(text.startsWith(cut))
    assert.isAtMost(Buffer.byteLength(cut), bytes)
    const [next] = Array.from(text.slice(cut.length))
    if (next !== undefined) assert.isAbove(Buffer.byteLength(cut + next), bytes)
  })
})
