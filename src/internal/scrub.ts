/** Form parameters that are secrets (RFC 6749, 7521, 7636, 8628, 8693). */
const secretParams: ReadonlySet<string> = new Set([
  "actor_token",
  "assertion",
  "client_assertion",
  "client_secret",
  "code",
  "code_verifier",
  "device_code",
  "password",
  "refresh_token",
  "subject_token"
])

export const secretValues = (params: ReadonlyArray<readonly [string, string]>): ReadonlyArray<string> =>
  params.flatMap(([name, value]) => secretParams.has(name) ? [value] : [])

/** Strikes secrets out of a text that came from outside, in every writing in which a server may have echoed them. */
export const scrub = (text: string, secrets: ReadonlyArray<string>): string =>
  secrets
    .filter((secret) => secret !== "")
    .flatMap((secret) => [
      secret,
      JSON.stringify(secret).slice(1, -1),
      encodeURIComponent(secret),
      new URLSearchParams({ "": secret }).toString().slice(1)
    ])
    .sort((a, b) => b.length - a.length)
    .reduce((scrubbed, secret) => scrubbed.replaceAll(secret, "<redacted>"), text)

/** The beginning of a text, at most `bytes` long in UTF-8, no character cut. */
export const truncate = (text: string, bytes: number): string => {
  const encoded = new TextEncoder().encode(text)
  return encoded.length <= bytes ? text : new TextDecoder().decode(encoded.subarray(0, bytes), { stream: true })
}
