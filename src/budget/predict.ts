/**
 * What a waiter must expect: sums over those before it, against the buckets as they stand.
 */
import type { Snapshot } from "../BudgetStore.ts"
import * as Bucket from "../internal/bucket.ts"
import type { FairQueue, Flow, Turn } from "../internal/fairQueue.ts"
import * as Limits from "../Limits.ts"
import type { Prediction, Waiter, Waiting } from "./poolModel.ts"

type Sums = { [D in Limits.Dimension]?: number }

/** A prediction looks at no more than this many agents, and calls of each: the rest is like those. */
const mostAgents = 256
const mostCalls = 32

/** When a charge that comes now would be admitted, if everybody uses what was estimated. */
export const forNewcomer = (
  queue: FairQueue<Waiter>,
  charge: Limits.Charge,
  who: { readonly agent: string; readonly priority: number },
  snapshot: Snapshot
): Prediction => {
  const before: Sums = {}
  const seen = queue.ahead(who, mostAgents, (flow, part) => addBacklog(before, flow, part))
  const sums: Sums = { ...charge }
  addCharge(sums, before, 1 / seen)
  return against(sums, snapshot)
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
  const sums: Sums = {}
  const result = out.map(({ entry: waiter }) => {
    addCharge(sums, waiter.charge, 1)
    return { waiter, waitedMillis: nowMillis - waiter.since, ...against(sums, snapshot) }
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

const addBacklog = (sums: Sums, flow: Flow<Waiter>, part: number): void => {
  const all = part * flow.backlog
  let looked = 0
  let calls = 0
  const own: Sums = {}
  for (let waiter = flow.head; waiter !== undefined && looked < all && calls < mostCalls; waiter = waiter.next) {
    addCharge(own, waiter.charge, 1)
    looked += waiter.cost / waiter.weight
    calls++
  }
  addCharge(sums, own, looked === 0 ? 1 : Math.max(1, all / looked))
}

/** How long until the buckets have refilled `sums` and the cooldown is over. */
const against = (sums: Limits.Charge, { ledger, now }: Snapshot): Prediction => {
  let millis = Math.max(0, (ledger.cooldown?.until ?? 0) - now)
  let binding: Limits.Dimension | undefined
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const asked = sums[dimension]
    if (bucket === undefined || asked === undefined) continue
    const alone = asked <= bucket.rule.most ? Bucket.waitFor(bucket, asked, now) : 0
    const wait = Math.max(Bucket.waitForAll(bucket, asked), alone)
    if (wait > millis) {
      millis = wait
      binding = dimension
    }
  }
  return { millis, dimension: binding }
}
