/** Complains of an argument: names the option, what is expected of it, and what was given. */
export const invalid = (option: string, expected: string, got: unknown): never => {
  throw new RangeError(`${option}: expected ${expected}, got ${String(got)}`)
}
