/** Why something failed, in a few words. Pure. */

/** Causes may lead around in a circle. */
const deepest = 8

/** The innermost cause, which says most: its code, or the first line of its message. */
export const innermost = (error: unknown, depth = 0): string => {
  if (!(error instanceof Error)) return String(error)
  const { cause, code, errors } = error as Error & {
    readonly code?: unknown
    readonly errors?: ReadonlyArray<unknown>
  }
  const inner = cause ?? errors?.[0]
  if (inner !== undefined && depth < deepest) return innermost(inner, depth + 1)
  if (typeof code === "string") return code
  const [line = ""] = error.message.split("\n")
  return line === "" ? error.name : line
}
