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
import * as UrlParams from "@effect/platform/UrlParams"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { scopes } from "../internal/scope.ts"
import { bodyText, credentials, refuse, respond } from "./internal/http.ts"
import * as Jwt from "./internal/jwt.ts"

/**
 * @since 0.1.0
 * @category constants
 */
export const tokenEndpoint = "https://auth.test/token"

/**
 * The issuer, whose metadata names all endpoints (RFC 8414).
 *
 * @since 0.2.0
 * @category constants
 */
export const issuer = "https://auth.test"

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
  /** The status of the answer; 0 if the connection broke, and as long as there is no answer. */
  readonly status: number
}

/**
 * How the API answers a request with a good token. `Response.error()` stands for a connection that broke.
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
    /** The API refuses every access token that was issued so far. Refresh tokens stay good. */
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
    /** From now on an answer of the token endpoint takes this long. What it says is decided when the request comes. */
    readonly delay: (duration: Duration.DurationInput) => Effect.Effect<void>
    /** Ends `delay` and all failures that are still to come. */
    readonly recover: Effect.Effect<void>
    /** From now on the API answers a request with a good token like this. */
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
 * What `malformNext` can answer.
 *
 * @since 0.1.0
 * @category models
 */
export type Malformed = keyof typeof malformed

const usable = { access_token: "malformed", token_type: "Bearer", expires_in: 3600 }

const malformed = {
  html: () => respond(200, "<html><body>Please sign in to the network</body></html>"),
  empty: () => respond(200),
  truncated: () => respond(200, JSON.stringify(usable).slice(0, 30)),
  tooLong: () => respond(200, { ...usable, padding: " ".repeat(1024 * 1024) }),
  array: () => respond(200, [usable]),
  null: () => respond(200, null),
  noAccessToken: () => respond(200, { ...usable, access_token: undefined }),
  emptyAccessToken: () => respond(200, { ...usable, access_token: "" }),
  lineBreakInAccessToken: () => respond(200, { ...usable, access_token: "malformed\r\nx-injected: 1" }),
  noTokenType: () => respond(200, { ...usable, token_type: undefined }),
  macTokenType: () => respond(200, { ...usable, token_type: "mac" }),
  negativeExpiresIn: () => respond(200, { ...usable, expires_in: -1 }),
  wordInExpiresIn: () => respond(200, { ...usable, expires_in: "soon" }),
  errorInSuccess: () => respond(200, { error: "invalid_request" })
}

/** For whom, and what for, something was issued. */
/** A token, and what it was issued for: all tokens that came of one grant are a family. */
interface Issued extends Permission {
  readonly family: number
}

interface Permission {
  readonly clientId: string
  readonly scope: string
  /** The thumbprint of the key that it is bound to. */
  readonly key?: string | undefined
}

interface DeviceCode extends Permission {
  readonly userCode: string
  readonly expiresAt: number
  state: "pending" | "approved" | "denied"
  polledAt: number
}

/** How a request proves that the client has a key. */
type Proof = { readonly key: string | undefined } | { readonly refusal: Response }

interface Code extends Permission {
  readonly redirectUri: string
  readonly challenge: string
}

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

const deviceEndpoint = `${issuer}/device`
const revocationEndpoint = `${issuer}/revoke`

const metadata = {
  issuer,
  token_endpoint: tokenEndpoint,
  authorization_endpoint: `${issuer}/authorize`,
  device_authorization_endpoint: deviceEndpoint,
  revocation_endpoint: revocationEndpoint,
  code_challenge_methods_supported: ["S256"],
  token_endpoint_auth_methods_supported: [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "none"
  ],
  dpop_signing_alg_values_supported: ["ES256", "EdDSA", "RS256", "PS256"]
}

const metadataUrls = ["oauth-authorization-server", "openid-configuration"].map((name) =>
  `${issuer}/.well-known/${name}`
)

const grantTypes = {
  device: "urn:ietf:params:oauth:grant-type:device_code",
  jwtBearer: "urn:ietf:params:oauth:grant-type:jwt-bearer",
  tokenExchange: "urn:ietf:params:oauth:grant-type:token-exchange"
}

/** How long a device code is good for, and the pause between two polls, in seconds. */
const deviceLife = 600
const interval = 5

/** How far the time of a proof or an assertion may be from the server's, in milliseconds. */
const skew = 60_000

const make = (options: Options): Context.Context<HttpClient.HttpClient | TestAuthorizationServer> => {
  const expiresIn = Duration.toMillis(options.expiresIn ?? "1 hour")
  const { dpop = "optional" } = options
  const secrets = new Map(options.clients?.map(({ id, secret }) => [id, secret]))
  const keys = new Map(options.clients?.map(({ id, keys = [] }) => [id, keys]))
  const accessTokens = new Map<string, Issued & { readonly end: number }>()
  const refreshTokens = new Map<string, Issued>()
  /** The refresh tokens and codes that were used, and the family of what they were used for. */
  const spent = new Map<string, number>()
  const codes = new Map<string, Code>()
  const deviceCodes = new Map<string, DeviceCode>()
  const usedIds = new Set<string>()
  const requests: Array<{ -readonly [K in keyof Request]: Request[K] }> = []
  let faults: ReadonlyArray<{ readonly times: number; readonly answer: () => Response }> = []
  let latency = Duration.zero
  let handler: Handler = ({ method, url }) => Response.json({ method, path: new URL(url).pathname })
  let issued = 0
  let coded = 0
  let nonce = 1

  /** Ends all tokens of a family: whoever uses a refresh token or a code twice may have stolen it (RFC 9700 §4.14.2). */
  const endFamily = (family: number | undefined) => {
    for (const tokens of [accessTokens, refreshTokens]) {
      for (const [name, token] of tokens) {
        if (token.family === family) tokens.delete(name)
      }
    }
  }

  const issue = (
    { family, ...permission }: Permission & { readonly family?: number },
    now: number,
    scope = permission.scope,
    more: object = {}
  ) => {
    const id = ++issued
    const token = { ...permission, family: family ?? id }
    accessTokens.set(`token-${id}`, { ...token, end: now + expiresIn })
    if (options.refreshTokens === true) refreshTokens.set(`refresh-${id}`, token)
    return {
      access_token: `token-${id}`,
      token_type: permission.key === undefined ? "Bearer" : "DPoP",
      ...(Number.isFinite(expiresIn) ? { expires_in: Math.floor(expiresIn / 1000) } : {}),
      ...(scope === "" ? {} : { scope }),
      ...(options.refreshTokens === true ? { refresh_token: `refresh-${id}` } : {}),
      ...more
    }
  }

  const knows = (scope: string): boolean =>
    options.scopes === undefined || scopes(scope).every((one) => options.scopes?.includes(one))

  /** Something that may be used once; what has been seen before is not new. */
  const isNew = (id: unknown): boolean => {
    if (typeof id !== "string" || id === "" || usedIds.has(id)) return false
    usedIds.add(id)
    return true
  }

  const isTimely = (seconds: unknown, now: number): boolean =>
    typeof seconds === "number" && Math.abs(1000 * seconds - now) <= skew

  /** The client that an assertion proves (RFC 7523 §3): signature, audience, lifetime, and used once. */
  const assertedBy = (form: URLSearchParams, now: number): Effect.Effect<string | undefined> =>
    Effect.gen(function*() {
      const jwt = Jwt.parse(form.get("client_assertion") ?? "")
      if (jwt === undefined) return undefined
      const { aud, exp, iss, jti, sub } = jwt.payload
      const id = typeof iss === "string" ? iss : ""
      const own = [
        ...(keys.get(id) ?? []).map((key) => Object.fromEntries(Object.entries(key))),
        ...[secrets.get(id) ?? []].flat()
      ]
      const checks = yield* Effect.forEach(own, (key) => Jwt.isSignedBy(jwt, key))
      const isRight = checks.includes(true) && iss === sub && [issuer, tokenEndpoint].includes(String(aud)) &&
        typeof exp === "number" && now < 1000 * exp && form.get("client_id") === (form.has("client_id") ? id : null)
      return isRight && isNew(jti) ? id : undefined
    })

  /** The client of a request; a response if it cannot be told. */
  const clientOf = (request: Request, form: URLSearchParams, now: number): Effect.Effect<string | Response> => {
    const { authorization } = request.headers
    if (request.method !== "POST") return Effect.succeed(refuse("invalid_request", "the method is not POST"))
    if (!request.headers["content-type"]?.startsWith("application/x-www-form-urlencoded")) {
      return Effect.succeed(refuse("invalid_request", "the body is not a form"))
    }
    for (const name of new Set(form.keys())) {
      if (name !== "resource" && form.getAll(name).length > 1) {
        return Effect.succeed(refuse("invalid_request", `${name} is repeated`))
      }
    }
    const methods = [authorization !== undefined, form.has("client_secret"), form.has("client_assertion")]
    if (methods.filter(Boolean).length > 1) {
      return Effect.succeed(refuse("invalid_request", "more than one method of client authentication"))
    }
    const challenge = authorization === undefined ? {} : { "www-authenticate": "Basic realm=\"auth\"" }
    const unknown = () => respond(401, { error: "invalid_client" }, challenge)
    if (form.has("client_assertion")) return Effect.map(assertedBy(form, now), (id) => id ?? unknown())
    const isClient = ({ id, secret }: { readonly id: string; readonly secret: string | undefined }): boolean =>
      secrets.has(id)
        ? secrets.get(id) === secret && keys.get(id)?.length === (keys.has(id) ? 0 : undefined)
        : options.clients === undefined && id !== ""
    return Effect.succeed(credentials(authorization, form).find(isClient)?.id ?? unknown())
  }

  /** Checks a proof of possession (RFC 9449 §4.3). */
  const proofOf = (request: Request, now: number, token?: string): Effect.Effect<Proof> =>
    Effect.gen(function*() {
      const text = request.headers["dpop"]
      const isApi = token !== undefined
      const refusal = (error: string): Proof => ({
        refusal: isApi
          ? respond(401, undefined, { "www-authenticate": `DPoP error="${error}"`, ...nonceHeader() })
          : respond(400, { error }, nonceHeader())
      })
      if (text === undefined) return dpop === "optional" ? { key: undefined } : refusal("invalid_dpop_proof")
      const jwt = Jwt.parse(text)
      const jwk = jwt?.header["jwk"]
      if (jwt === undefined || typeof jwk !== "object" || jwk === null) return refusal("invalid_dpop_proof")
      const key = Object.fromEntries(Object.entries(jwk))
      const { ath, htm, htu, iat, jti, nonce: given } = jwt.payload
      const { origin, pathname } = new URL(request.url)
      const isRight = jwt.header["typ"] === "dpop+jwt" && (yield* Jwt.isSignedBy(jwt, key)) &&
        htm === request.method && htu === origin + pathname && isTimely(iat, now) &&
        ath === (isApi ? Jwt.hash(token) : undefined) && isNew(jti)
      if (!isRight) return refusal("invalid_dpop_proof")
      if (dpop === "nonces" && given !== `nonce-${nonce}`) return refusal("use_dpop_nonce")
      return { key: Jwt.thumbprint(key) }
    })

  const nonceHeader = (): Readonly<Record<string, string>> =>
    dpop === "nonces" ? { "dpop-nonce": `nonce-${nonce}` } : {}

  const poll = (name: string, clientId: string, now: number): DeviceCode | Response => {
    const code = deviceCodes.get(name)
    if (code?.clientId !== clientId) return refuse("invalid_grant", "the device code is not good")
    if (now >= code.expiresAt) return refuse("expired_token")
    const isEarly = now - code.polledAt < 1000 * interval
    code.polledAt = now
    if (code.state === "denied") return refuse("access_denied")
    if (code.state === "pending") return refuse(isEarly ? "slow_down" : "authorization_pending")
    deviceCodes.delete(name)
    return code
  }

  const grant = (request: Request, now: number): Effect.Effect<Response> =>
    Effect.gen(function*() {
      const form = new URLSearchParams(request.body)
      const clientId = yield* clientOf(request, form, now)
      if (typeof clientId !== "string") return clientId
      const proof = yield* proofOf(request, now)
      if ("refusal" in proof) return proof.refusal
      const { key } = proof
      const scope = form.get("scope") ?? ""
      const give = (permission: Permission & { readonly family?: number }, asked?: string, more?: object) =>
        respond(200, issue({ ...permission, key }, now, asked, more), nonceHeader())
      switch (form.get("grant_type")) {
        case null:
          return refuse("invalid_request", "grant_type is missing")
        case "client_credentials":
          return knows(scope) ? give({ clientId, scope }) : refuse("invalid_scope")
        case "refresh_token": {
          const name = form.get("refresh_token") ?? ""
          const permission = refreshTokens.get(name)
          const isGood = permission?.clientId === clientId && (permission.key === undefined || permission.key === key)
          if (spent.has(name)) endFamily(spent.get(name))
          if (permission === undefined || !isGood) return refuse("invalid_grant", "the refresh token is not good")
          const allowed = scopes(permission.scope)
          if (!scopes(scope).every((one) => allowed.includes(one))) return refuse("invalid_scope")
          refreshTokens.delete(name)
          spent.set(name, permission.family)
          return give(permission, scope === "" ? permission.scope : scope)
        }
        case "authorization_code": {
          const name = form.get("code") ?? ""
          const code = codes.get(name)
          codes.delete(name)
          if (spent.has(name)) endFamily(spent.get(name))
          const isGood = code?.clientId === clientId && code.redirectUri === form.get("redirect_uri") &&
            code.challenge === Jwt.hash(form.get("code_verifier") ?? "")
          if (!isGood) return refuse("invalid_grant", "the code is not good")
          spent.set(name, issued + 1)
          return give(code)
        }
        case grantTypes.device: {
          const code = poll(form.get("device_code") ?? "", clientId, now)
          return code instanceof Response ? code : give({ clientId, scope: code.scope })
        }
        case grantTypes.jwtBearer:
          if (!form.get("assertion")) return refuse("invalid_request", "assertion is missing")
          return knows(scope) ? give({ clientId, scope }) : refuse("invalid_scope")
        case grantTypes.tokenExchange:
          if (!form.get("subject_token") || !form.get("subject_token_type")) {
            return refuse("invalid_request", "subject_token or subject_token_type is missing")
          }
          return knows(scope)
            ? give({ clientId, scope }, undefined, {
              issued_token_type: form.get("requested_token_type") ?? "urn:ietf:params:oauth:token-type:access_token"
            })
            : refuse("invalid_scope")
        default:
          return refuse("unsupported_grant_type")
      }
    })

  const answerToken = (request: Request, now: number): Effect.Effect<Response> => {
    const [fault, ...later] = faults
    if (fault === undefined) return grant(request, now)
    faults = fault.times > 1 ? [{ ...fault, times: fault.times - 1 }, ...later] : later
    return Effect.succeed(fault.answer())
  }

  const answerDevice = (request: Request, now: number): Effect.Effect<Response> =>
    Effect.map(clientOf(request, new URLSearchParams(request.body), now), (clientId) => {
      if (typeof clientId !== "string") return clientId
      const scope = new URLSearchParams(request.body).get("scope") ?? ""
      if (!knows(scope)) return refuse("invalid_scope")
      const id = deviceCodes.size + 1
      const userCode = `CODE-${String(id).padStart(4, "0")}`
      deviceCodes.set(`device-${id}`, {
        clientId,
        scope,
        userCode,
        expiresAt: now + 1000 * deviceLife,
        state: "pending",
        polledAt: -Infinity
      })
      return respond(200, {
        device_code: `device-${id}`,
        user_code: userCode,
        verification_uri: `${issuer}/activate`,
        verification_uri_complete: `${issuer}/activate?user_code=${userCode}`,
        expires_in: deviceLife,
        interval
      })
    })

  const answerRevocation = (request: Request, now: number): Effect.Effect<Response> => {
    const form = new URLSearchParams(request.body)
    return Effect.map(clientOf(request, form, now), (clientId) => {
      if (typeof clientId !== "string") return clientId
      const token = form.get("token")
      if (token === null) return refuse("invalid_request", "token is missing")
      // a client revokes its own tokens, and with a refresh token all that came of it (RFC 7009 §2.1)
      if (accessTokens.get(token)?.clientId === clientId) accessTokens.delete(token)
      const refreshToken = refreshTokens.get(token)
      if (refreshToken?.clientId === clientId) endFamily(refreshToken.family)
      return respond(200)
    })
  }

  const answerApi = (request: Request, now: number): Effect.Effect<Response> =>
    Effect.gen(function*() {
      const [, scheme = "", name = ""] = /^(Bearer|DPoP) (.+)$/i.exec(request.headers["authorization"] ?? "") ?? []
      const token = accessTokens.get(name)
      if (token !== undefined && now < token.end && (token.key === undefined) === (scheme.toLowerCase() === "bearer")) {
        const proof = token.key === undefined ? { key: undefined } : yield* proofOf(request, now, name)
        if ("refusal" in proof) return proof.refusal
        if (proof.key === token.key) {
          const answered = handler(request)
          const response = Effect.isEffect(answered) ? yield* answered : answered
          if (dpop === "nonces" && response.type !== "error") response.headers.set("dpop-nonce", `nonce-${nonce}`)
          return response
        }
      }
      const error = name === "" ? "" : ", error=\"invalid_token\""
      const challenge = `${scheme.toLowerCase() === "dpop" ? "DPoP" : "Bearer"} realm="api"${error}`
      return respond(401, undefined, { "www-authenticate": challenge })
    })

  const authorize = (url: URL, now: number): URL => {
    const asked: Readonly<Record<string, string | undefined>> = Object.fromEntries(url.searchParams)
    const { code_challenge: challenge, redirect_uri: redirectUri = "", scope = "", state } = asked
    const permission = { clientId: asked.client_id ?? "", scope }
    const isImplicit = asked.response_type === "token"
    const consent = () => {
      if (options.clients !== undefined && !secrets.has(permission.clientId)) return { error: "unauthorized_client" }
      if (!knows(scope)) return { error: "invalid_scope" }
      if (isImplicit) return issue(permission, now)
      if (asked.response_type !== "code") return { error: "unsupported_response_type" }
      if (challenge === undefined || asked.code_challenge_method !== "S256") return { error: "invalid_request" }
      const code = `code-${++coded}`
      codes.set(code, { ...permission, redirectUri, challenge })
      return { code }
    }
    const glue = isImplicit ? "#" : redirectUri.includes("?") ? "&" : "?"
    return new URL(redirectUri + glue + UrlParams.toString(UrlParams.fromInput({ ...consent(), state })))
  }

  const endpoints = new Map<string, Request["endpoint"]>([
    [tokenEndpoint, "token"],
    [deviceEndpoint, "device"],
    [revocationEndpoint, "revocation"],
    ...metadataUrls.map((url) => [url, "metadata"] as const)
  ])

  const answer = (request: Request, now: number): Effect.Effect<Response> => {
    switch (request.endpoint) {
      case "token":
        return Effect.flatMap(answerToken(request, now), (response) => Effect.delay(Effect.succeed(response), latency))
      case "device":
        return answerDevice(request, now)
      case "revocation":
        return answerRevocation(request, now)
      case "metadata":
        return Effect.succeed(respond(200, metadata))
      case "api":
        return answerApi(request, now)
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
      const response = yield* answer(received, yield* Clock.currentTimeMillis)
      received.status = response.status
      return response.type === "error"
        ? yield* new HttpClientError.RequestError({ request, reason: "Transport", description: "the connection broke" })
        : HttpClientResponse.fromWeb(request, response)
    })
  )

  const decide = (userCode: string, state: DeviceCode["state"]) =>
    Effect.sync(() => {
      for (const code of deviceCodes.values()) if (code.userCode === userCode) code.state = state
    })

  const addFault = (times: number, answer: () => Response) =>
    Effect.sync(() => {
      if (times > 0) faults = [...faults, { times, answer }]
    })

  return Context.make(HttpClient.HttpClient, client).pipe(
    Context.add(TestAuthorizationServer, {
      issued: Effect.sync(() => issued),
      requests: Effect.sync(() => requests.map((request) => ({ ...request }))),
      revokeAll: Effect.sync(() => accessTokens.clear()),
      rotateSecret: (clientId, secret) => Effect.sync(() => void secrets.set(clientId, secret)),
      failNext: (n, status, body, headers) => addFault(n, () => respond(status, body, headers)),
      malformNext: (n, name) => addFault(n, malformed[name]),
      delay: (duration) =>
        Effect.sync(() => {
          latency = Duration.decode(duration)
        }),
      recover: Effect.sync(() => {
        faults = []
        latency = Duration.zero
      }),
      resource: (next) =>
        Effect.sync(() => {
          handler = next
        }),
      authorize: (url) => Effect.map(Clock.currentTimeMillis, (now) => authorize(new URL(url), now)),
      approve: (userCode) => decide(userCode, "approved"),
      deny: (userCode) => decide(userCode, "denied"),
      rotateNonce: Effect.sync(() => {
        nonce++
      })
    })
  )
}
