/** Scopes as OAuth writes them: one text with spaces (RFC 6749 §3.3). */

export const scopes = (scope: string): ReadonlyArray<string> => scope.split(" ").filter((part) => part !== "")

/** One text or a list, as options take them. */
export const list = (input: string | ReadonlyArray<string> | undefined): ReadonlyArray<string> =>
  input === undefined ? [] : typeof input === "string" ? [input] : input
