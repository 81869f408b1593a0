import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** Builds layers as one program that has them all would: shared layers are built once. */
export const together = <A, E, R>(layers: ReadonlyArray<Layer.Layer<A, E, R>>) =>
  Effect.gen(function* () {
    const memoMap = yield* Layer.makeMemoMap
    const scope = yield* Effect.scope
    return yield* Effect.forEach(layers, (layer) => Layer.buildWithMemoMap(layer, memoMap, scope))
  })
