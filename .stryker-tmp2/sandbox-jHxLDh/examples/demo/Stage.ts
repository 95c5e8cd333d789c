/**
 * What is seen of the demo: a line for each thing as it happens, and under them a moving line while an act is played.
 *
 * A terminal gets the moving line and colours, unless `NO_COLOR` is set. Everything else gets plain lines.
 */
// @ts-nocheck

import { Terminal } from "@effect/platform"
import { Clock, Config, Context, Effect, Layer, Option, Ref } from "effect"

const styles = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, magenta: 35, cyan: 36 }

export class Stage extends Context.Tag("demo/Stage")<Stage, {
  readonly style: (style: keyof typeof styles, text: string) => string
  readonly line: (text: string) => Effect.Effect<void>
  /** Text that is broken between words where the terminal ends. */
  readonly paragraph: (text: string, indent: string) => Effect.Effect<void>
  /** A line with the time, and who it was. */
  readonly event: (who: string, text: string) => Effect.Effect<void>
  /** Keeps the status under the lines while the effect runs. */
  readonly during: (
    status: Effect.Effect<string>
  ) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}>() {}

const spinner = [..."⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"]

export const layer = Layer.effect(
  Stage,
  Effect.gen(function*() {
    const terminal = yield* Terminal.Terminal
    const isDumb = (yield* Config.withDefault(Config.string("TERM"), "")) === "dumb"
    const isLive = (yield* terminal.isTTY) && !isDumb
    const hasColor = isLive && Option.isNone(yield* Config.option(Config.nonEmptyString("NO_COLOR")))
    const startedAt = yield* Clock.currentTimeMillis

    const style: Stage["Type"]["style"] = (style, text) => hasColor ? `\u001b[${styles[style]}m${text}\u001b[0m` : text

    /** The moving line. The cursor stays at its beginning, so that whatever comes next takes its place. */
    const moving = yield* Ref.make("")
    const erase = isLive ? "\u001b[2K" : ""
    const display = (text: string) =>
      Effect.flatMap(Ref.get(moving), (moving) => Effect.ignore(terminal.display(erase + text + moving)))
    const move = (text: string) => Effect.zipRight(Ref.set(moving, text), display(""))

    const line = (text: string) => display(`${text}\n`)
    const elapsed = Effect.map(Clock.currentTimeMillis, (now) => `${((now - startedAt) / 1000).toFixed(2)} s`)

    return {
      style,
      line,
      paragraph: (text, indent) =>
        Effect.flatMap(terminal.columns, (columns) => {
          const width = isLive ? Math.max(20, columns - indent.length - 1) : text.length
          return line(text.replace(new RegExp(`(.{1,${width}})(?: +|$)`, "g"), `${indent}$1\n`).trimEnd())
        }),
      event: (who, text) =>
        Effect.flatMap(elapsed, (time) => line(`${style("dim", time.padStart(12))}  ${who}  ${text}`)),
      during: (status) => (effect) => {
        const draw = Effect.gen(function*() {
          const time = yield* elapsed
          const frame = spinner[Math.floor((yield* Clock.currentTimeMillis) / 80) % spinner.length]
          const text = `    ${frame} ${time.padStart(6)}  ${yield* status}`
          yield* move(`${style("dim", text.slice(0, (yield* terminal.columns) - 1))}\r`)
        })
        return isLive
          ? effect.pipe(Effect.raceFirst(Effect.forever(Effect.delay(draw, "80 millis"))), Effect.ensuring(move("")))
          : effect
      }
    }
  })
)
