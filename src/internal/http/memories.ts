/** What is remembered of each origin that rejected tokens. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { AccessToken } from "../../AccessToken.ts"
import * as On401 from "./on401.ts"

export interface Memories {
  readonly isEmpty: () => boolean
  readonly change: (origin: string, f: (memory: On401.Memory, now: number) => On401.Memory) => Effect.Effect<void>
  readonly decide: (
    origin: string,
    rejected: { readonly token: AccessToken; readonly isReplayable: boolean }
  ) => Effect.Effect<On401.Decision>
}

/** What is remembered of each listed origin; with `"any"` all origins share one memory, and its budget. */
export const makeMemories = (isShared: boolean): Memories => {
  let memories: Map<string, On401.Memory> | undefined
  let doubtful = 0
  const replace = <A>(origin: string, f: (memory: On401.Memory, now: number) => readonly [A, On401.Memory]) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const key = isShared ? "any" : origin
      const before = memories?.get(key) ?? On401.forgotten
      const [result, after] = f(before, now)
      doubtful += (after.rejection === undefined ? 0 : 1) - (before.rejection === undefined ? 0 : 1)
      // made when it is needed: most clients are never rejected
      memories ??= new Map()
      memories.set(key, after)
      return result
    })
  return {
    isEmpty: () => doubtful === 0,
    change: (origin, f) => replace(origin, (memory, now) => [undefined, f(memory, now)]),
    decide: (origin, rejected) => replace(origin, (memory, now) => On401.on401(memory, rejected, now))
  }
}
