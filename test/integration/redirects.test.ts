/** A redirect takes neither the client's secret nor a token to where it leads. */
import { FetchHttpClient, HttpClient, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { Alf, ClientAuthentication } from "effect-alf"
import { answer, apiServer, bearerOf, serve } from "../support/apiServer.ts"
import { loopbackServer } from "../support/loopbackServer.ts"
import { transports } from "../support/transports.ts"

const secret = "the-secret"

/** A server that sends everybody to the same path of another one. */
const redirecting = (status: number, to: string) =>
  serve((request, response) => answer(response, status, {}, { location: `${to}${request.path}` }))

for (const [transport, layer] of transports) {
  describe(`over ${transport}`, { concurrent: true }, () => {
    for (const method of ["basic", "post"] as const) {
      it.scopedLive.each([301, 302, 303, 307, 308])(
        `a token endpoint that answers %i is not followed (${method})`,
        (status) =>
          Effect.gen(function*() {
            const elsewhere = yield* loopbackServer()
            const redirect = yield* redirecting(status, elsewhere.url)
            const api = yield* apiServer(() => true)
            const { authorizedHttpClient } = yield* Alf.make({
              tokenEndpoint: `${redirect.url}/token`,
              clientId: "client",
              clientSecret: Redacted.make(secret),
              clientAuthentication: ClientAuthentication[method],
              origins: [api.url]
            })
            const error = yield* Effect.flip(authorizedHttpClient.get(`${api.url}/resource`))
            if (error._tag !== "TokenErrorResponse") assert.fail(String(error))
            assert.strictEqual(error.status, status)
            assert.strictEqual(error.attempts, 1)
            assert.strictEqual(redirect.requests.length, 1)
            assert.strictEqual(elsewhere.requests.length, 0)
            assert.strictEqual(api.requests.length, 0)
          }).pipe(Effect.provide(layer))
      )
    }

    it.scopedLive("an API that sends to another origin does not send the token there", () =>
      Effect.gen(function*() {
        const auth = yield* loopbackServer()
        const elsewhere = yield* serve((_, response) => answer(response, 200, {}))
        const api = yield* redirecting(307, elsewhere.url)
        const { authorizedHttpClient } = yield* Alf.make({
          tokenEndpoint: auth.tokenEndpoint,
          clientId: "client",
          clientSecret: Redacted.make(secret),
          origins: [api.url]
        })
        const client = HttpClient.followRedirects(authorizedHttpClient)
        const response = yield* client.execute(
          HttpClientRequest.post(`${api.url}/resource`).pipe(HttpClientRequest.bodyText("text"))
        ).pipe(Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }))
        assert.strictEqual(response.status, 200)
        assert.deepStrictEqual(api.requests.map(bearerOf), ["token-1"])
        assert.deepStrictEqual(elsewhere.requests.map(({ body, headers }) => [headers.authorization, body]), [
          [undefined, "text"]
        ])
      }).pipe(Effect.provide(layer)))

    it.scopedLive("an API that sends to another listed origin is followed with the token", () =>
      Effect.gen(function*() {
        const auth = yield* loopbackServer()
        const other = yield* apiServer((token) => token === auth.current())
        const api = yield* redirecting(307, other.url)
        const { httpClient } = yield* Alf.make({
          tokenEndpoint: auth.tokenEndpoint,
          clientId: "client",
          clientSecret: Redacted.make(secret),
          origins: [api.url, other.url]
        })
        const response = yield* HttpClient.followRedirects(httpClient).get(`${api.url}/resource`).pipe(
          Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" })
        )
        assert.strictEqual(response.status, 200)
        assert.deepStrictEqual(other.requests.map(bearerOf), ["token-1"])
        assert.strictEqual(auth.requests.length, 1)
      }).pipe(Effect.provide(layer)))
  })
}

describe("fetch", () => {
  it.scopedLive("follows a redirect by itself, and does not send the token to another origin", () =>
    Effect.gen(function*() {
      const auth = yield* loopbackServer()
      const elsewhere = yield* serve((_, response) => answer(response, 200, {}))
      const api = yield* redirecting(302, elsewhere.url)
      const { httpClient } = yield* Alf.make({
        tokenEndpoint: auth.tokenEndpoint,
        clientId: "client",
        clientSecret: Redacted.make(secret),
        origins: [api.url]
      })
      const response = yield* httpClient.get(`${api.url}/resource`)
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(api.requests.map(bearerOf), ["token-1"])
      assert.deepStrictEqual(elsewhere.requests.map(({ headers }) => headers.authorization), [undefined])
    }).pipe(Effect.provide(FetchHttpClient.layer)))
})
