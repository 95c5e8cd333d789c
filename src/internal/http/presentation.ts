/** How a token is put on a request. Bearer is the default; DPoP is the other one. */
import type * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { AccessToken } from "../../AccessToken.ts"

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
