/** Results as Markdown tables. */
import { createHash } from "node:crypto"
import { thousands } from "../../src/domain/words.ts"
import type { Cell, Target } from "./cells.ts"
import * as Laws from "./laws.ts"
import * as Random from "./random.ts"
import type { Result } from "./score.ts"
import { type Died, type Done, hasDied, hasEnded, scenarioOf } from "./tasks.ts"

const mean = (values: ReadonlyArray<number>) =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
const sum = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0)
const quantile = (values: ReadonlyArray<number>, part: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? NaN

const part = (value: number) => value.toFixed(3)
const percent = (value: number) => `${(100 * value).toFixed(1)} %`
const secondsOf = (value: number) => (value === Infinity ? "never" : `${value.toFixed(0)} s`)

// -----------------------------------------------------------------------------
// What a cell comes to
// -----------------------------------------------------------------------------

/** A measure of a cell: its target in words, the result, and whether the target is reached. */
interface Measure {
  readonly target: string
  readonly result: string
  readonly isReached: boolean
}
/** Results this close to a target reach it. */
const tolerance = 5e-4

const measures = (target: Target, runs: ReadonlyArray<Done>): ReadonlyArray<Measure> => {
  const { afterNoLimits, afterOracle, back, excess, lost, ofFair, ofOracle, used } = target
  const results = runs.map(({ result }) => result)
  const each = (read: (result: Result) => number | undefined) => results.map((result) => read(result) ?? NaN)
  const list: Array<Measure> = []
  /** Compares the mean with the target. */
  const add = (target: string, result: string, isReached: boolean) => list.push({ target, result, isReached })

  if (ofFair !== undefined) {
    const values = each((result) => result.ofFair)
    const [from, to] = ofFair
    const isFair = mean(values) >= from && mean(values) <= to
    add(
      `${from} to ${to} of fair`,
      `${part(mean(values))} (${part(Math.min(...values))}-${part(Math.max(...values))})`,
      isFair
    )
  } else if (results.every(({ makespan }) => makespan === undefined)) {
    const values = each((result) => result.used)
    const isEnough = mean(values) >= (used ?? 0) - tolerance
    add(used === undefined ? "" : `used ${used}`, `${part(mean(values))} (${part(Math.min(...values))})`, isEnough)
  }
  const over = (
    title: string,
    most: number | undefined,
    read: (run: Done) => number,
    say: (value: number) => string
  ) => {
    if (most === undefined) return
    const values = runs.map(read)
    add(
      `${title} ${say(most)}`,
      `${say(mean(values))} (${say(Math.max(...values))})`,
      Math.max(...values) <= most + tolerance
    )
  }
  over("of the oracle's time", ofOracle, ({ result, yardsticks }) => result.makespan! / yardsticks!.oracle, part)
  over("after the oracle", afterOracle, ({ result, yardsticks }) => result.makespan! - yardsticks!.oracle, secondsOf)
  over(
    "after retries alone",
    afterNoLimits,
    ({ result, yardsticks }) => result.makespan! - yardsticks!.noLimits,
    secondsOf
  )
  over("back in", back, ({ result }) => result.backAfter ?? 0, secondsOf)

  const rejected = each((result) => result.excess)
  const isQuiet = mean(rejected) <= (excess ?? 1) + (excess === 0 ? 0 : tolerance)
  add(
    excess === undefined ? "" : `429s ${percent(excess)}`,
    `${percent(mean(rejected))} (${percent(Math.max(...rejected))})`,
    isQuiet
  )
  const losses = sum(results.map((result) => result.lost))
  add(lost === undefined ? "" : `lost ${lost}`, `lost ${losses}`, losses <= (lost ?? Infinity))
  return list
}

const targetOf = (target: Target, runs: ReadonlyArray<Done>): string =>
  measures(target, runs)
    .map((each) => each.target)
    .filter((each) => each !== "")
    .join(", ")

const isReached = (target: Target, runs: ReadonlyArray<Done>) =>
  runs.length > 0 && measures(target, runs).every((each) => each.isReached)

const resultOf = (target: Target, runs: ReadonlyArray<Done>): string => {
  if (runs.length === 0) return "**died**"
  const results = measures(target, runs).map(({ result }) => result)
  return [...results, isReached(target, runs) ? "yes" : "**no**"].join(", ")
}

// -----------------------------------------------------------------------------
// Tables
// -----------------------------------------------------------------------------

const row = (columns: ReadonlyArray<string>) => `| ${columns.join(" | ")} |`
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [row(head), row(head.map(() => "---")), ...rows.map(row)].join("\n")

/** For each law the mean, the worst run in brackets, and whether the target is reached. */
export const ofCells = (
  cells: ReadonlyArray<Cell>,
  laws: ReadonlyArray<string>,
  ended: ReadonlyArray<Done | Died>
): string => {
  const died = ended.filter(hasDied)
  const done = ended.filter(hasEnded)
  /** Empty if one of them died. */
  const runsOf = (cell: Cell, law: string) => {
    const names = new Set<string | undefined>(cell.weathers.map(({ name }) => name))
    if (died.some(({ task }) => task.law === law && names.has(task.weather))) return []
    return done.filter(({ task }) => task.law === law && names.has(task.weather))
  }
  const rows = cells.map((cell) => [
    cell.name,
    targetOf(cell.target, runsOf(cell, laws[0]!)),
    ...laws.map((law) => resultOf(cell.target, runsOf(cell, law)))
  ])
  const reached = laws.map((law) => cells.filter((cell) => isReached(cell.target, runsOf(cell, law))).length)
  return table(
    ["condition", "target", ...laws.map(Laws.titleOf)],
    [...rows, ["targets reached", `${cells.length}`, ...reached.map(String)]]
  )
}

/** A summary over random weathers. */
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
  return table(["algorithm", "n", "score", "p10", "U", "U p10", "X", "X p90", "lost", "p99, median"], rows)
}

/** Relative errors of `foresee`, for each cell and for all. */
export const ofForeseen = (
  cells: ReadonlyArray<{ readonly name: string; readonly errors: ReadonlyArray<number> }>
): string => {
  const all = { name: "all of them", errors: cells.flatMap(({ errors }) => errors) }
  const rows = [...cells, all].map(({ errors, name }) => {
    const sizes = errors.map(Math.abs)
    const figures = [quantile(sizes, 0.5), quantile(sizes, 0.9), quantile(errors, 0.5)]
    return [name, thousands(errors.length), ...figures.map((error) => `${(100 * error).toFixed(0)} %`)]
  })
  return table(["condition", "waits above 1 s", "median error", "90th percentile", "median with its sign"], rows)
}

/** Mean scores in the random weathers that have a feature. */
export const ofFeatures = (laws: ReadonlyArray<string>, done: ReadonlyArray<Done>): string => {
  const scores = new Map<string, ReadonlyArray<Array<number>>>()
  for (const { result, task } of done) {
    for (const feature of Random.featuresIn(scenarioOf(task))) {
      if (!scores.has(feature)) {
        scores.set(
          feature,
          laws.map(() => [])
        )
      }
      scores.get(feature)![laws.indexOf(task.law)]!.push(result.score)
    }
  }
  const rows = [...scores.entries()]
    .toSorted(([one], [other]) => (one < other ? -1 : 1))
    .map(([feature, columns]) => [feature, String(columns[0]!.length), ...columns.map((values) => part(mean(values)))])
  return table(["random weathers with", "n", ...laws.map(Laws.titleOf)], rows)
}

/** A hash of all events for each weather and law, and one of all runs: equal hashes mean that every call was sent at the same time. */
export const ofEvents = (done: ReadonlyArray<Done>): string => {
  const hashOf = (runs: ReadonlyArray<Done>): string => {
    const hash = createHash("sha256")
    for (const { result } of runs) hash.update(result.events)
    return hash.digest("hex").slice(0, 16)
  }
  const named = Map.groupBy(done, ({ task }) => `${scenarioOf(task).name} | ${Laws.titleOf(task.law)}`)
  const rows = [...named, ["all", done] as const].map(([name, runs]) => `${hashOf(runs)} ${name}`)
  return rows.join("\n")
}

/** One line per run. */
export const ofRuns = (done: ReadonlyArray<Done>): string =>
  table(
    ["weather", "seed", "law", "score", "used", "429s", "lost", "back", "sent", "random", "p99", "ms"],
    done.map(({ millis, result, task }) => [
      scenarioOf(task).name,
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
