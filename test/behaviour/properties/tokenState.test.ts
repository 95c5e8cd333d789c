/** The token's state machine against a model that remembers all that ever happened. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, FastCheck as fc, Option, Redacted } from "effect"
import { AccessToken, TokenError } from "effect-alf"
import * as TokenState from "../../../src/internal/token/state.ts"
import { runs } from "./runs.ts"

const endpoint = "https://auth.test/token"

const refusal = (error: string) =>
  new TokenError.TokenErrorResponse({ endpoint, status: 400, error, attempts: 1, body: "" })

const noAnswer = new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 1, description: "reset" })

const makeToken = (name: string, issuedAt: number, life: number | null, refreshToken?: string) =>
  new AccessToken.AccessToken({
    value: Redacted.make(name),
    issuedAt: DateTime.unsafeMake(issuedAt),
    expiresAt: life === null ? Option.none() : Option.some(DateTime.unsafeMake(issuedAt + life)),
    refreshToken: Option.map(Option.fromNullable(refreshToken), (text) => Redacted.make(text))
  })

/** Milliseconds. */
interface Settings {
  readonly leeway: number
  readonly ahead: number
  readonly cooldown: number
}

const defaults: Settings = { leeway: 10_000, ahead: 120_000, cooldown: 1_000 }

const windowsOf = ({ ahead, cooldown, leeway }: Settings): TokenState.Windows => ({
  expiryLeeway: Duration.millis(leeway),
  refreshAhead: Duration.millis(ahead),
  refusalCooldown: Duration.millis(cooldown)
})

/** What can happen to a service. `which` chooses among the tokens that there have been, 0 the last one. */
type Step =
  | { readonly _tag: "Need" }
  | { readonly _tag: "Reject"; readonly which: number }
  | { readonly _tag: "Arrive"; readonly took: number; readonly life: number | null; readonly jitter: number }
  | { readonly _tag: "Find"; readonly which: number }
  | { readonly _tag: "FindNew"; readonly age: number; readonly life: number | null; readonly jitter: number }
  | { readonly _tag: "Fail"; readonly kind: "refusal" | "noAnswer" | "interruption" }
  | { readonly _tag: "Forget" }
  | { readonly _tag: "Tick"; readonly millis: number }
  /** The clock goes on to where the current token is renewed in the background. */
  | { readonly _tag: "Ripen" }

const life = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 20_000 }) },
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 4_000_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, null) }
)
const jitter = fc.integer({ min: 0, max: 400 }).map((n) => (800 + n) / 1000)
const which = fc.nat({ max: 3 })

const steps: fc.Arbitrary<ReadonlyArray<Step>> = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ _tag: fc.constant("Need" as const) }) },
    { weight: 4, arbitrary: fc.record({ _tag: fc.constant("Reject" as const), which }) },
    {
      weight: 5,
      arbitrary: fc.record({
        _tag: fc.constant("Arrive" as const),
        took: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 5_000 })),
        life,
        jitter
      })
    },
    { weight: 5, arbitrary: fc.record({ _tag: fc.constant("Find" as const), which }) },
    {
      weight: 1,
      arbitrary: fc.record({ _tag: fc.constant("FindNew" as const), age: fc.nat({ max: 5_000 }), life, jitter })
    },
    {
      weight: 4,
      arbitrary: fc.record({
        _tag: fc.constant("Fail" as const),
        kind: fc.constantFrom("refusal" as const, "noAnswer" as const, "interruption" as const)
      })
    },
    { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Forget" as const) }) },
    { weight: 2, arbitrary: fc.constant({ _tag: "Ripen" as const }) },
    {
      weight: 6,
      arbitrary: fc.record({
        _tag: fc.constant("Tick" as const),
        millis: fc.oneof(
          { weight: 6, arbitrary: fc.integer({ min: 0, max: 2_000 }) },
          { weight: 3, arbitrary: fc.integer({ min: 0, max: 40_000 }) },
          { weight: 1, arbitrary: fc.integer({ min: 0, max: 4_000_000 }) },
          { weight: 1, arbitrary: fc.integer({ min: -20_000, max: -1 }) }
        )
      })
    }
  ),
  { minLength: 1, maxLength: 60 }
)

const arrival = { _tag: "Arrive", took: 1, life: null, jitter: 1 } as const

/** Many tokens without end, one after the other: what they do to each other. */
const crowded: fc.Arbitrary<ReadonlyArray<Step>> = fc.array(
  fc.oneof(
    fc.constant<ReadonlyArray<Step>>([{ _tag: "Need" }, arrival]),
    fc.constant<ReadonlyArray<Step>>([{ _tag: "Reject", which: 0 }, arrival]),
    fc.constant<ReadonlyArray<Step>>([{ _tag: "Forget" }]),
    fc.nat({ max: 2 }).map((which): ReadonlyArray<Step> => [{ _tag: "Reject", which }]),
    fc.nat({ max: 2 }).map((which): ReadonlyArray<Step> => [{ _tag: "Find", which }])
  ),
  { minLength: 1, maxLength: 15 }
).map((parts) => parts.flat())

/** Tokens that are renewed before they end, again and again. */
const ripening: fc.Arbitrary<ReadonlyArray<Step>> = fc.array(
  fc.oneof(
    fc.constant<ReadonlyArray<Step>>([{ _tag: "Need" }, { ...arrival, life: 100_000 }]),
    fc.constant<ReadonlyArray<Step>>([{ _tag: "Ripen" }, { _tag: "Need" }]),
    fc.constant<ReadonlyArray<Step>>([{ _tag: "Need" }]),
    fc.record({ life, took: fc.nat({ max: 50 }) }).map((step): ReadonlyArray<Step> => [{ ...arrival, ...step }]),
    fc.constantFrom(
      { _tag: "Fail", kind: "refusal" } as const,
      { _tag: "Fail", kind: "noAnswer" } as const,
      { _tag: "Fail", kind: "interruption" } as const
    ).map((step): ReadonlyArray<Step> => [step])
  ),
  { minLength: 1, maxLength: 15 }
).map((parts) => parts.flat())

const settings: fc.Arbitrary<Settings> = fc.oneof(
  fc.constant(defaults),
  fc.record({
    leeway: fc.integer({ min: 0, max: 60_000 }),
    ahead: fc.integer({ min: 0, max: 300_000 }),
    cooldown: fc.integer({ min: 0, max: 40_000 })
  })
)

/** A token in the model's memory. */
interface Known {
  readonly held: TokenState.Held
  readonly jitter: number
  /** How often everything had been forgotten when it was asked for; none if it only lies in the storage. */
  generation: number | undefined
  isRefused: boolean
}

interface Pause {
  readonly from: number
  readonly length: number
}

/** What the model knows when a step is over, and what the machine answered. */
interface Moment {
  readonly now: number
  readonly step: Step
  readonly expected: { readonly _tag: TokenState.Answer<number>["_tag"]; readonly error?: TokenError.TokenError } | null
  readonly answer: TokenState.Answer<number> | null
  /** The token that was current, and whether it could be used. */
  readonly current: Known | undefined
  readonly isUsable: boolean
  readonly flights: number
  readonly isFlightOutdated: boolean
  readonly refusal: (Pause & { readonly error: TokenError.TokenError }) | undefined
  readonly renewalPause: Pause | undefined
  readonly generation: number
  /** What the storage held, as it was then, and whether it was taken. */
  readonly found: (Known & { readonly isTaken: boolean }) | null
  readonly wasSetBack: boolean
}

const bounds = ({ token }: TokenState.Held) => {
  const from = DateTime.toEpochMillis(token.issuedAt)
  return { from, end: Option.match(token.expiresAt, { onNone: () => Infinity, onSome: DateTime.toEpochMillis }) }
}

/** Lives one life, the machine beside the model. */
const live = (settings: Settings, steps: ReadonlyArray<Step>): ReadonlyArray<Moment> => {
  const windows = windowsOf(settings)
  const moments: Array<Moment> = []
  let state: TokenState.State<number> = TokenState.initial
  let now = 1_000_000_000
  let nextFlight = 0

  // the model
  const all: Array<Known> = []
  let current: Known | undefined
  let flight: { readonly generation: number; readonly startedAt: number } | undefined
  let refused: (Pause & { readonly error: TokenError.TokenError }) | undefined
  let renewalPause: Pause | undefined
  let generation = 0
  let wasSetBack = false

  const know = (token: AccessToken.AccessToken, jitter: number): Known => {
    const held = TokenState.hold(token, windows, jitter)
    const known: Known = { held, jitter, generation: undefined, isRefused: false }
    all.push(known)
    return known
  }
  const isOver = (known: Known): boolean => {
    const { end, from } = bounds(known.held)
    return end !== Infinity && now >= end - Math.min(settings.leeway, 0.05 * (end - from))
  }
  const isUsable = (known: Known | undefined): known is Known => {
    if (known === undefined || known.isRefused) return false
    return bounds(known.held).from <= now && !isOver(known)
  }
  const isRenewable = (known: Known): boolean => {
    const { end, from } = bounds(known.held)
    return end !== Infinity && now >= end - known.jitter * Math.min(settings.ahead, 0.2 * (end - from))
  }
  const find = (known: Known): Moment["found"] => {
    const found = { ...known, isTaken: TokenState.isReplacement(state, known.held, now) }
    if (found.isTaken && flight !== undefined) arrive(known, flight.generation)
    return found
  }
  const isIn = (pause: Pause | undefined): boolean =>
    pause !== undefined && pause.from <= now && now < pause.from + pause.length

  const whenUnusable = (): NonNullable<Moment["expected"]> => {
    if (flight !== undefined) return { _tag: flight.generation < generation ? "Queue" : "Join" }
    if (refused !== undefined && isIn(refused)) return { _tag: "Fail", error: refused.error }
    return { _tag: "Start" }
  }
  const expect = (step: Step): Moment["expected"] => {
    if (step._tag === "Need") {
      if (!isUsable(current)) return whenUnusable()
      return {
        _tag: isRenewable(current) && flight === undefined && !isIn(renewalPause) && !isIn(refused) ? "Renew" : "Use"
      }
    }
    if (step._tag === "Reject") {
      const known = all.at(-1 - step.which)
      const good = current !== known && isUsable(current) ? current : undefined
      // one that is older than the good one is superseded anyway
      if (known !== undefined && (good === undefined || bounds(known.held).from >= bounds(good.held).from)) {
        known.isRefused = true
      }
      return good === undefined ? whenUnusable() : { _tag: "Use" }
    }
    return null
  }
  const arrive = (known: Known, flown: number) => {
    const [isCurrent, next] = TokenState.tell(state, { _tag: "Arrived", held: known.held }, now, windows)
    state = next
    const isInVain = isUsable(current) && isOver(known)
    assert.strictEqual(
      isCurrent,
      flown === generation && !isInVain,
      "what the present generation asked for, and can be used"
    )
    known.generation = flown
    if (isCurrent) {
      current = known
      refused = undefined
      renewalPause = undefined
    } else if (flown === generation && isUsable(current)) {
      renewalPause = { from: now, length: (bounds(current.held).end - now) / 4 }
    }
    flight = undefined
  }

  for (const step of steps) {
    let answer: Moment["answer"] = null
    let found: Moment["found"] = null
    if (step._tag === "Tick") {
      now += step.millis
      if (step.millis < 0) wasSetBack = true
    }
    if (step._tag === "Ripen" && current !== undefined && current.held.refreshAt !== Infinity) {
      now = Math.max(now, Math.ceil(current.held.refreshAt))
    }
    if (step._tag === "Arrive" && flight !== undefined) now += step.took
    const before = {
      now,
      step,
      current,
      isUsable: isUsable(current),
      flights: flight === undefined ? 0 : 1,
      isFlightOutdated: flight !== undefined && flight.generation < generation,
      refusal: refused,
      renewalPause,
      generation,
      wasSetBack
    }
    const expected = expect(step)

    switch (step._tag) {
      case "Need": {
        const handle = nextFlight++
        const [given, next] = TokenState.ask(state, { _tag: "Needed", flight: handle }, now)
        answer = given
        state = next
        break
      }
      case "Reject": {
        const handle = nextFlight++
        const token = all.at(-1 - step.which)?.held.token ?? makeToken("someone else's", now, 1_000)
        const [given, next] = TokenState.ask(state, { _tag: "Rejected", token, flight: handle }, now)
        answer = given
        state = next
        break
      }
      case "Arrive":
        if (flight !== undefined) {
          const token = makeToken(`token ${all.length}`, flight.startedAt, step.life)
          arrive(know(token, step.jitter), flight.generation)
        }
        break
      case "Find": {
        const known = all.at(-1 - step.which)
        if (known !== undefined) found = find(known)
        break
      }
      case "FindNew":
        found = find(know(makeToken(`token ${all.length}`, now - step.age, step.life), step.jitter))
        break
      case "Fail":
        if (flight !== undefined) {
          const error = refusal(`code_${moments.length}`)
          const isOutdated = flight.generation < generation
          const [isCurrent, next] = TokenState.tell(
            state,
            {
              _tag: "Failed",
              error: step.kind === "interruption"
                ? Option.none()
                : Option.some(step.kind === "refusal" ? error : noAnswer)
            },
            now,
            windows
          )
          assert.isFalse(isCurrent)
          state = next
          flight = undefined
          if (step.kind === "refusal" && !isOutdated) {
            refused = {
              error,
              from: now,
              length: refused === undefined
                ? settings.cooldown
                : Math.min(2 * refused.length, Math.max(settings.cooldown, 30_000))
            }
          }
          renewalPause = isUsable(current) ? { from: now, length: (bounds(current.held).end - now) / 4 } : undefined
        }
        break
      case "Forget": {
        const [isCurrent, next] = TokenState.tell(state, { _tag: "Forgotten" }, now, windows)
        assert.isFalse(isCurrent)
        state = next
        generation++
        current = undefined
        refused = undefined
        renewalPause = undefined
        break
      }
    }
    moments.push({ ...before, expected, answer, found })
    if (answer?._tag === "Start" || answer?._tag === "Renew") {
      flight = { generation, startedAt: now }
    }
  }
  return moments
}

const lives = (name: string, check: (moment: Moment, all: ReadonlyArray<Moment>, settings: Settings) => void) =>
  it.prop(name, [settings, fc.oneof(steps, crowded, ripening)], ([settings, steps]) => {
    const moments = live(settings, steps)
    for (const moment of moments) check(moment, moments, settings)
  }, runs(300))

describe("tokenState", () => {
  lives("answers as the model does", ({ answer, expected }) => {
    assert.strictEqual(answer?._tag, expected?._tag)
    if (answer?._tag === "Fail") assert.strictEqual(answer.error, expected?.error)
  })

  lives("never has two flights at once", ({ answer, flights }) => {
    if (answer?._tag === "Start" || answer?._tag === "Renew") {
      assert.strictEqual(flights, 0)
      assert.isFalse(answer.flight.isOutdated)
    }
    if (answer?._tag === "Join" || answer?._tag === "Queue") assert.strictEqual(flights, 1)
  })

  lives("queues for outdated flights only, and joins only others", ({ answer, isFlightOutdated }) => {
    if (answer?._tag === "Queue") assert.isTrue(isFlightOutdated && answer.flight.isOutdated)
    if (answer?._tag === "Join") assert.isFalse(isFlightOutdated || answer.flight.isOutdated)
  })

  lives("hands out no token that is refused, forgotten, not yet issued, or past its window", (moment, _, settings) => {
    const { answer, current, generation, isUsable, now } = moment
    if (answer?._tag !== "Use" && answer?._tag !== "Renew") return
    const { end, from } = bounds(answer.held)
    assert.isAtMost(from, now)
    assert.isBelow(now, end)
    if (end !== Infinity) assert.isAtMost(now, end - Math.min(settings.leeway, 0.05 * (end - from)))
    assert.isTrue(isUsable)
    assert.isFalse(answer.held.isRefused)
    assert.strictEqual(answer.held.token, current?.held.token)
    assert.strictEqual(current?.generation, generation)
  })

  lives("makes nobody wait while there is a token to use", ({ answer, isUsable, step }) => {
    if (step._tag === "Need" && isUsable) assert.include(["Use", "Renew"], answer?._tag)
  })

  it("renews in the background once, however many ask meanwhile", () => {
    const held = TokenState.hold(makeToken("ripe", 0, 100_000), windowsOf(defaults), 1)
    let state: TokenState.State<number> = { ...TokenState.initial, held }
    const answers = [1, 2, 3].map((flight) => {
      const [answer, next] = TokenState.ask(state, { _tag: "Needed", flight }, 90_000)
      state = next
      return answer._tag
    })
    assert.deepStrictEqual(answers, ["Renew", "Use", "Use"])
    assert.strictEqual(state.flight?.handle, 1)
  })

  it("a renewal that brings a token which is over does not replace the one that is not", () => {
    const windows = windowsOf(defaults)
    const good = TokenState.hold(makeToken("good", 0, 100_000), windows, 1)
    let state: TokenState.State<number> = { ...TokenState.initial, held: good }
    let now = 90_000
    const need = () => {
      const [answer, next] = TokenState.ask(state, { _tag: "Needed", flight: 0 }, now)
      state = next
      return answer
    }
    assert.strictEqual(need()._tag, "Renew")
    const over = TokenState.hold(makeToken("over", now, 0), windows, 1)
    const [isCurrent, next] = TokenState.tell(state, { _tag: "Arrived", held: over }, now, windows)
    assert.isFalse(isCurrent)
    state = next
    assert.deepStrictEqual(need(), { _tag: "Use", held: good })
    // a quarter of what was left
    now = 92_499
    assert.strictEqual(need()._tag, "Use")
    now = 92_500
    assert.strictEqual(need()._tag, "Renew")
  })

  lives("does not give the token back that was refused", ({ answer, current, isUsable, step }, all) => {
    if (step._tag !== "Reject" || answer?._tag !== "Use") return
    assert.isTrue(isUsable)
    assert.strictEqual(answer.held.token, current?.held.token)
    assert.isNotEmpty(all)
  })

  lives("fails without a flight only in the pause after a refusal", ({ answer, now, refusal }) => {
    if (answer?._tag !== "Fail") return
    assert.isDefined(refusal)
    assert.strictEqual(answer.error, refusal?.error)
    assert.isAtLeast(now, refusal?.from ?? Infinity)
    assert.isBelow(now, (refusal?.from ?? 0) + (refusal?.length ?? 0))
  })

  lives("renews in the background once a quarter of what was left at the last failure is over", (moment) => {
    const { answer, now, renewalPause } = moment
    if (answer?._tag !== "Renew" || renewalPause === undefined || now < renewalPause.from) return
    assert.isAtLeast(now, renewalPause.from + renewalPause.length)
  })

  lives("takes no token from the storage that could not be used", ({ found, now }, _, settings) => {
    if (found === null || !found.isTaken) return
    const { end, from } = bounds(found.held)
    assert.isAtMost(from, now)
    if (end !== Infinity) assert.isBelow(now, end - Math.min(settings.leeway, 0.05 * (end - from)))
  })

  lives("takes no token from the storage that is older than the last one", ({ current, found }) => {
    if (found === null || !found.isTaken || current === undefined) return
    assert.isAtLeast(bounds(found.held).from, bounds(current.held).from)
    assert.isFalse(AccessToken.isSame(found.held.token, current.held.token))
  })

  // after the clock was set back, which of two tokens is the newer one cannot be known
  lives("takes no token from the storage that was refused or forgotten", ({ found, generation, wasSetBack }) => {
    if (found === null || !found.isTaken || wasSetBack) return
    assert.isFalse(found.isRefused, "it was refused")
    if (found.generation !== undefined) assert.strictEqual(found.generation, generation, "it was forgotten")
  })

  it("a late refusal of an older token does not bring a forgotten one back", () => {
    const windows = windowsOf(defaults)
    const [first, second] = [makeToken("first", 0, null), makeToken("second", 10, null)]
    const held = (token: AccessToken.AccessToken) => TokenState.hold(token, windows, 1)
    let state: TokenState.State<number> = { ...TokenState.initial, held: held(first) }
    state = TokenState.ask(state, { _tag: "Rejected", token: first, flight: 0 }, 10)[1]
    state = TokenState.tell(state, { _tag: "Arrived", held: held(second) }, 11, windows)[1]
    state = TokenState.tell(state, { _tag: "Forgotten" }, 12, windows)[1]
    assert.isFalse(TokenState.isReplacement(state, held(second), 13))
    state = TokenState.ask(state, { _tag: "Rejected", token: first, flight: 1 }, 13)[1]
    assert.isFalse(TokenState.isReplacement(state, held(second), 14))
  })

  it("a refused token that is newer than the current one is not taken from the storage", () => {
    const windows = windowsOf(defaults)
    const held = (name: string, issuedAt: number) => TokenState.hold(makeToken(name, issuedAt, null), windows, 1)
    const [current, newer, newest] = [held("current", 0), held("newer", 10), held("newest", 20)]
    let state: TokenState.State<number> = { ...TokenState.initial, held: current }
    const reject = ({ token }: TokenState.Held) => {
      const [answer, next] = TokenState.ask(state, { _tag: "Rejected", token, flight: 0 }, 30)
      state = next
      return answer
    }
    assert.deepStrictEqual(reject(newer), { _tag: "Use", held: current })
    assert.isFalse(TokenState.isReplacement(state, newer, 30))
    assert.isTrue(TokenState.isReplacement(state, newest, 30))
    // the newest counts, in any order
    reject(newest)
    reject(newer)
    assert.isFalse(TokenState.isReplacement(state, newest, 30))
    reject(current)
    assert.isFalse(TokenState.isReplacement(state, newest, 30))
    // of two of one millisecond neither is the newer one
    const twin = held("twin", 20)
    assert.isTrue(TokenState.isReplacement(state, twin, 30))
    reject(twin)
    reject(twin)
    for (const { token } of [twin, newest]) {
      assert.isFalse(TokenState.isReplacement(state, TokenState.hold(token, windows, 1), 30))
    }
    assert.lengthOf(state.rejected, 2)
    reject(held("last", 21))
    assert.lengthOf(state.rejected, 1)
  })

  it("a token whose flight was outdated is not taken from the storage by the next one", () => {
    const windows = windowsOf(defaults)
    const held = TokenState.hold(makeToken("a", 0, null), windows, 1)
    let state: TokenState.State<number> = TokenState.initial
    state = TokenState.ask(state, { _tag: "Needed", flight: 0 }, 0)[1]
    state = TokenState.tell(state, { _tag: "Forgotten" }, 1, windows)[1]
    state = TokenState.tell(state, { _tag: "Arrived", held }, 2, windows)[1]
    assert.isFalse(TokenState.isReplacement(state, held, 3))
  })

  it.prop("a window is never longer than its share of the lifetime", [settings, life, jitter], (
    [settings, life, jitter]
  ) => {
    const { from, refreshAt, until } = TokenState.hold(makeToken("a", 5_000, life), windowsOf(settings), jitter)
    assert.strictEqual(from, 5_000)
    if (life === null) {
      assert.deepStrictEqual([refreshAt, until], [Infinity, Infinity])
      return
    }
    const end = from + life
    assert.strictEqual(until, end - Math.min(settings.leeway, life * 0.05))
    assert.isAtMost(refreshAt, until)
    assert.isAtLeast(refreshAt, end - jitter * (life * 0.2))
    if (refreshAt < until) assert.strictEqual(refreshAt, end - jitter * Math.min(settings.ahead, life * 0.2))
  }, runs(300))

  it("the defaults: the last 5 % and the last 20 % of a short life, 10 s and 2 minutes of a long one", () => {
    const short = TokenState.hold(makeToken("a", 0, 20_000), windowsOf(defaults), 1)
    assert.deepStrictEqual([short.refreshAt, short.until], [16_000, 19_000])
    const long = TokenState.hold(makeToken("a", 0, 3_600_000), windowsOf(defaults), 1)
    assert.deepStrictEqual([long.refreshAt, long.until], [3_480_000, 3_590_000])
  })

  it("a window of zero renews nothing ahead, and uses a token up to its end", () => {
    const { refreshAt, until } = TokenState.hold(
      makeToken("a", 0, 20_000),
      windowsOf({ leeway: 0, ahead: 0, cooldown: 0 }),
      1.2
    )
    assert.deepStrictEqual([refreshAt, until], [20_000, 20_000])
  })

  it("windows without end are capped like any other, and a token without end has none", () => {
    const windows = {
      expiryLeeway: Duration.infinity,
      refreshAhead: Duration.infinity,
      refusalCooldown: Duration.infinity
    }
    const short = TokenState.hold(makeToken("a", 0, 20_000), windows, 1)
    assert.deepStrictEqual([short.refreshAt, short.until], [16_000, 19_000])
    const endless = TokenState.hold(makeToken("a", 0, null), windows, 1)
    assert.deepStrictEqual([endless.refreshAt, endless.until], [Infinity, Infinity])
  })

  it("a storage's token is taken if it can be used, is newer, and was neither refused nor forgotten", () => {
    const windows = windowsOf(defaults)
    const at = (issuedAt: number) => TokenState.hold(makeToken(`${issuedAt}`, issuedAt, 60_000), windows, 1)
    const state: TokenState.State<number> = { ...TokenState.initial, held: at(10_000) }
    assert.isTrue(TokenState.isReplacement(TokenState.initial, at(10_000), 10_000))
    assert.isTrue(TokenState.isReplacement(state, at(10_001), 10_001))
    assert.isFalse(TokenState.isReplacement(state, at(10_000), 10_001))
    assert.isFalse(TokenState.isReplacement(state, at(10_001), 10_000))
    assert.isFalse(TokenState.isReplacement(state, at(10_001), 67_001))

    const [, forgotten] = TokenState.tell(state, { _tag: "Forgotten" }, 20_000, windows)
    assert.isFalse(TokenState.isReplacement(forgotten, at(20_000), 20_001))
    assert.isTrue(TokenState.isReplacement(forgotten, at(20_001), 20_001))

    const refused = at(10_000)
    const [, rejected] = TokenState.ask(
      TokenState.initial,
      { _tag: "Rejected", token: refused.token, flight: 0 },
      10_001
    )
    assert.isFalse(TokenState.isReplacement(rejected, refused, 10_001))
    assert.isTrue(TokenState.isReplacement(rejected, at(10_001), 10_001))
  })

  const failing = (times: number, settings: Settings, pauseBetween: number) => {
    let state: TokenState.State<number> = TokenState.initial
    let now = 1_000_000
    const pauses: Array<number> = []
    for (let n = 0; n < times; n++) {
      const [answer, asked] = TokenState.ask(state, { _tag: "Needed", flight: n }, now)
      assert.strictEqual(answer._tag, "Start")
      const error = Option.some(refusal("invalid_client"))
      const [, failed] = TokenState.tell(asked, { _tag: "Failed", error }, now, windowsOf(settings))
      state = failed
      const failedAt = now
      while (TokenState.ask(state, { _tag: "Needed", flight: n }, now)[0]._tag === "Fail") now += 100
      pauses.push(now - failedAt)
      now += pauseBetween
    }
    return pauses
  }

  it("a refusal's pause doubles up to 30 s, and stays there", () => {
    const expected = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
    assert.deepStrictEqual(failing(8, defaults, 0), expected)
    assert.deepStrictEqual(failing(8, defaults, 12_345_000), expected)
  })

  it("a failure without an answer leaves the refusals before it in mind", () => {
    const windows = windowsOf(defaults)
    let state: TokenState.State<number> = TokenState.initial
    const fail = (error: TokenError.TokenError, now: number) => {
      const [answer, asked] = TokenState.ask(state, { _tag: "Needed", flight: now }, now)
      assert.strictEqual(answer._tag, "Start")
      state = TokenState.tell(asked, { _tag: "Failed", error: Option.some(error) }, now, windows)[1]
    }
    fail(refusal("invalid_client"), 0)
    fail(noAnswer, 1_000)
    fail(refusal("invalid_client"), 2_000)
    assert.strictEqual(TokenState.ask(state, { _tag: "Needed", flight: 0 }, 3_999)[0]._tag, "Fail")
    assert.strictEqual(TokenState.ask(state, { _tag: "Needed", flight: 0 }, 4_000)[0]._tag, "Start")
  })

  it("a refusal's pause never doubles beyond 30 s, nor shrinks where it is set longer", () => {
    assert.deepStrictEqual(failing(3, { ...defaults, cooldown: 45_000 }, 0), [45_000, 45_000, 45_000])
    assert.deepStrictEqual(failing(3, { ...defaults, cooldown: 0 }, 0), [0, 0, 0])
  })

  for (const end of ["a success", "forgetting"] as const) {
    it(`${end} ends the pause, and the next one is short again`, () => {
      const windows = windowsOf(defaults)
      const error = Option.some(refusal("invalid_client"))
      let state: TokenState.State<number> = TokenState.initial
      for (let n = 0; n < 3; n++) {
        const [answer, asked] = TokenState.ask(state, { _tag: "Needed", flight: n }, n * 100_000)
        assert.strictEqual(answer._tag, "Start")
        state = TokenState.tell(asked, { _tag: "Failed", error }, n * 100_000, windows)[1]
      }
      assert.strictEqual(TokenState.ask(state, { _tag: "Needed", flight: 9 }, 203_000)[0]._tag, "Fail")
      if (end === "forgetting") state = TokenState.tell(state, { _tag: "Forgotten" }, 203_000, windows)[1]
      else {
        state = TokenState.ask(state, { _tag: "Needed", flight: 9 }, 210_000)[1]
        const held = TokenState.hold(makeToken("a", 210_000, 0), windows, 1)
        state = TokenState.tell(state, { _tag: "Arrived", held }, 210_000, windows)[1]
      }
      const [answer, asked] = TokenState.ask(state, { _tag: "Needed", flight: 10 }, 211_000)
      assert.strictEqual(answer._tag, "Start")
      state = TokenState.tell(asked, { _tag: "Failed", error }, 211_000, windows)[1]
      assert.strictEqual(TokenState.ask(state, { _tag: "Needed", flight: 11 }, 211_999)[0]._tag, "Fail")
      assert.strictEqual(TokenState.ask(state, { _tag: "Needed", flight: 12 }, 212_000)[0]._tag, "Start")
    })
  }

  it("only a refusal for good makes a pause", () => {
    const windows = windowsOf(defaults)
    const passing = [
      Option.none(),
      Option.some(noAnswer),
      Option.some(new TokenError.InvalidTokenResponse({ endpoint, issue: "no token" })),
      Option.some(new TokenError.AuthorizationError({ reason: "Timeout" })),
      Option.some(refusal("temporarily_unavailable")),
      Option.some(new TokenError.TokenErrorResponse({ endpoint, status: 503, attempts: 1, body: "" }))
    ]
    for (const error of passing) {
      const [, asked] = TokenState.ask<number>(TokenState.initial, { _tag: "Needed", flight: 0 }, 0)
      const [, failed] = TokenState.tell(asked, { _tag: "Failed", error }, 0, windows)
      assert.strictEqual(TokenState.ask(failed, { _tag: "Needed", flight: 1 }, 0)[0]._tag, "Start")
    }
  })

  it("a sign-in that was denied makes a pause, too", () => {
    const error = Option.some(new TokenError.AuthorizationError({ reason: "AccessDenied", error: "access_denied" }))
    const [, asked] = TokenState.ask<number>(TokenState.initial, { _tag: "Needed", flight: 0 }, 0)
    const [, failed] = TokenState.tell(asked, { _tag: "Failed", error }, 0, windowsOf(defaults))
    assert.strictEqual(TokenState.ask(failed, { _tag: "Needed", flight: 1 }, 0)[0]._tag, "Fail")
  })

  it("a clock that was set back ends every pause", () => {
    const windows = windowsOf(defaults)
    const error = Option.some(refusal("invalid_client"))
    const [, asked] = TokenState.ask<number>(TokenState.initial, { _tag: "Needed", flight: 0 }, 50_000)
    const [, failed] = TokenState.tell(asked, { _tag: "Failed", error }, 50_000, windows)
    assert.strictEqual(TokenState.ask(failed, { _tag: "Needed", flight: 1 }, 50_000)[0]._tag, "Fail")
    assert.strictEqual(TokenState.ask(failed, { _tag: "Needed", flight: 1 }, 49_999)[0]._tag, "Start")

    // a token in its background window, whose renewal failed
    const held = TokenState.hold(makeToken("a", 0, 100_000), windows, 1)
    const arrived = TokenState.tell<number>(TokenState.initial, { _tag: "Arrived", held }, 0, windows)[1]
    const renewing = TokenState.ask(arrived, { _tag: "Needed", flight: 2 }, 90_000)[1]
    const resting = TokenState.tell(renewing, { _tag: "Failed", error: Option.none() }, 90_000, windows)[1]
    assert.strictEqual(TokenState.ask(resting, { _tag: "Needed", flight: 3 }, 90_000)[0]._tag, "Use")
    assert.strictEqual(TokenState.ask(resting, { _tag: "Needed", flight: 3 }, 89_999)[0]._tag, "Renew")
  })

  it("failing renewals in the background come a quarter of what is left apart", () => {
    const windows = windowsOf(defaults)
    const held = TokenState.hold(makeToken("a", 0, 3_600_000), windows, 1)
    let state = TokenState.tell<number>(TokenState.initial, { _tag: "Arrived", held }, 0, windows)[1]
    const tries: Array<number> = []
    for (let now = 0; now < held.until; now += 100) {
      const [answer, asked] = TokenState.ask(state, { _tag: "Needed", flight: now }, now)
      state = asked
      if (answer._tag !== "Renew") continue
      tries.push(now)
      state = TokenState.tell(asked, { _tag: "Failed", error: Option.some(noAnswer) }, now, windows)[1]
    }
    assert.strictEqual(tries[0], 3_480_000)
    for (const [n, at] of tries.slice(1).entries()) {
      const before = tries[n]!
      assert.isAtLeast(at - before, (3_600_000 - before) / 4)
      assert.isBelow(at - before, (3_600_000 - before) / 4 + 100)
    }
    assert.strictEqual(tries.length, 9)
  })

  it("says why a flight was started", () => {
    const windows = windowsOf(defaults)
    const reason = (answer: TokenState.Answer<number>) =>
      answer._tag === "Start" || answer._tag === "Renew" ? answer.flight.reason : answer._tag
    const token = makeToken("a", 0, 100_000)
    const arrived = TokenState.tell<number>(
      TokenState.initial,
      { _tag: "Arrived", held: TokenState.hold(token, windows, 1) },
      0,
      windows
    )[1]
    const needed = { _tag: "Needed", flight: 1 } as const
    assert.strictEqual(reason(TokenState.ask<number>(TokenState.initial, needed, 0)[0]), "absent")
    assert.strictEqual(reason(TokenState.ask(arrived, needed, 79_999)[0]), "Use")
    assert.strictEqual(reason(TokenState.ask(arrived, needed, 80_000)[0]), "expiring")
    assert.strictEqual(reason(TokenState.ask(arrived, needed, 95_000)[0]), "absent")
    assert.strictEqual(reason(TokenState.ask(arrived, { _tag: "Rejected", token, flight: 1 }, 0)[0]), "rejected")
  })
})
