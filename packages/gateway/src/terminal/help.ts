/** Prints the help of the commands, with lines that break between words. */
import * as CliOutput from "effect/cli/CliOutput"
import type * as HelpDoc from "effect/cli/HelpDoc"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { sentencesOf } from "./errors.ts"
import * as Exit from "./exit.ts"
import * as Print from "./print.ts"
import { hung, wrapLine } from "./text.ts"

const usualColumns = 80
const maxColumns = 100
/** The formatter adds it behind the description of an optional argument. */
const optionalMark = " (optional)"

/** The columns at which the formatter begins the descriptions of a table, line by line. */
const startsOf = (lefts: ReadonlyArray<string>, cap: number): ReadonlyArray<number> => {
  const column = Math.min(cap, Math.max(...lefts.map((left) => left.length)) + 4)
  return lefts.map((left) => 2 + Math.max(column, left.length + 1))
}

/** Removes the choices from a description that refers to a section below, which explains them. */
const withoutExplained = (text: string): string => text.replace(/(?<=\bsee [A-Z]+ below\b.*) \(choices: [^)]*\)$/s, "")

/** Replaces a long list of choices, which the description has as well. */
const shortType = (type: string): string => (type.length > 20 ? "<choice>" : type)

const flagsIn = (flags: ReadonlyArray<HelpDoc.FlagDoc>, columns: number): ReadonlyArray<HelpDoc.FlagDoc> => {
  const short = flags.map((flag) => ({ ...flag, type: shortType(flag.type) }))
  const starts = startsOf(
    short.map(({ aliases, name, type }) =>
      [`--${name}`, ...aliases].join(", ").concat(type === "boolean" ? "" : ` ${type}`)
    ),
    Infinity
  )
  return short.map((flag, index) => ({
    ...flag,
    description: Option.map(flag.description, (text) => hung(withoutExplained(text), starts[index]!, columns))
  }))
}

/** Breaks a command where the shell allows it, but never within quotes or between a flag and its value. */
const commandIn = (command: string, columns: number): string => {
  let line = ""
  const lines: Array<string> = []
  for (const word of command.match(/(?:--\S+ (?!--))?(?:"[^"]*"|[^\s"])+/g) ?? []) {
    if (line !== "" && line.length + 1 + word.length > columns - 8) {
      lines.push(line)
      line = ""
    }
    line += line === "" ? word : ` ${word}`
  }
  return [...lines, line].join(" \\\n      ")
}

/** Wraps the texts of a help document at a width, as the default formatter places them. */
const docIn = (doc: HelpDoc.HelpDoc, columns: number): HelpDoc.HelpDoc => {
  const argumentStarts = startsOf(
    (doc.args ?? []).map(({ name, type, variadic }) => `${name}${variadic ? "..." : ""} ${type}`),
    25
  )
  return {
    ...doc,
    description: hung(doc.description, 2, columns),
    flags: flagsIn(doc.flags, columns),
    ...(doc.globalFlags !== undefined && { globalFlags: flagsIn(doc.globalFlags, columns) }),
    ...(doc.args !== undefined && {
      args: doc.args.map((arg, index) => ({
        ...arg,
        description: Option.map(arg.description, (text) =>
          hung(text, argumentStarts[index]!, columns - (arg.required ? 0 : optionalMark.length))
        )
      }))
    }),
    ...(doc.subcommands !== undefined && {
      subcommands: doc.subcommands.map((group, place, groups) => {
        const starts = startsOf(
          group.commands.map(({ name }) => name),
          20
        )
        // The formatter leaves no empty line between the last command and the examples.
        const isLast = place === groups.length - 1
        const end = (index: number) => (isLast && index === group.commands.length - 1 ? "\n" : "")
        const [first, ...rest] = group.commands.map((command, index) => ({
          ...command,
          shortDescription: hung(command.shortDescription ?? command.description, starts[index]!, columns) + end(index)
        }))
        return { ...group, commands: [first!, ...rest] as const }
      })
    }),
    ...(doc.examples !== undefined && {
      examples: doc.examples.map(({ command, description }) => ({
        command: commandIn(command, columns),
        description: description === undefined ? undefined : wrapLine(description, columns - 4, "").join("\n  # ")
      }))
    })
  }
}

/** A list at the end of a command's help: names with their meanings. */
export interface HelpSection {
  readonly heading: string
  readonly rows: ReadonlyArray<readonly [name: string, meaning: string]>
}

/** The lists of a command, as an annotation. */
export const Sections: Context.Reference<ReadonlyArray<HelpSection>> = Context.Reference<ReadonlyArray<HelpSection>>(
  "floodgate/cli/Sections",
  { defaultValue: () => [] }
)

/** A list as a section of the help. */
const sectionIn = ({ heading, rows }: HelpSection, columns: number): string => {
  const starts = startsOf(
    rows.map(([name]) => name),
    Infinity
  )
  const lines = rows.map(
    ([name, meaning], index) => `  ${name.padEnd(starts[index]! - 2)}${hung(meaning, starts[index]!, columns)}`
  )
  return [heading, ...lines].join("\n")
}

/** Help is printed on standard output. An invalid call gets its error and a hint, not the whole help. */
export const presenter: CliOutput.Presenter = {
  present: Effect.fnUntraced(function* (event) {
    switch (event._tag) {
      case "Help": {
        const { stdout } = yield* Print.Room
        const columns = stdout === Infinity ? usualColumns : Math.min(stdout, maxColumns)
        const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
        const formatter = CliOutput.defaultFormatter({ colors: canColor })
        const text = formatter.formatHelpDoc(docIn(event.helpDoc, columns))
        const sections = [
          ...Context.get(event.helpDoc.annotations, Sections),
          { heading: "EXIT CODES", rows: Exit.meanings }
        ]
        const lists = sections.map((section) => sectionIn(section, columns))
        return yield* Console.log([text.trimEnd(), ...lists].join("\n\n"))
      }
      case "InvalidInvocation": {
        // Of a command, the name of the program; it is "floodgate gateway" where that is one.
        const [program] = event.commandPath.join(" ").split(" ")
        const lines = sentencesOf(event.errors).map((sentence) => `${program}: ${sentence}`)
        return yield* Print.err([...lines, `See ${event.commandPath.join(" ")} --help`].join("\n"))
      }
      case "Version":
        return yield* CliOutput.defaultPresenter.present(event)
    }
  })
}
