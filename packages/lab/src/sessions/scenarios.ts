/** Scenarios of sessions: what agents do, recorded or invented. */
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import { type ProviderSim, Sessions } from "floodgate/testing"
import * as Scenario from "../scenario.ts"
import * as Seeded from "../seeded.ts"
import { table } from "./table.ts"

/** Longer pauses are cut, so that sessions meet each other. The table has them in full. */
const maxPauseSeconds = 10

/** Sizes and limits are divided by this, so that all strategies take seconds. */
const scale = 4

/** Two seconds and 15 ms per token of output at full size: invented, because a simulated provider has no hardware. */
const latency = {
  baseMillis: 2_000,
  perInputTokenMillis: 0,
  perOutputTokenMillis: 15 * scale,
  rejectionMillis: 200,
  countTokensMillis: 300
}

// -----------------------------------------------------------------------------
// Sessions
// -----------------------------------------------------------------------------

const recorded = (): ReadonlyArray<Sessions.Session> => Sessions.parse(table).sessions

/** The second half of each session, whose first turn finds nothing in the cache. */
const resumed = (): ReadonlyArray<Sessions.Session> =>
  recorded().map(({ lead, name }) => ({
    name,
    lead: { ...lead, turns: lead.turns.slice(Math.floor(lead.turns.length / 2)) }
  }))

const fanOut = { turns: 8, headTokens: 15_000 }

type Turns = Sessions.SessionAgent["turns"]

/** The turns of an invented agent: each adds what a tool has returned. */
const turnsOf = (first: number, count: number, seed: number): Turns => {
  const unit = Seeded.draws(Seeded.seedFor(301, seed))
  let input = first
  return Array.from({ length: count }, (_, index) => {
    const cachedTokens = index === 0 ? 0 : input
    if (index > 0) input += 300 + Math.round(Seeded.lognormal(3_000, 1, unit))
    return {
      inputTokens: input,
      cachedTokens,
      outputTokens: 100 + Math.round(Seeded.lognormal(300, 0.8, unit)),
      pauseMillis: index === 0 ? 0 : Math.round(2_000 + 6_000 * unit()),
      subAgents: []
    }
  })
}

const ofLead = (first: Turns, subAgents: ReadonlyArray<Sessions.SessionAgent>): ReadonlyArray<Sessions.Session> => [
  { name: "lead", lead: { path: "0", turns: [{ ...first[0]!, subAgents }, ...first.slice(1)] } }
]

/** A lead that starts many sub-agents at once. Recorded sessions have few, so this is invented. */
const invented = (count: number): ReadonlyArray<Sessions.Session> => {
  const subAgents = Array.from({ length: count }, (_, number) => ({
    path: `0/${number + 1}`,
    turns: turnsOf(fanOut.headTokens + 1_500, fanOut.turns, number + 1)
  }))
  return ofLead(turnsOf(fanOut.headTokens + 1_000, 2, 0), subAgents)
}

/** How many agents one prompt has started on each level, 877 in all, as somebody reported. */
const levels = [8, 42, 141, 416, 270]

/** The reported tree. How many calls its agents made, and how large, is not known, so three turns each are invented. */
const tree = (): ReadonlyArray<Sessions.Session> => {
  let seed = 0
  const below = (path: string, level: number, index: number): Sessions.SessionAgent => {
    const [first, ...others] = turnsOf(fanOut.headTokens + 1_500, 3, ++seed)
    return { path, turns: [{ ...first!, subAgents: startedBy(path, level + 1, index) }, ...others] }
  }
  /** The agents of a level are dealt to those above, one after the other. */
  const startedBy = (path: string, level: number, parent: number): ReadonlyArray<Sessions.SessionAgent> =>
    Array.from({ length: levels[level] ?? 0 }, (_, index) => index)
      .filter((index) => index % (levels[level - 1] ?? 1) === parent)
      .map((index, number) => below(`${path}/${number + 1}`, level, index))
  return ofLead(turnsOf(fanOut.headTokens + 1_000, 2, 0), startedBy("0", 0, 0))
}

/** A workload: where its sessions come from. Scripts are kept, because several strategies play the same. */
interface SessionSource {
  readonly sessions: () => ReadonlyArray<Sessions.Session>
  readonly summary: (sessions: number) => string
  /** Whether it is one lead, whatever the number of sessions. */
  readonly isOneLead?: boolean
  scripts?: ReadonlyArray<Sessions.AgentScript>
}

const fanOutOf = (subAgents: number): SessionSource => ({
  sessions: () => invented(subAgents),
  isOneLead: true,
  summary: () =>
    `invented: a lead starts ${subAgents} sub-agents of ${fanOut.turns} turns at once, which share its tools and system prompt`
})

const cut = `pauses cut to ${maxPauseSeconds} s`

const sources = {
  recorded: {
    sessions: recorded,
    summary: (sessions) =>
      `the first 40 turns of ${Words.counted(sessions, "recorded session")} of coding agents, ${cut}`
  },
  resumed: {
    sessions: resumed,
    summary: (sessions) =>
      `${Words.counted(sessions, "recorded session")} of coding agents, all of which go on at once half-way, with nothing in the cache; ${cut}`
  },
  invented: fanOutOf(48),
  wide: fanOutOf(100),
  tree: {
    sessions: tree,
    isOneLead: true,
    summary: () => `one prompt starts 8 agents, these 42, these 141, these 416, and these 270, of 3 invented turns each`
  }
} satisfies Readonly<Record<string, SessionSource>>

const scriptsOf = (source: SessionSource): ReadonlyArray<Sessions.AgentScript> =>
  (source.scripts ??= source
    .sessions()
    .map((session) =>
      Sessions.script(session, { scale, maxPause: `${maxPauseSeconds} seconds`, model: Scenario.model })
    ))

// -----------------------------------------------------------------------------
// Scenarios
// -----------------------------------------------------------------------------

/** The calls of a script and of its sub-agents. */
export const callsOf = function* ({ calls }: Sessions.AgentScript): Generator<Scenario.ScenarioCall> {
  for (const { agent, cachedTokens, index, inputTokens, outputTokens, params, subAgents } of calls) {
    const maxTokens = params.max_tokens
    yield { agent, index, inputTokens, cachedTokens, outputTokens, maxTokens, prompt: params }
    for (const one of subAgents) yield* callsOf(one)
  }
}

/** The limits are for as many sessions as this, and are scaled to the number that is played. */
const perSessions = 60

/** The parts of a scenario of sessions. */
interface SessionScenario {
  readonly source: SessionSource
  /** Input tokens a minute, for 60 recorded sessions or for the invented one. */
  readonly perMinute: number
  /** The burst as a part of a minute's tokens. @default 1 */
  readonly burst?: number
  readonly cache?: NonNullable<ProviderSim.Options["cache"]>
}

const make = (
  { burst = 1, cache = "breakpoints", perMinute, source }: SessionScenario,
  { agents, headers, maxSeconds = 5_400, name = "sessions", rejections, seed = 1 }: Scenario.Options
): Scenario.Scenario => {
  // The checks of other scenarios apply.
  Scenario.make({ agents, seed })
  const scripts = scriptsOf(source).slice(0, agents)
  const part = source.isOneLead === true ? 1 : scripts.length / perSessions
  const provider = {
    cache,
    // Whether tokens of rejected requests count is documented by neither provider.
    rejections: rejections ?? "free",
    // Anthropic rounds tokens to thousands, which would be four times as coarse at a quarter of the size.
    headers: headers ?? (cache === "automatic" ? "openai" : "exact"),
    latency
  } as const
  const played = scripts.map((script) => ({
    name: script.agent,
    startsAtMillis: 0,
    calls: [...callsOf(script)],
    script
  }))
  // A few sessions must not be under a limit that one of their calls exceeds.
  const largest = played.reduce(
    (max, { calls }) => calls.reduce((max, call) => Math.max(max, Scenario.countedInput({ provider }, call)), max),
    0
  )
  const scaled = Math.max(largest, Math.round((perMinute * part) / scale))
  const limit: Limits.Limit = {
    perMinute: scaled,
    burst: Math.max(largest, Math.round(scaled * burst)),
    window: "bucket"
  }
  return {
    name,
    summary: source.summary(scripts.length),
    settings: {
      sessions: scripts.length,
      scale,
      maxPauseSeconds,
      inputTokensPerMinute: limit.perMinute!,
      burst: limit.burst!,
      cache,
      rejections: provider.rejections,
      headers: provider.headers,
      seed
    },
    agents: played,
    limits: { inputTokens: limit },
    provider,
    isConcurrencyDeclared: true,
    faulty: false,
    maxSeconds,
    seed
  }
}

/** The scenarios of sessions by name, each with its description in one line. */
export const ofSessions: Readonly<
  Record<string, { readonly what: string; readonly make: (options: Scenario.Options) => Scenario.Scenario }>
> = {
  sessions: {
    what: "36 recorded sessions of coding agents, which read almost all of their input from a cache",
    make: (options) => make({ source: sources.recorded, perMinute: 1_000_000 }, options)
  },
  "sessions-tight": {
    what: "the same sessions, with two fifths of the limit",
    make: (options) => make({ source: sources.recorded, perMinute: 400_000 }, options)
  },
  "sessions-small-burst": {
    what: "the same sessions, with twice the limit, of which a fifth may be used at once",
    make: (options) => make({ source: sources.recorded, perMinute: 2_000_000, burst: 0.2 }, options)
  },
  "sessions-cold": {
    what: "the same sessions go on half-way, all at once, and nothing is in the cache any more",
    make: (options) => make({ source: sources.resumed, perMinute: 1_000_000 }, options)
  },
  "sessions-openai": {
    what: "the same sessions at a provider that caches by itself and counts all input",
    make: (options) => make({ source: sources.recorded, perMinute: 8_000_000, cache: "automatic" }, options)
  },
  "sessions-fan-out": {
    what: "a lead starts 48 sub-agents at once, which share its tools and system prompt (invented)",
    make: (options) => make({ source: sources.invented, perMinute: 400_000 }, options)
  }
}

/** The scenarios of the agents that one prompt starts. No table has them: a tree has thousands of calls. */
export const ofTrees: typeof ofSessions = {
  "tree-of-877": {
    what: "one prompt starts 8 agents, these 42, these 141, these 416, and these 270, as reported",
    make: (options) => make({ source: sources.tree, perMinute: 4_000_000 }, options)
  },
  "fan-out-of-100": {
    what: "a lead starts 100 sub-agents at once, as it should",
    make: (options) => make({ source: sources.wide, perMinute: 800_000 }, options)
  }
}
