/** Tokens bound to a key, through the whole pipeline (RFC 9449). What holds for Bearer too is tested over each presentation. */
import { HttpBody, HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Option, Redacted, Stream, TestClock } from "effect"
import { Alf, AuthorizedHttpClient, Grant, TokenError, TokenStorage } from "effect-alf"
import * as DPoP from "effect-alf/DPoP"
import { decodeJwt, decodeProtectedHeader, exportJWK, exportPKCS8, generateKeyPair } from "jose"
import { inspect } from "node:util"
import { dpopServer } from "../support/dpopServer.ts"
import { goodToken, json, scripted } from "../support/scriptedClient.ts"

const api = "https://api.test"

type Options = Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>

const connect = (server: { readonly layer: Layer.Layer<HttpClient.HttpClient> }, options: Options = {}) =>
  Effect.provide(
    Alf.make({
      tokenEndpoint: "https://auth.test/token",
      clientId: "client",
      clientSecret: Redacted.make("a-secret"),
      origins: [api],
      dpop: DPoP.generate(),
      tokenRetry: { times: 0 },
      ...options
    }),
    server.layer
  )

const get = ({ authorizedHttpClient }: Alf.Clients) =>
  Effect.map(authorizedHttpClient.get(`${api}/data?q=1#f`), ({ status }) => status)

const nonceOf = ({ headers }: { readonly headers: Readonly<Record<string, string>> }) =>
  decodeJwt(headers["dpop"] ?? "")["nonce"]

describe("a token that is bound to a key", () => {
  it.scoped("comes with a proof, and goes with a proof of its own for each request", () =>
    Effect.gen(function*() {
      const server = dpopServer()
      const clients = yield* connect(server)
      for (let n = 0; n < 3; n++) assert.strictEqual(yield* get(clients), 200)
      assert.strictEqual((yield* clients.httpClient.post(`${api}/other`)).status, 200)
      assert.deepStrictEqual([server.tokenRequests().length, server.apiRequests().length, server.problems], [1, 4, []])
      const [request] = server.apiRequests()
      const proof = decodeJwt(request?.headers["dpop"] ?? "")
      assert.deepInclude(proof, { htm: "GET", htu: `${api}/data`, iat: 0 })
      assert.match(String(proof.jti), /^[0-9a-f]{32}$/)
      assert.strictEqual(decodeProtectedHeader(request?.headers["dpop"] ?? "").alg, "ES256")
      assert.strictEqual((yield* clients.tokens.get).type, "DPoP")
    }))

  it.effect.each(["ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"] as const)(
    "is proved by %s",
    (algorithm) =>
      Effect.scoped(Effect.gen(function*() {
        const server = dpopServer()
        assert.strictEqual(yield* get(yield* connect(server, { dpop: DPoP.generate({ algorithm }) })), 200)
        const key = yield* Effect.promise(async () => {
          const { privateKey } = await generateKeyPair(algorithm, { extractable: true })
          return Redacted.make(await exportPKCS8(privateKey))
        })
        assert.strictEqual(yield* get(yield* connect(server, { dpop: DPoP.make({ key, algorithm }) })), 200)
        assert.deepStrictEqual(server.problems, [])
      }))
  )

  describe("nonces", () => {
    it.scoped("of both servers are learnt from their challenges, once", () =>
      Effect.gen(function*() {
        const server = dpopServer({ authNonce: "auth-1", apiNonce: "api-1" })
        const clients = yield* connect(server)
        for (let n = 0; n < 3; n++) assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(server.tokenRequests().map(nonceOf), [undefined, "auth-1"])
        assert.deepStrictEqual(server.apiRequests().map(nonceOf), [undefined, "api-1", "api-1", "api-1"])
      }))

    it.scoped("that change are followed, from successes too", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-1" })
        const clients = yield* connect(server)
        yield* get(clients)
        server.state.apiNonce = "api-2"
        assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(server.apiRequests().map(nonceOf), [undefined, "api-1", "api-1", "api-2"])
        server.state.isRotating = true
        const before = server.apiRequests().length
        for (let n = 0; n < 5; n++) assert.strictEqual(yield* get(clients), 200)
        assert.strictEqual(server.apiRequests().length - before, 5)
      }))

    it.scoped("that change with each response do not cost a token, with 64 requests in flight", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-1", isRotating: true })
        const clients = yield* connect(server)
        const all = yield* Effect.all(Array.from({ length: 64 }, () => get(clients)), { concurrency: "unbounded" })
        assert.isTrue(all.every((status) => status === 200))
        assert.lengthOf(server.tokenRequests(), 1)
        assert.isAtMost(server.apiRequests().length, 128)
        assert.deepStrictEqual(server.problems, [])
      }))

    it.scoped("of a server that never takes one end in Unauthorized, and count as no rejection of the token", () =>
      Effect.gen(function*() {
        let issued = 0
        let nonces = 0
        const server = scripted((request) =>
          request.url.startsWith("https://auth.test")
            ? json({ access_token: `token-${++issued}`, token_type: "DPoP", expires_in: 3600 })
            : new Response("no", {
              status: 401,
              headers: { "www-authenticate": "DPoP error=\"use_dpop_nonce\"", "dpop-nonce": `nonce-${++nonces}` }
            })
        )
        const clients = yield* connect(server)
        for (let n = 0; n < 3; n++) {
          assert.instanceOf(yield* Effect.flip(get(clients)), AuthorizedHttpClient.Unauthorized)
        }
        assert.strictEqual((yield* clients.httpClient.get(`${api}/data`)).status, 401)
        assert.deepStrictEqual([issued, nonces], [1, 8])
      }))

    it.scoped("that a replay is refused for do not count against the new token", () =>
      Effect.gen(function*() {
        let issued = 0
        let nonces = 0
        let answer = "use_dpop_nonce"
        const server = scripted((request) => {
          if (request.url.startsWith("https://auth.test")) {
            return json({ access_token: `token-${++issued}`, token_type: "DPoP", expires_in: 3600 })
          }
          const token = request.headers["authorization"]
          const error = token === "DPoP token-1" ? "invalid_token" : token === "DPoP token-2" ? answer : undefined
          return error === undefined ? json({}) : new Response("no", {
            status: 401,
            headers: { "www-authenticate": `DPoP error="${error}"`, "dpop-nonce": `nonce-${++nonces}` }
          })
        })
        const clients = yield* connect(server)
        assert.instanceOf(yield* Effect.flip(get(clients)), AuthorizedHttpClient.Unauthorized)
        assert.deepStrictEqual([issued, nonces], [2, 3])
        answer = "invalid_token"
        assert.strictEqual(yield* get(clients), 200)
        assert.strictEqual(issued, 3)
      }))

    it.scoped("are found in any of several challenges", () =>
      Effect.gen(function*() {
        const challenge = "Basic, DPoP algs=\"ES256\", Bearer error=\"invalid_token\", DPoP error=\"use_dpop_nonce\""
        const server = scripted((request) =>
          request.url.startsWith("https://auth.test")
            ? json({ access_token: "token", token_type: "DPoP", expires_in: 3600 })
            : nonceOf(request) === "nonce-1"
            ? json({})
            : new Response("no", { status: 401, headers: { "www-authenticate": challenge, "dpop-nonce": "nonce-1" } })
        )
        assert.strictEqual(yield* get(yield* connect(server)), 200)
        assert.lengthOf(server.requests, 3)
      }))

    it.scoped("that are asked for again without a new one are not repeated", () =>
      Effect.gen(function*() {
        const server = scripted((request) =>
          request.url.startsWith("https://auth.test")
            ? json({ error: "use_dpop_nonce" }, { status: 400, headers: { "dpop-nonce": "the same" } })
            : json({})
        )
        const error = yield* Effect.flip(get(yield* connect(server)))
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "use_dpop_nonce")
        // "the same" holds a space, and is no nonce
        assert.lengthOf(server.requests, 1)
      }))

    it.scoped("are those of each origin", () =>
      Effect.gen(function*() {
        const server = dpopServer({ authNonce: "auth-1", apiNonce: "api-1" })
        const clients = yield* connect(server, { origins: [api, "https://other.test"] })
        yield* get(clients)
        yield* clients.httpClient.get("https://other.test/")
        assert.deepStrictEqual(server.apiRequests().map(nonceOf), [undefined, "api-1", undefined, "api-1"])
      }))
  })

  describe("a 401", () => {
    it.scoped("leads to one new token and one replay, each with a proof of its own", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-1" })
        const clients = yield* connect(server)
        yield* get(clients)
        server.revokeAll()
        assert.strictEqual(yield* get(clients), 200)
        assert.lengthOf(server.tokenRequests(), 2)
        assert.deepStrictEqual(server.problems, [])
      }))

    it.scoped("costs at most four sends, with nonces that change at the worst moments", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-0" })
        const clients = yield* connect(server)
        yield* get(clients)
        server.revokeAll()
        server.state.apiNonce = "api-1"
        const before = server.apiRequests().length
        server.state.isRevoking = true
        assert.instanceOf(yield* Effect.flip(get(clients)), AuthorizedHttpClient.Unauthorized)
        assert.isAtMost(server.apiRequests().length - before, 4)
        assert.lengthOf(server.tokenRequests(), 2)
      }))

    it.scoped("under filterStatusOk is no different", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-1" })
        const clients = yield* connect({
          layer: Layer.succeed(HttpClient.HttpClient, HttpClient.filterStatusOk(server.client))
        })
        assert.strictEqual(yield* get(clients), 200)
        server.revokeAll()
        assert.strictEqual(yield* get(clients), 200)
      }))

    it.scoped("to a body that can be read once is the answer, and the next request has the nonce", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-1" })
        const { httpClient } = yield* connect(server)
        const upload = httpClient.execute(
          HttpClientRequest.setBody(HttpClientRequest.post(api), HttpBody.stream(Stream.make(new Uint8Array([97]))))
        )
        assert.strictEqual((yield* upload).status, 401)
        assert.strictEqual((yield* upload).status, 200)
        assert.lengthOf(server.tokenRequests(), 1)
      }))

    it.scoped("to a stream that can run again is repeated, byte for byte", () =>
      Effect.gen(function*() {
        const server = dpopServer({ apiNonce: "api-1" })
        const { httpClient } = yield* connect(server)
        const response = yield* httpClient.execute(AuthorizedHttpClient.replayable(
          HttpClientRequest.setBody(HttpClientRequest.post(api), HttpBody.stream(Stream.make(new Uint8Array([97]))))
        ))
        assert.deepStrictEqual(yield* response.json, { fine: "a" })
      }))
  })

  describe("clocks", () => {
    it.scoped.each([-60_000, -11_000, 0, 4_000, 60_000, 3_600_000])(
      "that differ by %d ms cost at most one more proof",
      (ahead) =>
        Effect.gen(function*() {
          yield* TestClock.setTime(1_700_000_000_000)
          const server = dpopServer({ ahead })
          const clients = yield* connect(server)
          for (let n = 0; n < 3; n++) assert.strictEqual(yield* get(clients), 200)
          assert.isAtMost(server.tokenRequests().length, 2)
          assert.lengthOf(server.apiRequests(), 3)
        })
    )

    it.scoped("of an API that differs from that of its authorization server are learnt too", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_700_000_000_000)
        const server = dpopServer()
        const clients = yield* connect(server)
        yield* get(clients)
        server.state.ahead = 120_000
        for (let n = 0; n < 3; n++) assert.strictEqual(yield* get(clients), 200)
        assert.lengthOf(server.apiRequests(), 5)
        assert.lengthOf(server.tokenRequests(), 1)
      }))

    it.scoped("are not judged by a response that was long under way", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_700_000_000_000)
        const server = dpopServer()
        const slow = HttpClient.transform(server.client, (response, { url }) =>
          url.startsWith(api)
            ? response
            : Effect.tap(response, () => TestClock.setTime(1_700_000_060_000)))
        const clients = yield* connect(
          { layer: Layer.succeed(HttpClient.HttpClient, slow) },
          { tokenTimeout: "5 minutes" }
        )
        assert.strictEqual(yield* get(clients), 200)
        assert.lengthOf(server.apiRequests(), 1)
      }))

    it.scoped("that differ by years are not believed", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_700_000_000_000)
        const server = dpopServer({ ahead: 10 * 365 * 24 * 3_600_000 })
        const error = yield* Effect.flip(get(yield* connect(server)))
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_dpop_proof")
        assert.lengthOf(server.tokenRequests(), 1)
      }))
  })

  it.scoped("is never sent as Bearer, and a Bearer token is refused", () =>
    Effect.gen(function*() {
      const server = dpopServer({ tokenType: "Bearer" })
      const error = yield* Effect.flip(get(yield* connect(server)))
      assert.instanceOf(error, TokenError.InvalidTokenResponse)
      assert.lengthOf(server.apiRequests(), 0)
      const plain = scripted(() => json({ access_token: "a", token_type: "DPoP" }))
      const refused = yield* Effect.flip(get(yield* connect(plain, { dpop: undefined })))
      assert.instanceOf(refused, TokenError.InvalidTokenResponse)
    }))

  it.scoped("is shared by those who share the key, and by no other", () =>
    Effect.gen(function*() {
      const server = dpopServer()
      const storage = yield* Layer.build(TokenStorage.layerMemory)
      const text = yield* Effect.promise(async () => {
        const { privateKey } = await generateKeyPair("ES256", { extractable: true })
        return JSON.stringify(await exportJWK(privateKey))
      })
      const key = DPoP.make({ key: Redacted.make(text) })
      for (const dpop of [key, key, DPoP.generate(), DPoP.generate()]) {
        assert.strictEqual(yield* get(yield* Effect.provide(connect(server, { dpop }), storage)), 200)
      }
      assert.lengthOf(server.tokenRequests(), 3)
    }))

  it.scoped("shows neither token nor proof in errors and responses", () =>
    Effect.gen(function*() {
      const server = dpopServer()
      const clients = yield* connect(server)
      const response = yield* clients.httpClient.get(`${api}/data`)
      server.state.isRevoking = true
      const error = yield* Effect.flip(get(clients))
      const broken = HttpClient.transform(server.client, (effect, request) =>
        request.url.startsWith(api)
          ? Effect.die(new Error(JSON.stringify(request.headers), { cause: request }))
          : effect)
      const exit = yield* Effect.exit(get(yield* connect({ layer: Layer.succeed(HttpClient.HttpClient, broken) })))
      const echoed = yield* Effect.flip(
        get(yield* connect(dpopServer({ authNonce: "a", ahead: 10 * 365 * 24 * 3_600_000 })))
      )
      const secrets = server.requests.flatMap(({ headers }) => [
        headers["dpop"] ?? "?",
        ...(headers["authorization"]?.startsWith("DPoP") === true ? [headers["authorization"].slice(5)] : [])
      ])
      const cause = Option.getOrThrow(Exit.causeOption(exit))
      for (const value of [response, error, cause, echoed, clients]) {
        const shown = inspect(value, { depth: 12 }) + JSON.stringify(value) +
          (Cause.isCause(value) ? Cause.pretty(value) : "")
        for (const secret of secrets) {
          assert.notInclude(shown, secret)
        }
        assert.notMatch(shown, /eyJ0eXAiOiJkcG9wK2p3dCI/)
      }
    }))

  it.scoped("with a key of the process and a storage that outlives it cannot sign people in", () =>
    Effect.gen(function*() {
      const server = dpopServer()
      const grant: Grant.Grant = { ...Grant.clientCredentials(), signsIn: true }
      const persistent = Layer.succeed(TokenStorage.TokenStorage, { ...TokenStorage.none, persistent: true })
      const error = yield* Effect.flip(Effect.provide(connect(server, { grant }), persistent))
      assert.instanceOf(error, TokenError.ConfigurationError)
      assert.include(error.message, "DPoP.make")
      yield* connect(server, { grant })
      yield* Effect.provide(connect(server, { grant }), TokenStorage.layerMemory)
      yield* Effect.provide(connect(server), persistent)
    }))

  it.scoped("goes into Authorization: another header is a ConfigurationError", () =>
    Effect.gen(function*() {
      for (const header of [{ name: "x-token" }, { scheme: "Bearer" }]) {
        const error = yield* Effect.flip(connect(dpopServer(), { header }))
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.match(error.message, /^header .*dpop/)
      }
    }))

  it.scoped("needs a key that can be used: a ConfigurationError otherwise, without a byte of it", () =>
    Effect.gen(function*() {
      for (
        const key of [
          Redacted.make("MARKED"),
          Effect.fail("MARKED"),
          Effect.die("MARKED"),
          Redacted.make("{\"kty\":\"oct\"}")
        ]
      ) {
        const error = yield* Effect.flip(connect(dpopServer(), { dpop: DPoP.make({ key }) }))
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.match(error.message, /^dpop: /)
        assert.notInclude(inspect(error), "MARKED")
      }
    }))

  it.effect("has the thumbprint and the hash of the RFCs", () =>
    Effect.gen(function*() {
      // RFC 9449 §4.1 and §6.1
      const jwk = {
        kty: "EC",
        x: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        crv: "P-256"
      }
      const { calculateJwkThumbprint } = yield* Effect.promise(() => import("jose"))
      assert.strictEqual(
        yield* Effect.promise(() => calculateJwkThumbprint(jwk)),
        "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
      )
      const { privateKey } = yield* Effect.promise(() => generateKeyPair("ES256", { extractable: true }))
      const own = yield* Effect.promise(() => exportJWK(privateKey))
      const dpop = yield* DPoP.make({ key: Redacted.make(JSON.stringify(own)) })
      assert.strictEqual(dpop.thumbprint, yield* Effect.promise(() => calculateJwkThumbprint(own)))

      // RFC 9449 §7.1
      const server = scripted((request) =>
        request.url.startsWith("https://auth.test")
          ? json({ access_token: "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", token_type: "DPoP" })
          : goodToken("")
      )
      yield* Effect.scoped(Effect.flatMap(connect(server), get))
      assert.strictEqual(
        decodeJwt(server.requests[1]?.headers["dpop"] ?? "")["ath"],
        "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
      )
    }))
})
