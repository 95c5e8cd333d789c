/**
 * A person signs in through the browser, at an authorization server that knows the implicit grant only.
 *
 * Where the server can do it, sign-in-code.ts is the better way.
 */
// @ts-nocheck

import { HttpClient } from "@effect/platform"
import { NodeHttpClient, NodeRuntime } from "@effect/platform-node"
import { Config, Console, Effect, Layer } from "effect"
import { Alf } from "effect-alf"
import { Browser, ImplicitGrant } from "effect-alf/node"

const text = (name: string, otherwise: string) => Config.withDefault(Config.string(name), otherwise)

const config = Config.all({
  authorizationEndpoint: text("AUTHORIZATION_ENDPOINT", "https://auth.example.com/authorize"),
  clientId: text("CLIENT_ID", "my-program"),
  api: text("API_URL", "https://api.example.com/me"),
  hasDesktop: Config.withDefault(Config.boolean("DESKTOP"), true)
})

const program = Effect.gen(function*() {
  const { api } = yield* config
  const response = yield* HttpClient.get(api)
  yield* Console.log(response.status, yield* response.text)
})

const layer = Layer.unwrapEffect(
  Effect.map(config, ({ api, authorizationEndpoint, clientId, hasDesktop }) =>
    Alf.layer({
      // the implicit grant asks the authorization endpoint only
      tokenEndpoint: authorizationEndpoint,
      clientId,
      grant: ImplicitGrant.make({ authorizationEndpoint, clientId, scope: "read" }),
      origins: [new URL(api).origin]
    }).pipe(
      Layer.provide(NodeHttpClient.layerUndici),
      Layer.provide(hasDesktop ? Browser.layer : Browser.layerLog)
    ))
)

program.pipe(Effect.provide(layer), NodeRuntime.runMain)
