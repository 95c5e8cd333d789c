/** Redis and node:http, from a command line: `server.mjs <url> <port of Redis>`. Prints the statuses of two programs. */
import { HttpClient } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { Alf } from "effect-alf"
import * as TokenStorageRedis from "effect-alf/TokenStorage/Redis"
import { options } from "./core.ts"

const [url = "", port = ""] = process.argv.slice(2)

const once = Effect.flatMap(HttpClient.get(`${url}/api`), (response) => Effect.as(response.text, response.status)).pipe(
  Effect.provide(Alf.layer(options(url))),
  Effect.provide(Layer.merge(NodeHttpClient.layer, TokenStorageRedis.layer({ port: Number(port) })))
)

await Effect.runPromise(Effect.flatMap(Effect.all([once, once]), (statuses) => Console.log(JSON.stringify(statuses))))
