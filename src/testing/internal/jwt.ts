/** Checks signatures of JWTs by WebCrypto: assertions of clients, and proofs of possession. */
import { sha256 } from "@noble/hashes/sha2.js"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"

export type Json = Readonly<Record<string, unknown>>

export interface Jwt {
  readonly header: Json
  readonly payload: Json
  readonly signed: string
  readonly signature: Uint8Array<ArrayBuffer>
}

/** How WebCrypto imports and verifies; the curve of an elliptic key comes from the key. */
const algorithms: Readonly<
  Record<string, { readonly name: string; readonly hash: string; readonly saltLength?: number }>
> = {
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  RS384: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-384" },
  RS512: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-512" },
  PS256: { name: "RSA-PSS", hash: "SHA-256", saltLength: 32 },
  PS384: { name: "RSA-PSS", hash: "SHA-384", saltLength: 48 },
  PS512: { name: "RSA-PSS", hash: "SHA-512", saltLength: 64 },
  ES256: { name: "ECDSA", hash: "SHA-256" },
  ES384: { name: "ECDSA", hash: "SHA-384" },
  ES512: { name: "ECDSA", hash: "SHA-512" },
  EdDSA: { name: "Ed25519", hash: "" },
  Ed25519: { name: "Ed25519", hash: "" },
  HS256: { name: "HMAC", hash: "SHA-256" },
  HS384: { name: "HMAC", hash: "SHA-384" },
  HS512: { name: "HMAC", hash: "SHA-512" }
}

export const parse = (text: string): Jwt | undefined => {
  const [header = "", payload = "", signature = "", ...more] = text.split(".")
  const [head, body, bytes] = [object(header), object(payload), Encoding.decodeBase64Url(signature)]
  return head === undefined || body === undefined || Either.isLeft(bytes) || more.length > 0
    ? undefined
    : { header: head, payload: body, signed: `${header}.${payload}`, signature: Uint8Array.from(bytes.right) }
}

const object = (part: string): Json | undefined => {
  try {
    const parsed: unknown = JSON.parse(Either.getOrElse(Encoding.decodeBase64UrlString(part), () => ""))
    return typeof parsed === "object" && parsed !== null ? Object.fromEntries(Object.entries(parsed)) : undefined
  } catch {
    return undefined
  }
}

/** Whether a key made the signature: a public JWK, or a secret for HMAC. */
export const isSignedBy = ({ header, signature, signed }: Jwt, key: Json | string): Effect.Effect<boolean> => {
  const algorithm = algorithms[String(header["alg"])]
  const isSecret = typeof key === "string"
  if (algorithm === undefined || isSecret !== (algorithm.name === "HMAC")) return Effect.succeed(false)
  return Effect.promise(async () => {
    const { subtle } = globalThis.crypto
    const params = isSecret ? algorithm : { ...algorithm, namedCurve: String(key["crv"]) }
    try {
      const imported = isSecret
        ? await subtle.importKey("raw", new TextEncoder().encode(key), params, false, ["verify"])
        : await subtle.importKey("jwk", publicMembers(key), params, false, ["verify"])
      return await subtle.verify(params, imported, signature, new TextEncoder().encode(signed))
    } catch {
      return false
    }
  })
}

const publicMembers = (jwk: Json) =>
  Object.fromEntries(Object.entries(jwk).filter(([name]) => ["crv", "e", "kty", "n", "x", "y"].includes(name)))

/** The thumbprint of a public key (RFC 7638). */
export const thumbprint = (jwk: Json): string => {
  const members = publicMembers(jwk)
  const names = Object.keys(members).sort()
  return hash(JSON.stringify(Object.fromEntries(names.map((name) => [name, members[name]]))))
}

export const hash = (text: string): string => Encoding.encodeBase64Url(sha256(new TextEncoder().encode(text)))

/** Whether an id is given for the first time: a `jti` serves once. */
export const makeIsNew = () => {
  const seen = new Set<string>()
  return (id: unknown): boolean => {
    if (typeof id !== "string" || id === "" || seen.has(id)) return false
    seen.add(id)
    return true
  }
}
