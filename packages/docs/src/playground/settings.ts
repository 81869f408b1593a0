/** The settings of the playground: their ranges, their form in a link, and the options of the lab's scenario. Pure. */

/** A setting with a slider. */
export interface Range {
  readonly label: string
  readonly min: number
  readonly max: number
  readonly step: number
  readonly unit: string
}

/** The settings with sliders. The defaults are those of the incident. */
export const ranges = {
  agents: { label: "Agents", min: 1, max: 100, step: 1, unit: "" },
  calls: { label: "Calls per agent", min: 1, max: 20, step: 1, unit: "" },
  firstTokens: { label: "First call", min: 1_000, max: 200_000, step: 1_000, unit: "tokens" },
  tokens: { label: "Later calls", min: 1_000, max: 100_000, step: 1_000, unit: "tokens" },
  rate: { label: "Limit", min: 5_000, max: 200_000, step: 5_000, unit: "tokens a second" },
  burst: { label: "Burst", min: 200_000, max: 1_000_000, step: 50_000, unit: "tokens" }
} as const satisfies Record<string, Range>

/** The conditions of the provider, as the lab names them. */
export const weathers = {
  incident: "working normally",
  outage: "down from 10 to 40 s",
  "outage-at-start": "down for the first 10 s",
  neighbour: "shared with one that takes 30 %",
  "neighbour-in-bursts": "shared with one that sends in bursts",
  flaky: "failing for 5 % of requests",
  "random-rejections": "rejecting 1 % at random",
  "slow-start": "limiting growth per minute"
} as const

/** The strategies beside Floodgate. */
export const rivals = {
  "sdk-2": "Anthropic's SDK, with its 2 retries",
  "sdk-10": "Anthropic's SDK, with 10 retries",
  "fixed-retry": "retries after 1 s, 5 attempts",
  "full-jitter": "full jitter, 10 attempts",
  "effect-limiter-tuned": "Effect's RateLimiter, with limits",
  "hand-written": "a hand-written bucket, with limits"
} as const

/** Floodgate's knowledge in advance. */
export const told = {
  "floodgate-as-installed": "nothing in advance",
  "floodgate-unknown": "the tokens of each call",
  "floodgate-estimates": "the limits",
  floodgate: "the limits and the tokens"
} as const

type Ranges = { readonly [K in keyof typeof ranges]: number }

/** Everything that decides a run. The same settings give the same run. */
export interface Settings extends Ranges {
  readonly weather: keyof typeof weathers
  readonly rival: keyof typeof rivals
  readonly told: keyof typeof told
  readonly seed: number
}

export const defaults: Settings = {
  agents: 12,
  calls: 5,
  firstTokens: 150_000,
  tokens: 14_000,
  rate: 60_000,
  burst: 200_000,
  weather: "incident",
  rival: "sdk-2",
  told: "floodgate-as-installed",
  seed: 1
}

const choices = { weather: weathers, rival: rivals, told } as const

const isChoice = (key: keyof typeof choices, value: string): boolean => Object.hasOwn(choices[key], value)

/** A number within its range. */
const within = ({ max, min }: { readonly min: number; readonly max: number }, value: number): number =>
  Math.min(max, Math.max(min, Math.round(value)))

/** The part of a link that keeps settings: those that differ from the defaults. */
export const toQuery = (settings: Settings): string =>
  new URLSearchParams(
    Object.entries(settings)
      .filter(([key, value]) => value !== defaults[key as keyof Settings])
      .map(([key, value]): [string, string] => [key, String(value)])
  ).toString()

/** The settings of a link. A missing or invalid value becomes the default. */
export const fromQuery = (query: string): Settings => {
  const given = new URLSearchParams(query)
  const numberOf = (key: keyof Ranges | "seed"): number => {
    const text = given.get(key)
    const value = Number(text ?? NaN)
    if (text === null || text === "" || !Number.isFinite(value)) return defaults[key]
    return within(key === "seed" ? { min: 0, max: 1_000_000 } : ranges[key], value)
  }
  const choiceOf = <K extends keyof typeof choices>(key: K): Settings[K] => {
    const value = given.get(key)
    return value !== null && isChoice(key, value) ? (value as Settings[K]) : defaults[key]
  }
  return {
    agents: numberOf("agents"),
    calls: numberOf("calls"),
    firstTokens: numberOf("firstTokens"),
    tokens: numberOf("tokens"),
    rate: numberOf("rate"),
    burst: numberOf("burst"),
    weather: choiceOf("weather"),
    rival: choiceOf("rival"),
    told: choiceOf("told"),
    seed: numberOf("seed")
  }
}

/** The options of the lab's scenario. */
export const scenarioOptions = ({ agents, burst, calls, firstTokens, rate, seed, tokens }: Settings) => ({
  agents,
  calls,
  firstTokens,
  tokens,
  rate,
  burst,
  seed
})
