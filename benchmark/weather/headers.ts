/** The rate limit headers of a provider: exact, rounded, stale, partial, or none. */
import type { Dimension, Reading, Readings } from "./amounts.ts"
import type { Meter } from "./meter.ts"
import type { Prng } from "./prng.ts"
import type { Scenario } from "./scenario.ts"

/** One dimension of the provider. */
export interface Metered {
  readonly dimension: Dimension
  readonly perMinute: number
  readonly meter: Meter
}

/** Tokens are rounded to this, as Anthropic's are; requests are not. */
const rounding = 1000
/** The history of levels has this resolution, and spans about a minute. */
const historyMillis = 250
const historyLength = 256

/** Returns the readings at a time. `factor` scales the limits. */
export const make = (
  { headers, staleMillis }: Pick<Scenario, "headers" | "staleMillis">,
  metered: ReadonlyArray<Metered>,
  prng: Prng
): ((now: number, factor: number) => Readings | undefined) => {
  const history = makeHistory()
  const isShown = (dimension: Dimension) => headers !== "requestsOnly" || dimension === "requests"

  return (now, factor) => {
    if (headers === "none") return undefined
    const current = metered.map(({ meter }) => Math.max(0, Math.floor(meter.room(now))))
    const left = headers === "stale" ? history(now - staleMillis * (0.5 + prng.next()), now, current) : current
    const readings: { [D in Dimension]?: Reading } = {}
    for (const [i, { dimension, perMinute }] of metered.entries()) {
      if (!isShown(dimension)) continue
      const roundedTo = headers === "rounded" && dimension !== "requests" ? rounding : 1
      const remaining = Math.round(left[i]! / roundedTo) * roundedTo
      readings[dimension] = { limit: Math.round(perMinute * factor), remaining, roundedTo }
    }
    return readings
  }
}

/** The level at an earlier time, as a lagging replica shows it; remembers the current level. */
const makeHistory = () => {
  const times: Array<number> = []
  const values: Array<ReadonlyArray<number>> = []
  return (then: number, now: number, left: ReadonlyArray<number>): ReadonlyArray<number> => {
    if (now - (times.at(-1) ?? -Infinity) >= historyMillis) {
      times.push(now)
      values.push(left)
      if (times.length > historyLength) {
        times.shift()
        values.shift()
      }
    }
    return values[
      Math.max(
        0,
        times.findLastIndex((time) => time <= then)
      )
    ]!
  }
}
