/** How well the tokens that calls take from a limit were predicted: what is not read from the cache. */
import type { PredictedCall } from "./library.ts"

const quantile = (sorted: ReadonlyArray<number>, part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? NaN

const percent = (part: number): string => `${(100 * part).toFixed(part < 0.1 ? 1 : 0)} %`

const groups: ReadonlyArray<readonly [name: string, has: (call: PredictedCall) => boolean]> = [
  ["turn 1", ({ turn }) => turn === 1],
  ["turn 2", ({ turn }) => turn === 2],
  ["turns 3 to 10", ({ turn }) => turn >= 3 && turn <= 10],
  ["later turns", ({ turn }) => turn > 10],
  ["live prefixes from turn 3 on", ({ isLive, turn }) => isLive && turn >= 3],
  ["prefixes that are gone, from turn 2 on", ({ isLive, turn }) => !isLive && turn >= 2],
  ["all", () => true]
]

/** A row for each group of calls: the median and the 90th percentile of the error, and all that was predicted to all that was used. */
export const rowsOf = (name: string, calls: ReadonlyArray<PredictedCall>): ReadonlyArray<string> =>
  groups.flatMap(([group, has]) => {
    const some = calls.filter(has)
    if (some.length === 0) return []
    const errors = some
      .map(({ predicted, used }) => Math.abs(predicted - used) / Math.max(1, used))
      .sort((one, other) => one - other)
    const sum = (of: (call: PredictedCall) => number): number => some.reduce((sum, call) => sum + of(call), 0)
    const ratio = sum(({ predicted }) => predicted) / sum(({ used }) => used)
    const cells = [name, group, some.length, percent(quantile(errors, 0.5)), percent(quantile(errors, 0.9))]
    return [`| ${[...cells, ratio.toFixed(2)].join(" | ")} |`]
  })

export const head = [
  "| noise in bytes a token | calls | number | median error | 90th percentile | predicted to used |",
  "| --- | --- | --- | --- | --- | --- |"
]
