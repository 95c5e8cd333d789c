/** Decodes a compressed body that the client below has not decoded, by the web platform's streams. */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/** Whether these bytes are still compressed: fetch decodes a body and leaves the header. */
export const isCompressed = (bytes: Uint8Array, encoding: string | undefined): boolean =>
  encoding !== undefined && /^(x-)?gzip$|^deflate$/.test(encoding) && formatOf(bytes, encoding) !== undefined

const formatOf = (bytes: Uint8Array, encoding: string): CompressionFormat | undefined => {
  const [first = 0, second = 0] = bytes
  if (first === 0x1f && second === 0x8b) return "gzip"
  if (encoding !== "deflate" || bytes.length < 2) return undefined
  if ((first & 0x0f) === 8 && (256 * first + second) % 31 === 0) return "deflate"
  // no text begins like a raw deflate block that is compressed
  return first === 0x7b || first === 0x5b || first <= 0x20 || first === 0x3c ? undefined : "deflate-raw"
}

/** The decoded bytes, up to `limit`; nothing if they cannot be decoded. */
export const inflate = (
  bytes: Uint8Array,
  encoding: string | undefined,
  limit: number
): Effect.Effect<Option.Option<{ readonly bytes: Uint8Array; readonly isCut: boolean }>> =>
  Effect.option(Effect.tryPromise(async () => {
    const format = formatOf(bytes, encoding ?? "")
    if (format === undefined) return { bytes, isCut: false }
    const reader = new Blob([Uint8Array.from(bytes)]).stream().pipeThrough(new DecompressionStream(format)).getReader()
    const decoded = new Uint8Array(limit + 1)
    let length = 0
    while (length <= limit) {
      const { done, value } = await reader.read()
      if (done) break
      decoded.set(value.subarray(0, limit + 1 - length), length)
      length += value.length
    }
    await reader.cancel()
    return { bytes: decoded.subarray(0, Math.min(length, limit)), isCut: length > limit }
  }))
