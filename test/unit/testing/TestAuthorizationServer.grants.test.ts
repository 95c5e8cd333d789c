/** What the test server knows beside the token endpoint: every grant and every credential is reached without a socket. */
import { HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Option, Redacted, TestClock } from "effect"
import { AccessToken, Alf, AuthorizationServer, DeviceCodeGrant, Grant, TokenError } from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import * as DPoP from "effect-alf/DPoP"
import { TestAuthorizationServer } from "effect-alf/testing"
import { exportJWK, generateKeyPair } from "jose"
import { settle } from "../../support/scriptedServer.ts"

const { issuer } = TestAuthorizationServer

type Options<R> = Partial<Extract<Alf.Options<R>, { readonly issuer: string }>>

const start = <R = never>(options: Options<R> = {}, server: TestAuthorizationServer.Options = {}) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(TestAuthorizationServer.layer(server))
    const clients = yield* Effect.provide(
      Alf.make<R>({
        issuer,
        clientId: "client",
        clientSecret: Redacted.make("a-secret"),
        origins: ["https://api.test"],
        tokenRetry: { times: 0 },
        ...options
      }),
      context
    )
    const server_ = Context.get(context, TestAuthorizationServer.TestAuthorizationServer)
    return {
      ...clients,
      server: server_,
      http: Context.get(context, HttpClient.HttpClient),
      status: Effect.map(clients.authorizedHttpClient.get("https://api.test/orders"), ({ status }) => status),
      endpoints: Effect.map(
        server_.requests,
        (requests) => requests.map(({ endpoint, status }) => `${endpoint} ${status}`)
      )
    }
  })

describe("TestAuthorizationServer", () => {
  it.scoped("is found by discovery", () =>
    Effect.gen(function*() {
      const { endpoints, http, status } = yield* start()
      assert.strictEqual(yield* status, 200)
      assert.deepStrictEqual(yield* endpoints, ["metadata 200", "token 200", "api 200"])
      const metadata = yield* Effect.provideService(AuthorizationServer.discover(issuer), HttpClient.HttpClient, http)
      assert.strictEqual(metadata.revocationEndpoint, "https://auth.test/revoke")
    }))

  it.scoped("revokes", () =>
    Effect.gen(function*() {
      const { server, status, tokens } = yield* start(
        { grant: Grant.refreshToken(Grant.clientCredentials()) },
        { refreshTokens: true }
      )
      assert.strictEqual(yield* status, 200)
      yield* tokens.revoke
      const revoked = (yield* server.requests).filter(({ endpoint }) => endpoint === "revocation")
      assert.deepStrictEqual(revoked.map(({ body }) => new URLSearchParams(body).get("token")), [
        "refresh-1",
        "token-1"
      ])
      assert.strictEqual(yield* status, 200)
      assert.strictEqual(yield* server.issued, 2)
    }))

  describe("device codes", () => {
    const signIn = Effect.gen(function*() {
      const shown: Array<string> = []
      const world = yield* Effect.provideService(
        start<DeviceCodeGrant.DevicePrompt>({
          grant: DeviceCodeGrant.make({ scope: "openid" }),
          clientSecret: undefined
        }),
        DeviceCodeGrant.DevicePrompt,
        { show: ({ userCode }) => Effect.sync(() => void shown.push(userCode)) }
      )
      const fiber = yield* Effect.fork(Effect.either(world.status))
      yield* settle
      const second = Effect.zipRight(TestClock.adjust("5 seconds"), settle)
      return { ...world, shown, fiber, second }
    })

    it.scoped("wait until somebody says yes", () =>
      Effect.gen(function*() {
        const { endpoints, fiber, second, server, shown } = yield* signIn
        yield* second
        yield* server.approve(shown[0] ?? "")
        yield* second
        assert.deepStrictEqual(yield* Fiber.join(fiber), yield* Effect.either(Effect.succeed(200)))
        assert.deepStrictEqual(yield* endpoints, ["metadata 200", "device 200", "token 400", "token 200", "api 200"])
      }))

    it.scoped("end when somebody says no", () =>
      Effect.gen(function*() {
        const { fiber, second, server, shown } = yield* signIn
        yield* server.deny(shown[0] ?? "")
        yield* second
        const result = yield* Fiber.join(fiber)
        assert.isTrue(
          result._tag === "Left" && result.left._tag === "AuthorizationError" && result.left.reason === "AccessDenied"
        )
      }))

    it.scoped("are slowed down when they are polled too often, and expire", () =>
      Effect.gen(function*() {
        const { http } = yield* start()
        const post = (path: string, form: Record<string, string>) =>
          Effect.flatMap(
            http.execute(
              HttpClientRequest.bodyUrlParams(HttpClientRequest.post(`${issuer}${path}`), { client_id: "c", ...form })
            ),
            (response) => Effect.map(response.json, (body) => JSON.stringify(body))
          )
        yield* post("/device", {})
        const poll = post("/token", {
          grant_type: "urn:ietf:params:oauth:grant-type:device_code",
          device_code: "device-1"
        })
        assert.include(yield* poll, "authorization_pending")
        assert.include(yield* poll, "slow_down")
        yield* TestClock.adjust("10 minutes")
        assert.include(yield* poll, "expired_token")
        assert.include(
          yield* post("/token", { grant_type: "urn:ietf:params:oauth:grant-type:device_code", device_code: "x" }),
          "invalid_grant"
        )
      }))
  })

  describe("assertions", () => {
    it.scoped("of a key are checked: signature, audience, and used once", () =>
      Effect.gen(function*() {
        const [own, other] = yield* Effect.promise(() =>
          Promise.all([
            generateKeyPair("ES256", { extractable: true }),
            generateKeyPair("ES256", { extractable: true })
          ])
        )
        const publicJwk = yield* Effect.promise(() => exportJWK(own.publicKey))
        const keyOf = (pair: typeof own) =>
          Effect.map(Effect.promise(() => exportJWK(pair.privateKey)), (jwk) => Redacted.make(JSON.stringify(jwk)))
        const server = { clients: [{ id: "client", keys: [publicJwk] }] }
        const by = (clientAuthentication: NonNullable<Alf.Options["clientAuthentication"]>) =>
          start({ clientSecret: undefined, clientAuthentication }, server)
        const right = yield* by(ClientAssertion.privateKeyJwt({ key: yield* keyOf(own) }))
        assert.strictEqual(yield* right.status, 200)
        yield* right.server.revokeAll
        assert.strictEqual(yield* right.status, 200)

        for (
          const wrong of [
            ClientAssertion.privateKeyJwt({ key: yield* keyOf(other) }),
            ClientAssertion.privateKeyJwt({ key: yield* keyOf(own), audience: "https://elsewhere.test" })
          ]
        ) {
          const error = yield* Effect.flip((yield* by(wrong)).status)
          assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
        }
        // a secret proves nothing for a client with keys
        const error = yield* Effect.flip((yield* start({}, server)).status)
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
      }))

    it.scoped("of a secret are checked too", () =>
      Effect.gen(function*() {
        const clients = [{ id: "client", secret: "a-secret" }]
        const good = yield* start({ clientAuthentication: ClientAssertion.clientSecretJwt() }, { clients })
        assert.strictEqual(yield* good.status, 200)
        const bad = yield* start({
          clientSecret: Redacted.make("another"),
          clientAuthentication: ClientAssertion.clientSecretJwt()
        }, { clients })
        assert.strictEqual((yield* Effect.flip(bad.status))._tag, "TokenErrorResponse")
      }))
  })

  it.scoped("takes JWT bearer and token exchange", () =>
    Effect.gen(function*() {
      const bearer = yield* start({
        grant: Grant.jwtBearer({ key: "ann", assertion: Effect.succeed(Redacted.make("a.b.c")) })
      })
      assert.strictEqual(yield* bearer.status, 200)
      const exchange = yield* start({
        grant: Grant.tokenExchange({ key: "ann", subjectToken: Effect.succeed(Redacted.make("subject")) })
      })
      assert.strictEqual(yield* exchange.status, 200)
      assert.deepStrictEqual(
        AccessToken.extra(yield* exchange.tokens.get, "issued_token_type"),
        Option.some("urn:ietf:params:oauth:token-type:access_token")
      )
    }))

  describe("proofs of possession", () => {
    for (const dpop of ["optional", "required", "nonces"] as const) {
      it.scoped(`"${dpop}": a token is bound to the key of its proof`, () =>
        Effect.gen(function*() {
          const { http, status, tokens } = yield* start({ dpop: DPoP.generate() }, { dpop })
          assert.strictEqual(yield* status, 200)
          const token = yield* tokens.get
          assert.strictEqual(token.type, "DPoP")
          const stolen = (scheme: string) =>
            Effect.map(
              http.get("https://api.test/orders", {
                headers: { authorization: `${scheme} ${Redacted.value(token.value)}` }
              }),
              ({ status }) => status
            )
          assert.deepStrictEqual([yield* stolen("Bearer"), yield* stolen("DPoP")], [401, 401])
        }))
    }

    it.scoped("a nonce that changes costs one more request, not a token", () =>
      Effect.gen(function*() {
        const { endpoints, server, status } = yield* start({ dpop: DPoP.generate() }, { dpop: "nonces" })
        yield* status
        yield* server.rotateNonce
        assert.strictEqual(yield* status, 200)
        assert.deepStrictEqual(yield* endpoints, [
          "metadata 200",
          "token 400",
          "token 200",
          "api 401",
          "api 200",
          "api 401",
          "api 200"
        ])
      }))

    it.scoped("without one where it is required, a request is refused", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip((yield* start({}, { dpop: "required" })).status)
        assert.instanceOf(error, TokenError.TokenErrorResponse)
        assert.strictEqual(error.error, "invalid_dpop_proof")
      }))
  })
})
