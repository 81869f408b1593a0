/**
 * Renders results as tables, for a terminal and in Markdown.
 *
 * @stability experimental
 * @since 0.1.0
 */
import type { RaceResult } from "./race.ts"
import * as Words from "floodgate/internal/words"
import * as Scenarios from "./scenario.ts"
import type { Scenario } from "./scenario.ts"

interface Column {
  readonly head: string
  readonly cell: (result: RaceResult) => string
}

const fixed = (value: number | null, digits: number): string => (value === null ? "-" : value.toFixed(digits))

const columns: ReadonlyArray<Column> = [
  { head: "strategy", cell: ({ strategy }) => strategy },
  // Finished work comes first, because strategies that give up are fast.
  { head: "calls failed", cell: ({ failedCalls }) => Words.thousands(failedCalls) },
  {
    head: "makespan",
    cell: ({ failedCalls, finished, makespanSeconds }) =>
      `${finished ? "" : "> "}${fixed(makespanSeconds, 1)}${finished && failedCalls > 0 ? "*" : ""}`
  },
  { head: "floor", cell: ({ floorSeconds }) => fixed(floorSeconds, 1) },
  { head: "ratio", cell: ({ finished, ratio }) => `${finished ? "" : "> "}${fixed(ratio, 2)}` },
  { head: "429s", cell: ({ rejections }) => Words.thousands(rejections) },
  { head: "retries", cell: ({ retries }) => Words.thousands(retries) },
  { head: "agents failed", cell: ({ failedAgents }) => Words.thousands(failedAgents) },
  { head: "p50", cell: ({ p50Seconds }) => fixed(p50Seconds, 1) },
  { head: "p99", cell: ({ p99Seconds }) => fixed(p99Seconds, 1) },
  { head: "fairness", cell: ({ fairness }) => fixed(fairness, 2) }
]

/** Whether all sessions had to wait for the last one, which the makespan does not show. */
const meanEnd: Column = { head: "mean end", cell: ({ meanEndSeconds }) => fixed(meanEndSeconds, 1) }

/** The columns of a scenario's table. */
const columnsOf = (scenario: Scenario): ReadonlyArray<Column> =>
  Scenarios.isOfSessions(scenario) ? columns.toSpliced(3, 0, meanEnd) : columns

/**
 * The heads of the table's columns.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const heads: ReadonlyArray<string> = columns.map(({ head }) => head)

/**
 * A result as the cells of its row.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const cells = (result: RaceResult): ReadonlyArray<string> => columns.map(({ cell }) => cell(result))

/** Splits heads of two words into two lines, so that columns are no wider than their figures. */
const headLines = (some: ReadonlyArray<Column>): [Array<string>, Array<string>] => {
  const words = some.map(({ head }) => head.split(" "))
  return [words.map((all) => (all.length > 1 ? all[0]! : "")), words.map((all) => all.at(-1)!)]
}

/** The columns that are left out on a narrow terminal, the least important first. */
const spared = ["fairness", "retries", "agents failed", "p50", "floor", "ratio", "p99"]

interface Grid {
  readonly heads: ReadonlyArray<string>
  readonly lines: ReadonlyArray<ReadonlyArray<string>>
  readonly widths: ReadonlyArray<number>
  readonly width: number
}

const gridOf = (some: ReadonlyArray<Column>, results: ReadonlyArray<RaceResult>): Grid => {
  const lines = [...headLines(some), ...results.map((result) => some.map(({ cell }) => cell(result)))]
  const widths = some.map((_, index) => Math.max(...lines.map((line) => line[index]!.length)))
  return { heads: some.map(({ head }) => head), lines, widths, width: widths.reduce((sum, one) => sum + one + 2, -2) }
}

/** The columns that fit, because wrapped lines are unreadable. */
const fitting = (columns: ReadonlyArray<Column>, results: ReadonlyArray<RaceResult>, room: number): Grid => {
  let grid = gridOf(columns, results)
  for (let left = 1; grid.width > room && left <= spared.length; left++) {
    const out = new Set(spared.slice(0, left))
    grid = gridOf(
      columns.filter(({ head }) => !out.has(head)),
      results
    )
  }
  return grid
}

/**
 * Explains the marks in the rows, if there are any.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const notesOf = (results: ReadonlyArray<RaceResult>): ReadonlyArray<string> => [
  ...(results.some(({ failedCalls, finished }) => finished && failedCalls > 0)
    ? ["* ended with calls lost: the work was not done"]
    : []),
  ...(results.some(({ finished }) => !finished) ? ["> had not finished when it was stopped"] : [])
]

/**
 * A table for a terminal, with the model of the provider. Columns that do not fit are left out, and named below.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const text = (scenario: Scenario, results: ReadonlyArray<RaceResult>, room = Infinity): string => {
  const all = columnsOf(scenario)
  const { heads: shown, lines, width, widths } = fitting(all, results, room)
  const missing = all.map(({ head }) => head).filter((head) => !shown.includes(head))
  const render = (line: ReadonlyArray<string>): string =>
    line
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[index]!) : cell.padStart(widths[index]!)))
      .join("  ")
      .trimEnd()
  const [over, under, ...rows] = lines.map(render)
  return [
    `Scenario ${scenario.name}: ${scenario.summary}`,
    `Provider: ${Scenarios.modelOf(scenario)}`,
    "",
    over,
    under,
    "-".repeat(width),
    ...rows,
    "",
    ...(missing.length === 0 ? [] : [`No room for: ${missing.join(", ")}.`]),
    ...notesOf(results),
    "Simulated seconds. Latency (p50, p99) includes waits; fairness is the latest agent over the earliest."
  ].join("\n")
}

/** The floor is the same in each row, and is shown above the table. */
const markdownColumns = columns.filter(({ head }) => head !== "floor")

/**
 * A table in Markdown, with the model of the provider.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const markdown = (scenario: Scenario, results: ReadonlyArray<RaceResult>): string => {
  const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`
  const escaped = (text: string): string => text.replace("*", "\\*").replace("> ", "&gt; ")
  const notes = notesOf(results).map(escaped)
  return [
    `Provider: ${Scenarios.modelOf(scenario)}.${results[0] === undefined ? "" : ` Floor: ${fixed(results[0].floorSeconds, 1)} s.`}`,
    "",
    line(markdownColumns.map(({ head }) => head)),
    line(markdownColumns.map((_, index) => (index === 0 ? "---" : "---:"))),
    ...results.map((result) => line(markdownColumns.map(({ cell }) => escaped(cell(result))))),
    ...(notes.length === 0 ? [] : ["", `${notes.join("; ")}.`])
  ].join("\n")
}

/**
 * The scenario in the JSON of its results.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const scenarioJson = (scenario: Scenario): Readonly<Record<string, string | number | boolean | null>> => ({
  name: scenario.name,
  summary: scenario.summary,
  provider: Scenarios.modelOf(scenario),
  ...scenario.settings,
  calls: Scenarios.callsOf(scenario).length,
  maxSeconds: scenario.maxSeconds
})
