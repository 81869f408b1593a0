/**
 * The cells of docs/figures/weather.md and their targets. A cell has one or more weathers, with 12 agents and 2,000 tokens a call
 * unless it says otherwise.
 */
import { type Options, scenario } from "./build.ts"
import { type Failure, type Neighbour, type Scenario, showsAfter } from "./scenario.ts"

/** What a cell must reach on average over its weathers and seeds. */
export interface Target {
  /** The minimum fraction used of what was available. */
  readonly used?: number
  /** The maximum number of non-random 429s per call sent. */
  readonly excess?: number
  /** The maximum number of lost calls. */
  readonly lost?: number
  /** The maximum number of seconds, in every run, until the share is used again. */
  readonly back?: number
  /** Beside a polite neighbour: our use as a fraction of the fair half. */
  readonly ofFair?: readonly [from: number, to: number]
  /** The maximum makespan of jobs: as a multiple of the oracle's, in seconds after the oracle, */
  readonly ofOracle?: number
  readonly afterOracle?: number
  /** and in seconds after a client that only retries. */
  readonly afterNoLimits?: number
}

export interface Cell {
  readonly name: string
  readonly target: Target
  readonly weathers: ReadonlyArray<Scenario>
}

const seconds = (n: number) => n * 1000
const minutes = (n: number) => n * 60_000
const answers = (n: number): Partial<Options> => ({ latency: { mean: seconds(n), sigma: 0.5 } })
/** Long enough for slow weathers; fast ones make as many calls in less time. */
const lengthOf = (perMinute: number, latency: number) => {
  if (perMinute <= 60) return minutes(20)
  return perMinute < 6000 || latency > 20 ? minutes(10) : minutes(5)
}

const cell = (name: string, target: Target, weathers: ReadonlyArray<Options>): Cell => ({
  name,
  target: { lost: 0, ...target },
  weathers: weathers.map((options) => scenario(`${name}: ${describe(options)}`, options))
})
/** A name that distinguishes the weathers of a cell. */
const describe = (options: Options): string => {
  const { agents, binds, burst, headers, jobs, latency, limits, outages, perMinute = 600, told } = options
  return [
    jobs === undefined ? `${perMinute}/min` : `${agents} x ${jobs.length} calls of ${jobs[0]} tokens`,
    `answers after ${(latency?.mean ?? 2000) / 1000} s`,
    binds !== undefined && `${binds} bind`,
    burst !== undefined && `burst ${burst.toFixed(3)}`,
    headers !== undefined && `headers ${headers}`,
    typeof told === "string" && limits === undefined && `told ${told}`,
    ...(outages ?? []).map(({ failure, from, to }) => `${failure} ${from / 1000}-${to / 1000} s, ${agents} agents`)
  ]
    .filter((part) => part !== false)
    .join(", ")
}

const product = (rates: ReadonlyArray<number>, latencies: ReadonlyArray<number>, options: Options) =>
  rates.flatMap((perMinute) =>
    latencies.map((latency) => ({ perMinute, ...answers(latency), millis: lengthOf(perMinute, latency), ...options }))
  )

const rates = [60, 600, 6000, 60_000]
const percent = (p: number) => `${p * 100} %`

/** Five random failures in a row lose a call under any law. At 5 % that is about one of the millions of calls in a row. */
const chanceLosses = (p: number) => (p < 0.05 ? 0 : 6)

const random = [
  ...(
    [
      [0.001, 0.98, 0.005],
      [0.01, 0.98, 0.005],
      [0.05, 0.92, 0.01]
    ] as const
  ).map(([p, used, excess]) =>
    cell(
      `random 429s of ${percent(p)}, headers`,
      { used, excess, lost: chanceLosses(p) },
      product(rates, [2, 20, 60], { random429: p })
    )
  ),
  ...(
    [
      [0.01, 0.95, 0.01],
      [0.05, 0.9, 0.01]
    ] as const
  ).map(([p, used, excess]) =>
    cell(
      `random 429s of ${percent(p)}, no headers`,
      { used, excess, lost: chanceLosses(p) },
      product(rates, [2], { random429: p, headers: "none" })
    )
  )
]

const constant = (part: number): Neighbour => ({ kind: "constant", part })
const square: Neighbour = { kind: "square", low: 0.25, high: 0.75, period: minutes(1) }
const ramp: Neighbour = { kind: "ramp", from: 0, to: 0.8, over: minutes(10) }
const bursts: Neighbour = { kind: "bursts", part: 3, lasts: seconds(5), period: seconds(30) }
const neighbours: ReadonlyArray<readonly [string, Neighbour]> = [
  ["of 25 %", constant(0.25)],
  ["of 50 %", constant(0.5)],
  ["of 75 %", constant(0.75)],
  ["as a square wave", square],
  ["as a ramp", ramp]
]
const beside = (neighbour: Neighbour, options: Options = {}): Options => ({ neighbours: [neighbour], ...options })
const blind: Options = { headers: "none" }

const shared = [
  ...neighbours.map(([name, each]) =>
    cell(`neighbour ${name}, headers`, { used: 0.96, excess: 0.015 }, product([600], [2, 20], beside(each)))
  ),
  cell("neighbour in bursts, headers, 2 s", { used: 0.95, excess: 0.03 }, [beside(bursts)]),
  cell("neighbour in bursts, headers, 20 s", { used: 0.85, excess: 0.03 }, [beside(bursts, answers(20))]),
  ...neighbours.map(([name, each]) =>
    cell(`neighbour ${name}, no headers`, { used: 0.95, excess: name === "of 75 %" ? 0.06 : 0.03 }, [
      beside(each, blind)
    ])
  ),
  cell("neighbour in bursts, no headers", { used: 0.88, excess: 0.04 }, [beside(bursts, blind)]),
  cell("share of half beside a polite neighbour", { ofFair: [0.85, 1.15] }, [
    beside({ kind: "polite" }, { share: 0.5 }),
    beside({ kind: "polite" }, { share: 0.5, ...blind }),
    beside({ kind: "polite" }, { share: 0.5, told: "nothing" })
  ])
]

const unknown = [
  cell(
    "nothing known, no headers",
    { used: 0.95, excess: 0.03 },
    product([600, 6000], [2, 20], { headers: "none", told: "nothing" })
  ),
  cell("burst of a hundredth, not stated", { used: 0.92, excess: 0.02 }, [
    { burst: 0.01, told: "bare" },
    { burst: 0.01, told: "bare", headers: "none" }
  ]),
  cell("undeclared limit of 10 in flight", { used: 0.95, excess: 0.04 }, [
    { concurrency: 10 },
    { concurrency: 10, headers: "none" }
  ])
]

const halved: Options = {
  changes: [
    { at: minutes(3), factor: 0.5 },
    { at: minutes(6), factor: 1 }
  ],
  backFrom: minutes(6)
}
const leaves = beside({ kind: "constant", part: 0.75, to: minutes(5) }, { backFrom: minutes(5) })

const changing = [
  cell("limit halved and back, headers", { used: 0.95, back: 15 }, [halved]),
  cell("limit halved and back, no headers", { used: 0.95, back: 15 }, [{ ...halved, ...blind }]),
  cell("neighbour of 75 % leaves, headers", { used: 0.95, back: 15 }, [leaves]),
  cell("neighbour of 75 % leaves, no headers", { used: 0.95, back: 15 }, [{ ...leaves, ...blind }])
]

/** The incident's limits: 4M tokens a minute, calls of 150,000. */
const large: Options = {
  inputTokens: { mean: 150_000, sigma: 0.5 },
  perMinute: 4_000_000 / 150_000,
  millis: minutes(20)
}

const kinds = [
  cell("150K a call, burst a sixth", { used: 0.95, excess: 0.02 }, [large]),
  cell("150K a call, beside a neighbour of half", { used: 0.9, excess: 0.05 }, [beside(constant(0.5), large)]),
  cell("sliding window, not stated", { used: 0.93, excess: 0.02 }, [{ window: "sliding", told: "bare" }]),
  cell("fixed window", { used: 0.98, excess: 0.02 }, [{ window: "fixed", told: "bare" }]),
  cell("stale headers", { used: 0.98, excess: 0.02 }, [{ headers: "stale" }]),
  cell("stale headers, neighbour of half", { used: 0.98, excess: 0.02 }, [beside(constant(0.5), { headers: "stale" })]),
  cell("charged rejections, neighbour of half, no headers", { used: 0.98, excess: 0.02 }, [
    beside(constant(0.5), { rejections: "charged", headers: "none" })
  ]),
  cell("acceleration x 1.5 a minute", { used: 0.5, excess: 0.12 }, [{ acceleration: { growth: 1.5, from: 0.1 } }])
]

const faults = [
  ...[0.001, 0.01, 0.05].map((p) =>
    cell(`random 500s of ${percent(p)}`, { used: 0.95, excess: 0.01, lost: chanceLosses(p) }, [
      ...product([600, 60_000], [2], { random5xx: p }),
      ...product([600, 60_000], [2], { random5xx: p, burst: 0.01 })
    ])
  ),
  cell("a request that always fails", { used: 0.95, excess: 0.01 }, [
    { poison: true },
    { poison: true, headers: "none" }
  ]),
  cell("headers of requests only, tokens bind", { used: 0.95, excess: 0.01 }, [
    { headers: "requestsOnly" },
    beside(constant(0.25), { headers: "requestsOnly", told: "bare" })
  ]),
  cell("one dimension stated, the others learned", { used: 0.95, excess: 0.01 }, [
    { told: { requests: "burst" } },
    { told: { requests: "bare" }, headers: "none" }
  ]),
  cell("limits dropped and added while it runs", { used: 0.95, excess: 0.01 }, [
    {
      retold: [
        { at: minutes(3), told: { requests: "burst" } },
        { at: minutes(6), told: { requests: "burst", inputTokens: "burst" } }
      ]
    }
  ]),
  cell("output tokens bind", { used: 0.95, excess: 0.02 }, [
    { binds: "outputTokens" },
    { binds: "outputTokens", ...answers(20) },
    { binds: "outputTokens", told: "bare", headers: "none" }
  ])
]

const outage = (failure: Failure, from: number, lasts: number, agents: number): Options => ({
  outages: [{ failure, from: seconds(from), to: seconds(from + lasts), showsAfter: showsAfter[failure] }],
  // A call sent at the very end of an outage fails only after this time.
  backFrom: seconds(from + lasts) + (failure === "timeout" ? showsAfter.timeout : 0),
  agents,
  millis: minutes(6)
})
const failures: ReadonlyArray<Failure> = ["500", "529", "refused", "reset", "timeout"]

const outages = failures.map((failure) =>
  cell(
    `outage: ${failure}`,
    { back: 15 },
    [0, 120].flatMap((from) =>
      [1, 3, 10, 30].flatMap((lasts) => [12, 80].map((agents) => outage(failure, from, lasts, agents)))
    )
  )
)

/** All answers take the same time, so that makespans can be compared. */
const jobs = (agents: number, calls: ReadonlyArray<number>, options: Options): Options => ({
  agents,
  jobs: calls,
  inputTokens: { mean: calls[0]!, sigma: 0 },
  latency: { mean: seconds(2), sigma: 0 },
  ...options
})
const repeated = (n: number, tokens: number): ReadonlyArray<number> => Array.from({ length: n }, () => tokens)
const perMinute = (n: number, burst = n) => ({ perMinute: n, burst })
/** Limits as the README and the guides write them, counted as Anthropic does: a bucket that holds one minute. */
const asWritten: Options = {
  limits: { requests: perMinute(1000), inputTokens: perMinute(2_000_000), outputTokens: perMinute(400_000) },
  told: "asCounted"
}

const incident = jobs(12, [150_000, ...repeated(4, 14_000)], { limits: { inputTokens: perMinute(3_600_000, 200_000) } })
const exact: Target = { ofOracle: 1.01, excess: 0 }

const finite = [
  cell("the incident", exact, [incident]),
  cell("burst: 12 agents, 5 calls of 150K each, a minute at once", exact, [
    jobs(12, repeated(5, 150_000), { limits: { inputTokens: perMinute(4_000_000) } })
  ]),
  cell("many: 64 agents, 20 calls of lognormal size each", exact, [
    jobs(64, repeated(20, 1500), {
      inputTokens: { mean: 1500, sigma: 0.8 },
      limits: { requests: perMinute(1000), inputTokens: perMinute(400_000), outputTokens: perMinute(160_000) }
    })
  ]),
  cell("limits as the README writes them", { afterNoLimits: 2.1 }, [
    jobs(40, [30_000], asWritten),
    jobs(12, repeated(5, 30_000), asWritten),
    jobs(100, repeated(3, 5000), asWritten),
    jobs(40, repeated(3, 60_000), asWritten)
  ]),
  cell(
    "40 agents, and the provider is down at the start",
    { afterOracle: 15 },
    (["500", "529", "refused"] as const).flatMap((failure) =>
      [1, 3, 10].map((lasts) => jobs(40, repeated(5, 2000), { ...asWritten, ...outage(failure, 0, lasts, 40) }))
    )
  )
]

export const cells: ReadonlyArray<Cell> = [random, shared, unknown, changing, kinds, faults, outages, finite].flat()
