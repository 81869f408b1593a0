/**
 * Predicts how long a run still takes, from the remaining calls and the present levels of the known limits. Pure.
 */
import * as Duration from "effect/Duration"
import type * as Budget from "floodgate/Budget"
import * as Forecast from "floodgate/Forecast"
import type * as Limits from "floodgate/Limits"
import { mapDimensions } from "../../dimensions.ts"
import * as Steps from "./steps.ts"
import * as Workload from "./workload.ts"

/** An agent that has not ended. */
export interface RemainingAgent {
  readonly name: string
  /** Of its documents. */
  readonly bytes: number
  /** Calls that were answered. */
  readonly done: number
  /** Its call in flight: since how many seconds, and its reservation. */
  readonly out: { readonly seconds: number; readonly charge: Limits.Usage } | undefined
}

/**
 * The rate that is to be expected from now on. One that was lowered grows back, up to the limit unless others spend a part
 * of it: which of both is unknown, so the mean of both ends is.
 */
const rateOf = ({ limitPerSecond, perSecond }: NonNullable<Budget.PoolStatus["dimensions"]["tokens"]>): number =>
  limitPerSecond < Infinity ? (perSecond + limitPerSecond) / 2 : perSecond

const limitsOf = ({ dimensions }: Budget.PoolStatus): Limits.Limits =>
  mapDimensions(dimensions, (status) =>
    status.perSecond > 0 ? { perSecond: rateOf(status), burst: status.capacity } : { total: status.capacity }
  )

/** The remaining calls of an agent: the one in flight, and those after it. */
interface RemainingCalls {
  readonly name: string
  readonly out:
    | { readonly call: Workload.TimedCall; readonly seconds: number; readonly charge: Limits.Usage }
    | undefined
  readonly calls: ReadonlyArray<Workload.TimedCall>
}

const remainingCallsOf = (
  agents: ReadonlyArray<RemainingAgent>,
  learned: Workload.AnsweredCalls,
  count: number
): ReadonlyArray<RemainingCalls> => {
  const expected = Workload.expect(learned)
  return agents.map(({ bytes, done, name, out }, number) => {
    const all = name === Steps.orchestrator ? [expected.ofMerge(count)] : expected.ofAgent(bytes, number)
    const [call, ...later] = all.slice(done)
    return out === undefined || call === undefined
      ? { name, out: undefined, calls: all.slice(done) }
      : { name, out: { ...out, call }, calls: later }
  })
}

const usageOf = ({ inputTokens, outputTokens }: Workload.TimedCall): { readonly [D in Limits.Dimension]: number } => ({
  requests: 1,
  inputTokens,
  outputTokens,
  tokens: inputTokens + outputTokens
})

/**
 * What is left of each limit once all that is out is back. What was reserved beyond its use is given back then: before the
 * first answers that is several times what calls use, so that a level without it means a wait that never comes.
 */
const levelsOf = ({ dimensions }: Budget.PoolStatus, work: ReadonlyArray<RemainingCalls>): Limits.Usage =>
  mapDimensions(dimensions, ({ capacity, level }, dimension) => {
    const back = work.reduce((level, { out }) => {
      if (out === undefined) return level
      const used = usageOf(out.call)[dimension]
      return level + (out.charge[dimension] ?? used) - used
    }, level)
    return Math.min(capacity, back)
  })

/**
 * The output that is reserved for a call, going by those that are out; undefined where none is. It holds for the next call
 * of each agent: later ones are estimated better.
 */
const reservedOf = (work: ReadonlyArray<RemainingCalls>): number | undefined => {
  const out = work.flatMap(({ out }) => (out === undefined ? [] : [out]))
  const reserved = out.map(({ call, charge }) => charge.outputTokens ?? (charge.tokens ?? 0) - call.inputTokens)
  if (out.length === 0) return undefined
  // Without a limit on output nothing is reserved for it, and the difference is below zero.
  return Math.max(0, reserved.reduce((sum, tokens) => sum + tokens, 0) / out.length)
}

/** When an agent makes its next call: after the end of its call in flight, and after a pause. */
const startOf = ({ calls, out }: RemainingCalls, paused: number): number => {
  const back = out === undefined ? 0 : Math.max(0, out.call.duration - 1_000 * out.seconds)
  return calls.length === 0 ? back : Math.max(back, paused)
}

/** One answer is not enough for a prediction. */
const minAnswers = 3

/**
 * Seconds until all agents have ended and their work is merged. Undefined while it is unknown: no limit is known, or
 * fewer calls were answered than are out. Of calls that went out together those that are back are the short ones.
 */
export const left = (
  agents: ReadonlyArray<RemainingAgent>,
  learned: Workload.AnsweredCalls,
  status: Budget.BudgetStatus,
  count: number
): number | undefined => {
  const pool = Object.values(status.pools).find(({ dimensions }) => Object.keys(dimensions).length > 0)
  const answers = [...learned.values()].reduce((sum, calls) => sum + calls.length, 0)
  const out = agents.filter(({ out }) => out !== undefined).length
  if (pool === undefined || answers < Math.max(minAnswers, out)) return undefined
  const work = remainingCallsOf(agents, learned, count)
  const paused = pool.pause?.leftMillis ?? 0
  const reservedOutputTokens = reservedOf(work)
  const how = { limits: limitsOf(pool), levels: levelsOf(pool, work) }
  /** How long they take, the orchestrator from then on. */
  const takes = (work: ReadonlyArray<RemainingCalls>, worked: number): number =>
    Duration.toMillis(
      Forecast.make(
        work.map((each) => ({
          name: each.name,
          startsAfter: Math.max(startOf(each, paused), each.name === Steps.orchestrator ? worked : 0),
          calls: each.calls.map((call, index) => (index === 0 ? { ...call, reservedOutputTokens } : call))
        })),
        how
      ).duration
    )
  const worked = takes(
    work.filter(({ name }) => name !== Steps.orchestrator),
    0
  )
  return takes(work, worked) / 1_000
}
