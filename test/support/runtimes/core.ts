/** What the core promises, over fetch and WebCrypto alone: the same program in each runtime. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import { Effect, Layer, Redacted } from "effect"
import { Alf, TokenStorage } from "effect-alf"
import * as DPoP from "effect-alf/DPoP"
import { TestAuthorizationServer } from "effect-alf/testing"

export interface Report {
  /** Of ten requests at once, of one whose token was revoked, of one with a proof, of one to a server in memory. */
  readonly statuses: ReadonlyArray<number>
  /** How many values a second program found in the storage, and whether a token can be read in one. */
  readonly stored: number
  readonly isReadable: boolean
}

const status = (url: string) =>
  Effect.flatMap(HttpClient.get(url), (response) => Effect.as(response.text, response.status))

export const options = (url: string) => ({
  tokenEndpoint: `${url}/token`,
  clientId: "client",
  clientSecret: Redacted.make("a secret"),
  origins: [url]
})

/** Encrypted, in any object with get and set. */
const makeStorage = (texts: Map<string, string>) =>
  TokenStorage.encrypted(TokenStorage.layerStore(texts), {
    keys: [Redacted.make(btoa("0123456789abcdef0123456789abcdef"))]
  })

export const program = (url: string): Effect.Effect<Report, unknown> =>
  Effect.gen(function*() {
    const texts = new Map<string, string>()
    const storage = makeStorage(texts)
    const connected = <A, E>(effect: Effect.Effect<A, E, HttpClient.HttpClient>, dpop?: Alf.Options["dpop"]) =>
      Effect.provide(
        effect,
        Alf.layer({ ...options(url), dpop }).pipe(Layer.provide(Layer.merge(FetchHttpClient.layer, storage)))
      )
    const together = yield* connected(
      Effect.all(Array.from({ length: 10 }, () => status(`${url}/api`)), { concurrency: "unbounded" })
    )
    const revoked = yield* connected(
      Effect.zipRight(Effect.promise(() => fetch(`${url}/revoke`, { method: "POST" })), status(`${url}/api`))
    )
    const proved = yield* connected(status(`${url}/api`), DPoP.generate())
    const inMemory = yield* Effect.provide(
      status("https://api.test/orders"),
      Alf.layer({
        tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
        clientId: "client",
        origins: ["https://api.test"]
      }).pipe(Layer.provide(TestAuthorizationServer.layer()))
    )
    const values = [...texts.values()]
    return {
      statuses: [...together, revoked, proved, inMemory],
      stored: values.length,
      isReadable: values.some((value) => value.includes("token-"))
    }
  })
