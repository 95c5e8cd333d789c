/** Random names from the platform's crypto. */

/** 128 random bits in hex: the name of an owner, of a temporary file, or of an assertion. */
export const randomName = (): string =>
  Array.from(globalThis.crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(
    ""
  )
