/** The certified `oidc-provider` as authorization server, and an API that asks it for each token. */
import { NodeHttpClient } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Redacted, TestClock } from "effect"
import { Alf, ClientAuthentication } from "effect-alf"
import { bearerOf } from "../support/apiServer.ts"
import { loopbackServer } from "../support/loopbackServer.ts"
import * as Provider from "../support/clientCredentialsProvider.ts"
import { transports } from "../support/transports.ts"

/** Every kind of character that an id and a secret may have (RFC 6749 §A.1, §A.2). */
const client = { id: "client %&+-_.!~*'()", secret: "secret: 50%, a+b=c & \"d\"/%41?~*'()" }

const methods = {
  client_secret_basic: ClientAuthentication.basic,
  client_secret_post: ClientAuthentication.post
} as const

const world = (
  method: Provider.Client["method"],
  server?: Omit<Provider.Options, "client">,
  options?: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>
) =>
  Effect.gen(function*() {
    const auth = yield* Provider.authorizationServer({ client: { ...client, method }, ...server })
    const api = yield* Provider.introspectingApi(auth)
    const alf = yield* Alf.make({
      tokenEndpoint: auth.tokenEndpoint,
      clientId: client.id,
      clientSecret: Redacted.make(client.secret),
      clientAuthentication: methods[method],
      scope: "read",
      origins: [api.url],
      ...options
    })
    return {
      ...alf,
      auth,
      api,
      call: Effect.flatMap(
        alf.authorizedHttpClient.get(`${api.url}/resource`),
        (response) => Effect.as(response.text, response.status)
      ),
      tokenRequests: () => auth.count("/token")
    }
  })

for (const [transport, layer] of transports) {
  describe(`oidc-provider over ${transport}`, { concurrent: true }, () => {
    it.scopedLive.each(["client_secret_basic", "client_secret_post"] as const)(
      "knows a client whose id and secret need encoding: %s",
      (method) =>
        Effect.gen(function*() {
          const { api, call, tokenRequests, tokens } = yield* world(method)
          const statuses = yield* Effect.all(Array.from({ length: 20 }, () => call), { concurrency: 5 })
          assert.deepStrictEqual(new Set(statuses), new Set([200]))
          assert.strictEqual(tokenRequests(), 1)
          assert.strictEqual(api.requests.length, 20)

          const token = yield* tokens.get
          assert.deepStrictEqual(token.scope, ["read"])
          assert.deepStrictEqual(new Set(api.requests.map(bearerOf)), new Set([Redacted.value(token.value)]))
        }).pipe(Effect.provide(layer))
    )

    it.scopedLive("does not know the client by an id and secret that are not encoded", () =>
      Effect.gen(function*() {
        const { call } = yield* world("client_secret_basic", {}, {
          clientAuthentication: ClientAuthentication.basicRaw
        })
        const error = yield* Effect.flip(call)
        assert.strictEqual(error._tag, "TokenErrorResponse")
      }).pipe(Effect.provide(layer)))

    it.scopedLive("revokes every token under load: no 401 reaches a caller, and one token request is made", () =>
      Effect.gen(function*() {
        const { auth, call, tokenRequests } = yield* world("client_secret_basic")
        assert.strictEqual(yield* call, 200)
        const calls = Effect.all(Array.from({ length: 60 }, () => call), { concurrency: 10 })
        const [statuses] = yield* Effect.all([calls, Effect.delay(Effect.sync(auth.revokeAll), "20 millis")], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(new Set(statuses), new Set([200]))
        assert.strictEqual(yield* call, 200)
        assert.strictEqual(tokenRequests(), 2)
      }).pipe(Effect.provide(layer)))

    it.scoped.each(["client_secret_basic", "client_secret_post"] as const)(
      "refuses a wrong secret: one typed error, one request until the cooldown is over (%s)",
      (method) =>
        Effect.gen(function*() {
          const { api, call, tokenRequests } = yield* world(method, {}, {
            clientSecret: Redacted.make("a wrong secret"),
            refusalCooldown: "500 millis"
          })
          const refused = Effect.gen(function*() {
            const error = yield* Effect.flip(call)
            if (error._tag !== "TokenErrorResponse") return assert.fail(String(error))
            assert.strictEqual(error.error, "invalid_client")
            assert.strictEqual(error.status, 401)
            assert.strictEqual(error.attempts, 1)
            assert.notInclude(JSON.stringify(error), "a wrong secret")
          })
          yield* Effect.all(Array.from({ length: 20 }, () => refused), { concurrency: "unbounded" })
          yield* refused
          assert.strictEqual(tokenRequests(), 1)

          yield* TestClock.adjust("550 millis")
          yield* refused
          yield* refused
          assert.strictEqual(tokenRequests(), 2)
          assert.strictEqual(api.requests.length, 0)
        }).pipe(Effect.provide(layer))
    )

    it.scopedLive("refuses a scope: a typed error, and the API is not asked", () =>
      Effect.gen(function*() {
        const { api, call, tokenRequests } = yield* world("client_secret_basic", {}, { scope: ["read", "write"] })
        const error = yield* Effect.flip(call)
        if (error._tag !== "TokenErrorResponse") return assert.fail(String(error))
        assert.strictEqual(error.error, "invalid_scope")
        assert.strictEqual(tokenRequests(), 1)
        assert.strictEqual(api.requests.length, 0)
      }).pipe(Effect.provide(layer)))
  })
}

describe("a server that allows every character", () => {
  const unicode = { id: "clïent: 100 % + €", secret: "sëcret: 🔑 %41 + & =" }
  const decode = (text = "") => decodeURIComponent(text.replaceAll("+", " "))

  it.scopedLive("reads id and secret from the header as they are", () =>
    Effect.gen(function*() {
      const auth = yield* loopbackServer()
      const { tokens } = yield* Alf.make({
        tokenEndpoint: auth.tokenEndpoint,
        clientId: unicode.id,
        clientSecret: Redacted.make(unicode.secret),
        origins: "any"
      })
      yield* tokens.get
      const [, encoded = ""] = auth.requests[0]?.headers.authorization?.split(" ") ?? []
      const [id, secret] = Buffer.from(encoded, "base64").toString().split(":")
      assert.deepStrictEqual({ id: decode(id), secret: decode(secret) }, unicode)
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)))

  it.scopedLive("reads id and secret from the form as they are", () =>
    Effect.gen(function*() {
      const auth = yield* loopbackServer()
      const { tokens } = yield* Alf.make({
        tokenEndpoint: auth.tokenEndpoint,
        clientId: unicode.id,
        clientSecret: Redacted.make(unicode.secret),
        clientAuthentication: ClientAuthentication.post,
        origins: "any"
      })
      yield* tokens.get
      const form = new URLSearchParams(auth.requests[0]?.body)
      assert.deepStrictEqual({ id: form.get("client_id"), secret: form.get("client_secret") }, unicode)
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)))
})

describe("four-second tokens under ten seconds of load", () => {
  it.scopedLive("no 401 reaches a caller, token requests are few, and nobody waits long", () =>
    Effect.gen(function*() {
      const { api, call, tokenRequests, tokens } = yield* world("client_secret_basic", { lifetime: 4, delay: 100 })
      yield* tokens.get
      const end = (yield* Clock.currentTimeMillis) + 10_000
      const statuses = new Set<number>()
      let longestWait = 0
      let calls = 0
      const caller = Effect.gen(function*() {
        while ((yield* Clock.currentTimeMillis) < end) {
          const [wait] = yield* Effect.timed(tokens.get)
          longestWait = Math.max(longestWait, Duration.toMillis(wait))
          statuses.add(yield* call)
          calls++
          yield* Effect.sleep("20 millis")
        }
      })
      yield* Effect.all(Array.from({ length: 5 }, () => caller), { concurrency: "unbounded" })
      assert.deepStrictEqual(statuses, new Set([200]))
      assert.isAbove(calls, 20)
      assert.isBelow(longestWait, 1_000)
      // a token is renewed when 20 % of its life are left, or earlier: this server rounds its end down to a second
      assert.isAtLeast(tokenRequests(), 3)
      assert.isAtMost(tokenRequests(), 6)
      // few are refused, on the edge of a second, and sent again: no more than are in flight at once
      assert.isAtMost(api.requests.length - calls, 5 * tokenRequests())
    }).pipe(Effect.provide(NodeHttpClient.layerUndici)), 30_000)
})
