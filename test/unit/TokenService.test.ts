import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Random,
  Redacted,
  Scope,
  TestClock
} from "effect"
import {
  AccessToken,
  type Grant,
  TokenEndpoint,
  TokenError,
  TokenMetrics,
  TokenService,
  TokenStorage
} from "effect-alf"
import { recordLogs, recordSpans } from "../support/recorders.ts"
import { type ControlledStorage, controlledStorage, faults } from "../support/storages.ts"
import { inTime, many, settle } from "../support/testClock.ts"
import { layerServer } from "../support/endpoint.ts"

type Token = AccessToken.AccessToken
type Service = TokenService.TokenService["Type"]

const value = (token: Token): string => Redacted.value(token.value)

const endpoint = "https://auth.test/token"

/** A token that is issued now. */
const issue = (name: string, life: Duration.DurationInput | null = "1 hour", refreshToken?: string) =>
  Effect.map(DateTime.now, (issuedAt) =>
    new AccessToken.AccessToken({
      value: Redacted.make(name),
      issuedAt,
      expiresAt: life === null ? Option.none() : Option.some(DateTime.addDuration(issuedAt, life)),
      refreshToken: Option.map(Option.fromNullable(refreshToken), (text) => Redacted.make(text))
    }))

const noAnswer = new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 4, description: "reset" })
const refusal = new TokenError.TokenErrorResponse({
  endpoint,
  status: 401,
  error: "invalid_client",
  attempts: 1,
  body: ""
})

/** Under a span, Effect hands out a proxy of an error. */
const assertSame = (error: unknown, expected: TokenError.TokenError) => {
  assert.isTrue(TokenError.isTokenError(error))
  assert.strictEqual(String(error), String(expected))
}

/** A grant that is answered by a script; `n` is the number of the token request, from 0. */
const scriptedGrant = <R = never>(
  script: (n: number, previous: Option.Option<Token>) => Effect.Effect<Token, TokenError.TokenError, R> = (n) =>
    Effect.delay(issue(`token-${n}`), "100 millis")
) => {
  const previous: Array<Option.Option<Token>> = []
  let underWay = 0
  let most = 0
  let interrupted = 0
  const grant: Grant.Grant<R> = {
    key: "scripted",
    acquire: (last) =>
      Effect.suspend(() => {
        most = Math.max(most, ++underWay)
        return script(previous.push(last) - 1, last)
      }).pipe(
        Effect.onInterrupt(() => Effect.sync(() => interrupted++)),
        Effect.ensuring(Effect.sync(() => underWay--))
      )
  }
  return {
    grant,
    /** What each token request was given as the last token. */
    previous: previous as ReadonlyArray<Option.Option<Token>>,
    /** How many token requests there were. */
    asked: () => previous.length,
    /** How many were under way at once, at most. */
    most: () => most,
    interrupted: () => interrupted
  }
}

const stub: TokenEndpoint.TokenEndpoint["Type"] = {
  identity: "an endpoint",
  request: () => Effect.dieMessage("the endpoint is not asked here")
}

/** The service, its renewals not jittered. */
const make = <R = never>(
  options: TokenService.Options<R>,
  storage: TokenStorage.Storage = TokenStorage.none
): Effect.Effect<Service, never, R | Scope.Scope> =>
  TokenService.make(options).pipe(
    Effect.orDie,
    Effect.provideService(TokenEndpoint.TokenEndpoint, stub),
    Effect.provide(layerServer),
    Effect.provideService(TokenStorage.TokenStorage, storage),
    Effect.withRandom(Random.fixed([0.5]))
  )

const getIn = (service: Service) => Effect.map(inTime(service.get), value)

const failures = Effect.map(Metric.value(TokenMetrics.storageFailures), ({ count }) => Number(count))

const isInterruption = (exit: Exit.Exit<unknown, unknown> | undefined): boolean =>
  exit !== undefined && Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)

describe("TokenService", () => {
  describe("one flight", () => {
    it.scoped("nothing is asked for before somebody needs it, nor by the clock afterwards", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        yield* TestClock.adjust("1 day")
        assert.strictEqual(asked(), 0)
        assert.strictEqual(yield* getIn(service), "token-0")
        yield* TestClock.adjust("1 day")
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("a hundred callers make one token request, and it is not made again while the token is good", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        const tokens = yield* inTime(many(100, service.get))
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-0"]))
        yield* Effect.repeatN(service.get, 100)
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("the first of a hundred callers is interrupted: the others get the token of its request", () =>
      Effect.gen(function*() {
        const { asked, grant, interrupted } = scriptedGrant()
        const service = yield* make({ grant })
        const first = yield* Effect.fork(service.get)
        yield* settle
        const others = yield* Effect.forEach(Array.from({ length: 99 }), () => Effect.fork(service.get))
        yield* settle
        assert.isTrue(isInterruption(yield* Fiber.interrupt(first)))
        yield* TestClock.adjust("100 millis")
        const tokens = yield* Fiber.join(Fiber.all(others))
        assert.deepStrictEqual(new Set(Array.from(tokens, value)), new Set(["token-0"]))
        assert.deepStrictEqual([asked(), interrupted()], [1, 0])
      }))

    it.scoped("every caller is interrupted: the token serves the next", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        const callers = yield* Effect.forEach(Array.from({ length: 10 }), () => Effect.fork(service.get))
        yield* settle
        yield* Fiber.interruptAll(callers)
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(value(yield* service.get), "token-0")
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("a failure goes to those who wait, and the next caller tries anew", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) =>
          Effect.delay(n === 0 ? Effect.fail(noAnswer) : issue(`token-${n}`), "100 millis")
        )
        const service = yield* make({ grant })
        const results = yield* inTime(
          many(10, Effect.either(service.get))
        )
        for (const result of results) assertSame(Option.getOrNull(Either.getLeft(result)), noAnswer)
        assert.strictEqual(asked(), 1)
        assert.strictEqual(yield* getIn(service), "token-1")
      }))

    for (
      const [how, defect] of [
        ["is a defect", () => Effect.die(new Error("boom"))],
        ["throws", (): Effect.Effect<Token> => {
          throw new Error("boom")
        }]
      ] as const
    ) {
      it.scoped(`a grant that ${how} fails those who wait with it, and the next caller tries anew`, () =>
        Effect.gen(function*() {
          const { grant } = scriptedGrant((n) => n === 0 ? defect() : issue(`token-${n}`))
          const service = yield* make({ grant })
          const exits = yield* inTime(
            many(3, Effect.exit(service.get))
          )
          for (const exit of exits) {
            assert.isTrue(Exit.isFailure(exit) && Cause.isFailure(exit.cause) && !Cause.isDie(exit.cause))
          }
          assert.strictEqual(yield* getIn(service), "token-1")
        }))
    }

    it.scoped("a grant that interrupts itself leaves nobody waiting", () =>
      Effect.gen(function*() {
        const { grant } = scriptedGrant((n) => n === 0 ? Effect.interrupt : issue(`token-${n}`))
        const service = yield* make({ grant })
        yield* inTime(Effect.exit(many(3, service.get)))
        assert.strictEqual(yield* getIn(service), "token-1")
      }))
  })

  describe("the windows", () => {
    it.scoped("from 2 minutes before the end one renewal runs while everybody goes on with the token", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        yield* Effect.fork(service.get)
        yield* TestClock.setTime(3_479_999 + 100)
        assert.strictEqual(value(yield* service.get), "token-0")
        yield* settle
        assert.strictEqual(asked(), 1)

        yield* TestClock.adjust(1)
        const tokens = yield* many(100, service.get)
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-0"]))
        yield* TestClock.adjust("99 millis")
        assert.strictEqual(value(yield* service.get), "token-0")
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(value(yield* service.get), "token-1")
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("from 10 seconds before the end callers wait for the next token", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => Effect.delay(issue(`token-${n}`), n === 0 ? 0 : "100 millis"))
        const service = yield* make({ grant, refreshAhead: 0 })
        yield* service.get
        yield* TestClock.adjust(3_589_999)
        assert.strictEqual(value(yield* service.get), "token-0")
        yield* TestClock.adjust(1)
        assert.strictEqual(asked(), 1)
        const waiting = yield* Effect.fork(service.get)
        yield* settle
        assert.isTrue(Option.isNone(yield* waiting.poll))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(value(yield* Fiber.join(waiting)), "token-1")
      }))

    it.scoped("a token of 20 seconds is used for 19", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) =>
          Effect.delay(n === 1 ? Effect.fail(noAnswer) : issue(`token-${n}`, "20 seconds"), n === 0 ? 0 : 1)
        )
        const service = yield* make({ grant })
        yield* service.get
        yield* TestClock.adjust("15999 millis")
        yield* service.get
        yield* settle
        assert.strictEqual(asked(), 1)
        // the renewal in the background, which fails
        yield* TestClock.adjust("1 millis")
        yield* service.get
        yield* TestClock.setTime(16_900)
        assert.strictEqual(value(yield* service.get), "token-0")
        assert.strictEqual(asked(), 2)
        yield* TestClock.setTime(18_999)
        assert.strictEqual(value(yield* service.get), "token-0")
        yield* TestClock.setTime(19_002)
        assert.notStrictEqual(yield* getIn(service), "token-0")
      }))

    it.scoped("a renewal that fails in the background is seen by nobody, and tried again later", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => n === 0 ? issue("token-0", "100 seconds") : Effect.fail(noAnswer))
        const service = yield* make({ grant })
        yield* service.get
        const tries: Array<number> = []
        for (let second = 0; second < 95; second++) {
          const before = asked()
          assert.strictEqual(value(yield* service.get), "token-0")
          yield* settle
          if (asked() > before) tries.push(second)
          yield* TestClock.adjust("1 seconds")
        }
        // 20 s are left, then 15, 11, 8, 6: a quarter of each passes before the next
        assert.deepStrictEqual(tries, [80, 85, 89, 92, 94])
        assertSame(yield* Effect.flip(service.get), noAnswer)
      }))

    it.scoped("a renewal that is refused for good in the background is seen by nobody either", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => n === 0 ? issue("token-0", "100 seconds") : Effect.fail(refusal))
        const service = yield* make({ grant })
        yield* service.get
        yield* TestClock.adjust("80 seconds")
        yield* service.get
        yield* settle
        assert.strictEqual(asked(), 2)
        assert.strictEqual(value(yield* service.get), "token-0")
      }))

    it.scoped("a token that has expired on arrival serves those who wait for it, and nobody else", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => Effect.delay(issue(`token-${n}`, 0), "100 millis"))
        const service = yield* make({ grant })
        const tokens = yield* inTime(many(10, service.get))
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-0"]))
        assert.strictEqual(yield* getIn(service), "token-1")
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("a token without an end is used until it is refused", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => issue(`token-${n}`, null))
        const service = yield* make({ grant })
        const token = yield* service.get
        yield* TestClock.adjust("3650 days")
        assert.strictEqual(yield* service.get, token)
        assert.strictEqual(asked(), 1)
        assert.strictEqual(value(yield* service.refresh(token)), "token-1")
      }))

    it.scoped("a clock that was set back before the token was issued: another one", () =>
      Effect.gen(function*() {
        const { grant } = scriptedGrant((n) => issue(`token-${n}`, null))
        const service = yield* make({ grant })
        yield* TestClock.setTime(1_000_000)
        yield* service.get
        yield* TestClock.setTime(1_000_000 - 1)
        assert.strictEqual(value(yield* service.get), "token-1")
        yield* TestClock.setTime(1_000_000)
        assert.strictEqual(value(yield* service.get), "token-1")
      }))

    it.scoped("a sleep past the token's end: another one", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => issue(`token-${n}`))
        const service = yield* make({ grant })
        yield* service.get
        yield* TestClock.adjust("8 hours")
        const tokens = yield* many(10, service.get)
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-1"]))
        assert.strictEqual(asked(), 2)
      }))
  })

  describe("a refusal for good", () => {
    it.scoped("is remembered: 1 second, doubling to 30", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant(() => Effect.fail(refusal))
        const service = yield* make({ grant })
        for (const pause of [1, 2, 4, 8, 16, 30, 30]) {
          const before = asked()
          assertSame(yield* Effect.flip(service.get), refusal)
          assert.strictEqual(asked(), before + 1)
          yield* TestClock.adjust(Duration.subtract(Duration.seconds(pause), "1 millis"))
          assertSame(yield* Effect.flip(service.get), refusal)
          assertSame(yield* Effect.flip(Effect.flatMap(issue("old"), service.refresh)), refusal)
          assert.strictEqual(asked(), before + 1)
          yield* TestClock.adjust("1 millis")
        }
      }))

    it.scoped("is forgotten by invalidate, by a success, and when the clock is set back", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant((n) => n === 4 ? issue("token-4", 0) : Effect.fail(refusal))
        const service = yield* make({ grant })
        yield* TestClock.setTime(100_000)
        yield* Effect.flip(service.get)
        yield* service.invalidate
        yield* Effect.flip(service.get)
        assert.strictEqual(asked(), 2)
        yield* TestClock.setTime(99_999)
        yield* Effect.flip(service.get)
        assert.strictEqual(asked(), 3)
        yield* TestClock.adjust("2 seconds")
        yield* Effect.flip(service.get)
        assert.strictEqual(asked(), 4)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(value(yield* service.get), "token-4")
        yield* Effect.flip(service.get)
        yield* TestClock.adjust("1 seconds")
        yield* Effect.flip(service.get)
        assert.strictEqual(asked(), 7)
      }))
  })

  describe("refresh", () => {
    it.scoped("brings another token; a thousand callers make one token request", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        const token = yield* inTime(service.get)
        const tokens = yield* inTime(
          many(1_000, service.refresh(token))
        )
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-1"]))
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("makes no request if the token has been replaced already", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        const token = yield* inTime(service.get)
        yield* inTime(service.refresh(token))
        assert.strictEqual(value(yield* service.refresh(token)), "token-1")
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("during a flight joins it, whatever started it", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        const getting = yield* Effect.fork(service.get)
        yield* settle
        const refreshing = yield* Effect.fork(Effect.flatMap(issue("from elsewhere"), service.refresh))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(yield* Fiber.join(refreshing), yield* Fiber.join(getting))
        assert.strictEqual(asked(), 1)

        // in the background
        yield* TestClock.setTime(3_500_000)
        const token = yield* service.get
        yield* settle
        assert.strictEqual(asked(), 2)
        const renewed = yield* Effect.fork(service.refresh(token))
        yield* settle
        assert.isTrue(Option.isNone(yield* renewed.poll))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(value(yield* Fiber.join(renewed)), "token-1")
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("while it runs nobody gets the refused token", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        const token = yield* inTime(service.get)
        const refreshing = yield* Effect.fork(service.refresh(token))
        yield* settle
        const getting = yield* Effect.fork(service.get)
        yield* settle
        assert.isTrue(Option.isNone(yield* getting.poll))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(value(yield* Fiber.join(getting)), "token-1")
        yield* Fiber.join(refreshing)
        assert.strictEqual(asked(), 2)
      }))
  })

  describe("invalidate", () => {
    it.scoped("forgets the token: the next caller gets another", () =>
      Effect.gen(function*() {
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant })
        yield* service.invalidate
        yield* getIn(service)
        yield* service.invalidate
        yield* service.invalidate
        assert.strictEqual(asked(), 1)
        assert.strictEqual(yield* getIn(service), "token-1")
      }))

    it.scoped("during a flight that nobody follows: its token is not kept", () =>
      Effect.gen(function*() {
        const { grant } = scriptedGrant()
        const service = yield* make({ grant })
        const waiting = yield* Effect.fork(service.get)
        yield* settle
        yield* service.invalidate
        yield* TestClock.adjust("100 millis")
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* getIn(service), "token-1")
      }))
  })

  describe("what is seen", () => {
    it.scoped("a flight has a span, a child of the caller's; a token at hand has none", () => {
      const { layer, named, spans } = recordSpans()
      return Effect.gen(function*() {
        const { grant } = scriptedGrant((n) => n === 0 ? issue("SECRET") : Effect.fail(noAnswer))
        const service = yield* make({ grant })
        const token = yield* Effect.withSpan(service.get, "first")
        assert.deepStrictEqual(spans.map(({ name }) => name), ["first", "TokenService.acquire"])
        const [acquire] = named("TokenService.acquire")
        assert.strictEqual(Option.getOrThrow(acquire!.parent).spanId, named("first")[0]!.spanId)
        assert.strictEqual(acquire!.attributes.get("reason"), "absent")
        assert.isTrue(acquire!.status._tag === "Ended" && Exit.isSuccess(acquire!.status.exit))

        yield* service.get
        assert.lengthOf(spans, 2)

        yield* Effect.flip(service.refresh(token))
        const refused = spans[2]!
        assert.strictEqual(refused.attributes.get("reason"), "rejected")
        assert.isTrue(refused.status._tag === "Ended" && Exit.isFailure(refused.status.exit))
        assert.notInclude(JSON.stringify(spans.map(({ attributes }) => [...attributes])), "SECRET")
      }).pipe(Effect.provide(layer))
    })
  })

  describe("layer and layerStatic", () => {
    it.effect("layer gives the service of its scope", () => {
      const layer = TokenService.layer({ grant: scriptedGrant((n) => issue(`token-${n}`)).grant }).pipe(
        Layer.provide(Layer.merge(layerServer, Layer.succeed(TokenEndpoint.TokenEndpoint, stub)))
      )
      return Effect.gen(function*() {
        const token = yield* Effect.flatMap(TokenService.TokenService, (service) => service.get)
        assert.strictEqual(value(token), "token-0")
      }).pipe(Effect.provide(layer))
    })

    for (const token of ["fixed", Redacted.make("fixed")]) {
      it.effect(`layerStatic is one token without end, given as a ${typeof token}`, () =>
        Effect.gen(function*() {
          const service = yield* TokenService.TokenService
          const first = yield* service.get
          assert.strictEqual(value(first), "fixed")
          assert.strictEqual(yield* service.refresh(first), first)
          yield* service.invalidate
          yield* TestClock.adjust("3650 days")
          assert.strictEqual(yield* service.get, first)
        }).pipe(Effect.provide(TokenService.layerStatic(token))))
    }

    it.effect("layerStatic takes white space off; a token that a header must not carry is a ConfigurationError", () =>
      Effect.gen(function*() {
        const get = (token: string) =>
          Effect.flatMap(TokenService.TokenService, (service) => service.get).pipe(
            Effect.provide(TokenService.layerStatic(token))
          )
        assert.strictEqual(value(yield* get(" fixed\n")), "fixed")
        for (const token of ["a\nMARKED", "a MARKED", "MARKED\u00e9", ""]) {
          const error = yield* Effect.flip(get(token))
          assert.strictEqual(error._tag, "ConfigurationError")
          assert.notInclude(String(error) + JSON.stringify(error), "MARKED")
        }
      }))

    it.scoped("a grant of one's own is checked likewise: a typed error, and the token is not shown", () =>
      Effect.gen(function*() {
        const get = (text: string) =>
          Effect.gen(function*() {
            const { grant } = scriptedGrant(() => issue(text))
            return yield* (yield* make({ grant })).get
          })
        assert.strictEqual(value(yield* get(" fixed ")), "fixed")
        for (const text of ["a\nMARKED", "a MARKED"]) {
          const error = yield* Effect.flip(get(text))
          assert.strictEqual(error._tag, "InvalidTokenResponse")
          assert.notInclude(String(error) + JSON.stringify(error), "MARKED")
        }
      }))
  })

  describe("with a storage", () => {
    const only = (storage: ControlledStorage): Token => {
      assert.strictEqual(storage.tokens.size, 1)
      return storage.tokens.values().next().value!
    }
    /** What another process would have put under the key of the service. */
    const put = (storage: ControlledStorage, service: Service, token: Effect.Effect<Token, TokenError.TokenError>) =>
      Effect.gen(function*() {
        if (storage.tokens.size === 0) {
          yield* inTime(service.get)
        }
        const [key] = storage.tokens.keys()
        storage.tokens.set(key!, yield* token)
      })

    it.scoped("it is looked at first, then again in the exclusive section, and the new token is put there", () =>
      Effect.gen(function*() {
        const { grant } = scriptedGrant((n) => issue(`token-${n}`))
        const storage = controlledStorage()
        const service = yield* make({ grant }, storage)
        const token = yield* service.get
        assert.deepStrictEqual(storage.calls, ["get", "exclusive", "get", "get", "set"])
        assert.strictEqual(only(storage), token)
        const [key] = storage.tokens.keys()
        assert.match(key!, /^effect-alf:1:[0-9a-f]{64}$/)
        yield* service.get
        assert.lengthOf(storage.calls, 5)
      }))

    it.scoped("another grant and another endpoint have other keys", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant((n) => issue(`token-${n}`))
        yield* (yield* make({ grant }, storage)).get
        const otherGrant: Grant.Grant = { ...grant, key: "another" }
        yield* (yield* make({ grant: otherGrant }, storage)).get
        const other = yield* TokenService.make({ grant }).pipe(
          Effect.provide(layerServer),
          Effect.provideService(TokenEndpoint.TokenEndpoint, { ...stub, identity: "another" }),
          Effect.provideService(TokenStorage.TokenStorage, storage)
        )
        yield* other.get
        assert.strictEqual(storage.tokens.size, 3)
      }))

    it.scoped("a token that lies there is used without a token request", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant()
        yield* inTime((yield* make({ grant }, storage)).get)
        const second = yield* make({ grant }, storage)
        assert.strictEqual(value(yield* second.get), "token-0")
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("many services that start cold make one token request", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant((n) => Effect.delay(issue(`token-${n}`), "3 seconds"))
        const services = yield* Effect.forEach(Array(20).fill(0), () => make({ grant }, storage))
        const tokens = yield* inTime(
          Effect.forEach(services, (service) => service.get, { concurrency: "unbounded" })
        )
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-0"]))
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("many services whose token is refused at once make one token request", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant((n) => Effect.delay(issue(`token-${n}`), "3 seconds"))
        const services = yield* Effect.forEach(Array(20).fill(0), () => make({ grant }, storage))
        const [token] = yield* inTime(
          Effect.forEach(services, (service) => service.get, { concurrency: "unbounded" })
        )
        const tokens = yield* inTime(
          Effect.forEach(services, (service) => service.refresh(token!), { concurrency: "unbounded" })
        )
        assert.deepStrictEqual(new Set(tokens.map(value)), new Set(["token-1"]))
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("a late refusal of an old token leaves the newer one of another process alone", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant()
        const first = yield* make({ grant }, storage)
        const second = yield* make({ grant }, storage)
        const token = yield* inTime(first.get)
        yield* inTime(second.get)
        yield* inTime(first.refresh(token))
        assert.strictEqual(value(yield* inTime(second.refresh(token))), "token-1")
        assert.strictEqual(value(only(storage)), "token-1")
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("a token that has expired on arrival is not put there", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant((n) => issue(`token-${n}`, 0))
        yield* (yield* make({ grant }, storage)).get
        assert.notInclude(storage.calls, "set")
        assert.strictEqual(storage.tokens.size, 0)
      }))

    it.scoped("with a refresh token it is put there, expired as it is", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant((n) => issue(`token-${n}`, 0, "refresh"))
        yield* (yield* make({ grant }, storage)).get
        assert.strictEqual(storage.tokens.size, 1)
      }))

    it.scoped("invalidate removes what lies there", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant()
        const service = yield* make({ grant }, storage)
        yield* getIn(service)
        yield* put(storage, service, issue("of another process"))
        yield* service.invalidate
        assert.strictEqual(storage.tokens.size, 0)
        assert.strictEqual(yield* getIn(service), "token-1")
      }))

    it.scoped("invalidate during a flight: its token is not put there", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant()
        const service = yield* make({ grant }, storage)
        const waiting = yield* Effect.fork(service.get)
        yield* settle
        yield* service.invalidate
        yield* TestClock.adjust("100 millis")
        yield* Fiber.join(waiting)
        assert.notInclude(storage.calls, "set")
      }))

    it.scoped("invalidate while a flight puts its token there: it is removed again, and nobody takes it", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant()
        const service = yield* make({ grant }, storage)
        storage.delays.set = "100 millis"
        storage.delays.remove = "100 millis"
        const waiting = yield* Effect.fork(service.get)
        yield* TestClock.adjust("150 millis")
        yield* service.invalidate
        yield* TestClock.adjust("75 millis")
        const later = yield* Effect.fork(service.get)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(value(yield* Fiber.join(waiting)), "token-0")
        assert.strictEqual(value(yield* Fiber.join(later)), "token-1")
        assert.strictEqual(value(yield* service.get), "token-1")
      }))

    it.scoped("invalidate while a flight puts its token there: nothing is left for others to find", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant()
        const service = yield* make({ grant }, storage)
        storage.delays.set = "100 millis"
        const waiting = yield* Effect.fork(service.get)
        yield* TestClock.adjust("50 millis")
        yield* service.invalidate
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(value(yield* Fiber.join(waiting)), "token-0")
        assert.strictEqual(storage.tokens.size, 0)
      }))

    it.scoped("a token that lies there is used without entering the section", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant()
        yield* inTime((yield* make({ grant }, storage)).get)
        const before = storage.calls.length
        assert.strictEqual(yield* getIn(yield* make({ grant }, storage)), "token-0")
        assert.notInclude(storage.calls.slice(before), "exclusive")
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("a fetch in the section goes on to its end, and a token that another process stored in that time wins", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const other = scriptedGrant(() => issue("another's"))
        const { grant } = scriptedGrant((n) => Effect.delay(issue(`token-${n}`), "1 second"))
        const service = yield* make({ grant }, storage)
        const waiting = yield* Effect.fork(service.get)
        yield* TestClock.adjust("100 millis")
        const [key] = yield* Effect.gen(function*() {
          const elsewhere = controlledStorage()
          yield* inTime((yield* make({ grant: other.grant }, elsewhere)).get, "10 millis")
          return [...elsewhere.tokens.entries()]
        })
        storage.tokens.set(...key!)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(value(yield* Fiber.join(waiting)), "another's")
        assert.strictEqual(value(only(storage)), "another's")
      }))

    it.scoped("what lay there before invalidate does not come back while it is being removed", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant()
        yield* inTime((yield* make({ grant }, storage)).get)
        const service = yield* make({ grant }, storage)
        storage.delays.remove = "100 millis"
        const invalidating = yield* Effect.fork(service.invalidate)
        yield* TestClock.adjust("50 millis")
        yield* Effect.fork(service.get)
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(invalidating)
        assert.strictEqual(value(yield* service.get), "token-1")
      }))

    it.scoped("who leaves the waiting for the section leaves nothing behind", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant()
        const scope = yield* Scope.make()
        const service = yield* Scope.extend(make({ grant }, storage), scope)
        storage.faults.exclusive = "never enters"
        yield* Effect.fork(service.get)
        yield* TestClock.adjust("10 seconds")
        yield* Scope.close(scope, Exit.void)
        const before = storage.calls.length
        yield* TestClock.adjust("1 minute")
        assert.lengthOf(storage.calls, before)
      }))

    for (const fault of faults) {
      for (const operation of ["get", "set"] as const) {
        it.scoped(`${operation} ${fault}: a warning, a metric, and the token within 1 second`, () => {
          const { layer, lines } = recordLogs()
          // one that hangs is asked once; of several failures of one operation the first is told
          const times = operation === "get" && fault !== "hangs" && fault !== "sticks" ? 3 : 1
          return Effect.gen(function*() {
            const storage = controlledStorage()
            const { asked, grant } = scriptedGrant((n) => issue(`SECRET-${n}`))
            storage.faults[operation] = fault
            const service = yield* make({ grant }, storage)
            const before = yield* failures
            const token = yield* inTime(service.get, "1 seconds")
            assert.strictEqual(value(token), "SECRET-0")
            assert.strictEqual((yield* failures) - before, times)
            const warnings = lines.filter(({ level }) => level === "WARN")
            assert.lengthOf(warnings, 1)
            for (const { annotations, cause, message } of warnings) {
              assert.deepStrictEqual(annotations, { package: "effect-alf", module: "TokenService" })
              const why = fault === "fails"
                ? "connection refused"
                : fault === "hangs" || fault === "sticks"
                ? "no response within 1 second"
                : "a defect"
              assert.strictEqual(message, `The token storage failed at ${operation}: ${why}`)
              assert.notInclude(message + cause, "SECRET")
            }
            // one that hangs is not asked for anything more
            if (operation === "get" && (fault === "hangs" || fault === "sticks")) {
              assert.deepStrictEqual(storage.calls, ["get"])
            }
            assert.strictEqual(yield* service.get, token)
            assert.strictEqual(asked(), 1)
          }).pipe(Effect.provide(layer))
        })
      }

      it.scoped(`remove ${fault}: invalidate ends all the same, and the token does not come back`, () => {
        const { layer, lines } = recordLogs()
        return Effect.gen(function*() {
          const storage = controlledStorage()
          const { grant } = scriptedGrant()
          const service = yield* make({ grant }, storage)
          yield* getIn(service)
          storage.faults.remove = fault
          const before = yield* failures
          yield* inTime(service.invalidate, "1 seconds")
          assert.strictEqual((yield* failures) - before, 1)
          const [warning, ...more] = lines.filter(({ level }) => level === "WARN")
          assert.match(warning?.message ?? "", /^The token storage failed at remove: /)
          assert.isEmpty(more)
          assert.strictEqual(yield* getIn(service), "token-1")
        }).pipe(Effect.provide(layer))
      })

      it.scoped(`get ${fault}: invalidate ends all the same`, () =>
        Effect.gen(function*() {
          const storage = controlledStorage()
          const { grant } = scriptedGrant()
          const service = yield* make({ grant }, storage)
          yield* getIn(service)
          storage.faults.get = fault
          yield* inTime(service.invalidate, "1 seconds")
          storage.faults.get = undefined
          assert.strictEqual(yield* getIn(service), "token-1")
        }))

      it.scoped(`get ${fault}: invalidate ends where it cannot be interrupted, as in a finalizer`, () =>
        Effect.gen(function*() {
          const storage = controlledStorage()
          const { grant } = scriptedGrant()
          const service = yield* make({ grant }, storage)
          storage.faults.get = fault
          yield* inTime(Effect.uninterruptible(service.invalidate), "1 seconds")
        }))

      it.effect(`remove ${fault}: an outdated flight serves those who wait for it, and those after it`, () =>
        Effect.gen(function*() {
          const storage = controlledStorage()
          const { grant, most } = scriptedGrant()
          const scope = yield* Scope.make()
          const service = yield* Scope.extend(make({ grant }, storage), scope)
          storage.faults.remove = fault
          const waiting = yield* Effect.fork(service.get)
          yield* settle
          yield* service.invalidate
          const later = yield* Effect.fork(service.get)
          yield* TestClock.adjust("10 seconds")
          const [first, second] = [yield* waiting.poll, yield* later.poll]
          assert.isTrue(Option.isSome(first), "who waited for the flight waits still")
          assert.isTrue(Option.isSome(second), "who asked after it waits still")
          assert.strictEqual(value(yield* Fiber.join(waiting)), "token-0")
          assert.strictEqual(value(yield* Fiber.join(later)), "token-1")
          assert.strictEqual(most(), 1)
          yield* inTime(Scope.close(scope, Exit.void))
        }))

      it.effect(`everything ${fault}: the layer closes all the same`, () =>
        Effect.gen(function*() {
          const storage = controlledStorage()
          const { grant } = scriptedGrant()
          const scope = yield* Scope.make()
          const service = yield* Scope.extend(make({ grant }, storage), scope)
          for (const operation of ["get", "set", "remove"] as const) storage.faults[operation] = fault
          const waiting = yield* Effect.fork(Effect.exit(service.get))
          yield* TestClock.adjust("50 millis")
          yield* Effect.fork(service.invalidate)
          yield* TestClock.adjust("1500 millis")
          const closing = yield* Effect.forkDaemon(Scope.close(scope, Exit.void))
          yield* TestClock.adjust("10 seconds")
          assert.isTrue(Option.isSome(yield* closing.poll))
          assert.isTrue(Option.isSome(yield* waiting.poll))
        }))
    }

    it.scoped("what a storage fails with is not logged: it may hold anything", () => {
      const { layer, lines } = recordLogs()
      return Effect.gen(function*() {
        const { grant } = scriptedGrant((n) => issue(`token-${n}`))
        const storage = controlledStorage()
        const dying = () => Effect.die(new Error("redis://:SECRET@localhost"))
        const service = yield* make({ grant }, { ...storage, get: dying, set: dying, remove: dying })
        yield* service.get
        yield* service.invalidate
        assert.isNotEmpty(lines.filter(({ level }) => level === "WARN"))
        for (const { cause, message } of lines) assert.notInclude(message + cause, "SECRET")
      }).pipe(Effect.provide(layer))
    })

    for (const fault of ["dies", "throws"] as const) {
      it.scoped(`exclusive ${fault}: a warning, a metric, and a fetch without it`, () => {
        const { layer, lines } = recordLogs()
        return Effect.gen(function*() {
          const storage = controlledStorage()
          const { asked, grant } = scriptedGrant()
          storage.faults.exclusive = fault
          const service = yield* make({ grant }, storage)
          const before = yield* failures
          assert.strictEqual(yield* getIn(service), "token-0")
          assert.strictEqual((yield* failures) - before, 1)
          assert.lengthOf(lines.filter(({ level, message }) => level === "WARN" && /exclusive/.test(message)), 1)
          assert.strictEqual(asked(), 1)
          assert.strictEqual(value(only(storage)), "token-0")
        }).pipe(Effect.provide(layer))
      })
    }

    it.scoped("exclusive dies when the section is over: the token is there, and asked for once", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant()
        storage.faults.exclusive = "dies afterwards"
        const service = yield* make({ grant }, storage)
        assert.strictEqual(yield* getIn(service), "token-0")
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("exclusive dies when a failed section is over: the failure is the token endpoint's", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant(() => Effect.fail(noAnswer))
        storage.faults.exclusive = "dies afterwards"
        const service = yield* make({ grant }, storage)
        assertSame(yield* inTime(Effect.flip(service.get)), noAnswer)
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("exclusive interrupts the section: the token is fetched without it", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant, most } = scriptedGrant()
        storage.faults.exclusive = "loses it"
        const service = yield* make({ grant }, storage)
        assert.strictEqual(yield* getIn(service), "token-1")
        assert.strictEqual(most(), 1)
      }))

    it.scoped("a failed refresh leaves the section to the others", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { grant } = scriptedGrant((n) => n === 0 ? Effect.fail(noAnswer) : issue(`token-${n}`))
        const [first, second] = [yield* make({ grant }, storage), yield* make({ grant }, storage)]
        yield* inTime(Effect.flip(first.get))
        assert.strictEqual(storage.entered(), 0)
        assert.strictEqual(yield* getIn(second), "token-1")
        assert.strictEqual(yield* getIn(first), "token-1")
      }))

    it.scoped("waiters of a gone caller: the flight in the section goes on", () =>
      Effect.gen(function*() {
        const storage = controlledStorage()
        const { asked, grant } = scriptedGrant()
        const service = yield* make({ grant }, storage)
        const gate = yield* Deferred.make<void>()
        const caller = yield* Effect.fork(Effect.zipRight(Deferred.await(gate), service.get))
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        yield* Fiber.interrupt(caller)
        yield* TestClock.adjust("1 seconds")
        assert.strictEqual(value(yield* service.get), "token-0")
        assert.strictEqual(asked(), 1)
        assert.strictEqual(value(only(storage)), "token-0")
      }))
  })
})
