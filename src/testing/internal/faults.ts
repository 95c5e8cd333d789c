/** The failures of the token endpoint that a test has asked for. */
import { respond } from "./http.ts"

const usable = { access_token: "malformed", token_type: "Bearer", expires_in: 3600 }

/** Successes that hold no usable token. */
export const malformed = {
  html: () => respond(200, "<html><body>Please sign in to the network</body></html>"),
  empty: () => respond(200),
  truncated: () => respond(200, JSON.stringify(usable).slice(0, 30)),
  tooLong: () => respond(200, { ...usable, padding: " ".repeat(1024 * 1024) }),
  array: () => respond(200, [usable]),
  null: () => respond(200, null),
  noAccessToken: () => respond(200, { ...usable, access_token: undefined }),
  emptyAccessToken: () => respond(200, { ...usable, access_token: "" }),
  lineBreakInAccessToken: () => respond(200, { ...usable, access_token: "malformed\r\nx-injected: 1" }),
  noTokenType: () => respond(200, { ...usable, token_type: undefined }),
  macTokenType: () => respond(200, { ...usable, token_type: "mac" }),
  negativeExpiresIn: () => respond(200, { ...usable, expires_in: -1 }),
  wordInExpiresIn: () => respond(200, { ...usable, expires_in: "soon" }),
  errorInSuccess: () => respond(200, { error: "invalid_request" })
}

export const makeFaults = () => {
  let faults: ReadonlyArray<{ readonly times: number; readonly response: () => Response }> = []
  return {
    /** The next `times` requests get this response, after those that were asked for before. */
    add: (times: number, response: () => Response): void => {
      if (times > 0) faults = [...faults, { times, response }]
    },
    /** The failure of this request, if it is to fail. */
    next: (): Response | undefined => {
      const [fault, ...later] = faults
      if (fault === undefined) return undefined
      faults = fault.times > 1 ? [{ ...fault, times: fault.times - 1 }, ...later] : later
      return fault.response()
    },
    clear: (): void => {
      faults = []
    }
  }
}
