/**
 * Predicts the remaining time of a run from its remaining calls and the current levels of the known limits. Pure.
 */
import * as Duration from "effect/Duration"
import type * as Budget from "floodgate/Budget"
import * as Forecast from "floodgate/Forecast"
import type * as Limits from "floodgate/Limits"
import { Amounts } from "floodgate/internal"
import * as Steps from "./steps.ts"
import * as Workload from "./workload.ts"

/** An agent that has not ended. */
export interface RemainingAgent {
  readonly name: string
  /** The bytes of its documents. */
  readonly bytes: number
  /** How many of its calls were answered. */
  readonly done: number
  /** Its call in flight: for how many seconds, and its reservation. */
  readonly out: { readonly seconds: number; readonly charge: Limits.Usage } | undefined
}

/**
 * The expected rate. A rate that was lowered grows back, but only up to the part of the limit that others leave, which is unknown. So
 * the mean of the current rate and the limit is assumed.
 */
const rateOf = ({ limitPerSecond, perSecond }: NonNullable<Budget.PoolStatus["dimensions"]["tokens"]>): number =>
  limitPerSecond < Infinity ? (perSecond + limitPerSecond) / 2 : perSecond

const limitsOf = ({ dimensions }: Budget.PoolStatus): Limits.Limits =>
  Amounts.mapDimensions(dimensions, (status) =>
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
 * The level of each limit after the calls in flight have returned what they reserved and did not use. Before the first answers,
 * reservations are several times the usage, so without this the prediction would contain waits that never happen.
 */
const levelsOf = ({ dimensions }: Budget.PoolStatus, work: ReadonlyArray<RemainingCalls>): Limits.Usage =>
  Amounts.mapDimensions(dimensions, ({ capacity, level }, dimension) => {
    const back = work.reduce((level, { out }) => {
      if (out === undefined) return level
      const used = usageOf(out.call)[dimension]
      return level + (out.charge[dimension] ?? used) - used
    }, level)
    return Math.min(capacity, back)
  })

/**
 * The output that is reserved for a call, as the mean of the calls in flight; undefined if there are none. It applies to the next
 * call of each agent, because later ones will be estimated better.
 */
const reservedOf = (work: ReadonlyArray<RemainingCalls>): number | undefined => {
  const out = work.flatMap(({ out }) => (out === undefined ? [] : [out]))
  const reserved = out.map(({ call, charge }) => charge.outputTokens ?? (charge.tokens ?? 0) - call.inputTokens)
  if (out.length === 0) return undefined
  // Without a limit on output no output is reserved, and the difference is below zero.
  return Math.max(0, reserved.reduce((sum, tokens) => sum + tokens, 0) / out.length)
}

/** The time of an agent's next call: after its call in flight and after a pause. */
const startOf = ({ calls, out }: RemainingCalls, paused: number): number => {
  const back = out === undefined ? 0 : Math.max(0, out.call.duration - 1_000 * out.seconds)
  return calls.length === 0 ? back : Math.max(back, paused)
}

/** The number of answers below which no time is predicted. */
const minAnswers = 3

/**
 * Seconds until all agents have ended and their work is merged. Undefined as long as no limit is known, or fewer calls were
 * answered than are in flight: among calls that were sent together, the short ones return first, which would mislead the
 * prediction.
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
  const conditions = { limits: limitsOf(pool), levels: levelsOf(pool, work) }
  /** The duration of the calls, with those of the orchestrator after `worked` milliseconds. */
  const takes = (work: ReadonlyArray<RemainingCalls>, worked: number): number =>
    Duration.toMillis(
      Forecast.make(
        work.map((each) => ({
          name: each.name,
          startsAfter: Math.max(startOf(each, paused), each.name === Steps.orchestrator ? worked : 0),
          calls: each.calls.map((call, index) => (index === 0 ? { ...call, reservedOutputTokens } : call))
        })),
        conditions
      ).duration
    )
  const worked = takes(
    work.filter(({ name }) => name !== Steps.orchestrator),
    0
  )
  return takes(work, worked) / 1_000
}
