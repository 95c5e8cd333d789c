import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Layer, Option, Redacted, TestClock } from "effect"
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
import { generateKeyPairSync } from "node:crypto"
import { inspect } from "node:util"
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
      const { key } = yield* pem("ES256")
      // any bytes do: the thumbprint is that of the DER
      const certificate = `-----BEGIN CERTIFICATE-----\n${
        Buffer.from("certificate").toString("base64")
      }\n-----END CERTIFICATE-----\n`
      const world = run({ clientAuthentication: ClientAssertion.privateKeyJwt({ key, certificate }) })
      yield* world.get
      assert.strictEqual(
        decodeProtectedHeader(world.assertions()[0] ?? "")["x5t#S256"],
        Buffer.from(yield* Effect.promise(() => crypto.subtle.digest("SHA-256", Buffer.from("certificate")))).toString(
          "base64url"
        )
      )
      const error = yield* buildError({
        clientAuthentication: ClientAssertion.privateKeyJwt({ key, certificate: "no certificate" })
      })
      assert.instanceOf(error, TokenError.ConfigurationError)
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
    it.effect("is a ConfigurationError when the layer is built, without a byte of the key", () =>
      Effect.gen(function*() {
        const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
        const { key } = yield* pem("ES256")
        const { key: jwkKey } = yield* jwk("ES256")
        const x25519 = generateKeyPairSync("x25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString()
        const publicJwk = JSON.stringify({ ...JSON.parse(Redacted.value(jwkKey)), d: undefined })
        const cases: ReadonlyArray<
          readonly [Partial<ClientAssertion.PrivateKeyJwtOptions> & { key: ClientAssertion.Key }, string]
        > = [
          [{ key: Redacted.make("MARKED") }, "neither PKCS#8 PEM nor a JWK"],
          [{ key: Redacted.make("{MARKED") }, "neither PKCS#8 PEM nor a JWK"],
          [
            { key: Redacted.make(Redacted.value(key).replace(/\n(.{60}).*\n-----END/s, "\n$1\n-----END")) },
            "could not be imported"
          ],
          [{ key: Redacted.make(rsa.privateKey.export({ format: "pem", type: "pkcs1" }).toString()) }, "openssl pkcs8"],
          [{ key: Redacted.make(rsa.publicKey.export({ format: "pem", type: "spki" }).toString()) }, "neither PKCS#8"],
          [{ key: Redacted.make(x25519) }, "neither PKCS#8"],
          [{ key: Redacted.make(publicJwk) }, "public key"],
          [{ key: Redacted.make(JSON.stringify({ kty: "oct", k: "MARKED" })) }, "neither RSA"],
          [{ key, algorithm: "RS256" }, "does not fit"],
          [{ key, algorithm: "none" }, "algorithm is not one of"],
          [{ key, algorithm: "HS256" }, "algorithm is not one of"],
          [{ key, audience: "" }, "audience is empty"],
          [{ key, expiresIn: 0 }, "expiresIn"]
        ]
        for (const [options, text] of cases) {
          const error = yield* buildError({ clientAuthentication: ClientAssertion.privateKeyJwt(options) })
          assert.instanceOf(error, TokenError.ConfigurationError)
          assert.include(error.message, text)
          const secret = Redacted.isRedacted(options.key) ? Redacted.value(options.key).split("\n")[1] ?? "MARKED" : ""
          assert.notInclude(inspect(error, { depth: Infinity }), secret.slice(0, 20) || "MARKED")
        }
      }))

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

  it.effect("without a secret is a ConfigurationError", () =>
    Effect.map(
      buildError({ clientAuthentication: ClientAssertion.clientSecretJwt() }),
      (error) => assert.instanceOf(error, TokenError.ConfigurationError)
    ))
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
    "JSON that is no account is a ConfigurationError when the layer is built: %s",
    (text) =>
      Effect.gen(function*() {
        const { layer } = getWith(ClientAssertion.googleServiceAccount(Redacted.make(text), { scope: "a" }))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.message, "service account")
        assert.notInclude(inspect(error), "MARKED")
      })
  )

  it.effect("a key that is none is a ConfigurationError when the layer is built", () =>
    Effect.gen(function*() {
      const { layer } = getWith(ClientAssertion.googleServiceAccount(account("MARKED"), { scope: "a" }))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      assert.include(error.message, "private_key of the service account")
      assert.notInclude(inspect(error), "MARKED")
    }))
})
