/** The members of a document from outside: a JSON object, or a form. */
import * as Option from "effect/Option"

export type Members = Readonly<Record<string, unknown>>

/** A longer text is not read as a form, in characters: it takes long to take apart. */
const maxForm = 128 * 1024

/** Deeper JSON is not parsed, … */
const maxDepth = 64

/** … and none of more values: a megabyte of brackets takes a parser a tenth of a second. */
const maxValues = 10_000

/** A JSON object, or a form that holds a token: nothing but the alphabet of forms. */
export const parseMembers = (text: string): Option.Option<Members> => {
  const trimmed = text.trim()
  return trimmed.startsWith("{")
    ? isQuickToParse(trimmed)
      ? Option.filter(Option.liftThrowable((text: string): unknown => JSON.parse(text))(trimmed), isObject)
      : Option.none()
    : trimmed.length <= maxForm && /^[\w.~*%+&=-]+$/.test(trimmed) && /(?:^|&)access_token=/.test(trimmed)
    ? Option.some(Object.fromEntries(new URLSearchParams(trimmed)))
    : Option.none()
}

export const isObject = (value: unknown): value is Members =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Counts brackets and commas outside of strings. What is not JSON is left to the parser. */
const isQuickToParse = (text: string): boolean => {
  let depth = 0
  let values = 0
  let isString = false
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (isString) {
      if (character === "\\") at++
      else if (character === "\"") isString = false
    } else if (character === "\"") isString = true
    else if (character === "{" || character === "[") {
      depth++
      values++
    } else if (character === "}" || character === "]") depth--
    else if (character === ",") values++
    if (depth > maxDepth || values > maxValues) return false
  }
  return true
}
