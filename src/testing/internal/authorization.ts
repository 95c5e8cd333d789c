/** The authorization endpoint of the test server, and the codes that it gives (RFC 6749 §4.1, §4.2). */
import * as UrlParams from "@effect/platform/UrlParams"
import type { Clients } from "./clients.ts"
import * as Jwt from "./jwt.ts"
import type { Token, Tokens } from "./tokens.ts"

interface Code extends Token {
  readonly redirectUri: string
  readonly challenge: string
}

export type Authorization = ReturnType<typeof makeAuthorization>

export const makeAuthorization = (clients: Clients, tokens: Tokens) => {
  const codes = new Map<string, Code>()
  let issued = 0
  return {
    /** A person says yes: the URL that the browser is sent to, with a code, a token or an error in it. */
    authorize: (url: URL, now: number): URL => {
      const asked: Readonly<Record<string, string | undefined>> = Object.fromEntries(url.searchParams)
      const { client_id: clientId = "", code_challenge: challenge, redirect_uri: redirectUri = "", scope = "" } = asked
      const isImplicit = asked.response_type === "token"
      const response = () => {
        if (!clients.isKnown(clientId)) return { error: "unauthorized_client" }
        if (!tokens.knowsScope(scope)) return { error: "invalid_scope" }
        const permission = { clientId, scope, family: tokens.newFamily() }
        if (isImplicit) return tokens.issue(permission, now)
        if (asked.response_type !== "code") return { error: "unsupported_response_type" }
        if (challenge === undefined || asked.code_challenge_method !== "S256") return { error: "invalid_request" }
        const code = `code-${++issued}`
        codes.set(code, { ...permission, redirectUri, challenge })
        return { code }
      }
      const glue = isImplicit ? "#" : redirectUri.includes("?") ? "&" : "?"
      return new URL(
        redirectUri + glue + UrlParams.toString(UrlParams.fromInput({ ...response(), state: asked.state }))
      )
    },

    /** What the code of a token request permits; shown once, right or wrong, it is not good any more. */
    redeem: (form: URLSearchParams, clientId: string): Token | undefined => {
      const name = form.get("code") ?? ""
      const code = codes.get(name)
      codes.delete(name)
      tokens.endIfUsed(name)
      const isGood = code?.clientId === clientId && code.redirectUri === form.get("redirect_uri") &&
        code.challenge === Jwt.hash(form.get("code_verifier") ?? "")
      if (!isGood) return undefined
      tokens.use(name, code.family)
      return code
    }
  }
}
