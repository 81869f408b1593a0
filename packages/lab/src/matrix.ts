/**
 * Renders the results of all strategies in all scenarios as one table: the time of each, or the lost calls.
 *
 * @stability experimental
 * @since 0.2.0
 */
import * as Words from "floodgate/internal/words"
import type { RaceResult } from "./race.ts"

/**
 * A scenario, and the results of the strategies in it.
 *
 * @stability experimental
 * @category models
 * @since 0.2.0
 */
export interface RaceResults {
  readonly name: string
  /** The calls of the scenario. If given, lost calls are shown as a part of them: `45 of 60`. */
  readonly planned?: number | undefined
  readonly results: ReadonlyArray<RaceResult>
}

/**
 * The result of a strategy in a scenario.
 *
 * @stability experimental
 * @category models
 * @since 0.2.0
 */
export interface MatrixCell {
  /** Whether all of the work was done, calls were lost, or the race was stopped at its bound. */
  readonly kind: "done" | "lost" | "unfinished"
  readonly text: string
  /** The time as a multiple of the oracle's, if all of the work was done and the oracle was raced. */
  readonly ratio: number | undefined
  /** 429s that the provider sent. */
  readonly rejections: number
}

const oracle = "oracle"

/**
 * The cell of a result. It has a time only if all of the work was done, because strategies that give up are fast.
 *
 * @stability experimental
 * @category getters
 * @since 0.2.0
 */
export const cellOf = (result: RaceResult, results: ReadonlyArray<RaceResult>, planned?: number): MatrixCell => {
  const { failedCalls, finished, makespanSeconds, rejections } = result
  if (!finished) return { kind: "unfinished", text: "no end", ratio: undefined, rejections }
  if (failedCalls > 0) {
    const of = planned === undefined ? "lost" : `of ${Words.thousands(planned)}`
    return { kind: "lost", text: `${Words.thousands(failedCalls)} ${of}`, ratio: undefined, rejections }
  }
  const best = results.find(({ strategy }) => strategy === oracle)
  const ratio = best === undefined || best.makespanSeconds === 0 ? undefined : makespanSeconds / best.makespanSeconds
  return { kind: "done", text: Words.seconds(makespanSeconds), ratio, rejections }
}

/** The strategies in their order, which is the same in all scenarios of a table. */
const strategiesOf = (races: ReadonlyArray<RaceResults>): ReadonlyArray<string> =>
  (races[0]?.results ?? []).map(({ strategy }) => strategy)

/**
 * The scenarios of each table: those with the same strategies, in the order of the first of them.
 *
 * @stability experimental
 * @category getters
 * @since 0.4.0
 */
export const tablesOf = <A extends RaceResults>(races: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> => [
  ...Map.groupBy(races, (race) => strategiesOf([race]).join()).values()
]

/**
 * A row for each strategy: its name, and a cell for each scenario.
 *
 * @stability experimental
 * @category getters
 * @since 0.2.0
 */
export const rowsOf = (
  races: ReadonlyArray<RaceResults>
): ReadonlyArray<{ readonly strategy: string; readonly cells: ReadonlyArray<MatrixCell> }> =>
  strategiesOf(races).map((strategy) => ({
    strategy,
    cells: races.map(({ planned, results }) =>
      cellOf(
        results.find((one) => one.strategy === strategy)!,
        results,
        planned
      )
    )
  }))

// -----------------------------------------------------------------------------
// Rendering
// -----------------------------------------------------------------------------

/** A name in two lines, broken at the hyphen that leaves both shortest. */
const inTwo = (name: string): readonly [string, string] => {
  const parts = name.split("-")
  let best: readonly [string, string] = ["", name]
  for (let at = 1; at < parts.length; at++) {
    const two = [`${parts.slice(0, at).join("-")}-`, parts.slice(at).join("-")] as const
    if (Math.max(two[0].length, two[1].length) < Math.max(best[0].length, best[1].length)) best = two
  }
  return best
}

/**
 * The style of a part of the table, if there are colours.
 *
 * @stability experimental
 * @category options
 * @since 0.4.0
 */
export type Tone = "lost" | "quiet" | "ours"

/**
 * Colours a text without changing its width.
 *
 * @stability experimental
 * @category options
 * @since 0.4.0
 */
export type Paint = (text: string, tone: Tone) => string

const unpainted: Paint = (text) => text

/** The head of the columns of rejections. */
const rejectionsHead = "429s"

const isOurs = (strategy: string): boolean => strategy.startsWith("floodgate")

/** A column of cells, and a narrow one of their rejections beside it. */
const columnOf = (name: string, cells: ReadonlyArray<MatrixCell>, paint: Paint) => {
  const [over, under] = inTwo(name)
  const counts = cells.map(({ rejections }) => Words.thousands(rejections))
  const right = Math.max(...[rejectionsHead, ...counts].map(({ length }) => length))
  const left = Math.max(...cells.map(({ text }) => text.length), Math.max(over.length, under.length) - right - 1)
  const width = left + 1 + right
  return {
    width,
    heads: [over, under, rejectionsHead].map((head) => head.padStart(width)),
    rows: cells.map(({ kind, text }, index) => {
      const time = text.padStart(left)
      return `${kind === "done" ? time : paint(time, "lost")} ${paint(counts[index]!.padStart(right), "quiet")}`
    })
  }
}

interface Block {
  readonly width: number
  readonly lines: ReadonlyArray<string>
}

const blockOf = (races: ReadonlyArray<RaceResults>, paint: Paint): Block => {
  const rows = rowsOf(races)
  const names = rows.map(({ strategy }) => strategy)
  const first = Math.max(...["strategy", ...names].map(({ length }) => length))
  const columns = races.map(({ name }, index) =>
    columnOf(
      name,
      rows.map(({ cells }) => cells[index]!),
      paint
    )
  )
  const width = columns.reduce((sum, column) => sum + 2 + column.width, first)
  const lineOf = (name: string, cells: ReadonlyArray<string>): string => [name, ...cells].join("  ")
  const heads = ["", "", "strategy"].map((name, line) =>
    lineOf(
      name.padEnd(first),
      columns.map(({ heads }) => heads[line]!)
    ).trimEnd()
  )
  const body = names.map((name, row) =>
    lineOf(
      isOurs(name) ? paint(name.padEnd(first), "ours") : name.padEnd(first),
      columns.map(({ rows }) => rows[row]!)
    )
  )
  return { width, lines: [...heads.filter((line) => line.trim() !== ""), "-".repeat(width), ...body] }
}

/**
 * The table for a terminal, split into several tables if it is too wide, or if scenarios have different strategies. Each scenario
 * has a column with the time or the lost calls, and one with the number of 429s.
 *
 * @stability experimental
 * @category rendering
 * @since 0.2.0
 */
export const text = (races: ReadonlyArray<RaceResults>, room = Infinity, paint: Paint = unpainted): string => {
  const blocks: Array<string> = []
  for (const table of tablesOf(races)) {
    for (let from = 0; from < table.length;) {
      let to = from + 1
      while (to < table.length && blockOf(table.slice(from, to + 1), paint).width <= room) to++
      blocks.push(blockOf(table.slice(from, to), paint).lines.join("\n"))
      from = to
    }
  }
  return blocks.join("\n\n")
}

const markdownCell = ({ rejections, text }: MatrixCell): string => `${text}, ${Words.thousands(rejections)}`

/**
 * The table in Markdown, or one for the scenarios of each set of strategies. A cell has the time or the lost calls, and the number
 * of 429s.
 *
 * @stability experimental
 * @category rendering
 * @since 0.2.0
 */
export const markdown = (races: ReadonlyArray<RaceResults>): string => {
  const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`
  return tablesOf(races)
    .map((table) =>
      [
        line(["strategy", ...table.map(({ name }) => `[${name}](#${name})`)]),
        line(["---", ...table.map(() => "---:")]),
        ...rowsOf(table).map(({ cells, strategy }) => line([`\`${strategy}\``, ...cells.map(markdownCell)]))
      ].join("\n")
    )
    .join("\n\n")
}
