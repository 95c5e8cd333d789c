/**
 * Runs clients for a long time and prints, as JSON, what is left after each part. Started by leaks.test.ts in a process
 * of its own, with `--expose-gc`: nothing else is to move the heap or to hold a handle.
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Fiber, Redacted, type Scope, Supervisor } from "effect"
import { Alf, AuthorizationServer, Grant, TokenEndpoint, TokenService, TokenStorage } from "effect-alf"
import type { ServerResponse } from "node:http"
import { setTimeout } from "node:timers/promises"
import { answer, bearerOf, serve } from "../../support/apiServer.ts"

/** What there is at one moment. */
export interface Sample {
  /** In bytes, after garbage was collected. */
  readonly heap: number
  readonly fibers: number
  /** Requests that the transport has not answered, and that nobody has interrupted. */
  readonly requests: number
  /** What keeps Node.js alive: sockets, timers, servers. */
  readonly resources: ReadonlyArray<string>
  readonly listeners: number
}

export interface Part {
  readonly name: string
  readonly times: number
  readonly milliseconds: number
  readonly before: Sample
  readonly halfway: Sample
  readonly after: Sample
}

export interface Report {
  readonly parts: ReadonlyArray<Part>
  /** What Node.js warned of, such as too many listeners. */
  readonly warnings: ReadonlyArray<string>
}

const options = {
  tokenEndpoint: "https://auth.example.com/token",
  clientId: "client",
  clientSecret: Redacted.make("secret"),
  origins: ["https://api.example.com"],
  tokenRetry: { times: 0 },
  refusalCooldown: 0
} satisfies Alf.Options
const url = "https://api.example.com/resource"

type Answer = Response | "broken" | "silence"

let requests = 0

/** A client in memory: no more than the answers. Each gets the number of the request, counted by server. */
const transport = (auth: (n: number) => Answer, api: (n: number) => Answer): HttpClient.HttpClient => {
  let tokenRequests = 0
  let apiRequests = 0
  return HttpClient.makeWith<never, never, HttpClientError.HttpClientError, never>(
    Effect.flatMap((request) => {
      const answer = request.url === options.tokenEndpoint ? auth(++tokenRequests) : api(++apiRequests)
      switch (answer) {
        case "broken":
          return new HttpClientError.RequestError({ request, reason: "Transport", cause: new Error("reset") })
        case "silence":
          requests++
          return Effect.onInterrupt(Effect.never, () =>
            Effect.sync(() => {
              requests--
            }))
        default:
          return Effect.succeed(HttpClientResponse.fromWeb(request, answer))
      }
    }),
    Effect.succeed
  )
}

const make = (
  client: HttpClient.HttpClient,
  further?: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>
) => Effect.provideService(Alf.make({ ...options, ...further }), HttpClient.HttpClient, client)

const token = (n: number) => Response.json({ access_token: `token-${n}`, token_type: "Bearer", expires_in: 3600 })
const accepted = new Response()
const refused = () => new Response("refused", { status: 401 })

/** Starts an effect, lets it get to where it waits, and interrupts it. */
const interrupted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.fork(effect), (fiber) => Effect.zipRight(Effect.yieldNow(), Fiber.interrupt(fiber)))

/** A hundredth of all requests is answered with 401 and replayed. */
const answered = Effect.map(
  make(transport(token, (n) => n % 100 === 0 ? refused() : accepted)),
  ({ httpClient }) => httpClient.get(url)
)

const errorAnswers: ReadonlyArray<() => Response> = [
  () => new Response("down", { status: 503 }),
  () => new Response("<html>"),
  () => Response.json({ error: "invalid_client" }, { status: 401 })
]

/** A quarter of all fetches ends in an answer that is an error, the others without one. */
const failed = Effect.map(
  make(
    transport(
      (n) => (n % 4 === 0 ? errorAnswers[n / 4 % errorAnswers.length]?.() : undefined) ?? "broken",
      () => accepted
    )
  ),
  ({ httpClient }) => Effect.flip(httpClient.get(url))
)

/** The service is closed, and its fetch is interrupted. */
const fetchesInterrupted = Effect.map(
  TokenEndpoint.make(options),
  ({ authorizationServer, tokenEndpoint }) =>
    TokenService.make({ grant: Grant.clientCredentials() }).pipe(
      Effect.flatMap(({ get }) => interrupted(get)),
      Effect.scoped,
      Effect.provideService(TokenEndpoint.TokenEndpoint, tokenEndpoint),
      Effect.provideService(AuthorizationServer.AuthorizationServer, authorizationServer)
    )
).pipe(Effect.provideService(HttpClient.HttpClient, transport(() => "silence", () => accepted)))

/** The callers leave one fetch, which goes on. */
const callersInterrupted = Effect.map(
  make(transport(() => "silence", () => accepted), { tokenTimeout: "1 hour" }),
  ({ httpClient }) => interrupted(httpClient.get(url))
)

const requestsInterrupted = Effect.map(
  make(transport(token, () => "silence")),
  ({ httpClient }) => interrupted(httpClient.get(url))
)

/** Exclusive sections, each for a key of its own. */
const sections = Effect.map(
  Effect.provide(TokenStorage.TokenStorage, TokenStorage.layerMemory),
  ({ exclusive }) => {
    let count = 0
    return Effect.suspend(() => exclusive(`key-${count++}`)(Effect.void))
  }
)

const stall = (_: ServerResponse) => {}
const reset = (response: ServerResponse) => void response.socket?.resetAndDestroy()

/** Whole lives over sockets: servers that answer, break and are silent, and clients that come and go. */
const sockets = Effect.succeed(
  Effect.forEach([NodeHttpClient.layerUndici, NodeHttpClient.layer], (layer) =>
    Effect.gen(function*() {
      const auth = yield* serve((_, response) => {
        const n = auth.requests.length
        if (n % 4 === 0) stall(response)
        else if (n % 4 === 1) reset(response)
        else answer(response, 200, { access_token: `token-${n}`, token_type: "Bearer", expires_in: 3600 })
      })
      const api = yield* serve((request, response) => {
        const n = api.requests.length
        if (n % 8 === 0) stall(response)
        else if (n % 8 === 1) reset(response)
        else answer(response, n % 8 === 2 ? 401 : 200, { token: bearerOf(request) })
      })
      const { httpClient } = yield* Alf.make({
        ...options,
        tokenEndpoint: `${auth.url}/token`,
        tokenTimeout: "50 millis",
        origins: [api.url]
      })
      const call = Effect.flatMap(httpClient.get(`${api.url}/resource`), (response) => response.text)
      yield* Effect.forEach(Array.from({ length: 60 }), () => Effect.exit(Effect.timeout(call, "30 millis")), {
        concurrency: 10,
        discard: true
      })
    }).pipe(Effect.provide(layer), Effect.scoped), { discard: true })
)

const collect = async () => {
  for (let n = 0; n < 4; n++) {
    globalThis.gc?.()
    // lets finalizers run
    await setTimeout(20)
  }
}

const listeners = () =>
  process.eventNames().map((name) => process.listenerCount(name)).reduce((sum, count) => sum + count, 0)

const program = Effect.gen(function*() {
  const warnings: Array<string> = []
  process.on("warning", (warning) => warnings.push(String(warning)))
  const supervisor = yield* Supervisor.track

  const sample: Effect.Effect<Sample> = Effect.gen(function*() {
    yield* Effect.promise(collect)
    const fibers = yield* supervisor.value
    return {
      heap: process.memoryUsage().heapUsed,
      fibers: fibers.length,
      requests,
      resources: process.getActiveResourcesInfo().sort(),
      listeners: listeners()
    }
  })

  /** A quarter more is run to warm up: code is compiled, caches are filled. */
  const part = <E>(
    name: string,
    times: number,
    setUp: Effect.Effect<Effect.Effect<unknown, unknown>, E, Scope.Scope>
  ) =>
    Effect.scoped(Effect.gen(function*() {
      const once = yield* setUp
      const run = (times: number) => Effect.repeatN(once, times - 1)
      yield* run(Math.ceil(times / 4))
      const before = yield* sample
      const start = performance.now()
      yield* run(Math.ceil(times / 2))
      const halfway = yield* sample
      yield* run(Math.ceil(times / 2))
      const after = yield* sample
      return { name, times, milliseconds: Math.round(performance.now() - start), before, halfway, after }
    })).pipe(Effect.provide(Supervisor.addSupervisor(supervisor)))

  const parts = [
    yield* part("answered requests", 100_000, answered),
    yield* part("failed fetches", 10_000, failed),
    yield* part("interrupted fetches", 10_000, fetchesInterrupted),
    yield* part("interrupted callers of one fetch", 10_000, callersInterrupted),
    yield* part("interrupted requests", 10_000, requestsInterrupted),
    yield* part("exclusive sections", 10_000, sections),
    yield* part("lives over sockets", 10, sockets)
  ]
  const report: Report = { parts, warnings }
  return report
})

// a timer or socket that is left would keep the process alive: it is in the report
void Effect.runPromise(program).then((report) => process.stdout.write(JSON.stringify(report), () => process.exit()))
