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
  const memories = new Map<string, On401.Memory>()
  let doubtful = 0
  const set = (key: string, memory: On401.Memory) => {
    const before = memories.get(key)
    doubtful += (memory.rejection === undefined ? 0 : 1) - (before?.rejection === undefined ? 0 : 1)
    memories.set(key, memory)
  }
  const keyOf = (origin: string) => isShared ? "any" : origin
  const get = (key: string) => memories.get(key) ?? On401.forgotten
  return {
    isEmpty: () => doubtful === 0,
    change: (origin, f) => Effect.map(Clock.currentTimeMillis, (now) => set(keyOf(origin), f(get(keyOf(origin)), now))),
    decide: (origin, rejected) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const [decision, memory] = On401.on401(get(keyOf(origin)), rejected, now)
        set(keyOf(origin), memory)
        return decision
      })
  }
}
