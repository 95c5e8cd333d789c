/**
 * A value that is fetched once for all callers and kept for an hour. A later failure leaves the last good value in place, and
 * the next try follows five minutes after it.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import { pipe } from "effect/Function"
import * as Runtime from "effect/Runtime"

const lifetime = Duration.toMillis("1 hour")
const pause = Duration.toMillis("5 minutes")

export const keepFresh = <A, E>(fetch: Effect.Effect<A, E>, isShared: boolean): Effect.Effect<Effect.Effect<A, E>> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime()
    const clock = yield* Effect.clock
    let kept: { readonly value: A; readonly since: number; readonly until: number } | undefined
    let flight: Deferred.Deferred<A, E> | undefined

    /** Runs with the FiberRefs of the layer, and goes on when its first caller has left. */
    const launch = () => {
      const handle = Deferred.unsafeMake<A, E>(FiberId.none)
      flight = handle
      Runtime.runFork(runtime)(pipe(
        fetch,
        Effect.onExit((exit) => {
          flight = undefined
          if (exit._tag === "Success") {
            const now = clock.unsafeCurrentTimeMillis()
            kept = { value: exit.value, since: now, until: now + lifetime }
          }
          return Deferred.done(handle, exit)
        }),
        Effect.ignore
      ))
      return handle
    }

    return Effect.suspend(() => {
      const now = clock.unsafeCurrentTimeMillis()
      if (!isShared) flight = undefined
      if (kept === undefined) return Deferred.await(flight ?? launch())
      // a clock that was set back ends the hour too
      const isStale = now < kept.since || now >= kept.until
      if (isStale && flight === undefined) {
        kept = { value: kept.value, since: now, until: now + pause }
        flight = launch()
      }
      return Effect.succeed(kept.value)
    })
  })
