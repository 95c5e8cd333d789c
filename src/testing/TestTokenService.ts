/**
 * A `TokenService` for tests: hands out the listed tokens in turn, and remembers what it was asked.
 *
 * It takes the place of the layer that gets tokens. There is no token endpoint behind it, and nothing expires.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { AccessToken } from "../AccessToken.ts"
import type { TokenError } from "../TokenError.ts"
import { TokenService } from "../TokenService.ts"

/**
 * What a `TokenService` can be asked.
 *
 * @since 0.1.0
 * @category models
 */
export type Call = "get" | "refresh" | "invalidate" | "revoke"

/**
 * What the service was asked.
 *
 * @since 0.1.0
 * @category tags
 */
export class TestTokenService extends Context.Tag("effect-alf/testing/TestTokenService")<TestTokenService, {
  /** All calls so far, oldest first. */
  readonly calls: Effect.Effect<ReadonlyArray<Call>>
}>() {}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The tokens, in the order in which they are handed out. The last one stays in use. Defaults to `token-1`, `token-2`
   * and so on, without end.
   */
  readonly tokens?: ReadonlyArray<string> | undefined
  /** What each `get` and `refresh` fails with. Defaults to none: they succeed. */
  readonly fail?: TokenError | undefined
}

/**
 * `get` gives the current token. Each `refresh`, whichever token it is about, and each `invalidate` and `revoke` moves on to the next.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<TokenService | TestTokenService> =>
  Layer.effectContext(Effect.map(DateTime.now, (issuedAt) => {
    const { fail, tokens = [] } = options
    const calls: Array<Call> = []
    let turn = 0
    const record = (call: Call) =>
      Effect.sync(() => {
        calls.push(call)
        if (call !== "get") turn++
      })
    const current = Effect.suspend(() =>
      fail !== undefined ? Effect.fail(fail) : Effect.succeed(
        new AccessToken({
          value: Redacted.make(tokens[Math.min(turn, tokens.length - 1)] ?? `token-${turn + 1}`),
          issuedAt,
          generation: turn
        })
      )
    )
    return Context.make(TokenService, {
      get: Effect.zipRight(record("get"), current),
      refresh: () => Effect.zipRight(record("refresh"), current),
      invalidate: record("invalidate"),
      revoke: record("revoke")
    }).pipe(Context.add(TestTokenService, { calls: Effect.sync(() => [...calls]) }))
  }))
