/** JSON objects and forms from outside. */
import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc, Option } from "effect"
import { parseMembers } from "../../../src/internal/endpoint/parseMembers.ts"

const isRead = (text: string) => Option.isSome(parseMembers(text))

describe("parseMembers", () => {
  it("reads a form of up to 128 KiB, and no longer one, which takes long to take apart", () => {
    const form = (length: number) => "access_token=abc".padEnd(length, "&a=1")
    assert.isTrue(isRead(form(128 * 1024)))
    assert.isFalse(isRead(form(128 * 1024 + 1)))
  })

  it("does not parse what is not an object", () => {
    for (const text of ["[".repeat(1024 * 1024), "[]", "null", "1", "", " ", "\"a\"", "{", "{]", "{}}"]) {
      assert.isFalse(isRead(text), text.slice(0, 10))
    }
    assert.isTrue(isRead(" \n{} "))
  })

  it("reads every JSON object of a usual size", () => {
    const objects = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 10, stringUnit: "grapheme" }))
    fc.assert(fc.property(objects, fc.constantFrom(undefined, 2), (object, indent) => {
      const text = JSON.stringify(object, null, indent)
      assert.deepStrictEqual(parseMembers(text), Option.some(JSON.parse(text)))
    }))
  })

  it("reads 64 levels, and not one more, which takes long to parse", () => {
    const nested = (depth: number) => "{\"a\":".repeat(depth) + "1" + "}".repeat(depth)
    assert.isTrue(isRead(nested(64)))
    assert.isFalse(isRead(nested(65)))
  })

  it("reads 10,000 values, and not one more", () => {
    // one for the object, one for the array, and one for each comma
    const list = (commas: number) => `{"a":[${"1,".repeat(commas)}1]}`
    assert.isTrue(isRead(list(9_998)))
    assert.isFalse(isRead(list(9_999)))
  })

  it("does not count what is in strings", () => {
    const text = JSON.stringify({ a: "[{,".repeat(20_000), b: "\\\"[".repeat(20_000), "[{,\"": "\\" })
    assert.isTrue(isRead(text))
  })
})
