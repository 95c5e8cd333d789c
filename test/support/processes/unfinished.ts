/**
 * A program that never disposes of its runtime, and ends its work while a renewal hangs: `unfinished.ts <url>`. It writes a
 * line when its work is done.
 */
import { HttpClient } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { Console, Effect, Layer, ManagedRuntime, Redacted } from "effect"
import { Alf } from "effect-alf"

const [url = ""] = process.argv.slice(2)

const runtime = ManagedRuntime.make(
  Alf.layer({
    tokenEndpoint: `${url}/token`,
    clientId: "client",
    clientSecret: Redacted.make("a secret"),
    origins: [url],
    expiryLeeway: 0
  }).pipe(Layer.provide(NodeHttpClient.layerUndici))
)

const request = Effect.flatMap(HttpClient.get(`${url}/api`), (response) => response.text)

// in the last fifth of its life a token is renewed in the background, and still used
await runtime.runPromise(Effect.zipRight(request, Effect.zipRight(Effect.sleep("4400 millis"), request)))
await runtime.runPromise(Console.log("done"))
