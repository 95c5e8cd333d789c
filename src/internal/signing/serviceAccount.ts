/** The JSON file of a Google service account. */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

export interface ServiceAccount {
  readonly email: string
  readonly key: Redacted.Redacted
  readonly keyId: string | undefined
  readonly tokenEndpoint: string
  readonly clientId: string
}

export const parseServiceAccount = (text: string): Option.Option<ServiceAccount> =>
  Option.flatMap(Either.getRight(Either.try((): unknown => JSON.parse(text))), (parsed) => {
    if (typeof parsed !== "object" || parsed === null) return Option.none()
    const member = (name: string): string | undefined => {
      const value: unknown = Reflect.get(parsed, name)
      return typeof value === "string" && value !== "" ? value : undefined
    }
    const [email, key, tokenEndpoint] = [member("client_email"), member("private_key"), member("token_uri")]
    return email === undefined || key === undefined || tokenEndpoint === undefined ? Option.none() : Option.some({
      email,
      key: Redacted.make(key),
      keyId: member("private_key_id"),
      tokenEndpoint,
      clientId: member("client_id") ?? email
    })
  })
