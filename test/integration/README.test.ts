/** README.md is true: each fence runs as it stands, what it names exists; and the examples run. */
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import manifest from "../../package.json" with { type: "json" }
import * as Readme from "../support/readme.ts"
import { isMissing } from "../support/servers.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const folder = fileURLToPath(new URL("../.readme", import.meta.url))
const markdown = readFileSync(`${root}/README.md`, "utf8")
const fences = Readme.fences(markdown)
const prose = fences.reduce((rest, { text }) => rest.replace(text, ""), markdown)
const code = fences.filter(({ language }) => language === "ts" || language === "typescript")
const tsc = `${root}/node_modules/typescript/bin/tsc`

/** `effect-alf` is `src`, whether it has been built or not; and what a program writes stays in the folder. */
const fromSources = { cwd: folder, environment: { TSX_TSCONFIG_PATH: `${root}/test/tsconfig.json` } }

const fileOf = (fence: Readme.Fence) => `${folder}/${fence.line}.ts`

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder)
writeFileSync(
  `${folder}/tsconfig.json`,
  JSON.stringify({ extends: "../tsconfig.json", include: ["*.ts"], exclude: ["*.run.ts"] })
)
for (const fence of code) writeFileSync(fileOf(fence), Readme.numbered(fence, fence.text))

describe("README.md", () => {
  it.live("its code type-checks", () =>
    Effect.gen(function*() {
      assert.isNotEmpty(code)
      const { exitCode, output } = yield* Readme.run(process.execPath, [tsc, "-p", folder])
      assert.strictEqual(output.replace(/^\S*\.readme\/\d+\.ts/gm, "README.md"), "")
      assert.strictEqual(exitCode, 0)
    }).pipe(Effect.provide(NodeContext.layer)))

  for (const fence of code.filter((fence) => !Readme.isTest(fence))) {
    it.scopedLive.skipIf(Readme.needs(fence.text).some(isMissing))(
      `the program at line ${fence.line} runs and prints what it claims`,
      () =>
        Effect.gen(function*() {
          const stage = yield* Readme.stage(fence.text)
          const file = fileOf(fence).replace(/ts$/, "run.ts")
          writeFileSync(file, Readme.numbered(fence, stage.program))
          const { brokenClaims, errors, exitCode, printed } = yield* stage.run(["--import", "tsx", file], fromSources)
          assert.strictEqual(exitCode, 0, printed + errors)
          assert.deepStrictEqual(brokenClaims, [], `It prints:\n${printed}`)
        }).pipe(Effect.provide(NodeContext.layer)),
      60_000
    )
  }

  for (const fence of code.filter(Readme.isTest)) {
    describe(`the tests at line ${fence.line}`, async () => {
      await import(/* @vite-ignore */ fileOf(fence))
    })
  }

  for (const { line, text } of fences.filter(({ language }) => language === "sh" || language === "bash")) {
    it(`the commands at line ${line} exist`, () => {
      assert.deepStrictEqual(text.split(/\n|&&/).filter((command) => !exists(command.replace(/#.*/, "").trim())), [])
    })
  }

  it("the tests that it names by title exist", () => {
    const titles = [...prose.matchAll(/`(test\/[\w./-]+)`(?:\]\([^)]*\))? "([^"]+)"/g)]
    const gone = titles.filter(([, file, title = ""]) => !readFileSync(`${root}/${file}`, "utf8").includes(title))
    assert.deepStrictEqual(gone.map(([found]) => found), [])
  })

  it("the files that it names exist", () => {
    const links = [...prose.matchAll(/\]\((?!\w+:|#)([^)#\s]+)/g)]
    const paths = [...prose.matchAll(/`((?:\.ci|benchmark|examples|src|test)\/[\w./-]*\w)/g)]
    const names = [...links, ...paths].map(([, name = ""]) => name)
    assert.deepStrictEqual(names.filter((name) => !existsSync(`${root}/${name}`)), [])
  })
})

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
