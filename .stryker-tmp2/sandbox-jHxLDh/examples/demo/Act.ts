/**
 * What the demo is made of: acts. Each has a client of its own, and claims what the servers will have counted.
 */
// @ts-nocheck

import type { HttpClient } from "@effect/platform"
import { NodeRuntime, NodeTerminal } from "@effect/platform-node"
import { Cause, Clock, Effect, Exit, Layer } from "effect"
import type { AuthorizedHttpClient } from "effect-alf"
import { type Counted, layer as layerServers, type Rules, Servers } from "./Servers.ts"
import { layer as layerStage, Stage } from "./Stage.ts"

type Client = HttpClient.HttpClient | AuthorizedHttpClient.AuthorizedHttpClient

export interface Act {
  readonly title: string
  /** What is seen, in one sentence. */
  readonly shows: string
  readonly rules?: Partial<Rules>
  /** Built anew for this act. */
  readonly client: Layer.Layer<Client, unknown, Servers>
  readonly play: Effect.Effect<Claims, unknown, Client | Servers | Stage>
}

/** What the servers should have counted: a number, or the least and the most that it may be. */
export type Claims = { readonly [K in keyof Counted]: number | readonly [least: number, most: number] }

/** Something else than a count that has to be so. */
export const claim = (text: string, isSo: boolean): Effect.Effect<void, string, Stage> =>
  isSo
    ? Effect.flatMap(Stage, ({ line, style }) => line(`    ${style("green", "✓")} ${text}`))
    : Effect.fail(text)

const columns = [
  { count: "tokenRequests", name: "token requests", heading: "requests" },
  { count: "tokens", name: "tokens", heading: "tokens" },
  { count: "accepted", name: "answers 200", heading: "200" },
  { count: "refused", name: "answers 401", heading: "401" }
] as const

/** What was counted otherwise than claimed. */
export const verdict = (claims: Claims, counted: Counted): ReadonlyArray<string> =>
  columns.flatMap(({ count, name }) => {
    const claimed = claims[count]
    const [least, most] = typeof claimed === "number" ? [claimed, claimed] : claimed
    const isSo = least <= counted[count] && counted[count] <= most
    return isSo ? [] : [`${name}: ${counted[count]} instead of ${least === most ? least : `${least} to ${most}`}`]
  })

interface Played {
  readonly title: string
  readonly counted: Counted
  readonly problems: ReadonlyArray<string>
}

const summary = ({ accepted, refused, tokenRequests, tokens }: Counted): string =>
  `auth server: ${plural(tokenRequests, "request")}, ${
    plural(tokens, "token")
  } · API: ${accepted} × 200, ${refused} × 401`

const plural = (n: number, noun: string): string => n === 1 ? `1 ${noun}` : `${n} ${noun}s`

const perform = (act: Act, index: number): Effect.Effect<Played, never, Servers | Stage> =>
  Effect.gen(function*() {
    const servers = yield* Servers
    const { during, line, paragraph, style } = yield* Stage
    yield* servers.reset(act.rules ?? {})
    yield* line(`\n ${index + 1}  ${style("bold", act.title)}`)
    yield* paragraph(act.shows, "    ")
    const exit = yield* act.play.pipe(
      Effect.provide(act.client),
      Effect.timeout("15 seconds"),
      during(Effect.map(servers.counted, summary)),
      Effect.exit
    )
    const counted = yield* servers.counted
    const problems = Exit.match(exit, {
      onSuccess: (claims) => verdict(claims, counted),
      onFailure: (cause) => Cause.prettyErrors(cause).map(({ message }) => message)
    })
    yield* line(`    ${problems.length === 0 ? style("green", "✓") : style("red", "✗")} ${summary(counted)}`)
    yield* Effect.forEach(problems, (problem) => line(`    ${style("red", `✗ ${problem}`)}`))
    return { title: act.title, counted, problems }
  })

/** Plays the acts one after the other; whether all was as claimed. */
const play = (acts: ReadonlyArray<Act>): Effect.Effect<boolean, never, Servers | Stage> =>
  Effect.gen(function*() {
    const { api, tokenEndpoint } = yield* Servers
    const { line, style } = yield* Stage
    const mark = (isGood: boolean) => isGood ? style("green", "✓") : style("red", "✗")
    const startedAt = yield* Clock.currentTimeMillis

    yield* line("")
    yield* line(`    ${style("magenta", "auth server")}  ${tokenEndpoint}`)
    yield* line(`    ${style("cyan", "API")}          ${api}`)

    const played = yield* Effect.forEach(acts, perform)
    const failed = played.filter(({ problems }) => problems.length > 0)
    const seconds = ((yield* Clock.currentTimeMillis) - startedAt) / 1000

    const width = Math.max(...acts.map(({ title }) => title.length))
    const row = (title: string, cells: ReadonlyArray<string | number>) =>
      title.padEnd(width) + cells.map((cell) => String(cell).padStart(9)).join("")
    yield* line(`\n    ${style("bold", "What the two servers counted")}\n`)
    yield* line(
      `    ${" ".repeat(width)}${style("magenta", "auth server".padStart(18))}${style("cyan", "API".padStart(18))}`
    )
    yield* line(`    ${style("dim", row("", columns.map(({ heading }) => heading)))}`)
    for (const { counted, problems, title } of played) {
      yield* line(` ${mark(problems.length === 0)}  ${row(title, columns.map(({ count }) => counted[count]))}`)
    }
    yield* line("")
    for (const { problems, title } of failed) {
      yield* line(` ${mark(false)}  ${title}: ${problems.join("; ")}`)
    }
    yield* line(
      ` ${mark(failed.length === 0)}  ${acts.length - failed.length} of ${acts.length} acts as claimed, in ${
        seconds.toFixed(1)
      } s\n`
    )
    return failed.length === 0
  })

/** The demo as a program: it exits with 0 only if all was as claimed. */
export const main = (acts: ReadonlyArray<Act>): void =>
  play(acts).pipe(
    Effect.provide(layerServers.pipe(Layer.provideMerge(layerStage), Layer.provide(NodeTerminal.layer))),
    NodeRuntime.runMain({
      teardown: (exit, onExit) =>
        onExit(Exit.isSuccess(exit) && exit.value === true ? 0 : Exit.isInterrupted(exit) ? 130 : 1)
    })
  )
