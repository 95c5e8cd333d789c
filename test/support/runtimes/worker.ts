/** A Worker with one layer for all requests, and with one for each request over KV. */
import { FetchHttpClient, HttpClient } from "@effect/platform"
import { Effect, Layer, ManagedRuntime } from "effect"
import { Alf, TokenStorage } from "effect-alf"
import { options, program } from "./core.ts"

interface Environment {
  readonly SERVER: string
  readonly KV: {
    readonly get: (key: string) => Promise<string | null>
    readonly put: (key: string, value: string) => Promise<void>
    readonly delete: (key: string) => Promise<void>
  }
}

const makeRuntime = (url: string) =>
  ManagedRuntime.make(Alf.layer(options(url)).pipe(Layer.provide(FetchHttpClient.layer)))

let runtime: ReturnType<typeof makeRuntime> | undefined

const status = (url: string) =>
  Effect.flatMap(HttpClient.get(url), (response) => Effect.as(response.text, response.status))

const forRequest = ({ KV, SERVER }: Environment) =>
  Alf.layer(options(SERVER)).pipe(
    Layer.provide(Layer.merge(
      FetchHttpClient.layer,
      TokenStorage.layerStore({ get: (key) => KV.get(key), set: (key, text) => KV.put(key, text) })
    ))
  )

export default {
  async fetch(request: Request, environment: Environment): Promise<Response> {
    const { pathname } = new URL(request.url)
    const api = `${environment.SERVER}/api`
    switch (pathname) {
      case "/core":
        return Response.json(await Effect.runPromise(program(environment.SERVER)))
      case "/kv":
        return Response.json(await Effect.runPromise(Effect.provide(status(api), forRequest(environment))))
      default:
        runtime ??= makeRuntime(environment.SERVER)
        return Response.json(await runtime.runPromise(status(api)))
    }
  }
}
