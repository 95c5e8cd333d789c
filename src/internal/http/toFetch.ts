/** A `fetch` over an `HttpClient`. */
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import { discardBody, markReplayable } from "./body.ts"

/** Redirects that are followed, as the fetch standard says. */
const maxRedirects = 20

const redirectStatuses: ReadonlyArray<number> = [301, 302, 303, 307, 308]
const nullBodyStatuses: ReadonlyArray<number> = [101, 103, 204, 205, 304]

export const toFetch: Effect.Effect<typeof globalThis.fetch, never, HttpClient.HttpClient> = Effect.gen(function*() {
  const client = yield* HttpClient.HttpClient
  const runtime = yield* Effect.runtime()
  return async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const request = new Request(input, withDuplex(init))
    request.signal.throwIfAborted()
    const converted = await toClientRequest(request, init)
    const exit = await Runtime.runPromiseExit(runtime)(follow(client, converted, request.redirect), {
      signal: request.signal
    })
    if (Exit.isSuccess(exit)) return toResponse(exit.value, request.signal, runtime)
    request.signal.throwIfAborted()
    throw new TypeError("fetch failed", { cause: Cause.squash(exit.cause) })
  }
})

/** A body that is a stream is sent while it is read. */
const withDuplex = (init: RequestInit | undefined): RequestInit | undefined =>
  init?.body instanceof ReadableStream ? Object.assign({}, init, { duplex: "half" }) : init

const toClientRequest = async (
  request: Request,
  init: RequestInit | undefined
): Promise<HttpClientRequest.HttpClientRequest> => {
  const headers = Object.fromEntries(request.headers)
  const base = HttpClientRequest.setHeaders(methodOf(request.method)(request.url), headers)
  if (request.body === null) return base
  const type = request.headers.get("content-type") ?? undefined
  if (init?.body instanceof ReadableStream) {
    const { body } = request
    const stream = Stream.fromReadableStream({ evaluate: () => body, onError: (error) => error })
    return HttpClientRequest.setBody(base, HttpBody.stream(stream, type))
  }
  const body = HttpBody.uint8Array(new Uint8Array(await request.arrayBuffer()), type)
  markReplayable(body)
  return HttpClientRequest.setBody(base, body)
}

const methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] as const

const methodOf = (method: string) => {
  const known = methods.find((known) => known === method)
  if (known === undefined) throw new TypeError(`${method} is not a method of HttpClient: use ${methods.join(", ")}`)
  return HttpClientRequest.make(known)
}

/** Follows redirects as fetch does; each hop is judged by the client on its own. */
const follow = (
  client: HttpClient.HttpClient,
  request: HttpClientRequest.HttpClientRequest,
  mode: RequestRedirect,
  hops = 0
): Effect.Effect<
  { readonly response: HttpClientResponse.HttpClientResponse; readonly url: string; readonly hops: number },
  unknown
> =>
  Effect.flatMap(client.execute(request), (response) => {
    const location = response.headers["location"]
    const isRedirect = redirectStatuses.includes(response.status) && location !== undefined
    if (!isRedirect || mode === "manual") return Effect.succeed({ response, url: request.url, hops })
    const next = mode === "error"
      ? Effect.fail(badRedirect(response, "a redirect was not expected"))
      : hops === maxRedirects || !URL.canParse(location, request.url)
      ? Effect.fail(badRedirect(response, "there are too many redirects, or one leads nowhere"))
      : follow(client, redirected(request, response.status, new URL(location, request.url)), mode, hops + 1)
    return Effect.zipRight(discardBody(response), next)
  })

const badRedirect = (response: HttpClientResponse.HttpClientResponse, description: string) =>
  new HttpClientError.ResponseError({ request: response.request, response, reason: "StatusCode", description })

const redirected = (
  request: HttpClientRequest.HttpClientRequest,
  status: number,
  url: URL
): HttpClientRequest.HttpClientRequest => {
  const isGet = request.method === "GET" || request.method === "HEAD"
  const dropsBody = (status === 303 && !isGet) || ((status === 301 || status === 302) && request.method === "POST")
  const isSameOrigin = new URL(request.url).origin === url.origin
  const dropped = [
    ...(dropsBody ? ["content-type", "content-length", "content-encoding", "content-language"] : []),
    ...(isSameOrigin ? [] : ["authorization", "cookie", "proxy-authorization"])
  ]
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !dropped.includes(name)))
  const next = HttpClientRequest.make(dropsBody ? "GET" : request.method)(url.href, { headers })
  return dropsBody ? next : HttpClientRequest.setBody(next, request.body)
}

const toResponse = (
  { hops, response, url }: {
    readonly response: HttpClientResponse.HttpClientResponse
    readonly url: string
    readonly hops: number
  },
  signal: AbortSignal,
  runtime: Runtime.Runtime<never>
): Response => {
  const headers = new Headers()
  for (const [name, value] of Object.entries(response.headers)) {
    if (typeof value === "string" && name !== "set-cookie") headers.append(name, value)
  }
  const hasBody = !nullBodyStatuses.includes(response.status)
  const body = hasBody
    ? Stream.toReadableStreamRuntime(aborted(response.stream, signal), runtime)
    : null
  const { status } = response
  const isUsual = status >= 200 && status <= 599
  const converted = new Response(body, { status: isUsual ? status : 200, headers })
  if (!isUsual) {
    // servers send others, and fetch passes them on; the constructor does not take them
    Object.defineProperty(converted, "status", { value: status })
    Object.defineProperty(converted, "ok", { value: false })
  }
  Object.defineProperty(converted, "url", { value: url })
  Object.defineProperty(converted, "redirected", { value: hops > 0 })
  return converted
}

/** An abort ends a body that is still being read. */
const aborted = <E>(stream: Stream.Stream<Uint8Array, E>, signal: AbortSignal): Stream.Stream<Uint8Array, unknown> =>
  Stream.interruptWhen(
    stream,
    Effect.async<never, unknown>((resume) => {
      const abort = () => resume(Effect.fail(signal.reason))
      if (signal.aborted) abort()
      else signal.addEventListener("abort", abort, { once: true })
      return Effect.sync(() => signal.removeEventListener("abort", abort))
    })
  )
