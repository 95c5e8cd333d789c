/** A provider that answers as it does in life: its token endpoint and its API, byte for byte in shape. */
import { Effect, Option, Redacted } from "effect"
import { AccessToken, Alf } from "effect-alf"
import { type Received, scripted } from "./scriptedClient.ts"

export type Options = Partial<Extract<Alf.Options, { readonly tokenEndpoint: string | URL }>>

export interface Provider {
  /** The response to the `n`th token request, from 0. */
  readonly token: (request: Received & { readonly form: URLSearchParams }, n: number) => Response
  /** The response of the API; 200 by default. */
  readonly api?: (request: Received, n: number) => Response
  readonly options?: Options
}

const tokenEndpoint = "https://auth.provider.test/oauth/token"
export const api = "https://api.provider.test"

/** The program's side of a provider: both clients, and what the provider saw. */
export const play = (provider: Provider) =>
  Effect.gen(function*() {
    let tokens = 0
    let calls = 0
    const http = scripted((request) =>
      request.url.startsWith(tokenEndpoint)
        ? provider.token({ ...request, form: new URLSearchParams(request.body) }, tokens++)
        : provider.api?.(request, calls++) ?? Response.json({})
    )
    const clients = yield* Effect.provide(
      Alf.make({
        tokenEndpoint,
        clientId: "client",
        clientSecret: Redacted.make("a-secret"),
        origins: [api],
        tokenRetry: { times: 0 },
        ...provider.options
      }),
      http.layer
    )
    const sent = (isToken: boolean) => http.requests.filter(({ url }) => url.startsWith(tokenEndpoint) === isToken)
    return {
      ...clients,
      get: Effect.map(clients.authorizedHttpClient.get(`${api}/data`), ({ status }) => status),
      forms: () => sent(true).map(({ body }) => new URLSearchParams(body)),
      tokenRequests: () => sent(true),
      apiRequests: () => sent(false),
      /** A member of the token response, as programs read it. */
      extra: (name: string) =>
        Effect.map(clients.tokens.get, (token) => Option.getOrUndefined(AccessToken.extra(token, name)))
    }
  })

export const json = (body: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Response =>
  Response.json(body, { status, headers })
