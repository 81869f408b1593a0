/**
 * A weather: the provider, its neighbours and failures, the work, and the limits given to the client.
 *
 * Times are milliseconds since the start of the run; shares are fractions of the limit at that time.
 */
import type { Dimension } from "./amounts.ts"
import type { Window } from "./meter.ts"

/**
 * Another client of the same limits. It sends calls of the mean size of ours, one after the other, and retries what it cannot
 * get for a quarter of a second.
 *
 * - `constant` takes a part of the limit, between two times if they are given
 * - `square` takes `low` and `high` in turns, each for half of the period
 * - `ramp` goes from one part to the other over a time, and stays there
 * - `bursts` takes the part for some time at the end of each period, and nothing otherwise
 * - `polite` wants everything, adds 2 % of the limit each second and cuts by 0.7 for a rejection, at most once a second
 */
export type Neighbour =
  | { readonly kind: "constant"; readonly part: number; readonly from?: number; readonly to?: number }
  | { readonly kind: "square"; readonly low: number; readonly high: number; readonly period: number }
  | { readonly kind: "ramp"; readonly from: number; readonly to: number; readonly over: number }
  | { readonly kind: "bursts"; readonly part: number; readonly lasts: number; readonly period: number }
  | { readonly kind: "polite" }

/** The form of a failure: a status, a connection that is refused or reset, or silence until a timeout. */
export type Failure = "500" | "529" | "refused" | "reset" | "timeout"

export interface Outage {
  readonly from: number
  readonly to: number
  readonly failure: Failure
  /** The mean time until a call fails; a refusal and a timeout take exactly this long. */
  readonly showsAfter: number
}

/** The default time until a failure shows. */
export const showsAfter: { readonly [F in Failure]: number } = {
  "500": 300,
  "529": 150,
  refused: 5,
  reset: 1000,
  timeout: 30_000
}

/** Headers: exact, tokens rounded to 1,000 as Anthropic's are, none, some seconds old, or for requests only. */
export type Headers = "exact" | "rounded" | "none" | "stale" | "requestsOnly"

/**
 * What the client knows about a limit: its rate, its rate and burst, or nothing. With "asCounted" it knows the rate and how the
 * provider counts it: a law gets the burst, the library the rate and its accounting.
 */
export type Told = "bare" | "burst" | "nothing" | "asCounted"

/** Agents that always have another call, or agents with a number of calls each, one after the other. */
export type Work =
  | { readonly kind: "loop"; readonly agents: number; readonly workers: number }
  | { readonly kind: "jobs"; readonly agents: number; readonly calls: ReadonlyArray<number> }

export interface Scenario {
  readonly name: string
  readonly millis: number
  readonly limits: { readonly [D in Dimension]?: { readonly perMinute: number; readonly burst: number } }
  readonly window: Window
  /** A charged rejection takes one request and a twentieth of its tokens, as far as available. */
  readonly rejections: "free" | "charged"
  /** The fraction of calls that are rejected, or fail with 500, although there is room. */
  readonly random429: number
  readonly random5xx: number
  readonly outages: ReadonlyArray<Outage>
  /** An undeclared limit of calls in flight. */
  readonly concurrency?: number | undefined
  /** Usage may grow by this factor per minute, from this fraction of the limit. */
  readonly acceleration?: { readonly growth: number; readonly from: number } | undefined
  readonly neighbours: ReadonlyArray<Neighbour>
  /** From `at` on, limits and bursts are the original ones times `factor`; a burst still holds a few calls. */
  readonly changes: ReadonlyArray<{ readonly at: number; readonly factor: number }>
  /** One call, created half a minute after the start, fails with 500 whenever it is sent. */
  readonly poison: boolean
  readonly headers: Headers
  /** The mean age of stale headers. */
  readonly staleMillis: number
  /** Whether rejections carry a `retry-after`. */
  readonly retryAfter: boolean
  /** Time to an answer. */
  readonly latency: { readonly mean: number; readonly sigma: number }
  /** Time to a rejection. */
  readonly verdict: { readonly mean: number; readonly sigma: number }
  /** Tokens of a call: input, and a tenth of that as output. */
  readonly inputTokens: { readonly mean: number; readonly sigma: number }
  readonly work: Work
  readonly told: { readonly [D in Dimension]?: Told }
  /** Changes of the stated limits during the run. */
  readonly retold: ReadonlyArray<{ readonly at: number; readonly told: { readonly [D in Dimension]?: Told } }>
  /** The fraction of the limits that the user gives to this client; the rest is for another program. */
  readonly share: number
  /** The time from which the client should use its share again, for "back within 15 s". */
  readonly backFrom?: number | undefined
}

/** The smallest burst, in calls of mean size. */
export const minBurst = 4

/** Our fair share: what constant neighbours leave, or half beside a polite one that wants everything. */
export const fairPart = ({ neighbours }: Pick<Scenario, "neighbours">): number =>
  neighbours.some(({ kind }) => kind === "polite") ? 0.5 : 1

export const outputPart = 0.1

/** Mean amounts of one call. */
export const meanCall = (scenario: Pick<Scenario, "inputTokens">): { readonly [D in Dimension]: number } => {
  const input = scenario.inputTokens.mean
  return { requests: 1, inputTokens: input, outputTokens: input * outputPart, tokens: input * (1 + outputPart) }
}

/** Calls a minute that the limits grant, and the dimension that binds. */
export const binding = (scenario: Pick<Scenario, "inputTokens" | "limits">) => {
  const call = meanCall(scenario)
  let dimension: Dimension = "requests"
  let perMinute = Infinity
  for (const [key, limit] of Object.entries(scenario.limits)) {
    const calls = limit.perMinute / call[key as Dimension]
    if (calls >= perMinute) continue
    perMinute = calls
    dimension = key as Dimension
  }
  return { dimension, perMinute }
}
