/**
 * The scenarios by name, and workloads from traces.
 *
 * @stability experimental
 * @since 0.1.0
 */
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import * as Scenario from "./scenario.ts"
import * as Seeded from "./seeded.ts"
import { ofSessions, ofTrees } from "./sessions/scenarios.ts"

export { fromSessions, type SessionsOptions } from "./sessions/own.ts"
export { fromTrace, parseTrace, parseTraceSteps, type TraceCall, type TraceOptions, type Unreadable } from "./traces.ts"

/** Separate seeds for separate purposes, so that a change to one does not change the numbers of another. */
const lanes = { input: 101, output: 102, spread: 103 }

const between = (min: number, value: number, max: number): number => Math.max(min, Math.min(max, Math.round(value)))

/** 12 agents of 5 calls of 150,000 tokens against 4M a minute, with a full bucket of a minute's worth. */
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
    provider: {
      rejections: base.provider.rejections,
      headers: base.provider.headers,
      latency: { ...base.provider.latency, noise: 0.2 }
    }
  }
}

/** Small calls of many agents. The provider accepts only a few at once, and neither its console nor its headers say so. */
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

/** Another limit with `rate` times its rate, and `burst` times its burst. */
const times = ({ burst = 0, perMinute, perSecond = 0, window }: Limits.Limit, rate: number, bursts = rate) =>
  window === "bucket" || window === undefined
    ? { perSecond: perSecond * rate, burst: burst * bursts }
    : { perMinute: perMinute! * rate, window }

/** The place beside the first: its rate and its burst as multiples, and when the first is down. */
interface Second {
  readonly rate?: number
  readonly burst?: number
  readonly outage?: (seed: number) => readonly [from: number, to: number]
}

/** 40 agents of 10 calls of random sizes, and two places of the model. The options are those of the first. */
const twoPlaces = (
  what: string,
  { burst, outage, rate = 1 }: Second = {},
  sizes: Scenario.Options = {}
): { readonly what: string; readonly make: (options: Scenario.Options) => Scenario.Scenario } => ({
  what,
  make: (options) => {
    const usual = { agents: 40, calls: 10, firstTokens: 10_000, tokens: 10_000, rejections: "free" } as const
    const base = Scenario.make({ ...usual, rate: 30_000, burst: 100_000, ...sizes, ...options })
    const limit = base.limits.tokens!
    const between = outage?.(base.seed)
    const faults = between === undefined ? undefined : [{ kind: "529", between } as const]
    const sizeOf = (call: Scenario.ScenarioCall, agent: number): number => {
      const unit = Seeded.draws(Seeded.seedFor(base.seed, lanes.spread, agent, call.index))()
      return Math.max(1, Math.round((0.2 + 1.6 * unit) * call.inputTokens))
    }
    return {
      ...base,
      summary: `${base.summary} in the mean; ${what}`,
      agents: base.agents.map((agent, number) => ({
        ...agent,
        calls: agent.calls.map((call) => ({ ...call, inputTokens: sizeOf(call, number) }))
      })),
      limits: { tokens: times(limit, 1 + rate, 1 + (burst ?? rate)) },
      places: [
        { name: "a", limits: base.limits, provider: { ...base.provider, faults } },
        { name: "b", limits: { tokens: times(limit, rate, burst) }, provider: base.provider }
      ],
      faulty: faults !== undefined
    }
  }
})

/** A named scenario. */
interface Named {
  readonly make: (options: Scenario.Options) => Scenario.Scenario
  /** One line for people. */
  readonly what: string
}

/** The incident with another provider, and with other sizes if given. */
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

const ofPlaces: Readonly<Record<string, Named>> = {
  "two-places": twoPlaces("two places with equal limits"),
  "two-places-1-to-4": twoPlaces(
    "two places, one with four times the limits",
    { rate: 4 },
    { rate: 12_000, burst: 40_000 }
  ),
  "two-places-small-burst": twoPlaces("two places, one with a fifth of the burst", { burst: 0.2 }),
  // The seed changes the end, because a probe may come just in time.
  "two-places-outage": twoPlaces("two places with equal limits, and one answers 529 for 15 to 20 s", {
    outage: (seed) => [10_000, 25_000 + 2_500 * ((seed + 2) % 3)]
  })
}

/**
 * The names of the scenarios with one provider.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.1.0
 */
export const names: ReadonlyArray<string> = Object.keys(named)

/**
 * The names of the scenarios in which the model has several places.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.4.0
 */
export const namesOfPlaces: ReadonlyArray<string> = Object.keys(ofPlaces)

/**
 * The names of the scenarios in which the agents are sessions: conversations with a cache, pauses and sub-agents.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.5.0
 */
export const namesOfSessions: ReadonlyArray<string> = Object.keys(ofSessions)

/**
 * The names of the scenarios of the agents that one prompt starts: a tree that nobody wanted, and a fan-out that somebody did.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.5.0
 */
export const namesOfTrees: ReadonlyArray<string> = Object.keys(ofTrees)

const allNamed = { ...named, ...ofPlaces, ...ofSessions, ...ofTrees }

/**
 * The names of all scenarios.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.5.0
 */
export const allNames: ReadonlyArray<string> = Object.keys(allNamed)

/**
 * Each scenario with its name and its description in one line.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.2.0
 */
export const described: ReadonlyArray<readonly [name: string, what: string]> = Object.entries(allNamed).map(
  ([name, { what }]) => [name, what]
)

/**
 * Makes the scenario with a name; options change its settings. Undefined if there is no such scenario.
 *
 * @stability experimental
 * @category scenarios
 * @since 0.1.0
 */
export const byName = (name: string, options: Scenario.Options = {}): Scenario.Scenario | undefined => {
  // An option that is undefined must not replace a value of the scenario.
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return Object.hasOwn(allNamed, name) ? allNamed[name]!.make({ ...Object.fromEntries(given), name }) : undefined
}
