/** Other clients, each set up as its own documentation tells. They are installed by benchmark/package.json. */
import { writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"

const require = createRequire(import.meta.url)
const version = (name) => {
  const path = require.resolve.paths(name).map((folder) => join(folder, name, "package.json"))
  for (const candidate of path) {
    try {
      return require(candidate).version
    } catch {
      continue
    }
  }
  return "?"
}

const fetchStatus = async (response) => {
  await response.arrayBuffer()
  return response.status
}
const bareFetch = (url) => async () => fetchStatus(await fetch(url, { headers: { authorization: "Bearer fixed" } }))

const openidClient = async ({ api, tokenEndpoint }) => {
  const client = await import("openid-client")
  const config = new client.Configuration(
    { issuer: "http://127.0.0.1", token_endpoint: tokenEndpoint },
    "id",
    "secret",
    client.ClientSecretBasic("secret")
  )
  client.allowInsecureRequests(config)
  let tokens
  return {
    request: async () => {
      if (tokens === undefined || (tokens.expiresIn() ?? 0) <= 0) tokens = await client.clientCredentialsGrant(config)
      return fetchStatus(await client.fetchProtectedResource(config, tokens.access_token, new URL(api), "GET"))
    },
    bare: bareFetch(api)
  }
}

const badgateway = async ({ api, tokenEndpoint }) => {
  const { OAuth2Client, OAuth2Fetch } = await import("@badgateway/oauth2-client")
  const client = new OAuth2Client({ tokenEndpoint, clientId: "id", clientSecret: "secret" })
  const wrapper = new OAuth2Fetch({ client, getNewToken: () => client.clientCredentials(), scheduleRefresh: false })
  return { request: async () => fetchStatus(await wrapper.fetch(api)), bare: bareFetch(api) }
}

/** Its documentation ends at the token; the interceptor around it is the usual one. */
const axiosOauthClient = async ({ api, tokenEndpoint }) => {
  const { default: axios } = await import("axios")
  const { clientCredentials } = await import("axios-oauth-client")
  const http = await import("node:http")
  const httpAgent = new http.Agent({ keepAlive: true })
  const getToken = clientCredentials(axios.create({ httpAgent }), tokenEndpoint, "id", "secret")
  const bare = axios.create({ httpAgent, validateStatus: () => true, headers: { authorization: "Bearer fixed" } })
  const client = axios.create({ httpAgent, validateStatus: () => true })
  let token
  let flight
  const current = async () => {
    if (token !== undefined && token.until > Date.now()) return token.value
    flight ??= getToken()
      .then((answer) => {
        token = { value: answer.access_token, until: Date.now() + answer.expires_in * 1000 }
      })
      .finally(() => {
        flight = undefined
      })
    await flight
    return token.value
  }
  client.interceptors.request.use(async (config) => {
    config.headers.authorization = `Bearer ${await current()}`
    return config
  })
  client.interceptors.response.use(async (response) => {
    if (response.status !== 401 || response.config.isReplay) return response
    if (response.config.headers.authorization === `Bearer ${token?.value}`) token = undefined
    return client.request({ ...response.config, isReplay: true })
  })
  return { request: async () => (await client.get(api)).status, bare: async () => (await bare.get(api)).status }
}

const simpleOauth2 = async ({ api, tokenEndpoint }) => {
  const { ClientCredentials } = await import("simple-oauth2")
  const url = new URL(tokenEndpoint)
  const client = new ClientCredentials({
    client: { id: "id", secret: "secret" },
    auth: { tokenHost: url.origin, tokenPath: url.pathname }
  })
  let token
  return {
    request: async () => {
      if (token === undefined || token.expired()) token = await client.getToken({})
      return fetchStatus(await fetch(api, { headers: { authorization: `Bearer ${token.token.access_token}` } }))
    },
    bare: bareFetch(api)
  }
}

const googleExternalAccount = async ({ api, tokenEndpoint }) => {
  const { IdentityPoolClient } = await import("google-auth-library")
  const file = join(tmpdir(), `effect-alf-benchmark-${process.pid}`)
  writeFileSync(file, "subject")
  const client = new IdentityPoolClient({
    type: "external_account",
    audience: "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider",
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    token_url: tokenEndpoint,
    credential_source: { file },
    forceRefreshOnFailure: true
  })
  return {
    request: async () => (await client.request({ url: api, validateStatus: (status) => status !== 401 })
      .catch((error) => ({ status: error.status ?? error.response?.status ?? 0 }))).status,
    bare: bareFetch(api)
  }
}

/**
 * Microsoft's libraries want https and its metadata: a client below them is shown `https://login.test`, and sends to the
 * benchmark's server.
 */
const authority = "https://login.test"
const authorityMetadata = {
  issuer: `${authority}/tenant/v2.0`,
  authorization_endpoint: `${authority}/authorize`,
  token_endpoint: `${authority}/token`,
  jwks_uri: `${authority}/keys`
}

const azureIdentity = async ({ api, tokenEndpoint }) => {
  const azure = await import("@azure/core-rest-pipeline")
  const { ClientSecretCredential } = await import("@azure/identity")
  const http = azure.createDefaultHttpClient()
  const authorityClient = {
    sendRequest: async (request) => {
      const isToken = request.url.startsWith(authorityMetadata.token_endpoint)
      if (!isToken) {
        return {
          request,
          status: 200,
          headers: azure.createHttpHeaders({ "content-type": "application/json" }),
          bodyAsText: JSON.stringify(authorityMetadata)
        }
      }
      request.url = tokenEndpoint
      request.allowInsecureConnection = true
      return http.sendRequest(request)
    }
  }
  const credential = new ClientSecretCredential("tenant", "id", "secret", {
    authorityHost: authority,
    disableInstanceDiscovery: true,
    httpClient: authorityClient
  })
  const send = async (pipeline, headers) => {
    const request = azure.createPipelineRequest({ url: api, allowInsecureConnection: true })
    for (const [name, value] of Object.entries(headers)) request.headers.set(name, value)
    return (await pipeline.sendRequest(http, request)).status
  }
  const bare = azure.createEmptyPipeline()
  const pipeline = azure.createEmptyPipeline()
  // the policy refuses plain http, which the benchmark's servers speak: it is shown an https URL
  const policy = azure.bearerTokenAuthenticationPolicy({ credential, scopes: ["api/.default"] })
  pipeline.addPolicy({
    name: policy.name,
    sendRequest: (request, next) => {
      const { url } = request
      request.url = url.replace("http:", "https:")
      return policy.sendRequest(request, (request) => {
        request.url = url
        return next(request)
      })
    }
  })
  return { request: () => send(pipeline, {}), bare: () => send(bare, { authorization: "Bearer fixed" }) }
}

/** Its documentation ends at the token too, of which it has a cache. */
const msal = async ({ api, tokenEndpoint }) => {
  const { ConfidentialClientApplication } = await import("@azure/msal-node")
  const client = new ConfidentialClientApplication({
    auth: {
      clientId: "id",
      clientSecret: "secret",
      authority: `${authority}/tenant`,
      knownAuthorities: [new URL(authority).host],
      cloudDiscoveryMetadata: JSON.stringify({ tenant_discovery_endpoint: authority, metadata: [] }),
      authorityMetadata: JSON.stringify(authorityMetadata)
    },
    system: {
      networkClient: {
        sendGetRequestAsync: async () => ({ status: 200, headers: {}, body: authorityMetadata }),
        sendPostRequestAsync: async (_, { body, headers }) => {
          const response = await fetch(tokenEndpoint, { method: "POST", body, headers })
          return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.json() }
        }
      }
    }
  })
  return {
    request: async () => {
      const { accessToken } = await client.acquireTokenByClientCredential({ scopes: ["api/.default"] })
      return fetchStatus(await fetch(api, { headers: { authorization: `Bearer ${accessToken}` } }))
    },
    bare: bareFetch(api)
  }
}

const mcpSdk = async ({ api }) => {
  const { withOAuth } = await import("@modelcontextprotocol/sdk/client/middleware.js")
  const { ClientCredentialsProvider } = await import("@modelcontextprotocol/sdk/client/auth-extensions.js")
  const provider = new ClientCredentialsProvider({
    clientId: "id",
    clientSecret: "secret",
    expectedIssuer: new URL(api).origin
  })
  const send = withOAuth(provider, new URL(api).origin)(fetch)
  // it throws on a 401 that is left
  return { request: async () => fetchStatus(await send(api).catch(() => new Response("", { status: 401 }))), bare: bareFetch(api) }
}

/** Both make proofs only: the token is fixed. */
const oauth4webapiProofs = async ({ api }) => {
  const oauth = await import("oauth4webapi")
  const handle = oauth.DPoP({ client_id: "id" }, await oauth.generateKeyPair("ES256"))
  return {
    request: async () =>
      fetchStatus(
        await oauth.protectedResourceRequest("fixed", "GET", new URL(api), undefined, undefined, {
          DPoP: handle,
          [oauth.allowInsecureRequests]: true
        })
      ),
    bare: bareFetch(api)
  }
}

const dpopProofs = async ({ api }) => {
  const dpop = await import("dpop")
  const keys = await dpop.generateKeyPair("ES256")
  return {
    request: async () =>
      fetchStatus(
        await fetch(api, {
          headers: { authorization: "DPoP fixed", dpop: await dpop.generateProof(keys, api, "GET", undefined, "fixed") }
        })
      ),
    bare: bareFetch(api)
  }
}

const withVersion = (peer) => ({ ...peer, version: version(peer.package) })

export const peers = [
  { name: "openid-client, cache from its docs", package: "openid-client", make: openidClient },
  { name: "@badgateway/oauth2-client", package: "@badgateway/oauth2-client", make: badgateway },
  { name: "axios-oauth-client + axios", package: "axios-oauth-client", make: axiosOauthClient },
  { name: "simple-oauth2", package: "simple-oauth2", make: simpleOauth2 },
  { name: "google external account client", package: "google-auth-library", make: googleExternalAccount },
  { name: "@azure/identity, bearer policy", package: "@azure/identity", make: azureIdentity },
  { name: "MSAL, its cache", package: "@azure/msal-node", make: msal },
  { name: "MCP SDK, withOAuth", package: "@modelcontextprotocol/sdk", make: mcpSdk }
].map(withVersion)

export const proofs = [
  { name: "oauth4webapi", package: "oauth4webapi", make: oauth4webapiProofs },
  { name: "dpop", package: "dpop", make: dpopProofs }
].map(withVersion)
