import { HttpBody, HttpClient, HttpClientRequest, type HttpClientResponse, UrlParams } from "@effect/platform"
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Encoding, Fiber, Layer, Option, Redacted, Stream, TestClock } from "effect"
import { AccessToken, Alf, ClientAuthentication, Grant, TokenEndpoint, TokenService } from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"
import { createHash } from "node:crypto"

const server = TestAuthorizationServer.TestAuthorizationServer
const api = "https://api.test/orders?page=1"

/** A request to the token endpoint as some client would send it. */
const ask = (params: UrlParams.Input, headers: Record<string, string> = {}) =>
  Effect.flatMap(
    HttpClient.HttpClient,
    (client) =>
      client.post(TestAuthorizationServer.tokenEndpoint, {
        headers,
        body: HttpBody.urlParams(UrlParams.fromInput(params))
      })
  )

const basic = (id: string, secret: string) => ({ authorization: `Basic ${Encoding.encodeBase64(`${id}:${secret}`)}` })
const credentials = { grant_type: "client_credentials", client_id: "anyone" }

const json = (response: HttpClientResponse.HttpClientResponse) =>
  Effect.map(response.json, (body) => ({ status: response.status, body }))

const call = (token?: string) =>
  Effect.flatMap(
    HttpClient.HttpClient,
    (client) => client.get(api, token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } })
  )

const status = (effect: ReturnType<typeof call>) => Effect.map(effect, (response) => response.status)
const control = <A>(f: (controls: (typeof server)["Service"]) => Effect.Effect<A>) => Effect.flatMap(server, f)

/** Our own token endpoint over the server, without retries. */
const endpoint = (options: Partial<Extract<TokenEndpoint.Options, { readonly tokenEndpoint: string | URL }>> = {}) =>
  TokenEndpoint.layer({
    tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
    clientId: "anyone",
    tokenRetry: { times: 0 },
    ...options
  })

const acquire = (grant: Grant.Grant, previous?: AccessToken.AccessToken) =>
  Effect.map(grant.acquire(Option.fromNullable(previous)), (token) => ({
    token,
    value: Redacted.value(token.value),
    refreshToken: Option.map(token.refreshToken, Redacted.value)
  }))

describe("the API", () => {
  it.effect("asks for a token without an error code, and for another one with it", () =>
    Effect.gen(function*() {
      const without = yield* call()
      assert.strictEqual(without.status, 401)
      assert.strictEqual(without.headers["www-authenticate"], "Bearer realm=\"api\"")
      const unknown = yield* call("token-1")
      assert.strictEqual(unknown.status, 401)
      assert.strictEqual(unknown.headers["www-authenticate"], "Bearer realm=\"api\", error=\"invalid_token\"")
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.effect("answers a good token with method and path, until the token ends", () =>
    Effect.gen(function*() {
      const answer = yield* ask(credentials)
      assert.strictEqual(answer.headers["cache-control"], "no-store")
      assert.deepStrictEqual(yield* json(answer), {
        status: 200,
        body: { access_token: "token-1", token_type: "Bearer", expires_in: 60 }
      })
      assert.deepStrictEqual(yield* Effect.flatMap(call("token-1"), json), {
        status: 200,
        body: { method: "GET", path: "/orders" }
      })
      yield* TestClock.adjust("59999 millis")
      assert.strictEqual(yield* status(call("token-1")), 200)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* status(call("token-1")), 401)
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ expiresIn: "1 minute" }))))

  it.effect("leaves expires_in out for tokens without end", () =>
    Effect.gen(function*() {
      const answer = yield* Effect.flatMap(ask(credentials), json)
      assert.deepStrictEqual(answer.body, { access_token: "token-1", token_type: "Bearer" })
      yield* TestClock.adjust("10000 days")
      assert.strictEqual(yield* status(call("token-1")), 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ expiresIn: Duration.infinity }))))

  it.effect("refuses what was revoked, and takes what is issued afterwards", () =>
    Effect.gen(function*() {
      yield* ask(credentials)
      yield* control((controls) => controls.revokeAll)
      yield* ask(credentials)
      assert.strictEqual(yield* status(call("token-1")), 401)
      assert.strictEqual(yield* status(call("token-2")), 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.effect("answers as resource says, to good tokens only", () =>
    Effect.gen(function*() {
      yield* ask(credentials)
      yield* control((controls) =>
        controls.resource((request) => new Response(`${request.method} ${request.body}`, { status: 418 }))
      )
      const client = yield* HttpClient.HttpClient
      const request = HttpClientRequest.post(api).pipe(HttpClientRequest.bearerToken("token-1"))
      const text = (body: HttpBody.HttpBody) =>
        Effect.flatMap(client.execute(HttpClientRequest.setBody(request, body)), (response) => {
          assert.strictEqual(response.status, 418)
          return response.text
        })
      assert.strictEqual(yield* text(HttpBody.text("tea")), "POST tea")
      assert.strictEqual(yield* text(HttpBody.empty), "POST ")
      assert.strictEqual(yield* text(HttpBody.raw("coffee")), "POST coffee")
      const bytes = Stream.encodeText(Stream.make("mi", "lk"))
      assert.strictEqual(yield* text(HttpBody.stream(bytes)), "POST milk")
      const form = new FormData()
      form.set("cup", "large")
      assert.include(yield* text(HttpBody.formData(form)), "name=\"cup\"")
      assert.strictEqual(yield* status(call()), 401)

      yield* control((controls) =>
        controls.resource(() => Effect.delay(Effect.succeed(new Response(null)), "1 second"))
      )
      const slow = yield* Effect.fork(status(call("token-1")))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(slow), 200)

      yield* control((controls) => controls.resource(() => Response.error()))
      const error = yield* Effect.flip(call("token-1"))
      assert(error._tag === "RequestError")
      assert.strictEqual(error.reason, "Transport")
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))
})

describe("requests and issued", () => {
  it.effect("tell all that happened", () =>
    Effect.gen(function*() {
      const controls = yield* server
      assert.strictEqual(yield* controls.issued, 0)
      assert.deepStrictEqual(yield* controls.requests, [])
      yield* ask(credentials)
      yield* call("token-1")
      yield* call()
      yield* controls.failNext(1, 0)
      yield* Effect.exit(ask(credentials))
      assert.strictEqual(yield* controls.issued, 1)
      const requests = yield* controls.requests
      assert.deepStrictEqual(
        requests.map(({ endpoint, method, status, url }) => [endpoint, method, url, status]),
        [
          ["token", "POST", "https://auth.test/token", 200],
          ["api", "GET", api, 200],
          ["api", "GET", api, 401],
          ["token", "POST", "https://auth.test/token", 0]
        ]
      )
      assert.strictEqual(requests[0]?.body, "grant_type=client_credentials&client_id=anyone")
      assert.strictEqual(requests[1]?.headers["authorization"], "Bearer token-1")
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))
})

describe("client authentication", () => {
  const id = "client %&+-_.!~*'()"
  const secret = "s:e c+r%41&e=t/ü"
  const methods = {
    basic: ClientAuthentication.basic,
    basicRaw: ClientAuthentication.basicRaw,
    post: ClientAuthentication.post
  }

  for (const [name, clientAuthentication] of Object.entries(methods)) {
    it.effect(`${name}: the right secret and no other`, () =>
      Effect.gen(function*() {
        const request = (clientSecret: string) =>
          Effect.provide(
            Grant.clientCredentials().acquire(Option.none()),
            endpoint({ clientId: id, clientSecret: Redacted.make(clientSecret), clientAuthentication })
          )
        yield* request(secret)
        const error = yield* Effect.flip(request("wrong"))
        assert(error._tag === "TokenErrorResponse")
        assert.strictEqual(error.status, 401)
        assert.strictEqual(error.error, "invalid_client")
      }).pipe(Effect.provide(TestAuthorizationServer.layer({ clients: [{ id, secret }] }))))
  }

  it.effect("none: public clients, and no confidential one", () =>
    Effect.gen(function*() {
      const request = (clientId: string) =>
        Effect.provide(Grant.clientCredentials().acquire(Option.none()), endpoint({ clientId }))
      yield* request("public")
      const error = yield* Effect.flip(request(id))
      assert(error._tag === "TokenErrorResponse")
      assert.strictEqual(error.error, "invalid_client")
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ clients: [{ id, secret }, { id: "public" }] }))))

  it.effect("a challenge answers a header that is no good", () =>
    Effect.gen(function*() {
      const grant = { grant_type: "client_credentials" }
      for (const headers of [basic("known", "wrong"), { authorization: "Basic !" }, { authorization: "Digest x" }]) {
        const response = yield* ask(grant, headers)
        assert.strictEqual(response.status, 401)
        assert.strictEqual(response.headers["www-authenticate"], "Basic realm=\"auth\"")
      }
      const response = yield* ask({ ...grant, client_id: "unknown" })
      assert.strictEqual(response.status, 401)
      assert.isUndefined(response.headers["www-authenticate"])
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ clients: [{ id: "known", secret: "right" }] }))))

  it.effect("a rotated secret replaces the old one, of listed clients and of others", () =>
    Effect.gen(function*() {
      const answer = (secret: string) =>
        Effect.map(ask({ grant_type: "client_credentials" }, basic("anyone", secret)), (response) => response.status)
      assert.strictEqual(yield* answer("old"), 200)
      yield* control((controls) => controls.rotateSecret("anyone", "new"))
      assert.strictEqual(yield* answer("old"), 401)
      assert.strictEqual(yield* answer("new"), 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))
})

describe("the token endpoint", () => {
  it.effect("refuses as RFC 6749 §5.2 says", () =>
    Effect.gen(function*() {
      const refusal = (params: UrlParams.Input, headers?: Record<string, string>) =>
        Effect.map(Effect.flatMap(ask(params, headers), json), ({ body, status }) => {
          assert.strictEqual(status, 400)
          return (body as { error: string }).error
        })
      const client = { client_id: "anyone" }
      assert.strictEqual(yield* refusal(client), "invalid_request")
      assert.strictEqual(yield* refusal({ ...client, grant_type: "password" }), "unsupported_grant_type")
      assert.strictEqual(yield* refusal({ ...credentials, scope: "read delete" }), "invalid_scope")
      assert.strictEqual(
        yield* refusal([...Object.entries(credentials), ["scope", "a"], ["scope", "b"]]),
        "invalid_request"
      )
      assert.strictEqual(
        yield* refusal({ ...credentials, client_secret: "x" }, basic("anyone", "x")),
        "invalid_request"
      )
      assert.strictEqual(
        yield* refusal({ ...client, grant_type: "refresh_token", refresh_token: "refresh-7" }),
        "invalid_grant"
      )
      assert.strictEqual(
        yield* refusal({ ...client, grant_type: "authorization_code", code: "code-7" }),
        "invalid_grant"
      )
      const http = yield* HttpClient.HttpClient
      for (const request of [HttpClientRequest.get, HttpClientRequest.post]) {
        assert.strictEqual((yield* http.execute(request(TestAuthorizationServer.tokenEndpoint))).status, 400)
      }
      assert.strictEqual(yield* control((controls) => controls.issued), 0)
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ scopes: ["read", "write"] }))))

  it.effect("names the scope that it grants", () =>
    Effect.gen(function*() {
      const { body } = yield* Effect.flatMap(ask({ ...credentials, scope: "read write" }), json)
      assert.deepInclude(body, { scope: "read write" })
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ scopes: ["read", "write"] }))))

  it.effect("allows several resources", () =>
    Effect.gen(function*() {
      const response = yield* ask([...Object.entries(credentials), ["resource", "a:1"], ["resource", "a:2"]])
      assert.strictEqual(response.status, 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.effect("takes a refresh token once, for its client, for no more than its scope", () =>
    Effect.gen(function*() {
      const grant = Grant.refreshToken(Grant.clientCredentials({ scope: "read write" }))
      const first = yield* acquire(grant)
      assert.strictEqual(Option.getOrNull(first.refreshToken), "refresh-1")
      const refreshed = yield* acquire(grant, first.token)
      assert.strictEqual(refreshed.value, "token-2")
      assert.deepStrictEqual(refreshed.token.scope, ["read", "write"])
      assert.strictEqual(Option.getOrNull(refreshed.refreshToken), "refresh-2")

      const refresh = (params: Record<string, string>) =>
        Effect.flatMap(ask({ grant_type: "refresh_token", client_id: "anyone", ...params }), json)
      const stolen = yield* refresh({ refresh_token: "refresh-2", client_id: "another" })
      assert.deepInclude(stolen.body, { error: "invalid_grant" })
      const wider = yield* refresh({ refresh_token: "refresh-2", scope: "read admin" })
      assert.deepInclude(wider.body, { error: "invalid_scope" })
      const narrower = yield* refresh({ refresh_token: "refresh-2", scope: "read" })
      assert.deepInclude(narrower.body, { scope: "read" })
      const again = yield* refresh({ refresh_token: "refresh-3" })
      assert.deepInclude(again.body, { scope: "read write" })

      // whoever uses one twice may have stolen it: nothing that came of the grant is good any more
      yield* acquire(grant)
      const used = yield* refresh({ refresh_token: "refresh-1" })
      assert.deepInclude(used.body, { error: "invalid_grant" })
      assert.deepInclude((yield* refresh({ refresh_token: "refresh-4" })).body, { error: "invalid_grant" })
      assert.strictEqual((yield* call("token-4")).status, 401)
      assert.strictEqual((yield* call("token-5")).status, 200)
    }).pipe(Effect.provide(Layer.provideMerge(endpoint(), TestAuthorizationServer.layer({ refreshTokens: true })))))
})

describe("authorize", () => {
  const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
  const challenge = createHash("sha256").update(verifier).digest("base64url")
  const redirectUri = "http://localhost:32000/"
  const asked = {
    client_id: "anyone",
    redirect_uri: redirectUri,
    response_type: "code",
    scope: "read",
    state: "s&1",
    code_challenge: challenge,
    code_challenge_method: "S256"
  }
  const authorize = (changes: Record<string, string> = {}) =>
    control((controls) =>
      controls.authorize(`https://auth.test/authorize?${new URLSearchParams({ ...asked, ...changes })}`)
    )
  const exchange = { grant_type: "authorization_code", client_id: "anyone", redirect_uri: redirectUri }

  it.effect("gives a code that serves once, with its verifier", () =>
    Effect.gen(function*() {
      const redirect = yield* authorize()
      assert.strictEqual(redirect.href, "http://localhost:32000/?code=code-1&state=s%261")
      const good = { ...exchange, code: "code-1", code_verifier: verifier }
      const answer = yield* Effect.flatMap(ask(good), json)
      assert.deepStrictEqual(answer.body, {
        access_token: "token-1",
        token_type: "Bearer",
        expires_in: 3600,
        scope: "read"
      })
      assert.strictEqual((yield* call("token-1")).status, 200)
      assert.strictEqual((yield* ask(good)).status, 400)
      // and takes back what it gave for it (RFC 6749 §4.1.2)
      assert.strictEqual((yield* call("token-1")).status, 401)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  for (
    const [what, changes] of Object.entries({
      "another verifier": { code_verifier: `${verifier}x` },
      "another client": { client_id: "another" },
      "another redirect URI": { redirect_uri: "http://localhost:32001/" }
    })
  ) {
    it.effect(`refuses a code with ${what}`, () =>
      Effect.gen(function*() {
        yield* authorize()
        const answer = yield* Effect.flatMap(
          ask({ ...exchange, code: "code-1", code_verifier: verifier, ...changes }),
          json
        )
        assert.deepInclude(answer.body, { error: "invalid_grant" })
      }).pipe(Effect.provide(TestAuthorizationServer.layer())))
  }

  it.effect("gives a token in the fragment for the implicit flow", () =>
    Effect.gen(function*() {
      const redirect = yield* authorize({ response_type: "token" })
      assert.strictEqual(redirect.search, "")
      assert.deepStrictEqual(Object.fromEntries(new URLSearchParams(redirect.hash.slice(1))), {
        access_token: "token-1",
        token_type: "Bearer",
        expires_in: "3600",
        scope: "read",
        state: "s&1"
      })
      assert.strictEqual(yield* status(call("token-1")), 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.effect("says no in the redirect", () =>
    Effect.gen(function*() {
      const error = (changes: Record<string, string>) =>
        Effect.map(authorize(changes), (url) => url.searchParams.get("error"))
      assert.strictEqual(yield* error({ client_id: "another" }), "unauthorized_client")
      assert.strictEqual(yield* error({ scope: "delete" }), "invalid_scope")
      assert.strictEqual(yield* error({ code_challenge_method: "plain" }), "invalid_request")
      assert.strictEqual(yield* error({ response_type: "id_token" }), "unsupported_response_type")
      const redirect = yield* authorize({ redirect_uri: `${redirectUri}?a=1` })
      assert.strictEqual(redirect.search, "?a=1&code=code-1&state=s%261")
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ clients: [{ id: "anyone" }], scopes: ["read"] }))))
})

describe("faults", () => {
  it.effect("failNext: status, body and headers, in the order in which they were scripted", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.failNext(0, 500)
      yield* controls.failNext(2, 503, "sorry", { "retry-after": "7" })
      yield* controls.failNext(1, 400, { error: "invalid_grant" })
      for (const _ of [1, 2]) {
        const response = yield* ask(credentials)
        assert.strictEqual(response.status, 503)
        assert.strictEqual(response.headers["retry-after"], "7")
        assert.strictEqual(yield* response.text, "sorry")
      }
      assert.deepStrictEqual(yield* Effect.flatMap(ask(credentials), json), {
        status: 400,
        body: { error: "invalid_grant" }
      })
      assert.strictEqual((yield* ask(credentials)).status, 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.effect("recover ends an outage and a delay", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("1 minute")
      yield* controls.failNext(Infinity, 500)
      for (const _ of [1, 2, 3]) {
        const fiber = yield* Effect.fork(ask(credentials))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber)).status, 500)
      }
      yield* controls.recover
      assert.strictEqual((yield* ask(credentials)).status, 200)
    }).pipe(Effect.provide(TestAuthorizationServer.layer())))

  it.effect("delay: the answer comes late, decided when the request came", () =>
    Effect.gen(function*() {
      const controls = yield* server
      yield* controls.delay("10 seconds")
      const fiber = yield* Effect.fork(ask(credentials))
      yield* TestClock.adjust("9 seconds")
      assert.isTrue(Option.isNone(yield* Fiber.poll(fiber)))
      assert.deepStrictEqual((yield* controls.requests).map((request) => request.status), [0])
      assert.strictEqual(yield* controls.issued, 1)
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
      yield* TestClock.adjust("50 seconds")
      assert.strictEqual(yield* status(call("token-1")), 401)
    }).pipe(Effect.provide(TestAuthorizationServer.layer({ expiresIn: "1 minute" }))))

  const names = {
    html: "InvalidTokenResponse",
    empty: "InvalidTokenResponse",
    truncated: "InvalidTokenResponse",
    tooLong: "InvalidTokenResponse",
    array: "InvalidTokenResponse",
    null: "InvalidTokenResponse",
    noAccessToken: "InvalidTokenResponse",
    emptyAccessToken: "InvalidTokenResponse",
    lineBreakInAccessToken: "InvalidTokenResponse",
    macTokenType: "InvalidTokenResponse",
    errorInSuccess: "TokenErrorResponse"
  }
  for (const [name, tag] of Object.entries(names) as Array<[TestAuthorizationServer.Malformed, string]>) {
    it.effect(`malformNext: ${name}`, () =>
      Effect.gen(function*() {
        const controls = yield* server
        yield* controls.malformNext(1, name)
        const request = Grant.clientCredentials().acquire(Option.none())
        const error = yield* Effect.flip(request)
        assert.strictEqual(error._tag, tag)
        assert.strictEqual(yield* controls.issued, 0)
        yield* request
        assert.deepStrictEqual((yield* controls.requests).map((request) => request.status), [200, 200])
      }).pipe(Effect.provide(Layer.provideMerge(endpoint(), TestAuthorizationServer.layer()))))
  }
})

layer(
  Alf.layer({ tokenEndpoint: TestAuthorizationServer.tokenEndpoint, clientId: "anyone", origins: "any" }).pipe(
    Layer.provideMerge(TestAuthorizationServer.layer({ expiresIn: "1 minute" }))
  )
)("in it.layer", (it) => {
  it.effect("one server for all tests", () =>
    Effect.gen(function*() {
      const client = yield* HttpClient.HttpClient
      assert.strictEqual((yield* client.get(api)).status, 200)
      assert.strictEqual(yield* control((controls) => controls.issued), 1)
    }))

  it.effect("one clock for all tests", () =>
    Effect.gen(function*() {
      const tokens = yield* TokenService.TokenService
      const before = yield* tokens.get
      yield* TestClock.adjust("1 minute")
      const after = yield* tokens.get
      assert.isTrue(AccessToken.supersedes(after, before))
      assert.strictEqual(yield* control((controls) => controls.issued), 2)
    }))
})
