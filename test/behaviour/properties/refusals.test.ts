/** What one origin does with new tokens. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, FastCheck as fc, Redacted } from "effect"
import { AccessToken } from "effect-alf"
import * as Refusals from "../../../src/internal/http/rejections.ts"
import { runs } from "./runs.ts"

const makeToken = (name: string, issuedAt = 0) =>
  new AccessToken.AccessToken({ value: Redacted.make(name), issuedAt: DateTime.unsafeMake(issuedAt) })

/** What happens at an origin, as the middleware tells it. */
type Step =
  /** A request to a path that refuses every token, with a body that is replayed or not. */
  | { readonly _tag: "Refusing"; readonly isReplayable: boolean }
  /** A request to a path that accepts every token. */
  | { readonly _tag: "Accepting" }
  | { readonly _tag: "Tick"; readonly millis: number }

const refusing = fc.record({ _tag: fc.constant("Refusing" as const), isReplayable: fc.boolean() })
const replayed = fc.constant<Step>({ _tag: "Refusing", isReplayable: true })
const accepting = fc.constant<Step>({ _tag: "Accepting" })
const tick = fc.oneof(fc.integer({ min: 0, max: 700 }), fc.integer({ min: 0, max: 40_000 })).map((millis): Step => ({
  _tag: "Tick",
  millis
}))

interface Moment {
  readonly now: number
  readonly refusal: Refusals.Refusal | undefined
  /** When a new token was fetched, so far. */
  readonly fetches: ReadonlyArray<number>
  /** The newest token. */
  readonly token: AccessToken.AccessToken
}

/** Does what the middleware does; each request is answered at once. */
const live = (steps: ReadonlyArray<Step>): ReadonlyArray<Moment> => {
  let refusal: Refusals.Refusal | undefined
  let now = 1_000_000_000
  let token = makeToken("token 0", now)
  let fetches: ReadonlyArray<number> = []
  const moments: Array<Moment> = []
  for (const step of steps) {
    switch (step._tag) {
      case "Refusing":
        if (Refusals.isPaused(refusal, now)) break
        if (Refusals.isUntried(refusal, token)) {
          refusal = Refusals.refused(refusal, token, now)
          break
        }
        if (!step.isReplayable && Refusals.isFresh(refusal, now)) break
        fetches = [...fetches, now]
        token = makeToken(`token ${fetches.length}`, now)
        refusal = step.isReplayable ? Refusals.refused(refusal, token, now) : Refusals.fetched(refusal, token, now)
        break
      case "Accepting":
        refusal = Refusals.accepted(refusal, now)
        break
      case "Tick":
        now += step.millis
    }
    moments.push({ now, refusal, fetches, token })
  }
  return moments
}

describe("refusals", () => {
  it.prop("an origin that refuses everything: 1, 2, 4, 8, 16 and then 30 s between two fetches", [
    fc.array(fc.oneof({ weight: 3, arbitrary: replayed }, tick), { minLength: 1, maxLength: 80 })
  ], ([steps]) => {
    const { fetches } = live(steps).at(-1)!
    for (const [n, at] of fetches.slice(1).entries()) {
      assert.isAtLeast(at - fetches[n]!, Math.min(1_000 * 2 ** n, 30_000))
    }
  }, runs(300))

  for (const [bodies, request] of [["that are replayed", replayed], ["that are not", refusing]] as const) {
    it.prop(`whatever an origin refuses or accepts, bodies ${bodies}: at most two fetches within a second`, [
      fc.array(fc.oneof({ weight: 3, arbitrary: request }, { weight: 3, arbitrary: accepting }, tick), {
        minLength: 1,
        maxLength: 80
      })
    ], ([steps]) => {
      const { fetches } = live(steps).at(-1)!
      for (const [n, at] of fetches.slice(2).entries()) assert.isAtLeast(at - fetches[n]!, 1_000)
    }, runs(300))
  }

  it("a token that was fetched without a replay is untried until it is accepted or refused", () => {
    const token = makeToken("a")
    const refusal = Refusals.fetched(undefined, token, 0)
    assert.isTrue(Refusals.isUntried(refusal, token))
    assert.isFalse(Refusals.isUntried(refusal, makeToken("another")))
    assert.isFalse(Refusals.isPaused(refusal, 0))
    assert.isFalse(Refusals.isUntried(Refusals.accepted(refusal, 0), token))
    assert.isFalse(Refusals.isUntried(Refusals.refused(refusal, token, 0), token))
  })

  it.prop("no pause is longer than 30 s, and a clock that was set back ends it", [
    fc.array(fc.oneof({ weight: 3, arbitrary: refusing }, accepting, tick), { minLength: 1, maxLength: 60 }),
    fc.integer({ min: 1, max: 10_000_000 })
  ], ([steps, back]) => {
    const { now, refusal } = live(steps).at(-1)!
    assert.isFalse(Refusals.isPaused(refusal, now + 30_000))
    const then = (refusal?.from ?? now) - back
    assert.isFalse(Refusals.isPaused(refusal, then))
    assert.isTrue(Refusals.isPaused(Refusals.refused(refusal, makeToken("next", then), then), then))
  }, runs(300))

  it("the pauses are 1, 2, 4, 8, 16 and 30 s", () => {
    let refusal: Refusals.Refusal | undefined
    let now = 0
    const pauses = Array.from({ length: 8 }, (_, n) => {
      refusal = Refusals.refused(refusal, makeToken(`token ${n}`, now), now)
      const from = now
      while (Refusals.isPaused(refusal, now)) now += 500
      return now - from
    })
    assert.deepStrictEqual(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000])
  })

  it("an accepted token ends the pause, and the next one is short again", () => {
    let refusal: Refusals.Refusal | undefined
    for (const at of [0, 1_000, 3_000]) refusal = Refusals.refused(refusal, makeToken(`token ${at}`, at), at)
    assert.isTrue(Refusals.isPaused(refusal, 6_999))
    refusal = Refusals.accepted(refusal, 4_000)
    assert.isFalse(Refusals.isPaused(refusal, 4_000))
    refusal = Refusals.refused(refusal, makeToken("the next", 40_000), 40_000)
    assert.isTrue(Refusals.isPaused(refusal, 40_999))
    assert.isFalse(Refusals.isPaused(refusal, 41_000))
  })

  it("nothing is left of the doubts once tokens have been accepted for half a minute", () => {
    const refusal = Refusals.accepted(Refusals.refused(undefined, makeToken("a"), 0), 100)
    assert.isDefined(Refusals.accepted(refusal, 30_000))
    assert.isUndefined(Refusals.accepted(refusal, 30_100))
  })

  it("a thousand requests that carried one refused token count as one", () => {
    const token = makeToken("a")
    let refusal = Refusals.refused(undefined, token, 0)
    for (let n = 0; n < 1_000; n++) refusal = Refusals.refused(refusal, token, n)
    assert.isTrue(Refusals.isPaused(refusal, 999))
    assert.isFalse(Refusals.isPaused(refusal, 1_000))
  })

  it("a late refusal of an older token does not lengthen the pause", () => {
    const [first, second] = [makeToken("first", 0), makeToken("second", 2_000)]
    let refusal = Refusals.refused(undefined, first, 0)
    refusal = Refusals.refused(refusal, second, 2_000)
    refusal = Refusals.refused(refusal, first, 2_500)
    assert.isTrue(Refusals.isPaused(refusal, 3_999))
    assert.isFalse(Refusals.isPaused(refusal, 4_000))
  })

  it("a late refusal of an older token says nothing of one that has not been tried yet", () => {
    const [first, second] = [makeToken("first", 0), makeToken("second", 2_000)]
    let refusal = Refusals.refused(undefined, first, 0)
    refusal = Refusals.fetched(refusal, second, 2_000)
    refusal = Refusals.refused(refusal, first, 2_500)
    assert.isTrue(Refusals.isUntried(refusal, second))
    assert.isFalse(Refusals.isPaused(refusal, 2_500))
  })

  it("the pause goes on doubling where each token was fetched for the next request, until one is accepted", () => {
    const pauseAfter = (before: Refusals.Refusal | undefined, name: string, now: number) => {
      const token = makeToken(name, now)
      const refusal = Refusals.refused(Refusals.fetched(before, token, now), token, now)
      return { refusal, pause: refusal.pause }
    }
    const first = pauseAfter(undefined, "a", 0)
    const second = pauseAfter(first.refusal, "b", 1_000)
    assert.deepStrictEqual([first.pause, second.pause], [1_000, 2_000])
    const third = pauseAfter(Refusals.accepted(second.refusal, 3_000), "c", 3_001)
    assert.strictEqual(third.pause, 1_000)
  })

  it("an origin that refuses a new token long after it accepted one is not mixed", () => {
    const first = Refusals.refused(undefined, makeToken("a"), 0)
    const accepted = Refusals.accepted(first, 1_000)
    const soon = Refusals.refused(accepted, makeToken("b", 30_999), 30_999)
    assert.isTrue(soon.isMixed)
    const later = Refusals.refused(accepted, makeToken("b", 31_000), 31_000)
    assert.isFalse(later.isMixed)
    assert.isFalse(Refusals.refused(first, makeToken("b", 2_000), 2_000).isMixed)
  })

  it("nothing is paused or untried before the first doubt", () => {
    assert.isFalse(Refusals.isPaused(undefined, 0))
    assert.isFalse(Refusals.isUntried(undefined, makeToken("a")))
    assert.isUndefined(Refusals.accepted(undefined, 0))
  })
})
