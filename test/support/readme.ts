/**
 * The programs of README.md and of the examples, run as they stand on loopback servers that take the place of the hosts
 * they name.
 */
import { Command, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Schema, Stream } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { makeCertificate } from "./certificates.ts"

export interface Fence {
  readonly language: string
  /** Where its first line stands in the file, from 1. */
  readonly line: number
  readonly text: string
}

export const fences = (markdown: string): ReadonlyArray<Fence> => {
  const found: Array<Fence> = []
  let open: { indent: number; marks: string; language: string; line: number; lines: Array<string> } | undefined
  for (const [index, line] of markdown.split("\n").entries()) {
    const [, indent = "", marks = "", language = ""] = /^( *)(`{3,})(\w*)/.exec(line) ?? []
    if (open === undefined) {
      if (marks !== "") open = { indent: indent.length, marks, language, line: index + 2, lines: [] }
    } else if (line.trim() === open.marks) {
      found.push({ language: open.language, line: open.line, text: `${open.lines.join("\n")}\n` })
      open = undefined
    } else {
      open.lines.push(line.slice(open.indent))
    }
  }
  if (open !== undefined) throw new Error(`The fence before line ${open.line} has no end`)
  return found
}

/** A fence that is a test file for vitest, not a program. */
export const isTest = ({ text }: Fence): boolean => /from "(@effect\/)?vitest"/.test(text)

/** The text of a fence as a file whose line numbers are those of README.md. */
export const numbered = ({ line }: Fence, text: string): string => "\n".repeat(line - 1) + text

/**
 * What the comments `// => …` of a program claim that it prints and it does not. Each claim is a whole line, after the
 * line of the claim before it; `…` in it stands for any text.
 */
const brokenClaims = (text: string, output: string): ReadonlyArray<string> => {
  const lines = output.split("\n").map((line) => line.trim())
  let next = 0
  return [...text.matchAll(/\/\/ => (.*)$/gm)].flatMap(([, claim = ""]) => {
    const parts = claim.trim().split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
    const pattern = new RegExp(`^${parts.join(".*")}$`)
    const at = lines.findIndex((line, index) => index >= next && pattern.test(line))
    if (at === -1) return [claim.trim()]
    next = at + 1
    return []
  })
}

const names = /https:\/\/(?:[\w-]+\.)*example\.(?:com|net|org)(?::\d+)?|\blocalhost:(?:6379|11211)\b/g

/** What has to be installed for a program to run. */
export const needs = (text: string): ReadonlyArray<string> => [
  ...(/localhost:6379|REDIS_URL/.test(text) ? ["redis-server"] : []),
  ...(/localhost:11211|MEMCACHED_SERVERS/.test(text) ? ["memcached"] : []),
  ...(text.includes("effect-alf/node") ? ["chromium"] : [])
]

/**
 * Starts a server for each `https://….example.com` (or `.net`, `.org`) that the text names, and Redis or Memcached for
 * `localhost:6379` and `localhost:11211`. Each of the first is an authorization server and an API: a form with a
 * `grant_type` gets a token, a query with a `response_type` is sent back with what it asks for, its metadata name its
 * endpoints, `/id-token` is the token service of GitHub Actions, and all else needs one of the tokens: `/mcp` speaks the
 * Model Context Protocol, and the rest gets its method and path as JSON.
 */
const standIns = (text: string) =>
  Effect.gen(function*() {
    const app = standIn(new Set())
    const addresses = new Map<string, string>()
    for (const name of new Set(text.match(names))) {
      if (name.startsWith("localhost")) {
        // imported here, since it cannot be outside of a test run
        const { memcachedServer, redisServer } = yield* Effect.promise(() => import("./servers.ts"))
        const { port } = yield* name.endsWith("6379") ? redisServer() : memcachedServer()
        addresses.set(name, `127.0.0.1:${port}`)
      } else {
        const server = yield* NodeHttpServer.make(() => createServer(), { host: "127.0.0.1", port: 0 })
        yield* server.serve(app)
        if (server.address._tag === "TcpAddress") addresses.set(name, `http://127.0.0.1:${server.address.port}`)
      }
    }
    return {
      /** The text with the servers' addresses in place of the names. */
      redirect: (text: string) => text.replace(names, (name) => addresses.get(name) ?? name),
      /** The other way about. */
      restore: (text: string) =>
        text.replace(
          /(?:http:\/\/)?127\.0\.0\.1:\d+/g,
          (found) => [...addresses].find(([, address]) => address === found)?.[0] ?? found
        )
    }
  })

const standIn = (tokens: Set<string>) =>
  HttpRouter.empty.pipe(
    HttpRouter.all(
      "*",
      Effect.gen(function*() {
        const request = yield* HttpServerRequest.HttpServerRequest
        const url = new URL(request.url, "http://127.0.0.1")
        if (request.headers["content-type"]?.startsWith("application/x-www-form-urlencoded") === true) {
          const form = new URLSearchParams(yield* request.text)
          if (form.has("grant_type")) {
            return HttpServerResponse.unsafeJson({
              access_token: issue(tokens),
              token_type: "Bearer",
              expires_in: 3600,
              ...(form.get("grant_type") === "client_credentials" ? {} : { refresh_token: `refresh-${tokens.size}` })
            })
          }
        }
        const { redirect_uri: redirectUri, response_type: responseType, state = "" } = Object.fromEntries(
          url.searchParams
        )
        if (redirectUri !== undefined && responseType !== undefined) {
          return HttpServerResponse.redirect(
            responseType === "code"
              ? `${redirectUri}?${new URLSearchParams({ code: "code-1", state })}`
              : `${redirectUri}#${new URLSearchParams({
                access_token: issue(tokens),
                token_type: "bearer",
                expires_in: "3600",
                state
              })}`
          )
        }
        const own = `http://${request.headers["host"]}`
        if (url.pathname === "/.well-known/oauth-authorization-server") {
          return HttpServerResponse.unsafeJson({
            issuer: own,
            token_endpoint: `${own}/token`,
            authorization_endpoint: `${own}/authorize`,
            client_id_metadata_document_supported: true
          })
        }
        if (url.pathname.startsWith(resourceMetadata)) {
          return HttpServerResponse.unsafeJson({
            resource: `${own}${url.pathname.slice(resourceMetadata.length)}`,
            authorization_servers: [own]
          })
        }
        if (url.pathname === "/id-token" && url.searchParams.has("audience")) {
          return request.headers["authorization"] === "Bearer request-token"
            ? HttpServerResponse.unsafeJson({ value: "id-token" })
            : HttpServerResponse.empty({ status: 401 })
        }
        if (!tokens.has(request.headers["authorization"] ?? "")) {
          return HttpServerResponse.empty({
            status: 401,
            headers: { "www-authenticate": "Bearer realm=\"example\", error=\"invalid_token\"" }
          })
        }
        return url.pathname === "/mcp"
          ? yield* mcp(request)
          : HttpServerResponse.unsafeJson({ method: request.method, path: url.pathname })
      })
    )
  )

const resourceMetadata = "/.well-known/oauth-protected-resource"

/** A server of the Model Context Protocol that has one tool and no streams. */
const mcp = (request: HttpServerRequest.HttpServerRequest) =>
  Effect.gen(function*() {
    if (request.method !== "POST") return HttpServerResponse.empty({ status: 405 })
    const { id, method, params } = yield* Schema.decodeUnknown(McpMessage)(yield* request.json)
    if (id === undefined) return HttpServerResponse.empty({ status: 202 })
    const result = method === "initialize"
      ? {
        protocolVersion: params?.protocolVersion,
        capabilities: { tools: {} },
        serverInfo: { name: "example", version: "1.0.0" }
      }
      : { tools: [{ name: "echo", inputSchema: { type: "object" } }] }
    return HttpServerResponse.unsafeJson({ jsonrpc: "2.0", id, result })
  })

const McpMessage = Schema.Struct({
  id: Schema.optional(Schema.Number),
  method: Schema.String,
  params: Schema.optional(Schema.Struct({ protocolVersion: Schema.optional(Schema.String) }))
})

const issue = (tokens: Set<string>): string => {
  const token = `token-${tokens.size + 1}`
  tokens.add(`Bearer ${token}`)
  return token
}

/** A value for each environment variable that the program reads, and a browser for the URL that it opens. */
const environment = (text: string, folder: string): Record<string, string> => ({
  BROWSER: "chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=10000 --dump-dom %s",
  ...Object.fromEntries(
    [...text.matchAll(/\bConfig\.\w+\("([A-Z][A-Z0-9_]*)"\)|\bprocess\.env(?:\.|\[")([A-Z][A-Z0-9_]*)/g)]
      .map(([, configured, read]) => configured ?? read ?? "")
      .map((name) => [name, value(name, folder)])
  )
})

const value = (name: string, folder: string): string => {
  if (name.endsWith("_FILE")) {
    const file = join(folder, name)
    writeFileSync(file, contents(name))
    return file
  }
  if (name.endsWith("PRIVATE_KEY")) return certificate.key
  if (name.endsWith("SERVICE_ACCOUNT")) return serviceAccount()
  if (name.endsWith("REQUEST_URL")) return "https://actions.example.com/id-token?api-version=2.0"
  if (name.endsWith("REQUEST_TOKEN")) return "request-token"
  if (name.endsWith("CLIENT_ID")) return "my-client"
  if (name.endsWith("CLIENT_SECRET")) return "my-secret"
  if (name.endsWith("TOKEN_ENDPOINT")) return "https://auth.example.com/token"
  if (name.endsWith("API_URL")) return "https://api.example.com"
  if (name.endsWith("ISSUER")) return "https://auth.example.com"
  if (name.endsWith("REDIS_URL")) return "redis://localhost:6379"
  if (name.endsWith("MEMCACHED_SERVERS")) return "localhost:11211"
  // 32 bytes
  if (name.endsWith("KEY")) return Buffer.from(name.padEnd(32).slice(0, 32)).toString("base64")
  throw new Error(`A program reads ${name}, for which test/support/readme.ts has no value`)
}

const certificate = makeCertificate("my-client")

const contents = (name: string): string => {
  if (name.endsWith("CERTIFICATE_FILE")) return certificate.certificate
  return name.endsWith("KEY_FILE") ? certificate.key : "a-signed-assertion\n"
}

/** The file that Google gives, for a stand-in. */
const serviceAccount = (): string =>
  JSON.stringify({
    type: "service_account",
    client_email: "reports@my-project.iam.gserviceaccount.com",
    private_key: generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({
      type: "pkcs8",
      format: "pem"
    }),
    private_key_id: "key-1",
    token_uri: "https://oauth2.example.com/token"
  })

interface RunOptions {
  readonly cwd?: string
  readonly environment?: Readonly<Record<string, string>>
}

/** Runs a program to its end. Interruption kills it. */
export const run = (program: string, args: ReadonlyArray<string>, options: RunOptions = {}) =>
  Effect.scoped(
    Effect.gen(function*() {
      const started = yield* Command.make(program, ...args).pipe(
        Command.env({ ...options.environment, NO_COLOR: "1" }),
        Command.workingDirectory(options.cwd ?? "."),
        Command.start
      )
      const [exitCode, output, errors] = yield* Effect.all(
        [
          started.exitCode,
          Stream.mkString(Stream.decodeText(started.stdout)),
          Stream.mkString(Stream.decodeText(started.stderr))
        ],
        { concurrency: "unbounded" }
      )
      return { exitCode: Number(exitCode), output, errors }
    })
  )

/**
 * Starts the servers of a program. What comes back is the program with their addresses in it, and how to run it once it
 * stands where it can be.
 */
export const stage = (text: string) =>
  Effect.gen(function*() {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-alf-program-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
    )
    const values = Object.entries(environment(text, folder))
    const { redirect, restore } = yield* standIns([text, ...values.map(([, value]) => value)].join("\n"))
    return {
      program: redirect(text),
      run: (args: ReadonlyArray<string>, options: RunOptions = {}) =>
        Effect.map(
          run(process.execPath, args, {
            ...options,
            environment: {
              ...Object.fromEntries(values.map(([name, value]) => [name, redirect(value)])),
              ...options.environment
            }
          }),
          ({ errors, exitCode, output }) => {
            const printed = restore(output)
            return { exitCode, printed, errors: restore(errors), brokenClaims: brokenClaims(text, printed) }
          }
        )
    }
  })
