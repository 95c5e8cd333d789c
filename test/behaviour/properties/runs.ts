/**
 * How often a property is tried, and from which seed.
 *
 * - `ALF_RUNS`: how many runs
 * - `ALF_SEED` and `ALF_PATH`: the `seed` and `path` that a failing run printed; together they replay it
 *
 * An array of steps needs `size: "max"`: without it, it has ten at most, whatever its `maxLength`.
 */
import { Effect } from "effect"

const { ALF_PATH, ALF_RUNS, ALF_SEED } = process.env

export const runs = (atLeast: number): {
  readonly timeout: number
  readonly fastCheck: { readonly numRuns: number; readonly seed?: number; readonly path?: string }
} => {
  const numRuns = ALF_RUNS === undefined ? atLeast : Number(ALF_RUNS)
  return {
    timeout: 30_000 + 200 * numRuns,
    fastCheck: {
      numRuns,
      ...(ALF_SEED === undefined ? {} : { seed: Number(ALF_SEED) }),
      ...(ALF_PATH === undefined ? {} : { path: ALF_PATH })
    }
  }
}

/** One run, after a turn of the event loop: the runner wants to hear of a long test now and then. */
export const once = (run: () => void): Effect.Effect<void> =>
  Effect.zipRight(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), Effect.sync(run))
