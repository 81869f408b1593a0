/** The weathers of the chart: a growing fraction of random rejections. */
import { scenario } from "./build.ts"

export const parts = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]

export const weathers = parts.map((part) => ({
  part,
  scenario: scenario(`random 429s, sweep: ${part * 100} %`, { random429: part })
}))
