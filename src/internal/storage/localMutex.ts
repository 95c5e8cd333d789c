/** An exclusive section per key among the fibers of one process. */
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import { sharesFetches } from "../sharing.ts"
import type { Exclusive } from "./textStore.ts"

/**
 * One holder per key among the fibers that use this function. A key that nothing uses any more is forgotten. Where one
 * caller cannot wait for another there is no section.
 */
export const makeLocalMutex = (): Exclusive => {
  if (!sharesFetches()) return () => identity
  const sections = new Map<string, { readonly semaphore: Effect.Semaphore; users: number }>()
  const join = (key: string) =>
    Effect.sync(() => {
      const section = sections.get(key) ?? { semaphore: Effect.unsafeMakeSemaphore(1), users: 0 }
      sections.set(key, section)
      section.users++
      return section
    })
  return (key) => (effect) =>
    Effect.acquireUseRelease(
      join(key),
      ({ semaphore }) => semaphore.withPermits(1)(effect),
      (section) =>
        Effect.sync(() => {
          if (--section.users === 0) sections.delete(key)
        })
    )
}
