/**
 * An authorization server and an API in memory, given as an `HttpClient`: what a test puts under `Alf.layer` in place of
 * the network.
 *
 * `https://auth.test/token` is the token endpoint (RFC 6749 §3.2). Every other URL is the API: 200 for a token that was
 * issued here and is still good, else 401 with a challenge (RFC 6750 §3). Tokens are called `token-1`, `token-2` and so
 * on, and age by `Clock`, so that a test with `TestClock` decides when they end.
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { makeAuthorization } from "./internal/authorization.ts"
import { makeClients } from "./internal/clients.ts"
import { makeDevices } from "./internal/devices.ts"
import { makeFaults, malformed } from "./internal/faults.ts"
import { grant } from "./internal/grants.ts"
import { bodyText, refuse, respond } from "./internal/http.ts"
import * as Metadata from "./internal/metadata.ts"
import { makeProofs } from "./internal/proofs.ts"
import { makeTokens } from "./internal/tokens.ts"

/**
 * @since 0.1.0
 * @category constants
 */
export const tokenEndpoint = Metadata.tokenEndpoint

/**
 * The issuer, whose metadata names all endpoints (RFC 8414).
 *
 * @since 0.2.0
 * @category constants
 */
export const issuer = Metadata.issuer

/**
 * A request that the authorization server or the API got.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  readonly endpoint: "token" | "api" | "metadata" | "device" | "revocation"
  readonly method: string
  /** With its query. */
  readonly url: string
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** The body's text; a form for the token endpoint. */
  readonly body: string
  /** The status of the response; 0 if the connection broke, and as long as there is no response. */
  readonly status: number
}

/**
 * How the API responds to a request with a good token. `Response.error()` stands for a connection that broke.
 *
 * @since 0.1.0
 * @category models
 */
export type Handler = (request: Request) => Response | Effect.Effect<Response>

/**
 * The controls of the server. The faults are those of the token endpoint; the API's are up to `resource`.
 *
 * @since 0.1.0
 * @category tags
 */
export class TestAuthorizationServer
  extends Context.Tag("effect-alf/testing/TestAuthorizationServer")<TestAuthorizationServer, {
    /** How many tokens were issued. */
    readonly issued: Effect.Effect<number>
    /** All requests so far, oldest first, those to the token endpoint and those to the API. */
    readonly requests: Effect.Effect<ReadonlyArray<Request>>
    /** The API rejects every access token that was issued so far. Refresh tokens stay good. */
    readonly revokeAll: Effect.Effect<void>
    /** From now on a client has this secret and no other. */
    readonly rotateSecret: (clientId: string, secret: string) => Effect.Effect<void>
    /**
     * The next `n` token requests get this status; what was scripted before comes first. Status 0 is a connection that
     * breaks, `n` may be `Infinity`. A text is sent as it is, another body as JSON. Defaults to no body.
     */
    readonly failNext: (
      n: number,
      status: number,
      body?: unknown,
      headers?: Readonly<Record<string, string>>
    ) => Effect.Effect<void>
    /** The next `n` token requests get a success that holds no usable token. */
    readonly malformNext: (n: number, name: Malformed) => Effect.Effect<void>
    /** From now on a response of the token endpoint takes this long. Its content is decided when the request comes. */
    readonly delay: (duration: Duration.DurationInput) => Effect.Effect<void>
    /** Ends `delay` and all failures that are still to come. */
    readonly recover: Effect.Effect<void>
    /** From now on the API responds to a request with a good token like this. */
    readonly resource: (handler: Handler) => Effect.Effect<void>
    /**
     * A person signs in and says yes (RFC 6749 §4.1.2, §4.2.2): the URL that a browser was to open, whatever its host,
     * gives the URL that the browser is sent to, with a code (only with an S256 challenge) or a token in it.
     */
    readonly authorize: (url: string | URL) => Effect.Effect<URL>
    /** A person enters the code that a device shows, and says yes (RFC 8628 §3.3). */
    readonly approve: (userCode: string) => Effect.Effect<void>
    /** A person enters the code that a device shows, and says no. */
    readonly deny: (userCode: string) => Effect.Effect<void>
    /** From now on proofs need another nonce (RFC 9449 §8), if nonces are demanded. */
    readonly rotateNonce: Effect.Effect<void>
  }>()
{}

/**
 * A client; one with neither secret nor keys is public.
 *
 * @since 0.2.0
 * @category models
 */
export interface Client {
  readonly id: string
  /** For HTTP Basic, the form, and assertions by HMAC (`client_secret_jwt`). */
  readonly secret?: string | undefined
  /** The public keys of `private_key_jwt`, as JWKs. */
  readonly keys?: ReadonlyArray<object> | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The clients that may ask for tokens; one without a secret is public. Defaults to any client with any secret. */
  readonly clients?: ReadonlyArray<Client> | undefined
  /**
   * What is said of proofs of possession (RFC 9449): `"optional"` binds a token to the key of a proof if there is one,
   * `"required"` refuses requests without, `"nonces"` wants a nonce in them too. Defaults to `"optional"`.
   */
  readonly dpop?: "optional" | "required" | "nonces" | undefined
  /** The scopes that can be asked for; another one is an `invalid_scope`. Defaults to any. */
  readonly scopes?: ReadonlyArray<string> | undefined
  /** How long a token lives. With Infinity it does not expire, and responses have no `expires_in`. Defaults to 1 hour. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /**
   * Whether each token comes with a refresh token, which serves once: used twice, it ends all tokens that came of its grant
   * (RFC 9700 §4.14.2). Defaults to false.
   */
  readonly refreshTokens?: boolean | undefined
}

/**
 * The responses of `malformNext`.
 *
 * @since 0.1.0
 * @category models
 */
export type Malformed = keyof typeof malformed

/**
 * **Details**
 *
 * The token endpoint knows client credentials, refresh tokens, codes with PKCE (S256), device codes, JWT bearer and token
 * exchange, and clients that prove who they are by HTTP Basic, form-encoded or not, by form parameters, by a signed
 * assertion, or not at all. It refuses with the errors of RFC 6749 §5.2. Metadata is at the well-known URL of `issuer`,
 * device codes come from `https://auth.test/device`, and `https://auth.test/revoke` revokes (RFC 7009).
 *
 * JWT bearer takes any assertion, and token exchange any subject token: who they are about is up to the test.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<HttpClient.HttpClient | TestAuthorizationServer> =>
  Layer.effectContext(Effect.sync(() => make(options)))

const endpoints = new Map<string, Request["endpoint"]>([
  [Metadata.tokenEndpoint, "token"],
  [Metadata.deviceEndpoint, "device"],
  [Metadata.revocationEndpoint, "revocation"],
  ...Metadata.metadataUrls.map((url) => [url, "metadata"] as const)
])

const make = (options: Options): Context.Context<HttpClient.HttpClient | TestAuthorizationServer> => {
  const tokens = makeTokens({
    lifetime: Duration.toMillis(options.expiresIn ?? "1 hour"),
    hasRefreshTokens: options.refreshTokens === true,
    scopes: options.scopes
  })
  const clients = makeClients(options.clients)
  const proofs = makeProofs(options.dpop ?? "optional")
  const authorization = makeAuthorization(clients, tokens)
  const devices = makeDevices()
  const faults = makeFaults()
  const requests: Array<{ -readonly [K in keyof Request]: Request[K] }> = []
  let latency = Duration.zero
  let handler: Handler = ({ method, url }) => Response.json({ method, path: new URL(url).pathname })

  const respondToDevice = (request: Request, now: number): Effect.Effect<Response> => {
    const form = new URLSearchParams(request.body)
    return Effect.map(clients.authenticate(request, form, now), (clientId) => {
      if (typeof clientId !== "string") return clientId
      const scope = form.get("scope") ?? ""
      return tokens.knowsScope(scope) ? devices.start(clientId, scope, now) : refuse("invalid_scope")
    })
  }

  const respondToRevocation = (request: Request, now: number): Effect.Effect<Response> => {
    const form = new URLSearchParams(request.body)
    return Effect.map(clients.authenticate(request, form, now), (clientId) => {
      if (typeof clientId !== "string") return clientId
      const token = form.get("token")
      if (token === null) return refuse("invalid_request", "token is missing")
      tokens.revoke(token, clientId)
      return respond(200)
    })
  }

  const respondAsApi = (request: Request, now: number): Effect.Effect<Response> =>
    Effect.gen(function*() {
      const [, scheme = "", name = ""] = /^(Bearer|DPoP) (.+)$/i.exec(request.headers["authorization"] ?? "") ?? []
      const isBearer = scheme.toLowerCase() === "bearer"
      const token = tokens.accessToken(name, now)
      if (token !== undefined && (token.key === undefined) === isBearer) {
        const proof = isBearer ? { key: undefined } : yield* proofs.verify(request, now, name)
        if ("refusal" in proof) return proof.refusal
        if (proof.key === token.key) {
          const handled = handler(request)
          const response = Effect.isEffect(handled) ? yield* handled : handled
          if (response.type !== "error") {
            for (const [name, value] of Object.entries(proofs.headers())) response.headers.set(name, value)
          }
          return response
        }
      }
      const error = name === "" ? "" : ", error=\"invalid_token\""
      const challenge = `${scheme.toLowerCase() === "dpop" ? "DPoP" : "Bearer"} realm="api"${error}`
      return respond(401, undefined, { "www-authenticate": challenge })
    })

  const respondTo = (request: Request, now: number): Effect.Effect<Response> => {
    switch (request.endpoint) {
      case "token": {
        const fault = faults.next()
        return Effect.flatMap(
          fault === undefined
            ? grant({ authorization, clients, devices, proofs, tokens }, request, now)
            : Effect.succeed(fault),
          (response) => Effect.delay(Effect.succeed(response), latency)
        )
      }
      case "device":
        return respondToDevice(request, now)
      case "revocation":
        return respondToRevocation(request, now)
      case "metadata":
        return Effect.succeed(respond(200, Metadata.metadata))
      case "api":
        return respondAsApi(request, now)
    }
  }

  const client = HttpClient.make((request, url) =>
    Effect.gen(function*() {
      const received = {
        endpoint: endpoints.get(`${url.origin}${url.pathname}`) ?? "api",
        method: request.method,
        url: url.toString(),
        headers: { ...request.headers },
        body: yield* bodyText(request),
        status: 0
      } satisfies Request
      requests.push(received)
      const response = yield* respondTo(received, yield* Clock.currentTimeMillis)
      received.status = response.status
      return response.type === "error"
        ? yield* new HttpClientError.RequestError({ request, reason: "Transport", description: "the connection broke" })
        : HttpClientResponse.fromWeb(request, response)
    })
  )

  return Context.make(HttpClient.HttpClient, client).pipe(
    Context.add(TestAuthorizationServer, {
      issued: Effect.sync(tokens.issued),
      requests: Effect.sync(() => requests.map((request) => ({ ...request }))),
      revokeAll: Effect.sync(tokens.revokeAccessTokens),
      rotateSecret: (clientId, secret) => Effect.sync(() => clients.rotateSecret(clientId, secret)),
      failNext: (n, status, body, headers) => Effect.sync(() => faults.add(n, () => respond(status, body, headers))),
      malformNext: (n, name) => Effect.sync(() => faults.add(n, malformed[name])),
      delay: (duration) =>
        Effect.sync(() => {
          latency = Duration.decode(duration)
        }),
      recover: Effect.sync(() => {
        faults.clear()
        latency = Duration.zero
      }),
      resource: (next) =>
        Effect.sync(() => {
          handler = next
        }),
      authorize: (url) => Effect.map(Clock.currentTimeMillis, (now) => authorization.authorize(new URL(url), now)),
      approve: (userCode) => Effect.sync(() => devices.decide(userCode, "approved")),
      deny: (userCode) => Effect.sync(() => devices.decide(userCode, "denied")),
      rotateNonce: Effect.sync(proofs.rotateNonce)
    })
  )
}
