/**
 * Results as tables: for a terminal, and as Markdown.
 *
 * @since 0.1.0
 */
import type { Result } from "./race.ts"
import * as Scenarios from "./scenario.ts"
import type { Scenario } from "./scenario.ts"

interface Column {
  readonly head: string
  readonly cell: (result: Result) => string
}

const fixed = (value: number | null, digits: number): string => (value === null ? "-" : value.toFixed(digits))

const columns: ReadonlyArray<Column> = [
  { head: "strategy", cell: ({ strategy }) => strategy },
  {
    head: "makespan",
    cell: ({ failedCalls, finished, makespanSeconds }) =>
      `${finished ? "" : "> "}${fixed(makespanSeconds, 1)}${finished && failedCalls > 0 ? "*" : ""}`
  },
  { head: "floor", cell: ({ floorSeconds }) => fixed(floorSeconds, 1) },
  { head: "ratio", cell: ({ finished, ratio }) => `${finished ? "" : "> "}${fixed(ratio, 2)}` },
  { head: "429s", cell: ({ rejections }) => Scenarios.thousands(rejections) },
  { head: "retries", cell: ({ retries }) => Scenarios.thousands(retries) },
  { head: "calls failed", cell: ({ failedCalls }) => Scenarios.thousands(failedCalls) },
  { head: "agents failed", cell: ({ failedAgents }) => Scenarios.thousands(failedAgents) },
  { head: "p50", cell: ({ p50Seconds }) => fixed(p50Seconds, 1) },
  { head: "p99", cell: ({ p99Seconds }) => fixed(p99Seconds, 1) },
  { head: "fairness", cell: ({ fairness }) => fixed(fairness, 2) }
]

/**
 * The heads of the table's columns.
 *
 * @category rendering
 * @since 0.1.0
 */
export const heads: ReadonlyArray<string> = columns.map(({ head }) => head)

/**
 * A result as the cells of its row.
 *
 * @category rendering
 * @since 0.1.0
 */
export const cells = (result: Result): ReadonlyArray<string> => columns.map(({ cell }) => cell(result))

/** Heads of two words stand in two lines, so that the table is as wide as its figures. */
const headLines = (): [Array<string>, Array<string>] => {
  const words = columns.map(({ head }) => head.split(" "))
  return [words.map((all) => (all.length > 1 ? all[0]! : "")), words.map((all) => all.at(-1)!)]
}

/**
 * What the marks in the rows mean, where there are any.
 *
 * @category rendering
 * @since 0.1.0
 */
export const notesOf = (results: ReadonlyArray<Result>): ReadonlyArray<string> => [
  ...(results.some(({ failedCalls, finished }) => finished && failedCalls > 0)
    ? ["* ended with calls that failed: the work was not done"]
    : []),
  ...(results.some(({ finished }) => !finished) ? ["> stopped there: it had not finished"] : [])
]

/**
 * A table for a terminal, with the provider model that the figures belong to.
 *
 * @category rendering
 * @since 0.1.0
 */
export const text = (scenario: Scenario, results: ReadonlyArray<Result>): string => {
  const rows = results.map(cells)
  const lines = [...headLines(), ...rows]
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => line[index]!.length)))
  const render = (line: ReadonlyArray<string>): string =>
    line
      .map((cell, index) => (index === 0 ? cell.padEnd(widths[index]!) : cell.padStart(widths[index]!)))
      .join("  ")
      .trimEnd()
  const [over, under] = headLines()
  return [
    `Scenario ${scenario.name}: ${scenario.summary}`,
    `Provider: ${Scenarios.modelOf(scenario)}`,
    "",
    render(over),
    render(under),
    "-".repeat(widths.reduce((sum, width) => sum + width + 2, -2)),
    ...rows.map(render),
    "",
    ...notesOf(results),
    "Simulated seconds. Latency (p50, p99) includes waits; fairness is the latest agent over the earliest."
  ].join("\n")
}

/**
 * A table in Markdown, with the provider model that the figures belong to.
 *
 * @category rendering
 * @since 0.1.0
 */
export const markdown = (scenario: Scenario, results: ReadonlyArray<Result>): string => {
  const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`
  const escaped = (text: string): string => text.replace("*", "\\*").replace("> ", "&gt; ")
  const notes = notesOf(results).map(escaped)
  return [
    `Provider: ${Scenarios.modelOf(scenario)}.`,
    "",
    line(columns.map(({ head }) => head)),
    line(columns.map((_, index) => (index === 0 ? "---" : "---:"))),
    ...results.map((result) => line(cells(result).map(escaped))),
    ...(notes.length === 0 ? [] : ["", `${notes.join("; ")}.`])
  ].join("\n")
}

/**
 * The scenario as it stands in the JSON beside its results.
 *
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
