/** Random lives of a pool, seen from outside. */
import { HttpClientError } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Exit, FastCheck as fc } from "effect"
import { AuthorizedHttpClient, TokenError } from "effect-alf"
import {
  idleTimeToLive,
  live,
  NoTenant,
  type Observer,
  outcome,
  type Pipeline,
  type Step,
  step,
  type Tenant,
  tenants,
  type Use
} from "./poolLife.ts"
import { once, runs } from "./runs.ts"

const steps = fc.array(step, { minLength: 1, maxLength: 80, size: "max" })
const capacity = fc.integer({ min: 1, max: 4 })

/** Whether a use ended as it may: with an answer, an error of its type, the defect of its lookup, or interrupted by its user. */
const isFair = (exit: Exit.Exit<unknown, unknown> | undefined): boolean => {
  if (exit === undefined) return false
  if (Exit.isSuccess(exit) || outcome(exit) === "left") return true
  const error = Cause.squash(exit.cause)
  return TokenError.isTokenError(error) || error instanceof NoTenant || HttpClientError.isHttpClientError(error) ||
    error instanceof AuthorizedHttpClient.Unauthorized || String(error).includes("a bug of the lookup")
}

const isClosed = ({ exit }: Use): boolean => {
  if (exit === undefined || Exit.isSuccess(exit)) return false
  const error = Cause.squash(exit.cause)
  return error instanceof TokenError.LayerClosed ||
    (HttpClientError.isHttpClientError(error) && error.cause instanceof TokenError.LayerClosed)
}

/** A key that the pool holds, as a user may know it. */
interface Held {
  readonly tenant: Tenant
  users: number
  idleSince: number
  /** Whether the pool, being over its capacity, may have released it already. */
  isUnsure: boolean
  /** Its run of `lookup`. */
  pipeline: Pipeline | undefined
}

/**
 * What the pool promises, in the plainest way: which uses run `lookup`, and which pipelines it holds. It looks on,
 * and asserts after each step, when no fiber can go on.
 */
const promises = (capacity: number) => {
  /** Idle ones stand in the order in which their last use ended. */
  let held: ReadonlyArray<Held> = []
  const usedBy = new Map<Use, Held>()
  const isForgotten = new Set<Held>()
  /** How often `lookup` has to run in this step, and how often it may run beyond that. */
  let due = 0
  let spare = 0
  let started: ReadonlyArray<Pipeline> = []
  let isGrown = false
  let mayBeGrown = false
  let warnings = 0
  const open = new Set<Pipeline>()
  /** The key that is new in this step, and what it makes the pool release. */
  let fresh: { readonly key: Held; readonly surplus: ReadonlyArray<Held>; readonly isTooMany: boolean } | undefined

  const idle = () => held.filter(({ users }) => users === 0)
  const drop = (gone: Held) => {
    held = held.filter((each) => each !== gone)
    isForgotten.add(gone)
  }
  const surplusOf = () => idle().slice(0, Math.max(0, held.length - capacity))

  const keyOf = (tenant: Tenant): Held => {
    const found = held.find((each) => each.tenant === tenant)
    if (found === undefined) {
      const key: Held = { tenant, users: 1, idleSince: 0, isUnsure: false, pipeline: undefined }
      held = [...held, key]
      due++
      const surplus = surplusOf()
      fresh = { key, surplus, isTooMany: held.length - surplus.length > capacity }
      return key
    }
    if (!found.isUnsure) {
      found.users++
      return found
    }
    // it may be another pipeline from now on
    const key = { ...found, users: 1, isUnsure: false }
    held = held.map((each) => each === found ? key : each)
    spare++
    return key
  }

  const observer: Observer = {
    entered: (use, now) => {
      for (const each of idle()) if (now - each.idleSince >= idleTimeToLive) drop(each)
      usedBy.set(use, keyOf(use.tenant))
      mayBeGrown ||= held.length > capacity
      for (const each of surplusOf()) each.isUnsure = true
    },
    left: (use, now) => {
      const found = usedBy.get(use)
      if (found === undefined || --found.users > 0 || !held.includes(found)) return
      found.idleSince = now
      held = [...held.filter((each) => each !== found), found]
      for (const each of surplusOf()) each.isUnsure = true
    },
    forgot: (tenant) => held.filter((each) => each.tenant === tenant).forEach(drop),
    lookedUp: (pipeline) => {
      started = [...started, pipeline]
      open.add(pipeline)
      const found = held.find(({ tenant }) => tenant === pipeline.tenant)
      if (found !== undefined) found.pipeline = pipeline
    },
    lookupFailed: (pipeline) => held.filter((each) => each.pipeline === pipeline).forEach(drop),
    released: (pipeline) => {
      open.delete(pipeline)
    },
    warned: () => warnings++,
    settled: (step) => {
      assert.isAtLeast(started.length, due, "a new key is looked up")
      assert.isAtMost(started.length, due + spare, "once for all who wait")
      const user = step._tag === "Use" ? step.tenant : undefined
      assert.isTrue(started.every(({ tenant }) => tenant === user))
      // a lookup that fails at once makes no room
      if (fresh !== undefined && held.includes(fresh.key)) {
        fresh.surplus.forEach(drop)
        isGrown ||= fresh.isTooMany
      }
      assert.isAtLeast(warnings, isGrown ? 1 : 0, "a pool that grows warns")
      assert.isAtMost(warnings, mayBeGrown ? 1 : 0, "once")
      if (step._tag === "Use") {
        const alive = [...held, ...[...isForgotten].filter(({ users }) => users > 0)].map(({ pipeline }) => pipeline)
        assert.isTrue([...open].every((each) => alive.includes(each)), "what a user cannot reach any more is released")
      }
      due = 0
      spare = 0
      started = []
      fresh = undefined
    }
  }
  return { observer, usedBy }
}

/** Within which time a pipeline makes no token request after one that failed; it doubles with each refusal. */
const cooldown = (is: string, refusals: number): number =>
  is === "refusing" ? Math.min(1_000 * 2 ** refusals, 30_000) : is === "well" || is === "slow" ? 0 : 1_000

const isKept = ({ invalidations, tokenRequests }: Pipeline): boolean => {
  let refusals = 0
  return tokenRequests.every(({ at, endedAt, is }, n) => {
    const next = tokenRequests[n + 1]?.at ?? Infinity
    const isEnded = invalidations.some((time) => at <= time && time <= next)
    const from = is === "refusing" ? endedAt ?? at : at
    const isWaitedFor = isEnded || next >= from + cooldown(is, refusals)
    refusals = is === "refusing" && !isEnded ? refusals + 1 : 0
    return isWaitedFor
  })
}

describe("a pool", () => {
  it.effect.prop("never sends or hands out the token of another key, and ends every request with a fair answer", [
    steps,
    capacity,
    fc.boolean()
  ], ([steps, capacity, isShared]) =>
    once(() => {
      const { mixed, uses } = live(steps, { capacity, isShared })
      assert.deepStrictEqual(mixed, [])
      for (const use of uses) {
        assert.isTrue(use.tokens.every((token) => token.startsWith(`${use.tenant}-`)))
        assert.isTrue(isFair(use.exit), String(use.exit))
        assert.isFalse(isClosed(use), "no pipeline is closed under a request")
      }
    }), runs(30))

  it.effect.prop("serves every request as long as the servers do, whatever it releases, forgets or is left by", [
    fc.array(step.filter(({ _tag }) => ["Use", "Forget", "Interrupt", "Tick"].includes(_tag)), {
      maxLength: 80,
      size: "max"
    }),
    capacity,
    fc.boolean()
  ], ([steps, capacity, isShared]) =>
    once(() => {
      for (const { exit } of live(steps, { capacity, isShared }).uses) {
        assert.include(["200", "done", "left"], exit === undefined ? "" : outcome(exit))
      }
    }), runs(30))

  it.effect.prop("lets nothing that happens to one key be seen by another", [
    steps,
    fc.constantFrom(...tenants)
  ], ([steps, tenant]) =>
    once(() => {
      const isItsOwn = (step: Step) => step._tag === "Tick" || step.tenant === tenant
      assert.deepStrictEqual(
        live(steps, { capacity: 4 }).logs.get(tenant),
        live(steps.filter(isItsOwn), { capacity: 4 }).logs.get(tenant)
      )
    }), runs(30))

  it.effect.prop("runs lookup when it has to and else never, and keeps to its capacity", [
    steps,
    capacity
  ], ([steps, capacity]) =>
    once(() => {
      const { observer, usedBy } = promises(capacity)
      const { fibers, pipelines, uses } = live(steps, { capacity, isSettled: true, observer })
      for (const use of uses) {
        const pipeline = usedBy.get(use)?.pipeline
        assert.isDefined(pipeline)
        assert.isTrue(use.tokens.every((token) => token.startsWith(`${pipeline.tenant}-${pipeline.lookup}-`)))
        assert.isAtLeast(pipeline.releasedAt, use.endedAt ?? Infinity, "a pipeline in use is not released")
      }
      assert.isTrue(pipelines.every(({ isOpen }) => !isOpen))
      assert.strictEqual(fibers, 0)
    }), runs(30))

  it.effect.prop("makes no token request within a cooldown of the key, however many others it has", [
    steps,
    capacity
  ], ([steps, capacity]) =>
    once(() => {
      const { pipelines } = live(steps, { capacity })
      for (const pipeline of pipelines) assert.isTrue(isKept(pipeline), JSON.stringify(pipeline))
    }), runs(30))

  it.effect.prop("that is closed ends all that is under way, and leaves nothing behind", [
    steps,
    capacity,
    fc.boolean()
  ], ([steps, capacity, isShared]) =>
    once(() => {
      const { fibers, pipelines, uses } = live(steps, { capacity, isShared, isCut: true })
      for (const { exit } of uses) assert.isTrue(isFair(exit), String(exit))
      assert.isTrue(pipelines.every(({ isOpen }) => !isOpen), "every pipeline is released")
      assert.strictEqual(fibers, 0)
    }), runs(30))
})
