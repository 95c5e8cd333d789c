/** Glewlwyd, for clients that prove themselves: a second opinion on what `oidc-provider` accepts. */
import { FetchHttpClient } from "@effect/platform"
import { Undici } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer, Redacted } from "effect"
import { Alf, type AuthorizationServer, ClientAuthentication } from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import { decodeJwt } from "jose"
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto"
import { type Certificate, makeCertificate } from "../support/certificates.ts"
import * as FaultProxy from "../support/faultProxy.ts"
import { glewlwyd } from "../support/glewlwyd.ts"
import { isMissing } from "../support/servers.ts"
import { undici } from "../support/transports.ts"

const keys: ReadonlyArray<readonly [string, KeyObject]> = [
  ["ES256", generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey],
  ["ES384", generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey],
  ["ES512", generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey],
  ["RS256", generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey],
  ["RS512", generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey],
  ["PS256", generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey],
  ["EdDSA", generateKeyPairSync("ed25519").privateKey]
]

const pemOf = (key: KeyObject) => Redacted.make(key.export({ type: "pkcs8", format: "pem" }).toString())
const jwkOf = (key: KeyObject) => Redacted.make(JSON.stringify({ ...key.export({ format: "jwk" }), kid: "key-1" }))

const secret = "a-secret-of-at-least-sixty-four-characters-which-is-long-enough-for-HS512"
const oddSecret = "s %:+ecret"

class Issuer extends Context.Tag("Issuer")<Issuer, string>() {}

const server = Layer.scoped(
  Issuer,
  Effect.map(
    glewlwyd([
      ...keys.map(([algorithm, key]) => ({
        id: algorithm,
        method: "private_key_jwt",
        keys: [{ ...createPublicKey(key).export({ format: "jwk" }), kid: "key-1", alg: algorithm }]
      })),
      { id: "long", method: "client_secret_jwt", secret },
      { id: "short", method: "client_secret_jwt", secret: "short" },
      { id: "basic", method: "client_secret_basic", secret: oddSecret },
      { id: "post", method: "client_secret_post", secret: oddSecret }
    ]),
    ({ issuer }) => issuer
  )
)

const get = (client: AuthorizationServer.Client) =>
  Effect.flatMap(Issuer, (issuer) =>
    Effect.flatMap(
      Alf.make({ issuer, scope: "reports", origins: [issuer], tokenRetry: { times: 0 }, ...client }),
      ({ tokens }) => tokens.get
    )).pipe(Effect.provide(FetchHttpClient.layer))

const succeeds = (client: AuthorizationServer.Client) =>
  Effect.map(
    get(client),
    (token) => assert.strictEqual(decodeJwt(Redacted.value(token.value))["client_id"], client.clientId)
  )

/** The hint of a client that is refused. */
const fails = (client: AuthorizationServer.Client) =>
  Effect.map(Effect.flip(get(client)), (error) => {
    if (error._tag !== "TokenErrorResponse") return assert.fail(error._tag)
    assert.strictEqual(error.status, 403)
    return error.hint ?? ""
  })

describe.skipIf(isMissing("glewlwyd") || isMissing("sqlite3"))("at Glewlwyd", () => {
  layer(server, { excludeTestServices: true, timeout: "30 seconds" })((it) => {
    for (const [algorithm, key] of keys) {
      const client = (options: Partial<ClientAssertion.PrivateKeyJwtOptions>) => ({
        clientId: algorithm,
        clientAuthentication: ClientAssertion.privateKeyJwt({ key: jwkOf(key), algorithm, ...options })
      })

      it.scoped(`a client is known by private_key_jwt with ${algorithm}`, () =>
        Effect.gen(function*() {
          yield* succeeds(client({ audience: "endpoint" }))
          yield* succeeds(client({ audience: "tokenEndpoint", key: pemOf(key), keyId: "key-1" }))
        }))

      it.scoped(`an assertion by ${algorithm} to another audience, or with another key, is refused`, () =>
        Effect.gen(function*() {
          // this server knows itself by the URL of its endpoint only
          assert.include(yield* fails(client({ audience: "issuer" })), "audience: \"tokenEndpoint\"")
          const { privateKey } = key.asymmetricKeyType === "ec"
            ? generateKeyPairSync("ec", { namedCurve: String(key.asymmetricKeyDetails?.namedCurve) })
            : key.asymmetricKeyType === "rsa"
            ? generateKeyPairSync("rsa", { modulusLength: 2048 })
            : generateKeyPairSync("ed25519")
          yield* fails(client({ audience: "endpoint", key: jwkOf(privateKey) }))
        }))
    }

    for (const algorithm of ["HS256", "HS384", "HS512"] as const) {
      const clientAuthentication = ClientAssertion.clientSecretJwt({ algorithm, audience: "endpoint" })

      it.scoped(`a client is known by client_secret_jwt with ${algorithm}, also with a short secret`, () =>
        Effect.gen(function*() {
          yield* succeeds({ clientId: "long", clientSecret: Redacted.make(secret), clientAuthentication })
          yield* succeeds({ clientId: "short", clientSecret: Redacted.make("short"), clientAuthentication })
          yield* fails({ clientId: "long", clientSecret: Redacted.make(`${secret}.`), clientAuthentication })
        }))
    }

    it.scoped("two of three responses get lost: each attempt has an assertion of its own", () =>
      Effect.gen(function*() {
        const issuer = yield* Issuer
        const [, key] = keys[0]!
        const sent: Array<string> = []
        const proxy = yield* FaultProxy.make({ port: Number(new URL(issuer).port) })
        proxy.script("cut", "cut")
        const method = ClientAssertion.privateKeyJwt({ key: jwkOf(key), audience: `${issuer}/token` })
        const { tokens } = yield* Alf.make({
          tokenEndpoint: `${proxy.url}/api/oidc/token`,
          clientId: "ES256",
          clientAuthentication: {
            ...method,
            prove: (client, at) =>
              Effect.tap(
                method.prove(client, at),
                ({ params }) => Effect.sync(() => sent.push(params?.["client_assertion"] ?? ""))
              )
          },
          scope: "reports",
          origins: [issuer],
          tokenRetry: { base: "1 millis" }
        })
        yield* tokens.get
        assert.strictEqual(proxy.requests(), 3)
        assert.lengthOf(new Set(sent.map((assertion) => decodeJwt(assertion).jti)), 3)
        // an assertion that was used is worth nothing
        const again = yield* Effect.promise(() =>
          fetch(`${issuer}/token`, {
            method: "POST",
            body: new URLSearchParams({
              grant_type: "client_credentials",
              scope: "reports",
              client_id: "ES256",
              client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
              client_assertion: sent.at(-1) ?? ""
            })
          })
        )
        assert.strictEqual(again.status, 403)
      }).pipe(Effect.provide(FetchHttpClient.layer)))

    it.scoped("a secret with odd characters goes by basicRaw and by post, and not by basic", () =>
      Effect.gen(function*() {
        const clientSecret = Redacted.make(oddSecret)
        yield* succeeds({ clientId: "basic", clientSecret, clientAuthentication: ClientAuthentication.basicRaw })
        yield* succeeds({ clientId: "post", clientSecret, clientAuthentication: ClientAuthentication.post })
        yield* fails({ clientId: "basic", clientSecret, clientAuthentication: ClientAuthentication.basic })
      }))
  })

  it.scopedLive("a client with a certificate gets a token that is bound to it, from the alias of the endpoint", () =>
    Effect.gen(function*() {
      const authority = makeCertificate("authority")
      const { issuer } = yield* glewlwyd([{ id: "client", method: "tls_client_auth", name: "client" }], {
        certificate: makeCertificate("server", { issuer: authority }),
        authority: authority.certificate
      })
      const get = ({ certificate, key }: Certificate) =>
        Effect.flatMap(
          Alf.make({
            issuer,
            clientId: "client",
            clientAuthentication: ClientAuthentication.tls,
            scope: "reports",
            origins: [issuer],
            tokenRetry: { times: 0 }
          }),
          ({ tokens }) => tokens.get
        ).pipe(
          Effect.provide(undici(new Undici.Agent({ connect: { ca: authority.certificate, cert: certificate, key } })))
        )
      const right = makeCertificate("client", { issuer: authority })
      const token = decodeJwt(Redacted.value((yield* get(right)).value))
      assert.deepStrictEqual(token["cnf"], {
        "x5t#S256": createHash("sha256").update(new X509Certificate(right.certificate).raw).digest("base64url")
      })
      const error = yield* Effect.flip(get(makeCertificate("other", { issuer: authority })))
      assert.isTrue(error._tag === "TokenErrorResponse" && error.status === 403)
    }))
})
