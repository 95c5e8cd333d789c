/** The clients of the test server, and how a request proves which of them sends it (RFC 6749 §2.3). */
import * as Effect from "effect/Effect"
import { type Credentials, credentials, type Received, refuse, respond } from "./http.ts"
import * as Jwt from "./jwt.ts"
import { issuer, tokenEndpoint } from "./metadata.ts"

interface Client {
  readonly id: string
  readonly secret?: string | undefined
  readonly keys?: ReadonlyArray<object> | undefined
}

export type Clients = ReturnType<typeof makeClients>

/** Without a list any client is known, with any secret. */
export const makeClients = (clients: ReadonlyArray<Client> | undefined) => {
  const secrets = new Map(clients?.map(({ id, secret }) => [id, secret]))
  const keys = new Map(clients?.map(({ id, keys = [] }) => [id, keys]))
  const isNew = Jwt.makeIsNew()

  const hasSecret = ({ id, secret }: Credentials): boolean =>
    secrets.has(id)
      ? secrets.get(id) === secret && (keys.get(id) ?? []).length === 0
      : clients === undefined && id !== ""

  /** The client that an assertion proves (RFC 7523 §3): signature, audience, lifetime, and used once. */
  const assertedBy = (form: URLSearchParams, now: number): Effect.Effect<string | undefined> =>
    Effect.gen(function*() {
      const jwt = Jwt.parse(form.get("client_assertion") ?? "")
      if (jwt === undefined) return undefined
      const { aud, exp, iss, jti, sub } = jwt.payload
      const id = typeof iss === "string" ? iss : ""
      const own = [
        ...(keys.get(id) ?? []).map((key) => Object.fromEntries(Object.entries(key))),
        ...[secrets.get(id) ?? []].flat()
      ]
      const checks = yield* Effect.forEach(own, (key) => Jwt.isSignedBy(jwt, key))
      const isRight = checks.includes(true) && iss === sub && [issuer, tokenEndpoint].includes(String(aud)) &&
        typeof exp === "number" && now < 1000 * exp && form.get("client_id") === (form.has("client_id") ? id : null)
      return isRight && isNew(jti) ? id : undefined
    })

  return {
    isKnown: (id: string): boolean => clients === undefined || secrets.has(id),

    /** The client that sends a request; a response if it is not told or not proved. */
    authenticate: (request: Received, form: URLSearchParams, now: number): Effect.Effect<string | Response> => {
      const { authorization } = request.headers
      const invalid = (description: string) => Effect.succeed(refuse("invalid_request", description))
      if (request.method !== "POST") return invalid("the method is not POST")
      if (!request.headers["content-type"]?.startsWith("application/x-www-form-urlencoded")) {
        return invalid("the body is not a form")
      }
      for (const name of new Set(form.keys())) {
        if (name !== "resource" && form.getAll(name).length > 1) return invalid(`${name} is repeated`)
      }
      const methods = [authorization !== undefined, form.has("client_secret"), form.has("client_assertion")]
      if (methods.filter(Boolean).length > 1) return invalid("more than one method of client authentication")
      const challenge = authorization === undefined ? {} : { "www-authenticate": "Basic realm=\"auth\"" }
      const unknown = () => respond(401, { error: "invalid_client" }, challenge)
      return form.has("client_assertion")
        ? Effect.map(assertedBy(form, now), (id) => id ?? unknown())
        : Effect.succeed(credentials(authorization, form).find(hasSecret)?.id ?? unknown())
    },

    rotateSecret: (id: string, secret: string): void => void secrets.set(id, secret)
  }
}
