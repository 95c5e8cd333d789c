/** Everything in one run: `npm run benchmark`. The tables go to the terminal and to RESULTS.md. */
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import * as InProcess from "./inProcess.ts"
import type { Quartiles } from "./measure.ts"
import * as Pools from "./pools.ts"
import { peers, proofs } from "./peers.mjs"
import * as Sockets from "./sockets.ts"
import { dropIn, transports, typed, withProofs } from "./subjects.ts"

const lines: Array<string> = []
const print = (line = "") => {
  lines.push(line)
  process.stdout.write(`${line}\n`)
}
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>) => {
  print(`| ${head.join(" | ")} |`)
  print(`| ${head.map((_, column) => column === 0 ? "---" : "--:").join(" | ")} |`)
  for (const row of rows) print(`| ${row.join(" | ")} |`)
  print()
}
const spread = ({ high, low, median }: Quartiles) => `${median.toFixed(3)} (${low.toFixed(3)}–${high.toFixed(3)})`
const version = (name: string): string =>
  JSON.parse(readFileSync(new URL(`../../node_modules/${name}/package.json`, import.meta.url), "utf8")).version

print("# Results")
print()
print(
  `${new Date().toISOString().slice(0, 10)}, Node ${process.versions.node}, ${cpus().length} cores (${
    cpus()[0]?.model.trim() ?? "unknown"
  }), effect ${version("effect")}, @effect/platform ${version("@effect/platform")}, ` +
    `@effect/platform-node ${version("@effect/platform-node")}. Servers and clients on one machine, over loopback; ` +
    "ratios are of interleaved pairs, medians with quartiles."
)
print()

print("## The cost of a request whose token is at hand")
print()
const cost = await InProcess.ownCost()
print("Own cost over a transport of one flatMap, tracer off. The cell is a header's text looked at for each request.")
print()
table(["", "ns", "bytes", "times the cell"], [
  ["plain cell", cost.cell.nanos.toFixed(0), cost.cell.bytes.toFixed(0), "1"],
  ...(["dropIn", "typed"] as const).map((name) => [
    name === "dropIn" ? "drop-in" : name,
    cost[name].nanos.toFixed(0),
    cost[name].bytes.toFixed(0),
    (cost[name].nanos / cost.cell.nanos).toFixed(2)
  ])
])
print("Against a header set by hand, over a stub under `HttpClient.make`:")
print()
const off = await InProcess.overStub(false)
const on = await InProcess.overStub(true)
table(["", "tracer off", "tracer on"], [
  ["drop-in", spread(off.dropIn), spread(on.dropIn)],
  ["typed", spread(off.typed), spread(on.typed)]
])

print(
  `A request with DPoP takes ${
    spread(await InProcess.proofs())
  } times as long as one signature of WebCrypto by such a ` +
    "key, over the transport of one flatMap, one after another."
)
print()

print("## On loopback sockets")
print()
print(
  "**one**, **64**: time against the subject's own transport with a header set by hand, one after another and 64 in " +
    "flight. **cold**: token requests for 1,000 first requests at once. **storm**: token requests (and final 401s) when " +
    "every token is revoked under 1,000 requests in flight, the 401s coming at once, and straggling over 200 ms. " +
    "**expiry**: 50 workers on tokens of 1 s with a token endpoint 200 ms slow: token requests, 401s at the server, p99 " +
    "and longest request in ms. **flaky**: a token endpoint that fails two of three times: failures that reach the " +
    "callers of 200 requests, cold and after a revocation. **refusing**: token requests when the API answers 401 to " +
    "everything, 1,000 calls a second for 10 s. **large**: the most connections open at once, for 10 requests in flight " +
    "whose 401s are 1 MB."
)
print()
const rows: Array<ReadonlyArray<string>> = []
for (const subject of [dropIn, typed, ...peers]) {
  process.stderr.write(`${subject.name} …\n`)
  const pairs = subject === dropIn || subject === typed ? 41 : 11
  const one = await Sockets.overhead(subject, 1, pairs)
  const many = await Sockets.overhead(subject, 64, pairs)
  const cold = await Sockets.cold(subject)
  const sudden = await Sockets.storm(subject, 0)
  const straggling = await Sockets.storm(subject, 200)
  const expiry = await Sockets.expiry(subject)
  const flaky = await Sockets.flaky(subject)
  const refusing = await Sockets.refusesAll(subject)
  const large = await Sockets.largeRefusals(subject)
  rows.push([
    `${subject.name} ${subject.version}`,
    spread(one),
    spread(many),
    String(cold),
    `${sudden.tokenRequests} (${sudden.refused}) / ${straggling.tokenRequests} (${straggling.refused})`,
    `${expiry.tokenRequests}, ${expiry.refusals}, ${expiry.p99.toFixed(0)}, ${expiry.max.toFixed(0)}`,
    `${flaky.cold} / ${flaky.rotating}`,
    String(refusing),
    String(large)
  ])
}
table(["client", "one", "64", "cold", "storm", "expiry", "flaky", "refusing", "large"], rows)

print("### With proofs (DPoP)")
print()
print(
  "As **one** and **64** above, over fetch: a proof of ES256 with each request. The other two make proofs and no more."
)
print()
const proofRows: Array<ReadonlyArray<string>> = []
for (const subject of [withProofs, ...proofs]) {
  proofRows.push([
    `${subject.name} ${subject.version}`,
    spread(await Sockets.overhead(subject, 1, 21)),
    spread(await Sockets.overhead(subject, 64, 21))
  ])
}
table(["client", "one", "64"], proofRows)

print("## When every token is revoked")
print()
print(
  "1,000 requests at once whose token is revoked, over undici: time against a program that replays each by hand and has " +
    "the new token for nothing. With proofs both sign them with one key."
)
print()
table(["", "times by hand"], [
  ["Bearer", spread(await Sockets.stormTime(false))],
  ["DPoP", spread(await Sockets.stormTime(true))]
])
const { inFlight, large } = await Effect.runPromise(Sockets.connections)
print("The most connections that undici opens, beside the same work by hand:")
print()
table(["", "effect-alf", "by hand"], [
  ["64 requests in flight", String(inFlight.own), String(inFlight.byHand)],
  ["10 in flight, each answered with a 401 of 1 MB first", String(large.own), String(large.byHand)]
])

print("## Which of Effect's clients")
print()
print("The drop-in over each of them: microseconds of a request, one after another and 64 in flight; large as above.")
print()
const micros = ({ high, low, median }: Quartiles) =>
  `${(1000 * median).toFixed(0)} (${(1000 * low).toFixed(0)}–${(1000 * high).toFixed(0)})`
const layers: Array<ReadonlyArray<string>> = []
for (const subject of transports) {
  layers.push([
    subject.name,
    micros(await Sockets.duration(subject, 1)),
    micros(await Sockets.duration(subject, 64)),
    String(await Sockets.largeRefusals(subject))
  ])
}
table(["layer", "one", "64", "large"], layers)

print("## Pools")
print()
const pool = await Pools.size()
const bounded = await Pools.bounded()
const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MB`
table(["what", "measured"], [
  [`a request of a pool that holds ${pool.keys} keys, against one that holds 10`, spread(pool.ratio)],
  [`each idle key of ${pool.keys}`, `${pool.bytes.toFixed(0)} bytes`],
  [`heap of a pool that holds ${bounded.capacity} keys`, megabytes(bounded.full)],
  [`… after it has seen ${pool.keys} keys`, megabytes(bounded.seen)],
  [`… after it has served ${bounded.active} of them ten times`, megabytes(bounded.served)]
])

print("## The rest")
print()
const interruption = await InProcess.interruption()
const importTime = await InProcess.importTime()
const size = await InProcess.bundleSize()
const idle = await InProcess.idle()
const growth = await InProcess.growth()
table(["what", "measured"], [
  [
    "first of 100 callers interrupted during the fetch",
    `${interruption.succeeded} of the others succeed, ${interruption.tokenRequests} token request, the interrupted one ` +
    `ends within ${interruption.millis.toFixed(1)} ms`
  ],
  ["import of the package above effect and @effect/platform", `${importTime.median.toFixed(1)} ms`],
  ["own code in a minimal bundle, gzipped", `${size.own} bytes (${size.all} with @noble/hashes)`],
  ["an idle TokenService", `${idle.toFixed(0)} bytes`],
  ["heap growth over 100,000 requests", `${growth.toFixed(0)} bytes`]
])

const results = new URL("../RESULTS.md", import.meta.url)
const kept = readFileSync(results, { encoding: "utf8", flag: "a+" }).split("<!-- written by hand -->")[1] ?? "\n"
if (!Sockets.isQuick) writeFileSync(results, `${lines.join("\n")}\n<!-- written by hand -->${kept}`)
Sockets.stop()
