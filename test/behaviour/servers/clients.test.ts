/** Providers that take the client's credentials otherwise, or refuse requests for other reasons. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, TestClock } from "effect"
import { ClientAuthentication, TokenError } from "effect-alf"
import { json, play, type Provider } from "../../support/playServer.ts"

const good = () => json({ access_token: "t", expires_in: 3600 })

const basic = ({ headers }: { readonly headers: Readonly<Record<string, string>> }) =>
  Buffer.from((headers["authorization"] ?? "").replace(/^Basic /, ""), "base64").toString()

describe("credentials", () => {
  const secret = Redacted.make("a+secret/with=signs")

  for (const name of ["SAP XSUAA", "Cloud Foundry UAA"]) {
    const raw: Provider = {
      token: (request) =>
        basic(request) === "client:a+secret/with=signs"
          ? good()
          : json({ error: "unauthorized", error_description: "Bad credentials" }, 401)
    }
    it.scoped(`${name}: Basic is not decoded; the hint says so, and basicRaw works`, () =>
      Effect.gen(function*() {
        const server = yield* play({ ...raw, options: { clientSecret: secret } })
        const error = yield* Effect.flip(server.get)
        assert.instanceOf(error, TokenError.TokenErrorResponse)
        assert.include(error.hint, "basicRaw")
        assert.include(error.message, "basicRaw")
        const options = { clientSecret: secret, clientAuthentication: ClientAuthentication.basicRaw }
        assert.strictEqual(yield* (yield* play({ ...raw, options })).get, 200)
      }))
  }

  for (const name of ["LinkedIn", "HubSpot", "Strava", "FedEx"]) {
    const post: Provider = {
      token: ({ form }) =>
        form.get("client_secret") === "a-secret"
          ? good()
          : json({ error: "invalid_client", message: "client_id missing" }, 400)
    }
    it.scoped(`${name}: the form only; the hint says so, and post works`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip((yield* play(post)).get)
        assert.instanceOf(error, TokenError.TokenErrorResponse)
        assert.include(error.hint, "client_secret_post")
        const options = { clientAuthentication: ClientAuthentication.post }
        assert.strictEqual(yield* (yield* play({ ...post, options })).get, 200)
      }))
  }

  for (const name of ["Notion", "Vanta", "Personio"]) {
    it.scoped(`${name}: JSON, where a repeated parameter is an array`, () =>
      Effect.gen(function*() {
        const server = yield* play({
          token: ({ body, headers }) =>
            headers["content-type"] === "application/json" && JSON.parse(body).grant_type === "client_credentials"
              ? good()
              : json({ error: "invalid_request" }, 400),
          options: { tokenRequestFormat: "json", resource: ["https://a.test", "https://b.test"] }
        })
        assert.strictEqual(yield* server.get, 200)
        assert.deepStrictEqual(JSON.parse(server.tokenRequests()[0]?.body ?? "").resource, [
          "https://a.test",
          "https://b.test"
        ])
      }))
  }

  for (const name of ["AWS WAF", "Azure WAF", "GitHub"]) {
    it.scoped(`${name}: 403 without a User-Agent`, () =>
      Effect.gen(function*() {
        const server = yield* play({
          token: ({ headers }) =>
            /^effect-alf\/\d/.test(headers["user-agent"] ?? "") ? good() : new Response("Forbidden", { status: 403 })
        })
        assert.strictEqual(yield* server.get, 200)
      }))
  }
})

describe("permanent refusals in own words", () => {
  const refusals: ReadonlyArray<readonly [string, () => Response, string]> = [
    ["Apigee", () => json({ ErrorCode: "invalid_client", Error: "ClientId is Invalid" }, 401), "ClientId is Invalid"],
    [
      "Fitbit",
      () => json({ errors: [{ errorType: "invalid_client", message: "Invalid authorization" }] }, 401),
      "Invalid auth"
    ],
    [
      "Facebook",
      () => json({ error: { message: "Error validating client secret.", type: "OAuthException", code: 1 } }, 400),
      "OAuthException"
    ],
    ["HubSpot", () => json({ status: "BAD_CLIENT_ID", message: "missing or unknown client id" }, 400), "BAD_CLIENT_ID"],
    ["ServiceNow", () => json({ error_description: "access_denied", error: "server_error" }, 401), "server_error"],
    ["a wrong URL", () => new Response("<html><h1>Not Found</h1></html>", { status: 404 }), "Not Found"],
    [
      "a firewall",
      () => new Response("<html>Request Rejected. Your support ID is: 42</html>", { status: 403 }),
      "support ID"
    ]
  ]
  for (const [name, refusal, words] of refusals) {
    it.scoped(`${name}: one attempt, remembered, and the beginning of the body is in the message`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: refusal, options: { tokenRetry: {} } })
        for (let n = 0; n < 5; n++) {
          const error = yield* Effect.flip(server.get)
          assert.instanceOf(error, TokenError.TokenErrorResponse)
          assert.include(error.message, words)
          assert.strictEqual(error.attempts, 1)
        }
        assert.lengthOf(server.tokenRequests(), 1)
        yield* TestClock.adjust("1 second")
        yield* Effect.flip(server.get)
        assert.lengthOf(server.tokenRequests(), 2)
      }))
  }

  it.scoped("a redirect to a slash, as of Django: not followed, and the hint says where to", () =>
    Effect.gen(function*() {
      const server = yield* play({
        token: () => new Response(null, { status: 301, headers: { location: "/oauth/token/?secret=1" } })
      })
      const error = yield* Effect.flip(server.get)
      assert.instanceOf(error, TokenError.TokenErrorResponse)
      assert.include(error.hint, "https://auth.provider.test/oauth/token/")
      assert.notInclude(error.message, "secret=1")
      assert.lengthOf(server.tokenRequests(), 1)
    }))
})
