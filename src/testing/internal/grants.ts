/** What the token endpoint of the test server says to each grant type. */
import * as Effect from "effect/Effect"
import { scopes } from "../../internal/scope.ts"
import type { Authorization } from "./authorization.ts"
import type { Clients } from "./clients.ts"
import type { Devices } from "./devices.ts"
import { type Received, refuse, respond } from "./http.ts"
import type { Proofs } from "./proofs.ts"
import type { Members, Tokens } from "./tokens.ts"

export interface Parts {
  readonly authorization: Authorization
  readonly clients: Clients
  readonly devices: Devices
  readonly proofs: Proofs
  readonly tokens: Tokens
}

export const grant = (
  { authorization, clients, devices, proofs, tokens }: Parts,
  request: Received,
  now: number
): Effect.Effect<Response> =>
  Effect.gen(function*() {
    const form = new URLSearchParams(request.body)
    const clientId = yield* clients.authenticate(request, form, now)
    if (typeof clientId !== "string") return clientId
    const proof = yield* proofs.verify(request, now)
    if ("refusal" in proof) return proof.refusal
    const { key } = proof
    const scope = form.get("scope") ?? ""
    const give = (
      { family = tokens.newFamily(), scope }: { readonly family?: number; readonly scope: string },
      members?: Members
    ) => respond(200, tokens.issue({ clientId, scope, key, family }, now, members), proofs.headers())
    const giveAsked = (members?: Members) =>
      tokens.knowsScope(scope) ? give({ scope }, members) : refuse("invalid_scope")
    switch (form.get("grant_type")) {
      case null:
        return refuse("invalid_request", "grant_type is missing")
      case "client_credentials":
        return giveAsked()
      case "refresh_token": {
        const name = form.get("refresh_token") ?? ""
        const token = tokens.refreshToken(name)
        tokens.endIfUsed(name)
        if (token?.clientId !== clientId || (token.key !== undefined && token.key !== key)) {
          return refuse("invalid_grant", "the refresh token is not good")
        }
        const allowed = scopes(token.scope)
        if (!scopes(scope).every((one) => allowed.includes(one))) return refuse("invalid_scope")
        tokens.use(name, token.family)
        return give(token, { scope: scope === "" ? token.scope : scope })
      }
      case "authorization_code": {
        const code = authorization.redeem(form, clientId)
        return code === undefined ? refuse("invalid_grant", "the code is not good") : give(code)
      }
      case "urn:ietf:params:oauth:grant-type:device_code": {
        const code = devices.poll(form.get("device_code") ?? "", clientId, now)
        return code instanceof Response ? code : give(code)
      }
      case "urn:ietf:params:oauth:grant-type:jwt-bearer":
        return form.get("assertion") ? giveAsked() : refuse("invalid_request", "assertion is missing")
      case "urn:ietf:params:oauth:grant-type:token-exchange":
        return form.get("subject_token") && form.get("subject_token_type")
          ? giveAsked({
            issued_token_type: form.get("requested_token_type") ?? "urn:ietf:params:oauth:token-type:access_token"
          })
          : refuse("invalid_request", "subject_token or subject_token_type is missing")
      default:
        return refuse("unsupported_grant_type")
    }
  })
