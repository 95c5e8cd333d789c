import { HttpClient, HttpClientError, type HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { Clock, type Duration, Effect, Fiber, Layer, Option, Redacted, Stream, TestClock } from "effect"
import { Alf } from "effect-alf"
import { awaitWebCrypto } from "./webCrypto.ts"

/** What a scripted server saw of one request. */
export interface Sent {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly form: URLSearchParams
  readonly at: number
}

export type Answer = Response | Effect.Effect<Response, HttpClientError.HttpClientError>

/** An answer given the request and how many came before it, counting from 1. */
export type Script = (sent: Sent, n: number, request: HttpClientRequest.HttpClientRequest) => Answer

export const tokenEndpoint = "https://auth.example/token"
export const api = "https://api.example"

export const json = (body: unknown, init?: ResponseInit): Response =>
  new Response(JSON.stringify(body), {
    ...init,
    headers: { "content-type": "application/json", ...(init?.headers as Record<string, string> | undefined) }
  })

export const text = (body: string, status = 200, headers: Record<string, string> = {}): Response =>
  new Response(body, { status, headers })

export const unauthorized = (): Response =>
  new Response("no", {
    status: 401,
    headers: {
      "www-authenticate": "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"expired, or so\""
    }
  })

export const bearer = (value: string, more: Record<string, unknown> = {}): Response =>
  json({ access_token: value, token_type: "Bearer", expires_in: 3600, ...more })

/** `token-1`, `token-2`, … */
export const counting = (more: Record<string, unknown> = {}): Script => (_, n) => bearer(`token-${n}`, more)

export const transportError = (
  request: HttpClientRequest.HttpClientRequest,
  cause: unknown = new Error("ECONNRESET")
) => Effect.fail(new HttpClientError.RequestError({ request, reason: "Transport", cause }))

const bodyText = (
  request: HttpClientRequest.HttpClientRequest
): Effect.Effect<string, HttpClientError.RequestError> => {
  const body = request.body
  switch (body._tag) {
    case "Empty":
      return Effect.succeed("")
    case "Uint8Array":
      return Effect.succeed(new TextDecoder().decode(body.body))
    case "Raw":
      return typeof body.body === "string" ? Effect.succeed(body.body) : Effect.succeed("(raw)")
    case "FormData":
      return Effect.succeed(JSON.stringify([...body.formData.entries()]))
    case "Stream":
      return body.stream.pipe(
        Stream.decodeText(),
        Stream.mkString,
        Effect.mapError((cause) => new HttpClientError.RequestError({ request, reason: "Encode", cause }))
      )
  }
}

export interface Server {
  readonly tokenRequests: Array<Sent>
  readonly apiRequests: Array<Sent>
  readonly concurrency: { now: number; most: number }
  readonly client: HttpClient.HttpClient
  readonly layer: Layer.Layer<HttpClient.HttpClient>
}

/** A token endpoint and an API in one scripted client. Whatever is not the token endpoint is the API. */
export const serve = (script: { readonly token?: Script; readonly api?: Script } = {}): Server => {
  const tokenRequests: Array<Sent> = []
  const apiRequests: Array<Sent> = []
  const concurrency = { now: 0, most: 0 }
  const token = script.token ?? counting()
  const resource = script.api ?? (() => json({ ok: true }))
  const client = HttpClient.make((request, url) =>
    Effect.gen(function*() {
      const isToken = `${url.origin}${url.pathname}` === tokenEndpoint
      const body = yield* bodyText(request)
      const sent: Sent = {
        method: request.method,
        url: url.href,
        headers: { ...request.headers },
        body,
        form: new URLSearchParams(body),
        at: yield* Clock.currentTimeMillis
      }
      const seen = isToken ? tokenRequests : apiRequests
      seen.push(sent)
      const answer = (isToken ? token : resource)(sent, seen.length, request)
      if (!isToken) return yield* Effect.isEffect(answer) ? answer : Effect.succeed(answer)
      concurrency.now++
      concurrency.most = Math.max(concurrency.most, concurrency.now)
      return yield* (Effect.isEffect(answer) ? answer : Effect.succeed(answer)).pipe(
        Effect.ensuring(Effect.sync(() => void concurrency.now--))
      )
    }).pipe(Effect.map((response) => HttpClientResponse.fromWeb(request, response)))
  )
  return { tokenRequests, apiRequests, concurrency, client, layer: Layer.succeed(HttpClient.HttpClient, client) }
}

/** The bearers that the API saw, in order. */
export const bearers = (server: Server): ReadonlyArray<string | undefined> =>
  server.apiRequests.map((sent) => sent.headers["authorization"])

const macrotasks = Effect.async<void>((resume) => void setTimeout(() => setImmediate(() => resume(Effect.void)), 0))

/** Lets every fiber that can run do so, without moving the clock. */
export const settle: Effect.Effect<void> = Effect.repeat(
  Effect.zipRight(Effect.repeatN(macrotasks, 4), awaitWebCrypto),
  { while: (wasUsed) => wasUsed }
)

/** One pipeline over a scripted server, as a program with two APIs would make it. */
export const pipeline = (
  server: Server,
  options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
) =>
  Alf.make({
    tokenEndpoint,
    clientId: "client",
    clientSecret: Redacted.make("swordfish"),
    origins: [api],
    ...options
  }).pipe(Effect.provide(server.layer))

/** Runs an effect to its end while the clock advances by `step`, `times` times. */
export const advancing = <A, E, R>(effect: Effect.Effect<A, E, R>, step: Duration.DurationInput, times = 100) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(effect)
    for (let i = 0; i < times; i++) {
      yield* settle
      if (Option.isSome(yield* Fiber.poll(fiber))) break
      yield* TestClock.adjust(step)
    }
    return yield* Fiber.join(fiber)
  })
