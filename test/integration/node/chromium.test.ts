/** The sign-ins as people see them, in a real browser. */
import { FetchHttpClient } from "@effect/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Redacted } from "effect"
import { Alf, DeviceCodeGrant, type Grant, type TokenService } from "effect-alf"
import { AuthorizationCodeGrant, type Browser, ImplicitGrant } from "effect-alf/node"
import { Chromium, isMissing, makePerson, outcome } from "../../support/browser.ts"
import { allow, deny, implicitServer } from "../../support/implicitServer.ts"
import { freePorts, isOpen } from "../../support/node/signIn.ts"
import { cancel, confirmCode, consent, oidcProvider, signedInOnDevice, signInAs } from "../../support/oidcProvider.ts"

interface Server {
  readonly authorizationEndpoint: string
  readonly tokenEndpoint: string
  readonly api: string
  readonly clientId: string
}

/** A program with an API behind a sign-in. */
const makeProgram = (server: Server, grant: Grant.Grant<Browser.Browser>) =>
  Effect.map(
    Alf.make({
      tokenEndpoint: server.tokenEndpoint,
      clientId: server.clientId,
      grant,
      origins: [new URL(server.api).origin]
    }).pipe(Effect.provide(FetchHttpClient.layer)),
    ({ httpClient, tokens }) => ({
      tokens,
      /** What the API says: its status and its words. */
      call: Effect.flatMap(httpClient.get(server.api), (response) =>
        Effect.map(response.json, (body) => ({ status: response.status, body })))
    })
  )

/** How a sign-in fails, in the words of its error. */
const failing = (program: { readonly tokens: TokenService.TokenService["Type"] }) =>
  Effect.fork(Effect.map(
    Effect.flip(program.tokens.get),
    (error) => error._tag === "AuthorizationError" ? [error.reason, error.error, error.errorDescription] : [error._tag]
  ))

const timedOut = (time: string, redirectUri: string) =>
  `nobody signed in within ${time}: is ${redirectUri} registered as a redirect URI of the client?`

describe.skipIf(isMissing)("in Chromium", () => {
  layer(Chromium.layer, { excludeTestServices: true, timeout: "30 seconds" })((it) => {
    describe("the authorization code grant against oidc-provider", () => {
      const setup = (options: Partial<AuthorizationCodeGrant.Options> = {}) =>
        Effect.gen(function*() {
          const server = yield* oidcProvider
          const person = yield* makePerson
          const portRange = yield* freePorts(2)
          const grant = AuthorizationCodeGrant.make({
            ...server,
            scope: ["openid", "offline_access"],
            params: { prompt: "consent" },
            portRange,
            ...options
          })
          const program = Effect.provide(makeProgram(server, grant), person.layer)
          return { server, person, program, portRange }
        })

      it.scoped("a person signs in and consents", () =>
        Effect.gen(function*() {
          const { person, portRange: [port], program, server } = yield* setup()
          const { call } = yield* program
          const fiber = yield* Effect.fork(call)
          const window = yield* person.window
          yield* signInAs(window, "alice")
          yield* consent(window)
          const page = yield* outcome(window, "Signed in", "code-signed-in")
          assert.deepStrictEqual(page, {
            title: "Signed in",
            text: "Signed in\n\nYou can close this window and go back to the program.",
            url: `http://127.0.0.1:${port}/`
          })
          assert.deepStrictEqual(yield* Fiber.join(fiber), { status: 200, body: { sub: "alice" } })
          assert.deepStrictEqual(server.grants, ["authorization_code"])
          assert.isFalse(yield* isOpen(port))
          assert.deepStrictEqual(window.complaints, [])
        }))

      it.scoped("a person says no", () =>
        Effect.gen(function*() {
          const { person, portRange: [port], program } = yield* setup()
          const fiber = yield* failing(yield* program)
          const window = yield* person.window
          yield* cancel(window)
          const page = yield* outcome(window, "Sign-in refused", "code-refused")
          assert.strictEqual(page.title, "Sign-in refused")
          assert.include(page.text, "The authorization server did not let you in.")
          assert.include(page.text, "access_denied: End-User aborted interaction")
          assert.deepStrictEqual(yield* Fiber.join(fiber), [
            "AccessDenied",
            "access_denied",
            "End-User aborted interaction"
          ])
          assert.isFalse(yield* isOpen(port))
        }))

      it.scoped("a person signs in at another server than the program expects", () =>
        Effect.gen(function*() {
          const { person, portRange: [port], program, server } = yield* setup({ issuer: "https://other.test" })
          const fiber = yield* failing(yield* program)
          const window = yield* person.window
          yield* signInAs(window, "alice")
          yield* consent(window)
          const page = yield* outcome(window, "Sign-in failed", "code-failed")
          assert.include(page.text, "the program got no token")
          assert.deepStrictEqual(yield* Fiber.join(fiber), [
            "IssuerMismatch",
            undefined,
            "the response names another issuer in iss"
          ])
          assert.deepStrictEqual(server.grants, [])
          assert.isFalse(yield* isOpen(port))
        }))

      it.scoped("nobody signs in in time; the window that was left is of no use to the next sign-in", () =>
        Effect.gen(function*() {
          const [port] = yield* freePorts(1)
          const { person, program, server } = yield* setup({ portRange: [port, port], timeout: "2 seconds" })
          const impatient = yield* program
          assert.deepStrictEqual(
            yield* Fiber.join(yield* failing(impatient)),
            ["Timeout", undefined, timedOut("2s", `http://127.0.0.1:${port}`)]
          )
          assert.isFalse(yield* isOpen(port))
          const left = yield* person.window

          const patient = yield* Effect.provide(
            makeProgram(
              server,
              AuthorizationCodeGrant.make({
                ...server,
                scope: ["openid", "offline_access"],
                params: { prompt: "consent" },
                portRange: [port, port]
              })
            ),
            person.layer
          )
          const fiber = yield* Effect.fork(patient.call)
          const window = yield* person.window
          yield* signInAs(left, "alice")
          yield* consent(left)
          const page = yield* outcome(left, "Sign-in expired", "code-expired")
          assert.include(page.text, "Nothing waits for this response: the sign-in took too long")
          assert.deepStrictEqual(server.grants, [])

          yield* signInAs(window, "bob")
          yield* consent(window)
          yield* outcome(window, "Signed in", "code-after-expired")
          assert.deepStrictEqual(yield* Fiber.join(fiber), { status: 200, body: { sub: "bob" } })
        }))

      it.scoped("two programs at once, side by side", () =>
        Effect.gen(function*() {
          const { person, portRange: [first, second], program } = yield* setup()
          const one = yield* Effect.fork((yield* program).call)
          const windowOfOne = yield* person.window
          const other = yield* makePerson
          const two = yield* Effect.fork(
            Effect.gen(function*() {
              return yield* (yield* program).call
            }).pipe(Effect.provide(other.layer))
          )
          const windowOfTwo = yield* person.window
          // the second is done first
          yield* signInAs(windowOfTwo, "bob")
          yield* consent(windowOfTwo)
          assert.strictEqual(
            (yield* outcome(windowOfTwo, "Signed in", "code-second")).url,
            `http://127.0.0.1:${second}/`
          )
          assert.deepStrictEqual(yield* Fiber.join(two), { status: 200, body: { sub: "bob" } })
          yield* signInAs(windowOfOne, "alice")
          yield* consent(windowOfOne)
          assert.strictEqual((yield* outcome(windowOfOne, "Signed in", "code-first")).url, `http://127.0.0.1:${first}/`)
          assert.strictEqual((yield* Fiber.join(one)).status, 200)
        }))

      it.scoped("the refresh token serves without a window, and once it is revoked a person is asked again", () =>
        Effect.gen(function*() {
          const { person, program, server } = yield* setup()
          const { call, tokens } = yield* program
          const fiber = yield* Effect.fork(call)
          const window = yield* person.window
          yield* signInAs(window, "alice")
          yield* consent(window)
          yield* Fiber.join(fiber)

          const token = yield* tokens.get
          const refreshed = yield* tokens.refresh(token)
          assert.notStrictEqual(Redacted.value(refreshed.value), Redacted.value(token.value))
          assert.deepStrictEqual(server.grants, ["authorization_code", "refresh_token"])
          assert.strictEqual(yield* person.waiting, 0)

          yield* server.revoke
          const again = yield* Effect.fork(call)
          const next = yield* person.window
          // the provider still knows who this is
          yield* consent(next)
          yield* outcome(next, "Signed in", "code-again")
          assert.deepStrictEqual(yield* Fiber.join(again), { status: 200, body: { sub: "alice" } })
          assert.deepStrictEqual(server.grants, ["authorization_code", "refresh_token", "authorization_code"])
        }))
    })

    describe("everything by the issuer, against oidc-provider", () => {
      /** A program that knows the issuer alone. */
      const open = <R>(issuer: string, clientId: string, grant: Grant.Grant<R>) =>
        Effect.map(
          Alf.make({ issuer, clientId, grant, origins: [issuer] }).pipe(Effect.provide(FetchHttpClient.layer)),
          ({ httpClient, tokens }) => ({
            tokens,
            call: Effect.flatMap(httpClient.get(`${issuer}/me`), (response) => response.json)
          })
        )

      it.scoped("a person signs in by a pushed request; the refresh token serves; after signing out neither is good", () =>
        Effect.gen(function*() {
          const { grants, issuer } = yield* oidcProvider
          const person = yield* makePerson
          const { call, tokens } = yield* open(
            issuer,
            "pushing",
            AuthorizationCodeGrant.make({
              scope: ["openid", "offline_access"],
              params: { prompt: "consent" },
              par: "always",
              portRange: yield* freePorts(2)
            })
          ).pipe(Effect.provide(person.layer))
          const fiber = yield* Effect.fork(call)
          const window = yield* person.window
          assert.deepStrictEqual([...window.url.searchParams.keys()].sort(), ["client_id", "request_uri"])
          yield* signInAs(window, "alice")
          yield* consent(window)
          assert.deepStrictEqual(yield* Fiber.join(fiber), { sub: "alice" })

          const first = yield* tokens.get
          yield* tokens.refresh(first)
          assert.deepStrictEqual(yield* call, { sub: "alice" })
          assert.deepStrictEqual(grants, ["authorization_code", "refresh_token"])

          const last = yield* tokens.get
          yield* tokens.revoke
          const asked = yield* Effect.promise(() =>
            fetch(`${issuer}/me`, { headers: { authorization: `Bearer ${Redacted.value(last.value)}` } })
          )
          assert.strictEqual(asked.status, 401)
          const refreshed = yield* Effect.promise(() =>
            fetch(`${issuer}/token`, {
              method: "POST",
              body: new URLSearchParams({
                grant_type: "refresh_token",
                client_id: "pushing",
                refresh_token: Option.match(last.refreshToken, { onNone: () => "", onSome: Redacted.value })
              })
            }).then((response) => response.json())
          )
          assert.include(refreshed, { error: "invalid_grant" })
        }))

      it.scoped("a person signs in on another device, and the refresh token serves", () =>
        Effect.gen(function*() {
          const { clientId, grants, issuer } = yield* oidcProvider
          const person = yield* makePerson
          const shown = yield* Deferred.make<DeviceCodeGrant.DeviceCode>()
          const { call, tokens } = yield* open(
            issuer,
            clientId,
            DeviceCodeGrant.make({ scope: "openid offline_access", params: { prompt: "consent" } })
          ).pipe(
            Effect.provide(person.layer),
            Effect.provideService(DeviceCodeGrant.DevicePrompt, {
              show: (prompt) => Effect.asVoid(Deferred.succeed(shown, prompt))
            })
          )
          const fiber = yield* Effect.fork(call)
          const { verificationUri, verificationUriComplete } = yield* Deferred.await(shown)
          const window = yield* person.visit(
            new URL(Option.getOrElse(verificationUriComplete, () => verificationUri))
          )
          yield* confirmCode(window)
          yield* signInAs(window, "alice")
          yield* consent(window)
          yield* signedInOnDevice(window)
          assert.deepStrictEqual(yield* Fiber.join(fiber), { sub: "alice" })
          yield* tokens.refresh(yield* tokens.get)
          assert.deepStrictEqual(yield* call, { sub: "alice" })
          assert.deepStrictEqual(grants, ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"])
        }), 30_000)
    })

    describe("the implicit grant", () => {
      const setup = (options: Partial<ImplicitGrant.Options> = {}) =>
        Effect.gen(function*() {
          const server = yield* implicitServer
          const person = yield* makePerson
          const portRange = yield* freePorts(1)
          const { authorizationEndpoint, clientId } = server
          const grant = ImplicitGrant.make({ authorizationEndpoint, clientId, portRange, ...options })
          const program = yield* Effect.provide(makeProgram(server, grant), person.layer)
          return { server, person, program, port: portRange[0] }
        })

      it.scoped("a person signs in, and the token leaves no trace in the browser", () =>
        Effect.gen(function*() {
          const { person, port, program, server } = yield* setup()
          const fiber = yield* Effect.fork(program.call)
          const window = yield* person.window
          const urls: Array<string> = []
          window.page.on("request", (request) => urls.push(request.url()))
          yield* allow(window)
          const page = yield* outcome(window, "Signed in", "implicit-signed-in")
          assert.strictEqual(page.title, "Signed in")
          assert.strictEqual(page.url, `http://localhost:${port}/`)
          assert.deepStrictEqual(yield* Fiber.join(fiber), { status: 200, body: { sub: "alice" } })
          assert.strictEqual(server.current(), "token-1")
          assert.isFalse(yield* isOpen(port))
          assert.deepStrictEqual(window.complaints, [])
          const sent = server.requests.map(({ path }) => path).join()
          assert.notInclude(sent, "token-1")
        }))

      it.scoped("a person says no", () =>
        Effect.gen(function*() {
          const { person, port, program } = yield* setup()
          const fiber = yield* failing(program)
          const window = yield* person.window
          yield* deny(window)
          const page = yield* outcome(window, "Sign-in refused", "implicit-refused")
          assert.include(page.text, "access_denied: <b>Alice</b> said no")
          assert.deepStrictEqual(yield* Fiber.join(fiber), ["AccessDenied", "access_denied", "<b>Alice</b> said no"])
          assert.isFalse(yield* isOpen(port))
        }))

      it.scoped("the answer comes too late", () =>
        Effect.gen(function*() {
          const { person, port, program } = yield* setup({ timeout: "5 seconds" })
          const fiber = yield* failing(program)
          const window = yield* person.window
          // the page of the listener is there, its post is held up
          let go = () => {}
          const held = new Promise<void>((resolve) => {
            go = resolve
          })
          yield* Effect.promise(() =>
            window.page.route(`http://localhost:${port}/`, async (route) => {
              if (route.request().method() === "POST") await held
              await route.continue()
            })
          )
          yield* allow(window)
          assert.deepStrictEqual(yield* Fiber.join(fiber), [
            "Timeout",
            undefined,
            timedOut("5s", `http://localhost:${port}`)
          ])
          assert.isFalse(yield* isOpen(port))
          go()
          const page = yield* outcome(window, "Sign-in expired", "implicit-expired")
          assert.include(page.text, "Nothing waits for this response")
          assert.strictEqual(page.url, `http://localhost:${port}/`)
        }))

      it.scoped("a window that a script opened closes itself", () =>
        Effect.gen(function*() {
          const { person, program } = yield* setup()
          const fiber = yield* Effect.fork(program.call)
          const { page, url } = yield* person.window
          yield* Effect.promise(async () => {
            const [popup] = await Promise.all([
              page.waitForEvent("popup"),
              page.evaluate((url) => void window.open(url), url.toString())
            ])
            await popup.getByRole("button", { name: "Allow" }).click()
            await popup.waitForEvent("close", { timeout: 10_000 })
          })
          assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
        }))

      it.scoped("the answer of another tab is refused, and the right one is taken", () =>
        Effect.gen(function*() {
          const { person, program, server } = yield* setup()
          const fiber = yield* Effect.fork(program.call)
          const window = yield* person.window
          const forged = new URL(window.url)
          forged.searchParams.set("state", "of-another-tab")
          const tab = yield* person.visit(forged)
          yield* allow(tab)
          yield* outcome(tab, "Sign-in expired", "implicit-other-tab")
          yield* allow(window)
          yield* outcome(window, "Signed in", "implicit-right-tab")
          assert.deepStrictEqual(yield* Fiber.join(fiber), { status: 200, body: { sub: "alice" } })
          assert.strictEqual(Redacted.value((yield* program.tokens.get).value), "token-2")
          assert.strictEqual(yield* server.controls.issued, 2)
        }))
    })
  })
})
