/**
 * The scenarios by name, and workloads from traces.
 *
 * @since 0.1.0
 */
import { invalid } from "../invalid.ts"
import { drained, type Stepwise } from "../stepwise.ts"
import * as Words from "../words.ts"
import * as Scenario from "./scenario.ts"
import * as Seeded from "./seeded.ts"

// -----------------------------------------------------------------------------
// By name
// -----------------------------------------------------------------------------

/** Where random numbers of one purpose come from, so that those of another do not change with them. */
const lanes = { input: 101, output: 102 }

const between = (least: number, value: number, most: number): number =>
  Math.max(least, Math.min(most, Math.round(value)))

/** 12 agents of 5 calls of 150,000 tokens against 4M a minute, with the whole minute there to begin with. */
const burst = (options: Scenario.Options): Scenario.Scenario =>
  Scenario.make({
    firstTokens: 150_000,
    tokens: 150_000,
    rate: 4_000_000 / 60,
    burst: 4_000_000,
    ...options
  })

/** 64 agents of 20 calls of random sizes, output unknown, against three limits at once. */
const many = ({ agents = 64, calls = 20, ...options }: Scenario.Options): Scenario.Scenario => {
  const { headers, maxSeconds, name, rejections, seed } = options
  const base = Scenario.make({ name, agents, calls, headers, maxSeconds, rejections, seed })
  const maxTokens = 1_024
  const draws = (...purpose: ReadonlyArray<number>) => Seeded.draws(Seeded.seedFor(base.seed, ...purpose))
  return {
    ...base,
    summary: `${Words.counted(agents, "agent")} x ${Words.counted(calls, "call")} of lognormal size (1,500 input tokens in the mean, 300 of output)`,
    settings: {
      agents,
      callsPerAgent: calls,
      maxTokens,
      rejections: base.settings.rejections!,
      headers: base.settings.headers!,
      seed: base.seed
    },
    agents: base.agents.map((agent, number) => ({
      ...agent,
      calls: agent.calls.map((call, index) => ({
        ...call,
        inputTokens: between(20, Seeded.lognormal(1_500, 0.8, draws(lanes.input, number, index)), 40_000),
        outputTokens: between(1, Seeded.lognormal(300, 0.6, draws(lanes.output, number, index)), maxTokens),
        maxTokens
      }))
    })),
    limits: {
      requests: { perMinute: 1_000, window: "bucket" },
      inputTokens: { perMinute: 400_000, window: "bucket" },
      outputTokens: { perMinute: 160_000, window: "bucket" }
    },
    provider: { rejections: base.provider.rejections, headers: base.provider.headers, latency: { noise: 0.2 } }
  }
}

/** Small calls of many agents, of which the provider takes a few at once. Neither its console nor its headers say so. */
const undeclaredConcurrency = (options: Scenario.Options): Scenario.Scenario => ({
  ...Scenario.make({
    agents: 40,
    calls: 15,
    firstTokens: 5_000,
    tokens: 5_000,
    concurrency: 10,
    ...options
  }),
  isConcurrencyDeclared: false
})

/** A named scenario. */
interface Named {
  readonly make: (options: Scenario.Options) => Scenario.Scenario
  /** One line for people. */
  readonly what: string
}

/** A fan-out of equal agents, the incident unless `sizes` says otherwise, with another provider. */
const variant = (
  what: string,
  {
    does,
    provider,
    sizes
  }: { readonly does: string; readonly provider: Scenario.ProviderOptions; readonly sizes?: Scenario.Options }
): Named => ({
  what,
  make: (options) => {
    const base = Scenario.make({ ...sizes, ...options })
    return {
      ...base,
      summary: `${base.summary}; ${does}`,
      provider: { ...base.provider, ...provider },
      faulty: provider.faults !== undefined
    }
  }
})

const named: Readonly<Record<string, Named>> = {
  incident: {
    make: Scenario.make,
    what: "12 agents at one limit, as reported: their first calls are large, and together more than the burst"
  },
  burst: { make: burst, what: "12 agents whose calls are all large, and a minute's worth of the limit at once" },
  many: { make: many, what: "64 agents with small calls of random sizes, and three limits" },
  flaky: variant("the incident, and 5 % of all requests fail: 529, 500, refused, cut, timed out", {
    does: "5 % of all requests fail",
    provider: {
      faults: [
        { kind: "529", rate: 0.02 },
        { kind: "500", rate: 0.01 },
        { kind: "refused", rate: 0.01 },
        { kind: "cut", rate: 0.005 },
        { kind: "timeout", rate: 0.005, afterMillis: 30_000 }
      ]
    }
  }),
  outage: variant("the incident, and the provider answers 529 from 10 to 40 s", {
    does: "the provider answers 529 from 10 to 40 s",
    provider: { faults: [{ kind: "529", between: [10_000, 40_000] }] }
  }),
  "outage-at-start": variant("the incident, and the provider answers 500 for the first 10 s", {
    does: "the provider answers 500 for the first 10 s",
    provider: { faults: [{ kind: "500", between: [0, 10_000] }] }
  }),
  neighbour: variant("the incident, and somebody else takes 30 % of the limits", {
    does: "somebody else takes 30 % of the limits",
    provider: { neighbour: { share: 0.3 } }
  }),
  "neighbour-in-bursts": variant("the incident, and somebody else takes all that is left for 5 s of every 30 s", {
    does: "for 5 s of every 30 s somebody else asks for three times the limits",
    provider: { neighbour: { share: 3, everyMillis: 30_000, forMillis: 5_000 } }
  }),
  "random-rejections": variant("40 agents with small calls, of which the provider rejects 1 % for no reason", {
    does: "1 % of all requests are rejected for no reason",
    provider: { faults: [{ kind: "429", rate: 0.01 }] },
    sizes: { agents: 40, calls: 30, firstTokens: 5_000, tokens: 5_000 }
  }),
  "undeclared-concurrency": {
    make: undeclaredConcurrency,
    what: "40 agents with small calls, of which the provider takes 10 at once without saying so"
  },
  "slow-start": variant("24 agents, and usage may grow by half from one minute to the next", {
    does: "usage may grow by half from one minute to the next",
    provider: { ramp: { fromPerMinute: 1_000_000, growth: 1.5 } },
    sizes: { agents: 24, calls: 10, firstTokens: 14_000, tokens: 14_000 }
  })
}

/**
 * The names of the scenarios.
 *
 * @category scenarios
 * @since 0.1.0
 */
export const names: ReadonlyArray<string> = Object.keys(named)

/**
 * Each scenario by its name, and what it is in one line.
 *
 * @category scenarios
 * @since 0.2.0
 */
export const described: ReadonlyArray<readonly [name: string, what: string]> = Object.entries(named).map(
  ([name, { what }]) => [name, what]
)

/**
 * The scenario of a name; options change what it is made of. Undefined for a name that there is not.
 *
 * @category scenarios
 * @since 0.1.0
 */
export const byName = (name: string, options: Scenario.Options = {}): Scenario.Scenario | undefined => {
  // An option that is undefined is none: it must not take the place of what the scenario says itself.
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return Object.hasOwn(named, name) ? named[name]!.make({ ...Object.fromEntries(given), name }) : undefined
}

// -----------------------------------------------------------------------------
// Traces
// -----------------------------------------------------------------------------

/**
 * One call of a trace.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorded {
  /** Since the first call, in milliseconds. */
  readonly atMillis: number
  readonly inputTokens: number
  readonly outputTokens: number
}

/**
 * A line of a trace that cannot be read.
 *
 * @category errors
 * @since 0.1.0
 */
export interface Unreadable {
  readonly line: number
  readonly problem: string
}

const formats = [
  { time: "TIMESTAMP", input: "ContextTokens", output: "GeneratedTokens" },
  { time: "Timestamp", input: "Request tokens", output: "Response tokens" }
] as const

/** Seconds, or a date and time as `2023-11-16 18:17:03.9799600`, of which the time zone does not matter. */
const millisOf = (text: string): number => {
  const date = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d(?:\.\d+)?)/.exec(text)
  if (date === null) return text.trim() === "" ? Number.NaN : Number(text) * 1_000
  const [, year, month, day, hour, minute, second] = date.map(Number)
  return Date.UTC(year!, month! - 1, day!, hour!, minute!) + second! * 1_000
}

/** A number of tokens; NaN where there is none. A table of numbers may write a whole one as `12.0`. */
const tokensOf = (cell: string | undefined): number => {
  const tokens = cell === undefined || cell.trim() === "" ? Number.NaN : Number(cell)
  return Number.isSafeInteger(tokens) && tokens >= 0 ? tokens : Number.NaN
}

/**
 * Reads a trace: CSV with a header line, in the columns of the Azure LLM inference traces (`TIMESTAMP`, `ContextTokens`,
 * `GeneratedTokens`) or of BurstGPT (`Timestamp` in seconds, `Request tokens`, `Response tokens`).
 *
 * **Details**
 *
 * Calls are put in the order of time. Calls without output, which BurstGPT records as failures, are left out.
 *
 * @category traces
 * @since 0.1.0
 */
export const parseTrace = (text: string): ReadonlyArray<Recorded> | Unreadable => drained(parseTraceSteps(text))

/** So many lines are read in one step. */
const atOnce = 2_000

/**
 * {@link parseTrace} in steps of a millisecond or two: a long trace takes seconds.
 *
 * @category traces
 * @since 0.2.0
 */
export function* parseTraceSteps(text: string): Stepwise<ReadonlyArray<Recorded> | Unreadable> {
  const lines = text.split(/\r?\n/)
  const head = (lines[0] ?? "").replace(/^\uFEFF/, "").split(",")
  const format = formats.find(({ input, output, time }) => [time, input, output].every((name) => head.includes(name)))
  if (format === undefined) {
    const expected = formats.map(({ input, output, time }) => `${time},${input},${output}`).join(" or ")
    return { line: 1, problem: `expected the columns ${expected}, got ${head.join(",").slice(0, 80) || "nothing"}` }
  }
  const [time, input, output] = [format.time, format.input, format.output].map((name) => head.indexOf(name))
  const calls: Array<Recorded> = []
  for (let index = 1; index < lines.length; index++) {
    const line = lines[index]!
    if (index % atOnce === 0) yield
    if (line.trim() === "") continue
    const cells = line.split(",")
    const atMillis = millisOf(cells[time!] ?? "")
    const inputTokens = tokensOf(cells[input!])
    const outputTokens = tokensOf(cells[output!])
    if (!Number.isFinite(atMillis + inputTokens + outputTokens)) {
      return { line: index + 1, problem: `expected a time and two whole numbers of tokens, got ${line.slice(0, 80)}` }
    }
    if (outputTokens > 0) calls.push({ atMillis, inputTokens: Math.max(1, inputTokens), outputTokens })
  }
  if (calls.length === 0) return { line: lines.length, problem: "expected at least one call" }
  calls.sort((a, b) => a.atMillis - b.atMillis)
  const start = calls[0]!.atMillis
  return calls.map((call) => ({ ...call, atMillis: call.atMillis - start }))
}

/**
 * What a trace is replayed against.
 *
 * @category options
 * @since 0.1.0
 */
export interface TraceOptions {
  /** Times faster than it was recorded; `Infinity` is as fast as possible: all calls wait from the start. @default 1 */
  readonly speed?: number | undefined
  /** Agents that the calls are dealt to when it is replayed as fast as possible. @default 64 */
  readonly agents?: number | undefined
  /** Input tokens a minute. @default 400_000 */
  readonly inputTokensPerMinute?: number | undefined
  /** Output tokens a minute. @default 80_000 */
  readonly outputTokensPerMinute?: number | undefined
  /** @default 1_000 */
  readonly requestsPerMinute?: number | undefined
  readonly rejections?: "free" | "charged" | undefined
  readonly headers?: Scenario.Options["headers"]
  readonly seed?: number | undefined
}

/** What a request of a trace allows its answer, unless that was longer: its caller did not know how long it would be. */
const usualMaxTokens = 2_048

/**
 * A trace as a scenario. With its arrivals kept, each call is an agent of its own that starts at its time. Throws a
 * `RangeError` for a speed or a number of agents that makes no sense. A call that uses more than a minute's limit, which no
 * strategy could make, is cut to it.
 *
 * @category traces
 * @since 0.1.0
 */
export const fromTrace = (trace: ReadonlyArray<Recorded>, options: TraceOptions = {}): Scenario.Scenario => {
  const {
    agents = 64,
    headers = "rounded",
    inputTokensPerMinute = 400_000,
    outputTokensPerMinute = 80_000,
    rejections = "charged",
    requestsPerMinute = 1_000,
    seed = 1,
    speed = 1
  } = options
  if (!(speed > 0)) invalid("Scenario.speed", "a number > 0", speed)
  if (!(Number.isSafeInteger(agents) && agents >= 1)) invalid("Scenario.agents", "an integer >= 1", agents)
  const kept = Number.isFinite(speed)
  const count = kept ? trace.length : Math.min(agents, trace.length)
  const width = String(count).length
  const nameOf = (number: number) => `${kept ? "call" : "agent"}-${String(number + 1).padStart(width, "0")}`
  const queues: Array<Array<Scenario.Call>> = Array.from({ length: count }, () => [])
  for (const [number, recorded] of trace.entries()) {
    const queue = queues[number % count]!
    const outputTokens = Math.min(recorded.outputTokens, outputTokensPerMinute)
    queue.push({
      agent: nameOf(number % count),
      index: queue.length,
      inputTokens: Math.min(recorded.inputTokens, inputTokensPerMinute),
      outputTokens,
      maxTokens: Math.max(usualMaxTokens, outputTokens)
    })
  }
  const last = trace.at(-1)?.atMillis ?? 0
  return {
    name: "trace",
    summary: `${Words.counted(trace.length, "call")} of a trace${
      kept
        ? `, arrivals ${speed === 1 ? "kept" : `x${speed}`}`
        : ` dealt to ${Words.counted(count, "agent")}, as fast as possible`
    }`,
    settings: {
      agents: count,
      speed: kept ? speed : null,
      inputTokensPerMinute,
      outputTokensPerMinute,
      requestsPerMinute,
      rejections,
      headers,
      seed
    },
    agents: queues.map((calls, number) => ({
      name: nameOf(number),
      startsAtMillis: kept ? Math.round(trace[number]!.atMillis / speed) : 0,
      calls
    })),
    limits: {
      requests: { perMinute: requestsPerMinute, window: "bucket" },
      inputTokens: { perMinute: inputTokensPerMinute, window: "bucket" },
      outputTokens: { perMinute: outputTokensPerMinute, window: "bucket" }
    },
    provider: { rejections, headers },
    isConcurrencyDeclared: true,
    faulty: false,
    maxSeconds: Math.ceil(last / 1_000 / (kept ? speed : 1)) + 7_200,
    seed
  }
}
