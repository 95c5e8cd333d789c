/** What one origin does with new tokens. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, FastCheck as fc, Redacted } from "effect"
import { AccessToken } from "effect-alf"
import * as Rejections from "../../../src/internal/http/rejections.ts"
import { runs } from "./runs.ts"

const makeToken = (name: string, issuedAt = 0) =>
  new AccessToken.AccessToken({
    value: Redacted.make(name),
    issuedAt: DateTime.unsafeMake(issuedAt),
    generation: issuedAt
  })

/** What happens at an origin, as the middleware tells it. */
type Step =
  /** A request to a path that rejects every token, with a body that is replayed or not. */
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
  readonly rejection: Rejections.Rejection | undefined
  /** When a new token was fetched, so far. */
  readonly fetches: ReadonlyArray<number>
  /** The newest token. */
  readonly token: AccessToken.AccessToken
}

/** Does what the middleware does; each request is answered at once. */
const live = (steps: ReadonlyArray<Step>): ReadonlyArray<Moment> => {
  let rejection: Rejections.Rejection | undefined
  let now = 1_000_000_000
  let token = makeToken("token 0", now)
  let fetches: ReadonlyArray<number> = []
  const moments: Array<Moment> = []
  for (const step of steps) {
    switch (step._tag) {
      case "Refusing":
        if (Rejections.isPaused(rejection, now)) break
        if (Rejections.isUntried(rejection, token)) {
          rejection = Rejections.rejected(rejection, token, now)
          break
        }
        if (!step.isReplayable && Rejections.isFresh(rejection, now)) break
        fetches = [...fetches, now]
        token = makeToken(`token ${fetches.length}`, now)
        rejection = step.isReplayable
          ? Rejections.rejected(rejection, token, now)
          : Rejections.fetched(rejection, token, now)
        break
      case "Accepting":
        rejection = Rejections.accepted(rejection, now)
        break
      case "Tick":
        now += step.millis
    }
    moments.push({ now, rejection, fetches, token })
  }
  return moments
}

describe("rejections", () => {
  it.prop("an origin that rejects everything: 1, 2, 4, 8, 16 and then 30 s between two fetches", [
    fc.array(fc.oneof({ weight: 3, arbitrary: replayed }, tick), { minLength: 1, maxLength: 80, size: "max" })
  ], ([steps]) => {
    const { fetches } = live(steps).at(-1)!
    for (const [n, at] of fetches.slice(1).entries()) {
      assert.isAtLeast(at - fetches[n]!, Math.min(1_000 * 2 ** n, 30_000))
    }
  }, runs(300))

  for (const [bodies, request] of [["that are replayed", replayed], ["that are not", refusing]] as const) {
    it.prop(`whatever an origin rejects or accepts, bodies ${bodies}: at most two fetches within a second`, [
      fc.array(fc.oneof({ weight: 3, arbitrary: request }, { weight: 3, arbitrary: accepting }, tick), {
        minLength: 1,
        maxLength: 80,
        size: "max"
      })
    ], ([steps]) => {
      const { fetches } = live(steps).at(-1)!
      for (const [n, at] of fetches.slice(2).entries()) assert.isAtLeast(at - fetches[n]!, 1_000)
    }, runs(300))
  }

  it("a token that was fetched without a replay is untried until it is accepted or rejected", () => {
    const token = makeToken("a")
    const rejection = Rejections.fetched(undefined, token, 0)
    assert.isTrue(Rejections.isUntried(rejection, token))
    assert.isFalse(Rejections.isUntried(rejection, makeToken("another")))
    assert.isFalse(Rejections.isPaused(rejection, 0))
    assert.isFalse(Rejections.isUntried(Rejections.accepted(rejection, 0), token))
    assert.isFalse(Rejections.isUntried(Rejections.rejected(rejection, token, 0), token))
  })

  it.prop("no pause is longer than 30 s, and a clock that was set back ends it", [
    fc.array(fc.oneof({ weight: 3, arbitrary: refusing }, accepting, tick), {
      minLength: 1,
      maxLength: 60,
      size: "max"
    }),
    fc.integer({ min: 1, max: 10_000_000 })
  ], ([steps, back]) => {
    const { now, rejection } = live(steps).at(-1)!
    assert.isFalse(Rejections.isPaused(rejection, now + 30_000))
    const then = Math.max(0, (rejection?.from ?? now) - back)
    assert.isFalse(Rejections.isPaused(rejection, then))
    assert.isTrue(Rejections.isPaused(Rejections.rejected(rejection, makeToken("next", then), then), then))
  }, runs(300))

  it("the pauses are 1, 2, 4, 8, 16 and 30 s", () => {
    let rejection: Rejections.Rejection | undefined
    let now = 0
    const pauses = Array.from({ length: 8 }, (_, n) => {
      rejection = Rejections.rejected(rejection, makeToken(`token ${n}`, now), now)
      const from = now
      while (Rejections.isPaused(rejection, now)) now += 500
      return now - from
    })
    assert.deepStrictEqual(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000])
  })

  it("an accepted token ends the pause, and the next one is short again", () => {
    let rejection: Rejections.Rejection | undefined
    for (const at of [0, 1_000, 3_000]) rejection = Rejections.rejected(rejection, makeToken(`token ${at}`, at), at)
    assert.isTrue(Rejections.isPaused(rejection, 6_999))
    rejection = Rejections.accepted(rejection, 4_000)
    assert.isFalse(Rejections.isPaused(rejection, 4_000))
    rejection = Rejections.rejected(rejection, makeToken("the next", 40_000), 40_000)
    assert.isTrue(Rejections.isPaused(rejection, 40_999))
    assert.isFalse(Rejections.isPaused(rejection, 41_000))
  })

  it("nothing is left of the doubts once tokens have been accepted for half a minute", () => {
    const rejection = Rejections.accepted(Rejections.rejected(undefined, makeToken("a"), 0), 100)
    assert.isDefined(Rejections.accepted(rejection, 30_000))
    assert.isUndefined(Rejections.accepted(rejection, 30_100))
  })

  it("a thousand requests that carried one rejected token count as one", () => {
    const token = makeToken("a")
    let rejection = Rejections.rejected(undefined, token, 0)
    for (let n = 0; n < 1_000; n++) rejection = Rejections.rejected(rejection, token, n)
    assert.isTrue(Rejections.isPaused(rejection, 999))
    assert.isFalse(Rejections.isPaused(rejection, 1_000))
  })

  it("a late rejection of an older token does not lengthen the pause", () => {
    const [first, second] = [makeToken("first", 0), makeToken("second", 2_000)]
    let rejection = Rejections.rejected(undefined, first, 0)
    rejection = Rejections.rejected(rejection, second, 2_000)
    rejection = Rejections.rejected(rejection, first, 2_500)
    assert.isTrue(Rejections.isPaused(rejection, 3_999))
    assert.isFalse(Rejections.isPaused(rejection, 4_000))
  })

  it("a late rejection of an older token says nothing of one that has not been tried yet", () => {
    const [first, second] = [makeToken("first", 0), makeToken("second", 2_000)]
    let rejection = Rejections.rejected(undefined, first, 0)
    rejection = Rejections.fetched(rejection, second, 2_000)
    rejection = Rejections.rejected(rejection, first, 2_500)
    assert.isTrue(Rejections.isUntried(rejection, second))
    assert.isFalse(Rejections.isPaused(rejection, 2_500))
  })

  it("the pause goes on doubling where each token was fetched for the next request, until one is accepted", () => {
    const pauseAfter = (before: Rejections.Rejection | undefined, name: string, now: number) => {
      const token = makeToken(name, now)
      const rejection = Rejections.rejected(Rejections.fetched(before, token, now), token, now)
      return { rejection, pause: rejection.pause }
    }
    const first = pauseAfter(undefined, "a", 0)
    const second = pauseAfter(first.rejection, "b", 1_000)
    assert.deepStrictEqual([first.pause, second.pause], [1_000, 2_000])
    const third = pauseAfter(Rejections.accepted(second.rejection, 3_000), "c", 3_001)
    assert.strictEqual(third.pause, 1_000)
  })

  it("an origin that rejects a new token long after it accepted one is not mixed", () => {
    const first = Rejections.rejected(undefined, makeToken("a"), 0)
    const accepted = Rejections.accepted(first, 1_000)
    const soon = Rejections.rejected(accepted, makeToken("b", 30_999), 30_999)
    assert.isTrue(soon.isMixed)
    const later = Rejections.rejected(accepted, makeToken("b", 31_000), 31_000)
    assert.isFalse(later.isMixed)
    assert.isFalse(Rejections.rejected(first, makeToken("b", 2_000), 2_000).isMixed)
  })

  it("nothing is paused or untried before the first doubt", () => {
    assert.isFalse(Rejections.isPaused(undefined, 0))
    assert.isFalse(Rejections.isUntried(undefined, makeToken("a")))
    assert.isUndefined(Rejections.accepted(undefined, 0))
  })
})
