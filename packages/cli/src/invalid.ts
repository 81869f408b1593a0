/** Throws a `RangeError` for an invalid option, worded as those of the library. */
export const invalid = (option: string, expected: string, got: unknown): never => {
  throw new RangeError(
    `${option}: expected ${expected}, got ${typeof got === "string" ? JSON.stringify(got) : String(got)}`
  )
}
