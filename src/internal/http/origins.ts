import * as Effect from "effect/Effect"
import type { ConfigurationError } from "../../TokenError.ts"
import { isLoopback, issue } from "../options.ts"

/** Where a URL leads: one of the origins, another one, or nowhere yet. */
export const originOf = (
  origins: ReadonlyArray<string | URL> | "any"
): Effect.Effect<(url: string) => string, ConfigurationError> =>
  Effect.gen(function*() {
    if (origins !== "any" && !Array.isArray(origins)) {
      return yield* issue("origins is missing: list the origins of your API, or write \"any\"")
    }
    const listed = new Set<string>()
    for (const [index, input] of origins === "any" ? [] : origins.entries()) {
      if (!URL.canParse(String(input)) || !/^https?:$/.test(new URL(input).protocol)) {
        return yield* issue(`origins[${index}] is no https or http URL: write one such as https://api.example.com`)
      }
      listed.add(new URL(input).origin)
    }
    if (origins !== "any" && listed.size === 0) {
      return yield* issue("origins is empty, so no request would carry a token: list the origins of your API")
    }
    const isMeant = (url: URL) =>
      origins === "any"
        ? url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url))
        : /^https?:$/.test(url.protocol) && listed.has(url.origin)

    // nearly every URL begins with an origin that was seen before: comparing is much cheaper than parsing
    const known = [...listed]
    return (url) => {
      for (const origin of known) {
        if (url.startsWith(origin) && endsOrigin(url.charCodeAt(origin.length))) return origin
      }
      if (!URL.canParse(url)) return "relative"
      const parsed = new URL(url)
      if (!isMeant(parsed)) return "other"
      if (origins === "any" && known.length < 16) known.push(parsed.origin)
      return parsed.origin
    }
  })

/** The end of the text, or one of `/?#`. */
const endsOrigin = (code: number): boolean => Number.isNaN(code) || code === 47 || code === 63 || code === 35

/** Scheme, host, port and path: what of a URL may be shown. */
export const withoutQuery = (text: string): string => {
  const url = new URL(text)
  return `${url.origin}${url.pathname}`
}
