/**
 * How long a run still takes: a forecast of the calls that are left, from the limits as they are known and what is left of
 * them. Pure.
 */
import * as Duration from "effect/Duration"
import type * as Budget from "../../Budget.ts"
import * as Forecast from "../../Forecast.ts"
import * as Limits from "../../Limits.ts"
import * as Steps from "./steps.ts"
import * as Workload from "./workload.ts"

/** An agent that has not ended. */
export interface Ahead {
  readonly name: string
  /** Of its documents. */
  readonly bytes: number
  /** Calls that were answered. */
  readonly done: number
  /** For how many seconds its call has been out or in the queue; undefined where it makes none. */
  readonly open: number | undefined
}

const limitsOf = ({ dimensions }: Budget.PoolStatus): Limits.Limits => {
  const limits: { [D in Limits.Dimension]?: Limits.Limit } = {}
  for (const dimension of Limits.dimensions) {
    const status = dimensions[dimension]
    if (status === undefined) continue
    const { capacity, perSecond } = status
    limits[dimension] = perSecond > 0 ? { perSecond, burst: capacity } : { total: capacity }
  }
  return limits
}

const levelsOf = ({ dimensions }: Budget.PoolStatus): Limits.Charge =>
  Object.fromEntries(Object.entries(dimensions).map(([dimension, { level }]) => [dimension, level]))

/**
 * Those whose call is out: the open ones that do not stand in the queue. Where more wait than a status lists, those that
 * asked first are out.
 */
const outOf = (agents: ReadonlyArray<Ahead>, { inFlight, waiting }: Budget.PoolStatus): ReadonlySet<string> => {
  const queued = new Set(waiting.map(({ agent }) => agent))
  const open = agents.filter(({ name, open }) => open !== undefined && !queued.has(name))
  open.sort((one, other) => other.open! - one.open!)
  return new Set(open.slice(0, inFlight).map(({ name }) => name))
}

/**
 * Seconds until all agents have ended and their work is merged. Undefined while no limit is known or no call was answered:
 * then nothing can be said.
 */
export const left = (
  agents: ReadonlyArray<Ahead>,
  learned: Workload.Learned,
  status: Budget.BudgetStatus,
  count: number
): number | undefined => {
  const pool = Object.values(status.pools).find(({ dimensions }) => Object.keys(dimensions).length > 0)
  if (pool === undefined || learned.steps.size === 0) return undefined
  const merge = Workload.ofMerge(count, learned)
  const out = outOf(agents, pool)
  const paused = pool.cooldown === undefined ? 0 : Duration.toMillis(pool.cooldown.left)
  const aheadOf = ({ bytes, done, name, open }: Ahead) => {
    const calls = name === Steps.orchestrator ? [merge] : Workload.ofAgent(bytes, learned).slice(done)
    const [current, ...rest] = calls
    // What is out is paid for, and its agent goes on when it is back.
    if (!out.has(name) || current === undefined) return { name, startsAfter: paused, calls }
    const back = Math.max(0, current.duration - 1_000 * open!)
    return { name, startsAfter: rest.length === 0 ? back : Math.max(back, paused), calls: rest }
  }
  const how = { limits: limitsOf(pool), levels: levelsOf(pool) }
  const working = agents.filter(({ name }) => name !== Steps.orchestrator).map(aheadOf)
  const worked = Duration.toMillis(Forecast.make(working, how).duration)
  const last = agents.find(({ name }) => name === Steps.orchestrator)
  if (last === undefined) return worked / 1_000
  const merging = aheadOf(last)
  const all = [...working, { ...merging, startsAfter: Math.max(worked, merging.startsAfter) }]
  return Duration.toSeconds(Forecast.make(all, how).duration)
}
