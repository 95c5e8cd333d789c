import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Schema } from "effect"
import { TokenError } from "effect-alf"

const endpoint = "https://auth.test/token"

const requestError = (reason: TokenError.TokenRequestError["reason"] = "Transport") =>
  new TokenError.TokenRequestError({ reason, endpoint, attempts: 4, description: "The connection broke" })

const response = (status: number, error?: string) =>
  new TokenError.TokenErrorResponse({
    endpoint,
    status,
    attempts: 1,
    body: "the body",
    ...(error === undefined ? {} : { error })
  })

const invalid = new TokenError.InvalidTokenResponse({ endpoint, issue: "access_token is missing" })
const denied = new TokenError.AuthorizationError({
  reason: "AccessDenied",
  error: "access_denied",
  errorDescription: "Mrs Smith said no"
})
const configuration = new TokenError.ConfigurationError({ issue: "clientId is empty: write one" })

const all = [requestError(), response(400, "invalid_scope"), invalid, denied] as const

describe("the errors", () => {
  it("have a _tag of their own each, by which one of them can be caught", () => {
    assert.deepStrictEqual([...all, configuration].map((error) => error._tag), [
      "TokenRequestError",
      "TokenErrorResponse",
      "InvalidTokenResponse",
      "AuthorizationError",
      "ConfigurationError"
    ])
  })

  it("are Errors with a stack", () => {
    for (const error of [...all, configuration]) {
      assert.instanceOf(error, Error)
      assert.isString(error.stack)
    }
  })

  it("say in one sentence what happened, where, and after how many attempts", () => {
    assert.strictEqual(
      requestError().message,
      "The connection broke (Transport, https://auth.test/token, 4 attempts)"
    )
    assert.strictEqual(
      response(400, "invalid_scope").message,
      "The token endpoint answered 400: invalid_scope (https://auth.test/token, 1 attempt)"
    )
    assert.strictEqual(
      new TokenError.TokenErrorResponse({
        endpoint,
        status: 429,
        error: "slow_down",
        errorDescription: "Too many",
        retryAfter: Duration.seconds(90),
        attempts: 2,
        body: "not shown"
      }).message,
      "The token endpoint answered 429: slow_down: Too many (https://auth.test/token, 2 attempts, retry after 1m 30s)"
    )
    assert.strictEqual(
      response(502).message,
      "The token endpoint answered 502: no OAuth error (https://auth.test/token, 1 attempt)"
    )
    assert.strictEqual(
      invalid.message,
      "The token endpoint's answer cannot be used: access_token is missing (https://auth.test/token)"
    )
    assert.strictEqual(
      denied.message,
      "The sign-in ended without a token (Denied): access_denied: Mrs Smith said no"
    )
    assert.strictEqual(
      new TokenError.AuthorizationError({ reason: "NoPort" }).message,
      "The sign-in ended without a token (NoPort)"
    )
    assert.strictEqual(configuration.message, "clientId is empty: write one")
  })

  it.effect("show that sentence in Cause.pretty", () =>
    Effect.gen(function*() {
      for (const error of [...all, configuration]) {
        const cause = yield* Effect.flip(Effect.sandbox(Effect.fail(error)))
        assert.include(Cause.pretty(cause), error.message)
      }
    }))

  it("survive being written as JSON and read again, fields and all", () => {
    const schema = Schema.Union(
      TokenError.TokenRequestError,
      TokenError.TokenErrorResponse,
      TokenError.InvalidTokenResponse,
      TokenError.AuthorizationError
    )
    const withWait = new TokenError.TokenErrorResponse({
      endpoint,
      status: 503,
      error: "temporarily_unavailable",
      errorDescription: "soon",
      errorUri: "https://auth.test/why",
      retryAfter: Duration.seconds(7),
      attempts: 3,
      body: "{}"
    })
    for (const error of [...all, withWait]) {
      const read = Schema.decodeUnknownSync(schema)(JSON.parse(JSON.stringify(Schema.encodeSync(schema)(error))))
      assert.deepStrictEqual(Object.entries(read), Object.entries(error))
      assert.strictEqual(read._tag, error._tag)
      assert.strictEqual(read.message, error.message)
    }
  })
})

describe("isTokenError", () => {
  it("holds for the four errors that getting a token can end in", () => {
    for (const error of all) assert.isTrue(TokenError.isTokenError(error), error._tag)
  })

  it("does not hold for a ConfigurationError, another error, or something with the same _tag", () => {
    for (const other of [configuration, new Error("no"), { _tag: "TokenRequestError" }, null, undefined, "text"]) {
      assert.isFalse(TokenError.isTokenError(other))
    }
  })
})

describe("isTransient", () => {
  it("holds without an answer, whatever the reason", () => {
    for (const reason of ["Transport", "Timeout", "Secret"] as const) {
      assert.isTrue(TokenError.isTransient(requestError(reason)), reason)
    }
  })

  it.each([408, 425, 429, 500, 501, 502, 503, 504, 599])("holds for %i, whatever its body says", (status) => {
    for (const code of [undefined, "invalid_client", "invalid_scope", "server_error", "something_else"]) {
      assert.isTrue(TokenError.isTransient(response(status, code)), code)
    }
  })

  it.each([400, 401, 403, 404, 407, 422, 451])(
    "holds for %i that carries no OAuth error (a proxy's page)",
    (status) => {
      assert.isTrue(TokenError.isTransient(response(status)))
    }
  )

  it.each([200, 400, 401, 403])("holds for temporarily_unavailable and server_error on %i", (status) => {
    assert.isTrue(TokenError.isTransient(response(status, "temporarily_unavailable")))
    assert.isTrue(TokenError.isTransient(response(status, "server_error")))
  })

  it.each([200, 400, 401, 403])("does not hold for any other OAuth error code on %i", (status) => {
    for (const code of ["invalid_client", "invalid_grant", "invalid_scope", "unauthorized_client", "my_own_code"]) {
      assert.isFalse(TokenError.isTransient(response(status, code)), code)
    }
  })

  it.each([200, 301, 302, 307])("does not hold for %i without an OAuth error", (status) => {
    assert.isFalse(TokenError.isTransient(response(status)))
  })

  it("does not hold for an answer without a usable token, or for a sign-in that failed", () => {
    assert.isFalse(TokenError.isTransient(invalid))
    assert.isFalse(TokenError.isTransient(denied))
  })
})

describe("isRefusal", () => {
  it("holds for an OAuth error code of the kind that is never retried", () => {
    for (const status of [200, 400, 401, 403]) {
      for (const code of ["invalid_client", "invalid_scope", "unauthorized_client", "my_own_code"]) {
        assert.isTrue(TokenError.isRefusal(response(status, code)), `${status} ${code}`)
      }
    }
  })

  it("does not hold for what another attempt could end otherwise", () => {
    for (
      const error of [
        requestError(),
        response(400),
        response(500, "invalid_client"),
        response(429, "invalid_client"),
        response(400, "temporarily_unavailable"),
        response(400, "server_error")
      ]
    ) {
      assert.isFalse(TokenError.isRefusal(error), error.message)
    }
  })

  it("holds for a sign-in that was denied, and for no other that failed", () => {
    for (const error of [undefined, "access_denied"]) {
      assert.isTrue(TokenError.isRefusal(new TokenError.AuthorizationError({ reason: "AccessDenied", error })))
      for (const reason of ["Timeout", "IssuerMismatch", "NoPort", "Failed"] as const) {
        assert.isFalse(TokenError.isRefusal(new TokenError.AuthorizationError({ reason, error })), reason)
      }
    }
  })

  it("does not hold for an answer without an OAuth error code", () => {
    for (const error of [response(302), invalid]) assert.isFalse(TokenError.isRefusal(error), error.message)
  })
})
