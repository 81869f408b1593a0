/**
 * What a waiter must expect: sums over those before it, against the buckets as they stand.
 */
import type { Snapshot } from "../BudgetStore.ts"
import * as Bucket from "../internal/bucket.ts"
import type { FairQueue, Flow, Turn } from "../internal/fairQueue.ts"
import * as Limits from "../Limits.ts"
import type { Newcomer, Prediction, Waiter, Waiting } from "./poolModel.ts"

type Sums = { [D in Limits.Dimension]?: number }

/** A prediction looks at no more than this many agents, and calls of each: the rest is like those. */
const mostAgents = 256
const mostCalls = 32

/** When a charge that comes now would be admitted, if everybody uses what was estimated. */
export const forNewcomer = (
  queue: FairQueue<Waiter>,
  charge: Limits.Charge,
  who: Newcomer,
  snapshot: Snapshot
): Prediction => {
  const seen: Sums = {}
  const part = queue.ahead(who, mostAgents, (flow, upTo) => addBacklog(seen, flow, upTo))
  const before: Sums = {}
  addCharge(before, seen, 1 / part)
  return against(before, charge, snapshot)
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
  const before: Sums = {}
  const result = out.map(({ entry: waiter }) => {
    const expected = against(before, waiter.charge, snapshot)
    addCharge(before, waiter.charge, 1)
    return { waiter, waitedMillis: nowMillis - waiter.since, ...expected }
  })
  for (const turn of out.reverse()) queue.putBack(turn)
  return result
}

const addCharge = (sums: Sums, charge: Limits.Charge, part: number): void => {
  for (const dimension of Limits.dimensions) {
    const value = charge[dimension]
    if (value !== undefined) sums[dimension] = (sums[dimension] ?? 0) + value * part
  }
}

/** Adds the calls of a flow with no more than `upTo` of its backlog in front of them. */
const addBacklog = (sums: Sums, flow: Flow<Waiter>, upTo: number): void => {
  const all = Math.min(upTo, flow.backlog)
  let looked = 0
  let calls = 0
  const own: Sums = {}
  for (let waiter = flow.head; waiter !== undefined && looked <= all && calls < mostCalls; waiter = waiter.next) {
    addCharge(own, waiter.charge, 1)
    looked += waiter.cost / waiter.weight
    calls++
  }
  addCharge(sums, own, Math.max(1, all / looked))
}

/** How long until the buckets have refilled what comes before and hold the charge, and the cooldown is over. */
const against = (before: Sums, charge: Limits.Charge, { ledger, now }: Snapshot): Prediction => {
  let millis = Math.max(0, (ledger.cooldown?.until ?? 0) - now)
  let binding: Limits.Dimension | undefined
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const ahead = before[dimension] ?? 0
    const own = charge[dimension] ?? 0
    const asked = ahead + own
    // What others will leave of a quota is not known, and waiting brings none back.
    if (bucket === undefined || bucket.rule.quota || asked === 0) continue
    const alone = asked <= bucket.rule.most ? Bucket.waitFor(bucket, asked, now) : 0
    // More than the bucket holds is let in when it is full.
    const needed = ahead + (own === 0 ? 0 : Bucket.needed(bucket, own))
    const wait = Math.max(Bucket.waitForAll(bucket, needed), alone)
    if (wait > millis) {
      millis = wait
      binding = dimension
    }
  }
  return { millis, dimension: binding }
}
