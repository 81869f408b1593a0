/** Reads traces of recorded traffic, and makes scenarios of them. */
import { Stepwise, Input } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import * as Scenario from "./scenario.ts"

/**
 * One call of a trace.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface TraceCall {
  /** Milliseconds since the first call. */
  readonly atMillis: number
  readonly inputTokens: number
  readonly outputTokens: number
}

/**
 * A line of a trace that cannot be read.
 *
 * @stability experimental
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

/** Reads seconds, or a date and time such as `2023-11-16 18:17:03.9799600`. The time zone does not matter. */
const millisOf = (text: string): number => {
  const date = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d(?:\.\d+)?)/.exec(text)
  if (date === null) return text.trim() === "" ? Number.NaN : Number(text) * 1_000
  const [, year, month, day, hour, minute, second] = date.map(Number)
  return Date.UTC(year!, month! - 1, day!, hour!, minute!) + second! * 1_000
}

/** Reads a number of tokens, which may be written as `12.0`; NaN for anything else. */
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
 * Calls are sorted by time. Calls without output, which are failures in BurstGPT, are left out.
 *
 * @stability experimental
 * @category traces
 * @since 0.1.0
 */
export const parseTrace = (text: string): ReadonlyArray<TraceCall> | Unreadable =>
  Stepwise.drained(parseTraceSteps(text))

/** The number of lines in one step. */
const atOnce = 2_000

/**
 * {@link parseTrace} in steps of a millisecond or two, because a long trace takes seconds.
 *
 * @stability experimental
 * @category traces
 * @since 0.2.0
 */
export function* parseTraceSteps(text: string): Stepwise.Stepwise<ReadonlyArray<TraceCall> | Unreadable> {
  const lines = text.split(/\r?\n/)
  const head = (lines[0] ?? "").replace(/^\uFEFF/, "").split(",")
  const format = formats.find(({ input, output, time }) => [time, input, output].every((name) => head.includes(name)))
  if (format === undefined) {
    const expected = formats.map(({ input, output, time }) => `${time},${input},${output}`).join(" or ")
    return { line: 1, problem: `expected the columns ${expected}, got ${head.join(",").slice(0, 80) || "nothing"}` }
  }
  const [time, input, output] = [format.time, format.input, format.output].map((name) => head.indexOf(name))
  const calls: Array<TraceCall> = []
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
 * The options of a replay, with the limits of the provider.
 *
 * @stability experimental
 * @category options
 * @since 0.1.0
 */
export interface TraceOptions {
  /** How many times faster than recorded; with `Infinity` all calls wait from the start. @default 1 */
  readonly speed?: number | undefined
  /** The number of agents that share the calls if the speed is `Infinity`. @default 64 */
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

/** The `max_tokens` of a request in a trace, unless its answer was longer. */
const usualMaxTokens = 2_048

/**
 * Makes a scenario of a trace. At a finite speed, each call is an agent that starts at the call's time. A call that exceeds a minute's
 * limit is cut to that limit, because no strategy could make it. Throws a `RangeError` for an invalid speed or number of agents.
 *
 * @stability experimental
 * @category traces
 * @since 0.1.0
 */
export const fromTrace = (trace: ReadonlyArray<TraceCall>, options: TraceOptions = {}): Scenario.Scenario => {
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
  if (!(speed > 0)) Input.invalid("Scenario.make: speed", "a number > 0", speed)
  if (!(Number.isSafeInteger(agents) && agents >= 1)) Input.invalid("Scenario.make: agents", "an integer >= 1", agents)
  const kept = Number.isFinite(speed)
  const count = kept ? trace.length : Math.min(agents, trace.length)
  const width = String(count).length
  const nameOf = (number: number) => `${kept ? "call" : "agent"}-${String(number + 1).padStart(width, "0")}`
  const queues: Array<Array<Scenario.ScenarioCall>> = Array.from({ length: count }, () => [])
  for (const [number, recorded] of trace.entries()) {
    const queue = queues[number % count]!
    const outputTokens = Math.min(recorded.outputTokens, outputTokensPerMinute)
    queue.push({
      agent: nameOf(number % count),
      index: queue.length,
      inputTokens: Math.min(recorded.inputTokens, inputTokensPerMinute),
      outputTokens,
      maxTokens: Math.max(usualMaxTokens, outputTokens),
      prompt: Scenario.textOf(seed, number % count, queue.length)
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
