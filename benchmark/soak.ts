/**
 * An hour of steady load: `npm run soak`, or `npm run soak -- --minutes 5`. 200 requests a second on tokens of 30 seconds that
 * are shared through Redis, which is killed and is away for half a minute twice; of the token requests 5 % fail and 5 % take 3 seconds.
 * It fails if a request fails or a token is rejected, and draws what it saw in soak.svg.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Alf } from "effect-alf"
import * as TokenStorageRedis from "effect-alf/TokenStorage/Redis"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { performance } from "node:perf_hooks"
import { parseArgs } from "node:util"
import { percentile } from "./measure.ts"
import { draw, type Panel } from "./plot.ts"
import { counts, environment, reset, stop } from "./sockets.ts"
import { alfOptions } from "./subjects.ts"

const { values } = parseArgs({ options: { minutes: { type: "string", default: "60" } } })
const minutes = Number(values.minutes)
const perSecond = 200
/** A point of the plot stands for this many seconds. */
const span = Math.max(1, Math.round(minutes / 2))

interface Point {
  readonly minute: number
  readonly median: number
  readonly p99: number
  readonly longest: number
  readonly tokenRequests: number
  readonly megabytes: number
  readonly open: number
}

/** A Redis on a free port, which can be killed and started anew. */
const redisServer = Effect.acquireRelease(
  Effect.promise(async () => {
    const listener = createServer().listen(0, "127.0.0.1")
    await once(listener, "listening")
    const address = listener.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    await new Promise((resolve) => listener.close(resolve))
    let child: ChildProcess | undefined
    const start = Effect.promise(async () => {
      child = spawn("redis-server", ["--bind", "127.0.0.1", "--port", `${port}`, "--save", ""], { stdio: "ignore" })
      await once(child, "spawn")
    })
    const kill = Effect.sync(() => child?.kill("SIGKILL"))
    return { port, start, kill }
  }),
  ({ kill }) => kill
)

const shares = (values: Float32Array): readonly [median: number, p99: number, longest: number] => {
  const sorted = values.sort()
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? 0
  return [at(0.5), at(0.99), at(1)]
}

const program = Effect.gen(function*() {
  const redis = yield* redisServer
  yield* redis.start
  yield* Effect.promise(() => reset({ expiresIn: 30, failing: 0.05, slow: 0.05 }))
  const below = yield* Layer.build(
    Layer.merge(TokenStorageRedis.layer({ port: redis.port }), NodeHttpClient.layerUndici)
  )
  const { httpClient } = yield* Effect.provide(Alf.make(alfOptions(environment)), below)
  // outside the heap, which is watched
  const latencies = new Float32Array((minutes * 60 + 10) * perSecond)
  let done = 0
  let seen = 0
  const failures: Array<string> = []
  const request = Effect.suspend(() => {
    const start = performance.now()
    return httpClient.get(environment.api).pipe(
      Effect.flatMap((response) => Effect.as(response.arrayBuffer, response.status)),
      Effect.map((status) => status === 200 ? undefined : `status ${status}`),
      Effect.catchAll((error) => Effect.succeed(String(error))),
      Effect.map((failure) => {
        latencies[done++] = performance.now() - start
        if (failure !== undefined) failures.push(failure)
      })
    )
  })

  const points: Array<Point> = []
  const restarts = [Math.round(minutes * 20), Math.round(minutes * 40)]
  const start = performance.now()
  let sent = 0
  for (let second = 1; second <= minutes * 60; second++) {
    if (restarts.includes(second)) {
      yield* Effect.fork(redis.kill.pipe(Effect.zipRight(Effect.sleep("30 seconds")), Effect.zipRight(redis.start)))
    }
    while (performance.now() - start < second * 1000) {
      const due = Math.floor((performance.now() - start) * perSecond / 1000)
      for (; sent < due; sent++) yield* Effect.fork(request)
      yield* Effect.sleep("10 millis")
    }
    if (second % span !== 0) continue
    globalThis.gc?.()
    const megabytes = process.memoryUsage().heapUsed / 2 ** 20
    const { open, tokenRequests } = yield* Effect.promise(counts)
    const [median, p99, longest] = shares(latencies.slice(seen, done))
    points.push({ minute: second / 60, median, p99, longest, tokenRequests, megabytes, open })
    seen = done
  }
  yield* Effect.sleep("5 seconds")
  const { refusals } = yield* Effect.promise(counts)
  return { points, sent, failures, rejected: refusals, all: shares(latencies.slice(0, done)) }
})

const { all, failures, points, rejected, sent } = await Effect.runPromise(Effect.scoped(program))
stop()

const line = (name: string, value: (point: Point, index: number) => number) => ({
  name,
  points: points.map((point, index) => [point.minute, value(point, index)] as const)
})
const panels: ReadonlyArray<Panel> = [
  {
    title: "latency, ms",
    isLogarithmic: true,
    lines: [
      line("median", ({ median }) => median),
      line("99 %", ({ p99 }) => p99),
      line("longest", ({ longest }) => longest)
    ]
  },
  {
    title: `token requests in ${span} s`,
    lines: [line("token requests", ({ tokenRequests }, n) => tokenRequests - (points[n - 1]?.tokenRequests ?? 0))]
  },
  {
    title: "heap, MB, and connections to the servers",
    lines: [line("heap", ({ megabytes }) => megabytes), line("connections", ({ open }) => open)]
  }
]
writeFileSync(new URL("../soak.svg", import.meta.url), draw(panels))

const heap = points.map(({ megabytes }) => megabytes)
const tenth = Math.max(1, Math.floor(points.length / 10))
const middle = (values: ReadonlyArray<number>) => percentile(values, 0.5)
console.log(
  `${minutes} minutes: ${sent} requests, ${failures.length} failed, ${rejected} tokens rejected; ` +
    `median ${all[0].toFixed(2)} ms, 99 % ${all[1].toFixed(2)} ms, longest ${all[2].toFixed(0)} ms; heap ${
      middle(heap.slice(0, tenth)).toFixed(2)
    } MB in the first tenth, ${middle(heap.slice(-tenth)).toFixed(2)} MB in the last; at most ${
      Math.max(...points.map(({ open }) => open))
    } connections`
)
for (const failure of failures.slice(0, 10)) console.error(failure)
if (failures.length > 0 || rejected > 0) process.exitCode = 1
