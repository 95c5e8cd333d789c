/** Providers that say in their own words that a refresh token is dead, and those that want more than the token. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { Grant } from "effect-alf"
import { json, play } from "../../support/playServer.ts"

const initial = Redacted.make("dead-refresh-token")

const dead: ReadonlyArray<readonly [string, () => Response]> = [
  ["RFC 6749", () => json({ error: "invalid_grant" }, 400)],
  ["Databricks", () => json({ error: "invalid_request", error_description: "Refresh token is invalid" }, 400)],
  ["DeviantArt", () => json({ error: "invalid_request", error_description: "The refresh_token is invalid." }, 400)],
  ["HubSpot", () => json({ status: "BAD_REFRESH_TOKEN", message: "missing or invalid refresh token" }, 400)],
  [
    "Fitbit",
    () => json({ errors: [{ errorType: "invalid_grant", message: "Refresh token invalid" }], success: false }, 400)
  ],
  [
    "GitHub",
    () => json({ error: "bad_refresh_token", error_description: "The refresh token passed is incorrect or expired." })
  ],
  ["Entra ID", () => json({ error: "interaction_required", error_codes: [50_076] }, 400)],
  ["a server that answers 401 and nothing", () => new Response("", { status: 401 })],
  ["a server that answers 403 and a page", () => new Response("<html>no</html>", { status: 403 })]
]

describe("a refresh token that is no longer good", () => {
  for (const [name, refusal] of dead) {
    it.scoped(`in the words of ${name}: one refresh, then the other grant`, () =>
      Effect.gen(function*() {
        const server = yield* play({
          token: ({ form }) =>
            form.get("grant_type") === "refresh_token" ? refusal() : json({ access_token: "t", expires_in: 60 }),
          options: { grant: Grant.refreshToken(Grant.clientCredentials(), { initial }) }
        })
        assert.strictEqual(yield* server.get, 200)
        assert.deepStrictEqual(server.forms().map((form) => form.get("grant_type")), [
          "refresh_token",
          "client_credentials"
        ])
      }))

    it.scoped(`in the words of ${name}: refreshTokenOnly fails with that refusal`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: refusal, options: { grant: Grant.refreshTokenOnly({ initial }) } })
        for (let n = 0; n < 3; n++) assert.strictEqual((yield* Effect.flip(server.get))._tag, "TokenErrorResponse")
        assert.lengthOf(server.forms(), 1)
      }))
  }

  it.scoped("invalid_client says nothing of the refresh token: no other grant", () =>
    Effect.gen(function*() {
      const server = yield* play({
        token: () => json({ error: "invalid_client" }, 401),
        options: { grant: Grant.refreshToken(Grant.clientCredentials(), { initial }) }
      })
      yield* Effect.flip(server.get)
      assert.lengthOf(server.forms(), 1)
    }))
})

describe("a refresh that needs more", () => {
  it.scoped("Entra ID (AADSTS90009), Dynamics: scope or resource", () =>
    Effect.gen(function*() {
      const server = yield* play({
        token: ({ form }) =>
          form.get("scope") === "https://graph.microsoft.com/.default" && form.get("resource") === "https://crm.test"
            ? json({
              access_token: "t",
              refresh_token: "next",
              token_type: "Bearer",
              expires_in: 3599,
              ext_expires_in: 3599
            })
            : json({ error: "invalid_request", error_description: "AADSTS90009" }, 400),
        options: {
          grant: Grant.refreshTokenOnly({
            initial: Redacted.make("refresh"),
            scope: "https://graph.microsoft.com/.default",
            resource: "https://crm.test"
          })
        }
      })
      assert.strictEqual(yield* server.get, 200)
    }))

  for (const name of ["SP-API", "Google offline", "Zoho", "Xero"]) {
    it.scoped(`${name}: nothing but a refresh token`, () =>
      Effect.gen(function*() {
        const server = yield* play({
          token: ({ form }) =>
            form.get("refresh_token") === "from-elsewhere"
              ? json({ access_token: "t", expires_in: 3600, token_type: "bearer" })
              : json({ error: "invalid_grant" }, 400),
          options: { grant: Grant.refreshTokenOnly({ initial: Redacted.make("from-elsewhere") }) }
        })
        const token = yield* server.tokens.get
        yield* server.tokens.refresh(token)
        // what the response left out is kept
        assert.deepStrictEqual(server.forms().map((form) => form.get("refresh_token")), [
          "from-elsewhere",
          "from-elsewhere"
        ])
      }))
  }
})
