/** Protects callers from the callbacks of users. */
import { constVoid } from "effect/Function"

/** Wraps a callback, so that it never throws and a rejected promise of an async one does not end the process. */
export const harmless =
  <Args extends ReadonlyArray<unknown>>(callback: (...args: Args) => unknown): ((...args: Args) => void) =>
  (...args) => {
    try {
      const returned = callback(...args)
      if (returned instanceof Promise) returned.catch(constVoid)
    } catch {
      // A failing callback must not fail the call.
    }
  }
