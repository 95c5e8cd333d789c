/** SHA-256, without node. */
import { sha256 } from "@noble/hashes/sha2.js"
import * as Encoding from "effect/Encoding"

/** SHA-256 of a text, in hex. */
export const digest = (text: string): string => Encoding.encodeHex(sha256(new TextEncoder().encode(text)))
