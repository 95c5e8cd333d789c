/**
 * The tests that every `TokenStorage` must pass, for those who write one.
 *
 * They run under any version of vitest with `@effect/vitest`, whose `describe` and `it` are given to `suite`. They use the
 * live clock and keys of their own, and remove what they store.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { AccessToken, encode } from "../AccessToken.ts"
import { type Storage, TokenStorage } from "../TokenStorage.ts"

/**
 * What `suite` needs from `@effect/vitest`, and whether the storages share a store.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** `describe` of `@effect/vitest`. */
  readonly describe: (name: string, tests: () => void) => unknown
  /** `it` of `@effect/vitest`. */
  readonly it: { readonly live: (name: string, test: () => Effect.Effect<void, unknown>) => unknown }
  /**
   * Whether all layers that the function makes share one store, as over a server. Then the suite tests that two of them
   * see the same tokens, and exclude each other. Defaults to false.
   */
  readonly shared?: boolean | undefined
}

/**
 * Describes a suite of tests for a storage. `layer` is called for each test.
 *
 * @example
 * ```ts
 * import { describe, it } from "@effect/vitest"
 * import { TokenStorage } from "effect-alf"
 * import { suite } from "effect-alf/testing/TokenStorageConformance"
 *
 * suite("my storage", () => TokenStorage.layerMemory, { describe, it })
 * ```
 *
 * @since 0.1.0
 * @category testing
 */
export const suite = (
  name: string,
  layer: () => Layer.Layer<TokenStorage, unknown>,
  options: Options
): void => {
  const { describe, it } = options

  const storages = (count: number) =>
    Effect.replicateEffect(Effect.map(Layer.build(Layer.fresh(layer())), Context.get(TokenStorage)), count)

  /** A test with storages that share one store: one, or two if there can be two. */
  const test = (title: string, body: (storage: Storage, other: Storage, key: string) => Effect.Effect<void, unknown>) =>
    it.live(title, () =>
      Effect.scoped(Effect.gen(function*() {
        const [storage, other = storage] = yield* storages(options.shared === true ? 2 : 1)
        if (storage !== undefined && other !== undefined) yield* body(storage, other, newKey())
      })))

  const isStored = (storage: Storage, key: string, token: AccessToken) =>
    Effect.map(storage.get(key), (found) => {
      assert.strictEqual(Option.getOrNull(Option.map(found, encode)), encode(token))
    })

  const isAbsent = (storage: Storage, key: string) =>
    Effect.map(storage.get(key), (found) => {
      assert.isTrue(Option.isNone(found), "there is a token")
    })

  describe(name, () => {
    test("holds nothing under a key that was not set", (_, storage, key) => isAbsent(storage, key))

    for (const [kind, token] of Object.entries(tokens())) {
      test(`gives a token back as it was: ${kind}`, (storage, other, key) =>
        pipe(
          storage.set(key, token),
          Effect.zipRight(isStored(other, key, token)),
          Effect.ensuring(Effect.ignore(storage.remove(key, token)))
        ))
    }

    test("replaces a token", (storage, other, key) =>
      Effect.gen(function*() {
        const [first, second] = [newToken(), newToken()]
        yield* storage.set(key, first)
        yield* other.set(key, second)
        yield* isStored(storage, key, second)
        yield* storage.remove(key, second)
      }))

    test("keeps keys apart", (storage, other, key) =>
      Effect.gen(function*() {
        const [first, second] = [newToken(), newToken()]
        yield* storage.set(key, first)
        yield* storage.set(`${key}:other`, second)
        yield* other.remove(`${key}:other`, second)
        yield* isStored(storage, key, first)
        yield* storage.remove(key, first)
      }))

    test(
      "takes keys of any characters",
      (storage, other, key) =>
        Effect.forEach(["/", "..", "ä ö?*:<>|\n", "k".repeat(50)], (part) =>
          Effect.gen(function*() {
            const token = newToken()
            yield* storage.set(key + part, token)
            yield* isStored(other, key + part, token)
            yield* storage.remove(key + part, token)
          }), { discard: true })
    )

    test("removes a token that was read from it", (storage, other, key) =>
      Effect.gen(function*() {
        yield* storage.set(key, newToken())
        const found = yield* Effect.flatten(other.get(key))
        yield* other.remove(key, found)
        yield* isAbsent(storage, key)
      }))

    test("does not remove another token than the one it is told to", (storage, other, key) =>
      Effect.gen(function*() {
        const [old, current] = [newToken(), newToken()]
        yield* storage.set(key, old)
        yield* storage.set(key, current)
        yield* other.remove(key, old)
        yield* isStored(storage, key, current)
        // the same secret, issued anew, is another token
        yield* other.remove(key, new AccessToken({ ...current, issuedAt: DateTime.unsafeMake(1) }))
        yield* isStored(storage, key, current)
        yield* storage.remove(key, current)
      }))

    test("removes nothing where there is nothing", (storage, _, key) => storage.remove(key, newToken()))

    test(
      "never loses a new token to the removal of an old one",
      (storage, other, key) =>
        Effect.forEach(Array.from({ length: 10 }), () =>
          Effect.gen(function*() {
            const [old, current] = [newToken(), newToken()]
            yield* storage.set(key, old)
            yield* Effect.all([other.remove(key, old), storage.set(key, current)], { concurrency: 2 })
            yield* isStored(other, key, current)
            yield* storage.remove(key, current)
          }), { discard: true })
    )

    test("gives out what the effect in the exclusive section ends in", (storage, _, key) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* storage.exclusive(key)(Effect.succeed(1)), 1)
        assert.strictEqual(yield* Effect.flip(storage.exclusive(key)(Effect.fail("no"))), "no")
      }))

    test("lets one at a time into the exclusive section", (storage, other, key) =>
      Effect.gen(function*() {
        let inside = 0
        let most = 0
        const section = Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++inside)
          }),
          () => Effect.sleep("3 millis"),
          () =>
            Effect.sync(() => {
              inside--
            })
        )
        yield* Effect.all(
          Array.from({ length: 8 }, (_, i) => (i % 2 === 0 ? storage : other).exclusive(key)(section)),
          { concurrency: "unbounded", discard: true }
        )
        assert.strictEqual(most, 1)
      }))

    test(
      "shows in the exclusive section what was set in the one before",
      (storage, other, key) =>
        Effect.gen(function*() {
          const token = newToken()
          const fetchOnce = (storage: Storage) =>
            storage.exclusive(key)(
              Effect.flatMap(
                storage.get(key),
                (found) =>
                  Option.isSome(found)
                    ? Effect.succeed(0)
                    : Effect.delay(Effect.as(storage.set(key, token), 1), "5 millis")
              )
            )
          const fetched = yield* Effect.all([
            fetchOnce(storage),
            fetchOnce(other),
            fetchOnce(storage),
            fetchOnce(other)
          ], {
            concurrency: "unbounded"
          })
          assert.strictEqual(fetched.reduce((a, b) => a + b), 1)
          yield* storage.remove(key, token)
        })
    )

    const endings: Readonly<Record<string, Effect.Effect<unknown, unknown>>> = {
      success: Effect.void,
      failure: Effect.fail("failed"),
      "a defect": Effect.die("died"),
      interruption: Effect.interrupt
    }
    for (const [kind, effect] of Object.entries(endings)) {
      test(
        `opens the exclusive section when its effect ends in ${kind}`,
        (storage, other, key) =>
          Effect.gen(function*() {
            yield* Effect.exit(storage.exclusive(key)(effect))
            yield* soon(other.exclusive(key)(Effect.void))
          })
      )
    }

    test(
      "opens the exclusive section when its holder is interrupted from outside",
      (storage, other, key) =>
        Effect.gen(function*() {
          const holder = yield* hold(storage, key)
          yield* soon(Fiber.interrupt(holder))
          yield* soon(other.exclusive(key)(Effect.void))
        })
    )

    test("does not make one key wait for another", (storage, other, key) =>
      Effect.gen(function*() {
        const holder = yield* hold(storage, key)
        yield* soon(storage.exclusive(`${key}:other`)(Effect.void))
        yield* soon(other.exclusive(`${key}:another`)(Effect.void))
        yield* Fiber.interrupt(holder)
      }))

    test("lets a caller that waits for the exclusive section leave", (storage, other, key) =>
      Effect.gen(function*() {
        const holder = yield* hold(storage, key)
        const waiting = yield* Effect.forEach([storage, other, storage, other], (storage) =>
          Effect.fork(storage.exclusive(key)(Effect.dieMessage("it was entered"))))
        yield* Effect.sleep("60 millis")
        const exits = yield* soon(Effect.forEach(waiting, Fiber.interrupt))
        assert.isTrue(exits.every(Exit.isInterrupted), "a caller that waited was not interrupted")
        yield* Fiber.interrupt(holder)
        yield* soon(other.exclusive(key)(Effect.void))
      }))
  })
}

/** The assertions of the suite: this module does not import vitest. */
const assert = {
  isTrue: (value: boolean, message: string): void => {
    if (!value) throw new Error(message)
  },
  strictEqual: <A>(actual: A, expected: A): void => {
    if (!Object.is(actual, expected)) throw new Error(`expected ${String(expected)}, got ${String(actual)}`)
  }
}

const newKey = (): string => `effect-alf:conformance:${crypto.randomUUID()}`

const newToken = (): AccessToken =>
  new AccessToken({
    value: Redacted.make(`token-${crypto.randomUUID()}`),
    issuedAt: DateTime.unsafeNow(),
    expiresAt: Option.some(DateTime.addDuration(DateTime.unsafeNow(), "1 hour"))
  })

const tokens = (): Readonly<Record<string, AccessToken>> => {
  const base = newToken()
  const lasting = (expiresAt: DateTime.Utc) => new AccessToken({ ...base, expiresAt: Option.some(expiresAt) })
  return {
    "an hour": base,
    "every field": new AccessToken({
      value: Redacted.make("!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"),
      type: "DPoP",
      scope: ["read", "schreiben:übersicht", "読む", "🔑", "\"quoted\"\u0000"],
      issuedAt: DateTime.unsafeMake(0),
      expiresAt: Option.some(DateTime.unsafeMake(4102444800123)),
      refreshToken: Option.some(Redacted.make("ré fresh\n🔄"))
    }),
    "no end": new AccessToken({ ...base, expiresAt: Option.none() }),
    "a life of 68 years": lasting(DateTime.addDuration(base.issuedAt, Duration.seconds(2 ** 31 - 1))),
    "a long text": new AccessToken({ ...base, value: Redacted.make("x".repeat(20_000)) })
  }
}

/** Holds the exclusive section until it is interrupted. */
const hold = (storage: Storage, key: string) =>
  Effect.gen(function*() {
    const entered = yield* Deferred.make<void>()
    const holder = yield* Effect.fork(
      storage.exclusive(key)(Effect.zipRight(Deferred.succeed(entered, undefined), Effect.never))
    )
    yield* soon(Deferred.await(entered))
    return holder
  })

/** Long before a lease that was not given back would end. */
const soon = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.timeoutFail(effect, { duration: "5 seconds", onTimeout: () => "it took longer than 5 seconds" })
