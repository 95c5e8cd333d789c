/**
 * Effects that often have their token at hand: it can be had without a step of the runtime. Which effect it is decides, so
 * that a service whose `get` was replaced is asked by its own.
 */
import type * as Effect from "effect/Effect"
import type { AccessToken } from "../../AccessToken.ts"

type AtHand = () => AccessToken | undefined

const registered = new WeakMap<object, AtHand>()

/** Notes how the token of an effect is had at once; undefined if the effect has to be run. */
export const withAtHand = <E, R>(
  get: Effect.Effect<AccessToken, E, R>,
  atHand: AtHand
): Effect.Effect<AccessToken, E, R> => {
  registered.set(get, atHand)
  return get
}

export const atHandOf = <E, R>(get: Effect.Effect<AccessToken, E, R>): AtHand => registered.get(get) ?? nothing

const nothing: AtHand = () => undefined
