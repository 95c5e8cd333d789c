/** The parameters of token requests that grants have in common, and what of them is part of a grant's key. */
import * as UrlParams from "@effect/platform/UrlParams"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { ConfigurationError } from "../TokenError.ts"
import { digest } from "./digest.ts"
import { check } from "./options.ts"
import { list, scopes } from "./scope.ts"

/** What a token request asks for. */
export interface Asked {
  readonly scope?: string | ReadonlyArray<string> | undefined
  readonly audience?: string | undefined
  readonly resource?: string | ReadonlyArray<string> | undefined
  readonly params?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
}

export const toParams = (grantType: string, { audience, params = {}, resource, scope }: Asked): UrlParams.UrlParams => {
  const asked = list(scope).flatMap(scopes)
  return UrlParams.fromInput([
    ["grant_type", grantType],
    ...(asked.length === 0 ? [] : [["scope", asked.join(" ")] as const]),
    ["audience", audience],
    ...list(resource).map((uri) => ["resource", uri] as const),
    ...Object.entries(params).map(([name, value]) =>
      [name, Redacted.isRedacted(value) ? Redacted.value(value) : value] as const
    )
  ])
}

/** All options in an order of their own; of a secret only its digest. */
export const keyOf = (grantType: string, { audience, params = {}, resource, scope }: Asked): string =>
  JSON.stringify([
    grantType,
    [...new Set(list(scope).flatMap(scopes))].sort(),
    audience ?? null,
    [...new Set(list(resource))].sort(),
    Object.entries(params)
      .map(([name, value]) => [name, Redacted.isRedacted(value) ? digest(Redacted.value(value)) : value])
      .sort(([a = ""], [b = ""]) => a < b ? -1 : 1)
  ])

/** Parameters that the library sets, and the options to use. */
const reserved: Readonly<Record<string, string>> = {
  grant_type: "Use the grant option",
  client_id: "Use the clientId option",
  client_secret: "Use the clientSecret option",
  client_assertion: "Use the clientAuthentication option"
}

export const validate = (
  options: Asked,
  further: ReadonlyArray<string> = []
): Effect.Effect<void, ConfigurationError> =>
  Effect.gen(function*() {
    const { params = {} } = options
    for (const [name, instead] of Object.entries(reserved)) {
      yield* check(!Object.hasOwn(params, name), () => `params.${name} is set by the library. ${instead}`)
    }
    for (const name of further) {
      yield* check(!Object.hasOwn(params, name), () => `params.${name} is set by the library. Leave it out`)
    }
    for (const name of ["scope", "audience"] as const) {
      yield* check(options[name] === undefined || !Object.hasOwn(params, name), () =>
        `params.${name} is given beside ${name}: give one of the two (RFC 6749 §3.2)`)
    }
  })
