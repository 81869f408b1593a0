/**
 * Packs figures for a page: a bar takes ten bytes instead of seventy. Times are whole milliseconds since the item before.
 */
import type { Bar, LevelPoint, RunFigures, ScenarioFigures } from "./figures.ts"

/** A packed run: a row for each agent, and columns for everything else. */
interface PackedRun extends Pick<RunFigures, "strategy" | "planned" | "done" | "resumed" | "latencies"> {
  /** The bars of each agent, as three numbers each: kind, time since the last bar, and length. */
  readonly bars: ReadonlyArray<ReadonlyArray<number>>
  readonly levels: readonly [
    at: ReadonlyArray<number>,
    provider: ReadonlyArray<number | null>,
    budget: ReadonlyArray<number | null>
  ]
  /** Slices follow each other from 0. */
  readonly rates: readonly [length: ReadonlyArray<number>, perSecond: ReadonlyArray<number>]
  readonly inUse: readonly [at: ReadonlyArray<number>, perSecond: ReadonlyArray<number>]
}

/** A scenario's figures in a page. */
export interface Packed extends Omit<ScenarioFigures, "runs"> {
  /** The agents that have bars. */
  readonly drawn: ReadonlyArray<string>
  readonly runs: ReadonlyArray<PackedRun>
}

/** The data that the script of a page reads. */
export interface PageData {
  readonly figures: ReadonlyArray<Packed>
  /** The results of each scenario, as its table has them. */
  readonly tables: ReadonlyArray<{
    readonly heads: ReadonlyArray<string>
    readonly rows: ReadonlyArray<ReadonlyArray<string>>
  }>
}

const millis = (seconds: number): number => Math.round(seconds * 1_000)

/** Each time since the one before. */
const since = (seconds: ReadonlyArray<number>): ReadonlyArray<number> =>
  seconds.map((at, index) => millis(at) - millis(seconds[index - 1] ?? 0))

const whats: ReadonlyArray<Bar["what"]> = ["waits", "runs", "rejected", "failed", "earlier", "pauses"]

const packedBars = (bars: ReadonlyArray<Bar>): ReadonlyArray<number> => {
  let last = 0
  return bars.flatMap(({ from, to, what }) => {
    const gap = millis(from) - last
    last = millis(to)
    return [whats.indexOf(what), gap, millis(to) - millis(from)]
  })
}

/** Packs the figures of a scenario. */
export const pack = (figures: ScenarioFigures): Packed => {
  const drawn = [...new Set(figures.runs.flatMap(({ bars }) => bars.map(({ agent }) => agent)))]
  return {
    ...figures,
    drawn,
    runs: figures.runs.map(({ bars, done, inUse, latencies, levels, planned, rates, resumed, strategy }) => {
      const of = Map.groupBy(bars, ({ agent }) => agent)
      return {
        strategy,
        planned,
        done,
        resumed,
        latencies,
        bars: drawn.map((agent) => packedBars(of.get(agent) ?? [])),
        levels: [
          since(levels.map(({ at }) => at)),
          levels.map(({ provider }) => provider),
          levels.map(({ budget }) => budget)
        ],
        rates: [since(rates.map(({ to }) => to)), rates.map(({ perSecond }) => perSecond)],
        inUse: [since(inUse.map(({ at }) => at)), inUse.map(({ perSecond }) => perSecond)]
      }
    })
  }
}

/** Unpacks figures, in the page. */
export const unpack = (packed: Packed): ScenarioFigures => {
  const times = (deltas: ReadonlyArray<number>): ReadonlyArray<number> => {
    let at = 0
    return deltas.map((delta) => (at += delta) / 1_000)
  }
  const barsOf = (agent: string, numbers: ReadonlyArray<number>): Array<Bar> => {
    const bars: Array<Bar> = []
    let at = 0
    for (let i = 0; i < numbers.length; i += 3) {
      const from = at + numbers[i + 1]!
      at = from + numbers[i + 2]!
      bars.push({ agent, what: whats[numbers[i]!]!, from: from / 1_000, to: at / 1_000 })
    }
    return bars
  }
  const { drawn, ...figures } = packed
  return {
    ...figures,
    runs: packed.runs.map((run) => {
      const [levelsAt, provider, budget] = run.levels
      const [lengths, rates] = run.rates
      const ends = times(lengths)
      const [inUseAt, inUse] = run.inUse
      return {
        ...run,
        bars: drawn.flatMap((agent, index) => barsOf(agent, run.bars[index]!)),
        levels: times(levelsAt).map((at, index): LevelPoint => ({
          at,
          provider: provider[index]!,
          budget: budget[index]!
        })),
        rates: ends.map((to, index) => ({ from: ends[index - 1] ?? 0, to, perSecond: rates[index]! })),
        inUse: times(inUseAt).map((at, index) => ({ at, perSecond: inUse[index]! }))
      }
    })
  }
}
