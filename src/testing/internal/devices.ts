/** The device codes of the test server (RFC 8628). */
import { refuse, respond } from "./http.ts"
import { issuer } from "./metadata.ts"
import type { Permission } from "./tokens.ts"

/** How long a device code is good for, in seconds. */
const lifetime = 600

/** The pause between two polls, in seconds. */
const interval = 5

interface DeviceCode extends Permission {
  readonly userCode: string
  readonly expiresAt: number
  state: "pending" | "approved" | "denied"
  polledAt: number
}

export type Devices = ReturnType<typeof makeDevices>

export const makeDevices = () => {
  const codes = new Map<string, DeviceCode>()
  return {
    /** A device asks for a code (RFC 8628 §3.2). */
    start: (clientId: string, scope: string, now: number): Response => {
      const id = codes.size + 1
      const userCode = `CODE-${String(id).padStart(4, "0")}`
      codes.set(`device-${id}`, {
        clientId,
        scope,
        userCode,
        expiresAt: now + 1000 * lifetime,
        state: "pending",
        polledAt: -Infinity
      })
      return respond(200, {
        device_code: `device-${id}`,
        user_code: userCode,
        verification_uri: `${issuer}/activate`,
        verification_uri_complete: `${issuer}/activate?user_code=${userCode}`,
        expires_in: lifetime,
        interval
      })
    },

    /** What was permitted; a response as long as a person has not said yes (RFC 8628 §3.5). */
    poll: (name: string, clientId: string, now: number): Permission | Response => {
      const code = codes.get(name)
      if (code?.clientId !== clientId) return refuse("invalid_grant", "the device code is not good")
      if (now >= code.expiresAt) return refuse("expired_token")
      const isEarly = now - code.polledAt < 1000 * interval
      code.polledAt = now
      if (code.state === "denied") return refuse("access_denied")
      if (code.state === "pending") return refuse(isEarly ? "slow_down" : "authorization_pending")
      codes.delete(name)
      return { clientId, scope: code.scope }
    },

    decide: (userCode: string, state: "approved" | "denied"): void => {
      for (const code of codes.values()) if (code.userCode === userCode) code.state = state
    }
  }
}
