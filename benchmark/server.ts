/** The token endpoint and the API that all subjects talk to, in a process of its own. It is told what to do by its parent. */
import * as Http from "node:http"
import type { Socket } from "node:net"

export interface Behaviour {
  /** `expires_in` of the next tokens, in seconds. */
  expiresIn: number
  /** How long the token endpoint takes, in milliseconds. */
  tokenDelay: number
  /** Of three token requests, two fail with 503. */
  isFlaky: boolean
  /** The share of token requests that fail with 503, and of those that take 3 seconds. */
  failing: number
  slow: number
  /** The API answers 401 to everything. */
  refusesAll: boolean
  /** A 401 comes after a time of up to this, in milliseconds. */
  straggle: number
  /** The size of a 401's body, in bytes. */
  refusalSize: number
}

export interface Counts {
  tokenRequests: number
  apiRequests: number
  refusals: number
  /** The most connections that were open at once, and those that are open now. */
  connections: number
  open: number
}

export type Command =
  | { readonly _tag: "reset"; readonly behaviour: Partial<Behaviour> }
  | { readonly _tag: "revoke" }
  | { readonly _tag: "counts" }

export const calm: Behaviour = {
  expiresIn: 3600,
  tokenDelay: 0,
  isFlaky: false,
  failing: 0,
  slow: 0,
  refusesAll: false,
  straggle: 0,
  refusalSize: 2
}

if (process.send !== undefined) serve()

function serve(): void {
  let behaviour = calm
  let counts: Counts = { tokenRequests: 0, apiRequests: 0, refusals: 0, connections: 0, open: 0 }
  let tokens = new Map<string, number>()
  let issued = 0
  const open = new Set<Socket>()

  const answer = (response: Http.ServerResponse, status: number, body: string) => {
    const scheme = response.req.headers["dpop"] === undefined ? "Bearer" : "DPoP"
    response.writeHead(status, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      ...(status === 401 ? { "www-authenticate": `${scheme} error="invalid_token"` } : {})
    })
    response.end(body)
  }

  const server = Http.createServer((request, response) => {
    request.resume()
    request.on("end", () => {
      if (request.url === "/token") {
        counts.tokenRequests++
        const isFailing = (behaviour.isFlaky && counts.tokenRequests % 3 !== 0) || Math.random() < behaviour.failing
        setTimeout(() => {
          if (isFailing) return answer(response, 503, "{}")
          const token = `token-${++issued}`
          const body = JSON.stringify({
            access_token: token,
            token_type: request.headers["dpop"] === undefined ? "Bearer" : "DPoP",
            expires_in: behaviour.expiresIn,
            issued_token_type: "urn:ietf:params:oauth:token-type:access_token"
          })
          tokens.set(token, Date.now() + behaviour.expiresIn * 1000)
          answer(response, 200, body)
        }, Math.random() < behaviour.slow ? 3_000 : behaviour.tokenDelay)
        return
      }
      // for those that look for it
      if (request.url === "/.well-known/oauth-authorization-server") {
        const issuer = `http://${request.headers.host}`
        return answer(
          response,
          200,
          JSON.stringify({
            issuer,
            authorization_endpoint: `${issuer}/authorize`,
            token_endpoint: `${issuer}/token`,
            response_types_supported: ["code"]
          })
        )
      }
      if (request.url?.startsWith("/.well-known/")) return answer(response, 404, "{}")
      counts.apiRequests++
      const token = request.headers.authorization?.replace(/^(?:Bearer|DPoP) /, "") ?? ""
      if (!behaviour.refusesAll && (tokens.get(token) ?? 0) > Date.now()) return answer(response, 200, "{}")
      counts.refusals++
      const body = " ".repeat(behaviour.refusalSize)
      if (behaviour.straggle === 0) return answer(response, 401, body)
      setTimeout(() => answer(response, 401, body), Math.random() * behaviour.straggle)
    })
  })
  server.keepAliveTimeout = 60_000
  server.on("connection", (socket) => {
    counts.connections = Math.max(counts.connections, open.add(socket).size)
    socket.on("close", () => open.delete(socket))
  })
  server.listen(0, "127.0.0.1", () => process.send!({ port: (server.address() as { port: number }).port }))

  process.on("message", (command: Command) => {
    switch (command._tag) {
      case "reset":
        behaviour = { ...calm, ...command.behaviour }
        counts = { tokenRequests: 0, apiRequests: 0, refusals: 0, connections: 0, open: 0 }
        // those of the client before
        for (const socket of open) socket.destroy()
        open.clear()
        tokens = new Map([["fixed", Infinity]])
        break
      case "revoke":
        tokens = new Map([["fixed", Infinity]])
        break
      case "counts":
        break
    }
    process.send!({ counts: { ...counts, open: open.size } })
  })
  process.on("disconnect", () => process.exit())
}
