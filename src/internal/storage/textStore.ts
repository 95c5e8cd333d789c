/** A store of text and its leases: what the storages are made of. `TokenStorage` exports these types. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"

/**
 * A store of text, from which `make` makes a storage. Each operation fails with a description of what happened. The
 * description is logged, so it must not contain stored text or a password.
 *
 * @since 0.1.0
 * @category models
 */
export interface TextStore {
  /** The text under a key. */
  readonly get: (key: string) => Effect.Effect<Option.Option<string>, string>
  /** Puts a text under a key. The store may drop it after `timeToLive`, and keeps it indefinitely without one. */
  readonly set: (
    key: string,
    text: string,
    timeToLive: Option.Option<Duration.Duration>
  ) => Effect.Effect<void, string>
  /** Removes a key if exactly this text is still under it. Comparing and removing are one step. */
  readonly remove: (key: string, text: string) => Effect.Effect<void, string>
  /** What the exclusive section is made of. Without it the section is exclusive within the process only. */
  readonly lease?: Lease | undefined
}

/**
 * The exclusive right to a key, for a term. An owner is a random text, a new one for each section.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lease {
  /**
   * How long a lease lasts without being renewed. Its holder renews it every third of the term. Defaults to 10 seconds.
   */
  readonly term?: Duration.DurationInput | undefined
  /** Gives the lease of a key to an owner if it is free, and tells whether it did. Looking and taking are one step. */
  readonly take: (key: string, owner: string, term: Duration.Duration) => Effect.Effect<boolean, string>
  /** Starts the term again if this owner still has the lease, and tells whether it has. */
  readonly renew: (key: string, owner: string, term: Duration.Duration) => Effect.Effect<boolean, string>
  /** Gives the lease back, but only if this owner still has it. */
  readonly release: (key: string, owner: string) => Effect.Effect<void, string>
}

/**
 * How a lease lasts.
 *
 * @since 0.1.0
 * @category models
 */
export interface LeaseOptions {
  /**
   * How long other processes wait for one that died in its exclusive section. A living process renews its lease every
   * third of the term. Defaults to 10 seconds.
   */
  readonly term?: Duration.DurationInput | undefined
}

/** The exclusive section of a storage. */
export type Exclusive = (key: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
