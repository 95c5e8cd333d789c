import { FetchHttpClient, HttpClient } from "@effect/platform"
import { NodeHttpClient, Undici } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Alf, AuthorizedHttpClient } from "effect-alf"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

const listen = (handler: (request: IncomingMessage, response: ServerResponse) => void) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<ReturnType<typeof createServer>>((resume) => {
        const server = createServer(handler)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          server.closeAllConnections()
          server.close()
        })
    ),
    (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  )

const grantToken = (response: ServerResponse, token: string) => {
  response.setHeader("content-type", "application/json")
  response.end(JSON.stringify({ access_token: token, token_type: "Bearer", expires_in: 60 }))
}

const clients: Record<string, Layer.Layer<HttpClient.HttpClient>> = {
  "NodeHttpClient.layerUndici": NodeHttpClient.layerUndici,
  "NodeHttpClient.layer": NodeHttpClient.layer,
  "FetchHttpClient.layer": FetchHttpClient.layer
}

describe.each(Object.entries(clients))("over %s", (_name, client) => {
  const alf = (origin: string, path = "/token") =>
    Alf.layer({
      tokenEndpoint: `${origin}${path}`,
      clientId: "client",
      clientSecret: Redacted.make("secret"),
      origins: [origin],
      tokenRetry: { times: 0 }
    }).pipe(Layer.provide(client))

  it.scopedLive("a token, a request, a replay", () =>
    Effect.gen(function*() {
      let issued = 0
      const seen: Array<string | undefined> = []
      const origin = yield* listen((request, response) => {
        if (request.url === "/token") return grantToken(response, `t${++issued}`)
        seen.push(request.headers.authorization)
        response.statusCode = request.headers.authorization === "Bearer t2" ? 200 : 401
        response.end("body")
      })
      const status = yield* Effect.flatMap(HttpClient.HttpClient, (_) => _.get(`${origin}/x`)).pipe(
        Effect.flatMap((response) => Effect.as(response.text, response.status)),
        Effect.provide(alf(origin))
      )
      assert.strictEqual(status, 200)
      assert.deepStrictEqual(seen, ["Bearer t1", "Bearer t2"])
    }))

  it.scopedLive("a redirect from the token endpoint takes the secret nowhere", () =>
    Effect.gen(function*() {
      const seen: Array<string | undefined> = []
      const origin = yield* listen((request, response) => {
        seen.push(request.url)
        if (request.url === "/old") {
          response.statusCode = 307
          response.setHeader("location", "/token")
          response.end()
        } else grantToken(response, "t")
      })
      const error = yield* Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (_) =>
        Effect.flip(_.get(`${origin}/x`)))
        .pipe(Effect.provide(alf(origin, "/old")))
      assert.strictEqual(error._tag === "TokenErrorResponse" ? error.status : error._tag, 307)
      assert.deepStrictEqual(seen, ["/old"])
    }))

  it.scopedLive("a 401 with an endless body does not hang", () =>
    Effect.gen(function*() {
      let issued = 0
      const origin = yield* listen((request, response) => {
        if (request.url === "/token") return grantToken(response, `t${++issued}`)
        if (request.headers.authorization === "Bearer t2") return void response.end("fine")
        response.statusCode = 401
        const more = (): void => {
          if (!response.destroyed && response.write(Buffer.alloc(16_384))) setImmediate(more)
        }
        response.on("drain", more).on("error", () => {})
        more()
      })
      const body = yield* Effect.flatMap(HttpClient.HttpClient, (_) => _.get(`${origin}/x`)).pipe(
        Effect.flatMap((response) => response.text),
        Effect.provide(alf(origin))
      )
      assert.strictEqual(body, "fine")
    }))
})

describe("a pool of one connection", () => {
  it.scopedLive("is free again after a 401", () =>
    Effect.gen(function*() {
      let issued = 0
      const origin = yield* listen((request, response) => {
        if (request.url === "/token") return grantToken(response, `t${++issued}`)
        response.statusCode = request.headers.authorization === "Bearer t2" ? 200 : 401
        response.end("x".repeat(100_000))
      })
      const pool = Layer.scoped(
        NodeHttpClient.Dispatcher,
        Effect.acquireRelease(
          Effect.sync(() => new Undici.Agent({ connections: 1, pipelining: 1 })),
          (agent) => Effect.promise(() => agent.destroy())
        )
      )
      const layer = Alf.layer({ tokenEndpoint: `${origin}/token`, clientId: "c", origins: [origin] }).pipe(
        Layer.provide(NodeHttpClient.layerUndiciWithoutDispatcher),
        Layer.provide(pool)
      )
      const length = yield* Effect.flatMap(HttpClient.HttpClient, (_) => _.get(`${origin}/x`)).pipe(
        Effect.flatMap((response) => response.text),
        Effect.map((text) => text.length),
        Effect.provide(layer)
      )
      assert.strictEqual(length, 100_000)
    }))
})
