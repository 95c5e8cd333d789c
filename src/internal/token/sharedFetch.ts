/** One fetch for all processes that share a storage: look there, enter the exclusive section, look again, run the grant, store. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken, isHeaderSafe, isSame, timeToLive } from "../../AccessToken.ts"
import { InvalidTokenResponse, type TokenError, TokenRequestError } from "../../TokenError.ts"
import { sleepAbout, withPolitePause } from "../politePause.ts"
import type { GuardedStorage } from "./guardedStorage.ts"
import * as TokenState from "./state.ts"

export interface SharedFetch<F, R> {
  readonly shared: GuardedStorage
  readonly acquire: (previous: Option.Option<AccessToken>) => Effect.Effect<AccessToken, TokenError, R>
  readonly state: Effect.Effect<TokenState.State<F>>
  readonly windows: TokenState.Windows
  readonly now: () => number
  /** The epoch in which the flight began: what was forgotten since is not stored. */
  readonly epoch: number
}

/** The pauses between two looks at what another process has stored, in milliseconds; each is jittered. */
const firstPause = 50
const longestPause = 1_000

export const fetchShared = <F, R>(options: SharedFetch<F, R>): Effect.Effect<AccessToken, TokenError, R> =>
  Effect.flatMap(Effect.zip(options.state, replacement(options)), ([{ held }, found]) => {
    if (Option.isSome(found)) return Effect.succeed(found.value)
    let isEntered = false
    const section = options.shared.exclusive(Effect.suspend(() => {
      isEntered = true
      return fetch(options, held?.token)
    }))
    // it waits as long as the other one renews its lease
    const watch = (pause: number): Effect.Effect<AccessToken> =>
      Effect.flatMap(sleepAbout(pause), () =>
        isEntered ? Effect.never : Effect.flatMap(
          withPolitePause(replacement(options), Math.min(1.5 * pause, longestPause)),
          ([other, next]) => isEntered ? Effect.never : Option.isSome(other) ? Effect.succeed(other.value) : watch(next)
        ))
    return Effect.raceFirst(section, watch(firstPause))
  })

const fetch = <F, R>(
  options: SharedFetch<F, R>,
  before: AccessToken | undefined
): Effect.Effect<AccessToken, TokenError, R> =>
  Effect.gen(function*() {
    const { acquire, now, shared } = options
    const found = yield* shared.get
    const state = yield* options.state
    // an overdue flight may have brought one while this one waited
    if (TokenState.isUsable(state.held, now()) && state.held.token !== before) return state.held.token
    if (Option.isSome(found) && isReplacement(options, state, found.value)) return found.value
    const previous = newest(
      Option.filter(found, (token) => !TokenState.isForgotten(state, token)),
      Option.map(Option.fromNullable(state.held), (held) => held.token)
    )
    const first = yield* run(acquire, previous)
    if (!TokenState.isOver(first, now())) return yield* store(options, first, found)
    // a laptop may have slept while the response was on its way; what came with it is kept, whatever the next one brings
    const over = yield* store(options, first, found)
    return yield* Effect.matchEffect(run(acquire, Option.some(over)), {
      onFailure: () => Effect.succeed(over),
      onSuccess: (second) => store(options, second, Option.some(over))
    })
  })

/**
 * Stores what a grant has brought, unless it was forgotten meanwhile or came from the storage. A process that was suspended
 * for longer than its lease finds another's token there, which wins: the server may have revoked its own.
 */
const store = <F, R>(
  options: SharedFetch<F, R>,
  acquired: AccessToken,
  found: Option.Option<AccessToken>
): Effect.Effect<AccessToken> =>
  Effect.gen(function*() {
    const { epoch, now, shared } = options
    const stored = yield* shared.get
    const state = yield* options.state
    if (Option.isSome(stored) && !isSameIn(found, stored.value)) {
      if (isSame(stored.value, acquired)) return acquired
      if (isReplacement(options, state, stored.value)) return stored.value
    }
    const token = new AccessToken({ ...acquired, generation: TokenState.nextGeneration(state, found) })
    const isSpent = Option.contains(timeToLive(token, now()), 0)
    if (!isSpent && state.epoch === epoch) yield* shared.set(token)
    return token
  })

const isSameIn = (token: Option.Option<AccessToken>, that: AccessToken): boolean =>
  Option.exists(token, (token) => isSame(token, that))

/** Runs the grant. What it may not do becomes a typed error in words of ours. */
const run = <R>(
  acquire: (previous: Option.Option<AccessToken>) => Effect.Effect<AccessToken, TokenError, R>,
  previous: Option.Option<AccessToken>
): Effect.Effect<AccessToken, TokenError, R> =>
  pipe(
    Effect.suspend(() => acquire(previous)),
    Effect.catchAllCause((cause) =>
      Option.match(Cause.failureOption(cause), {
        onNone: () => Effect.fail(defect),
        onSome: Effect.fail
      })
    ),
    Effect.flatMap(presentable)
  )

const defect = new TokenRequestError({
  reason: "Transport",
  endpoint: "the grant",
  attempts: 1,
  description: "The grant failed with a defect"
})

/** White space around a token is taken off; no other character may break the header that it is sent in. */
const presentable = (token: AccessToken): Effect.Effect<AccessToken, InvalidTokenResponse> => {
  const value = Redacted.value(token.value)
  if (isHeaderSafe(value)) return Effect.succeed(token)
  const trimmed = value.trim()
  return isHeaderSafe(trimmed)
    ? Effect.succeed(new AccessToken({ ...token, value: Redacted.make(trimmed) }))
    : Effect.fail(
      new InvalidTokenResponse({
        endpoint: "the grant",
        issue: "access_token is empty or has a character that a header must not carry"
      })
    )
}

/** The token of the storage, if it can be used in place of a new one. */
const replacement = <F, R>(options: SharedFetch<F, R>) =>
  Effect.zipWith(
    options.shared.get,
    options.state,
    (found, state) => Option.filter(found, (token) => isReplacement(options, state, token))
  )

const isReplacement = <F, R>(
  { now, windows }: SharedFetch<F, R>,
  state: TokenState.State<F>,
  token: AccessToken
): boolean => TokenState.isReplacement(state, TokenState.hold(token, windows, 1, now()), now())

/** Of the token that is stored and the one that is held, the one of the later generation. What is stored wins a tie. */
const newest = (
  stored: Option.Option<AccessToken>,
  held: Option.Option<AccessToken>
): Option.Option<AccessToken> =>
  Option.isSome(stored) && Option.isSome(held) && held.value.generation > stored.value.generation
    ? held
    : Option.orElse(stored, () => held)
