import { assert, describe, it } from "@effect/vitest"
import { Cause, Console, Deferred, Effect, Exit, FastCheck, Fiber, Layer, Option, Redacted, TestClock } from "effect"
import { AuthorizationServer, TokenError } from "effect-alf"
import { AuthorizationCodeGrant, Browser, ImplicitGrant } from "effect-alf/node"
import { createHash } from "node:crypto"
import * as Http from "node:http"
import * as Net from "node:net"
import { networkInterfaces } from "node:os"
import { inspect } from "node:util"
import {
  answerUrl,
  freePorts,
  isOpen,
  makeEndpoint,
  makeWindow,
  occupy,
  param,
  post,
  send,
  type Sent,
  token
} from "../../support/node/signIn.ts"
import { recordLogs, recordSpans } from "../../support/recorders.ts"

const base = { authorizationEndpoint: "https://auth.test/authorize", clientId: "client" }

type Options = ImplicitGrant.Options & AuthorizationCodeGrant.Options

const flows = [
  {
    name: "code",
    host: "127.0.0.1",
    make: AuthorizationCodeGrant.make,
    good: { code: "the-secret-code" },
    answer: (url: URL, answer: Readonly<Record<string, string>>) => send(answerUrl(url, answer))
  },
  {
    name: "implicit",
    host: "localhost",
    make: ImplicitGrant.make,
    good: { access_token: "the-secret-token", token_type: "bearer" },
    answer: post
  }
] as const

type Flow = typeof flows[number]

/** A sign-in that has been begun: its window is open. */
const begin = (
  flow: Flow,
  options: Partial<Options> = {},
  server: Partial<AuthorizationServer.AuthorizationServer["Type"]> = {}
) =>
  Effect.gen(function*() {
    const portRange = options.portRange ?? (yield* freePorts(1))
    const window = yield* makeWindow
    const endpoint = makeEndpoint(() => Effect.succeed(token("the-secret-token")), server)
    const fiber = yield* flow.make({ ...base, portRange, ...options }).acquire(Option.none()).pipe(
      Effect.provide(Layer.merge(window.layer, endpoint.layer)),
      Effect.fork
    )
    const url = yield* window.opened
    const home = new URL(param(url, "redirect_uri"))
    const state = param(url, "state")
    const finish = Effect.gen(function*() {
      const page = yield* flow.answer(url, { ...flow.good, state })
      assert.strictEqual(page.status, 200)
      const got = yield* Fiber.join(fiber)
      assert.strictEqual(Redacted.value(got.value), "the-secret-token")
      return page
    })
    return { url, home, state, fiber, finish, port: Number(home.port) }
  })

const failure = (exit: Exit.Exit<unknown, TokenError.TokenError>): TokenError.TokenError =>
  Option.getOrThrow(Exit.causeOption(exit).pipe(Option.flatMap(Cause.failureOption)))

/** Options whose mistakes the types would show. */
const wrongRange = (...ports: ReadonlyArray<number>) => ({ portRange: ports as unknown as readonly [number, number] })

describe.each(flows)("the listener of the $name grant", (flow) => {
  describe("refuses what is no answer, and goes on waiting", () => {
    type Case = (begun: { readonly url: URL; readonly home: URL; readonly state: string }) => {
      readonly url: URL
      readonly sent?: Sent
    }
    const at = (home: URL, path: string) => new URL(path, home)
    const cases: ReadonlyArray<readonly [name: string, status: number, make: Case]> = [
      ["another path", 404, ({ home, state }) => ({ url: at(home, `/other?code=c&state=${state}`) })],
      ["a path below", 404, ({ home, state }) => ({ url: at(home, `/favicon.ico?code=c&state=${state}`) })],
      ["another host in the request line", 404, ({ home, state }) => ({
        url: home,
        sent: { target: `http://evil.test/?code=c&state=${state}` }
      })],
      ["another host as a path", 404, ({ home, state }) => ({
        url: home,
        sent: { target: `//evil.test/?code=c&state=${state}` }
      })],
      ["a request line that is no URL", 404, ({ home }) => ({ url: home, sent: { target: "//[" } })],
      ["a rebound name", 400, ({ home, state }) => ({
        url: at(home, `/?code=c&error=e&state=${state}`),
        sent: { headers: { host: `evil.test:${home.port}` } }
      })],
      ["the host without its port", 400, ({ home, state }) => ({
        url: at(home, `/?code=c&error=e&state=${state}`),
        sent: { headers: { host: home.hostname } }
      })],
      ...["PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"].map((method): readonly [string, number, Case] => [
        `the method ${method}`,
        405,
        ({ home, state }) => ({ url: at(home, `/?code=c&error=e&state=${state}`), sent: { method } })
      ]),
      ["an error without a state", 400, ({ home }) => ({ url: at(home, "/?error=access_denied") })],
      ["an error with another state", 400, ({ home, state }) => ({
        url: at(home, `/?error=access_denied&state=${state.slice(1)}x`)
      })],
      ["an error with half the state", 400, ({ home, state }) => ({
        url: at(home, `/?error=access_denied&state=${state.slice(1)}`)
      })],
      ["an error twice", 400, ({ home, state }) => ({ url: at(home, `/?error=a&error=b&state=${state}`) })],
      ["an empty error and nothing else", 400, ({ home, state }) => ({ url: at(home, `/?error=&state=${state}`) })]
    ]
    it.effect.each(cases)("%s: %i", ([, status, make]) =>
      Effect.gen(function*() {
        const begun = yield* begin(flow)
        const { sent, url } = make(begun)
        const page = yield* send(url, sent)
        assert.strictEqual(page.status, status)
        assert.strictEqual(page.headers["connection"], "close")
        assert.isUndefined(page.headers["access-control-allow-origin"])
        if (status === 405) assert.strictEqual(page.headers["allow"], flow.name === "code" ? "GET" : "GET, POST")
        yield* begun.finish
      }))
  })

  it.effect("no request that does not know the state ends the wait", () =>
    Effect.gen(function*() {
      const { finish, home } = yield* begin(flow)
      const word = FastCheck.constantFrom("state", "code", "error", "access_token", "token_type", "iss", "x", "")
      const inputs = FastCheck.sample(
        FastCheck.record({
          method: FastCheck.constantFrom("GET", "POST"),
          path: FastCheck.constantFrom("/", "//", "/x", "/%", "/?", "/;"),
          params: FastCheck.array(FastCheck.tuple(word, FastCheck.string({ unit: "binary" })), { maxLength: 5 }),
          raw: FastCheck.webQueryParameters()
        }),
        { numRuns: 100, seed: 7 }
      )
      for (const { method, params, path, raw } of inputs) {
        const text = `${new URLSearchParams(params)}&${raw}`
        const page = yield* send(home, {
          method,
          ...(method === "POST" ? { body: text } : {}),
          target: method === "POST" ? path : `${path}?${text}`,
          headers: {
            origin: home.origin,
            ...(method === "POST"
              ? { "content-type": "application/x-www-form-urlencoded", "content-length": Buffer.byteLength(text) }
              : {})
          }
        })
        // the implicit page itself is given to everyone: it holds nothing
        const isHandover = flow.name === "implicit" && method === "GET" && page.text.includes("Signing in")
        assert.isTrue(
          isHandover ? page.status === 200 : page.status >= 400 && page.status < 500,
          inspect({ text, page })
        )
      }
      yield* finish
    }))

  it.effect("each page tells the browser to keep and to load nothing", () =>
    Effect.gen(function*() {
      const { finish, home, url } = yield* begin(flow)
      const pages = [
        yield* send(home),
        yield* send(new URL("/other", home)),
        yield* flow.answer(url, { state: "wrong" }),
        yield* finish
      ]
      for (const { headers, text } of pages) {
        const policy = headers["content-security-policy"] ?? ""
        assert.include(policy, "default-src 'none'")
        assert.include(policy, "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
        assert.notInclude(policy, "unsafe")
        assert.strictEqual(headers["cache-control"], "no-store")
        assert.strictEqual(headers["referrer-policy"], "no-referrer")
        assert.strictEqual(headers["x-content-type-options"], "nosniff")
        // what runs is what the policy names
        for (const [, script = ""] of text.matchAll(/<script>(.*?)<\/script>/gs)) {
          assert.include(policy, `'sha256-${createHash("sha256").update(script).digest("base64")}'`)
        }
      }
      for (const { text } of pages.slice(0, 2)) {
        assert.include(text, "<html lang=\"en\">")
        assert.match(text, /<title>[^<]+<\/title>/)
        assert.include(text, "role=\"status\"")
        assert.notMatch(text, /https?:|src=|@import|url\(/)
      }
    }))

  it.effect("a window tidies its address, and closes itself when all is well", () =>
    Effect.gen(function*() {
      const { finish, home } = yield* begin(flow)
      const notFound = yield* send(new URL("/other", home))
      assert.strictEqual(notFound.headers["content-type"], "text/html; charset=utf-8")
      assert.include(notFound.text, "<script>history.replaceState")
      assert.notInclude(notFound.text, "window.close")
      const last = yield* finish
      if (flow.name === "code") {
        assert.strictEqual(last.headers["content-type"], "text/html; charset=utf-8")
        assert.include(last.text, "<p id=\"detail\" dir=\"auto\"></p>")
        assert.match(last.text, /<script>history.replaceState.*<\/script>\n<script>setTimeout.*window.close/s)
      } else {
        assert.strictEqual(JSON.parse(last.text).closes, true)
      }
    }))

  it.effect("takes the answer of any issuer where none is known, and of that one where one is", () =>
    Effect.gen(function*() {
      const unknown = Effect.succeed(
        new AuthorizationServer.Metadata({ issuer: "", tokenEndpoint: "https://auth.test/token" })
      )
      const { fiber, state, url } = yield* begin(flow, {}, { metadata: unknown })
      assert.isFalse(url.searchParams.has("scope"))
      yield* flow.answer(url, { ...flow.good, state, iss: "https://any.test" })
      assert.strictEqual(Redacted.value((yield* Fiber.join(fiber)).value), "the-secret-token")

      for (const [options, server] of [[{ issuer: "https://auth.test" }, { metadata: unknown }], [{}, {}]] as const) {
        const strict = yield* begin(flow, options, server)
        yield* flow.answer(strict.url, { ...flow.good, state: strict.state, iss: "https://any.test" })
        const error = failure(yield* Fiber.await(strict.fiber))
        assert.include(error.message, "names another issuer in iss")
      }
    }))

  it.effect("an error without a description is shown alone", () =>
    Effect.gen(function*() {
      const { fiber, state, url } = yield* begin(flow)
      const page = yield* flow.answer(url, { error: "access_denied", state })
      const error = failure(yield* Fiber.await(fiber))
      assert.strictEqual(error._tag === "AuthorizationError" && error.errorDescription, undefined)
      assert.include(page.text, flow.name === "code" ? ">access_denied</p>" : "\"detail\":\"access_denied\"")
      assert.include(page.text, flow.name === "code" ? "<main class=\"bad\">" : "\"tone\":\"bad\"")
      assert.include(page.text, "The authorization server did not let you in.")
    }))

  it.effect("an error ends it with the server's words, and only access_denied is a denial", () =>
    Effect.gen(function*() {
      for (const error of ["access_denied", "invalid_scope", "server_error", "something_new"]) {
        const { fiber, port, state, url } = yield* begin(flow)
        const page = yield* flow.answer(url, { error, error_description: "No, not you.", state })
        assert.deepStrictEqual(
          failure(yield* Fiber.await(fiber)),
          new TokenError.AuthorizationError({
            reason: error === "access_denied" ? "AccessDenied" : "ErrorResponse",
            error,
            errorDescription: "No, not you."
          })
        )
        assert.include(page.text, "Sign-in refused")
        assert.include(page.text, `${error}: No, not you.`)
        assert.isFalse(yield* isOpen(port))
      }
    }))

  it.effect("an error in the query counts for both, and its words cannot become part of the page or of a terminal", () =>
    Effect.gen(function*() {
      const { fiber, state, url } = yield* begin(flow)
      const page = yield* send(answerUrl(url, {
        state,
        error: "<script>alert(1)</script>",
        error_description: `"'&\u001b[2J\r\nfaked${"x".repeat(5000)}`
      }))
      const error = failure(yield* Fiber.await(fiber))
      assert.include(page.text, "&lt;script&gt;alert(1)&lt;/script&gt;: &quot;&#39;&amp; [2J faked")
      assert.notInclude(page.text, "<script>alert")
      assert.notMatch(error.message, /\p{Cc}/u)
      assert.isBelow(error.message.length, 1200)
    }))

  it.effect("is closed after an answer, even to those who keep their connections", () =>
    Effect.gen(function*() {
      const { finish, home, port, url } = yield* begin(flow)
      const agent = new Http.Agent({ keepAlive: true })
      const early = yield* Effect.async<Net.Socket>((resume) => {
        const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
      })
      // a request that never comes to its end
      const slow = yield* Effect.async<Net.Socket>((resume) => {
        const socket = Net.connect(port, "127.0.0.1", () => {
          socket.write(`POST / HTTP/1.1\r\nhost: ${home.host}\r\norigin: ${home.origin}\r\ncontent-length: 10\r\n`)
          socket.write("content-type: application/x-www-form-urlencoded\r\n\r\nstate", () =>
            resume(Effect.succeed(socket)))
        })
      })
      slow.on("error", () => {})
      yield* send(new URL("/kept", home), { agent })
      assert.strictEqual((yield* flow.answer(url, { state: "wrong" })).status, 400)
      yield* finish
      assert.isFalse(yield* isOpen(port))
      early.destroy()
      slow.destroy()
      agent.destroy()
    }))

  it.effect("takes many requests on one connection without a warning of Node.js", () =>
    Effect.gen(function*() {
      const { finish, home, port } = yield* begin(flow)
      const warnings: Array<string> = []
      const hear = (warning: Error) => void warnings.push(warning.name)
      process.on("warning", hear)
      yield* Effect.async<void>((resume) => {
        const socket = Net.connect(port, "127.0.0.1", () => {
          socket.write(`GET /other HTTP/1.1\r\nhost: ${home.host}\r\n\r\n`.repeat(40))
        })
        let seen = ""
        socket.setEncoding("utf8").on("data", (text: string) => {
          seen += text
          if (seen.includes("404")) socket.destroy()
        })
        socket.once("close", () => resume(Effect.void))
        socket.on("error", () => {})
      })
      yield* finish
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      process.off("warning", hear)
      assert.deepStrictEqual(warnings, [])
    }))

  it.effect("is closed after the time-out, whose default is 5 minutes", () =>
    Effect.gen(function*() {
      const { fiber, port, url } = yield* begin(flow)
      yield* TestClock.adjust("4 minutes")
      assert.isTrue(yield* isOpen(port))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        failure(yield* Fiber.await(fiber)),
        new TokenError.AuthorizationError({
          reason: "Timeout",
          errorDescription: `nobody signed in within 5m: is ${
            param(url, "redirect_uri")
          } registered as a redirect URI of the client?`
        })
      )
      assert.isFalse(yield* isOpen(port))
    }))

  it.effect("is closed after an interruption", () =>
    Effect.gen(function*() {
      const { fiber, port } = yield* begin(flow)
      yield* Fiber.interrupt(fiber)
      assert.isFalse(yield* isOpen(port))
    }))

  it.scoped("listens on the first free port, and on the next for a second sign-in", () =>
    Effect.gen(function*() {
      const [first, last] = yield* freePorts(3)
      yield* occupy(first)
      const one = yield* begin(flow, { portRange: [first, last] })
      const two = yield* begin(flow, { portRange: [first, last] })
      assert.deepStrictEqual([one.port, two.port], [first + 1, first + 2])
      yield* two.finish
      yield* one.finish
    }))

  it.scoped("says which range is taken", () =>
    Effect.gen(function*() {
      const [first, last] = yield* freePorts(2)
      yield* Effect.all([occupy(first), occupy(last)])
      const { layer } = yield* makeWindow
      const error = yield* flow.make({ ...base, portRange: [first, last] }).acquire(Option.none()).pipe(
        Effect.provide(Layer.merge(layer, makeEndpoint(() => Effect.succeed(token("x"))).layer)),
        Effect.flip
      )
      assert.deepStrictEqual(
        error,
        new TokenError.AuthorizationError({
          reason: "NoPort",
          errorDescription: `no port from ${first} to ${last} is free on ${flow.host}`
        })
      )
    }))

  it.effect("is bound to loopback only", () =>
    Effect.gen(function*() {
      const { finish, port } = yield* begin(flow)
      const beyond = Object.values(networkInterfaces()).flat().filter((address) =>
        address !== undefined && !address.internal && !address.address.startsWith("fe80")
      ).map((address) => address?.address ?? "")
      // what all 127.0.0.0/8 reach only if every address is listened on
      const others = flow.host === "localhost" ? [] : ["::1"]
      for (const host of ["127.0.0.2", ...others, ...beyond]) assert.isFalse(yield* isOpen(port, host), host)
      yield* finish
    }))

  it.effect("takes its redirect URI from the options", () =>
    Effect.gen(function*() {
      for (const redirectHost of ["127.0.0.1", "localhost", "::1"] as const) {
        const { finish, home } = yield* begin(flow, { redirectHost, redirectPath: "/signed/in" })
        assert.strictEqual(home.hostname, redirectHost === "::1" ? "[::1]" : redirectHost)
        assert.strictEqual(home.pathname, "/signed/in")
        assert.strictEqual((yield* send(new URL("/", home))).status, 404)
        yield* finish
      }
    }))

  it.scoped("localhost means both loopback addresses, and a port is free only if it is on both", () =>
    Effect.gen(function*() {
      const [first, last] = yield* freePorts(2)
      yield* occupy(first, "::1")
      const { finish, home, port } = yield* begin(flow, { portRange: [first, last], redirectHost: "localhost" })
      assert.strictEqual(port, last)
      assert.isFalse(yield* isOpen(first))
      for (const address of ["127.0.0.1", "[::1]"]) {
        const url = new URL(`http://${address}:${port}/x`)
        assert.strictEqual((yield* send(url, { headers: { host: home.host } })).status, 404)
      }
      yield* finish
      assert.isFalse(yield* isOpen(port, "::1"))
    }))

  it.effect("nothing that the browser brings is logged, traced or printed", () =>
    Effect.gen(function*() {
      const logs = recordLogs()
      const spans = recordSpans()
      const printed: Array<unknown> = []
      const print = (...args: ReadonlyArray<unknown>) => Effect.sync(() => void printed.push(...args))
      const quiet = yield* Console.consoleWith(Effect.succeed)
      const seen = yield* Effect.gen(function*() {
        const begun = yield* begin(flow)
        yield* flow.answer(begun.url, { ...flow.good, state: "wrong" })
        yield* send(answerUrl(begun.url, { ...flow.good, state: begun.state, x: "1" }), { method: "PUT" })
        yield* begun.finish
        return begun
      }).pipe(
        Effect.withSpan("test"),
        Effect.provide(Layer.merge(logs.layer, spans.layer)),
        Effect.withConsole({ ...quiet, log: print, error: print, warn: print, info: print, debug: print })
      )
      assert.deepStrictEqual(spans.spans.map(({ name }) => name), ["test"])
      const all = inspect({ logs: logs.lines, spans: spans.spans.map(({ attributes }) => attributes), printed })
      for (const secret of [seen.state, "the-secret-code", "the-secret-token"]) assert.notInclude(all, secret)
    }))

  it.effect("a window that stays open until it has seen the last page is waited with, not for", () =>
    Effect.gen(function*() {
      const portRange = yield* freePorts(1)
      const seen = yield* Deferred.make<string, Error>()
      const got = yield* flow.make({ ...base, portRange }).acquire(Option.none()).pipe(
        Effect.provideService(Browser.Browser, {
          open: (url) => {
            const page = flow.answer(url, { ...flow.good, state: param(url, "state") })
            const show = Deferred.complete(seen, Effect.map(page, ({ text }) => text))
            return Effect.zipRight(Effect.forkDaemon(show), Effect.never)
          }
        }),
        Effect.provide(makeEndpoint(() => Effect.succeed(token("the-secret-token"))).layer),
        // a page that does not come ends the test
        Effect.raceFirst(Effect.zipRight(Deferred.await(seen), Effect.never))
      )
      assert.strictEqual(Redacted.value(got.value), "the-secret-token")
      assert.include(yield* Deferred.await(seen), "Signed in")
    }))

  describe("options that cannot work", () => {
    const cases: ReadonlyArray<readonly [issue: RegExp, options: Partial<Options>]> = [
      [/^authorizationEndpoint is not a URL/, { authorizationEndpoint: "auth.test" }],
      [/^authorizationEndpoint is plain http/, { authorizationEndpoint: "http://auth.test/authorize" }],
      [/^authorizationEndpoint has a fragment/, { authorizationEndpoint: "https://auth.test/authorize#x" }],
      [/^authorizationEndpoint holds user info/, { authorizationEndpoint: "https://me:hunter2@auth.test/authorize" }],
      [/^authorizationEndpoint is neither/, { authorizationEndpoint: "file:///etc/passwd" }],
      [/^clientId is empty/, { clientId: "" }],
      [/^portRange is not two/, wrongRange()],
      [/^portRange is not two/, wrongRange(5000)],
      [/^portRange is not two/, { portRange: [5000.5, 5001] }],
      [/^portRange is not two/, { portRange: [NaN, 5001] }],
      [/^portRange is reversed/, { portRange: [5001, 5000] }],
      [/^portRange leaves/, { portRange: [80, 5000] }],
      [/^portRange leaves/, { portRange: [0, 0] }],
      [/^portRange leaves/, { portRange: [65_535, 65_536] }],
      [/^redirectPath/, { redirectPath: "callback" }],
      [/^redirectPath/, { redirectPath: "//evil.test" }],
      [/^redirectPath/, { redirectPath: "/a/../b" }],
      [/^redirectPath/, { redirectPath: "/a?b" }],
      [/^redirectPath/, { redirectPath: "/a#b" }],
      [/^redirectHost/, { redirectHost: "0.0.0.0" as "127.0.0.1" }],
      [/^issuer is empty/, { issuer: "" }],
      [/^timeout/, { timeout: 0 }],
      [/^timeout/, { timeout: "Infinity" as "1 minute" }],
      [/^params\.state/, { params: { state: "mine" } }],
      [/^params\.redirect_uri/, { params: { redirect_uri: "https://evil.test" } }]
    ]
    it.effect.each(cases)("%s", ([issue, options]) =>
      Effect.gen(function*() {
        const grant = flow.make({ ...base, ...options })
        const found = yield* Effect.flip(grant.validate ?? Effect.void)
        assert.instanceOf(found, TokenError.ConfigurationError)
        assert.match(found.issue, issue)
        assert.notInclude(found.issue, "hunter2")

        const { layer, waiting } = yield* makeWindow
        const error = yield* grant.acquire(Option.none()).pipe(
          Effect.provide(Layer.merge(layer, makeEndpoint(() => Effect.succeed(token("x"))).layer)),
          Effect.flip
        )
        assert.deepStrictEqual(
          error,
          new TokenError.AuthorizationError({ reason: "Failed", errorDescription: found.issue })
        )
        assert.strictEqual(yield* waiting, 0)
      }))

    it.effect("those that can, pass", () =>
      Effect.gen(function*() {
        for (
          const options of [
            {},
            { authorizationEndpoint: "http://localhost:8080/authorize" },
            {
              portRange: [5000, 5000] as const
            },
            { portRange: [1024, 65_535] as const },
            { redirectPath: "/" },
            { timeout: "1 hour" }
          ] satisfies ReadonlyArray<Partial<Options>>
        ) {
          yield* flow.make({ ...base, ...options }).validate ?? Effect.die("no check")
        }
      }))
  })
})
