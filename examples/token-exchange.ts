/**
 * A service that is called by users calls another one for them: it exchanges each user's token for one that the other
 * service takes (RFC 8693). The authorization server and the other service are in memory.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Data, Effect, Redacted } from "effect"
import { Grant, TokenPool } from "effect-alf"
import { TestAuthorizationServer } from "effect-alf/testing"

/** The user is the key; the token that came with the request is not compared. */
class Caller extends Data.Class<{ readonly user: string }> {}

const tokens = new Map([["ann", Redacted.make("token-of-ann")], ["bob", Redacted.make("token-of-bob")]])

const makePool = TokenPool.make({
  lookup: ({ user }: Caller) => ({
    tokenEndpoint: TestAuthorizationServer.tokenEndpoint,
    clientId: "orders",
    clientSecret: Redacted.make("my-secret"),
    grant: Grant.tokenExchange({
      subjectToken: Effect.fromNullable(tokens.get(user)),
      audience: "billing",
      key: user
    }),
    origins: ["https://billing.test"]
  })
})

const program = Effect.gen(function*() {
  const pool = yield* makePool
  for (const user of ["ann", "bob", "ann"]) {
    const { status } = yield* pool.authorizedHttpClient(new Caller({ user })).get("https://billing.test/invoices")
    yield* Console.log(`for ${user}: ${status}`)
  }
  const { requests } = yield* TestAuthorizationServer.TestAuthorizationServer
  const exchanged = (yield* requests).filter(({ endpoint }) => endpoint === "token")
  yield* Console.log(`${exchanged.length} token requests for two users`)
})

program.pipe(Effect.scoped, Effect.provide(TestAuthorizationServer.layer()), NodeRuntime.runMain)
