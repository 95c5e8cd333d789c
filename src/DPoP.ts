/**
 * Access tokens that are bound to a key (RFC 9449): a stolen token is worth nothing without it. It needs `jose` 6.
 *
 * @since 0.2.0
 */
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { base64url, calculateJwkThumbprint, type CryptoKey, exportJWK, generateKeyPair, type JWK } from "jose"
import type { AccessToken } from "./AccessToken.ts"
import { boundTokenError } from "./internal/http/challenges.ts"
import type { DPoP } from "./internal/http/presentation.ts"
import { type Key, makeKeyReader } from "./internal/signing/keys.ts"
import { issue } from "./internal/options.ts"
import { randomName } from "./internal/random.ts"
import type { ConfigurationError } from "./TokenError.ts"

export type {
  /**
   * A key that tokens are bound to, for the option `dpop` of `Alf.layer`.
   *
   * @since 0.2.0
   * @category models
   */
  DPoP
} from "./internal/http/presentation.ts"

export type {
  /**
   * A private key: PKCS#8 PEM, or a JWK as JSON (RFC 7517), as a `Redacted` or an Effect that reads it.
   *
   * @since 0.2.0
   * @category models
   */
  Key
} from "./internal/signing/keys.ts"

/**
 * The algorithm of the proofs (RFC 7518 §3.1, RFC 8037).
 *
 * @since 0.2.0
 * @category models
 */
export type Algorithm = keyof typeof signatures

/** How WebCrypto names the algorithms. */
const signatures = {
  ES256: { name: "ECDSA", hash: "SHA-256" },
  ES384: { name: "ECDSA", hash: "SHA-384" },
  ES512: { name: "ECDSA", hash: "SHA-512" },
  EdDSA: { name: "Ed25519" },
  RS256: { name: "RSASSA-PKCS1-v1_5" },
  RS384: { name: "RSASSA-PKCS1-v1_5" },
  RS512: { name: "RSASSA-PKCS1-v1_5" },
  PS256: { name: "RSA-PSS", saltLength: 32 },
  PS384: { name: "RSA-PSS", saltLength: 48 },
  PS512: { name: "RSA-PSS", saltLength: 64 }
} as const

/**
 * A key that processes share, so that they share tokens too. It is read once, when the layer is built.
 *
 * A key that cannot be read or used, or an algorithm that does not fit it, is a `ConfigurationError`.
 *
 * @example
 * ```ts
 * import { Config, Redacted } from "effect"
 * import { Alf } from "effect-alf"
 * import * as DPoP from "effect-alf/DPoP"
 *
 * export const layer = Alf.layer({
 *   issuer: "https://auth.example.com",
 *   clientId: "reports",
 *   clientSecret: Redacted.make("secret"),
 *   dpop: DPoP.make({ key: Config.redacted("DPOP_KEY") }),
 *   origins: ["https://api.example.com"]
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const make = (options: {
  readonly key: Key
  /** Defaults to the JWK's own `alg`, else to the one that fits the key, which for RSA is RS256. */
  readonly algorithm?: Algorithm | undefined
}): Effect.Effect<DPoP, ConfigurationError> =>
  pipe(
    makeKeyReader(options.key, options.algorithm),
    Effect.mapError(({ description }) => issue(`dpop: ${description}`)),
    Effect.flatMap(({ algorithm, key, publicJwk }) =>
      isAlgorithm(algorithm)
        ? Effect.promise(() => fromKey({ algorithm, key, publicJwk, isEphemeral: false }))
        : Effect.fail(issue("dpop: the algorithm of the key is not one that proofs are signed with"))
    )
  )

/**
 * A key of this process, which ends with it. Each run makes another one: in a program that gives it to several layers, run
 * it once.
 *
 * With a storage that outlives the process and a grant that signs people in it is a `ConfigurationError` of `Alf.layer`:
 * the stored refresh token would be bound to a key that is gone.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { Alf } from "effect-alf"
 * import * as DPoP from "effect-alf/DPoP"
 *
 * export const layer = Alf.layer({
 *   issuer: "https://auth.example.com",
 *   clientId: "reports",
 *   clientSecret: Redacted.make("secret"),
 *   dpop: DPoP.generate(),
 *   origins: ["https://api.example.com"]
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const generate = (options: {
  /** Defaults to ES256. */
  readonly algorithm?: Algorithm | undefined
} = {}): Effect.Effect<DPoP> =>
  Effect.promise(async () => {
    const algorithm = options.algorithm ?? "ES256"
    const { privateKey, publicKey } = await generateKeyPair(algorithm)
    return fromKey({ algorithm, key: privateKey, publicJwk: await exportJWK(publicKey), isEphemeral: true })
  })

const isAlgorithm = (name: string): name is Algorithm => Object.hasOwn(signatures, name)

interface Bound {
  readonly algorithm: Algorithm
  readonly key: CryptoKey
  readonly publicJwk: JWK
  readonly isEphemeral: boolean
}

/** What is known of an origin. */
interface Origin {
  nonce: string | undefined
  /** By how many milliseconds its clock is ahead of ours; unknown until it refused a proof for it. */
  offset: number | undefined
}

/** What a request was sent with. */
interface Sent {
  readonly nonce: string | undefined
  /** By our clock, in milliseconds. */
  readonly at: number
  /** By how much the time of the proof was ahead of that. */
  readonly offset: number
}

/** More origins are not remembered: the one that was used least recently goes. */
const maxOrigins = 100

/** A longer nonce is ignored. */
const maxNonce = 1024

/** A clock that differs by less is right. */
const tolerance = 10_000

/** A clock that differs by more is not believed. */
const maxOffset = 24 * 60 * 60_000

const fromKey = async ({ algorithm, isEphemeral, key, publicJwk }: Bound): Promise<DPoP> => {
  const header = encode({ typ: "dpop+jwt", alg: algorithm, jwk: publicJwk })
  const origins = new Map<string, Origin>()
  const sents = new WeakMap<HttpClientRequest.HttpClientRequest, Sent>()
  /** By how many milliseconds the authorization server's clock is ahead of ours. */
  let serverOffset = 0
  let hashed: { readonly token: AccessToken; readonly ath: string } | undefined

  const originAt = (url: string): Origin => {
    const found = origins.get(url) ?? { nonce: undefined, offset: undefined }
    origins.delete(url)
    origins.set(url, found)
    if (origins.size > maxOrigins) {
      for (const [oldest] of origins) {
        origins.delete(oldest)
        break
      }
    }
    return found
  }

  /** The hash of a token (RFC 9449 §4.2), made once for each. */
  const hashOf = async (token: AccessToken): Promise<string> => {
    if (hashed?.token !== token) {
      const digest = await globalThis.crypto.subtle.digest("SHA-256", utf8(Redacted.value(token.value)))
      hashed = { token, ath: base64url.encode(new Uint8Array(digest)) }
    }
    return hashed.ath
  }

  const prove: DPoP["prove"] = (request, options) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.tryPromise({
        try: async () => {
          const url = new URL(request.url)
          const origin = originAt(url.origin)
          const nonce = Option.getOrUndefined(options.nonce) ?? origin.nonce
          const offset = origin.offset ?? serverOffset
          const token = Option.getOrUndefined(options.token)
          const payload = encode({
            jti: randomName(),
            htm: request.method,
            htu: url.origin + url.pathname,
            iat: Math.floor((now + offset) / 1000),
            ...(token === undefined ? {} : { ath: await hashOf(token) }),
            ...(nonce === undefined ? {} : { nonce })
          })
          const input = `${header}.${payload}`
          const signature = await globalThis.crypto.subtle.sign(signatures[algorithm], key, utf8(input))
          const proof = `${input}.${base64url.encode(new Uint8Array(signature))}`
          const proved = HttpClientRequest.setHeaders(
            request,
            token === undefined
              ? { dpop: proof }
              : { dpop: proof, authorization: `DPoP ${Redacted.value(token.value)}` }
          )
          sents.set(proved, { nonce, at: now, offset })
          return proved
        },
        catch: () => "The DPoP proof could not be signed with its key"
      }))

  const learn: DPoP["learn"] = (sent, response, error) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const { at, nonce: sentNonce, offset: sentOffset } = sents.get(sent) ?? { at: now, nonce: undefined, offset: 0 }
      const origin = originAt(new URL(sent.url).origin)
      const nonce = nonceOf(response)
      if (nonce !== undefined) origin.nonce = nonce
      const isApi = sent.headers["authorization"]?.startsWith("DPoP ") === true
      const refusal = !isApi
        ? Option.getOrUndefined(error)
        : response.status === 401
        ? boundTokenError(response)
        : undefined
      // what nearly every response of an API is
      if (isApi && refusal === undefined) return Option.none()

      const offset = offsetOf(response, at, now)
      if (!isApi && offset !== undefined) serverOffset = Math.abs(offset) > tolerance ? offset : 0

      if (refusal === "use_dpop_nonce") {
        return nonce === undefined || nonce === sentNonce ? Option.none() : Option.some({ nonce: Option.some(nonce) })
      }
      if (refusal !== "invalid_dpop_proof" || offset === undefined) return Option.none()
      if (Math.abs(offset - sentOffset) <= tolerance) return Option.none()
      origin.offset = offset
      return Option.some({ nonce: Option.none() })
    })

  return { thumbprint: await calculateJwkThumbprint(publicJwk), isEphemeral, prove, learn }
}

type Response = Pick<HttpClientResponse.HttpClientResponse, "status" | "headers">

const nonceOf = ({ headers }: Response): string | undefined => {
  const nonce = headers["dpop-nonce"]
  return nonce !== undefined && nonce.length <= maxNonce && /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(nonce)
    ? nonce
    : undefined
}

/**
 * By how many milliseconds the server's clock is ahead, at least: a response may have been under way for long, while a
 * laptop slept say. Its `Date` has whole seconds.
 */
const offsetOf = ({ headers }: Response, sentAt: number, now: number): number | undefined => {
  const date = Date.parse(headers["date"] ?? "")
  const offset = date > now ? date - now : Math.min(0, date - sentAt)
  return Number.isNaN(date) || Math.abs(offset) > maxOffset ? undefined : offset
}

const utf8 = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)

const encode = (value: unknown): string => base64url.encode(JSON.stringify(value))
