/** Random lives of a pool: no key ever sends the token of another one, and whatever happens, every request ends. */
import { HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Exit, FastCheck as fc, Fiber, Logger, LogLevel, Redacted, Scope } from "effect"
import { AuthorizedHttpClient, TokenError, TokenPool } from "effect-alf"
import { virtualTime } from "../../support/virtualTime.ts"
import { once, runs } from "./runs.ts"

const tenants = ["a", "b", "c", "d"] as const
type Tenant = typeof tenants[number]

class NoTenant extends Data.TaggedError("NoTenant")<{}> {}

type Step =
  | { readonly _tag: "Request" | "DropIn" | "Forget" | "Revoke" | "FailLookup" | "FailServer"; readonly tenant: Tenant }
  | { readonly _tag: "Interrupt"; readonly which: number }
  | { readonly _tag: "Tick"; readonly millis: number }

const tenant = fc.constantFrom(...tenants)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ _tag: fc.constantFrom("Request" as const, "DropIn" as const), tenant }) },
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constantFrom("Forget" as const, "Revoke" as const, "FailLookup" as const, "FailServer" as const),
      tenant
    })
  },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Interrupt" as const), which: fc.nat() }) },
  {
    weight: 6,
    arbitrary: fc.oneof(fc.nat({ max: 40 }), fc.nat({ max: 2_000 }), fc.nat({ max: 120_000 })).map((millis): Step => ({
      _tag: "Tick",
      millis
    }))
  }
)

interface World {
  readonly lookups: ReadonlyMap<string, number>
  readonly mixed: ReadonlyArray<string>
  readonly untyped: ReadonlyArray<unknown>
  readonly open: number
}

/** Each lookup takes 10 ms, each token request 20, each request of the API 5. */
const live = (steps: ReadonlyArray<Step>, capacity: number): World => {
  const { adjust, run, settle } = virtualTime()
  const valid = new Map<Tenant, Set<string>>(tenants.map((tenant) => [tenant, new Set()]))
  const failingLookups = new Set<Tenant>()
  const failingServers = new Set<Tenant>()
  const lookups = new Map<string, number>()
  const mixed: Array<string> = []
  const untyped: Array<unknown> = []
  let issued = 0
  const http = HttpClient.make((request, url) => {
    const tenant = tenants.find((name) => url.hostname === `${name}.test`) ?? "a"
    const respond = (status: number, body: unknown) =>
      HttpClientResponse.fromWeb(request, Response.json(body, { status }))
    return url.pathname === "/token"
      ? Effect.delay(
        Effect.sync(() => {
          if (failingServers.has(tenant)) return respond(400, { error: "invalid_client" })
          const token = `${tenant}-${++issued}`
          valid.get(tenant)?.add(token)
          return respond(200, { access_token: token, expires_in: 60 })
        }),
        "20 millis"
      )
      : Effect.delay(
        Effect.sync(() => {
          const token = (request.headers["authorization"] ?? "").replace(/^Bearer /, "")
          if (!token.startsWith(`${tenant}-`)) mixed.push(`${token} at ${tenant}`)
          return respond(valid.get(tenant)?.has(token) === true ? 200 : 401, {})
        }),
        "5 millis"
      )
  })
  const toggle = (set: Set<Tenant>, tenant: Tenant) => void (set.delete(tenant) || set.add(tenant))
  return run(
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* TokenPool.make({
        lookup: (tenant: Tenant) =>
          Effect.delay(
            Effect.suspend(() => {
              lookups.set(tenant, (lookups.get(tenant) ?? 0) + 1)
              return failingLookups.has(tenant) ? new NoTenant() : Effect.succeed({
                tokenEndpoint: `https://${tenant}.test/token`,
                clientId: "client",
                clientSecret: Redacted.make("a-secret"),
                origins: [`https://${tenant}.test`]
              })
            }),
            "10 millis"
          ),
        capacity,
        idleTimeToLive: "1 minute"
      }).pipe(Scope.extend(scope), Effect.provideService(HttpClient.HttpClient, http))
      const fibers: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
      for (const step of steps) {
        switch (step._tag) {
          case "Request":
            fibers.push(
              yield* Effect.fork(pool.authorizedHttpClient(step.tenant).get(`https://${step.tenant}.test/data`))
            )
            break
          case "DropIn":
            fibers.push(yield* Effect.fork(pool.httpClient(step.tenant).get(`https://${step.tenant}.test/data`)))
            break
          case "Forget":
            yield* pool.forget(step.tenant)
            break
          case "Revoke":
            valid.get(step.tenant)?.clear()
            break
          case "FailLookup":
            toggle(failingLookups, step.tenant)
            break
          case "FailServer":
            toggle(failingServers, step.tenant)
            break
          case "Interrupt": {
            const fiber = fibers[step.which % Math.max(1, fibers.length)]
            if (fiber !== undefined) yield* Fiber.interruptFork(fiber)
            break
          }
          case "Tick":
            yield* adjust(step.millis)
        }
      }
      // longer than anything lasts
      yield* adjust(10 * 60_000)
      let open = 0
      for (const fiber of fibers) {
        const exit = fiber.unsafePoll()
        if (exit === null) open++
        else if (Exit.isFailure(exit) && !Exit.isInterrupted(exit)) {
          const error = exit.cause._tag === "Fail" ? exit.cause.error : exit.cause
          const isTyped = TokenError.isTokenError(error) || error instanceof NoTenant ||
            HttpClientError.isHttpClientError(error) || error instanceof AuthorizedHttpClient.Unauthorized
          if (!isTyped) untyped.push(error)
        }
      }
      yield* Scope.close(scope, Exit.void)
      yield* settle
      return { lookups, mixed, untyped, open }
    }).pipe(Logger.withMinimumLogLevel(LogLevel.None))
  )
}

describe("a pool", () => {
  it.effect.prop("never sends the token of one key for another, ends every request, and with a typed error", [
    fc.array(step, { minLength: 1, maxLength: 120 }),
    fc.integer({ min: 1, max: 5 })
  ], ([steps, capacity]) =>
    once(() => {
      const { mixed, open, untyped } = live(steps, capacity)
      assert.deepStrictEqual({ mixed, open, untyped }, { mixed: [], open: 0, untyped: [] })
    }), runs(100))

  it.effect.prop("that is large enough looks each key up once, as long as nothing is forgotten, fails or is idle", [
    fc.array(
      fc.oneof(
        fc.record({ _tag: fc.constantFrom("Request" as const, "DropIn" as const), tenant }),
        fc.nat({ max: 500 }).map((millis): Step => ({ _tag: "Tick", millis }))
      ),
      { maxLength: 100 }
    )
  ], ([steps]) =>
    once(() => {
      const { lookups } = live(steps, 4)
      for (const times of lookups.values()) assert.strictEqual(times, 1)
    }), runs(50))
})
