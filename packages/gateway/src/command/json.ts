/** Parses JSON, and names the line and column where it is invalid. Pure. */
import { oneLine } from "../terminal/text.ts"

const parsed = (text: string): { readonly value: unknown } | { readonly error: string } => {
  try {
    return { value: JSON.parse(text) }
  } catch (error) {
    return { error: (error as SyntaxError).message }
  }
}

/** Finds where the parser stopped. Its error omits the position of an unexpected token, so the longest valid beginning is searched. */
const stopOf = (text: string, error: string): number => {
  const stated = / at position (\d+)/.exec(error)?.[1]
  if (stated !== undefined) return Number(stated)
  const isBeginning = (length: number): boolean => {
    const result = parsed(text.slice(0, length))
    return "value" in result || /end of JSON|at position/.test(result.error)
  }
  let [good, bad] = [0, text.length + 1]
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2)
    if (isBeginning(middle)) good = middle
    else bad = middle
  }
  return good
}

/** Parses JSON, or names the line and column of the error. The text is not quoted, because it may contain a secret. */
export const parseJson = (text: string): ReturnType<typeof parsed> => {
  const result = parsed(text)
  if ("value" in result) return result
  const lines = text.slice(0, stopOf(text, result.error)).split("\n")
  const why = result.error.replace(/, (?:\.\.\.)?".*$/s, "").replace(/ in JSON at position.*$/s, "")
  return { error: `line ${lines.length}, column ${lines.at(-1)!.length + 1}: ${oneLine(why)}` }
}
