/** What the authorization code grant takes from the authorization server, over the loopback listener. */
import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted, TestClock } from "effect"
import { Alf, AuthorizationServer, ClientAuthentication, TokenError, TokenStorage } from "effect-alf"
import { AuthorizationCodeGrant, type Browser, ImplicitGrant } from "effect-alf/node"
import { settle } from "../../support/scriptedServer.ts"
import { answerUrl, freePorts, makeWindow, param, post, send } from "../../support/node/signIn.ts"
import { broken, goodToken, json, type Received, scripted } from "../../support/scriptedClient.ts"

const usual = {
  issuer: "https://auth.test",
  tokenEndpoint: "https://auth.test/token",
  authorizationEndpoint: "https://auth.test/authorize?tenant=1",
  pushedAuthorizationRequestEndpoint: "https://auth.test/par"
}

type Answer = (request: Received, n: number) => Response | ReturnType<typeof broken>

/** A program that signs in; `answers` are those of the token endpoint, the last one again and again. */
const setup = (
  grant: AuthorizationCodeGrant.Options = {},
  metadata: Partial<ConstructorParameters<typeof AuthorizationServer.Metadata>[0]> = {},
  answers: ReadonlyArray<Answer> = [() => goodToken("token")],
  more: Partial<Extract<Alf.Options, { readonly metadata: AuthorizationServer.Metadata }>> = {}
) =>
  Effect.gen(function*() {
    const portRange = yield* freePorts(1)
    const window = yield* makeWindow
    let tokens = 0
    const http = scripted((request, n) =>
      request.url.endsWith("/par")
        ? json({ request_uri: "urn:request:1", expires_in: 60 }, { status: 201 })
        : answers[Math.min(tokens++, answers.length - 1)]!(request, n)
    )
    const clients = yield* Alf.make<Browser.Browser>({
      metadata: new AuthorizationServer.Metadata({ ...usual, ...metadata }),
      clientId: "client",
      origins: ["https://api.test"],
      ...more,
      grant: AuthorizationCodeGrant.make({ portRange, ...grant })
    }).pipe(Effect.provide(Layer.merge(window.layer, http.layer)))
    const forms = (path: string) =>
      http.requests.filter(({ url }) => url.endsWith(path)).map(({ body }) => new URLSearchParams(body))
    return { ...clients, http, window, forms, portRange }
  })

type World = Effect.Effect.Success<ReturnType<typeof setup>>

/** Signs in by what the server answers in the redirect. */
const signIn = ({ tokens, window }: World, answer: Readonly<Record<string, string>> = { code: "the-code" }) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(tokens.get)
    const url = yield* window.opened
    // of a pushed request the URL holds neither state nor redirect URI
    if (url.searchParams.has("state")) yield* send(answerUrl(url, { ...answer, state: param(url, "state") }))
    return { url, fiber }
  })

const refused = (world: World, answer?: Readonly<Record<string, string>>) =>
  Effect.flatMap(signIn(world, answer), ({ fiber }) => Effect.flip(Fiber.join(fiber)))

describe("what the options leave out comes from the authorization server", () => {
  it.scoped("endpoints and client id", () =>
    Effect.gen(function*() {
      const world = yield* setup({ scope: ["openid"], resource: "https://api.test", params: { prompt: "consent" } })
      const { fiber, url } = yield* signIn(world)
      yield* Fiber.join(fiber)
      assert.strictEqual(url.origin + url.pathname, "https://auth.test/authorize")
      const { code_challenge, redirect_uri, state, ...params } = Object.fromEntries(url.searchParams)
      assert.deepStrictEqual(params, {
        tenant: "1",
        prompt: "consent",
        response_type: "code",
        scope: "openid",
        resource: "https://api.test",
        client_id: "client",
        code_challenge_method: "S256"
      })
      const { code_verifier, ...form } = Object.fromEntries(world.forms("/token")[0] ?? [])
      assert.deepStrictEqual(form, {
        grant_type: "authorization_code",
        code: "the-code",
        redirect_uri: redirect_uri ?? "",
        resource: "https://api.test",
        client_id: "client"
      })
      assert.isAtLeast(code_verifier?.length ?? 0, 43)
      assert.isNotEmpty(code_challenge)
      assert.isNotEmpty(state)
    }))

  it.scoped("a server without an authorization endpoint is Unsupported", () =>
    Effect.gen(function*() {
      const { tokens } = yield* setup({}, { authorizationEndpoint: undefined })
      const error = yield* Effect.flip(tokens.get)
      assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Unsupported")
      assert.include(error.message, "authorizationEndpoint")
    }))

  it.scoped("a server that lists PKCE methods without S256 is Unsupported", () =>
    Effect.gen(function*() {
      const { tokens } = yield* setup({}, { codeChallengeMethodsSupported: ["plain"] })
      const error = yield* Effect.flip(tokens.get)
      assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Unsupported")
      const fine = yield* setup({}, { codeChallengeMethodsSupported: ["plain", "S256"] })
      yield* Effect.flatMap(signIn(fine), ({ fiber }) => Fiber.join(fiber))
    }))
})

describe("iss in the response (RFC 9207)", () => {
  const required = { authorizationResponseIssParameterSupported: true }
  it.scoped("has to be there where the metadata says so", () =>
    Effect.gen(function*() {
      const missing = yield* refused(yield* setup({}, required))
      assert.isTrue(missing._tag === "AuthorizationError" && missing.reason === "IssuerMismatch")
      const { fiber } = yield* signIn(yield* setup({}, required), { code: "the-code", iss: "https://auth.test" })
      yield* Fiber.join(fiber)
    }))

  it.scoped("is compared character for character where it is there", () =>
    Effect.gen(function*() {
      for (const iss of ["https://auth.test/", "https://AUTH.test", "https://evil.test", ""]) {
        const world = yield* setup()
        const error = yield* refused(world, { code: "the-code", iss })
        assert.isTrue(error._tag === "AuthorizationError" && error.reason === "IssuerMismatch")
        assert.lengthOf(world.forms("/token"), 0)
      }
    }))

  it.scoped("that is wrong ends an error response too, whose words are not shown", () =>
    Effect.gen(function*() {
      const answer = { error: "access_denied", error_description: "call this number", iss: "https://evil.test" }
      const error = yield* refused(yield* setup(), answer)
      assert.isTrue(error._tag === "AuthorizationError" && error.reason === "IssuerMismatch")
      assert.notInclude(JSON.stringify(error) + String(error), "call this number")
    }))
})

describe("an error response", () => {
  it.scoped.each([["access_denied", "AccessDenied"], ["login_required", "ErrorResponse"], [
    "server_error",
    "ErrorResponse"
  ]])(
    "%s is %s",
    ([error, reason]) =>
      Effect.gen(function*() {
        const ended = yield* refused(yield* setup(), { error: error ?? "", error_description: "words" })
        assert.isTrue(ended._tag === "AuthorizationError" && ended.reason === reason && ended.error === error)
      })
  )
})

describe("pushed authorization requests (RFC 9126)", () => {
  it.scoped("are made where the metadata requires them: the browser sees client_id and request_uri only", () =>
    Effect.gen(function*() {
      const world = yield* setup(
        { scope: "openid", params: { prompt: "consent" } },
        { requirePushedAuthorizationRequests: true }
      )
      const { fiber, url } = yield* signIn(world)
      assert.deepStrictEqual(Object.fromEntries(url.searchParams), {
        tenant: "1",
        client_id: "client",
        request_uri: "urn:request:1"
      })
      const [form] = world.forms("/par")
      assert.deepStrictEqual(form?.getAll("client_id"), ["client"])
      for (const name of ["redirect_uri", "state", "code_challenge"]) assert.isTrue(form?.has(name), name)
      assert.deepStrictEqual([form?.get("scope"), form?.get("prompt"), form?.get("response_type")], [
        "openid",
        "consent",
        "code"
      ])
      const redirect = new URL(form?.get("redirect_uri") ?? "")
      redirect.search = new URLSearchParams({ code: "the-code", state: form?.get("state") ?? "" }).toString()
      yield* send(redirect)
      yield* Fiber.join(fiber)
    }))

  it.scoped("are made with \"always\", and not with \"never\"", () =>
    Effect.gen(function*() {
      const always = yield* setup({ par: "always" }, {}, undefined, {
        clientSecret: Redacted.make("a-secret"),
        clientAuthentication: ClientAuthentication.post
      })
      const pushed = yield* signIn(always)
      assert.deepStrictEqual(always.forms("/par")[0]?.getAll("client_id"), ["client"])
      assert.deepStrictEqual(always.forms("/par")[0]?.getAll("client_secret"), ["a-secret"])
      assert.notInclude(pushed.url.href, "a-secret")
      yield* Fiber.interrupt(pushed.fiber)

      const never = yield* setup({ par: "never" }, { requirePushedAuthorizationRequests: true })
      const { fiber, url } = yield* signIn(never)
      assert.strictEqual(param(url, "response_type"), "code")
      assert.lengthOf(never.forms("/par"), 0)
      yield* Fiber.join(fiber)
    }))

  it.scoped("without an endpoint are Unsupported", () =>
    Effect.gen(function*() {
      const { tokens } = yield* setup({ par: "always" }, { pushedAuthorizationRequestEndpoint: undefined })
      const error = yield* Effect.flip(tokens.get)
      assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Unsupported")
    }))
})

describe("a code", () => {
  it.scoped("is sent once, whatever the server does with it", () =>
    Effect.gen(function*() {
      for (const answer of [() => new Response("no", { status: 503 }), (request: Received) => broken(request)]) {
        const world = yield* setup({}, {}, [answer, () => goodToken("token")])
        const error = yield* refused(world)
        assert.isTrue(error._tag === "TokenErrorResponse" || error._tag === "TokenRequestError")
        assert.lengthOf(world.forms("/token"), 1)
      }
    }))

  it.scoped("is sent again where the connection was refused", () =>
    Effect.gen(function*() {
      const refusal = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" })
      const world = yield* setup({}, {}, [(request) => broken(request, refusal), () => goodToken("token")])
      // the window is answered when the sign-in has ended
      const signing = yield* Effect.fork(Effect.flatMap(signIn(world), ({ fiber }) => Fiber.join(fiber)))
      while (signing.unsafePoll() === null) {
        yield* settle
        if (world.forms("/token").length > 0) yield* TestClock.adjust("1 second")
      }
      yield* Fiber.join(signing)
      assert.lengthOf(world.forms("/token"), 2)
    }))
})

describe("a refresh", () => {
  it.scoped("names scope and resource, and no params of the sign-in", () =>
    Effect.gen(function*() {
      const world = yield* setup(
        { scope: "openid offline_access", resource: "https://api.test", params: { prompt: "consent" } },
        {},
        [() => goodToken("token-1", { refresh_token: "refresh" }), () => goodToken("token-2")]
      )
      const { fiber } = yield* signIn(world)
      yield* world.tokens.refresh(yield* Fiber.join(fiber))
      assert.deepStrictEqual(Object.fromEntries(world.forms("/token")[1] ?? []), {
        grant_type: "refresh_token",
        refresh_token: "refresh",
        scope: "openid offline_access",
        resource: "https://api.test",
        client_id: "client"
      })
    }))
})

describe("people who share a storage", () => {
  it.scoped("have a token each by their account, and by issuer", () =>
    Effect.gen(function*() {
      const storage = yield* Layer.build(TokenStorage.layerMemory)
      const start = (options: AuthorizationCodeGrant.Options) =>
        Effect.gen(function*() {
          const world = yield* Effect.provide(setup(options), storage)
          const { fiber } = yield* signIn(world, { code: "the-code", iss: "https://auth.test" })
          yield* Fiber.join(fiber)
        })
      for (
        const options of [{}, { account: "ann" }, { account: "bob" }, { issuer: "https://auth.test" }]
      ) yield* start(options)
      // nobody is asked again
      const again = yield* Effect.provide(setup({ account: "ann", portRange: [40_000, 40_000] }), storage)
      assert.notStrictEqual(
        AuthorizationCodeGrant.make({ account: "ann" }).key,
        AuthorizationCodeGrant.make({ account: "bob" }).key
      )
      assert.notStrictEqual(ImplicitGrant.make({ account: "ann" }).key, ImplicitGrant.make({ account: "bob" }).key)
      assert.strictEqual(Redacted.value((yield* again.tokens.get).value), "token")
    }))

  it.scoped("an empty account is a ConfigurationError", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(setup({ account: "" }))
      assert.instanceOf(error, TokenError.ConfigurationError)
    }))
})

describe("for a registration and for another resource", () => {
  it("says which redirect URIs it uses", () => {
    const grant = AuthorizationCodeGrant.make({ portRange: [32_000, 32_002], redirectPath: "/callback" })
    assert.deepStrictEqual(grant.registration, {
      grantTypes: ["authorization_code"],
      redirectUris: [32_000, 32_001, 32_002].map((port) => `http://127.0.0.1:${port}/callback`)
    })
    assert.isTrue(grant.signsIn)
  })

  it("asks for other scopes under a key of its own", () => {
    const grant = AuthorizationCodeGrant.make({ account: "ann" })
    const narrow = grant.narrow?.({ scope: ["a"], resource: "https://api.test" })
    assert.notStrictEqual(narrow?.key, grant.key)
    assert.include(narrow?.key, "ann")
    assert.isDefined(narrow?.narrow)
  })
})

describe("the implicit grant", () => {
  it.scoped("needs no token endpoint", () =>
    Effect.gen(function*() {
      const portRange = yield* freePorts(1)
      const window = yield* makeWindow
      const { tokens } = yield* Alf.make<Browser.Browser>({
        metadata: new AuthorizationServer.Metadata({
          issuer: "https://auth.test",
          tokenEndpoint: "",
          authorizationEndpoint: "https://auth.test/authorize"
        }),
        clientId: "client",
        origins: ["https://api.test"],
        grant: ImplicitGrant.make({ portRange, account: "ann" })
      }).pipe(Effect.provide(Layer.merge(
        window.layer,
        Layer.succeed(HttpClient.HttpClient, HttpClient.make(() => Effect.dieMessage("nothing is asked")))
      )))
      const fiber = yield* Effect.fork(tokens.get)
      const url = yield* window.opened
      yield* post(url, { access_token: "token", token_type: "bearer", state: param(url, "state") })
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "token")
    }))
})
