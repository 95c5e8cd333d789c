import { HttpClient, HttpClientError, HttpClientRequest, UrlParams } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, Layer, Redacted, TestClock } from "effect"
import { Alf, AuthorizationServer, ClientAuthentication, TokenError, TokenStorage } from "effect-alf"
import { advancing, settle } from "../support/scriptedServer.ts"
import { broken, goodToken, json, type Received, scripted } from "../support/scriptedClient.ts"

const issuer = "https://auth.test/tenant/1"
const urls = [
  "https://auth.test/.well-known/oauth-authorization-server/tenant/1",
  "https://auth.test/.well-known/openid-configuration/tenant/1",
  "https://auth.test/tenant/1/.well-known/openid-configuration"
] as const

const usual = { issuer, token_endpoint: "https://auth.test/token" }

type Answer = Response | ReturnType<typeof broken>

/** A server whose documents are at these URLs; all others are not there. */
const serverWith = (documents: Readonly<Record<string, (n: number, request: Received) => Answer>>) => {
  const counts = new Map<string, number>()
  const http = scripted((request) => {
    const n = counts.get(request.url) ?? 0
    counts.set(request.url, n + 1)
    if (request.url.endsWith("/token") && documents[request.url] === undefined) return goodToken(`token-${n + 1}`)
    return documents[request.url]?.(n, request) ?? new Response("no", { status: 404 })
  })
  return { ...http, urls: () => http.requests.map(({ url }) => url), count: (url: string) => counts.get(url) ?? 0 }
}

const discover = (
  server: { readonly layer: Layer.Layer<HttpClient.HttpClient> },
  options?: { readonly expectedIssuer?: string },
  at = issuer
) => Effect.provide(AuthorizationServer.discover(at, options), server.layer)

type Options = Partial<Extract<Alf.Options, { readonly issuer: string }>>

const connect = (server: { readonly layer: Layer.Layer<HttpClient.HttpClient> }, options: Options = {}) =>
  Effect.provide(
    Alf.make({
      issuer,
      clientId: "client",
      clientSecret: Redacted.make("a-secret"),
      origins: ["https://api.test"],
      ...options
    }),
    server.layer
  )

describe("discovery", () => {
  it.effect("asks the URLs in order: RFC 8414 inserted, OpenID inserted, OpenID appended", () =>
    Effect.gen(function*() {
      for (const [n, url] of urls.entries()) {
        const server = serverWith({ [url]: () => json(usual) })
        const metadata = yield* discover(server)
        assert.strictEqual(metadata.tokenEndpoint, "https://auth.test/token")
        assert.deepStrictEqual(server.urls(), urls.slice(0, n + 1))
      }
    }))

  it.effect("of an issuer without a path asks two URLs", () =>
    Effect.gen(function*() {
      const server = serverWith({})
      yield* Effect.flip(discover(server, {}, "https://auth.test"))
      assert.deepStrictEqual(server.urls(), [
        "https://auth.test/.well-known/oauth-authorization-server",
        "https://auth.test/.well-known/openid-configuration"
      ])
    }))

  const next: ReadonlyArray<readonly [string, () => Response]> = [
    ["a redirect", () => new Response(null, { status: 302, headers: { location: urls[2] } })],
    ["404", () => new Response("no", { status: 404 })],
    ["401", () => new Response("no", { status: 401 })],
    ["400 with JSON", () => json({ issuer, token_endpoint: "https://evil.test" }, { status: 400 })],
    ["502", () => new Response("bad gateway", { status: 502 })],
    ["a 200 with a page", () => new Response("<html>sign in</html>")],
    ["a 200 with JSON that names no issuer", () => json({ token_endpoint: "https://evil.test" })],
    ["a 200 with an array", () => json([usual])],
    ["an empty 204", () => new Response(null, { status: 204 })]
  ]
  for (const [name, answer] of next) {
    it.effect(`goes on to the next URL after ${name}`, () =>
      Effect.gen(function*() {
        const server = serverWith({ [urls[0]]: answer, [urls[1]]: answer, [urls[2]]: () => json(usual) })
        assert.strictEqual((yield* discover(server)).issuer, issuer)
        assert.lengthOf(server.requests, 3)
      }))
  }

  for (const status of [408, 425, 429, 500, 503]) {
    it.scoped(`${status} is transient: retried like a token request`, () =>
      Effect.gen(function*() {
        const server = serverWith({ [urls[0]]: (n) => n < 2 ? new Response("no", { status }) : json(usual) })
        const { tokens } = yield* connect(server)
        yield* advancing(tokens.get, "1 second")
        assert.strictEqual(server.count(urls[0]), 3)
        assert.strictEqual(server.count(urls[1]), 0)
      }))
  }

  it.scoped("is not asked for again before its Retry-After is over", () =>
    Effect.gen(function*() {
      const busy = () => new Response("no", { status: 429, headers: { "retry-after": "120" } })
      const server = serverWith({ [urls[0]]: (n) => n === 0 ? busy() : json(usual) })
      const { tokens } = yield* connect(server)
      for (let second = 0; second < 120; second += 10) {
        const error = yield* Effect.flip(tokens.get)
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Transport")
        assert.strictEqual(server.count(urls[0]), 1)
        yield* TestClock.adjust("10 seconds")
      }
      yield* tokens.get
    }))

  it.effect("says who asks", () =>
    Effect.gen(function*() {
      const server = serverWith({ [urls[0]]: () => json(usual) })
      yield* discover(server)
      assert.match(server.requests[0]?.headers["user-agent"] ?? "", /^effect-alf\//)
    }))

  it.effect("takes no document of a client below that followed a redirect", () =>
    Effect.gen(function*() {
      const server = serverWith({
        [urls[0]]: () => Object.defineProperty(json(usual), "redirected", { value: true })
      })
      const error = yield* Effect.flip(discover(server))
      assert.deepStrictEqual([error.reason, server.requests.length], ["Invalid", 1])
    }))

  it.effect("without a document anywhere is NotFound, without a connection Transport", () =>
    Effect.gen(function*() {
      const missing = yield* Effect.flip(discover(serverWith({})))
      assert.deepStrictEqual([missing.reason, missing.url], ["NotFound", issuer])
      const down = yield* Effect.flip(discover(scripted((request) => broken(request))))
      assert.strictEqual(down.reason, "Transport")
    }))

  it.effect("compares the issuer character for character, unless expectedIssuer is given", () =>
    Effect.gen(function*() {
      for (
        const other of [
          `${issuer}/`,
          "https://AUTH.test/tenant/1",
          "https://evil.test",
          "https://auth.test:443/tenant/1"
        ]
      ) {
        const server = serverWith({ [urls[0]]: () => json({ ...usual, issuer: other }) })
        const error = yield* Effect.flip(discover(server))
        assert.strictEqual(error.reason, "IssuerMismatch")
        assert.lengthOf(server.requests, 1)
        assert.strictEqual((yield* discover(server, { expectedIssuer: other })).issuer, other)
      }
    }))

  it.effect("keeps the slash of an issuer", () =>
    Effect.gen(function*() {
      const slash = "https://tenant.auth0.test/"
      const server = serverWith({
        "https://tenant.auth0.test/.well-known/oauth-authorization-server": () => json({ ...usual, issuer: slash })
      })
      assert.strictEqual((yield* discover(server, {}, slash)).issuer, slash)
    }))

  it.effect("takes no endpoint that is neither https nor loopback", () =>
    Effect.gen(function*() {
      for (
        const name of [
          "token_endpoint",
          "authorization_endpoint",
          "revocation_endpoint",
          "device_authorization_endpoint"
        ]
      ) {
        const server = serverWith({ [urls[0]]: () => json({ ...usual, [name]: "http://auth.test/x" }) })
        assert.strictEqual((yield* Effect.flip(discover(server))).reason, "Invalid")
      }
      const loopback = serverWith({
        [urls[0]]: () => json({ ...usual, token_endpoint: "http://127.0.0.1:8080/token" })
      })
      yield* discover(loopback)
      const tls = serverWith({
        [urls[0]]: () => json({ ...usual, mtls_endpoint_aliases: { token_endpoint: "http://mtls.auth.test/token" } })
      })
      assert.strictEqual((yield* Effect.flip(discover(tls))).reason, "Invalid")
    }))

  it.effect("an alias beside it makes no plain http endpoint usable, and no name of an alias is shown", () =>
    Effect.gen(function*() {
      const covered = serverWith({
        [urls[0]]: () =>
          json({
            ...usual,
            token_endpoint: "http://auth.test/token",
            mtls_endpoint_aliases: { token_endpoint: "https://mtls.auth.test/token" }
          })
      })
      assert.strictEqual((yield* Effect.flip(discover(covered))).reason, "Invalid")
      const named = serverWith({
        [urls[0]]: () => json({ ...usual, mtls_endpoint_aliases: { "line\nbreak": "http://auth.test" } })
      })
      assert.notInclude((yield* Effect.flip(discover(named))).message, "break")
    }))

  it.effect("cuts a document off after 1 MiB", () =>
    Effect.gen(function*() {
      const server = serverWith({ [urls[0]]: () => json({ ...usual, padding: "x".repeat(2 * 1024 * 1024) }) })
      assert.strictEqual((yield* Effect.flip(discover(server))).reason, "Invalid")
    }))

  it("reads no more of a document than a server can mean: lists are cut, long texts and further aliases ignored", () => {
    const list = (length: number) => Array.from({ length }, (_, i) => `scope-${i}`)
    const aliases = Array.from({ length: 50_000 }, (_, i) => [`${"_a".repeat(i % 100)}_${i}`, "https://auth.test"])
    const metadata = Either.getOrThrow(AuthorizationServer.Metadata.fromJson({
      ...usual,
      scopes_supported: list(100_000),
      revocation_endpoint: `https://auth.test/${"a".repeat(9000)}`,
      mtls_endpoint_aliases: Object.fromEntries(aliases)
    }))
    assert.strictEqual(metadata.scopesSupported?.length, 1000)
    assert.isUndefined(metadata.revocationEndpoint)
    const names = Object.keys(metadata.mtlsEndpointAliases ?? {})
    assert.strictEqual(names.length, 49)
    assert.isTrue(names.every((name) => name.length <= 100))
  })

  it.effect("shows no query of a URL in an error", () =>
    Effect.gen(function*() {
      const server = scripted(() => new Response("", { status: 503 }))
      const error = yield* Effect.flip(
        Effect.provide(AuthorizationServer.discover(`${issuer}?key=hunter2`), server.layer)
      )
      assert.strictEqual(error.reason, "Transport")
      assert.notInclude(`${JSON.stringify(error)}${error.message}`, "hunter2")
    }))

  it.effect("an issuer that is not a URL is Invalid", () =>
    Effect.map(
      Effect.flip(discover(serverWith({}), {}, "no URL")),
      (error) => assert.strictEqual(error.reason, "Invalid")
    ))
})

describe("the metadata of a client", () => {
  it.scoped("is read at the first token, not when the layer is built, once for a thousand callers", () =>
    Effect.gen(function*() {
      const server = serverWith({ [urls[0]]: () => json(usual) })
      const { tokens } = yield* connect(server)
      assert.lengthOf(server.requests, 0)
      yield* Effect.all(Array.from({ length: 1_000 }, () => tokens.get), { concurrency: "unbounded" })
      assert.deepStrictEqual(server.urls(), [urls[0], "https://auth.test/token"])
    }))

  it.scoped("that cannot be found is the error of every caller; it is not cached, but the cooldown holds", () =>
    Effect.gen(function*() {
      let isThere = false
      const server = serverWith({ [urls[0]]: () => isThere ? json(usual) : new Response("no", { status: 404 }) })
      const { tokens } = yield* connect(server)
      for (let n = 0; n < 10; n++) {
        const error = yield* Effect.flip(tokens.get)
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "NotFound")
      }
      assert.strictEqual(server.count(urls[0]), 1)
      isThere = true
      yield* TestClock.adjust("1 second")
      yield* tokens.get
    }))

  it.effect("is kept for an hour, then read again in the background; the last good one stays", () =>
    Effect.gen(function*() {
      const server = serverWith({
        [urls[0]]: (n) =>
          n === 1
            ? new Response("no", { status: 404 })
            : json({ ...usual, token_endpoint: `https://auth.test/${n}/token` })
      })
      const { metadata } = yield* Effect.provide(
        AuthorizationServer.make({ issuer, clientId: "client" }),
        server.layer
      )
      const endpoint = Effect.map(metadata, ({ tokenEndpoint }) => tokenEndpoint)
      assert.strictEqual(yield* endpoint, "https://auth.test/0/token")
      yield* TestClock.adjust("59 minutes")
      yield* endpoint
      assert.strictEqual(server.count(urls[0]), 1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* endpoint, "https://auth.test/0/token")
      yield* settle
      // the second read failed
      assert.strictEqual(server.count(urls[0]), 2)
      assert.strictEqual(yield* endpoint, "https://auth.test/0/token")
      yield* TestClock.adjust("299 seconds")
      yield* endpoint
      yield* settle
      assert.strictEqual(server.count(urls[0]), 2)
      yield* TestClock.adjust("1 second")
      yield* endpoint
      yield* settle
      assert.strictEqual(yield* endpoint, "https://auth.test/2/token")
    }))

  it.effect("is fetched by each caller for itself without sharedFetch", () =>
    Effect.gen(function*() {
      const http = serverWith({ [urls[0]]: () => json(usual) })
      let n = 0
      const below = HttpClient.transform(http.client, (effect) => n++ === 0 ? Effect.never : effect)
      const { metadata } = yield* Effect.provideService(
        AuthorizationServer.make({ issuer, clientId: "client", sharedFetch: false }),
        HttpClient.HttpClient,
        below
      )
      const hanging = yield* Effect.fork(metadata)
      yield* settle
      assert.strictEqual((yield* metadata).issuer, issuer)
      yield* metadata
      assert.strictEqual(n, 2)
      yield* Fiber.interrupt(hanging)
    }))

  it.scoped("that never comes is given up after tokenTimeout, for every attempt, and asked for anew", () =>
    Effect.gen(function*() {
      let isHanging = true
      const http = scripted((request) =>
        request.url.endsWith("/token") ? goodToken("token") : isHanging ? Effect.never : json(usual)
      )
      const { tokens } = yield* connect(http, { tokenTimeout: "3 seconds", tokenRetry: { times: 1 } })
      const fiber = yield* Effect.fork(Effect.flip(tokens.get))
      for (let n = 0; n < 10; n++) yield* TestClock.adjust("1 second")
      const error = fiber.unsafePoll() === null ? undefined : yield* Fiber.join(fiber)
      assert.isTrue(error?._tag === "DiscoveryError" && error.reason === "Transport")
      assert.lengthOf(http.requests, 2)
      isHanging = false
      yield* TestClock.adjust("1 minute")
      yield* tokens.get
    }))

  it.scoped("names the storage key by the configured issuer, never by a discovered URL", () =>
    Effect.gen(function*() {
      const storage = yield* Layer.build(TokenStorage.layerMemory)
      for (const path of ["a", "b"]) {
        const server = serverWith({
          [urls[0]]: () => json({ ...usual, token_endpoint: `https://auth.test/${path}/token` })
        })
        yield* (yield* Effect.provide(connect(server), storage)).tokens.get
        assert.lengthOf(server.requests, path === "a" ? 2 : 0)
      }
    }))

  it("is read from JSON in the shape of the servers out there", () => {
    const shapes: ReadonlyArray<readonly [string, Readonly<Record<string, unknown>>]> = [
      ["Entra ID", {
        issuer: "https://login.microsoftonline.com/{tenantid}/v2.0",
        token_endpoint: "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        token_endpoint_auth_methods_supported: ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        device_authorization_endpoint: "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
        http_logout_supported: true,
        cloud_instance_name: "microsoftonline.com"
      }],
      ["Google", {
        issuer: "https://accounts.google.com",
        token_endpoint: "https://oauth2.googleapis.com/token",
        revocation_endpoint: "https://oauth2.googleapis.com/revoke",
        device_authorization_endpoint: "https://oauth2.googleapis.com/device/code",
        code_challenge_methods_supported: ["plain", "S256"]
      }],
      ["Okta", {
        issuer: "https://company.okta.com/oauth2/default",
        token_endpoint: "https://company.okta.com/oauth2/default/v1/token",
        pushed_authorization_request_endpoint: "https://company.okta.com/oauth2/default/v1/par",
        dpop_signing_alg_values_supported: ["RS256", "ES256"]
      }],
      ["Auth0", {
        issuer: "https://tenant.auth0.com/",
        token_endpoint: "https://tenant.auth0.com/oauth/token",
        mfa_challenge_endpoint: "https://tenant.auth0.com/mfa/challenge",
        registration_endpoint: "https://tenant.auth0.com/oidc/register"
      }],
      ["Cognito", {
        issuer: "https://cognito-idp.eu-west-1.amazonaws.com/pool",
        token_endpoint: "https://pool.auth.eu-west-1.amazoncognito.com/oauth2/token",
        scopes_supported: ["openid", "email"]
      }],
      ["Keycloak", {
        issuer: "https://keycloak.test/realms/realm",
        token_endpoint: "https://keycloak.test/realms/realm/protocol/openid-connect/token",
        mtls_endpoint_aliases: { token_endpoint: "https://mtls.keycloak.test/token", revocation_endpoint: 1 },
        authorization_response_iss_parameter_supported: true,
        require_pushed_authorization_requests: false
      }]
    ]
    for (const [name, shape] of shapes) {
      const metadata = AuthorizationServer.Metadata.fromJson(shape)
      assert.isTrue(Either.isRight(metadata), name)
      if (Either.isRight(metadata)) assert.strictEqual(metadata.right.tokenEndpoint, shape["token_endpoint"])
    }
    for (const wrong of [null, [], "text", {}, { issuer }, { token_endpoint: "https://auth.test" }, { issuer: 1 }]) {
      assert.isTrue(Either.isLeft(AuthorizationServer.Metadata.fromJson(wrong)))
    }
  })
})

describe("what follows from the metadata", () => {
  const methods: ReadonlyArray<readonly [ReadonlyArray<string> | undefined, "basic" | "post" | "none"]> = [
    [undefined, "basic"],
    [["client_secret_basic", "client_secret_post"], "basic"],
    [["client_secret_post", "private_key_jwt"], "post"],
    [["none"], "none"],
    [["private_key_jwt"], "basic"]
  ]
  for (const [supported, method] of methods) {
    it.scoped(`a secret goes by ${method} where the server lists ${String(supported)}`, () =>
      Effect.gen(function*() {
        const server = serverWith({
          [urls[0]]: () => json({ ...usual, token_endpoint_auth_methods_supported: supported })
        })
        yield* (yield* connect(server)).tokens.get
        const sent = server.requests.at(-1)
        const form = new URLSearchParams(sent?.body)
        const found = sent?.headers["authorization"]?.startsWith("Basic ") === true
          ? "basic"
          : form.has("client_secret")
          ? "post"
          : "none"
        assert.strictEqual(found, method)
      }))
  }

  it.scoped("without a secret the client is public, whatever the server lists; a method of one's own wins", () =>
    Effect.gen(function*() {
      const document = () => json({ ...usual, token_endpoint_auth_methods_supported: ["client_secret_basic"] })
      const server = serverWith({ [urls[0]]: document })
      yield* (yield* connect(server, { clientSecret: undefined })).tokens.get
      assert.strictEqual(new URLSearchParams(server.requests.at(-1)?.body).get("client_id"), "client")
      const own = serverWith({ [urls[0]]: document })
      yield* (yield* connect(own, { clientAuthentication: ClientAuthentication.post })).tokens.get
      assert.strictEqual(new URLSearchParams(own.requests.at(-1)?.body).get("client_secret"), "a-secret")
    }))

  it.scoped("a client with a certificate uses the aliases, others do not", () =>
    Effect.gen(function*() {
      const document = () =>
        json({ ...usual, mtls_endpoint_aliases: { token_endpoint: "https://mtls.auth.test/token" } })
      const server = serverWith({ [urls[0]]: document })
      yield* (yield* connect(server, { clientAuthentication: ClientAuthentication.tls, clientSecret: undefined }))
        .tokens.get
      assert.strictEqual(server.requests.at(-1)?.url, "https://mtls.auth.test/token")
      const other = serverWith({ [urls[0]]: document })
      yield* (yield* connect(other)).tokens.get
      assert.strictEqual(other.requests.at(-1)?.url, "https://auth.test/token")
    }))
})

describe("a request to an endpoint", () => {
  const serverOf = (http: { readonly layer: Layer.Layer<HttpClient.HttpClient> }, more = {}) =>
    Effect.provide(
      AuthorizationServer.make({
        metadata: new AuthorizationServer.Metadata({
          issuer,
          tokenEndpoint: "https://auth.test/token",
          revocationEndpoint: "https://auth.test/revoke",
          ...more
        }),
        clientId: "client",
        clientSecret: Redacted.make("a-secret"),
        tokenRetry: { times: 0 }
      }),
      http.layer
    )
  const params = UrlParams.fromInput({ token: "t" })

  it.effect("returns the members unjudged, N_A too", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({ access_token: "jag", token_type: "N_A", issued_token_type: "x" }))
      const server = yield* serverOf(http)
      assert.deepStrictEqual({ ...(yield* server.request("token", params)) }, {
        access_token: "jag",
        token_type: "N_A",
        issued_token_type: "x"
      })
    }))

  it.effect("of revocation is done with any success, whatever its body (RFC 7009 §2.2)", () =>
    Effect.gen(function*() {
      for (const body of ["", "<html>", "{\"error\":\"x\"}"]) {
        const server = yield* serverOf(scripted(() => new Response(body)))
        yield* server.request("revocation", params)
      }
      const refusing = yield* serverOf(scripted(() => json({ error: "invalid_client" }, { status: 401 })))
      assert.strictEqual((yield* Effect.flip(refusing.request("revocation", params)))._tag, "TokenErrorResponse")
    }))

  it.effect("to one that the server lacks is Unsupported; to a URL it goes if that is https or loopback", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({ fine: true }))
      const server = yield* serverOf(http)
      const missing = yield* Effect.flip(server.request("deviceAuthorization", params))
      assert.isTrue(missing._tag === "DiscoveryError" && missing.reason === "Unsupported")
      yield* server.request(new URL("https://auth.test/other"), params)
      const insecure = yield* Effect.flip(server.request(new URL("http://auth.test/other"), params))
      assert.isTrue(insecure._tag === "DiscoveryError" && insecure.reason === "Invalid")
      assert.deepStrictEqual(http.requests.map(({ url }) => url), ["https://auth.test/other"])
    }))

  it.effect("carries a User-Agent, which a client below can replace, and no trace", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({}))
      yield* Effect.withSpan(Effect.flatMap(serverOf(http), (server) => server.request("token", params)), "program")
      const [sent] = http.requests
      assert.match(sent?.headers["user-agent"] ?? "", /^effect-alf\/\d+\.\d+\.\d+$/)
      assert.isUndefined(sent?.headers["traceparent"])
      assert.isUndefined(sent?.headers["b3"])
    }))

  it.effect("carries the User-Agent of a client below that sets one", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({}))
      const below = HttpClient.mapRequest(http.client, HttpClientRequest.setHeader("user-agent", "program/1"))
      const server = yield* serverOf({ layer: Layer.succeed(HttpClient.HttpClient, below) })
      yield* server.request("token", params)
      assert.strictEqual(http.requests[0]?.headers["user-agent"], "program/1")
    }))

  it.effect("goes to no endpoint of one's own metadata that is plain http beyond loopback", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({}))
      for (
        const wrong of [
          { revocationEndpoint: "http://auth.test/revoke" },
          { deviceAuthorizationEndpoint: "not a URL" },
          { mtlsEndpointAliases: { tokenEndpoint: "http://mtls.auth.test/token" } }
        ]
      ) {
        assert.strictEqual((yield* Effect.flip(serverOf(http, wrong)))._tag, "ConfigurationError")
      }
      yield* serverOf(http, {
        revocationEndpoint: "http://127.0.0.1:8080/revoke",
        grantTypesSupported: ["client_credentials"],
        requirePushedAuthorizationRequests: true
      })
    }))

  it.effect("with once is sent again only if the server cannot have received it", () =>
    Effect.gen(function*() {
      const refused = Object.assign(new Error("connect"), { code: "ECONNREFUSED" })
      const attempts = (answer: (request: Received, n: number) => Answer) =>
        Effect.gen(function*() {
          const http = scripted(answer)
          const server = yield* Effect.provide(
            AuthorizationServer.make({ tokenEndpoint: "https://auth.test/token", clientId: "client" }),
            http.layer
          )
          const fiber = yield* Effect.fork(Effect.either(server.request("token", params, { once: true })))
          for (let n = 0; n < 20 && fiber.unsafePoll() === null; n++) {
            yield* settle
            yield* TestClock.adjust("10 seconds")
          }
          yield* Fiber.join(fiber)
          return http.requests.length
        })
      assert.strictEqual(yield* attempts((request) => broken(request, refused)), 4)
      assert.strictEqual(yield* attempts((request, n) => n === 0 ? broken(request, refused) : json({})), 2)
      assert.strictEqual(yield* attempts((request) => broken(request)), 1)
      assert.strictEqual(yield* attempts(() => new Response("no", { status: 503 })), 1)
    }))

  it.effect("with params as an Effect makes them for every attempt; their failure is typed", () =>
    Effect.gen(function*() {
      let made = 0
      const http = scripted((_, n) => n < 2 ? new Response("no", { status: 503 }) : json({}))
      const server = yield* Effect.provide(
        AuthorizationServer.make({ tokenEndpoint: "https://auth.test/token", clientId: "client" }),
        http.layer
      )
      const each = Effect.sync(() => UrlParams.fromInput({ assertion: `a-${++made}` }))
      yield* advancing(server.request("token", each), "1 second")
      assert.deepStrictEqual(http.requests.map(({ body }) => new URLSearchParams(body).get("assertion")), [
        "a-1",
        "a-2",
        "a-3"
      ])
      const once = yield* serverOf(http)
      const error = yield* Effect.flip(once.request("token", Effect.die("MARKED")))
      assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
      assert.notInclude(String(error), "MARKED")
    }))

  it.effect("shows nothing of what a client below throws", () =>
    Effect.gen(function*() {
      const server = yield* serverOf(scripted((request) =>
        Effect.fail(
          new HttpClientError.RequestError({
            request: request.request,
            reason: "Transport",
            cause: new Error("MARKED")
          })
        )
      ))
      const error = yield* Effect.flip(server.request("token", params))
      assert.instanceOf(error, TokenError.TokenRequestError)
      assert.notInclude(String(error), "MARKED")
    }))

  it.effect("uses no response of a client below that followed a redirect", () =>
    Effect.gen(function*() {
      const http = scripted(() =>
        Object.defineProperties(goodToken("token"), {
          redirected: { value: true },
          url: { value: "https://login.test/a-secret?code=a-secret" }
        })
      )
      const error = yield* Effect.flip(
        Effect.flatMap(serverOf(http), (server) => server.request("token", params))
      )
      assert.instanceOf(error, TokenError.InvalidTokenResponse)
      assert.include(error.message, "a redirect to https://login.test, ")
      assert.include(error.message, "followRedirects")
      assert.notInclude(error.message, "a-secret")
      // the secret does not go there again
      assert.lengthOf(http.requests, 1)
    }))
})
