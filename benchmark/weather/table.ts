/** Results as Markdown tables. */
import type { Cell, Target } from "./cells.ts"
import * as Laws from "./laws.ts"
import type { Result } from "./score.ts"
import type { Done } from "./tasks.ts"

const mean = (values: ReadonlyArray<number>) =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
const sum = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0)
const quantile = (values: ReadonlyArray<number>, part: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? NaN

const part = (value: number) => value.toFixed(3)
const percent = (value: number) => `${(100 * value).toFixed(1)} %`
const secondsOf = (value: number) => (value === Infinity ? "never" : `${value.toFixed(0)} s`)

const targetOf = ({ back, excess, lost, used }: Target): string =>
  [
    used !== undefined && `used ${used}`,
    excess !== undefined && `429s ${percent(excess)}`,
    lost !== undefined && `lost ${lost}`,
    back !== undefined && `back in ${back} s`
  ]
    .filter((each) => each !== false)
    .join(", ")

/** A hair's breadth below a target is not below it. */
const tolerance = 5e-4

export const isReached = (
  { back = Infinity, excess = 1, lost = Infinity, used = 0 }: Target,
  results: ReadonlyArray<Result>
) =>
  mean(results.map((each) => each.used)) >= used - tolerance &&
  mean(results.map((each) => each.excess)) <= excess + tolerance &&
  sum(results.map((each) => each.lost)) <= lost &&
  results.every((each) => (each.backAfter ?? 0) <= back)

const resultOf = (target: Target, results: ReadonlyArray<Result>): string => {
  if (results.length === 0) return "-"
  const used = results.map((each) => each.used)
  const excess = results.map((each) => each.excess)
  const back = results.flatMap(({ backAfter }) => (backAfter === undefined ? [] : [backAfter]))
  return [
    `${part(mean(used))} (${part(Math.min(...used))})`,
    `${percent(mean(excess))} (${percent(Math.max(...excess))})`,
    `lost ${sum(results.map((each) => each.lost))}`,
    ...(back.length === 0 ? [] : [`back ${secondsOf(quantile(back, 0.5))} (${secondsOf(Math.max(...back))})`]),
    isReached(target, results) ? "yes" : "**no**"
  ].join(", ")
}

const row = (columns: ReadonlyArray<string>) => `| ${columns.join(" | ")} |`
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n")

/** Used: mean (worst); 429s above random ones: mean (worst); lost calls; whether the target is reached. */
export const ofCells = (cells: ReadonlyArray<Cell>, laws: ReadonlyArray<string>, done: ReadonlyArray<Done>): string => {
  const resultsOf = (cell: Cell, law: string) => {
    const names = new Set<string | undefined>(cell.weathers.map(({ name }) => name))
    return done.filter(({ task }) => task.law === law && names.has(task.weather)).map(({ result }) => result)
  }
  const rows = cells.map((cell) => [
    cell.name,
    targetOf(cell.target),
    ...laws.map((law) => resultOf(cell.target, resultsOf(cell, law)))
  ])
  const reached = laws.map((law) => cells.filter((cell) => isReached(cell.target, resultsOf(cell, law))).length)
  return table(
    ["weather", "target", ...laws.map(Laws.titleOf)],
    [...rows, ["targets reached", `${cells.length}`, ...reached.map(String)]]
  )
}

/** Random weathers in sum. */
export const ofRandom = (laws: ReadonlyArray<string>, done: ReadonlyArray<Done>): string => {
  const rows = laws.map((law) => {
    const results = done
      .filter(({ task }) => task.law === law && task.weather === undefined)
      .map(({ result }) => result)
    const scores = results.map(({ score }) => score)
    const used = results.map(({ used }) => Math.min(1, used))
    const excess = results.map(({ excess }) => excess)
    const lost = results.map(({ lost }) => lost)
    return [
      Laws.titleOf(law),
      String(results.length),
      part(mean(scores)),
      part(quantile(scores, 0.1)),
      part(mean(used)),
      part(quantile(used, 0.1)),
      part(mean(excess)),
      part(quantile(excess, 0.9)),
      `${sum(lost)} in ${lost.filter((n) => n > 0).length}`,
      `${quantile(
        results.map(({ p99 }) => p99),
        0.5
      ).toFixed(0)} s`
    ]
  })
  return table(["law", "n", "score", "p10", "U", "U p10", "X", "X p90", "lost", "p99, median"], rows)
}

/** One line a run. */
export const ofRuns = (done: ReadonlyArray<Done>): string =>
  table(
    ["weather", "seed", "law", "score", "used", "429s", "lost", "back", "sent", "random", "p99", "ms"],
    done.map(({ millis, result, task }) => [
      task.weather ?? "random",
      String(task.seed),
      Laws.titleOf(task.law),
      part(result.score),
      part(result.used),
      percent(result.excess),
      String(result.lost),
      result.backAfter === undefined ? "-" : secondsOf(result.backAfter),
      String(result.sent),
      String(result.random),
      secondsOf(result.p99),
      millis.toFixed(0)
    ])
  )
