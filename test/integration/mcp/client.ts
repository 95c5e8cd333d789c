/**
 * The client that the conformance suite of MCP runs: `client.ts URL`. It speaks MCP, and leaves all that has to do with
 * authorization to the library.
 */
import { FetchHttpClient, type HttpClient, HttpClientRequest } from "@effect/platform"
import { Client } from "@modelcontextprotocol/sdk/client/index.js"
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js"
import { Effect, Layer, Redacted, Schema } from "effect"
import {
  AuthorizationServer,
  AuthorizedHttpClient,
  ClientRegistration,
  Grant,
  ProtectedResource,
  TokenError
} from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import * as DPoP from "effect-alf/DPoP"
import { AuthorizationCodeGrant, Browser } from "effect-alf/node"

const url = process.argv[2] ?? ""
const scenario = process.env["MCP_CONFORMANCE_SCENARIO"] ?? ""
const version = process.env["MCP_CONFORMANCE_PROTOCOL_VERSION"] ?? "2025-11-25"

const Context = Schema.parseJson(Schema.Record({ key: Schema.String, value: Schema.Unknown }))
const context = Schema.decodeUnknownSync(Context)(process.env["MCP_CONFORMANCE_CONTEXT"] ?? "{}")
const given = (name: string): string => {
  const value = context[name]
  return typeof value === "string" ? value : ""
}

/** A person who says yes to everything. */
const layerPerson = Layer.succeed(Browser.Browser, {
  open: (page) => Effect.asVoid(Effect.promise(() => fetch(page)))
})

const grantType = {
  tokenExchange: "urn:ietf:params:oauth:grant-type:token-exchange",
  idJag: "urn:ietf:params:oauth:token-type:id-jag",
  idToken: "urn:ietf:params:oauth:token-type:id_token"
}

/** The identity assertion of a company's identity provider, for the authorization server of this resource. */
const identityAssertion: Parameters<typeof Grant.jwtBearer>[0]["assertion"] = ({ issuer, resource }) =>
  Effect.gen(function*() {
    const server = yield* AuthorizationServer.make({ issuer: given("idp_issuer"), clientId: given("idp_client_id") })
    const members = yield* server.request("token", [
      ["grant_type", grantType.tokenExchange],
      ["requested_token_type", grantType.idJag],
      ["subject_token", given("idp_id_token")],
      ["subject_token_type", grantType.idToken],
      ["audience", yield* issuer],
      ["resource", yield* resource]
    ])
    return Redacted.make(String(members["access_token"]))
  }).pipe(Effect.provide(FetchHttpClient.layer))

const person: ProtectedResource.Options<Browser.Browser> = {
  resource: url,
  client: [
    ClientRegistration.metadataDocument("https://conformance-test.local/client-metadata.json"),
    ClientRegistration.dynamic({ clientName: "effect-alf" })
  ],
  grant: AuthorizationCodeGrant.make({ timeout: "10 seconds", portRange: [32_000, 32_099] })
}

const preRegistered = ClientRegistration.preRegistered({
  clientId: given("client_id"),
  ...(given("client_secret") === "" ? {} : { clientSecret: Redacted.make(given("client_secret")) }),
  ...(given("issuer") === "" ? {} : { issuer: given("issuer") })
})

const optionsOf = (): ProtectedResource.Options<Browser.Browser> => {
  switch (scenario) {
    case "auth/pre-registration":
      return { ...person, client: preRegistered }
    case "auth/client-credentials-basic":
      return { resource: url, client: preRegistered }
    case "auth/client-credentials-jwt":
      return {
        resource: url,
        client: ClientRegistration.preRegistered({
          clientId: given("client_id"),
          clientAuthentication: ClientAssertion.privateKeyJwt({
            key: Redacted.make(given("private_key_pem")),
            algorithm: given("signing_algorithm")
          })
        })
      }
    case "auth/enterprise-managed-authorization":
      return {
        resource: url,
        client: preRegistered,
        grant: Grant.jwtBearer({ key: "person", assertion: identityAssertion })
      }
    case "auth/wif-jwt-bearer":
      return {
        resource: url,
        client: preRegistered,
        grant: Grant.jwtBearer({ key: "workload", assertion: Effect.succeed(Redacted.make(given("valid_jwt"))) })
      }
    case "auth/dpop":
    case "auth/dpop-nonce":
      return { ...person, dpop: DPoP.generate() }
    default:
      return person
  }
}

/** Through the official SDK, which is given a `fetch`. */
const speakStateful = Effect.gen(function*() {
  const fetch = yield* AuthorizedHttpClient.toFetch
  yield* Effect.tryPromise(async () => {
    const client = new Client({ name: "effect-alf", version: "0.2.0" }, { capabilities: {} })
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch }))
    const { tools } = await client.listTools()
    for (const { name } of tools) await client.callTool({ name, arguments: {} })
    await client.close()
  })
})

const Response = Schema.Struct({ result: Schema.optional(Schema.Struct({ tools: Schema.optional(Schema.Unknown) })) })

/** Without a session: each request says who asks. */
const speakStateless = Effect.gen(function*() {
  const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
  let id = 0
  const call = (method: string, params: Readonly<Record<string, unknown>>) =>
    Effect.gen(function*() {
      const response = yield* client.execute(
        HttpClientRequest.post(url).pipe(
          HttpClientRequest.setHeaders({
            accept: "application/json, text/event-stream",
            "mcp-protocol-version": version,
            "mcp-method": method,
            ...(typeof params["name"] === "string" ? { "mcp-name": params["name"] } : {})
          }),
          HttpClientRequest.bodyUnsafeJson({
            jsonrpc: "2.0",
            id: ++id,
            method,
            params: {
              ...params,
              _meta: {
                "io.modelcontextprotocol/protocolVersion": version,
                "io.modelcontextprotocol/clientInfo": { name: "effect-alf", version: "0.2.0" },
                "io.modelcontextprotocol/clientCapabilities": {}
              }
            }
          })
        )
      )
      const text = yield* response.text
      const data = text.split("\n").find((line) => line.startsWith("data:"))?.slice(5) ?? text
      return yield* Schema.decodeUnknown(Schema.parseJson(Response))(data)
    })
  const { result } = yield* call("tools/list", {})
  const tools = yield* Schema.decodeUnknown(Schema.Array(Schema.Struct({ name: Schema.String })))(result?.tools ?? [])
  for (const { name } of tools) yield* call("tools/call", { name, arguments: {} })
})

/** The typed error behind what a library below made of it. */
const typedError = (error: unknown): unknown =>
  TokenError.isTokenError(error) || !(error instanceof Error) || error.cause === undefined
    ? error
    : typedError(error.cause)

const program: Effect.Effect<void, unknown, AuthorizedHttpClient.AuthorizedHttpClient | HttpClient.HttpClient> =
  version <= "2025-11-25" ? speakStateful : speakStateless

program.pipe(
  Effect.provide(ProtectedResource.layer(optionsOf()).pipe(Layer.provide([FetchHttpClient.layer, layerPerson]))),
  Effect.catchAll((error) =>
    Effect.sync(() => {
      const typed = typedError(error)
      const reason = typeof typed === "object" && typed !== null && "reason" in typed ? String(typed.reason) : ""
      const tag = typeof typed === "object" && typed !== null && "_tag" in typed ? String(typed._tag) : "Error"
      process.stdout.write(`ended in ${tag} ${reason}\n${String(typed)}\n`)
      process.exitCode = 1
    })
  ),
  Effect.runPromise
)
