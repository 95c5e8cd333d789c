/**
 * Tokens and leases as files in a folder that several processes share.
 *
 * Each file is written under a name of its own and then moved or linked into place, so that no process reads half of one,
 * and only one process wins the race to create one. To remove exactly what was read, a file is moved aside first and
 * read again; another text that came in between is put back.
 */
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { digest } from "../digest.ts"
import { makeFileChecks, type Unusable } from "./fileChecks.ts"
import { isHeld, isOwnedBy, record } from "./leaseRecord.ts"
import { randomName } from "../random.ts"
import type { Lease, TextStore } from "./textStore.ts"

type FileError = PlatformError | Unusable

export const makeFiles = (directory: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const checks = makeFileChecks(fs, path, directory)
    yield* checks.atBuild

    // any key makes a name that every file system takes
    const tokenFile = (key: string) => path.join(directory, `${digest(key)}.token`)
    const leaseFile = (key: string) => path.join(directory, `${digest(key)}.lease`)
    const beside = (file: string) => Effect.sync(() => `${file}.${randomName()}`)

    const read = (file: string): Effect.Effect<Option.Option<string>, FileError> =>
      unless("NotFound", Effect.asSome(checks.read(file)), Option.none())

    /** Writes a file under a new name, and puts it into place. */
    const write = <A>(file: string, text: string, place: (written: string) => Effect.Effect<A, PlatformError>) =>
      pipe(
        fs.makeDirectory(directory, { recursive: true, mode: 0o700 }),
        Effect.zipRight(beside(file)),
        Effect.flatMap((written) =>
          Effect.ensuring(
            Effect.zipRight(fs.writeFileString(written, text, { flag: "wx", mode: 0o600 }), place(written)),
            Effect.ignore(fs.remove(written, { force: true }))
          )
        ),
        Effect.uninterruptible
      )

    const replace = (file: string, text: string): Effect.Effect<void, PlatformError> =>
      write(file, text, (written) => fs.rename(written, file))

    const create = (file: string, text: string): Effect.Effect<boolean, PlatformError> =>
      write(file, text, (written) => unless("AlreadyExists", Effect.as(fs.link(written, file), true), false))

    /** Removes a file if it holds this text, or, for `None`, if it cannot be used. */
    const removeExactly = (file: string, text: Option.Option<string>): Effect.Effect<void, PlatformError> =>
      Effect.uninterruptible(Effect.gen(function*() {
        const aside = yield* beside(file)
        const isGone = yield* unless("NotFound", Effect.as(fs.rename(file, aside), false), true)
        if (isGone) return
        const found = yield* usable(checks.read(aside))
        const isOther = Option.isNone(text)
          ? Option.isSome(found)
          : Option.isSome(found) && found.value !== text.value
        if (isOther) yield* unless("AlreadyExists", fs.link(aside, file), undefined)
        yield* fs.remove(aside)
      }))

    /** The lease of a key. One that cannot be used counts as free, and is removed. */
    const readLease = (key: string) =>
      Effect.catchTag(
        read(leaseFile(key)),
        "Unusable",
        () => Effect.as(removeExactly(leaseFile(key), Option.none()), Option.none<string>())
      )

    const lease: Lease = {
      take: (key, owner, term) =>
        Effect.mapError(
          Effect.gen(function*() {
            const found = yield* readLease(key)
            if (Option.isSome(found)) {
              if (yield* isHeld(found.value, term)) return false
              yield* removeExactly(leaseFile(key), found)
            }
            return yield* create(leaseFile(key), yield* record(owner, term))
          }),
          describe
        ),
      renew: (key, owner, term) =>
        Effect.mapError(
          Effect.gen(function*() {
            const found = yield* read(leaseFile(key))
            const isOwned = Option.exists(found, (text) => isOwnedBy(text, owner))
            if (isOwned) yield* replace(leaseFile(key), yield* record(owner, term))
            return isOwned
          }),
          describe
        ),
      release: (key, owner) =>
        pipe(
          read(leaseFile(key)),
          Effect.map(Option.filter((text) => isOwnedBy(text, owner))),
          Effect.flatMap(Option.match({
            onNone: () => Effect.void,
            onSome: (text) => removeExactly(leaseFile(key), Option.some(text))
          })),
          Effect.mapError(describe)
        )
    }

    return {
      get: (key: string) => Effect.mapError(read(tokenFile(key)), describe),
      set: (key: string, text: string) => Effect.mapError(replace(tokenFile(key), text), describe),
      remove: (key: string, text: string) =>
        Effect.mapError(removeExactly(tokenFile(key), Option.some(text)), describe),
      lease
    } satisfies TextStore
  })

/** The value in place of a failure for this reason. */
export const unless = <A, E, B>(
  reason: "NotFound" | "AlreadyExists",
  effect: Effect.Effect<A, E | PlatformError>,
  otherwise: B
): Effect.Effect<A | B, E | PlatformError> =>
  Effect.catchIf(
    effect,
    (error) => isReason(error, reason),
    () => Effect.succeed(otherwise)
  )

const isReason = (error: unknown, reason: string): boolean =>
  Predicate.isTagged(error, "SystemError") && "reason" in error && error.reason === reason

const usable = <A>(effect: Effect.Effect<A, FileError>): Effect.Effect<Option.Option<A>, PlatformError> =>
  Effect.catchTag(Effect.asSome(effect), "Unusable", () => Effect.succeedNone)

export const describe = (error: FileError): string => {
  switch (error._tag) {
    case "Unusable":
      return error.description
    case "SystemError":
      return `${error.reason} at ${error.method}`
    case "BadArgument":
      return `bad argument at ${error.method}`
  }
}
