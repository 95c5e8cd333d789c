/**
 * The public conformance suite of MCP, at both revisions of the wire: every scenario about authorization. A warning counts
 * as a failure, and where the client has to refuse, it ends in a typed error.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { build } from "esbuild"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { fromNpm, run } from "../../support/npm.ts"
import { temporaryFolder } from "../../support/processes/workers.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const suite = join(root, "node_modules/@modelcontextprotocol/conformance/dist/index.js")

const both = [
  "metadata-default",
  "metadata-var1",
  "metadata-var2",
  "metadata-var3",
  "basic-cimd",
  "scope-from-www-authenticate",
  "scope-from-scopes-supported",
  "scope-omitted-when-undefined",
  "scope-step-up",
  "scope-retry-limit",
  "token-endpoint-auth-basic",
  "token-endpoint-auth-post",
  "token-endpoint-auth-none",
  "pre-registration"
]

const since2026 = [
  "resource-mismatch",
  "offline-access-scope",
  "offline-access-not-supported",
  "authorization-server-migration",
  "iss-supported",
  "iss-not-advertised",
  "iss-supported-missing",
  "iss-wrong-issuer",
  "iss-unexpected",
  "iss-normalized",
  "metadata-issuer-mismatch"
]

const extensions = [
  "client-credentials-basic",
  "client-credentials-jwt",
  "dpop",
  "dpop-nonce",
  "wif-jwt-bearer",
  "enterprise-managed-authorization"
]

/** What the client ends in where it must not go on. */
const refusals: Readonly<Record<string, string>> = {
  "resource-mismatch": "DiscoveryError ResourceMismatch",
  "iss-supported-missing": "AuthorizationError IssuerMismatch",
  "iss-wrong-issuer": "AuthorizationError IssuerMismatch",
  "iss-unexpected": "AuthorizationError IssuerMismatch",
  "iss-normalized": "AuthorizationError IssuerMismatch",
  "metadata-issuer-mismatch": "DiscoveryError IssuerMismatch",
  "scope-retry-limit": "InsufficientScope"
}

/** The suite needs Node.js 22: where this is an older one, npm brings another, and keeps it. */
const newerNode = Number(process.versions.node.split(".")[0]) >= 22
  ? Effect.succeed(process.execPath)
  : fromNpm("node-24", "node@24", "node/bin/node")

class Suite
  extends Context.Tag("Suite")<Suite, { readonly node: string; readonly program: string; readonly folder: string }>()
{}

const layerSuite = Layer.scoped(
  Suite,
  Effect.gen(function*() {
    const folder = yield* temporaryFolder
    const program = join(folder, "client.mjs")
    yield* Effect.promise(() =>
      build({
        entryPoints: [fileURLToPath(new URL("client.ts", import.meta.url))],
        outfile: program,
        bundle: true,
        platform: "node",
        format: "esm",
        target: "node20",
        logLevel: "error",
        alias: { "effect-alf": join(root, "src/index.ts") },
        plugins: [{
          name: "subpaths",
          setup: ({ onResolve }) =>
            onResolve({ filter: /^effect-alf\/.+/ }, ({ path }) => ({
              path: join(root, "src", `${path.slice("effect-alf/".length)}.ts`)
            }))
        }],
        banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" }
      })
    )
    return { node: yield* newerNode, program, folder }
  })
)

const scenario = (name: string, revision: string | undefined) =>
  Effect.gen(function*() {
    const { folder, node, program } = yield* Suite
    const { errors, output } = yield* run(node, [
      suite,
      "client",
      "--command",
      `${process.execPath} ${program}`,
      "--scenario",
      `auth/${name}`,
      "--output-dir",
      folder,
      "--timeout",
      "60000",
      ...(revision === undefined ? [] : ["--spec-version", revision])
    ], { cwd: folder })
    const said = output + errors
    assert.match(said, /Passed: \d+\/\d+, 0 failed, 0 warnings/, said)
    assert.include(said, "OVERALL: PASSED", said)
    // through the official SDK a 403 is the SDK's own error
    const refusal = name === "scope-retry-limit" && revision === "2025-11-25" ? "Error" : refusals[name]
    if (refusal === undefined) assert.notInclude(said, "ended in", said)
    else assert.include(said, `ended in ${refusal}`, said)
  })

const options = { timeout: 120_000, concurrent: true }

describe("the conformance suite of MCP", () => {
  layer(layerSuite, { excludeTestServices: true, timeout: "5 minutes" })((it) => {
    for (const name of [...both, ...since2026]) {
      it.effect(`2026-07-28: auth/${name}`, () => scenario(name, "2026-07-28"), options)
    }
    for (const name of both) {
      it.effect(`2025-11-25: auth/${name}`, () => scenario(name, "2025-11-25"), options)
    }
    for (const name of extensions) {
      it.effect(`extensions: auth/${name}`, () => scenario(name, undefined), options)
    }
  })
})

it("lists every scenario once", () => {
  const all = [...both, ...since2026, ...extensions]
  assert.strictEqual(new Set(all).size, all.length)
  assert.deepStrictEqual([both.length + since2026.length, both.length + extensions.length], [25, 20])
})
