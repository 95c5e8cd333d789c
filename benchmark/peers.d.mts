import type { Subject } from "./subjects.ts"

export const peers: ReadonlyArray<Subject>

/** Those that sign a proof for each request. */
export const proofs: ReadonlyArray<Subject>
