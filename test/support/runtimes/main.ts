/** Runs the core's program from a command line, and prints its report: `main.mjs <url>`. */
import { Console, Effect } from "effect"
import { program } from "./core.ts"

declare const Deno: { readonly args: ReadonlyArray<string> } | undefined

// with --allow-net alone Deno lets nobody read process.argv
const [url = ""] = typeof Deno === "undefined" ? process.argv.slice(2) : Deno.args

await Effect.runPromise(Effect.flatMap(program(url), (report) => Console.log(JSON.stringify(report))))
