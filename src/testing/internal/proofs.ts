/** Proofs of possession at the test server (RFC 9449). */
import * as Effect from "effect/Effect"
import { type Received, respond } from "./http.ts"
import * as Jwt from "./jwt.ts"

/** How far the time of a proof may be from the server's, in milliseconds. */
const skew = 60_000

/** The thumbprint of the key that a request proves to have, or the response that refuses the request. */
export type Proof = { readonly key: string | undefined } | { readonly refusal: Response }

export type Proofs = ReturnType<typeof makeProofs>

export const makeProofs = (mode: "optional" | "required" | "nonces") => {
  const isNew = Jwt.makeIsNew()
  let nonce = 1

  /** Tells the client which nonce to use (RFC 9449 §8.2). */
  const headers = (): Readonly<Record<string, string>> => mode === "nonces" ? { "dpop-nonce": `nonce-${nonce}` } : {}

  const isTimely = (seconds: unknown, now: number): boolean =>
    typeof seconds === "number" && Math.abs(1000 * seconds - now) <= skew

  return {
    headers,

    /** Checks the proof of a request (RFC 9449 §4.3); the API's requests have an access token. */
    verify: (request: Received, now: number, accessToken?: string): Effect.Effect<Proof> =>
      Effect.gen(function*() {
        const text = request.headers["dpop"]
        const refusal = (error: string): Proof => ({
          refusal: accessToken === undefined
            ? respond(400, { error }, headers())
            : respond(401, undefined, { "www-authenticate": `DPoP error="${error}"`, ...headers() })
        })
        if (text === undefined) return mode === "optional" ? { key: undefined } : refusal("invalid_dpop_proof")
        const jwt = Jwt.parse(text)
        const jwk = jwt?.header["jwk"]
        if (jwt === undefined || typeof jwk !== "object" || jwk === null) return refusal("invalid_dpop_proof")
        const key = Object.fromEntries(Object.entries(jwk))
        const { ath, htm, htu, iat, jti, nonce: given } = jwt.payload
        const { origin, pathname } = new URL(request.url)
        const isRight = jwt.header["typ"] === "dpop+jwt" && (yield* Jwt.isSignedBy(jwt, key)) &&
          htm === request.method && htu === origin + pathname && isTimely(iat, now) &&
          ath === (accessToken === undefined ? undefined : Jwt.hash(accessToken)) && isNew(jti)
        if (!isRight) return refusal("invalid_dpop_proof")
        if (mode === "nonces" && given !== `nonce-${nonce}`) return refusal("use_dpop_nonce")
        return { key: Jwt.thumbprint(key) }
      }),

    rotateNonce: (): void => {
      nonce++
    }
  }
}
