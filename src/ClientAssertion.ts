/**
 * Clients that prove who they are with a signed assertion (RFC 7523 §2.2, OpenID Connect Core §9), and signed assertions
 * for `Grant.jwtBearer`. It needs `jose` 6.
 *
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { base64url, type JWTPayload, SignJWT } from "jose"
import type { ClientAuthentication, Destination } from "./ClientAuthentication.ts"
import * as Grant from "./Grant.ts"
import { type Key, type KeyError, knownAlgorithms, makeKeyReader } from "./internal/keys.ts"
import { finiteDuration, issue } from "./internal/options.ts"
import { randomName } from "./internal/random.ts"
import { list } from "./internal/scope.ts"
import type { ConfigurationError } from "./TokenError.ts"

export type {
  /**
   * A private key: PKCS#8 PEM, or a JWK as JSON (RFC 7517). An Effect is run for every attempt, so that a rotated file or
   * vault entry needs no restart.
   *
   * @since 0.2.0
   * @category models
   */
  Key
} from "./internal/keys.ts"

/**
 * An assertion that could not be made. The description holds nothing of the key.
 *
 * @since 0.2.0
 * @category errors
 */
export class ClientAssertionError extends Data.TaggedError("ClientAssertionError")<{
  readonly description: string
}> {
  override get message(): string {
    return this.description
  }
}

/**
 * Whom an assertion is addressed to: the issuer, the token endpoint, the endpoint that is called, or a text of the server's
 * own.
 *
 * @since 0.2.0
 * @category models
 */
export type Audience = "issuer" | "tokenEndpoint" | "endpoint" | (string & {})

/**
 * @since 0.2.0
 * @category models
 */
export interface PrivateKeyJwtOptions {
  readonly key: Key
  /**
   * The algorithm of the signature (RFC 7518 §3.1): RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA.
   * Defaults to the JWK's own `alg`, else the one that fits the key, which for RSA is RS256.
   */
  readonly algorithm?: string | undefined
  /** The `kid` header. Defaults to the JWK's own. */
  readonly keyId?: string | undefined
  /** The certificate of the key as PEM, whose SHA-256 becomes the `x5t#S256` header. Defaults to none. */
  readonly certificate?: string | undefined
  /** The `aud` claim. Defaults to `"issuer"`, which has to be known: by discovery or in the metadata. */
  readonly audience?: Audience | undefined
  /** How long an assertion is good for. Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /**
   * The `typ` header; `null` for none. Defaults to `client-authentication+jwt` if the audience is the issuer, otherwise to
   * none.
   */
  readonly type?: string | null | undefined
  /** Further claims. Defaults to none. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

/** How long an assertion is good for unless the options say otherwise. */
const lifetime = Duration.minutes(1)

/**
 * A JWT that is signed with the client's private key: `private_key_jwt`.
 *
 * **Details**
 *
 * `iss` and `sub` are the client id, `aud` is one string. Each attempt has a new random `jti`, and `iat` and `exp` by the
 * clock. A key that cannot be read or used for an attempt is a `TokenRequestError` "Secret".
 *
 * What can be seen when the layer is built is a `ConfigurationError`: a key that is none, an algorithm that does not fit
 * it, an issuer that is needed and not known.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { Alf } from "effect-alf"
 * import * as ClientAssertion from "effect-alf/ClientAssertion"
 *
 * export const layer = Alf.layer({
 *   issuer: "https://login.example.com",
 *   clientId: "reports",
 *   clientAuthentication: ClientAssertion.privateKeyJwt({ key: Config.redacted("PRIVATE_KEY") }),
 *   origins: ["https://api.example.com"]
 * })
 * ```
 *
 * @since 0.2.0
 * @category methods
 */
export const privateKeyJwt = (options: PrivateKeyJwtOptions): ClientAuthentication => {
  const read = makeKeyReader(options.key, options.algorithm)
  const audience = options.audience ?? "issuer"
  return {
    method: "private_key_jwt",
    requiresSecret: false,
    issue: () => Option.none(),
    issueWithoutIssuer: withoutIssuer(audience),
    validate: Effect.gen(function*() {
      yield* validate(options)
      yield* checkAlgorithm(options.algorithm)
      if (options.certificate !== undefined) yield* Either.mapLeft(der(options.certificate), issue)
      // a key that is read for every attempt may not be there yet
      if (Redacted.isRedacted(options.key)) {
        yield* Effect.mapError(read, ({ description }) => issue(`key: ${description}`))
      }
    }),
    prove: ({ id }, at) =>
      pipe(
        Effect.flatMap(read, (key) =>
          signJwt({
            algorithm: key.algorithm,
            keyId: options.keyId ?? key.keyId,
            type: options.type === undefined ? typeFor(audience) : options.type,
            certificate: options.certificate,
            expiresIn: options.expiresIn,
            claims: options.claims,
            issuer: id,
            subject: id,
            audience: audienceAt(audience, at)
          }, key.key)),
        Effect.mapError(toAssertionError),
        Effect.map((assertion) => proof(id, assertion))
      )
  }
}

/**
 * A JWT that is authenticated with the client secret: `client_secret_jwt`.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { Alf } from "effect-alf"
 * import * as ClientAssertion from "effect-alf/ClientAssertion"
 *
 * export const layer = Alf.layer({
 *   issuer: "https://login.example.com",
 *   clientId: "reports",
 *   clientSecret: Redacted.make("a-secret-of-at-least-32-characters"),
 *   clientAuthentication: ClientAssertion.clientSecretJwt(),
 *   origins: ["https://api.example.com"]
 * })
 * ```
 *
 * @since 0.2.0
 * @category methods
 */
export const clientSecretJwt = (options: {
  /** Defaults to HS256. */
  readonly algorithm?: "HS256" | "HS384" | "HS512" | undefined
  /** The `aud` claim. Defaults to `"issuer"`, which has to be known: by discovery or in the metadata. */
  readonly audience?: Audience | undefined
  /** How long an assertion is good for. Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
} = {}): ClientAuthentication => {
  const audience = options.audience ?? "issuer"
  return {
    method: "client_secret_jwt",
    requiresSecret: true,
    issue: () => Option.none(),
    issueWithoutIssuer: withoutIssuer(audience),
    validate: validate(options),
    prove: ({ id, secret }, at) =>
      pipe(
        signJwt({
          algorithm: options.algorithm ?? "HS256",
          type: typeFor(audience),
          expiresIn: options.expiresIn,
          issuer: id,
          subject: id,
          audience: audienceAt(audience, at)
        }, new TextEncoder().encode(Option.match(secret, { onNone: () => "", onSome: Redacted.value }))),
        Effect.map((assertion) => proof(id, assertion))
      )
  }
}

/**
 * A signed assertion, for `Grant.jwtBearer`: each run signs a new one.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { Grant } from "effect-alf"
 * import * as ClientAssertion from "effect-alf/ClientAssertion"
 *
 * export const grant = Grant.jwtBearer({
 *   key: "user@example.com",
 *   assertion: ClientAssertion.sign({
 *     key: Redacted.make("-----BEGIN PRIVATE KEY-----…"),
 *     issuer: "client",
 *     subject: "user@example.com",
 *     audience: "https://login.example.com"
 *   })
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const sign = (options: {
  readonly key: Key
  /** As of `privateKeyJwt`. */
  readonly algorithm?: string | undefined
  /** The `kid` header. Defaults to the JWK's own. */
  readonly keyId?: string | undefined
  /** The `iss` claim. */
  readonly issuer: string
  /** The `sub` claim. */
  readonly subject: string
  /** The `aud` claim. */
  readonly audience: string
  /** How long the assertion is good for. Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /** Further claims. Defaults to none. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}): Effect.Effect<Redacted.Redacted, ClientAssertionError> =>
  signWith(options, makeKeyReader(options.key, options.algorithm))

const signWith = (
  options: Omit<Jwt, "algorithm" | "type" | "audience"> & { readonly audience: string },
  read: ReturnType<typeof makeKeyReader>
): Effect.Effect<Redacted.Redacted, ClientAssertionError> =>
  pipe(
    read,
    Effect.flatMap((key) =>
      signJwt({
        ...options,
        algorithm: key.algorithm,
        keyId: options.keyId ?? key.keyId,
        type: "JWT",
        audience: Option.some(options.audience)
      }, key.key)
    ),
    Effect.mapError(toAssertionError)
  )

/**
 * A Google service account, from the JSON file that Google gives: what `Alf.layer` needs beside `origins`.
 *
 * **Details**
 *
 * JSON that cannot be read is a `ConfigurationError` when the layer is built.
 *
 * @example
 * ```ts
 * import { Config, Effect, Layer } from "effect"
 * import { Alf } from "effect-alf"
 * import * as ClientAssertion from "effect-alf/ClientAssertion"
 *
 * export const layer = Layer.unwrapEffect(Effect.map(Config.redacted("GOOGLE_SERVICE_ACCOUNT"), (json) =>
 *   Alf.layer({
 *     ...ClientAssertion.googleServiceAccount(json, { scope: "https://www.googleapis.com/auth/cloud-platform" }),
 *     origins: ["https://storage.googleapis.com"]
 *   })))
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const googleServiceAccount = (
  json: Redacted.Redacted,
  options: {
    readonly scope: string | ReadonlyArray<string>
    /** The user to act for (domain-wide delegation). Defaults to the service account itself. */
    readonly subject?: string | undefined
  }
): { readonly grant: Grant.Grant; readonly tokenEndpoint: string; readonly clientId: string } => {
  const account = parseAccount(Redacted.value(json))
  if (account === undefined) {
    const unreadable = issue(
      "the service account is not the JSON that Google gives: it needs client_email, private_key and token_uri"
    )
    return {
      grant: { ...Grant.clientCredentials(), validate: Effect.fail(unreadable) },
      tokenEndpoint: "https://oauth2.googleapis.com/token",
      clientId: "unknown"
    }
  }
  const { clientId, email, key, keyId, tokenEndpoint } = account
  const scope = list(options.scope).join(" ")
  const read = makeKeyReader(key, "RS256")
  const grant = Grant.jwtBearer({
    key: JSON.stringify([email, options.subject ?? "", scope]),
    assertion: signWith({
      issuer: email,
      subject: options.subject,
      audience: tokenEndpoint,
      keyId,
      expiresIn: Duration.hours(1),
      claims: { scope }
    }, read)
  })
  return {
    grant: {
      ...grant,
      validate: Effect.zipRight(
        grant.validate ?? Effect.void,
        Effect.mapError(read, ({ description }) => issue(`private_key of the service account: ${description}`))
      )
    },
    tokenEndpoint,
    clientId
  }
}

const parseAccount = (text: string) => {
  const parsed = Option.getOrUndefined(Either.getRight(Either.try((): unknown => JSON.parse(text))))
  if (typeof parsed !== "object" || parsed === null) return undefined
  const member = (name: string): string | undefined => {
    const value: unknown = Reflect.get(parsed, name)
    return typeof value === "string" && value !== "" ? value : undefined
  }
  const [email, key, tokenEndpoint] = [member("client_email"), member("private_key"), member("token_uri")]
  return email === undefined || key === undefined || tokenEndpoint === undefined ? undefined : {
    email,
    key: Redacted.make(key),
    keyId: member("private_key_id"),
    tokenEndpoint,
    clientId: member("client_id") ?? email
  }
}

interface Jwt {
  readonly algorithm: string
  readonly keyId?: string | undefined
  readonly type: string | null
  readonly certificate?: string | undefined
  readonly issuer: string
  readonly subject?: string | undefined
  /** `None` if it cannot be known. */
  readonly audience: Option.Option<string>
  readonly expiresIn?: Duration.DurationInput | undefined
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}

type SignatureKey = Parameters<SignJWT["sign"]>[0]

const signJwt = (jwt: Jwt, key: SignatureKey): Effect.Effect<Redacted.Redacted, ClientAssertionError> =>
  Effect.gen(function*() {
    if (Option.isNone(jwt.audience)) {
      return yield* new ClientAssertionError({
        description: "the audience of the client's assertion is not known: write audience: \"tokenEndpoint\""
      })
    }
    const aud = jwt.audience.value
    const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    const seconds = Math.ceil(Duration.toSeconds(jwt.expiresIn ?? lifetime))
    const thumbprint = jwt.certificate === undefined ? undefined : yield* thumbprintOf(jwt.certificate)
    const claims: JWTPayload = {
      ...jwt.claims,
      iss: jwt.issuer,
      ...(jwt.subject === undefined ? {} : { sub: jwt.subject }),
      aud,
      iat: now,
      exp: now + seconds,
      jti: randomName()
    }
    const header = {
      alg: jwt.algorithm,
      ...(jwt.type === null ? {} : { typ: jwt.type }),
      ...(jwt.keyId === undefined ? {} : { kid: jwt.keyId }),
      ...(thumbprint === undefined ? {} : { "x5t#S256": thumbprint })
    }
    return yield* Effect.tryPromise({
      try: async () => Redacted.make(await new SignJWT(claims).setProtectedHeader(header).sign(key)),
      catch: () => new ClientAssertionError({ description: "the client's assertion could not be signed with its key" })
    })
  })

const proof = (clientId: string, assertion: Redacted.Redacted) => ({
  params: {
    client_id: clientId,
    client_assertion_type: assertionType,
    client_assertion: Redacted.value(assertion)
  }
})

const audienceAt = (audience: Audience, { endpoint, issuer, tokenEndpoint }: Destination): Option.Option<string> => {
  switch (audience) {
    case "issuer":
      return issuer
    case "tokenEndpoint":
      return Option.some(tokenEndpoint)
    case "endpoint":
      return Option.some(endpoint)
    default:
      return Option.some(audience)
  }
}

const typeFor = (audience: Audience): string | null => audience === "issuer" ? "client-authentication+jwt" : null

const withoutIssuer = (audience: Audience): string | undefined =>
  audience === "issuer"
    ? "clientAuthentication: the issuer is not known, and an assertion is addressed to it: give issuer in place of " +
      "tokenEndpoint, or write audience: \"tokenEndpoint\""
    : undefined

const validate = (
  { audience, expiresIn }: {
    readonly audience?: string | undefined
    readonly expiresIn?: Duration.DurationInput | undefined
  }
): Effect.Effect<void, ConfigurationError> =>
  Effect.gen(function*() {
    if (audience === "") return yield* issue("audience is empty: leave it out, or write whom the server expects")
    if (expiresIn !== undefined) yield* finiteDuration("expiresIn", expiresIn)
  })

const checkAlgorithm = (algorithm: string | undefined): Either.Either<void, ConfigurationError> =>
  algorithm === undefined || knownAlgorithms.includes(algorithm)
    ? Either.void
    : Either.left(issue(`algorithm is not one of ${knownAlgorithms.join(", ")}`))

const toAssertionError = (error: KeyError | ClientAssertionError): ClientAssertionError =>
  error._tag === "KeyError"
    ? new ClientAssertionError({ description: `The client's assertion could not be made: ${error.description}` })
    : error

const thumbprintOf = (certificate: string): Effect.Effect<string, ClientAssertionError> =>
  Effect.gen(function*() {
    const bytes = yield* Either.mapLeft(der(certificate), (description) => new ClientAssertionError({ description }))
    return yield* Effect.tryPromise({
      try: async () => base64url.encode(new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes))),
      catch: () => new ClientAssertionError({ description: "the thumbprint of the certificate could not be made" })
    })
  })

/** The first certificate of a PEM text. */
const der = (certificate: string): Either.Either<Uint8Array<ArrayBuffer>, string> => {
  const body = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/.exec(certificate)?.[1]
  return body === undefined
    ? Either.left("certificate is not a certificate as PEM")
    : Either.try({
      try: () => Uint8Array.from(atob(body.replace(/\s/g, "")), (character) => character.charCodeAt(0)),
      catch: () => "certificate is not a certificate as PEM"
    })
}
