/** An authorization server for tests whose subject is something else, and the parameters of a token request. */
import type { UrlParams } from "@effect/platform"
import { Effect, Layer } from "effect"
import { AuthorizationServer } from "effect-alf"

export const serverStub: AuthorizationServer.AuthorizationServer["Type"] = {
  identity: "a server",
  clientId: "client",
  metadata: Effect.succeed(
    new AuthorizationServer.Metadata({ issuer: "https://auth.test", tokenEndpoint: "https://auth.test/token" })
  ),
  request: () => Effect.dieMessage("the server is not asked here")
}

export const layerServer = Layer.succeed(AuthorizationServer.AuthorizationServer, serverStub)

/** The parameters of a token request, however they are given. */
export const resolved = <E>(
  params: UrlParams.UrlParams | Effect.Effect<UrlParams.UrlParams, E>
): Effect.Effect<UrlParams.UrlParams, E> => Effect.isEffect(params) ? params : Effect.succeed(params)
