/** Providers that name no type for their tokens, or one of their own. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { json, play } from "../../support/playServer.ts"

const providers: ReadonlyArray<readonly [string, unknown]> = [
  ["alf's own contract", { access_token: "t", expires_in: 3600 }],
  ["Shopify", { access_token: "t", scope: "read_orders", expires_in: 86_399 }],
  ["LinkedIn", { access_token: "t", expires_in: 5_184_000, scope: "r_basicprofile" }],
  ["Twitch", { access_token: "t", expires_in: 5_011_271, token_type: "bearer" }],
  ["Slack", { ok: true, access_token: "t", token_type: "bot", scope: "chat:write", bot_user_id: "U0", app_id: "A0" }],
  ["Apigee", { access_token: "t", token_type: "BearerToken", expires_in: "3599", status: "approved", issued_at: "1" }],
  ["eBay", { access_token: "t", expires_in: 7200, token_type: "Application Access Token" }],
  ["an ASP.NET server", {
    access_token: "t",
    token_type: "bearer",
    expires_in: 3600,
    error: "",
    error_description: null
  }],
  ["a server whose type is null", { access_token: "t", token_type: null, expires_in: 60 }]
]

describe("a token without a type, or of an odd one", () => {
  for (const [name, body] of providers) {
    it.scoped(`${name}: is presented as Bearer`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: () => json(body) })
        assert.strictEqual(yield* server.get, 200)
        assert.strictEqual(server.apiRequests()[0]?.headers["authorization"], "Bearer t")
      }))
  }

  for (const type of ["mac", "hmac", "pop", "DPoP", "N_A"]) {
    it.scoped(`${type} needs a proof that there is none of: InvalidTokenResponse`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: () => json({ access_token: "t", token_type: type }) })
        const error = yield* Effect.flip(server.get)
        assert.strictEqual(error._tag, "InvalidTokenResponse")
        assert.lengthOf(server.apiRequests(), 0)
      }))
  }
})
