/** Private keys for signatures: PKCS#8 PEM or JWK, each with the one algorithm that it signs with. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type CryptoKey, exportJWK, importJWK, importPKCS8, type JWK } from "jose"

/** A key as users give it: PKCS#8 PEM or a JWK as JSON; an Effect is run each time the key is needed. */
export type Key = Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown>

/** Why a key or its certificate cannot be used: nothing of the key is in it. */
export class KeyError extends Data.TaggedError("KeyError")<{ readonly description: string }> {}

export interface SigningKey {
  readonly algorithm: string
  readonly key: CryptoKey
  readonly keyId: string | undefined
  /** The public half. */
  readonly publicJwk: JWK
}

/** The algorithms that a kind of key signs with; the first one unless another is chosen. */
const algorithms = {
  rsa: ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
  "P-256": ["ES256"],
  "P-384": ["ES384"],
  "P-521": ["ES512"],
  Ed25519: ["EdDSA", "Ed25519"]
} as const

type Kind = keyof typeof algorithms

/** Every algorithm that a key can sign with. */
export const knownAlgorithms: ReadonlyArray<string> = Object.values(algorithms).flat()

/** One algorithm for each kind of key. */
export const defaultAlgorithms: ReadonlyArray<string> = Object.values(algorithms).map(([first]) => first)

/** The kind of a PKCS#8 key, by its object identifiers in DER (RFC 5208, RFC 5480, RFC 8410). */
const identifiers: ReadonlyArray<readonly [string, Kind]> = [
  ["06092a864886f70d010101", "rsa"],
  ["06082a8648ce3d030107", "P-256"],
  ["06052b81040022", "P-384"],
  ["06052b81040023", "P-521"],
  ["06032b6570", "Ed25519"]
]

/** Reads the key each time, and imports it again only if its text has changed. */
export const makeKeyReader = (
  key: Key,
  algorithm: string | undefined
): Effect.Effect<SigningKey, KeyError> => {
  let known: { readonly secret: Redacted.Redacted; readonly imported: SigningKey } | undefined
  const read = Redacted.isRedacted(key)
    ? Effect.succeed(key)
    : Effect.catchAllCause(key, () => new KeyError({ description: "the key could not be read" }))
  return Effect.flatMap(read, (secret) => {
    return known !== undefined && Redacted.value(known.secret) === Redacted.value(secret)
      ? Effect.succeed(known.imported)
      : Effect.tap(importKey(Redacted.value(secret), algorithm), (imported) =>
        Effect.sync(() => {
          known = { secret, imported }
        }))
  })
}

/** The first block with this label in a PEM text, whose line breaks a variable may hold as `\\n`. */
export const pemBlock = (label: string, text: string): Option.Option<string> =>
  Option.fromNullable(
    new RegExp(`-----BEGIN ${label}-----[A-Za-z0-9+/=\\s]+-----END ${label}-----`).exec(
      text.replaceAll(/(?:\\r)?\\n/g, "\n")
    )?.[0]
  )

/** The bytes of a PEM block; none if they are not base64. */
export const derOf = (block: string): Uint8Array =>
  Option.getOrElse(
    Either.getRight(Encoding.decodeBase64((block.split("-----")[2] ?? "").replace(/\s/g, ""))),
    () => new Uint8Array()
  )

export const importKey = (text: string, chosen: string | undefined): Effect.Effect<SigningKey, KeyError> =>
  Effect.gen(function*() {
    const jwk = text.trim().startsWith("{") ? yield* parseJwk(text) : undefined
    const pem = Option.getOrElse(pemBlock("PRIVATE KEY", text), () => text)
    const kind = jwk === undefined ? yield* kindOfPem(pem) : yield* kindOfJwk(jwk)
    const own = typeof jwk?.alg === "string" ? jwk.alg : undefined
    const algorithm = chosen ?? own ?? algorithms[kind][0]
    if (!algorithms[kind].some((name) => name === algorithm)) {
      return yield* new KeyError({
        description: `the algorithm does not fit the key: it signs with ${algorithms[kind].join(", ")}`
      })
    }
    const imported = yield* Effect.tryPromise({
      try: async () => {
        const key = jwk === undefined
          ? await importPKCS8(pem, algorithm, { extractable: true })
          : await importJWK({ ...jwk, ext: true }, algorithm)
        if (key instanceof Uint8Array) throw new TypeError("a symmetric key")
        return { key, ...await exportJWK(key) }
      },
      catch: () => new KeyError({ description: "the key could not be imported: is it complete?" })
    })
    const { crv, e, key, kty, n, x, y } = imported
    if (isShort(key)) {
      return yield* new KeyError({ description: "the RSA key is shorter than 2048 bits (RFC 7518 §3.3)" })
    }
    const members = Object.entries({ crv, e, kty, n, x, y }).filter(([_, member]) => member !== undefined)
    return { algorithm, key, keyId: jwk?.kid, publicJwk: Object.fromEntries(members) }
  })

const isShort = ({ algorithm }: CryptoKey): boolean =>
  "modulusLength" in algorithm && typeof algorithm.modulusLength === "number" && algorithm.modulusLength < 2048

const parseJwk = (text: string): Either.Either<JWK, KeyError> =>
  Either.try({
    try: () => JSON.parse(text) as JWK,
    catch: () => new KeyError({ description: "the key is neither PKCS#8 PEM nor a JWK as JSON" })
  })

const kindOfJwk = ({ crv, d, keys, kty }: JWK & { readonly keys?: unknown }): Either.Either<Kind, KeyError> => {
  if (kty === undefined && Array.isArray(keys)) {
    return Either.left(new KeyError({ description: "the JSON is a set of JWKs: give one key of the set" }))
  }
  if (kty !== "oct" && typeof d !== "string") {
    return Either.left(new KeyError({ description: "the JWK is a public key: the private one signs" }))
  }
  const kind = kty === "RSA" ? "rsa" : kty === "EC" || kty === "OKP" ? crv : undefined
  return isKind(kind) ? Either.right(kind) : Either.left(
    new KeyError({ description: "the JWK is neither RSA, nor EC on P-256, P-384 or P-521, nor Ed25519" })
  )
}

const isKind = (kind: string | undefined): kind is Kind => kind !== undefined && Object.hasOwn(algorithms, kind)

const kindOfPem = (pem: string): Either.Either<Kind, KeyError> => {
  const der = pem.startsWith("-----BEGIN PRIVATE KEY-----") ? derOf(pem) : new Uint8Array()
  const beginning = Encoding.encodeHex(der.subarray(0, 48))
  const found = identifiers.find(([identifier]) => beginning.includes(identifier))
  if (found !== undefined) return Either.right(found[1])
  const description = der.length > 0
    ? "the key is neither RSA, nor EC on P-256, P-384 or P-521, nor Ed25519"
    : /BEGIN (?:RSA|EC) PRIVATE KEY/.test(pem)
    ? "the key is not PKCS#8: convert it with openssl pkcs8 -topk8 -nocrypt"
    : pem.includes("BEGIN ENCRYPTED PRIVATE KEY")
    ? "the key is encrypted: decrypt it with openssl pkcs8 -in, or keep it in a vault"
    : "the key is neither PKCS#8 PEM nor a JWK as JSON"
  return Either.left(new KeyError({ description }))
}
