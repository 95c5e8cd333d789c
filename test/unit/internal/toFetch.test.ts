import { HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Alf, AuthorizedHttpClient, TokenError } from "effect-alf"
import { goodToken, type Received, scripted } from "../../support/scriptedClient.ts"

const api = "https://api.test"

const layerOver = (http: { readonly layer: Layer.Layer<HttpClient.HttpClient> }) =>
  Layer.provide(
    Alf.layer({
      tokenEndpoint: "https://auth.test/token",
      clientId: "client",
      clientSecret: Redacted.make("a-secret"),
      origins: [api],
      tokenRetry: { times: 0 }
    }),
    http.layer
  )

const isToken = ({ url }: Received) => url === "https://auth.test/token"

/** A fetch over an API that is scripted; its tokens are `token-1`, `token-2`, … */
const fetchOver = (handler: (request: Received, n: number) => Response | Effect.Effect<Response, never>) => {
  let issued = 0
  let calls = 0
  const http = scripted((request) => isToken(request) ? goodToken(`token-${++issued}`) : handler(request, calls++))
  return {
    calls: () => http.requests.filter((request) => !isToken(request)),
    run: (test: (fetch: typeof globalThis.fetch) => Promise<void>) =>
      Effect.flatMap(AuthorizedHttpClient.toFetch, (fetch) => Effect.promise(() => test(fetch))).pipe(
        Effect.provide(layerOver(http))
      )
  }
}

const rejection = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => assert.fail("it did not reject"), (error: unknown) => error)

describe("toFetch", () => {
  it.live("sends method, headers, query and body, with a token", () => {
    const world = fetchOver((request) => Response.json({ got: request.body }, { status: 201, headers: { "x-a": "b" } }))
    return world.run(async (fetch) => {
      const response = await fetch(`${api}/path?q=1`, {
        method: "POST",
        headers: { "x-own": "1", "content-type": "application/json" },
        body: JSON.stringify({ a: "ä" })
      })
      assert.deepStrictEqual(
        [response.status, response.ok, response.headers.get("x-a"), response.url, response.redirected],
        [201, true, "b", `${api}/path?q=1`, false]
      )
      assert.deepStrictEqual(await response.json(), { got: "{\"a\":\"ä\"}" })
      const [sent] = world.calls()
      assert.strictEqual(sent?.method, "POST")
      assert.deepInclude(sent?.headers, {
        "x-own": "1",
        "content-type": "application/json",
        authorization: "Bearer token-1"
      })
    })
  })

  it.live("takes a Request, a URL, bytes, forms and parameters", () => {
    const world = fetchOver((request) => new Response(`${request.method} ${request.body}`))
    return world.run(async (fetch) => {
      const text = async (response: Promise<Response>) => (await response).text()
      assert.strictEqual(await text(fetch(new Request(`${api}/`, { method: "PUT", body: "a" }))), "PUT a")
      assert.strictEqual(await text(fetch(new URL(api))), "GET ")
      assert.strictEqual(await text(fetch(api, { method: "PATCH", body: new Uint8Array([98]) })), "PATCH b")
      assert.strictEqual(await text(fetch(api, { method: "POST", body: new URLSearchParams({ c: "d" }) })), "POST c=d")
      const form = new FormData()
      form.set("e", "f")
      assert.include(await text(fetch(api, { method: "POST", body: form })), "name=\"e\"")
      assert.include(world.calls().at(-1)?.headers["content-type"], "multipart/form-data; boundary=")
      assert.strictEqual((await fetch(api, { method: "DELETE" })).status, 200)
      assert.instanceOf(await rejection(fetch(api, { method: "PROPFIND" })), TypeError)
    })
  })

  it.live("repeats a rejected request once, with its body", () => {
    const world = fetchOver((request) =>
      request.headers["authorization"] === "Bearer token-1"
        ? new Response("no", { status: 401 })
        : new Response(request.body)
    )
    return world.run(async (fetch) => {
      assert.strictEqual(await (await fetch(api, { method: "POST", body: "again" })).text(), "again")
      assert.lengthOf(world.calls(), 2)
    })
  })

  it.live("streams a body of a request, which is not repeated", () => {
    const world = fetchOver((request) => new Response(request.body, { status: world.calls().length === 1 ? 401 : 200 }))
    return world.run(async (fetch) => {
      const stream = () => new Blob(["a", "b"]).stream()
      const first = await fetch(api, { method: "POST", body: stream() })
      assert.deepStrictEqual([first.status, await first.text(), world.calls().length], [401, "ab", 1])
      const second = await fetch(api, { method: "POST", body: stream() })
      assert.deepStrictEqual([second.status, await second.text()], [200, "ab"])
    })
  })

  it.live("streams the body of a response as it comes", () => {
    let more: (text: string) => void = () => {}
    let close: () => void = () => {}
    const world = fetchOver(() =>
      new Response(
        new ReadableStream({
          start: (controller) => {
            more = (text) => controller.enqueue(new TextEncoder().encode(text))
            close = () => controller.close()
          }
        })
      )
    )
    return world.run(async (fetch) => {
      const response = await fetch(api)
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
      more("first")
      assert.deepStrictEqual(await reader?.read(), { done: false, value: "first" })
      more("second")
      assert.deepStrictEqual(await reader?.read(), { done: false, value: "second" })
      close()
      assert.isTrue((await reader?.read())?.done)
    })
  })

  it.live("is interrupted by its signal: before, during the request, and while the body is read", () => {
    let interrupted = 0
    const world = fetchOver((request) =>
      request.url.endsWith("/slow")
        ? Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
        : new Response(new ReadableStream({ start: (controller) => controller.enqueue(new Uint8Array([97])) }))
    )
    return world.run(async (fetch) => {
      const reason = new Error("enough")
      assert.strictEqual(await rejection(fetch(api, { signal: AbortSignal.abort(reason) })), reason)
      assert.lengthOf(world.calls(), 0)

      const during = new AbortController()
      const slow = rejection(fetch(`${api}/slow`, { signal: during.signal }))
      while (world.calls().length === 0) await new Promise((resolve) => setImmediate(resolve))
      during.abort(reason)
      assert.strictEqual(await slow, reason)
      assert.strictEqual(interrupted, 1)

      const reading = new AbortController()
      const response = await fetch(api, { signal: reading.signal })
      const text = rejection(response.text())
      reading.abort(reason)
      assert.isDefined(await text)
    })
  })

  describe("redirects", () => {
    const hops = (status: number, location: string) => (request: Received) =>
      request.url.startsWith(`${api}/from`)
        ? new Response(null, { status, headers: { location } })
        : new Response(`${request.method} ${request.url} ${request.body} ${request.headers["authorization"] ?? "none"}`)

    it.live("are followed as fetch does", () => {
      const cases = [
        [303, "/to", "PUT", "GET"],
        [302, "/to", "POST", "GET"],
        [301, "/to", "POST", "GET"],
        [302, "/to", "PUT", "PUT"],
        [307, "/to", "POST", "POST"],
        [308, "/to", "PUT", "PUT"],
        [303, "/to", "GET", "GET"]
      ] as const
      return Effect.forEach(cases, ([status, location, method, expected]) => {
        const body = method === "GET" ? null : "body"
        return fetchOver(hops(status, location)).run(async (fetch) => {
          const response = await fetch(`${api}/from`, { method, body })
          const kept = expected === method && body !== null ? "body" : ""
          assert.strictEqual(await response.text(), `${expected} ${api}/to ${kept} Bearer token-1`)
          assert.deepStrictEqual([response.url, response.redirected], [`${api}/to`, true])
        })
      })
    })

    it.live("leave no body unread, which would hold its connection", () => {
      let cancelled = 0
      const endless = () =>
        new ReadableStream({
          pull: (controller) => controller.enqueue(new Uint8Array(64 * 1024)),
          cancel: () => {
            cancelled++
          }
        })
      return fetchOver((_, n) =>
        n < 3 ? new Response(endless(), { status: 307, headers: { location: `/${n}` } }) : new Response("there")
      ).run(async (fetch) => {
        assert.strictEqual(await (await fetch(api)).text(), "there")
        assert.strictEqual(cancelled, 3)
      })
    })

    it.live("to another origin carry no token of this one, nor the caller's own credentials", () => {
      const world = fetchOver(hops(302, "https://elsewhere.test/"))
      return world.run(async (fetch) => {
        const response = await fetch(`${api}/from`, { headers: { cookie: "a=b" } })
        assert.match(await response.text(), /none$/)
        assert.isUndefined(world.calls().at(-1)?.headers["cookie"])
      })
    })

    it.live("are the response with \"manual\", and an error with \"error\" or without end", () => {
      const world = fetchOver(hops(302, "/from/again"))
      return world.run(async (fetch) => {
        const manual = await fetch(`${api}/from`, { redirect: "manual" })
        assert.deepStrictEqual([manual.status, manual.headers.get("location")], [302, "/from/again"])
        assert.instanceOf(await rejection(fetch(`${api}/from`, { redirect: "error" })), TypeError)
        const before = world.calls().length
        assert.instanceOf(await rejection(fetch(`${api}/from`)), TypeError)
        assert.strictEqual(world.calls().length - before, 21)
      })
    })
  })

  it.live("has the status that came, also one that no standard names", () => {
    const odd = Object.defineProperty(new Response("stop"), "status", { value: 999 })
    return fetchOver(() => odd).run(async (fetch) => {
      const response = await fetch(api)
      assert.deepStrictEqual([response.status, response.ok, await response.text()], [999, false, "stop"])
    })
  })

  it.live("has no body where there can be none", () => {
    const world = fetchOver((_, n) => new Response(null, { status: [204, 205, 304][n] ?? 200 }))
    return world.run(async (fetch) => {
      for (const status of [204, 205, 304]) {
        const response = await fetch(api)
        assert.deepStrictEqual([response.status, response.body], [status, null])
      }
    })
  })

  it.live("rejects with a TypeError whose cause is the typed error", () => {
    const http = scripted(() => Response.json({ error: "invalid_client" }, { status: 401 }))
    return Effect.flatMap(AuthorizedHttpClient.toFetch, (fetch) =>
      Effect.promise(async () => {
        const error = await rejection(fetch(api))
        assert.instanceOf(error, TypeError)
        assert.isTrue(HttpClientError.isHttpClientError(error.cause))
        const cause = error.cause instanceof Error ? error.cause.cause : undefined
        assert.instanceOf(cause, TokenError.TokenErrorResponse)
      })).pipe(Effect.provide(layerOver(http)))
  })

  it.live("goes over any client", () => {
    const client = HttpClient.make((request) =>
      Effect.succeed(HttpClientResponse.fromWeb(request, new Response("plain")))
    )
    return Effect.flatMap(
      AuthorizedHttpClient.toFetch,
      (fetch) => Effect.promise(async () => assert.strictEqual(await (await fetch(api)).text(), "plain"))
    ).pipe(
      Effect.provideService(HttpClient.HttpClient, client)
    )
  })
})
