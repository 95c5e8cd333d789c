/** `npm run benchmark` and `npm run soak`: installs the other clients here (not with the package's own tools), bundles, runs. */
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"

const peers = [
  "@azure/core-rest-pipeline@1.22.2",
  "@azure/identity@4.14.1",
  "@azure/msal-node@7.2.3",
  "@badgateway/oauth2-client@3.3.1",
  "axios@1.21.1",
  "axios-oauth-client@2.2.0",
  "google-auth-library@10.5.0",
  "@modelcontextprotocol/sdk@1.32.2",
  "dpop@2.1.2",
  "oauth4webapi@3.8.8",
  "openid-client@6.8.9",
  "simple-oauth2@5.1.0"
]

const here = fileURLToPath(new URL(".", import.meta.url))
const run = (command, args) => execFileSync(command, args, { cwd: here, stdio: "inherit" })

const [program, ...args] = process.argv[2] === "soak" ? process.argv.slice(2) : ["main", ...process.argv.slice(2)]

if (program === "main") run("npm", ["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", here, ...peers])
// bundled, since what runs TypeScript directly wraps every closure and would be measured with it
await build({
  absWorkingDir: here,
  entryPoints: [`${program}.ts`, "server.ts"],
  bundle: true,
  packages: "external",
  format: "esm",
  platform: "node",
  target: "es2022",
  outdir: "dist",
  outExtension: { ".js": ".mjs" }
})
run(process.execPath, ["--expose-gc", "--max-semi-space-size=256", `dist/${program}.mjs`, ...args])
