import { assert, describe, it } from "@effect/vitest"
import { Cause, Console, DateTime, Effect, Exit, Fiber, Layer, Option, Redacted, Ref, Scope, TestClock } from "effect"
import { Alf, AuthorizationServer, DeviceCodeGrant, TokenError, TokenStorage } from "effect-alf"
import { inspect } from "node:util"
import { settle } from "../support/scriptedServer.ts"
import { broken, goodToken, json, type Received, scripted } from "../support/scriptedClient.ts"

const deviceUrl = "https://auth.test/device"
const metadata = new AuthorizationServer.Metadata({
  issuer: "https://auth.test",
  tokenEndpoint: "https://auth.test/token",
  deviceAuthorizationEndpoint: deviceUrl
})

const usual = {
  device_code: "MARKED-device-code",
  user_code: "ABCD-EFGH",
  verification_uri: "https://auth.test/activate",
  verification_uri_complete: "https://auth.test/activate?user_code=ABCD-EFGH",
  expires_in: 60,
  interval: 5
}

type Poll = Response | ReturnType<typeof broken>

const pending = () => json({ error: "authorization_pending" }, { status: 400 })

/** A server that answers each poll in turn, the last answer again and again. */
const makeServer = (
  polls: ReadonlyArray<(request: Received) => Poll>,
  device: () => Poll = () => json(usual)
) => {
  const at: Array<number> = []
  let now = () => 0
  const http = scripted((request) => {
    if (request.url === deviceUrl) return device()
    at.push(now())
    return polls[Math.min(at.length - 1, polls.length - 1)]!(request)
  })
  return {
    ...http,
    /** When the polls came, in seconds. */
    polls: at,
    watch: Effect.map(Effect.clock, (clock) => {
      now = () => clock.unsafeCurrentTimeMillis() / 1000
    }),
    forms: (url: string) =>
      http.requests.filter((request) => request.url === url).map(({ body }) => new URLSearchParams(body))
  }
}

const connect = (
  server: ReturnType<typeof makeServer>,
  options: DeviceCodeGrant.Options = {},
  more: Partial<Extract<Alf.Options, { readonly metadata: AuthorizationServer.Metadata }>> = {},
  show: (code: DeviceCodeGrant.DeviceCode) => Effect.Effect<void> = () => Effect.void
) =>
  Effect.gen(function*() {
    yield* server.watch
    const shown: Array<DeviceCodeGrant.DeviceCode> = []
    const clients = yield* Alf.make<DeviceCodeGrant.DevicePrompt>({
      metadata,
      clientId: "tool",
      origins: ["https://api.test"],
      tokenRetry: { times: 0 },
      ...more,
      grant: DeviceCodeGrant.make(options)
    }).pipe(
      Effect.provideService(DeviceCodeGrant.DevicePrompt, {
        show: (code) => Effect.suspend(() => (shown.push(code), show(code)))
      }),
      Effect.provide(server.layer)
    )
    return { clients, shown }
  })

/** Runs to the end while the clock goes on, second by second. */
const run = <A, E>(effect: Effect.Effect<A, E>, seconds = 700) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(effect)
    for (let n = 0; n < seconds && fiber.unsafePoll() === null; n++) {
      yield* settle
      yield* TestClock.adjust("1 second")
    }
    yield* settle
    return yield* Fiber.join(fiber)
  })

describe("DeviceCodeGrant", () => {
  it.scoped("asks for a code, shows it, and polls until there is a token", () =>
    Effect.gen(function*() {
      const server = makeServer([pending, pending, () => goodToken("token", { refresh_token: "refresh" })])
      const { clients, shown } = yield* connect(server, {
        scope: ["openid", "offline_access"],
        audience: "api",
        resource: "https://api.test",
        params: { prompt: "consent" }
      })
      const token = yield* run(clients.tokens.get)
      assert.strictEqual(Redacted.value(token.value), "token")
      assert.deepStrictEqual(token.scope, ["openid", "offline_access"])
      assert.deepStrictEqual(server.polls, [5, 10, 15])
      const [device] = server.forms(deviceUrl)
      assert.deepStrictEqual(Object.fromEntries(device ?? []), {
        client_id: "tool",
        scope: "openid offline_access",
        audience: "api",
        resource: "https://api.test",
        prompt: "consent"
      })
      assert.deepStrictEqual(Object.fromEntries(server.forms(metadata.tokenEndpoint)[0] ?? []), {
        grant_type: "urn:ietf:params:oauth:grant-type:device_code",
        device_code: "MARKED-device-code",
        client_id: "tool"
      })
      assert.lengthOf(shown, 1)
      const [code] = shown
      assert.strictEqual(code?.userCode, "ABCD-EFGH")
      assert.strictEqual(code?.verificationUri, "https://auth.test/activate")
      assert.deepStrictEqual(
        code?.verificationUriComplete,
        Option.some("https://auth.test/activate?user_code=ABCD-EFGH")
      )
      assert.strictEqual(DateTime.toEpochMillis(code!.expiresAt), 60_000)
    }))

  it.scoped("shows one code to a hundred fibers that need a token", () =>
    Effect.gen(function*() {
      const server = makeServer([pending, () => goodToken("token")])
      const { clients, shown } = yield* connect(server)
      const tokens = yield* run(
        Effect.all(Array.from({ length: 100 }, () => clients.tokens.get), { concurrency: "unbounded" })
      )
      assert.lengthOf(tokens, 100)
      assert.lengthOf(shown, 1)
      assert.lengthOf(server.polls, 2)
    }))

  it.scoped("uses a refresh token before anybody is asked again, with scope and resource, without params", () =>
    Effect.gen(function*() {
      const server = makeServer([
        () => goodToken("token-1", { refresh_token: "refresh" }),
        () => goodToken("token-2")
      ])
      const { clients, shown } = yield* connect(server, {
        scope: "openid",
        resource: "https://api.test",
        params: { prompt: "consent" }
      })
      const first = yield* run(clients.tokens.get)
      yield* run(clients.tokens.refresh(first))
      assert.lengthOf(shown, 1)
      assert.deepStrictEqual(Object.fromEntries(server.forms(metadata.tokenEndpoint)[1] ?? []), {
        grant_type: "refresh_token",
        refresh_token: "refresh",
        client_id: "tool",
        scope: "openid",
        resource: "https://api.test"
      })
    }))

  describe("polls", () => {
    const paces: ReadonlyArray<
      readonly [
        string,
        Readonly<Record<string, unknown>>,
        ReadonlyArray<(request: Received) => Poll>,
        ReadonlyArray<number>
      ]
    > = [
      ["every 5 s if the server does not say", { interval: undefined }, [pending, pending], [5, 10, 15]],
      ["as often as it says", { interval: 2 }, [pending, pending], [2, 4, 6]],
      ["as a text too", { interval: "3" }, [pending, pending], [3, 6, 9]],
      ["never more than once a second", { interval: 0 }, [pending, pending], [1, 2, 3]],
      ["never more than once a second, whatever it says", { interval: -1 }, [pending, pending], [1, 2, 3]],
      ["every 5 s if what it says cannot be read", { interval: "soon" }, [pending, pending], [5, 10, 15]],
      ["5 s slower for good after slow_down", {}, [
        () => json({ error: "slow_down" }, { status: 400 }),
        pending,
        () => json({ error: "slow_down" }, { status: 400 }),
        pending
      ], [5, 15, 25, 40, 55]],
      ["more slowly while the server cannot be reached", {}, [
        (request) => broken(request),
        () => new Response("no", { status: 503 }),
        () => json({ error: "temporarily_unavailable" }, { status: 400 }),
        pending
      ], [5, 15, 35, 75, 80]],
      ["on after a pending response with status 200, as some servers send it", {}, [
        () => json({ error: "authorization_pending" })
      ], [5, 10]]
    ]
    for (const [name, members, polls, expected] of paces) {
      it.scoped(name, () =>
        Effect.gen(function*() {
          const server = makeServer([...polls, () => goodToken("token")], () =>
            json({ ...usual, expires_in: 600, ...members }))
          const { clients } = yield* connect(server)
          yield* run(clients.tokens.get)
          assert.deepStrictEqual(server.polls, expected)
        }))
    }
  })

  describe("ends", () => {
    const ends: ReadonlyArray<
      readonly [
        string,
        (request: Received) => Poll,
        Partial<Pick<TokenError.AuthorizationError, "reason" | "error" | "errorDescription">>,
        number
      ]
    > = [
      [
        "in AccessDenied if the person says no",
        () => json({ error: "access_denied", error_description: "no, thanks" }, { status: 400 }),
        { reason: "AccessDenied", error: "access_denied", errorDescription: "no, thanks" },
        1
      ],
      [
        "in Timeout if the server says that the code has ended",
        () => json({ error: "expired_token" }, { status: 400 }),
        { reason: "Timeout" },
        1
      ],
      ["in Timeout at the end of the code, however often the server says pending", pending, { reason: "Timeout" }, 11],
      [
        "in Timeout at the end of the code, however often it says slow_down",
        () => json({ error: "slow_down" }, { status: 400 }),
        { reason: "Timeout" },
        4
      ]
    ]
    for (const [name, answer, expected, polls] of ends) {
      it.scoped(name, () =>
        Effect.gen(function*() {
          const server = makeServer([answer])
          const { clients } = yield* connect(server)
          const error = yield* Effect.flip(run(clients.tokens.get))
          assert.instanceOf(error, TokenError.AuthorizationError)
          assert.deepInclude(
            { reason: error.reason, error: error.error, errorDescription: error.errorDescription },
            expected
          )
          assert.lengthOf(server.polls, polls)
        }))
    }

    it.scoped("with the server's own error otherwise, and the next request shows a new code", () =>
      Effect.gen(function*() {
        const server = makeServer([() => json({ error: "invalid_grant" }, { status: 400 }), () => goodToken("token")])
        const { clients, shown } = yield* connect(server)
        const error = yield* Effect.flip(run(clients.tokens.get))
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_grant")
        yield* TestClock.adjust("1 minute")
        yield* run(clients.tokens.get)
        assert.lengthOf(shown, 2)
      }))

    it.scoped("by the clock, when the machine has slept", () =>
      Effect.gen(function*() {
        const server = makeServer([pending])
        const { clients } = yield* connect(server)
        const fiber = yield* Effect.fork(Effect.flip(clients.tokens.get))
        yield* settle
        yield* TestClock.adjust("2 hours")
        yield* settle
        yield* TestClock.adjust("10 minutes")
        yield* settle
        const error = yield* Fiber.join(fiber)
        assert.isTrue(error._tag === "AuthorizationError" && error.reason === "Timeout")
      }))
  })

  describe("a device authorization response", () => {
    it.scoped.each(
      [
        ["device_code", { device_code: undefined }],
        ["device_code", { device_code: 1 }],
        ["user_code", { user_code: "" }],
        ["user_code", { user_code: "A".repeat(5_000) }],
        ["verification_uri", { verification_uri: undefined }],
        ["verification_uri", { verification_uri: "javascript:alert(1)" }],
        ["verification_uri", { verification_uri: "http://auth.test/activate" }],
        ["expires_in", { expires_in: 0 }],
        ["expires_in", { expires_in: -1 }],
        ["expires_in", { expires_in: "soon" }],
        ["expires_in", { expires_in: null }]
      ] as const
    )("without a usable %s is an InvalidTokenResponse: %o", ([name, members]) =>
      Effect.gen(function*() {
        const server = makeServer([pending], () => json({ ...usual, ...members }))
        const { clients, shown } = yield* connect(server)
        const error = yield* Effect.flip(run(clients.tokens.get, 5))
        assert.instanceOf(error, TokenError.InvalidTokenResponse)
        assert.include(error.message, name)
        assert.notInclude(inspect(error), "MARKED")
        assert.lengthOf(shown, 0)
      }))

    it.scoped("may name the URL as Google does, leave out when the code ends, and hold what is not to be shown", () =>
      Effect.gen(function*() {
        const server = makeServer([pending], () =>
          json({
            device_code: "a",
            user_code: "A\u001b[2JB",
            verification_url: "https://auth.test/activate",
            verification_uri_complete: "file:///etc/passwd",
            interval: 200
          }))
        const { clients, shown } = yield* connect(server)
        const error = yield* Effect.flip(run(clients.tokens.get))
        assert.isTrue(error._tag === "AuthorizationError" && error.reason === "Timeout")
        assert.strictEqual(shown[0]?.userCode, "A [2JB")
        assert.deepStrictEqual(shown[0]?.verificationUriComplete, Option.none())
        assert.strictEqual(DateTime.toEpochMillis(shown[0]!.expiresAt), 300_000)
      }))

    it.scoped("with an endless life is waited for for a day at most", () =>
      Effect.gen(function*() {
        const server = makeServer(
          [() => goodToken("token")],
          () => json({ ...usual, expires_in: 1e300, interval: 1 })
        )
        const { clients, shown } = yield* connect(server)
        yield* run(clients.tokens.get)
        assert.strictEqual(DateTime.toEpochMillis(shown[0]!.expiresAt), 24 * 3_600_000)
      }))

    it.scoped("that is an error is that error; without an endpoint it is Unsupported", () =>
      Effect.gen(function*() {
        const server = makeServer([pending], () => json({ error: "invalid_client" }, { status: 401 }))
        const { clients } = yield* connect(server)
        const error = yield* Effect.flip(run(clients.tokens.get, 5))
        assert.isTrue(error._tag === "TokenErrorResponse" && error.error === "invalid_client")

        const bare = new AuthorizationServer.Metadata({
          issuer: "https://auth.test",
          tokenEndpoint: "https://auth.test/token"
        })
        const { clients: without } = yield* connect(server, {}, { metadata: bare })
        const unsupported = yield* Effect.flip(run(without.tokens.get, 5))
        assert.isTrue(unsupported._tag === "DiscoveryError" && unsupported.reason === "Unsupported")
        const { clients: given } = yield* connect(makeServer([() => goodToken("token")]), {
          deviceAuthorizationEndpoint: deviceUrl
        }, { metadata: bare })
        yield* run(given.tokens.get)
      }))
  })

  it.scoped("does not wait for show, and interrupts it when the sign-in has ended", () =>
    Effect.gen(function*() {
      const interrupted = yield* Ref.make(false)
      const server = makeServer([() => goodToken("token")])
      const { clients } = yield* connect(server, {}, {}, () =>
        Effect.onInterrupt(Effect.never, () =>
          Ref.set(interrupted, true)))
      yield* run(clients.tokens.get)
      assert.isTrue(yield* interrupted)
    }))

  it.scoped("a show that dies is a typed error: nobody has seen the code", () =>
    Effect.gen(function*() {
      const server = makeServer([pending])
      const { clients } = yield* connect(server, {}, {}, () => Effect.die(new Error("no terminal")))
      const exit = yield* run(Effect.exit(clients.tokens.get), 5)
      assert.isTrue(Exit.isFailure(exit) && Cause.isFailure(exit.cause))
    }))

  it.effect("closing the layer ends the sign-in", () =>
    Effect.gen(function*() {
      const server = makeServer([pending])
      const scope = yield* Scope.make()
      const { clients } = yield* Scope.extend(connect(server), scope)
      const fiber = yield* Effect.fork(Effect.flip(clients.tokens.get))
      yield* settle
      yield* Scope.close(scope, Exit.void)
      assert.instanceOf(yield* Fiber.join(fiber), TokenError.LayerClosed)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(server.polls, 0)
    }))

  it.scoped("people who share a storage have a token each by their account", () =>
    Effect.gen(function*() {
      const server = makeServer([() => goodToken("token")])
      const storage = yield* Layer.build(TokenStorage.layerMemory)
      for (const account of [undefined, "ann", "bob", "ann"]) {
        const { clients } = yield* Effect.provide(connect(server, { account }), storage)
        yield* run(clients.tokens.get)
      }
      assert.lengthOf(server.polls, 3)
    }))

  it.effect("options that cannot work are a ConfigurationError", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<DeviceCodeGrant.Options> = [
        { account: "" },
        { params: { client_id: "x" } },
        { scope: "a", params: { scope: "b" } },
        { deviceAuthorizationEndpoint: "no URL" },
        { deviceAuthorizationEndpoint: "http://auth.test/device" }
      ]
      for (const options of cases) {
        const error = yield* Effect.flip(Effect.scoped(connect(makeServer([pending]), options)))
        assert.instanceOf(error, TokenError.ConfigurationError)
      }
    }))

  it.effect("layerConsole writes URL, code and time to the standard error", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const { show } = yield* Effect.provide(DeviceCodeGrant.DevicePrompt, DeviceCodeGrant.layerConsole)
      const original = yield* Console.consoleWith(Effect.succeed)
      yield* Effect.withConsole(
        show({
          userCode: "ABCD-EFGH",
          verificationUri: "https://auth.test/activate",
          verificationUriComplete: Option.some("https://auth.test/activate?c=1"),
          expiresAt: DateTime.unsafeMake(600_000)
        }),
        {
          ...original,
          error: (...words: ReadonlyArray<unknown>) => Effect.sync(() => void lines.push(words.join(" ")))
        }
      )
      const text = lines.join("\n")
      for (const part of ["https://auth.test/activate", "ABCD-EFGH", "?c=1", "10 minutes"]) assert.include(text, part)
    }))
})
