/** Ratios of interleaved pairs: what the machine does meanwhile, it does to both. */
import { performance } from "node:perf_hooks"

export interface Quartiles {
  readonly low: number
  readonly median: number
  readonly high: number
}

export const quartiles = (values: ReadonlyArray<number>): Quartiles => {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!
  return { low: at(0.25), median: at(0.5), high: at(0.75) }
}

/** Calls `run` so many times, so many at once; milliseconds. */
export const drive = async (run: () => Promise<unknown>, times: number, atOnce: number): Promise<number> => {
  const start = performance.now()
  let left = times
  const worker = async () => {
    while (left-- > 0) await run()
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return performance.now() - start
}

/** How much longer `subject` takes than `floor`, pair by pair. */
export const ratio = async (
  subject: () => Promise<number>,
  floor: () => Promise<number>,
  pairs: number
): Promise<Quartiles> => {
  await subject()
  await floor()
  const ratios: Array<number> = []
  for (let pair = 0; pair < pairs; pair++) {
    // the one who goes second finds a warmer machine
    if (pair % 2 === 0) {
      const own = await subject()
      ratios.push(own / await floor())
    } else {
      const base = await floor()
      ratios.push(await subject() / base)
    }
  }
  return quartiles(ratios)
}

export const percentile = (values: ReadonlyArray<number>, share: number): number =>
  [...values].sort((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? 0
