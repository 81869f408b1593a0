/**
 * What is raced: the calls that agents want to make, and the provider model that they meet.
 *
 * **Details**
 *
 * A scenario is a value. Its calls and their sizes are decided before anything runs, so that every strategy gets the same
 * work, and the physical {@link floor} can be computed from the scenario alone.
 *
 * @since 0.1.0
 */
import { Input, Words } from "floodgate/internal"
import * as Latency from "../latency.ts"
import type * as Limits from "floodgate/Limits"
import type { Params } from "floodgate/LlmProvider"
import type { ProviderSim } from "floodgate/testing"
import { rateOf } from "./rate.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * One call that an agent will make. Sizes are in tokens.
 *
 * @category models
 * @since 0.1.0
 */
export interface SimulatedCall {
  readonly agent: string
  /** Its number within the agent, from 0. */
  readonly index: number
  readonly inputTokens: number
  /** What the answer will have; strategies other than the oracle cannot know it. */
  readonly outputTokens: number
  /** What the request allows: `max_tokens`. */
  readonly maxTokens: number
}

/**
 * One agent: it starts at its time and makes its calls one after the other.
 *
 * @category models
 * @since 0.1.0
 */
export interface SimulatedAgent {
  readonly name: string
  readonly startsAtMillis: number
  readonly calls: ReadonlyArray<SimulatedCall>
}

/**
 * The limits that the provider enforces, each in the dimension's unit.
 *
 * @category models
 * @since 0.1.0
 */
export type ProviderOptions = Omit<ProviderSim.Options, "limits" | "pools" | "outputTokens" | "charsPerToken" | "seed">

/**
 * A race: who calls, and what the provider does.
 *
 * @category models
 * @since 0.1.0
 */
export interface Scenario {
  readonly name: string
  /** One line for people. */
  readonly summary: string
  /** What it was made of, as it is printed with the results. */
  readonly settings: Readonly<Record<string, string | number | null>>
  readonly agents: ReadonlyArray<SimulatedAgent>
  /** What the provider enforces, and what the account's owner can read in the provider's console. */
  readonly limits: Limits.Limits
  readonly provider: ProviderOptions
  /** Whether clients know the provider's limit on calls at once. */
  readonly isConcurrencyDeclared: boolean
  /** Whether strategies are expected to meet failures that are not rate limits. */
  readonly faulty: boolean
  /** Simulated time after which a race is stopped and reported as not finished. */
  readonly maxSeconds: number
  readonly seed: number
}

/**
 * What can be changed about a fan-out of equal agents. The defaults are the incident: 12 agents of 5 calls, the first of
 * 150,000 tokens and four of 14,000, output included: 2.472M tokens, against a bucket of 200,000 tokens that is refilled
 * at 60,000 a second.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name?: string | undefined
  readonly summary?: string | undefined
  /** @default 12 */
  readonly agents?: number | undefined
  /** Calls of each agent. @default 5 */
  readonly calls?: number | undefined
  /** Tokens of an agent's first call, its output included. @default 150_000 */
  readonly firstTokens?: number | undefined
  /** Tokens of each later call, its output included. @default 14_000 */
  readonly tokens?: number | undefined
  /** Output tokens of each call, which `max_tokens` allows exactly: estimates are exact. @default 200 */
  readonly outputTokens?: number | undefined
  /** Tokens a second that the provider grants. @default 60_000 */
  readonly rate?: number | undefined
  /** Tokens that the provider grants at once. A provider that counts by windows grants a minute's worth. @default 200_000 */
  readonly burst?: number | undefined
  /** Calls in flight that the provider takes, for all agents together. @default no limit */
  readonly concurrency?: number | undefined
  /**
   * Whether a rejected request counts against the limits: one request and 5 % of its tokens. Only with charged ones do
   * fixed retries take as long as in the incident.
   *
   * @default "charged"
   */
  readonly rejections?: "free" | "charged" | undefined
  /** Rate limit headers of responses: Anthropic's headers. @default "rounded" */
  readonly headers?: ProviderSim.Options["headers"]
  /** How the provider counts. @default "bucket" */
  readonly window?: NonNullable<Limits.Limit["window"]> | undefined
  /** Milliseconds per output token, in addition to 500 per call and 0.01 per input token. @default 10 */
  readonly latencyPerToken?: number | undefined
  /** @default 1 */
  readonly seed?: number | undefined
  /** Simulated seconds after which a race is stopped. @default 3_600 */
  readonly maxSeconds?: number | undefined
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const check = (ok: boolean, option: string, expected: string, got: number): void => {
  if (!ok) Input.invalid(`Scenario.make: ${option}`, expected, got)
}

const whole = (option: string, value: number, least: number): void =>
  check(Number.isSafeInteger(value) && value >= least, option, `an integer >= ${least}`, value)

/** The most agents and calls. All of them are in memory, a waiting agent with some 24 KB. */
const mostAgents = 100_000
const mostCalls = 1_000_000

/** More tokens than any model reads; a text of some more is none. */
const mostTokens = 100_000_000

/** The options with their defaults. */
const withDefaults = (options: Options) => ({
  agents: options.agents ?? 12,
  burst: options.burst ?? 200_000,
  calls: options.calls ?? 5,
  concurrency: options.concurrency,
  firstTokens: options.firstTokens ?? 150_000,
  headers: options.headers ?? "rounded",
  latencyPerToken: options.latencyPerToken ?? Latency.usual.perOutputTokenMillis,
  outputTokens: options.outputTokens ?? 200,
  rate: options.rate ?? 60_000,
  rejections: options.rejections ?? "charged",
  seed: options.seed ?? 1,
  tokens: options.tokens ?? 14_000,
  window: options.window ?? "bucket"
})

type ScenarioOptions = ReturnType<typeof withDefaults>

/** Throws where a number makes no sense. */
const checkAll = (options: ScenarioOptions): void => {
  const { agents, burst, calls, concurrency, firstTokens, latencyPerToken, outputTokens, rate, tokens, window } =
    options
  whole("agents", agents, 1)
  whole("calls", calls, 1)
  check(agents <= mostAgents, "agents", `at most ${mostAgents}`, agents)
  check(agents * calls <= mostCalls, "calls", `at most ${mostCalls} calls of all agents together`, calls)
  whole("outputTokens", outputTokens, 1)
  whole("firstTokens", firstTokens, outputTokens + 1)
  whole("tokens", tokens, outputTokens + 1)
  whole("seed", options.seed, 0)
  if (concurrency !== undefined) whole("concurrency", concurrency, 1)
  check(rate > 0 && Number.isFinite(rate), "rate", "a finite number > 0", rate)
  check(burst > 0 && Number.isFinite(burst), "burst", "a finite number > 0", burst)
  check(
    latencyPerToken >= 0 && Number.isFinite(latencyPerToken),
    "latencyPerToken",
    "a finite number >= 0",
    latencyPerToken
  )
  const largest = calls === 1 ? firstTokens : Math.max(firstTokens, tokens)
  const most = window === "bucket" ? Math.max(burst, rate * 60) : rate * 60
  const name = largest === firstTokens ? "firstTokens" : "tokens"
  check(largest <= mostTokens, name, `at most ${mostTokens} tokens`, largest)
  check(largest <= most, name, `at most the provider's ${most}`, largest)
}

const agentsOf = ({
  agents,
  calls,
  firstTokens,
  outputTokens,
  tokens
}: ScenarioOptions): ReadonlyArray<SimulatedAgent> =>
  Array.from({ length: agents }, (_, number) => {
    const name = `agent-${String(number + 1).padStart(String(agents).length, "0")}`
    return {
      name,
      startsAtMillis: 0,
      calls: Array.from({ length: calls }, (_, index) => ({
        agent: name,
        index,
        inputTokens: (index === 0 ? firstTokens : tokens) - outputTokens,
        outputTokens,
        maxTokens: outputTokens
      }))
    }
  })

/**
 * Equal agents that all start at once. Without options it is the incident.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option when a number makes no sense, such as a call of which the output is all.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Scenario => {
  const complete = withDefaults(options)
  checkAll(complete)
  const { agents, burst, calls, concurrency, firstTokens, headers, latencyPerToken, rate, rejections } = complete
  const { outputTokens, seed, tokens, window } = complete
  const { maxSeconds = 3_600, name = "incident" } = options
  const each = calls === 1 || tokens === firstTokens
  const first = `of ${Words.thousands(firstTokens)} tokens`
  const sizes = each ? ` ${first}` : `, the first ${first}, later ones of ${Words.thousands(tokens)}`
  return {
    name,
    summary: options.summary ?? `${Words.counted(agents, "agent")} x ${Words.counted(calls, "call")}${sizes}`,
    settings: {
      agents,
      callsPerAgent: calls,
      firstTokens,
      tokens,
      outputTokens,
      rate,
      burst: window === "bucket" ? burst : rate * 60,
      concurrency: concurrency ?? null,
      rejections,
      headers,
      window,
      latencyPerToken,
      seed
    },
    agents: agentsOf(complete),
    limits: { tokens: window === "bucket" ? { perSecond: rate, burst } : { perMinute: rate * 60, window } },
    provider: { rejections, headers, concurrency, latency: { perOutputTokenMillis: latencyPerToken } },
    isConcurrencyDeclared: true,
    faulty: false,
    maxSeconds,
    seed
  }
}

// -----------------------------------------------------------------------------
// Getters
// -----------------------------------------------------------------------------

/**
 * All calls of a scenario.
 *
 * @category getters
 * @since 0.1.0
 */
export const callsOf = (scenario: Scenario): ReadonlyArray<SimulatedCall> =>
  scenario.agents.flatMap((agent) => agent.calls)

/**
 * What a call takes of one dimension, when all of it counts.
 *
 * @category getters
 * @since 0.1.0
 */
export const amountOf = (
  dimension: Limits.Dimension,
  { inputTokens, outputTokens }: { readonly inputTokens: number; readonly outputTokens: number }
): number => ({ requests: 1, inputTokens, outputTokens, tokens: inputTokens + outputTokens })[dimension]

/** Characters per token of the prompts that the lab writes: what the simulated provider counts by. */
const charsPerToken = 4

/** The first text of a prompt names its call, so that the simulated provider knows the length of its answer. */
const headerOf = (call: SimulatedCall): string => `${call.agent}/${call.index}\n`

/** The text of all prompts: thousands of them are in memory at once, and a slice is not a copy. */
let filling = "x".repeat(1_000_000)

const filled = (length: number): string => {
  if (length > filling.length) filling = "x".repeat(length)
  return filling.slice(0, length)
}

/**
 * The request of a call: as many characters as its tokens have, so that clients that estimate have something to read.
 *
 * @category getters
 * @since 0.1.0
 */
export const paramsOf = (call: SimulatedCall): Params => {
  const header = headerOf(call)
  return {
    model: "claude-sonnet-5",
    max_tokens: call.maxTokens,
    metadata: { user_id: call.agent },
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: header },
          { type: "text", text: filled(Math.max(0, call.inputTokens * charsPerToken - header.length)) }
        ]
      }
    ]
  }
}

/**
 * Which call a request is, as `agent/index`.
 *
 * @category getters
 * @since 0.1.0
 */
export const keyOf = (params: Params): string => {
  const [header] = params.messages[0]?.content ?? []
  return typeof header === "object" && header.type === "text" ? header.text.slice(0, -1) : ""
}

/**
 * The simulated provider of a scenario.
 *
 * @category getters
 * @since 0.1.0
 */
export const providerOf = (scenario: Scenario): ProviderSim.Options => {
  const outputs = new Map(callsOf(scenario).map((call) => [`${call.agent}/${call.index}`, call.outputTokens]))
  return {
    ...scenario.provider,
    limits: scenario.limits,
    charsPerToken,
    outputTokens: (params) => outputs.get(keyOf(params)) ?? 1,
    reply: () => "ok",
    seed: scenario.seed
  }
}

/**
 * How long the provider works on an admitted call, in milliseconds and without noise.
 *
 * @category getters
 * @since 0.1.0
 */
export const latencyMillis = ({ provider }: Scenario, call: SimulatedCall): number => {
  const { baseMillis, perInputTokenMillis, perOutputTokenMillis } = Latency.complete(provider.latency)
  const input = Math.ceil(baseMillis + perInputTokenMillis * call.inputTokens - 1e-6)
  return Math.ceil(input + perOutputTokenMillis * call.outputTokens - 1e-6)
}

/**
 * Dimensions as people read them.
 *
 * @category models
 * @since 0.1.0
 */
export const dimensionNames: Readonly<Record<Limits.Dimension, string>> = {
  requests: Words.plural(2, Words.units.requests),
  inputTokens: Words.plural(2, Words.units.inputTokens),
  outputTokens: Words.plural(2, Words.units.outputTokens),
  tokens: Words.plural(2, Words.units.tokens)
}

/**
 * Limits in words, as a provider enforces them.
 *
 * @category getters
 * @since 0.1.0
 */
export const limitsText = (limits: Limits.Limits): string =>
  (Object.entries(limits) as ReadonlyArray<[Limits.Dimension, Limits.Limit | undefined]>)
    .flatMap(([dimension, limit]) => {
      if (limit === undefined) return []
      const { amount, seconds } = rateOf(limit)
      const rate = seconds === 1 ? "/s" : "/min"
      const per = limit.total === undefined ? rate : " in all"
      const bucket = `bucket of ${Words.thousands(limit.burst ?? amount)}`
      const how = { bucket, sliding: "any 60 s", fixed: "fixed minutes" }[limit.window ?? "bucket"]
      return [`${Words.counted(amount, Words.units[dimension])}${per} (${how})`]
    })
    .join("; ")

/**
 * The provider model in words: no figure is published without it.
 *
 * @category getters
 * @since 0.1.0
 */
export const modelOf = ({ isConcurrencyDeclared, limits, provider }: Scenario): string => {
  const parts: Array<string> = [limitsText(limits)]
  const { concurrency, headers = "rounded", neighbour, ramp, rejections = "free" } = provider
  if (concurrency !== undefined) {
    parts.push(`${Words.counted(concurrency, "call")} at once${isConcurrencyDeclared ? "" : ", undeclared"}`)
  }
  const charge = typeof rejections === "object" ? rejections : {}
  parts.push(
    rejections === "free"
      ? "rejections free"
      : `rejections charged (${Words.counted(charge.requests ?? 1, "request")} and ${(charge.tokenShare ?? 0.05) * 100} % of the tokens)`
  )
  parts.push(`headers ${headers}`)
  if (neighbour !== undefined) {
    const when =
      neighbour.everyMillis === undefined
        ? ""
        : ` for ${(neighbour.forMillis ?? 0) / 1000} s of every ${neighbour.everyMillis / 1000} s`
    parts.push(`a neighbour takes ${neighbour.share * 100} %${when}`)
  }
  if (ramp !== undefined)
    parts.push(
      `growth limited to x${ramp.growth ?? 1.5} a minute above ${Words.thousands(ramp.fromPerMinute)} a minute`
    )
  for (const { between, kind, rate } of provider.faults ?? []) {
    const share = rate === undefined ? "" : ` ${rate * 100} %`
    const when = between === undefined ? "" : ` from ${between[0] / 1000} to ${between[1] / 1000} s`
    parts.push(`fault ${kind}${share}${when}`)
  }
  return parts.join("; ")
}
