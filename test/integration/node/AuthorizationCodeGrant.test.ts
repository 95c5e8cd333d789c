import { FetchHttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Option, Redacted, TestClock } from "effect"
import { type AccessToken, Alf, TokenError, TokenService, TokenStorage } from "effect-alf"
import { AuthorizationCodeGrant } from "effect-alf/node"
import { createHash } from "node:crypto"
import {
  answerUrl,
  freePorts,
  isOpen,
  makeEndpoint,
  makeWindow,
  param,
  send,
  token
} from "../../support/node/signIn.ts"

const authorizationEndpoint = "https://auth.test/authorize?tenant=a%20b"

const setup = (
  options: Partial<AuthorizationCodeGrant.Options> = {},
  answer: () => Effect.Effect<AccessToken.AccessToken, TokenError.TokenError> = () => Effect.succeed(token("new"))
) =>
  Effect.gen(function*() {
    const portRange = yield* freePorts(1)
    const window = yield* makeWindow
    const endpoint = makeEndpoint(answer)
    const grant = AuthorizationCodeGrant.make({ authorizationEndpoint, clientId: "client", portRange, ...options })
    const acquire = (previous: Option.Option<AccessToken.AccessToken> = Option.none()) =>
      Effect.provide(grant.acquire(previous), Layer.merge(window.layer, endpoint.layer))
    return { ...window, acquire, forms: endpoint.forms, grant, port: portRange[0] }
  })

const refusal = (error: string) =>
  new TokenError.TokenErrorResponse({ endpoint: "https://auth.test/token", status: 400, error, attempts: 1, body: "" })

describe("AuthorizationCodeGrant", () => {
  it.effect("asks with PKCE, and exchanges the code at the token endpoint", () =>
    Effect.gen(function*() {
      const { acquire, forms, opened, port } = yield* setup({
        scope: ["read", "write all"],
        params: { prompt: "login" }
      })
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      const state = param(url, "state")
      assert.strictEqual(`${url.origin}${url.pathname}`, "https://auth.test/authorize")
      assert.deepStrictEqual(Object.fromEntries(url.searchParams), {
        tenant: "a b",
        response_type: "code",
        client_id: "client",
        redirect_uri: `http://127.0.0.1:${port}`,
        scope: "read write all",
        prompt: "login",
        state,
        code_challenge: param(url, "code_challenge"),
        code_challenge_method: "S256"
      })
      assert.strictEqual(Buffer.from(state, "base64url").length, 16)

      const page = yield* send(answerUrl(url, { code: "the code", state }))
      assert.strictEqual(page.status, 200)
      assert.include(page.text, "<h1>Signed in</h1>")
      assert.strictEqual(Number(page.headers["content-length"]), Buffer.byteLength(page.text))

      const got = yield* Fiber.join(fiber)
      assert.strictEqual(Redacted.value(got.value), "new")
      assert.deepStrictEqual(got.scope, ["read", "write", "all"])
      const verifier = forms[0]?.["code_verifier"] ?? ""
      assert.deepStrictEqual(forms, [{
        grant_type: "authorization_code",
        code: "the code",
        redirect_uri: `http://127.0.0.1:${port}`,
        code_verifier: verifier
      }])
      assert.match(verifier, /^[A-Za-z0-9_-]{43}$/)
      assert.strictEqual(createHash("sha256").update(verifier).digest("base64url"), param(url, "code_challenge"))
    }))

  it.effect("makes state and verifier anew for each sign-in", () =>
    Effect.gen(function*() {
      const { acquire, forms, opened } = yield* setup()
      const states = new Set<string>()
      for (let i = 0; i < 3; i++) {
        const fiber = yield* Effect.fork(acquire())
        const url = yield* opened
        states.add(param(url, "state"))
        yield* send(answerUrl(url, { code: "c", state: param(url, "state") }))
        yield* Fiber.join(fiber)
      }
      assert.strictEqual(states.size, 3)
      assert.strictEqual(new Set(forms.map((form) => form["code_verifier"])).size, 3)
    }))

  it.effect("keeps the scope that the token endpoint names", () =>
    Effect.gen(function*() {
      const { acquire, opened } = yield* setup({ scope: "read write" }, () =>
        Effect.succeed(token("new", { scope: ["read"] })))
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      yield* send(answerUrl(url, { code: "c", state: param(url, "state") }))
      assert.deepStrictEqual((yield* Fiber.join(fiber)).scope, ["read"])
    }))

  it.effect("asks nobody while there is a refresh token that serves", () =>
    Effect.gen(function*() {
      const { acquire, forms, waiting } = yield* setup()
      yield* acquire(Option.some(token("old", { refreshToken: "refresh" })))
      assert.deepStrictEqual(forms, [{ grant_type: "refresh_token", refresh_token: "refresh" }])
      assert.strictEqual(yield* waiting, 0)
    }))

  it.effect("asks again when the refresh token is no longer good", () =>
    Effect.gen(function*() {
      const portRange = yield* freePorts(1)
      const window = yield* makeWindow
      const endpoint = makeEndpoint((form) =>
        form["grant_type"] === "refresh_token" ? Effect.fail(refusal("invalid_grant")) : Effect.succeed(token("new"))
      )
      const grant = AuthorizationCodeGrant.make({ authorizationEndpoint, clientId: "client", portRange })
      const fiber = yield* grant.acquire(Option.some(token("old", { refreshToken: "revoked" }))).pipe(
        Effect.provide(Layer.merge(window.layer, endpoint.layer)),
        Effect.fork
      )
      const url = yield* window.opened
      yield* send(answerUrl(url, { code: "c", state: param(url, "state") }))
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "new")
      assert.deepStrictEqual(endpoint.forms.map((form) => form["grant_type"]), ["refresh_token", "authorization_code"])
    }))

  it.effect("an error at the token endpoint is the sign-in's own, and the page says so without its words", () =>
    Effect.gen(function*() {
      const { acquire, opened, port } = yield* setup({}, () => Effect.fail(refusal("invalid_client")))
      const fiber = yield* Effect.fork(Effect.flip(acquire()))
      const url = yield* opened
      const page = yield* send(answerUrl(url, { code: "c", state: param(url, "state") }))
      assert.deepStrictEqual(yield* Fiber.join(fiber), refusal("invalid_client"))
      assert.strictEqual(page.status, 502)
      assert.include(page.text, "<h1>Sign-in failed</h1>")
      assert.include(page.text, "The authorization server responded, but the program got no token.")
      assert.include(page.text, "<main class=\"bad\">")
      assert.notInclude(page.text, "invalid_client")
      assert.isFalse(yield* isOpen(port))
    }))

  it.effect("an answer whose code is empty is none", () =>
    Effect.gen(function*() {
      const { acquire, forms, opened } = yield* setup()
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      const state = param(url, "state")
      assert.strictEqual((yield* send(answerUrl(url, { code: "", state }))).status, 400)
      yield* send(answerUrl(url, { code: "c", state }))
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(forms.map(({ code }) => code), ["c"])
    }))

  it.effect("a program that ends during the exchange leaves a page that says so", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const { acquire, opened, port } = yield* setup({}, () =>
        Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never))
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      const page = yield* Effect.fork(send(answerUrl(url, { code: "c", state: param(url, "state") })))
      yield* Deferred.await(asked)
      yield* Fiber.interrupt(fiber)
      assert.include((yield* Fiber.join(page)).text, "<h1>Sign-in expired</h1>")
      assert.isFalse(yield* isOpen(port))
    }))

  it.effect("the time-out counts until the answer, not until the token", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const answered = yield* Deferred.make<AccessToken.AccessToken>()
      const { acquire, opened } = yield* setup({ timeout: "1 minute" }, () =>
        Effect.zipRight(Deferred.succeed(asked, undefined), Deferred.await(answered)))
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      const page = yield* Effect.fork(send(answerUrl(url, { code: "c", state: param(url, "state") })))
      yield* Deferred.await(asked)
      yield* TestClock.adjust("2 minutes")
      yield* Deferred.succeed(answered, token("late"))
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "late")
      assert.include((yield* Fiber.join(page)).text, "Signed in")
    }))

  it.effect("a window that is closed during the exchange changes nothing", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const answered = yield* Deferred.make<AccessToken.AccessToken>()
      const { acquire, opened, port } = yield* setup({}, () =>
        Effect.zipRight(Deferred.succeed(asked, undefined), Deferred.await(answered)))
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      const page = yield* Effect.fork(send(answerUrl(url, { code: "c", state: param(url, "state") })))
      yield* Deferred.await(asked)
      yield* Fiber.interrupt(page)
      yield* Deferred.succeed(answered, token("new"))
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "new")
      assert.isFalse(yield* isOpen(port))
    }))

  it.effect("the first response counts, and a browser that brings it again sees how it ended", () =>
    Effect.gen(function*() {
      const asked = yield* Deferred.make<void>()
      const answered = yield* Deferred.make<AccessToken.AccessToken>()
      const { acquire, forms, opened } = yield* setup(
        {},
        () => Effect.zipRight(Deferred.succeed(asked, undefined), Deferred.await(answered))
      )
      const fiber = yield* Effect.fork(acquire())
      const url = yield* opened
      const answer = (code: string) => Effect.fork(send(answerUrl(url, { code, state: param(url, "state") })))
      const first = yield* answer("one")
      yield* Deferred.await(asked)
      const second = yield* answer("two")
      // refused at once, so the answer before it has been taken in
      assert.strictEqual((yield* send(answerUrl(url, { code: "three", state: "wrong" }))).status, 400)
      yield* Deferred.succeed(answered, token("new"))
      yield* Fiber.join(fiber)
      for (const page of [first, second]) assert.include((yield* Fiber.join(page)).text, "Signed in")
      assert.deepStrictEqual(forms.map((form) => form["code"]), ["one"])
    }))

  it.effect("with an issuer, an answer of another one ends the sign-in", () =>
    Effect.gen(function*() {
      for (
        const [iss, reason] of [["https://auth.test", "ok"], ["https://evil.test", "IssuerMismatch"], [
          undefined,
          "IssuerMismatch"
        ]] as const
      ) {
        const { acquire, forms, opened } = yield* setup({ issuer: "https://auth.test" })
        const fiber = yield* Effect.fork(Effect.either(acquire()))
        const url = yield* opened
        const answer = { code: "c", state: param(url, "state"), error: reason === "ok" ? "" : "access_denied" }
        const page = yield* send(answerUrl(url, iss === undefined ? answer : { ...answer, iss }))
        const result = yield* Fiber.join(fiber)
        assert.strictEqual(result._tag === "Right" ? "ok" : "reason" in result.left && result.left.reason, reason)
        assert.include(page.text, reason === "ok" ? "Signed in" : "Sign-in failed")
        assert.strictEqual(forms.length, reason === "ok" ? 1 : 0)
      }
    }))

  it.effect("a hundred fibers that need a token open one window, and the next program over the same storage none", () =>
    Effect.gen(function*() {
      const { grant, layer, opened, waiting } = yield* setup()
      const endpoint = makeEndpoint(() => Effect.succeed(token("one")))
      // each a program of its own
      const program = <A, E>(effect: Effect.Effect<A, E, TokenService.TokenService>) =>
        Effect.provide(effect, Layer.fresh(TokenService.layer({ grant })))
      yield* Effect.gen(function*() {
        const got = yield* program(Effect.gen(function*() {
          const { get } = yield* TokenService.TokenService
          const fibers = yield* Effect.forkAll(Array.from({ length: 100 }, () => get))
          const url = yield* opened
          yield* send(answerUrl(url, { code: "c", state: param(url, "state") }))
          return yield* Fiber.join(fibers)
        }))
        const later = yield* program(Effect.flatMap(TokenService.TokenService, ({ get }) => get))
        assert.deepStrictEqual(
          new Set([...got, later].map(({ value }) => Redacted.value(value))),
          new Set(["one"])
        )
      }).pipe(Effect.provide(Layer.mergeAll(layer, endpoint.layer, TokenStorage.layerMemory)))
      assert.strictEqual(endpoint.forms.length, 1)
      assert.strictEqual(yield* waiting, 0)
    }))

  it.scoped("options that cannot work are found when the layer is built", () =>
    Effect.gen(function*() {
      const { layer } = yield* makeWindow
      const error = yield* Alf.make({
        tokenEndpoint: "https://auth.test/token",
        clientId: "client",
        grant: AuthorizationCodeGrant.make({ authorizationEndpoint: "http://auth.test/authorize", clientId: "client" }),
        origins: ["https://api.test"]
      }).pipe(Effect.provide(Layer.merge(layer, FetchHttpClient.layer)), Effect.flip)
      assert.strictEqual(error._tag, "ConfigurationError")
      assert.match(error.issue, /^authorizationEndpoint is plain http/)
    }))

  it("two grants share tokens only if they ask for the same", () => {
    const base = { authorizationEndpoint, clientId: "client" }
    const key = (options: Partial<AuthorizationCodeGrant.Options>) =>
      AuthorizationCodeGrant.make({ ...base, ...options }).key
    assert.strictEqual(
      key({ scope: "a b" }),
      key({ scope: ["b", "a", "b"], portRange: [5000, 5001], timeout: "1 hour" })
    )
    assert.strictEqual(key({ params: { x: "1", y: "2" } }), key({ params: { y: "2", x: "1" } }))
    const keys = [
      key({}),
      key({ scope: "a" }),
      key({ params: { x: "1" } }),
      key({ clientId: "other" }),
      key({ authorizationEndpoint: "https://other.test/authorize" })
    ]
    assert.strictEqual(new Set(keys).size, keys.length)
    for (const key of keys) assert.include(key, "authorization_code")
  })
})
