/**
 * One request with a token. Where to comes from the environment: `TOKEN_ENDPOINT`, `CLIENT_ID`, `CLIENT_SECRET`,
 * `API_URL`.
 */
// @ts-nocheck

import { HttpClient } from "@effect/platform"
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer } from "effect"
import { Alf } from "effect-alf"

const apiUrl = Config.string("API_URL")

const authorized = Alf.layerConfig({
  tokenEndpoint: Config.string("TOKEN_ENDPOINT"),
  clientId: Config.string("CLIENT_ID"),
  clientSecret: Config.redacted("CLIENT_SECRET"),
  scope: "read",
  origins: Config.map(apiUrl, (url) => [url])
}).pipe(Layer.provide(NodeHttpClient.layerUndici))

const program = Effect.gen(function*() {
  const client = yield* HttpClient.HttpClient
  const response = yield* client.get(yield* apiUrl)
  yield* Console.log(yield* response.text)
})

program.pipe(Effect.provide(authorized), NodeRuntime.runMain)
