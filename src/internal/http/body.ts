/** Bodies: those of requests that can be sent twice, and those of responses that nobody reads. */
import type * as HttpBody from "@effect/platform/HttpBody"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import { globalValue } from "effect/GlobalValue"
import * as Stream from "effect/Stream"
import { hardTimeout } from "../timeout.ts"

const replayableBodies = globalValue(
  "effect-alf/AuthorizedHttpClient/replayable",
  () => new WeakSet<HttpBody.HttpBody>()
)

export const markReplayable = (body: HttpBody.HttpBody): void => {
  replayableBodies.add(body)
}

/** Whether a body is sent again byte for byte. */
export const isReplayable = (body: HttpBody.HttpBody): boolean =>
  (body._tag !== "Stream" && (body._tag !== "Raw" || isValue(body.body))) || replayableBodies.has(body)

/** Whether a raw body is a value, and not something that is read once. */
const isValue = (body: unknown): boolean =>
  body === null || body === undefined || typeof body === "string" || body instanceof ArrayBuffer ||
  ArrayBuffer.isView(body) || body instanceof Blob || body instanceof FormData || body instanceof URLSearchParams

/** No more of a discarded body is read than this, in bytes, … */
const maxDrained = 64 * 1024

/** … and not for longer than this. */
const drainTimeout = Duration.seconds(1)

/** Frees the connection of a response: reads a small rest, cuts a large one off. */
export const discardBody = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<void> =>
  pipe(
    isShort(response)
      ? Effect.asVoid(Effect.catchAllCause(response.arrayBuffer, () => Effect.void))
      // the runtime logs the error of a stream that fails, and the request with it
      : Effect.asVoid(Stream.runFoldWhile(
        Stream.catchAllCause(response.stream, () => Stream.empty),
        0,
        (size) => size <= maxDrained,
        (size, chunk) => size + chunk.length
      )),
    hardTimeout(drainTimeout, () => "slow"),
    Effect.ignore
  )

/**
 * Whether a body has less than 10 kB, which are read at once: a stream costs ten times as much. A browser hides from a page
 * that a body is compressed; even then what comes out of so little is not much.
 */
const isShort = ({ headers }: HttpClientResponse.HttpClientResponse): boolean =>
  /^\d{1,4}$/.test(headers["content-length"] ?? "") && headers["content-encoding"] === undefined
