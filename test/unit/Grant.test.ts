import { UrlParams } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Context, DateTime, Effect, Layer, Option, Redacted, TestClock } from "effect"
import { AccessToken, Grant, TokenEndpoint, TokenError } from "effect-alf"
import { inspect } from "node:util"
import { Flight } from "../../src/internal/token/flight.ts"
import { layerServer, resolved } from "../support/endpoint.ts"

const endpoint = "https://auth.test/token"

const token = (
  value: string,
  fields: { readonly refreshToken?: string; readonly scope?: ReadonlyArray<string> } = {}
) =>
  new AccessToken.AccessToken({
    value: Redacted.make(value),
    issuedAt: DateTime.unsafeMake(0),
    expiresAt: Option.some(DateTime.unsafeMake(60_000)),
    refreshToken: Option.map(Option.fromNullable(fields.refreshToken), (text) => Redacted.make(text)),
    scope: fields.scope ?? []
  })

const refusal = (error: string, status = 400) =>
  new TokenError.TokenErrorResponse({ endpoint, status, error, attempts: 1, body: "" })

/** A token endpoint that answers from a script and remembers the forms that it was sent, each as a text. */
const scriptedEndpoint = (
  ...answers: ReadonlyArray<AccessToken.AccessToken | TokenError.TokenError>
) => {
  const forms: Array<string> = []
  const layer = Layer.succeed(TokenEndpoint.TokenEndpoint, {
    identity: "scripted",
    request: (params) =>
      Effect.flatMap(resolved(params), (params) => {
        const answer = answers[forms.push(UrlParams.toString(params)) - 1]
        return answer === undefined
          ? Effect.dieMessage("more requests than the script knows")
          : answer instanceof AccessToken.AccessToken
          ? Effect.succeed(answer)
          : Effect.fail(answer)
      })
  })
  return { forms, layer: Layer.merge(layer, layerServer) }
}

/** The form that a grant sends. */
const formOf = (grant: Grant.Grant, previous: Option.Option<AccessToken.AccessToken> = Option.none()) =>
  Effect.gen(function*() {
    const { forms, layer } = scriptedEndpoint(token("new"))
    yield* Effect.provide(grant.acquire(previous), layer)
    return forms
  })

describe("clientCredentials", () => {
  it.effect("asks with grant_type=client_credentials alone by default", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials()), ["grant_type=client_credentials"])
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials({})), ["grant_type=client_credentials"])
    }))

  it.effect("takes scope as a string or a list", () =>
    Effect.gen(function*() {
      const expected = ["grant_type=client_credentials&scope=read+write"]
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials({ scope: "read write" })), expected)
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials({ scope: ["read", "write"] })), expected)
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials({ scope: "  read   write " })), expected)
    }))

  it.effect("asks for no scope where the scope is empty", () =>
    Effect.gen(function*() {
      for (const scope of ["", " ", []]) {
        assert.deepStrictEqual(yield* formOf(Grant.clientCredentials({ scope })), ["grant_type=client_credentials"])
      }
    }))

  it.effect("sends audience, each resource (RFC 8707) and further parameters", () =>
    Effect.gen(function*() {
      const grant = Grant.clientCredentials({
        audience: "https://api.test/",
        resource: ["https://a.test", "https://b.test"],
        params: { tenant: "blue & green", organization: "o1" }
      })
      const [form] = yield* formOf(grant)
      assert.deepStrictEqual([...new URLSearchParams(form)], [
        ["grant_type", "client_credentials"],
        ["audience", "https://api.test/"],
        ["resource", "https://a.test"],
        ["resource", "https://b.test"],
        ["tenant", "blue & green"],
        ["organization", "o1"]
      ])
    }))

  it.effect("takes one resource as a string", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials({ resource: "https://a.test" })), [
        "grant_type=client_credentials&resource=https%3A%2F%2Fa.test"
      ])
    }))

  it.effect("does not care for the token before", () =>
    Effect.gen(function*() {
      const previous = Option.some(token("old", { refreshToken: "r" }))
      assert.deepStrictEqual(yield* formOf(Grant.clientCredentials(), previous), ["grant_type=client_credentials"])
    }))

  const key = (options?: Grant.ClientCredentialsOptions) => Grant.clientCredentials(options).key

  it("has one key for the same scopes, in whatever order and writing", () => {
    const expected = key({ scope: "a b" })
    assert.strictEqual(key({ scope: "b a" }), expected)
    assert.strictEqual(key({ scope: ["b", "a"] }), expected)
    assert.strictEqual(key({ scope: ["a b", "a"] }), expected)
  })

  it("has one key for the same resources and the same parameters in whatever order", () => {
    assert.strictEqual(key({ resource: ["x", "y"] }), key({ resource: ["y", "x"] }))
    assert.strictEqual(key({ params: { x: "1", y: "2" } }), key({ params: { y: "2", x: "1" } }))
  })

  it("has a key that stays: a token in a storage is found by the next version too", () => {
    assert.strictEqual(
      key({ scope: "b a", audience: "c", resource: "d", params: { z: "1", y: "2", x: "3" } }),
      JSON.stringify(["client_credentials", ["a", "b"], "c", ["d"], [["x", "3"], ["y", "2"], ["z", "1"]]])
    )
    const refresh = Grant.refreshToken({ key: "other", acquire: () => Effect.never })
    assert.strictEqual(refresh.key, JSON.stringify(["refresh_token", "other", null]))
  })

  it("has one key where nothing is asked for, however that is said", () => {
    assert.strictEqual(key(), key({}))
    assert.strictEqual(key(), key({ scope: "", resource: [], params: {}, audience: undefined }))
  })

  it("has another key as soon as anything differs: two clients never see each other's token", () => {
    const keys = [
      key(),
      key({ scope: "a" }),
      key({ scope: "A" }),
      key({ scope: "a b" }),
      key({ audience: "a" }),
      key({ audience: "" }),
      key({ audience: "b" }),
      key({ resource: "a" }),
      key({ resource: ["a", "b"] }),
      key({ resource: "a b" }),
      key({ params: { a: "" } }),
      key({ params: { a: "b" } }),
      key({ params: { b: "a" } }),
      key({ params: { audience: "a" } }),
      key({ params: { resource: "a" } }),
      key({ params: { "a\",\"b": "c" } }),
      key({ params: { a: "b\",\"c" } })
    ]
    assert.strictEqual(new Set(keys).size, keys.length)
  })

  it.effect("is not changed by what happens to its options afterwards", () =>
    Effect.gen(function*() {
      const params: Record<string, string> = { a: "1" }
      const grant = Grant.clientCredentials({ params })
      params["a"] = "2"
      assert.deepStrictEqual(yield* formOf(grant), ["grant_type=client_credentials&a=1"])
      assert.strictEqual(grant.key, key({ params: { a: "1" } }))
    }))
})

describe("refreshToken", () => {
  const otherwise = Grant.clientCredentials({ scope: "read" })
  const fresh = "grant_type=client_credentials&scope=read"
  const refresh = (secret: string) => `grant_type=refresh_token&refresh_token=${secret}`

  const run = (
    answers: ReadonlyArray<AccessToken.AccessToken | TokenError.TokenError>,
    previous: Option.Option<AccessToken.AccessToken>,
    options?: { readonly initial?: Redacted.Redacted }
  ) =>
    Effect.gen(function*() {
      const { forms, layer } = scriptedEndpoint(...answers)
      const exit = yield* Effect.either(
        Effect.provide(Grant.refreshToken(otherwise, options).acquire(previous), layer)
      )
      return { forms, exit, token: Effect.flatMap(exit, Effect.succeed), error: Effect.flip(exit) }
    })

  const secretOf = (token: AccessToken.AccessToken) =>
    Option.getOrUndefined(Option.map(token.refreshToken, Redacted.value))

  it.effect("uses the refresh token of the token before", () =>
    Effect.gen(function*() {
      const { forms, token: next } = yield* run([token("new")], Option.some(token("old", { refreshToken: "r1" })))
      assert.deepStrictEqual(forms, [refresh("r1")])
      assert.strictEqual(Redacted.value((yield* next).value), "new")
    }))

  it.effect("takes the refresh token that the server puts in its place (rotation)", () =>
    Effect.gen(function*() {
      const { token: next } = yield* run(
        [token("new", { refreshToken: "r2" })],
        Option.some(token("old", { refreshToken: "r1" }))
      )
      assert.strictEqual(secretOf(yield* next), "r2")
    }))

  it.effect("keeps the refresh token that the server does not replace, and the token's life and moment", () =>
    Effect.gen(function*() {
      const { token: next } = yield* run([token("new")], Option.some(token("old", { refreshToken: "r1" })))
      const kept = yield* next
      const expected = token("new", { refreshToken: "r1" })
      assert.isTrue(AccessToken.isSame(kept, expected))
      assert.strictEqual(AccessToken.encode(kept), AccessToken.encode(expected))
    }))

  it.effect("keeps the scopes where the answer names none, and takes those that it names", () =>
    Effect.gen(function*() {
      const previous = Option.some(token("old", { refreshToken: "r1", scope: ["read", "write"] }))
      const silent = yield* run([token("new")], previous)
      assert.deepStrictEqual((yield* silent.token).scope, ["read", "write"])
      const narrowed = yield* run([token("new", { scope: ["read"] })], previous)
      assert.deepStrictEqual((yield* narrowed.token).scope, ["read"])
    }))

  it.effect("asks otherwise without a token before, and where that one came without a refresh token", () =>
    Effect.gen(function*() {
      for (const previous of [Option.none(), Option.some(token("old"))]) {
        const { forms, token: next } = yield* run([token("new")], previous)
        assert.deepStrictEqual(forms, [fresh])
        assert.strictEqual(Redacted.value((yield* next).value), "new")
      }
    }))

  it.effect("asks otherwise on invalid_grant", () =>
    Effect.gen(function*() {
      const { forms, token: next } = yield* run(
        [refusal("invalid_grant"), token("new", { refreshToken: "r2" })],
        Option.some(token("old", { refreshToken: "r1" }))
      )
      assert.deepStrictEqual(forms, [refresh("r1"), fresh])
      assert.strictEqual(secretOf(yield* next), "r2")
    }))

  it.effect("hands the refused refresh token on to nobody", () =>
    Effect.gen(function*() {
      const { layer } = scriptedEndpoint(refusal("invalid_grant"), refusal("invalid_grant"))
      const seen: Array<Option.Option<AccessToken.AccessToken>> = []
      const last: Grant.Grant = {
        key: "last",
        acquire: (previous) => Effect.sync(() => (seen.push(previous), token("last")))
      }
      // two of them in a row: the inner one must not try what the outer one has just seen refused
      const grant = Grant.refreshToken(Grant.refreshToken(last))
      yield* Effect.provide(grant.acquire(Option.some(token("old", { refreshToken: "r1" }))), layer)
      assert.strictEqual(seen.length, 1)
      assert.isTrue(seen.every(Option.isNone))
    }))

  it.effect("is the answer with its error where the other grant fails too", () =>
    Effect.gen(function*() {
      const { error, forms } = yield* run(
        [refusal("invalid_grant"), refusal("invalid_scope")],
        Option.some(token("old", { refreshToken: "r1" }))
      )
      assert.deepStrictEqual(forms, [refresh("r1"), fresh])
      assert.deepStrictEqual(yield* error, refusal("invalid_scope"))
    }))

  it.effect.each([
    refusal("invalid_client", 401),
    refusal("temporarily_unavailable", 503),
    new TokenError.TokenRequestError({ reason: "Transport", endpoint, attempts: 4, description: "gone" }),
    new TokenError.InvalidTokenResponse({ endpoint, issue: "access_token is missing" })
  ])("passes every other error on, the other grant is not asked", (refused) =>
    Effect.gen(function*() {
      const { error, forms } = yield* run([refused], Option.some(token("old", { refreshToken: "r1" })))
      assert.deepStrictEqual(forms, [refresh("r1")])
      assert.strictEqual(yield* error, refused)
    }))

  it.effect("uses `initial` as long as there is no token yet", () =>
    Effect.gen(function*() {
      const options = { initial: Redacted.make("r0") }
      const first = yield* run([token("new")], Option.none(), options)
      assert.deepStrictEqual(first.forms, [refresh("r0")])
      assert.strictEqual(secretOf(yield* first.token), "r0")
      const second = yield* run([token("new")], Option.some(token("old", { refreshToken: "r1" })), options)
      assert.deepStrictEqual(second.forms, [refresh("r1")])
    }))

  it.effect("asks otherwise where `initial` is no longer good", () =>
    Effect.gen(function*() {
      const { forms } = yield* run([refusal("invalid_grant"), token("new")], Option.none(), {
        initial: Redacted.make("r0")
      })
      assert.deepStrictEqual(forms, [refresh("r0"), fresh])
    }))

  it.effect("hands what the other grant requires on to its user", () =>
    Effect.gen(function*() {
      class Vault extends Context.Tag("Vault")<Vault, string>() {}
      const own: Grant.Grant<Vault> = { key: "vault", acquire: () => Effect.map(Vault, (text) => token(text)) }
      const got = yield* Grant.refreshToken(own).acquire(Option.none()).pipe(
        Effect.provideService(Vault, "from-the-vault"),
        Effect.provide(scriptedEndpoint().layer)
      )
      assert.strictEqual(Redacted.value(got.value), "from-the-vault")
    }))

  describe("key", () => {
    const key = (initial?: string, inner: Grant.Grant = otherwise) =>
      Grant.refreshToken(inner, initial === undefined ? {} : { initial: Redacted.make(initial) }).key

    it("differs from that of the other grant, and with it", () => {
      assert.notStrictEqual(key(), otherwise.key)
      assert.notStrictEqual(key(), key(undefined, Grant.clientCredentials({ scope: "write" })))
    })

    it("differs between two first refresh tokens: two people never see each other's token", () => {
      assert.notStrictEqual(key("r1"), key("r2"))
      assert.notStrictEqual(key("r1"), key())
      assert.strictEqual(key("r1"), key("r1"))
    })

    it("holds no secret", () => {
      const grant = Grant.refreshToken(otherwise, { initial: Redacted.make("MARKED-INITIAL") })
      assert.notInclude(grant.key, "MARKED")
      assert.notInclude(inspect(grant, { depth: Infinity, showHidden: true }), "MARKED")
    })
  })

  it("checks the options of the other grant", () => {
    const validate = Effect.fail(new TokenError.ConfigurationError({ issue: "no" }))
    const own: Grant.Grant = { key: "own", validate, acquire: () => Effect.succeed(token("a")) }
    const issue = Effect.runSync(Effect.flip(Grant.refreshToken(own).validate ?? Effect.void))
    assert.strictEqual(issue.issue, "no")
  })
})

describe("refreshToken, and what goes along", () => {
  const otherwise = Grant.clientCredentials()
  const spent = Option.some(token("old", { refreshToken: "r1" }))

  it.effect("sends scope, resource and params with each refresh, and not with the other grant", () =>
    Effect.gen(function*() {
      const grant = Grant.refreshToken(otherwise, {
        scope: ["read", "write"],
        resource: "https://api.test",
        params: { tenant: "7" }
      })
      const { forms, layer } = scriptedEndpoint(refusal("invalid_grant"), token("new"))
      yield* Effect.provide(grant.acquire(spent), layer)
      const [refreshed = "", fresh] = forms
      assert.deepStrictEqual(Object.fromEntries(new URLSearchParams(refreshed)), {
        grant_type: "refresh_token",
        scope: "read write",
        resource: "https://api.test",
        tenant: "7",
        refresh_token: "r1"
      })
      assert.strictEqual(fresh, "grant_type=client_credentials")
    }))

  it.effect("keeps members of `extra` that the response leaves out, and takes those that it names", () =>
    Effect.gen(function*() {
      const withExtra = (value: string, extra: Readonly<Record<string, unknown>>, refreshToken?: string) =>
        new AccessToken.AccessToken({
          ...token(value, refreshToken === undefined ? {} : { refreshToken }),
          extra: Redacted.make(extra)
        })
      const { layer } = scriptedEndpoint(withExtra("new", { b: 3 }))
      const next = yield* Effect.provide(
        Grant.refreshToken(otherwise).acquire(Option.some(withExtra("old", { a: 1, b: 2 }, "r1"))),
        layer
      )
      assert.deepStrictEqual(Redacted.value(next.extra), { a: 1, b: 3 })
    }))

  /** Runs with what another process has stored since. */
  const withStored = (stored: AccessToken.AccessToken) =>
    Effect.provideService(Flight, {
      stored: Effect.succeed(Option.some(stored)),
      spend: (effect) => effect,
      extend: () => Effect.void
    })

  it.effect("takes the token that another process has stored meanwhile, and asks nobody", () =>
    Effect.gen(function*() {
      const { forms, layer } = scriptedEndpoint(refusal("invalid_grant"))
      const next = yield* Grant.refreshToken(otherwise).acquire(spent).pipe(
        withStored(token("theirs", { refreshToken: "r2" })),
        Effect.provide(layer)
      )
      assert.strictEqual(Redacted.value(next.value), "theirs")
      assert.lengthOf(forms, 1)
    }))

  it.effect("tries the refresh token of another process once where its token is over, then the other grant", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const { forms, layer } = scriptedEndpoint(refusal("invalid_grant"), refusal("invalid_grant"), token("new"))
      const next = yield* Grant.refreshToken(otherwise).acquire(spent).pipe(
        withStored(token("theirs", { refreshToken: "r2" })),
        Effect.provide(layer)
      )
      assert.strictEqual(Redacted.value(next.value), "new")
      assert.deepStrictEqual(forms, [
        "grant_type=refresh_token&refresh_token=r1",
        "grant_type=refresh_token&refresh_token=r2",
        "grant_type=client_credentials"
      ])
    }))
})

describe("refreshTokenOnly", () => {
  const grant = Grant.refreshTokenOnly({ initial: Redacted.make("r0") })

  it.effect("begins with `initial`, and goes on with what the server puts in its place", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* formOf(grant), ["grant_type=refresh_token&refresh_token=r0"])
      assert.deepStrictEqual(yield* formOf(grant, Option.some(token("old", { refreshToken: "r1" }))), [
        "grant_type=refresh_token&refresh_token=r1"
      ])
    }))

  it.effect("falls back on nothing: the refusal is the error", () =>
    Effect.gen(function*() {
      const { forms, layer } = scriptedEndpoint(refusal("invalid_grant"))
      const error = yield* Effect.flip(Effect.provide(grant.acquire(Option.none()), layer))
      assert.deepStrictEqual(error, refusal("invalid_grant"))
      assert.lengthOf(forms, 1)
    }))

  it("has a key of its own for each first refresh token, without the token in it", () => {
    assert.notStrictEqual(grant.key, Grant.refreshTokenOnly({ initial: Redacted.make("r1") }).key)
    assert.notInclude(Grant.refreshTokenOnly({ initial: Redacted.make("MARKED") }).key, "MARKED")
  })
})

/** The form as an object. */
const fieldsOf = (grant: Grant.Grant) =>
  Effect.map(formOf(grant), ([form]) => Object.fromEntries(new URLSearchParams(form)))

const issueOf = (grant: Grant.Grant) => Effect.map(Effect.flip(grant.validate ?? Effect.void), ({ issue }) => issue)

const failing = Effect.fail(new Error("MARKED"))

describe("make", () => {
  it.effect("sends the grant type, its parameters and those that are Redacted", () =>
    Effect.gen(function*() {
      const grant = Grant.make({
        grantType: "password",
        params: { username: "ada", password: Redacted.make("MARKED") },
        scope: "read"
      })
      assert.deepStrictEqual(yield* fieldsOf(grant), {
        grant_type: "password",
        scope: "read",
        username: "ada",
        password: "MARKED"
      })
      assert.notInclude(grant.key, "MARKED")
    }))

  it("tells parameters apart in its key, unless it is given one", () => {
    const key = (account: string, key?: string) =>
      Grant.make({ grantType: "account_credentials", params: { account_id: Redacted.make(account) }, key }).key
    assert.notStrictEqual(key("a"), key("b"))
    assert.strictEqual(key("a", "mine"), key("b", "mine"))
  })

  it.effect("needs a grant type, and sends none of its parameters twice", () =>
    Effect.gen(function*() {
      assert.include(yield* issueOf(Grant.make({ grantType: "" })), "grantType is empty")
      assert.include(yield* issueOf(Grant.make({ grantType: "x", scope: "a", params: { scope: "b" } })), "scope")
    }))
})

describe("jwtBearer", () => {
  it.effect("makes an assertion for where it goes", () =>
    Effect.gen(function*() {
      const targets: Array<Grant.AssertionTarget> = []
      const grant = Grant.jwtBearer({
        key: "ada",
        resource: "https://api.test",
        assertion: (target) => Effect.sync(() => Redacted.make(`assertion-${targets.push(target)}`))
      })
      assert.deepStrictEqual(yield* fieldsOf(grant), {
        grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer",
        resource: "https://api.test",
        assertion: "assertion-1"
      })
      assert.strictEqual((yield* fieldsOf(grant))["assertion"], "assertion-2")
      assert.deepStrictEqual(targets[0], {
        issuer: Option.some("https://auth.test"),
        tokenEndpoint: endpoint,
        resource: Option.some("https://api.test")
      })
    }))

  it.effect("without an assertion is a TokenRequestError \"Secret\" that shows nothing of it", () =>
    Effect.gen(function*() {
      for (const assertion of [failing, () => failing, Effect.die("MARKED"), () => Effect.die("MARKED")]) {
        const error = yield* Effect.flip(formOf(Grant.jwtBearer({ key: "ada", assertion })))
        assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
        assert.notInclude(inspect(error), "MARKED")
      }
    }))

  it.effect("needs a key, which is not shown in the storage key", () =>
    Effect.gen(function*() {
      const assertion = Effect.succeed(Redacted.make("a"))
      assert.include(yield* issueOf(Grant.jwtBearer({ key: "", assertion })), "key is empty")
      assert.include(
        yield* issueOf(Grant.jwtBearer({ key: "a", assertion, params: { assertion: "b" } })),
        "assertion"
      )
      const keys = ["ada", "bob"].map((key) => Grant.jwtBearer({ key, assertion }).key)
      assert.notStrictEqual(keys[0], keys[1])
      assert.notInclude(keys.join(), "ada")
    }))
})

describe("tokenExchange", () => {
  const subjectToken = Effect.succeed(Redacted.make("subject"))
  const accessToken = "urn:ietf:params:oauth:token-type:access_token"

  it.effect("sends the subject, and the actor where there is one, with their types", () =>
    Effect.gen(function*() {
      const grantType = "urn:ietf:params:oauth:grant-type:token-exchange"
      assert.deepStrictEqual(yield* fieldsOf(Grant.tokenExchange({ key: "ada", subjectToken })), {
        grant_type: grantType,
        subject_token: "subject",
        subject_token_type: accessToken
      })
      const delegated = Grant.tokenExchange({
        key: "ada",
        subjectToken,
        subjectTokenType: "urn:ietf:params:oauth:token-type:id_token",
        actorToken: Effect.succeed(Redacted.make("actor")),
        requestedTokenType: accessToken,
        audience: "https://downstream.test",
        scope: "read"
      })
      assert.deepStrictEqual(yield* fieldsOf(delegated), {
        grant_type: grantType,
        scope: "read",
        audience: "https://downstream.test",
        subject_token: "subject",
        subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
        actor_token: "actor",
        actor_token_type: accessToken,
        requested_token_type: accessToken
      })
    }))

  it.effect("without a subject or an actor is a TokenRequestError \"Secret\" that shows nothing of it", () =>
    Effect.gen(function*() {
      for (
        const options of [{ subjectToken: failing }, { subjectToken, actorToken: failing }, {
          subjectToken: Effect.die("MARKED")
        }]
      ) {
        const error = yield* Effect.flip(formOf(Grant.tokenExchange({ key: "ada", ...options })))
        assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
        assert.notInclude(inspect(error), "MARKED")
      }
    }))

  it.effect("checks its options", () =>
    Effect.gen(function*() {
      assert.include(yield* issueOf(Grant.tokenExchange({ key: "", subjectToken })), "key is empty")
      assert.include(
        yield* issueOf(Grant.tokenExchange({ key: "a", subjectToken, requestedTokenType: "" })),
        "token type is empty"
      )
    }))

  it("tells subjects, types and audiences apart in its key", () => {
    const keys = [
      Grant.tokenExchange({ key: "ada", subjectToken }),
      Grant.tokenExchange({ key: "bob", subjectToken }),
      Grant.tokenExchange({ key: "ada", subjectToken, audience: "https://downstream.test" }),
      Grant.tokenExchange({ key: "ada", subjectToken, requestedTokenType: accessToken })
    ].map(({ key }) => key)
    assert.strictEqual(new Set(keys).size, 4)
  })
})
