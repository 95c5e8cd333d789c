import { type Duration, Effect } from "effect"
import { TokenError } from "effect-alf"
import { describe, expectTypeOf, test } from "vitest"

declare const program: Effect.Effect<"token", TokenError.TokenError>
declare const anything: unknown

describe("TokenError", () => {
  test("is the six errors that getting a token can end in", () => {
    expectTypeOf<TokenError.TokenError["_tag"]>().toEqualTypeOf<
      | "TokenRequestError"
      | "TokenErrorResponse"
      | "InvalidTokenResponse"
      | "AuthorizationError"
      | "DiscoveryError"
      | "LayerClosed"
    >()
  })

  test("catchTag narrows each of them, and leaves the others", () => {
    expectTypeOf(Effect.catchTag(program, "TokenRequestError", (error) => {
      expectTypeOf(error).toEqualTypeOf<TokenError.TokenRequestError>()
      expectTypeOf(error.reason).toEqualTypeOf<"Transport" | "Timeout" | "Secret">()
      expectTypeOf(error.endpoint).toEqualTypeOf<string>()
      expectTypeOf(error.attempts).toEqualTypeOf<number>()
      expectTypeOf(error.description).toEqualTypeOf<string>()
      return Effect.succeed(1)
    })).toEqualTypeOf<
      Effect.Effect<"token" | number, Exclude<TokenError.TokenError, TokenError.TokenRequestError>>
    >()

    expectTypeOf(Effect.catchTag(program, "TokenErrorResponse", (error) => {
      expectTypeOf(error).toEqualTypeOf<TokenError.TokenErrorResponse>()
      expectTypeOf(error.endpoint).toEqualTypeOf<string>()
      expectTypeOf(error.status).toEqualTypeOf<number>()
      expectTypeOf(error.error).toEqualTypeOf<string | undefined>()
      expectTypeOf(error.errorDescription).toEqualTypeOf<string | undefined>()
      expectTypeOf(error.errorUri).toEqualTypeOf<string | undefined>()
      expectTypeOf(error.retryAfter).toEqualTypeOf<Duration.Duration | undefined>()
      expectTypeOf(error.attempts).toEqualTypeOf<number>()
      expectTypeOf(error.body).toEqualTypeOf<string>()
      return Effect.succeed(1)
    })).toEqualTypeOf<
      Effect.Effect<"token" | number, Exclude<TokenError.TokenError, TokenError.TokenErrorResponse>>
    >()

    expectTypeOf(Effect.catchTag(program, "InvalidTokenResponse", (error) => {
      expectTypeOf(error).toEqualTypeOf<TokenError.InvalidTokenResponse>()
      expectTypeOf(error.endpoint).toEqualTypeOf<string>()
      expectTypeOf(error.issue).toEqualTypeOf<string>()
      return Effect.succeed(1)
    })).toEqualTypeOf<
      Effect.Effect<"token" | number, Exclude<TokenError.TokenError, TokenError.InvalidTokenResponse>>
    >()

    expectTypeOf(Effect.catchTag(program, "AuthorizationError", (error) => {
      expectTypeOf(error).toEqualTypeOf<TokenError.AuthorizationError>()
      expectTypeOf(error.reason).toEqualTypeOf<
        "AccessDenied" | "ErrorResponse" | "IssuerMismatch" | "Timeout" | "NoPort" | "Failed"
      >()
      expectTypeOf(error.error).toEqualTypeOf<string | undefined>()
      expectTypeOf(error.errorDescription).toEqualTypeOf<string | undefined>()
      return Effect.succeed(1)
    })).toEqualTypeOf<
      Effect.Effect<"token" | number, Exclude<TokenError.TokenError, TokenError.AuthorizationError>>
    >()
  })

  test("catchTags for all six leaves no error", () => {
    expectTypeOf(Effect.catchTags(program, {
      TokenRequestError: () => Effect.succeed(1),
      TokenErrorResponse: () => Effect.succeed(2),
      InvalidTokenResponse: () => Effect.succeed(3),
      AuthorizationError: () => Effect.succeed(4),
      DiscoveryError: () => Effect.succeed(5),
      LayerClosed: () => Effect.succeed(6)
    })).toEqualTypeOf<Effect.Effect<"token" | number>>()
  })

  test("a tag that is none does not compile", () => {
    // @ts-expect-error there is no such error
    Effect.catchTag(program, "TokenRefused", () => Effect.succeed(1))
  })

  test("isTokenError narrows", () => {
    if (TokenError.isTokenError(anything)) expectTypeOf(anything).toEqualTypeOf<TokenError.TokenError>()
  })

  test("ConfigurationError is none of them", () => {
    expectTypeOf<TokenError.ConfigurationError>().not.toExtend<TokenError.TokenError>()
    expectTypeOf<TokenError.ConfigurationError["issue"]>().toEqualTypeOf<string>()
  })
})
