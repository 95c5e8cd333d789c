/** `TestAuthorizationServer` on a free loopback port. */
import { HttpBody, HttpClient, HttpClientRequest, HttpMethod } from "@effect/platform"
import { Context, Effect, Layer, type Scope } from "effect"
import { TestAuthorizationServer } from "effect-alf/testing"
import type { ServerResponse } from "node:http"
import { type Received, type Recorded, serve } from "./apiServer.ts"

export interface LoopbackServer extends Recorded {
  readonly tokenEndpoint: string
  readonly controls: Context.Tag.Service<TestAuthorizationServer.TestAuthorizationServer>
  /** The token that was issued last. */
  readonly current: () => string | undefined
}

/** `page` takes the requests that are for a person, and says whether it did. */
export const loopbackServer = (
  options: TestAuthorizationServer.Options = {},
  page: (
    request: Received,
    response: ServerResponse,
    controls: LoopbackServer["controls"]
  ) => boolean = () => false
): Effect.Effect<LoopbackServer, never, Scope.Scope> =>
  Effect.gen(function*() {
    const context = yield* Layer.build(TestAuthorizationServer.layer(options))
    const client = Context.get(context, HttpClient.HttpClient)
    const controls = Context.get(context, TestAuthorizationServer.TestAuthorizationServer)
    const forward = (request: Received, response: ServerResponse) =>
      client.execute(toRequest(request)).pipe(
        Effect.flatMap(({ headers, status, text }) =>
          Effect.map(
            text,
            (body) => response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) }).end(body)
          )
        ),
        Effect.catchAll(() => Effect.sync(() => response.destroy()))
      )
    const served = yield* serve((request, response) => {
      if (!page(request, response, controls)) Effect.runFork(forward(request, response))
    })
    return {
      ...served,
      tokenEndpoint: `${served.url}/token`,
      controls,
      current: () => {
        const issued = Effect.runSync(controls.issued)
        return issued === 0 ? undefined : `token-${issued}`
      }
    }
  })

const toRequest = ({ body, headers, method, path }: Received) =>
  HttpClientRequest.make(HttpMethod.isHttpMethod(method) ? method : "GET")(TestAuthorizationServer.issuer + path, {
    headers: Object.fromEntries(
      Object.entries(headers).flatMap(([name, value]) => typeof value === "string" ? [[name, value]] : [])
    ),
    ...(body === "" ? {} : { body: HttpBody.text(body, headers["content-type"]) })
  })
