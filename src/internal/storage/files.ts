/**
 * Tokens and leases as files in a folder that several processes share.
 *
 * Each file is written under a name of its own and then moved or linked into place, so that nobody reads half of one, and
 * creating one is a race that one process wins. To remove exactly what was read, a file is moved aside first and looked
 * at: what came in between is put back.
 */
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import type { Lease, TextStore } from "../../TokenStorage.ts"
import { digest } from "../digest.ts"
import { randomName } from "./lease.ts"
import { isHeld, isOwnedBy, record } from "./leaseRecord.ts"

export const makeFiles = (directory: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path

    // any key makes a name that every file system takes
    const tokenFile = (key: string) => path.join(directory, `${digest(key)}.token`)
    const leaseFile = (key: string) => path.join(directory, `${digest(key)}.lease`)
    const beside = (file: string) => Effect.map(randomName, (name) => `${file}.${name}`)

    const read = (file: string): Effect.Effect<Option.Option<string>, PlatformError> =>
      unless("NotFound", Effect.asSome(fs.readFileString(file)), Option.none())

    /** Writes a file that nobody knows yet, and puts it into place. */
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

    const removeExactly = (file: string, text: string): Effect.Effect<void, PlatformError> =>
      Effect.uninterruptible(Effect.gen(function*() {
        const aside = yield* beside(file)
        const isGone = yield* unless("NotFound", Effect.as(fs.rename(file, aside), false), true)
        if (isGone) return
        const isOther = (yield* fs.readFileString(aside)) !== text
        if (isOther) yield* unless("AlreadyExists", fs.link(aside, file), undefined)
        yield* fs.remove(aside)
      }))

    const lease: Lease = {
      take: (key, owner, term) =>
        Effect.mapError(
          Effect.gen(function*() {
            const found = yield* read(leaseFile(key))
            if (Option.isSome(found)) {
              if (yield* isHeld(found.value, term)) return false
              yield* removeExactly(leaseFile(key), found.value)
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
            onSome: (text) => removeExactly(leaseFile(key), text)
          })),
          Effect.mapError(describe)
        )
    }

    return {
      get: (key: string) => Effect.mapError(read(tokenFile(key)), describe),
      set: (key: string, text: string) => Effect.mapError(replace(tokenFile(key), text), describe),
      remove: (key: string, text: string) => Effect.mapError(removeExactly(tokenFile(key), text), describe),
      lease
    } satisfies TextStore
  })

/** The value in place of a failure for this reason. */
export const unless = <A, B>(
  reason: "NotFound" | "AlreadyExists",
  effect: Effect.Effect<A, PlatformError>,
  otherwise: B
): Effect.Effect<A | B, PlatformError> =>
  Effect.catchIf(
    effect,
    (error) => error._tag === "SystemError" && error.reason === reason,
    () => Effect.succeed(otherwise)
  )

export const describe = (error: PlatformError): string =>
  error._tag === "SystemError" ? `${error.reason} at ${error.method}` : `bad argument at ${error.method}`
