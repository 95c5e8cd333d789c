import type { Subject } from "./subjects.ts"

export const peers: ReadonlyArray<Subject>
