/** The tests themselves on each Node that the package is for: those without sockets, and those of signing in. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import { fromNpm, run } from "../../support/npm.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))

/** Without this one, on which the other commands run them. */
const others = ["20", "22", "24", "26"].filter((version) => !process.versions.node.startsWith(`${version}.`))

const files = [
  "test/unit",
  "test/behaviour",
  "test/integration/node/AuthorizationCodeGrant.test.ts",
  "test/integration/node/loopback.test.ts"
]

/** What vitest tells the programs that it starts is not for another vitest. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST")))

describe("the unit and behaviour tests, and those of signing in", () => {
  for (const version of others) {
    it.live(`pass on Node ${version}`, () =>
      Effect.gen(function*() {
        const node = yield* fromNpm(`node-${version}`, `node@${version}`, "node/bin/node")
        const vitest = ["node_modules/vitest/vitest.mjs", "run", "--project", "unit", "--project", "integration"]
        // what watches the time runs beside it, and goes first
        const { errors, output } = yield* run("nice", [node, ...vitest, ...files], {
          cwd: root,
          env: { ...env, NO_COLOR: "1" }
        })
        assert.match(output, /^ +Tests +\d{4} passed \(\d+\)$/m, output.slice(-5_000) + errors)
      }), 600_000)
  }
})
