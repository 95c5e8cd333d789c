/**
 * The two servers of the demo, on loopback sockets: an authorization server, and an API that wants its tokens.
 *
 * They count what they are asked. All counts that the demo prints and checks are theirs.
 */
// @ts-nocheck

import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Clock, Context, Effect, HashMap, HashSet, Layer, Option, Ref, Schema } from "effect"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import { Stage } from "./Stage.ts"

/** How the authorization server behaves during an act. */
export interface Rules {
  /** How many seconds a token lives. */
  readonly expiresIn: number
  /** How many milliseconds it takes to issue one. */
  readonly latency: number
  /** How many token requests are answered with 503 before it works. */
  readonly outage: number
}

const defaults: Rules = { expiresIn: 60, latency: 100, outage: 0 }

/** What was counted since the act began. */
export interface Counted {
  readonly tokenRequests: number
  /** Tokens that were issued. */
  readonly tokens: number
  /** Requests to the API with a good token: answered with 200. */
  readonly accepted: number
  /** Requests to the API without one: answered with 401. */
  readonly refused: number
}

const nothing: Counted = { tokenRequests: 0, tokens: 0, accepted: 0, refused: 0 }

interface Token {
  readonly name: string
  readonly expiresAt: number
}

export class Servers extends Context.Tag("demo/Servers")<Servers, {
  readonly tokenEndpoint: string
  readonly api: string
  /** A new act: its rules, no tokens, all counts at zero. */
  readonly reset: (rules: Partial<Rules>) => Effect.Effect<void>
  /** From now on the API refuses all tokens that were issued so far. */
  readonly revoke: Effect.Effect<void>
  readonly counted: Effect.Effect<Counted>
  /** How many milliseconds passed from each token request to the next. */
  readonly pauses: Effect.Effect<ReadonlyArray<number>>
  /** How many requests the API answered while a token was being issued. */
  readonly meanwhile: Effect.Effect<number>
}>() {}

/** The client that the authorization server knows. */
export const credentials = { id: "demo", secret: "known to these two" }

/** What that client has to send (RFC 6749 §2.3.1): id and secret, form-encoded. */
const authorization = `Basic ${btoa(`${credentials.id}:${credentials.secret.replaceAll(" ", "+")}`)}`

const TokenRequest = Schema.Struct({ grant_type: Schema.Literal("client_credentials"), scope: Schema.String })

/** Serves on a free port. */
const listen = <E>(router: HttpRouter.HttpRouter<E>) =>
  Effect.gen(function*() {
    // a thousand connections may come in one moment
    const server = yield* NodeHttpServer.make(createServer, { host: "127.0.0.1", port: 0, backlog: 2048 })
    yield* server.serve(router)
    return HttpServer.formatAddress(server.address)
  })

export const layer = Layer.scoped(
  Servers,
  Effect.gen(function*() {
    const { event, style } = yield* Stage
    const rules = yield* Ref.make(defaults)
    const counted = yield* Ref.make(nothing)
    const askedAt = yield* Ref.make<ReadonlyArray<number>>([])
    const meanwhile = yield* Ref.make(0)
    const tokens = yield* Ref.make(HashMap.empty<string, Token>())
    const told = yield* Ref.make(HashSet.empty<string>())

    const count = (name: keyof Counted) =>
      Ref.updateAndGet(counted, (before) => ({ ...before, [name]: before[name] + 1 }))

    const pauses = Effect.map(
      Ref.get(askedAt),
      (times) => times.slice(1).map((time, index) => time - (times[index] ?? time))
    )

    const authorizationServer = (text: string) => event(style("magenta", "auth server"), text)

    const answer = (status: number, text: string, body: object) =>
      Effect.as(
        authorizationServer(`${style(status === 200 ? "green" : "red", `${status}`)}  ${text}`),
        HttpServerResponse.unsafeJson(body, { status })
      )

    const tokenEndpoint = Effect.gen(function*() {
      const { expiresIn, latency, outage } = yield* Ref.get(rules)
      const now = yield* Clock.currentTimeMillis
      yield* Ref.update(askedAt, (times) => [...times, now])
      const { tokenRequests } = yield* count("tokenRequests")
      if (tokenRequests <= outage) {
        const pause = (yield* pauses).at(-1)
        return yield* answer(503, pause === undefined ? "out of order" : `asked again after ${pause} ms`, {})
      }

      const { headers } = yield* HttpServerRequest.HttpServerRequest
      const { scope } = yield* HttpServerRequest.schemaBodyUrlParams(TokenRequest)
      if (headers["authorization"] !== authorization) return yield* answer(401, "who?", { error: "invalid_client" })
      if (scope !== "read") return yield* answer(400, `there is no scope "${scope}"`, { error: "invalid_scope" })

      const before = (yield* Ref.get(counted)).accepted
      yield* Effect.sleep(latency)
      const after = (yield* Ref.get(counted)).accepted
      yield* Ref.update(meanwhile, (n) => n + after - before)

      const name = `token ${(yield* count("tokens")).tokens}`
      const value = randomUUID().toString()
      const expiresAt = (yield* Clock.currentTimeMillis) + expiresIn * 1000
      yield* Ref.update(tokens, HashMap.set(value, { name, expiresAt }))
      return yield* answer(200, `${name}, good for ${expiresIn} s`, {
        access_token: value,
        token_type: "Bearer",
        expires_in: expiresIn
      })
    })

    /** Only the first answer of a kind has a line: the API is asked often. */
    const api = (text: string) =>
      Effect.whenEffect(
        event(style("cyan", "API        "), text),
        Ref.modify(told, (before) => [!HashSet.has(before, text), HashSet.add(before, text)])
      )

    const greeting = Effect.gen(function*() {
      yield* Effect.sleep("10 millis")
      const { headers } = yield* HttpServerRequest.HttpServerRequest
      const now = yield* Clock.currentTimeMillis
      const token = HashMap.get(yield* Ref.get(tokens), headers["authorization"]?.replace("Bearer ", "") ?? "")
      const name = Option.match(token, { onNone: () => "no token", onSome: ({ name }) => name })
      if (Option.exists(token, ({ expiresAt }) => now < expiresAt)) {
        yield* count("accepted")
        yield* api(`${style("green", "200")}  for ${name}`)
        return HttpServerResponse.text("Hello")
      }
      yield* count("refused")
      yield* api(`${style("yellow", "401")}  for ${name}`)
      return HttpServerResponse.empty({
        status: 401,
        headers: { "www-authenticate": "Bearer error=\"invalid_token\"" }
      })
    })

    return {
      tokenEndpoint: `${yield* listen(HttpRouter.post(HttpRouter.empty, "/token", tokenEndpoint))}/token`,
      api: `${yield* listen(HttpRouter.get(HttpRouter.empty, "/greeting", greeting))}/greeting`,
      reset: (changed) =>
        Effect.all([
          Ref.set(rules, { ...defaults, ...changed }),
          Ref.set(counted, nothing),
          Ref.set(askedAt, []),
          Ref.set(meanwhile, 0),
          Ref.set(tokens, HashMap.empty()),
          Ref.set(told, HashSet.empty())
        ], { discard: true }),
      revoke: Effect.zipRight(
        Ref.update(tokens, HashMap.map((token) => ({ ...token, expiresAt: 0 }))),
        authorizationServer(`${style("yellow", "---")}  all tokens are revoked`)
      ),
      counted: Ref.get(counted),
      pauses,
      meanwhile: Ref.get(meanwhile)
    }
  })
)
