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
import type * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as UrlParams from "@effect/platform/UrlParams"
import { sha256 } from "@noble/hashes/sha2.js"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { scopes } from "../internal/scope.ts"

/**
 * @since 0.1.0
 * @category constants
 */
export const tokenEndpoint = "https://auth.test/token"

/**
 * A request that the token endpoint or the API got.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  readonly endpoint: "token" | "api"
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
  }>()
{}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** The clients that may ask for tokens; one without a secret is public. Defaults to any client with any secret. */
  readonly clients?: ReadonlyArray<{ readonly id: string; readonly secret?: string | undefined }> | undefined
  /** The scopes that can be asked for; another one is an `invalid_scope`. Defaults to any. */
  readonly scopes?: ReadonlyArray<string> | undefined
  /** How long a token lives. With Infinity it does not expire, and responses have no `expires_in`. Defaults to 1 hour. */
  readonly expiresIn?: Duration.DurationInput | undefined
  /** Whether each token comes with a refresh token, which serves once (RFC 9700 §4.14.2). Defaults to false. */
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
  html: () => answer(200, "<html><body>Please sign in to the network</body></html>"),
  empty: () => answer(200),
  truncated: () => answer(200, JSON.stringify(usable).slice(0, 30)),
  tooLong: () => answer(200, { ...usable, padding: " ".repeat(1024 * 1024) }),
  array: () => answer(200, [usable]),
  null: () => answer(200, null),
  noAccessToken: () => answer(200, { ...usable, access_token: undefined }),
  emptyAccessToken: () => answer(200, { ...usable, access_token: "" }),
  lineBreakInAccessToken: () => answer(200, { ...usable, access_token: "malformed\r\nx-injected: 1" }),
  noTokenType: () => answer(200, { ...usable, token_type: undefined }),
  macTokenType: () => answer(200, { ...usable, token_type: "mac" }),
  negativeExpiresIn: () => answer(200, { ...usable, expires_in: -1 }),
  wordInExpiresIn: () => answer(200, { ...usable, expires_in: "soon" }),
  errorInSuccess: () => answer(200, { error: "invalid_request" })
}

/** For whom, and what for, something was issued. */
interface Permission {
  readonly clientId: string
  readonly scope: string
}

interface Code extends Permission {
  readonly redirectUri: string
  readonly challenge: string
}

/**
 * **Details**
 *
 * The token endpoint knows client credentials, refresh tokens and codes with PKCE (S256), and clients that prove who they
 * are by HTTP Basic, form-encoded or not, by form parameters, or not at all. It refuses with the errors of RFC 6749 §5.2.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<HttpClient.HttpClient | TestAuthorizationServer> =>
  Layer.effectContext(Effect.sync(() => make(options)))

const make = (options: Options): Context.Context<HttpClient.HttpClient | TestAuthorizationServer> => {
  const expiresIn = Duration.toMillis(options.expiresIn ?? "1 hour")
  const secrets = new Map(options.clients?.map(({ id, secret }) => [id, secret]))
  /** When each ends. */
  const accessTokens = new Map<string, number>()
  const refreshTokens = new Map<string, Permission>()
  const codes = new Map<string, Code>()
  const requests: Array<{ -readonly [K in keyof Request]: Request[K] }> = []
  let faults: ReadonlyArray<{ readonly times: number; readonly answer: () => Response }> = []
  let latency = Duration.zero
  let handler: Handler = ({ method, url }) => Response.json({ method, path: new URL(url).pathname })
  let issued = 0
  let coded = 0

  const issue = (permission: Permission, now: number, scope = permission.scope) => {
    const id = ++issued
    accessTokens.set(`token-${id}`, now + expiresIn)
    if (options.refreshTokens === true) refreshTokens.set(`refresh-${id}`, permission)
    return {
      access_token: `token-${id}`,
      token_type: "Bearer",
      ...(Number.isFinite(expiresIn) ? { expires_in: Math.floor(expiresIn / 1000) } : {}),
      ...(scope === "" ? {} : { scope }),
      ...(options.refreshTokens === true ? { refresh_token: `refresh-${id}` } : {})
    }
  }

  const isClient = ({ id, secret }: Credentials): boolean =>
    secrets.has(id) ? secrets.get(id) === secret : options.clients === undefined && id !== ""

  const knows = (scope: string): boolean =>
    options.scopes === undefined || scopes(scope).every((one) => options.scopes?.includes(one))

  const grant = (request: Request, now: number): Response => {
    const form = new URLSearchParams(request.body)
    const { authorization } = request.headers
    if (request.method !== "POST") return refuse("invalid_request", "the method is not POST")
    if (!request.headers["content-type"]?.startsWith("application/x-www-form-urlencoded")) {
      return refuse("invalid_request", "the body is not a form")
    }
    for (const name of new Set(form.keys())) {
      if (name !== "resource" && form.getAll(name).length > 1) return refuse("invalid_request", `${name} is repeated`)
    }
    if (authorization !== undefined && form.has("client_secret")) {
      return refuse("invalid_request", "more than one method of client authentication")
    }
    const client = credentials(authorization, form).find(isClient)
    if (client === undefined) {
      const challenge = authorization === undefined ? {} : { "www-authenticate": "Basic realm=\"auth\"" }
      return answer(401, { error: "invalid_client" }, challenge)
    }

    const scope = form.get("scope") ?? ""
    switch (form.get("grant_type")) {
      case null:
        return refuse("invalid_request", "grant_type is missing")
      case "client_credentials":
        return knows(scope) ? answer(200, issue({ clientId: client.id, scope }, now)) : refuse("invalid_scope")
      case "refresh_token": {
        const name = form.get("refresh_token") ?? ""
        const permission = refreshTokens.get(name)
        if (permission?.clientId !== client.id) return refuse("invalid_grant", "the refresh token is not good")
        const allowed = scopes(permission.scope)
        if (!scopes(scope).every((one) => allowed.includes(one))) return refuse("invalid_scope")
        refreshTokens.delete(name)
        return answer(200, issue(permission, now, scope === "" ? permission.scope : scope))
      }
      case "authorization_code": {
        const name = form.get("code") ?? ""
        const code = codes.get(name)
        codes.delete(name)
        const isGood = code?.clientId === client.id && code.redirectUri === form.get("redirect_uri") &&
          code.challenge === s256(form.get("code_verifier") ?? "")
        return isGood ? answer(200, issue(code, now)) : refuse("invalid_grant", "the code is not good")
      }
      default:
        return refuse("unsupported_grant_type")
    }
  }

  const answerToken = (request: Request, now: number): Response => {
    const [fault, ...later] = faults
    if (fault === undefined) return grant(request, now)
    faults = fault.times > 1 ? [{ ...fault, times: fault.times - 1 }, ...later] : later
    return fault.answer()
  }

  const answerApi = (request: Request, now: number): Effect.Effect<Response> => {
    const token = /^Bearer (.+)$/i.exec(request.headers["authorization"] ?? "")?.[1]
    if (token !== undefined && now < (accessTokens.get(token) ?? -Infinity)) {
      const answered = handler(request)
      return Effect.isEffect(answered) ? answered : Effect.succeed(answered)
    }
    const error = token === undefined ? "" : ", error=\"invalid_token\""
    return Effect.succeed(answer(401, undefined, { "www-authenticate": `Bearer realm="api"${error}` }))
  }

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

  const client = HttpClient.make((request, url) =>
    Effect.gen(function*() {
      const endpoint = `${url.origin}${url.pathname}` === tokenEndpoint ? "token" : "api"
      const received = {
        endpoint,
        method: request.method,
        url: url.toString(),
        headers: { ...request.headers },
        body: yield* bodyText(request),
        status: 0
      } satisfies Request
      requests.push(received)
      const now = yield* Clock.currentTimeMillis
      const response = yield* endpoint === "api"
        ? answerApi(received, now)
        : Effect.delay(Effect.succeed(answerToken(received, now)), latency)
      received.status = response.status
      return response.type === "error"
        ? yield* new HttpClientError.RequestError({ request, reason: "Transport", description: "the connection broke" })
        : HttpClientResponse.fromWeb(request, response)
    })
  )

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
      failNext: (n, status, body, headers) => addFault(n, () => answer(status, body, headers)),
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
      authorize: (url) => Effect.map(Clock.currentTimeMillis, (now) => authorize(new URL(url), now))
    })
  )
}

interface Credentials {
  readonly id: string
  readonly secret: string | undefined
}

/** Who the client says it is (RFC 6749 §2.3): Basic can be read in two ways, form-encoded and as it is. */
const credentials = (authorization: string | undefined, form: URLSearchParams): ReadonlyArray<Credentials> => {
  if (authorization === undefined) {
    return [{ id: form.get("client_id") ?? "", secret: form.get("client_secret") ?? undefined }]
  }
  const encoded = /^Basic (.+)$/i.exec(authorization)?.[1] ?? ""
  const [, id, secret] = /^([^:]*):(.*)$/s.exec(Either.getOrElse(Encoding.decodeBase64String(encoded), () => "")) ?? []
  if (id === undefined || secret === undefined) return []
  // unlike decodeURIComponent, it takes a lone % as it is
  const decode = (text: string) => new URLSearchParams(`=${text.replaceAll("&", "%26")}`).get("") ?? ""
  return [{ id: decode(id), secret: decode(secret) }, { id, secret }]
}

const s256 = (verifier: string): string => Encoding.encodeBase64Url(sha256(new TextEncoder().encode(verifier)))

const answer = (status: number, body?: unknown, headers?: Readonly<Record<string, string>>): Response => {
  if (status === 0) return Response.error()
  const isJson = body !== undefined && typeof body !== "string"
  return new Response(isJson ? JSON.stringify(body) : body ?? null, {
    status,
    headers: { "cache-control": "no-store", ...(isJson ? { "content-type": "application/json" } : {}), ...headers }
  })
}

/** An error of RFC 6749 §5.2. */
const refuse = (error: string, description?: string): Response =>
  answer(400, { error, ...(description === undefined ? {} : { error_description: description }) })

const bodyText = (
  request: HttpClientRequest.HttpClientRequest
): Effect.Effect<string, HttpClientError.RequestError> =>
  Effect.mapError(
    read(request.body),
    (cause) => new HttpClientError.RequestError({ request, reason: "Encode", cause })
  )

const read = (body: HttpBody.HttpBody): Effect.Effect<string, unknown> => {
  switch (body._tag) {
    case "Empty":
      return Effect.succeed("")
    case "Uint8Array":
      return Effect.sync(() => new TextDecoder().decode(body.body))
    case "FormData":
      return Effect.tryPromise(() => new Response(body.formData).text())
    case "Stream":
      return Stream.mkString(Stream.decodeText(body.stream))
    case "Raw":
      // whatever the platform's own client takes
      return Effect.tryPromise(() => new Response(body.body as BodyInit).text())
  }
}
