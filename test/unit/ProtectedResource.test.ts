import { HttpBody, HttpClient, HttpClientError, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Deferred, Effect, Exit, Fiber, Layer, Redacted, Scope, Stream, TestClock } from "effect"
import {
  AccessToken,
  type Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  ClientRegistration,
  Grant,
  ProtectedResource,
  TokenError,
  TokenStorage
} from "effect-alf"
import * as DPoP from "effect-alf/DPoP"
import { advancing } from "../support/scriptedServer.ts"
import { json, type Received, scripted } from "../support/scriptedClient.ts"

const resource = "https://api.test/mcp"
const metadataUrl = "https://api.test/.well-known/oauth-protected-resource/mcp"
const rootUrl = "https://api.test/.well-known/oauth-protected-resource"

/** An API and its authorization servers, as they say they are. What is `undefined` is not there. */
interface World {
  /** The document of the API at each URL. */
  documents: Record<string, unknown>
  /** What the authorization servers say of themselves beside the usual, by host. */
  servers: Record<string, Readonly<Record<string, unknown>>>
  challenge: string | undefined
  /** The scopes that the API wants. */
  demands: ReadonlyArray<string>
  /** How many registrations a server has forgotten. */
  readonly refused: Set<string>
  readonly valid: Map<string, ReadonlyArray<string>>
}

const makeWorld = (overrides: Partial<World> = {}) => {
  const world: World = {
    documents: { [metadataUrl]: { resource, authorization_servers: ["https://auth.test"] } },
    servers: { "auth.test": {} },
    challenge: `Bearer resource_metadata="${metadataUrl}"`,
    demands: [],
    refused: new Set(),
    valid: new Map(),
    ...overrides
  }
  let issued = 0
  let registered = 0
  const http = scripted((request) => {
    const url = new URL(request.url)
    const server = world.servers[url.hostname]
    if (server !== undefined && url.pathname === "/.well-known/oauth-authorization-server") {
      return json({
        issuer: `https://${url.hostname}`,
        token_endpoint: `https://${url.hostname}/token`,
        registration_endpoint: `https://${url.hostname}/register`,
        ...server
      })
    }
    if (server !== undefined && url.pathname === "/register") {
      const body: unknown = JSON.parse(request.body)
      return json({ client_id: `registered-${++registered}`, client_secret: "a-secret", ...(body as object) }, {
        status: 201
      })
    }
    if (server !== undefined && url.pathname === "/token") {
      const form = new URLSearchParams(request.body)
      const basic = Buffer.from((request.headers["authorization"] ?? "").slice(6), "base64").toString()
      const clientId = form.get("client_id") ?? basic.split(":")[0] ?? ""
      if (world.refused.has(clientId)) return json({ error: "invalid_client" }, { status: 401 })
      const token = `${url.hostname}-${++issued}`
      world.valid.set(token, (form.get("scope") ?? "").split(" ").filter(Boolean))
      return json({ access_token: token, refresh_token: `refresh-${token}`, token_type: "Bearer", expires_in: 3600 })
    }
    if (url.pathname.startsWith("/.well-known/")) {
      const document = world.documents[request.url]
      return document === undefined ? new Response("no", { status: 404 }) : json(document)
    }
    const scopes = world.valid.get((request.headers["authorization"] ?? "").replace("Bearer ", ""))
    const headers: HeadersInit = world.challenge === undefined ? {} : { "www-authenticate": world.challenge }
    if (scopes === undefined) return new Response("no", { status: 401, headers })
    return world.demands.every((scope) => scopes.includes(scope)) ? json({ fine: true }) : new Response("no", {
      status: 403,
      headers: { "www-authenticate": `Bearer error="insufficient_scope", scope="${world.demands.join(" ")}"` }
    })
  })
  const sent = (match: (url: URL) => boolean) => http.requests.filter(({ url }) => match(new URL(url)))
  return {
    ...http,
    world,
    apiRequests: () => sent((url) => url.href.startsWith(resource)),
    tokenRequests: () => sent((url) => url.pathname === "/token").map(({ body }) => new URLSearchParams(body)),
    registrations: () => sent((url) => url.pathname === "/register"),
    urls: () => http.requests.map(({ method, url }) => `${method} ${url}`)
  }
}

/** The usual world, but for what its registration endpoint responds. */
const withRegistration = (response: () => Response, query = "") => {
  const world = makeWorld({ servers: { "auth.test": { registration_endpoint: `https://auth.test/apply${query}` } } })
  const applied = scripted(response)
  const client = HttpClient.make((request, url) =>
    (url.pathname === "/apply" ? applied.client : world.client).execute(request)
  )
  return { ...world, layer: Layer.succeed(HttpClient.HttpClient, client) }
}

const client = ClientRegistration.preRegistered({ clientId: "client", clientSecret: Redacted.make("a-secret") })

const connect = (
  world: { readonly layer: Layer.Layer<HttpClient.HttpClient> },
  options: Partial<ProtectedResource.Options> = {}
): Effect.Effect<Alf.Clients, TokenError.ConfigurationError, Scope.Scope> =>
  Effect.provide(ProtectedResource.make({ resource, client, tokenRetry: { times: 0 }, ...options }), world.layer)

const get = ({ authorizedHttpClient }: Alf.Clients, path = "") =>
  Effect.map(authorizedHttpClient.get(`${resource}${path}`), ({ status }) => status)

/** A grant of people that needs no browser. */
const people: Grant.Grant = {
  ...Grant.clientCredentials(),
  signsIn: true,
  narrow: ({ resource, scope }) => ({ ...people, ...Grant.clientCredentials({ resource, scope }), signsIn: true })
}

const header = ({ headers }: Received, name = "authorization") => headers[name]

describe("ProtectedResource", () => {
  it.scoped("finds the authorization server, gets a token for the resource, and uses it", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const clients = yield* connect(world)
      assert.strictEqual(yield* get(clients), 200)
      assert.strictEqual(yield* get(clients), 200)
      assert.deepStrictEqual(world.urls(), [
        `GET ${resource}`,
        `GET ${metadataUrl}`,
        "GET https://auth.test/.well-known/oauth-authorization-server",
        "POST https://auth.test/token",
        `GET ${resource}`,
        `GET ${resource}`
      ])
      assert.deepStrictEqual(world.apiRequests().map((request) => header(request)), [
        undefined,
        "Bearer auth.test-1",
        "Bearer auth.test-1"
      ])
      assert.deepStrictEqual(world.tokenRequests().map((form) => form.getAll("resource")), [[resource]])
    }))

  it.scoped("asks nothing of an API that wants no token", () =>
    Effect.gen(function*() {
      const http = scripted(() => json({ open: true }))
      const clients = yield* connect(http)
      for (let n = 0; n < 3; n++) assert.strictEqual(yield* get(clients), 200)
      assert.lengthOf(http.requests, 3)
    }))

  for (const status of [403, 404, 500]) {
    it.scoped(`a ${status} to the first request is the answer, and no authorization server is looked for`, () =>
      Effect.gen(function*() {
        const http = scripted(() => new Response("no", { status, headers: { "www-authenticate": "Bearer" } }))
        const clients = yield* connect(http)
        assert.strictEqual(yield* get(clients), status)
        assert.deepStrictEqual(http.requests.map(({ url }) => url), [resource])
      }))
  }

  it.scoped("sends the first request without a proof, and the token request with one", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const clients = yield* connect(world, { dpop: DPoP.generate() })
      // this server knows no proofs, so the token that it issues is not taken
      assert.instanceOf(yield* Effect.flip(get(clients)), TokenError.InvalidTokenResponse)
      assert.deepStrictEqual(world.apiRequests().map((request) => header(request, "dpop")), [undefined])
      const [tokenRequest] = world.requests.filter(({ url }) => url.endsWith("/token"))
      assert.match(tokenRequest?.headers["dpop"] ?? "", /^ey/)
    }))

  it.scoped("lets others wait for the first request, and asks once for all", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const world = makeWorld()
      const gated = HttpClient.transform(
        world.client,
        (effect, request) => request.url === metadataUrl ? Effect.zipRight(Deferred.await(gate), effect) : effect
      )
      const clients = yield* connect({ layer: Layer.succeed(HttpClient.HttpClient, gated) })
      const all = yield* Effect.fork(
        Effect.all(Array.from({ length: 100 }, () => get(clients)), { concurrency: "unbounded" })
      )
      for (let n = 0; n < 50; n++) yield* Effect.yieldNow()
      assert.lengthOf(world.apiRequests(), 1)
      yield* Deferred.succeed(gate, undefined)
      assert.isTrue((yield* Fiber.join(all)).every((status) => status === 200))
      assert.lengthOf(world.tokenRequests(), 1)
      assert.lengthOf(world.urls().filter((url) => url.includes("well-known")), 2)
    }))

  it.scoped("the first caller may leave: the others go on", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const world = makeWorld()
      const gated = HttpClient.transform(
        world.client,
        (effect, request) => request.url === metadataUrl ? Effect.zipRight(Deferred.await(gate), effect) : effect
      )
      const clients = yield* connect({ layer: Layer.succeed(HttpClient.HttpClient, gated) })
      const first = yield* Effect.fork(get(clients))
      for (let n = 0; n < 50; n++) yield* Effect.yieldNow()
      const second = yield* Effect.fork(get(clients))
      for (let n = 0; n < 50; n++) yield* Effect.yieldNow()
      yield* Fiber.interrupt(first)
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(second), 200)
    }))

  describe("the metadata of the API", () => {
    it.scoped("is at the well-known URLs if the challenge names none: path inserted, then the root", () =>
      Effect.gen(function*() {
        const world = makeWorld({
          challenge: undefined,
          documents: { [rootUrl]: { resource: "https://api.test", authorization_servers: ["https://auth.test"] } }
        })
        const clients = yield* connect(world)
        assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(world.urls().slice(1, 3), [`GET ${metadataUrl}`, `GET ${rootUrl}`])
        // character for character, without a slash that nobody wrote
        assert.deepStrictEqual(world.tokenRequests().map((form) => form.get("resource")), ["https://api.test"])
      }))

    it.scoped("is named by a challenge of any scheme", () =>
      Effect.gen(function*() {
        const world = makeWorld({
          challenge: `DPoP algs="ES256", resource_metadata="${metadataUrl}", scope="read write"`
        })
        const clients = yield* connect(world)
        assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(world.tokenRequests().map((form) => form.get("scope")), ["read write"])
      }))

    it.scoped.each([
      ["of another origin", "https://elsewhere.test/mcp"],
      ["of another path", "https://api.test/other"],
      ["of a path that only begins alike", "https://api.test/mc"],
      ["that is no URL", "mcp"]
    ])("%s is a ResourceMismatch, and its authorization server is not asked", ([_, other]) =>
      Effect.gen(function*() {
        const world = makeWorld({
          documents: { [metadataUrl]: { resource: other, authorization_servers: ["https://auth.test"] } }
        })
        const error = yield* Effect.flip(get(yield* connect(world)))
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "ResourceMismatch")
        assert.isFalse(world.urls().some((url) => url.includes("auth.test")))
      }))

    it.scoped("at a URL that is neither https nor loopback is not read", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge: "Bearer resource_metadata=\"http://api.test/metadata\"" })
        const error = yield* Effect.flip(get(yield* connect(world)))
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Invalid")
        assert.lengthOf(world.requests, 1)
      }))

    it.scoped("that is nowhere is NotFound, remembered for the cooldown", () =>
      Effect.gen(function*() {
        const world = makeWorld({ documents: {}, challenge: undefined })
        const clients = yield* connect(world)
        for (let n = 0; n < 20; n++) {
          const error = yield* Effect.flip(get(clients))
          assert.isTrue(error._tag === "DiscoveryError" && error.reason === "NotFound")
        }
        const asked = () => world.urls().filter((url) => url.includes("well-known")).length
        assert.strictEqual(asked(), 2)
        yield* TestClock.adjust("1 second")
        yield* Effect.flip(get(clients))
        assert.strictEqual(asked(), 4)
      }))

    it.scoped("is fetched again by tokenRetry after a transient failure, and so is that of the server", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const failed = new Set<string>()
        const flaky = HttpClient.make((request, url) => {
          if (!url.pathname.startsWith("/.well-known/") || failed.has(url.href)) return world.client.execute(request)
          failed.add(url.href)
          return scripted(() => new Response("", { status: 503 })).client.execute(request)
        })
        const clients = yield* connect({ layer: Layer.succeed(HttpClient.HttpClient, flaky) }, {
          tokenRetry: { times: 1 }
        })
        assert.strictEqual(yield* advancing(get(clients), "1 second"), 200)
        assert.strictEqual(failed.size, 2)
      }))

    it.scoped("is not asked for again before its Retry-After is over", () =>
      Effect.gen(function*() {
        const http = scripted(({ url }) =>
          url === resource
            ? new Response("", { status: 401 })
            : new Response("", { status: 503, headers: { "retry-after": "120" } })
        )
        const clients = yield* connect(http)
        const documents = () => http.requests.filter(({ url }) => url !== resource).length
        yield* Effect.flip(get(clients))
        yield* TestClock.adjust("119 seconds")
        yield* Effect.flip(get(clients))
        assert.strictEqual(documents(), 1)
        yield* TestClock.adjust("1 second")
        yield* Effect.flip(get(clients))
        assert.strictEqual(documents(), 2)
      }))

    it.scoped("that fails is an HttpClientError of the drop-in client, whose cause it is", () =>
      Effect.gen(function*() {
        const world = makeWorld({ documents: {}, challenge: undefined })
        const { httpClient } = yield* connect(world)
        const error = yield* Effect.flip(httpClient.get(resource))
        assert.isTrue(HttpClientError.isHttpClientError(error))
        assert.instanceOf(error.cause, TokenError.DiscoveryError)
      }))

    it.effect("can be read alone", () =>
      Effect.gen(function*() {
        const world = makeWorld({
          documents: {
            [metadataUrl]: {
              resource,
              authorization_servers: ["https://auth.test", 1],
              scopes_supported: ["read"],
              bearer_methods_supported: ["header"],
              resource_name: "The API"
            }
          }
        })
        const metadata = yield* Effect.provide(ProtectedResource.discover(new URL(resource)), world.layer)
        assert.deepStrictEqual({ ...metadata }, {
          resource,
          authorizationServers: ["https://auth.test"],
          scopesSupported: ["read"],
          bearerMethodsSupported: ["header"],
          resourceName: "The API"
        })
      }))
  })

  it.scoped("a body that can be read once is not risked: the well-known URLs come first", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const { authorizedHttpClient } = yield* connect(world)
      const body = HttpBody.stream(Stream.make(new Uint8Array([97])))
      const response = yield* authorizedHttpClient.execute(
        HttpClientRequest.setBody(HttpClientRequest.post(resource), body)
      )
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(world.apiRequests().map((request) => [header(request), request.body]), [
        ["Bearer auth.test-1", "a"]
      ])
    }))

  it.scoped("requests of other origins pass through", () =>
    Effect.gen(function*() {
      const http = scripted(() => new Response("no", { status: 401 }))
      const { httpClient } = yield* connect(http)
      assert.strictEqual((yield* httpClient.get("https://elsewhere.test/")).status, 401)
      assert.lengthOf(http.requests, 1)
      assert.isUndefined(header(http.requests[0]!))
    }))

  describe("authorization servers", () => {
    it.scoped("the first listed one that can be used is used", () =>
      Effect.gen(function*() {
        const world = makeWorld({
          documents: {
            [metadataUrl]: {
              resource,
              authorization_servers: ["https://gone.test", "https://liar.test", "https://auth.test"]
            }
          },
          servers: { "liar.test": { issuer: "https://auth.test" }, "auth.test": {} }
        })
        assert.strictEqual(yield* get(yield* connect(world)), 200)
        assert.strictEqual(header(world.apiRequests()[1]!), "Bearer auth.test-1")
      }))

    it.scoped("a list without end is tried up to the eighth", () =>
      Effect.gen(function*() {
        const servers = Array.from({ length: 9_000 }, (_, i) => `https://${i}.test`)
        const world = makeWorld({ documents: { [metadataUrl]: { resource, authorization_servers: servers } } })
        const error = yield* Effect.flip(get(yield* connect(world)))
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "NotFound" && error.url === "https://7.test/")
        assert.strictEqual(new Set(world.urls().filter((url) => url.includes("oauth-authorization-server"))).size, 8)
      }))

    it.scoped("an API that names none is Unsupported", () =>
      Effect.gen(function*() {
        const world = makeWorld({ documents: { [metadataUrl]: { resource } } })
        const error = yield* Effect.flip(get(yield* connect(world)))
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Unsupported")
      }))

    it.scoped("an API that moves to another one gets tokens from there, with one replay", () =>
      Effect.gen(function*() {
        const world = makeWorld({ servers: { "auth.test": {}, "next.test": {} } })
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })
        assert.strictEqual(yield* get(clients), 200)
        world.world.documents = {
          [metadataUrl]: { resource, authorization_servers: ["https://next.test", "https://auth.test"] }
        }
        world.world.valid.clear()
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(world.apiRequests().map((request) => header(request)), [
          undefined,
          "Bearer auth.test-1",
          "Bearer auth.test-1",
          "Bearer next.test-2"
        ])
        assert.lengthOf(world.registrations(), 2)
      }))

    it.scoped("an API that moves costs one registration and one token, however many requests find it out", () =>
      Effect.gen(function*() {
        const world = makeWorld({ servers: { "auth.test": {}, "next.test": {} } })
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })
        yield* get(clients)
        world.world.documents = { [metadataUrl]: { resource, authorization_servers: ["https://next.test"] } }
        world.world.valid.clear()
        yield* TestClock.adjust("5 seconds")
        const all = yield* Effect.all(Array.from({ length: 100 }, () => get(clients)), { concurrency: "unbounded" })
        assert.isTrue(all.every((status) => status === 200))
        assert.deepStrictEqual([world.registrations().length, world.tokenRequests().length], [2, 2])
      }))

    it.scoped("one that comes first and cannot be used changes nothing", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const clients = yield* connect(world)
        yield* get(clients)
        world.world.documents = {
          [metadataUrl]: { resource, authorization_servers: ["https://gone.test", "https://auth.test"] }
        }
        world.world.valid.clear()
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* get(clients), 200)
        assert.strictEqual(header(world.apiRequests().at(-1)!), "Bearer auth.test-2")
      }))

    it.scoped("an API that stays gets a new token from the same one", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const clients = yield* connect(world)
        yield* get(clients)
        world.world.valid.clear()
        assert.strictEqual(yield* get(clients), 200)
        assert.lengthOf(world.tokenRequests(), 2)
      }))

    it.scoped("an API that rejects every token is not asked for its metadata at every call", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const clients = yield* connect(world)
        yield* get(clients)
        for (let n = 0; n < 50; n++) {
          world.world.valid.clear()
          yield* Effect.either(get(clients))
        }
        assert.isAtMost(world.urls().filter((url) => url.includes(metadataUrl)).length, 3)
      }))
  })

  describe("scopes", () => {
    const asked = (overrides: Partial<World>, options: Partial<ProtectedResource.Options> = {}) =>
      Effect.gen(function*() {
        const world = makeWorld(overrides)
        yield* get(yield* connect(world, options))
        return world.tokenRequests().map((form) => form.get("scope"))
      })
    const supported = {
      [metadataUrl]: { resource, authorization_servers: ["https://auth.test"], scopes_supported: ["c", "d"] }
    }
    const challenge = `Bearer resource_metadata="${metadataUrl}", scope="a b"`

    it.scoped("are those of the challenge, else those of the options, else those that the API lists, else none", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* asked({ challenge, documents: supported }, { scope: "x" }), ["a b"])
        assert.deepStrictEqual(yield* asked({ documents: supported }, { scope: ["x", "y z"] }), ["x y z"])
        assert.deepStrictEqual(yield* asked({ documents: supported }), ["c d"])
        assert.deepStrictEqual(yield* asked({}), [null])
      }))

    it.scoped("offline_access is added where the server lists it and people sign in", () =>
      Effect.gen(function*() {
        const servers = { "auth.test": { scopes_supported: ["offline_access", "a"] } }
        assert.deepStrictEqual(yield* asked({ challenge, servers }, { grant: people }), ["a b offline_access"])
        assert.deepStrictEqual(yield* asked({ challenge, servers }), ["a b"])
        assert.deepStrictEqual(yield* asked({ challenge }, { grant: people }), ["a b"])
      }))

    it.scoped("that are missing are asked for once, together with those before, and the request is repeated", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge, demands: ["a", "write"] })
        const clients = yield* connect(world, { grant: people })
        assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(world.tokenRequests().map((form) => form.get("scope")), ["a b", "a b write"])
        assert.strictEqual(yield* get(clients), 200)
        assert.lengthOf(world.tokenRequests(), 2)
      }))

    it.scoped("that are missing are asked for once by a hundred requests, one after the other", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge, demands: ["a", "write"] })
        const clients = yield* connect(world, { grant: people })
        const all = yield* Effect.all(Array.from({ length: 100 }, () => get(clients)), { concurrency: "unbounded" })
        assert.isTrue(all.every((status) => status === 200))
        assert.lengthOf(world.tokenRequests(), 2)
      }))

    it.scoped("that were asked for already and are missing all the same: the 403 is the answer", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge })
        const clients = yield* connect(world, { grant: people })
        yield* get(clients)
        // the server grants less than was asked for
        for (const token of world.world.valid.keys()) world.world.valid.set(token, [])
        world.world.demands = ["a"]
        const error = yield* Effect.flip(get(clients))
        assert.instanceOf(error, AuthorizedHttpClient.InsufficientScope)
        assert.deepStrictEqual(error.required, ["a"])
        assert.strictEqual((yield* clients.httpClient.get(resource)).status, 403)
        assert.lengthOf(world.tokenRequests(), 1)
      }))

    it.scoped("that are missing are asked for without the refresh token, which cannot widen a grant", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge: "Bearer scope=\"a\"" })
        const clients = yield* connect(world, { grant: Grant.refreshToken(people) })
        yield* get(clients)
        world.world.demands = ["write"]
        assert.strictEqual(yield* get(clients), 200)
        const grants = () => world.tokenRequests().map((form) => form.get("grant_type"))
        assert.deepStrictEqual(grants(), ["client_credentials", "client_credentials"])
        world.world.demands = []
        yield* TestClock.adjust("3599 seconds")
        yield* get(clients)
        assert.strictEqual(grants().at(-1), "refresh_token")
      }))

    it.scoped("that are missing are asked for without the initial refresh token too", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge: "Bearer scope=\"a\"" })
        const grant = Grant.refreshToken(people, { initial: Redacted.make("initial"), scope: "a" })
        const clients = yield* connect(world, { grant })
        yield* get(clients)
        world.world.demands = ["write"]
        assert.strictEqual(yield* get(clients), 200)
        assert.deepStrictEqual(world.tokenRequests().map((form) => form.get("refresh_token")), ["initial", null])
      }))

    it.scoped("that are missing for a service: the 403 is the answer", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge, demands: ["write"] })
        const clients = yield* connect(world)
        assert.instanceOf(yield* Effect.flip(get(clients)), AuthorizedHttpClient.InsufficientScope)
        assert.strictEqual((yield* clients.httpClient.get(resource)).status, 403)
        assert.lengthOf(world.tokenRequests(), 1)
      }))

    it.scoped("that are missing are asked for by the drop-in client too", () =>
      Effect.gen(function*() {
        const world = makeWorld({ challenge, demands: ["write"] })
        const { httpClient } = yield* connect(world, { grant: people })
        assert.strictEqual((yield* httpClient.get(resource)).status, 200)
      }))
  })

  describe("registration", () => {
    it.scoped("the first of several that the server takes", () =>
      Effect.gen(function*() {
        const clientOf = (servers: World["servers"]) =>
          Effect.gen(function*() {
            const world = makeWorld({ servers })
            yield* get(
              yield* connect(world, {
                client: [
                  ClientRegistration.metadataDocument("https://app.test/client.json"),
                  ClientRegistration.dynamic({ clientName: "Reports" }),
                  client
                ]
              })
            )
            const [form] = world.tokenRequests()
            const basic = header(world.requests.find(({ url }) => url.endsWith("/token"))!)
            return form?.get("client_id") ?? Buffer.from(basic?.slice(6) ?? "", "base64").toString()
          })
        assert.strictEqual(
          yield* clientOf({ "auth.test": { client_id_metadata_document_supported: true } }),
          "https://app.test/client.json"
        )
        assert.strictEqual(yield* clientOf({ "auth.test": {} }), "registered-1:a-secret")
        assert.strictEqual(yield* clientOf({ "auth.test": { registration_endpoint: undefined } }), "client:a-secret")
      }))

    it.scoped("a client is shown to the issuer that it is registered with, or to the first that it meets, and to no other", () =>
      Effect.gen(function*() {
        const own = ClientRegistration.preRegistered({
          clientId: "client",
          clientSecret: Redacted.make("a-secret"),
          issuer: "https://auth.test"
        })
        assert.strictEqual(yield* get(yield* connect(makeWorld(), { client: own })), 200)

        const elsewhere = makeWorld()
        const other = ClientRegistration.preRegistered({ clientId: "client", issuer: "https://other.test" })
        const error = yield* Effect.flip(get(yield* connect(elsewhere, { client: other })))
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "IssuerMismatch")
        assert.lengthOf(elsewhere.tokenRequests(), 0)

        const moved = makeWorld({ servers: { "auth.test": {}, "next.test": {} } })
        const clients = yield* connect(moved)
        yield* get(clients)
        moved.world.documents = { [metadataUrl]: { resource, authorization_servers: ["https://next.test"] } }
        moved.world.valid.clear()
        yield* TestClock.adjust("5 seconds")
        const refused = yield* Effect.flip(get(clients))
        assert.isTrue(refused._tag === "DiscoveryError" && refused.reason === "IssuerMismatch")
        assert.isFalse(moved.urls().includes("POST https://next.test/token"))
      }))

    it.scoped("a server that takes none is Unsupported", () =>
      Effect.gen(function*() {
        const world = makeWorld({ servers: { "auth.test": { registration_endpoint: undefined } } })
        const client = ClientRegistration.dynamic({ clientName: "Reports" })
        const error = yield* Effect.flip(get(yield* connect(world, { client })))
        assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Unsupported")
      }))

    it.scoped("a dynamic one says what it is, and with its token", () =>
      Effect.gen(function*() {
        const world = makeWorld({
          servers: { "auth.test": { token_endpoint_auth_methods_supported: ["client_secret_post"] } }
        })
        const grant: Grant.Grant = {
          ...people,
          registration: { grantTypes: ["authorization_code"], redirectUris: ["http://127.0.0.1:1234/callback"] }
        }
        yield* get(
          yield* connect(world, {
            grant,
            client: ClientRegistration.dynamic({ clientName: "Reports", initialAccessToken: Redacted.make("initial") })
          })
        )
        const [registration] = world.registrations()
        assert.strictEqual(header(registration!), "Bearer initial")
        assert.deepStrictEqual(JSON.parse(registration?.body ?? ""), {
          client_name: "Reports",
          redirect_uris: ["http://127.0.0.1:1234/callback"],
          response_types: ["code"],
          application_type: "native",
          grant_types: ["authorization_code", "refresh_token"],
          token_endpoint_auth_method: "client_secret_post"
        })
        assert.strictEqual(world.tokenRequests()[0]?.get("client_secret"), "a-secret")
      }))

    it.scoped("the method in the response wins", () =>
      Effect.gen(function*() {
        const world = withRegistration(() =>
          json({ client_id: "a", client_secret: "a-secret", token_endpoint_auth_method: "client_secret_post" })
        )
        assert.strictEqual(
          yield* get(yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })),
          200
        )
        assert.isUndefined(header(world.requests.find(({ url }) => url.endsWith("/token"))!))
        assert.strictEqual(world.tokenRequests()[0]?.get("client_secret"), "a-secret")
      }))

    it.scoped("one whose secret has expired is made anew", () =>
      Effect.gen(function*() {
        let n = 0
        const world = withRegistration(() =>
          json({ client_id: `client-${++n}`, client_secret: "a-secret", client_secret_expires_at: 60 })
        )
        const storage = yield* Layer.build(TokenStorage.layerMemory)
        const start = Effect.provide(
          connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) }),
          storage
        )
        for (const [wait, registrations] of [[0, 1], [59, 1], [1, 2]] as const) {
          yield* TestClock.adjust(`${wait} seconds`)
          yield* Effect.either(get(yield* start))
          assert.strictEqual(n, registrations)
        }
      }))

    it.scoped.each<readonly [string, Readonly<Record<string, unknown>>, string]>([
      ["a token", { client_id: "planted" }, "Bearer"],
      ["an id that is no text", { client_id: 1 }, "client-registration"],
      ["an empty id", { client_id: "" }, "client-registration"],
      ["nothing", {}, "client-registration"]
    ])("what a storage holds in place of a registration is not used: %s", ([_, extra, type]) =>
      Effect.gen(function*() {
        const world = makeWorld()
        const planted = new AccessToken.AccessToken({
          value: Redacted.make("planted"),
          type,
          issuedAt: DateTime.unsafeMake(0),
          extra: Redacted.make(extra)
        })
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) }).pipe(
          Effect.provideService(TokenStorage.TokenStorage, {
            ...TokenStorage.none,
            get: () => Effect.succeedSome(planted)
          })
        )
        yield* Effect.either(get(clients))
        assert.lengthOf(world.registrations(), 1)
      }))

    it.scoped("a dynamic one with a redirect URI on the web is a web client", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        yield* get(
          yield* connect(world, {
            client: ClientRegistration.dynamic({ clientName: "Reports", redirectUris: ["https://app.test/callback"] })
          })
        )
        assert.strictEqual(JSON.parse(world.registrations()[0]?.body ?? "").application_type, "web")
      }))

    it.scoped("a dynamic one is made once for all who share a storage, and made once more when the server has forgotten it", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const storage = yield* Layer.build(TokenStorage.layerMemory)
        const dynamic = ClientRegistration.dynamic({ clientName: "Reports" })
        const start = Effect.provide(connect(world, { client: dynamic }), storage)
        const [first, second] = yield* Effect.all([start, start], { concurrency: "unbounded" })
        assert.deepStrictEqual(yield* Effect.all([get(first), get(second)], { concurrency: "unbounded" }), [200, 200])
        assert.lengthOf(world.registrations(), 1)

        world.world.refused.add("registered-1")
        world.world.valid.clear()
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(yield* get(first), 200)
        assert.lengthOf(world.registrations(), 2)
        const third = yield* start
        assert.strictEqual(yield* get(third), 200)
        assert.lengthOf(world.registrations(), 2)
      }))

    it.scoped("a dynamic one that the server has forgotten is made once more, however many requests find it out", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })
        yield* get(clients)
        world.world.refused.add("registered-1")
        world.world.valid.clear()
        yield* TestClock.adjust("2 minutes")
        const all = yield* Effect.all(Array.from({ length: 100 }, () => get(clients)), { concurrency: "unbounded" })
        assert.isTrue(all.every((status) => status === 200))
        assert.deepStrictEqual([world.registrations().length, world.tokenRequests().length], [2, 3])
      }))

    it.scoped("one that fails is a typed error, and nothing of the initial token is in it", () =>
      Effect.gen(function*() {
        const http = makeWorld()
        const failing = HttpClient.transform(http.client, (effect, request) =>
          request.url.endsWith("/register")
            ? Effect.flatMap(HttpClient.HttpClient, (client) => client.execute(request)).pipe(
              Effect.provideService(
                HttpClient.HttpClient,
                scripted((received) =>
                  json({ error: "invalid_client_metadata", echo: header(received) }, { status: 400 })
                ).client
              )
            )
            : effect)
        const clients = yield* connect({ layer: Layer.succeed(HttpClient.HttpClient, failing) }, {
          client: ClientRegistration.dynamic({
            clientName: "Reports",
            initialAccessToken: Redacted.make("initial-token")
          })
        })
        const error = yield* Effect.flip(get(clients))
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client_metadata")
        assert.notInclude(JSON.stringify(error) + String(error), "initial-token")
      }))

    it.scoped("a server that refuses every new registration gets two, however many requests go out", () =>
      Effect.gen(function*() {
        const world = makeWorld()
        for (let i = 1; i <= 100; i++) world.world.refused.add(`registered-${i}`)
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })
        for (let i = 0; i < 50; i++) {
          const error = yield* Effect.flip(get(clients))
          assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client")
          yield* TestClock.adjust("10 seconds")
        }
        assert.strictEqual(world.registrations().length, 2)
        world.world.refused.clear()
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* get(clients), 200)
        assert.strictEqual(world.registrations().length, 2)
      }))

    it.scoped("a response that hides much else is kept without it", () =>
      Effect.gen(function*() {
        const deep = "[".repeat(60) + "]".repeat(60)
        const kept: Array<string> = []
        const world = withRegistration(() =>
          new Response(`{"client_id":"registered","deep":${deep},"registration_access_token":"not-kept"}`, {
            status: 201
          })
        )
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) }).pipe(
          Effect.provideService(TokenStorage.TokenStorage, {
            ...TokenStorage.none,
            set: (_, { extra }) => Effect.sync(() => kept.push(JSON.stringify(Redacted.value(extra))))
          })
        )
        assert.strictEqual(yield* get(clients), 200)
        assert.strictEqual(kept[0], "{\"client_id\":\"registered\"}")
      }))

    it.scoped("an error shows no secret of the response, and no query of the endpoint", () =>
      Effect.gen(function*() {
        const world = withRegistration(
          () => json({ client_id: "a", client_secret: "hunter2-secret", error: "odd" }, { status: 201 }),
          "?key=hunter3"
        )
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })
        const error = yield* Effect.flip(get(clients))
        assert.strictEqual(error._tag, "TokenErrorResponse")
        assert.notMatch(`${JSON.stringify(error)}${String(error)}`, /hunter/)
      }))

    it.scoped("a secret that cannot be used is an error that names the server", () =>
      Effect.gen(function*() {
        const world = withRegistration(() => json({ client_id: "a", client_secret: " hunter2 " }, { status: 201 }))
        const clients = yield* connect(world, { client: ClientRegistration.dynamic({ clientName: "Reports" }) })
        const error = yield* Effect.flip(get(clients))
        assert.isTrue(error._tag === "DiscoveryError" && error.url === "https://auth.test/")
        assert.notInclude(`${JSON.stringify(error)}${String(error)}`, "hunter2")
      }))

    it.scoped("a metadata document authenticates as it is told to", () =>
      Effect.gen(function*() {
        const world = makeWorld({ servers: { "auth.test": { client_id_metadata_document_supported: true } } })
        yield* get(
          yield* connect(world, {
            client: ClientRegistration.metadataDocument("https://app.test/client.json", {
              clientAuthentication: ClientAuthentication.assertion(Effect.succeed(Redacted.make("an-assertion")))
            })
          })
        )
        assert.strictEqual(world.tokenRequests()[0]?.get("client_assertion"), "an-assertion")
      }))
  })

  it.scoped("options that cannot work are a ConfigurationError", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      for (
        const options of [
          { resource: "not a URL" },
          { grant: people, params: { a: "b" } },
          { tokenRetry: { times: -1 } },
          { tokenTimeout: 0 },
          { expiryLeeway: "soon" as "1 second" },
          { client: ClientRegistration.preRegistered({ clientId: "" }) },
          { client: ClientRegistration.preRegistered({ clientId: "client", clientSecret: Redacted.make(" ") }) }
        ]
      ) {
        assert.instanceOf(yield* Effect.flip(connect(world, options)), TokenError.ConfigurationError)
      }
    }))

  it.effect("after the end of the layer everything that needs a token fails with LayerClosed", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const scope = yield* Scope.make()
      const clients = yield* Scope.extend(connect(world), scope)
      yield* Scope.close(scope, Exit.void)
      assert.instanceOf(yield* Effect.flip(clients.tokens.get), TokenError.LayerClosed)
    }))
})
