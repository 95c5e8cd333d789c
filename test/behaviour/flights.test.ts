/** Flights of a token: clocks, deadlines, closing, what they see of their caller, outages, revocation. */
import { assert, describe, it } from "@effect/vitest"
import { UrlParams } from "@effect/platform"
import {
  Clock,
  Config,
  ConfigProvider,
  DateTime,
  Duration,
  Effect,
  Exit,
  Fiber,
  Option,
  Redacted,
  Scope,
  TestClock
} from "effect"
import {
  AccessToken,
  AuthorizationServer,
  Grant,
  TokenEndpoint,
  TokenError,
  TokenService,
  TokenStorage
} from "effect-alf"
import { Flight } from "../../src/internal/token/flight.ts"
import { resolved, serverStub } from "../support/endpoint.ts"
import { controlledStorage } from "../support/storages.ts"
import { inTime, many, settle } from "../support/testClock.ts"

type Token = AccessToken.AccessToken
type Failure = TokenError.TokenError

const url = "https://auth.test/token"
const value = (token: Token): string => Redacted.value(token.value)
const noResponse = new TokenError.TokenRequestError({
  reason: "Transport",
  endpoint: url,
  attempts: 1,
  description: "reset"
})
const refused = (error: string, status = 400) =>
  new TokenError.TokenErrorResponse({ endpoint: url, status, error, attempts: 1, body: "" })

/** A token that is issued now. */
const issue = (name: string, life: Duration.DurationInput = "1 hour", refreshToken?: string) =>
  Effect.map(DateTime.now, (issuedAt) =>
    new AccessToken.AccessToken({
      value: Redacted.make(name),
      issuedAt,
      expiresAt: Option.some(DateTime.addDuration(issuedAt, life)),
      refreshToken: Option.map(Option.fromNullable(refreshToken), (text) => Redacted.make(text))
    }))

/** A server that rotates refresh tokens and takes each once. `delay`: how long a response takes. */
const rotating = (delay: Duration.DurationInput = "100 millis") => {
  const shown: Array<string> = []
  const reused: Array<string> = []
  let signIns = 0
  const request: TokenEndpoint.TokenEndpoint["Type"]["request"] = (params) =>
    Effect.gen(function*() {
      const form = new URLSearchParams(UrlParams.toString(yield* resolved(params)))
      const secret = form.get("refresh_token")
      if (secret === null) signIns++
      else if (shown.includes(secret)) reused.push(secret)
      else shown.push(secret)
      const n = shown.length + signIns
      return yield* Effect.delay(issue(`t${n}`, "1 hour", `r${n}`), delay)
    })
  return { shown, reused, signIns: () => signIns, endpoint: { identity: "an endpoint", request } }
}

const nobody: TokenEndpoint.TokenEndpoint["Type"] = {
  identity: "an endpoint",
  request: () => Effect.dieMessage("the endpoint is not asked here")
}

const make = <R = never>(
  options: TokenService.Options<R>,
  services: {
    readonly endpoint?: TokenEndpoint.TokenEndpoint["Type"]
    readonly server?: AuthorizationServer.AuthorizationServer["Type"]
    readonly storage?: TokenStorage.Storage
  } = {}
) =>
  TokenService.make(options).pipe(
    Effect.provideService(TokenEndpoint.TokenEndpoint, services.endpoint ?? nobody),
    Effect.provideService(AuthorizationServer.AuthorizationServer, services.server ?? serverStub),
    Effect.provideService(TokenStorage.TokenStorage, services.storage ?? TokenStorage.none)
  )

/** A grant whose n-th token request, from 0, is answered by a script. */
const scripted = <R = never>(
  script: (n: number, previous: Option.Option<Token>) => Effect.Effect<Token, Failure, R>
) => {
  let asked = 0
  const grant: Grant.Grant<R> = {
    key: "scripted",
    acquire: (previous) => Effect.suspend(() => script(asked++, previous))
  }
  return { grant, asked: () => asked }
}

/** A clock that is ahead of the test's by this. */
const ahead = (millis: () => number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Effect.clock, (clock) =>
    Effect.withClock(effect, {
      [Clock.ClockTypeId]: Clock.ClockTypeId,
      unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis() + millis(),
      unsafeCurrentTimeNanos: () => clock.unsafeCurrentTimeNanos(),
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis()),
      currentTimeNanos: clock.currentTimeNanos,
      sleep: (duration) => clock.sleep(duration)
    }))

const failureOf = <A, E>(fiber: Fiber.RuntimeFiber<A, E>) =>
  Effect.map(Fiber.poll(fiber), (exit) =>
    Option.getOrNull(Option.flatMap(
      exit,
      Exit.match({
        onFailure: (cause) => cause._tag === "Fail" ? Option.some(cause.error) : Option.none(),
        onSuccess: () => Option.none()
      })
    )))

const refreshing = Grant.refreshToken(Grant.clientCredentials({ scope: "a" }))

describe("a refresh token that the server takes once", () => {
  for (
    const [clocks, offsets] of [
      ["with equal clocks", [0, 0]],
      ["with a clock that is 300 ms ahead", [0, 300]],
      ["with a clock that is 10 minutes behind", [0, -600_000]]
    ] as const
  ) {
    it.scoped(`two processes ${clocks} use each once, through five renewals`, () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(1_700_000_000_000)
        const { endpoint, reused, shown, signIns } = rotating()
        const storage = controlledStorage()
        const [a, b] = yield* Effect.all(
          offsets.map((offset) => ahead(() => offset)(make({ grant: refreshing }, { endpoint, storage })))
        )
        for (let hour = 0; hour < 5; hour++) {
          yield* inTime(a!.get)
          yield* inTime(b!.get)
          yield* inTime(many(10, Effect.zip(a!.get, b!.get, { concurrent: true })))
          yield* TestClock.adjust("61 minutes")
        }
        assert.isEmpty(reused)
        assert.strictEqual(signIns(), 1)
        assert.isAtLeast(shown.length, 4)
      }))
  }

  it.scoped("a clock that is set back by 10 seconds costs token requests, and no refresh token", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      const { endpoint, reused, signIns } = rotating()
      const storage = controlledStorage()
      let offset = 0
      const service = yield* ahead(() => offset)(make({ grant: refreshing }, { endpoint, storage }))
      const other = yield* make({ grant: refreshing }, { endpoint, storage })
      for (let n = 0; n < 5; n++) {
        yield* inTime(service.get)
        yield* inTime(other.get)
        offset -= 10_000
        yield* inTime(service.get)
        yield* TestClock.adjust("1 hour")
      }
      assert.isEmpty(reused)
      assert.strictEqual(signIns(), 1)
    }))

  it.scoped("is kept if it came with a token that is over, and the next request fails", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      const used: Array<string> = []
      const storage = controlledStorage()
      const { grant } = scripted((n, previous) => {
        used.push(Option.match(Option.flatMap(previous, (token) => token.refreshToken), {
          onNone: () => "none",
          onSome: Redacted.value
        }))
        // the laptop sleeps while the first response is on its way
        return n === 0
          ? Effect.zipLeft(issue("t0", "5 seconds", "r0"), Effect.sleep("8 seconds"))
          : n === 1
          ? Effect.fail(noResponse)
          : issue(`t${n}`, "1 hour", `r${n}`)
      })
      const service = yield* make({ grant }, { storage })
      assert.strictEqual(value(yield* inTime(service.get)), "t0")
      assert.deepStrictEqual(Array.from(storage.tokens.values(), value), ["t0"])
      assert.strictEqual(value(yield* inTime(service.get)), "t2")
      assert.deepStrictEqual(used, ["none", "r0", "r0"])
    }))
})

describe("the end of the layer", () => {
  const closing = (delay: Duration.DurationInput, tokenTimeout?: Duration.DurationInput) =>
    Effect.gen(function*() {
      const storage = controlledStorage()
      const { endpoint } = rotating(delay)
      yield* storage.set("x", yield* issue("x"))
      const scope = yield* Scope.make()
      const grant = Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make("r0") })
      const service = yield* Scope.extend(make({ grant, tokenTimeout }, { endpoint, storage }), scope)
      const waiting = yield* Effect.forEach(
        [service.get, Effect.uninterruptible(service.get)],
        (call) => Effect.fork(call)
      )
      yield* settle
      const end = yield* Effect.forkDaemon(Scope.close(scope, Exit.void))
      yield* settle
      return { storage, service, waiting, end, isEnded: Effect.map(Fiber.poll(end), Option.isSome) }
    })

  it.effect("those who wait get LayerClosed at once; a refresh token that was sent is awaited and stored", () =>
    Effect.gen(function*() {
      const { isEnded, storage, waiting } = yield* closing("4 seconds")
      for (const fiber of waiting) assert.strictEqual((yield* failureOf(fiber))?._tag, "LayerClosed")
      assert.isFalse(yield* isEnded)
      yield* TestClock.adjust("4 seconds")
      assert.isTrue(yield* isEnded)
      assert.deepStrictEqual(Array.from(storage.tokens.values(), value), ["x", "t1"])
    }))

  for (const [tokenTimeout, seconds] of [["10 seconds", 5], ["2 seconds", 2]] as const) {
    it.effect(`a response is awaited for ${seconds} seconds with a tokenTimeout of ${tokenTimeout}`, () =>
      Effect.gen(function*() {
        const { isEnded, storage } = yield* closing("1 minute", tokenTimeout)
        yield* TestClock.adjust(Duration.millis(seconds * 1_000 - 1))
        assert.isFalse(yield* isEnded)
        yield* TestClock.adjust(1)
        yield* settle
        assert.isTrue(yield* isEnded)
        assert.strictEqual(storage.tokens.size, 1)
      }))
  }

  it.effect("a flight that spends nothing is interrupted at once, even if the layer was built uninterruptibly", () =>
    Effect.gen(function*() {
      let interrupted = 0
      const { grant } = scripted(() => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++)))
      const scope = yield* Scope.make()
      const service = yield* Effect.uninterruptible(Scope.extend(make({ grant }), scope))
      const waiting = yield* Effect.fork(service.get)
      yield* settle
      const end = yield* Effect.forkDaemon(Scope.close(scope, Exit.void))
      yield* settle
      assert.isTrue(Option.isSome(yield* Fiber.poll(end)))
      assert.strictEqual((yield* failureOf(waiting))?._tag, "LayerClosed")
      assert.strictEqual(interrupted, 1)
    }))

  it.effect("after a refused refresh token, the other grant is not awaited", () =>
    Effect.gen(function*() {
      const endpoint = { identity: "an endpoint", request: () => Effect.fail(refused("invalid_grant")) }
      const otherwise: Grant.Grant = { key: "a sign-in", acquire: () => Effect.never }
      const scope = yield* Scope.make()
      const grant = Grant.refreshToken(otherwise, { initial: Redacted.make("r0") })
      const service = yield* Scope.extend(make({ grant }, { endpoint }), scope)
      yield* Effect.fork(service.get)
      yield* settle
      const end = yield* Effect.forkDaemon(Scope.close(scope, Exit.void))
      yield* settle
      assert.isTrue(Option.isSome(yield* Fiber.poll(end)))
    }))

  it.effect("afterwards a good token serves on, and everything else is LayerClosed", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => issue(`t${n}`))
      const scope = yield* Scope.make()
      const service = yield* Scope.extend(make({ grant }), scope)
      const token = yield* service.get
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* service.get, token)
      assert.strictEqual((yield* Effect.flip(service.refresh(token)))._tag, "LayerClosed")
      assert.strictEqual((yield* Effect.flip(service.revoke))._tag, "LayerClosed")
      yield* TestClock.adjust("1 day")
      assert.strictEqual((yield* Effect.flip(service.get))._tag, "LayerClosed")
      assert.strictEqual(asked(), 1)
    }))
})

describe("the deadline of a flight", () => {
  it.scoped("a hundred callers of a flight that hangs get the token of the next one, which is one", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => n === 0 ? Effect.never : issue(`t${n}`))
      const service = yield* make({ grant, flightTimeout: "30 seconds" })
      const waiting = yield* Effect.fork(many(100, service.get))
      yield* TestClock.adjust("29999 millis")
      assert.strictEqual(asked(), 1)
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(new Set((yield* Fiber.join(waiting)).map(value)), new Set(["t1"]))
      assert.strictEqual(asked(), 2)
    }))

  it.scoped("a flight that is past it leaves the exclusive section to the next one", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => n === 0 ? Effect.never : issue(`t${n}`))
      const service = yield* make({ grant, flightTimeout: "30 seconds" }, { storage: controlledStorage() })
      assert.strictEqual(value(yield* inTime(service.get, "61 seconds")), "t1")
      assert.strictEqual(asked(), 2)
    }))

  it.scoped("invalidate starts anew: one that hangs holds its own callers only, until its deadline", () =>
    Effect.gen(function*() {
      const { grant } = scripted((n) => n === 0 ? Effect.never : issue(`t${n}`))
      const service = yield* make({ grant, flightTimeout: "30 seconds" })
      const waiting = yield* Effect.fork(service.get)
      yield* settle
      yield* service.invalidate
      assert.strictEqual(value(yield* inTime(service.get, "1 millis")), "t1")
      assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(value(yield* Fiber.join(waiting)), "t1")
    }))

  it.scoped("a sign-in adds the time that a person may take", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => Effect.delay(issue(`t${n}`), "5 minutes"))
      const service = yield* make({ grant: { ...grant, patience: Duration.minutes(5) }, flightTimeout: "30 seconds" })
      assert.strictEqual(value(yield* inTime(service.get, "5 minutes")), "t0")
      assert.strictEqual(asked(), 1)
    }))

  it.scoped("a request that spends a refresh token is never interrupted by it", () =>
    Effect.gen(function*() {
      const { endpoint, reused, shown } = rotating("12 seconds")
      const grant = Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make("r0") })
      const service = yield* make({ grant, flightTimeout: "5 seconds" }, { endpoint, storage: controlledStorage() })
      const waiting = yield* Effect.fork(service.get)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(value(yield* Fiber.join(waiting)), "t1")
      assert.deepStrictEqual([shown, reused], [["r0"], []])
    }))

  it.scoped("a token that comes after it is used, if none came before", () =>
    Effect.gen(function*() {
      const { grant } = scripted((n) => Effect.delay(issue(`t${n}`), "7 seconds"))
      const service = yield* make({ grant, flightTimeout: "5 seconds" })
      yield* Effect.fork(service.get)
      yield* TestClock.adjust("7 seconds")
      assert.strictEqual(value(yield* inTime(service.get, 1)), "t0")
    }))

  it.effect("a caller that cannot be interrupted gets its token when it arrives", () =>
    Effect.scoped(Effect.gen(function*() {
      const { grant } = scripted((n) => Effect.delay(issue(`t${n}`), "1 seconds"))
      const service = yield* make({ grant })
      const caller = yield* Effect.fork(Effect.uninterruptible(service.get))
      yield* settle
      yield* Fiber.interruptFork(caller)
      yield* TestClock.adjust("1 seconds")
      assert.isTrue(Option.isSome(yield* Fiber.poll(caller)))
    })))

  it.scoped("a grant that interrupts itself is a typed failure for those who wait", () =>
    Effect.gen(function*() {
      const { grant } = scripted(() => Effect.interrupt)
      const service = yield* make({ grant })
      const results = yield* inTime(many(3, Effect.flip(service.get)))
      assert.deepStrictEqual(results.map(({ _tag }) => _tag), Array.from({ length: 3 }, () => "TokenRequestError"))
    }))
})

describe("what a flight sees of its caller", () => {
  it.scoped("nothing of the caller's config or clock, but its span", () =>
    Effect.gen(function*() {
      const seen: Array<unknown> = []
      const { grant } = scripted(() =>
        Effect.gen(function*() {
          const name = yield* Effect.orDie(
            Effect.configProviderWith((provider) => provider.load(Config.string("TENANT")))
          )
          const span = Option.map(yield* Effect.option(Effect.currentParentSpan), ({ _tag }) => _tag)
          seen.push(name, yield* Clock.currentTimeMillis, Option.getOrNull(span))
          return yield* issue("t")
        })
      )
      const config = (tenant: string) => ConfigProvider.fromMap(new Map([["TENANT", tenant]]))
      const service = yield* Effect.withConfigProvider(make({ grant }), config("of the layer"))
      yield* Effect.withSpan(
        Effect.withConfigProvider(ahead(() => 5_000)(service.get), config("of the caller")),
        "caller"
      )
      assert.deepStrictEqual(seen, ["of the layer", 0, "Span"])
    }))
})

describe("an outage of the token endpoint", () => {
  it.scoped("a rejection does not take a good token from the others", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) =>
        n === 0 ? issue("t0") : Effect.delay(Effect.fail(noResponse), "3 seconds")
      )
      const service = yield* make({ grant })
      const token = yield* service.get
      const refresh = yield* Effect.fork(Effect.flip(service.refresh(token)))
      yield* settle
      const other = yield* Effect.fork(service.get)
      yield* settle
      assert.isTrue(Option.isNone(yield* Fiber.poll(other)), "a replacement may come within a second")
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(yield* Fiber.join(other), token)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Fiber.join(refresh))._tag, "TokenRequestError")
      assert.strictEqual(yield* service.get, token)
      assert.strictEqual(asked(), 2)
    }))

  it.scoped("Retry-After keeps callers and background renewals from asking", () =>
    Effect.gen(function*() {
      const busy = new TokenError.TokenErrorResponse({
        endpoint: url,
        status: 429,
        attempts: 1,
        body: "",
        retryAfter: Duration.seconds(120)
      })
      const { asked, grant } = scripted((n) => n === 0 ? issue("t0", "100 seconds") : Effect.fail(busy))
      const service = yield* make({ grant })
      yield* service.get
      yield* TestClock.adjust("90 seconds")
      for (let n = 0; n < 119; n++) {
        yield* Effect.exit(service.get)
        yield* TestClock.adjust("1 seconds")
      }
      assert.strictEqual(asked(), 2)
      yield* TestClock.adjust("1 seconds")
      yield* Effect.exit(service.get)
      assert.strictEqual(asked(), 3)
    }))

  for (
    const [what, error] of [
      ["no response", noResponse],
      ["a response that is no token", new TokenError.InvalidTokenResponse({ endpoint: url, issue: "HTML" })],
      [
        "a discovery that found nothing",
        new TokenError.DiscoveryError({ url, reason: "NotFound", description: "not there" })
      ]
    ] as const
  ) {
    it.scoped(`after ${what}, a thousand calls within a second make one token request`, () =>
      Effect.gen(function*() {
        const { asked, grant } = scripted(() => Effect.fail(error))
        const service = yield* make({ grant })
        for (let n = 0; n < 1_000; n++) assert.strictEqual((yield* Effect.flip(service.get))._tag, error._tag)
        assert.strictEqual(asked(), 1)
      }))
  }

  it.scoped("fifty callers whose token is over when it arrives get another one", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) =>
        Effect.delay(issue(`t${n}`, "1 minute"), n === 0 ? "2 minutes" : 0).pipe(
          Effect.zipLeft(n === 0 ? Effect.sleep("2 minutes") : Effect.void)
        )
      )
      const service = yield* make({ grant, flightTimeout: "10 minutes" })
      const tokens = yield* inTime(many(50, service.get), "5 minutes")
      assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["t1"]))
      assert.strictEqual(asked(), 2)
    }))
})

describe("reject", () => {
  it.scoped("asks for nothing; the next caller gets another token", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => issue(`t${n}`))
      const service = yield* make({ grant })
      const token = yield* service.get
      yield* service.reject!(token)
      assert.strictEqual(asked(), 1)
      assert.strictEqual(value(yield* inTime(service.get)), "t1")
    }))

  it.scoped("a token that has been replaced already takes nothing from its successor", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => issue(`t${n}`))
      const service = yield* make({ grant })
      const token = yield* service.get
      yield* service.refresh(token)
      yield* service.reject!(token)
      assert.strictEqual(value(yield* service.get), "t1")
      assert.strictEqual(asked(), 2)
    }))
})

describe("revoke", () => {
  /** A server whose n-th revocation, from 0, ends as the script says. */
  const revoking = (script: (n: number, token: string) => Effect.Effect<unknown, Failure> = () => Effect.void) => {
    const sent: Array<readonly [string | null, string | null]> = []
    const server: AuthorizationServer.AuthorizationServer["Type"] = {
      ...serverStub,
      metadata: Effect.succeed(
        new AuthorizationServer.Metadata({
          issuer: "https://auth.test",
          tokenEndpoint: url,
          revocationEndpoint: "https://auth.test/revoke"
        })
      ),
      request: (_, params) =>
        Effect.gen(function*() {
          const form = new URLSearchParams(UrlParams.toString(yield* resolved(params)))
          const n = sent.push([form.get("token"), form.get("token_type_hint")]) - 1
          yield* script(n, form.get("token") ?? "")
          return {}
        })
    }
    return { sent, server }
  }

  const opened = (server: AuthorizationServer.AuthorizationServer["Type"]) =>
    Effect.gen(function*() {
      const storage = controlledStorage()
      const { asked, grant } = scripted((n) => issue(`t${n}`, "1 hour", `r${n}`))
      const service = yield* make({ grant }, { server, storage })
      yield* inTime(service.get)
      return { asked, service, storage }
    })

  it.scoped("sends the refresh token, then the access token, and forgets both, here and in the storage", () =>
    Effect.gen(function*() {
      const { sent, server } = revoking()
      const { service, storage } = yield* opened(server)
      yield* inTime(service.revoke)
      assert.deepStrictEqual(sent, [["r0", "refresh_token"], ["t0", "access_token"]])
      assert.strictEqual(storage.tokens.size, 0)
      assert.strictEqual(value(yield* inTime(service.get)), "t1")
    }))

  it.scoped("what another process has stored is revoked too", () =>
    Effect.gen(function*() {
      const { sent, server } = revoking()
      const { service, storage } = yield* opened(server)
      const [key] = Array.from(storage.tokens.keys())
      const other = new AccessToken.AccessToken({ ...(yield* issue("theirs", "1 hour", "their r")), generation: 7 })
      yield* storage.set(key!, other)
      yield* inTime(service.revoke)
      assert.deepStrictEqual(sent.map(([token]) => token), ["r0", "their r", "t0", "theirs"])
      assert.strictEqual(storage.tokens.size, 0)
    }))

  for (
    const [what, error] of [
      ["unsupported_token_type", refused("unsupported_token_type")],
      ["404", new TokenError.TokenErrorResponse({ endpoint: url, status: 404, attempts: 1, body: "" })]
    ] as const
  ) {
    it.scoped(`${what} for the access token is no failure, for the refresh token it is`, () =>
      Effect.gen(function*() {
        const forAccess = revoking((n) => n === 1 ? Effect.fail(error) : Effect.void)
        yield* inTime((yield* opened(forAccess.server)).service.revoke)
        const forRefresh = revoking((n) => n === 0 ? Effect.fail(error) : Effect.void)
        const { service } = yield* opened(forRefresh.server)
        assert.strictEqual((yield* inTime(Effect.flip(service.revoke)))._tag, "TokenErrorResponse")
        assert.lengthOf(forRefresh.sent, 2)
      }))
  }

  it.scoped("a server that cannot be reached is the failure, both are tried, and everything is forgotten", () =>
    Effect.gen(function*() {
      const { sent, server } = revoking((n) => Effect.fail(n === 0 ? noResponse : refused("server_error")))
      const { service, storage } = yield* opened(server)
      assert.strictEqual((yield* inTime(Effect.flip(service.revoke)))._tag, "TokenRequestError")
      assert.lengthOf(sent, 2)
      assert.strictEqual(storage.tokens.size, 0)
      assert.strictEqual(value(yield* inTime(service.get)), "t1")
    }))

  it.scoped("without a revocation endpoint nothing is forgotten", () =>
    Effect.gen(function*() {
      const { asked, service, storage } = yield* opened(serverStub)
      const error = yield* inTime(Effect.flip(service.revoke))
      assert.isTrue(error._tag === "DiscoveryError" && error.reason === "Unsupported")
      assert.strictEqual(value(yield* service.get), "t0")
      assert.strictEqual(asked(), 1)
      assert.strictEqual(storage.tokens.size, 1)
    }))

  it.scoped("a server that cannot be discovered is the failure, and everything is forgotten", () =>
    Effect.gen(function*() {
      const { sent, server } = revoking()
      const down = new TokenError.DiscoveryError({ url, reason: "Transport", description: "down" })
      const { service, storage } = yield* opened({ ...server, metadata: Effect.fail(down) })
      assert.strictEqual(yield* inTime(Effect.flip(service.revoke)), down)
      assert.lengthOf(sent, 0)
      assert.strictEqual(storage.tokens.size, 0)
      assert.strictEqual(value(yield* inTime(service.get)), "t1")
    }))

  it.scoped("with nothing held and nothing stored sends nothing", () =>
    Effect.gen(function*() {
      const { sent, server } = revoking()
      const { asked, grant } = scripted((n) => issue(`t${n}`))
      const service = yield* make({ grant }, { server, storage: controlledStorage() })
      yield* inTime(service.revoke)
      assert.lengthOf(sent, 0)
      assert.strictEqual(asked(), 0)
    }))

  it.scoped("sends the access token alone where there is no refresh token, and once", () =>
    Effect.gen(function*() {
      const { sent, server } = revoking()
      const { grant } = scripted((n) => issue(`t${n}`))
      const service = yield* make({ grant }, { server, storage: controlledStorage() })
      yield* inTime(service.get)
      yield* inTime(service.revoke)
      assert.deepStrictEqual(sent, [["t0", "access_token"]])
    }))

  it.scoped("interrupted after it was sent, the tokens are forgotten all the same", () =>
    Effect.gen(function*() {
      const { server } = revoking(() => Effect.never)
      const { service, storage } = yield* opened(server)
      const leaving = yield* Effect.fork(service.revoke)
      yield* settle
      yield* inTime(Fiber.interrupt(leaving))
      assert.strictEqual(storage.tokens.size, 0)
      assert.strictEqual(value(yield* inTime(service.get)), "t1")
    }))
})

describe("without sharedFetch", () => {
  it.scoped("callers fetch for themselves, and one that hangs holds nobody", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => n === 0 ? Effect.never : Effect.delay(issue(`t${n}`), "1 second"))
      const service = yield* make({ grant, sharedFetch: false })
      const hanging = yield* Effect.fork(service.get)
      yield* settle
      const tokens = yield* inTime(many(4, service.get), "1 second")
      assert.deepStrictEqual(tokens.map(value).sort(), ["t1", "t2", "t3", "t4"])
      assert.strictEqual(asked(), 5)
      // one of them is kept
      const kept = value(yield* service.get)
      assert.include(["t1", "t2", "t3", "t4"], kept)
      assert.strictEqual(asked(), 5)
      yield* Fiber.interrupt(hanging)
    }))

  it.scoped("nothing is renewed in the background: the token is used to its end", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => issue(`t${n}`, "100 seconds"))
      const service = yield* make({ grant, sharedFetch: false })
      yield* service.get
      yield* TestClock.adjust("94 seconds")
      assert.strictEqual(value(yield* service.get), "t0")
      yield* settle
      assert.strictEqual(asked(), 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(value(yield* service.get), "t1")
    }))

  it.scoped("a rejected token is replaced by each for itself", () =>
    Effect.gen(function*() {
      const { asked, grant } = scripted((n) => Effect.delay(issue(`t${n}`), "1 second"))
      const service = yield* make({ grant, sharedFetch: false })
      const first = yield* inTime(service.get, "1 second")
      yield* inTime(many(3, service.refresh(first)), "1 second")
      assert.strictEqual(asked(), 4)
      assert.notStrictEqual(value(yield* service.get), value(first))
    }))
})

describe("a renewal that hangs", () => {
  /** A grant whose first token lives for 100 seconds and whose second request takes a minute. */
  const hanging = (spend = false) => {
    let interrupted = 0
    const { asked, grant } = scripted((n) =>
      n === 0
        ? issue("t0", "100 seconds")
        : Effect.onInterrupt(Effect.delay(issue("t1"), "1 minute"), () => Effect.sync(() => interrupted++))
    )
    const acquire: typeof grant.acquire = (previous) =>
      spend ? Effect.flatMap(Flight, (flight) => flight.spend(grant.acquire(previous))) : grant.acquire(previous)
    return { grant: { ...grant, acquire }, asked, interrupted: () => interrupted }
  }

  it.scoped("is given up when nobody has used the service for 5 seconds", () =>
    Effect.gen(function*() {
      const { asked, grant, interrupted } = hanging()
      const service = yield* make({ grant })
      yield* service.get
      yield* TestClock.adjust("85 seconds")
      yield* service.get
      yield* settle
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual([asked(), interrupted()], [2, 0])
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(interrupted(), 1)
      assert.strictEqual(value(yield* service.get), "t0")
    }))

  it.scoped("goes on while the service is used", () =>
    Effect.gen(function*() {
      const { grant, interrupted } = hanging()
      const service = yield* make({ grant })
      yield* service.get
      yield* TestClock.adjust("82 seconds")
      for (let n = 0; n < 12; n++) {
        yield* service.get
        yield* settle
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(interrupted(), 0)
    }))

  it.scoped("that has spent a refresh token has the time of one attempt", () =>
    Effect.gen(function*() {
      for (
        const [tokenTimeout, millis] of [[undefined, 10_000], ["8 seconds", 10_000], ["3 seconds", 6_000], [
          "20 seconds",
          40_000
        ]] as const
      ) {
        const { grant, interrupted } = hanging(true)
        const service = yield* make({ grant, tokenTimeout })
        yield* service.get
        yield* TestClock.adjust("85 seconds")
        yield* service.get
        yield* settle
        yield* TestClock.adjust(millis - 1)
        assert.strictEqual(interrupted(), 0)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(interrupted(), 1)
      }
    }))
})
