/** Throws the `RangeError` of an option whose value makes no sense, worded as the library words its own. */
export const invalid = (option: string, expected: string, got: unknown): never => {
  throw new RangeError(
    `${option}: expected ${expected}, got ${typeof got === "string" ? JSON.stringify(got) : String(got)}`
  )
}
