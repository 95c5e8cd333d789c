/** A token endpoint and an API behind a network that breaks. */
import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Either, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import { Alf, TokenError } from "effect-alf"
import { apiServer, endless, eventually, serve } from "../support/apiServer.ts"
import { loopbackServer } from "../support/loopbackServer.ts"
import * as FaultProxy from "../support/faultProxy.ts"
import { transports } from "../support/transports.ts"

/** An authorization server and an API, each behind a proxy. */
const makeServers = Effect.gen(function*() {
  const auth = yield* loopbackServer()
  const api = yield* apiServer((token) => token === auth.current())
  return {
    auth: yield* FaultProxy.make(auth),
    api: yield* FaultProxy.make(api),
    /** Requests that reached the API. */
    apiRequests: () => api.requests.length
  }
})

/** A client that knows the proxies only. */
const connect = (
  servers: Effect.Effect.Success<typeof makeServers>,
  options?: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>
) =>
  Effect.map(
    Alf.make({
      tokenEndpoint: `${servers.auth.url}/token`,
      clientId: "client",
      clientSecret: Redacted.make("secret"),
      origins: [servers.api.url],
      tokenRetry: { times: 0 },
      // the next call may start at once
      refusalCooldown: 0,
      ...options
    }),
    (alf) => ({
      ...alf,
      ...servers,
      tokenRequests: servers.auth.requests,
      /** A request whose answer is read to its end. */
      call: Effect.flatMap(
        alf.authorizedHttpClient.get(`${servers.api.url}/resource`),
        (response) => Effect.as(response.json, response.status)
      )
    })
  )

const world = (options?: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>) =>
  Effect.flatMap(makeServers, (servers) => connect(servers, options))

/** What each fault at the token endpoint is to the caller. */
const endings: ReadonlyArray<readonly [FaultProxy.Fault, TokenError.TokenRequestError["reason"]]> = [
  ["reset", "Transport"],
  ["garbage", "Transport"],
  ["halfClose", "Transport"],
  ["cut", "Transport"],
  ["cutReset", "Transport"],
  ["stall", "Timeout"],
  ["stallInBody", "Timeout"],
  ["slowDrops", "Timeout"],
  ["slowBody", "Timeout"]
]

const transportFaults = endings.filter(([, reason]) => reason === "Transport").map(([fault]) => fault)

const expectTokenRequestError = (error: unknown): TokenError.TokenRequestError =>
  error instanceof TokenError.TokenRequestError
    ? error
    : assert.fail(`expected a TokenRequestError, not ${String(error)}`)

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(effect), ([duration, value]) => [Duration.toMillis(duration), value] as const)

for (const [transport, layer] of transports) {
  describe(`the token endpoint over ${transport}`, { concurrent: true }, () => {
    it.scopedLive.each(endings)(
      "%s ends in TokenRequestError (%s), and the next call starts afresh",
      ([fault, reason]) =>
        Effect.gen(function*() {
          const { apiRequests, auth, call, tokenRequests } = yield* world(
            reason === "Timeout" ? { tokenTimeout: "1 second" } : {}
          )
          auth.set(fault)
          const [time, error] = yield* elapsed(Effect.flip(call))
          assert.strictEqual(expectTokenRequestError(error).reason, reason)
          assert.strictEqual(expectTokenRequestError(error).attempts, 1)
          assert.isBelow(time, 5_000)
          assert.strictEqual(apiRequests(), 0)
          assert.strictEqual(tokenRequests(), 1)

          auth.set("none")
          assert.strictEqual(yield* call, 200)
          assert.strictEqual(tokenRequests(), 2)
        }).pipe(Effect.provide(layer))
    )

    it.scopedLive.each(transportFaults)("is asked again after %s", (fault) =>
      Effect.gen(function*() {
        const { auth, call, tokenRequests } = yield* world({ tokenRetry: { times: 3, base: "10 millis" } })
        auth.script(fault, fault)
        assert.strictEqual(yield* call, 200)
        assert.strictEqual(tokenRequests(), 3)
      }).pipe(Effect.provide(layer)))

    const halfAnswers: ReadonlyArray<FaultProxy.Fault> = ["cut", "cutReset"]
    it.scopedLive.each(halfAnswers)(
      "%s is noticed by a client that takes its time too",
      (fault) =>
        Effect.gen(function*() {
          const { auth, call, tokenRequests } = yield* world({ tokenRetry: { times: 1, base: "10 millis" } })
          auth.script(fault)
          assert.strictEqual(yield* call, 200)
          assert.strictEqual(tokenRequests(), 2)
        }).pipe(Effect.provide(Layer.provide(leisurely, layer)))
    )

    it.scopedLive("that nobody listens for is a TokenRequestError (Transport)", () =>
      Effect.gen(function*() {
        const { call, apiRequests } = yield* world({ tokenEndpoint: `${yield* nobody}/token` })
        assert.strictEqual(expectTokenRequestError(yield* Effect.flip(call)).reason, "Transport")
        assert.strictEqual(apiRequests(), 0)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("is asked again after a time-out, and no more often than told", () =>
      Effect.gen(function*() {
        const { apiRequests, auth, call, tokenRequests } = yield* world({
          tokenTimeout: "500 millis",
          tokenRetry: { times: 1, base: "10 millis" }
        })
        auth.set("stall")
        const error = expectTokenRequestError(yield* Effect.flip(call))
        assert.strictEqual(error.reason, "Timeout")
        assert.strictEqual(error.attempts, 2)
        assert.strictEqual(tokenRequests(), 2)
        assert.strictEqual(apiRequests(), 0)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("gives up the connection of an attempt that took too long", () =>
      Effect.gen(function*() {
        const { auth, call } = yield* world({ tokenTimeout: "500 millis" })
        auth.set("stall")
        yield* Effect.flip(call)
        assert.strictEqual(auth.requests(), 1)
        yield* eventually(() => auth.connections() === 0)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("may answer a byte at a time", () =>
      Effect.gen(function*() {
        const { auth, call, tokenRequests } = yield* world()
        auth.set("drops")
        assert.strictEqual(yield* call, 200)
        assert.strictEqual(tokenRequests(), 1)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("may close the connection after each answer", () =>
      Effect.gen(function*() {
        const { auth, call, tokenRequests, tokens } = yield* world()
        auth.set("closeAfter")
        for (let n = 1; n <= 3; n++) {
          assert.strictEqual(yield* call, 200)
          assert.strictEqual(tokenRequests(), n)
          yield* tokens.invalidate
          yield* Effect.sleep("20 millis")
        }
      }).pipe(Effect.provide(layer)))

    it.scopedLive.each([200, 500])(
      "is read no further than 1 MiB, and its connection is given up (%i)",
      (status) =>
        Effect.gen(function*() {
          const server = yield* serve((_, response) => endless(response, status))
          const { call } = yield* world({ tokenEndpoint: `${server.url}/token` })
          const [time, error] = yield* elapsed(Effect.flip(call))
          assert.strictEqual(error._tag, status === 200 ? "InvalidTokenResponse" : "TokenErrorResponse")
          assert.isBelow(time, 5_000)
          yield* eventually(() => server.connections() === 0)
        }).pipe(Effect.provide(layer))
    )

    it.scopedLive("loses its connection when the layer is closed, and the waiting call ends with a typed error", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { api, auth, call } = yield* Scope.extend(connect(yield* makeServers), scope)
        auth.set("stall")
        const waiting = yield* Effect.fork(call)
        yield* eventually(() => auth.connections() === 1)
        yield* Scope.close(scope, Exit.void)
        assert.isFalse(Exit.isInterrupted(yield* Fiber.await(waiting)))
        yield* eventually(() => auth.connections() === 0)
        assert.strictEqual(api.requests(), 0)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("that is silent costs a hundred callers one request and one time-out", () =>
      Effect.gen(function*() {
        const { auth, call, tokenRequests } = yield* world({ tokenTimeout: "600 millis" })
        auth.set("stall")
        const [time, errors] = yield* elapsed(
          Effect.all(Array.from({ length: 100 }, () => Effect.flip(call)), { concurrency: "unbounded" })
        )
        for (const error of errors) assert.strictEqual(expectTokenRequestError(error).reason, "Timeout")
        assert.strictEqual(tokenRequests(), 1)
        assert.isBelow(time, 5_000)
      }).pipe(Effect.provide(layer)))
  })

  describe(`the API over ${transport}`, { concurrent: true }, () => {
    const noAnswer: ReadonlyArray<FaultProxy.Fault> = ["reset", "garbage", "halfClose"]
    it.scopedLive.each(noAnswer)(
      "%s is a RequestError, costs no token request, and the token stays in use",
      (fault) =>
        Effect.gen(function*() {
          const { api, call, tokenRequests } = yield* world()
          assert.strictEqual(yield* call, 200)
          api.set(fault)
          const error = yield* Effect.flip(call)
          if (error._tag !== "RequestError") return assert.fail(String(error))
          assert.strictEqual(error.reason, "Transport")

          api.set("none")
          assert.strictEqual(yield* call, 200)
          assert.strictEqual(api.requests(), 3)
          assert.strictEqual(tokenRequests(), 1)
        }).pipe(Effect.provide(layer))
    )

    const inBody: ReadonlyArray<FaultProxy.Fault> = ["cut", "cutReset"]
    it.scopedLive.each(inBody)(
      "%s is a ResponseError of the program that reads the body, and costs no token request",
      (fault) =>
        Effect.gen(function*() {
          const { api, authorizedHttpClient, call, tokenRequests } = yield* world()
          api.set(fault)
          const response = yield* authorizedHttpClient.get(`${api.url}/resource`)
          assert.strictEqual(response.status, 200)
          assert.strictEqual((yield* Effect.flip(response.text))._tag, "ResponseError")

          api.set("none")
          assert.strictEqual(yield* call, 200)
          assert.strictEqual(tokenRequests(), 1)
        }).pipe(Effect.provide(layer))
    )

    const silent: ReadonlyArray<FaultProxy.Fault> = ["stall", "stallInBody"]
    it.scopedLive.each(silent)(
      "%s is the caller's to time out: the connection is given up, no token request",
      (fault) =>
        Effect.gen(function*() {
          const { api, call, tokenRequests } = yield* world()
          api.set(fault)
          const exit = yield* Effect.exit(Effect.timeout(call, "500 millis"))
          assert.isTrue(Exit.isFailure(exit))
          yield* eventually(() => api.connections() === 0)

          api.set("none")
          assert.strictEqual(yield* call, 200)
          assert.strictEqual(tokenRequests(), 1)
        }).pipe(Effect.provide(layer))
    )

    const harmless: ReadonlyArray<FaultProxy.Fault> = ["drops", "closeAfter"]
    it.scopedLive.each(harmless)("%s is not noticed", (fault) =>
      Effect.gen(function*() {
        const { api, call, tokenRequests } = yield* world()
        api.set(fault)
        for (let n = 0; n < 3; n++) {
          assert.strictEqual(yield* call, 200)
          yield* Effect.sleep("20 millis")
        }
        assert.strictEqual(tokenRequests(), 1)
      }).pipe(Effect.provide(layer)))

    const in401: ReadonlyArray<FaultProxy.Fault> = ["cut", "cutReset", "stallInBody", "slowBody"]
    it.scopedLive.each(in401)(
      "%s in a 401 does not keep the request from being sent again",
      (fault) =>
        Effect.gen(function*() {
          const { api, auth, call, tokenRequests } = yield* world()
          assert.strictEqual(yield* call, 200)
          yield* revoke(auth.url)
          api.script(fault)
          const [time, status] = yield* elapsed(call)
          assert.strictEqual(status, 200)
          assert.isBelow(time, 3_000)
          // one of them is the revocation's
          assert.strictEqual(tokenRequests(), 3)
        }).pipe(Effect.provide(layer))
    )

    it.scopedLive("a fault on the second sending is passed on, and nothing is sent a third time", () =>
      Effect.gen(function*() {
        const { api, auth, call, tokenRequests } = yield* world()
        assert.strictEqual(yield* call, 200)
        yield* revoke(auth.url)
        api.script("none", "reset")
        assert.strictEqual((yield* Effect.flip(call))._tag, "RequestError")
        assert.strictEqual(api.requests(), 3)
        assert.strictEqual(tokenRequests(), 3)
        assert.strictEqual(yield* call, 200)
        assert.strictEqual(tokenRequests(), 3)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("a 401 while the token endpoint is down ends in its TokenError", () =>
      Effect.gen(function*() {
        const { api, auth, call } = yield* world()
        assert.strictEqual(yield* call, 200)
        yield* revoke(auth.url)
        auth.set("reset")
        expectTokenRequestError(yield* Effect.flip(call))
        assert.strictEqual(api.requests(), 2)

        auth.set("none")
        assert.strictEqual(yield* call, 200)
      }).pipe(Effect.provide(layer)))

    it.scopedLive("comes and goes under load: every call ends, and the token is fetched once", () =>
      Effect.gen(function*() {
        const { api, call, tokenRequests } = yield* world()
        const chaos: ReadonlyArray<FaultProxy.Fault> = ["none", "reset", "cut", "none", "halfClose", "cutReset", "none"]
        api.script(...Array.from({ length: 20 }, () => chaos).flat())
        const ends = yield* Effect.all(Array.from({ length: 140 }, () => Effect.either(call)), { concurrency: 10 })
        for (const end of ends) {
          if (Either.isRight(end)) assert.strictEqual(end.right, 200)
          else assert.include(["RequestError", "ResponseError"], end.left._tag)
        }
        assert.strictEqual(yield* call, 200)
        assert.strictEqual(tokenRequests(), 1)
      }).pipe(Effect.provide(layer)))
  })
}

/** A client with something to do between an answer's head and its body, such as waiting for a log to be written. */
const leisurely = Layer.effect(
  HttpClient.HttpClient,
  Effect.map(HttpClient.HttpClient, HttpClient.tap(() => Effect.sleep("50 millis")))
)

/** The address of a server that has stopped. */
const nobody = Effect.map(Effect.scoped(loopbackServer()), ({ url }) => url)

/** The token server's tokens before the next one are no longer good: somebody else has got one. */
const revoke = (tokenServerUrl: string) =>
  Effect.promise(async () => {
    const body = new URLSearchParams({ grant_type: "client_credentials", client_id: "somebody" })
    await (await fetch(`${tokenServerUrl}/token`, { method: "POST", body })).text()
  })
