/**
 * What a waiter must expect: those before it are let in to the buckets as they stand, as if by the clock.
 */
import type { Snapshot } from "../BudgetStore.ts"
import type { FairQueue, Flow, Turn } from "../internal/fairQueue.ts"
import * as Ledger from "../internal/ledger.ts"
import * as Pace from "../internal/pace.ts"
import * as Limits from "../Limits.ts"
import type { Newcomer, Prediction, Waiter, Waiting } from "./poolModel.ts"

/** What comes before somebody: how many calls, and what they take in sum. */
interface Before {
  calls: number
  readonly sums: { [D in Limits.Dimension]?: number }
}

/** A prediction looks at no more than this many agents, and calls of each: the rest is like those. */
const mostAgents = 256
const mostCalls = 32
/** At most so many calls are let in one by one; the others are debt. */
const mostPlayed = 64

/** When a charge that comes now would be admitted, if everybody uses what was estimated. */
export const forNewcomer = (
  queue: FairQueue<Waiter>,
  charge: Limits.Charge,
  who: Newcomer,
  snapshot: Snapshot
): Prediction => {
  const before: Before = { calls: 0, sums: {} }
  const part = queue.ahead(who, mostAgents, (flow, upTo) => addBacklog(before, flow, upTo))
  return against(before, part, charge, snapshot)
}

/** The first waiters in the order of service, at most `count`. */
export const first = (
  queue: FairQueue<Waiter>,
  count: number,
  snapshot: Snapshot,
  nowMillis: number
): ReadonlyArray<Waiting> => {
  const out: Array<Turn<Waiter>> = []
  for (let turn = queue.shift(); turn !== undefined; turn = out.length < count ? queue.shift() : undefined) {
    out.push(turn)
  }
  const before: Before = { calls: 0, sums: {} }
  const result = out.map(({ entry: waiter }) => {
    const expected = against(before, 1, waiter.charge, snapshot)
    addCharge(before, waiter.charge)
    return { waiter, waitedMillis: nowMillis - waiter.since, ...expected }
  })
  for (const turn of out.reverse()) queue.putBack(turn)
  return result
}

const addCharge = (before: Before, charge: Limits.Charge, part = 1, calls = 1): void => {
  before.calls += part * calls
  for (const dimension of Limits.dimensions) {
    const value = charge[dimension]
    if (value !== undefined) before.sums[dimension] = (before.sums[dimension] ?? 0) + value * part
  }
}

/** Adds the calls of a flow with no more than `upTo` of its backlog in front of them. */
const addBacklog = (before: Before, flow: Flow<Waiter>, upTo: number): void => {
  const all = Math.min(upTo, flow.backlog)
  let looked = 0
  const own: Before = { calls: 0, sums: {} }
  for (let waiter = flow.head; waiter !== undefined && looked <= all && own.calls < mostCalls; waiter = waiter.next) {
    addCharge(own, waiter.charge)
    looked += waiter.cost / waiter.weight
  }
  addCharge(before, own.sums, Math.max(1, all / looked), own.calls)
}

/**
 * How long until what comes before, of which a part is known, is let in and the charge fits. Most of it is debt, which
 * refills first; calls of the mean size are let in one by one as far as more than the refill decides when they go: while a
 * window holds back a call that is larger than the burst, the bucket is full and refills no more, and the pace grows with
 * the calls. The last one is let in in any case: who takes nothing of a limit goes with it.
 */
const against = (before: Before, part: number, charge: Limits.Charge, { ledger, now }: Snapshot): Prediction => {
  const calls = Math.round(before.calls / part) || 1
  // Whoever asks for more than there ever is, because the limits have just changed or it is a process's share, is let in
  // by none. What others will leave of a quota is not known, and waiting brings none back.
  const atMost = (amount: number, dimension: Limits.Dimension) => {
    const { most = Infinity, quota = false } = ledger.buckets[dimension]?.rule ?? {}
    return quota ? 0 : Math.min(amount, most)
  }
  const own = Limits.mapDimensions(charge, atMost)
  const mean = Limits.mapDimensions(before.sums, (sum, dimension) => atMost(sum / part / calls, dimension))
  const isHeldBack = Limits.dimensions.some((dimension) => {
    const rule = ledger.buckets[dimension]?.rule
    return rule?.window !== undefined && Math.max(mean[dimension] ?? 0, own[dimension] ?? 0) > rule.capacity
  })
  const played = isHeldBack || Pace.isChanging(ledger.pace) ? Math.min(calls, mostPlayed) : 1
  const buckets = Limits.mapDimensions(ledger.buckets, (bucket, dimension) => ({
    ...bucket,
    level: bucket.level - (mean[dimension] ?? 0) * (calls - played)
  }))
  let expected: Ledger.Ledger = { ...ledger, buckets }
  let at = now
  let binding: Limits.Dimension | undefined
  for (let entered = 0; entered <= played;) {
    const asked = entered < played ? mean : own
    const decision = Ledger.decide(expected, asked, at)
    if (decision._tag === "Wait") {
      at += decision.millis
      binding = decision.dimension
      expected = Ledger.advance(expected, at)
    } else {
      expected = Ledger.take(expected, asked, at)
      entered++
    }
  }
  return { millis: at - now, dimension: binding }
}
