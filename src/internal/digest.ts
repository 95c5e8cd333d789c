/** SHA-256, without node. */
import { sha256 } from "@noble/hashes/sha2.js"

/** SHA-256 of a text, in hex. Joined, since a text that grows byte by byte takes a kilobyte of memory as long as it is kept. */
export const digest = (text: string): string =>
  Array.from(sha256(new TextEncoder().encode(text)), (byte) => byte.toString(16).padStart(2, "0")).join("")
