/** Callbacks of users, which must not break what calls them. */

/** The same callback, which throws nothing. */
export const harmless =
  <Args extends ReadonlyArray<unknown>>(callback: (...args: Args) => void): ((...args: Args) => void) =>
  (...args) => {
    try {
      callback(...args)
    } catch {
      // Its failures are not the call's.
    }
  }
