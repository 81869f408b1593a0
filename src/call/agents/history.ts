/**
 * What agents did so far: their calls, how large these were and how long they took. Advice about agents of the same kind is
 * based on it. It also remembers what other orchestrators were advised, so that the same room is not promised twice.
 */
import * as Context from "effect/Context"
import type * as Limits from "../../Limits.ts"
import * as Lru from "../../domain/input/lru.ts"
import type * as Forecast from "../../Forecast.ts"
import type { AgentWork } from "./models.ts"

/** More agents than a long job has. */
const maxAgents = 10_000
/** Agents use one or two. */
const maxPools = 16
const maxPromises = 1_000
const maxUsed = 1_000
/** A name with more calls is probably several agents', as that of a session is. Forecasts of longer agents would take seconds. */
const maxCalls = 100
/** An agent without a call for this long has probably ended. */
const idleMillis = 30_000

/** After this long without a call, earlier calls no longer show the present state of a pool. */
const forgottenMillis = 300_000

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

/** The calls of one agent to one pool. */
interface PastCalls {
  readonly first: CallSums
  readonly later: CallSums
  readonly lastAt: number
}

interface PastAgent {
  readonly byPool: Map<string, PastCalls>
  hasEnded: boolean
}

/** What earlier agents did, on average. */
export interface Likeness {
  readonly work: AgentWork
  /** The number of agents that it is based on. */
  readonly agents: number
  /** Whether they have ended. Otherwise they are assumed to be halfway. */
  readonly hasEnded: boolean
}

/** How many more agents an asker was advised to start. */
interface GivenPromise {
  readonly asker: string
  readonly agents: number
  readonly until: number
}

/** Whether a name is meant by a pattern, which may end with `*`. */
export const isLike = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern

export class AgentHistory {
  private readonly agents = new Map<string, PastAgent>()
  private readonly promises = new Map<string, ReadonlyArray<GivenPromise>>()
  private readonly uses = new Map<string, { readonly since: number; lastAt: number }>()

  /** Counts a call of an agent that has ended. */
  called(pool: string, agent: string, usage: Limits.Usage, millis: number, now: number): void {
    const past = this.agents.get(agent) ?? { byPool: new Map<string, PastCalls>(), hasEnded: false }
    past.hasEnded = false
    const known = past.byPool.get(pool)
    const call = sumsOf(usage, millis)
    const later = known === undefined ? none : plus(known.later, call)
    Lru.put(past.byPool, pool, { first: known?.first ?? call, later, lastAt: now }, maxPools)
    Lru.put(this.agents, agent, past, maxAgents)
    const use = this.uses.get(pool)
    if (use !== undefined && now - use.lastAt < forgottenMillis) use.lastAt = now
    else Lru.put(this.uses, pool, { since: now, lastAt: now }, maxUsed)
  }

  /** For how long calls have been made to a pool. */
  usedFor(pool: string, now: number): number {
    const use = this.uses.get(pool)
    return use === undefined || now - use.lastAt >= forgottenMillis ? 0 : use.lastAt - use.since
  }

  /** An agent makes no more calls. */
  ended(agent: string): void {
    const past = this.agents.get(agent)
    if (past !== undefined) past.hasEnded = true
  }

  /** What earlier agents of a pool did; undefined if there were none. Prefers agents that have ended. */
  like(pool: string, isMeant: (agent: string) => boolean, now: number): Likeness | undefined {
    const all: Array<PastCalls> = []
    const ended: Array<PastCalls> = []
    for (const [agent, { byPool, hasEnded }] of this.agents) {
      const calls = byPool.get(pool)
      if (calls === undefined || !isMeant(agent)) continue
      all.push(calls)
      if (hasEnded || now - calls.lastAt >= idleMillis) ended.push(calls)
    }
    const alike = ended.length > 0 ? ended : all
    if (alike.length === 0) return undefined
    const first = alike.reduce((sum, past) => plus(sum, past.first), none)
    const later = alike.reduce((sum, past) => plus(sum, past.later), none)
    const soFar = Math.max(1, Math.round((first.calls + later.calls) / alike.length))
    // Agents that still run are halfway, on average.
    const calls = Math.min(maxCalls, ended.length > 0 ? soFar : 2 * soFar)
    const work: AgentWork = { calls, first: meanOf(first), later: later.calls > 0 ? meanOf(later) : undefined }
    return { work, agents: alike.length, hasEnded: ended.length > 0 }
  }

  /** The names of the agents that used a pool. */
  namesIn(pool: string): ReadonlyArray<string> {
    return [...this.agents].flatMap(([agent, { byPool }]) => (byPool.has(pool) ? [agent] : []))
  }

  /**
   * The calls that the agents of a pool which still run have made, of all of them together. Undefined if one name made more
   * calls than an agent does: then several agents share it, as the sub-agents of a session may.
   */
  callsOfRunning(pool: string, perAgent: number, now: number): number | undefined {
    let sum = 0
    for (const { byPool, hasEnded } of this.agents.values()) {
      const past = byPool.get(pool)
      if (past === undefined || hasEnded || now - past.lastAt >= idleMillis) continue
      const calls = past.first.calls + past.later.calls
      if (calls > perAgent) return undefined
      sum += calls
    }
    return sum
  }

  /** The pools that agents used. */
  get pools(): ReadonlySet<string> {
    return new Set([...this.agents.values()].flatMap(({ byPool }) => [...byPool.keys()]))
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
