/**
 * Whole token services under a clock of ours, with all that can happen to them in any order: calls, interruptions, answers,
 * failures, clock steps, revocations, and what other processes and broken stores do to the storage.
 *
 * A run that fails prints its seed and path; `ALF_SEED` and `ALF_PATH` replay it.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Effect,
  Exit,
  FastCheck as fc,
  Fiber,
  Logger,
  Option,
  Random,
  Redacted,
  Scope
} from "effect"
import { AccessToken, type Grant, TokenEndpoint, TokenError, TokenService, TokenStorage } from "effect-alf"
import { controlledStorage, faults, type Operation, type SectionFault } from "../../support/storages.ts"
import { virtualTime } from "../../support/virtualTime.ts"
import { once, runs } from "./runs.ts"

type Token = AccessToken.AccessToken

const endpoint = "https://auth.test/token"

/** `service` chooses one of the services, `which` one of the tokens that were handed out: 0 is the last one. */
type Command =
  | {
    readonly _tag: "Call"
    readonly service: number
    readonly call: "get" | "refresh" | "invalidate"
    readonly which: number
    readonly isUninterruptible: boolean
  }
  | { readonly _tag: "Leave"; readonly which: number }
  | {
    readonly _tag: "Answer"
    readonly answer: "token" | "noAnswer" | "refusal" | "defect"
    readonly life: number | null
    readonly took: number
    readonly refreshToken: boolean
  }
  | { readonly _tag: "Tick"; readonly millis: number }
  | { readonly _tag: "Fault"; readonly operation: Operation; readonly fault: (typeof faults)[number] | undefined }
  | { readonly _tag: "Delay"; readonly operation: Operation; readonly millis: number }
  | { readonly _tag: "SectionFault"; readonly fault: SectionFault | undefined }
  | { readonly _tag: "OtherProcess"; readonly life: number; readonly age: number }
  | { readonly _tag: "Wipe" }

const life = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 4_000_000 }) },
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 20_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, null) }
)
const operation = fc.constantFrom<Operation>("get", "set", "remove")

const always = [
  {
    weight: 12,
    arbitrary: fc.record({
      _tag: fc.constant("Call" as const),
      service: fc.nat({ max: 1 }),
      call: fc.oneof(
        { weight: 5, arbitrary: fc.constant("get" as const) },
        { weight: 3, arbitrary: fc.constant("refresh" as const) },
        { weight: 1, arbitrary: fc.constant("invalidate" as const) }
      ),
      which: fc.nat({ max: 2 }),
      isUninterruptible: fc.boolean()
    })
  },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Leave" as const), which: fc.nat({ max: 5 }) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      _tag: fc.constant("Answer" as const),
      answer: fc.oneof(
        { weight: 6, arbitrary: fc.constant("token" as const) },
        { weight: 1, arbitrary: fc.constant("noAnswer" as const) },
        { weight: 1, arbitrary: fc.constant("refusal" as const) },
        { weight: 1, arbitrary: fc.constant("defect" as const) }
      ),
      life,
      took: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 3_000 })),
      refreshToken: fc.boolean()
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constant("Tick" as const),
      millis: fc.oneof(
        { weight: 4, arbitrary: fc.integer({ min: 1, max: 2_000 }) },
        { weight: 2, arbitrary: fc.integer({ min: 1, max: 40_000 }) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 4_000_000 }) },
        { weight: 1, arbitrary: fc.integer({ min: -20_000, max: -1 }) }
      )
    })
  }
] as const

const withOthers = [
  ...always,
  {
    weight: 2,
    arbitrary: fc.record({
      _tag: fc.constant("OtherProcess" as const),
      life: fc.integer({ min: 1, max: 4_000_000 }),
      age: fc.nat({ max: 5_000 })
    })
  },
  { weight: 1, arbitrary: fc.constant({ _tag: "Wipe" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ _tag: fc.constant("Delay" as const), operation, millis: fc.nat({ max: 900 }) })
  }
] as const

const withFaults = [
  ...withOthers,
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constant("Fault" as const),
      operation,
      fault: fc.constantFrom(undefined, ...faults)
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      _tag: fc.constant("SectionFault" as const),
      fault: fc.constantFrom<SectionFault | undefined>(
        undefined,
        "dies",
        "throws",
        "never enters",
        "dies afterwards",
        "loses it"
      )
    })
  }
] as const

const sequence = (of: typeof always | typeof withOthers | typeof withFaults): fc.Arbitrary<ReadonlyArray<Command>> =>
  fc.array(fc.oneof(...(of as typeof withFaults)), { minLength: 1, maxLength: 40 })

/** A token request that is under way. */
interface Pending {
  readonly service: number
  readonly startedAt: number
  /** When its service was invalidated since. */
  outdatedAt: number | undefined
  readonly reply: Deferred.Deferred<Token, TokenError.TokenError>
}

/** A call, from its beginning to its end. `began` and the other moments are counted, not timed. */
interface Caller {
  readonly service: number
  readonly call: "get" | "refresh" | "invalidate"
  readonly began: number
  /** The latest `issuedAt` of all that had been handed out by then. */
  readonly newestBefore: number
  readonly isUninterruptible: boolean
  wasToldToLeave: boolean
  exit: Exit.Exit<Token | void, TokenError.TokenError> | undefined
}

interface Answered {
  readonly service: number
  readonly moment: number
  readonly at: number
  /** For how long it may be remembered, if it is a refusal. */
  readonly pause: number
}

const live = (kind: "alone" | "together" | "under faults", seed: number, commands: ReadonlyArray<Command>) => {
  const { adjust, run, setTime, settle } = virtualTime()
  return Effect.gen(function*() {
    const storage = controlledStorage()
    const scope = yield* Scope.make()
    const pending: Array<Pending> = []
    const callers: Array<Caller> = []
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    const handedOut: Array<Token> = []
    const answers = new Map<string, Answered>()
    const underWay = [0, 0]
    const names = new Map<Token, string>()
    let key = "not yet known"
    let moment = 0
    let wasSetBack = false
    let hasGivenUp = false
    let latest = 0
    const violations: Array<string> = []
    const claim = (isTrue: boolean, text: string) => {
      if (!isTrue) violations.push(`${text} (after command ${moment})`)
    }

    const nameOf = (token: Token) => Redacted.value(token.value)
    const issuedAt = (token: Token) => DateTime.toEpochMillis(token.issuedAt)
    const isUsable = (token: Token, now: number) => {
      const from = issuedAt(token)
      const end = Option.match(token.expiresAt, { onNone: () => Infinity, onSome: DateTime.toEpochMillis })
      return from <= now && (end === Infinity || now < end - Math.min(10_000, 0.05 * (end - from)))
    }
    const makeToken = (issuedAt: number, life: number | null, refreshToken = false) => {
      const name = `token ${names.size}`
      const token = new AccessToken.AccessToken({
        value: Redacted.make(name),
        issuedAt: DateTime.unsafeMake(issuedAt),
        expiresAt: life === null ? Option.none() : Option.some(DateTime.unsafeMake(issuedAt + life)),
        refreshToken: refreshToken ? Option.some(Redacted.make(`refresh ${name}`)) : Option.none()
      })
      names.set(token, name)
      return token
    }

    // what each service has been told
    const refused = [new Map<string, number>(), new Map<string, number>()]
    /** The names that a service must not hand out any more, from a moment on. */
    const forgotten = [new Map<string, number>(), new Map<string, number>()]
    const invalidated = [-1, -1]
    const usedBy = [new Set<string>(), new Set<string>()]
    /** How many refusals there were, one after the other. */
    const refusals = [0, 0]

    const grantOf = (service: number): Grant.Grant => ({
      key: "modelled",
      acquire: () =>
        Effect.gen(function*() {
          underWay[service]!++
          claim(underWay[service] === 1, "two token requests of one service at once")
          const startedAt = (yield* DateTime.now).epochMillis
          // after a minute nobody waits for another process any more
          hasGivenUp ||= pending.some((other) => Math.abs(startedAt - other.startedAt) >= 60_000)
          if (kind === "together" && !wasSetBack && !hasGivenUp) {
            claim(pending.length === 0, "two token requests for one key at once")
          }
          const request: Pending = {
            service,
            startedAt,
            outdatedAt: undefined,
            reply: yield* Deferred.make<Token, TokenError.TokenError>()
          }
          pending.push(request)
          return yield* Effect.ensuring(
            Deferred.await(request.reply),
            Effect.sync(() => {
              underWay[service]!--
              const index = pending.indexOf(request)
              if (index >= 0) pending.splice(index, 1)
            })
          )
        })
    })

    /** What the services write is looked at. */
    const observed: TokenStorage.Storage = {
      ...storage,
      get: (asked) => {
        key = asked
        return storage.get(asked)
      },
      set: (key, token) => {
        const before = storage.tokens.get(key)
        if (kind === "together" && !wasSetBack && !hasGivenUp && before !== undefined) {
          claim(issuedAt(before) <= issuedAt(token), "a newer token in the storage was replaced by an older one")
        }
        return storage.set(key, token)
      }
    }

    const services = yield* Effect.forEach([0, 1], (service) =>
      TokenService.make({ grant: grantOf(service) }).pipe(
        Effect.provideService(TokenEndpoint.TokenEndpoint, {
          identity: "modelled",
          request: () => Effect.dieMessage("the endpoint is not asked here")
        }),
        Effect.provideService(TokenStorage.TokenStorage, kind === "alone" ? TokenStorage.none : observed),
        Scope.extend(scope)
      ))

    const judge = (caller: Caller, now: number) => {
      const { began, call, exit, newestBefore, service, wasToldToLeave } = caller
      if (exit === undefined) return
      if (Exit.isFailure(exit)) {
        if (Cause.isInterruptedOnly(exit.cause)) {
          claim(wasToldToLeave, "a call was interrupted by nobody")
          return
        }
        const error = Option.getOrUndefined(Cause.failureOption(exit.cause))
        const serial = error === undefined
          ? String(Option.getOrUndefined(Cause.dieOption(exit.cause)))
          : error._tag === "TokenRequestError"
          ? error.description
          : error._tag === "TokenErrorResponse"
          ? error.errorDescription ?? ""
          : ""
        const answered = answers.get(serial)
        claim(answered !== undefined && answered.service === service, `a failure from nowhere: ${exit}`)
        if (answered === undefined || began < answered.moment) return
        claim(error?._tag === "TokenErrorResponse", "a failure was kept that may pass")
        claim(answered.at <= now && now < answered.at + answered.pause, "a refusal was kept for too long")
        claim(invalidated[service]! < answered.moment, "a refusal was kept beyond invalidate")
        const laterToken = [...answers].some(([name, other]) =>
          name.startsWith("token") && other.service === service && other.moment > answered.moment &&
          other.moment < began
        )
        claim(!laterToken || invalidated[service]! >= answered.moment, "a refusal was kept beyond a success")
        return
      }
      if (call === "invalidate") return
      const token = exit.value as Token
      const name = nameOf(token)
      const answered = answers.get(name)
      const hasWaited = answered !== undefined && answered.service === service && began < answered.moment
      // the storage may still be busy with it
      const hasJoined = answered !== undefined && answered.service === service && began < moment
      claim(hasJoined || isUsable(token, now), `${name} was handed out beyond its life`)
      if (!wasSetBack) {
        const refusedAt = refused[service]!.get(name)
        claim(refusedAt === undefined || refusedAt > began || hasWaited, `${name} was handed out after its refusal`)
        claim((forgotten[service]!.get(name) ?? Infinity) > began, `${name} was handed out after it was forgotten`)
        claim(hasWaited || issuedAt(token) >= newestBefore, `${name} was handed out after a newer one`)
      }
      usedBy[service]!.add(name)
      handedOut.push(token)
    }

    const call = (command: Extract<Command, { readonly _tag: "Call" }>) =>
      Effect.gen(function*() {
        const service = command.service
        const now = (yield* DateTime.now).epochMillis
        const caller: Caller = {
          service,
          call: command.call,
          began: moment,
          newestBefore: Math.max(
            -Infinity,
            ...handedOut.filter((token) => usedBy[service]!.has(nameOf(token))).map(issuedAt)
          ),
          isUninterruptible: command.isUninterruptible,
          wasToldToLeave: false,
          exit: undefined
        }
        callers.push(caller)
        const rejected = handedOut.at(-1 - command.which) ?? makeToken(now - 1, 1_000)
        const effect: Effect.Effect<Token | void, TokenError.TokenError> = command.call === "get"
          ? services[service]!.get
          : command.call === "refresh"
          ? services[service]!.refresh(rejected)
          : services[service]!.invalidate
        if (command.call === "refresh" && !refused[service]!.has(nameOf(rejected))) {
          refused[service]!.set(nameOf(rejected), moment)
        }
        const stale: Array<string> = []
        if (command.call === "invalidate") {
          invalidated[service] = moment
          refusals[service] = 0
          for (const request of pending) if (request.service === service) request.outdatedAt ??= moment
          stale.push(...usedBy[service]!)
          // what a healthy storage holds is removed too
          if (kind === "together") stale.push(...[...storage.tokens.values()].map(nameOf))
        }
        const fiber = yield* effect.pipe(
          command.isUninterruptible ? Effect.uninterruptible : Effect.interruptible,
          Effect.onExit((exit) =>
            Effect.map(DateTime.now, ({ epochMillis }) => {
              caller.exit = exit
              if (Exit.isSuccess(exit)) {
                for (const name of stale) {
                  if (!forgotten[service]!.has(name)) forgotten[service]!.set(name, moment + 1)
                }
              }
              judge(caller, epochMillis)
            })
          ),
          Effect.forkDaemon
        )
        fibers.push(fiber)
      })

    const answer = (command: Omit<Extract<Command, { readonly _tag: "Answer" }>, "_tag">) =>
      Effect.gen(function*() {
        yield* adjust(command.took)
        const request = pending.shift()
        if (request === undefined) return
        const at = (yield* DateTime.now).epochMillis
        const know = (serial: string) =>
          answers.set(serial, {
            service: request.service,
            moment,
            at,
            pause: Math.min(1_000 * 2 ** (refusals[request.service]! - 1), 30_000)
          })
        const serial = `answer ${answers.size}`
        switch (command.answer) {
          case "token": {
            const token = makeToken(request.startedAt, command.life, command.refreshToken)
            know(nameOf(token))
            if (request.outdatedAt === undefined) refusals[request.service] = 0
            // it serves those who asked before
            else forgotten[request.service]!.set(nameOf(token), request.outdatedAt + 1)
            return yield* Deferred.succeed(request.reply, token)
          }
          case "noAnswer":
            know(serial)
            return yield* Deferred.fail(
              request.reply,
              new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 1, description: serial })
            )
          case "refusal":
            if (request.outdatedAt === undefined) refusals[request.service]!++
            know(serial)
            return yield* Deferred.fail(
              request.reply,
              new TokenError.TokenErrorResponse({
                endpoint,
                status: 400,
                error: "invalid_client",
                errorDescription: serial,
                attempts: 1,
                body: ""
              })
            )
          case "defect":
            know(serial)
            return yield* Deferred.die(request.reply, serial)
        }
      })

    /** Another process that keeps to the rules: it writes while nobody is in the section, and nothing older. */
    const otherProcess = (life: number, age: number) =>
      Effect.gen(function*() {
        const now = (yield* DateTime.now).epochMillis
        const token = makeToken(now - age, life)
        const before = storage.tokens.get(key)
        if (storage.entered() === 0 && (before === undefined || AccessToken.supersedes(token, before))) {
          storage.tokens.set(key, token)
        }
      })

    for (const command of commands) {
      moment++
      switch (command._tag) {
        case "Call":
          yield* call(command)
          yield* settle
          break
        case "Leave": {
          const index = callers.length - 1 - command.which
          const caller = callers[index]
          if (caller !== undefined && caller.exit === undefined) {
            caller.wasToldToLeave = true
            yield* Fiber.interruptFork(fibers[index]!)
            yield* settle
            claim(caller.isUninterruptible || caller.exit !== undefined, "who was told to leave is still there")
          }
          break
        }
        case "Answer":
          yield* answer(command)
          yield* settle
          break
        case "Tick": {
          const now = (yield* DateTime.now).epochMillis
          if (command.millis < 0) wasSetBack = true
          yield* setTime(Math.max(0, now + command.millis))
          break
        }
        case "Fault":
          storage.faults[command.operation] = command.fault
          break
        case "Delay":
          storage.delays[command.operation] = command.millis
          break
        case "SectionFault":
          storage.faults.exclusive = command.fault
          break
        case "OtherProcess":
          yield* otherProcess(command.life, command.age)
          break
        case "Wipe":
          storage.tokens.clear()
          break
      }
      latest = Math.max(latest, (yield* DateTime.now).epochMillis)
    }

    // all is well again: every call ends, and no failure outlives its reason
    for (const operation of ["get", "set", "remove"] as const) {
      storage.faults[operation] = undefined
      storage.delays[operation] = undefined
    }
    storage.faults.exclusive = undefined
    moment++
    yield* setTime(latest + 31_000)
    const end = Effect.gen(function*() {
      for (let n = 0; n < 30 && (pending.length > 0 || callers.some(({ exit }) => exit === undefined)); n++) {
        moment++
        // who waits for a section that is never entered goes on with another's token
        if (pending.length === 0) yield* otherProcess(3_600_000, 0)
        yield* answer({ answer: "token", life: 3_600_000, took: 1, refreshToken: false })
        yield* adjust(2_000)
      }
    })
    yield* end
    for (const [n, { call, exit }] of callers.entries()) claim(exit !== undefined, `call ${n}, ${call}, never ended`)

    yield* adjust(31_000)
    for (const service of [0, 1]) {
      moment++
      yield* call({ _tag: "Call", service, call: "get", which: 0, isUninterruptible: false })
      yield* settle
      yield* end
      const { exit } = callers.at(-1)!
      claim(exit !== undefined && Exit.isSuccess(exit), `there is no token in the end: ${exit}`)
    }

    const closing = yield* Effect.forkDaemon(Scope.close(scope, Exit.void))
    yield* adjust(5_000)
    claim(Option.isSome(yield* closing.poll), "the layer does not close")
    claim(underWay[0] === 0 && underWay[1] === 0, "a token request outlives its layer")
    claim(storage.entered() === 0, "a section outlives its layer")
    for (const fiber of fibers) yield* Fiber.interruptFork(fiber)
    if (violations.length > 0) assert.fail(violations.join("; "))
  }).pipe(Effect.withRandom(Random.make(seed)), Effect.provide(Logger.remove(Logger.defaultLogger)), run)
}

const seed = fc.integer()

describe("TokenService", () => {
  it.effect.prop(
    "keeps its promises, whatever happens",
    [seed, sequence(always)],
    ([seed, commands]) => once(() => live("alone", seed, commands)),
    runs(100)
  )

  it.effect.prop(
    "keeps its promises with others who share a storage",
    [seed, sequence(withOthers)],
    ([seed, commands]) => once(() => live("together", seed, commands)),
    runs(100)
  )

  it.effect.prop(
    "keeps its promises whatever the storage does",
    [seed, sequence(withFaults)],
    ([seed, commands]) => once(() => live("under faults", seed, commands)),
    runs(100)
  )
})
