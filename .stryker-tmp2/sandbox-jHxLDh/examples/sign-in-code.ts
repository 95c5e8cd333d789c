/**
 * A person signs in through the browser, once: the tokens are kept in a folder, and later runs renew them there.
 *
 * The environment says which authorization server and which API, and whether there is a desktop to open a browser on.
 */
// @ts-nocheck

import { HttpClient } from "@effect/platform"
import { NodeContext, NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer } from "effect"
import { Alf, TokenStorage } from "effect-alf"
import { AuthorizationCodeGrant, Browser } from "effect-alf/node"

const text = (name: string, otherwise: string) => Config.withDefault(Config.string(name), otherwise)

const config = Config.all({
  authorizationEndpoint: text("AUTHORIZATION_ENDPOINT", "https://auth.example.com/authorize"),
  tokenEndpoint: text("TOKEN_ENDPOINT", "https://auth.example.com/token"),
  clientId: text("CLIENT_ID", "my-program"),
  api: text("API_URL", "https://api.example.com/me"),
  tokens: text("TOKENS", ".tokens"),
  hasDesktop: Config.withDefault(Config.boolean("DESKTOP"), true)
})

const program = Effect.gen(function*() {
  const { api } = yield* config
  const response = yield* HttpClient.get(api)
  yield* Console.log(response.status, yield* response.text)
})

const layer = Layer.unwrapEffect(Effect.map(config, (config) =>
  Alf.layer({
    tokenEndpoint: config.tokenEndpoint,
    clientId: config.clientId,
    grant: AuthorizationCodeGrant.make({
      authorizationEndpoint: config.authorizationEndpoint,
      clientId: config.clientId,
      // with this scope, most servers give a refresh token
      scope: ["openid", "offline_access"],
      params: { prompt: "consent" }
    }),
    origins: [new URL(config.api).origin]
  }).pipe(
    Layer.provide(NodeHttpClient.layerUndici),
    Layer.provide(config.hasDesktop ? Browser.layer : Browser.layerLog),
    Layer.provide(TokenStorage.layerFileSystem(config.tokens)),
    Layer.provide(NodeContext.layer)
  )))

program.pipe(Effect.provide(layer), NodeRuntime.runMain)
