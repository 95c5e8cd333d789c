/** Each guarantee in docs/guarantees.md names the test that shows it. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const read = (path: string) => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8")

const page = read("docs/guarantees.md")

const named = [...page.matchAll(/`(test\/[^`]+)` "([^"]+)"/g)].map(([, file = "", title = ""]) =>
  [file, title] as const
)

describe("docs/guarantees.md", () => {
  it("names a test for each guarantee", () => {
    const guarantees = page.split("\n").filter((line) => line.startsWith("- "))
    assert.strictEqual(named.length, guarantees.length)
    assert.isAtLeast(named.length, 20)
  })

  it.each(named)("%s has a test %s", (file, title) => {
    assert.include(read(file), title)
  })
})
