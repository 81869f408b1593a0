/** Complains of an argument: names the option, what is expected of it, and what was given. */
export const invalid = (option: string, expected: string, got: unknown): never => {
  throw new RangeError(`${option}: expected ${expected}, got ${String(got)}`)
}

/** Complains of a key that nobody reads, and says which are read. */
export const onlyKnown = (what: string, given: object, known: ReadonlyArray<string>): void => {
  for (const [key, value] of Object.entries(given)) {
    if (value !== undefined && !known.includes(key)) invalid(what, `nothing but ${known.join(", ")}`, key)
  }
}
