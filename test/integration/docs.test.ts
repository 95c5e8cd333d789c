/** The pages are true: each fence runs as it stands, and what they name exists; and the examples run. */
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import manifest from "../../package.json" with { type: "json" }
import * as Readme from "../support/readme.ts"
import { isMissing } from "../support/servers.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const folder = fileURLToPath(new URL("../.docs", import.meta.url))
const tsc = `${root}/node_modules/typescript/bin/tsc`

/** `effect-alf` is `src`, whether it has been built or not; and what a program writes stays in the folder. */
const fromSources = { cwd: folder, environment: { TSX_TSCONFIG_PATH: `${root}/test/tsconfig.json` } }

interface Page {
  readonly name: string
  readonly folder: string
  readonly prose: string
  readonly fences: ReadonlyArray<Readme.Fence>
  readonly code: ReadonlyArray<Readme.Fence>
}

const pages: ReadonlyArray<Page> = [
  "README.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  ...readdirSync(`${root}/docs`).sort().map((name) => `docs/${name}`)
].map((name) => {
  const markdown = readFileSync(`${root}/${name}`, "utf8")
  const fences = Readme.fences(markdown)
  return {
    name,
    folder: dirname(`${root}/${name}`),
    prose: fences.reduce((rest, { text }) => rest.replace(text, ""), markdown),
    fences,
    code: fences.filter(({ language }) => language === "ts" || language === "typescript")
  }
})

const fileOf = ({ name }: Page, { line }: Readme.Fence) => `${folder}/${name.replace(/\W+/g, "-")}-${line}.ts`

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder)
writeFileSync(
  `${folder}/tsconfig.json`,
  JSON.stringify({ extends: "../tsconfig.json", include: ["*.ts"], exclude: ["*.run.ts"] })
)
for (const page of pages) {
  for (const fence of page.code) writeFileSync(fileOf(page, fence), Readme.numbered(fence, fence.text))
}

it.live("the code of all pages type-checks", () =>
  Effect.gen(function*() {
    const { exitCode, output } = yield* Readme.run(process.execPath, [tsc, "-p", folder])
    assert.strictEqual(output, "")
    assert.strictEqual(exitCode, 0)
  }).pipe(Effect.provide(NodeContext.layer)), 60_000)

/** What only exports a layer or a grant has been run when it was loaded. */
const runs = ({ text }: Readme.Fence) => /\brun(Promise|Main|Sync|Fork)\b/.test(text)

for (const page of pages) {
  const { code, fences, name, prose } = page
  describe(`${name}`, () => {
    for (const fence of code.filter((fence) => !Readme.isTest(fence) && runs(fence))) {
      it.scopedLive.skipIf(Readme.needs(fence.text).some(isMissing))(
        `the program at line ${fence.line} runs and prints what it claims`,
        () =>
          Effect.gen(function*() {
            const stage = yield* Readme.stage(fence.text)
            const file = fileOf(page, fence).replace(/ts$/, "run.ts")
            writeFileSync(file, Readme.numbered(fence, stage.program))
            const { brokenClaims, errors, exitCode, printed } = yield* stage.run(["--import", "tsx", file], fromSources)
            assert.strictEqual(exitCode, 0, printed + errors)
            assert.deepStrictEqual(brokenClaims, [], `It prints:\n${printed}`)
          }).pipe(Effect.provide(NodeContext.layer)),
        60_000
      )
    }

    for (const fence of code.filter((fence) => !Readme.isTest(fence) && !runs(fence))) {
      it(`the module at line ${fence.line} loads`, async () => {
        assert.isNotEmpty(Object.keys(await import(/* @vite-ignore */ fileOf(page, fence))))
      })
    }

    for (const fence of code.filter(Readme.isTest)) {
      describe(`the tests at line ${fence.line}`, async () => {
        await import(/* @vite-ignore */ fileOf(page, fence))
      })
    }

    for (const { line, text } of fences.filter(({ language }) => language === "sh" || language === "bash")) {
      it(`the commands at line ${line} exist`, () => {
        assert.deepStrictEqual(text.split(/\n|&&/).filter((command) => !exists(command.replace(/#.*/, "").trim())), [])
      })
    }

    it("the tests that it names by title exist", () => {
      const titles = [...prose.matchAll(/`(test\/[\w./-]+)`\s*(?:\]\([^)]*\))?\s*"([^"]+)"/g)]
      const gone = titles.filter(([, file, title = ""]) =>
        !readFileSync(`${root}/${file}`, "utf8").replace(/\s+/g, " ").includes(title.replace(/\s+/g, " "))
      )
      assert.deepStrictEqual(gone.map(([found]) => found), [])
    })

    it("the files that it names exist", () => {
      const links = [...prose.matchAll(/\]\((?!\w+:|#)([^)#\s]+)/g)].map(([, link = ""]) => `${page.folder}/${link}`)
      const paths = [...prose.matchAll(/`((?:\.ci|benchmark|examples|src|test)\/[\w./-]*\w)/g)].map(
        ([, path = ""]) => `${root}/${path}`
      )
      assert.deepStrictEqual([...links, ...paths].filter((file) => !existsSync(file)), [])
    })

    it("no table is wider than 100 characters, and README.md is not longer than 150 lines", () => {
      const wide = prose.split("\n").filter((line) => line.startsWith("|") && line.length > 100)
      assert.deepStrictEqual(wide, [])
      if (name === "README.md") {
        assert.isAtMost(readFileSync(`${root}/README.md`, "utf8").trimEnd().split("\n").length, 150)
      }
    })
  })
}

// those that open a browser have a test of their own, with a person in it
const examples = readdirSync(`${root}/examples`).filter((name) => name.endsWith(".ts") && name !== "demo.ts")
  .map((name) => ({ name, text: readFileSync(`${root}/examples/${name}`, "utf8") }))
  .filter(({ text }) => !text.includes("effect-alf/node"))

describe("examples", () => {
  for (const { name, text } of examples) {
    it.scopedLive.skipIf(Readme.needs(text).some(isMissing))(`${name} runs`, () =>
      Effect.gen(function*() {
        const stage = yield* Readme.stage(text)
        const { errors, exitCode, printed } = yield* stage.run(
          ["--import", "tsx", `${root}/examples/${name}`],
          fromSources
        )
        assert.strictEqual(exitCode, 0, printed + errors)
        assert.isNotEmpty(printed)
      }).pipe(Effect.provide(NodeContext.layer)), 60_000)
  }
})

/** Whether a command line can be typed here, or installs what can be installed beside us. */
const exists = (command: string): boolean => {
  const [program = "", ...args] = command.split(/\s+/)
  const [verb, name = ""] = args
  if (program === "") return true
  if (program === "npm" && verb === "test") return "test" in manifest.scripts
  if (program === "npm" && verb === "run") return name in manifest.scripts
  if (program === "npm" && verb === "install") {
    const known = [manifest.name, ...Object.keys({ ...manifest.peerDependencies, ...manifest.devDependencies })]
    return args.slice(1).every((arg) => arg.startsWith("-") || known.includes(arg.replace(/(.)@.*/, "$1")))
  }
  if (program === "npx") return existsSync(`${root}/node_modules/.bin/${verb}`)
  if (program === "node" || program === "bash") return verb !== undefined && existsSync(`${root}/${verb}`)
  return false
}
