/** Providers that count the life of a token in their own way, or send the response in another form. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, TestClock } from "effect"
import { gzipSync } from "node:zlib"
import { json, type Options, play } from "../../support/playServer.ts"

/** When the token expires, in seconds from now; never if there is no end. */
const lifeOf = (body: unknown, options: Options = {}) =>
  Effect.gen(function*() {
    const server = yield* play({ token: () => json(body), options })
    const { expiresAt } = yield* server.tokens.get
    return Option.match(expiresAt, { onNone: () => "never", onSome: (at) => DateTime.toEpochMillis(at) / 1000 })
  })

const token = { access_token: "t", token_type: "bearer" }

describe("expires_in", () => {
  const rows: ReadonlyArray<readonly [string, unknown, number | "never"]> = [
    ["a number", 3600, 3600],
    ["a text of digits", "3600", 3600],
    ["with spaces around it", " 3600 ", 3600],
    ["a fraction", 3599.9, 3599],
    ["huge", 1e18, 2 ** 31 - 1],
    ["missing", undefined, "never"],
    ["null", null, "never"],
    ["negative", -1, "never"],
    ["empty", "", "never"],
    ["with a unit", "3600s", "never"],
    ["a date", "2030-01-01T00:00:00Z", "never"]
  ]
  for (const [name, value, life] of rows) {
    it.scoped(`${name}: ${life}`, () =>
      Effect.map(lifeOf({ ...token, expires_in: value }), (found) => assert.strictEqual(found, life)))
  }

  for (const name of ["VK", "Mailchimp"]) {
    it.scoped(`${name}: 0 means never, by mapTokenResponse`, () =>
      Effect.map(
        lifeOf({ ...token, expires_in: 0 }, {
          mapTokenResponse: ({ expires_in, ...members }) => expires_in === 0 ? members : { ...members, expires_in }
        }),
        (life) => assert.strictEqual(life, "never")
      ))
  }

  it.scoped("Zoho: milliseconds, by mapTokenResponse", () =>
    Effect.map(
      lifeOf({ ...token, expires_in: 3_600_000, expires_in_sec: 3600 }, {
        mapTokenResponse: (members) => ({ ...members, expires_in: members["expires_in_sec"] })
      }),
      (life) => assert.strictEqual(life, 3600)
    ))

  it.scoped("Square: a date in another member, by mapTokenResponse", () =>
    Effect.map(
      lifeOf({ ...token, expires_at: "1970-01-31T00:00:00Z" }, {
        mapTokenResponse: (members) => ({
          ...members,
          expires_in: Math.floor(Date.parse(String(members["expires_at"])) / 1000)
        })
      }),
      (life) => assert.strictEqual(life, 30 * 24 * 3600)
    ))

  it.scoped("0 serves the callers that wait, and is not kept", () =>
    Effect.gen(function*() {
      const server = yield* play({ token: () => json({ ...token, expires_in: 0 }) })
      assert.strictEqual(yield* server.get, 200)
      assert.strictEqual(yield* server.get, 200)
      assert.lengthOf(server.tokenRequests(), 2)
    }))
})

describe("the form of the response", () => {
  for (const encoding of ["gzip", undefined]) {
    it.scoped(`Akamai, Snowflake: gzip ${encoding === undefined ? "that nobody decoded and nothing says" : "that nobody decoded"}`, () =>
      Effect.gen(function*() {
        const server = yield* play({
          token: () =>
            new Response(gzipSync(JSON.stringify({ ...token, expires_in: 60 })), {
              headers: encoding === undefined ? {} : { "content-encoding": encoding }
            })
        })
        if (encoding === undefined) assert.strictEqual((yield* Effect.flip(server.get))._tag, "InvalidTokenResponse")
        else assert.strictEqual(yield* server.get, 200)
      }))
  }

  it.scoped("Stack Exchange: a form", () =>
    Effect.gen(function*() {
      const server = yield* play({ token: () => new Response("access_token=t&expires=86400") })
      assert.strictEqual(yield* server.get, 200)
      assert.strictEqual(server.apiRequests()[0]?.headers["authorization"], "Bearer t")
    }))

  it.scoped("a page that quotes a link with a token is none", () =>
    Effect.gen(function*() {
      const server = yield* play({ token: () => new Response("<a href=\"?access_token=t&x=1\">here</a>") })
      assert.strictEqual((yield* Effect.flip(server.get))._tag, "InvalidTokenResponse")
    }))
})

describe("an API that knows a new token late", () => {
  for (const name of ["GitHub", "ForgeRock", "Rackspace"]) {
    it.scoped(`${name}: no request fails at a renewal, and no token request is added`, () =>
      Effect.gen(function*() {
        const known = new Map<string, number>()
        let now = 0
        const server = yield* play({
          token: (_, n) => {
            // the first one is known at once
            known.set(`t${n}`, n === 0 ? 0 : now + 4_000)
            return json({ access_token: `t${n}`, expires_in: 3600 })
          },
          api: ({ headers }) => {
            const since = known.get((headers["authorization"] ?? "").slice(7)) ?? Infinity
            return new Response(null, { status: since <= now ? 200 : 401 })
          }
        })
        const second = Effect.gen(function*() {
          yield* TestClock.adjust("1 second")
          now += 1_000
          assert.strictEqual(yield* server.get, 200)
        })
        yield* server.get
        yield* TestClock.adjust("3550 seconds")
        now += 3_550_000
        for (let n = 0; n < 20; n++) yield* second
        assert.lengthOf(server.tokenRequests(), 2)
        assert.strictEqual(server.apiRequests().at(-1)?.headers["authorization"], "Bearer t1")
      }))
  }
})
