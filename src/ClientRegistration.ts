/**
 * How a client becomes known to an authorization server that it meets for the first time: by an id that was registered
 * before, by a metadata document, or by dynamic registration (RFC 7591).
 *
 * `ProtectedResource.layer` takes the first of its registrations that the authorization server supports.
 *
 * @since 0.2.0
 */
import type * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken } from "./AccessToken.ts"
import type { Client, Metadata } from "./AuthorizationServer.ts"
import * as ClientAuthentication from "./ClientAuthentication.ts"
import { digest } from "./internal/digest.ts"
import { shownUrl } from "./internal/endpoint/discovery.ts"
import type { Members } from "./internal/endpoint/parseMembers.ts"
import { makeExecute } from "./internal/endpoint/execute.ts"
import { decodeMembers } from "./internal/endpoint/readTokenResponse.ts"
import { isLoopback } from "./internal/options.ts"
import { hardTimeout } from "./internal/timeout.ts"
import { guard } from "./internal/token/guardedStorage.ts"
import { DiscoveryError, InvalidTokenResponse, type TokenError, TokenRequestError } from "./TokenError.ts"
import { TokenStorage } from "./TokenStorage.ts"

/**
 * @since 0.2.0
 * @category models
 */
export type ClientRegistration = PreRegistered | MetadataDocument | Dynamic

/**
 * A client that the authorization server knows already.
 *
 * @since 0.2.0
 * @category models
 */
export interface PreRegistered extends Client {
  readonly _tag: "PreRegistered"
  /**
   * The issuer that the client is registered with. Defaults to the first authorization server that the client meets: it
   * is not shown to another one.
   */
  readonly issuer?: string | undefined
}

/**
 * A client whose id is the URL of a document that describes it (Client ID Metadata Document).
 *
 * @since 0.2.0
 * @category models
 */
export interface MetadataDocument {
  readonly _tag: "MetadataDocument"
  readonly url: string
  readonly clientAuthentication?: ClientAuthentication.ClientAuthentication | undefined
}

/**
 * A client that registers itself (RFC 7591).
 *
 * @since 0.2.0
 * @category models
 */
export interface Dynamic extends DynamicOptions {
  readonly _tag: "Dynamic"
}

/**
 * @since 0.2.0
 * @category models
 */
export interface DynamicOptions {
  /** The name that people see when they are asked for consent (`client_name`). */
  readonly clientName: string
  /** Where people are sent back to (`redirect_uris`). Defaults to those of the grant. */
  readonly redirectUris?: ReadonlyArray<string> | undefined
  /** The client's home page (`client_uri`). */
  readonly clientUri?: string | undefined
  /** `software_id` and `software_version` (RFC 7591 §2). */
  readonly softwareId?: string | undefined
  readonly softwareVersion?: string | undefined
  /** The token that a registration endpoint may ask for (RFC 7591 §3). Defaults to none. */
  readonly initialAccessToken?: Redacted.Redacted | undefined
}

/**
 * A client that was registered with the authorization server before.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { ClientRegistration } from "effect-alf"
 *
 * export const client = ClientRegistration.preRegistered({
 *   clientId: "reports",
 *   clientSecret: Redacted.make("secret"),
 *   issuer: "https://auth.example.com"
 * })
 * ```
 *
 * @since 0.2.0
 * @category constructors
 */
export const preRegistered = (options: Omit<PreRegistered, "_tag">): ClientRegistration => ({
  _tag: "PreRegistered",
  ...options
})

/**
 * A client that is described by a document at an https URL, which is its client id. It fits authorization servers whose
 * metadata has `client_id_metadata_document_supported`.
 *
 * @since 0.2.0
 * @category constructors
 */
export const metadataDocument = (
  url: string | URL,
  options: Pick<MetadataDocument, "clientAuthentication"> = {}
): ClientRegistration => ({ _tag: "MetadataDocument", url: String(url), ...options })

/**
 * A client that registers itself with any authorization server that has a registration endpoint.
 *
 * **Details**
 *
 * The registration is kept in the `TokenStorage`, one for each issuer, and used until the server refuses it with
 * `invalid_client`; then the client registers once more. `application_type` is `native` if every redirect URI is loopback,
 * otherwise `web`.
 *
 * @since 0.2.0
 * @category constructors
 */
export const dynamic = (options: DynamicOptions): ClientRegistration => ({ _tag: "Dynamic", ...options })

/** What a grant tells of itself to the registration endpoint. */
interface GrantMetadata {
  readonly grantTypes: ReadonlyArray<string>
  readonly signsIn: boolean
  readonly redirectUris: ReadonlyArray<string>
}

/**
 * Whether an authorization server takes a registration, judged by its metadata.
 *
 * @since 0.2.0
 * @category predicates
 */
export const fits = (registration: ClientRegistration, metadata: Metadata): boolean => {
  switch (registration._tag) {
    case "PreRegistered":
      return registration.issuer === undefined || registration.issuer === metadata.issuer
    case "MetadataDocument":
      return metadata.clientIdMetadataDocumentSupported === true
    case "Dynamic":
      return metadata.registrationEndpoint !== undefined
  }
}

/**
 * Chooses the first registration that an authorization server takes. A pre-registered one without an issuer stays with the
 * first authorization server that it was chosen for.
 *
 * @internal
 */
export const chooser = (registrations: ReadonlyArray<ClientRegistration>) => {
  const bound = new Map<ClientRegistration, string>()
  return (metadata: Metadata): Either.Either<ClientRegistration, DiscoveryError> => {
    const { issuer } = metadata
    const found = registrations.find((registration) =>
      fits(registration, metadata) && (bound.get(registration) ?? issuer) === issuer
    )
    if (found === undefined) {
      const isElsewhere = registrations.some(({ _tag }) => _tag === "PreRegistered")
      return Either.left(
        new DiscoveryError({
          url: shownUrl(issuer),
          reason: isElsewhere ? "IssuerMismatch" : "Unsupported",
          description: isElsewhere
            ? "The client is registered with another issuer than the API's authorization server: register it there"
            : "The authorization server takes none of the client registrations: give ClientRegistration.preRegistered"
        })
      )
    }
    if (found._tag === "PreRegistered") bound.set(found, issuer)
    return Either.right(found)
  }
}

/**
 * The client of a registration that needs no request; nothing for a dynamic one.
 *
 * @internal
 */
export const clientOf = (registration: ClientRegistration): Option.Option<Client> => {
  switch (registration._tag) {
    case "PreRegistered": {
      const { _tag, issuer: _, ...client } = registration
      return Option.some(client)
    }
    case "MetadataDocument": {
      const { clientAuthentication = ClientAuthentication.none, url } = registration
      return Option.some({ clientId: url, clientAuthentication })
    }
    case "Dynamic":
      return Option.none()
  }
}

/**
 * The client that a registration stands for at an authorization server. A dynamic one is taken from the storage, or
 * registered now by one of all processes that share it.
 *
 * @internal
 */
export const register = (
  registration: ClientRegistration,
  metadata: Metadata,
  grant: GrantMetadata
): Effect.Effect<Client, TokenError, HttpClient.HttpClient> =>
  registration._tag === "Dynamic"
    ? registerDynamic(registration, metadata, grant)
    : Effect.orElseFail(clientOf(registration), () => unsupported(metadata))

const registerDynamic = (
  registration: Dynamic,
  metadata: Metadata,
  grant: GrantMetadata
): Effect.Effect<Client, TokenError, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const stored = guard(yield* TokenStorage, storageKey(registration, metadata, grant))
    const find = Effect.zipWith(
      stored.get,
      Clock.currentTimeMillis,
      (found, now) => Option.flatMap(found, (record) => toClient(record, now))
    )
    const registerNow = Effect.gen(function*() {
      const members = yield* requestRegistration(registration, metadata, grant)
      const now = yield* Clock.currentTimeMillis
      const record = new AccessToken({
        value: Redacted.make("client"),
        type: registrationType,
        issuedAt: DateTime.unsafeMake(now),
        extra: Redacted.make(kept(members))
      })
      const client = toClient(record, now)
      if (Option.isNone(client)) return yield* invalid(metadata, "it has no client_id")
      yield* stored.set(record)
      return client.value
    })
    const orElse = (effect: Effect.Effect<Client, TokenError, HttpClient.HttpClient>) =>
      Effect.flatMap(find, Option.match({ onSome: Effect.succeed, onNone: () => effect }))
    return yield* orElse(stored.exclusive(orElse(registerNow)))
  })

/**
 * Forgets a dynamic registration that the server refused, unless another process has replaced it already. Nothing for
 * registrations that cannot be made anew.
 *
 * @internal
 */
export const forget = (
  registration: ClientRegistration,
  metadata: Metadata,
  grant: GrantMetadata,
  refused: Client
): Option.Option<Effect.Effect<void>> =>
  registration._tag !== "Dynamic" ? Option.none() : Option.some(Effect.gen(function*() {
    const stored = guard(yield* TokenStorage, storageKey(registration, metadata, grant))
    const found = yield* stored.get
    if (
      Option.isSome(found) && Option.exists(toClient(found.value, 0), ({ clientId }) => clientId === refused.clientId)
    ) {
      yield* stored.remove(found.value)
    }
  }))

/** Marks what the storage keeps as a registration: it is never sent as a token. */
const registrationType = "client-registration"

const storageKey = (registration: Dynamic, { issuer }: Metadata, grant: GrantMetadata): string =>
  `effect-alf:1:${
    digest(JSON.stringify([
      registrationType,
      issuer,
      registration.clientName,
      redirectUris(registration, grant),
      grant.grantTypes
    ]))
  }`

const redirectUris = (registration: Dynamic, grant: GrantMetadata): ReadonlyArray<string> =>
  registration.redirectUris ?? grant.redirectUris

const requestRegistration = (
  registration: Dynamic,
  metadata: Metadata,
  grant: GrantMetadata
): Effect.Effect<Readonly<Record<string, unknown>>, TokenError, HttpClient.HttpClient> => {
  const endpoint = metadata.registrationEndpoint
  if (endpoint === undefined) return Effect.fail(unsupported(metadata))
  const uris = redirectUris(registration, grant)
  const body = {
    client_name: registration.clientName,
    ...(registration.clientUri === undefined ? {} : { client_uri: registration.clientUri }),
    ...(registration.softwareId === undefined ? {} : { software_id: registration.softwareId }),
    ...(registration.softwareVersion === undefined ? {} : { software_version: registration.softwareVersion }),
    ...(uris.length === 0 ? {} : { redirect_uris: uris, response_types: ["code"] }),
    application_type: uris.every(isLoopbackUri) ? "native" : "web",
    grant_types: grant.signsIn ? [...grant.grantTypes, "refresh_token"] : grant.grantTypes,
    token_endpoint_auth_method: chooseMethod(metadata, grant.signsIn)
  }
  const request = pipe(
    HttpClientRequest.post(endpoint, { acceptJson: true }),
    registration.initialAccessToken === undefined
      ? (request) => request
      : HttpClientRequest.bearerToken(registration.initialAccessToken),
    HttpClientRequest.bodyUnsafeJson(body)
  )
  const at = { endpoint: shownUrl(endpoint), attempts: 1 }
  const secrets = registration.initialAccessToken === undefined ? [] : [Redacted.value(registration.initialAccessToken)]
  return Effect.flatMap(makeExecute, (execute) =>
    pipe(
      execute(request),
      Effect.mapError(({ description, isFinal }) =>
        isFinal
          ? new InvalidTokenResponse({ endpoint: at.endpoint, issue: description })
          : new TokenRequestError({ ...at, reason: "Transport", description })
      ),
      Effect.flatMap((response) => decodeMembers(response, { ...at, secrets })),
      hardTimeout(timeout, () =>
        new TokenRequestError({
          ...at,
          reason: "Timeout",
          description: "No response within 10 seconds"
        }))
    ))
}

/** Nothing else of a registration is used, or fit for the storage whatever it is. */
const kept = (
  { client_id, client_secret, client_secret_expires_at, token_endpoint_auth_method }: Members
): Members => ({
  client_id,
  client_secret,
  client_secret_expires_at,
  token_endpoint_auth_method
})

/** How long a registration may take. */
const timeout = Duration.seconds(10)

/** A person's tool keeps no secret if it need not; a service has one. */
const chooseMethod = (metadata: Metadata, signsIn: boolean): string => {
  const supported = metadata.tokenEndpointAuthMethodsSupported ?? ["client_secret_basic"]
  const preferred = signsIn
    ? ["none", "client_secret_basic", "client_secret_post"]
    : ["client_secret_basic", "client_secret_post", "none"]
  return preferred.find((method) => supported.includes(method)) ?? "client_secret_basic"
}

const isLoopbackUri = (uri: string): boolean =>
  URL.canParse(uri) && new URL(uri).protocol === "http:" && isLoopback(new URL(uri))

/** The client in a registration response (RFC 7591 §3.2.1): the method in the response wins. */
const toClient = (record: AccessToken, now: number): Option.Option<Client> => {
  const members = Redacted.value(record.extra)
  const { client_id: id, client_secret: secret, client_secret_expires_at: end, token_endpoint_auth_method: method } =
    members
  if (record.type !== registrationType || typeof id !== "string" || id === "") return Option.none()
  if (typeof end === "number" && end > 0 && 1000 * end <= now) return Option.none()
  const hasSecret = typeof secret === "string" && secret !== ""
  const clientAuthentication = !hasSecret
    ? ClientAuthentication.none
    : method === "client_secret_post"
    ? ClientAuthentication.post
    : method === "none"
    ? ClientAuthentication.none
    : ClientAuthentication.basic
  return Option.some({
    clientId: id,
    clientAuthentication,
    ...(hasSecret && clientAuthentication.requiresSecret ? { clientSecret: Redacted.make(secret) } : {})
  })
}

const unsupported = ({ issuer }: Metadata) =>
  new DiscoveryError({
    url: shownUrl(issuer),
    reason: "Unsupported",
    description: "The authorization server has no registration endpoint: use ClientRegistration.preRegistered"
  })

const invalid = ({ issuer }: Metadata, issue: string) =>
  new DiscoveryError({
    url: shownUrl(issuer),
    reason: "Invalid",
    description: `The response of the registration endpoint cannot be used: ${issue}`
  })
