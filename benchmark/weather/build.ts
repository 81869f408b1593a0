/** Builds scenarios from their special features; everything else is ordinary. */
import { type Dimension, dimensionsOf } from "./amounts.ts"
import { factorAt } from "./account.ts"
import { demandOf } from "./neighbours.ts"
import { binding, minBurst, meanCall, type Scenario, type Told } from "./scenario.ts"

export interface Options extends Partial<Omit<Scenario, "limits" | "told" | "name" | "work">> {
  /** Calls of the mean size that the binding limit grants each minute. @default 600 */
  readonly perMinute?: number
  /** The dimension that binds. Requests have a limit too, of twice as many calls. @default inputTokens */
  readonly binds?: "inputTokens" | "outputTokens" | "tokens" | "requests"
  /** As a fraction of the limit per minute. @default a sixth, as in the incident */
  readonly burst?: number
  /** @default both the rate and the burst */
  readonly told?: Told | Scenario["told"]
  /** @default 12 */
  readonly agents?: number
  /** Replaces the limits that follow from the options above. */
  readonly limits?: Scenario["limits"]
  /** The calls of each agent, by their mean input tokens. Without it, agents always have another call. */
  readonly jobs?: ReadonlyArray<number>
}

export const scenario = (name: string, options: Options = {}): Scenario => {
  const { agents = 12, binds = "inputTokens", burst = 1 / 6, jobs, neighbours = [], perMinute = 600, ...rest } = options
  const { told = "burst" } = options
  const inputTokens = options.inputTokens ?? { mean: 2000, sigma: 0.5 }
  const call = meanCall({ inputTokens })
  const limit = (calls: number, each: number) => ({
    perMinute: calls * each,
    burst: Math.max(calls * burst, minBurst) * each
  })
  const limits: { [D in Dimension]?: { readonly perMinute: number; readonly burst: number } } = {}
  limits.requests = limit(binds === "requests" ? perMinute : 2 * perMinute, 1)
  if (binds !== "requests") limits[binds] = limit(perMinute, call[binds])
  if (binds === "outputTokens") limits.inputTokens = limit(2 * perMinute, call.inputTokens)

  const given = options.limits ?? limits
  const toldOf = typeof told === "string" ? Object.fromEntries(dimensionsOf(given).map((each) => [each, told])) : told
  const base: Scenario = {
    name,
    millis: 600_000,
    window: "bucket",
    rejections: "free",
    random429: 0,
    random5xx: 0,
    outages: [],
    changes: [],
    poison: false,
    headers: "exact",
    staleMillis: 5000,
    retryAfter: true,
    latency: { mean: 2000, sigma: 0.5 },
    verdict: { mean: 150, sigma: 0.3 },
    work: { kind: "jobs", agents, calls: jobs ?? [] },
    retold: [],
    share: 1,
    ...rest,
    told: toldOf,
    neighbours,
    limits: given,
    inputTokens
  }
  if (jobs !== undefined) return base
  return { ...base, work: { kind: "loop", agents, workers: Math.max(agents, workersOf(base)) } }
}

/**
 * Enough workers that the limit always binds: 1.5 times as many as are busy at the full rate, plus 12. But not so many that
 * calls wait for five minutes at the lowest share of the run, because their deadline is ten minutes.
 */
const workersOf = (scenario: Scenario): number => {
  const latency = scenario.latency.mean
  const full = Math.min(binding(scenario).perMinute / 60_000, (scenario.concurrency ?? Infinity) / latency)
  return Math.ceil(Math.min(full * latency * 1.5, full * lowestShare(scenario) * 300_000) + 12)
}

/** The lowest share of the limit, averaged over a minute, that is left to us. */
const lowestShare = (scenario: Scenario): number => {
  const shareAt = (at: number) => {
    const demand = scenario.neighbours.map((neighbour) =>
      neighbour.kind === "polite" ? 0.5 : Math.min(1, demandOf(neighbour, at))
    )
    return Math.max(0, 1 - demand.reduce((sum, each) => sum + each, 0)) * factorAt({ ...scenario, outages: [] }, at)
  }
  const minutes = Array.from({ length: Math.max(1, Math.floor(scenario.millis / 60_000)) }, (_, minute) => {
    const seconds = Array.from({ length: 60 }, (_, second) => shareAt(minute * 60_000 + second * 1000))
    return seconds.reduce((sum, share) => sum + share, 0) / 60
  })
  return Math.max(0.02, Math.min(...minutes)) * (scenario.acceleration?.from ?? 1)
}
