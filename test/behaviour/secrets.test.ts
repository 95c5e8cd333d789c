/**
 * A secret, a token or an assertion never appears in a log, a span attribute, an error's message, its JSON,
 * `util.inspect` or `Cause.pretty`. The whole library runs here with marked secrets, over servers that echo all they
 * are sent, and whatever it shows is searched for the marks.
 */
import { Headers, HttpClient, HttpClientError, HttpClientRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Data,
  DateTime,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Option,
  Redacted,
  Schedule
} from "effect"
import {
  AccessToken,
  Alf,
  AuthorizedHttpClient,
  ClientAuthentication,
  Grant,
  TokenError,
  TokenService,
  TokenStorage
} from "effect-alf"
import { inspect } from "node:util"
import { overEach, type Presentation } from "../support/presentations.ts"
import { recordLogs, recordSpans } from "../support/recorders.ts"
import { broken, goodToken, json, type Received, type Scripted, scripted } from "../support/scriptedClient.ts"
import { adjust } from "../support/testClock.ts"

const clientId = "client &"
const secret = "MARKED secret/&+\"é"
const encoded = (text: string) => new URLSearchParams({ "": text }).toString().slice(1)
const base64 = (text: string) => Buffer.from(text).toString("base64")

const beginningOfProof = base64("{\"typ\":\"dpop+jw")

/** Every writing of a secret, in which `MARKED` cannot be found, is listed. */
const marks = [
  "MARKED",
  base64(`${encoded(clientId)}:${encoded(secret)}`),
  base64(`${clientId}:${secret}`),
  base64(secret),
  beginningOfProof
]

const api = "https://api.test"
const auth = "https://auth.test/token"

const options = {
  tokenEndpoint: auth,
  clientId,
  clientSecret: Redacted.make(secret),
  origins: [api],
  tokenRetry: { times: 1 }
} satisfies Alf.Options

/** What the tests need of a presentation. */
const over = ({ options: presented, scheme }: Presentation) => ({
  options: { ...options, ...presented },
  token: (name: string, members?: Readonly<Record<string, unknown>>) =>
    goodToken(name, { token_type: scheme, ...members })
})

const isAuth = ({ url }: Received) => url.startsWith(auth)

/** What a server says that shows its visitors all they sent. */
const echo = ({ body, headers }: Received) => `You sent ${JSON.stringify(headers)} and ${body}`

/** All the ways in which a value gets onto a screen or into a file. */
const showings = (value: unknown): ReadonlyArray<string> => {
  const errors = (error: unknown): ReadonlyArray<string> =>
    error instanceof Error ? [error.name, error.message, error.stack ?? "", ...errors(error.cause)] : []
  const cause = Cause.isCause(value) ? value : Cause.fail(value)
  return [
    inspect(value),
    inspect(value, { depth: Infinity }),
    inspect(value, { depth: Infinity, getters: true }),
    String(value),
    JSON.stringify(value) ?? "",
    Cause.pretty(cause),
    Cause.pretty(cause, { renderErrorCause: true }),
    inspect(Exit.failCause(cause), { depth: Infinity }),
    JSON.stringify(Exit.failCause(cause)),
    ...errors(value)
  ]
}

/** What a debugger shows of a value: all of it, however it would like to be shown. */
const insides = (value: unknown): ReadonlyArray<string> => [
  inspect(value, { depth: Infinity, showHidden: true }),
  inspect(value, { depth: Infinity, showHidden: true, customInspect: false })
]

const assertHidden = (where: string, texts: ReadonlyArray<string>) => {
  for (const text of texts) {
    for (const mark of marks) {
      const at = text.indexOf(mark)
      assert.isTrue(at < 0, `${where} shows a secret: …${text.slice(Math.max(0, at - 120), at + 80)}…`)
    }
  }
}

/** Collects what loggers of all kinds print, at every level. */
const printed = () => {
  const texts: Array<string> = []
  const layer = Layer.mergeAll(
    Logger.minimumLogLevel(LogLevel.All),
    ...[Logger.stringLogger, Logger.logfmtLogger, Logger.jsonLogger].map((logger) =>
      Logger.add(Logger.map(logger, (text) => void texts.push(text)))
    ),
    Logger.add(Logger.map(Logger.structuredLogger, (line) => void texts.push(inspect(line, { depth: Infinity }))))
  )
  return { texts, layer }
}

/** Runs a program, and looks for secrets in its logs, its spans, and in what it ends with. */
const watched = <A, E>(
  http: Scripted,
  program: Effect.Effect<A, E, HttpClient.HttpClient>
) =>
  Effect.gen(function*() {
    const logs = recordLogs()
    const spans = recordSpans()
    const print = printed()
    const fiber = yield* Effect.fork(
      program.pipe(
        Effect.exit,
        Effect.withSpan("program"),
        Effect.provide(Layer.mergeAll(logs.layer, print.layer, spans.layer)),
        Effect.provide(http.layer)
      )
    )
    yield* adjust("10 minutes")
    const exit = yield* Fiber.join(fiber)

    assert.isNotEmpty(logs.lines)
    assertHidden("a log", [...print.texts, ...logs.lines.map((line) => inspect(line, { depth: Infinity }))])
    assert.isNotEmpty(spans.spans)
    for (const { attributes, events, name, status } of spans.spans) {
      // the headers of an answer are what the API chose to say, in a span of the client below
      const ours = [...attributes].filter(([key]) => !key.startsWith("http.response.header."))
      assertHidden(`the span ${name}`, [
        inspect(ours, { depth: Infinity }),
        inspect(events, { depth: Infinity }),
        status._tag === "Ended" && Exit.isFailure(status.exit) ? Cause.pretty(status.exit.cause) : ""
      ])
    }
    if (Exit.isFailure(exit)) {
      assertHidden("the cause", showings(exit.cause))
      for (const error of [...Cause.failures(exit.cause), ...Cause.defects(exit.cause)]) {
        assertHidden("the error", showings(error))
      }
    }
    return exit
  })

const failed = <A, E>(exit: Exit.Exit<A, E>): E =>
  Option.getOrThrowWith(Option.flatMap(Exit.causeOption(exit), Cause.failureOption), () => new Error("did not fail"))

const assertOnTheWire = (http: Scripted, mark: string) => {
  assert.include(JSON.stringify(http.requests.map(({ body, headers, url }) => [url, headers, body])), mark)
}

const dropIn = Effect.flatMap(HttpClient.HttpClient, (client) => client.get(`${api}/data?q=1`))
const typed = Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (client) => client.get(`${api}/data?q=1`))

/** What is done with the library, and the tag of the error that it ends in. */
const ends: ReadonlyArray<
  readonly [
    name: string,
    handler: (request: Received, n: number) => Response | Effect.Effect<Response, HttpClientError.HttpClientError>,
    overrides: Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>,
    tag: string
  ]
> = [
  [
    "invalid_client, all that was sent echoed in every member",
    (request) =>
      json({ error: "invalid_client", error_description: echo(request), error_uri: `${auth}?${echo(request)}` }, {
        status: 401
      }),
    {},
    "TokenErrorResponse"
  ],
  [
    "an error code that is an echo",
    (request) => json({ error: echo(request) }, { status: 400 }),
    {},
    "TokenErrorResponse"
  ],
  [
    "a page that echoes",
    (request) => new Response(`<p>${echo(request)}</p>`, { status: 502 }),
    {},
    "TokenErrorResponse"
  ],
  [
    "a page that echoes the form of post",
    (request) => new Response(`<p>${echo(request)}</p>`, { status: 502 }),
    { clientAuthentication: ClientAuthentication.post },
    "TokenErrorResponse"
  ],
  [
    "a page that echoes basicRaw",
    (request) => new Response(`<p>${echo(request)}</p>`, { status: 502 }),
    { clientAuthentication: ClientAuthentication.basicRaw },
    "TokenErrorResponse"
  ],
  [
    "an error beside a token",
    () => goodToken("MARKED-access", { error: "odd", refresh_token: "MARKED-refresh", id_token: "MARKED-id" }),
    {},
    "TokenErrorResponse"
  ],
  ["a redirect", () => new Response(null, { status: 302, headers: { location: api } }), {}, "TokenErrorResponse"],
  ["a success that is no token and echoes", (request) => new Response(echo(request)), {}, "InvalidTokenResponse"],
  ["an access_token with a space", () => goodToken("MARKED access"), {}, "InvalidTokenResponse"],
  [
    "a connection that breaks, with an error that echoes",
    (request) => broken(request, new Error(echo(request), { cause: new Error(echo(request)) })),
    {},
    "TokenRequestError"
  ],
  ["no answer in time", () => Effect.never, {}, "TokenRequestError"],
  [
    "a secret that cannot be read",
    () => goodToken("MARKED"),
    { clientSecret: Effect.fail(new Error("MARKED vault: no such secret", { cause: "MARKED" })) },
    "TokenRequestError"
  ]
]

overEach("a token error shows no secret", (presentation) => {
  const { options } = over(presentation)
  const { scheme } = presentation
  for (const [name, handler, overrides, tag] of ends) {
    it.effect(`of the typed client: ${name}`, () =>
      Effect.gen(function*() {
        const http = scripted(handler)
        const error = failed(
          yield* watched(http, Effect.provide(typed, Alf.layer({ ...options, ...overrides })))
        )
        assert.strictEqual(error._tag, tag)
        assert.isTrue(TokenError.isTokenError(error))
        assertHidden("the insides of the error", insides(error))
        assert.isTrue(http.requests.every(isAuth))
      }))

    // what a token error becomes is the same for all tokens
    if (scheme === "DPoP") continue
    it.effect(`of the drop-in client, whose error's cause is the token error: ${name}`, () =>
      Effect.gen(function*() {
        const http = scripted(handler)
        const error = failed(
          yield* watched(http, Effect.provide(dropIn, Alf.layer({ ...options, ...overrides })))
        )
        assert.isTrue(HttpClientError.isHttpClientError(error))
        assert.isTrue(TokenError.isTokenError(error.cause))
        assertHidden("the cause of the error", [...showings(error.cause), ...insides(error)])
        if (HttpClientError.isHttpClientError(error) && error._tag === "ResponseError") {
          assertHidden("the response of the error", [yield* error.response.text, ...showings(error.response)])
        }
      }))
  }

  it.effect("and the secret was on the wire all the same", () =>
    Effect.gen(function*() {
      const basic = scripted((request) => new Response(echo(request), { status: 400 }))
      yield* watched(basic, Effect.provide(typed, Alf.layer(options)))
      assertOnTheWire(basic, base64(`${encoded(clientId)}:${encoded(secret)}`))
      const post = scripted((request) => new Response(echo(request), { status: 400 }))
      yield* watched(
        post,
        Effect.provide(typed, Alf.layer({ ...options, clientAuthentication: ClientAuthentication.post }))
      )
      assertOnTheWire(post, encoded(secret))
    }))
})

overEach("a program that goes well shows no secret", (presentation) => {
  const { options, token } = over(presentation)
  const { scheme } = presentation
  /** A token per request, with a refresh token; an API that takes any but those that were revoked. */
  const servers = () => {
    let issued = 0
    const revoked = new Set<string | undefined>()
    const http = scripted((request) => {
      if (isAuth(request)) {
        issued++
        return token(`MARKED-access-${issued}`, { expires_in: 100, refresh_token: `MARKED-refresh-${issued}` })
      }
      const { authorization, dpop } = request.headers
      return revoked.has(authorization)
        ? new Response(echo(request), {
          status: 401,
          headers: {
            "www-authenticate": `${scheme} error="invalid_token", error_description="${authorization} ${dpop} is bad"`
          }
        })
        : new Response("fine")
    })
    return { http, revoke: (token: string) => revoked.add(`${scheme} ${token}`) }
  }

  it.effect("in its logs, spans, contexts and values: fetch, renewal, 401, replay, refresh token, storage, end", () =>
    Effect.gen(function*() {
      const { http, revoke } = servers()
      const grant = Grant.refreshToken(Grant.clientCredentials({ scope: "a" }), {
        initial: Redacted.make("MARKED-refresh-0")
      })
      const layer = Alf.layer({ ...options, grant })
      const seen = (where: string, value: unknown) => assertHidden(where, [...showings(value), ...insides(value)])

      const exit = yield* watched(
        http,
        Effect.gen(function*() {
          seen("the layer", layer)
          seen("the grant", grant)
          const context = yield* Layer.build(layer)
          const tokens = Context.get(context, TokenService.TokenService)
          const client = Context.get(context, HttpClient.HttpClient)
          const authorized = Context.get(context, AuthorizedHttpClient.AuthorizedHttpClient)
          seen("the context before the first token", context)

          yield* client.get(`${api}/a`)
          seen("the context with a token", context)
          seen("the token", yield* tokens.get)
          seen("the client", client)
          seen("the typed client", authorized)
          seen("the service", tokens)

          yield* Effect.sleep("85 seconds")
          yield* client.get(`${api}/renewed-in-the-background`)
          yield* Effect.sleep("1 second")
          revoke("MARKED-access-2")
          yield* authorized.post(`${api}/replayed`)
          yield* tokens.invalidate
          yield* Effect.sleep("5 minutes")
          yield* client.get(`${api}/expired`)
          seen("the context after a while", context)
        }).pipe(Effect.scoped, Effect.provide(TokenStorage.layerMemory))
      )
      assert.isTrue(Exit.isSuccess(exit), inspect(exit))
      for (const mark of ["MARKED-refresh-0", "MARKED-refresh-1", "MARKED-access-1", "MARKED-access-3"]) {
        assertOnTheWire(http, mark)
      }
      if (scheme === "DPoP") assertOnTheWire(http, beginningOfProof)
    }))

  it.effect("in spans, where the program has replaced the list of headers that they do not show", () =>
    Effect.gen(function*() {
      let issued = 0
      const http = scripted((request) => isAuth(request) ? token(`MARKED-access-${++issued}`) : json({}))
      for (const header of scheme === "DPoP" ? [undefined] : [undefined, { name: "x-own-token" }]) {
        const layer = Alf.layer({ ...options, header, clientAuthentication: ClientAuthentication.basic })
        const program = Effect.locally(
          Effect.provide(Effect.zipRight(typed, dropIn), layer),
          Headers.currentRedactedNames,
          []
        )
        const exit = yield* watched(http, program)
        assert.isTrue(Exit.isSuccess(exit))
      }
      assertOnTheWire(http, `${scheme} MARKED-access-1`)
      if (scheme === "Bearer") assertOnTheWire(http, "\"x-own-token\":\"MARKED-access-2\"")
    }))

  it.effect("in the context and the fiber while a token request is under way", () =>
    Effect.gen(function*() {
      const http = scripted(() => Effect.never)
      const context = yield* Effect.provide(Layer.build(Alf.layer(options)), http.layer)
      const fiber = yield* Effect.fork(Context.get(context, TokenService.TokenService).get)
      yield* adjust("1 second")
      assert.strictEqual(http.requests.length, 1)
      assertHidden("the context", [...showings(context), ...insides(context)])
      assertHidden("the fiber", [String(fiber), JSON.stringify(fiber), inspect(fiber, { depth: Infinity })])
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.scoped))

  it.effect("in the 401 that survives, whose challenge and body echo the token: Unauthorized", () =>
    Effect.gen(function*() {
      const { http, revoke } = servers()
      revoke("MARKED-access-1")
      revoke("MARKED-access-2")
      const error = failed(yield* watched(http, Effect.provide(typed, Alf.layer(options))))
      assert.instanceOf(error, AuthorizedHttpClient.Unauthorized)
      assert.strictEqual(error.url, `${api}/data`)
      assert.strictEqual(error.challenges[0]?.params["error"], "invalid_token")
      assertOnTheWire(http, "MARKED-access-2")
    }))

  it.effect("in a URL that is still relative", () =>
    Effect.gen(function*() {
      const { http } = servers()
      const error = failed(
        yield* watched(
          http,
          Effect.provide(
            Effect.zipRight(dropIn, Effect.flatMap(HttpClient.HttpClient, (client) => client.get("/relative"))),
            Alf.layer(options)
          )
        )
      )
      assert.strictEqual(error._tag, "RequestError")
    }))
})

overEach("an error of the API shows no token", (presentation) => {
  const { options, token } = over(presentation)
  const { scheme } = presentation
  const answers: ReadonlyArray<
    readonly [string, (request: Received) => Response | Effect.Effect<Response, HttpClientError.HttpClientError>]
  > = [
    ["a connection that breaks", (request) => broken(request)],
    ["a status that a client below turns into an error", () => new Response("no", { status: 500 })],
    ["a 401 that a client below turns into an error", () => new Response("no", { status: 401 })]
  ]
  const flavours: ReadonlyArray<
    readonly [
      string,
      Effect.Effect<unknown, unknown, AuthorizedHttpClient.AuthorizedHttpClient | HttpClient.HttpClient>
    ]
  > = [["typed", typed], ["drop-in", dropIn]]
  for (const [name, answer] of answers) {
    for (const [flavour, program] of flavours) {
      it.effect(`${name}, ${flavour} client`, () =>
        Effect.gen(function*() {
          let issued = 0
          const http = scripted((request) => isAuth(request) ? token(`MARKED-access-${++issued}`) : answer(request))
          const filtered = {
            ...http,
            layer: Layer.succeed(HttpClient.HttpClient, HttpClient.filterStatusOk(http.client))
          }
          failed(yield* watched(filtered, Effect.provide(program, Alf.layer(options))))
          assertOnTheWire(http, `${scheme} MARKED-access-1`)
        }))
    }
  }

  it.effect("above the client either: a status that becomes an error there", () =>
    Effect.gen(function*() {
      const http = scripted((request) => isAuth(request) ? token("MARKED-access") : new Response("no", { status: 500 }))
      const program = Effect.flatMap(
        HttpClient.HttpClient,
        (client) => HttpClient.filterStatusOk(client).execute(HttpClientRequest.get(`${api}/data`))
      )
      failed(yield* watched(http, Effect.provide(program, Alf.layer(options))))
    }))
})

class Wrapped extends Data.TaggedError("Wrapped")<{ readonly reason: unknown }> {}

/** What is no error and holds one. */
class Envelope {
  readonly content: unknown
  constructor(content: unknown) {
    this.content = content
  }
}

/** A failure of a client below, in every shape that programs give to failures. `error` holds the request as it was sent. */
const shapes: ReadonlyArray<readonly [string, (error: unknown, sent: string) => Effect.Effect<never, unknown>]> = [
  ["an error as it is", (error) => Effect.fail(error)],
  ["a defect", (error) => Effect.die(error)],
  ["an error of a class of its own", (error) => Effect.fail(new Wrapped({ reason: error }))],
  ["a defect of a class of its own", (error) => Effect.die(new Wrapped({ reason: [{ deep: { down: error } }] }))],
  ["a chain of causes", (error) => Effect.fail(new Error("1", { cause: new Error("2", { cause: error }) }))],
  ["an AggregateError", (error) => Effect.die(new AggregateError([new Error("other"), error], "several"))],
  ["an object that is no error", (error) => Effect.fail({ error })],
  ["an instance that is no error", (error) => Effect.die(new Error("enveloped", { cause: new Envelope(error) }))],
  ["a Map and a Set", (error) => Effect.fail(new Error("kept", { cause: new Map([["a", new Set([error])]]) }))],
  ["a message", (_, sent) => Effect.fail(new Error(`sent ${sent}`))],
  ["a message of a defect, and its stack", (_, sent) => Effect.die(new TypeError(`Invalid header value ${sent}`))],
  ["a text", (_, sent) => Effect.die(`sent ${sent}`)],
  [
    "raw bytes, as of a parser",
    (_, sent) => Effect.fail(Object.assign(new Error("parse"), { data: Buffer.from(sent) }))
  ],
  ["a cycle", (error) => {
    const cycle: { self?: unknown; readonly error: unknown } = { error }
    cycle.self = cycle
    return Effect.die(new Error("cyclic", { cause: cycle }))
  }],
  ["two at once", (error) => Effect.zipRight(Effect.fail(error), Effect.never, { concurrent: true })],
  ["one after the other", (error) => Effect.ensuring(Effect.fail(error), Effect.die(new Wrapped({ reason: error })))]
]

overEach("whatever shape the failure of a client below has", (presentation) => {
  const { options, token } = over(presentation)
  const { scheme } = presentation
  for (const [shape, fail] of shapes) {
    const failing = (isFailing: (request: Received) => boolean) => {
      const http = scripted(() => token("MARKED-access"))
      const client = HttpClient.transform(http.client, (effect, request) => {
        const sent = JSON.stringify(request.headers)
        const error = new HttpClientError.RequestError({ request, reason: "Transport", cause: new Error(sent) })
        const received = { url: request.url, headers: request.headers, method: request.method, body: "", request }
        // a client whose type says less than it does
        return isFailing(received)
          ? Effect.zipRight(effect, fail(error, sent) as Effect.Effect<never, HttpClientError.HttpClientError>)
          : effect
      })
      return { ...http, layer: Layer.succeed(HttpClient.HttpClient, client) }
    }
    const flavours: ReadonlyArray<
      readonly [
        string,
        Effect.Effect<unknown, unknown, AuthorizedHttpClient.AuthorizedHttpClient | HttpClient.HttpClient>
      ]
    > = [["typed", typed], ["drop-in", dropIn]]
    for (const [flavour, program] of flavours) {
      it.effect(`the ${flavour} client shows no token: ${shape}`, () =>
        Effect.gen(function*() {
          const http = failing((request) => !isAuth(request))
          const exit = yield* watched(http, Effect.provide(program, Alf.layer(options)))
          assert.isTrue(Exit.isFailure(exit))
          assertOnTheWire(http, `${scheme} MARKED-access`)
        }))

      if (scheme === "DPoP" && flavour === "drop-in") continue
      it.effect(`a token request ends in a TokenRequestError (${flavour}): ${shape}`, () =>
        Effect.gen(function*() {
          const http = failing(isAuth)
          const error = failed(yield* watched(http, Effect.provide(program, Alf.layer(options))))
          const tokenError = error instanceof HttpClientError.RequestError ? error.cause : error
          assert.instanceOf(tokenError, TokenError.TokenRequestError)
          assertHidden("its insides", insides(tokenError))
        }))
    }
  }

  it.effect("an error that holds one stays one of its class", () =>
    Effect.gen(function*() {
      const http = scripted((request) =>
        isAuth(request) ? token("MARKED-access") : Effect.die(new Wrapped({ reason: request.headers }))
      )
      const exit = yield* watched(http, Effect.provide(typed, Alf.layer(options)))
      const [defect] = [...Cause.defects(Option.getOrThrow(Exit.causeOption(exit)))]
      assert.instanceOf(defect, Wrapped)
      assert.strictEqual(defect._tag, "Wrapped")
    }))
})

describe("options that cannot work show no secret", () => {
  it.effect("in the ConfigurationError", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>> = [
        { tokenEndpoint: "https://MARKED:MARKED@auth.test" },
        { tokenEndpoint: "MARKED" },
        { clientId: "" },
        { origins: ["MARKED"] },
        { origins: [] },
        { tokenTimeout: 0 },
        { params: { client_secret: "MARKED" } }
      ]
      for (const overrides of cases) {
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(Alf.layer({ ...options, ...overrides }))))
        const error = failed(exit)
        assert.instanceOf(error, TokenError.ConfigurationError)
        assertHidden("the ConfigurationError", showings(error))
      }
    }).pipe(Effect.provide(scripted(() => new Response()).layer)))
})

describe("values show no secret", () => {
  it("options, grants, tokens and layers", () => {
    const token = new AccessToken.AccessToken({
      value: Redacted.make("MARKED-access"),
      refreshToken: Option.some(Redacted.make("MARKED-refresh")),
      issuedAt: DateTime.unsafeMake(0),
      expiresAt: Option.some(DateTime.unsafeMake(Duration.toMillis("1 hour")))
    })
    const values: Record<string, unknown> = {
      token,
      options,
      layer: Alf.layer({ ...options, tokenRetry: Schedule.recurs(1) }),
      layerConfig: Alf.layerConfig(options),
      grant: Grant.refreshToken(Grant.clientCredentials(), { initial: Redacted.make("MARKED") }),
      static: TokenService.layerStatic("MARKED"),
      staticRedacted: TokenService.layerStatic(Redacted.make("MARKED"))
    }
    for (const [name, value] of Object.entries(values)) assertHidden(name, [...showings(value), ...insides(value)])
  })
})
