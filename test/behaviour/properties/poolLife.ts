/** Lives of a pool of four tenants: what its users, the tenants' servers and time do to it, and everything seen of that. */
import { HttpClient, HttpClientRequest } from "@effect/platform"
import {
  Cause,
  Clock,
  Data,
  Effect,
  Exit,
  FastCheck as fc,
  Fiber,
  FiberId,
  HashSet,
  Logger,
  Random,
  Redacted,
  Scope,
  Supervisor
} from "effect"
import { type AccessToken, type Alf, ClientAuthentication, TokenPool, TokenStorage } from "effect-alf"
import { jsonAtHand, virtualTime } from "../../support/virtualTime.ts"

export const tenants = ["a", "b", "c", "d"] as const
export type Tenant = typeof tenants[number]

export class NoTenant extends Data.TaggedError("NoTenant")<{ readonly lookup: number }> {}

const ways = ["Typed", "DropIn", "Get", "Refresh", "Invalidate"] as const

type Way = typeof ways[number]

const lookupIs = ["well", "prompt", "slow", "failing", "failing at once", "dying"] as const
type LookupIs = typeof lookupIs[number]

export type Step =
  /** Uses the tenant's key so many times at once. */
  | { readonly _tag: "Use"; readonly tenant: Tenant; readonly way: Way; readonly times: number }
  | { readonly _tag: "Forget" | "Revoke"; readonly tenant: Tenant }
  /** From now on its lookup, its token endpoint or its API is like this. */
  | { readonly _tag: "Lookup"; readonly tenant: Tenant; readonly is: LookupIs }
  | { readonly _tag: "Server"; readonly tenant: Tenant; readonly is: "well" | "slow" | "refusing" | "down" | "silent" }
  | { readonly _tag: "Api"; readonly tenant: Tenant; readonly is: "well" | "rejecting" }
  | { readonly _tag: "Interrupt"; readonly tenant: Tenant; readonly which: number }
  | { readonly _tag: "Tick"; readonly millis: number }

export const idleTimeToLive = 60_000

const tenant = fc.constantFrom(...tenants)

const tick: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.nat({ max: 40 }) },
  { weight: 3, arbitrary: fc.nat({ max: 3_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(1_000, 2_000, 30_000, idleTimeToLive) },
  { weight: 1, arbitrary: fc.nat({ max: 90_000 }) }
).map((millis) => ({ _tag: "Tick", millis }))

export const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      _tag: fc.constant("Use" as const),
      tenant,
      way: fc.constantFrom<Way>(...ways, "Typed", "DropIn"),
      times: fc.integer({ min: 1, max: 3 })
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constantFrom("Forget" as const, "Revoke" as const), tenant }) },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("Lookup" as const),
      tenant,
      is: fc.constantFrom<LookupIs>("well", "prompt", ...lookupIs)
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("Server" as const),
      tenant,
      is: fc.constantFrom(
        "well" as const,
        "well" as const,
        "slow" as const,
        "refusing" as const,
        "down" as const,
        "silent" as const
      )
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("Api" as const),
      tenant,
      is: fc.constantFrom("well" as const, "well" as const, "rejecting" as const)
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("Interrupt" as const), tenant, which: fc.nat({ max: 9 }) }) },
  { weight: 8, arbitrary: tick }
)

/** Who interrupts uses. */
const user = FiberId.make(-1, 0)

/** A run of `lookup`, and the pipeline that it begot. */
export interface Pipeline {
  readonly tenant: Tenant
  /** Counted from 1, for each tenant. */
  readonly lookup: number
  /** Whether what the lookup acquired is held: as long as the pipeline lives. */
  isOpen: boolean
  releasedAt: number
  readonly tokenRequests: Array<{ readonly at: number; readonly is: string; endedAt: number | undefined }>
  readonly invalidations: Array<number>
}

/** One use of a key. */
export interface Use {
  readonly tenant: Tenant
  /** TENANT-NUMBER */
  readonly name: string
  readonly startedAt: number
  endedAt: number | undefined
  /** How it ended. */
  exit: Exit.Exit<unknown, unknown> | undefined
  /** The tokens that it sent or got: TENANT-LOOKUP-NUMBER. */
  readonly tokens: Array<string>
}

/** Those who look on, at each moment. All that they are told of comes right before or right after it happens. */
export interface Observer {
  readonly entered?: (use: Use, now: number) => void
  readonly left?: (use: Use, now: number) => void
  readonly forgot?: (tenant: Tenant) => void
  readonly lookedUp?: (pipeline: Pipeline) => void
  readonly lookupFailed?: (pipeline: Pipeline) => void
  readonly released?: (pipeline: Pipeline) => void
  readonly warned?: () => void
  /** After each step, when no fiber can go on without time. */
  readonly settled?: (step: Step) => void
}

export interface Settings {
  readonly capacity: number
  /** Whether all tenants share a storage. */
  readonly isShared?: boolean
  /** Whether every fiber goes on as far as it can before the next step. */
  readonly isSettled?: boolean
  /** Whether the pool is closed as soon as the steps are done, with everything under way. */
  readonly isCut?: boolean
  readonly observer?: Observer
}

export interface Life {
  readonly uses: ReadonlyArray<Use>
  readonly pipelines: ReadonlyArray<Pipeline>
  /** What happened to each tenant, and when. */
  readonly logs: ReadonlyMap<Tenant, ReadonlyArray<string>>
  /** Tokens that came to another tenant's servers. */
  readonly mixed: ReadonlyArray<string>
  /** Fibers that are left when the pool is closed. */
  readonly fibers: number
}

/** Tenants c and d have one authorization server and one client id: only their secret and their storage key differ. */
const optionsOf = ({ lookup, tenant }: Pipeline): Alf.Options => ({
  tokenEndpoint: tenant === "c" || tenant === "d" ? "https://shared.test/token" : `https://${tenant}.test/token`,
  clientId: "client",
  clientSecret: Redacted.make(`${tenant}-${lookup}`),
  clientAuthentication: ClientAuthentication.post,
  storageKey: tenant === "c" || tenant === "d" ? tenant : undefined,
  origins: [`https://${tenant}.test`],
  tokenRetry: { times: 0 }
})

/** What the tenants' servers are like, and what came to them. A lookup takes 10 ms, a token request 20, an API request 5. */
const world = (observer: Observer) => {
  const is = new Map(tenants.map((tenant) => [tenant, { lookup: "well", server: "well", api: "well" }]))
  const valid = new Map(tenants.map((tenant) => [tenant, new Set<string>()]))
  const issued = new Map<Tenant, number>()
  const logs = new Map(tenants.map((tenant): [Tenant, Array<string>] => [tenant, []]))
  const pipelines: Array<Pipeline> = []
  const uses: Array<Use> = []
  const mixed: Array<string> = []
  const log = (tenant: Tenant, now: number, what: string) => logs.get(tenant)?.push(`${now} ${what}`)
  const moodOf = (tenant: Tenant) => is.get(tenant) ?? { lookup: "well", server: "well", api: "well" }
  const ofName = (name: string | undefined) => tenants.find((tenant) => tenant === name) ?? "a"

  const tokenRequest = (secret: string) =>
    Effect.gen(function*() {
      const [name, lookup] = secret.split("-")
      const tenant = ofName(name)
      const at = yield* Clock.currentTimeMillis
      const { server } = moodOf(tenant)
      log(tenant, at, `token request of ${secret}`)
      const request = { at, is: server, endedAt: undefined as number | undefined }
      pipelines.find((each) => each.tenant === tenant && each.lookup === Number(lookup))?.tokenRequests.push(request)
      if (server === "silent") return yield* Effect.never
      yield* Effect.sleep(server === "slow" ? "3 seconds" : "20 millis")
      request.endedAt = yield* Clock.currentTimeMillis
      if (server === "refusing") return { status: 400, body: { error: "invalid_client" } }
      if (server === "down") return { status: 503, body: {} }
      const n = (issued.get(tenant) ?? 0) + 1
      issued.set(tenant, n)
      valid.get(tenant)?.add(`${secret}-${n}`)
      return { status: 200, body: { access_token: `${secret}-${n}`, expires_in: 90 } }
    })

  const apiRequest = (tenant: Tenant, token: string, use: Use | undefined) =>
    Effect.gen(function*() {
      log(tenant, yield* Clock.currentTimeMillis, `API request with ${token}`)
      if (!token.startsWith(`${tenant}-`)) mixed.push(`${token} at ${tenant}`)
      use?.tokens.push(token)
      yield* Effect.sleep("5 millis")
      const isAccepted = moodOf(tenant).api === "well" && valid.get(tenant)?.has(token) === true
      return { status: isAccepted ? 200 : 401, body: {} }
    })

  const http = HttpClient.make((request, url) =>
    Effect.map(
      url.pathname === "/token"
        ? tokenRequest(
          new URLSearchParams(request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : "")
            .get("client_secret") ?? ""
        )
        : apiRequest(
          ofName(url.hostname.replace(".test", "")),
          (request.headers["authorization"] ?? "").replace("Bearer ", ""),
          uses.find((use) => `/${use.name}` === url.pathname)
        ),
      ({ body, status }) => jsonAtHand(request, status, body)
    )
  )

  const lookup = (tenant: Tenant) =>
    Effect.gen(function*() {
      const pipeline: Pipeline = {
        tenant,
        lookup: 1 + pipelines.filter((each) => each.tenant === tenant).length,
        isOpen: false,
        releasedAt: Infinity,
        tokenRequests: [],
        invalidations: []
      }
      pipelines.push(pipeline)
      log(tenant, yield* Clock.currentTimeMillis, "lookup")
      observer.lookedUp?.(pipeline)
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          pipeline.isOpen = true
        }),
        () =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            pipeline.isOpen = false
            pipeline.releasedAt = now
            observer.released?.(pipeline)
          })
      )
      const mood = moodOf(tenant).lookup
      if (mood !== "prompt" && mood !== "failing at once") {
        yield* Effect.sleep(mood === "slow" ? "2 seconds" : "10 millis")
      }
      if (mood === "well" || mood === "prompt" || mood === "slow") return optionsOf(pipeline)
      observer.lookupFailed?.(pipeline)
      return yield* mood === "dying" ? Effect.dieMessage("a bug of the lookup") : new NoTenant(pipeline)
    })

  return { is, valid, logs, log, pipelines, uses, mixed, http, lookup }
}

/** Lives through the steps, and for ten minutes more; then the pool is closed. */
export const live = (steps: ReadonlyArray<Step>, settings: Settings): Life => {
  const { capacity, isCut = false, isSettled = false, isShared = false, observer = {} } = settings
  const { adjust, run, settle } = virtualTime()
  const { http, is, log, logs, lookup, mixed, pipelines, uses, valid } = world(observer)
  const fibers = new Map(tenants.map((tenant): [Tenant, Array<Fiber.RuntimeFiber<unknown, unknown>>] => [tenant, []]))
  const latest = new Map<Tenant, AccessToken.AccessToken>()

  const request = (pool: TokenPool.TokenPool<Tenant, NoTenant>, way: Way, use: Use) => {
    const { tenant } = use
    const get = HttpClientRequest.get(`https://${tenant}.test/${use.name}`)
    const tokens = pool.tokens(tenant)
    const got = (token: AccessToken.AccessToken) => {
      latest.set(tenant, token)
      use.tokens.push(Redacted.value(token.value))
    }
    const rejected = latest.get(tenant)
    switch (way) {
      case "Typed":
        return pool.authorizedHttpClient(tenant).execute(get)
      case "DropIn":
        return pool.httpClient(tenant).execute(get)
      case "Invalidate":
        return Effect.tap(tokens.invalidate, () =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            for (const pipeline of pipelines) if (pipeline.tenant === tenant) pipeline.invalidations.push(now)
          }))
      default:
        return Effect.tap(way === "Get" || rejected === undefined ? tokens.get : tokens.refresh(rejected), got)
    }
  }

  const isUsing = (pool: TokenPool.TokenPool<Tenant, NoTenant>, tenant: Tenant, way: Way) =>
    Effect.gen(function*() {
      const startedAt = yield* Clock.currentTimeMillis
      const name = `${tenant}-${uses.filter((use) => use.tenant === tenant).length}`
      const use: Use = { tenant, name, startedAt, endedAt: undefined, exit: undefined, tokens: [] }
      uses.push(use)
      return yield* Effect.onExit(
        Effect.suspend(() => {
          observer.entered?.(use, startedAt)
          return request(pool, way, use)
        }),
        (exit) =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            observer.left?.(use, now)
            use.endedAt = now
            use.exit = exit
            log(tenant, now, `${way} ended: ${outcome(exit)}`)
          })
      )
    })

  const take = (pool: TokenPool.TokenPool<Tenant, NoTenant>, step: Step): Effect.Effect<void> =>
    Effect.gen(function*() {
      switch (step._tag) {
        case "Use":
          for (let n = 0; n < step.times; n++) {
            fibers.get(step.tenant)?.push(yield* Effect.forkDaemon(isUsing(pool, step.tenant, step.way)))
          }
          break
        case "Forget":
          observer.forgot?.(step.tenant)
          yield* pool.forget(step.tenant)
          break
        case "Revoke":
          valid.get(step.tenant)?.clear()
          break
        case "Lookup":
        case "Server":
        case "Api":
          is.set(step.tenant, { ...is.get(step.tenant)!, [step._tag.toLowerCase()]: step.is })
          break
        case "Interrupt": {
          const fiber = fibers.get(step.tenant)?.at(-1 - step.which)
          if (fiber !== undefined) yield* Fiber.interruptAsFork(fiber, user)
          break
        }
        case "Tick":
          yield* adjust(step.millis)
      }
      if (isSettled) yield* settle
      observer.settled?.(step)
    })

  const logger = Logger.make(({ logLevel }) => logLevel.label === "WARN" ? observer.warned?.() : undefined)
  return run(
    Effect.gen(function*() {
      const supervisor = yield* Supervisor.track
      yield* Effect.gen(function*() {
        const scope = yield* Scope.make()
        const pool = yield* TokenPool.make({ lookup, capacity, idleTimeToLive }).pipe(
          isShared ? Effect.provide(TokenStorage.layerMemory) : (effect) => effect,
          Scope.extend(scope),
          Effect.provideService(HttpClient.HttpClient, http)
        )
        for (const step of steps) yield* take(pool, step)
        if (!isCut) yield* adjust(10 * 60_000)
        yield* Scope.close(scope, Exit.void)
        // what is on its way to an API arrives
        yield* adjust(isCut ? 5 : 0)
      }).pipe(Effect.supervised(supervisor))
      const left = yield* supervisor.value
      return { uses, pipelines, logs, mixed, fibers: left.length }
    }).pipe(
      // renewals are spread by chance, which all tenants share
      Effect.withRandom(Random.fixed([0.5])),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger))
    )
  )
}

/** How a use has ended: "200" and the like, "done", "left" by its user, or the error. */
export const outcome = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.match(exit, {
    onSuccess: (value) => typeof value === "object" && value !== null && "status" in value ? `${value.status}` : "done",
    onFailure: (cause) =>
      Cause.isInterruptedOnly(cause) && HashSet.every(Cause.interruptors(cause), (id) => id === user)
        ? "left"
        : Cause.pretty(cause).split("\n")[0] ?? ""
  })
