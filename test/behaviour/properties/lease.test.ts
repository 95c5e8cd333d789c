/** The exclusive section over a lease: processes that come, work, leave and die, over a store with delays and faults. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, FastCheck as fc, Logger, Option } from "effect"
import type { TokenStorage } from "effect-alf"
import { makeLeased } from "../../../src/internal/storage/lease.ts"
import { runVirtually } from "../../support/virtualTime.ts"
import { once, runs } from "./runs.ts"

const term = 3_000

interface Caller {
  /** Which process it belongs to: each has its own queue. */
  readonly process: number
  readonly startsAt: number
  readonly works: number
  /** When it is interrupted, counted from its start. */
  readonly leavesAfter: number | null
}

/**
 * What happens to an operation of the store:
 *
 * - `fails`: before it is done
 * - `lost`: done, but the answer does not come back
 * - `hangs`: done after 5 seconds
 */
type Fault = "fails" | "lost" | "hangs" | null

interface Weather {
  readonly delays: ReadonlyArray<number>
  readonly faults: ReadonlyArray<Fault>
}

const callers = fc.array(
  fc.record({
    process: fc.nat({ max: 3 }),
    startsAt: fc.nat({ max: 2_000 }),
    works: fc.oneof(fc.constantFrom(0, 1), fc.nat({ max: 400 }), fc.nat({ max: 3 * term })),
    leavesAfter: fc.oneof({ weight: 2, arbitrary: fc.constant(null) }, fc.nat({ max: 4_000 }))
  }),
  { minLength: 1, maxLength: 8 }
)

const delays = fc.array(fc.oneof(fc.constant(0), fc.nat({ max: 200 })), { minLength: 1, maxLength: 9 })

const faults: fc.Arbitrary<ReadonlyArray<Fault>> = fc.array(
  fc.oneof({ weight: 3, arbitrary: fc.constant<Fault>(null) }, fc.constantFrom<Fault>("fails", "lost", "hangs")),
  { minLength: 1, maxLength: 9 }
)

/** A store in memory that keeps leases by the clock, and serves requests in the order in which each process sends them. */
const makeStore = (weather: Weather) => {
  const leases = new Map<string, { readonly owner: string; readonly until: number }>()
  let count = 0
  const operation = <A>(step: (now: number) => A): Effect.Effect<A, string> =>
    Effect.suspend(() => {
      const delay = weather.delays[count % weather.delays.length] ?? 0
      const fault = weather.faults[count % weather.faults.length] ?? null
      count++
      const done = Effect.map(Clock.currentTimeMillis, step)
      switch (fault) {
        case null:
          return done.pipe(Effect.delay(delay / 2), Effect.delay(delay / 2))
        case "fails":
          return Effect.delay(Effect.fail("it failed"), delay)
        case "lost":
          return Effect.zipRight(done, Effect.delay(Effect.fail("the answer was lost"), delay))
        case "hangs":
          return Effect.delay(done, 5_000)
      }
    })
  const held = (key: string, now: number) => {
    const lease = leases.get(key)
    return lease !== undefined && now < lease.until ? lease : undefined
  }
  const lease: TokenStorage.Lease = {
    term,
    take: (key, owner, term) =>
      operation((now) => {
        if (held(key, now) !== undefined) return false
        leases.set(key, { owner, until: now + Duration.toMillis(term) })
        return true
      }),
    renew: (key, owner, term) =>
      operation((now) => {
        if (held(key, now)?.owner !== owner) return false
        leases.set(key, { owner, until: now + Duration.toMillis(term) })
        return true
      }),
    release: (key, owner) =>
      operation((now) => {
        if (held(key, now)?.owner === owner) leases.delete(key)
      })
  }
  return { lease, leases }
}

/** Lets the callers come and go, and says what happened. */
const play = (callers: ReadonlyArray<Caller>, store: ReturnType<typeof makeStore>) =>
  Effect.gen(function*() {
    const sections = [0, 1, 2, 3].map(() => makeLeased(store.lease))
    let inside = 0
    let most = 0
    const entries: Array<number> = []
    const run = (caller: Caller) =>
      Effect.gen(function*() {
        const work = Effect.acquireUseRelease(
          Effect.map(Clock.currentTimeMillis, (now) => {
            entries.push(now)
            most = Math.max(most, ++inside)
          }),
          () => Effect.sleep(caller.works),
          () => Effect.sync(() => inside--)
        )
        const start = yield* Clock.currentTimeMillis
        const section = sections[caller.process]?.("key")(work) ?? Effect.void
        const entered = caller.leavesAfter === null
          ? Effect.asSome(section)
          : Effect.timeoutOption(section, caller.leavesAfter)
        const isDone = Option.isSome(yield* entered)
        return { isDone, took: (yield* Clock.currentTimeMillis) - start }
      }).pipe(Effect.delay(caller.startsAt))
    const outcomes = yield* Effect.forEach(callers, run, { concurrency: "unbounded" })
    // what was sent and not waited for
    yield* Effect.sleep("30 seconds")
    return { most, entries, outcomes }
  }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)), runVirtually)

describe("the exclusive section over a lease", () => {
  const calm: Weather["faults"] = [null]

  it.effect.prop(
    "has one holder at a time, each comes in, and leaves nothing behind",
    [callers, delays],
    ([callers, delays]) =>
      once(() => {
        const store = makeStore({ delays, faults: calm })
        const { most, outcomes } = play(callers, store)
        assert.isAtMost(most, 1)
        for (const [index, { isDone }] of outcomes.entries()) {
          if (callers[index]?.leavesAfter === null) assert.isTrue(isDone)
        }
        assert.strictEqual(store.leases.size, 0)
      }),
    runs(100)
  )

  it.effect.prop(
    "lets everybody through a store with faults, within the others' work and a term for each",
    [callers, delays, faults],
    ([callers, delays, faults]) =>
      once(() => {
        const { outcomes } = play(callers, makeStore({ delays, faults }))
        const work = callers.reduce((sum, { works }) => sum + works, 0)
        for (const [index, { isDone, took }] of outcomes.entries()) {
          const leavesAfter = callers[index]?.leavesAfter ?? null
          assert.isTrue(isDone || leavesAfter !== null)
          // who leaves gives the lease back first, and waits for one renewal that is under way
          assert.isAtMost(took, leavesAfter === null ? work + callers.length * (term + 4_000) : leavesAfter + 2_001)
        }
      }),
    runs(100)
  )

  it.effect.prop(
    "is entered when the term of a dead holder is over, not before",
    [callers, delays, fc.nat({ max: term })],
    ([callers, delays, left]) =>
      once(() => {
        const store = makeStore({ delays, faults: calm })
        store.leases.set("key", { owner: "dead", until: left })
        const { entries, most } = play(callers, store)
        assert.isAtMost(most, 1)
        for (const entry of entries) assert.isAtLeast(entry, left)
      }),
    runs(100)
  )
})
