/**
 * Scenarios: the calls that agents make, and the model of the provider.
 *
 * **Details**
 *
 * A scenario is a value. Its calls and their sizes are fixed before anything runs, so every strategy gets the same work, and the
 * {@link floor} can be computed from the scenario alone.
 *
 * @stability experimental
 * @since 0.1.0
 */
import { Input, Latency, LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import type { Params } from "floodgate/LlmProvider"
import { inputTokens, Texts } from "floodgate/internal/testing"
import type { ProviderSim, Sessions } from "floodgate/testing"
import * as Seeded from "./seeded.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * The agents with their calls, and the behaviour of the provider.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface Scenario {
  readonly name: string
  /** One line for people. */
  readonly summary: string
  /** Its settings, as they are printed with the results. */
  readonly settings: Readonly<Record<string, string | number | null>>
  /** Each starts at its time and makes its calls one after the other, or as its script says. */
  readonly agents: ReadonlyArray<{
    readonly name: string
    readonly startsAtMillis: number
    /** Its calls, and those of its sub-agents. Sizes are in tokens. */
    readonly calls: ReadonlyArray<{
      readonly agent: string
      /** Its number within the agent, from 0. */
      readonly index: number
      readonly inputTokens: number
      /** The part of these that a cache reads which forgets nothing. Only scenarios of sessions have one. @default 0 */
      readonly cachedTokens?: number | undefined
      /** The tokens of the answer, which only the oracle knows in advance. */
      readonly outputTokens: number
      /** `max_tokens` of the request. */
      readonly maxTokens: number
      /** Its prompt: a text of its own, or a request of a conversation. */
      readonly prompt:
        | {
            /** The kind of text that it is made of. */
            readonly text: "prose" | "code" | "json" | "cjk"
            /** How many of its characters make a token, which only the provider knows in advance. */
            readonly charactersPerToken: number
          }
        | Params
    }>
    /** The pauses and sub-agents of a session. */
    readonly script?: Sessions.AgentScript | undefined
  }>
  /** The limits that the provider enforces and shows in its console; the sum if there are several places. */
  readonly limits: Limits.Limits
  /** Everything else that the provider does. */
  readonly provider: Omit<ProviderSim.Options, "limits" | "pools" | "outputTokens" | "inputTokens" | "seed">
  /** The places of the model, if there are several: providers with limits of their own. */
  readonly places?:
    | ReadonlyArray<{
        readonly name: string
        readonly limits: Limits.Limits
        readonly provider: Scenario["provider"]
      }>
    | undefined
  /** Whether clients know the provider's limit on concurrency. */
  readonly isConcurrencyDeclared: boolean
  /** Whether calls may fail for other reasons than rate limits. */
  readonly faulty: boolean
  /** Simulated time after which a race is stopped and reported as not finished. */
  readonly maxSeconds: number
  readonly seed: number
}

/** One call that an agent will make. */
export type ScenarioCall = Scenario["agents"][number]["calls"][number]

/** A prompt that {@link paramsOf} writes. */
export type ScenarioPrompt = Exclude<ScenarioCall["prompt"], Params>

/** One agent. */
export type ScenarioAgent = Scenario["agents"][number]

/** The options of a provider, apart from its limits. */
export type ProviderOptions = Scenario["provider"]

/** A place of a model. */
export type ScenarioPlace = NonNullable<Scenario["places"]>[number]

/**
 * The options of a fan-out of equal agents. The defaults are the incident: 12 agents of 5 calls, the first of 150,000 tokens and four
 * of 14,000, including output. These 2.472M tokens meet a bucket of 200,000 tokens that refills at 60,000 a second.
 *
 * @stability experimental
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
  /** Output tokens of each call. `max_tokens` is the same, so estimates are exact. @default 200 */
  readonly outputTokens?: number | undefined
  /** Tokens per second that the provider allows. @default 60_000 */
  readonly rate?: number | undefined
  /** The burst of the provider's bucket. A provider that counts by windows allows a minute's worth. @default 200_000 */
  readonly burst?: number | undefined
  /** How many calls in flight the provider accepts, for all agents together. @default no limit */
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

const whole = (option: string, value: number, min: number): void =>
  check(Number.isSafeInteger(value) && value >= min, option, `an integer >= ${min}`, value)

/** The bound on agents and calls. All of them are in memory, and a waiting agent takes some 24 KB. */
const maxAgents = 100_000
const maxCalls = 1_000_000

/** More tokens than any model reads. JavaScript has no texts that are much longer. */
const maxCallTokens = 100_000_000

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

/** Throws if a number is invalid. */
const checkAll = (options: ScenarioOptions): void => {
  const { agents, burst, calls, concurrency, firstTokens, latencyPerToken, outputTokens, rate, tokens, window } =
    options
  whole("agents", agents, 1)
  whole("calls", calls, 1)
  check(agents <= maxAgents, "agents", `at most ${maxAgents}`, agents)
  check(agents * calls <= maxCalls, "calls", `at most ${maxCalls} calls of all agents together`, calls)
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
  const perMinute = window === "bucket" ? Math.max(burst, rate * 60) : rate * 60
  const name = largest === firstTokens ? "firstTokens" : "tokens"
  check(largest <= maxCallTokens, name, `at most ${maxCallTokens} tokens`, largest)
  check(largest <= perMinute, name, `at most the provider's ${perMinute}`, largest)
}

/** How long the provider takes to count the tokens of a prompt. */
const countTokensMillis = 300

/** The seeds' tokenizers in turn, because a program does not know in advance how its provider counts. */
const tokenizers: ReadonlyArray<Texts.Tokenizer> = ["o200k", "claude", "published"]

const tokenizerOf = (seed: number): Texts.Tokenizer => tokenizers[seed % tokenizers.length]!

/** How often agents work with texts of each kind. An agent stays with its documents. */
const kinds: ReadonlyArray<readonly [kind: Texts.TextKind, upTo: number]> = [
  ["prose", 0.5],
  ["code", 0.75],
  ["json", 0.9],
  ["cjk", 1]
]

/** Separate seeds for separate purposes, so that a change to one does not change the numbers of another. */
const lanes = { kind: 201, file: 202, part: 203 }

/**
 * The text of an agent's call: prose for half of the agents, code for a quarter, and JSON, Chinese and Japanese for the others.
 * How many characters make a token varies from agent to agent and from call to call, as measured.
 *
 * @stability experimental
 * @category getters
 * @since 0.4.0
 */
export const textOf = (seed: number, agent: number, index: number): ScenarioPrompt => {
  const unit = (...purpose: ReadonlyArray<number>) => Seeded.draws(Seeded.seedFor(seed, ...purpose))()
  const drawn = unit(lanes.kind, agent)
  const [text] = kinds.find(([, upTo]) => drawn < upTo)!
  const [file, part] = [unit(lanes.file, agent), unit(lanes.part, agent, index)]
  return { text, charactersPerToken: Texts.charactersPerToken(text, tokenizerOf(seed), file, part) }
}

const agentsOf = ({
  agents,
  calls,
  firstTokens,
  outputTokens,
  seed,
  tokens
}: ScenarioOptions): ReadonlyArray<ScenarioAgent> =>
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
        maxTokens: outputTokens,
        prompt: textOf(seed, number, index)
      }))
    }
  })

/**
 * Equal agents that all start at once. Without options it is the incident.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option if a number is invalid, such as a call without any input.
 *
 * @stability experimental
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
    provider: {
      rejections,
      headers,
      concurrency,
      latency: { perOutputTokenMillis: latencyPerToken, countTokensMillis }
    },
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
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const callsOf = (scenario: Scenario): ReadonlyArray<ScenarioCall> =>
  scenario.agents.flatMap((agent) => agent.calls)

/**
 * The places of a scenario: at least one.
 *
 * @stability experimental
 * @category getters
 * @since 0.4.0
 */
export const placesOf = ({ limits, places, provider }: Scenario): ReadonlyArray<ScenarioPlace> =>
  places ?? [{ name: "provider", limits, provider }]

/**
 * Whether the agents are recorded or invented sessions, with conversations, pauses and sub-agents.
 *
 * @stability experimental
 * @category getters
 * @since 0.5.0
 */
export const isOfSessions = ({ agents }: Pick<Scenario, "agents">): boolean =>
  agents.some(({ script }) => script !== undefined)

/**
 * The input of a call that counts against a limit on input if its cache forgets nothing.
 *
 * @stability experimental
 * @category getters
 * @since 0.5.0
 */
export const countedInput = (
  { provider }: Pick<Scenario, "provider">,
  { cachedTokens = 0, inputTokens }: ScenarioCall
): number => inputTokens - (provider.cache === "breakpoints" ? cachedTokens : 0)

/**
 * The amount of a call in one dimension, if all of it counts.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const amountOf = (
  dimension: Limits.Dimension,
  { inputTokens, outputTokens }: { readonly inputTokens: number; readonly outputTokens: number }
): number => ({ requests: 1, inputTokens, outputTokens, tokens: inputTokens + outputTokens })[dimension]

/**
 * The name of a call, which is unique in its scenario: `agent/index`.
 *
 * @stability experimental
 * @category getters
 * @since 0.5.0
 */
export const nameOf = ({ agent, index }: Pick<ScenarioCall, "agent" | "index">): string => `${agent}/${index}`

/** The last message of a prompt begins with the name of its call, so that the simulated provider knows the length of its answer. */
const headerOf = (call: ScenarioCall): string => `${nameOf(call)}\n`

/**
 * The model of all calls.
 *
 * @stability experimental
 * @category models
 * @since 0.4.0
 */
export const model = "claude-sonnet-5"

/**
 * The request of a call, with as many characters as its tokens have, for clients that estimate.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const paramsOf = (call: ScenarioCall): Params => {
  const { prompt } = call
  if ("messages" in prompt) return prompt
  const header = headerOf(call)
  const characters = Math.round(call.inputTokens * prompt.charactersPerToken)
  return {
    model,
    max_tokens: call.maxTokens,
    metadata: { user_id: call.agent },
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: header },
          { type: "text", text: Texts.write(prompt.text, Math.max(0, characters - header.length)) }
        ]
      }
    ]
  }
}

/**
 * The call of a request, as `agent/index`.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const keyOf = (params: Pick<Params, "messages">): string => {
  const [first] = params.messages.at(-1)?.content ?? []
  return typeof first === "object" && first.type === "text" ? first.text.slice(0, first.text.indexOf("\n")) : ""
}

/**
 * The simulated provider of a scenario, at its first place or at another.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const providerOf = (scenario: Scenario, place = placesOf(scenario)[0]!): ProviderSim.Options => {
  const calls = new Map(callsOf(scenario).map((call) => [nameOf(call), call]))
  return {
    ...place.provider,
    limits: place.limits,
    // The cache also counts parts of requests.
    inputTokens: isOfSessions(scenario) ? inputTokens : (params) => calls.get(keyOf(params))?.inputTokens ?? 1,
    outputTokens: (params) => calls.get(keyOf(params))?.outputTokens ?? 1,
    reply: () => "ok",
    seed: scenario.seed
  }
}

/**
 * The provider's time for an admitted call, in milliseconds and without noise.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const latencyMillis = (
  { provider }: Scenario,
  call: Pick<ScenarioCall, "inputTokens" | "outputTokens">
): number => {
  const { baseMillis, perInputTokenMillis, perOutputTokenMillis } = Latency.complete(provider.latency)
  const input = Math.ceil(baseMillis + perInputTokenMillis * call.inputTokens - 1e-6)
  return Math.ceil(input + perOutputTokenMillis * call.outputTokens - 1e-6)
}

/** The caches in words. */
const caches: Readonly<Record<NonNullable<ProviderSim.Options["cache"]>, string>> = {
  breakpoints: "prompts cached up to their breakpoints for 5 minutes, and what is read does not count",
  automatic: "prompts cached by themselves for 5 minutes, and all input counts"
}

/**
 * The model of the provider in words, which is stated with every published figure.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const modelOf = (scenario: Scenario): string => {
  const { isConcurrencyDeclared, limits, places, provider, seed } = scenario
  const parts =
    places === undefined
      ? [LimitWords.limitsText(limits)]
      : places.map((each) => `${each.name}: ${LimitWords.limitsText(each.limits)}`)
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
  if (provider.cache !== undefined) parts.push(caches[provider.cache])
  parts.push(`headers ${headers}`, `tokens counted as ${isOfSessions(scenario) ? "claude" : tokenizerOf(seed)}`)
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
  for (const place of placesOf(scenario)) {
    for (const { between, kind, rate } of place.provider.faults ?? []) {
      const share = rate === undefined ? "" : ` ${rate * 100} %`
      const when = between === undefined ? "" : ` from ${between[0] / 1000} to ${between[1] / 1000} s`
      parts.push(`fault ${kind}${share}${when}${places === undefined ? "" : ` at ${place.name}`}`)
    }
  }
  return parts.join("; ")
}
