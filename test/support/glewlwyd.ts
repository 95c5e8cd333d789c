/** Glewlwyd, an authorization server in C: it shares no code with the one that the other tests use. */
import { Undici } from "@effect/platform-node"
import { Effect, type Scope } from "effect"
import { spawnSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Certificate } from "./certificates.ts"
import { server } from "./servers.ts"

export interface Client {
  readonly id: string
  readonly method: string
  readonly secret?: string | undefined
  /** The public keys, as JWKs. */
  readonly keys?: ReadonlyArray<object> | undefined
  /** The name in its certificate. */
  readonly name?: string | undefined
}

/** Debian's package leaves the tables and their first rows here. */
const tables = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"

/** The server's certificate, and the PEM of the authority that has to sign those of clients. */
export interface Tls {
  readonly certificate: Certificate
  readonly authority: string
}

/** A server that gives the scope `reports` to these clients; its issuer. */
export const glewlwyd = (clients: ReadonlyArray<Client>, tls?: Tls): Effect.Effect<
  { readonly issuer: string },
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const dispatcher = yield* Effect.acquireRelease(
      Effect.sync(() => new Undici.Agent({ connect: tls === undefined ? {} : { ca: tls.authority } })),
      (agent) => Effect.promise(() => agent.destroy())
    )
    const call = async (url: string, body: object, cookie = "") => {
      const response = await Undici.fetch(url, {
        dispatcher,
        method: "POST",
        headers: { "content-type": "application/json", cookie },
        body: JSON.stringify(body)
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`Glewlwyd: ${response.status} ${url} ${text}`)
      return response
    }
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-alf-glewlwyd-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    const filled = spawnSync("sqlite3", [`${folder}/database`], { input: readFileSync(tables) })
    if (filled.status !== 0) return yield* Effect.dieMessage(`sqlite3: ${filled.stderr}`)
    const { port } = yield* server((port) => {
      writeFileSync(`${folder}/settings`, settings(port, folder, tls))
      return ["glewlwyd", "-c", `${folder}/settings`]
    })
    const api = `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}/api`
    const issuer = `${api}/oidc`
    yield* Effect.promise(async () => {
      const login = await call(`${api}/auth/`, { username: "admin", password: "password" })
      const cookie = login.headers.getSetCookie().map((cookie) => cookie.split(";")[0]).join("; ")
      await call(`${api}/scope/`, { name: "reports", display_name: "Reports", password_required: false }, cookie)
      await call(`${api}/mod/plugin/`, plugin(issuer), cookie)
      for (const { id, keys, method, name, secret } of clients) {
        await call(`${api}/client/`, {
          client_id: id,
          name: id,
          enabled: true,
          confidential: true,
          authorization_type: ["client_credentials"],
          scope: ["reports"],
          token_endpoint_auth_method: [method],
          ...(secret === undefined ? {} : { client_secret: secret }),
          ...(keys === undefined ? {} : { jwks: { keys } }),
          ...(name === undefined ? {} : { tls_client_auth_san_dns: name })
        }, cookie)
      }
    })
    return { issuer }
  })

const plugin = (issuer: string) => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  return {
    module: "oidc",
    name: "oidc",
    display_name: "OpenID Connect",
    enabled: true,
    parameters: {
      "iss": issuer,
      "jwt-type": "ecdsa",
      "jwt-key-size": "256",
      "key": privateKey.export({ type: "pkcs8", format: "pem" }),
      "cert": publicKey.export({ type: "spki", format: "pem" }),
      "access-token-duration": 600,
      "refresh-token-duration": 600,
      "code-duration": 600,
      "allow-non-oidc": true,
      "auth-type-client-enabled": true,
      "auth-type-code-enabled": false,
      "auth-type-password-enabled": false,
      "auth-type-refresh-enabled": false,
      "auth-type-token-enabled": false,
      "request-maximum-exp": 600,
      "request-parameter-allow": true,
      "client-cert-source": "TLS",
      "client-cert-use-endpoint-aliases": true,
      "client-jwks-parameter": "jwks",
      "client-jwks_uri-parameter": "jwks_uri",
      "client-pubkey-parameter": "pubkey"
    }
  }
}

const settings = (port: number, folder: string, tls: Tls | undefined): string => {
  if (tls !== undefined) {
    writeFileSync(`${folder}/key`, tls.certificate.key)
    writeFileSync(`${folder}/certificate`, tls.certificate.certificate)
    writeFileSync(`${folder}/authority`, tls.authority)
  }
  return `port=${port}
bind_address="127.0.0.1"
use_secure_connection=${tls !== undefined}
secure_connection_key_file="${folder}/key"
secure_connection_pem_file="${folder}/certificate"
secure_connection_ca_file="${folder}/authority"
external_url="${tls === undefined ? "http" : "https"}://127.0.0.1:${port}"
api_prefix="api"
log_mode="console"
log_level="ERROR"
cookie_domain=""
session_key="session"
admin_scope="g_admin"
profile_scope="g_profile"
login_api_enabled=true
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database={ type="sqlite3" path="${folder}/database" };
`
}
