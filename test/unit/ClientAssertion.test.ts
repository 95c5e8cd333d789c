import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Layer, Option, Redacted, TestClock } from "effect"
import { AccessToken, Alf, AuthorizationServer, Grant, TokenError, TokenService } from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import {
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importJWK,
  type JWK,
  jwtVerify
} from "jose"
import { createHmac, generateKeyPairSync, X509Certificate } from "node:crypto"
import { inspect } from "node:util"
import { makeCertificate } from "../support/certificates.ts"
import { goodToken, json, type Received, scripted } from "../support/scriptedClient.ts"

const issuer = "https://auth.test/"
const tokenEndpoint = "https://auth.test/token"
const metadata = new AuthorizationServer.Metadata({
  issuer,
  tokenEndpoint,
  revocationEndpoint: "https://auth.test/revoke"
})

type Options = Partial<Extract<Alf.Options, { readonly metadata: AuthorizationServer.Metadata }>>

const layerOf = (options: Options) =>
  Alf.layer({ metadata, clientId: "client", origins: ["https://api.test"], ...options })

/** Gets a token with this authentication over a server that takes it at the `n`th attempt. */
const run = (
  options: Options,
  respond: (request: Received, n: number) => Response = () => goodToken("token")
) => {
  const http = scripted(respond)
  const get = Effect.flatMap(TokenService.TokenService, ({ get }) => get)
  return {
    requests: http.requests,
    forms: () => http.requests.map(({ body }) => new URLSearchParams(body)),
    assertions: () => http.requests.map(({ body }) => new URLSearchParams(body).get("client_assertion") ?? ""),
    layer: Layer.provide(layerOf(options), http.layer),
    get: Effect.provide(get, Layer.provide(layerOf(options), http.layer))
  }
}

const pem = (algorithm: string) =>
  Effect.promise(async () => {
    const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true })
    return { key: Redacted.make(await exportPKCS8(privateKey)), publicKey, privateKey }
  })

const jwk = (algorithm: string, more: Partial<JWK> = {}) =>
  Effect.promise(async () => {
    const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true })
    return { key: Redacted.make(JSON.stringify({ ...await exportJWK(privateKey), ...more })), publicKey, privateKey }
  })

const buildError = (options: Options) => Effect.flip(Effect.scoped(Layer.build(run(options).layer)))

describe("privateKeyJwt", () => {
  it.effect.each(
    [
      ["ES256", "ES256"],
      ["ES384", "ES384"],
      ["ES512", "ES512"],
      ["EdDSA", "EdDSA"],
      ["RS256", "RS256"],
      ["PS256", "RS256"]
    ] as const
  )(
    "signs with a key for %s, PEM or JWK, by default with the algorithm that fits it",
    ([generated, expected]) =>
      Effect.gen(function*() {
        for (const { key, publicKey } of [yield* pem(generated), yield* jwk(generated)]) {
          const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key }) })
          yield* world.get
          const [assertion = ""] = world.assertions()
          assert.strictEqual(decodeProtectedHeader(assertion).alg, expected)
          const jwk = yield* Effect.promise(() => exportJWK(publicKey))
          const { payload } = yield* Effect.promise(async () =>
            jwtVerify(assertion, await importJWK(jwk, expected), { currentDate: new Date(0) })
          )
          assert.strictEqual(payload.iss, "client")
        }
      })
  )

  it.effect.each(["RS384", "RS512", "PS256", "PS384", "PS512"])(
    "signs with %s when told to",
    (algorithm) =>
      Effect.gen(function*() {
        const { key, publicKey } = yield* pem("RS256")
        const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key, algorithm }) })
        yield* world.get
        const jwk = yield* Effect.promise(() => exportJWK(publicKey))
        yield* Effect.promise(async () =>
          jwtVerify(world.assertions()[0] ?? "", await importJWK(jwk, algorithm), { currentDate: new Date(0) })
        )
      })
  )

  it.effect("says who the client is, to the issuer, for a minute", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_500)
      const { key } = yield* jwk("ES256", { kid: "key-1" })
      const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key }) })
      yield* world.get
      const [form] = world.forms()
      const [assertion = ""] = world.assertions()
      assert.strictEqual(form?.get("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
      assert.strictEqual(form?.get("client_id"), "client")
      assert.isUndefined(world.requests[0]?.headers["authorization"])
      const { jti, ...claims } = decodeJwt(assertion)
      assert.deepStrictEqual(claims, {
        iss: "client",
        sub: "client",
        aud: issuer,
        iat: 1_700_000_000,
        exp: 1_700_000_060
      })
      assert.match(String(jti), /^[0-9a-f]{32}$/)
      assert.deepStrictEqual(decodeProtectedHeader(assertion), {
        alg: "ES256",
        typ: "client-authentication+jwt",
        kid: "key-1"
      })
    }))

  it.effect("takes audience, type, keyId, lifetime and further claims from the options", () =>
    Effect.gen(function*() {
      const { key } = yield* jwk("ES256", { kid: "key-1" })
      const assertionOf = (options: Partial<ClientAssertion.PrivateKeyJwtOptions>) =>
        Effect.gen(function*() {
          const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key, ...options }) })
          yield* world.get
          const [assertion = ""] = world.assertions()
          return { header: decodeProtectedHeader(assertion), claims: decodeJwt(assertion) }
        })
      const byToken = yield* assertionOf({ audience: "tokenEndpoint", keyId: "other" })
      assert.deepStrictEqual(byToken.header, { alg: "ES256", kid: "other" })
      assert.strictEqual(byToken.claims.aud, tokenEndpoint)
      const own = yield* assertionOf({
        audience: "urn:server",
        type: "JWT",
        expiresIn: "5 minutes",
        claims: { a: 1, iss: "x" }
      })
      assert.strictEqual(own.header.typ, "JWT")
      assert.deepInclude(own.claims, { aud: "urn:server", a: 1, iss: "client", exp: 300 })
      assert.isUndefined((yield* assertionOf({ type: null })).header.typ)
      // whole seconds, and never none
      assert.strictEqual((yield* assertionOf({ expiresIn: "1 millis" })).claims.exp, 1)
    }))

  it.effect("with audience \"endpoint\" is addressed to the endpoint that is called", () =>
    Effect.gen(function*() {
      const { key } = yield* pem("ES256")
      const world = run(
        { clientAuthentication: ClientAssertion.privateKeyJwt({ key, audience: "endpoint" }) },
        (request) => request.url.endsWith("/revoke") ? new Response("") : goodToken("token")
      )
      yield* Effect.provide(
        Effect.flatMap(TokenService.TokenService, ({ get, revoke }) => Effect.zipRight(get, Effect.ignore(revoke))),
        world.layer
      )
      assert.deepStrictEqual(world.assertions().map((assertion) => decodeJwt(assertion).aud), [
        tokenEndpoint,
        "https://auth.test/revoke"
      ])
    }))

  it.effect("names the certificate of the key by its SHA-256", () =>
    Effect.gen(function*() {
      const { certificate, key } = makeCertificate("client")
      const world = run({
        clientAuthentication: ClientAssertion.privateKeyJwt({ key: Redacted.make(key), certificate })
      })
      yield* world.get
      const { fingerprint256 } = new X509Certificate(certificate)
      assert.strictEqual(
        decodeProtectedHeader(world.assertions()[0] ?? "")["x5t#S256"],
        Buffer.from(fingerprint256.replaceAll(":", ""), "hex").toString("base64url")
      )
    }))

  it.effect("never names a certificate that a rotated key does not belong to", () =>
    Effect.gen(function*() {
      const { certificate, key } = makeCertificate("client")
      const keys = [key, makeCertificate("client").key]
      const read = Effect.sync(() => Redacted.make(keys.shift() ?? ""))
      const world = run({
        clientAuthentication: ClientAssertion.privateKeyJwt({ key: read, certificate }),
        tokenRetry: { times: 0 }
      })
      const error = yield* Effect.flip(
        Effect.provide(
          Effect.flatMap(TokenService.TokenService, (service) => Effect.flatMap(service.get, service.refresh)),
          world.layer
        )
      )
      assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
      assert.include(error.message, "the certificate belongs to another key")
      assert.lengthOf(world.requests, 1)
    }))

  it.effect("every attempt is signed anew, with the key as it is then", () =>
    Effect.gen(function*() {
      const keys = [yield* jwk("ES256", { kid: "0" }), yield* jwk("ES256", { kid: "1" })]
      let reads = 0
      const key = Effect.sync(() => keys[Math.min(reads++, 1)]!.key)
      const world = run(
        { clientAuthentication: ClientAssertion.privateKeyJwt({ key }), tokenRetry: { times: 2, base: "1 millis" } },
        (_, n) => n < 2 ? new Response("no", { status: 503 }) : goodToken("token")
      )
      const fiber = yield* Effect.fork(world.get)
      for (let n = 0; n < 20; n++) {
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))
        yield* TestClock.adjust("10 seconds")
      }
      yield* fiber
      const assertions = world.assertions()
      assert.deepStrictEqual(assertions.map((assertion) => decodeProtectedHeader(assertion).kid), ["0", "1", "1"])
      assert.strictEqual(new Set(assertions.map((assertion) => decodeJwt(assertion).jti)).size, 3)
    }))

  describe("what cannot work", () => {
    const ec = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey
    const key = Redacted.make(ec.export({ format: "pem", type: "pkcs8" }).toString())
    const jwkKey = ec.export({ format: "jwk" })
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
    const x25519 = generateKeyPairSync("x25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString()
    const circular: Record<string, unknown> = {}
    circular["itself"] = circular

    it.effect.each<readonly [string, ClientAssertion.PrivateKeyJwtOptions, string]>([
      ["a text", { key: Redacted.make("MARKED") }, "neither PKCS#8 PEM nor a JWK"],
      ["broken JSON", { key: Redacted.make("{MARKED") }, "neither PKCS#8 PEM nor a JWK"],
      [
        "half a PEM text",
        { key: Redacted.make(Redacted.value(key).replace(/\n(.{60}).*\n-----END/s, "\n$1\n-----END")) },
        "could not be imported"
      ],
      [
        "PKCS#1",
        { key: Redacted.make(rsa.privateKey.export({ format: "pem", type: "pkcs1" }).toString()) },
        "openssl pkcs8"
      ],
      [
        "SEC 1",
        { key: Redacted.make(ec.export({ format: "pem", type: "sec1" }).toString()) },
        "openssl pkcs8"
      ],
      [
        "an encrypted key",
        {
          key: Redacted.make(
            ec.export({ format: "pem", type: "pkcs8", cipher: "aes-256-cbc", passphrase: "pass" }).toString()
          )
        },
        "is encrypted"
      ],
      [
        "a public key as PEM",
        { key: Redacted.make(rsa.publicKey.export({ format: "pem", type: "spki" }).toString()) },
        "neither PKCS#8"
      ],
      ["a key that does not sign", { key: Redacted.make(x25519) }, "neither RSA, nor EC"],
      ["a public JWK", { key: Redacted.make(JSON.stringify({ ...jwkKey, d: undefined })) }, "public key"],
      ["a symmetric JWK", { key: Redacted.make(JSON.stringify({ kty: "oct", k: "MARKED" })) }, "neither RSA"],
      ["a set of JWKs", { key: Redacted.make(JSON.stringify({ keys: [jwkKey] })) }, "one key of the set"],
      ["a JWK for encryption", { key: Redacted.make(JSON.stringify({ ...jwkKey, alg: "ECDH-ES" })) }, "does not fit"],
      ["an algorithm that does not fit the key", { key, algorithm: "RS256" }, "does not fit"],
      ["the algorithm none", { key, algorithm: "none" }, "algorithm is not one of"],
      ["an algorithm with a secret", { key, algorithm: "HS256" }, "algorithm is not one of"],
      ["a certificate that is not PEM", { key, certificate: "MARKED" }, "not PEM"],
      ["the certificate of another key", { key, certificate: makeCertificate("x").certificate }, "another key"],
      [
        "no certificate, where the key is read later",
        { key: Effect.fail("not yet"), certificate: "MARKED" },
        "not PEM"
      ],
      ["an empty audience", { key, audience: "" }, "audience is empty"],
      ["a lifetime of nothing", { key, expiresIn: 0 }, "expiresIn"],
      ["a lifetime without end", { key, expiresIn: Duration.infinity }, "expiresIn"],
      ["claims with a bigint", { key, claims: { id: 1n } }, "claims cannot be written as JSON"],
      ["claims that hold themselves", { key, claims: circular }, "claims cannot be written as JSON"]
    ])(
      "is %s: a ConfigurationError when the layer is built, without a byte of the key",
      ([_, options, text]) =>
        Effect.gen(function*() {
          const error = yield* buildError({ clientAuthentication: ClientAssertion.privateKeyJwt(options) })
          assert.instanceOf(error, TokenError.ConfigurationError)
          assert.include(error.message, text)
          const shown = inspect(error, { depth: Infinity }) + JSON.stringify(error)
          assert.notInclude(shown, "MARKED")
          const [, line = ""] = Redacted.isRedacted(options.key) ? Redacted.value(options.key).split("\n") : []
          if (line !== "") assert.notInclude(shown, line.slice(0, 20))
          assert.notInclude(shown, String(jwkKey.d).slice(0, 20))
        })
    )

    it.effect("is an issuer that is not known: the ConfigurationError says what to write", () =>
      Effect.gen(function*() {
        const { key } = yield* pem("ES256")
        const layer = Alf.layer({
          tokenEndpoint,
          clientId: "client",
          origins: ["https://api.test"],
          clientAuthentication: ClientAssertion.privateKeyJwt({ key })
        })
        const error = yield* Effect.flip(
          Effect.scoped(Layer.build(Layer.provide(layer, scripted(() => json({})).layer)))
        )
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.message, "audience: \"tokenEndpoint\"")
      }))

    it.effect.each(
      [
        ["fails", Effect.fail(new Error("MARKED"))],
        ["dies", Effect.die(new Error("MARKED"))],
        ["reads no key", Effect.succeed(Redacted.make("MARKED"))]
      ] as const
    )("is an Effect that %s: a TokenRequestError \"Secret\"", ([_, key]) =>
      Effect.gen(function*() {
        const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key }), tokenRetry: { times: 0 } })
        const error = yield* Effect.flip(world.get)
        assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
        assert.include(error.message, "The client's assertion could not be made")
        assert.notInclude(inspect(error, { depth: Infinity }) + Cause.pretty(Cause.fail(error)), "MARKED")
        assert.lengthOf(world.requests, 0)
      }))
  })

  it.effect.each<readonly [string, Partial<ClientAssertion.PrivateKeyJwtOptions>, number, string | undefined]>([
    ["of another audience, where it was the issuer", {}, 401, "audience: \"tokenEndpoint\""],
    [
      "of another audience, where it was the issuer and the server says nothing",
      {},
      403,
      "audience: \"tokenEndpoint\""
    ],
    ["of the issuer, where it was the token endpoint", { audience: "tokenEndpoint" }, 401, "audience: \"issuer\""],
    ["of nothing, where the audience is a text", { audience: "urn:server" }, 401, undefined]
  ])("a refused client is told to think %s", ([_, options, status, hint]) =>
    Effect.gen(function*() {
      const { key } = yield* pem("ES256")
      const world = run(
        { clientAuthentication: ClientAssertion.privateKeyJwt({ key, ...options }) },
        () => status === 401 ? json({ error: "invalid_client" }, { status }) : new Response("", { status })
      )
      const error = yield* Effect.flip(world.get)
      if (error._tag !== "TokenErrorResponse") return assert.fail(error._tag)
      if (hint === undefined) assert.isUndefined(error.hint)
      else assert.include(error.hint ?? "", hint)
    }))

  it.effect("an error that is not about the client has no hint", () =>
    Effect.gen(function*() {
      const { key } = yield* pem("ES256")
      const world = run(
        { clientAuthentication: ClientAssertion.privateKeyJwt({ key }) },
        () => json({ error: "invalid_scope" }, { status: 400 })
      )
      const error = yield* Effect.flip(world.get)
      assert.isTrue(error._tag === "TokenErrorResponse" && error.hint === undefined)
    }))

  it.effect("an assertion that a server echoes is not shown", () =>
    Effect.gen(function*() {
      const { key } = yield* pem("ES256")
      const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key }) }, (request) =>
        json({ error: "invalid_client", error_description: request.body }, { status: 401 }))
      const error = yield* Effect.flip(world.get)
      assert.notInclude(inspect(error, { depth: Infinity }), world.assertions()[0] ?? "?")
    }))
})

describe("clientSecretJwt", () => {
  const secret = "a-secret-of-at-least-thirty-two-characters-and-a-few-more-for-HS512"

  it.effect.each([undefined, "HS256", "HS384", "HS512"] as const)(
    "is authenticated with the secret by %s",
    (algorithm) =>
      Effect.gen(function*() {
        const world = run({
          clientSecret: Redacted.make(secret),
          clientAuthentication: ClientAssertion.clientSecretJwt({ algorithm })
        })
        yield* world.get
        const [assertion = ""] = world.assertions()
        const { payload, protectedHeader } = yield* Effect.promise(() =>
          jwtVerify(assertion, new TextEncoder().encode(secret), { currentDate: new Date(0), audience: issuer })
        )
        assert.strictEqual(protectedHeader.alg, algorithm ?? "HS256")
        assert.strictEqual(payload.exp, 60)
        assert.notInclude(world.requests[0]?.body, secret)
      })
  )

  it.effect.each(["HS256", "HS384", "HS512"] as const)(
    "signs by %s with a secret that is shorter than RFC 7518 wants: the server chose it",
    (algorithm) =>
      Effect.gen(function*() {
        const world = run({
          clientSecret: Redacted.make("short"),
          clientAuthentication: ClientAssertion.clientSecretJwt({ algorithm })
        })
        yield* world.get
        const [header, payload, signature] = (world.assertions()[0] ?? "").split(".")
        assert.strictEqual(
          signature,
          createHmac(algorithm.replace("HS", "sha"), "short").update(`${header}.${payload}`).digest("base64url")
        )
      })
  )

  it.effect.each(
    [
      ["no secret", {}, "needs a clientSecret"],
      ["an empty secret", { clientSecret: Redacted.make("") }, "clientSecret is empty"],
      [
        "an empty audience",
        {
          clientSecret: Redacted.make(secret),
          clientAuthentication: ClientAssertion.clientSecretJwt({ audience: "" })
        },
        "audience is empty"
      ],
      [
        "a lifetime without end",
        {
          clientSecret: Redacted.make(secret),
          clientAuthentication: ClientAssertion.clientSecretJwt({ expiresIn: Duration.infinity })
        },
        "expiresIn"
      ]
    ] as const
  )("with %s is a ConfigurationError", ([_, options, text]) =>
    Effect.map(
      buildError({ clientAuthentication: ClientAssertion.clientSecretJwt(), ...options }),
      (error) => {
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.message, text)
      }
    ))

  it.effect("an empty secret of a vault signs nothing", () =>
    Effect.gen(function*() {
      const world = run({
        clientSecret: Effect.succeed(Redacted.make("")),
        clientAuthentication: ClientAssertion.clientSecretJwt(),
        tokenRetry: { times: 0 }
      })
      const error = yield* Effect.flip(world.get)
      assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
      assert.include(error.message, "is empty")
      assert.lengthOf(world.requests, 0)
      for (const empty of [Option.none(), Option.some(Redacted.make(""))]) {
        const direct = yield* Effect.flip(
          ClientAssertion.clientSecretJwt().prove(
            { id: "client", secret: empty },
            { endpoint: tokenEndpoint, tokenEndpoint, issuer: Option.some(issuer) }
          )
        )
        assert.instanceOf(direct, ClientAssertion.ClientAssertionError)
        assert.strictEqual(direct.message, "The client secret is empty")
      }
    }))
})

describe("sign", () => {
  it.effect("signs an assertion for jwtBearer, anew for each attempt", () =>
    Effect.gen(function*() {
      const { key, publicKey } = yield* pem("ES256")
      const world = run({
        grant: Grant.jwtBearer({
          key: "person",
          assertion: ClientAssertion.sign({
            key,
            keyId: "key-1",
            issuer: "client",
            subject: "person",
            audience: tokenEndpoint,
            expiresIn: "2 minutes",
            claims: { email: "person@auth.test" }
          })
        })
      })
      yield* Effect.provide(
        Effect.flatMap(TokenService.TokenService, (service) =>
          Effect.zipRight(service.get, Effect.flatMap(service.get, service.refresh))),
        world.layer
      )
      const assertions = world.forms().map((form) =>
        form.get("assertion") ?? ""
      )
      assert.lengthOf(assertions, 2)
      const verified = yield* Effect.forEach(assertions, (assertion) =>
        Effect.promise(() => jwtVerify(assertion, publicKey, { currentDate: new Date(0) })))
      const { payload, protectedHeader } = verified[0]!
      assert.deepInclude(payload, {
        iss: "client",
        sub: "person",
        aud: tokenEndpoint,
        exp: 120,
        email: "person@auth.test"
      })
      assert.deepStrictEqual(protectedHeader, { alg: "ES256", typ: "JWT", kid: "key-1" })
      assert.strictEqual(
        new Set(assertions.map((assertion) =>
          decodeJwt(assertion).jti
        )).size,
        2
      )
    }))

  it.effect("fails with a ClientAssertionError that holds nothing of the key", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        ClientAssertion.sign({ key: Redacted.make("MARKED"), issuer: "a", subject: "b", audience: "c" })
      )
      assert.instanceOf(error, ClientAssertion.ClientAssertionError)
      assert.notInclude(inspect(error), "MARKED")
    }))
})

describe("what sign cannot sign", () => {
  const { key } = makeCertificate("client")
  const circular: Record<string, unknown> = {}
  circular["itself"] = circular

  it.effect.each(
    [
      ["an empty issuer", { issuer: "" }, "issuer is empty"],
      ["an empty subject", { subject: "" }, "subject is empty"],
      ["an empty audience", { audience: "" }, "audience is empty"],
      ["a lifetime without end", { expiresIn: Duration.infinity }, "expiresIn"],
      ["a lifetime of nothing", { expiresIn: 0 }, "expiresIn"],
      ["claims that hold themselves", { claims: circular }, "claims"],
      ["an algorithm that does not fit", { algorithm: "RS256" }, "does not fit"],
      ["a key that cannot be read", { key: Effect.fail(new Error("MARKED")) }, "could not be read"],
      ["a key that dies", { key: Effect.die(new Error("MARKED")) }, "could not be read"]
    ] as const
  )(
    "is %s: a ClientAssertionError, and a TokenRequestError \"Secret\" with its words",
    ([_, options, text]) =>
      Effect.gen(function*() {
        const assertion = ClientAssertion.sign({
          key: Redacted.make(key),
          issuer: "client",
          subject: "person",
          audience: tokenEndpoint,
          ...options
        })
        const error = yield* Effect.flip(assertion)
        assert.instanceOf(error, ClientAssertion.ClientAssertionError)
        assert.include(error.message, text)
        const world = run({ grant: Grant.jwtBearer({ key: "person", assertion }), tokenRetry: { times: 0 } })
        const seen = yield* Effect.flip(world.get)
        assert.isTrue(seen._tag === "TokenRequestError" && seen.reason === "Secret")
        assert.include(seen.message, text)
        assert.notInclude(inspect([error, seen], { depth: Infinity }), "MARKED")
        assert.lengthOf(world.requests, 0)
      })
  )
})

describe("googleServiceAccount", () => {
  const account = (key: string, more: Readonly<Record<string, unknown>> = {}) =>
    Redacted.make(JSON.stringify({
      type: "service_account",
      project_id: "project",
      private_key_id: "key-1",
      private_key: key,
      client_email: "reports@project.iam.gserviceaccount.com",
      client_id: "123456789",
      auth_uri: "https://accounts.google.com/o/oauth2/auth",
      token_uri: "https://oauth2.googleapis.com/token",
      ...more
    }))

  const getWith = (found: ReturnType<typeof ClientAssertion.googleServiceAccount>) => {
    const http = scripted(() => json({ access_token: "ya29", expires_in: 3599, token_type: "Bearer" }))
    const layer = Layer.provide(Alf.layer({ ...found, origins: ["https://storage.googleapis.com"] }), http.layer)
    return { http, layer, get: Effect.provide(Effect.flatMap(TokenService.TokenService, ({ get }) => get), layer) }
  }

  it.effect("asks for a token with an assertion of the account", () =>
    Effect.gen(function*() {
      const { key, publicKey } = yield* pem("RS256")
      const { get, http } = getWith(
        ClientAssertion.googleServiceAccount(account(Redacted.value(key)), { scope: ["scope-1", "scope-2"] })
      )
      const token = yield* get
      assert.strictEqual(Redacted.value(token.value), "ya29")
      assert.deepStrictEqual(AccessToken.extra(token, "nothing"), Option.none())
      const [request] = http.requests
      assert.strictEqual(request?.url, "https://oauth2.googleapis.com/token")
      const form = new URLSearchParams(request?.body)
      assert.strictEqual(form.get("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer")
      const { payload, protectedHeader } = yield* Effect.promise(() =>
        jwtVerify(form.get("assertion") ?? "", publicKey, { currentDate: new Date(0) })
      )
      assert.deepStrictEqual(protectedHeader, { alg: "RS256", typ: "JWT", kid: "key-1" })
      assert.deepInclude(payload, {
        iss: "reports@project.iam.gserviceaccount.com",
        aud: "https://oauth2.googleapis.com/token",
        scope: "scope-1 scope-2",
        exp: 3600
      })
      assert.isUndefined(payload.sub)
    }))

  it.effect("acts for a user", () =>
    Effect.gen(function*() {
      const { key } = yield* pem("RS256")
      const found = ClientAssertion.googleServiceAccount(account(Redacted.value(key)), {
        scope: "a",
        subject: "user@project"
      })
      const { get, http } = getWith(found)
      yield* get
      assert.strictEqual(
        decodeJwt(new URLSearchParams(http.requests[0]?.body).get("assertion") ?? "").sub,
        "user@project"
      )
      assert.notInclude(found.grant.key, "PRIVATE")
    }))

  it.effect.each(["", "no JSON MARKED", "null", "[]", "{\"client_email\":\"MARKED\"}"])(
    "JSON that is not an account is a ConfigurationError when the layer is built: %s",
    (text) =>
      Effect.gen(function*() {
        const { layer } = getWith(ClientAssertion.googleServiceAccount(Redacted.make(text), { scope: "a" }))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.message, "service account")
        assert.notInclude(inspect(error), "MARKED")
      })
  )

  it.effect.each(
    [
      ["no scope", { scope: [] }, "scope of the service account is empty"],
      ["an empty scope", { scope: "" }, "scope of the service account is empty"],
      ["an empty subject", { scope: "a", subject: "" }, "subject is empty"]
    ] as const
  )("%s is a ConfigurationError when the layer is built", ([_, options, text]) =>
    Effect.gen(function*() {
      const { key } = yield* pem("RS256")
      const { layer } = getWith(ClientAssertion.googleServiceAccount(account(Redacted.value(key)), options))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      assert.instanceOf(error, TokenError.ConfigurationError)
      assert.include(error.message, text)
    }))

  it.effect("a text in place of the key is a ConfigurationError when the layer is built", () =>
    Effect.gen(function*() {
      const { layer } = getWith(ClientAssertion.googleServiceAccount(account("MARKED"), { scope: "a" }))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      assert.include(error.message, "private_key of the service account")
      assert.notInclude(inspect(error), "MARKED")
    }))
})
