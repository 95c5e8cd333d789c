/** The certified `oidc-provider`, for clients that prove themselves with keys, tokens bound to a key, and device codes. */
import { FetchHttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Option, Redacted, type Scope } from "effect"
import { AccessToken, Alf, DeviceCodeGrant, TokenStorage } from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import * as DPoP from "effect-alf/DPoP"
import * as TokenStorageRedis from "effect-alf/TokenStorage/Redis"
import { exportJWK, exportPKCS8, generateKeyPair } from "jose"
import { generateKeyPairSync, randomBytes } from "node:crypto"
import type { RequestListener } from "node:http"
import { errors, Provider } from "oidc-provider"
import { vi } from "vitest"
import { listen } from "../support/apiServer.ts"
import * as FaultProxy from "../support/faultProxy.ts"
import { isMissing, redisServer } from "../support/servers.ts"

const { privateKey: signingKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })

const secret = "a-secret-of-at-least-thirty-two-characters"

type ClientMetadata = NonNullable<NonNullable<ConstructorParameters<typeof Provider>[1]>["clients"]>[number]

interface Server {
  /** The URL of a proxy in front of the provider. */
  readonly issuer: string
  readonly proxy: FaultProxy.FaultProxy
  readonly seen: ReadonlyArray<string>
  /** What verified assertions said, oldest first. */
  readonly assertions: ReadonlyArray<{ readonly typ: unknown; readonly aud: unknown; readonly jti: unknown }>
}

/**
 * A provider that demands nonces in proofs, and takes device codes; its user info is the API. A strict one wants the
 * issuer as audience, as FAPI 2.0 does, and the `typ` of draft-ietf-oauth-rfc7523bis.
 */
const authorizationServer = (
  client: Partial<ClientMetadata>,
  { isStrict = false }: { readonly isStrict?: boolean } = {}
): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function*() {
    const seen: Array<string> = []
    const assertions: Array<Server["assertions"][number]> = []
    let callback: RequestListener = () => {}
    const proxy = yield* FaultProxy.make(
      yield* listen(() => (request, response) => {
        seen.push(`${request.method} ${request.url?.split("?")[0]}`)
        callback(request, response)
      })
    )
    const warn = vi.spyOn(console, "warn").mockReturnValue()
    const provider = new Provider(proxy.url, {
      clients: [{
        client_id: "client",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        ...client
      }],
      clientAuthMethods: ["private_key_jwt", "client_secret_jwt", "none"],
      assertJwtClientAuthClaimsAndHeader: ({ oidc }, { aud, jti }, { typ }) => {
        if (isStrict && (aud !== oidc.issuer || typ !== "client-authentication+jwt")) {
          throw new errors.InvalidClientAuth("not addressed to the issuer alone")
        }
        assertions.push({ aud, jti, typ })
      },
      cookies: { keys: ["test"] },
      jwks: { keys: [{ ...signingKey.export({ format: "jwk" }), alg: "ES256", use: "sig" }] },
      clientDefaults: { id_token_signed_response_alg: "ES256" },
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
      enabledJWA: {
        clientAuthSigningAlgValues: ["ES256", "ES384", "ES512", "RS256", "PS256", "Ed25519", "EdDSA", "HS256", "HS512"],
        dPoPSigningAlgValues: ["ES256", "EdDSA", "Ed25519"]
      },
      features: {
        clientCredentials: { enabled: true },
        deviceFlow: { enabled: true },
        revocation: { enabled: true },
        dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true }
      },
      ttl: {
        AccessToken: 600,
        ClientCredentials: 600,
        DeviceCode: 600,
        Grant: 600,
        Interaction: 600,
        RefreshToken: 600,
        Session: 600,
        IdToken: 600
      }
    })
    warn.mockRestore()
    callback = provider.callback()
    return { issuer: proxy.url, proxy, seen, assertions }
  })

const connect = <R = never>(
  issuer: string,
  options: Partial<Extract<Alf.Options<R>, { readonly issuer: string }>>
) => Alf.make<R>({ clientId: "client", origins: [issuer], issuer, tokenRetry: { base: "1 millis" }, ...options })

describe("a client that signs assertions, at oidc-provider", () => {
  it.scopedLive.each(["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"])(
    "private_key_jwt by %s, PEM and JWK; two of three responses get lost, and each attempt has an assertion of its own",
    (algorithm) =>
      Effect.gen(function*() {
        const { privateKey, publicKey } = yield* Effect.promise(() => generateKeyPair(algorithm, { extractable: true }))
        const jwk = { ...(yield* Effect.promise(() => exportJWK(publicKey))), kid: "key-1", use: "sig" }
        const keys = yield* Effect.promise(async () => [
          await exportPKCS8(privateKey),
          JSON.stringify({ ...await exportJWK(privateKey), kid: "key-1" })
        ])
        for (const key of keys) {
          const server = yield* authorizationServer(
            { token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [jwk] } },
            { isStrict: true }
          )
          // discovery, and then the requests for a token
          server.proxy.script("none", "cut", "cut")
          const { tokens } = yield* connect(server.issuer, {
            clientAuthentication: ClientAssertion.privateKeyJwt({ key: Redacted.make(key), algorithm })
          })
          const token = yield* tokens.get
          assert.strictEqual(token.type, "Bearer")
          assert.deepStrictEqual(server.seen.slice(-3), ["POST /token", "POST /token", "POST /token"])
          assert.lengthOf(new Set(server.assertions.map(({ jti }) => jti)), 3)
        }
      }).pipe(Effect.provide(FetchHttpClient.layer))
  )

  it.scopedLive.each(
    [
      ["HS256", secret],
      ["HS512", secret],
      // shorter than RFC 7518 wants: this server takes it
      ["HS256", "short"]
    ] as const
  )("client_secret_jwt by %s", ([algorithm, secret]) =>
    Effect.gen(function*() {
      const server = yield* authorizationServer({
        client_secret: secret,
        token_endpoint_auth_method: "client_secret_jwt",
        token_endpoint_auth_signing_alg: algorithm
      }, { isStrict: true })
      server.proxy.script("none", "cut", "cut")
      const { tokens } = yield* connect(server.issuer, {
        clientSecret: Redacted.make(secret),
        clientAuthentication: ClientAssertion.clientSecretJwt({ algorithm })
      })
      assert.strictEqual((yield* tokens.get).type, "Bearer")
      assert.lengthOf(new Set(server.assertions.map(({ jti }) => jti)), 3)
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  describe("the server is strict:", () => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    const key = Redacted.make(privateKey.export({ type: "pkcs8", format: "pem" }).toString())
    const other = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey
    const strict = authorizationServer({
      token_endpoint_auth_method: "private_key_jwt",
      jwks: { keys: [publicKey.export({ format: "jwk" })] }
    }, { isStrict: true })

    it.scopedLive.each<readonly [string, Partial<ClientAssertion.PrivateKeyJwtOptions>]>([
      ["the wrong key", { key: Redacted.make(other.export({ type: "pkcs8", format: "pem" }).toString()) }],
      ["another typ", { type: "JWT" }],
      ["no typ", { type: null }],
      ["the token endpoint as audience", { audience: "tokenEndpoint", type: "client-authentication+jwt" }],
      ["an audience of somebody else", { audience: "https://other.test" }]
    ])("%s is invalid_client, once", ([_, options]) =>
      Effect.gen(function*() {
        const { issuer, seen } = yield* strict
        const { tokens } = yield* connect(issuer, {
          clientAuthentication: ClientAssertion.privateKeyJwt({ key, ...options })
        })
        const error = yield* Effect.flip(tokens.get)
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
        assert.lengthOf(seen.filter((request) => request === "POST /token"), 1)
      }).pipe(Effect.provide(FetchHttpClient.layer)))

    it.scopedLive("an assertion that was used is invalid_client", () =>
      Effect.gen(function*() {
        const { assertions, issuer } = yield* strict
        const method = ClientAssertion.privateKeyJwt({ key })
        const at = { endpoint: `${issuer}/token`, tokenEndpoint: `${issuer}/token`, issuer: Option.some(issuer) }
        const proof = yield* method.prove({ id: "client", secret: Option.none() }, at)
        const body = new URLSearchParams({ grant_type: "client_credentials", ...proof.params })
        const responses = yield* Effect.promise(async () => [
          await fetch(at.endpoint, { method: "POST", body }),
          await fetch(at.endpoint, { method: "POST", body })
        ])
        assert.deepStrictEqual(responses.map(({ status }) => status), [200, 401])
        assert.include(yield* Effect.promise(() => responses[1]!.text()), "invalid_client")
        assert.deepStrictEqual(assertions.map(({ aud, typ }) => [aud, typ]), [
          [issuer, "client-authentication+jwt"],
          [issuer, "client-authentication+jwt"]
        ])
      }))
  })
})

describe("tokens that are bound to a key, at oidc-provider with nonces", () => {
  const bound = { token_endpoint_auth_method: "private_key_jwt", dpop_bound_access_tokens: true } as const

  it.scopedLive("are got with a nonce, and shared by processes with the same key through Redis", () =>
    Effect.gen(function*() {
      if (isMissing("redis-server")) return
      const { port } = yield* redisServer()
      const client = yield* Effect.promise(() => generateKeyPair("ES256", { extractable: true }))
      const proof = yield* Effect.promise(async () =>
        exportPKCS8((await generateKeyPair("ES256", { extractable: true })).privateKey)
      )
      const { issuer, seen } = yield* authorizationServer({
        ...bound,
        jwks: { keys: [yield* Effect.promise(() => exportJWK(client.publicKey))] }
      })
      const key = Redacted.make(yield* Effect.promise(() => exportPKCS8(client.privateKey)))
      const start = (dpop: NonNullable<Alf.Options["dpop"]>) =>
        Effect.flatMap(
          Layer.build(Layer.merge(FetchHttpClient.layer, TokenStorageRedis.layer({ port }))),
          (context) =>
            Effect.provide(
              connect(issuer, { clientAuthentication: ClientAssertion.privateKeyJwt({ key }), dpop }),
              context
            )
        )
      const shared = DPoP.make({ key: Redacted.make(proof) })
      const [first, second, other] = yield* Effect.all([start(shared), start(shared), start(DPoP.generate())])
      const a = yield* first.tokens.get
      assert.strictEqual(a.type, "DPoP")
      assert.isTrue(AccessToken.isSame(a, yield* second.tokens.get))
      assert.isFalse(AccessToken.isSame(a, yield* other.tokens.get))
      // one that is refused for its nonce, and one that is not, for each key
      assert.lengthOf(seen.filter((request) => request === "POST /token"), 4)
    }))
})

/** A browser without scripts: it keeps cookies, follows redirects, and sends the first form of a page. */
const makeReader = () => {
  const cookies = new Map<string, string>()
  const visit = async (
    url: string,
    form?: URLSearchParams
  ): Promise<{ readonly url: string; readonly html: string }> => {
    const response = await fetch(url, {
      method: form === undefined ? "GET" : "POST",
      redirect: "manual",
      headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join("; ") },
      ...(form === undefined ? {} : { body: form })
    })
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      cookies.set(name, value)
    }
    const location = response.headers.get("location")
    const html = await response.text()
    return location === null ? { url, html } : visit(new URL(location, url).href)
  }
  const submit = (page: { readonly url: string; readonly html: string }, typed: Readonly<Record<string, string>>) => {
    const [, action = ""] = /<form[^>]*action="([^"]*)"/.exec(page.html) ?? []
    const hidden = [...page.html.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map((
      [input]
    ) => [/name="([^"]*)"/.exec(input)?.[1] ?? "", /value="([^"]*)"/.exec(input)?.[1] ?? ""])
    return visit(new URL(action, page.url).href, new URLSearchParams([...hidden, ...Object.entries(typed)]))
  }
  return { visit, submit }
}

describe("device codes, at oidc-provider", { concurrent: true }, () => {
  it.scopedLive.each(["Bearer", "DPoP"] as const)(
    "a person signs in on another device; the %s tokens are refreshed, and revoked at sign-out",
    (type) =>
      Effect.gen(function*() {
        const { issuer, seen } = yield* authorizationServer({
          application_type: "native",
          token_endpoint_auth_method: "none",
          grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"]
        })
        // another origin, whose nonce is not known from the token endpoint
        const api = issuer.replace("127.0.0.1", "localhost")
        const shown = yield* Deferred.make<DeviceCodeGrant.DeviceCode>()
        const { httpClient, tokens } = yield* connect<DeviceCodeGrant.DevicePrompt>(issuer, {
          origins: [issuer, api],
          grant: DeviceCodeGrant.make({ scope: "openid offline_access", params: { prompt: "consent" } }),
          ...(type === "DPoP" ? { dpop: DPoP.generate() } : {})
        }).pipe(
          Effect.provide(Layer.mergeAll(FetchHttpClient.layer, TokenStorage.layerMemory)),
          Effect.provideService(DeviceCodeGrant.DevicePrompt, { show: (code) => Deferred.succeed(shown, code) })
        )
        const getting = yield* Effect.fork(tokens.get)
        const { userCode, verificationUriComplete } = yield* Deferred.await(shown)
        const { submit, visit } = makeReader()
        yield* Effect.promise(async () => {
          // the page sends the code by itself, and shows it again to be confirmed
          let page = await submit(await visit(Option.getOrThrow(verificationUriComplete)), {})
          assert.include(page.html, userCode)
          page = await submit(page, {})
          page = await submit(page, { login: "alice", password: "secret" })
          page = await submit(page, {})
          assert.match(page.html, /success/i)
        })
        const token = yield* getting
        assert.isTrue(Option.isSome(token.refreshToken))
        assert.strictEqual(token.type, type)
        const calls = Effect.all(Array.from({ length: 2 }, () => httpClient.get(`${api}/me`)))
        assert.deepStrictEqual((yield* calls).map(({ status }) => status), [200, 200])
        // the first one is refused for its nonce
        assert.lengthOf(seen.filter((request) => request === "GET /me"), type === "DPoP" ? 3 : 2)
        const renewed = yield* tokens.refresh(token)
        assert.isFalse(AccessToken.isSame(token, renewed))
        assert.strictEqual((yield* httpClient.get(`${api}/me`)).status, 200)
        yield* tokens.revoke
        assert.lengthOf(seen.filter((request) => request === "POST /token/revocation"), 2)
      }),
    60_000
  )
})
