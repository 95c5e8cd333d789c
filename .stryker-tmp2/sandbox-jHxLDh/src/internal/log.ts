// @ts-nocheck
import * as Effect from "effect/Effect"

/** Marks the log lines of a module. */
export const inModule = (module: string) => Effect.annotateLogs({ package: "effect-alf", module })
