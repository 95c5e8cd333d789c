/** The storages that need no server, and what `make` makes of a store of text. */
import { FileSystem, KeyValueStore } from "@effect/platform"
import { BadArgument, SystemError } from "@effect/platform/Error"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Metric, Option, Random, Redacted, TestClock } from "effect"
import { AccessToken, TokenError, TokenMetrics, TokenStorage } from "effect-alf"
import { execFileSync } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { inspect } from "node:util"
import { describe as describeFailure } from "../../src/internal/storage/files.ts"
import { build, entered, eventually, logged, newToken, same, within } from "../support/tokenStorage.ts"
import { runVirtually } from "../support/virtualTime.ts"

const isAbsent = (found: Option.Option<AccessToken.AccessToken>) => assert.isTrue(Option.isNone(found))

const failures = Effect.map(Metric.value(TokenMetrics.storageFailures), ({ count }) => count)

describe("none", () => {
  it.effect("is the default, holds nothing and excludes nobody", () =>
    Effect.gen(function*() {
      const storage = yield* TokenStorage.TokenStorage
      yield* storage.set("key", newToken())
      isAbsent(yield* storage.get("key"))
      assert.strictEqual(yield* storage.exclusive("key")(storage.exclusive("key")(Effect.succeed(1))), 1)
    }))
})

describe("persistent", () => {
  it.scoped("is false for none and memory, encrypted or not, and unset for stores that outlive the process", () =>
    Effect.gen(function*() {
      const keys = [Redacted.make(randomBytes(32).toString("base64"))] as const
      const memory = yield* build(TokenStorage.layerMemory)
      const sealed = yield* build(TokenStorage.encrypted(TokenStorage.layerMemory, { keys }))
      const outside = yield* build(TokenStorage.layerStore(new Map()))
      assert.deepStrictEqual(
        [TokenStorage.none, memory, sealed, outside].map(({ persistent }) => persistent),
        [false, false, false, undefined]
      )
    }))
})

describe("layerMemory", () => {
  it.scoped("is one memory for all that are built with it, and another for who builds it afresh", () =>
    Effect.gen(function*() {
      const token = newToken()
      const storage = yield* build(TokenStorage.layerMemory)
      yield* storage.set("key", token)
      isAbsent(yield* (yield* build(TokenStorage.layerMemory)).get("key"))
    }))
})

describe("make", () => {
  /** A store in memory, and what it was asked, as far as a test does not replace it. */
  const store = (lease: Partial<TokenStorage.Lease> | undefined, calls: Array<string> = []): TokenStorage.TextStore => {
    const note = (name: string) => Effect.sync(() => calls.push(name))
    return {
      get: () => Effect.succeedNone,
      set: () => Effect.void,
      remove: () => Effect.void,
      lease: lease && {
        take: () => Effect.as(note("take"), true),
        renew: () => Effect.as(note("renew"), true),
        release: () => Effect.asVoid(note("release")),
        ...lease
      }
    }
  }

  it.effect("the owner of a lease does not come from a generator that can be predicted", () =>
    Effect.gen(function*() {
      const owners: Array<string> = []
      const enter = Effect.withRandom(
        TokenStorage.make(store({ take: (_, owner) => Effect.as(Effect.sync(() => owners.push(owner)), true) }))
          .exclusive("key")(Effect.void),
        Random.make("a fixed seed")
      )
      yield* enter
      yield* enter
      assert.strictEqual(new Set(owners).size, 2)
      assert.isTrue(owners.every((owner) => /^[0-9a-f]{32}$/.test(owner)))
    }))

  const faults: Readonly<Record<string, () => Effect.Effect<never, string>>> = {
    fails: () => Effect.fail("out of order"),
    dies: () => Effect.die(new Error("hunter2")),
    throws: () => {
      throw new Error("hunter2")
    },
    hangs: () => Effect.never,
    sticks: () => Effect.uninterruptible(Effect.never)
  }

  for (const [name, fault] of Object.entries(faults)) {
    for (const step of ["take", "renew", "release"] as const) {
      it(`a section is entered, and takes a second longer at most, where the store ${name} at ${step}`, () => {
        const { lines, result } = runVirtually(logged(Effect.gen(function*() {
          const before = yield* failures
          const { exclusive } = TokenStorage.make(store({ [step]: fault, term: "3 seconds" }))
          const [took, value] = yield* Effect.timed(exclusive("key")(Effect.delay(Effect.succeed(1), "1500 millis")))
          assert.strictEqual(value, 1)
          assert.isTrue(within(took, 1500, 2500), `${took}`)
          return (yield* failures) - before
        })))
        assert.isAtLeast(Number(result), 1)
        assert.match(
          lines,
          /level=WARN .*The token storage failed at exclusive.* module=TokenStorage package=effect-alf/
        )
        assert.notInclude(lines, "hunter2")
      })
    }
  }

  it("a store that hangs holds up a hundred callers for one second, not one after the other", () => {
    const { lines, result } = runVirtually(logged(Effect.gen(function*() {
      const { exclusive } = TokenStorage.make(store({ take: () => Effect.never }))
      const callers = Array.from({ length: 100 }, () => exclusive("key")(Effect.void))
      const [took] = yield* Effect.timed(Effect.all(callers, { concurrency: "unbounded" }))
      // who comes later finds out for himself whether it works again
      const [later] = yield* Effect.timed(exclusive("key")(Effect.void))
      return [took, later] as const
    })))
    for (const took of result) assert.isTrue(within(took, 1000, 1000))
    assert.include(lines, "failed at exclusive: no response within 1s")
  })

  it("who goes on without the lease neither renews it nor waits for it", () => {
    const calls: Array<string> = []
    const { lines } = runVirtually(logged(Effect.gen(function*() {
      const { exclusive } = TokenStorage.make(store({ take: () => Effect.fail("out of order") }, calls))
      const section = exclusive("key")(Effect.sleep("10 seconds"))
      yield* Effect.all([section, section, section], { concurrency: "unbounded" })
    })))
    // what the failed try may have taken all the same is given back
    assert.deepStrictEqual(calls, ["release"])
    const warnings = lines.split("\n").filter((line) => line.includes("level=WARN"))
    assert.lengthOf(warnings, 3)
    assert.include(warnings[0], "out of order")
    for (const warning of warnings.slice(1)) assert.include(warning, "it did not respond to the previous caller")
  })

  it("of a defect nothing is logged but that it was one", () => {
    const { lines } = runVirtually(logged(
      TokenStorage.make(store({ take: () => Effect.die(new Error("hunter2")) })).exclusive("key")(Effect.void)
    ))
    assert.include(lines, "failed at exclusive: a defect")
  })

  it("one at a time is in a section without a lease, however many come and go", () => {
    const most = runVirtually(Effect.gen(function*() {
      const { exclusive } = TokenStorage.make(store(undefined))
      let inside = 0
      let most = 0
      const work = Effect.acquireUseRelease(
        Effect.sync(() => {
          most = Math.max(most, ++inside)
        }),
        () => Effect.sleep(10),
        () => Effect.sync(() => inside--)
      )
      // one leaves while the next is inside, and another comes
      yield* Effect.forEach([0, 1, 15, 25], (start) => Effect.delay(exclusive("key")(work), start), {
        concurrency: "unbounded"
      })
      return most
    }))
    assert.strictEqual(most, 1)
  })

  it("a lease that was lost is a warning, and the effect goes on", () => {
    const { lines, result } = runVirtually(logged(
      TokenStorage.make(store({ renew: () => Effect.succeed(false) })).exclusive("key")(
        Effect.delay(Effect.succeed(1), "1 minute")
      )
    ))
    assert.strictEqual(result, 1)
    assert.strictEqual(lines.split("the lease ended while its holder still used it").length, 2)
  })

  it("a renewal that is under way ends before the lease is given back", () => {
    const calls: Array<string> = []
    runVirtually(
      TokenStorage.make(store({
        term: "3 seconds",
        renew: () =>
          Effect.sync(() => calls.push("renew")).pipe(
            Effect.zipRight(Effect.sleep("500 millis")),
            Effect.zipRight(Effect.sync(() => calls.push("renewed"))),
            Effect.as(true)
          )
      }, calls)).exclusive("key")(Effect.sleep("1200 millis"))
    )
    assert.deepStrictEqual(calls, ["take", "renew", "renewed", "release"])
  })

  it("is renewed every third of its term, 10 seconds by default", () => {
    const calls: Array<string> = []
    runVirtually(TokenStorage.make(store({}, calls)).exclusive("key")(Effect.sleep("10 seconds")))
    assert.deepStrictEqual(calls, ["take", "renew", "renew", "renew", "release"].slice(0, calls.length))
    assert.isAtLeast(calls.length, 4)
  })

  it("has another owner for each section, who gives back what he took", () => {
    const owners: Array<string> = []
    const note = (owner: string) => Effect.sync(() => owners.push(owner))
    runVirtually(Effect.gen(function*() {
      const { exclusive } = TokenStorage.make(store({
        take: (_, owner) => Effect.as(note(owner), true),
        release: (_, owner) => Effect.asVoid(note(owner))
      }))
      yield* Effect.replicateEffect(exclusive("key")(Effect.void), 50)
    }))
    const [first, givenBack, second] = owners
    assert.strictEqual(first, givenBack)
    assert.notStrictEqual(first, second)
    // a word of the name may begin with zeros
    assert.lengthOf(owners, 100)
    for (const owner of owners) assert.match(owner, /^[0-9a-f]{32}$/)
  })

  it("who cannot have the lease asks again with growing pauses, half a second at most", () => {
    const times: Array<number> = []
    runVirtually(Effect.gen(function*() {
      const clock = yield* Effect.clock
      const { exclusive } = TokenStorage.make(store({
        take: () => Effect.sync(() => times.push(clock.unsafeCurrentTimeMillis()) === 40)
      }))
      yield* exclusive("key")(Effect.void)
    }))
    const pauses = times.slice(1).map((time, i) => time - (times[i] ?? 0))
    assert.isTrue(pauses.every((pause) => 18 < pause && pause <= 625), `${pauses}`)
    assert.isBelow(pauses[0] ?? 0, 50)
    assert.isAbove(Math.min(...pauses.slice(10)), 350)
    assert.isAbove(new Set(pauses.map(Math.round)).size, 20)
  })
})

describe("layerStore", () => {
  const throwing = () => {
    throw new Error("hunter2")
  }
  const broken: Readonly<Record<string, TokenStorage.GetSetStore>> = {
    throws: { get: throwing, set: throwing, delete: throwing },
    rejects: {
      get: () => Promise.reject(new Error("hunter2")),
      set: () => Promise.reject(new Error("hunter2")),
      delete: () => Promise.reject(new Error("hunter2"))
    }
  }
  for (const [name, store] of Object.entries(broken)) {
    it.scoped(`what it ${name} is a failure that does not say it`, () =>
      Effect.gen(function*() {
        const token = newToken()
        const { get, set } = yield* build(TokenStorage.layerStore(store))
        const { remove } = yield* build(TokenStorage.layerStore({ ...store, get: () => AccessToken.encode(token) }))
        const calls = { get: get("key"), set: set("key", token), delete: remove("key", token) }
        for (const [method, call] of Object.entries(calls)) {
          const error = yield* Effect.flip(call)
          assert.instanceOf(error, TokenStorage.TokenStorageError)
          assert.strictEqual(error.description, `the store's ${method} failed`)
          assert.notInclude(inspect(error, { depth: 9 }) + JSON.stringify(error), "hunter2")
        }
      }))
  }

  it.scoped("calls the object's methods on the object, with promises or without", () =>
    Effect.gen(function*() {
      class Cache {
        readonly #texts = new Map<string, string>()
        get = (key: string) => Promise.resolve(this.#texts.get(key))
        async set(key: string, text: string) {
          this.#texts.set(key, text)
        }
        delete(key: string) {
          return Promise.resolve(this.#texts.delete(key))
        }
        has(key: string) {
          return this.#texts.has(key)
        }
      }
      const cache = new Cache()
      const { get, remove, set } = yield* build(TokenStorage.layerStore(cache))
      const token = newToken()
      yield* set("key", token)
      same(yield* get("key"), token)
      yield* remove("key", token)
      isAbsent(yield* get("key"))
      assert.isFalse(cache.has("key"))
    }))

  it.scoped("without delete a token is removed by an empty text", () =>
    Effect.gen(function*() {
      const texts = new Map<string, string>()
      const { get, remove, set } = yield* build(
        TokenStorage.layerStore({ get: (key) => texts.get(key) ?? null, set: (key, text) => texts.set(key, text) })
      )
      const token = newToken()
      yield* set("key", token)
      yield* remove("key", token)
      assert.strictEqual(texts.get("key"), "")
      isAbsent(yield* get("key"))
    }))

  it.scoped("undefined, null and an empty text are no token", () =>
    Effect.gen(function*() {
      for (const nothing of [undefined, null, ""]) {
        const { get } = yield* build(TokenStorage.layerStore({ get: () => nothing, set: () => {} }))
        isAbsent(yield* get("key"))
      }
    }))

  it.scoped("what is no token is a failure of get, and never removed", () =>
    Effect.gen(function*() {
      const values = new Map<string, unknown>()
      const { get, remove } = yield* build(TokenStorage.layerStore(values as Map<string, string>))
      const noToken = "the stored value is not a token, or is one of another version"
      const noText = "the stored value is not a text"
      for (
        const [garbage, description] of [
          ["garbage", noToken],
          ["{}", noToken],
          [AccessToken.encode(newToken()).slice(0, -1), noToken],
          [1, noText],
          [{}, noText],
          [Buffer.from("text"), noText]
        ]
      ) {
        values.set("key", garbage)
        const error = yield* Effect.flip(get("key"))
        assert.strictEqual(error.operation, "get")
        assert.strictEqual(error.description, description)
        yield* Effect.ignore(remove("key", newToken()))
        assert.strictEqual(values.get("key"), garbage)
      }
    }))

  it.scoped("set gets a time to live in the unit that is asked for, and none otherwise", () =>
    Effect.gen(function*() {
      const calls: Array<ReadonlyArray<unknown>> = []
      const store = { get: () => undefined, set: (...args: ReadonlyArray<unknown>) => calls.push(args) }
      const expiring = newToken({ lifetime: "90500 millis" })
      for (const timeToLive of [undefined, "millis", "seconds"] as const) {
        const { set } = yield* build(TokenStorage.layerStore(store, { prefix: "app:", timeToLive }))
        yield* set("key", expiring)
        yield* set("key", newToken())
      }
      assert.deepStrictEqual(calls.map(([key]) => key), Array.from({ length: 6 }, () => "app:key"))
      const third = calls.map(([, , ttl]) => ttl)
      assert.deepStrictEqual(calls.map((args) => args.length), [2, 2, 3, 2, 3, 2])
      // the test clock stands at the beginning of 1970
      const life = Option.getOrThrow(AccessToken.timeToLive(expiring, 0))
      assert.deepStrictEqual(third.filter((ttl) => ttl !== undefined), [life, Math.ceil(life / 1000)])
    }))
})

describe("layerKeyValueStore", () => {
  it.scoped("keeps texts under the prefix", () =>
    Effect.gen(function*() {
      const store = yield* KeyValueStore.KeyValueStore
      const { exclusive, set } = yield* build(TokenStorage.layerKeyValueStore({ prefix: "app:" }))
      const token = newToken()
      yield* exclusive("key")(set("key", token))
      assert.strictEqual(Option.getOrNull(yield* store.get("app:key")), AccessToken.encode(token))
      assert.strictEqual(yield* store.size, 1)
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.scopedLive("the lease of a dead holder is taken when its term is over", () =>
    Effect.gen(function*() {
      const store = yield* KeyValueStore.KeyValueStore
      const { exclusive } = yield* build(TokenStorage.layerKeyValueStore())
      yield* store.set("key:lease", `${Date.now() + 600} dead`)
      const [waited] = yield* Effect.timed(exclusive("key")(Effect.void))
      assert.isTrue(within(waited, 500, 8000), `${waited}`)
      for (const nonsense of ["", "garbage", "Infinity dead", `${Date.now() + 1e9} dead`]) {
        yield* store.set("key:lease", nonsense)
        const [waited] = yield* Effect.timed(exclusive("key")(Effect.void))
        assert.isTrue(within(waited, 90, 5000), `${waited}`)
      }
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.scoped("a lease is held until its end, and believed if it ends within two terms", () =>
    Effect.gen(function*() {
      const store = yield* KeyValueStore.KeyValueStore
      const { exclusive } = yield* build(TokenStorage.layerKeyValueStore())
      yield* TestClock.adjust("1 minute")
      const enter = Effect.as(exclusive("key")(Effect.void), "entered")
      for (const until of [60_000, 80_001]) {
        yield* store.set("key:lease", `${until} other`)
        assert.strictEqual(yield* enter, "entered")
      }
      for (const until of [60_001, 80_000]) {
        yield* store.set("key:lease", `${until} other`)
        const waiting = yield* Effect.fork(enter)
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 150)))
        assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)), `${until}`)
        yield* Fiber.interrupt(waiting)
      }
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.scoped("a lease is renewed while its holder works, and given back", () =>
    Effect.gen(function*() {
      const store = yield* KeyValueStore.KeyValueStore
      const { exclusive } = yield* build(TokenStorage.layerKeyValueStore())
      const lease = Effect.map(store.get("key:lease"), Option.getOrElse(() => ""))
      const until = Effect.map(lease, (text) => Number(text.split(" ")[0]))
      const holder = yield* entered(exclusive("key"))
      const before = yield* until
      yield* TestClock.adjust("4 seconds")
      assert.isAbove(yield* until, before)
      yield* Fiber.interrupt(holder)
      assert.strictEqual(yield* lease, "")

      // another has taken it meanwhile: it is neither renewed nor given back
      const loser = yield* entered(exclusive("key"))
      yield* store.set("key:lease", "99999 other")
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* lease, "99999 other")
      yield* Fiber.interrupt(loser)
      assert.strictEqual(yield* lease, "99999 other")
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.scoped("of two who remove a token, the second finds none", () =>
    Effect.gen(function*() {
      const memory = yield* KeyValueStore.KeyValueStore
      const gone = new SystemError({ module: "FileSystem", method: "remove", reason: "NotFound" })
      const { remove, set } = yield* build(
        Layer.provide(
          TokenStorage.layerKeyValueStore(),
          Layer.succeed(KeyValueStore.KeyValueStore, { ...memory, remove: () => Effect.fail(gone) })
        )
      )
      const token = newToken()
      yield* set("key", token)
      yield* remove("key", token)
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.scoped("a failure of the store is one of the storage", () =>
    Effect.gen(function*() {
      const { get, set } = yield* build(
        TokenStorage.layerKeyValueStore().pipe(
          Layer.provide(KeyValueStore.layerFileSystem("/dev/null/folder")),
          Layer.provide(NodeContext.layer),
          Layer.orElse(() => TokenStorage.layerStore({ get: () => 1, set: () => Promise.reject(new Error("no")) }))
        )
      )
      assert.strictEqual((yield* Effect.flip(get("key")))._tag, "TokenStorageError")
      assert.strictEqual((yield* Effect.flip(set("key", newToken())))._tag, "TokenStorageError")
    }))
})

describe("layerFileSystem", () => {
  const withFolder = <A, E, R>(test: (folder: string, fs: FileSystem.FileSystem) => Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      return yield* test(`${yield* fs.makeTempDirectoryScoped()}/deep/er`, fs)
    }).pipe(Effect.provide(NodeContext.layer))
  const storage = (folder: string, options?: TokenStorage.LeaseOptions) =>
    build(TokenStorage.layerFileSystem(folder, options).pipe(Layer.provide(NodeContext.layer)))
  const modeOf = (fs: FileSystem.FileSystem, path: string) => Effect.map(fs.stat(path), ({ mode }) => mode & 0o777)
  const leaseFile = (folder: string, key: string) => `${folder}/${createHash("sha256").update(key).digest("hex")}.lease`

  it.scopedLive("makes the folder for its owner alone, and so the files in it", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { exclusive, set } = yield* storage(folder)
        isAbsent(yield* (yield* storage(folder)).get("key"))
        const during = yield* exclusive("key")(
          Effect.zipRight(set("key", newToken()), Effect.map(fs.readDirectory(folder), (names) => [...names].sort()))
        )
        assert.lengthOf(during, 2)
        assert.strictEqual(yield* modeOf(fs, folder), 0o700)
        assert.strictEqual(yield* modeOf(fs, `${folder}/..`), 0o700)
        const [after = "", ...others] = yield* fs.readDirectory(folder)
        assert.deepStrictEqual([after.endsWith(".token"), others], [true, []])
        assert.strictEqual(yield* modeOf(fs, `${folder}/${after}`), 0o600)
      })
    ))

  /** A folder with one token under `key`, and the file that holds it. */
  const stored = (folder: string) =>
    Effect.gen(function*() {
      const built = yield* storage(folder)
      const token = newToken()
      yield* built.set("key", token)
      return { ...built, token, file: leaseFile(folder, "key").replace(/lease$/, "token") }
    })

  const refusesToRead = (built: TokenStorage.Storage, reason: string) =>
    Effect.map(Effect.flip(built.get("key")), (error) => {
      assert.strictEqual(error._tag, "TokenStorageError")
      assert.include(error.message, reason)
    })

  for (const mode of [0o620, 0o602, 0o666]) {
    it.scopedLive(`a file with mode ${mode.toString(8)} is not read, and the next token takes its place`, () =>
      withFolder((folder, fs) =>
        Effect.gen(function*() {
          const { file, token, ...built } = yield* stored(folder)
          yield* fs.chmod(file, mode)
          yield* refusesToRead(built, "other users can write the file")
          yield* built.set("key", token)
          same(yield* built.get("key"), token)
        })
      ))
  }

  it.scopedLive("a file of another user is not read", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { file } = yield* stored(folder)
        const built = yield* build(
          TokenStorage.layerFileSystem(folder).pipe(
            Layer.provide(Layer.succeed(FileSystem.FileSystem, {
              ...fs,
              stat: (path) =>
                Effect.map(fs.stat(path), (info) => path === file ? { ...info, uid: Option.some(4711) } : info)
            })),
            Layer.provide(NodeContext.layer)
          )
        )
        yield* refusesToRead(built, "the file belongs to another user")
      })
    ))

  it.scopedLive("a named pipe is not opened, and the next token takes its place", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { file, token, ...built } = yield* stored(folder)
        yield* fs.remove(file)
        execFileSync("mkfifo", ["-m", "600", file])
        const [took] = yield* Effect.timed(refusesToRead(built, "it is not a regular file"))
        assert.isTrue(within(took, 0, 900), `${took}`)
        yield* built.set("key", token)
        same(yield* built.get("key"), token)
      })
    ))

  it.scopedLive("a folder in place of a file is a failure of get", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { file, token: _, ...built } = yield* stored(folder)
        yield* fs.remove(file)
        yield* fs.makeDirectory(file)
        yield* refusesToRead(built, "it is not a regular file")
      })
    ))

  it.scopedLive("a file of more than 1 MiB is not read, and one of exactly 1 MiB is", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { file, token, ...built } = yield* stored(folder)
        yield* fs.writeFileString(file, AccessToken.encode(token).padEnd(1024 * 1024))
        same(yield* built.get("key"), token)
        yield* fs.writeFileString(file, AccessToken.encode(token).padEnd(1024 * 1024 + 1))
        yield* refusesToRead(built, "the file is larger than 1 MiB")
      })
    ))

  it.scopedLive("a file that grows after it was looked at is read no further than 1 MiB", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { file, token } = yield* stored(folder)
        yield* fs.writeFileString(file, AccessToken.encode(token).padEnd(3 * 1024 * 1024))
        const small = <E>(stat: Effect.Effect<FileSystem.File.Info, E>) =>
          Effect.map(stat, (info) => ({ ...info, size: FileSystem.Size(100) }))
        const built = yield* build(
          TokenStorage.layerFileSystem(folder).pipe(
            Layer.provide(Layer.succeed(FileSystem.FileSystem, {
              ...fs,
              stat: (path) => small(fs.stat(path)),
              open: (path, options) =>
                Effect.map(fs.open(path, options), (opened) => ({
                  ...opened,
                  stat: small(opened.stat),
                  readAlloc: (size) => opened.readAlloc(size)
                }))
            })),
            Layer.provide(NodeContext.layer)
          )
        )
        yield* refusesToRead(built, "the file is larger than 1 MiB")
      })
    ))

  it.scopedLive("a lease that others can write or that is a named pipe delays nothing", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { exclusive } = yield* stored(folder)
        const file = leaseFile(folder, "key")
        yield* fs.writeFileString(file, `${Date.now() + 9000} someone`, { mode: 0o666 })
        yield* fs.chmod(file, 0o666)
        const [first] = yield* Effect.timed(exclusive("key")(Effect.void))
        execFileSync("mkfifo", ["-m", "600", file])
        const [second] = yield* Effect.timed(exclusive("key")(Effect.void))
        assert.isTrue(within(first, 0, 900) && within(second, 0, 900), `${first} ${second}`)
        assert.isFalse(yield* fs.exists(file))
      })
    ))

  it.scopedLive("a folder that others can write is a warning when the layer is built, and a safe one is not", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        yield* stored(folder)
        assert.notInclude((yield* logged(storage(folder))).lines, "WARN")
        yield* fs.chmod(folder, 0o770)
        const { lines } = yield* logged(Effect.flatMap(storage(folder), (built) => built.get("key")))
        assert.strictEqual(lines.split("Other users can write the folder").length, 2, lines)
      })
    ))

  it.scopedLive("temporary files that a killed process left are removed after ten minutes, and no other file is", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { file, get, token } = yield* stored(folder)
        const [old, young] = ["a", "b"].map((char) => `${file}.${char.repeat(32)}`)
        const strange = `${folder}/notes.txt`
        for (const path of [old!, young!, strange]) yield* fs.writeFileString(path, "secret")
        const before = (minutes: number) => new Date(Date.now() - minutes * 60_000)
        yield* fs.utimes(old!, before(11), before(11))
        yield* fs.utimes(young!, before(9), before(9))
        yield* fs.utimes(strange, before(1000), before(1000))
        yield* fs.utimes(file, before(1000), before(1000))
        yield* storage(folder)
        assert.deepStrictEqual(
          yield* Effect.forEach([old!, young!, strange, file], (path) => fs.exists(path)),
          [false, true, true, true]
        )
        same(yield* get("key"), token)
      })
    ))

  it.scopedLive("nobody reads half a token while it is replaced", () =>
    withFolder((folder) =>
      Effect.gen(function*() {
        const [writer, reader] = [yield* storage(folder), yield* storage(folder)]
        const tokens = ["a", "b"].map((char) => newToken({ value: char.repeat(50_000) }))
        yield* writer.set("key", newToken())
        const writing = yield* Effect.fork(Effect.forever(Effect.forEach(tokens, (token) => writer.set("key", token))))
        for (let i = 0; i < 200; i++) assert.isTrue(Option.isSome(yield* reader.get("key")))
        yield* Fiber.interrupt(writing)
      })
    ))

  /** A storage on whose folder something happens before it next moves or links a token, once each. */
  const disturbed = (
    folder: string,
    events: { readonly [K in "rename" | "link"]?: Effect.Effect<void, TokenStorage.TokenStorageError> }
  ) =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const left = new Map<string, Effect.Effect<void, TokenStorage.TokenStorageError>>()
      const before = (method: "rename" | "link") =>
        Effect.suspend(() => {
          const event = left.get(method) ?? Effect.void
          left.delete(method)
          return Effect.mapError(
            event,
            ({ message: description }) =>
              new SystemError({ module: "FileSystem", method, reason: "Unknown", description })
          )
        })
      const meddled = FileSystem.FileSystem.of({
        ...fs,
        rename: (from, to) => Effect.zipRight(before("rename"), fs.rename(from, to)),
        link: (from, to) => Effect.zipRight(before("link"), fs.link(from, to))
      })
      const storage = yield* build(
        TokenStorage.layerFileSystem(folder).pipe(
          Layer.provide(Layer.succeed(FileSystem.FileSystem, meddled)),
          Layer.provide(NodeContext.layer)
        )
      )
      /** Removes a token while all that happens, once each. */
      const remove = (token: AccessToken.AccessToken) =>
        Effect.gen(function*() {
          for (const [method, event] of Object.entries(events)) left.set(method, event)
          yield* storage.remove("key", token)
          assert.strictEqual(left.size, 0)
        })
      return { remove, set: storage.set }
    })

  it.scopedLive("a token that comes while an older one is removed is put back", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const [old, current] = [newToken(), newToken()]
        const other = yield* storage(folder)
        const { remove, set } = yield* disturbed(folder, { rename: other.set("key", current) })
        yield* set("key", old)
        yield* remove(old)
        same(yield* other.get("key"), current)
        assert.lengthOf(yield* fs.readDirectory(folder), 1)
      })
    ))

  it.scopedLive("unless a still newer one has come meanwhile", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const [old, current, last] = [newToken(), newToken(), newToken()]
        const other = yield* storage(folder)
        const { remove, set } = yield* disturbed(folder, {
          rename: other.set("key", current),
          link: other.set("key", last)
        })
        yield* set("key", old)
        yield* remove(old)
        same(yield* other.get("key"), last)
        assert.lengthOf(yield* fs.readDirectory(folder), 1)
      })
    ))

  it.scopedLive("of two who remove a token, the second finds none", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const token = newToken()
        const other = yield* storage(folder)
        const { remove, set } = yield* disturbed(folder, { rename: other.remove("key", token) })
        yield* set("key", token)
        yield* remove(token)
        isAbsent(yield* other.get("key"))
        assert.lengthOf(yield* fs.readDirectory(folder), 0)
      })
    ))

  it.scopedLive("the lease of a dead holder is taken when its term is over, by one of those who wait", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        yield* fs.makeDirectory(folder, { recursive: true })
        for (let round = 0; round < 2; round++) {
          yield* fs.writeFileString(leaseFile(folder, "key"), `${Date.now() + 300} dead`)
          const storages = yield* Effect.all(Array.from({ length: 6 }, () => storage(folder)))
          let inside = 0
          let most = 0
          const section = Effect.acquireUseRelease(
            Effect.sync(() => {
              most = Math.max(most, ++inside)
            }),
            () => Effect.sleep("2 millis"),
            () => Effect.sync(() => inside--)
          )
          const [waited] = yield* Effect.timed(
            Effect.forEach(storages, ({ exclusive }) => exclusive("key")(section), { concurrency: "unbounded" })
          )
          assert.strictEqual(most, 1)
          assert.isTrue(within(waited, 200, 25_000), `${waited}`)
          assert.lengthOf(yield* fs.readDirectory(folder), 0)
        }
      })
    ))

  it.scopedLive("the lease lasts as long as its holder works, however long that takes", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const [first, second] = [
          yield* storage(folder, { term: "1 second" }),
          yield* storage(folder, { term: "1 second" })
        ]
        const holder = yield* entered(first.exclusive("slow"))
        const waiting = yield* Effect.fork(second.exclusive("slow")(Effect.void))
        yield* Effect.sleep("2500 millis")
        assert.isTrue(Option.isNone(yield* Fiber.poll(waiting)))
        yield* Fiber.interrupt(holder)
        yield* Fiber.join(waiting)
        assert.lengthOf(yield* fs.readDirectory(folder), 0)
      })
    ))

  it.scopedLive("a lease that another has taken is neither renewed nor given back, and one that is gone is no failure", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { exclusive } = yield* storage(folder, { term: "300 millis" })
        const file = leaseFile(folder, "key")
        for (const other of [Option.some(`${Date.now() + 60_000} other`), Option.none()]) {
          const { lines } = yield* logged(Effect.gen(function*() {
            const holder = yield* entered(exclusive("key"))
            yield* Option.match(other, {
              onNone: () => fs.remove(file),
              onSome: (text) => fs.writeFileString(file, text)
            })
            yield* Effect.sleep("250 millis")
            yield* Fiber.interrupt(holder)
          }))
          const found = yield* Effect.option(fs.readFileString(file))
          assert.strictEqual(Option.getOrNull(found), Option.getOrNull(other))
          assert.include(lines, "the lease ended while its holder still used it")
          assert.notInclude(lines, "a defect")
          yield* fs.remove(file, { force: true })
        }
      })
    ))

  it.scopedLive("the lease of a caller that was interrupted while it took it is given back", () =>
    withFolder((folder, fs) =>
      Effect.gen(function*() {
        const { exclusive } = yield* storage(folder)
        for (let i = 0; i < 20; i++) {
          const fiber = yield* Effect.fork(exclusive("key")(Effect.never))
          yield* Effect.sleep(i / 4)
          yield* Fiber.interrupt(fiber)
        }
        yield* eventually(
          Effect.filterOrFail(fs.readDirectory(folder), (names) => names.length === 0, () => "something is left")
        )
      })
    ))

  it.scopedLive("a folder that cannot be is a failure of each call, not of the layer", () =>
    Effect.gen(function*() {
      const { exclusive, get, set } = yield* storage("/dev/null/folder")
      const unread = yield* Effect.flip(get("key"))
      assert.strictEqual(unread.operation, "get")
      assert.match(unread.description, /^\w+ at stat$/)
      assert.strictEqual((yield* Effect.flip(set("key", newToken()))).operation, "set")
      const { lines, result } = yield* logged(exclusive("key")(Effect.succeed(1)))
      assert.strictEqual(result, 1)
      assert.include(lines, "failed at exclusive")
    }))

  it("a failure is described by its reason and its method", () => {
    const [module, method] = ["FileSystem", "open"] as const
    assert.strictEqual(describeFailure(new SystemError({ module, method, reason: "Busy" })), "Busy at open")
    assert.strictEqual(describeFailure(new BadArgument({ module, method })), "bad argument at open")
  })

  it.scopedLive("a term that is none is a ConfigurationError", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(storage("/tmp", { term: 0 }))
      assert.instanceOf(error, TokenError.ConfigurationError)
      assert.match(error.issue, /^term /)
    }))
})

describe("encrypted", () => {
  const newKey = () => randomBytes(32)
  const [old, current] = [newKey(), newKey()].map((key) => Redacted.make(key.toString("base64")))
  if (old === undefined || current === undefined) throw new Error("there are two keys")
  const over = (store: Map<string, string>, ...keys: readonly [Redacted.Redacted, ...Array<Redacted.Redacted>]) =>
    build(TokenStorage.encrypted(TokenStorage.layerStore(store), { keys }))

  it.scopedLive("nothing of a token is in the store but when it ends", () =>
    Effect.gen(function*() {
      const store = new Map<string, string>()
      const { set } = yield* over(store, current)
      const token = new AccessToken.AccessToken({
        ...newToken({ value: "hunter2", lifetime: "1 hour", refreshToken: "hunter2-refresh" }),
        scope: ["hunter2-scope"]
      })
      yield* set("refreshed", token)
      yield* set("plain", newToken({ value: "hunter2", lifetime: "1 hour" }))
      const texts = [...store.values()]
      assert.lengthOf(texts, 2)
      for (const text of texts) {
        for (const secret of ["hunter2", Buffer.from("hunter2").toString("base64url").slice(0, 8), "hunter2-scope"]) {
          assert.notInclude(text, secret)
        }
      }
      const sealed = texts.map((text) => Option.getOrThrow(AccessToken.decode(text)))
      assert.deepStrictEqual(sealed.map(({ expiresAt }) => Option.isSome(expiresAt)), [false, true])
    }))

  it.scopedLive("the same token is another text each time", () =>
    Effect.gen(function*() {
      const store = new Map<string, string>()
      const { set } = yield* over(store, current)
      const token = newToken()
      const texts = yield* Effect.forEach(Array.from({ length: 20 }), () =>
        Effect.as(set("key", token), undefined).pipe(Effect.map(() => store.get("key"))))
      assert.strictEqual(new Set(texts).size, 20)
    }))

  it.scopedLive("the first key writes, all keys read: a key is replaced without an outage", () =>
    Effect.gen(function*() {
      const store = new Map<string, string>()
      const token = newToken()
      const before = yield* over(store, old)
      const reading = yield* over(store, old, current)
      const writing = yield* over(store, current, old)
      const after = yield* over(store, current)

      yield* before.set("key", token)
      for (const { get } of [before, reading, writing]) same(yield* get("key"), token)
      assert.include((yield* Effect.flip(after.get("key"))).message, "none of the keys")

      yield* writing.set("key", token)
      for (const { get } of [reading, writing, after]) same(yield* get("key"), token)
      assert.include((yield* Effect.flip(before.get("key"))).message, "none of the keys")

      // who cannot read a token does not remove it either
      yield* before.remove("key", token)
      same(yield* after.get("key"), token)
      yield* reading.remove("key", token)
      isAbsent(yield* after.get("key"))
    }))

  it.scopedLive("a text that was moved to another key, changed or cut is refused", () =>
    Effect.gen(function*() {
      const store = new Map<string, string>()
      const { get, set } = yield* over(store, current)
      yield* set("key", newToken())
      const text = store.get("key") ?? ""
      store.set("other", text)
      assert.strictEqual((yield* Effect.flip(get("other")))._tag, "TokenStorageError")
      const sealed = Redacted.value(Option.getOrThrow(AccessToken.decode(text)).value)
      const swapped = sealed[20] === "A" ? "B" : "A"
      for (
        const changed of [
          sealed.slice(0, 20) + swapped + sealed.slice(21),
          sealed.slice(0, -4),
          sealed.slice(0, 16),
          sealed.slice(0, 8),
          "no-base64!"
        ]
      ) {
        store.set("key", text.replace(sealed, changed))
        const error = yield* Effect.flip(get("key"))
        assert.include(error.description, "none of the keys")
        assert.notInclude(inspect(error, { depth: 9 }), sealed.slice(0, 20))
      }
    }))

  it.scopedLive("a token that was written without encryption is refused, and replaced", () =>
    Effect.gen(function*() {
      const store = new Map<string, string>()
      const plain = yield* build(TokenStorage.layerStore(store))
      const { get, set } = yield* over(store, current)
      const token = newToken()
      yield* plain.set("key", token)
      assert.include((yield* Effect.flip(get("key"))).message, "not encrypted")
      yield* set("key", token)
      same(yield* get("key"), token)
    }))

  it.scopedLive("who reads an encrypted token without the keys can never use it", () =>
    Effect.gen(function*() {
      const store = new Map<string, string>()
      const { set } = yield* over(store, current)
      yield* set("key", newToken({ lifetime: "1 hour" }))
      const found = Option.getOrThrow(yield* (yield* build(TokenStorage.layerStore(store))).get("key"))
      assert.isAbove(found.issuedAt.epochMillis, Date.parse("9999-01-01"))
    }))

  it.scopedLive("keys in base64, base64url and hex, with a line break at the end, are the same key", () =>
    Effect.gen(function*() {
      // its base64 has +, / and padding
      const key = Buffer.alloc(32, 0xfb).fill(0xff, 16)
      const writings = [
        key.toString("base64"),
        key.toString("base64").replace("=", ""),
        key.toString("base64url"),
        key.toString("hex"),
        key.toString("hex").toUpperCase(),
        `${key.toString("base64")}\n`,
        `${key.toString("hex")}\r\n`
      ]
      assert.match(key.toString("base64"), /^(?=.*\+)(?=.*\/).*=$/)
      const store = new Map<string, string>()
      const token = newToken()
      for (const text of writings) {
        const { get, set } = yield* over(store, Redacted.make(text))
        if (store.size > 0) same(yield* get("key"), token)
        yield* set("key", token)
      }
    }))

  for (
    const [name, keys] of Object.entries({
      "an empty ring": [],
      "an empty key": [""],
      "31 bytes": [Buffer.alloc(31, 7).toString("base64")],
      "33 bytes": [Buffer.alloc(33, 7).toString("base64")],
      "16 bytes in hex": [Buffer.alloc(16, 7).toString("hex")],
      "33 bytes in hex": [Buffer.alloc(33, 7).toString("hex")],
      "32 bytes in hex after something else": [`x${Buffer.alloc(32, 7).toString("hex")}`],
      "base64 with padding in its middle": [`${Buffer.alloc(31, 7).toString("base64")}A=`],
      "a pass phrase": ["hunter2 hunter2 hunter2 hunter2!"],
      "a good key and a bad one": [Buffer.alloc(32, 7).toString("base64"), "hunter2"]
    })
  ) {
    it.scopedLive(`${name} is a ConfigurationError that does not say the key`, () =>
      Effect.gen(function*() {
        const ring = keys.map((key) => Redacted.make(key))
        const exit = yield* Effect.exit(
          build(TokenStorage.encrypted(TokenStorage.layerMemory, { keys: ring as never }))
        )
        assert.isTrue(Exit.isFailure(exit))
        const error = yield* Effect.flip(exit)
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.message, "keys")
        const shown = inspect(exit, { depth: 9 }) + JSON.stringify(exit)
        for (const key of keys.filter((key) => key !== "")) assert.notInclude(shown, key)
      }))
  }

  it.effect("where there is no WebCrypto the layer says so", () =>
    Effect.gen(function*() {
      yield* Effect.acquireRelease(
        Effect.sync(() => Object.defineProperty(crypto, "subtle", { configurable: true, value: undefined })),
        () => Effect.sync(() => Reflect.deleteProperty(crypto, "subtle"))
      )
      const error = yield* Effect.flip(over(new Map(), current))
      assert.instanceOf(error, TokenError.ConfigurationError)
      assert.include(error.issue, "no WebCrypto")
    }).pipe(Effect.scoped))

  it.scopedLive("a failure of the storage below stays what it is", () =>
    Effect.gen(function*() {
      const below = TokenStorage.layerStore({ get: () => Promise.reject(new Error("no")), set: () => 1 })
      const { get, remove } = yield* build(TokenStorage.encrypted(below, { keys: [current] }))
      assert.include((yield* Effect.flip(get("key"))).message, "get failed")
      assert.include((yield* Effect.flip(remove("key", newToken()))).message, "get failed")
    }))
})
