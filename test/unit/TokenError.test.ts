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

const discovery = new TokenError.DiscoveryError({
  url: "https://auth.test/.well-known/oauth-authorization-server",
  reason: "NotFound",
  description: "No metadata was found"
})
const closed = new TokenError.LayerClosed()

const all = [requestError(), response(400, "invalid_scope"), invalid, denied, discovery, closed] as const

describe("the errors", () => {
  it("have a _tag of their own each, by which one of them can be caught", () => {
    assert.deepStrictEqual([...all, configuration].map((error) => error._tag), [
      "TokenRequestError",
      "TokenErrorResponse",
      "InvalidTokenResponse",
      "AuthorizationError",
      "DiscoveryError",
      "LayerClosed",
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
      "The token endpoint answered 502: no OAuth error: the body (https://auth.test/token, 1 attempt)"
    )
    assert.strictEqual(
      invalid.message,
      "The token endpoint's response cannot be used: access_token is missing (https://auth.test/token)"
    )
    assert.strictEqual(
      denied.message,
      "The sign-in ended without a token (AccessDenied): access_denied: Mrs Smith said no"
    )
    assert.strictEqual(
      new TokenError.AuthorizationError({ reason: "NoPort" }).message,
      "The sign-in ended without a token (NoPort)"
    )
    assert.strictEqual(configuration.message, "clientId is empty: write one")
  })

  it("name what to try, and show the beginning of a body without an OAuth error", () => {
    const { message } = new TokenError.TokenErrorResponse({
      endpoint,
      status: 401,
      attempts: 1,
      body: `{"status":"BAD_CLIENT"}${"x".repeat(500)}`,
      hint: "Try post"
    })
    assert.strictEqual(
      message,
      `The token endpoint answered 401: no OAuth error: {"status":"BAD_CLIENT"}${"x".repeat(177)} ` +
        "(https://auth.test/token, 1 attempt). Try post"
    )
  })

  it("are one line in message, while the fields keep what came", () => {
    const odd = "a\r\nb\u001b[31mc\u0085d\u2028e\u2029f\0g"
    const error = new TokenError.TokenErrorResponse({
      endpoint,
      status: 400,
      error: odd,
      errorDescription: odd,
      attempts: 1,
      body: odd
    })
    assert.include(error.message, "a b [31mc d e f g: a b [31mc d e f g")
    assert.notMatch(error.message, /[\p{Cc}\u2028\u2029]/u)
    assert.strictEqual(error.error, odd)
    assert.strictEqual(error.errorDescription, odd)
    const others = [
      new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 1, description: odd }),
      new TokenError.InvalidTokenResponse({ endpoint, issue: odd }),
      new TokenError.AuthorizationError({ reason: "ErrorResponse", error: odd, errorDescription: odd }),
      new TokenError.DiscoveryError({ url: endpoint, reason: "Invalid", description: odd })
    ]
    for (const { message } of others) assert.notMatch(message, /[\p{Cc}\u2028\u2029]/u)
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
      TokenError.AuthorizationError,
      TokenError.DiscoveryError,
      TokenError.LayerClosed
    )
    const withWait = new TokenError.TokenErrorResponse({
      endpoint,
      status: 503,
      error: "temporarily_unavailable",
      errorDescription: "soon",
      errorUri: "https://auth.test/why",
      retryAfter: Duration.seconds(7),
      attempts: 3,
      body: "{}",
      hint: "try post"
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
  it("holds for the six errors that getting a token can end in", () => {
    for (const error of all) assert.isTrue(TokenError.isTokenError(error), error._tag)
  })

  it("does not hold for a ConfigurationError, another error, or something with the same _tag", () => {
    for (const other of [configuration, new Error("no"), { _tag: "TokenRequestError" }, null, undefined, "text"]) {
      assert.isFalse(TokenError.isTokenError(other))
    }
  })
})

describe("isTransient", () => {
  it("holds without a response, whatever the reason", () => {
    for (const reason of ["Transport", "Timeout", "Secret"] as const) {
      assert.isTrue(TokenError.isTransient(requestError(reason)), reason)
    }
  })

  it.each([408, 421, 425, 429, 500, 501, 502, 503, 504, 599])("holds for %i, whatever its body says", (status) => {
    for (const code of [undefined, "invalid_client", "invalid_scope", "server_error", "something_else"]) {
      assert.isTrue(TokenError.isTransient(response(status, code)), code)
    }
  })

  it.each([200, 301, 400, 401, 403, 404, 407, 422, 451])(
    "does not hold for %i, with or without an OAuth error",
    (status) => {
      for (const code of [undefined, "invalid_client", "invalid_grant", "invalid_scope", "my_own_code"]) {
        assert.isFalse(TokenError.isTransient(response(status, code)), code)
      }
    }
  )

  it("holds for temporarily_unavailable and server_error with 400, and with no other permanent status", () => {
    for (const code of ["temporarily_unavailable", "server_error"]) {
      assert.isTrue(TokenError.isTransient(response(400, code)))
      for (const status of [200, 401, 403, 404]) assert.isFalse(TokenError.isTransient(response(status, code)))
    }
  })

  it("holds for a discovery without a response, and for no other DiscoveryError", () => {
    for (const reason of ["NotFound", "Invalid", "IssuerMismatch", "ResourceMismatch", "Unsupported"] as const) {
      assert.isFalse(TokenError.isTransient(new TokenError.DiscoveryError({ ...discovery, reason })), reason)
    }
    assert.isTrue(TokenError.isTransient(new TokenError.DiscoveryError({ ...discovery, reason: "Transport" })))
  })

  it("does not hold for a response without a usable token, a sign-in that failed, or a closed layer", () => {
    assert.isFalse(TokenError.isTransient(closed))
    assert.isFalse(TokenError.isTransient(invalid))
    assert.isFalse(TokenError.isTransient(denied))
  })
})

describe("isRefusal", () => {
  it("holds for every error response that is never retried", () => {
    for (const status of [200, 400, 401, 403]) {
      for (const code of [undefined, "invalid_client", "invalid_scope", "unauthorized_client", "my_own_code"]) {
        assert.isTrue(TokenError.isRefusal(response(status, code)), `${status} ${code}`)
      }
    }
  })

  it("does not hold for what another attempt could end otherwise", () => {
    for (
      const error of [
        requestError(),
        response(503),
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
      for (const reason of ["ErrorResponse", "Timeout", "IssuerMismatch", "NoPort", "Failed"] as const) {
        assert.isFalse(TokenError.isRefusal(new TokenError.AuthorizationError({ reason, error })), reason)
      }
    }
  })

  it("does not hold for a response that is not an error, a DiscoveryError or a closed layer", () => {
    for (const error of [invalid, discovery, closed]) assert.isFalse(TokenError.isRefusal(error), error.message)
  })
})
