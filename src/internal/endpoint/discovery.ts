/** Metadata documents at well-known URLs (RFC 8414 §3, RFC 9728 §3). */
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { DiscoveryError } from "../../TokenError.ts"
import { isLoopback } from "../options.ts"
import { hardTimeout } from "../timeout.ts"
import type { Execute } from "./execute.ts"
import { type Members, parseMembers } from "./parseMembers.ts"
import type { RawResponse } from "./readTokenResponse.ts"

const defaultTimeout = Duration.seconds(10)

/**
 * The document at a URL. `None` if there is none here, so that the next URL is tried; a failure that another attempt could
 * mend is a `DiscoveryError` "Transport".
 */
export const fetchDocument = (
  execute: Execute,
  url: string,
  isDocument: (members: Members) => boolean,
  timeout: Duration.Duration = defaultTimeout
): Effect.Effect<Option.Option<Members>, DiscoveryError> => {
  const at = shownUrl(url)
  const response = hardTimeout(execute(HttpClientRequest.get(url, { acceptJson: true })), timeout, () => ({
    description: `No response within ${Duration.format(timeout)}`,
    isFinal: false
  }))
  return Effect.matchEffect(response, {
    onFailure: ({ description, isFinal }) =>
      Effect.fail(new DiscoveryError({ url: at, reason: isFinal ? "Invalid" : "Transport", description })),
    onSuccess: (response) => {
      if (isTransientStatus(response.status)) {
        return Effect.fail(
          new DiscoveryError({
            url: at,
            reason: "Transport",
            description: `The server answered ${response.status} to the request for its metadata`,
            retryAfter: response.retryAfter
          })
        )
      }
      if (response.isCut && response.status < 300) {
        return Effect.fail(
          new DiscoveryError({ url: at, reason: "Invalid", description: "The metadata document is longer than 1 MiB" })
        )
      }
      return Effect.succeed(Option.filter(membersOf(response), isDocument))
    }
  })
}

const membersOf = (response: RawResponse): Option.Option<Members> =>
  response.status >= 200 && response.status < 300 ? parseMembers(response.text) : Option.none()

const isTransientStatus = (status: number): boolean =>
  status === 408 || status === 425 || status === 429 || (status >= 500 && status !== 502)

/** The URLs of a well-known document, its path inserted before that of an identifier (RFC 8414 §3.1). */
export const insertedUrl = (identifier: URL, name: string): string =>
  `${identifier.origin}/.well-known/${name}${withoutSlash(identifier.pathname)}${identifier.search}`

/** The URL of a well-known document, appended to an identifier (OpenID Connect Discovery §4). */
export const appendedUrl = (identifier: URL, name: string): string =>
  `${identifier.origin}${withoutSlash(identifier.pathname)}/.well-known/${name}`

const withoutSlash = (path: string): string => path.endsWith("/") ? path.slice(0, -1) : path

/** A longer text counts as absent, in characters. */
const maxText = 8 * 1024

/** A longer list is cut. */
const maxList = 1000

/** Reads members of a document. What has another type counts as absent. */
export const reader = (members: object) => ({
  text: (name: string): string | undefined => {
    const value = own(members, name)
    return isText(value) && value !== "" ? value : undefined
  },
  flag: (name: string): boolean | undefined => {
    const value = own(members, name)
    return typeof value === "boolean" ? value : undefined
  },
  texts: (name: string): ReadonlyArray<string> | undefined => {
    const value = own(members, name)
    return Array.isArray(value) ? value.slice(0, maxList).filter(isText) : undefined
  }
})

const own = (members: object, name: string): unknown =>
  Object.hasOwn(members, name) ? Reflect.get(members, name) : undefined

/** A text that is not too long. */
export const isText = (value: unknown): value is string => typeof value === "string" && value.length <= maxText

/** Whether secrets may be sent to a URL: https, or this machine. */
export const isSecure = (text: string): boolean => {
  if (!URL.canParse(text)) return false
  const url = new URL(text)
  return url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url))
}

/** An object without the members that are undefined. */
export const defined = <A extends object>(object: A): { [K in keyof A]?: Exclude<A[K], undefined> } =>
  // a filtered copy has the same members with the same types, less undefined
  Object.fromEntries(Object.entries(object).filter(([_, value]) => value !== undefined)) as {
    [K in keyof A]?: Exclude<A[K], undefined>
  }

/** The URL to show: without query and fragment. */
export const shownUrl = (text: string): string =>
  URL.canParse(text) ? new URL(text).origin + new URL(text).pathname : "an unreadable URL"

export const invalidDocument = (url: string, description: string): Either.Either<never, DiscoveryError> =>
  Either.left(new DiscoveryError({ url: shownUrl(url), reason: "Invalid", description }))
