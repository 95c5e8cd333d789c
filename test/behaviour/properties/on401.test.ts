/** What is done about a 401, over random lives of an origin. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, FastCheck as fc, Redacted } from "effect"
import { AccessToken } from "effect-alf"
import * as On401 from "../../../src/internal/http/on401.ts"
import { runs } from "./runs.ts"

const makeToken = (generation: number) =>
  new AccessToken.AccessToken({
    value: Redacted.make(`token-${generation}`),
    issuedAt: DateTime.unsafeMake(0),
    generation
  })

/** One request at an origin, with the token that it carried: how many generations older than the newest one. */
type Step =
  | {
    readonly _tag: "Rejected"
    readonly age: number
    readonly isReplayable: boolean
    readonly isReplayAccepted: boolean
  }
  | { readonly _tag: "Accepted" }
  | { readonly _tag: "Tick"; readonly millis: number }

const rejected = fc.record({
  _tag: fc.constant("Rejected" as const),
  age: fc.nat({ max: 2 }),
  isReplayable: fc.boolean(),
  isReplayAccepted: fc.boolean()
})
const steps = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: rejected },
    { weight: 2, arbitrary: fc.constant<Step>({ _tag: "Accepted" }) },
    {
      weight: 4,
      arbitrary: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 5_000 })).map((millis): Step => ({
        _tag: "Tick",
        millis
      }))
    }
  ),
  { minLength: 1, maxLength: 150, size: "max" }
)

/** Does what the middleware does, each request answered at once; when new tokens were fetched, and what was decided. */
const live = (steps: ReadonlyArray<Step>) => {
  let memory = On401.forgotten
  let now = 1_000_000
  let generation = 0
  const fetches: Array<number> = []
  const decisions: Array<{ readonly decision: On401.Decision; readonly step: Step; readonly isOlder: boolean }> = []
  for (const step of steps) {
    if (step._tag === "Tick") now += step.millis
    if (step._tag === "Accepted") memory = On401.onAccepted(memory, now)
    if (step._tag !== "Rejected") continue
    const carried = Math.max(0, generation - step.age)
    const [decision, next] = On401.on401(
      memory,
      { token: makeToken(carried), isReplayable: step.isReplayable },
      now
    )
    memory = next
    decisions.push({ decision, step, isOlder: carried < generation })
    if (decision === "PassThrough") continue
    if (carried === generation) {
      generation++
      fetches.push(now)
    }
    if (decision === "Renew") memory = On401.onFetched(memory, makeToken(generation), now)
    else if (step.isReplayAccepted) memory = On401.onAccepted(memory, now)
    else memory = On401.onRejectedReplay(memory, makeToken(generation), now)
  }
  return { decisions, fetches, now, memory }
}

describe("what is done about a 401", () => {
  it.prop(
    "whatever the pattern: at most ten token requests in a minute, and one more per 30 seconds",
    [steps],
    ([steps]) => {
      const { fetches } = live(steps)
      for (const [n, from] of fetches.entries()) {
        for (const [m, at] of fetches.entries()) {
          if (m <= n) continue
          assert.isAtMost(m - n + 1, 10 + Math.floor((at - from) / 30_000) + 1)
        }
      }
    },
    runs(500)
  )

  it.prop("a request that cannot be repeated is never repeated", [steps], ([steps]) => {
    for (const { decision, step } of live(steps).decisions) {
      if (step._tag === "Rejected" && !step.isReplayable) assert.notStrictEqual(decision, "Replay")
    }
  }, runs(300))

  it.prop("a clock that was set back pauses nothing, and gives the budget back", [steps, fc.integer({ min: 1 })], (
    [steps, back]
  ) => {
    const { memory, now } = live(steps)
    const token = makeToken(1_000_000)
    const then = Math.min(now, memory.rejection?.from ?? now, memory.budget.since) - back
    assert.notStrictEqual(On401.on401(memory, { token, isReplayable: true }, then)[0], "PassThrough")
  }, runs(300))

  it("a late 401 to an older token is replayed during the pause of the newer ones", () => {
    const [first, second, third] = [makeToken(1), makeToken(2), makeToken(3)]
    const memory = On401.onRejectedReplay(
      On401.on401(On401.forgotten, { token: first, isReplayable: true }, 0)[1],
      second,
      10
    )
    const decide = (token: AccessToken.AccessToken, isReplayable = true) =>
      On401.on401(memory, { token, isReplayable }, 500)[0]
    assert.strictEqual(decide(first), "Replay")
    assert.strictEqual(decide(first, false), "PassThrough")
    assert.strictEqual(decide(second), "PassThrough")
    assert.strictEqual(decide(third), "PassThrough")
  })

  it("a thousand requests that carried one token are paid for once", () => {
    const token = makeToken(1)
    let memory = On401.forgotten
    for (let n = 0; n < 1_000; n++) {
      const [decision, next] = On401.on401(memory, { token, isReplayable: true }, n)
      assert.strictEqual(decision, "Replay")
      memory = next
    }
    assert.strictEqual(memory.budget.left, 9)
  })

  it("an API that takes each token once costs about ten token requests in the first minute, then one per 30 seconds", () => {
    const busy = Array.from({ length: 5 * 60 * 10 }, (): ReadonlyArray<Step> => [
      { _tag: "Rejected", age: 0, isReplayable: true, isReplayAccepted: true },
      { _tag: "Accepted" },
      { _tag: "Tick", millis: 100 }
    ]).flat()
    const { fetches } = live(busy)
    const inMinute = (n: number) => fetches.filter((at) => Math.floor((at - 1_000_000) / 60_000) === n).length
    assert.isAtMost(inMinute(0), 12)
    for (const minute of [1, 2, 3, 4]) assert.strictEqual(inMinute(minute), 2)
  })
})
