/** How a token is put on a request: in a header, as Bearer or otherwise, or with a proof (DPoP). */
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { AccessToken } from "../../AccessToken.ts"
import type { ConfigurationError } from "../../TokenError.ts"
import { check } from "../options.ts"

/** A key whose possession every request proves (RFC 9449). The pipeline knows no more of DPoP than this. */
export interface DPoP {
  /** The JWK thumbprint of the key (RFC 7638): part of the storage key. */
  readonly thumbprint: string
  /** Whether the key is gone with the process, so that tokens bound to it must not be stored for longer. */
  readonly isEphemeral: boolean
  /**
   * Puts a new proof on a request, and with a token the `Authorization` header too. Without a nonce of its own the request
   * carries the newest nonce of its origin. A key that cannot sign fails with what is wrong, in words that may be shown.
   */
  readonly prove: (
    request: HttpClientRequest.HttpClientRequest,
    options: { readonly token: Option.Option<AccessToken>; readonly nonce: Option.Option<string> }
  ) => Effect.Effect<HttpClientRequest.HttpClientRequest, string>
  /**
   * Learns the nonce and the clock of a response's origin. `Some` if the same request should be sent again with a new
   * proof, which then carries this nonce. `error` is the OAuth error of a token endpoint's response; from an API it is
   * read from `WWW-Authenticate`.
   */
  readonly learn: (
    sent: HttpClientRequest.HttpClientRequest,
    response: Pick<HttpClientResponse.HttpClientResponse, "status" | "headers">,
    error: Option.Option<string>
  ) => Effect.Effect<Option.Option<{ readonly nonce: Option.Option<string> }>>
}

/** How the header that carries the token is written. */
export interface HeaderOptions {
  /** The name of the header. Another one than `Authorization` holds the bare token. Defaults to `Authorization`. */
  readonly name?: string | undefined
  /** The scheme before the token. Defaults to `Bearer`; to none for another header. */
  readonly scheme?: string | undefined
}

const fieldName = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

export const checkHeader = ({ name, scheme }: HeaderOptions): Effect.Effect<void, ConfigurationError> =>
  Effect.zipRight(
    check(
      name === undefined || fieldName.test(name),
      () => "header.name must be the name of an HTTP header: write one such as x-amz-access-token"
    ),
    check(
      scheme === undefined || fieldName.test(scheme),
      () => "header.scheme must be an authentication scheme: write one word such as Bearer"
    )
  )

export const headerName = (options: HeaderOptions = {}): string => (options.name ?? "authorization").toLowerCase()

/** Sets the header. Its text is made once per token. */
export const putHeader = (options: HeaderOptions = {}) => {
  const name = headerName(options)
  const scheme = options.scheme ?? (options.name === undefined ? undefined : "")
  let current: AccessToken | undefined
  let text = ""
  return (
    request: HttpClientRequest.HttpClientRequest,
    token: AccessToken
  ): HttpClientRequest.HttpClientRequest => {
    if (token !== current) {
      current = token
      text = `${scheme ?? token.type} ${Redacted.value(token.value)}`.trimStart()
    }
    return HttpClientRequest.setHeader(request, name, text)
  }
}
