/** AES-256-GCM over texts, by WebCrypto, with a ring of keys. */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { ConfigurationError } from "../../TokenError.ts"
import { issue } from "../options.ts"

export interface Seal {
  /** The text under the first key, bound to `context`: base64url of a random nonce and the ciphertext. */
  readonly close: (text: string, context: string) => Effect.Effect<string>
  /** The text again; `None` if another key or context closed it, or none did. */
  readonly open: (closed: string, context: string) => Effect.Effect<Option.Option<string>>
}

/** The nonce that AES-GCM is made for, in bytes (NIST SP 800-38D §8.2). */
const nonceLength = 12

export const makeAesGcm = (keys: ReadonlyArray<Redacted.Redacted>): Effect.Effect<Seal, ConfigurationError> =>
  Effect.gen(function*() {
    const ring = yield* Effect.forEach(keys, importKey)
    const [first] = ring
    if (first === undefined) return yield* issue("keys is empty: give at least one key")
    return {
      close: (text, context) =>
        Effect.promise(async () => {
          const nonce = crypto.getRandomValues(new Uint8Array(nonceLength))
          const closed = new Uint8Array(await crypto.subtle.encrypt(algorithm(nonce, context), first, bytes(text)))
          return Encoding.encodeBase64Url(Uint8Array.from([...nonce, ...closed]))
        }),
      open: (closed, context) =>
        Either.match(Encoding.decodeBase64Url(closed), {
          onLeft: () => Effect.succeedNone,
          onRight: (all) => {
            const parameters = algorithm(Uint8Array.from(all.subarray(0, nonceLength)), context)
            const decrypt = (key: CryptoKey) =>
              Effect.tryPromise(() =>
                crypto.subtle.decrypt(parameters, key, Uint8Array.from(all.subarray(nonceLength)))
              )
            return pipe(
              Effect.firstSuccessOf(ring.map(decrypt)),
              Effect.map((text) => new TextDecoder().decode(text)),
              Effect.option
            )
          }
        })
    }
  })

const algorithm = (iv: Uint8Array<ArrayBuffer>, context: string): AesGcmParams => ({
  name: "AES-GCM",
  iv,
  additionalData: bytes(context)
})

const bytes = (text: string) => new TextEncoder().encode(text)

const importKey = (key: Redacted.Redacted, index: number): Effect.Effect<CryptoKey, ConfigurationError> =>
  Option.match(decodeKey(Redacted.value(key)), {
    onNone: () => issue(`keys[${index}] is not 32 bytes in base64 or hex: make one with "openssl rand -base64 32"`),
    onSome: (raw) =>
      Effect.tryPromise({
        try: () => crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]),
        catch: () => issue("there is no WebCrypto here to encrypt with: a browser has it on https pages only")
      })
  })

/** Base64 in both alphabets, padded or not, and hex; a file's last line break is not part of a key. */
const decodeKey = (text: string): Option.Option<Uint8Array<ArrayBuffer>> => {
  const trimmed = text.trim()
  const decoded = /^[0-9a-f]{64}$/i.test(trimmed)
    ? Encoding.decodeHex(trimmed.toLowerCase())
    : Encoding.decodeBase64Url(trimmed.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""))
  return pipe(
    Either.getRight(decoded),
    Option.filter((raw) => raw.length === 32),
    Option.map((raw) => Uint8Array.from(raw))
  )
}
