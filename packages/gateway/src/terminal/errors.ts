/**
 * Words errors for people: invalid flags, and the causes of failures.
 */
import * as CliError from "effect/cli/CliError"
import * as Effect from "effect/Effect"
// Of the internals only this, because all of them take a third of the time in which `--version` answers.
import { nearest } from "floodgate/internal/nearest"

/** The name of a flag by its name in the code. */
export const kebab = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

const meant = (suggestions: ReadonlyArray<string>): string =>
  suggestions.length === 0 ? "" : `: did you mean ${suggestions.map((name) => `"${name}"`).join(" or ")}?`

/** Quotes a value, unless it may contain a password or a key, as addresses do. */
const quoted = (value: string): string => (/\S@\S|[?&#]\S*=/.test(value) ? "something else (not shown)" : `"${value}"`)

const invalidValue = ({ expected, kind, option, value }: CliError.InvalidValue): string => {
  const name = kind === "flag" ? `--${option}` : option
  if (value === "") return `${name} needs a value: ${expected}`
  const [, why] = /^nothing: (.*)$/s.exec(expected) ?? []
  if (why !== undefined) return `${name} ${quoted(value)} does not apply: ${why}`
  const choices = [...expected.matchAll(/"([^"]+)"(?= \||$)/g)].map(([, choice]) => choice!)
  const near = expected.includes(" | ") ? nearest(value, choices) : undefined
  return near === undefined
    ? `${name}: expected ${expected}, got ${quoted(value)}`
    : `${name}: unknown value ${quoted(value)}${meant([near])}`
}

/** The errors of an invocation, each in one sentence, worded as the library's own. */
export const sentencesOf = (errors: ReadonlyArray<CliError.CliError>): ReadonlyArray<string> => {
  // The value after an unknown flag is taken for a command, too.
  const hasUnknownFlag = errors.some(({ _tag }) => _tag === "UnrecognizedOption")
  return errors.filter(({ _tag }) => !hasUnknownFlag || _tag !== "UnknownSubcommand").map(sentenceOf)
}

const sentenceOf = (error: CliError.CliError): string => {
  switch (error._tag) {
    case "UnrecognizedOption":
      return `unknown flag "${error.option}"${meant(error.suggestions)}`
    case "UnknownSubcommand":
      return `unknown command "${error.subcommand}"${meant(error.suggestions)}`
    case "InvalidValue":
      return invalidValue(error)
    default:
      return error.message
  }
}

/** A command's path for the hint at its help. `run` is a command of `floodgate`; names with `floodgate` are whole. */
const pathOf = (command: string): Array<string> =>
  command.startsWith("floodgate") ? [command] : ["floodgate", command]

/** The error for an invalid value of a flag. `option` is its name in the code. */
export const invalidFlag =
  (command: string) =>
  (option: string, expected: string, value: string): CliError.ShowHelp =>
    new CliError.ShowHelp({
      commandPath: pathOf(command),
      errors: [new CliError.InvalidValue({ kind: "flag", option: kebab(option), expected, value })]
    })

/** Calls a module with the values of flags. If it throws a `RangeError`, fails with an error that names the flag. */
export const orInvalid =
  (command: string, module: string) =>
  <A>(make: () => A): Effect.Effect<A, CliError.ShowHelp> =>
    Effect.suspend(() => {
      try {
        return Effect.succeed(make())
      } catch (error) {
        const message = error instanceof RangeError ? error.message : ""
        const match = /^(\w+)\.\w+: (?:[\w.[\]]+\.)?(\w+): expected (.*), got (.*)$/.exec(message)
        if (match?.[1] !== module) throw error
        return Effect.fail(invalidFlag(command)(match[2]!, match[3]!, match[4]!))
      }
    })

/** Causes may be circular, so the search ends at this depth. */
const maxDepth = 8

/** The innermost cause, which is the most informative: its code, or the first line of its message. */
export const innermost = (error: unknown, depth = 0): string => {
  if (!(error instanceof Error)) return String(error)
  const { cause, code, errors } = error as Error & {
    readonly code?: unknown
    readonly errors?: ReadonlyArray<unknown>
  }
  const inner = cause ?? errors?.[0]
  if (inner !== undefined && depth < maxDepth) return innermost(inner, depth + 1)
  if (typeof code === "string") return code
  const [line = ""] = error.message.split("\n")
  return line === "" ? error.name : line
}
