import {
  FetchHttpClient,
  HttpBody,
  HttpClient,
  HttpClientError,
  HttpClientRequest,
  HttpClientResponse
} from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Redacted,
  Schedule,
  type Scope,
  Stream
} from "effect"
import { AccessToken, AuthorizedHttpClient, TokenEndpoint, TokenError, TokenMetrics, TokenService } from "effect-alf"
import { Readable } from "node:stream"
import { inspect } from "node:util"
import { recordLogs, recordSpans } from "../support/recorders.ts"
import { broken, json, type Received, type Scripted, scripted } from "../support/scriptedClient.ts"
import { bearer, overEach, type Presentation } from "../support/presentations.ts"
import { adjust, inTime, many, settle } from "../support/testClock.ts"
import { runVirtually } from "../support/virtualTime.ts"
import { layerServer } from "../support/endpoint.ts"

const api = "https://api.example.com"
const users = `${api}/users`
const endpoint = "https://auth.test/token"

/** A token service over a script; `n` is the number of the token request, from 0. */
const tokenService = (
  script: (n: number) => Effect.Effect<string, TokenError.TokenError> = (n) => Effect.succeed(`token-${n}`)
) =>
  Effect.gen(function*() {
    let asked = 0
    const service = yield* TokenService.make({
      grant: {
        key: "scripted",
        acquire: () =>
          Effect.flatMap(Effect.suspend(() => script(asked++)), (name) =>
            Effect.map(DateTime.now, (issuedAt) =>
              new AccessToken.AccessToken({ value: Redacted.make(name), issuedAt })))
      }
    }).pipe(
      Effect.provide(layerServer),
      Effect.provideService(TokenEndpoint.TokenEndpoint, {
        identity: "an endpoint",
        request: () =>
          Effect.dieMessage("the endpoint is not asked here")
      })
    )
    return {
      service,
      asked: () =>
        asked
    }
  })

interface Clients {
  readonly dropIn: HttpClient.HttpClient
  readonly typed: AuthorizedHttpClient.AuthorizedHttpClient["Type"]
  /** How many token requests there were. */
  readonly asked: () => number
  readonly service: TokenService.TokenService["Type"]
}

const authorization = ({ headers }: Received): string | undefined => headers["authorization"]

/** What the tests need of a presentation. */
const over = ({ checked, options: presented, scheme }: Presentation) => {
  /** Both clients over a scripted API. */
  const make = (
    client: HttpClient.HttpClient,
    options: {
      readonly origins?: AuthorizedHttpClient.Options["origins"]
      readonly script?: (n: number) => Effect.Effect<string, TokenError.TokenError>
    } = {}
  ): Effect.Effect<Clients, TokenError.ConfigurationError, Scope.Scope> =>
    Effect.gen(function*() {
      const { asked, service } = yield* tokenService(options.script)
      const { authorizedHttpClient, httpClient } = yield* AuthorizedHttpClient.make({
        origins: options.origins ?? [api],
        ...presented
      }).pipe(
        Effect.provideService(HttpClient.HttpClient, checked(client)),
        Effect.provideService(TokenService.TokenService, service)
      )
      return { dropIn: httpClient, typed: authorizedHttpClient, asked, service }
    })

  /** How a token stands in `Authorization`. */
  const shown = (token: string) => `${scheme} ${token}`

  const unauthorized = (
    body: BodyInit | null = null,
    challenge = `${scheme} realm="api", error="invalid_token"`
  ) => new Response(body, { status: 401, headers: { "www-authenticate": challenge } })

  /** An API that accepts some tokens. */
  const accepting = (...tokens: ReadonlyArray<string>): Scripted =>
    scripted((request) =>
      tokens.some((token) => authorization(request) === shown(token)) ? json({ ok: true }) : unauthorized()
    )

  return { accepting, make, shown, unauthorized }
}

const replays = (outcome: string) =>
  Effect.map(Metric.value(Metric.tagged(TokenMetrics.replays, "outcome", outcome)), ({ count }) => Number(count))

const allReplays = Effect.all({
  accepted: replays("accepted"),
  refused: replays("refused"),
  failed: replays("failed")
})

const noAnswer = new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 4, description: "reset" })

overEach("AuthorizedHttpClient", (presentation) => {
  const { accepting, make, shown, unauthorized } = over(presentation)
  const { storm } = presentation

  describe("no token", () => {
    it.scoped("no request: the TokenError is the answer", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("token-0")
        const { dropIn, typed } = yield* make(client, { script: () => Effect.fail(noAnswer) })
        const error = yield* Effect.flip(typed.get(users))
        assert.strictEqual(error._tag, "TokenRequestError")
        const other = yield* Effect.flip(dropIn.get(users))
        assert.isTrue(other._tag === "RequestError" && other.reason === "Transport")
        assert.lengthOf(requests, 0)
      }))

    it.scoped("a defect of the grant is a typed error", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("token-0")
        const { dropIn } = yield* make(client, { script: () => Effect.die("boom") })
        const error = yield* Effect.flip(dropIn.get(users))
        assert.isTrue(error._tag === "RequestError" && TokenError.isTokenError(error.cause))
        assert.lengthOf(requests, 0)
      }))
  })

  describe("a 401", () => {
    const underFilter = (client: HttpClient.HttpClient) => HttpClient.filterStatusOk(client)

    for (
      const [how, over] of [["a response", (client: HttpClient.HttpClient) => client], [
        "the error of a client under filterStatusOk",
        underFilter
      ]] as const
    ) {
      it.scoped(`as ${how}: the token is refreshed, and the request sent again once`, () =>
        Effect.gen(function*() {
          const { client, requests } = accepting("token-1", "token-3")
          const { asked, dropIn, service, typed } = yield* make(over(client))
          const response = yield* dropIn.get(users)
          assert.deepStrictEqual(yield* response.json, { ok: true })
          assert.deepStrictEqual(requests.map(authorization), [shown("token-0"), shown("token-1")])
          yield* service.invalidate
          assert.strictEqual((yield* typed.get(users)).status, 200)
          assert.deepStrictEqual(requests.slice(2).map(authorization), [shown("token-2"), shown("token-3")])
          assert.strictEqual(asked(), 4)
        }))
    }

    it.scoped("a second one is the answer: a response for the drop-in, its body unread", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted((_, n) => unauthorized(`refused ${n}`))
        const { asked, dropIn } = yield* make(client)
        const response = yield* dropIn.get(users)
        assert.strictEqual(response.status, 401)
        assert.strictEqual(yield* response.text, "refused 1")
        assert.deepStrictEqual([requests.length, asked()], [2, 2])
      }))

    it.scoped("a second one is the answer: the error as it was under filterStatusOk", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted((_, n) => unauthorized(`refused ${n}`))
        const { dropIn, typed } = yield* make(underFilter(client))
        const error = yield* Effect.flip(dropIn.get(users))
        assert.isTrue(error._tag === "ResponseError" && error.reason === "StatusCode")
        if (error._tag !== "ResponseError") return
        assert.strictEqual(yield* error.response.text, "refused 1")
        assert.lengthOf(requests, 2)
        yield* adjust("1 minute")
        assert.strictEqual((yield* Effect.flip(typed.get(users)))._tag, "Unauthorized")
      }))

    it.scoped("a second one is the answer: Unauthorized for the typed client", () =>
      Effect.gen(function*() {
        const { client } = scripted(() =>
          unauthorized(
            "body",
            "Bearer realm=\"a, b\", error=\"insufficient_scope\", error_description=\"not \\\"you\\\"\", DPoP algs=\"ES256\", Basic"
          )
        )
        const { typed } = yield* make(client)
        const error = yield* Effect.flip(typed.post(`${users}?secret=1#top`, { urlParams: { key: "secret" } }))
        assert.isTrue(error._tag === "Unauthorized")
        if (error._tag !== "Unauthorized") return
        assert.deepStrictEqual(
          { ...error, challenges: error.challenges.map((challenge) => ({ ...challenge })) },
          {
            ...error,
            _tag: "Unauthorized",
            method: "POST",
            url: users,
            status: 401,
            challenges: [
              {
                scheme: "Bearer",
                params: { realm: "a, b", error: "insufficient_scope", error_description: "not \"you\"" }
              },
              { scheme: "DPoP", params: { algs: "ES256" } },
              { scheme: "Basic", params: {} }
            ]
          }
        )
        assert.include(error.message, users)
        assert.include(error.message, "not \"you\"")
        assert.notInclude(error.message + JSON.stringify(error) + inspect(error, { depth: 9 }), "secret")
      }))

    it.scoped("Unauthorized is caught by its tag", () =>
      Effect.gen(function*() {
        const { client } = scripted(() => new Response(null, { status: 401 }))
        const { typed } = yield* make(client)
        const caught = yield* typed.get(users).pipe(
          Effect.map(({ status }) => status),
          Effect.catchTag("Unauthorized", ({ challenges, status }) => Effect.succeed(status + challenges.length))
        )
        assert.strictEqual(caught, 401)
      }))

    it.scoped("an echoed token is not part of Unauthorized", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted((request) =>
          unauthorized(
            null,
            `Bearer error="invalid_token", error_description="${authorization(request)} ${request.headers["dpop"]}"`
          )
        )
        const { typed } = yield* make(client, { script: (n) => Effect.succeed(`SECRET${n}`) })
        const error = yield* Effect.flip(typed.get(users))
        const text = String(error) + JSON.stringify(error) + inspect(error, { depth: 9 })
        assert.notInclude(text, "SECRET")
        for (const { headers } of requests) assert.notInclude(text, headers["dpop"] ?? "no proof")
      }))

    it.scoped("of the token endpoint of a client below is none of the API's", () =>
      Effect.gen(function*() {
        const refusal = new TokenError.TokenErrorResponse({
          endpoint,
          status: 401,
          error: "invalid_client",
          attempts: 1,
          body: ""
        })
        // a client of ours with another token endpoint, below this one
        const inner = yield* make(accepting("token-0").client, { script: () => Effect.fail(refusal) })
        const { asked, dropIn, typed } = yield* make(inner.dropIn)
        for (const error of [yield* Effect.flip(dropIn.get(users)), yield* Effect.flip(typed.get(users))]) {
          assert.isTrue(error._tag === "ResponseError" && TokenError.isTokenError(error.cause))
        }
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("whose refresh fails is answered with that failure", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("never")
        const script = (n: number) => n === 0 ? Effect.succeed("token-0") : Effect.fail(noAnswer)
        const first = yield* make(client, { script })
        const before = yield* allReplays
        assert.strictEqual((yield* Effect.flip(first.typed.get(users)))._tag, "TokenRequestError")
        const second = yield* make(client, { script })
        const error = yield* Effect.flip(second.dropIn.get(users))
        assert.isTrue(error._tag === "RequestError" && TokenError.isTokenError(error.cause))
        assert.lengthOf(requests, 2)
        // nothing was sent again
        assert.deepStrictEqual(yield* allReplays, before)
      }))

    it.scoped("whose replay gets no answer, or another status, is answered with that", () =>
      Effect.gen(function*() {
        const { client } = scripted((request, n) =>
          n % 2 === 0 ? unauthorized() : n === 1 ? broken(request) : json({}, { status: 503 })
        )
        const { dropIn } = yield* make(client)
        const before = yield* allReplays
        const error = yield* Effect.flip(dropIn.get(users))
        assert.isTrue(error._tag === "RequestError" && error.reason === "Transport")
        assert.deepStrictEqual(yield* allReplays, { ...before, failed: before.failed + 1 })
        yield* adjust("1 minute")
        assert.strictEqual((yield* dropIn.get(users)).status, 503)
      }))

    it.scoped("for many requests at once: one refresh, a replay each", () =>
      Effect.gen(function*() {
        const all = yield* Deferred.make<void>()
        let first = 0
        const { client, requests } = scripted((request) => {
          if (authorization(request) === shown("token-1")) return json({})
          if (++first === storm) Deferred.unsafeDone(all, Exit.void)
          return Effect.as(Deferred.await(all), unauthorized())
        })
        const { asked, dropIn } = yield* make(client)
        const responses = yield* many(storm, dropIn.get(users))
        assert.isTrue(responses.every(({ status }) => status === 200))
        assert.deepStrictEqual([asked(), requests.length], [2, 2 * storm])
      }))

    it.scoped("that comes late, when the token has been replaced: no token request, one replay", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted((request) =>
          authorization(request) === shown("token-1")
            ? json({})
            : Effect.delay(Effect.sync(() => unauthorized()), request.url.endsWith("slow") ? "5 seconds" : 0)
        )
        const { asked, dropIn } = yield* make(client)
        const slow = yield* Effect.fork(dropIn.get(`${users}/slow`))
        yield* settle
        yield* dropIn.get(users)
        yield* adjust("5 seconds")
        assert.strictEqual((yield* Fiber.join(slow)).status, 200)
        assert.deepStrictEqual([asked(), requests.length], [2, 4])
      }))

    for (const status of [200, 204, 301, 400, 402, 404, 407, 419, 429, 500, 503]) {
      it.scoped(`a ${status} is passed on, and nothing refreshed`, () =>
        Effect.gen(function*() {
          const { client, requests } = scripted(() =>
            new Response(null, {
              status,
              headers: { "www-authenticate": "Bearer error=\"insufficient_scope\"" }
            })
          )
          const { asked, dropIn, typed } = yield* make(client)
          assert.strictEqual((yield* dropIn.get(users)).status, status)
          assert.strictEqual((yield* typed.get(users)).status, status)
          assert.deepStrictEqual([asked(), requests.length], [1, 2])
        }))
    }

    it.scoped("the replays are counted by their outcome", () =>
      Effect.gen(function*() {
        const { client } = accepting("token-1")
        const { dropIn, service, typed } = yield* make(client)
        const before = yield* allReplays
        yield* dropIn.get(users)
        assert.deepStrictEqual(yield* allReplays, { ...before, accepted: before.accepted + 1 })
        yield* service.invalidate
        yield* dropIn.get(users)
        assert.deepStrictEqual(yield* allReplays, {
          ...before,
          accepted: before.accepted + 1,
          refused: before.refused + 1
        })
        yield* adjust("1 minute")
        yield* Effect.flip(typed.get(users))
        assert.strictEqual((yield* allReplays).refused, before.refused + 2)
      }))
  })

  describe("an API that refuses new tokens too", () => {
    it.scoped("is not asked for another one in the pause: 1 s, doubling to 30 s", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("never")
        const { asked, dropIn } = yield* make(client)
        let expected = 1
        for (const pause of [1, 2, 4, 8, 16, 30, 30]) {
          yield* dropIn.get(users)
          assert.strictEqual(asked(), ++expected)
          yield* adjust(Duration.subtract(Duration.seconds(pause), "1 millis"))
          const before = requests.length
          assert.strictEqual((yield* dropIn.get(users)).status, 401)
          assert.deepStrictEqual([asked(), requests.length], [expected, before + 1])
          yield* adjust("1 millis")
        }
      }))

    it.scoped("many calls a second cost about ten token requests in the first minute", () =>
      Effect.gen(function*() {
        const { client } = accepting("never")
        const { asked, dropIn } = yield* make(client)
        for (let second = 0; second < 60; second++) {
          yield* many(storm / 10, dropIn.get(users))
          yield* adjust("1 second")
        }
        assert.isAtMost(asked(), 10)
        assert.isAtLeast(asked(), 5)
      }))

    it.scoped("the first accepted token ends it", () =>
      Effect.gen(function*() {
        let isDown = true
        const { client } = scripted(() => isDown ? unauthorized() : json({}))
        const { asked, dropIn } = yield* make(client)
        yield* dropIn.get(users)
        yield* adjust("1 seconds")
        yield* dropIn.get(users)
        assert.strictEqual(asked(), 3)
        isDown = false
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
        yield* adjust("1 minute")
        isDown = true
        yield* dropIn.get(users)
        assert.strictEqual(asked(), 4)
        yield* adjust("1 seconds")
        yield* dropIn.get(users)
        assert.strictEqual(asked(), 5)
      }))

    const afterwards = [
      { status: 404, title: "another status than 401 is a token accepted", asked: 3 },
      { status: 500, title: "an answer of 5xx says nothing of the token", asked: 2 }
    ]
    for (const after of afterwards) {
      it.scoped(`${after.title}, under filterStatusOk too`, () =>
        Effect.gen(function*() {
          for (const over of [(client: HttpClient.HttpClient) => client, HttpClient.filterStatusOk]) {
            let status = 401
            const { client } = scripted(() => new Response(null, { status }))
            const { asked, dropIn } = yield* make(over(client))
            yield* Effect.exit(dropIn.get(users))
            status = after.status
            yield* Effect.exit(dropIn.get(users))
            status = 401
            assert.strictEqual(asked(), 2)
            yield* Effect.exit(dropIn.get(users))
            assert.strictEqual(asked(), after.asked)
          }
        }))
    }

    it.scoped("a token that was fetched for the next request is not replaced when that one is refused too", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("never")
        const { asked, dropIn } = yield* make(client)
        yield* dropIn.put(users, { body: HttpBody.stream(Stream.make(new Uint8Array([1]))) })
        yield* settle
        assert.deepStrictEqual([asked(), requests.length], [2, 1])
        yield* dropIn.get(users)
        assert.deepStrictEqual([asked(), requests.length], [2, 2])
      }))

    it.scoped("is remembered for both clients, and for each origin alone", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("never")
        const { asked, dropIn, typed } = yield* make(client, { origins: [api, "https://other.test"] })
        yield* dropIn.get(users)
        assert.strictEqual((yield* Effect.flip(typed.get(users)))._tag, "Unauthorized")
        assert.deepStrictEqual([asked(), requests.length], [2, 3])
        yield* dropIn.get("https://other.test/")
        assert.deepStrictEqual([asked(), requests.length], [3, 5])
        assert.strictEqual((yield* Effect.flip(typed.get("https://other.test/")))._tag, "Unauthorized")
        assert.deepStrictEqual([asked(), requests.length], [3, 6])
      }))

    it.scoped("in one path only does not cost a token request for each call", () =>
      Effect.gen(function*() {
        const { client } = scripted((request) => request.url.endsWith("/admin") ? unauthorized() : json({}))
        const { asked, dropIn } = yield* make(client)
        for (let n = 0; n < 100; n++) {
          yield* dropIn.get(users)
          yield* dropIn.get(`${api}/admin`)
        }
        assert.isAtMost(asked(), 5)
      }))

    it.scoped("in one path only, with bodies that are not replayed", () =>
      Effect.gen(function*() {
        const { client } = scripted((request) => request.method === "PUT" ? unauthorized() : json({}))
        const { asked, dropIn } = yield* make(client)
        for (let n = 0; n < 100; n++) {
          yield* dropIn.get(users)
          yield* dropIn.put(users, { body: HttpBody.stream(Stream.make(new Uint8Array([1]))) })
        }
        assert.isAtMost(asked(), 5)
      }))
  })

  describe("bodies", () => {
    const bytes = new Uint8Array([0, 1, 2, 255, 254, 10, 13])
    const formData = () => {
      const form = new FormData()
      form.append("name", "value")
      form.append("file", new Blob([bytes]), "file.bin")
      return form
    }
    /** Bodies that are values. */
    const values: Record<string, () => HttpBody.HttpBody> = {
      "no body": () => HttpBody.empty,
      "text": () => HttpBody.text("héllo\r\n"),
      "JSON": () => HttpBody.unsafeJson({ a: [1, "ü"] }),
      "bytes": () => HttpBody.uint8Array(bytes),
      "URL parameters": () => HttpBody.urlParams([["a", "1 &"], ["b", "ü"]]),
      "form data": () => HttpBody.formData(formData()),
      "raw: text": () => HttpBody.raw("héllo"),
      "raw: bytes": () => HttpBody.raw(bytes),
      "raw: an ArrayBuffer": () => HttpBody.raw(bytes.buffer),
      "raw: a Buffer": () => HttpBody.raw(Buffer.from(bytes)),
      "raw: a Blob": () => HttpBody.raw(new Blob([bytes])),
      "raw: URLSearchParams": () => HttpBody.raw(new URLSearchParams({ a: "1 &" })),
      "raw: null": () => HttpBody.raw(null),
      "raw: undefined": () => HttpBody.raw(undefined)
    }
    /** Bodies that are gone once they were read. */
    class ReadableFormData extends Readable {
      readonly [Symbol.toStringTag] = "FormData"
    }
    const readOnce: Record<string, () => HttpBody.HttpBody> = {
      "a stream": () => HttpBody.stream(Stream.make(bytes)),
      "raw: a ReadableStream": () => HttpBody.raw(new Blob([bytes]).stream()),
      "raw: a Node stream": () => HttpBody.raw(Readable.from([Buffer.from(bytes)])),
      // the form-data package of npm is one
      "raw: a Node stream that calls itself FormData": () =>
        HttpBody.raw(
          new ReadableFormData({
            read() {
              this.push(Buffer.from(bytes))
              this.push(null)
            }
          })
        ),
      "raw: an iterator": () => HttpBody.raw([bytes][Symbol.iterator]()),
      "raw: an async generator": () =>
        HttpBody.raw((async function*() {
          yield bytes
        })())
    }

    for (const [name, body] of Object.entries(values)) {
      it.scoped(`${name}: sent again as it was`, () =>
        Effect.gen(function*() {
          const { client, requests } = accepting("token-1")
          const { dropIn } = yield* make(client)
          const response = yield* dropIn.execute(HttpClientRequest.post(users).pipe(HttpClientRequest.setBody(body())))
          assert.strictEqual(response.status, 200)
          const [first, second] = requests
          assert.strictEqual(first?.request.body, second?.request.body)
          if (name !== "form data") assert.strictEqual(first?.body, second?.body)
          assert.strictEqual(first?.headers["content-type"], second?.headers["content-type"])
          assert.strictEqual(first?.method, second?.method)
        }))
    }

    /** Counts what is sent, and does not touch the bodies: who reads one makes its next reading fail. */
    const untouched = (accepted: string) => {
      const sent: Array<{ readonly token: string; readonly body: HttpBody.HttpBody }> = []
      const client = HttpClient.make((request) =>
        Effect.sync(() => {
          const token = request.headers["authorization"] ?? ""
          sent.push({ token, body: request.body })
          return HttpClientResponse.fromWeb(request, token === shown(accepted) ? json({}) : unauthorized())
        })
      )
      return { client, sent }
    }

    for (const [name, body] of Object.entries(readOnce)) {
      it.scoped(`${name}: not sent again; the 401 is the answer, and the next request has another token`, () =>
        Effect.gen(function*() {
          for (const flavour of ["dropIn", "typed"] as const) {
            const { client, sent } = untouched("token-1")
            const clients = yield* make(client)
            const request = HttpClientRequest.put(users).pipe(HttpClientRequest.setBody(body()))
            if (flavour === "dropIn") assert.strictEqual((yield* clients.dropIn.execute(request)).status, 401)
            else assert.strictEqual((yield* Effect.flip(clients.typed.execute(request)))._tag, "Unauthorized")
            assert.lengthOf(sent, 1)
            assert.strictEqual((yield* clients.dropIn.get(users)).status, 200)
            assert.deepStrictEqual(sent.map(({ token }) => token), [shown("token-0"), shown("token-1")])
            assert.strictEqual(clients.asked(), 2)
          }
        }))

      it.scoped(`${name}: sent again if it is marked as replayable`, () =>
        Effect.gen(function*() {
          const { client, sent } = untouched("token-1")
          const { dropIn } = yield* make(client)
          const request = AuthorizedHttpClient.replayable(
            HttpClientRequest.put(users).pipe(HttpClientRequest.setBody(body()))
          )
          // combinators that copy the request keep the mark
          const response = yield* dropIn.pipe(HttpClient.mapRequest(HttpClientRequest.setHeader("x", "y"))).execute(
            request
          )
          assert.strictEqual(response.status, 200)
          assert.strictEqual(sent[0]?.body, sent[1]?.body)
        }))
    }

    it.scoped("a stream that can run again is read again", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("token-1")
        const { dropIn } = yield* make(client)
        const stream = Stream.make("hello ", "world").pipe(Stream.encodeText)
        yield* dropIn.execute(
          AuthorizedHttpClient.replayable(HttpClientRequest.put(users).pipe(HttpClientRequest.bodyStream(stream)))
        )
        assert.deepStrictEqual(requests.map(({ body }) => body), ["hello world", "hello world"])
      }))

    it.scoped("the 401 of a body that is not sent again is read by the caller", () =>
      Effect.gen(function*() {
        const { client } = scripted(() => unauthorized("why"))
        const { dropIn } = yield* make(client)
        const response = yield* dropIn.put(users, { body: HttpBody.stream(Stream.make(bytes)) })
        assert.strictEqual(yield* response.text, "why")
      }))

    it.scoped("a new token that the next request finds refused is not renewed again", () =>
      Effect.gen(function*() {
        const { client } = accepting("never")
        const { asked, dropIn } = yield* make(client)
        for (let n = 0; n < 10; n++) {
          yield* dropIn.put(users, { body: HttpBody.stream(Stream.make(bytes)) })
          yield* settle
        }
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("a token that another request has had accepted is refreshed when it is refused later", () =>
      Effect.gen(function*() {
        let accepted = "token-1"
        const { client } = scripted((request) =>
          authorization(request) === shown(accepted)
            ? json({})
            : Effect.delay(Effect.sync(() => unauthorized()), request.method === "PUT" ? "1 seconds" : 0)
        )
        const { dropIn } = yield* make(client)
        const upload = yield* Effect.fork(dropIn.put(users, { body: HttpBody.stream(Stream.make(bytes)) }))
        yield* settle
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
        // the late 401 of the upload finds the token replaced, and proved good
        yield* adjust("1 seconds")
        assert.strictEqual((yield* Fiber.join(upload)).status, 401)
        yield* adjust("1 hour")
        accepted = "token-2"
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
      }))
  })

  describe("the body of the first 401", () => {
    /** A body of many chunks, and what became of it. */
    const endless = (chunk: Uint8Array, chunks: number, wait: boolean) => {
      const seen = { read: 0, isCancelled: false, isDone: false }
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          if (seen.read >= chunks) {
            if (wait) return new Promise(() => {})
            seen.isDone = true
            return controller.close()
          }
          seen.read++
          controller.enqueue(chunk)
        },
        cancel() {
          seen.isCancelled = true
        }
      }, { highWaterMark: 0 })
      return { body, seen }
    }
    const kilobyte = new Uint8Array(1024)

    it.scoped("is read to its end if it is small, before the request is sent again", () =>
      Effect.gen(function*() {
        const { body, seen } = endless(kilobyte, 64, false)
        let wasDone = false
        const { client } = scripted((_, n) => {
          if (n === 0) return unauthorized(body)
          wasDone = seen.isDone
          return json({})
        })
        const { dropIn } = yield* make(client)
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
        assert.isTrue(wasDone)
        assert.strictEqual(seen.read, 64)
      }))

    it.scoped("is read to its end if it is short and says so", () =>
      Effect.gen(function*() {
        const { body, seen } = endless(new Uint8Array(10), 3, false)
        const { client } = scripted((_, n) =>
          n === 0
            ? new Response(body, { status: 401, headers: { "content-length": "30" } })
            : json({ isDone: seen.isDone })
        )
        const { dropIn } = yield* make(client)
        assert.deepStrictEqual(yield* Effect.flatMap(dropIn.get(users), ({ json }) => json), { isDone: true })
      }))

    it.scoped("is cut off if what was announced is compressed, and large", () =>
      Effect.gen(function*() {
        const { body, seen } = endless(kilobyte, 10_000, false)
        const headers = { "content-length": "999", "content-encoding": "gzip" }
        const { client } = scripted((_, n) => n === 0 ? new Response(body, { status: 401, headers }) : json({}))
        const { dropIn } = yield* make(client)
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
        assert.isAtMost(seen.read, 70)
      }))

    it.scoped("is cut off after 64 KiB", () =>
      Effect.gen(function*() {
        const { body, seen } = endless(kilobyte, 10_000, false)
        const { client } = scripted((_, n) => n === 0 ? unauthorized(body) : json({}))
        const { dropIn } = yield* make(client)
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
        assert.isAtMost(seen.read, 70)
        assert.isTrue(seen.isCancelled)
      }))

    it.scoped("is cut off after 1 second", () =>
      Effect.gen(function*() {
        const { body, seen } = endless(kilobyte, 3, true)
        const { client } = scripted((_, n) => n === 0 ? unauthorized(body) : json({}))
        const { dropIn } = yield* make(client)
        const fiber = yield* Effect.fork(dropIn.get(users))
        yield* adjust("999 millis")
        assert.isTrue(Option.isNone(yield* fiber.poll))
        yield* adjust("1 millis")
        assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
        yield* settle
        assert.isTrue(seen.isCancelled)
      }))

    it.scoped("is cut off where the caller cannot be interrupted, too", () =>
      Effect.gen(function*() {
        const { body } = endless(kilobyte, 3, true)
        const { client } = scripted((_, n) => n === 0 ? unauthorized(body) : json({}))
        const { dropIn } = yield* make(client)
        assert.strictEqual((yield* inTime(Effect.uninterruptible(dropIn.get(users)), "1 seconds")).status, 200)
      }))

    it.scoped("may break", () =>
      Effect.gen(function*() {
        const body = new ReadableStream({
          pull(controller) {
            controller.error(new Error("ECONNRESET"))
          }
        })
        const { client } = scripted((_, n) => n === 0 ? unauthorized(body) : json({}))
        const { dropIn } = yield* make(client)
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
      }))

    it.scoped("is discarded before Unauthorized, too", () =>
      Effect.gen(function*() {
        const bodies = [endless(kilobyte, 10_000, false), endless(kilobyte, 10_000, false)]
        const { client } = scripted((_, n) => unauthorized(bodies[n]!.body))
        const { typed } = yield* make(client)
        assert.strictEqual((yield* Effect.flip(typed.get(users)))._tag, "Unauthorized")
        assert.deepStrictEqual(bodies.map(({ seen }) => seen.isCancelled), [true, true])
      }))
  })

  describe("the caller", () => {
    it.scoped("is interrupted: so is its request", () =>
      Effect.gen(function*() {
        let interrupted = 0
        const { client, requests } = scripted((request) =>
          authorization(request) === shown("token-0") && request.url === users
            ? unauthorized()
            : Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
        )
        const { dropIn } = yield* make(client)
        const first = yield* Effect.fork(dropIn.get(`${users}/1`))
        yield* settle
        yield* Fiber.interrupt(first)
        assert.strictEqual(interrupted, 1)
        // and so is a replay
        const second = yield* Effect.fork(dropIn.get(users))
        yield* settle
        assert.lengthOf(requests, 3)
        yield* Fiber.interrupt(second)
        assert.strictEqual(interrupted, 2)
      }))

    it.scoped("is interrupted while it waits for a token: no request, and the token serves the next", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("slow")
        const { asked, dropIn } = yield* make(client, {
          script: () => Effect.delay(Effect.succeed("slow"), "1 seconds")
        })
        const first = yield* Effect.fork(dropIn.get(users))
        yield* settle
        yield* Fiber.interrupt(first)
        yield* adjust("1 seconds")
        assert.lengthOf(requests, 0)
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
        assert.strictEqual(asked(), 1)
      }))

    it.scoped("runs its combinators around the client: mapRequest once for a request that is sent twice", () =>
      Effect.gen(function*() {
        let mapped = 0
        let belowMapped = 0
        const { client, requests } = accepting("token-1")
        const below = HttpClient.mapRequest(client, (request) => {
          belowMapped++
          return request
        })
        const { dropIn } = yield* make(below)
        const above = HttpClient.mapRequest(
          dropIn,
          (request) => HttpClientRequest.setHeader(request, "x-n", `${++mapped}`)
        )
        yield* above.get(users)
        assert.deepStrictEqual(requests.map(({ headers }) => headers["x-n"]), ["1", "1"])
        assert.deepStrictEqual([mapped, belowMapped], [1, 2])
      }))

    it.scoped("filters and retries as around any client", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted((_, n) => n < 2 ? json({}, { status: 503 }) : json({ n }))
        const { dropIn } = yield* make(client)
        const above = dropIn.pipe(HttpClient.filterStatusOk, HttpClient.retry(Schedule.recurs(3)))
        assert.deepStrictEqual(yield* Effect.flatMap(above.get(users), (response) => response.json), { n: 2 })
        assert.lengthOf(requests, 3)
      }))

    it.scoped("finds a token endpoint that is down transient", () =>
      Effect.gen(function*() {
        const { client } = accepting("token-2")
        const { asked, dropIn } = yield* make(client, {
          script: (n) =>
            n < 2
              ? Effect.fail(
                new TokenError.TokenErrorResponse({ endpoint, status: 503, attempts: 4, body: "<html>" })
              )
              : Effect.succeed(`token-${n}`)
        })
        const above = HttpClient.retryTransient(dropIn, { times: 3, schedule: Schedule.spaced("1 second") })
        assert.strictEqual((yield* inTime(above.get(users), "10 seconds")).status, 200)
        assert.strictEqual(asked(), 3)
      }))

    it.scoped("decides whether its trace is passed on", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("token-1", "token-3")
        const { dropIn, service } = yield* make(client)
        yield* Effect.withSpan(dropIn.get(users), "with")
        assert.deepStrictEqual(requests.map(({ headers }) => "traceparent" in headers), [true, true])
        yield* service.invalidate
        yield* Effect.withSpan(HttpClient.withTracerPropagation(dropIn, false).get(users), "without")
        assert.deepStrictEqual(requests.slice(2).map(({ headers }) => "traceparent" in headers), [false, false])
      }))

    it.effect("closes the scope of a client under withScope", () =>
      Effect.gen(function*() {
        const signals: Array<AbortSignal> = []
        const client = HttpClient.make((request, _, signal) => {
          signals.push(signal)
          const isAccepted = request.headers["authorization"] === shown("token-1")
          return Effect.succeed(HttpClientResponse.fromWeb(request, isAccepted ? json({}) : unauthorized()))
        })
        yield* Effect.scoped(Effect.gen(function*() {
          const { service } = yield* tokenService()
          const authorized = yield* client.pipe(
            HttpClient.withScope,
            AuthorizedHttpClient.withToken({ origins: [api], ...presentation.options }),
            Effect.provideService(TokenService.TokenService, service)
          )
          yield* authorized.get(users)
          assert.deepStrictEqual(signals.map(({ aborted }) => aborted), [false, false])
        }))
        assert.deepStrictEqual(signals.map(({ aborted }) => aborted), [true, true])
      }))

    it.scoped("follows redirects over the client: each hop is judged by its own origin", () =>
      Effect.gen(function*() {
        const to = (location: string) => new Response(null, { status: 302, headers: { location } })
        const { client, requests } = scripted((request) => {
          switch (request.url) {
            case users:
              return to("https://elsewhere.test/one")
            case "https://elsewhere.test/one":
              return to(`${api}/two`)
            case `${api}/two`:
              return to("/three")
            default:
              return json({})
          }
        })
        const { asked, dropIn } = yield* make(client)
        assert.strictEqual((yield* HttpClient.followRedirects(dropIn).get(users)).status, 200)
        assert.deepStrictEqual(requests.map((request) => [request.url, authorization(request)]), [
          [users, shown("token-0")],
          ["https://elsewhere.test/one", undefined],
          [`${api}/two`, shown("token-0")],
          [`${api}/three`, shown("token-0")]
        ])
        assert.strictEqual(asked(), 1)
      }))
  })

  describe("the errors of the drop-in", () => {
    const response = (status: number, body = "{\"error\":\"invalid_scope\"}") =>
      new TokenError.TokenErrorResponse({ endpoint, status, error: "invalid_scope", attempts: 1, body })
    const fail = (error: TokenError.TokenError) =>
      Effect.gen(function*() {
        const { client } = accepting("token-0")
        const { dropIn } = yield* make(client, { script: () => Effect.fail(error) })
        const failure = yield* Effect.flip(
          dropIn.execute(
            HttpClientRequest.post(`${users}?key=SECRET`, {
              headers: { "x-api-key": "SECRET" },
              body: HttpBody.text("SECRET")
            })
          )
        )
        assert.isTrue(HttpClientError.isHttpClientError(failure))
        assert.isTrue(TokenError.isTokenError(failure.cause))
        assert.strictEqual(String(failure.cause), String(error))
        assert.deepStrictEqual({ ...failure.request.headers }, {})
        assert.strictEqual(failure.request.body._tag, "Empty")
        assert.include(failure.message, error.message)
        for (
          const text of [
            failure.message,
            JSON.stringify(failure),
            inspect(failure, { depth: 9 }),
            Cause.pretty(Cause.fail(failure))
          ]
        ) {
          assert.notInclude(text, "SECRET")
        }
        return failure
      })

    it.scoped("TokenRequestError: a RequestError, Transport", () =>
      Effect.gen(function*() {
        const error = yield* fail(noAnswer)
        assert.isTrue(error._tag === "RequestError" && error.reason === "Transport")
        assert.strictEqual(error.request.url, endpoint)
      }))

    for (const status of [200, 204, 205, 302, 304, 400, 401, 429, 500, 503, 599, 600, 999]) {
      it.scoped(`TokenErrorResponse with ${status}: a ResponseError, StatusCode, with status and body`, () =>
        Effect.gen(function*() {
          const error = yield* fail(response(status))
          assert.isTrue(error._tag === "ResponseError" && error.reason === "StatusCode")
          if (error._tag !== "ResponseError") return
          assert.strictEqual(error.response.status, status)
          if (![204, 205, 304].includes(status)) {
            assert.deepStrictEqual(yield* error.response.json, { error: "invalid_scope" })
          }
          assert.strictEqual(error.request.url, endpoint)
          assert.strictEqual(error.response.request.url, endpoint)
        }))
    }

    it.scoped("InvalidTokenResponse: a ResponseError, Decode", () =>
      Effect.gen(function*() {
        const error = yield* fail(new TokenError.InvalidTokenResponse({ endpoint, issue: "no token" }))
        assert.isTrue(error._tag === "ResponseError" && error.reason === "Decode")
        assert.strictEqual(error.request.url, endpoint)
      }))

    it.scoped("AuthorizationError: a ResponseError, StatusCode 401, which nothing retries", () =>
      Effect.gen(function*() {
        const error = yield* fail(new TokenError.AuthorizationError({ reason: "AccessDenied", error: "access_denied" }))
        assert.isTrue(error._tag === "ResponseError" && error.response.status === 401)
        assert.strictEqual(error.request.url, users)

        let asked = 0
        const { client } = accepting("token-0")
        const { dropIn } = yield* make(client, {
          script: () => {
            asked++
            return Effect.fail(new TokenError.AuthorizationError({ reason: "Timeout" }))
          }
        })
        yield* Effect.flip(HttpClient.retryTransient(dropIn, { times: 3 }).get(users))
        assert.strictEqual(asked, 1)
      }))

    for (const flavour of ["dropIn", "typed"] as const) {
      it.scoped(`an API that cannot be reached: the error shows no token (${flavour})`, () =>
        Effect.gen(function*() {
          const { client } = scripted((request) => broken(request))
          const clients = yield* make(client, { script: () => Effect.succeed("SECRET") })
          const error: unknown = yield* Effect.flip(
            flavour === "dropIn" ? clients.dropIn.get(users) : clients.typed.get(users)
          )
          for (
            const text of [
              String(error),
              JSON.stringify(error),
              inspect(error, { depth: 9 }),
              Cause.pretty(Cause.fail(error))
            ]
          ) {
            assert.notInclude(text, "SECRET")
          }
        }))

      it.scoped(`a status that is an error below: it shows no token (${flavour})`, () =>
        Effect.gen(function*() {
          const { client } = scripted(() => json({}, { status: 500 }))
          const clients = yield* make(HttpClient.filterStatusOk(client), { script: () => Effect.succeed("SECRET") })
          const error: unknown = yield* Effect.flip(
            flavour === "dropIn" ? clients.dropIn.get(users) : clients.typed.get(users)
          )
          for (
            const text of [
              String(error),
              JSON.stringify(error),
              inspect(error, { depth: 9 }),
              Cause.pretty(Cause.fail(error))
            ]
          ) {
            assert.notInclude(text, "SECRET")
          }
        }))
    }

    it.scoped("a body that cannot be read: the error shows no token", () =>
      Effect.gen(function*() {
        const answers = [
          () => new Response("no JSON"),
          () =>
            new Response(
              new ReadableStream({
                pull(controller) {
                  controller.error(new Error("ECONNRESET"))
                }
              })
            ),
          () => new Response(null, { status: 201 })
        ]
        const { client } = scripted((_, n) => answers[n % 3]!())
        const clients = yield* make(client, { script: () => Effect.succeed("SECRET") })
        const created = HttpClient.filterStatus(clients.typed, (status) => status === 200)
        const errors: ReadonlyArray<unknown> = [
          yield* Effect.flip(Effect.flatMap(clients.dropIn.get(users), (response) => response.json)),
          yield* Effect.flip(Effect.flatMap(clients.dropIn.get(users), (response) => response.text)),
          yield* Effect.flip(created.get(users))
        ]
        for (const error of errors) {
          for (const text of [String(error), JSON.stringify(error), inspect(error, { depth: 9 })]) {
            assert.notInclude(text, "SECRET")
          }
        }
      }))

    it.scoped("a client that throws when it is given a request shows no token", () =>
      Effect.gen(function*() {
        const throwing = HttpClient.mapRequestInput(scripted(() => json({})).client, (request) => {
          throw new Error(`cannot send ${JSON.stringify(request.headers)}`)
        })
        const { dropIn, typed } = yield* make(throwing)
        for (const client of [dropIn, typed, dropIn]) {
          const exit = yield* Effect.exit(client.get(users))
          assert.isTrue(Exit.isFailure(exit))
          assert.include(inspect(exit, { depth: 9 }), "cannot send")
          assert.notInclude(inspect(exit, { depth: 9 }), "token-0")
        }
      }))

    it.scoped("a defect of its client passes through", () =>
      Effect.gen(function*() {
        const { dropIn, typed } = yield* make(HttpClient.make(() => Effect.die("boom")))
        for (const client of [dropIn, typed]) {
          const exit = yield* Effect.exit(client.get(users))
          assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === "boom")
        }
      }))
  })

  describe("what is seen", () => {
    it.scoped("a replay has a span with the origin; a request whose token is at hand has none of ours", () => {
      const { layer, named, spans } = recordSpans()
      return Effect.gen(function*() {
        const { client } = accepting("SECRET-1")
        const { dropIn } = yield* make(client, { script: (n) => Effect.succeed(`SECRET-${n}`) })
        yield* Effect.withSpan(dropIn.get(users), "call")
        const [replay] = named("AuthorizedHttpClient.replay")
        assert.strictEqual(Option.getOrThrow(replay!.parent).spanId, named("call")[0]?.spanId)
        assert.deepStrictEqual([...replay!.attributes], [["origin", api]])
        assert.lengthOf(named("AuthorizedHttpClient.replay"), 1)
        const before = spans.length
        yield* dropIn.get(users)
        assert.deepStrictEqual(spans.slice(before).map(({ name }) => name), ["http.client GET"])
        for (const { attributes, events } of spans) {
          assert.notInclude(JSON.stringify([[...attributes], events]), "SECRET")
        }
      }).pipe(Effect.provide(layer))
    })

    it.scoped("a replay is logged at debug, annotated; a request whose token is at hand is not logged", () => {
      const { layer, lines } = recordLogs()
      return Effect.gen(function*() {
        const { client } = accepting("SECRET-1")
        const { dropIn, typed } = yield* make(client, { script: (n) => Effect.succeed(`SECRET-${n}`) })
        yield* dropIn.get(`${users}?key=SECRET`)
        const ours = lines.filter(({ annotations }) => annotations["module"] === "AuthorizedHttpClient")
        assert.deepStrictEqual(ours.map(({ message }) => message), [
          `refreshing the token and sending the request again after a 401 {"origin":"${api}"}`
        ])
        assert.deepStrictEqual(ours[0]?.annotations, { package: "effect-alf", module: "AuthorizedHttpClient" })
        for (const { cause, level, message } of lines) {
          assert.strictEqual(level, "DEBUG")
          assert.notInclude(message + cause, "SECRET")
        }
        const before = lines.length
        yield* typed.get(users)
        assert.lengthOf(lines, before)
      }).pipe(Effect.provide(layer))
    })
  })

  it.scoped("many requests at once, tokens refused at random: each is sent at most twice, and none without a token", () =>
    Effect.gen(function*() {
      const count = storm * 0.3
      const gate = yield* Deferred.make<void>()
      let accepted = 0
      const { client, requests } = scripted((request, n) =>
        Effect.zipRight(
          Deferred.await(gate),
          Effect.delay(
            Effect.sync(() => {
              if (n % 20 === 19) accepted++
              const number = Number(authorization(request)?.replace(shown("token-"), ""))
              return number >= accepted ? json({}) : unauthorized()
            }),
            Duration.millis((n * 7919) % 200)
          )
        )
      )
      const { dropIn } = yield* make(client)
      const fiber = yield* Effect.fork(
        Effect.forEach(Array.from({ length: count }), (_, n) => dropIn.get(`${users}/${n}`), { concurrency: 20 })
      )
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      yield* adjust("1 minute")
      yield* Fiber.join(fiber)
      const times = new Map<string, number>()
      for (const request of requests) {
        times.set(request.url, (times.get(request.url) ?? 0) + 1)
        assert.match(authorization(request) ?? "", /^(Bearer|DPoP) token-\d+$/)
      }
      assert.strictEqual(times.size, count)
      assert.isAtMost(Math.max(...times.values()), 2)
    }))
})

describe("AuthorizedHttpClient", () => {
  const { accepting, make, unauthorized } = over(bearer)

  describe("where the token goes", () => {
    const origins = [
      api,
      new URL("http://localhost:3000/base?query"),
      "https://other.example.com:8443/v1",
      "HTTPS://UPPER.example.com"
    ]
    const listed = [
      api,
      `${api}/`,
      `${api}/users`,
      `${api}?page=1`,
      `${api}#top`,
      "https://api.example.com:443/users",
      "HTTPS://API.EXAMPLE.COM/users",
      "https://Api.Example.Com/users",
      "https://user:password@api.example.com/users",
      "https://api.example.com\\users",
      "https://api.exa\tmple.com/users",
      " https://api.example.com/users",
      "https://api.example.com\\@evil.test/",
      "https://api.example.com?@evil.test/",
      "https://api.example.com#@evil.test/",
      "https://api%2eexample.com/users",
      "http://localhost:3000/users",
      "https://other.example.com:8443",
      "https://upper.example.com/"
    ]
    const others = [
      "https://api.example.com.evil.test/users",
      "https://api.example.com.",
      "https://api.example.com@evil.test/users",
      "https://api.example.com:443@evil.test/users",
      "https://api.example.com\t.evil.test/users",
      "https://api.example.com\n.evil.test/users",
      "https://api.example.comx/",
      "https://xapi.example.com/",
      "https://evil.test/https://api.example.com/",
      "https://evil.test/?https://api.example.com",
      "https://evil.test\\api.example.com/",
      "https://api.example.com:8443/users",
      "https://api.example.com:4430/users",
      "https://api.example.com:80/",
      "http://api.example.com/users",
      "http://api.example.com:443/users",
      "wss://api.example.com/users",
      "ftp://api.example.com/users",
      "blob:https://api.example.com/123",
      "http://localhost/users",
      "http://localhost:30000/users",
      "https://localhost:3000/users",
      "http://127.0.0.1:3000/users",
      "https://other.example.com/v1",
      "data:text/plain,hello"
    ]

    for (const url of listed) {
      it.scoped(`to ${JSON.stringify(url)}`, () =>
        Effect.gen(function*() {
          const { client, requests } = accepting("token-0")
          const { dropIn, typed } = yield* make(client, { origins })
          yield* dropIn.get(url)
          yield* typed.get(url)
          assert.deepStrictEqual(requests.map(authorization), ["Bearer token-0", "Bearer token-0"])
        }))
    }

    for (const url of others) {
      it.scoped(`not to ${JSON.stringify(url)}, and none is fetched for it`, () =>
        Effect.gen(function*() {
          const { client, requests } = scripted(() => unauthorized())
          const { asked, dropIn, typed } = yield* make(client, { origins })
          const request = HttpClientRequest.get(url).pipe(HttpClientRequest.setHeader("authorization", "of the caller"))
          const responses = [yield* dropIn.execute(request), yield* typed.execute(request)]
          assert.deepStrictEqual(responses.map(({ status }) => status), [401, 401])
          assert.deepStrictEqual(requests.map(authorization), ["of the caller", "of the caller"])
          assert.strictEqual(requests[0]?.request.url, url)
          assert.strictEqual(asked(), 0)
        }))
    }

    it.scoped("an origin is known by its host, however often another one was seen that begins like it", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted(() => json({}))
        const { dropIn } = yield* make(client, { origins: "any" })
        for (let n = 0; n < 40; n++) {
          yield* dropIn.get(`https://api${n}.example.com/`)
          yield* dropIn.get(`http://api${n}.example.com/`)
        }
        assert.strictEqual(requests.filter((request) => authorization(request) !== undefined).length, 40)
        assert.isTrue(
          requests.every((request) => request.url.startsWith("https") === (authorization(request) !== undefined))
        )
      }))

    it.scoped("an origin is known however it is written", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted(() => json({}))
        const { dropIn } = yield* make(client, { origins: ["http://localhost:8080", api] })
        yield* dropIn.get("http://LOCALHOST:8080/")
        yield* dropIn.get("https://API.example.com:443/")
        assert.deepStrictEqual(requests.map(authorization), ["Bearer token-0", "Bearer token-0"])
      }))

    it.scoped("\"any\" is every https and every loopback URL", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted(() => json({}))
        const { dropIn } = yield* make(client, { origins: "any" })
        const urls = {
          "https://one.test/": true,
          "https://two.test:8443/": true,
          "http://localhost:3000/": true,
          "http://127.0.0.1/": true,
          "http://127.1.2.3:80/": true,
          "http://[::1]:3000/": true,
          "http://one.test/": false,
          "http://localhost.evil.test/": false,
          "http://127.0.0.1.evil.test/": false,
          "http://192.168.0.1/": false,
          "http://[::2]/": false,
          "ws://localhost/": false
        }
        for (const url of Object.keys(urls)) yield* dropIn.get(url)
        assert.deepStrictEqual(
          requests.map((request) => authorization(request) !== undefined),
          Object.values(urls)
        )
      }))

    for (
      const url of [
        "/users",
        "users",
        "",
        "//api.example.com/users",
        "?page=1",
        "api.example.com/users",
        "https:/api.example.com/users",
        "https:api.example.com/users"
      ]
    ) {
      it.scoped(`a relative URL (${JSON.stringify(url)}) fails, and says what to do`, () =>
        Effect.gen(function*() {
          const { client, requests } = scripted(() => json({}))
          const { asked, dropIn, typed } = yield* make(client)
          for (const error of [yield* Effect.flip(dropIn.get(url)), yield* Effect.flip(typed.get(url))]) {
            assert.isTrue(error._tag === "RequestError" && error.reason === "InvalidUrl")
            assert.include(error.message, "the URL is relative where the token is put on")
            assert.include(error.message, "set the base URL above the authorized client, with HttpClient.mapRequest")
          }
          assert.deepStrictEqual([requests.length, asked()], [0, 0])
        }))
    }

    it.scoped("a base URL above the client is what counts", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("token-0")
        const { dropIn } = yield* make(client)
        const response = yield* dropIn.pipe(HttpClient.mapRequest(HttpClientRequest.prependUrl(api))).get("/users")
        assert.strictEqual(response.status, 200)
        assert.strictEqual(requests[0]?.url, users)
      }))

    it.scoped("the Authorization header of the caller is replaced, and nothing else is touched", () =>
      Effect.gen(function*() {
        const { client, requests } = accepting("token-0")
        const { dropIn } = yield* make(client)
        yield* dropIn.execute(
          HttpClientRequest.post(`${users}?a=1`, {
            headers: { Authorization: "Basic of-the-caller", "X-Other": "kept" },
            body: HttpBody.text("hello")
          }).pipe(HttpClientRequest.appendUrlParam("b", "2"))
        )
        const request = requests[0]!
        assert.strictEqual(request.headers["authorization"], "Bearer token-0")
        assert.strictEqual(request.headers["x-other"], "kept")
        assert.strictEqual(request.url, `${users}?a=1&b=2`)
        assert.deepStrictEqual([request.method, request.body], ["POST", "hello"])
      }))

    for (const [name, origins] of [["no list", []], ["no URL", ["api.example.com"]], ["another scheme", ["ftp://a"]]]) {
      it.effect(`origins that are ${String(name)} are told of when the clients are made`, () =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(AuthorizedHttpClient.make({ origins: origins as ReadonlyArray<string> }))
          assert.strictEqual(error._tag, "ConfigurationError")
          assert.match(error.message, /^origins/)
        }).pipe(
          Effect.provideService(HttpClient.HttpClient, scripted(() => json({})).client),
          Effect.provide(TokenService.layerStatic("token"))
        ))
    }
  })

  it("Unauthorized says what the API said", () => {
    const message = (...challenges: AuthorizedHttpClient.Unauthorized["challenges"]) =>
      new AuthorizedHttpClient.Unauthorized({ method: "GET", url: users, status: 401, challenges }).message
    assert.strictEqual(message(), `GET ${users} was answered with 401`)
    assert.strictEqual(
      message(
        { scheme: "Bearer", params: { error: "invalid_token", error_description: "it has ended" } },
        { scheme: "Basic", params: {} },
        { scheme: "DPoP", params: { error: "use_dpop_nonce" } }
      ),
      `GET ${users} was answered with 401: it has ended: use_dpop_nonce`
    )
  })

  describe("withToken and the layers", () => {
    it.scoped("withToken is given the client first or last", () =>
      Effect.gen(function*() {
        const { client } = accepting("token-1")
        const { asked, service } = yield* tokenService()
        const first = yield* AuthorizedHttpClient.withToken(client, { origins: [api] }).pipe(
          Effect.provideService(TokenService.TokenService, service)
        )
        const last = yield* client.pipe(
          AuthorizedHttpClient.withToken({ origins: [api] }),
          Effect.provideService(TokenService.TokenService, service)
        )
        assert.strictEqual((yield* first.get(users)).status, 200)
        assert.strictEqual((yield* last.get(users)).status, 200)
        assert.strictEqual(asked(), 2)
      }))

    it.scoped("what only looks like a 401 of the API is not replayed", () =>
      Effect.gen(function*() {
        const response = (request: HttpClientRequest.HttpClientRequest) =>
          HttpClientResponse.fromWeb(request, unauthorized())
        const { service } = yield* tokenService()
        let sent = 0
        const failing = <E>(error: (request: HttpClientRequest.HttpClientRequest) => E) =>
          AuthorizedHttpClient.withToken(
            HttpClient.makeWith(
              Effect.flatMap((request: HttpClientRequest.HttpClientRequest) =>
                Effect.suspend(() => {
                  sent++
                  return Effect.fail(error(request))
                })
              ),
              Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
            ),
            { origins: [api] }
          ).pipe(
            Effect.flatMap((client) => Effect.flip(client.get(users))),
            Effect.provideService(TokenService.TokenService, service)
          )
        const decode = yield* failing((request) =>
          new HttpClientError.ResponseError({ request, response: response(request), reason: "Decode" })
        )
        assert.strictEqual(decode._tag, "ResponseError")
        const foreign = { _tag: "ResponseError", reason: "StatusCode", status: 401 } as const
        assert.strictEqual(
          yield* failing((request) => ({ ...foreign, response: response(request) })).pipe(
            Effect.map(({ _tag }) => _tag)
          ),
          "ResponseError"
        )
        assert.strictEqual(sent, 2)
      }))

    it.scoped("a service whose get was replaced hands out its own tokens", () =>
      Effect.gen(function*() {
        const { client, requests } = scripted(() => json({ ok: true }))
        const { service } = yield* tokenService()
        let calls = 0
        const counted = Effect.zipRight(Effect.sync(() => calls++), service.get)
        const authorized = yield* AuthorizedHttpClient.withToken(client, { origins: [api] }).pipe(
          Effect.provideService(TokenService.TokenService, { ...service, get: counted })
        )
        yield* Effect.repeatN(authorized.get(users), 2)
        assert.strictEqual(calls, 3)
        assert.deepStrictEqual(requests.map(authorization), Array(3).fill("Bearer token-0"))
      }))

    it.scoped("withToken keeps the errors of its client", () =>
      Effect.gen(function*() {
        const { client } = accepting("token-0")
        const { service } = yield* tokenService()
        const failing = HttpClient.transform(client, () => Effect.fail("of the client" as const))
        const authorized = yield* AuthorizedHttpClient.withToken(failing, { origins: [api] }).pipe(
          Effect.provideService(TokenService.TokenService, service)
        )
        assert.strictEqual(yield* Effect.flip(authorized.get(users)), "of the client")
      }))

    it.effect("layer and layerHttpClient", () => {
      const { layer } = accepting("token")
      const tokens = TokenService.layerStatic("token")
      const dependencies = Layer.merge(layer, tokens)
      return Effect.gen(function*() {
        const typed = yield* AuthorizedHttpClient.AuthorizedHttpClient
        const dropIn = yield* HttpClient.HttpClient
        assert.strictEqual((yield* typed.get(users)).status, 200)
        assert.strictEqual((yield* dropIn.get(users)).status, 200)
      }).pipe(
        Effect.provide(Layer.merge(
          AuthorizedHttpClient.layer({ origins: [api] }).pipe(Layer.provide(dependencies)),
          AuthorizedHttpClient.layerHttpClient({ origins: [api] }).pipe(Layer.provide(dependencies))
        ))
      )
    })

    it.effect("origins that are not URLs are a ConfigurationError of the layers", () =>
      Effect.gen(function*() {
        const dependencies = Layer.merge(accepting("token").layer, TokenService.layerStatic("token"))
        const build = <A>(
          layer: Layer.Layer<A, TokenError.ConfigurationError, HttpClient.HttpClient | TokenService.TokenService>
        ) => Effect.exit(Effect.scoped(Layer.build(Layer.provide(layer, dependencies))))
        for (
          const exit of [
            yield* build(AuthorizedHttpClient.layer({ origins: ["nowhere"] })),
            yield* build(AuthorizedHttpClient.layerHttpClient({ origins: ["nowhere"] }))
          ]
        ) {
          assert.isTrue(Exit.isFailure<unknown, unknown>(exit) && Cause.isFailType(exit.cause))
        }
      }))

    it.effect("over fetch, a token goes onto the wire", () => {
      const seen: Array<string | null> = []
      const fetch: typeof globalThis.fetch = (_, init) => {
        seen.push(new Headers(init?.headers).get("authorization"))
        return Promise.resolve(new Response(null, { status: seen.length === 1 ? 401 : 200 }))
      }
      return Effect.gen(function*() {
        const client = yield* HttpClient.HttpClient
        assert.strictEqual((yield* client.get(users)).status, 200)
        assert.deepStrictEqual(seen, ["Bearer token", "Bearer token"])
      }).pipe(
        Effect.provide(AuthorizedHttpClient.layerHttpClient({ origins: [api] })),
        Effect.provide(Layer.merge(FetchHttpClient.layer, TokenService.layerStatic("token"))),
        Effect.provideService(FetchHttpClient.Fetch, fetch)
      )
    })
  })

  it("an API that refuses new tokens too, each with a slow answer, costs few token requests", () => {
    const { client } = scripted((_, n) =>
      Effect.delay(Effect.sync(() => unauthorized()), Duration.millis(100 + (n * 37) % 900))
    )
    const asked = runVirtually(Effect.scoped(Effect.gen(function*() {
      const { asked, dropIn } = yield* make(client)
      for (let tick = 0; tick < 240; tick++) {
        yield* Effect.fork(many(2, dropIn.get(users)))
        yield* Effect.sleep("250 millis")
      }
      return asked()
    })))
    assert.isAtMost(asked, 10)
    assert.isAtLeast(asked, 5)
  })
})
