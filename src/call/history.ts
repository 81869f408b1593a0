/**
 * The history of agents: their calls, how large these were and how long they took. Advice about agents of the same kind is
 * based on it. It also remembers what other orchestrators were advised, so that the same room is not promised twice.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Limits from "../Limits.ts"
import * as Estimating from "../domain/estimating.ts"
import * as Lru from "../domain/input/lru.ts"
import type * as Forecast from "../Forecast.ts"
import type { Turn } from "./conversations.ts"
import { EndMisses } from "./misses.ts"
import type { OpenPlaces } from "../places/placement.ts"

/** More agents than a long job has. */
const maxAgents = 10_000
/** Agents use one or two. */
const maxPools = 16
const maxPromises = 1_000
const maxUsed = 1_000
const maxModels = 1_000
/** A name with more calls is probably several agents', as that of a session is. Forecasts of longer agents would take seconds. */
const maxCalls = 100
/** An agent without a call for this long has probably ended, unless pauses are longer. */
const idleMillis = 30_000

/** So many prompts of a pool are kept, and so many conversations tell how they grow. */
const keptPrompts = 32
const fewConversations = 3

/** The last prompts of a pool's conversations. */
interface PoolPrompts {
  /** The first prompts, and by how much later ones were longer than those before. */
  readonly firsts: Estimating.Recent
  readonly growths: Estimating.Recent
  /** The part of each prompt before that was read from the cache and did not count. */
  readonly shares: Estimating.Recent
  conversations: number
  calls: number
}

/** The growth of a pool's conversations: medians, and the mean number of calls. */
export interface ConversationGrowth {
  readonly first: number
  readonly growth: number
  readonly cachedShare: number
  readonly turns: number
}

/** Sums over calls. */
interface CallSums {
  readonly calls: number
  readonly inputTokens: number
  readonly outputTokens: number
  readonly millis: number
}

const none: CallSums = { calls: 0, inputTokens: 0, outputTokens: 0, millis: 0 }

const plus = (a: CallSums, b: CallSums): CallSums => ({
  calls: a.calls + b.calls,
  inputTokens: a.inputTokens + b.inputTokens,
  outputTokens: a.outputTokens + b.outputTokens,
  millis: a.millis + b.millis
})

const meanOf = ({ calls, inputTokens, millis, outputTokens }: CallSums): Forecast.Call => ({
  inputTokens: Math.round(inputTokens / calls),
  outputTokens: Math.round(outputTokens / calls),
  duration: Math.round(millis / calls)
})

const sumsOf = ({ inputTokens = 0, outputTokens = 0 }: Limits.Usage, millis: number): CallSums => ({
  calls: 1,
  inputTokens,
  outputTokens,
  millis
})

/** The pauses between calls, as sums. */
interface PauseSums {
  readonly count: number
  readonly millis: number
}

/** A longer gap is not a tool at work: someone has continued the conversation. */
const longestPause = 300_000

/** So many pauses of a pool tell how long its agents may be without a call. */
const keptPauses = 32

/** The calls of one agent to one pool. */
interface PastCalls {
  readonly first: CallSums
  readonly later: CallSums
  readonly pauses: PauseSums
  readonly firstAt: number
  readonly lastAt: number
}

const noPauses: PauseSums = { count: 0, millis: 0 }

const plusPauses = (a: PauseSums, b: PauseSums): PauseSums => ({
  count: a.count + b.count,
  millis: a.millis + b.millis
})

/** The gap between two calls, if it is a pause of one agent. If the calls of a name overlap, several agents share the name. */
const pauseOf = (endedAt: number | undefined, askedAt: number | undefined): number | undefined => {
  if (endedAt === undefined || askedAt === undefined) return undefined
  const gap = askedAt - endedAt
  return gap >= 0 && gap < longestPause ? gap : undefined
}

interface PastAgent {
  readonly byPool: Map<string, PastCalls>
  /** When it asked for its first call, or for its first one after it had ended. */
  beganAt: number
  /** When its last call ended. */
  lastAt: number | undefined
  hasEnded: boolean
}

/** Merges the calls of an agent to several pools: only its earliest call counts as the first. Undefined if it made none. */
const callsTo = ({ byPool }: PastAgent, pools: ReadonlyArray<string>): PastCalls | undefined => {
  const [head, ...others] = pools
    .flatMap((pool) => byPool.get(pool) ?? [])
    .toSorted((one, other) => one.firstAt - other.firstAt)
  if (head === undefined) return undefined
  const later = others.reduce((sum, past) => plus(sum, plus(past.first, past.later)), head.later)
  const pauses = others.reduce((sum, past) => plusPauses(sum, past.pauses), head.pauses)
  return { ...head, later, pauses, lastAt: others.reduce((last, { lastAt }) => Math.max(last, lastAt), head.lastAt) }
}

/** The mean work of agents. */
const meanWork = (agents: ReadonlyArray<PastCalls>, hasEnded: boolean): Forecast.Work => {
  const first = agents.reduce((sum, past) => plus(sum, past.first), none)
  const later = agents.reduce((sum, past) => plus(sum, past.later), none)
  const soFar = Math.max(1, Math.round((first.calls + later.calls) / agents.length))
  const pauses = agents.reduce((sum, past) => plusPauses(sum, past.pauses), noPauses)
  const pause = pauses.count === 0 ? 0 : Math.round(pauses.millis / pauses.count)
  return {
    // Agents that still run are halfway, on average.
    calls: Math.min(maxCalls, hasEnded ? soFar : 2 * soFar),
    first: meanOf(first),
    later: later.calls > 0 ? meanOf(later) : undefined,
    ...(pause > 0 && { pause })
  }
}

/** The average of earlier agents. */
export interface Likeness {
  readonly work: Forecast.Work
  /** The agents that it is based on. */
  readonly names: ReadonlySet<string>
  /** Whether they have ended. Otherwise they are assumed to be halfway. */
  readonly hasEnded: boolean
}

/** Agents that have made calls and still run. */
interface RunningAgents {
  readonly agents: number
  /** The calls of all of them together. */
  readonly calls: number
}

/** How many more agents an asker was advised to start. */
interface GivenPromise {
  readonly asker: string
  readonly agents: number
  readonly until: number
}

/** An end that an asker was told, of agents that begin afterwards. */
interface ToldEnd {
  readonly asker: string | undefined
  readonly isMeant: (agent: string) => boolean
  readonly agents: number
  readonly at: number
  readonly millis: number
}

/** So many askers of a pool are remembered with the end that they were told, and for so many times the foreseen time. */
const maxForeseen = 16
const longestMiss = 4

/** Whether a name is meant by a pattern, which may end with `*`. */
export const isLike = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern

/** Finds the places that take calls of a model now, among those that are named. */
export type FindPlaces = (only: ReadonlyArray<string> | undefined) => Effect.Effect<OpenPlaces>

export class AgentHistory {
  private readonly places = new Map<string, FindPlaces>()
  private readonly agents = new Map<string, PastAgent>()
  /** The agent that started an agent, if one did. */
  private readonly leads = new Map<string, string>()
  private readonly prompts = new Map<string, PoolPrompts>()
  /** The last pauses of each pool. */
  private readonly pauses = new Map<string, Estimating.Recent>()
  private readonly promises = new Map<string, ReadonlyArray<GivenPromise>>()
  private readonly foreseen = new Map<string, ReadonlyArray<ToldEnd>>()
  readonly misses = new EndMisses()

  /** Counts a call of an agent that has ended. Its agent has asked for it at `askedAt`, after its tools were done. */
  called(pool: string, agent: string, usage: Limits.Usage, millis: number, now: number, askedAt?: number): void {
    const beganAt = askedAt ?? now - millis
    const past = this.agents.get(agent) ?? {
      byPool: new Map<string, PastCalls>(),
      beganAt,
      lastAt: undefined,
      hasEnded: false
    }
    if (past.hasEnded || this.hasLeft(past, pool, beganAt)) past.beganAt = beganAt
    past.hasEnded = false
    const pause = pauseOf(past.lastAt, askedAt)
    past.lastAt = now
    const known = past.byPool.get(pool)
    const call = sumsOf(usage, millis)
    const later = known === undefined ? none : plus(known.later, call)
    const { first = call, firstAt = now } = known ?? {}
    const pauses = this.paused(pool, known?.pauses ?? noPauses, pause)
    Lru.put(past.byPool, pool, { first, later, pauses, firstAt, lastAt: now }, maxPools)
    Lru.put(this.agents, agent, past, maxAgents)
  }

  /** Whether an agent has made no call to a pool for so long that it has probably ended. */
  private hasLeft({ lastAt = Infinity }: PastAgent, pool: string, now: number): boolean {
    return now - lastAt >= idleMillis && now - lastAt >= this.endedAfter([pool])
  }

  /** Adds a pause, if there was one, to those of its agent and of its pool. */
  private paused(pool: string, before: PauseSums, millis: number | undefined): PauseSums {
    if (millis === undefined) return before
    const known = this.pauses.get(pool) ?? Estimating.recent([])
    if (known.values.length === 0) Lru.put(this.pauses, pool, known, maxUsed)
    Estimating.push(known, millis, keptPauses)
    return plusPauses(before, { count: 1, millis })
  }

  /** How long an agent of these pools may be without a call in a pause: longer than nearly all of their last pauses. */
  private restsUpTo(pools: ReadonlyArray<string>): number {
    const longest = pools.map((pool) => Math.max(0, ...(this.pauses.get(pool)?.values ?? [])))
    return 1.5 * Math.max(0, ...longest)
  }

  /** After this long without a call, an agent of these pools has probably ended. */
  private endedAfter(pools: ReadonlyArray<string>): number {
    return Math.max(idleMillis, this.restsUpTo(pools))
  }

  /** Counts a prompt of a conversation, of which the provider did not count so many tokens. */
  prompted(pool: string, { before, prompt }: Pick<Turn, "before" | "prompt">, uncounted: number): void {
    const empty = () => Estimating.recent([])
    const known = this.prompts.get(pool)
    const prompts = known ?? { firsts: empty(), growths: empty(), shares: empty(), conversations: 0, calls: 0 }
    Lru.put(this.prompts, pool, prompts, maxUsed)
    prompts.calls++
    if (before === undefined) {
      prompts.conversations++
      Estimating.push(prompts.firsts, prompt, keptPrompts)
      return
    }
    Estimating.push(prompts.growths, Math.max(0, prompt - before), keptPrompts)
    Estimating.push(prompts.shares, Math.min(1, Math.max(0, uncounted / before)), keptPrompts)
  }

  /** The growth of conversations in the first of these pools that has seen a few. */
  growthIn(pools: ReadonlyArray<string>): ConversationGrowth | undefined {
    for (const pool of pools) {
      const known = this.prompts.get(pool)
      if (known === undefined || known.conversations < fewConversations) continue
      const { calls, conversations, firsts, growths, shares } = known
      if (growths.values.length < fewConversations) continue
      return {
        first: Estimating.median(firsts),
        growth: Estimating.median(growths),
        cachedShare: Estimating.median(shares),
        turns: calls / conversations
      }
    }
    return undefined
  }

  /** Remembers an end that an asker is told, if the last one that it was told is settled. */
  foresaw(pool: string, end: ToldEnd, now: number): void {
    const open = this.openEnds(pool, now)
    if (open.some(({ asker }) => asker === end.asker)) return
    Lru.put(this.foreseen, pool, [...open, end].slice(-maxForeseen), maxUsed)
  }

  /** The factor by which nine of ten ends of a pool's jobs are missed at most, at their start; undefined if that is not known. */
  missedBy(pool: string, now: number): number | undefined {
    const open = this.openEnds(pool, now)
    if (this.foreseen.has(pool)) this.foreseen.set(pool, open)
    return this.misses.factor(pool, 0)
  }

  /** The ends that have not come yet. Those that have come count. */
  private openEnds(pool: string, now: number): ReadonlyArray<ToldEnd> {
    return (this.foreseen.get(pool) ?? []).filter((end) => !this.hasCome(pool, end, now))
  }

  private hasCome(pool: string, { agents, asker, at, isMeant, millis }: ToldEnd, now: number): boolean {
    const isOld = now - at >= longestMiss * millis + this.endedAfter([pool])
    const begun = [...this.agents]
      .filter(([name, { beganAt, byPool }]) => beganAt >= at && byPool.has(pool) && name !== asker && isMeant(name))
      .map(([, past]) => past)
      .sort((one, other) => one.beganAt - other.beganAt)
      .slice(0, agents)
    // Agents that were never started have no end.
    if (begun.length < agents) return isOld
    if (!isOld && begun.some((past) => !past.hasEnded && !this.hasLeft(past, pool, now))) return false
    this.misses.add(pool, 0, millis, Math.max(...begun.map(({ lastAt = at }) => lastAt)) - at)
    return true
  }

  /** An agent was started by another one. */
  started(agent: string, lead: string): void {
    Lru.put(this.leads, agent, lead, maxAgents)
  }

  /** The agent that started an agent; undefined if none did. */
  leadOf(agent: string): string | undefined {
    return this.leads.get(agent)
  }

  /** How many agents are above an agent: the one that started it, that one's, and so on. */
  depthOf(agent: string): number {
    const seen = new Set<string>()
    for (let lead = this.leadOf(agent); lead !== undefined && !seen.has(lead); lead = this.leadOf(lead)) seen.add(lead)
    return seen.size
  }

  /** Whether calls of an agent are known. */
  knows(agent: string): boolean {
    return this.agents.has(agent)
  }

  /** An agent makes no more calls. */
  ended(agent: string): void {
    const past = this.agents.get(agent)
    if (past !== undefined) past.hasEnded = true
  }

  /** The average of earlier agents in some pools; undefined if there were none. Prefers agents that have ended. */
  like(pools: ReadonlyArray<string>, isMeant: (agent: string) => boolean, now: number): Likeness | undefined {
    const all = new Map<string, PastCalls>()
    const ended = new Map<string, PastCalls>()
    const idle = this.endedAfter(pools)
    for (const [agent, past] of this.agents) {
      const calls = isMeant(agent) ? callsTo(past, pools) : undefined
      if (calls === undefined) continue
      all.set(agent, calls)
      if (past.hasEnded || now - calls.lastAt >= idle) ended.set(agent, calls)
    }
    const hasEnded = ended.size > 0
    const names = new Set((hasEnded ? ended : all).keys())
    const alike = [...(hasEnded ? ended : all).values()]
    if (alike.length === 0) return undefined
    return { work: meanWork(alike, hasEnded), names, hasEnded }
  }

  /** The names of the agents that used one of these pools. */
  namesIn(pools: ReadonlyArray<string>): ReadonlyArray<string> {
    return [...this.agents].flatMap(([agent, { byPool }]) => (pools.some((pool) => byPool.has(pool)) ? [agent] : []))
  }

  /**
   * The number of agents that still run and have ended a call to these pools, and the calls that they made in all. Undefined if
   * one name made more calls than an agent does: then several agents share it, as the sub-agents of a session may.
   */
  running(pools: ReadonlyArray<string>, perAgent: number, now: number): RunningAgents | undefined {
    let agents = 0
    let calls = 0
    const idle = this.endedAfter(pools)
    for (const agent of this.agents.values()) {
      const past = agent.hasEnded ? undefined : callsTo(agent, pools)
      if (past === undefined || now - past.lastAt >= idle) continue
      const made = past.first.calls + past.later.calls
      if (made > perAgent) return undefined
      agents++
      calls += made
    }
    return { agents, calls }
  }

  /** The number of agents that have calls left to make and may be in a pause before the next one. */
  resting(pools: ReadonlyArray<string>, perAgent: number, now: number): number {
    const upTo = this.restsUpTo(pools)
    if (upTo === 0) return 0
    return [...this.agents.values()].filter((agent) => {
      const past = agent.hasEnded ? undefined : callsTo(agent, pools)
      return past !== undefined && now - past.lastAt < upTo && past.first.calls + past.later.calls < perAgent
    }).length
  }

  /** The pools that agents used. */
  get pools(): ReadonlySet<string> {
    return new Set([...this.agents.values()].flatMap(({ byPool }) => [...byPool.keys()]))
  }

  /** Remembers how to find the places of a model. */
  placed(model: string, find: FindPlaces): void {
    Lru.put(this.places, model, find, maxModels)
  }

  /** Forgets the places of a model until its next call. */
  forgetPlaces(model: string): void {
    this.places.delete(model)
  }

  /** The models whose calls have places. */
  get models(): ReadonlyMap<string, FindPlaces> {
    return this.places
  }

  /** How many agents other askers were advised to start. */
  promised(pool: string, asker: string | undefined, now: number): number {
    return this.othersOf(pool, asker, now).reduce((sum, { agents }) => sum + agents, 0)
  }

  /** Replaces the last advice to an asker. Agents that it has started since then are known by their calls. */
  promise(pool: string, promise: GivenPromise, now: number): void {
    const others = this.othersOf(pool, promise.asker, now)
    Lru.put(this.promises, pool, [...others, promise].slice(-maxPromises), maxPromises)
  }

  private othersOf(pool: string, asker: string | undefined, now: number): ReadonlyArray<GivenPromise> {
    return (this.promises.get(pool) ?? []).filter((each) => each.until > now && each.asker !== asker)
  }
}

/** Undefined where nothing counts the calls of agents. */
export const History = Context.Reference<AgentHistory | undefined>("floodgate/Agents/History", {
  defaultValue: () => undefined
})
