/** A person signs in on another device. The authorization server and the API are in memory, and so is the person. */
import { HttpClient } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Console, Effect, Layer } from "effect"
import { Alf, DeviceCodeGrant, TokenService } from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"

const authorized = Alf.layer({
  issuer: TestAuthorizationServer.issuer,
  clientId: "my-tool",
  grant: DeviceCodeGrant.make({ scope: "openid offline_access" }),
  origins: ["https://api.test"]
})

// what DeviceCodeGrant.layerConsole does, and a person who enters the code at once
const prompt = Layer.effect(
  DeviceCodeGrant.DevicePrompt,
  Effect.map(TestAuthorizationServer.TestAuthorizationServer, ({ approve }) => ({
    show: ({ userCode, verificationUri }) =>
      Effect.zipRight(Console.log(`Open ${verificationUri} and enter ${userCode}`), approve(userCode))
  }))
)

const program = Effect.gen(function*() {
  const started = yield* Clock.currentTimeMillis
  const { status } = yield* HttpClient.get("https://api.test/me")
  yield* Console.log(`signed in: the API answers ${status}`)
  yield* Effect.flatMap(TokenService.TokenService, ({ revoke }) => revoke)
  yield* Console.log(`signed out after ${Math.round(((yield* Clock.currentTimeMillis) - started) / 1000)} seconds`)
})

program.pipe(
  Effect.provide(authorized.pipe(
    Layer.provideMerge(prompt),
    Layer.provideMerge(TestAuthorizationServer.layer({ refreshTokens: true }))
  )),
  NodeRuntime.runMain
)
