/**
 * Clients that prove who they are with a signed assertion (RFC 7523 §2.2, OpenID Connect Core §9), and signed assertions
 * for `Grant.jwtBearer`. It needs `jose` 6.
 *
 * @since 0.2.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { ClientAuthentication, Destination } from "./ClientAuthentication.ts"
import * as Grant from "./Grant.ts"
import { ClientAssertionError } from "./internal/assertionError.ts"
import { finiteDuration, issue } from "./internal/options.ts"
import { list } from "./internal/scope.ts"
import { readCertificate, thumbprintFor } from "./internal/signing/certificate.ts"
import { type Jwt, signJwt } from "./internal/signing/jwt.ts"
import { type Key, type KeyError, knownAlgorithms, makeKeyReader, type SigningKey } from "./internal/signing/keys.ts"
import { parseServiceAccount } from "./internal/signing/serviceAccount.ts"
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
} from "./internal/signing/keys.ts"

export {
  /**
   * An assertion that could not be made. The description holds nothing of the key.
   *
   * @since 0.2.0
   * @category errors
   */
  ClientAssertionError
}

/**
 * The audience of an assertion: the issuer, the URL of the token endpoint, the URL of the endpoint that is called, or a text
 * that the server's documentation names.
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
  /**
   * The certificate of the key as PEM, or a chain that begins with it. Its SHA-256 becomes the `x5t#S256` header. Defaults
   * to no such header.
   */
  readonly certificate?: string | undefined
  /** The `aud` claim. Defaults to `"issuer"`, which requires the option `issuer` or `metadata`. */
  readonly audience?: Audience | undefined
  /** How long an assertion is valid. Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /**
   * The `typ` header; `null` leaves it out. Defaults to `client-authentication+jwt` if the audience is the issuer, otherwise
   * to no such header.
   */
  readonly type?: string | null | undefined
  /** Further claims. They do not replace those of the library. Defaults to none. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}

/**
 * A JWT that is signed with the client's private key: `private_key_jwt`.
 *
 * **Details**
 *
 * `iss` and `sub` are the client id, `aud` is one string. Each attempt has a new random `jti`, and `iat` and `exp` by the
 * clock. A key that cannot be read or used for an attempt is a `TokenRequestError` "Secret".
 *
 * What can be seen when the layer is built is a `ConfigurationError`: a text that is not a key, an algorithm that does not
 * fit the key, a certificate of another key, claims that are not JSON, an issuer that is needed and not known.
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
  const { audience = "issuer", certificate } = options
  const thumbprint = (key: SigningKey) =>
    certificate === undefined ? Effect.succeed(undefined) : thumbprintFor(certificate, key)
  return {
    method: "private_key_jwt",
    requiresSecret: false,
    issue: () => Option.none(),
    issueWithoutIssuer: withoutIssuer(audience),
    hint: hintFor(audience),
    validate: Effect.gen(function*() {
      yield* checkClaims(options)
      yield* checkAlgorithm(options.algorithm)
      // a key that is read for every attempt may not be there yet
      const checked: Effect.Effect<unknown, KeyError> = Redacted.isRedacted(options.key)
        ? Effect.flatMap(read, thumbprint)
        : certificate === undefined
        ? Effect.void
        : readCertificate(certificate)
      yield* Effect.mapError(checked, ({ description }) => issue(`clientAuthentication: ${description}`))
    }),
    prove: ({ id }, at) =>
      pipe(
        Effect.gen(function*() {
          const key = yield* read
          const jwt: Jwt = {
            algorithm: key.algorithm,
            keyId: options.keyId ?? key.keyId,
            type: options.type === undefined ? typeFor(audience) : options.type,
            thumbprint: yield* thumbprint(key),
            issuer: id,
            subject: id,
            audience: yield* audienceAt(audience, at),
            expiresIn: options.expiresIn,
            claims: options.claims
          }
          return yield* signJwt(jwt, key.key)
        }),
        Effect.mapBoth({ onFailure: toAssertionError, onSuccess: (assertion) => proof(id, assertion) })
      )
  }
}

/**
 * A JWT that is signed with the client secret, which is not sent itself: `client_secret_jwt`.
 *
 * **Gotchas**
 *
 * RFC 7518 §3.2 wants a secret of at least 32 bytes for HS256, 48 for HS384 and 64 for HS512. A shorter one is used as it
 * is, because the server chose it: oidc-provider and glewlwyd accept it, Okta refuses it.
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
  /** The `aud` claim. Defaults to `"issuer"`, which requires the option `issuer` or `metadata`. */
  readonly audience?: Audience | undefined
  /** How long an assertion is valid. Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
} = {}): ClientAuthentication => {
  const audience = options.audience ?? "issuer"
  return {
    method: "client_secret_jwt",
    requiresSecret: true,
    issue: () => Option.none(),
    issueWithoutIssuer: withoutIssuer(audience),
    hint: hintFor(audience),
    validate: checkClaims(options),
    prove: ({ id, secret }, at) =>
      pipe(
        Effect.gen(function*() {
          const key = Option.match(secret, { onNone: () => "", onSome: Redacted.value })
          if (key === "") return yield* new ClientAssertionError({ description: "The client secret is empty" })
          const jwt: Jwt = {
            algorithm: options.algorithm ?? "HS256",
            type: typeFor(audience),
            issuer: id,
            subject: id,
            audience: yield* audienceAt(audience, at),
            expiresIn: options.expiresIn
          }
          return yield* signJwt(jwt, new TextEncoder().encode(key))
        }),
        Effect.mapBoth({ onFailure: toAssertionError, onSuccess: (assertion) => proof(id, assertion) })
      )
  }
}

/**
 * A signed assertion for `Grant.jwtBearer`. Each run signs a new one. Options that cannot work are a `ClientAssertionError`
 * when it runs, and a `TokenRequestError` "Secret" with the same words in `Grant.jwtBearer`.
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
  /** As in `privateKeyJwt`. */
  readonly algorithm?: string | undefined
  /** The `kid` header. Defaults to the JWK's own. */
  readonly keyId?: string | undefined
  /** The `iss` claim. */
  readonly issuer: string
  /** The `sub` claim. */
  readonly subject: string
  /** The `aud` claim. */
  readonly audience: string
  /** How long the assertion is valid. Defaults to 1 minute. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /** Further claims. They do not replace those of the library. Defaults to none. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}): Effect.Effect<Redacted.Redacted, ClientAssertionError> => {
  const read = makeKeyReader(options.key, options.algorithm)
  return pipe(
    checkClaims(options),
    Effect.mapError((error) => new ClientAssertionError({ description: error.issue })),
    Effect.zipRight(signWith(options, read))
  )
}

const signWith = (
  options: Omit<Jwt, "algorithm" | "type" | "thumbprint">,
  read: Effect.Effect<SigningKey, KeyError>
): Effect.Effect<Redacted.Redacted, ClientAssertionError> =>
  pipe(
    read,
    Effect.flatMap((key) =>
      signJwt({ ...options, algorithm: key.algorithm, keyId: options.keyId ?? key.keyId, type: "JWT" }, key.key)
    ),
    Effect.mapError(toAssertionError)
  )

/**
 * A Google service account, from the JSON file that Google gives: what `Alf.layer` needs beside `origins`.
 *
 * **Details**
 *
 * JSON that cannot be read, a key in it that cannot be used and an empty scope are a `ConfigurationError` when the layer is
 * built.
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
  const account = Option.getOrUndefined(parseServiceAccount(Redacted.value(json)))
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
      validate: Effect.gen(function*() {
        if (scope === "") {
          return yield* issue("scope of the service account is empty: Google issues no token without one")
        }
        yield* checkClaims(options)
        yield* grant.validate ?? Effect.void
        yield* Effect.mapError(read, ({ description }) => issue(`private_key of the service account: ${description}`))
      })
    },
    tokenEndpoint,
    clientId
  }
}

const proof = (clientId: string, assertion: Redacted.Redacted) => ({
  params: {
    client_id: clientId,
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: Redacted.value(assertion)
  }
})

const audienceAt = (
  audience: Audience,
  { endpoint, issuer, tokenEndpoint }: Destination
): Effect.Effect<string, ClientAssertionError> => {
  if (audience === "tokenEndpoint") return Effect.succeed(tokenEndpoint)
  if (audience === "endpoint") return Effect.succeed(endpoint)
  return audience === "issuer"
    ? Effect.mapError(
      issuer,
      () => new ClientAssertionError({ description: "The issuer is not known: write audience: \"tokenEndpoint\"" })
    )
    : Effect.succeed(audience)
}

const typeFor = (audience: Audience): string | null => audience === "issuer" ? "client-authentication+jwt" : null

const withoutIssuer = (audience: Audience): string | undefined =>
  audience === "issuer"
    ? "clientAuthentication: the issuer is not known, and an assertion is addressed to it: give issuer in place of " +
      "tokenEndpoint, or write audience: \"tokenEndpoint\""
    : undefined

const hintFor = (audience: Audience): string | undefined => {
  if (audience === "issuer") {
    return "The server may know itself by its token endpoint: try audience: \"tokenEndpoint\""
  }
  return audience === "tokenEndpoint" || audience === "endpoint"
    ? "The server may know itself by its issuer: try audience: \"issuer\""
    : undefined
}

const checkClaims = (options: {
  readonly issuer?: string | undefined
  readonly subject?: string | undefined
  readonly audience?: string | undefined
  readonly expiresIn?: Duration.DurationInput | undefined
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}): Effect.Effect<void, ConfigurationError> =>
  Effect.gen(function*() {
    for (const name of ["issuer", "subject", "audience"] as const) {
      if (options[name] === "") return yield* issue(`${name} is empty: write the one that the server expects`)
    }
    if (options.expiresIn !== undefined) yield* finiteDuration("expiresIn", options.expiresIn)
    yield* Effect.try({
      try: () => JSON.stringify(options.claims),
      catch: () => issue("claims cannot be written as JSON: leave out bigints and objects that hold themselves")
    })
  })

const checkAlgorithm = (algorithm: string | undefined): Either.Either<void, ConfigurationError> =>
  algorithm === undefined || knownAlgorithms.includes(algorithm)
    ? Either.void
    : Either.left(issue(`algorithm is not one of ${knownAlgorithms.join(", ")}`))

const toAssertionError = (error: KeyError | ClientAssertionError): ClientAssertionError =>
  error._tag === "KeyError"
    ? new ClientAssertionError({ description: `The client's assertion could not be made: ${error.description}` })
    : error
