/** A page: the same program, and tokens in localStorage. */
import { FetchHttpClient, HttpClient, KeyValueStore } from "@effect/platform"
import { Effect, Layer, Redacted } from "effect"
import { Alf, TokenStorage } from "effect-alf"
import { options, program } from "./core.ts"

const storage = TokenStorage.encrypted(
  TokenStorage.layerKeyValueStore().pipe(Layer.provide(KeyValueStore.layerStorage(() => localStorage))),
  { keys: [Redacted.make(btoa("0123456789abcdef0123456789abcdef"))] }
)

/** The body of the API's response, by a new layer over the same localStorage. */
const visit = (url: string) =>
  Effect.flatMap(HttpClient.get(`${url}/api`), (response) => response.text).pipe(
    Effect.provide(Alf.layer(options(url))),
    Effect.provide(Layer.merge(FetchHttpClient.layer, storage)),
    Effect.withSpan("visit")
  )

Object.assign(globalThis, {
  run: (url: string) => Effect.runPromise(program(url)),
  visit: (url: string) => Effect.runPromise(visit(url))
})
