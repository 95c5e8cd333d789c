/** A Google service account: each token request carries a new assertion that its key has signed. The server is in memory. */
import { HttpClient } from "@effect/platform"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Redacted } from "effect"
import { Alf } from "effect-alf"
import * as ClientAssertion from "effect-alf/ClientAssertion"
import { TestAuthorizationServer } from "effect-alf/testing"
import { generateKeyPairSync } from "node:crypto"

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })

// the file that Google gives, with the test server in place of Google's
const json = Redacted.make(JSON.stringify({
  type: "service_account",
  private_key_id: "key-1",
  private_key: privateKey.export({ format: "pem", type: "pkcs8" }),
  client_email: "reports@project.iam.gserviceaccount.com",
  client_id: "123456789",
  token_uri: TestAuthorizationServer.tokenEndpoint
}))

const authorized = Alf.layer({
  ...ClientAssertion.googleServiceAccount(json, { scope: "https://www.googleapis.com/auth/devstorage.read_only" }),
  origins: ["https://storage.test"]
})

const program = Effect.gen(function*() {
  const { status } = yield* HttpClient.get("https://storage.test/bucket")
  const [request] = yield* Effect.flatMap(TestAuthorizationServer.TestAuthorizationServer, ({ requests }) => requests)
  const assertion = new URLSearchParams(request?.body).get("assertion") ?? ""
  yield* Console.log(Buffer.from(assertion.split(".")[1] ?? "", "base64url").toString())
  yield* Console.log(`the API answers ${status}`)
})

program.pipe(
  Effect.provide(Layer.provideMerge(authorized, TestAuthorizationServer.layer())),
  NodeRuntime.runMain
)
