// @ts-nocheck
import { HttpClient, type HttpClientError, HttpClientRequest, type HttpClientResponse } from "@effect/platform"
import { Context, Effect, type Layer } from "effect"
import { AuthorizedHttpClient, type TokenError, type TokenService } from "effect-alf"
import { describe, expectTypeOf, test } from "vitest"

type Errors = HttpClientError.HttpClientError | TokenError.TokenError | AuthorizedHttpClient.Unauthorized

class Other extends Context.Tag("Other")<Other, string>() {}
class OwnError {
  readonly _tag = "OwnError"
}

declare const plain: HttpClient.HttpClient
declare const own: HttpClient.HttpClient.With<OwnError, Other>

const options = { origins: ["https://api.test"] } as const

describe("AuthorizedHttpClient", () => {
  test("is an HttpClient that says in its error type why there is no answer", () => {
    expectTypeOf<AuthorizedHttpClient.AuthorizedHttpClient["Type"]>().toEqualTypeOf<
      HttpClient.HttpClient.With<Errors>
    >()
  })

  test("layer cannot fail; it needs an HttpClient and a TokenService", () => {
    expectTypeOf(AuthorizedHttpClient.layer(options)).toEqualTypeOf<
      Layer.Layer<
        AuthorizedHttpClient.AuthorizedHttpClient,
        never,
        HttpClient.HttpClient | TokenService.TokenService
      >
    >()
  })

  test("layerHttpClient puts an HttpClient in the place of another", () => {
    expectTypeOf(AuthorizedHttpClient.layerHttpClient(options)).toEqualTypeOf<
      Layer.Layer<HttpClient.HttpClient, never, HttpClient.HttpClient | TokenService.TokenService>
    >()
  })

  test("layer, layerHttpClient and withToken do not compile without origins", () => {
    //  origins is missing
    AuthorizedHttpClient.layer({})
    //  origins is missing
    AuthorizedHttpClient.layerHttpClient({})
    //  origins is missing
    AuthorizedHttpClient.withToken({})
  })
})

describe("withToken", () => {
  test("adds TokenError and Unauthorized to the errors of a client, and needs a TokenService", () => {
    type Authorized = Effect.Effect<HttpClient.HttpClient.With<Errors>, never, TokenService.TokenService>
    expectTypeOf(plain.pipe(AuthorizedHttpClient.withToken(options))).toEqualTypeOf<Authorized>()
    expectTypeOf(AuthorizedHttpClient.withToken(plain, options)).toEqualTypeOf<Authorized>()
  })

  test("keeps the error and the requirements of a client of one's own", () => {
    const authorized = own.pipe(AuthorizedHttpClient.withToken(options))
    expectTypeOf<Effect.Effect.Context<typeof authorized>>().toEqualTypeOf<TokenService.TokenService>()
    expectTypeOf<Effect.Effect.Success<typeof authorized>>().toEqualTypeOf<
      HttpClient.HttpClient.With<
        OwnError | HttpClientError.RequestError | TokenError.TokenError | AuthorizedHttpClient.Unauthorized,
        Other
      >
    >()
  })
})

describe("the typed client's errors", () => {
  const program = Effect.flatMap(AuthorizedHttpClient.AuthorizedHttpClient, (client) => client.get("https://api.test"))

  test("are those of its tag", () => {
    expectTypeOf(program).toEqualTypeOf<
      Effect.Effect<HttpClientResponse.HttpClientResponse, Errors, AuthorizedHttpClient.AuthorizedHttpClient>
    >()
  })

  test("catchTag(\"Unauthorized\") narrows, and leaves the others", () => {
    const caught = Effect.catchTag(program, "Unauthorized", (error) => {
      expectTypeOf(error).toEqualTypeOf<AuthorizedHttpClient.Unauthorized>()
      expectTypeOf(error.method).toEqualTypeOf<string>()
      expectTypeOf(error.url).toEqualTypeOf<string>()
      expectTypeOf(error.status).toEqualTypeOf<401>()
      expectTypeOf(error.challenges).toEqualTypeOf<
        ReadonlyArray<{ readonly scheme: string; readonly params: { readonly [x: string]: string } }>
      >()
      return Effect.succeed("signed out")
    })
    expectTypeOf<Effect.Effect.Error<typeof caught>>().toEqualTypeOf<
      HttpClientError.HttpClientError | TokenError.TokenError
    >()
  })

  test("catchTags for all of them leaves none", () => {
    const caught = Effect.catchTags(program, {
      Unauthorized: () => Effect.succeed(0),
      RequestError: () => Effect.succeed(1),
      ResponseError: () => Effect.succeed(2),
      TokenRequestError: () => Effect.succeed(3),
      TokenErrorResponse: () => Effect.succeed(4),
      InvalidTokenResponse: () => Effect.succeed(5),
      AuthorizationError: () => Effect.succeed(6)
    })
    expectTypeOf<Effect.Effect.Error<typeof caught>>().toEqualTypeOf<never>()
  })
})

describe("the drop-in client's errors", () => {
  test("are those of every HttpClient: there is no Unauthorized to catch", () => {
    const program = Effect.flatMap(HttpClient.HttpClient, (client) => client.get("https://api.test"))
    expectTypeOf<Effect.Effect.Error<typeof program>>().toEqualTypeOf<HttpClientError.HttpClientError>()
    //  a surviving 401 is a response
    Effect.catchTag(program, "Unauthorized", () => Effect.void)
  })
})

describe("replayable", () => {
  test("gives a request back", () => {
    expectTypeOf(AuthorizedHttpClient.replayable).toEqualTypeOf<
      (request: HttpClientRequest.HttpClientRequest) => HttpClientRequest.HttpClientRequest
    >()
    expectTypeOf(HttpClientRequest.post("https://api.test").pipe(AuthorizedHttpClient.replayable)).toEqualTypeOf<
      HttpClientRequest.HttpClientRequest
    >()
  })
})
