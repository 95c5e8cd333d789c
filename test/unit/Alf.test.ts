import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigError,
  ConfigProvider,
  Context,
  DateTime,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Redacted,
  Schedule,
  TestClock
} from "effect"
import {
  AccessToken,
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenError,
  TokenService
} from "effect-alf"
import { inspect } from "node:util"
import { goodToken, json, type Scripted, scripted } from "../support/scriptedClient.ts"

const auth = "https://auth.test/token"
const api = "https://api.test"

const options = {
  tokenEndpoint: auth,
  clientId: "client",
  clientSecret: Redacted.make("secret"),
  origins: [api]
} satisfies Alf.Options

/** A token endpoint that hands out `t1`, `t2`, … and an API that takes every token. */
const servers = () => {
  let issued = 0
  return scripted(({ url }) => url.startsWith("https://auth") ? goodToken(`t${++issued}`) : json({ ok: true }))
}

const toAuth = (http: Scripted) => http.requests.filter(({ url }) => url.startsWith("https://auth"))
const toApi = (http: Scripted) => http.requests.filter(({ url }) => !url.startsWith("https://auth"))

describe("layer", () => {
  it.effect("gives an HttpClient whose requests carry a token, the typed client and the token service", () =>
    Effect.gen(function*() {
      const http = servers()
      yield* Effect.gen(function*() {
        yield* HttpClient.get(`${api}/a`)
        const authorized = yield* AuthorizedHttpClient.AuthorizedHttpClient
        yield* authorized.get(`${api}/b`)
        const tokens = yield* TokenService.TokenService
        assert.strictEqual(Redacted.value((yield* tokens.get).value), "t1")
      }).pipe(Effect.provide(Alf.layer(options)), Effect.provide(http.layer))
      assert.strictEqual(toAuth(http).length, 1)
      assert.deepStrictEqual(toApi(http).map(({ headers, url }) => [url, headers["authorization"]]), [
        [`${api}/a`, "Bearer t1"],
        [`${api}/b`, "Bearer t1"]
      ])
    }))

  it.effect("makes no token request as long as nothing is asked: the first need fetches", () =>
    Effect.gen(function*() {
      const http = servers()
      yield* Effect.gen(function*() {
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(http.requests.length, 0)
        yield* HttpClient.get("https://elsewhere.test")
        assert.strictEqual(toAuth(http).length, 0)
        yield* HttpClient.get(api)
        assert.strictEqual(toAuth(http).length, 1)
      }).pipe(Effect.provide(Alf.layer(options)), Effect.provide(http.layer))
    }))

  it.effect("asks by default with client credentials and HTTP Basic, and for nothing more", () =>
    Effect.gen(function*() {
      const http = servers()
      yield* HttpClient.get(api).pipe(Effect.provide(Alf.layer(options)), Effect.provide(http.layer))
      assert.strictEqual(toAuth(http)[0]?.body, "grant_type=client_credentials")
      assert.strictEqual(
        toAuth(http)[0]?.headers["authorization"],
        `Basic ${Buffer.from("client:secret").toString("base64")}`
      )
    }))

  it.effect("asks for scope, audience, resource and params", () =>
    Effect.gen(function*() {
      const http = servers()
      yield* HttpClient.get(api).pipe(
        Effect.provide(Alf.layer({
          ...options,
          scope: ["read", "write"],
          audience: "https://api.test/",
          resource: ["https://r1.test", "https://r2.test"],
          params: { tenant: "blue" }
        })),
        Effect.provide(http.layer)
      )
      assert.deepStrictEqual([...new URLSearchParams(toAuth(http)[0]?.body)], [
        ["grant_type", "client_credentials"],
        ["scope", "read write"],
        ["audience", "https://api.test/"],
        ["resource", "https://r1.test"],
        ["resource", "https://r2.test"],
        ["tenant", "blue"]
      ])
    }))

  it.effect("without a secret asks as a public client", () =>
    Effect.gen(function*() {
      const http = servers()
      const { clientSecret: _, ...rest } = options
      yield* HttpClient.get(api).pipe(Effect.provide(Alf.layer(rest)), Effect.provide(http.layer))
      assert.strictEqual(toAuth(http)[0]?.body, "grant_type=client_credentials&client_id=client")
      assert.notProperty(toAuth(http)[0]?.headers, "authorization")
    }))

  it.effect("uses a grant of one's own; what it requires, the layer requires", () =>
    Effect.gen(function*() {
      class Vault extends Context.Tag("Vault")<Vault, string>() {}
      const grant: Grant.Grant<Vault> = {
        key: "vault",
        acquire: () =>
          Effect.map(Vault, (text) =>
            new AccessToken.AccessToken({ value: Redacted.make(text), issuedAt: DateTime.unsafeMake(0) }))
      }
      const http = servers()
      yield* HttpClient.get(api).pipe(
        Effect.provide(Alf.layer({ ...options, grant })),
        Effect.provideService(Vault, "from-the-vault"),
        Effect.provide(http.layer)
      )
      assert.strictEqual(toAuth(http).length, 0)
      assert.strictEqual(toApi(http)[0]?.headers["authorization"], "Bearer from-the-vault")
    }))

  it.effect("hands tokenRetry, tokenTimeout and defaultExpiresIn on to the token endpoint", () =>
    Effect.gen(function*() {
      const http = scripted((_, n) => n === 0 ? Effect.never : json({ access_token: "t", token_type: "Bearer" }))
      const tokens = yield* Layer.build(Alf.layer({
        ...options,
        tokenRetry: Schedule.recurs(1),
        tokenTimeout: "3 seconds",
        defaultExpiresIn: "5 minutes"
      })).pipe(Effect.map(Context.get(TokenService.TokenService)), Effect.provide(http.layer))
      const fiber = yield* Effect.fork(tokens.get)
      yield* TestClock.adjust("3 seconds")
      const token = yield* fiber.await.pipe(Effect.flatten)
      assert.strictEqual(DateTime.toEpochMillis(token.issuedAt), 3_000)
      assert.strictEqual(DateTime.toEpochMillis(Option.getOrThrow(token.expiresAt)), 303_000)
    }).pipe(Effect.scoped))

  it.effect("hands the windows on to the token service", () =>
    Effect.gen(function*() {
      let issued = 0
      const http = scripted(() => goodToken(`t${++issued}`, { expires_in: 1_000 }))
      const tokens = yield* Layer.build(
        Alf.layer({ ...options, refreshAhead: 0, expiryLeeway: "40 seconds" })
      ).pipe(Effect.map(Context.get(TokenService.TokenService)), Effect.provide(http.layer))
      yield* tokens.get
      yield* TestClock.setTime(959_999)
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "t1")
      yield* TestClock.setTime(960_000)
      assert.strictEqual(Redacted.value((yield* tokens.get).value), "t2")
    }).pipe(Effect.scoped))
})

describe("the token's life", () => {
  /** A token endpoint that takes `delay` to answer with these members, and an API that refuses what was revoked. */
  const living = (members: Readonly<Record<string, unknown>>, delay: Duration.DurationInput = "1 second") => {
    let issued = 0
    const revoked = new Set<string>()
    const http = scripted((request) =>
      request.url.startsWith("https://auth")
        ? Effect.delay(Effect.sync(() => goodToken(`t${++issued}`, members)), delay)
        : json({}, { status: revoked.has(request.headers["authorization"] ?? "") ? 401 : 200 })
    )
    return { http, revoke: (token: string) => revoked.add(`Bearer ${token}`) }
  }

  /** Ten requests at once, and the header that each carried. */
  const ten = (client: HttpClient.HttpClient, http: Scripted) =>
    Effect.gen(function*() {
      const before = toApi(http).length
      const fiber = yield* Effect.fork(
        Effect.all(Array.from({ length: 10 }, () => client.get(api)), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(fiber)
      return toApi(http).slice(before).map(({ headers }) => headers["authorization"])
    })

  const clientOf = (
    http: Scripted,
    overrides: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>> = {}
  ) => Effect.map(Effect.provide(Alf.make({ ...options, ...overrides }), http.layer), ({ httpClient }) => httpClient)

  it.scoped.each(
    [
      ["expires_in 0", living({ expires_in: 0 })],
      ["a fraction of a second", living({ expires_in: 0.9 })]
    ] as const
  )("%s: serves the callers that wait for this fetch, is never kept", ([_, { http }]) =>
    Effect.gen(function*() {
      const client = yield* clientOf(http)
      assert.deepStrictEqual(yield* ten(client, http), Array.from({ length: 10 }, () => "Bearer t1"))
      assert.deepStrictEqual(yield* ten(client, http), Array.from({ length: 10 }, () => "Bearer t2"))
      assert.strictEqual(toAuth(http).length, 2)
    }))

  it.scoped("a token that is over when it arrives is fetched once more, serves the callers that wait, and is not kept", () =>
    Effect.gen(function*() {
      const { http } = living({ expires_in: 2 }, "3 seconds")
      const client = yield* clientOf(http)
      assert.deepStrictEqual(yield* ten(client, http), Array.from({ length: 10 }, () => "Bearer t2"))
      assert.deepStrictEqual(yield* ten(client, http), Array.from({ length: 10 }, () => "Bearer t4"))
    }))

  it.scoped("expires_in missing or null: valid until the API refuses it (a 401 renews it)", () =>
    Effect.gen(function*() {
      for (const expires_in of [undefined, null]) {
        const { http, revoke } = living({ expires_in })
        const client = yield* clientOf(http)
        yield* ten(client, http)
        yield* TestClock.adjust("3650 days")
        assert.strictEqual((yield* ten(client, http))[0], "Bearer t1")
        revoke("t1")
        const headers = yield* ten(client, http)
        assert.strictEqual(headers.filter((header) => header === "Bearer t2").length, 10)
        assert.strictEqual(toAuth(http).length, 2)
      }
    }))

  it.scoped("expires_in missing: defaultExpiresIn if given", () =>
    Effect.gen(function*() {
      const { http } = living({ expires_in: null })
      const client = yield* clientOf(http, { defaultExpiresIn: "1 hour", refreshAhead: 0 })
      yield* ten(client, http)
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual((yield* ten(client, http))[0], "Bearer t1")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* ten(client, http))[0], "Bearer t2")
    }))

  it.scoped("expires_in huge: capped, no overflow: the token is used, not fetched on every call", () =>
    Effect.gen(function*() {
      const { http } = living({ expires_in: Number.MAX_VALUE })
      const client = yield* clientOf(http)
      yield* ten(client, http)
      yield* TestClock.adjust("3650 days")
      assert.strictEqual((yield* ten(client, http))[0], "Bearer t1")
      assert.strictEqual(toAuth(http).length, 1)
    }))

  it.scoped("token_type in any case is sent as Bearer", () =>
    Effect.gen(function*() {
      const { http } = living({ token_type: "bEARER" })
      assert.strictEqual((yield* ten(yield* clientOf(http), http))[0], "Bearer t1")
    }))
})

describe("options that cannot work", () => {
  type Loose = { readonly [K in keyof Alf.Options]?: unknown }

  /** Options as a program gets them that no compiler has looked at. */
  const loose = (overrides: Loose): Alf.Options => ({ ...options, ...overrides }) as Alf.Options

  const built = (given: Alf.Options, http = servers()) =>
    Effect.exit(Effect.scoped(Layer.build(Alf.layer(given)))).pipe(
      Effect.provide(http.layer),
      Effect.tap(() => {
        assert.strictEqual(http.requests.length, 0)
      })
    )

  const issueOf = (given: Alf.Options) =>
    Effect.map(built(given), (exit) => {
      const shown = inspect(exit, { depth: Infinity, showHidden: true })
      assert.notInclude(shown, "MARKED")
      const error = Option.flatMap(Exit.causeOption(exit), Cause.failureOption)
      assert.isTrue(Option.isSome(error), "the layer was built")
      assert.instanceOf(Option.getOrThrow(error), TokenError.ConfigurationError)
      return Option.getOrThrow(error).message
    })

  const cases: ReadonlyArray<readonly [what: string, overrides: Loose, field: string, remedy: string]> = [
    ["a token endpoint that is no URL", { tokenEndpoint: "MARKED auth" }, "tokenEndpoint", "https://auth.example.com"],
    ["a token endpoint without a host", { tokenEndpoint: "/MARKED" }, "tokenEndpoint", "https://auth.example.com"],
    ["an empty token endpoint", { tokenEndpoint: "" }, "tokenEndpoint", "https://auth.example.com"],
    ["no token endpoint", { tokenEndpoint: undefined }, "tokenEndpoint", "https://auth.example.com"],
    ["a token endpoint of another scheme", { tokenEndpoint: "ftp://auth.test/MARKED" }, "tokenEndpoint", "https://"],
    [
      "a password alone in the token endpoint",
      { tokenEndpoint: "https://:MARKED@auth.test/token" },
      "tokenEndpoint",
      "user info"
    ],
    [
      "user info in the token endpoint",
      { tokenEndpoint: "https://MARKED-id:MARKED-secret@auth.test/token" },
      "tokenEndpoint",
      "leave it out"
    ],
    [
      "a user in the token endpoint",
      { tokenEndpoint: "https://MARKED@auth.test/token" },
      "tokenEndpoint",
      "leave it out"
    ],
    ["a fragment in the token endpoint", { tokenEndpoint: `${auth}#MARKED` }, "tokenEndpoint", "leave out"],
    ["plain http", { tokenEndpoint: "http://auth.test/MARKED" }, "tokenEndpoint", "use https"],
    ["plain http to a host called like loopback", { tokenEndpoint: "http://localhost.test" }, "tokenEndpoint", "https"],
    [
      "plain http to a host that begins like loopback",
      { tokenEndpoint: "http://127.0.0.1.test" },
      "tokenEndpoint",
      "https"
    ],
    ["plain http to a neighbour of loopback", { tokenEndpoint: "http://128.0.0.1/" }, "tokenEndpoint", "https"],
    ["plain http to the network", { tokenEndpoint: "http://0.0.0.0/" }, "tokenEndpoint", "https"],
    ["plain http over IPv6", { tokenEndpoint: "http://[::2]/" }, "tokenEndpoint", "https"],
    ["an empty client id", { clientId: "" }, "clientId", "write the identifier"],
    ["no client id", { clientId: undefined }, "clientId", "write the identifier"],
    ["a secret that is not redacted", { clientSecret: "MARKED" }, "clientSecret", "Redacted.make"],
    [
      "basic without a secret",
      { clientSecret: undefined, clientAuthentication: ClientAuthentication.basic },
      "clientAuthentication",
      "ClientAuthentication.none"
    ],
    [
      "basicRaw without a secret",
      { clientSecret: undefined, clientAuthentication: ClientAuthentication.basicRaw },
      "clientAuthentication",
      "clientSecret"
    ],
    [
      "post without a secret",
      { clientSecret: undefined, clientAuthentication: ClientAuthentication.post },
      "clientAuthentication",
      "clientSecret"
    ],
    [
      "an id with a colon for basicRaw",
      { clientId: "a:b", clientAuthentication: ClientAuthentication.basicRaw },
      "clientId",
      "use basic or post"
    ],
    ["a time-out of nothing", { tokenTimeout: 0 }, "tokenTimeout", "10 seconds"],
    ["a negative time-out", { tokenTimeout: -1 }, "tokenTimeout", "10 seconds"],
    ["a time-out without end", { tokenTimeout: Infinity }, "tokenTimeout", "10 seconds"],
    ["a time-out that is no duration", { tokenTimeout: "a while" }, "tokenTimeout", "10 seconds"],
    ["a negative defaultExpiresIn", { defaultExpiresIn: "-1 minutes" }, "defaultExpiresIn", "10 seconds"],
    ["a defaultExpiresIn that is no duration", { defaultExpiresIn: "long" }, "defaultExpiresIn", "10 seconds"],
    ["a leeway that is no duration", { expiryLeeway: "a while" }, "expiryLeeway", "10 seconds"],
    ["a refreshAhead that is no duration", { refreshAhead: {} }, "refreshAhead", "10 seconds"],
    ["a cooldown that is no duration", { refusalCooldown: "soon" }, "refusalCooldown", "10 seconds"],
    ["negative retries", { tokenRetry: { times: -1 } }, "tokenRetry.times", "0 for none"],
    ["half a retry", { tokenRetry: { times: 1.5 } }, "tokenRetry.times", "whole number"],
    ["retries without end", { tokenRetry: { times: Infinity } }, "tokenRetry.times", "whole number"],
    ["pauses that shrink", { tokenRetry: { factor: 0.5 } }, "tokenRetry.factor", "such as 2"],
    ["pauses that grow by NaN", { tokenRetry: { factor: NaN } }, "tokenRetry.factor", "such as 2"],
    ["no first pause", { tokenRetry: { base: 0 } }, "tokenRetry.base", "10 seconds"],
    ["a longest pause of nothing", { tokenRetry: { maxDelay: 0 } }, "tokenRetry.maxDelay", "10 seconds"],
    ["a status that is no number", { tokenRetry: { statuses: ["500"] } }, "tokenRetry.statuses", "503"],
    ["no origins", { origins: undefined }, "origins", "any"],
    ["origins in one text", { origins: "https://api.test" }, "origins", "list"],
    ["an empty list of origins", { origins: [] }, "origins", "list the origins"],
    ["an origin without a scheme", { origins: [api, "api.MARKED.test"] }, "origins[1]", "https://api.example.com"],
    ["an origin of another scheme", { origins: ["ftp://MARKED.test"] }, "origins[0]", "https://api.example.com"],
    ["an origin that is a pattern", { origins: ["*"] }, "origins[0]", "https://api.example.com"],
    ["a grant_type among the parameters", { params: { grant_type: "password" } }, "params.grant_type", "grant"],
    ["a scope among the parameters too", { scope: "a", params: { scope: "b" } }, "params.scope", "one of the two"],
    ["an audience too", { audience: "a", params: { audience: "b" } }, "params.audience", "one of the two"],
    ["a client_id among the parameters", { params: { client_id: "x" } }, "params.client_id", "clientId"],
    [
      "a client_secret among the parameters",
      { params: { client_secret: "MARKED" } },
      "params.client_secret",
      "clientSecret"
    ]
  ]

  it.effect.each(cases)("%s: ConfigurationError that names the field and says what to write instead", ([
    _,
    overrides,
    field,
    remedy
  ]) =>
    Effect.gen(function*() {
      const issue = yield* issueOf(loose(overrides))
      assert.include(issue, field)
      assert.include(issue, remedy)
    }))

  it.effect("what a grant finds wrong with its own options is one too", () =>
    Effect.gen(function*() {
      const grant: Grant.Grant = {
        key: "own",
        acquire: () => Effect.never,
        validate: Effect.fail(new TokenError.ConfigurationError({ issue: "realm is empty: write one" }))
      }
      assert.strictEqual(yield* issueOf({ ...options, grant }), "realm is empty: write one")
      assert.strictEqual(yield* issueOf({ ...options, grant: Grant.refreshToken(grant) }), "realm is empty: write one")
    }))

  it.effect("are found by make and layerConfig as well", () =>
    Effect.gen(function*() {
      const fromMake = yield* Effect.flip(Effect.scoped(Alf.make({ ...options, clientId: "" })))
      const fromConfig = yield* Effect.flip(
        Effect.scoped(Layer.build(Alf.layerConfig({ ...options, clientId: Config.succeed("") })))
      )
      for (const error of [fromMake, fromConfig]) {
        assert.instanceOf(error, TokenError.ConfigurationError)
        assert.include(error.issue, "clientId")
      }
    }).pipe(Effect.provide(servers().layer)))

  const works: ReadonlyArray<readonly [string, Loose]> = [
    ["http://127.0.0.1", { tokenEndpoint: "http://127.0.0.1:8080/token" }],
    ["http on all of 127.0.0.0/8", { tokenEndpoint: "http://127.255.3.4/token" }],
    ["http://[::1]", { tokenEndpoint: "http://[::1]:8080/token" }],
    ["http://localhost", { tokenEndpoint: "http://localhost/token" }],
    ["plain http with allowInsecureTokenEndpoint", {
      tokenEndpoint: "http://a.test",
      allowInsecureTokenEndpoint: true
    }],
    ["a query in the token endpoint", { tokenEndpoint: `${auth}?tenant=blue` }],
    ["a URL object", { tokenEndpoint: new URL(auth), origins: [new URL(api)] }],
    ["an id with a colon for basic", { clientId: "a:b" }],
    ["none with a secret", { clientAuthentication: ClientAuthentication.none }],
    ["any origin", { origins: "any" }],
    ["windows of nothing and without end", { expiryLeeway: 0, refreshAhead: Infinity, refusalCooldown: 0 }],
    ["no retries", { tokenRetry: { times: 0, factor: 1, statuses: [] } }],
    ["undefined for every option that may be left out", {
      clientAuthentication: undefined,
      grant: undefined,
      scope: undefined,
      audience: undefined,
      resource: undefined,
      params: undefined,
      tokenRetry: undefined,
      tokenTimeout: undefined,
      expiryLeeway: undefined,
      refreshAhead: undefined,
      defaultExpiresIn: undefined,
      refusalCooldown: undefined,
      allowInsecureTokenEndpoint: undefined
    }]
  ]

  it.effect.each(works)("do not include %s", ([_, overrides]) =>
    Effect.gen(function*() {
      assert.isTrue(Exit.isSuccess(yield* built(loose(overrides))))
    }))
})

describe("layerConfig", () => {
  type AlfLayer = Layer.Layer<
    HttpClient.HttpClient,
    TokenError.ConfigurationError | ConfigError.ConfigError,
    HttpClient.HttpClient
  >

  const get = (layer: AlfLayer, http: Scripted, env: ReadonlyArray<[string, string]>) =>
    HttpClient.get(api).pipe(
      Effect.provide(layer),
      Effect.provide(http.layer),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(env)))
    )

  it.effect("takes plain values and Configs side by side", () =>
    Effect.gen(function*() {
      const http = servers()
      const layer = Alf.layerConfig({
        tokenEndpoint: Config.string("AUTH_URL"),
        clientId: Config.string("AUTH_ID"),
        clientSecret: Config.redacted("AUTH_SECRET"),
        scope: Config.array(Config.string(), "AUTH_SCOPE"),
        audience: "plain",
        tokenTimeout: Config.duration("AUTH_TIMEOUT"),
        clientAuthentication: ClientAuthentication.post,
        origins: [api]
      })
      yield* get(layer, http, [
        ["AUTH_URL", "https://auth.test/from-config"],
        ["AUTH_ID", "id-from-config"],
        ["AUTH_SECRET", "secret-from-config"],
        ["AUTH_SCOPE", "read,write"],
        ["AUTH_TIMEOUT", "3 seconds"]
      ])
      const [request] = toAuth(http)
      assert.strictEqual(request?.url, "https://auth.test/from-config")
      assert.deepStrictEqual([...new URLSearchParams(request?.body)], [
        ["grant_type", "client_credentials"],
        ["scope", "read write"],
        ["audience", "plain"],
        ["client_id", "id-from-config"],
        ["client_secret", "secret-from-config"]
      ])
    }))

  it.effect("takes plain values alone", () =>
    Effect.gen(function*() {
      const http = servers()
      yield* get(Alf.layerConfig(options), http, [])
      assert.strictEqual(toApi(http)[0]?.headers["authorization"], "Bearer t1")
    }))

  it.effect("takes a URL, a list of origins and an option that may be missing from Configs", () =>
    Effect.gen(function*() {
      const http = servers()
      const layer = Alf.layerConfig({
        ...options,
        tokenEndpoint: Config.url("AUTH_URL"),
        origins: Config.array(Config.string(), "API_ORIGINS"),
        audience: Config.string("AUTH_AUDIENCE").pipe(Config.withDefault(undefined))
      })
      yield* get(layer, http, [["AUTH_URL", auth], ["API_ORIGINS", `https://other.test,${api}`]])
      assert.strictEqual(toAuth(http)[0]?.body, "grant_type=client_credentials")
      assert.strictEqual(toApi(http)[0]?.headers["authorization"], "Bearer t1")
    }))

  it.effect("does not take the Effect of a secret for a Config: it is run for each token request", () =>
    Effect.gen(function*() {
      let reads = 0
      const layer = Alf.layerConfig({
        ...options,
        clientId: Config.string("AUTH_ID"),
        clientSecret: Effect.sync(() => Redacted.make(`secret-${++reads}`))
      })
      const http = scripted(() => goodToken("t"))
      yield* Effect.gen(function*() {
        const tokens = yield* TokenService.TokenService
        assert.strictEqual(reads, 0)
        yield* tokens.get
        yield* tokens.invalidate
        yield* tokens.get
        assert.strictEqual(reads, 2)
      }).pipe(
        Effect.provide(layer),
        Effect.provide(http.layer),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["AUTH_ID", "id"]])))
      )
    }))

  it.effect("a Config that cannot be read: ConfigError that names it, before any request", () =>
    Effect.gen(function*() {
      const http = servers()
      const layer = Alf.layerConfig({ ...options, clientId: Config.string("AUTH_ID") })
      const error = yield* Effect.flip(get(layer, http, []))
      assert.isTrue(ConfigError.isConfigError(error))
      assert.include(String(error), "AUTH_ID")
      assert.strictEqual(http.requests.length, 0)
    }))

  it.effect("a Config whose value cannot work: ConfigurationError", () =>
    Effect.gen(function*() {
      const layer = Alf.layerConfig({ ...options, tokenEndpoint: Config.string("AUTH_URL") })
      const error = yield* Effect.flip(get(layer, servers(), [["AUTH_URL", "auth"]]))
      assert.instanceOf(error, TokenError.ConfigurationError)
    }))
})

describe("make", () => {
  it.effect("serves programs with two APIs: one make each, each under a tag of one's own", () =>
    Effect.gen(function*() {
      class Billing extends Context.Tag("Billing")<Billing, HttpClient.HttpClient>() {}
      class Shipping extends Context.Tag("Shipping")<
        Shipping,
        AuthorizedHttpClient.AuthorizedHttpClient["Type"]
      >() {}
      const http = scripted(({ url }) =>
        url.startsWith("https://auth-b")
          ? goodToken("b")
          : url.startsWith("https://auth-s")
          ? goodToken("s")
          : json({})
      )
      const billing = Layer.scoped(
        Billing,
        Effect.map(
          Alf.make({ ...options, tokenEndpoint: "https://auth-b.test", origins: ["https://billing.test"] }),
          ({ httpClient }) => httpClient
        )
      )
      const shipping = Layer.scoped(
        Shipping,
        Effect.map(
          Alf.make({ ...options, tokenEndpoint: "https://auth-s.test", origins: ["https://shipping.test"] }),
          ({ authorizedHttpClient }) => authorizedHttpClient
        )
      )
      yield* Effect.gen(function*() {
        const [billing, shipping] = yield* Effect.all([Billing, Shipping])
        for (const client of [billing, shipping, yield* HttpClient.HttpClient]) {
          yield* client.get("https://billing.test/")
          yield* client.get("https://shipping.test/")
        }
      }).pipe(Effect.provide([billing, shipping]), Effect.provide(http.layer))
      assert.deepStrictEqual(
        toApi(http).map(({ headers, url }) => [url, headers["authorization"]]),
        [
          ["https://billing.test/", "Bearer b"],
          ["https://shipping.test/", undefined],
          ["https://billing.test/", undefined],
          ["https://shipping.test/", "Bearer s"],
          ["https://billing.test/", undefined],
          ["https://shipping.test/", undefined]
        ]
      )
    }))

  it.effect("gives the service behind the two clients: what is invalidated there is fetched anew for both", () =>
    Effect.gen(function*() {
      const http = servers()
      const { authorizedHttpClient, httpClient, tokens } = yield* Effect.provide(Alf.make(options), http.layer)
      yield* httpClient.get(api)
      yield* tokens.invalidate
      yield* authorizedHttpClient.get(api)
      yield* httpClient.get(api)
      assert.deepStrictEqual(toApi(http).map(({ headers }) => headers["authorization"]), [
        "Bearer t1",
        "Bearer t2",
        "Bearer t2"
      ])
    }).pipe(Effect.scoped))
})
