/**
 * What effect-alf does with tokens, in seven acts: `npm run demo`.
 *
 * Two servers on loopback sockets count what they are asked (`demo/Servers.ts`). Every act claims what they will have
 * counted; if a count is another one, the exit code is 1.
 */
import { HttpClient } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { Duration, Effect, Layer, Redacted, Schedule } from "effect"
import { Alf, AuthorizedHttpClient } from "effect-alf"
import { type Act, claim, main } from "./demo/Act.ts"
import { credentials, Servers } from "./demo/Servers.ts"

/** All that a program has to say about tokens. */
const alf = (options?: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>) =>
  Layer.unwrapEffect(Effect.map(Servers, ({ api, tokenEndpoint }) =>
    Alf.layer({
      tokenEndpoint,
      clientId: credentials.id,
      clientSecret: Redacted.make(credentials.secret),
      scope: "read",
      origins: [api],
      ...options
    }).pipe(Layer.provide(NodeHttpClient.layerUndici))))

/** One request to the API: nothing here knows of tokens. */
const greet = Effect.gen(function*() {
  const { api } = yield* Servers
  const client = HttpClient.filterStatusOk(yield* HttpClient.HttpClient)
  const response = yield* client.get(api)
  return yield* response.text
})

const greetings = (n: number, concurrency: number | "unbounded") =>
  Effect.replicateEffect(greet, n, { concurrency, discard: true })

const firstToken: Act = {
  title: "First token",
  shows: "A program asks its API. The token comes by itself.",
  client: alf(),
  play: Effect.as(greet, { tokenRequests: 1, tokens: 1, accepted: 1, refused: 0 })
}

const fiftyRequests: Act = {
  title: "Fifty requests",
  shows: "They go out one after the other, all with one token.",
  client: alf(),
  play: Effect.as(greetings(50, 1), { tokenRequests: 1, tokens: 1, accepted: 50, refused: 0 })
}

const thousandAtOnce: Act = {
  title: "A thousand at once",
  shows: "A thousand requests in one moment, and no token yet: it is asked for once.",
  client: alf(),
  play: Effect.as(greetings(1000, "unbounded"), { tokenRequests: 1, tokens: 1, accepted: 1000, refused: 0 })
}

const expiry: Act = {
  title: "Expiry",
  shows: "Tokens live for three seconds, and are renewed while nobody waits.",
  rules: { expiresIn: 3, latency: 250 },
  client: alf(),
  play: Effect.gen(function*() {
    const { counted, meanwhile } = yield* Servers
    yield* greet
    let requests = 1
    let slowest = 0
    while ((yield* counted).tokens < 3) {
      const [duration] = yield* Effect.timed(greet)
      slowest = Math.max(slowest, Math.round(Duration.toMillis(duration)))
      requests++
    }
    const answered = yield* meanwhile
    yield* claim(
      `${answered} requests answered while tokens were renewed (250 ms), slowest ${slowest} ms`,
      answered > 0
    )
    return { tokenRequests: 3, tokens: 3, accepted: requests, refused: 0 }
  })
}

const revocation: Act = {
  title: "Revocation under load",
  shows: "The token is revoked amid a thousand requests: one refresh, all succeed.",
  client: alf(),
  play: Effect.gen(function*() {
    const { counted, revoke } = yield* Servers
    const amid = Effect.repeat(counted, {
      until: ({ accepted }) => accepted >= 300,
      schedule: Schedule.spaced("5 millis")
    })
    yield* Effect.all([greetings(1000, 50), Effect.zipRight(amid, revoke)], { concurrency: 2 })
    return { tokenRequests: 2, tokens: 2, accepted: 1000, refused: [1, 50] }
  })
}

const wrongScope: Act = {
  title: "A wrong scope",
  shows: "No token, no request: callers get a typed error, the API is left alone.",
  client: alf({ scope: "write" }),
  play: Effect.gen(function*() {
    const { api } = yield* Servers
    const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
    const refusal = client.get(api).pipe(
      Effect.as("none"),
      Effect.catchTag("TokenErrorResponse", ({ error }) => Effect.succeed(error))
    )
    const refusals = yield* Effect.replicateEffect(refusal, 10)
    yield* claim("ten times TokenErrorResponse: invalid_scope", refusals.every((error) => error === "invalid_scope"))
    return { tokenRequests: 1, tokens: 0, accepted: 0, refused: 0 }
  })
}

const outage: Act = {
  title: "An outage",
  shows: "The token endpoint fails, is asked again after growing pauses, recovers.",
  rules: { outage: 4 },
  client: alf({ tokenRetry: { times: 5, base: "150 millis" } }),
  play: Effect.gen(function*() {
    const servers = yield* Servers
    yield* greetings(20, "unbounded")
    const pauses = yield* servers.pauses
    // 150 ms and doubling, less a jitter of up to a fifth
    yield* claim(`pauses of ${pauses.join(", ")} ms`, pauses.every((pause, n) => pause > 100 * 2 ** n))
    return { tokenRequests: 5, tokens: 1, accepted: 20, refused: 0 }
  })
}

main([firstToken, fiftyRequests, thousandAtOnce, expiry, revocation, wrongScope, outage])
