/** Admits an attempt at one of the places of its call. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Budget from "../Budget.ts"
import type { CachedConversation } from "../places/memory.ts"
import type { PlacedBecause, Placement } from "../places/placement.ts"
import { admitted as admittedHere, type CallError, isClosed, pay, refusalFor } from "./admission.ts"
import { type GovernedAttempt, waitedMillis } from "./attempt.ts"
import * as Counting from "./counting.ts"
import type { GovernedCall } from "./governedCall.ts"
import { type Located, locate, openPlaces } from "./located.ts"
import type { Restore } from "./models.ts"
import { conversationOf } from "./place.ts"
import { Race, review, type Standing } from "./race.ts"
import type { Rest } from "./settlement.ts"
import * as Trace from "./trace.ts"
import * as Usage from "./usage.ts"

/** Admits an attempt, at one of its places if its call has any. Returns what is left to do; undefined if it is admitted. */
export const admitted = (attempt: GovernedAttempt, context: Context.Context<never>): Rest<CallError> => {
  const { parts, placement } = attempt.call
  const only = placement?.only
  // If there is only one place, and its limits are applied already, there is nothing to choose.
  const isPlaced = only !== undefined && parts.places!.memory.hasLimits(attempt.pool.name, only)
  return placement === undefined || isPlaced
    ? admittedHere(attempt, context)
    : Effect.uninterruptibleMask((restore) => placed(attempt, placement, context, restore))
}

const placed: (
  attempt: GovernedAttempt,
  placement: Placement,
  context: Context.Context<never>,
  restore: Restore
) => Effect.Effect<void, CallError> = Effect.fnUntraced(function* (attempt, placement, context, restore) {
  const { call } = attempt
  const { parts, request } = call
  parts.history?.placed(request.model, openPlaces(parts, { ...request, places: request.places! }))
  const named = conversationAt(call)
  const located = yield* restore(Effect.forEach(placement.open, (index) => locate(attempt, placement, index, named)))
  const conversation = warmest(located) ?? named
  if (located.length === 0) return yield* Effect.fail(refused(call, placement, []))
  const payer = dearest(located)
  const unpaid = pay(attempt, payer, payer.estimate, context)
  if (unpaid !== undefined) yield* restore(unpaid)
  const race = new Race(attempt, located, conversation, context)
  yield* restore(review(race, true))
  const racing = race.run(restore)
  // Prompts are counted at the first place, unless the call must not go there.
  const counting = located[0]!.index === 0 ? Counting.whileWaiting(call, located, racing) : racing
  const outcome = yield* Effect.result(counting)
  if (Result.isFailure(outcome)) {
    // Calls that do not park have found the window spent meanwhile, and paused the pools.
    if (isClosed(attempt)) {
      attempt.payment!.settle(0)
      return yield* placed(attempt, placement, context, restore)
    }
    return yield* Effect.fail(refusedBy(attempt, outcome.failure, placement, race))
  }
  attempt.held = outcome.success
  const { at } = race.winner!
  attempt.isProbe = race.winner === race.probed
  const slow = race.standings.filter((each) => each.isSlow && each !== race.winner)
  if (slow.length > 0) {
    const quick = Math.min(...race.standings.map(({ answers }) => answers))
    for (const each of slow) parts.places!.memory.left(each.at.pool.name, quick, call.now)
  }
  report(attempt, race)
  placement.current = at.index
  move(attempt, at, race.why)
  attempt.admit(attempt.held)
})

/** Lets an attempt go to a place. */
const move = (attempt: GovernedAttempt, at: Located, why: PlacedBecause): void => {
  const { call } = attempt
  const { accounting, known, pool, price, request } = at
  const place = at.place.name
  pool.users++
  call.parts.pools.released(attempt.pool)
  Object.assign(attempt, { accounting, known, place, pool, price, request })
  if (call.span !== undefined) Trace.placed(call.span, place, pool.name, why)
}

/** Why no place admits an attempt. */
const refusedBy = (
  attempt: GovernedAttempt,
  error: Budget.BudgetError,
  placement: Placement,
  { standings }: Race
): CallError => {
  const all = standings.flatMap(({ refusal }) => refusal ?? [])
  const isOne = all.length === 1 && placement.closed.length === 0
  const isAllWaiting = all.every(({ reason }) => reason._tag === "WaitTooLong")
  if (isOne || (isAllWaiting && attempt.isBoundByDeadline)) return refusalFor(attempt, error, attempt.from)
  return refused(attempt.call, placement, standings)
}

/** The place that has the most of the prompt in its cache, by what is known of its content. */
const warmest = (located: ReadonlyArray<Located>): CachedConversation | undefined => {
  let warm: CachedConversation | undefined
  for (const { known, place } of located) {
    const prompt = known.prefix?.cachedTokens ?? 0
    if (prompt > (warm?.prompt ?? 0)) warm = { place: place.name, prompt }
  }
  return warm
}

/** The place where the last call of the conversation went, by its name. */
const conversationAt = (call: GovernedCall): CachedConversation | undefined => {
  const conversation = conversationOf(call)
  return conversation === undefined ? undefined : call.parts.places!.memory.cachedAt(conversation)
}

/** The place whose price is the highest, or unknown: the call must be able to pay there. */
const dearest = (located: ReadonlyArray<Located>): Located => {
  const costOf = ({ known, price }: Located): number => (price === undefined ? Infinity : Usage.maxCostOf(price, known))
  return located.reduce((one, other) => (costOf(other) > costOf(one) ? other : one))
}

/** Reports a call that goes elsewhere than it usually would, and why. */
const report = ({ call, held }: GovernedAttempt, race: Race): void => {
  const { now, parts, placement, request } = call
  const { at } = race.winner!
  const { why } = race
  at.pool.counts.placed(1, why)
  if (parts.observer === undefined || (why !== "sooner" && why !== "slow" && why !== "cheaper" && why !== "failed"))
    return
  const { at: usual, foreseen } = race.usual
  parts.observer({
    type: "place",
    at: now,
    pool: at.pool.name,
    agent: call.agent,
    model: request.model,
    place: at.place.name,
    why,
    waited: waitedMillis(held!),
    instead: why === "failed" ? placement!.places[placement!.current!]!.name : usual.place.name,
    insteadWait: why === "failed" || foreseen === Infinity ? undefined : foreseen
  })
}

/** The refusal of a call that no place can take. */
const refused = (
  { request }: GovernedCall,
  { closed }: Placement,
  standings: ReadonlyArray<Standing>
): Budget.BudgetError => {
  const places: Array<Budget.NoPlace["places"][number]> = closed.map(({ place, why }) => ({
    place,
    reason: new Budget.PlaceClosed({ place, why })
  }))
  for (const { at, refusal } of standings) {
    if (refusal !== undefined && refusal.reason._tag !== "NoPlace") {
      places.push({ place: at.place.name, reason: refusal.reason })
    }
  }
  return new Budget.BudgetError({ reason: new Budget.NoPlace({ model: request.model, places }) })
}
