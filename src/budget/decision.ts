/**
 * The steps of a pool, as pure functions on a draft of the state: the decision on the first calls of a queue, and the end of a
 * call. A port plays them. With a store it may play a step more than once.
 */
import { type Law, Refused } from "../line/law.ts"
import * as Pacer from "../pacing/pacer.ts"
import * as Members from "../sharing/members.ts"
import type { PoolState } from "../sharing/state.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type { Entry, PoolTerms } from "./entry.ts"
import { type BudgetErrorReason, StoreUnavailable } from "./errors.ts"
import { quotaExhausted } from "./foresee.ts"

/** The smallest cost. Without it, calls without a charge would always go first. */
const minCost = 1e-4

/** The law of a pool: the user's limits and what was learned of the provider's, in the turns of the processes that share them. */
export const lawOf = (pool: string): Law<PoolTerms, Entry> => ({
  expires: true,
  admit: (draft, id, entry, weight, now) => {
    const answer = Members.admit(draft, id, entry, weight, now)
    const refusal = "by" in answer && answer.millis === Infinity ? exhausted(pool, draft, entry.charge) : undefined
    return refusal === undefined ? answer : new Refused(refusal)
  },
  wait: (draft, id, head, weight) => {
    if (draft.joined > 0) Members.wait(draft, id, head && { priority: head.priority, charge: head.charge, weight })
  },
  release: (draft, id, admission, now) => {
    Members.end(draft, id, admission, Amounts.nothing)
    Pacer.release(draft.law, admission, Amounts.nothing, now)
  }
})

/** Refuses a charge that exceeds a quota. In degraded mode, only the process's part of the quota is exhausted. */
const exhausted = (
  pool: string,
  { degraded, law }: PoolState,
  charge: Amounts.Whole
): BudgetErrorReason | undefined => {
  const cause = quotaExhausted(pool, law, charge)
  return cause === undefined || degraded === undefined ? cause : new StoreUnavailable({ pool, cause })
}

/** The usage of a running call beyond what was charged for it; undefined if there is none. */
export const excessOf = ({ charge, owed }: Entry, soFar: Amounts.Whole): Amounts.Whole | undefined => {
  const more = (each: Limits.Dimension): number => Math.max(0, soFar[each] - charge[each] - owed[each])
  const excess = {
    requests: more("requests"),
    inputTokens: more("inputTokens"),
    outputTokens: more("outputTokens"),
    tokens: more("tokens")
  }
  return Amounts.dimensions.some((each) => excess[each] > 0) ? excess : undefined
}

/** Charges a running call for what it has used beyond its charge. */
export const chargeMore = (
  draft: PoolState,
  { grant, chargedPort }: Entry,
  excess: Amounts.Whole,
  now: number
): void => {
  Members.owe(draft, chargedPort!.id, excess)
  Pacer.owe(draft.law, grant!, excess, now)
}

/** Updates the law at the end of a call, whose usage comes without what was charged before. False if its turn is not corrected. */
export type Learn = (law: Pacer.Pacer, admission: Pacer.Admission, used: Amounts.Charge, now: number) => boolean

/**
 * Ends a call. Fair shares are shares of usage and not of estimates, so the turn of the process is corrected. Returns the fraction of its
 * cost that the call used.
 */
export const conclude = (
  draft: PoolState,
  { among, charge, chargedPort, grant, owed, wasQueued }: Entry,
  used: Amounts.Charge,
  learn: Learn,
  now: number
): number => {
  const rest = owed === Amounts.nothing ? used : Amounts.plus({ ...charge, ...used }, owed, -1)
  Members.end(draft, chargedPort!.id, grant!, rest)
  const isCorrected = learn(draft.law, grant!, rest, now)
  if (!wasQueued || !isCorrected) return 1
  const asked = costOf(draft, charge)
  const cost = costUsed(draft, { ...charge, ...used })
  Members.correct(draft, chargedPort!.id, (cost - asked) / among)
  return cost / asked
}

/** The cost of a charge in the fair queue: the largest fraction of a minute's limit that it takes. */
export const costOf = ({ degraded, config, law }: PoolState, charge: Amounts.Whole): number => {
  let cost = Amounts.dominantShare(charge, config.rules)
  // Degraded mode has scaled the limits down, but the call may be served after it ends, so its cost is a fraction of the full
  // limit.
  const minute = 60_000 / (degraded?.of ?? 1)
  for (const { dimension, limit } of law.meters) {
    if (limit < Infinity && limit > 0) cost = Math.max(cost, charge[dimension] / (limit * minute))
  }
  return Math.max(minCost, cost)
}

const costUsed = (state: PoolState, used: Amounts.Whole): number =>
  Amounts.dimensions.every((each) => used[each] === 0) ? 0 : costOf(state, used)

/** A charge in the limited dimensions only. */
export const limited = (pacer: Pacer.Pacer, charge: Amounts.Whole): Amounts.Charge => {
  // Written out, because every reservation comes through here.
  const result: { [D in Limits.Dimension]?: number } = {}
  if (isLimited(pacer, "requests")) result.requests = charge.requests
  if (isLimited(pacer, "inputTokens")) result.inputTokens = charge.inputTokens
  if (isLimited(pacer, "outputTokens")) result.outputTokens = charge.outputTokens
  if (isLimited(pacer, "tokens")) result.tokens = charge.tokens
  return result
}

const isLimited = ({ caps, meters }: Pacer.Pacer, dimension: Limits.Dimension): boolean => {
  if (Amounts.get(caps, dimension) !== undefined) return true
  for (const meter of meters) if (meter.dimension === dimension) return meter.limit < Infinity
  return false
}
