/**
 * Start it as often as you like: all processes together make one token request. Where to comes from the environment:
 * `TOKEN_ENDPOINT`, `CLIENT_ID`, `CLIENT_SECRET`, `API_URL`, `REDIS_URL`, and `TOKEN_KEY`, which
 * `openssl rand -base64 32` makes.
 */
// @ts-nocheck

import { HttpClient } from "@effect/platform"
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer } from "effect"
import { Alf, TokenService, TokenStorage } from "effect-alf"
import * as TokenStorageRedis from "effect-alf/TokenStorage/Redis"

const storage = Layer.unwrapEffect(
  Effect.map(
    Config.redacted("TOKEN_KEY"),
    (key) =>
      TokenStorage.encrypted(TokenStorageRedis.layerConfig({ url: Config.redacted("REDIS_URL") }), { keys: [key] })
  )
)

const apiUrl = Config.string("API_URL")

const authorized = Alf.layerConfig({
  tokenEndpoint: Config.string("TOKEN_ENDPOINT"),
  clientId: Config.string("CLIENT_ID"),
  clientSecret: Config.redacted("CLIENT_SECRET"),
  origins: Config.map(apiUrl, (url) => [url])
}).pipe(Layer.provide(NodeHttpClient.layerUndici), Layer.provide(storage))

const program = Effect.gen(function*() {
  const client = yield* HttpClient.HttpClient
  const response = yield* client.get(yield* apiUrl)
  const { get } = yield* TokenService.TokenService
  const { issuedAt } = yield* get
  yield* Console.log(`${response.status}, with a token from ${issuedAt}`)
})

program.pipe(Effect.provide(authorized), NodeRuntime.runMain)
