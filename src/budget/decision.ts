/**
 * The steps of a pool, as pure functions of a draft of the state: the decision on the first calls of a queue, and the end of
 * one. A port plays them, over a store perhaps more than once.
 */
import type { Blocked } from "../admission/blocked.ts"
import * as Law from "../pacing/law.ts"
import * as Members from "../sharing/members.ts"
import type { Decided } from "../sharing/port.ts"
import type { PoolState } from "../sharing/state.ts"
import * as Amounts from "../domain/amounts.ts"
import type { Entry } from "./entry.ts"
import { type BudgetErrorReason, StoreUnavailable } from "./errors.ts"
import { quotaExhausted } from "./foresee.ts"

/** The least cost, so that a call without a charge still advances fairness. */
const minCost = 1e-4

/** What becomes of a call that was decided on. */
export interface DecidedCall {
  readonly entry: Entry
  readonly ticket: Law.Ticket | undefined
  /** Why it is refused, if it is. */
  readonly refusal: BudgetErrorReason | undefined
}

export interface DecidedCalls extends Decided {
  readonly outcomes: ReadonlyArray<DecidedCall>
  /** The first call that has to wait. */
  readonly head: Entry | undefined
}

/** Those who wait in a process. */
export interface WaitingCalls {
  readonly pool: string
  /** The process, as the state names it. */
  readonly id: string
  /** In the order of service. */
  readonly calls: Iterable<Entry>
  /** Permits for them. */
  readonly places: number
  /** The weight of all agents that wait. */
  readonly weight: number
}

/** Lets the first calls in, in their order, until one has to wait. */
export const decide = (
  draft: PoolState,
  { calls, id, places, pool, weight }: WaitingCalls,
  now: number
): DecidedCalls => {
  const outcomes: Array<DecidedCall> = []
  let free = places
  let head: Entry | undefined
  let blocked: Blocked | undefined
  for (const entry of calls) {
    if (free === 0) break
    const answer = Members.admit(draft, id, entry, weight, now)
    if ("at" in answer) {
      free--
      outcomes.push({ entry, ticket: answer, refusal: undefined })
      continue
    }
    const refusal = answer.millis === Infinity ? exhausted(pool, draft, entry.charge) : undefined
    if (refusal === undefined) {
      blocked = answer
      head = entry
      break
    }
    outcomes.push({ entry, ticket: undefined, refusal })
  }
  Members.wait(draft, id, head && { priority: head.priority, charge: head.charge, weight })
  return { outcomes, blocked, head, isNews: outcomes.length > 0 }
}

/** Why a quota no longer holds a charge. A process that goes on with its part knows only what is left of that. */
const exhausted = (
  pool: string,
  { degraded, law }: PoolState,
  charge: Amounts.Whole
): BudgetErrorReason | undefined => {
  const cause = quotaExhausted(pool, law, charge)
  return cause === undefined || degraded === undefined ? cause : new StoreUnavailable({ pool, cause })
}

/**
 * A call is over, and `learn` says what that teaches. Agents share what is used, not what is asked for, and a call that was
 * rejected has not had its turn: where `hasServed` says so, the turn of its process is corrected. Returns what was learned,
 * and which part of its cost it used.
 */
export const conclude = <A>(
  draft: PoolState,
  { among, charge, home, ticket, wasQueued }: Entry,
  used: Amounts.Charge,
  learn: (law: Law.Pacer, ticket: Law.Ticket) => A,
  hasServed: (answer: A) => boolean = () => true
): readonly [answer: A, part: number] => {
  Members.end(draft, home!.id, ticket!, used)
  const answer = learn(draft.law, ticket!)
  if (!wasQueued || !hasServed(answer)) return [answer, 1]
  const asked = costOf(draft, charge)
  const cost = costUsed(draft, { ...charge, ...used })
  Members.correct(draft, home!.id, (cost - asked) / among)
  return [answer, cost / asked]
}

/** A call that was admitted will not go. */
export const release = (draft: PoolState, id: string, ticket: Law.Ticket, now: number): void => {
  Members.end(draft, id, ticket, Amounts.nothing)
  Law.release(draft.law, ticket, Amounts.nothing, now)
}

/** What a charge costs in the fair queue: the largest part of a limit that it takes. */
export const costOf = ({ degraded, config, law }: PoolState, charge: Amounts.Whole): number => {
  let cost = Amounts.dominantShare(charge, config.rules)
  // A caller may come while this process decides alone, and be served among all.
  const minute = 60_000 / (degraded?.of ?? 1)
  for (const { dimension, limit } of law.meters) {
    if (limit < Infinity && limit > 0) cost = Math.max(cost, charge[dimension] / (limit * minute))
  }
  return Math.max(minCost, cost)
}

const costUsed = (state: PoolState, used: Amounts.Whole): number =>
  Amounts.dimensions.every((each) => used[each] === 0) ? 0 : costOf(state, used)

/** The part of a charge that is limited. */
export const limited = ({ caps, meters }: Law.Pacer, charge: Amounts.Whole): Amounts.Charge =>
  Amounts.mapDimensions(charge, (amount, dimension) =>
    caps[dimension] !== undefined || meters.some((each) => each.dimension === dimension && each.limit < Infinity)
      ? amount
      : undefined
  )
