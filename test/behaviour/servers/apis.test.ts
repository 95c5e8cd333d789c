/** APIs that want the token elsewhere, or reject it in their own way, and token responses with more in them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { Grant } from "effect-alf"
import { inspect } from "node:util"
import { json, type Options, play } from "../../support/playServer.ts"

const tokens = (_: unknown, n: number) => json({ access_token: `token-${n}`, expires_in: 3600 })

describe("an expired token that is not a 401", () => {
  const rows: ReadonlyArray<readonly [string, number, unknown]> = [
    ["Databricks", 403, { error_code: "403", message: "Invalid access token." }],
    ["Microsoft Graph", 403, { error: { code: "InvalidAuthenticationToken" } }],
    ["Atlassian", 403, { code: 403, message: "Forbidden" }],
    ["SP-API", 403, { errors: [{ code: "Unauthorized", details: "The access token you provided has expired." }] }],
    ["Laravel", 419, {}],
    ["ArcGIS", 498, { error: { code: 498, message: "Invalid token." } }]
  ]
  for (const [name, status, body] of rows) {
    it.scoped(`${name}, ${status}: isRejected replaces it, and the request is sent once more`, () =>
      Effect.gen(function*() {
        const server = yield* play({
          token: tokens,
          api: ({ headers }) => headers["authorization"] === "Bearer token-1" ? json({}) : json(body, status),
          options: { isRejected: (response) => response.status === 401 || response.status === status }
        })
        assert.strictEqual(yield* server.get, 200)
        assert.lengthOf(server.apiRequests(), 2)
      }))

    it.scoped(`${name}, ${status}: without isRejected it passes through`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: tokens, api: () => json(body, status) })
        assert.strictEqual(yield* server.get, status)
        assert.lengthOf(server.tokenRequests(), 1)
      }))
  }
})

describe("another header", () => {
  const rows: ReadonlyArray<readonly [string, NonNullable<Options["header"]>, string, string]> = [
    ["SP-API", { name: "x-amz-access-token" }, "x-amz-access-token", "token-0"],
    ["Shopify", { name: "X-Shopify-Access-Token" }, "x-shopify-access-token", "token-0"],
    ["BigCommerce", { name: "X-Auth-Token" }, "x-auth-token", "token-0"],
    ["Zoho", { scheme: "Zoho-oauthtoken" }, "authorization", "Zoho-oauthtoken token-0"],
    ["a header with a scheme", { name: "x-token", scheme: "Token" }, "x-token", "Token token-0"]
  ]
  for (const [name, header, field, value] of rows) {
    it.scoped(`${name}: ${field}, which is concealed`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: tokens, api: () => json({}), options: { header } })
        const response = yield* server.httpClient.get("https://api.provider.test/data", {
          headers: field === "authorization" ? {} : { authorization: "the caller's own" }
        })
        const [sent] = server.apiRequests()
        assert.strictEqual(sent?.headers[field], value)
        if (field !== "authorization") assert.strictEqual(sent?.headers["authorization"], "the caller's own")
        assert.notInclude(inspect(response, { depth: 8 }) + JSON.stringify(response), "token-0")
      }))
  }
})

describe("members that programs need", () => {
  const rows: ReadonlyArray<readonly [string, string, string]> = [
    ["Salesforce", "instance_url", "https://eu1.salesforce.test"],
    ["Zoho", "api_domain", "https://www.zohoapis.eu"],
    ["SMART on FHIR", "patient", "123"],
    ["OpenID Connect", "id_token", "header.payload.signature"]
  ]
  for (const [name, member, value] of rows) {
    it.scoped(`${name}: ${member} is in extra, and shown nowhere`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: () => json({ access_token: "t", [member]: value }) })
        assert.strictEqual(yield* server.extra(member), value)
        assert.notInclude(inspect(yield* server.tokens.get, { depth: 8 }), value)
      }))
  }
})

describe("another grant type", () => {
  const rows: ReadonlyArray<readonly [string, string, Readonly<Record<string, string | Redacted.Redacted>>]> = [
    ["Zoom", "account_credentials", { account_id: "account" }],
    ["SAP Ariba", "openapi_2lo", {}],
    ["the password grant", "password", { username: "ann", password: Redacted.make("her-password") }]
  ]
  for (const [name, grantType, params] of rows) {
    it.scoped(`${name}: ${grantType}`, () =>
      Effect.gen(function*() {
        const server = yield* play({ token: tokens, options: { grant: Grant.make({ grantType, params }) } })
        assert.strictEqual(yield* server.get, 200)
        const [form] = server.forms()
        assert.strictEqual(form?.get("grant_type"), grantType)
        for (const [key, value] of Object.entries(params)) {
          assert.strictEqual(form?.get(key), Redacted.isRedacted(value) ? Redacted.value(value) : value)
        }
        assert.notInclude(Grant.make({ grantType, params }).key, "her-password")
      }))
  }

  for (const name of ["DocuSign", "Salesforce", "Google"]) {
    it.scoped(`${name}: an assertion that is made for every attempt`, () =>
      Effect.gen(function*() {
        let made = 0
        const server = yield* play({
          token: ({ form }) => json({ access_token: form.get("assertion"), token_type: "Bearer" }),
          options: {
            grant: Grant.jwtBearer({ key: "user", assertion: Effect.sync(() => Redacted.make(`assertion-${++made}`)) })
          }
        })
        yield* server.tokens.refresh(yield* server.tokens.get)
        assert.deepStrictEqual(server.forms().map((form) => form.get("assertion")), ["assertion-1", "assertion-2"])
      }))
  }
})
