/** A lease as a text: when it ends, and its owner. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Lease, TextStore } from "./textStore.ts"

export const leaseKey = (key: string): string => `${key}:lease`

export const record = (owner: string, term: Duration.Duration): Effect.Effect<string> =>
  Effect.map(Clock.currentTimeMillis, (now) => `${now + Duration.toMillis(term)} ${owner}`)

export const isOwnedBy = (text: string, owner: string): boolean => text.split(" ")[1] === owner

/**
 * Whether a lease is still held. A lease that ends later than any lease could counts as free: something else wrote it, or
 * a clock that is far ahead. Clocks may differ by about half a term.
 */
export const isHeld = (text: string, term: Duration.Duration): Effect.Effect<boolean> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const until = Number(text.split(" ")[0])
    return now < until && until <= now + 2 * Duration.toMillis(term)
  })

/** Longer than any write takes to reach the others. Real time even under a test clock, which does not move a disk. */
const settle = Effect.withClock(Effect.sleep("100 millis"), Clock.make())

/** A store that can read and write, but not compare. */
export interface PlainStore {
  readonly get: TextStore["get"]
  readonly set: TextStore["set"]
  readonly remove: (key: string) => Effect.Effect<void, string>
}

/**
 * A lease over a store that can only read and write (Fischer's algorithm): a process that finds it free writes its name,
 * and has the lease if its name is still there after the writes of all others that found it free have settled. A process
 * that is suspended for longer than that between reading and writing can become a second holder.
 */
export const plainLease = (store: PlainStore): Lease => {
  const owned = (key: string, owner: string) =>
    Effect.map(store.get(leaseKey(key)), Option.exists((text) => isOwnedBy(text, owner)))
  const write = (key: string, owner: string, term: Duration.Duration) =>
    Effect.flatMap(record(owner, term), (text) => store.set(leaseKey(key), text, Option.none()))
  return {
    take: (key, owner, term) =>
      Effect.gen(function*() {
        const found = yield* store.get(leaseKey(key))
        if (Option.isSome(found) && (yield* isHeld(found.value, term))) return false
        yield* write(key, owner, term)
        yield* settle
        return yield* owned(key, owner)
      }),
    renew: (key, owner, term) =>
      Effect.flatMap(
        owned(key, owner),
        (isOwned) => Effect.as(isOwned ? write(key, owner, term) : Effect.void, isOwned)
      ),
    release: (key, owner) =>
      Effect.flatMap(owned(key, owner), (isOwned) => isOwned ? store.remove(leaseKey(key)) : Effect.void)
  }
}
