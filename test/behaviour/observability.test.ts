import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Effect,
  Exit,
  HashMap,
  Logger,
  LogLevel,
  Metric,
  MetricState,
  Option,
  Redacted,
  TestClock,
  Tracer
} from "effect"
import {
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenMetrics,
  TokenService,
  TokenStorage
} from "effect-alf"
import { inspect } from "node:util"
import {
  advancing,
  api,
  bearer,
  json,
  pipeline,
  type Script,
  serve,
  type Server,
  settle,
  text,
  transportError,
  unauthorized
} from "../support/scriptedServer.ts"

interface Span extends Tracer.Span {
  readonly events: Array<unknown>
}

const makeSpan: (...args: Parameters<Tracer.Tracer["span"]>) => Span = (
  name,
  parent,
  context,
  links,
  startTime,
  kind
) => {
  const attributes = new Map<string, unknown>()
  const events: Array<unknown> = []
  let status: Tracer.SpanStatus = { _tag: "Started", startTime }
  return {
    _tag: "Span",
    name,
    parent,
    context,
    links,
    kind,
    attributes,
    events,
    spanId: String(++spanCount),
    traceId: "trace",
    sampled: true,
    get status() {
      return status
    },
    attribute: (key, value) => void attributes.set(key, value),
    event: (event, _startTime, more) => void events.push([event, more]),
    addLinks: () => {},
    end: (endTime, exit) => {
      status = { _tag: "Ended", startTime, endTime, exit }
    }
  }
}
let spanCount = 0

interface Seen {
  readonly logs: Array<{ readonly level: string; readonly text: string; readonly annotations: Record<string, unknown> }>
  readonly spans: Array<Span>
}

/** Runs an effect at log level all, and gives what was logged and traced. */
const watched = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const seen: Seen = { logs: [], spans: [] }
    const logger = Logger.make(({ annotations, cause, logLevel, message }) => {
      seen.logs.push({
        level: logLevel.label,
        text: `${inspect(message, { depth: 10 })} ${JSON.stringify(message)} ${Cause.pretty(cause)} ${
          JSON.stringify(Object.fromEntries(annotations))
        }`,
        annotations: Object.fromEntries(HashMap.toEntries(annotations))
      })
    })
    const tracer = Tracer.make({
      span: (...args) => {
        const span = makeSpan(...args)
        seen.spans.push(span)
        return span
      },
      context: (f) => f()
    })
    const exit = yield* Effect.exit(effect).pipe(
      Effect.withTracer(tracer),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Logger.withMinimumLogLevel(LogLevel.All)
    )
    return { exit, seen }
  })

const names = (seen: Seen) => seen.spans.map((span) => span.name).filter((name) => !name.startsWith("http.client"))

/** The sum of a metric's counts, over all tags or those that match. */
const count = (name: string, tags: Record<string, string> = {}) =>
  Effect.map(Metric.snapshot, (pairs) =>
    pairs
      .filter(({ metricKey }) =>
        metricKey.name === name &&
        Object.entries(tags).every(([key, value]) =>
          metricKey.tags.some((tag) => tag.key === key && tag.value === value)
        )
      )
      .map(({ metricState }) =>
        MetricState.isCounterState(metricState) || MetricState.isHistogramState(metricState)
          ? Number(metricState.count)
          : MetricState.isFrequencyState(metricState)
          ? [...metricState.occurrences.values()].reduce((a, b) => a + b, 0)
          : 0
      )
      .reduce((a, b) => a + b, 0))

const growth = <A, E, R>(effect: Effect.Effect<A, E, R>, name: string, tags: Record<string, string> = {}) =>
  Effect.gen(function*() {
    const before = yield* count(name, tags)
    yield* Effect.exit(effect)
    return (yield* count(name, tags)) - before
  })

const tagValues = (name: string, key: string) =>
  Effect.map(Metric.snapshot, (pairs) => [
    ...new Set(
      pairs.filter(({ metricKey }) => metricKey.name === name)
        .flatMap(({ metricKey }) => [...metricKey.tags].filter((tag) => tag.key === key).map((tag) => tag.value))
    )
  ])

const afterOne401: Script = (_, n) => n === 1 ? unauthorized() : json({})

describe("metrics", () => {
  it("TokenMetrics has them as values", () => {
    assert.isAtLeast(Object.values(TokenMetrics).filter((_) => Metric.MetricTypeId in _).length, 5)
  })

  it.scoped("alf_token_requests counts by outcome, alf_token_request_duration measures", () =>
    Effect.gen(function*() {
      const good = Effect.flatMap(pipeline(serve()), (_) => _.tokens.get)
      const bad = Effect.flatMap(
        pipeline(serve({ token: () => json({ error: "invalid_client" }, { status: 401 }) })),
        (_) => _.tokens.get
      )
      assert.strictEqual(yield* growth(good, "alf_token_requests"), 1)
      assert.strictEqual(yield* growth(good, "alf_token_request_duration"), 1)
      assert.strictEqual(yield* growth(bad, "alf_token_requests"), 1)
      assert.isAtLeast((yield* tagValues("alf_token_requests", "outcome")).length, 2)
    }))

  it.scoped("alf_token_refreshes tells why", () =>
    Effect.gen(function*() {
      const { tokens } = yield* pipeline(serve())
      assert.strictEqual(yield* growth(tokens.get, "alf_token_refreshes", { reason: "absent" }), 1)
      assert.strictEqual(yield* growth(tokens.get, "alf_token_refreshes"), 0)
      const token = yield* tokens.get
      assert.strictEqual(yield* growth(tokens.refresh(token), "alf_token_refreshes", { reason: "rejected" }), 1)
      yield* TestClock.adjust("3520 seconds")
      assert.strictEqual(
        yield* growth(Effect.zipRight(tokens.get, settle), "alf_token_refreshes", { reason: "expiring" }),
        1
      )
      const reasons = yield* tagValues("alf_token_refreshes", "reason")
      assert.sameMembers(reasons, ["absent", "rejected", "expiring"])
    }))

  it.scoped("alf_replays counts by outcome", () =>
    Effect.gen(function*() {
      const healed = Effect.flatMap(pipeline(serve({ api: afterOne401 })), (_) => _.httpClient.get(api))
      const refused = Effect.flatMap(pipeline(serve({ api: unauthorized })), (_) => _.httpClient.get(api))
      assert.strictEqual(yield* growth(healed, "alf_replays"), 1)
      assert.strictEqual(yield* growth(refused, "alf_replays"), 1)
      assert.isAtLeast((yield* tagValues("alf_replays", "outcome")).length, 2)
    }))

  it.scoped("alf_storage_failures", () =>
    Effect.gen(function*() {
      const store = { get: () => Promise.reject(new Error("down")), set: () => Promise.reject(new Error("down")) }
      const get = Effect.flatMap(pipeline(serve()), (_) => _.tokens.get).pipe(
        Effect.provide(TokenStorage.layerStore(store))
      )
      assert.isAtLeast(yield* growth(get, "alf_storage_failures"), 1)
    }))
})

describe("spans", () => {
  it.scoped("none of our own when the token is at hand", () =>
    Effect.gen(function*() {
      const { httpClient } = yield* pipeline(serve())
      yield* httpClient.get(api)
      const { seen } = yield* watched(httpClient.get(api))
      assert.deepStrictEqual(names(seen), [])
      assert.strictEqual(seen.spans.length, 1)
    }))
})

describe("secrets", () => {
  const secret = "5ecret-Zq9+/=x y"
  const accessToken = "acce55-token-Qm7"
  const refreshToken = "refre5h-token-Wk3"
  const forms = [secret, accessToken, refreshToken].flatMap((text) => [
    text,
    encodeURIComponent(text),
    new URLSearchParams({ _: text }).toString().slice(2),
    Buffer.from(text).toString("base64"),
    JSON.stringify(text).slice(1, -1)
  ]).concat(
    Buffer.from(`client:${secret}`).toString("base64"),
    Buffer.from(`client:${new URLSearchParams({ _: secret }).toString().slice(2)}`).toString("base64")
  )

  const shown = (value: unknown): string => {
    const json = (() => {
      try {
        return JSON.stringify(value)
      } catch (error) {
        return `unserialisable: ${String(error)}`
      }
    })()
    return [
      String(value),
      json,
      inspect(value, { depth: 20, showHidden: true }),
      inspect(value, { depth: 20 }),
      value instanceof Error ? `${value.message} ${value.stack}` : "",
      Cause.pretty(Cause.fail(value), { renderErrorCause: true }),
      value !== null && typeof value === "object" && "cause" in value ? inspect(value.cause, { depth: 20 }) : ""
    ].join("\n")
  }

  const assertSilent = (where: string, text: string) => {
    for (const form of forms) assert.isFalse(text.includes(form), `${where} shows ${form}: ${text.slice(0, 2000)}`)
  }

  const check = (seen: Seen, exit: Exit.Exit<unknown, unknown>, where: string) => {
    for (const log of seen.logs) assertSilent(`${where}: a log`, log.text)
    for (const span of seen.spans) {
      assertSilent(`${where}: a span`, `${span.name} ${inspect([...span.attributes])} ${inspect(span.events)}`)
      // what the client below puts into its own span is its own affair
      if (span.status._tag === "Ended" && !span.name.startsWith("http.client")) {
        assertSilent(`${where}: a span's exit`, spanExit(span.status.exit))
      }
    }
    if (Exit.isFailure(exit)) {
      assertSilent(`${where}: the cause`, Cause.pretty(exit.cause, { renderErrorCause: true }))
      for (const failure of Option.toArray(Cause.failureOption(exit.cause))) {
        assertSilent(`${where}: the error`, shown(failure))
      }
      assertSilent(`${where}: the exit`, `${JSON.stringify(exit)} ${inspect(exit, { depth: 20 })}`)
    }
  }

  const spanExit = (exit: Exit.Exit<unknown, unknown>) =>
    Exit.isFailure(exit) ? Cause.pretty(exit.cause, { renderErrorCause: true }) : ""

  const made = (server: Server, more: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}) =>
    pipeline(server, { clientSecret: Redacted.make(secret), tokenRetry: { times: 0 }, ...more })

  const good = () => bearer(accessToken, { refresh_token: refreshToken })

  const cases: Record<
    string,
    {
      readonly token?: Script
      readonly api?: Script
      readonly more?: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>
    }
  > = {
    "all is well": {},
    "a replay": { api: afterOne401 },
    "an API that refuses": { api: unauthorized },
    "an API that echoes": { api: (sent) => text(JSON.stringify(sent.headers), 401) },
    "an API that does not answer": { api: (_, __, request) => transportError(request) },
    "an endpoint that echoes": {
      token: (sent) =>
        text(`${sent.headers["authorization"]} ${sent.body} ${secret} ${encodeURIComponent(secret)}`, 400)
    },
    "an endpoint that echoes the form": {
      token: (sent) => text(sent.body, 400),
      more: { clientAuthentication: ClientAuthentication.post }
    },
    "an endpoint that echoes in JSON": {
      token: (sent) =>
        json({
          error: "invalid_client",
          error_description: `unknown secret ${secret}`,
          error_uri: `https://auth.example/?secret=${encodeURIComponent(secret)}`,
          sent: sent.headers["authorization"]
        }, { status: 401 })
    },
    "an endpoint that echoes as an error code": { token: () => json({ error: secret }, { status: 400 }) },
    "an invalid answer with a token in it": {
      token: () => json({ access_token: accessToken, token_type: "mac", refresh_token: refreshToken })
    },
    "a token that a header cannot carry": {
      token: () => json({ access_token: `${accessToken}\r\n`, token_type: "Bearer" })
    },
    "expires_in that is a token": {
      token: () => json({ access_token: "a", token_type: "Bearer", expires_in: accessToken })
    },
    "token_type that is a token": { token: () => json({ access_token: "a", token_type: accessToken }) },
    "not JSON": { token: () => text(`access_token=${accessToken}&refresh_token=${refreshToken}`) },
    "no answer": { token: (_, __, request) => transportError(request, new Error(`cannot send ${secret}`)) },
    "a time-out": { token: () => Effect.never },
    "a secret that cannot be read": { more: { clientSecret: Effect.fail(new Error(`vault said ${secret}`)) } },
    "a secret whose reading dies": { more: { clientSecret: Effect.die(new Error(`vault said ${secret}`)) } },
    "a refresh token": {
      more: { grant: Grant.refreshToken(Grant.clientCredentials({}), { initial: Redacted.make(refreshToken) }) },
      token: (sent) => text(`you sent ${sent.body}`, 400)
    }
  }

  for (const [name, { api: resource, more, token }] of Object.entries(cases)) {
    it.scoped(`${name}: drop-in and typed`, () =>
      Effect.gen(function*() {
        for (const client of ["httpClient", "authorizedHttpClient"] as const) {
          const server = serve({ token: token ?? good, ...(resource === undefined ? {} : { api: resource }) })
          const program = Effect.flatMap(made(server, more), (_) =>
            _[client].get(`${api}/x`) as Effect.Effect<unknown, unknown>)
          const { exit, seen } = yield* advancing(watched(program), "10 seconds", 10)
          check(seen, exit, name)
        }
      }))
  }

  it.scoped("the error that an outer filterStatusOk makes", () =>
    Effect.gen(function*() {
      const server = serve({ token: good, api: () => text("no", 404) })
      const { httpClient } = yield* made(server)
      const { exit, seen } = yield* watched(HttpClient.filterStatusOk(httpClient).get(api))
      check(seen, exit, "filterStatusOk")
      assert.isTrue(Exit.isFailure(exit))
    }))

  it.scoped("the token, the service, the storage error and the options", () =>
    Effect.gen(function*() {
      const store = {
        get: () => Promise.reject(new Error(`cannot read ${accessToken}`)),
        set: (_key: string, value: string) => Promise.reject(new Error(`cannot write ${value}`))
      }
      const server = serve({ token: good })
      const { exit, seen } = yield* watched(
        Effect.provide(
          Effect.gen(function*() {
            const { authorizedHttpClient, httpClient, tokens } = yield* made(server)
            const token = yield* tokens.get
            yield* Effect.logInfo(token)
            yield* Effect.annotateCurrentSpan("token", token)
            assertSilent("the token", shown(token))
            assertSilent("the service", shown(tokens))
            assertSilent("the clients", shown(httpClient) + shown(authorizedHttpClient))
          }),
          TokenStorage.layerStore(store)
        )
      )
      check(seen, exit, "a storage that quotes")
    }))

  it.effect("a configuration error", () =>
    Effect.gen(function*() {
      const program = Effect.scoped(Effect.provide(
        Alf.make({
          tokenEndpoint: `https://user:${encodeURIComponent(secret)}@auth.example/token`,
          clientId: "client",
          clientSecret: Redacted.make(secret),
          origins: "any"
        }),
        serve().layer
      ))
      const { exit, seen } = yield* watched(program)
      assert.isTrue(Exit.isFailure(exit))
      check(seen, exit, "a configuration error")
    }))

  it.effect("a static token", () =>
    Effect.gen(function*() {
      const server = serve({ api: unauthorized })
      const { exit, seen } = yield* watched(
        Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (_) => _.get(api)).pipe(
          Effect.provide(AuthorizedHttpClient.layer({ origins: [api] })),
          Effect.provide(TokenService.layerStatic(accessToken)),
          Effect.provide(server.layer)
        )
      )
      assert.isTrue(Exit.isFailure(exit))
      check(seen, exit, "a static token")
    }))
})
