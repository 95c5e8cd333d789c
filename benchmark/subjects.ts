/** Clients behind one small interface: those on Effect's `HttpClient` here, the others in `peers.mjs`. */
import { FetchHttpClient, HttpClient, HttpClientRequest } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { Context, DateTime, Effect, Layer, ManagedRuntime, Option, Redacted } from "effect"
import { AccessToken, Alf, AuthorizedHttpClient } from "effect-alf"
import * as DPoP from "effect-alf/DPoP"
import { createRequire } from "node:module"

export interface Environment {
  readonly tokenEndpoint: string
  readonly api: string
}

export interface Client {
  /** One request with a token, read to its end; the status, or 0 if it failed. */
  readonly request: () => Promise<number>
  /** The same over the subject's own transport, with a header set by hand. */
  readonly bare: () => Promise<number>
  readonly close?: () => Promise<void>
}

export interface Subject {
  readonly name: string
  readonly version: string
  readonly make: (environment: Environment) => Promise<Client>
}

const require = createRequire(import.meta.url)

export class Own extends Context.Tag("Own")<Own, HttpClient.HttpClient.With<unknown>>() {}

export const alfOptions = (environment: Environment): Alf.Options => ({
  tokenEndpoint: environment.tokenEndpoint,
  clientId: "id",
  clientSecret: Redacted.make("secret"),
  origins: [new URL(environment.api).origin]
})

const status = (client: HttpClient.HttpClient.With<unknown>, url: string) =>
  client.get(url).pipe(
    Effect.flatMap((response) => Effect.as(response.arrayBuffer, response.status)),
    Effect.catchAll((error) => Effect.succeed(error instanceof AuthorizedHttpClient.Unauthorized ? 401 : 0))
  )

export const withHeader = HttpClient.mapRequest(HttpClientRequest.setHeader("authorization", "Bearer fixed"))

const onEffect = (
  name: string,
  layer: (environment: Environment) => Layer.Layer<Own, unknown, HttpClient.HttpClient>,
  transport: Layer.Layer<HttpClient.HttpClient> = NodeHttpClient.layerUndici
): Subject => ({
  name,
  version: require("effect-alf/package.json").version,
  make: async (environment) => {
    const runtime = ManagedRuntime.make(
      layer(environment).pipe(Layer.provideMerge(transport))
    )
    const { bare, own } = await runtime.runPromise(Effect.all({ bare: HttpClient.HttpClient, own: Own }))
    const request = status(own, environment.api)
    const floor = status(withHeader(bare), environment.api)
    return {
      request: () => runtime.runPromise(request),
      bare: () => runtime.runPromise(floor),
      close: () => runtime.dispose()
    }
  }
})

const dropInOver = (name: string, transport?: Layer.Layer<HttpClient.HttpClient>) =>
  onEffect(
    name,
    (environment) => Layer.scoped(Own, Effect.map(Alf.make(alfOptions(environment)), ({ httpClient }) => httpClient)),
    transport
  )

export const dropIn = dropInOver("effect-alf, drop-in")

export const withProofs = onEffect(
  "effect-alf, `dpop`",
  (environment) =>
    Layer.scoped(
      Own,
      Effect.map(Alf.make({ ...alfOptions(environment), dpop: DPoP.generate() }), ({ httpClient }) => httpClient)
    ),
  FetchHttpClient.layer
)

/** The drop-in over each of Effect's clients. */
export const transports = [
  dropInOver("`NodeHttpClient.layerUndici`", NodeHttpClient.layerUndici),
  dropInOver("`NodeHttpClient.layer` (node:http)", NodeHttpClient.layer),
  dropInOver("`FetchHttpClient.layer`", FetchHttpClient.layer)
]

export const typed = onEffect(
  "effect-alf, typed",
  (environment) =>
    Layer.scoped(Own, Effect.map(Alf.make(alfOptions(environment)), ({ authorizedHttpClient }) => authorizedHttpClient))
)

/** What a program would write by hand: on a 401 the same request with another token, which is at hand for nothing. */
const replaying = (
  client: HttpClient.HttpClient,
  sign: (
    request: HttpClientRequest.HttpClientRequest,
    token: string
  ) => Effect.Effect<HttpClientRequest.HttpClientRequest>
) =>
(url: string) => {
  const request = HttpClientRequest.get(url)
  const send = (token: string) => Effect.flatMap(sign(request, token), client.execute)
  return send("revoked").pipe(
    Effect.flatMap((response) =>
      response.status === 401
        ? Effect.zipRight(Effect.ignore(response.arrayBuffer), send("fixed"))
        : Effect.succeed(response)
    ),
    Effect.flatMap((response) => Effect.as(response.arrayBuffer, response.status)),
    Effect.catchAll(() => Effect.succeed(0))
  )
}

/** A library's client, and one by hand that replays, over one transport: as Bearer, or with proofs of one key. */
export const withReplays = (environment: Environment, hasProofs: boolean) =>
  Effect.gen(function*() {
    const bare = yield* HttpClient.HttpClient
    const dpop = yield* DPoP.generate()
    const { httpClient } = yield* Alf.make({
      ...alfOptions(environment),
      ...(hasProofs ? { dpop: Effect.succeed(dpop) } : {})
    })
    const byHand = replaying(bare, (request, token) =>
      hasProofs
        ? Effect.orDie(dpop.prove(request, {
          token: Option.some(
            new AccessToken.AccessToken({ value: Redacted.make(token), issuedAt: DateTime.unsafeMake(0), type: "DPoP" })
          ),
          nonce: Option.none()
        }))
        : Effect.succeed(HttpClientRequest.setHeader(request, "authorization", `Bearer ${token}`)))
    return { own: status(httpClient, environment.api), byHand: byHand(environment.api) }
  })
