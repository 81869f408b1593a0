/** `effect/Ref` with a `set` that drops what it is given: a reference keeps its first value. */
import * as Effect from "effect/Effect"
import type * as Ref from "effect/Ref"

export * from "effect/Ref"

export const set = ((): Effect.Effect<void> => Effect.void) as unknown as typeof Ref.set
