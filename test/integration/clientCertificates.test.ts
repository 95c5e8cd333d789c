/** Clients with a certificate (RFC 8705), over TLS, at `oidc-provider`: each token is bound to the certificate. */
import { HttpClient } from "@effect/platform"
import { NodeHttpClient, Undici } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Ref, type Scope } from "effect"
import { Alf, ClientAuthentication, type TokenError } from "effect-alf"
import { createPublicKey, X509Certificate } from "node:crypto"
import type * as http from "node:http"
import * as https from "node:https"
import type { AddressInfo } from "node:net"
import { TLSSocket } from "node:tls"
import { Provider } from "oidc-provider"
import { vi } from "vitest"
import { answer, eventually, listen } from "../support/apiServer.ts"
import { type Certificate, makeCertificate } from "../support/certificates.ts"

const authority = makeCertificate("authority")
const serverCertificate = makeCertificate("server", { issuer: authority })

/** The SHA-256 of a certificate as tokens and headers name it. */
const thumbprint = (certificate: string): string =>
  Buffer.from(new X509Certificate(certificate).fingerprint256.replaceAll(":", ""), "hex").toString("base64url")

const peerOf = ({ socket }: http.IncomingMessage): X509Certificate | undefined => {
  const raw = socket instanceof TLSSocket ? socket.getPeerCertificate().raw : undefined
  return raw === undefined ? undefined : new X509Certificate(raw)
}

interface World {
  readonly issuer: string
  readonly api: string
  /** What was asked of which server, and with which certificate. */
  readonly seen: ReadonlyArray<{ readonly request: string; readonly thumbprint: string | undefined }>
  /** From now on the API keeps requests waiting. */
  readonly hold: () => void
  readonly held: () => number
  readonly release: () => void
}

/**
 * Metadata, and a token endpoint that nobody should use, without TLS; and with TLS the token endpoint of
 * `mtls_endpoint_aliases` and an API, which takes a token over a connection with the token's certificate only.
 */
const servers = (method: "tls_client_auth" | "self_signed_tls_client_auth", registered: Certificate) =>
  Effect.gen(function*() {
    const seen: Array<World["seen"][number]> = []
    const waiting: Array<() => void> = []
    let isHolding = false
    const listeners: { plain: http.RequestListener; secure: http.RequestListener } = {
      plain: () => {},
      secure: () => {}
    }
    const { url: issuer } = yield* listen(() => (request, response) => listeners.plain(request, response))
    const secure = yield* listenSecurely((request, response) => listeners.secure(request, response))

    const warn = vi.spyOn(console, "warn").mockReturnValue()
    const provider = new Provider(issuer, {
      clients: [{
        client_id: "client",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: method,
        tls_client_certificate_bound_access_tokens: true,
        ...(method === "tls_client_auth" ? { tls_client_auth_subject_dn: "CN=client" } : {
          jwks: {
            keys: [{
              ...createPublicKey(registered.key).export({ format: "jwk" }),
              x5c: [new X509Certificate(registered.certificate).raw.toString("base64")]
            }]
          }
        })
      }],
      clientAuthMethods: [method],
      cookies: { keys: ["test"] },
      discovery: { mtls_endpoint_aliases: { token_endpoint: `${secure}/token` } },
      features: {
        clientCredentials: { enabled: true },
        mTLS: {
          enabled: true,
          certificateBoundAccessTokens: true,
          selfSignedTlsClientAuth: true,
          tlsClientAuth: true,
          getCertificate: ({ req }) => peerOf(req)?.toString(),
          certificateAuthorized: ({ req }) => req.socket instanceof TLSSocket && req.socket.authorized,
          certificateSubjectMatches: ({ req }, _, expected) => peerOf(req)?.subject === expected
        }
      },
      ttl: { ClientCredentials: 600 }
    })
    warn.mockRestore()
    const callback = provider.callback()
    const note = (server: string, request: http.IncomingMessage) => {
      const peer = peerOf(request)
      seen.push({
        request: `${server} ${request.method} ${request.url}`,
        thumbprint: peer === undefined ? undefined : thumbprint(peer.toString())
      })
    }
    listeners.plain = (request, response) => {
      note("plain", request)
      void callback(request, response)
    }
    listeners.secure = (request, response) => {
      note("secure", request)
      if (request.url !== "/api") return void callback(request, response)
      const respond = async () => {
        const token = await provider.ClientCredentials.find(request.headers.authorization?.split(" ")[1] ?? "")
        const bound = token?.["x5t#S256"]
        const peer = peerOf(request)
        if (peer !== undefined && bound === thumbprint(peer.toString())) answer(response, 200, { bound })
        else answer(response, 401, {}, { "www-authenticate": "Bearer error=\"invalid_token\"" })
      }
      if (isHolding) waiting.push(() => void respond())
      else void respond()
    }
    const world: World = {
      issuer,
      api: `${secure}/api`,
      seen,
      hold: () => {
        isHolding = true
      },
      held: () => waiting.length,
      release: () => {
        isHolding = false
        for (const respond of waiting.splice(0)) respond()
      }
    }
    return world
  })

const listenSecurely = (listener: http.RequestListener): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<https.Server>((resume) => {
        const server = https.createServer({
          cert: serverCertificate.certificate,
          key: serverCertificate.key,
          requestCert: true,
          // what is not trusted may still be registered
          rejectUnauthorized: false,
          ca: authority.certificate
        }, listener)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.async<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    ),
    (server) => `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  )

/** Clients that show a certificate: their requests end by themselves when another client has taken over. */
const transports: ReadonlyArray<
  readonly [string, (certificate: Certificate | undefined) => Effect.Effect<HttpClient.HttpClient, never, Scope.Scope>]
> = [
  ["undici", (certificate) =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => new Undici.Agent({ connect: tlsOptions(certificate) })),
        (agent) => Effect.promise(() => agent.destroy())
      ),
      NodeHttpClient.makeUndici
    )],
  [
    "node:http",
    (certificate) =>
      Effect.flatMap(
        NodeHttpClient.makeAgent(tlsOptions(certificate)),
        (agent) => Effect.provideService(NodeHttpClient.make, NodeHttpClient.HttpAgent, agent)
      )
  ]
]

const tlsOptions = (certificate: Certificate | undefined) => ({
  ca: authority.certificate,
  ...(certificate === undefined ? {} : { cert: certificate.certificate, key: certificate.key })
})

const connect = (world: World, httpClient: HttpClient.HttpClient) =>
  Alf.make({
    issuer: world.issuer,
    clientId: "client",
    clientAuthentication: ClientAuthentication.tls,
    origins: [new URL(world.api).origin],
    tokenRetry: { times: 0 }
  }).pipe(Effect.provideService(HttpClient.HttpClient, httpClient))

describe.each(transports)("a client with a certificate, over %s", (_, makeClient) => {
  it.scopedLive.each(["tls_client_auth", "self_signed_tls_client_auth"] as const)(
    "%s: the endpoint of mtls_endpoint_aliases gives a token that is bound to the certificate",
    (method) =>
      Effect.gen(function*() {
        const certificate = makeCertificate("client", method === "tls_client_auth" ? { issuer: authority } : {})
        const world = yield* servers(method, certificate)
        const { httpClient } = yield* connect(world, yield* makeClient(certificate))
        const response = yield* httpClient.get(world.api)
        assert.deepStrictEqual(yield* response.json, { bound: thumbprint(certificate.certificate) })
        const posts = world.seen.filter(({ request }) => request.includes("POST"))
        assert.deepStrictEqual(posts, [
          { request: "secure POST /token", thumbprint: thumbprint(certificate.certificate) }
        ])
      })
  )

  it.scopedLive.each<readonly [string, () => Certificate | undefined]>([
    ["no certificate", () => undefined],
    ["a certificate that nobody trusts", () => makeCertificate("client")],
    ["another client's certificate", () => makeCertificate("other", { issuer: authority })]
  ])("%s is refused, once", ([_, make]) =>
    Effect.gen(function*() {
      const world = yield* servers("tls_client_auth", makeCertificate("client", { issuer: authority }))
      const { tokens } = yield* connect(world, yield* makeClient(make()))
      const error: TokenError.TokenError = yield* Effect.flip(tokens.get)
      assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
      assert.include(error.message, "does the HttpClient below send it?")
      assert.lengthOf(world.seen.filter(({ request }) => request.includes("POST")), 1)
    }))

  it.scopedLive("a certificate is replaced while requests run: they end well, and one new token is got", () =>
    Effect.gen(function*() {
      const [before, after] = [
        makeCertificate("client", { issuer: authority }),
        makeCertificate("client", { issuer: authority })
      ]
      const world = yield* servers("tls_client_auth", before)
      const current = yield* Ref.make(yield* makeClient(before))
      const { httpClient } = yield* connect(
        world,
        HttpClient.make((request) => Effect.flatMap(Ref.get(current), (client) => client.execute(request)))
      )
      const bound = Effect.flatMap(httpClient.get(world.api), (response) => response.json)
      assert.deepStrictEqual(yield* bound, { bound: thumbprint(before.certificate) })

      world.hold()
      const running = yield* Effect.fork(
        Effect.all(Array.from({ length: 10 }, () => bound), { concurrency: "unbounded" })
      )
      yield* eventually(() => world.held() === 10)
      yield* Ref.set(current, yield* makeClient(after))
      const started = yield* Effect.fork(
        Effect.all(Array.from({ length: 10 }, () => bound), { concurrency: "unbounded" })
      )
      yield* eventually(() => world.held() === 20)
      world.release()

      for (const [fiber, certificate] of [[running, before], [started, after]] as const) {
        const expected = { bound: thumbprint(certificate.certificate) }
        assert.deepStrictEqual(yield* Fiber.join(fiber), Array.from({ length: 10 }, () => expected))
      }
      assert.deepStrictEqual(
        world.seen.filter(({ request }) => request.includes("POST")).map(({ thumbprint }) => thumbprint),
        [thumbprint(before.certificate), thumbprint(after.certificate)]
      )
    }))
})
