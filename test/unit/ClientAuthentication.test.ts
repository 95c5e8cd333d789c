import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc, Option, Redacted, Ref } from "effect"
import { ClientAuthentication } from "effect-alf"

const { assertion, basic, basicRaw, none, post, tls } = ClientAuthentication

const at: ClientAuthentication.Destination = {
  endpoint: "https://auth.test/token",
  tokenEndpoint: "https://auth.test/token",
  issuer: Option.none()
}

/** The proof of a method that needs nothing but the client. */
const proof = (method: ClientAuthentication.ClientAuthentication, client: ClientAuthentication.Client) =>
  Effect.runSync(method.prove(client, at))

const client = (id: string, secret?: string): ClientAuthentication.Client => ({
  id,
  secret: Option.map(Option.fromNullable(secret), (text) => Redacted.make(text))
})

/** What a server reads from the header. */
const credentials = (proof: ClientAuthentication.Proof): string => {
  const [scheme, encoded, ...rest] = (proof.authorization ?? "").split(" ")
  assert.strictEqual(scheme, "Basic")
  assert.deepStrictEqual(rest, [])
  return Buffer.from(encoded ?? "", "base64").toString("utf8")
}

describe("basic", () => {
  it("form-encodes id and secret first, as URLSearchParams encodes (RFC 6749 Appendix B)", () => {
    assert.strictEqual(
      credentials(proof(basic, client("client %&+-_.!~*'()", "secret: %&+£€"))),
      "client+%25%26%2B-_.%21%7E*%27%28%29:secret%3A+%25%26%2B%C2%A3%E2%82%AC"
    )
  })

  it("leaves an id like a UUID as it is", () => {
    assert.strictEqual(
      credentials(proof(basic, client("0b0a2ec8-4f6c-4bd8-9d4d-7f1f6d6cbb5e", "s.e_c-r*t"))),
      "0b0a2ec8-4f6c-4bd8-9d4d-7f1f6d6cbb5e:s.e_c-r*t"
    )
  })

  it("is in one line, however long the secret", () => {
    const { authorization } = proof(basic, client("id", "x".repeat(1_000)))
    assert.match(authorization ?? "", /^Basic [A-Za-z0-9+/]+=*$/)
  })

  it("puts nothing into the form", () => {
    assert.isUndefined(proof(basic, client("id", "secret")).params)
  })

  it.prop("can be read back by every server that decodes it", [
    fc.string({ unit: "grapheme", minLength: 1 }),
    fc.string({ unit: "grapheme" })
  ], ([id, secret]) => {
    const parts = credentials(proof(basic, client(id, secret))).split(":")
    assert.deepStrictEqual(parts.map((part) => new URLSearchParams(`x=${part}`).get("x")), [id, secret])
  })

  it("needs a secret, takes every id, and is called client_secret_basic", () => {
    assert.isTrue(basic.requiresSecret)
    assert.isTrue(Option.isNone(basic.issue("id:with:colons")))
    assert.strictEqual(basic.method, "client_secret_basic")
  })
})

describe("basicRaw", () => {
  it("sends id and secret as they are, for servers that do not decode them", () => {
    assert.strictEqual(
      credentials(proof(basicRaw, client("client %&+", "secret: %&+£€"))),
      "client %&+:secret: %&+£€"
    )
    assert.isUndefined(proof(basicRaw, client("id", "secret")).params)
  })

  it("cannot send an id with a colon, and says what to use instead (RFC 7617 §2)", () => {
    assert.include(Option.getOrThrow(basicRaw.issue("my:client")), "use basic or post")
    assert.isTrue(Option.isNone(basicRaw.issue("my-client")))
  })

  it("needs a secret, and has a name of its own", () => {
    assert.isTrue(basicRaw.requiresSecret)
    assert.notStrictEqual(basicRaw.method, basic.method)
  })
})

describe("post", () => {
  it("sends id and secret as form parameters, and no header", () => {
    assert.deepStrictEqual(proof(post, client("client %&+", "secret: %&+")), {
      params: { client_id: "client %&+", client_secret: "secret: %&+" }
    })
  })

  it("needs a secret, and is called client_secret_post", () => {
    assert.isTrue(post.requiresSecret)
    assert.strictEqual(post.method, "client_secret_post")
  })
})

describe("none", () => {
  it("sends the id alone, as a form parameter (RFC 6749 §3.2.1)", () => {
    assert.deepStrictEqual(proof(none, client("my-app")), { params: { client_id: "my-app" } })
  })

  it("does not send a secret that it is given", () => {
    assert.deepStrictEqual(proof(none, client("my-app", "secret")), { params: { client_id: "my-app" } })
  })

  it("needs no secret, and is called none", () => {
    assert.isFalse(none.requiresSecret)
    assert.strictEqual(none.method, "none")
  })
})

describe("assertion", () => {
  it.effect("is read for every attempt, and sent with the client id", () =>
    Effect.gen(function*() {
      const counter = yield* Ref.make(0)
      const method = assertion(Effect.map(Ref.updateAndGet(counter, (n) => n + 1), (n) => Redacted.make(`jwt-${n}`)))
      for (const n of [1, 2]) {
        assert.deepStrictEqual(yield* method.prove(client("my-app", "unused"), at), {
          params: {
            client_id: "my-app",
            client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            client_assertion: `jwt-${n}`
          }
        })
      }
    }))

  it.effect("takes another client_assertion_type", () =>
    Effect.gen(function*() {
      const type = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
      const { params } = yield* assertion(Effect.succeed(Redacted.make("saml")), { type }).prove(client("my-app"), at)
      assert.strictEqual(params?.["client_assertion_type"], type)
    }))

  it.effect("takes off the white space of a file", () =>
    Effect.gen(function*() {
      const { params } = yield* assertion(Effect.succeed(Redacted.make(" jwt\r\n"))).prove(client("my-app"), at)
      assert.strictEqual(params?.["client_assertion"], "jwt")
    }))

  it.effect.each(
    [
      ["cannot be read", Effect.fail("MARKED"), "could not be read"],
      ["is empty", Effect.succeed(Redacted.make("")), "is empty"],
      ["is a blank line", Effect.succeed(Redacted.make("\n")), "is empty"]
    ] as const
  )("that %s is an error that says so", ([_, read, words]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(assertion(read).prove(client("my-app"), at))
      assert.include(String(error), words)
      assert.notInclude(String(error), "MARKED")
    }))

  it("needs no secret", () => {
    assert.isFalse(assertion(Effect.succeed(Redacted.make("jwt"))).requiresSecret)
  })
})

describe("tls", () => {
  it("sends the client id alone: the certificate belongs to the HttpClient (RFC 8705 §2)", () => {
    assert.deepStrictEqual(proof(tls, client("my-app", "secret")), { params: { client_id: "my-app" } })
    assert.isFalse(tls.requiresSecret)
    assert.strictEqual(tls.method, "tls_client_auth")
  })
})
