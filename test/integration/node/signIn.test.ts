import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger, LogLevel, Redacted } from "effect"
import { Alf, AuthorizedHttpClient, Grant, TokenService } from "effect-alf"
import { AuthorizationCodeGrant, Browser, ImplicitGrant } from "effect-alf/node"
import { createHash } from "node:crypto"
import { createServer } from "node:http"
import { api, bearer, bearers, json, serve, type Server, tokenEndpoint } from "../../support/scriptedServer.ts"

const ports = [43_110, 43_119] as const

/** A browser whose user does this with the page that is opened. */
const browser = (visit: (url: URL) => Promise<unknown>) => {
  const opened: Array<URL> = []
  const layer = Layer.succeed(Browser.Browser, {
    open: (url) => Effect.sync(() => void (opened.push(url), visit(url).catch(() => {})))
  })
  return { opened, layer }
}

const answer = (url: URL, params: Record<string, string>) => {
  const target = new URL(url.searchParams.get("redirect_uri")!)
  for (const [key, value] of Object.entries(params)) target.searchParams.set(key, value)
  return fetch(target).then((response) => response.text())
}

const options = {
  authorizationEndpoint: "https://auth.example/authorize",
  clientId: "desktop",
  portRange: ports
} as const

const tokenOf = (server: Server, grant: Grant.Grant<Browser.Browser>, shown: Layer.Layer<Browser.Browser>) =>
  Effect.flatMap(TokenService.TokenService, (_) => _.get).pipe(
    Effect.provide(
      Alf.layer({ tokenEndpoint, clientId: "desktop", origins: [api], grant }).pipe(
        Layer.provide(server.layer),
        Layer.provide(shown)
      )
    )
  )

describe("AuthorizationCodeGrant", () => {
  it.live("code, with PKCE S256", () =>
    Effect.gen(function*() {
      const server = serve()
      const user = browser((url) => answer(url, { code: "c0de", state: url.searchParams.get("state")! }))
      const grant = AuthorizationCodeGrant.make({ ...options, scope: ["read", "write"], params: { prompt: "login" } })
      const token = yield* tokenOf(server, grant, user.layer)
      assert.strictEqual(Redacted.value(token.value), "token-1")

      const asked = user.opened[0]!
      assert.strictEqual(`${asked.origin}${asked.pathname}`, options.authorizationEndpoint)
      assert.strictEqual(asked.searchParams.get("response_type"), "code")
      assert.strictEqual(asked.searchParams.get("client_id"), "desktop")
      assert.sameMembers(asked.searchParams.get("scope")!.split(" "), ["read", "write"])
      assert.strictEqual(asked.searchParams.get("prompt"), "login")
      assert.strictEqual(asked.searchParams.get("code_challenge_method"), "S256")
      const redirect = new URL(asked.searchParams.get("redirect_uri")!)
      assert.strictEqual(redirect.protocol, "http:")
      assert.isAtLeast(Number(redirect.port), ports[0])
      assert.isAtMost(Number(redirect.port), ports[1])

      const form = server.tokenRequests[0]!.form
      assert.strictEqual(form.get("grant_type"), "authorization_code")
      assert.strictEqual(form.get("code"), "c0de")
      assert.strictEqual(form.get("redirect_uri"), asked.searchParams.get("redirect_uri"))
      assert.strictEqual(form.get("client_id"), "desktop")
      const challenge = createHash("sha256").update(form.get("code_verifier")!).digest("base64url")
      assert.strictEqual(asked.searchParams.get("code_challenge"), challenge)
    }))

  it.live("the user says no", () =>
    Effect.gen(function*() {
      const server = serve()
      const user = browser((url) =>
        answer(url, { error: "access_denied", error_description: "no thanks", state: url.searchParams.get("state")! })
      )
      const error = yield* Effect.flip(tokenOf(server, AuthorizationCodeGrant.make(options), user.layer))
      assert.strictEqual(error._tag, "AuthorizationError")
      if (error._tag !== "AuthorizationError") return
      assert.strictEqual(error.reason, "AccessDenied")
      assert.strictEqual(error.error, "access_denied")
      assert.strictEqual(error.errorDescription, "no thanks")
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.live("a stranger's state never ends in a token", () =>
    Effect.gen(function*() {
      const server = serve()
      const user = browser((url) => answer(url, { code: "c0de", state: "stranger" }))
      const error = yield* Effect.flip(
        tokenOf(server, AuthorizationCodeGrant.make({ ...options, timeout: "500 millis" }), user.layer)
      )
      assert.strictEqual(error._tag, "AuthorizationError")
      if (error._tag !== "AuthorizationError") return
      assert.include(["IssuerMismatch", "Timeout"], error.reason)
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.live("nobody does anything", () =>
    Effect.gen(function*() {
      const user = browser(() => Promise.resolve())
      const error = yield* Effect.flip(
        tokenOf(serve(), AuthorizationCodeGrant.make({ ...options, timeout: "200 millis" }), user.layer)
      )
      assert.strictEqual(error._tag === "AuthorizationError" ? error.reason : error._tag, "Timeout")
    }))

  it.scopedLive("no port is free", () =>
    Effect.gen(function*() {
      const port = 43_121
      for (const host of ["127.0.0.1", "::1"]) {
        yield* Effect.acquireRelease(
          Effect.async<ReturnType<typeof createServer>>((resume) => {
            const taken = createServer()
            taken.on("error", () => resume(Effect.succeed(taken)))
            taken.listen(port, host, () => resume(Effect.succeed(taken)))
          }),
          (taken) => Effect.async<void>((resume) => void taken.close(() => resume(Effect.void)))
        )
      }
      const user = browser(() => Promise.resolve())
      const error = yield* Effect.flip(
        tokenOf(serve(), AuthorizationCodeGrant.make({ ...options, portRange: [port, port] }), user.layer)
      )
      assert.strictEqual(error._tag === "AuthorizationError" ? error.reason : error._tag, "NoPort")
      assert.strictEqual(user.opened.length, 0)
    }))

  it.live("with a refresh token nobody is asked again", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) => bearer(`t${n}`, { refresh_token: `r${n}` }),
        api: (sent) => sent.headers["authorization"] === "Bearer t1" ? new Response("", { status: 401 }) : json({})
      })
      const user = browser((url) => answer(url, { code: "c0de", state: url.searchParams.get("state")! }))
      const layer = Alf.layer({
        tokenEndpoint,
        clientId: "desktop",
        origins: [api],
        grant: Grant.refreshToken(AuthorizationCodeGrant.make(options))
      }).pipe(Layer.provide(server.layer), Layer.provide(user.layer))
      const response = yield* Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (_) => _.get(api)).pipe(
        Effect.provide(layer)
      )
      assert.strictEqual(response.status, 200)
      assert.strictEqual(user.opened.length, 1)
      assert.deepStrictEqual(server.tokenRequests.map((sent) => sent.form.get("grant_type")), [
        "authorization_code",
        "refresh_token"
      ])
      assert.deepStrictEqual(bearers(server), ["Bearer t1", "Bearer t2"])
    }))
})

describe("ImplicitGrant", () => {
  it.live("asks for a token, and takes a no", () =>
    Effect.gen(function*() {
      const page = yield* Deferred.make<URL>()
      const layer = Layer.succeed(Browser.Browser, { open: (url) => Effect.asVoid(Deferred.succeed(page, url)) })
      const server = serve()
      const error = yield* Effect.flip(
        tokenOf(server, ImplicitGrant.make({ ...options, scope: "read", timeout: "300 millis" }), layer)
      )
      const asked = yield* Deferred.await(page)
      assert.strictEqual(asked.searchParams.get("response_type"), "token")
      assert.strictEqual(asked.searchParams.get("client_id"), "desktop")
      assert.strictEqual(asked.searchParams.get("scope"), "read")
      assert.isAbove(asked.searchParams.get("state")!.length, 15)
      assert.strictEqual(new URL(asked.searchParams.get("redirect_uri")!).hostname, "localhost")
      assert.strictEqual(error._tag === "AuthorizationError" ? error.reason : error._tag, "Timeout")
      assert.strictEqual(server.tokenRequests.length, 0)
    }))
})

describe("Browser", () => {
  it.live("layerLog shows the URL, through Effect's log or console", () =>
    Effect.gen(function*() {
      const shown: Array<string> = []
      const logger = Logger.make(({ message }) => void shown.push(String(message)))
      const write = (...args: ReadonlyArray<unknown>) => Effect.sync(() => void shown.push(args.join(" ")))
      const console_ = yield* Effect.console
      yield* Effect.flatMap(Browser.Browser, (_) => _.open(new URL("https://auth.example/authorize?x=1"))).pipe(
        Effect.provide(Browser.layerLog),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Effect.withConsole({ ...console_, log: write, info: write, error: write, warn: write }),
        Logger.withMinimumLogLevel(LogLevel.All)
      )
      assert.include(shown.join("\n"), "https://auth.example/authorize?x=1")
    }))
})
