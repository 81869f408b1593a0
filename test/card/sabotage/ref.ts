/** `effect/Ref` that drops every write: a reference keeps its first value. */
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"

export * from "effect/Ref"

export const makeUnsafe: typeof Ref.makeUnsafe = (value) => {
  const ref = Ref.makeUnsafe(value)
  Object.defineProperty(ref.ref, "current", { get: () => value, set: () => {} })
  return ref
}
export const make: typeof Ref.make = (value) => Effect.sync(() => makeUnsafe(value))
