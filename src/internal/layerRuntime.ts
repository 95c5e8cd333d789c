/** The runtime that a layer is built in, for what it does later. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Runtime from "effect/Runtime"
import * as Tracer from "effect/Tracer"

/** The span that a layer is built in is not the parent of what its flights do later. */
export const layerRuntime = <R>(): Effect.Effect<Runtime.Runtime<R>, never, R> =>
  Effect.map(Effect.runtime<R>(), (runtime) => ({
    ...runtime,
    context: Context.omit(Tracer.ParentSpan)(
      runtime.context as Context.Context<R | Tracer.ParentSpan>
    ) as Context.Context<R>
  }))
