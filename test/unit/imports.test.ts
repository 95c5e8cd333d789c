/** The rules of docs/architecture.md about imports, checked on the sources. Imports of types count too. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"

const src = fileURLToPath(new URL("../../src", import.meta.url))

const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"))

/** What the text of a module imports, whichever way, as it is written. */
const importsOf = (text: string): ReadonlyArray<string> => {
  // the examples in comments import things too
  const code = text.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "")
  return [
    /^\s*(?:import|export)\b[^"']*?\bfrom\s*["']([^"']+)["']/gm,
    /^\s*import\s*["']([^"']+)["']/gm,
    /\bimport\s*\(\s*["'`]([^"'`]+)["'`]/g
  ].flatMap((pattern) => [...code.matchAll(pattern)].map(([, name = ""]) => name))
}

/** What each module imports: paths within `src`, and names of packages. */
const imports = new Map(files.map((file) =>
  [
    file,
    importsOf(readFileSync(join(src, file), "utf8")).map((name) =>
      name.startsWith(".") ? relative(src, join(src, dirname(file), name)) : name
    )
  ] as const
))

const within = (file: string) => (imports.get(file) ?? []).filter((name) => name.endsWith(".ts"))

/** From the front door down the pipeline: a module imports from those below it. */
const levels: ReadonlyArray<ReadonlyArray<string>> = [
  ["index.ts", "node.ts", "testing.ts"],
  ["ProtectedResource.ts", "TokenPool.ts"],
  ["Alf.ts"],
  ["AuthorizedHttpClient.ts", "ClientRegistration.ts"],
  ["testing/TestTokenService.ts", "testing/TestAuthorizationServer.ts"],
  ["TokenService.ts"],
  ["ClientAssertion.ts", "DPoP.ts", "DeviceCodeGrant.ts", "node/AuthorizationCodeGrant.ts", "node/ImplicitGrant.ts"],
  ["node/internal/signIn.ts"],
  ["node/internal/listener.ts", "node/Browser.ts"],
  ["node/internal/page.ts"],
  ["Grant.ts"],
  ["TokenEndpoint.ts"],
  ["AuthorizationServer.ts"],
  ["ClientAuthentication.ts"],
  ["testing/TokenStorageConformance.ts", "TokenStorage/Memcached.ts", "TokenStorage/Redis.ts", "TokenStorage/Sql.ts"],
  ["TokenStorage.ts"],
  ["AccessToken.ts", "TokenMetrics.ts"],
  ["TokenError.ts"]
]

const levelOf = (file: string) => levels.findIndex((level) => level.includes(file))

/** Values that everything may import. */
const values: ReadonlyArray<string> = ["AccessToken.ts", "TokenError.ts", "TokenMetrics.ts", "TokenStorage.ts"]

const isSubpath = (file: string) =>
  /^(?:node|testing|TokenStorage|internal\/signing)\//.test(file) ||
  ["node.ts", "testing.ts", "ClientAssertion.ts", "DPoP.ts"].includes(file)

describe("imports", () => {
  it("are found in whichever way they are written", () => {
    const text = `
      /** import { e } from "in a comment" */
      // import { f } from "in another"
      import { a } from "named"
      import type { b } from 'types'
      import {
        c,
        type d
      } from "lines"
      import "side effect"
      export { g } from "export"
      export type * from "export of types"
      export * as h from "namespace"
      const i = () => import("dynamic")
      type J = import("type").J
    `
    assert.deepStrictEqual(
      [...importsOf(text)].sort(),
      ["dynamic", "export", "export of types", "lines", "named", "namespace", "side effect", "type", "types"]
    )
  })

  it("of every public module have a level", () => {
    assert.deepStrictEqual(files.filter((file) => levelOf(file) === -1 && !/^(?:testing\/)?internal\//.test(file)), [])
  })

  it("run down the pipeline", () => {
    const wrong = files.flatMap((file) => {
      const level = levelOf(file)
      return level === -1 ? [] : within(file)
        .filter((other) => levelOf(other) !== -1 && levelOf(other) <= level)
        .map((other) => `${file} imports ${other}`)
    })
    assert.deepStrictEqual(wrong, [])
  })

  it("of internal modules are values and other internal modules", () => {
    const wrong = files.filter((file) => file.startsWith("internal/")).flatMap((file) =>
      within(file).filter((other) => !other.startsWith("internal/") && !values.includes(other)).map((other) =>
        `${file} imports ${other}`
      )
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("have no cycles", () => {
    const cycles: Array<string> = []
    const done = new Set<string>()
    const visit = (file: string, path: ReadonlyArray<string>): void => {
      if (path.includes(file)) {
        cycles.push([...path.slice(path.indexOf(file)), file].join(" → "))
        return
      }
      if (done.has(file)) return
      for (const other of within(file)) visit(other, [...path, file])
      done.add(file)
    }
    for (const file of files) visit(file, [])
    assert.deepStrictEqual(cycles, [])
  })

  it("of the core are Effect, its platform and the hash functions: no server, no browser, no node:, no jose", () => {
    const wrong = files.filter((file) => !isSubpath(file)).flatMap((file) =>
      (imports.get(file) ?? []).filter((name) =>
        !name.endsWith(".ts") && !/^(?:effect|@effect\/platform)\//.test(name) && name !== "@noble/hashes/sha2.js"
      ).map((name) => `${file} imports ${name}`)
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("never name a barrel of Effect", () => {
    const wrong = files.flatMap((file) =>
      (imports.get(file) ?? []).filter((name) =>
        ["effect", "@effect/platform", "@effect/platform-node", "@effect/sql"].includes(name)
      )
        .map((name) => `${file} imports ${name}`)
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("of optional peers stand in subpaths only", () => {
    const barrel = new Set<string>()
    const visit = (file: string): void => {
      if (barrel.has(file)) return
      barrel.add(file)
      for (const other of within(file)) visit(other)
    }
    visit("index.ts")
    assert.deepStrictEqual([...barrel].filter(isSubpath), [])
  })
})
