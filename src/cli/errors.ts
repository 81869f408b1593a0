/**
 * What goes wrong, for people: a flag that makes no sense, and why something failed in a few words. Pure.
 */
import * as CliError from "effect/cli/CliError"

/** A command that was given a flag whose value makes no sense. */
export const invalidFlag =
  (command: string) =>
  (option: string, expected: string, value: string): CliError.ShowHelp =>
    new CliError.ShowHelp({
      commandPath: ["floodgate", command],
      errors: [new CliError.InvalidValue({ kind: "flag", option, expected, value })]
    })

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
