/**
 * Redacts secrets in text from outside, in every writing in which a server may have echoed them. The text is decoded while
 * the positions are kept, and searched in one pass per secret: the time grows with the length of the text and of the
 * secrets, whatever they hold.
 */

/** Parameters that everyone may see. All others count as secrets, those with names of the user's own too. */
const publicParams: ReadonlySet<string> = new Set([
  "actor_token_type",
  "audience",
  "client_assertion_type",
  "client_id",
  "code_challenge",
  "code_challenge_method",
  "grant_type",
  "redirect_uri",
  "requested_token_type",
  "resource",
  "response_type",
  "scope",
  "subject_token_type",
  "token_type_hint"
])

export const secretParams = (params: ReadonlyArray<readonly [string, string]>): ReadonlyArray<string> =>
  params.flatMap(([name, value]) => publicParams.has(name) ? [] : [value])

/** More tokens than this in one text, and the text is not shown. */
const maxTokens = 16

const tokenPattern =
  /(?:[a-z]_?token|(?:client|device)_?secret|device_?code|[a-z]_?assertion)["']?\s{0,8}(?:[:=]|>)\s{0,8}(?:"((?:[^"\\]|\\.)*)|'?([^&\s"'<,}]+))/gi

/**
 * The tokens and secrets that a text names as such: in JSON, whole or cut, in forms, in XML, and as Python prints them. Nothing if there
 * are too many to redact.
 */
export const tokenValues = (text: string): ReadonlyArray<string> | undefined => {
  const values: Array<string> = []
  for (const [_, quoted, plain] of text.matchAll(tokenPattern)) {
    if (values.length === maxTokens) return undefined
    values.push(quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "")
  }
  return values
}

/** A beginning of a secret that is at least this long is redacted too: an echo may be cut. */
const shortestBeginning = 16

/** A shorter secret is redacted as a whole word only: it may be part of an ordinary one. */
const shortestPart = 6

/** Bytes of a text in some writing, each with the part of the text that it stands for. */
interface View {
  readonly length: number
  readonly bytes: Uint8Array
  readonly from: Uint32Array
  readonly to: Uint32Array
}

export interface RedactOptions {
  /** Whether the text was cut, so that a secret may begin at its end. */
  readonly isCut?: boolean | undefined
}

export const redact = (text: string, secrets: ReadonlyArray<string>, options: RedactOptions = {}): string =>
  makeRedact(secrets)(text, options)

/** For many texts with the same secrets. */
export const makeRedact = (
  secrets: ReadonlyArray<string>
): (text: string, options?: RedactOptions) => string => {
  const patterns = [...new Set(secrets.flatMap((secret) => [secret, secret.replace(/=+$/, "")]))]
    .filter((secret) => secret !== "")
    .map((secret) => toPattern(encoder.encode(secret)))
  const shortest = Math.min(shortestBeginning, ...patterns.map(({ bytes }) => bytes.length))
  return (text, { isCut = false } = {}) => {
    // a character is at most three bytes for each of its units
    if (patterns.length === 0 || (!isCut && 3 * text.length < shortest)) return text
    const covered = new Uint8Array(text.length)
    for (const view of views(text)) {
      for (const pattern of patterns) cover(view, pattern, covered, isCut)
    }
    return replaceCovered(text, covered)
  }
}

interface Pattern {
  readonly bytes: Uint8Array
  /** For each beginning of the bytes, how long its longest end is that is a beginning too. */
  readonly failure: Uint32Array
}

const toPattern = (bytes: Uint8Array): Pattern => ({ bytes, failure: failures(bytes) })

const encoder = new TextEncoder()

const replaceCovered = (text: string, covered: Uint8Array): string => {
  const parts: Array<string> = []
  let from = 0
  while (from < text.length) {
    const isCovered = covered[from] === 1
    let to = from
    while (to < text.length && (covered[to] === 1) === isCovered) to++
    parts.push(isCovered ? "<redacted>" : text.slice(from, to))
    from = to
  }
  return parts.join("")
}

/** Marks all occurrences of a secret and of its beginnings (Knuth, Morris, Pratt). */
const cover = (view: View, { bytes: pattern, failure }: Pattern, covered: Uint8Array, isCut: boolean): void => {
  const at = (array: Uint8Array | Uint32Array, index: number): number => array[index] ?? 0
  const mark = (end: number, length: number) => {
    if (pattern.length < shortestPart && !isWord(view, end - length, end)) return
    covered.fill(1, at(view.from, end - length), at(view.to, end - 1))
  }
  let matched = 0
  for (let i = 0; i < view.length; i++) {
    const byte = at(view.bytes, i)
    if (matched === pattern.length || byte !== at(pattern, matched)) {
      if (matched >= shortestBeginning && matched < pattern.length) mark(i, matched)
      while (matched > 0 && (matched === pattern.length || byte !== at(pattern, matched))) {
        matched = at(failure, matched - 1)
      }
    }
    if (byte === at(pattern, matched)) matched++
    if (matched === pattern.length) mark(i + 1, matched)
  }
  const shortest = isCut ? Math.min(shortestPart, pattern.length) : shortestBeginning
  if (matched >= shortest && matched < pattern.length) mark(view.length, matched)
}

const failures = (pattern: Uint8Array): Uint32Array => {
  const failure = new Uint32Array(pattern.length)
  let matched = 0
  for (let i = 1; i < pattern.length; i++) {
    while (matched > 0 && pattern[i] !== pattern[matched]) matched = failure[matched - 1] ?? 0
    if (pattern[i] === pattern[matched]) matched++
    failure[i] = matched
  }
  return failure
}

const isWord = ({ bytes, length }: View, from: number, to: number): boolean =>
  (from === 0 || !isWordByte(bytes[from - 1] ?? 0)) && (to === length || !isWordByte(bytes[to] ?? 0))

const isWordByte = (byte: number): boolean =>
  byte >= 128 || byte === 95 || (byte >= 48 && byte <= 57) || (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122)

/** The text as it is, and decoded once and twice. */
const views = (text: string): ReadonlyArray<View> => {
  const raw = rawView(text)
  if (!/[\\%&+]/.test(text)) return [raw]
  const once = decode(raw)
  return [
    raw,
    once,
    decode(raw, { plusIsSpace: true }),
    decode(once),
    decode(once, { plusIsSpace: true }),
    // a backslash of the text's own may stand before an escape
    ...(text.includes("\\\\") ? [decode(raw, { hasLoneBackslashes: true })] : [])
  ]
}

const rawView = (text: string): View => {
  const bytes = encoder.encode(text)
  const from = new Uint32Array(bytes.length)
  const to = new Uint32Array(bytes.length)
  let index = 0
  let position = 0
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0
    const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4
    from.fill(position, index, index + size)
    to.fill(position + character.length, index, index + size)
    index += size
    position += character.length
  }
  return { length: bytes.length, bytes, from, to }
}

interface Escape {
  /** What the escape stands for. */
  readonly bytes: ReadonlyArray<number>
  /** How many bytes it is written in. */
  readonly length: number
}

interface DecodeOptions {
  readonly plusIsSpace?: boolean
  /** Whether a backslash before another one stands for itself. */
  readonly hasLoneBackslashes?: boolean
}

const decode = (view: View, options: DecodeOptions = {}): View => {
  // no escape is shorter than the bytes that it stands for
  const bytes = new Uint8Array(view.length)
  const from = new Uint32Array(view.length)
  const to = new Uint32Array(view.length)
  let length = 0
  for (let i = 0; i < view.length;) {
    const byte = view.bytes[i] ?? 0
    const escape = escapeAt(view.bytes, i, options)
    const end = i + (escape?.length ?? 1)
    for (const decoded of escape?.bytes ?? [byte]) {
      bytes[length] = decoded
      from[length] = view.from[i] ?? 0
      to[length] = view.to[end - 1] ?? 0
      length++
    }
    i = end
  }
  return { length, bytes, from, to }
}

const percent = 37
const ampersand = 38
const plus = 43
const backslash = 92

/** The escape that begins here: JSON, percent-encoding, a form's space, or HTML. */
const escapeAt = (bytes: Uint8Array, i: number, options: DecodeOptions): Escape | undefined => {
  switch (bytes[i]) {
    case percent: {
      const code = hex(bytes, i + 1, 2)
      return code === undefined ? undefined : { bytes: [code], length: 3 }
    }
    case plus:
      return options.plusIsSpace === true ? { bytes: [32], length: 1 } : undefined
    case backslash:
      return options.hasLoneBackslashes === true && bytes[i + 1] === backslash ? undefined : jsonEscape(bytes, i)
    case ampersand:
      return htmlEscape(bytes, i)
    default:
      return undefined
  }
}

const jsonLetters: Readonly<Record<number, number>> = { 98: 8, 102: 12, 110: 10, 114: 13, 116: 9 }

const jsonEscape = (bytes: Uint8Array, i: number): Escape | undefined => {
  const next = bytes[i + 1]
  if (next === undefined) return undefined
  if (next === 117) {
    const unit = hex(bytes, i + 2, 4)
    if (unit === undefined) return undefined
    const isHigh = unit >= 0xd800 && unit < 0xdc00
    const low = isHigh && bytes[i + 6] === backslash && bytes[i + 7] === 117 ? hex(bytes, i + 8, 4) : undefined
    return low === undefined
      ? { bytes: utf8(unit), length: 6 }
      : { bytes: utf8(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)), length: 12 }
  }
  const letter = jsonLetters[next]
  if (letter !== undefined) return { bytes: [letter], length: 2 }
  return isWordByte(next) && next !== 95 ? undefined : { bytes: [next], length: 2 }
}

const named: Readonly<Record<string, number>> = { amp: 38, lt: 60, gt: 62, quot: 34, apos: 39 }

/** The longest HTML escape that is read, in bytes. */
const longestEntity = 12

const htmlEscape = (bytes: Uint8Array, i: number): Escape | undefined => {
  const end = bytes.subarray(i, i + longestEntity).indexOf(59)
  if (end === -1) return undefined
  const name = String.fromCharCode(...bytes.subarray(i + 1, i + end))
  const code = /^#\d+$/.test(name)
    ? Number(name.slice(1))
    : /^#[xX][0-9a-fA-F]+$/.test(name)
    ? Number.parseInt(name.slice(2), 16)
    : named[name]
  return code === undefined || code > 0x10ffff ? undefined : { bytes: utf8(code), length: end + 1 }
}

const utf8 = (code: number): ReadonlyArray<number> => Array.from(encoder.encode(String.fromCodePoint(code)))

const hex = (bytes: Uint8Array, from: number, length: number): number | undefined => {
  let value = 0
  for (let i = from; i < from + length; i++) {
    const byte = bytes[i] ?? 0
    const digit = byte >= 48 && byte <= 57
      ? byte - 48
      : byte >= 65 && byte <= 70
      ? byte - 55
      : byte >= 97 && byte <= 102
      ? byte - 87
      : undefined
    if (digit === undefined) return undefined
    value = 16 * value + digit
  }
  return value
}

/** The beginning of a text, at most `bytes` long in UTF-8, no character cut. */
export const truncate = (text: string, bytes: number): string => {
  // a character is at most three bytes for each of its units
  if (3 * text.length <= bytes) return text
  const encoded = encoder.encode(text.slice(0, bytes))
  return encoded.length <= bytes && text.length <= bytes
    ? text
    : new TextDecoder().decode(encoded.subarray(0, bytes), { stream: true })
}
