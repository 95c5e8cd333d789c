/** Which files of a shared folder are read: regular files of our own that no other user can write. */
import type { PlatformError } from "@effect/platform/Error"
import type * as FileSystem from "@effect/platform/FileSystem"
import type * as Path from "@effect/platform/Path"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Option from "effect/Option"
import { inModule } from "../log.ts"
import { randomName } from "../random.ts"

/** A file that is not read. The description may be logged: it names no path. */
export class Unusable extends Data.TaggedError("Unusable")<{ readonly description: string }> {}

/** Larger than any token, in bytes. */
const largestFile = 1024 * 1024

/** Temporary files live for milliseconds: an older one was left by a process that was killed, and may hold a token. */
const oldestTemporary = Duration.minutes(10)
const temporary = /^(?:[0-9a-f]{64}\.(?:token|lease)|probe)\.[0-9a-f]{32}$/

/** The bits of a mode with which the group or others can write. */
const writableByOthers = 0o022

/** What files that this process creates look like: some systems have neither owners nor modes. */
interface Own {
  readonly uid: Option.Option<number>
  readonly hasModes: boolean
}

/** Why a file is not read; `None` if it can be. */
export const problemOf = (info: FileSystem.File.Info, own: Own): Option.Option<string> =>
  info.type !== "File"
    ? Option.some("it is not a regular file: remove it")
    : Option.exists(own.uid, (uid) => Option.exists(info.uid, (owner) => owner !== uid))
    ? Option.some("the file belongs to another user: remove it")
    : own.hasModes && (info.mode & writableByOthers) !== 0
    ? Option.some("other users can write the file: set its mode to 0600, or remove it")
    : Number(info.size) > largestFile
    ? Option.some("the file is larger than 1 MiB: remove it")
    : Option.none()

export const makeFileChecks = (fs: FileSystem.FileSystem, path: Path.Path, directory: string) => {
  let known: Own | undefined

  /** The owner and the modes of a file that this process creates. Without permission to create one, modes count. */
  const own: Effect.Effect<Own> = Effect.suspend(() => {
    if (known !== undefined) return Effect.succeed(known)
    const probe = path.join(directory, `probe.${randomName()}`)
    return pipe(
      fs.writeFileString(probe, "", { flag: "wx", mode: 0o600 }),
      Effect.zipRight(fs.stat(probe)),
      Effect.map(({ mode, uid }): Own => (known = { uid, hasModes: (mode & writableByOthers) === 0 })),
      Effect.ensuring(Effect.ignore(fs.remove(probe, { force: true }))),
      Effect.uninterruptible,
      Effect.catchAll(() => Effect.succeed<Own>({ uid: Option.none(), hasModes: true }))
    )
  })

  const check = (info: FileSystem.File.Info): Effect.Effect<void, Unusable> =>
    Effect.flatMap(own, (own) =>
      Option.match(problemOf(info, own), {
        onNone: () => Effect.void,
        onSome: (description) => new Unusable({ description })
      }))

  /** The text of a file. Opening a named pipe waits for its writer, so the file is looked at before it is opened. */
  const read = (file: string): Effect.Effect<string, PlatformError | Unusable> =>
    pipe(
      Effect.flatMap(fs.stat(file), check),
      Effect.zipRight(fs.open(file, { flag: "r" })),
      // the file that was opened may be another one than the file that was looked at
      Effect.tap((opened) => Effect.flatMap(opened.stat, check)),
      Effect.flatMap(readAll),
      Effect.scoped
    )

  const sweep = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const left = (yield* fs.readDirectory(directory)).filter((name) => temporary.test(name))
    yield* Effect.forEach(left, (name) => {
      const file = path.join(directory, name)
      const isOld = ({ mtime }: FileSystem.File.Info) =>
        Option.exists(mtime, (time) => now - time.getTime() > Duration.toMillis(oldestTemporary))
      return Effect.ignore(Effect.flatMap(fs.stat(file), (info) => isOld(info) ? fs.remove(file) : Effect.void))
    }, { discard: true })
  })

  const warnIfLoose = Effect.gen(function*() {
    const { mode, type } = yield* fs.stat(directory)
    if (type !== "Directory" || (mode & writableByOthers) === 0 || !(yield* own).hasModes) return
    yield* inModule("TokenStorage")(
      Effect.logWarning("Other users can write the folder of the token storage: set its mode to 0700")
    )
  })

  return { read, atBuild: Effect.zipRight(Effect.ignore(sweep), Effect.ignore(warnIfLoose)) }
}

/** Reads a file to its end, and no further than `largestFile`. */
const readAll = (file: FileSystem.File): Effect.Effect<string, PlatformError | Unusable> =>
  Effect.gen(function*() {
    const decoder = new TextDecoder()
    let text = ""
    let size = 0
    while (true) {
      const chunk = yield* file.readAlloc(64 * 1024)
      if (Option.isNone(chunk)) return text + decoder.decode()
      size += chunk.value.length
      if (size > largestFile) return yield* new Unusable({ description: "the file is larger than 1 MiB: remove it" })
      text += decoder.decode(chunk.value, { stream: true })
    }
  })
