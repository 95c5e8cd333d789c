/** The table in docs/providers.md: each row's options build a layer. */
import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Alf, ClientAuthentication, Grant } from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import * as DPoP from "effect-alf/DPoP"
import { generateKeyPairSync } from "node:crypto"
import { readFileSync } from "node:fs"

const page = readFileSync(new URL("../../../docs/providers.md", import.meta.url), "utf8")
const rows = page.split("\n").flatMap((line) => /^\| (?!provider|-)([^|]+?) +\|/.exec(line)?.[1] ?? [])

const { privateKey } = generateKeyPairSync("rsa", {
  modulusLength: 2048,
  privateKeyEncoding: { format: "pem", type: "pkcs8" },
  publicKeyEncoding: { format: "pem", type: "spki" }
})

const client = {
  clientId: "client",
  clientSecret: Redacted.make("a-secret"),
  origins: ["https://api.provider.test"]
}
const tokenEndpoint = "https://auth.provider.test/token"
const by = (more: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>): Alf.Options => ({
  ...client,
  tokenEndpoint,
  ...more
})
const discovered = (
  issuer: string,
  more: Partial<Extract<Alf.Options, { readonly issuer: string }>> = {}
): Alf.Options => ({
  ...client,
  issuer,
  ...more
})
const assertion = Grant.jwtBearer({
  key: "user",
  assertion: ClientAssertion.sign({
    key: Redacted.make(privateKey),
    issuer: "client",
    subject: "user",
    audience: tokenEndpoint
  })
})
const post = by({ clientAuthentication: ClientAuthentication.post })
const basicRaw = by({ clientAuthentication: ClientAuthentication.basicRaw })
const forbidden = by({ isRejected: ({ status }) => status === 401 || status === 403 })
const asJson = by({ tokenRequestFormat: "json" })

const options: Readonly<Record<string, Alf.Options>> = {
  "Entra ID": discovered("https://login.microsoftonline.com/tenant/v2.0", {
    scope: "https://graph.microsoft.com/.default"
  }),
  "Entra ID, all tenants": discovered("https://login.microsoftonline.com/common/v2.0", {
    expectedIssuer: "https://login.microsoftonline.com/{tenantid}/v2.0"
  }),
  "Google service account": {
    ...ClientAssertion.googleServiceAccount(
      Redacted.make(JSON.stringify({ client_email: "a@b", private_key: privateKey, token_uri: tokenEndpoint })),
      { scope: "https://www.googleapis.com/auth/cloud-platform" }
    ),
    origins: ["https://storage.googleapis.com"]
  },
  "Okta": discovered("https://company.okta.com/oauth2/default", {
    clientAuthentication: ClientAssertion.privateKeyJwt({ key: Redacted.make(privateKey) })
  }),
  "Auth0": discovered("https://tenant.auth0.com/", { audience: "https://api.provider.test" }),
  "Amazon Cognito": discovered("https://cognito-idp.eu-west-1.amazonaws.com/pool", { scope: "api/read" }),
  "Keycloak": discovered("https://keycloak.provider.test/realms/realm"),
  "GitHub": by({ grant: Grant.refreshTokenOnly({ initial: Redacted.make("ghr_token") }) }),
  "Slack": by({}),
  "LinkedIn": post,
  "HubSpot": post,
  "Strava": post,
  "FedEx": post,
  "eBay": by({}),
  "PayPal": by({}),
  "Snowflake": by({}),
  "Xero": by({ grant: Grant.refreshTokenOnly({ initial: Redacted.make("refresh-token") }) }),
  "SAP XSUAA": basicRaw,
  "Cloud Foundry UAA": basicRaw,
  "Salesforce": by({ grant: assertion }),
  "DocuSign": by({ grant: assertion }),
  "Zoom": by({ grant: Grant.make({ grantType: "account_credentials", params: { account_id: "account" } }) }),
  "Zoho": by({ header: { scheme: "Zoho-oauthtoken" } }),
  "Amazon SP-API": by({
    header: { name: "x-amz-access-token" },
    isRejected: ({ status }) => status === 401 || status === 403
  }),
  "Shopify": by({ header: { name: "X-Shopify-Access-Token" } }),
  "BigCommerce": by({ header: { name: "X-Auth-Token" } }),
  "Databricks": forbidden,
  "Microsoft Graph": forbidden,
  "Atlassian": forbidden,
  "Notion": asJson,
  "Vanta": asJson,
  "Personio v1": asJson,
  "Mailchimp": by({ mapTokenResponse: (members) => members }),
  "Square": by({ mapTokenResponse: (members) => members }),
  "Twitch": by({}),
  "Bluesky": by({ dpop: DPoP.generate() })
}

describe("docs/providers.md", () => {
  it("has thirty providers and more, each with options here", () => {
    assert.isAtLeast(rows.length, 30)
    assert.deepStrictEqual([...rows].sort(), Object.keys(options).sort())
  })

  it("says of each provider what was seen, in lines of at most 100 characters", () => {
    for (const line of page.split("\n").filter((line) => line.startsWith("|"))) {
      assert.isAtMost(line.length, 100)
      assert.match(line, /^\|[^|]+\|[^|]+\| \S[^|]*\|$/)
    }
  })

  for (const [name, found] of Object.entries(options)) {
    it.scoped(`${name}: the options build a layer`, () =>
      Effect.provideService(
        Layer.build(Alf.layer(found)),
        HttpClient.HttpClient,
        HttpClient.make(() => Effect.dieMessage("nothing is asked when a layer is built"))
      ))
  }
})
