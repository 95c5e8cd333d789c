/** The URLs of the test server, and the metadata that names them (RFC 8414 §2). */

export const issuer = "https://auth.test"
export const tokenEndpoint = "https://auth.test/token"
export const deviceEndpoint = "https://auth.test/device"
export const revocationEndpoint = "https://auth.test/revoke"

export const metadataUrls: ReadonlyArray<string> = [
  `${issuer}/.well-known/oauth-authorization-server`,
  `${issuer}/.well-known/openid-configuration`
]

export const metadata = {
  issuer,
  token_endpoint: tokenEndpoint,
  authorization_endpoint: `${issuer}/authorize`,
  device_authorization_endpoint: deviceEndpoint,
  revocation_endpoint: revocationEndpoint,
  code_challenge_methods_supported: ["S256"],
  token_endpoint_auth_methods_supported: [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none"
  ],
  dpop_signing_alg_values_supported: ["ES256", "EdDSA", "RS256", "PS256"]
}
