/** A program that runs for months: what is left after many requests, failures and interruptions. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import type { Part, Report } from "./program.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))

/**
 * By how much the heap may have grown, in bytes. The engine compiles while the program runs, which takes a megabyte now
 * and then; but no object is as small as 20 bytes, so whatever each of many requests leaves behind is seen.
 */
const tolerance = (times: number) => 1024 * 1024 + 20 * times

/** A leak grows in both halves of the time, the engine's own data in one of them. */
const growth = ({ after, before, halfway }: Part) => 2 * Math.min(halfway.heap - before.heap, after.heap - halfway.heap)

describe("a program that runs for long", () => {
  let report: Report

  beforeAll(async () => {
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ["--expose-gc", "--import", "tsx", "test/integration/leaks/program.ts"],
      { cwd: root, env: { ...process.env, NODE_OPTIONS: "", TSX_TSCONFIG_PATH: "test/tsconfig.json" } }
    )
    report = JSON.parse(stdout)
  }, 600_000)

  const part = (name: string): Part => {
    const found = report.parts.find((part) => part.name === name)
    if (found === undefined) assert.fail(`no part ${name}`)
    return found
  }

  const expectNothingLeft = (part: Part) => {
    const { after, before, times } = part
    assert.isBelow(growth(part), tolerance(times))
    assert.strictEqual(after.fibers, before.fibers)
    assert.strictEqual(after.requests, before.requests)
    assert.deepStrictEqual(after.resources, before.resources)
    assert.strictEqual(after.listeners, before.listeners)
  }

  it.each([
    ["answered requests", 100_000],
    ["failed fetches", 10_000],
    ["interrupted fetches", 10_000],
    ["interrupted requests", 10_000],
    ["exclusive sections", 10_000],
    ["lives over sockets", 10]
  ])("nothing is left of %s: no memory, fiber, request, timer, socket or listener", (name, times) => {
    assert.isAtLeast(part(name).times, times)
    expectNothingLeft(part(name))
    assert.strictEqual(part(name).after.fibers, 0)
    assert.strictEqual(part(name).after.requests, 0)
    assert.notInclude(part(name).after.resources, "Timeout")
    assert.notInclude(part(name).after.resources, "TCPSocketWrap")
  })

  it("nothing is left of ten thousand callers who did not wait for a fetch; the fetch goes on", () => {
    const { after, times } = part("interrupted callers of one fetch")
    assert.isAtLeast(times, 10_000)
    expectNothingLeft(part("interrupted callers of one fetch"))
    assert.strictEqual(after.requests, 1)
  })

  it("Node.js warns of nothing", () => {
    assert.deepStrictEqual(report.warnings, [])
  })
})
