/** What a 401 and its replay do to the connections that they share with other requests. */
import { HttpClientRequest } from "@effect/platform"
import { Undici } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted, Stream } from "effect"
import { Alf, AuthorizedHttpClient } from "effect-alf"
import type { ServerResponse } from "node:http"
import { answer, bearerOf, endless, type Handler, serve } from "../support/apiServer.ts"
import { loopbackServer } from "../support/loopbackServer.ts"
import { transports, undici } from "../support/transports.ts"

/** An API that takes no token but the newest, and says no by `refuse`; a client that has a token it does not take. */
const world = (
  refuse: (response: ServerResponse) => void,
  accept: Handler = (_, response) => answer(response, 200, {})
) =>
  Effect.gen(function*() {
    const auth = yield* loopbackServer()
    const api = yield* serve((request, response) =>
      bearerOf(request) === "token-1" ? refuse(response) : accept(request, response)
    )
    const alf = yield* Alf.make({
      tokenEndpoint: auth.tokenEndpoint,
      clientId: "client",
      clientSecret: Redacted.make("secret"),
      origins: [api.url]
    })
    yield* alf.tokens.get
    return { ...alf, auth, api, url: `${api.url}/resource` }
  })

const refuseEndlessly = (response: ServerResponse) => endless(response, 401)

/** A body without an end, of which little comes. */
const trickling = (response: ServerResponse) => {
  response.writeHead(401)
  response.write("a")
}

const large = (response: ServerResponse) => {
  response.writeHead(401, { "content-length": megabyte.length })
  response.end(megabyte)
}
const megabyte = Buffer.alloc(1024 * 1024)

/** An agent, and how many connections it has open at once. */
const watched = (options: Undici.Agent.Options) => {
  const agent = new Undici.Agent(options)
  let open = 0
  let most = 0
  agent.on("connect", () => {
    most = Math.max(most, ++open)
  })
  agent.on("disconnect", () => {
    open--
  })
  return { agent, most: () => most }
}

describe("a pool of one connection", () => {
  const pool = () => watched({ connections: 1, pipelining: 1 })

  it.scopedLive.each([
    { name: "an endless 401", refuse: refuseEndlessly },
    { name: "a 401 of which little comes", refuse: trickling },
    { name: "a 401 of 1 MB", refuse: large },
    {
      name: "a 401 that announces a short body and never sends it",
      refuse: (response: ServerResponse) => void response.writeHead(401, { "content-length": 2 }).flushHeaders()
    },
    { name: "a 401 without a body", refuse: (response: ServerResponse) => void response.writeHead(401).end() }
  ])("serves the replay after $name", ({ refuse }) => {
    const { agent, most } = pool()
    return Effect.gen(function*() {
      const { api, auth, authorizedHttpClient, url } = yield* world(refuse)
      const [duration, response] = yield* Effect.timed(authorizedHttpClient.get(url))
      assert.strictEqual(response.status, 200)
      assert.isBelow(Duration.toMillis(duration), 3_000)
      assert.deepStrictEqual(api.requests.map(bearerOf), ["token-1", "token-2"])
      assert.strictEqual(auth.requests.length, 2)
      // one to each server
      assert.isAtMost(most(), 2)
    }).pipe(Effect.provide(undici(agent)))
  })

  it.scopedLive("serves fifty requests that are all refused endlessly", () =>
    Effect.gen(function*() {
      const { auth, authorizedHttpClient, url } = yield* world(refuseEndlessly)
      const statuses = yield* Effect.all(
        Array.from({ length: 50 }, () =>
          Effect.flatMap(authorizedHttpClient.get(url), (response) => Effect.as(response.text, response.status))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(new Set(statuses), new Set([200]))
      assert.strictEqual(auth.requests.length, 2)
    }).pipe(Effect.provide(undici(pool().agent))))

  it.scopedLive("is free again after a 401 that the typed client fails with", () =>
    Effect.gen(function*() {
      const { api, authorizedHttpClient, url } = yield* world(
        refuseEndlessly,
        (_, response) => refuseEndlessly(response)
      )
      for (let n = 0; n < 3; n++) {
        assert.strictEqual((yield* Effect.flip(authorizedHttpClient.get(url)))._tag, "Unauthorized")
      }
      assert.isAtLeast(api.requests.length, 4)
    }).pipe(Effect.provide(undici(pool().agent))))
})

describe("large 401s", () => {
  it.scopedLive("do not pile up connections", () => {
    const { agent, most } = watched({})
    const inFlight = 4
    return Effect.gen(function*() {
      const { api, authorizedHttpClient, tokens, url } = yield* world(large, (_, response) =>
        // every third request is refused, whatever it carries
        api.requests.length % 3 === 0 ? large(response) : answer(response, 200, {}))
      yield* tokens.get
      const call = Effect.flatMap(authorizedHttpClient.get(url), (response) => response.text)
      yield* Effect.all(Array.from({ length: 200 }, () => Effect.exit(call)), { concurrency: inFlight })
      assert.isAbove(api.requests.length, 200)
      // while one is being closed the pool opens another, and keeps both for a while; one leads to the token endpoint
      assert.isAtMost(most(), 2 * inFlight + 1)
    }).pipe(Effect.provide(undici(agent)))
  })
})

const bytes = Uint8Array.from({ length: 256 }, (_, n) => n)

/** undici 7 knows its own FormData only, not that of Node.js. */
const sendsFormData = (transport: string) => transport !== "undici"

for (const [transport, layer] of transports) {
  describe(`a body that is sent again over ${transport}`, () => {
    it.scopedLive.each([
      { name: "text", set: HttpClientRequest.bodyText("täxt ✓"), sent: "täxt ✓" },
      { name: "bytes", set: HttpClientRequest.bodyUint8Array(bytes), sent: Buffer.from(bytes).toString() },
      { name: "URL parameters", set: HttpClientRequest.bodyUrlParams({ a: "b c&d" }), sent: "a=b+c%26d" },
      { name: "nothing", set: (request: HttpClientRequest.HttpClientRequest) => request, sent: "" },
      {
        name: "a stream that can run again",
        set: (request: HttpClientRequest.HttpClientRequest) =>
          AuthorizedHttpClient.replayable(
            HttpClientRequest.bodyStream(request, Stream.make(bytes.subarray(0, 100), bytes.subarray(100)))
          ),
        sent: Buffer.from(bytes).toString()
      }
    ])("is the same, byte for byte: $name", ({ sent, set }) =>
      Effect.gen(function*() {
        const { api, authorizedHttpClient, url } = yield* world((response) => answer(response, 401, {}))
        const response = yield* authorizedHttpClient.execute(set(HttpClientRequest.post(url)))
        assert.strictEqual(response.status, 200)
        assert.deepStrictEqual(api.requests.map(({ body }) => body), [sent, sent])
        assert.deepStrictEqual(api.requests.map(bearerOf), ["token-1", "token-2"])
      }).pipe(Effect.provide(layer)))

    if (!sendsFormData(transport)) return
    it.scopedLive(
      "form data is the same but for its boundary",
      () =>
        Effect.gen(function*() {
          const { api, authorizedHttpClient, url } = yield* world((response) => answer(response, 401, {}))
          const form = new FormData()
          form.set("field", "täxt")
          form.set("file", new File([bytes], "file.bin"))
          const response = yield* authorizedHttpClient.execute(
            HttpClientRequest.bodyFormData(HttpClientRequest.post(url), form)
          )
          assert.strictEqual(response.status, 200)
          const [first, second] = api.requests.map(({ body, headers }) =>
            body.replaceAll(/boundary=(.*)$/.exec(headers["content-type"] ?? "")?.[1] ?? "?", "boundary")
          )
          assert.include(first, "täxt")
          assert.strictEqual(second, first)
        }).pipe(Effect.provide(layer))
    )
  })
}
