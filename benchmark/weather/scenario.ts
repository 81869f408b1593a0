/**
 * What a weather consists of: the provider, its neighbours and its failures, the work, and what the client is told.
 *
 * All times are milliseconds since the start of the run, all parts are parts of the limit that holds at the time.
 */
import type { Dimension } from "./amounts.ts"
import type { Window } from "./meter.ts"

/**
 * Another client of the same limits. It sends calls of the mean size of ours, one after the other, and what it cannot get
 * it asks for again for a quarter of a second.
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

/** How an outage or a failed call shows: a status, a connection that is refused or reset, or silence until a timeout. */
export type Failure = "500" | "529" | "refused" | "reset" | "timeout"

export interface Outage {
  readonly from: number
  readonly to: number
  readonly failure: Failure
  /** How long a call takes to fail, on average; a refusal and a timeout take exactly this long. */
  readonly showsAfter: number
}

/** How long a failure takes to show unless a scenario says otherwise. */
export const showsAfter: { readonly [F in Failure]: number } = {
  "500": 300,
  "529": 150,
  refused: 5,
  reset: 1000,
  timeout: 30_000
}

/** Headers: exact; tokens rounded to 1,000 as Anthropic's are; none; of another replica, some seconds old; of requests only. */
export type Headers = "exact" | "rounded" | "none" | "stale" | "requestsOnly"

/**
 * What the client is told of a limit: its rate, its rate and its burst, or nothing. "asCounted" is a rate by itself, of which
 * the client knows how the provider counts it: a law is told the burst, the library gets the rate and its accounting.
 */
export type Told = "bare" | "burst" | "nothing" | "asCounted"

/** Agents that always have a next call, or agents with a number of calls each, one after the other. */
export type Work =
  | { readonly kind: "loop"; readonly agents: number; readonly workers: number }
  | { readonly kind: "jobs"; readonly agents: number; readonly calls: ReadonlyArray<number> }

export interface Scenario {
  readonly name: string
  readonly millis: number
  readonly limits: { readonly [D in Dimension]?: { readonly perMinute: number; readonly burst: number } }
  readonly window: Window
  /** A charged rejection takes one request and a twentieth of its tokens, as far as they are there. */
  readonly rejections: "free" | "charged"
  /** The part of the calls that are rejected, or fail with 500, although there is room. */
  readonly random429: number
  readonly random5xx: number
  readonly outages: ReadonlyArray<Outage>
  /** An undeclared limit of calls in flight. */
  readonly concurrency?: number | undefined
  /** Usage may grow by this factor a minute, from this part of the limit on. */
  readonly acceleration?: { readonly growth: number; readonly from: number } | undefined
  readonly neighbours: ReadonlyArray<Neighbour>
  /** From `at` on the limits, and their bursts down to a few calls, are the original ones times `factor`. */
  readonly changes: ReadonlyArray<{ readonly at: number; readonly factor: number }>
  /** One call, created half a minute after the start, fails with 500 whenever it is sent. */
  readonly poison: boolean
  readonly headers: Headers
  /** How old stale headers are on average. */
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
  /** What the user states later on instead. */
  readonly retold: ReadonlyArray<{ readonly at: number; readonly told: { readonly [D in Dimension]?: Told } }>
  /** The part of the limits that the user leaves to this client; 1 unless another program is to have the rest. */
  readonly share: number
  /** A moment after which the client should use its share again, for "back within 15 s". */
  readonly backFrom?: number | undefined
}

/** A burst holds this many calls of the mean size, however small it is otherwise. */
export const leastBurst = 4

/** What is fair beside the neighbours: all that they leave, and half beside one that wants everything and yields. */
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
