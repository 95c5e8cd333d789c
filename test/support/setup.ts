/** Runs before each file: a `layer` puts its own `effect` and `scoped` on `it`, which the files of a worker share. */
import { it, makeMethods } from "@effect/vitest"

makeMethods(it)
