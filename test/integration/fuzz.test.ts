/**
 * Ten thousand responses that no server should give, to token requests and to requests of an API: each ends in a success or
 * a typed error, in little time, and no rendering of it shows what is secret. It takes most of a minute, and so it runs with
 * the integration tests.
 */
import { HttpClient, HttpClientError } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, FastCheck as fc, Layer, Logger, LogLevel, Redacted } from "effect"
import { Alf, AuthorizedHttpClient, TokenError } from "effect-alf"
import { inspect } from "node:util"
import { deflateSync, gzipSync } from "node:zlib"
import { goodToken, json, type Received, scripted } from "../support/scriptedClient.ts"

const secret = "MARKED-secret/&+\"é\\"
const marks = ["MARKED", Buffer.from(secret).toString("base64"), Buffer.from(`client:${secret}`).toString("base64")]

interface Generated {
  readonly status: number
  readonly headers: ReadonlyArray<readonly [string, string]>
  /** Written with what was sent, for servers that echo it. */
  readonly body: (sent: string) => Uint8Array
}

/** Where a server may echo what it was sent, and how. */
const echo = fc.constantFrom<(sent: string) => string>(
  (sent: string) => sent,
  encodeURIComponent,
  (sent) => encodeURIComponent(encodeURIComponent(sent)),
  (sent) => new URLSearchParams({ "": sent }).toString().slice(1),
  JSON.stringify,
  (sent) => JSON.stringify(JSON.stringify(sent)),
  (sent) => sent.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`),
  (sent) => sent.slice(0, -1),
  (sent) => `${"\\".repeat(20)}${sent}`,
  () => ""
)

const word = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 40 }),
  fc.constantFrom(
    "",
    "null",
    "-1",
    "0",
    "3600s",
    "1e400",
    "NaN",
    "9".repeat(300),
    "\u001b[2J\u0007",
    "\u2028",
    "\ud800"
  ),
  fc.constantFrom(
    "invalid_client",
    "invalid_grant",
    "temporarily_unavailable",
    "access_token",
    "Bearer",
    "DPoP",
    "mac",
    "N_A"
  )
)

const value: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 6, arbitrary: word },
  { weight: 2, arbitrary: fc.oneof(fc.integer(), fc.double(), fc.constantFrom(0, -1, 1e308, 3600)) },
  { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
  { weight: 1, arbitrary: fc.constantFrom(null, true, false, {}, []) }
)

const name = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.constantFrom(
      "access_token",
      "token_type",
      "expires_in",
      "refresh_token",
      "scope",
      "error",
      "error_description",
      "error_uri",
      "id_token",
      "__proto__",
      "constructor",
      "toJSON"
    )
  },
  { weight: 1, arbitrary: word }
)

const members = fc.array(fc.tuple(name, value), { maxLength: 8 })

const objectText = (members: ReadonlyArray<readonly [string, unknown]>, sent: string) =>
  `{${
    [...members, ["echo", sent]].map(([key, member]) => `${JSON.stringify(key)}:${JSON.stringify(member)}`).join(",")
  }}`

const text: fc.Arbitrary<(sent: string) => string> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(members, echo).map(([list, write]) => (sent: string) => objectText(list, write(sent)))
  },
  {
    weight: 2,
    arbitrary: fc.tuple(members, echo).map(([list, write]) => (sent: string) =>
      objectText(list, write(sent)).slice(0, -3)
    )
  },
  {
    weight: 2,
    arbitrary: fc.tuple(members, echo).map(([list, write]) => (sent: string) =>
      [...list, ["echo", write(sent)]].map(([key, member]) => `${String(key)}=${String(member)}`).join("&")
    )
  },
  {
    weight: 2,
    arbitrary: fc.tuple(word, echo).map(([words, write]) => (sent: string) => `<html>${words} ${write(sent)}</html>`)
  },
  { weight: 1, arbitrary: word.map((words) => () => words) },
  {
    weight: 1,
    arbitrary: fc.tuple(
      fc.constantFrom("[", "{\"a\":", "\\", "access_token=a&", "%25", "&#x"),
      fc.nat({ max: 20_000 }),
      echo
    )
      .map(([part, times, write]) => (sent: string) => part.repeat(times) + write(sent))
  }
)

/** A megabyte of what parsers are slow at. */
const slow: fc.Arbitrary<(sent: string) => string> = fc.constantFrom(
  "[",
  "{\"a\":",
  "{},",
  "[],",
  "1e-300,",
  "[[[[[]]]]],"
).map((part) => {
  const all = `{"a":[${part.repeat(1024 * 1024 / part.length - 10)}`
  return () => all
})

/** Some are far too large, in a compressed form too. */
const size = fc.oneof({ weight: 200, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1_500_000) })

const body: fc.Arbitrary<{ readonly encoding: string | undefined; readonly body: Generated["body"] }> = fc.tuple(
  fc.constantFrom(
    undefined,
    undefined,
    undefined,
    undefined,
    "gzip",
    "deflate",
    "br",
    "gzip, gzip",
    "identity",
    "nonsense"
  ),
  fc.boolean(),
  fc.oneof({ weight: 300, arbitrary: text }, { weight: 1, arbitrary: slow }),
  size
).map(([encoding, isTrue, text, padding]) => ({
  encoding,
  body: (sent) => {
    const bytes = Buffer.from(text(sent) + " ".repeat(padding))
    if (!isTrue) return bytes
    return encoding === "gzip" ? gzipSync(bytes) : encoding === "deflate" ? deflateSync(bytes) : bytes
  }
}))

const latin = (words: string) => words.replace(/[^\x20-\x7e]/g, "?").trim()

const header: fc.Arbitrary<readonly [string, string]> = fc.tuple(
  fc.constantFrom(
    "content-type",
    "retry-after",
    "location",
    "date",
    "www-authenticate",
    "content-length",
    "dpop-nonce"
  ),
  fc.oneof(
    word,
    fc.constantFrom(
      "application/json",
      "text/html; charset=utf-7",
      "Thu, 01 Jan 1970 00:00:00 GMT",
      "Fri, 31 Dec 9999 23:59:59 GMT",
      "120",
      "https://elsewhere.test/?token=hidden",
      "Bearer error=\"invalid_token\", error_description=\"other words\"",
      `Bearer ${"a=\"\\".repeat(500)}`,
      "DPoP error=\"use_dpop_nonce\""
    )
  ).map(latin)
)

const status = fc.oneof(
  fc.constantFrom(200, 201, 302, 307, 400, 401, 403, 404, 408, 429, 500, 502, 503),
  fc.integer({ min: 200, max: 599 })
)

const response: fc.Arbitrary<Generated> = fc.tuple(status, fc.array(header, { maxLength: 4 }), body).map(
  ([status, headers, { body, encoding }]) => ({
    status,
    headers: encoding === undefined ? headers : [...headers, ["content-encoding", encoding]],
    body
  })
)

const answer = ({ body, headers, status }: Generated, sent: string): Response => {
  const all = new Headers()
  for (const [key, words] of headers) all.append(key, words)
  const isEmpty = status === 204 || status === 205 || status === 304
  return new Response(isEmpty ? null : Buffer.from(body(sent)), { status, headers: all })
}

const isAuth = ({ url }: Received) => url.startsWith("https://auth.test")

const get = Effect.flatMap(
  AuthorizedHttpClient.AuthorizedHttpClient,
  (client) => Effect.flatMap(client.get("https://api.test/data"), (response) => response.text)
)
const getDropIn = Effect.flatMap(
  HttpClient.HttpClient,
  (client) => Effect.flatMap(client.get("https://api.test/data"), (response) => response.text)
)

type Program = Effect.Effect<string, unknown, AuthorizedHttpClient.AuthorizedHttpClient | HttpClient.HttpClient>

const layer = Alf.layer({
  tokenEndpoint: "https://auth.test/token",
  clientId: "client",
  clientSecret: Redacted.make(secret),
  origins: ["https://api.test"],
  tokenRetry: { times: 0 }
})

const isTyped = (error: unknown): boolean =>
  TokenError.isTokenError(error) || error instanceof AuthorizedHttpClient.Unauthorized ||
  error instanceof AuthorizedHttpClient.InsufficientScope || HttpClientError.isHttpClientError(error)

/** Runs a program to its end, and gives the processor's time that it took, in milliseconds. */
const timed = (handler: (request: Received) => Response, program: Program) =>
  Effect.gen(function*() {
    const http = scripted(handler)
    const before = process.cpuUsage()
    const exit = yield* Effect.exit(
      Effect.provide(program, Layer.provide(Layer.merge(layer, Logger.minimumLogLevel(LogLevel.None)), http.layer))
    )
    const { system, user } = process.cpuUsage(before)
    return { exit, millis: (user + system) / 1000 }
  })

const check = (handler: (request: Received) => Response, program: Program, what: () => string) =>
  Effect.gen(function*() {
    const first = yield* timed(handler, program)
    const { exit } = first
    let { millis } = first
    // a collection of garbage may have fallen into it
    for (let n = 0; n < 5 && millis > 50; n++) millis = Math.min(millis, (yield* timed(handler, program)).millis)
    assert.isAtMost(millis, 50, what())
    if (Exit.isSuccess(exit)) return false
    const errors = [...Cause.failures(exit.cause)]
    assert.deepStrictEqual([...Cause.defects(exit.cause)], [], what())
    assert.isTrue(errors.length > 0 && errors.every(isTyped), what())
    for (const error of errors) {
      const texts: ReadonlyArray<string> = [
        String(error),
        JSON.stringify(error),
        inspect(error, { depth: 12 }),
        Cause.pretty(exit.cause)
      ]
      for (const text of texts) {
        for (const mark of marks) {
          if (text.includes(mark)) assert.fail(`${what()} shows ${mark}: ${text}`)
        }
        assert.notMatch(String(error instanceof Error ? error.message : ""), /[\p{Cc}\u2028\u2029]/u, what())
      }
    }
    return true
  })

const sample = <A>(arbitrary: fc.Arbitrary<A>, numRuns: number): ReadonlyArray<A> =>
  fc.sample(arbitrary, { numRuns, ...(process.env["ALF_SEED"] ? { seed: Number(process.env["ALF_SEED"]) } : {}) })

const describeResponse = (generated: Generated, sent: string) => () =>
  inspect({ ...generated, body: Buffer.from(generated.body(sent)).toString("latin1").slice(0, 2_000) })

describe("whatever comes from outside", () => {
  it.live(
    "a response to a token request ends in a typed error or a success, and shows no secret",
    () =>
      Effect.gen(function*() {
        let failures = 0
        for (const [n, generated] of sample(response, 5_000).entries()) {
          const handler = (request: Received) => isAuth(request) ? answer(generated, secret) : json({ fine: true })
          if (yield* check(handler, n % 2 === 0 ? get : getDropIn, describeResponse(generated, secret))) failures++
        }
        assert.isAbove(failures, 1_000)
      }),
    120_000
  )

  it.live(
    "a response of the API ends in a typed error or a success, and shows no token",
    () =>
      Effect.gen(function*() {
        let failures = 0
        for (const [n, generated] of sample(response, 5_000).entries()) {
          const handler = (request: Received) =>
            isAuth(request) ? goodToken("MARKED-access") : answer(generated, "nothing of the request")
          if (yield* check(handler, n % 2 === 0 ? get : getDropIn, describeResponse(generated, ""))) failures++
        }
        assert.isAbove(failures, 20)
      }),
    120_000
  )
})
