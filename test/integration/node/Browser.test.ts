import { assert, describe, it } from "@effect/vitest"
import { Console, Effect, Fiber, Layer, Option, TestClock } from "effect"
import { AuthorizationCodeGrant, Browser } from "effect-alf/node"
import { vi } from "vitest"
import { answerUrl, freePorts, makeEndpoint, makeWindow, param, send, token } from "../../support/node/signIn.ts"

const open = vi.hoisted(() => ({ calls: [] as Array<string>, error: undefined as Error | undefined }))
vi.mock("open", () => ({
  default: (url: string) => {
    open.calls.push(url)
    return open.error === undefined ? Promise.resolve() : Promise.reject(open.error)
  }
}))

/** Runs an effect with a console that keeps what is printed, and where. */
const printed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const out: Array<string> = []
    const err: Array<string> = []
    const quiet = yield* Console.consoleWith(Effect.succeed)
    yield* Effect.withConsole(effect, {
      ...quiet,
      log: (...args) => Effect.sync(() => void out.push(args.join(" "))),
      error: (...args) => Effect.sync(() => void err.push(args.join(" ")))
    })
    return { out, err }
  })

const show = (layer: Layer.Layer<Browser.Browser>) =>
  printed(
    Effect.provide(Effect.flatMap(Browser.Browser, ({ open }) => open(new URL("https://auth.test/a?b=c&d"))), layer)
  )

describe("Browser", () => {
  it.effect("layer opens the URL and prints it, beside the program's own output", () =>
    Effect.gen(function*() {
      open.calls.length = 0
      const { err, out } = yield* show(Browser.layer)
      assert.deepStrictEqual(open.calls, ["https://auth.test/a?b=c&d"])
      assert.deepStrictEqual(err, ["To sign in, open https://auth.test/a?b=c&d"])
      assert.deepStrictEqual(out, [])
    }))

  it.effect("layer goes on where no browser can be opened", () =>
    Effect.gen(function*() {
      open.error = new Error("spawn xdg-open ENOENT")
      const { err } = yield* Effect.ensuring(show(Browser.layer), Effect.sync(() => (open.error = undefined)))
      assert.strictEqual(err.length, 2)
      assert.include(err[0], "https://auth.test/a?b=c&d")
      assert.include(err[1], "No browser could be opened")
    }))

  it.effect("layerLog only prints it", () =>
    Effect.gen(function*() {
      open.calls.length = 0
      const { err, out } = yield* show(Browser.layerLog)
      assert.deepStrictEqual(open.calls, [])
      assert.deepStrictEqual(err, ["To sign in, open https://auth.test/a?b=c&d"])
      assert.deepStrictEqual(out, [])
    }))
})

describe("the wait", () => {
  const terminal = (isTTY: boolean) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const before = Object.getOwnPropertyDescriptor(process.stderr, "isTTY")
        Object.defineProperty(process.stderr, "isTTY", { value: isTTY, configurable: true })
        return before
      }),
      (before) =>
        Effect.sync(() =>
          before === undefined
            ? Reflect.deleteProperty(process.stderr, "isTTY")
            : Object.defineProperty(process.stderr, "isTTY", before)
        )
    )

  const wait = (isTTY: boolean) =>
    Effect.gen(function*() {
      yield* terminal(isTTY)
      const [port] = yield* freePorts(1)
      const { layer, opened } = yield* makeWindow
      const { err, out } = yield* printed(Effect.gen(function*() {
        const fiber = yield* AuthorizationCodeGrant.make({
          authorizationEndpoint: "https://auth.test/authorize",
          clientId: "client",
          portRange: [port, port],
          timeout: "150 seconds"
        }).acquire(Option.none()).pipe(
          Effect.provide(Layer.merge(layer, makeEndpoint(() => Effect.succeed(token("x"))).layer)),
          Effect.fork
        )
        const url = yield* opened
        yield* TestClock.adjust("140 seconds")
        yield* send(answerUrl(url, { code: "c", state: param(url, "state") }))
        yield* Fiber.join(fiber)
        yield* TestClock.adjust("5 minutes")
      }))
      return { err, out, port }
    })

  it.scoped("shows on a terminal what is awaited and how long it will be", () =>
    Effect.gen(function*() {
      const { err, out, port } = yield* wait(true)
      assert.deepStrictEqual(
        err,
        ["2m 30s", "1m 30s", "30s"].map((left) =>
          `Waiting for the sign-in in the browser, ${left} left (the response comes to http://127.0.0.1:${port})`
        )
      )
      assert.deepStrictEqual(out, [])
    }))

  it.scoped("is quiet where there is no terminal", () =>
    Effect.gen(function*() {
      const { err, out } = yield* wait(false)
      assert.deepStrictEqual([...err, ...out], [])
    }))
})
