/** Two places with different limits, and a job for both. */
import type * as Limits from "floodgate/Limits"
import { ProviderSim } from "floodgate/testing"
import { mulberry } from "../../test/support/random.ts"

export interface Shape {
  readonly name: string
  readonly limits: readonly [Limits.Limits, Limits.Limits]
  /** When the first place is down, in milliseconds. */
  readonly outage?: (seed: number) => readonly [from: number, to: number]
  /** Whether clients know the limits. */
  readonly isTold: boolean
}

const bucket = (perSecond: number, burst: number): Limits.Limits => ({
  inputTokens: { perSecond, burst, window: "bucket" }
})

const equal = [bucket(30_000, 100_000), bucket(30_000, 100_000)] as const

export const shapes: ReadonlyArray<Shape> = [
  { name: "equal", limits: equal, isTold: true },
  { name: "1 : 4", limits: [bucket(12_000, 40_000), bucket(48_000, 160_000)], isTold: true },
  { name: "one with small bursts", limits: [bucket(30_000, 100_000), bucket(30_000, 20_000)], isTold: true },
  { name: "one that dies and returns", limits: equal, outage: (seed) => [10_000, 22_500 + 2_500 * seed], isTold: true },
  { name: "told nothing", limits: equal, isTold: false }
]

export const providerOf = (
  { limits, outage }: Shape,
  place: 0 | 1,
  seed: number
): ReturnType<typeof ProviderSim.layer> =>
  ProviderSim.layer({
    limits: limits[place],
    outputTokens: 200,
    latency: { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 },
    faults: place === 0 && outage !== undefined ? [ProviderSim.outage(...outage(seed))] : []
  })

export const agents = 40
const callsOfAgent = 10

/** The input tokens of the calls of an agent: 2,000 to 18,000, 4M of all agents together. */
export const callsOf = (agent: number, seed: number): ReadonlyArray<number> => {
  const random = mulberry(1_000 * seed + agent)
  return Array.from({ length: callsOfAgent }, () => 2_000 + Math.round(16_000 * random()))
}
