/** What is measured in the process, for this library. */
import { HttpClient, HttpClientRequest, HttpClientResponse } from "@effect/platform"
import { NodeHttpClient } from "@effect/platform-node"
import { DateTime, Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { AccessToken, Alf, AuthorizationServer, Grant, TokenEndpoint, TokenService } from "effect-alf"
import * as DPoP from "effect-alf/DPoP"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { setImmediate } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { drive, percentile, type Quartiles, quartiles, ratio } from "./measure.ts"
import { counts, environment, isQuick, reset } from "./sockets.ts"
import { alfOptions, withHeader } from "./subjects.ts"

const okay = HttpClientResponse.fromWeb(HttpClientRequest.get(environment.api), new Response("{}"))
const answerOf = (request: HttpClientRequest.HttpClientRequest) =>
  request.method === "POST"
    ? HttpClientResponse.fromWeb(
      request,
      Response.json({
        access_token: "fixed",
        token_type: request.headers["dpop"] === undefined ? "Bearer" : "DPoP",
        expires_in: 3600
      })
    )
    : okay

/** A transport of one flatMap. */
export const flatMapStub: HttpClient.HttpClient = HttpClient.makeWith(
  Effect.flatMap((request: HttpClientRequest.HttpClientRequest) => Effect.succeed(answerOf(request))),
  Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
)
const body = new Response("{}")
/** A transport under what `HttpClient.make` does for each request. It watches each answer: each has to be its own. */
const shippedStub = HttpClient.make((request) =>
  Effect.succeed(request.method === "POST" ? answerOf(request) : HttpClientResponse.fromWeb(request, body))
)

/** The plainest cell: the header's text, looked at for each request. */
const withCell = (client: HttpClient.HttpClient): HttpClient.HttpClient => {
  const cell = { text: "Bearer fixed", until: Number.MAX_SAFE_INTEGER }
  const read = Effect.sync(() => cell.text)
  return HttpClient.makeWith(
    Effect.flatMap((request: HttpClientRequest.HttpClientRequest) =>
      Effect.flatMap(read, (text) => client.execute(HttpClientRequest.setHeader(request, "authorization", text)))
    ),
    Effect.succeed as HttpClient.HttpClient.Preprocess<never, never>
  )
}

const request = HttpClientRequest.get(environment.api)

const loop = (client: HttpClient.HttpClient.With<unknown>, times: number) =>
  Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* client.execute(request)
  })

const timed = (client: HttpClient.HttpClient.With<unknown>, times: number, tracer = false) => async () => {
  // what watches the responses of the round before is released in a turn of its own
  globalThis.gc?.()
  await setImmediate()
  const start = performance.now()
  await Effect.runPromise(Effect.withTracerEnabled(loop(client, times), tracer))
  return performance.now() - start
}

const bytes = async (client: HttpClient.HttpClient.With<unknown>): Promise<number> => {
  const times = 20_000
  await Effect.runPromise(Effect.withTracerEnabled(loop(client, times), false))
  globalThis.gc?.()
  const before = process.memoryUsage().heapUsed
  await Effect.runPromise(Effect.withTracerEnabled(loop(client, times), false))
  return (process.memoryUsage().heapUsed - before) / times
}

const withAlf = async <A>(
  stub: HttpClient.HttpClient,
  run: (clients: Effect.Effect.Success<ReturnType<typeof Alf.make>>) => Promise<A>
): Promise<A> => {
  const scope = await Effect.runPromise(Scope.make())
  const clients = await Effect.runPromise(
    Alf.make(alfOptions(environment)).pipe(
      Effect.provideService(HttpClient.HttpClient, stub),
      Scope.extend(scope)
    )
  )
  try {
    return await run(clients)
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

export const ownCost = () =>
  withAlf(flatMapStub, async ({ authorizedHttpClient, httpClient }) => {
    const times = 100_000
    const pairs = isQuick ? 3 : 15
    const nanos: Record<string, Array<number>> = {}
    const subjects = { bare: flatMapStub, cell: withCell(flatMapStub), dropIn: httpClient, typed: authorizedHttpClient }
    for (let pair = 0; pair <= pairs; pair++) {
      for (const [name, client] of Object.entries(subjects)) {
        const elapsed = await timed(client, times)()
        if (pair > 0) (nanos[name] ??= []).push((elapsed * 1e6) / times)
      }
    }
    const own = (name: string) => percentile(nanos[name]!.map((value, pair) => value - nanos["bare"]![pair]!), 0.5)
    const base = await bytes(flatMapStub)
    return {
      cell: { nanos: own("cell"), bytes: await bytes(subjects.cell) - base },
      dropIn: { nanos: own("dropIn"), bytes: await bytes(httpClient) - base },
      typed: { nanos: own("typed"), bytes: await bytes(authorizedHttpClient) - base }
    }
  })

export const overStub = (tracer: boolean) =>
  withAlf(shippedStub, async ({ authorizedHttpClient, httpClient }) => {
    const times = isQuick ? 2_000 : 20_000
    const floor = timed(withHeader(shippedStub), times, tracer)
    const pairs = isQuick ? 3 : 61
    return {
      dropIn: await ratio(timed(httpClient, times, tracer), floor, pairs),
      typed: await ratio(timed(authorizedHttpClient, times, tracer), floor, pairs)
    }
  })

/** A request with DPoP against the signature alone, by a key of the same kind; milliseconds of each, and their ratio. */
export const proofs = async () => {
  const scope = await Effect.runPromise(Scope.make())
  const { httpClient } = await Effect.runPromise(
    Alf.make({ ...alfOptions(environment), dpop: DPoP.generate() }).pipe(
      Effect.provideService(HttpClient.HttpClient, flatMapStub),
      Scope.extend(scope)
    )
  )
  const { privateKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, [
    "sign",
    "verify"
  ])
  // as long as what a proof signs
  const input = new Uint8Array(420)
  const times = isQuick ? 500 : 2_000
  const result = await ratio(
    timed(httpClient, times),
    () => drive(() => crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, privateKey, input), times, 1),
    isQuick ? 3 : 41
  )
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return result
}

export const growth = () =>
  withAlf(flatMapStub, async ({ httpClient }) => {
    const used = async () => {
      await timed(httpClient, 100_000)()
      for (let turn = 0; turn < 3; turn++) {
        globalThis.gc?.()
        await setImmediate()
      }
      return process.memoryUsage().heapUsed
    }
    await used()
    const before = await used()
    return await used() - before
  })

export const idle = async () => {
  const times = 10_000
  const endpoint = TokenEndpoint.TokenEndpoint.of({
    identity: "benchmark",
    request: () =>
      Effect.succeed(
        new AccessToken.AccessToken({ value: Redacted.make("fixed"), issuedAt: DateTime.unsafeMake(0) })
      )
  })
  const scope = await Effect.runPromise(Scope.make())
  const make = TokenService.make({ grant: Grant.clientCredentials() }).pipe(
    Effect.provideService(TokenEndpoint.TokenEndpoint, endpoint),
    Effect.provideService(AuthorizationServer.AuthorizationServer, {
      identity: "benchmark",
      clientId: "client",
      metadata: Effect.never,
      request: () => Effect.never
    }),
    Scope.extend(scope)
  )
  await Effect.runPromise(Effect.replicateEffect(make, 100))
  globalThis.gc?.()
  const before = process.memoryUsage().heapUsed
  const services = await Effect.runPromise(Effect.replicateEffect(make, times))
  globalThis.gc?.()
  const each = (process.memoryUsage().heapUsed - before) / services.length
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return each
}

/** The first of a hundred callers leaves in mid-fetch. */
export const interruption = () =>
  Effect.runPromise(
    Effect.scoped(Effect.gen(function*() {
      yield* Effect.promise(() => reset({ tokenDelay: 300 }))
      const { httpClient } = yield* Alf.make(alfOptions(environment))
      const get = Effect.flatMap(httpClient.get(environment.api), (response) => response.text)
      const fibers = yield* Effect.replicateEffect(Effect.fork(get), 100)
      yield* Effect.sleep("100 millis")
      const start = performance.now()
      yield* Fiber.interrupt(fibers[0]!)
      const millis = performance.now() - start
      const exits = yield* Effect.forEach(fibers.slice(1), Fiber.await)
      const { tokenRequests } = yield* Effect.promise(counts)
      return { millis, succeeded: exits.filter(Exit.isSuccess).length, tokenRequests }
    })).pipe(Effect.provide(NodeHttpClient.layerUndici))
  )

/** Milliseconds that the package's import takes above that of effect and @effect/platform. */
export const importTime = (): Quartiles => {
  const script = `
    await import("effect"); await import("@effect/platform")
    const start = performance.now()
    await import("effect-alf")
    console.log(performance.now() - start)`
  return quartiles(
    Array.from(
      { length: isQuick ? 3 : 15 },
      () => Number(execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }))
    )
  )
}

/** The package's own part of a minimal bundle, minified and gzipped, in bytes; with and without its one dependency. */
export const bundleSize = async () => {
  const { build } = await import("esbuild")
  const [begin, end] = ["/*! own */", "/*! not own */"]
  const size = async (...folders: ReadonlyArray<string>) => {
    const { outputFiles } = await build({
      stdin: { contents: `export { layer } from "effect-alf/Alf"`, resolveDir: process.cwd() },
      bundle: true,
      minify: true,
      format: "esm",
      write: false,
      legalComments: "inline",
      plugins: [{
        name: "marks",
        setup: ({ onLoad }) =>
          onLoad({ filter: /\.js$/ }, ({ path }) =>
            folders.some((folder) => path.startsWith(folder))
              ? { contents: `${begin}\n${readFileSync(path, "utf8")}\n${end}\nexport {}` }
              : undefined)
      }]
    })
    const own = outputFiles[0]!.text.split(begin).slice(1).map((part) => part.split(end)[0])
    return gzipSync(own.join("")).length
  }
  const [dist, dependency] = ["effect-alf", "@noble/hashes/sha2.js"].map((module) =>
    fileURLToPath(new URL(".", import.meta.resolve(module)))
  ) as [string, string]
  return { own: await size(dist), all: await size(dist, dependency) }
}
