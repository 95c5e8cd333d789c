/** What is measured on loopback sockets, the same for every subject. */
import { NodeHttpClient } from "@effect/platform-node"
import { Effect } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import { performance } from "node:perf_hooks"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { drive, percentile, type Quartiles, quartiles, ratio } from "./measure.ts"
import type { Behaviour, Command, Counts } from "./server.ts"
import { type Client, type Environment, type Subject, withReplays } from "./subjects.ts"

export const isQuick = process.argv.includes("--quick")

const child: ChildProcess = fork(fileURLToPath(new URL("./server.mjs", import.meta.url)))
const next = () => new Promise<{ port: number; counts: Counts }>((resolve) => child.once("message", resolve as never))
const { port } = await next()

export const environment: Environment = {
  tokenEndpoint: `http://127.0.0.1:${port}/token`,
  api: `http://127.0.0.1:${port}/api`
}

const tell = async (command: Command): Promise<Counts> => {
  const answer = next()
  child.send(command)
  return (await answer).counts
}
export const reset = (behaviour: Partial<Behaviour> = {}): Promise<Counts> => tell({ _tag: "reset", behaviour })
export const counts = (): Promise<Counts> => tell({ _tag: "counts" })
export const stop = (): void => child.disconnect()

const using = async <A>(
  subject: Subject,
  behaviour: Partial<Behaviour>,
  run: (client: Client) => Promise<A>
): Promise<A> => {
  await reset(behaviour)
  const client = await subject.make(environment)
  try {
    return await run(client)
  } finally {
    await client.close?.()
  }
}

/** The statuses of requests that are sent at once. */
const together = (client: Client, times: number) =>
  Promise.all(Array.from({ length: times }, () => client.request().catch(() => 0)))

const finalRefusals = (statuses: ReadonlyArray<number>) => statuses.filter((status) => status === 401).length
const failures = (statuses: ReadonlyArray<number>) => statuses.filter((status) => status !== 200).length

export const overhead = (subject: Subject, atOnce: number, pairs: number): Promise<Quartiles> =>
  using(subject, {}, (client) => {
    const times = isQuick ? 200 : atOnce === 1 ? 500 : 2000
    return ratio(
      () => drive(client.request, times, atOnce),
      () => drive(client.bare, times, atOnce),
      isQuick ? 3 : pairs
    )
  })

/** Milliseconds of a request, one after another or so many at once. */
export const duration = (subject: Subject, atOnce: number): Promise<Quartiles> =>
  using(subject, {}, async (client) => {
    const times = isQuick ? 200 : 2000
    const rounds: Array<number> = []
    await drive(client.request, times, atOnce)
    for (let round = 0; round < (isQuick ? 3 : 11); round++) {
      rounds.push(await drive(client.request, times, atOnce) / times)
    }
    return quartiles(rounds)
  })

export const cold = (subject: Subject) =>
  using(subject, { tokenDelay: 50 }, async (client) => {
    await together(client, 1000)
    return (await counts()).tokenRequests
  })

export const storm = (subject: Subject, straggle: number) =>
  using(subject, { tokenDelay: 20, straggle }, async (client) => {
    await client.request()
    await tell({ _tag: "revoke" })
    const before = await counts()
    const statuses = await together(client, 1000)
    return { tokenRequests: (await counts()).tokenRequests - before.tokenRequests, refused: finalRefusals(statuses) }
  })

export const expiry = (subject: Subject) =>
  using(subject, { expiresIn: 1, tokenDelay: 200 }, async (client) => {
    await client.request()
    const before = await counts()
    const latencies: Array<number> = []
    const end = performance.now() + (isQuick ? 3_000 : 10_000)
    await Promise.all(Array.from({ length: 50 }, async () => {
      while (performance.now() < end) {
        const start = performance.now()
        await client.request().catch(() => 0)
        latencies.push(performance.now() - start)
        await sleep(25)
      }
    }))
    const after = await counts()
    return {
      tokenRequests: after.tokenRequests - before.tokenRequests,
      refusals: after.refusals - before.refusals,
      p99: percentile(latencies, 0.99),
      max: percentile(latencies, 1)
    }
  })

export const flaky = (subject: Subject) =>
  using(subject, { isFlaky: true }, async (client) => {
    const first = await together(client, 200)
    await tell({ _tag: "revoke" })
    const second = await together(client, 200)
    return { cold: failures(first), rotating: failures(second) }
  })

export const refusesAll = (subject: Subject) =>
  using(subject, { refusesAll: true }, async (client) => {
    const seconds = isQuick ? 3 : 10
    for (let tick = 0; tick < seconds * 10; tick++) {
      await Promise.all([together(client, 100), sleep(100)])
    }
    return (await counts()).tokenRequests
  })

export const largeRefusals = (subject: Subject) =>
  using(subject, { refusalSize: 1_000_000 }, async (client) => {
    await client.request()
    for (let round = 0; round < 20; round++) {
      await tell({ _tag: "revoke" })
      await together(client, 10)
    }
    return (await counts()).connections
  })

/**
 * How much longer 1,000 requests take whose token is revoked than those of a program that replays by hand and has the new
 * token for nothing.
 */
export const stormTime = (hasProofs: boolean): Promise<Quartiles> => {
  /** A client of its own for each round: one that is revoked again and again would get no more than ten new tokens. */
  const thousand = (which: "own" | "byHand") => () =>
    Effect.runPromise(
      Effect.scoped(Effect.gen(function*() {
        const clients = yield* withReplays(environment, hasProofs)
        yield* clients.own
        yield* Effect.promise(() => tell({ _tag: "revoke" }))
        globalThis.gc?.()
        const start = performance.now()
        const statuses = yield* Effect.all(Array.from({ length: 1000 }, () => clients[which]), {
          concurrency: "unbounded"
        })
        const took = performance.now() - start
        if (failures(statuses) > 0) return yield* Effect.dieMessage("a request failed")
        return took
      })).pipe(Effect.provide(NodeHttpClient.layerUndici))
    )
  return reset().then(() => ratio(thousand("own"), thousand("byHand"), isQuick ? 3 : 21))
}

/**
 * The most connections that undici opens for 64 requests in flight, and for 10 whose 401s are 1 MB: under this library, and
 * under a program that does the same by hand.
 */
export const connections = Effect.scoped(Effect.gen(function*() {
  const most = (request: "own" | "byHand", work: (request: Effect.Effect<number>) => Promise<unknown>) =>
    Effect.scoped(Effect.gen(function*() {
      yield* Effect.promise(() => reset({ refusalSize: 1_000_000 }))
      const { byHand, own } = yield* withReplays(environment, false)
      yield* Effect.promise(() => work(request === "own" ? own : byHand))
      return (yield* Effect.promise(counts)).connections
    })).pipe(Effect.provide(NodeHttpClient.layerUndici))
  const inFlight = (request: Effect.Effect<number>) => drive(() => Effect.runPromise(request), 2000, 64)
  const large = async (request: Effect.Effect<number>) => {
    for (let round = 0; round < 20; round++) {
      await tell({ _tag: "revoke" })
      await drive(() => Effect.runPromise(request), 10, 10)
    }
  }
  return {
    inFlight: { own: yield* most("own", inFlight), byHand: yield* most("byHand", inFlight) },
    large: { own: yield* most("own", large), byHand: yield* most("byHand", large) }
  }
}))
