/**
 * How a client proves who it is at the token endpoint (RFC 6749 §2.3).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { ClientAssertionError } from "./internal/assertionError.ts"
import type { ConfigurationError } from "./TokenError.ts"

/**
 * Who the client is.
 *
 * @since 0.1.0
 * @category models
 */
export interface Client {
  readonly id: string
  readonly secret: Option.Option<Redacted.Redacted>
}

/**
 * What goes on a token request to prove who the client is. **It holds the secret**: it is made for one attempt and goes
 * onto the wire at once.
 *
 * @since 0.1.0
 * @category models
 */
export interface Proof {
  /** The value of the `Authorization` header. */
  readonly authorization?: string | undefined
  /** Form parameters. */
  readonly params?: Readonly<Record<string, string>> | undefined
}

/**
 * A method of client authentication.
 *
 * @since 0.1.0
 * @category models
 */
export interface ClientAuthentication {
  /** Its name, as registered for `token_endpoint_auth_method` (RFC 7591 §2); part of the storage key. */
  readonly method: string
  readonly requiresSecret: boolean
  /** Why this client cannot use the method, if it cannot. */
  readonly issue: (clientId: string) => Option.Option<string>
  /** The proof for one attempt; a failure becomes a `TokenRequestError` "Secret". */
  readonly prove: (client: Client, at: Destination) => Effect.Effect<Proof, unknown>
  /** What to do where the issuer is not known, if the method needs it. Defaults to nothing. */
  readonly issueWithoutIssuer?: string | undefined
  /** What to try if the server refuses the client: the `hint` of the error. Defaults to none. */
  readonly hint?: string | undefined
  /** Checks the method's own options when a layer is built. Defaults to no check. */
  readonly validate?: Effect.Effect<void, ConfigurationError> | undefined
}

/**
 * Where a proof goes to.
 *
 * @since 0.2.0
 * @category models
 */
export interface Destination {
  /** The URL of the endpoint that is called. */
  readonly endpoint: string
  readonly tokenEndpoint: string
  /** The authorization server's issuer identifier, where it is known. */
  readonly issuer: Option.Option<string>
}

const secretOf = (client: Client): string =>
  Option.match(client.secret, { onNone: () => "", onSome: (secret) => Redacted.value(secret) })

const basicCredentials = (id: string, secret: string): Proof => ({
  authorization: `Basic ${Encoding.encodeBase64(`${id}:${secret}`)}`
})

const formEncode = (text: string): string => new URLSearchParams({ "": text }).toString().slice(1)

/**
 * HTTP Basic with id and secret form-encoded first (RFC 6749 §2.3.1 and Appendix B). The default.
 *
 * @since 0.1.0
 * @category methods
 */
export const basic: ClientAuthentication = {
  method: "client_secret_basic",
  requiresSecret: true,
  issue: () => Option.none(),
  prove: (client) => Effect.succeed(basicCredentials(formEncode(client.id), formEncode(secretOf(client))))
}

/**
 * HTTP Basic with id and secret as they are, for servers that do not decode them.
 *
 * A client id with a colon cannot be sent this way (RFC 7617 §2).
 *
 * @since 0.1.0
 * @category methods
 */
export const basicRaw: ClientAuthentication = {
  method: "client_secret_basic_raw",
  requiresSecret: true,
  issue: (clientId) =>
    clientId.includes(":")
      ? Option.some("a client id with a colon cannot be sent by ClientAuthentication.basicRaw; use basic or post")
      : Option.none(),
  prove: (client) => Effect.succeed(basicCredentials(client.id, secretOf(client)))
}

/**
 * Id and secret as form parameters (RFC 6749 §2.3.1).
 *
 * @since 0.1.0
 * @category methods
 */
export const post: ClientAuthentication = {
  method: "client_secret_post",
  requiresSecret: true,
  issue: () => Option.none(),
  prove: (client) => Effect.succeed({ params: { client_id: client.id, client_secret: secretOf(client) } })
}

/**
 * A public client: the id alone, as a form parameter (RFC 6749 §3.2.1). The default where there is no secret.
 *
 * @since 0.1.0
 * @category methods
 */
export const none: ClientAuthentication = {
  method: "none",
  requiresSecret: false,
  issue: () => Option.none(),
  prove: (client) => Effect.succeed({ params: { client_id: client.id } })
}

/**
 * A signed assertion from elsewhere (RFC 7523 §2.2): a file that Kubernetes swaps, the token service of GitHub Actions, a
 * SPIFFE agent. It is read for every attempt, and white space around it is taken off. For assertions that the client signs
 * itself there is `effect-alf/ClientAssertion`.
 *
 * @example
 * ```ts
 * import { FileSystem } from "@effect/platform"
 * import { ClientAuthentication } from "effect-alf"
 * import { Effect, Redacted } from "effect"
 *
 * export const make = Effect.map(FileSystem.FileSystem, (fs) =>
 *   ClientAuthentication.assertion(
 *     Effect.map(fs.readFileString("/var/run/secrets/tokens/client"), Redacted.make)
 *   ))
 * ```
 *
 * @since 0.2.0
 * @category methods
 */
export const assertion = (
  read: Effect.Effect<Redacted.Redacted, unknown>,
  options: {
    /** The `client_assertion_type`. Defaults to `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`. */
    readonly type?: string | undefined
  } = {}
): ClientAuthentication => ({
  method: "assertion",
  requiresSecret: false,
  issue: () => Option.none(),
  prove: (client) =>
    Effect.gen(function*() {
      const value = yield* Effect.mapBoth(read, {
        onFailure: () => new ClientAssertionError({ description: "The client's assertion could not be read" }),
        onSuccess: (assertion) => Redacted.value(assertion).trim()
      })
      if (value === "") return yield* new ClientAssertionError({ description: "The client's assertion is empty" })
      return {
        params: {
          client_id: client.id,
          client_assertion_type: options.type ?? "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
          client_assertion: value
        }
      }
    })
})

/**
 * A client certificate (RFC 8705 §2): the form names the client id only, and the certificate belongs to the `HttpClient`
 * below. The endpoints of `mtls_endpoint_aliases` are used where the metadata lists them.
 *
 * @example
 * ```ts
 * import { NodeHttpClient } from "@effect/platform-node"
 * import { Alf, ClientAuthentication } from "effect-alf"
 * import { Layer } from "effect"
 *
 * export const authorized = (certificate: { readonly cert: string; readonly key: string }) =>
 *   Alf.layer({
 *     issuer: "https://login.example.com",
 *     clientId: "reports",
 *     clientAuthentication: ClientAuthentication.tls,
 *     origins: ["https://api.example.com"]
 *   }).pipe(
 *     Layer.provide(NodeHttpClient.layerWithoutAgent),
 *     Layer.provide(NodeHttpClient.makeAgentLayer(certificate))
 *   )
 * ```
 *
 * @since 0.2.0
 * @category methods
 */
export const tls: ClientAuthentication = {
  method: "tls_client_auth",
  requiresSecret: false,
  hint: "The server may not know the client's certificate: does the HttpClient below send it?",
  issue: () => Option.none(),
  prove: (client) => Effect.succeed({ params: { client_id: client.id } })
}
