/** Checks proofs of possession (RFC 9449 §4.3), by nothing that the library uses. */
import { createHash, createPublicKey, verify } from "node:crypto"

export interface ProvedRequest {
  readonly method: string
  readonly url: string
  readonly headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
}

export interface Proof {
  readonly thumbprint: string
  readonly jti: string
  /** In seconds. */
  readonly iat: number
}

/** The token that a request has in `Authorization: DPoP …`. */
export const boundTokenOf = ({ headers }: Pick<ProvedRequest, "headers">): string | undefined =>
  /^DPoP (.*)$/.exec(String(headers["authorization"]))?.[1]

/** The proof of a request, by ES256; throws if it is not for this request and this token. Whether it is new is not seen. */
export const proofOf = ({ headers, method, url }: ProvedRequest, token: string | undefined): Proof => {
  const [header = "", payload = "", signature = ""] = String(headers["dpop"]).split(".")
  const { alg, jwk, typ } = JSON.parse(Buffer.from(header, "base64url").toString())
  const { ath, htm, htu, iat, jti } = JSON.parse(Buffer.from(payload, "base64url").toString())
  const key = { key: createPublicKey({ format: "jwk", key: jwk }), dsaEncoding: "ieee-p1363" } as const
  const isSigned = verify("sha256", Buffer.from(`${header}.${payload}`), key, Buffer.from(signature, "base64url"))
  const { origin, pathname } = new URL(url)
  const mistakes = Object.entries({
    typ: typ !== "dpop+jwt",
    alg: alg !== "ES256",
    jwk: "d" in jwk,
    signature: !isSigned,
    htm: htm !== method,
    htu: htu !== origin + pathname,
    jti: typeof jti !== "string" || jti === "",
    iat: typeof iat !== "number",
    ath: ath !== (token === undefined ? undefined : sha256(token))
  }).flatMap(([member, isWrong]) => isWrong ? [member] : [])
  if (mistakes.length > 0) throw new Error(`${method} ${url}: wrong in the proof: ${mistakes.join(", ")}`)
  const { crv, kty, x, y } = jwk
  return { thumbprint: sha256(JSON.stringify({ crv, kty, x, y })), jti, iat }
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("base64url")
