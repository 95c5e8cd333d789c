/** Form parameters that are secrets (RFC 6749, 7521, 7636, 8628, 8693). */
const secretParams: ReadonlySet<string> = new Set([
  "actor_token",
  "assertion",
  "client_assertion",
  "client_secret",
  "code",
  "code_verifier",
  "device_code",
  "password",
  "refresh_token",
  "subject_token"
])

export const secretValues = (params: ReadonlyArray<readonly [string, string]>): ReadonlyArray<string> =>
  params.flatMap(([name, value]) => secretParams.has(name) ? [value] : [])

/** The tokens that a text names as such: in JSON, whole or cut, in forms, and as Python prints them. */
export const tokenValues = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/(?:access|refresh|id)_token["']?\s*[:=]\s*(?:"((?:[^"\\]|\\.)*)|'?([^&\s"'<,}]+))/gi)]
    .map(([_, quoted, plain]) => quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "")

/** Strikes secrets out of a text that came from outside, in every writing in which a server may have echoed them. */
export const scrub = (text: string, secrets: ReadonlyArray<string>): string => {
  const patterns = secrets
    .filter((secret) => secret !== "")
    .sort((a, b) => b.length - a.length)
    .map((secret) => Array.from(secret, writings).join(""))
  return patterns.length === 0 ? text : text.replace(new RegExp(patterns.join("|"), "g"), "<redacted>")
}

/** A pattern for a character: as it is, in JSON, percent-encoded, in a form, in HTML. */
const writings = (character: string): string => {
  if (/[A-Za-z0-9]/.test(character)) return character
  const hex = (code: number, length: number) =>
    Array.from(code.toString(16).padStart(length, "0"), (digit) => `[${digit}${digit.toUpperCase()}]`).join("")
  const code = character.codePointAt(0) ?? 0
  const named = { "&": "amp", "<": "lt", ">": "gt", "\"": "quot", "'": "apos" }[character]
  const patterns = [
    Array.from({ length: character.length }, (_, i) => `\\\\u${hex(character.charCodeAt(i), 4)}`).join(""),
    escape(JSON.stringify(character).slice(1, -1)),
    escape(`\\${character}`),
    Array.from(new TextEncoder().encode(character), (byte) => `%${hex(byte, 2)}`).join(""),
    `&#0*${code};`,
    `&#[xX]0*${hex(code, 1)};`,
    ...(named === undefined ? [] : [`&${named};`]),
    ...(character === " " ? ["\\+"] : []),
    escape(character)
  ]
  return `(?:${patterns.join("|")})`
}

const escape = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")

/** The beginning of a text, at most `bytes` long in UTF-8, no character cut. */
export const truncate = (text: string, bytes: number): string => {
  const encoded = new TextEncoder().encode(text)
  return encoded.length <= bytes ? text : new TextDecoder().decode(encoded.subarray(0, bytes), { stream: true })
}
