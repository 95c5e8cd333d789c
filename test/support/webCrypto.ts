/** WebCrypto works in threads of its own, of which no test clock knows: here a test learns when it has ended. */
import { afterAll, beforeAll, vi } from "@effect/vitest"
import { Effect } from "effect"

const { subtle } = globalThis.crypto

const spyOn = () => [
  vi.spyOn(subtle, "digest"),
  vi.spyOn(subtle, "exportKey"),
  vi.spyOn(subtle, "generateKey"),
  vi.spyOn(subtle, "importKey"),
  vi.spyOn(subtle, "sign"),
  vi.spyOn(subtle, "verify")
]

let spies: ReturnType<typeof spyOn> = []

/** Watches WebCrypto, which works on as ever, during the tests of a `describe`. */
export const watchWebCrypto = () => {
  beforeAll(() => {
    spies = spyOn()
  })
  afterAll(() => {
    for (const spy of spies) spy.mockRestore()
    spies = []
  })
}

export const isWatched = () => spies.length > 0

/** Waits until all that was begun since the last time has ended; true if that was anything. */
export const awaitWebCrypto: Effect.Effect<boolean> = Effect.promise(async () => {
  const begun = spies.flatMap(({ mock }) => mock.results.map(({ value }): unknown => value))
  for (const spy of spies) spy.mockClear()
  await Promise.allSettled(begun)
  return begun.length > 0
})
