/** What keeps a process from ending. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { answer, serve } from "../support/apiServer.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

describe("a program that has done its work and disposes of nothing", () => {
  it.scopedLive("ends within 5 seconds while a renewal hangs", () =>
    Effect.gen(function*() {
      let issued = 0
      const { requests, url } = yield* serve((request, response) => {
        if (request.path !== "/token") return answer(response, 200, {})
        // the second token request is never answered
        if (issued++ === 0) answer(response, 200, { access_token: "token", token_type: "Bearer", expires_in: 5 })
      })
      const [code, millis] = yield* Effect.async<readonly [number | null, number]>((resume) => {
        const child = spawn(
          process.execPath,
          ["--import", "tsx", "test/support/processes/unfinished.ts", url],
          {
            cwd: root,
            env: { ...process.env, NODE_OPTIONS: "", TSX_TSCONFIG_PATH: "test/tsconfig.json" },
            stdio: ["ignore", "pipe", "inherit"]
          }
        )
        let done = Number.NaN
        child.stdout.once("data", () => {
          done = performance.now()
        })
        child.once("exit", (code) => resume(Effect.succeed([code, performance.now() - done])))
        return Effect.sync(() => child.kill("SIGKILL"))
      })
      assert.strictEqual(code, 0)
      assert.lengthOf(requests.filter(({ path }) => path === "/token"), 2)
      // and the time that a process takes to end
      assert.isBelow(millis, 6_500)
    }), 60_000)
})
