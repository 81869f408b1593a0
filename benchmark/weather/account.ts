/**
 * The use of the limits in a run, second by second: what they granted, what we took, and what the neighbours took.
 */
import { type Amounts, dimensionsOf } from "./amounts.ts"
import type { Scenario } from "./scenario.ts"

export interface Account {
  readonly ours: (amounts: Amounts, now: number) => void
  readonly neighbours: (amounts: Amounts, now: number) => void
  /** Counts an accepted call, which is in flight between these times. */
  readonly held: (from: number, to: number) => void
  /** Our use as a fraction of what was available to us, in the dimension, or in-flight limit, with the most use. */
  readonly used: () => number
  /** Our use as a fraction of the whole limit, in the dimension with the most use. */
  readonly part: () => number
  /** Seconds after `from` until we used 90 % of what was available over 5 seconds; undefined if we never did. */
  readonly backAfter: (from: number) => number | undefined
}

/** The factor of the limits at a time; 0 during an outage. */
export const factorAt = (scenario: Pick<Scenario, "changes" | "outages">, at: number): number => {
  if (scenario.outages.some((outage) => at >= outage.from && at < outage.to)) return 0
  return scenario.changes.findLast((change) => at >= change.at)?.factor ?? 1
}

/** The milliseconds of a second without outages, multiplied by the factor of the limits. */
const grantedIn = (scenario: Scenario, second: number): number => {
  const from = second * 1000
  const to = Math.min(scenario.millis, from + 1000)
  const edges = [
    ...scenario.changes.map(({ at }) => at),
    ...scenario.outages.flatMap((outage) => [outage.from, outage.to])
  ]
  const cuts = [from, ...edges.filter((at) => at > from && at < to).sort((a, b) => a - b), to]
  return cuts.slice(1).reduce((sum, cut, i) => sum + (cut - cuts[i]!) * factorAt(scenario, cuts[i]!), 0)
}

export const make = (scenario: Scenario): Account => {
  const seconds = Math.ceil(scenario.millis / 1000)
  const row = () => new Float64Array(seconds + 1)
  const table = dimensionsOf(scenario.limits).map((dimension) => ({
    dimension,
    perMilli: scenario.limits[dimension]!.perMinute / 60_000,
    ours: row(),
    neighbours: row()
  }))
  const granted = row().map((_, second) => (second < seconds ? grantedIn(scenario, second) : 0))
  let heldMillis = 0

  const add = (column: "ours" | "neighbours") => (amounts: Amounts, now: number) => {
    if (now >= scenario.millis) return
    const second = Math.floor(now / 1000)
    for (const each of table) each[column][second]! += amounts[each.dimension] ?? 0
  }
  const sum = (values: Float64Array, from = 0, to = seconds) => {
    let total = 0
    for (let second = from; second < to; second++) total += values[second]!
    return total
  }
  const usedIn = (from: number, to: number) =>
    table.map(({ dimension, neighbours, ours, perMilli }) => ({
      dimension,
      ours: sum(ours, from, to),
      all: perMilli * sum(granted, from, to),
      there: perMilli * sum(granted, from, to) - sum(neighbours, from, to)
    }))

  return {
    ours: add("ours"),
    neighbours: add("neighbours"),
    held: (from, to) => {
      heldMillis += Math.max(0, Math.min(to, scenario.millis) - from)
    },
    used: () => {
      const places = scenario.concurrency === undefined ? 0 : heldMillis / (scenario.concurrency * openMillis(scenario))
      return Math.max(places, ...usedIn(0, seconds).map(({ ours, there }) => ours / Math.max(there, 1)))
    },
    part: () => Math.max(...usedIn(0, seconds).map(({ all, ours }) => ours / all)),
    backAfter: (from) => {
      const start = Math.ceil(from / 1000)
      for (let second = start; second + 5 <= seconds; second++) {
        if (usedIn(second, second + 5).some(({ ours, there }) => ours >= 0.9 * there)) return second - from / 1000
      }
      return undefined
    }
  }
}

const openMillis = (scenario: Scenario): number =>
  scenario.outages.reduce(
    (sum, { from, to }) => sum - Math.max(0, Math.min(to, scenario.millis) - from),
    scenario.millis
  )
