/** X.509 certificates as PEM: which key they are for, and their thumbprint. */
import * as Effect from "effect/Effect"
import { base64url, exportJWK, importX509, type JWK } from "jose"
import { defaultAlgorithms, derOf, KeyError, pemBlock, type SigningKey } from "./keys.ts"

export interface Certificate {
  readonly publicJwk: JWK
  /** The value of `x5t#S256` (RFC 7515 §4.1.8). */
  readonly thumbprint: string
}

/** The first certificate of a PEM text: in a chain it is the one of the key. */
export const readCertificate = (text: string): Effect.Effect<Certificate, KeyError> =>
  Effect.gen(function*() {
    const pem = yield* Effect.mapError(
      pemBlock("CERTIFICATE", text),
      () => new KeyError({ description: "the certificate is not PEM" })
    )
    // only an import for the right kind of key succeeds
    const publicKey = yield* Effect.firstSuccessOf(
      defaultAlgorithms.map((algorithm) => Effect.tryPromise(() => importX509(pem, algorithm, { extractable: true })))
    ).pipe(
      Effect.mapError(() => new KeyError({ description: "the certificate is not one of an RSA, EC or Ed25519 key" }))
    )
    return yield* Effect.tryPromise({
      try: async () => {
        const digest = await globalThis.crypto.subtle.digest("SHA-256", Uint8Array.from(derOf(pem)))
        return { publicJwk: await exportJWK(publicKey), thumbprint: base64url.encode(new Uint8Array(digest)) }
      },
      catch: () => new KeyError({ description: "the thumbprint of the certificate could not be made" })
    })
  })

/** The thumbprint for the header of what the key signs. */
export const thumbprintFor = (text: string, key: SigningKey): Effect.Effect<string, KeyError> =>
  Effect.flatMap(
    readCertificate(text),
    ({ publicJwk, thumbprint }) =>
      (["kty", "crv", "n", "e", "x", "y"] as const).every((member) => publicJwk[member] === key.publicJwk[member])
        ? Effect.succeed(thumbprint)
        : new KeyError({ description: "the certificate belongs to another key" })
  )
