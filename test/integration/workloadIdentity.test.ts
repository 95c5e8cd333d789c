/** Assertions that the surroundings of a workload hand out: read for every attempt. */
import { FetchHttpClient, FileSystem, HttpClient, HttpClientRequest } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Schema } from "effect"
import { Alf, ClientAuthentication, TokenService } from "effect-alf"
import { mkdir, mkdtemp, readlink, rename, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { answer, listen } from "../support/apiServer.ts"

/** A token endpoint that is down twice, and shows what it was sent. */
const tokenServer = (onRequest: (n: number) => Promise<void> = async () => {}) =>
  Effect.gen(function*() {
    const assertions: Array<string> = []
    const types = new Set<string>()
    const { url } = yield* listen(() => (request, response) => {
      let body = ""
      request.setEncoding("utf8").on("data", (text: string) => {
        body += text
      })
      request.once("end", () => {
        const form = new URLSearchParams(body)
        types.add(form.get("client_assertion_type") ?? "")
        const n = assertions.push(form.get("client_assertion") ?? "")
        void onRequest(n).then(() =>
          n < 3 ? answer(response, 503, {}) : answer(response, 200, { access_token: "token", expires_in: 60 })
        )
      })
    })
    return { assertions, types, tokenEndpoint: `${url}/token` }
  })

const getToken = (tokenEndpoint: string, clientAuthentication: ClientAuthentication.ClientAuthentication) =>
  Effect.flatMap(TokenService.TokenService, ({ get }) => get).pipe(
    Effect.provide(
      Layer.provide(
        Alf.layer({
          tokenEndpoint,
          clientId: "workload",
          clientAuthentication,
          origins: ["https://api.test"],
          tokenRetry: { base: "1 millis" }
        }),
        FetchHttpClient.layer
      )
    )
  )

const temporaryFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "effect-alf-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

/** What the kubelet does: a new folder, and the link `..data` swapped to it in one step. */
const project = async (folder: string, token: string) => {
  const version = `..${token}`
  await mkdir(join(folder, version))
  await writeFile(join(folder, version, "client"), `${token}\n`)
  await symlink(version, join(folder, "..data_tmp"))
  await rename(join(folder, "..data_tmp"), join(folder, "..data"))
}

describe("an assertion of the surroundings", () => {
  it.scopedLive("Kubernetes: a projected token that is swapped between two attempts", () =>
    Effect.gen(function*() {
      const folder = yield* temporaryFolder
      yield* Effect.promise(() => project(folder, "first"))
      yield* Effect.promise(() => symlink(join("..data", "client"), join(folder, "client")))
      const server = yield* tokenServer(async (n) => {
        if (n === 1) await project(folder, "second")
      })
      const fs = yield* FileSystem.FileSystem
      yield* getToken(
        server.tokenEndpoint,
        ClientAuthentication.assertion(
          Effect.map(fs.readFileString(join(folder, "client")), Redacted.make)
        )
      )
      assert.deepStrictEqual(server.assertions, ["first", "second", "second"])
      assert.strictEqual(yield* Effect.promise(() => readlink(join(folder, "..data"))), "..second")
    }).pipe(Effect.provide(NodeContext.layer)))

  it.scopedLive("GitHub Actions: a token service that is asked for every attempt", () =>
    Effect.gen(function*() {
      let issued = 0
      const { url } = yield* listen(() => (request, response) => {
        const { searchParams } = new URL(request.url ?? "", "http://127.0.0.1")
        const isRight = request.headers.authorization === "Bearer request-token" &&
          searchParams.get("audience") === "server"
        answer(response, isRight ? 200 : 401, { count: 1, value: `oidc-${++issued}` })
      })
      const server = yield* tokenServer()
      const client = yield* HttpClient.HttpClient
      yield* getToken(
        server.tokenEndpoint,
        ClientAuthentication.assertion(Effect.gen(function*() {
          const response = yield* client.execute(
            HttpClientRequest.get(`${url}/token?api-version=2.0&audience=server`).pipe(
              HttpClientRequest.bearerToken("request-token")
            )
          )
          const { value } = yield* Schema.decodeUnknown(Schema.Struct({ value: Schema.String }))(yield* response.json)
          return Redacted.make(value)
        }))
      )
      assert.deepStrictEqual(server.assertions, ["oidc-1", "oidc-2", "oidc-3"])
    }).pipe(Effect.provide(FetchHttpClient.layer)))

  it.scopedLive("SPIFFE: a JWT-SVID in a file that its helper replaces between two attempts", () =>
    Effect.gen(function*() {
      const file = join(yield* temporaryFolder, "client.jwt")
      const replace = async (token: string) => {
        await writeFile(`${file}.new`, `${token}\n`)
        await rename(`${file}.new`, file)
      }
      yield* Effect.promise(() => replace("svid-1"))
      const server = yield* tokenServer((n) => replace(`svid-${n + 1}`))
      const fs = yield* FileSystem.FileSystem
      const type = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
      yield* getToken(
        server.tokenEndpoint,
        ClientAuthentication.assertion(Effect.map(fs.readFileString(file), Redacted.make), { type })
      )
      assert.deepStrictEqual(server.assertions, ["svid-1", "svid-2", "svid-3"])
      assert.deepStrictEqual([...server.types], [type])
    }).pipe(Effect.provide(NodeContext.layer)))

  it.scopedLive("that cannot be read is a TokenRequestError \"Secret\", and shows nothing of why", () =>
    Effect.gen(function*() {
      const server = yield* tokenServer()
      const fs = yield* FileSystem.FileSystem
      const error = yield* Effect.flip(getToken(
        server.tokenEndpoint,
        ClientAuthentication.assertion(Effect.map(fs.readFileString("/nowhere/MARKED"), Redacted.make))
      ))
      assert.isTrue(error._tag === "TokenRequestError" && error.reason === "Secret")
      assert.notInclude(String(error) + JSON.stringify(error), "MARKED")
      assert.lengthOf(server.assertions, 0)
    }).pipe(Effect.provide(NodeContext.layer)))
})
