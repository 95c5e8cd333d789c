/** An authorization server and an API that demand proofs of possession (RFC 9449), and check them with `jose`. */
import { Clock, Effect } from "effect"
import { calculateJwkThumbprint, EmbeddedJWK, type JWK, jwtVerify } from "jose"
import { json, type Received, scripted } from "./scriptedClient.ts"

export interface DPoPServer {
  /** The nonce that each server demands; absent if it demands none. */
  authNonce: string | undefined
  apiNonce: string | undefined
  /** Whether the API changes its nonce with each response. */
  isRotating: boolean
  /** By how many milliseconds the servers' clocks are ahead. */
  ahead: number
  /** What the token endpoint calls its tokens. */
  tokenType: string
  /** Whether the next requests of the API are refused although their proof is right. */
  isRevoking: boolean
}

const tokenUrl = "https://auth.test/token"

/** How far a proof may be from the server's clock, in milliseconds. */
const window = 5_000

interface Payload {
  readonly htm?: unknown
  readonly htu?: unknown
  readonly jti?: unknown
  readonly ath?: unknown
  readonly nonce?: unknown
  readonly iat?: number | undefined
}

interface Proof {
  readonly payload: Payload
  readonly thumbprint: string
}

export const dpopServer = (overrides: Partial<DPoPServer> = {}) => {
  const state: DPoPServer = {
    authNonce: undefined,
    apiNonce: undefined,
    isRotating: false,
    ahead: 0,
    tokenType: "DPoP",
    isRevoking: false,
    ...overrides
  }
  /** The tokens that are good, with the thumbprint of the key that they are bound to. */
  const tokens = new Map<string, string>()
  const jtis = new Set<string>()
  const problems: Array<string> = []
  let issued = 0
  let nonces = 0

  const proofOf = (request: Received): Effect.Effect<Proof | undefined> =>
    Effect.gen(function*() {
      const now = new Date((yield* Clock.currentTimeMillis) + state.ahead)
      const proof = yield* Effect.promise(async () => {
        try {
          const { payload, protectedHeader } = await jwtVerify(request.headers["dpop"] ?? "", EmbeddedJWK, {
            typ: "dpop+jwt",
            currentDate: now
          })
          const jwk = protectedHeader.jwk as JWK
          if (jwk.d !== undefined) problems.push("a private key in a proof")
          return { payload, thumbprint: await calculateJwkThumbprint(jwk) }
        } catch {
          return undefined
        }
      })
      if (proof === undefined) return undefined
      const { payload } = proof
      const url = new URL(request.url)
      const isRight = payload.htm === request.method && payload.htu === url.origin + url.pathname &&
        typeof payload.jti === "string" && !jtis.has(payload.jti) &&
        Math.abs(1000 * (payload.iat ?? 0) - now.getTime()) <= window
      if (typeof payload.jti === "string") {
        if (jtis.has(payload.jti)) problems.push("a proof was used twice")
        jtis.add(payload.jti)
      }
      return isRight ? proof : undefined
    })

  const dateHeader = Effect.map(
    Clock.currentTimeMillis,
    (now): Record<string, string> => ({ date: new Date(now + state.ahead).toUTCString() })
  )

  const token = (request: Received) =>
    Effect.gen(function*() {
      const headers = yield* dateHeader
      if (state.authNonce !== undefined) headers["dpop-nonce"] = state.authNonce
      const proof = yield* proofOf(request)
      if (proof === undefined) {
        return json({ error: "invalid_dpop_proof", echo: request.headers["dpop"] }, { status: 400, headers })
      }
      if (proof.payload.ath !== undefined) {
        problems.push("a token request with ath")
      }
      if (state.authNonce !== undefined && proof.payload.nonce !== state.authNonce) {
        return json({ error: "use_dpop_nonce" }, { status: 400, headers })
      }
      const value = `token-${++issued}`
      tokens.set(value, proof.thumbprint)
      return json({
        access_token: value,
        token_type: state.tokenType,
        expires_in: 3600,
        refresh_token: `refresh-${issued}`
      }, {
        headers
      })
    })

  const resource = (request: Received) =>
    Effect.gen(function*() {
      const headers = yield* dateHeader
      const demanded = state.apiNonce
      if (state.isRotating) state.apiNonce = `api-nonce-${++nonces}`
      if (state.apiNonce !== undefined) headers["dpop-nonce"] = state.apiNonce
      const refuse = (error: string) =>
        new Response(`no ${request.headers["dpop"]}`, {
          status: 401,
          headers: { ...headers, "www-authenticate": `DPoP error="${error}", algs="ES256"` }
        })
      const proof = yield* proofOf(request)
      if (proof === undefined) return refuse("invalid_dpop_proof")
      const [scheme, value = ""] = (request.headers["authorization"] ?? "").split(" ")
      const hash = Buffer.from(yield* Effect.promise(() => crypto.subtle.digest("SHA-256", Buffer.from(value))))
      if (scheme !== "DPoP" || proof.payload.ath !== hash.toString("base64url")) return refuse("invalid_dpop_proof")
      if (demanded !== undefined && proof.payload.nonce !== demanded && !state.isRotating) {
        return refuse("use_dpop_nonce")
      }
      if (state.isRotating && typeof proof.payload.nonce !== "string") return refuse("use_dpop_nonce")
      return tokens.get(value) !== proof.thumbprint || state.isRevoking
        ? refuse("invalid_token")
        : json({ fine: request.body }, { headers })
    })

  const http = scripted((request) => request.url === tokenUrl ? token(request) : resource(request))
  return {
    ...http,
    state,
    problems,
    revokeAll: () => tokens.clear(),
    tokenRequests: () => http.requests.filter(({ url }) => url === tokenUrl),
    apiRequests: () => http.requests.filter(({ url }) => url !== tokenUrl)
  }
}
