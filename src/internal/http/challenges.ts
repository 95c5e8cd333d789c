/** The challenges of a `WWW-Authenticate` header (RFC 9110 §11.6.1). */
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { redact, truncate } from "../endpoint/redact.ts"
import { scopes } from "../scope.ts"

/** One challenge of a `WWW-Authenticate` header (RFC 9110 §11.3). */
export interface Challenge {
  /** The scheme, as it came: `Bearer`, `DPoP`, … */
  readonly scheme: string
  /** The parameters, names in lower case: `realm`, `error`, `scope`, … */
  readonly params: Readonly<Record<string, string>>
}

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
const quoted = `"(?:[^"\\\\]|\\\\.)*"`
const part = new RegExp(
  `\\s*(?:(${token})\\s*=\\s*(${token}|${quoted})(?=\\s*(?:,|$))|(${token})(?=[\\s,]|$)(?:\\s+([A-Za-z0-9\\-._~+/]+=*)(?=\\s*(?:,|$)))?)?\\s*,?`,
  "y"
)

/**
 * The challenges of a `WWW-Authenticate` header. What cannot be understood ends the reading; nothing throws.
 */
export const parseChallenges = (header: string): ReadonlyArray<Challenge> => {
  const challenges: Array<{ scheme: string; params: Record<string, string> }> = []
  part.lastIndex = 0
  while (part.lastIndex < header.length) {
    const match = part.exec(header)
    if (match === null || match[0] === "") break
    const [, name, value, scheme] = match
    if (scheme !== undefined) challenges.push({ scheme, params: {} })
    else if (name !== undefined && value !== undefined) {
      const current = challenges.at(-1)
      if (current === undefined) break
      current.params[name.toLowerCase()] = value.startsWith("\"") ? value.slice(1, -1).replace(/\\(.)/g, "$1") : value
    }
  }
  return challenges
}

/** No more of a header is read than this, in bytes. */
const maxHeader = 16 * 1024

type Response = Pick<HttpClientResponse.HttpClientResponse, "headers">

/** The challenges of a response, without these secrets. */
export const challengesOf = ({ headers }: Response, secrets: ReadonlyArray<string>): ReadonlyArray<Challenge> =>
  parseChallenges(redact(truncate(headers["www-authenticate"] ?? "", maxHeader), secrets))

/** The scopes that a response asks for; nothing if it is not about scopes. */
export const requiredScope = (challenges: ReadonlyArray<Challenge>): ReadonlyArray<string> | undefined => {
  const challenge = challenges.find(({ params }) => params["error"] === "insufficient_scope")
  return challenge === undefined ? undefined : scopes(challenge.params["scope"] ?? "")
}

/** Why an API refused a token that is bound to a key, or its proof (RFC 9449 §7.1, §9). */
export const boundTokenError = (response: Response): string | undefined =>
  challengesOf(response, []).find(({ params, scheme }) =>
    scheme.toLowerCase() === "dpop" && params["error"] !== undefined
  )?.params["error"]

/** Whether an API asks for another nonce in the proof. */
export const isNonceChallenge = (response: Response): boolean => boundTokenError(response) === "use_dpop_nonce"

/** A parameter of any challenge of a `WWW-Authenticate` header. */
export const challengeParam = (header: string, name: string): string | undefined =>
  parseChallenges(truncate(header, maxHeader)).find(({ params }) => params[name] !== undefined)?.params[name]
