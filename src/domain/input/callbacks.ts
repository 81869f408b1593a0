/** Callbacks of users, which must not break what calls them. */
import { constVoid } from "effect/Function"

/** The same callback, which throws nothing. One that is async may reject: Node would end the process for it. */
export const harmless =
  <Args extends ReadonlyArray<unknown>>(callback: (...args: Args) => unknown): ((...args: Args) => void) =>
  (...args) => {
    try {
      const returned = callback(...args)
      if (returned instanceof Promise) returned.catch(constVoid)
    } catch {
      // Its failures are not the call's.
    }
  }
