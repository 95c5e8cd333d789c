/** The life of a service's token: every order of callers, arrivals, failures, rejections and clock jumps. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, FastCheck as fc, Option, Redacted } from "effect"
import { AccessToken, TokenError } from "effect-alf"
import * as State from "../../../src/internal/token/state.ts"
import { runs } from "./runs.ts"

const windows: State.Windows = {
  expiryLeeway: Duration.seconds(10),
  refreshAhead: Duration.minutes(2),
  refusalCooldown: Duration.seconds(1),
  flightTimeout: Duration.minutes(1),
  isShared: true
}

const make = (name: string, generation: number, issuedAt: number, seconds: number | undefined) =>
  new AccessToken.AccessToken({
    value: Redacted.make(name),
    generation,
    issuedAt: DateTime.unsafeMake(issuedAt),
    expiresAt: seconds === undefined ? Option.none() : Option.some(DateTime.unsafeMake(issuedAt + 1000 * seconds))
  })

const endpoint = "https://auth.test/token"
const transient = new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 4, description: "reset" })
const refusal = new TokenError.TokenErrorResponse({
  endpoint,
  status: 401,
  error: "invalid_client",
  attempts: 1,
  body: ""
})
const slow = (seconds: number) =>
  new TokenError.TokenErrorResponse({
    endpoint,
    status: 429,
    attempts: 1,
    body: "",
    retryAfter: Duration.seconds(seconds)
  })

/** Drives the machine; flights are numbers. */
const machine = () => {
  let state: State.State<number> = State.initial
  let now = 1_000_000_000
  let flights = 0
  let fetched = 0
  const tell = (news: State.News<number>) => {
    const [isCurrent, next] = State.tell(state, news, now, windows)
    state = next
    return isCurrent
  }
  const ask = (rejected?: AccessToken.AccessToken) => {
    const flight = ++flights
    const [decision, next] = State.ask(
      state,
      rejected === undefined ? { _tag: "Needed", flight } : { _tag: "Rejected", token: rejected, flight },
      now,
      windows
    )
    state = next
    return decision
  }
  const token = (seconds: number | undefined = 3600) =>
    make(`token-${++fetched}`, State.nextGeneration(state, Option.none()), now, seconds)
  return {
    ask,
    tell,
    token,
    get state() {
      return state
    },
    get now() {
      return now
    },
    tick: (millis: number) => {
      now += millis
    },
    /** Asks, and lets the flight that this starts arrive at once. */
    fetch: (seconds?: number) => {
      const decision = ask()
      if (decision._tag !== "Start" && decision._tag !== "Renew") throw new Error(decision._tag)
      const arrived = token(seconds)
      tell({ _tag: "Arrived", flight: decision.flight, held: State.hold(arrived, windows, 1, now) })
      return arrived
    }
  }
}

const used = (decision: State.Decision<number>) =>
  decision._tag === "Use" || decision._tag === "Renew" ? Redacted.value(decision.held.token.value) : decision._tag

type Event =
  | { readonly _tag: "Need" | "RejectHandout" | "RejectOld" | "Forget" | "Close" }
  | { readonly _tag: "Arrive"; readonly which: number; readonly seconds: number | undefined }
  | { readonly _tag: "Fail"; readonly which: number; readonly error: TokenError.TokenError | undefined }
  | { readonly _tag: "Tick"; readonly millis: number }

const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Event>({ _tag: "Need" }) },
  { weight: 3, arbitrary: fc.constantFrom<Event>({ _tag: "RejectHandout" }, { _tag: "RejectOld" }) },
  { weight: 1, arbitrary: fc.constant<Event>({ _tag: "Forget" }) },
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("Arrive" as const),
      which: fc.nat({ max: 2 }),
      seconds: fc.constantFrom(undefined, 0, 5, 60, 3600)
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      _tag: fc.constant("Fail" as const),
      which: fc.nat({ max: 2 }),
      error: fc.constantFrom(undefined, transient, refusal, slow(120))
    })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("Tick" as const),
      millis: fc.oneof(fc.integer({ min: 0, max: 3_000 }), fc.integer({ min: -20_000, max: 4_000_000 }))
    })
  }
)

describe("the state of a token", () => {
  it.prop("hands out no token that is expired, from the future, or the one that was just rejected", [
    fc.array(event, { minLength: 1, maxLength: 60, size: "max" })
  ], ([events]) => {
    const m = machine()
    const open = new Map<number, State.Flight<number>>()
    const rejected = new Set<string>()
    let last: AccessToken.AccessToken | undefined
    for (const event of events) {
      switch (event._tag) {
        case "Need":
        case "RejectHandout":
        case "RejectOld": {
          const token = event._tag === "Need" ? undefined : event._tag === "RejectOld" ? last : m.state.handout?.token
          const decision = m.ask(token)
          if (token !== undefined) rejected.add(Redacted.value(token.value))
          if (decision._tag === "Use" || decision._tag === "Renew") {
            const { held } = decision
            assert.isTrue(held.from <= m.now && m.now < held.until, "it is not expired, and not from the future")
            if (token !== undefined) assert.isFalse(AccessToken.isSame(held.token, token))
            last = held.token
          }
          if (decision._tag === "Start" || decision._tag === "Renew") {
            assert.strictEqual(m.state.flight?.handle, decision.flight.handle)
            open.set(decision.flight.handle, decision.flight)
          }
          if (decision._tag === "Join") {
            assert.isBelow(m.now, decision.until, "nobody waits without end")
            assert.isTrue(open.has(decision.flight.handle), "nobody waits for a flight that has ended")
          }
          break
        }
        case "Arrive":
        case "Fail": {
          const flight = [...open.values()].at(-1 - event.which)
          if (flight === undefined) break
          open.delete(flight.handle)
          if (event._tag === "Fail") {
            m.tell({ _tag: "Failed", flight, error: Option.fromNullable(event.error) })
          } else {
            const held = State.hold(m.token(event.seconds), windows, 1, m.now)
            const isKept = m.tell({ _tag: "Arrived", flight, held })
            if (isKept) assert.strictEqual(m.state.held, held)
          }
          break
        }
        case "Forget":
          m.tell({ _tag: "Forgotten", generation: -1 })
          assert.isUndefined(m.state.held)
          break
        case "Tick":
          m.tick(event.millis)
      }
    }
  }, runs(1_000))

  it("many callers start one flight", () => {
    const m = machine()
    assert.strictEqual(m.ask()._tag, "Start")
    for (let n = 0; n < 100; n++) assert.strictEqual(m.ask()._tag, "Join")
  })

  it("past the deadline of a flight a caller starts a new one, and a late arrival replaces no newer token", () => {
    const m = machine()
    const first = m.ask()
    m.tick(60_000)
    const second = m.ask()
    assert.strictEqual(second._tag, "Start")
    if (first._tag !== "Start" || second._tag !== "Start") return
    const [late, newer] = [m.token(), m.token()]
    assert.isTrue(m.tell({ _tag: "Arrived", flight: second.flight, held: State.hold(newer, windows, 1, m.now) }))
    assert.isFalse(m.tell({ _tag: "Arrived", flight: first.flight, held: State.hold(late, windows, 1, m.now) }))
    assert.strictEqual(used(m.ask()), "token-2")
  })

  it("a flight that is extended keeps its callers", () => {
    const m = machine()
    const first = m.ask()
    if (first._tag !== "Start") throw new Error(first._tag)
    m.tell({ _tag: "Extended", flight: first.flight, deadline: m.now + 300_000 })
    m.tick(299_999)
    assert.strictEqual(m.ask()._tag, "Join")
    m.tick(1)
    assert.strictEqual(m.ask()._tag, "Start")
  })

  it("what arrives after it was forgotten is not kept", () => {
    const m = machine()
    const first = m.ask()
    if (first._tag !== "Start") throw new Error(first._tag)
    m.tell({ _tag: "Forgotten", generation: -1 })
    assert.isFalse(m.tell({ _tag: "Arrived", flight: first.flight, held: State.hold(m.token(), windows, 1, m.now) }))
    assert.strictEqual(m.ask()._tag, "Start")
  })

  it("a renewed token that an API does not know yet is replaced by the one before, for 10 seconds", () => {
    const m = machine()
    const before = m.fetch()
    m.tick(3_500_000)
    const renewed = m.fetch()
    assert.strictEqual(used(m.ask()), "token-2")
    m.tick(2_000)
    assert.strictEqual(used(m.ask(renewed)), "token-1")
    assert.strictEqual(used(m.ask(renewed)), "token-1", "a hundred at once, too")
    assert.strictEqual(used(m.ask()), "token-1")
    m.tick(8_000)
    assert.strictEqual(used(m.ask()), "token-2")
    assert.isFalse(AccessToken.isSame(before, renewed))
  })

  it("if the token before is rejected too, both are, and a new one is fetched", () => {
    const m = machine()
    const before = m.fetch()
    m.tick(3_500_000)
    const renewed = m.fetch()
    assert.strictEqual(used(m.ask(renewed)), "token-1")
    assert.strictEqual(m.ask(before)._tag, "Start")
  })

  it("a first token has no token before it", () => {
    const m = machine()
    const first = m.fetch()
    assert.strictEqual(m.ask(first)._tag, "Start")
  })

  it("during an outage a rejected token stays in use, and its next rejections get the error that is remembered", () => {
    const m = machine()
    const token = m.fetch()
    const refresh = m.ask(token)
    if (refresh._tag !== "Start") throw new Error(refresh._tag)
    assert.strictEqual(m.ask()._tag, "Join")
    m.tick(1_000)
    assert.strictEqual(used(m.ask()), "token-1", "others do not wait for longer than a second")
    m.tell({ _tag: "Failed", flight: refresh.flight, error: Option.some(slow(60)) })
    assert.strictEqual(used(m.ask()), "token-1")
    assert.strictEqual(m.ask(token)._tag, "Fail")
    m.tick(60_000)
    assert.strictEqual(m.ask(token)._tag, "Start")
  })

  it("after a permanent refusal a rejected token is not used again", () => {
    const m = machine()
    const token = m.fetch()
    const refresh = m.ask(token)
    if (refresh._tag !== "Start") throw new Error(refresh._tag)
    m.tell({ _tag: "Failed", flight: refresh.flight, error: Option.some(refusal) })
    assert.strictEqual(m.ask()._tag, "Fail")
  })

  it("permanent refusals are remembered for 1, 2, 4, 8, 16 and 30 seconds", () => {
    const m = machine()
    const pauses = Array.from({ length: 7 }, () => {
      const decision = m.ask()
      if (decision._tag !== "Start") throw new Error(decision._tag)
      m.tell({ _tag: "Failed", flight: decision.flight, error: Option.some(refusal) })
      let millis = 0
      while (m.ask()._tag === "Fail") {
        m.tick(500)
        millis += 500
      }
      m.tell({ _tag: "Failed", flight: m.state.flight!, error: Option.none() })
      return millis
    })
    assert.deepStrictEqual(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
  })

  it("after a transient failure no fetch starts within a second of the start of the failed one", () => {
    const m = machine()
    const decision = m.ask()
    if (decision._tag !== "Start") throw new Error(decision._tag)
    m.tick(400)
    m.tell({ _tag: "Failed", flight: decision.flight, error: Option.some(transient) })
    m.tick(599)
    assert.strictEqual(m.ask()._tag, "Fail")
    m.tick(1)
    assert.strictEqual(m.ask()._tag, "Start")
  })

  it("a Retry-After is obeyed, for 5 minutes at most", () => {
    const m = machine()
    const decision = m.ask()
    if (decision._tag !== "Start") throw new Error(decision._tag)
    m.tell({ _tag: "Failed", flight: decision.flight, error: Option.some(slow(100_000)) })
    m.tick(299_999)
    assert.strictEqual(m.ask()._tag, "Fail")
    m.tick(1)
    assert.strictEqual(m.ask()._tag, "Start")
  })

  it("after the end of the layer a good token serves on, and nothing is fetched", () => {
    const m = machine()
    m.fetch(60)
    m.tell({ _tag: "Closed" })
    assert.strictEqual(used(m.ask()), "token-1")
    m.tick(60_000)
    const decision = m.ask()
    assert.isTrue(decision._tag === "Fail" && decision.error._tag === "LayerClosed")
  })

  it("a clock that was set back ends the use of a token from the future", () => {
    const m = machine()
    m.fetch()
    m.tick(-1)
    assert.strictEqual(m.ask()._tag, "Start")
  })

  it("a token that another clock dates ahead counts as issued now; one that is too far ahead is not used", () => {
    const now = 1_000_000
    for (const ahead of [0, 1, 200, 15 * 60_000]) {
      const held = State.hold(make("theirs", 1, now + ahead, 3600), windows, 1, now)
      assert.isTrue(State.isUsable(held, now))
      assert.strictEqual(held.from, now)
      assert.strictEqual(held.end, now + 3_600_000)
    }
    const far = State.hold(make("theirs", 1, now + 15 * 60_000 + 1, 3600), windows, 1, now)
    assert.isFalse(State.isUsable(far, now))
  })

  it("generations order the tokens of a storage, whatever their times say", () => {
    const m = machine()
    m.fetch()
    const stored = State.hold(make("theirs", 2, m.now - 10_000, 3600), windows, 1, m.now)
    assert.isTrue(State.isReplacement(m.state, stored, m.now))
    assert.isFalse(State.isReplacement(m.state, State.hold(make("old", 0, m.now, 3600), windows, 1, m.now), m.now))
    m.tell({ _tag: "Forgotten", generation: 2 })
    assert.isFalse(State.isReplacement(m.state, stored, m.now))
    assert.strictEqual(State.nextGeneration(m.state, Option.none()), 3)
  })
})
