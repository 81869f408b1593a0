/**
 * Scenarios and strategies on one screen: for each pair how long it took, or what was lost.
 *
 * @since 0.2.0
 */
import * as Words from "../words.ts"
import type { Result } from "./race.ts"

/**
 * A scenario and how strategies did in it.
 *
 * @category models
 * @since 0.2.0
 */
export interface Raced {
  readonly name: string
  readonly results: ReadonlyArray<Result>
}

/**
 * What became of a strategy in a scenario.
 *
 * @category models
 * @since 0.2.0
 */
export interface Cell {
  /** `"done"` where all of the work was; else calls were lost, or it had not finished at its bound. */
  readonly kind: "done" | "lost" | "unfinished"
  readonly text: string
  /** How many times as long as the oracle it took, where that is known and all was done. */
  readonly ratio: number | undefined
}

const oracle = "oracle"

/**
 * The cell of a result. It says how long it took only where all of the work was done: who gives up is quick.
 *
 * @category getters
 * @since 0.2.0
 */
export const cellOf = (result: Result, results: ReadonlyArray<Result>): Cell => {
  const { failedCalls, finished, makespanSeconds } = result
  if (!finished) return { kind: "unfinished", text: "no end", ratio: undefined }
  if (failedCalls > 0) return { kind: "lost", text: `${Words.thousands(failedCalls)} lost`, ratio: undefined }
  const best = results.find(({ strategy }) => strategy === oracle)
  const ratio = best === undefined || best.makespanSeconds === 0 ? undefined : makespanSeconds / best.makespanSeconds
  return { kind: "done", text: `${makespanSeconds.toFixed(1)} s`, ratio }
}

/** The strategies in their order. They are the same in all scenarios. */
const strategiesOf = (races: ReadonlyArray<Raced>): ReadonlyArray<string> =>
  (races[0]?.results ?? []).map(({ strategy }) => strategy)

/**
 * A row for each strategy: its name, and a cell for each scenario.
 *
 * @category getters
 * @since 0.2.0
 */
export const rowsOf = (
  races: ReadonlyArray<Raced>
): ReadonlyArray<{ readonly strategy: string; readonly cells: ReadonlyArray<Cell> }> =>
  strategiesOf(races).map((strategy) => ({
    strategy,
    cells: races.map(({ results }) =>
      cellOf(
        results.find((one) => one.strategy === strategy)!,
        results
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

const padded = (cells: ReadonlyArray<string>, widths: ReadonlyArray<number>): string =>
  cells
    .map((cell, index) => (index === 0 ? cell.padEnd(widths[index]!) : cell.padStart(widths[index]!)))
    .join("  ")
    .trimEnd()

const block = (races: ReadonlyArray<Raced>): ReadonlyArray<string> => {
  const rows = rowsOf(races)
  const heads = races.map(({ name }) => inTwo(name))
  const lines = [
    ["", ...heads.map(([over]) => over)],
    ["strategy", ...heads.map(([, under]) => under)],
    ...rows.map(({ cells, strategy }) => [strategy, ...cells.map(({ text }) => text)])
  ]
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  const [over, under, ...rest] = lines.map((line) => padded(line, widths))
  const rule = "-".repeat(widths.reduce((sum, width) => sum + width + 2, -2))
  return [...(over === "" ? [] : [over!]), under!, rule, ...rest]
}

const widthOf = (lines: ReadonlyArray<string>): number => Math.max(...lines.map((line) => line.length))

/**
 * The matrix for a terminal, in as many tables below each other as there must be.
 *
 * @category rendering
 * @since 0.2.0
 */
export const text = (races: ReadonlyArray<Raced>, room = Infinity): string => {
  const blocks: Array<string> = []
  for (let from = 0; from < races.length;) {
    let to = from + 1
    while (to < races.length && widthOf(block(races.slice(from, to + 1))) <= room) to++
    blocks.push(block(races.slice(from, to)).join("\n"))
    from = to
  }
  return blocks.join("\n\n")
}

/**
 * The matrix in Markdown.
 *
 * @category rendering
 * @since 0.2.0
 */
export const markdown = (races: ReadonlyArray<Raced>): string => {
  const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`
  return [
    line(["strategy", ...races.map(({ name }) => `[${name}](#${name})`)]),
    line(["---", ...races.map(() => "---:")]),
    ...rowsOf(races).map(({ cells, strategy }) => line([`\`${strategy}\``, ...cells.map(({ text }) => text)]))
  ].join("\n")
}
