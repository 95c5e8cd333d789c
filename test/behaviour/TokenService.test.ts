import { UrlParams } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Deferred, Effect, Fiber, Layer, Option, Redacted, Ref, TestClock } from "effect"
import { AccessToken, Alf, AuthorizedHttpClient, Grant, TokenEndpoint, TokenService } from "effect-alf"
import {
  advancing,
  api,
  bearer,
  bearers,
  counting,
  json,
  pipeline,
  type Script,
  serve,
  settle,
  tokenEndpoint
} from "../support/scriptedServer.ts"
import { layerServer, resolved } from "../support/endpoint.ts"

const value = (token: AccessToken.AccessToken) => Redacted.value(token.value)
const get = (tokens: Context.Tag.Service<TokenService.TokenService>) => Effect.map(tokens.get, value)
const once = { tokenRetry: { times: 0 } } as const

/** The first token that comes of an answer's JSON, or the error. */
const decoded = (
  body: unknown,
  options: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
) => Effect.flatMap(pipeline(serve({ token: () => json(body) }), options), (_) => _.tokens.get)

const held = (more: Record<string, unknown>) => ({ access_token: "t", token_type: "Bearer", ...more })

describe("the token's life", () => {
  it.scoped("nothing asked, nothing fetched", () =>
    Effect.gen(function*() {
      const server = serve()
      yield* pipeline(server)
      yield* TestClock.adjust("1 day")
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.scoped("what an answer says", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000_000)
      const token = yield* decoded({
        access_token: "t",
        token_type: "bearer",
        expires_in: 60,
        scope: "read write",
        refresh_token: "r"
      })
      assert.instanceOf(token, AccessToken.AccessToken)
      assert.strictEqual(value(token), "t")
      assert.deepStrictEqual(token.scope, ["read", "write"])
      assert.strictEqual(Redacted.value(Option.getOrThrow(token.refreshToken)), "r")
      assert.strictEqual(DateTime.toEpochMillis(token.issuedAt), 1_000_000)
      assert.strictEqual(DateTime.toEpochMillis(Option.getOrThrow(token.expiresAt)), 1_060_000)
    }))

  for (
    const [name, expiresIn, seconds] of [
      ["a number", 60, 60],
      ["a string of digits", "60", 60],
      ["a fraction", 60.9, 60]
    ] as const
  ) {
    it.scoped(`expires_in: ${name}`, () =>
      Effect.gen(function*() {
        const token = yield* decoded(held({ expires_in: expiresIn }))
        assert.strictEqual(Option.getOrNull(Option.map(token.expiresAt, DateTime.toEpochMillis)), seconds * 1000)
      }))
  }

  it.scoped("expires_in counts from the request, not from the answer", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`, { expires_in: 20 })), "5 seconds")
      })
      const { tokens } = yield* pipeline(server)
      const fiber = yield* Effect.fork(tokens.get)
      yield* settle
      yield* TestClock.adjust("5 seconds")
      const token = yield* Fiber.join(fiber)
      assert.strictEqual(Option.getOrNull(Option.map(token.expiresAt, DateTime.toEpochMillis)), 20_000)
    }))

  it.scoped("a missing or null expires_in is valid until it is refused", () =>
    Effect.forEach([held({}), held({ expires_in: null })], (body) =>
      Effect.gen(function*() {
        const server = serve({ token: () => json(body) })
        const { tokens } = yield* pipeline(server)
        const token = yield* tokens.get
        assert.isTrue(Option.isNone(token.expiresAt))
        yield* TestClock.adjust("1000 days")
        yield* tokens.get
        assert.strictEqual(server.tokenRequests.length, 1)
      })))

  it.scoped("or as long as defaultExpiresIn", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => json({ access_token: `t${n}`, token_type: "Bearer" }) })
      const { tokens } = yield* pipeline(server, { defaultExpiresIn: "1 minute" })
      const token = yield* tokens.get
      assert.strictEqual(Option.getOrNull(Option.map(token.expiresAt, DateTime.toEpochMillis)), 60_000)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* get(tokens), "t2")
    }))

  it.scoped("0 serves those who wait and is never kept", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`, { expires_in: 0 })), "1 second")
      })
      const { tokens } = yield* pipeline(server)
      const three = yield* Effect.fork(
        Effect.all([get(tokens), get(tokens), get(tokens)], { concurrency: "unbounded" })
      )
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(three), ["t1", "t1", "t1"])
      assert.strictEqual(yield* advancing(get(tokens), "1 second"), "t2")
    }))

  it.scoped("a huge expires_in is capped", () =>
    Effect.forEach([1e300, Number.MAX_SAFE_INTEGER, "99999999999999999999999"], (expiresIn) =>
      Effect.gen(function*() {
        const server = serve({ token: () => bearer("t", { expires_in: expiresIn }) })
        const { tokens } = yield* pipeline(server)
        const token = yield* tokens.get
        for (const expiresAt of Option.toArray(token.expiresAt)) {
          assert.isTrue(Number.isFinite(DateTime.toEpochMillis(expiresAt)))
          assert.isAbove(DateTime.formatIso(expiresAt).length, 0)
        }
        yield* TestClock.adjust("365 days")
        yield* tokens.get
        assert.strictEqual(server.tokenRequests.length, 1)
      })))

  for (
    const [name, body] of Object.entries({
      "negative": held({ expires_in: -1 }),
      "a negative string": held({ expires_in: "-1" }),
      "a word": held({ expires_in: "soon" }),
      "an empty string": held({ expires_in: "" }),
      "true": held({ expires_in: true }),
      "an object": held({ expires_in: {} }),
      "a list": held({ expires_in: [60] })
    })
  ) {
    it.scoped(`expires_in that is ${name}`, () =>
      Effect.gen(function*() {
        assert.isTrue(Option.isNone((yield* decoded(body)).expiresAt))
      }))
  }

  for (
    const [name, body] of Object.entries({
      "token_type mac": held({ token_type: "mac" }),
      "token_type N_A": held({ token_type: "N_A" }),
      "token_type 7": held({ token_type: 7 }),
      "no access_token": { token_type: "Bearer" },
      "an empty access_token": held({ access_token: "" }),
      "access_token 7": held({ access_token: 7 }),
      "an access_token with CR LF": held({ access_token: "t\r\nx: y" }),
      "an access_token with a control character": held({ access_token: "t\u0001" }),
      "an access_token with a tab": held({ access_token: "t\tt" }),
      "an access_token with a space": held({ access_token: "t t" })
    })
  ) {
    it.scoped(`an answer with ${name} is invalid`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(decoded(body))
        assert.strictEqual(error._tag, "InvalidTokenResponse")
        if (error._tag === "InvalidTokenResponse") assert.notInclude(String(error.issue), "x: y")
      }))
  }

  it.scoped("token_type in any case is sent as Bearer", () =>
    Effect.forEach(["bearer", "BEARER", "Bearer"], (type) =>
      Effect.gen(function*() {
        const server = serve({ token: () => json(held({ token_type: type })) })
        const { httpClient } = yield* pipeline(server)
        yield* httpClient.get(api)
        assert.deepStrictEqual(bearers(server), ["Bearer t"])
      })))
})

describe("when a token is renewed", () => {
  it.scoped("a 20 s token is used for 19 s", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => n === 1 ? bearer("t1", { expires_in: 20 }) : json({}, { status: 500 }) })
      const { tokens } = yield* pipeline(server, once)
      assert.strictEqual(yield* get(tokens), "t1")
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* get(tokens), "t1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("3999 millis")
      assert.strictEqual(yield* get(tokens), "t1")
      yield* settle
      yield* TestClock.adjust("1 millis")
      const error = yield* Effect.flip(tokens.get)
      assert.strictEqual(error._tag, "TokenErrorResponse")
    }))

  it.scoped("in the window one refresh runs behind everyone's back", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) => n === 1 ? bearer("t1") : Effect.delay(Effect.succeed(bearer(`t${n}`)), "5 seconds")
      })
      const { tokens } = yield* pipeline(server)
      yield* tokens.get
      // 144 s is the farthest from expiry that the jitter goes, 96 s the nearest
      yield* TestClock.adjust("3455 seconds")
      assert.strictEqual(yield* get(tokens), "t1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("50 seconds")
      assert.deepStrictEqual(yield* Effect.all([get(tokens), get(tokens), get(tokens)]), ["t1", "t1", "t1"])
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 2)
      assert.strictEqual(yield* get(tokens), "t1")
      yield* TestClock.adjust("5 seconds")
      yield* settle
      assert.strictEqual(yield* get(tokens), "t2")
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("nothing runs while nobody asks", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server)
      yield* tokens.get
      yield* TestClock.adjust("1 day")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("a failed background refresh is invisible, and tried again after a quarter of what is left", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => n === 1 ? bearer("t1") : json({}, { status: 500 }) })
      const { tokens } = yield* pipeline(server, once)
      yield* tokens.get
      yield* TestClock.adjust("3520 seconds")
      assert.strictEqual(yield* get(tokens), "t1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 2)
      yield* TestClock.adjust("19 seconds")
      assert.strictEqual(yield* get(tokens), "t1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 2)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* get(tokens), "t1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 3)
    }))

  it.scoped("expiryLeeway and refreshAhead are heeded", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server, { expiryLeeway: "1 minute", refreshAhead: 0 })
      yield* tokens.get
      yield* TestClock.adjust("3539999 millis")
      assert.strictEqual(yield* get(tokens), "token-1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* get(tokens), "token-2")
    }))

  it.scoped("but never beyond their share of the lifetime", () =>
    Effect.gen(function*() {
      const server = serve({ token: counting({ expires_in: 20 }) })
      const { tokens } = yield* pipeline(server, { expiryLeeway: "30 seconds", refreshAhead: "1 hour" })
      yield* tokens.get
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* get(tokens), "token-1")
      yield* settle
      assert.strictEqual(server.tokenRequests.length, 1)
      yield* TestClock.adjust("3999 millis")
      assert.strictEqual(yield* get(tokens), "token-1")
    }))

  it.scoped("a clock set back before the issue fetches", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server)
      yield* TestClock.setTime(1_000_000)
      yield* tokens.get
      yield* TestClock.setTime(999_999)
      assert.strictEqual(yield* get(tokens), "token-2")
    }))

  it.scoped("a sleep past the end fetches", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server)
      yield* tokens.get
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* get(tokens), "token-2")
    }))

  it.scoped("one flight for all", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`)), "1 second") })
      const { tokens } = yield* pipeline(server)
      const all = yield* Effect.fork(
        Effect.all(Array.from({ length: 1000 }, () => get(tokens)), { concurrency: "unbounded" })
      )
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([...new Set(yield* Fiber.join(all))], ["t1"])
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("who is interrupted only leaves", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`)), "1 second") })
      const { tokens } = yield* pipeline(server)
      const first = yield* Effect.fork(get(tokens))
      yield* settle
      const second = yield* Effect.fork(get(tokens))
      yield* settle
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(second), "t1")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("even if all leave, the token that comes is kept", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => Effect.delay(Effect.succeed(bearer(`t${n}`)), "1 second") })
      const { tokens } = yield* pipeline(server)
      const only = yield* Effect.fork(get(tokens))
      yield* settle
      yield* Fiber.interrupt(only)
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(yield* advancing(get(tokens), "1 second"), "t1")
    }))

  it.scoped("a failure goes to those who wait and is not kept", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) =>
          Effect.delay(Effect.sync(() => n === 1 ? json({}, { status: 503 }) : bearer(`t${n}`)), "1 second")
      })
      const { tokens } = yield* pipeline(server, once)
      const waiting = yield* Effect.fork(
        Effect.all([Effect.flip(tokens.get), Effect.flip(tokens.get)], { concurrency: "unbounded" })
      )
      yield* settle
      yield* TestClock.adjust("1 second")
      for (const error of yield* Fiber.join(waiting)) assert.strictEqual(error._tag, "TokenErrorResponse")
      assert.strictEqual(yield* advancing(get(tokens), "1 second"), "t2")
    }))

  it.scoped("refresh gives another token, or the one that has replaced it already", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server)
      const first = yield* tokens.get
      const second = yield* tokens.refresh(first)
      assert.strictEqual(value(second), "token-2")
      assert.strictEqual(value(yield* tokens.refresh(first)), "token-2")
      assert.strictEqual(yield* get(tokens), "token-2")
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("refresh joins a flight", () =>
    Effect.gen(function*() {
      const server = serve({
        token: (_, n) => n === 1 ? bearer("t1") : Effect.delay(Effect.succeed(bearer(`t${n}`)), "1 second")
      })
      const { tokens } = yield* pipeline(server)
      const first = yield* tokens.get
      const all = yield* Effect.fork(
        Effect.all(Array.from({ length: 100 }, () => Effect.map(tokens.refresh(first), value)), {
          concurrency: "unbounded"
        })
      )
      yield* settle
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([...new Set(yield* Fiber.join(all))], ["t2"])
      assert.strictEqual(server.tokenRequests.length, 2)
    }))

  it.scoped("invalidate forgets", () =>
    Effect.gen(function*() {
      const server = serve()
      const { tokens } = yield* pipeline(server)
      yield* tokens.get
      yield* tokens.invalidate
      assert.strictEqual(server.tokenRequests.length, 1)
      assert.strictEqual(yield* get(tokens), "token-2")
    }))
})

class Tenant extends Context.Tag("test/Tenant")<Tenant, { readonly id: string }>() {}

describe("a grant of one's own", () => {
  const grant: Grant.Grant<Tenant> = {
    key: "tenant-token",
    acquire: () =>
      Effect.gen(function*() {
        const endpoint = yield* TokenEndpoint.TokenEndpoint
        const tenant = yield* Tenant
        return yield* endpoint.request(UrlParams.fromInput({ grant_type: "urn:tenant", tenant: tenant.id }))
      })
  }

  it.effect("gets what the layer is given", () =>
    Effect.gen(function*() {
      const server = serve()
      const layer = Alf.layer({ tokenEndpoint, clientId: "c", origins: [api], grant }).pipe(
        Layer.provide(server.layer),
        Layer.provide(Layer.succeed(Tenant, { id: "acme" }))
      )
      yield* Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (_) => _.get(api)).pipe(Effect.provide(layer))
      const form = server.tokenRequests[0]!.form
      assert.strictEqual(form.get("grant_type"), "urn:tenant")
      assert.strictEqual(form.get("tenant"), "acme")
      assert.deepStrictEqual(bearers(server), ["Bearer token-1"])
    }))

  it.scoped("sees the token before, and may do without the token endpoint", () =>
    Effect.gen(function*() {
      const seen = yield* Ref.make<ReadonlyArray<string>>([])
      const counter = yield* Ref.make(0)
      const own: Grant.Grant = {
        key: "own",
        acquire: (previous) =>
          Effect.gen(function*() {
            yield* Ref.update(seen, (_) => [..._, Option.match(previous, { onNone: () => "none", onSome: value })])
            const n = yield* Ref.updateAndGet(counter, (n) => n + 1)
            const issuedAt = yield* DateTime.now
            return new AccessToken.AccessToken({
              value: Redacted.make(`own-${n}`),
              type: "Bearer",
              scope: [],
              issuedAt,
              expiresAt: Option.some(DateTime.add(issuedAt, { hours: 1 })),
              refreshToken: Option.none()
            })
          })
      }
      const server = serve()
      const { tokens } = yield* pipeline(server, { grant: own })
      const first = yield* tokens.get
      yield* tokens.refresh(first)
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(yield* get(tokens), "own-3")
      assert.deepStrictEqual(yield* Ref.get(seen), ["none", "own-1", "own-2"])
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it("keys tell client credentials apart", () => {
    const keys = [
      Grant.clientCredentials({}),
      Grant.clientCredentials({ scope: "a" }),
      Grant.clientCredentials({ scope: "b" }),
      Grant.clientCredentials({ audience: "a" }),
      Grant.clientCredentials({ resource: "a" }),
      Grant.clientCredentials({ resource: ["a", "b"] }),
      Grant.clientCredentials({ params: { a: "b" } }),
      Grant.clientCredentials({ params: { scope2: "a" } })
    ].map((grant) => grant.key)
    assert.strictEqual(new Set(keys).size, keys.length)
    assert.strictEqual(
      Grant.clientCredentials({ scope: ["a", "b"] }).key,
      Grant.clientCredentials({ scope: "b a" }).key
    )
  })
})

describe("Grant.refreshToken", () => {
  const script: Script = (sent, n) =>
    sent.form.get("grant_type") === "refresh_token" && sent.form.get("refresh_token") === "dead"
      ? json({ error: "invalid_grant" }, { status: 400 })
      : bearer(`t${n}`, { refresh_token: `r${n}` })
  const grants = (requests: ReadonlyArray<{ readonly form: URLSearchParams }>) =>
    requests.map(({ form }) => [form.get("grant_type"), form.get("refresh_token")])

  it.scoped("uses the previous token's refresh token", () =>
    Effect.gen(function*() {
      const server = serve({ token: script })
      const { tokens } = yield* pipeline(server, { grant: Grant.refreshToken(Grant.clientCredentials({ scope: "a" })) })
      const first = yield* tokens.get
      yield* tokens.refresh(first)
      yield* TestClock.adjust("2 hours")
      yield* tokens.get
      assert.deepStrictEqual(grants(server.tokenRequests), [
        ["client_credentials", null],
        ["refresh_token", "r1"],
        ["refresh_token", "r2"]
      ])
    }))

  it.scoped("starts with initial", () =>
    Effect.gen(function*() {
      const server = serve({ token: script })
      const { tokens } = yield* pipeline(server, {
        grant: Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make("r0") })
      })
      const first = yield* tokens.get
      yield* tokens.refresh(first)
      assert.deepStrictEqual(grants(server.tokenRequests), [["refresh_token", "r0"], ["refresh_token", "r1"]])
    }))

  it.scoped("goes to the other grant on invalid_grant", () =>
    Effect.gen(function*() {
      const server = serve({ token: script })
      const { tokens } = yield* pipeline(server, {
        grant: Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make("dead") })
      })
      assert.strictEqual(yield* get(tokens), "t2")
      assert.deepStrictEqual(grants(server.tokenRequests), [["refresh_token", "dead"], ["client_credentials", null]])
    }))

  it.scoped("fails with any other error", () =>
    Effect.gen(function*() {
      const server = serve({ token: () => json({ error: "invalid_client" }, { status: 401 }) })
      const { tokens } = yield* pipeline(server, {
        grant: Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make("r0") })
      })
      const error = yield* Effect.flip(tokens.get)
      assert.strictEqual(error._tag === "TokenErrorResponse" ? error.error : error._tag, "invalid_client")
      assert.strictEqual(server.tokenRequests.length, 1)
    }))

  it.scoped("keeps a refresh token that the answer does not replace", () =>
    Effect.gen(function*() {
      const server = serve({ token: (_, n) => bearer(`t${n}`, n === 1 ? { refresh_token: "r1" } : {}) })
      const { tokens } = yield* pipeline(server, { grant: Grant.refreshToken(Grant.clientCredentials({})) })
      yield* tokens.refresh(yield* tokens.get)
      yield* tokens.refresh(yield* tokens.get)
      assert.deepStrictEqual(grants(server.tokenRequests), [
        ["client_credentials", null],
        ["refresh_token", "r1"],
        ["refresh_token", "r1"]
      ])
    }))
})

describe("layerStatic", () => {
  it.effect("is one fixed token, without a request", () =>
    Effect.gen(function*() {
      const server = serve()
      const program = Effect.gen(function*() {
        const tokens = yield* TokenService.TokenService
        const client = yield* AuthorizedHttpClient.AuthorizedHttpClient
        yield* client.get(api)
        yield* TestClock.adjust("1000 days")
        yield* tokens.invalidate
        yield* client.get(api)
        return yield* tokens.get
      })
      for (const key of ["api-key", Redacted.make("api-key")]) {
        const token = yield* program.pipe(
          Effect.provide(AuthorizedHttpClient.layer({ origins: [api] })),
          Effect.provide(TokenService.layerStatic(key)),
          Effect.provide(server.layer)
        )
        assert.strictEqual(value(token), "api-key")
        assert.isTrue(Option.isNone(token.expiresAt))
      }
      assert.deepStrictEqual([...new Set(bearers(server))], ["Bearer api-key"])
      assert.strictEqual(server.tokenRequests.length, 0)
    }))

  it.effect("that is refused ends in Unauthorized, without many requests", () =>
    Effect.gen(function*() {
      const server = serve({ api: () => new Response("no", { status: 401 }) })
      const error = yield* Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (_) => Effect.flip(_.get(api)))
        .pipe(
          Effect.provide(AuthorizedHttpClient.layer({ origins: [api] })),
          Effect.provide(TokenService.layerStatic("api-key")),
          Effect.provide(server.layer)
        )
      assert.strictEqual(error._tag, "Unauthorized")
      assert.isAtMost(server.apiRequests.length, 2)
    }))
})

describe("TokenService.make", () => {
  it.scoped("over an endpoint of one's own", () =>
    Effect.gen(function*() {
      const asked = yield* Ref.make<ReadonlyArray<string>>([])
      const gate = yield* Deferred.make<void>()
      const tokens = yield* TokenService.make({ grant: Grant.clientCredentials({ scope: "s" }), refreshAhead: 0 }).pipe(
        Effect.provide(layerServer),
        Effect.provideService(TokenEndpoint.TokenEndpoint, {
          identity: "mine",
          request: (params) =>
            Effect.gen(function*() {
              const form = UrlParams.toString(yield* resolved(params))
              yield* Ref.update(asked, (_) => [..._, form])
              yield* Deferred.await(gate)
              return new AccessToken.AccessToken({
                value: Redacted.make("mine"),
                type: "Bearer",
                scope: ["s"],
                issuedAt: yield* DateTime.now,
                expiresAt: Option.none(),
                refreshToken: Option.none()
              })
            })
        })
      )
      const fiber = yield* Effect.fork(get(tokens))
      yield* settle
      yield* Deferred.succeed(gate, void 0)
      assert.strictEqual(yield* Fiber.join(fiber), "mine")
      assert.deepStrictEqual(yield* Ref.get(asked), ["grant_type=client_credentials&scope=s"])
    }))
})
