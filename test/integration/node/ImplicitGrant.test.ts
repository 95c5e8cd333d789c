import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Fiber, Layer, Option, Redacted, TestClock } from "effect"
import { TokenError } from "effect-alf"
import { ImplicitGrant } from "effect-alf/node"
import {
  answerUrl,
  freePorts,
  isOpen,
  makeEndpoint,
  makeWindow,
  param,
  post,
  send,
  type Sent,
  token
} from "../../support/node/signIn.ts"

const begin = (options: Partial<ImplicitGrant.Options> = {}) =>
  Effect.gen(function*() {
    const portRange = yield* freePorts(1)
    const { layer, opened } = yield* makeWindow
    const endpoint = makeEndpoint(() => Effect.succeed(token("from the token endpoint")))
    const fiber = yield* ImplicitGrant.make({
      authorizationEndpoint: "https://auth.test/authorize",
      clientId: "client",
      portRange,
      ...options
    }).acquire(Option.some(token("old", { refreshToken: "never used" }))).pipe(
      Effect.provide(Layer.merge(layer, endpoint.layer)),
      Effect.fork
    )
    const url = yield* opened
    return { url, fiber, state: param(url, "state"), port: portRange[0], forms: endpoint.forms }
  })

const good = { access_token: "abc", token_type: "Bearer", expires_in: "60" }

describe("ImplicitGrant", () => {
  it("has a key of its own", () => {
    const grant = ImplicitGrant.make({ authorizationEndpoint: "https://auth.test/authorize", clientId: "client" })
    assert.deepStrictEqual(JSON.parse(grant.key), [
      "implicit",
      "https://auth.test/authorize",
      "client",
      [],
      [],
      [],
      null,
      null
    ])
  })

  it.effect("asks for a token, and takes it from what the page posts", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const { fiber, forms, port, state, url } = yield* begin({ scope: "read  write", params: { theme: "dark" } })
      assert.strictEqual(`${url.origin}${url.pathname}`, "https://auth.test/authorize")
      assert.deepStrictEqual(Object.fromEntries(url.searchParams), {
        response_type: "token",
        client_id: "client",
        redirect_uri: `http://localhost:${port}`,
        scope: "read write",
        theme: "dark",
        state
      })
      assert.strictEqual(Buffer.from(state, "base64url").length, 16)

      // what a browser asks for once it was redirected: the fragment stays with it
      const page = yield* send(answerUrl(url, {}))
      assert.strictEqual(page.status, 200)
      assert.include(page.text, "history.replaceState")

      // the lifetime is counted from here
      yield* TestClock.adjust("2 minutes")
      const outcome = yield* post(url, { ...good, state, refresh_token: "not allowed" })
      assert.strictEqual(outcome.status, 200)
      assert.include(outcome.headers["content-type"] ?? "", "application/json")
      assert.strictEqual(JSON.parse(outcome.text).title, "Signed in")

      const got = yield* Fiber.join(fiber)
      assert.strictEqual(Redacted.value(got.value), "abc")
      assert.deepStrictEqual(got.scope, ["read", "write"])
      assert.strictEqual(DateTime.toEpochMillis(got.issuedAt), 1_120_000)
      assert.strictEqual(Option.getOrUndefined(Option.map(got.expiresAt, DateTime.toEpochMillis)), 1_180_000)
      assert.isTrue(Option.isNone(got.refreshToken))
      assert.strictEqual(forms.length, 0)
    }))

  it.effect("keeps the scope of the answer", () =>
    Effect.gen(function*() {
      const { fiber, state, url } = yield* begin({ scope: "read write" })
      yield* post(url, { ...good, state, scope: "read" })
      assert.deepStrictEqual((yield* Fiber.join(fiber)).scope, ["read"])
    }))

  it.effect.each(
    [
      [
        "a type that is not Bearer",
        { ...good, token_type: "mac" },
        "token_type is one that cannot be presented as Bearer"
      ],
      [
        "a character that no header carries",
        { ...good, access_token: "a b" },
        "access_token has a character that a header must not carry"
      ]
    ] as const
  )("an answer with %s ends it as Failed", ([, answer, errorDescription]) =>
    Effect.gen(function*() {
      const { fiber, port, state, url } = yield* begin()
      const page = yield* post(url, { ...answer, state })
      assert.strictEqual(JSON.parse(page.text).title, "Sign-in failed")
      assert.deepStrictEqual(
        yield* Effect.flip(Fiber.join(fiber)),
        new TokenError.AuthorizationError({ reason: "Failed", errorDescription })
      )
      assert.isFalse(yield* isOpen(port))
    }))

  describe("refuses a post that is none of its page's, and goes on waiting", () => {
    const cases: ReadonlyArray<readonly [name: string, status: number, sent: Sent, answer?: Record<string, string>]> = [
      ["from another origin", 400, { headers: { origin: "https://evil.test" } }],
      ["from another port", 400, { headers: { origin: "http://localhost:1" } }],
      ["from the other loopback name", 400, { headers: { origin: "http://127.0.0.1" } }],
      ["from an opaque origin", 400, { headers: { origin: "null" } }],
      ["that is not a form", 400, { headers: { "content-type": "text/plain" } }],
      ["without a token", 400, {}, { access_token: "" }],
      ["of another sign-in", 400, {}, { state: "other" }],
      ["over 1 MiB", 413, {}, { access_token: "x".repeat(1024 * 1024) }]
    ]
    it.effect.each(cases)("%s: %i", ([, status, sent, answer]) =>
      Effect.gen(function*() {
        const { fiber, state, url } = yield* begin()
        assert.strictEqual((yield* post(url, { ...good, state, ...answer }, sent)).status, status)
        yield* post(url, { ...good, state })
        assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "abc")
      }))

    it.effect("without an origin, or endless", () =>
      Effect.gen(function*() {
        const { fiber, state, url } = yield* begin()
        const home = new URL(param(url, "redirect_uri"))
        const form = { "content-type": "application/x-www-form-urlencoded" }
        const body = new URLSearchParams({ ...good, state }).toString()
        assert.strictEqual((yield* send(home, { method: "POST", headers: form, body })).status, 400)
        const chunked = yield* Effect.exit(send(home, {
          method: "POST",
          headers: { ...form, "origin": home.origin, "transfer-encoding": "chunked" },
          body: `x=${"x".repeat(2 * 1024 * 1024)}&${body}`
        }))
        assert.isTrue(chunked._tag === "Failure" || chunked.value.status >= 400)
        yield* post(url, { ...good, state })
        assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "abc")
      }))

    it.effect("of 1 MiB is read, and one more is not", () =>
      Effect.gen(function*() {
        const { fiber, state, url } = yield* begin()
        const home = new URL(param(url, "redirect_uri"))
        for (const [length, status] of [[1024 * 1024, 400], [1024 * 1024 + 1, 413]] as const) {
          const headers = {
            "content-type": "application/x-www-form-urlencoded",
            "content-length": length,
            "origin": home.origin
          }
          const page = yield* send(home, { method: "POST", headers, body: "x".repeat(length) })
          assert.strictEqual(page.status, status)
        }
        yield* post(url, { ...good, state })
        yield* Fiber.join(fiber)
      }))

    it.effect("a token in a query is not taken", () =>
      Effect.gen(function*() {
        const { fiber, state, url } = yield* begin()
        const page = yield* send(answerUrl(url, { ...good, access_token: "leaked", state }))
        assert.notInclude(page.text, "leaked")
        yield* post(url, { ...good, state })
        assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "abc")
      }))
  })
})
