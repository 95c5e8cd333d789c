/**
 * A place where several services, or several processes, share tokens.
 *
 * A storage has four operations: `get`, `set`, `remove` and an `exclusive` section per key. Atomicity belongs to the
 * storage; when to fetch belongs to `TokenService`. Whatever a storage does, no request fails because of it.
 *
 * `TokenStorage` is a reference with a default, `none`: without a layer each service keeps its token to itself.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { AccessToken } from "./AccessToken.ts"

/**
 * A storage could not do what it was asked to.
 *
 * @since 0.1.0
 * @category errors
 */
export class TokenStorageError extends Schema.TaggedError<TokenStorageError>("effect-alf/TokenStorageError")(
  "TokenStorageError",
  {
    operation: Schema.Literal("get", "set", "remove", "exclusive"),
    /** What happened; never a token, a key of encryption or a password. */
    description: Schema.String
  }
) {
  override get message(): string {
    return `The token storage failed at ${this.operation}: ${this.description}`
  }
}

/**
 * What a storage can do.
 *
 * @since 0.1.0
 * @category models
 */
export interface Storage {
  /** The token under a key. It fails if there is something under the key that is no token. */
  readonly get: (key: string) => Effect.Effect<Option.Option<AccessToken>, TokenStorageError>
  /** Puts a token under a key, and lets the store drop it at the end of its life where the store can. */
  readonly set: (key: string, token: AccessToken) => Effect.Effect<void, TokenStorageError>
  /** Removes the token under a key, but only if it still is this one. Comparing and removing are one step. */
  readonly remove: (key: string, token: AccessToken) => Effect.Effect<void, TokenStorageError>
  /**
   * Runs an effect while nobody else who shares the store runs one for the same key. It waits until it can; if the
   * store cannot answer, the effect runs without it. The holder may die at any moment: the others go on.
   */
  readonly exclusive: (key: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * No storage: each service keeps its token to itself. The default.
 *
 * @since 0.1.0
 * @category storages
 */
export const none: Storage = {
  get: () => Effect.succeedNone,
  set: () => Effect.void,
  remove: () => Effect.void,
  exclusive: () => identity
}

/**
 * The storage that services share tokens through. Defaults to `none`.
 *
 * @since 0.1.0
 * @category tags
 */
export class TokenStorage extends Context.Reference<TokenStorage>()("effect-alf/TokenStorage", {
  defaultValue: (): Storage => none
}) {}
