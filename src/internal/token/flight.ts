/** What a grant may ask of the flight that runs it. A grant that runs outside of a `TokenService` has the defaults. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type { AccessToken } from "../../AccessToken.ts"

interface Shape {
  /** The token that the storage holds now: another process may have renewed it since the flight began. */
  readonly stored: Effect.Effect<Option.Option<AccessToken>>
  /**
   * Runs a request that spends a refresh token or a code. Once it has been sent it is not cancelled: closing the layer waits
   * for its response.
   */
  readonly spend: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Moves the flight's deadline: it ends no sooner than this from now. */
  readonly extend: (duration: Duration.Duration) => Effect.Effect<void>
}

export class Flight extends Context.Reference<Flight>()("effect-alf/internal/Flight", {
  defaultValue: (): Shape => ({
    stored: Effect.succeed(Option.none()),
    spend: identity,
    extend: () => Effect.void
  })
}) {}
