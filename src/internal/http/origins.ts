/** Where a request leads: an origin that the token may go to, or another one. */
import * as Effect from "effect/Effect"
import type { ConfigurationError } from "../../TokenError.ts"
import { isLoopback, issue } from "../options.ts"

/** Where a URL leads: one of the origins, another one, or nowhere yet. */
export const originOf = (
  origins: ReadonlyArray<string | URL> | "any"
): Effect.Effect<(url: string) => string, ConfigurationError> =>
  origins === "any"
    ? Effect.sync(() => judgeBy([], true))
    : Effect.map(listed(origins), (known) => judgeBy(known, false))

const listed = (origins: ReadonlyArray<string | URL>): Effect.Effect<Array<string>, ConfigurationError> =>
  Effect.gen(function*() {
    if (!Array.isArray(origins)) {
      return yield* issue("origins is missing: list the origins of your API, or write \"any\"")
    }
    const known = new Set<string>()
    const example = "write one such as https://api.example.com"
    for (const [index, input] of origins.entries()) {
      if (String(input).includes("*")) {
        return yield* issue(`origins[${index}] must name one origin, without *: ${example}`)
      }
      if (!URL.canParse(String(input)) || !/^https?:$/.test(new URL(input).protocol)) {
        return yield* issue(`origins[${index}] must be an https or http URL: ${example}`)
      }
      known.add(new URL(input).origin)
    }
    if (known.size === 0) {
      return yield* issue("origins is empty, so no request would carry a token: list the origins of your API")
    }
    return [...known]
  })

/** Nearly every URL begins with an origin that was seen before: comparing is much cheaper than parsing. */
const judgeBy = (known: Array<string>, isAny: boolean) => (url: string): string => {
  for (const origin of known) {
    if (url.startsWith(origin) && endsOrigin(url.charCodeAt(origin.length))) return origin
  }
  // a browser reads "https:api.test/x" as a path of its own page
  if (pathOfPage.test(url) || !URL.canParse(url)) return "relative"
  const parsed = new URL(url)
  const isMeant = isAny ? isSafe(parsed) : /^https?:$/.test(parsed.protocol) && known.includes(parsed.origin)
  if (!isMeant) return "other"
  if (isAny && known.length < 16) known.push(parsed.origin)
  return parsed.origin
}

const isSafe = (url: URL): boolean => url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url))

const pathOfPage = /^\s*https?:(?!\/\/)/i

/** The end of the text, or one of `/?#`. */
const endsOrigin = (code: number): boolean => Number.isNaN(code) || code === 47 || code === 63 || code === 35

/** Scheme, host, port and path: what of a URL may be shown. */
export const withoutQuery = (text: string): string => {
  const url = new URL(text)
  return `${url.origin}${url.pathname}`
}

/** Scheme, host and port: what of a URL may be logged. */
export const originIn = (text: string): string => URL.canParse(text) ? new URL(text).origin : "a relative URL"
