/** The work that is expected of agents: as stated, or as earlier ones did, with the sub-agents that those started. */
import { callsOf, laterOf } from "../budget/forecast/work.ts"
import { type AgentHistory, type ConversationGrowth, isLike, type Likeness } from "../call/history.ts"
import { nearest } from "../domain/input/nearest.ts"
import { counted } from "../domain/words.ts"
import type * as Forecast from "../Forecast.ts"
import * as Advice from "./advice.ts"
import type { AdviseOptions } from "./models.ts"

/** The past of these pools. */
interface PastWork {
  readonly history: AgentHistory
  readonly pools: ReadonlyArray<string>
  readonly now: number
}

type IsMeant = (agent: string) => boolean

/** Who asks about which agents. */
interface AskedKind extends Pick<AdviseOptions, "asker" | "each"> {
  /** Whether a job asks about its own agents. */
  readonly isOfJob: boolean
  /** The agent whose code asks. */
  readonly lead: string | undefined
}

/**
 * The earlier agents that are like those in question. Sub-agents of such agents count as their work. Without a pattern these are the agents
 * at the level below the one that asks. If it is unknown who asks, they are all, because it may be a lead about its sub-agents.
 */
export const meant = (history: AgentHistory, { asker, each = "*", isOfJob, lead }: AskedKind): IsMeant => {
  if (typeof each === "string" && each !== "*") {
    return (agent) => {
      const started = history.leadOf(agent)
      return isLike(each, agent) && (started === undefined || !isLike(each, started))
    }
  }
  const asking = lead ?? (asker !== undefined && history.knows(asker) ? asker : undefined)
  if (asking === undefined && asker !== undefined && !isOfJob) return () => true
  const depth = asking === undefined ? 0 : history.depthOf(asking) + 1
  return (agent) => history.depthOf(agent) === depth
}

const likenessText = (pattern: string, { hasEnded, names, work }: Likeness): string | undefined => {
  if (hasEnded) return undefined
  const run = names.size === 1 ? "earlier agent" : `${names.size} earlier agents`
  const are = names.size === 1 ? "still runs, and is" : "still run, and are"
  return `The ${run} like "${pattern}" ${are} assumed to be halfway through ${Advice.workText(work)}`
}

/**
 * Work whose prompts grow as those of the pool's conversations. A name with many more calls than a conversation has belongs to several
 * conversations, so the means of its calls are better.
 */
const grownBy = (work: Forecast.Work, seen: ConversationGrowth | undefined, isOfPool: boolean): Forecast.Work => {
  if (seen === undefined || work.calls >= 3 * seen.turns) return work
  const { cachedShare, first, growth } = seen
  const inputTokens = isOfPool ? first : work.first.inputTokens
  const later = { ...(work.later ?? work.first), inputTokens: inputTokens + growth }
  return { ...work, first: { ...work.first, inputTokens }, later, growth, cachedShare }
}

/** Agents start agents down to this depth, and so many each: larger trees would take seconds to forecast. */
const maxDepth = 3
const maxSubAgents = 100

/** The sub-agents that each of some agents starts on average. */
const subAgentsOf = (past: PastWork, leads: ReadonlySet<string>, depth = 1): Forecast.Workload => {
  const { history, now, pools } = past
  const isStarted = (agent: string) => leads.has(history.leadOf(agent) ?? "")
  const alike = depth > maxDepth ? undefined : history.like(pools, isStarted, now)
  if (alike === undefined) return []
  const each = Math.min(maxSubAgents, Math.round(history.namesIn(pools).filter(isStarted).length / leads.size))
  const calls = callsOf(starting(alike.work, subAgentsOf(past, alike.names, depth + 1)))
  return Array.from({ length: each }, (_, number) => ({ name: `sub-agent-${number + 1}`, calls }))
}

/** Agents that start others do so after their first call. */
const starting = (work: Forecast.Work, subAgents: Forecast.Workload): Forecast.Work =>
  subAgents.length === 0 ? work : { ...work, first: { ...work.first, subAgents }, later: laterOf(work) }

/** The work of each agent, what was assumed for it, and whether that is a guess. */
export const workOf = (
  past: PastWork | undefined,
  each: AdviseOptions["each"] = "*",
  isMeant: IsMeant = () => true
): { readonly work: Forecast.Work; readonly assumed: ReadonlyArray<string>; readonly isGuess: boolean } => {
  if (typeof each !== "string") return { work: each, assumed: [], isGuess: false }
  const seen = past?.history.growthIn(past.pools)
  const alike = past?.history.like(past.pools, isMeant, past.now)
  if (past !== undefined && alike !== undefined) {
    const own = grownBy(alike.work, seen, each === "*")
    const subAgents = subAgentsOf(past, alike.names)
    const started = `Each is expected to start ${counted(subAgents.length, "sub-agent")}, as earlier ones did`
    const assumed = [likenessText(each, { ...alike, work: own }) ?? [], subAgents.length > 0 ? started : []].flat()
    return { work: starting(own, subAgents), assumed, isGuess: !alike.hasEnded }
  }
  // A pattern that begins with a name, such as "session/*", does not misspell it.
  const names = (past?.history.namesIn(past.pools) ?? []).filter(
    (name) => !each.endsWith("*") || !each.startsWith(name)
  )
  const near = each === "*" ? undefined : nearest(each, names)
  const whose = each === "*" ? "No earlier agent of this pool is known" : `No earlier agent is like "${each}"`
  const instead = near === undefined ? "" : ` (did you mean "${near}"?)`
  const work = grownBy(Advice.usualWork, seen, true)
  const assumed = `${whose}${instead}, so each is assumed to make ${Advice.workText(work)}`
  return { work, assumed: [assumed], isGuess: true }
}
