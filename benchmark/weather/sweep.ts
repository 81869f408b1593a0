/** How much of the limit is used when a growing part of all calls is rejected for no reason: the weathers of the chart. */
import { scenario } from "./build.ts"

export const parts = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]

export const weathers = parts.map((part) => ({
  part,
  scenario: scenario(`random 429s, sweep: ${part * 100} %`, { random429: part })
}))
