import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpMiddleware from "@effect/platform/HttpMiddleware"
import type { ServeError } from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type { Socket } from "node:net"
import { AuthorizationError, type TokenError } from "../../TokenError.ts"
import * as Page from "./page.ts"

/** The parameters of an authorization response (RFC 6749 §4.1.2, §4.2.2), each of them once. */
export type AuthorizationResponse = Readonly<Record<string, string | undefined>>

export type RedirectHost = "127.0.0.1" | "::1" | "localhost"

export interface Listener {
  readonly host: RedirectHost
  readonly path: string
  readonly firstPort: number
  readonly lastPort: number
  /** Where the response is in the redirect URI. */
  readonly part: "query" | "fragment"
  /** Takes a response, and gives the page to show in the browser. */
  readonly receive: (response: AuthorizationResponse, redirectUri: string) => Effect.Effect<Page.Page>
}

/** A browser may take either address for `localhost`, so both have to be ours. */
const addresses = (host: RedirectHost): readonly [string, ...ReadonlyArray<string>] =>
  host === "localhost" ? ["127.0.0.1", "::1"] : [host]

export const redirectUriAt = (host: RedirectHost, port: number, path: string): string =>
  `http://${host === "::1" ? "[::1]" : host}:${port}${path}`

/** No more of a body is read than this, in bytes: as of the token endpoint's response. */
const maxBody = 1024 * 1024

/**
 * Listens on the first free port of the range while `use` runs. Every redirect must have its page by the time `use`
 * ends: the listener is closed when the last page has been delivered.
 */
export const withListener = <A, R>(
  listener: Listener,
  use: (redirectUri: string) => Effect.Effect<A, TokenError, R>
): Effect.Effect<A, TokenError, R> => {
  const from = (port: number): Effect.Effect<A, TokenError, R> => {
    if (port > listener.lastPort) {
      return Effect.fail(
        new AuthorizationError({
          reason: "NoPort",
          errorDescription: `no port from ${listener.firstPort} to ${listener.lastPort} is free on ${listener.host}`
        })
      )
    }
    const redirectUri = redirectUriAt(listener.host, port, listener.path)
    return pipe(
      Effect.zipRight(listen(app(listener, redirectUri), listener.host, port), use(redirectUri)),
      Effect.scoped,
      Effect.catchTag("ServeError", () => from(port + 1))
    )
  }
  return from(listener.firstPort)
}

const listen = (httpApp: HttpApp.Default, host: RedirectHost, port: number) => {
  const [first, ...others] = addresses(host)
  return Effect.zipRight(
    listenAt(httpApp, first, port),
    Effect.forEach(
      others,
      (address) => Effect.catchIf(listenAt(httpApp, address, port), isNoAddress, () => Effect.void),
      { discard: true }
    )
  )
}

/** Whether this machine lacks the address: a browser on it cannot take it either. */
const isNoAddress = ({ cause }: ServeError): boolean =>
  cause instanceof Error && "code" in cause && (cause.code === "EADDRNOTAVAIL" || cause.code === "EAFNOSUPPORT")

const listenAt = (
  httpApp: HttpApp.Default,
  address: string,
  port: number
): Effect.Effect<void, ServeError, Scope.Scope> =>
  Effect.gen(function*() {
    const handler = yield* NodeHttpServer.makeHandler(httpApp)
    const connections = new Map<Socket, Array<Http.IncomingMessage>>()
    const server = Http.createServer((request, response) => {
      const requests = connections.get(request.socket)
      if (requests === undefined) request.socket.once("close", () => connections.delete(request.socket))
      connections.set(request.socket, [...requests ?? [], request])
      handler(request, response)
    })
    yield* NodeHttpServer.make(() => server, { host: address, port, exclusive: true })
    yield* Effect.addFinalizer(() => Effect.zipRight(delivered(connections), close(server)))
  }).pipe(
    // its span would hold the URL, and the URL what the browser brought
    HttpMiddleware.withTracerDisabledWhenEffect(() => true),
    Effect.uninterruptible
  )

/** Every page ends its connection. A request that is still coming in gets none and is not waited for. */
const delivered = (connections: ReadonlyMap<Socket, ReadonlyArray<Http.IncomingMessage>>): Effect.Effect<void> =>
  Effect.forEach(
    Array.from(connections).filter(([_, requests]) => requests.some(({ complete }) => complete)),
    ([socket]) =>
      Effect.async<void>((resume) => {
        socket.once("close", () => resume(Effect.void))
      }),
    { concurrency: "unbounded", discard: true }
  )

const close = (server: Http.Server): Effect.Effect<void> =>
  Effect.async((resume) => {
    server.close(() => resume(Effect.void))
    // browsers open connections ahead of need, and keep them
    server.closeAllConnections()
  })

const app = ({ part, receive }: Listener, redirectUri: string): HttpApp.Default => {
  const home = new URL(redirectUri)
  const allowed = part === "query" ? ["GET"] : ["GET", "POST"]
  const take = (params: URLSearchParams): Effect.Effect<Page.Page> => {
    const names = Array.from(params.keys())
    return new Set(names).size < names.length
      ? Effect.succeed(Page.malformed)
      : receive(Object.fromEntries(params), redirectUri)
  }
  return Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const { headers, method } = request
    // a name that somebody made point here (DNS rebinding) comes as another host
    if (headers["host"] !== home.host) return Page.toHtml(Page.malformed)
    const url = URL.canParse(request.url, home) ? new URL(request.url, home) : undefined
    if (url?.origin !== home.origin || url.pathname !== home.pathname) return Page.toHtml(Page.notFound)
    if (!allowed.includes(method)) {
      return HttpServerResponse.setHeader(Page.toHtml(Page.methodNotAllowed), "allow", allowed.join(", "))
    }
    if (method === "POST") {
      return Page.toJson(headers["origin"] === home.origin ? yield* posted(request, take) : Page.malformed)
    }
    // a server that refuses before it has looked at the response type puts its error into the query
    return part === "fragment" && !url.searchParams.has("error")
      ? Page.handoverPage
      : Page.toHtml(yield* take(url.searchParams))
  })
}

const posted = (
  { headers, text }: HttpServerRequest.HttpServerRequest,
  take: (params: URLSearchParams) => Effect.Effect<Page.Page>
): Effect.Effect<Page.Page> => {
  if (headers["content-type"] !== "application/x-www-form-urlencoded") return Effect.succeed(Page.malformed)
  if (Number(headers["content-length"] ?? 0) > maxBody) return Effect.succeed(Page.tooLarge)
  return pipe(
    text,
    HttpServerRequest.withMaxBodySize(Option.some(maxBody)),
    Effect.matchEffect({
      onFailure: () => Effect.succeed(Page.malformed),
      onSuccess: (body) => take(new URLSearchParams(body))
    })
  )
}
