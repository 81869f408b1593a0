/**
 * Predicts when calls would start, and why one would be refused.
 *
 * The step of the pool is played ahead, on a copy of its law and in the order of the queue, as if every call used what was
 * estimated and none failed. Refusals, `maxWait`, a status and the public `foresee` all use this prediction.
 */
import * as Duration from "effect/Duration"
import { type Blocked, dimensionOf, type Obstacle } from "../admission/blocked.ts"
import * as Preview from "../pacing/preview.ts"
import type { FairQueue } from "../admission/fairQueue.ts"
import * as Pacer from "../pacing/pacer.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"
import type { Entry, Queueing } from "./entry.ts"
import { type BudgetErrorReason, EstimateTooLarge, QueueFull, QuotaExhausted, WaitTooLong } from "./errors.ts"
import { type JobSize, leftOf } from "./jobSizes.ts"
import type { Foreseen } from "./models.ts"

/** Only the first callers in the queue are played; those behind them wait at least as long. */
const maxPlayed = 1_000
/** The first callers are played one by one, then in groups of this fraction of all before them. */
const oneByOne = 32
/** If a call still waits after this many steps, its limit is too small to ever hold the charge. */
const maxSteps = 256
/** Waits are predicted again at this interval. */
const reviewMillis = 1_000

/** A pool, as far as it is known. */
export interface PoolView {
  readonly pool: string
  readonly rules: Rules.Rules
  readonly law: Pacer.Pacer
  readonly now: number
  readonly maxInFlight: number
  /** The calls of this process that are in flight. The law counts those of other processes, too. */
  readonly running: Iterable<Pick<Entry, "caller" | "callerWeight" | "grant" | "job" | "jobWeight">>
  readonly queue: FairQueue<Entry>
  readonly maxQueued: number
  /** Computes what a charge costs in the queue. */
  readonly costOf: (charge: Amounts.Whole) => number
  /** The size of a call's job, if a call has stated it. */
  readonly sizeOf: (queueing: Queueing) => JobSize | undefined
  /** False if processes share the pool: then only the first calls of the others' queues are known. */
  readonly isWhole: boolean
}

// -----------------------------------------------------------------------------
// Playing ahead
// -----------------------------------------------------------------------------

/**
 * The ends of the calls in flight, in order. A call that takes longer than the average, or belongs to another process, has no
 * known end: such calls are spread evenly over the average duration of a call.
 */
export const endsOf = ({ law, now, running }: PoolView): Array<number> => {
  const { answerMillis, inFlight } = law
  const ends: Array<number> = []
  for (const { grant } of running) if (grant!.at + answerMillis > now) ends.push(grant!.at + answerMillis)
  const others = inFlight - ends.length
  for (let i = 0; i < others; i++) ends.push(now + ((i + 0.5) / others) * answerMillis)
  return ends.sort((a, b) => a - b)
}

const noPlace: Blocked = { by: "concurrency", millis: Infinity }

/** A copy of a pool whose time is advanced as calls enter. */
class Projection {
  readonly law: Pacer.Pacer
  private readonly maxInFlight: number
  private readonly answerMillis: number
  /** The ends of calls, in order; undefined if calls in flight are not limited. */
  private readonly ends: Array<number> | undefined
  /** How many of `ends` have passed. */
  private ended = 0
  at: number
  /** The obstacle that a call waited for last. */
  obstacle: Obstacle | undefined = undefined

  constructor(view: PoolView) {
    const { law, maxInFlight, now } = view
    this.law = Preview.of(law)
    this.maxInFlight = maxInFlight
    this.answerMillis = law.answerMillis
    this.at = now
    this.ends = Math.min(maxInFlight, law.window.size) < Infinity ? endsOf(view) : undefined
  }

  /** Advances to when a call can start, and charges it. False if a quota has too little left. */
  enter(charge: Amounts.Whole): boolean {
    for (let steps = 0; steps < maxSteps; steps++) {
      this.endCalls()
      const answer = Preview.admit(this.law, this.maxInFlight, charge, this.at)
      if ("at" in answer) {
        this.ends?.push(this.at + this.answerMillis)
        return true
      }
      if (Preview.exhaustedBy(answer) !== undefined) return false
      if (!this.wait(answer)) break
    }
    this.force(charge, 1)
    return true
  }

  /** Charges several calls at once, whatever the limits say. The next call waits until that debt is refilled. */
  force(charge: Amounts.Whole, calls: number): void {
    const { inFlight } = this.law
    Pacer.take(this.law, charge, this.at)
    this.law.inFlight = inFlight
    for (let i = 0; i < calls; i++) {
      this.endCalls()
      while (this.law.inFlight >= this.maxInFlight && this.wait(noPlace)) this.endCalls()
      this.law.inFlight++
      this.ends?.push(this.at + this.answerMillis)
    }
  }

  /** Advances until a limit has refilled or a call has ended. False if neither will happen. */
  private wait({ by, millis }: Blocked): boolean {
    const end = by === "concurrency" || by === "pause" ? this.nextEnd : Infinity
    const until = Math.min(this.at + millis, end)
    if (until === Infinity) return false
    this.obstacle = by
    this.at = until
    return true
  }

  private get nextEnd(): number {
    return this.ends?.[this.ended] ?? Infinity
  }

  /** Ends the calls whose time has come. They used their whole estimates, so nothing is refunded. */
  private endCalls(): void {
    for (; this.nextEnd <= this.at; this.ended++) this.law.inFlight--
  }
}

/** A waiting call, and how long it still waits. */
export interface ExpectedWait {
  readonly waiter: Entry
  readonly expectedMillis: number
  readonly dimension: Limits.Dimension | undefined
}

/** The waits of the first calls, in the order of service. */
export const expectedWaits = (view: PoolView, count: number): ReadonlyArray<ExpectedWait> => {
  const { now, queue } = view
  const projection = new Projection(view)
  const found = new Map<Entry, ExpectedWait>()
  let played = 0
  for (const waiter of queue.inOrder(undefined, queue.returning)) {
    if (found.size === Math.min(count, queue.size) || played++ === maxPlayed) break
    projection.obstacle = undefined
    projection.enter(waiter.charge)
    if (found.has(waiter)) continue
    const dimension = dimensionOf(projection.obstacle) ?? waiter.binding
    found.set(waiter, { waiter, expectedMillis: projection.at - now, dimension })
  }
  return [...found.values()]
}

/** The wait of a call that would come now. */
export interface PredictedWait {
  readonly millis: number
  /** The obstacle that it would wait for last. */
  readonly obstacle: Obstacle | undefined
  /** The law at its turn, if a quota has too little left for it by then. */
  readonly exhausted: Pacer.Pacer | undefined
  /** Whether calls before it were not played. */
  readonly isLowerBound: boolean
}

export const predict = (view: PoolView, charge: Amounts.Whole, queueing: Queueing): PredictedWait => {
  const { costOf, now, queue } = view
  const projection = new Projection(view)
  const cost = costOf(charge)
  const newcomer = { ...queueing, cost, left: leftOf(view.sizeOf(queueing), charge, cost) }
  let played = 0
  let group: Array<Entry> = []
  let isLowerBound = false
  for (const waiter of queue.inOrder(newcomer, queue.returning)) {
    isLowerBound = played === maxPlayed
    if (isLowerBound) break
    played++
    group.push(waiter)
    if (group.length < played / oneByOne) continue
    enterTogether(projection, group)
    group = []
  }
  enterTogether(projection, group)
  const exhausted = projection.enter(charge) ? undefined : projection.law
  return { millis: projection.at - now, obstacle: projection.obstacle, exhausted, isLowerBound }
}

/** Lets a group start when its first call can. */
const enterTogether = (projection: Projection, [head, ...others]: ReadonlyArray<Entry>): void => {
  if (head === undefined) return
  projection.enter(head.charge)
  if (others.length === 0) return
  const sum = { ...Amounts.nothing }
  for (const { charge } of others) for (const each of Amounts.dimensions) sum[each] += charge[each]
  projection.force(sum, others.length)
}

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** A pool that pauses for longer refuses its callers: as long as the default retry policy tries. */
export const maxPause = 600_000

export const quotaExhausted = (
  pool: string,
  { caps }: Pacer.Pacer,
  charge: Amounts.Whole
): QuotaExhausted | undefined => {
  for (const dimension of Amounts.dimensions) {
    const cap = caps[dimension]
    const asked = charge[dimension]
    // Sums of fractions are not exact.
    if (cap?.rule.quota !== true || asked <= cap.level * (1 + 1e-9)) continue
    return new QuotaExhausted({ pool, dimension, asked, left: Math.max(0, cap.level) })
  }
  return undefined
}

export const tooLong = (
  pool: string,
  dimension: Limits.Dimension | undefined,
  millis: number,
  maxWait: number
): WaitTooLong =>
  new WaitTooLong({
    pool,
    dimension,
    wait: Duration.millis(Math.ceil(Math.max(millis, maxWait))),
    maxWait: Duration.millis(maxWait)
  })

/** Refuses every call while a pool pauses for longer than `maxPause`. */
export const pausedTooLong = (pool: string, { gate }: Pacer.Pacer, now: number): WaitTooLong | undefined => {
  const left = gate.until - now
  return left > maxPause ? tooLong(pool, undefined, left, maxPause) : undefined
}

/** The refusal of a call that cannot start at once. */
export const refusal = (
  { isWhole, law, maxQueued, now, pool, queue }: PoolView,
  charge: Amounts.Whole,
  { maxWait }: Queueing,
  prediction: PredictedWait | undefined
): BudgetErrorReason | undefined => {
  // Other processes may have refunded some of a quota since the last commit.
  const exhausted = isWhole ? quotaExhausted(pool, law, charge) : undefined
  const refused = exhausted ?? pausedTooLong(pool, law, now)
  if (refused !== undefined) return refused
  if (prediction !== undefined && prediction.millis > maxWait) {
    return tooLong(pool, dimensionOf(prediction.obstacle), prediction.millis, maxWait)
  }
  return queue.size < maxQueued ? undefined : new QueueFull({ pool, maxQueued })
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** Foresees when a call that came now would start, and why it would be refused. */
export const foresee = (view: PoolView, estimate: Limits.Estimate, queueing: Queueing): Foreseen => {
  const { isWhole, pool, queue, rules } = view
  const { charge, misfit } = Amounts.fitted(rules, estimate, queueing.certain, "Budget.foresee")
  if (misfit !== undefined) return never(pool, new EstimateTooLarge({ pool, ...misfit }), misfit.dimension, !isWhole)
  const prediction = predict(view, charge, queueing)
  const { exhausted, isLowerBound, millis, obstacle } = prediction
  const atItsTurn = exhausted && quotaExhausted(pool, exhausted, charge)
  const isAtOnce = millis === 0 && queue.size === 0 && isWhole
  const refused = isAtOnce && atItsTurn === undefined ? undefined : refusal(view, charge, queueing, prediction)
  if (atItsTurn !== undefined) return never(pool, refused ?? atItsTurn, atItsTurn.dimension, !isWhole)
  const wait = Duration.millis(millis)
  const jobEnd = endOfJob(view, charge, queueing)
  return { pool, wait, binding: obstacle, refusal: refused, jobEnd, isLowerBound: isLowerBound || !isWhole }
}

/** How long the rest of a call's job takes, in calls like this one. */
const endOfJob = (view: PoolView, charge: Amounts.Whole, queueing: Queueing): Duration.Duration | undefined => {
  const size = view.sizeOf(queueing)
  if (size === undefined || charge.tokens === 0) return undefined
  const calls = Math.max(0, size.stated - size.used) / charge.tokens
  const alone = new Projection(view)
  const before = { ...Amounts.nothing }
  for (const each of Amounts.dimensions) before[each] = charge[each] * Math.max(0, calls - 1)
  if (calls > 1) alone.force(before, 1)
  if (!alone.enter(charge)) return undefined
  return Duration.millis((alone.at - view.now) / view.queue.shareOf(queueing) + view.law.answerMillis)
}

/** The answer for a call that is never admitted. */
export const never = (
  pool: string,
  refusal: BudgetErrorReason,
  binding?: Foreseen["binding"],
  isLowerBound = false
): Foreseen => ({ pool, wait: Duration.infinity, binding, refusal, isLowerBound })

/** The remaining waits of callers. All are predicted together, and kept for a second. */
export class Reviews {
  private at = -Infinity
  private waits = new WeakMap<Entry, number>()
  /** The wait of callers that were not played: at least as long as the last one that was. */
  private beyond = 0

  remainingWait(entry: Entry, now: number, waiting: () => ReadonlyArray<ExpectedWait>): number {
    if (now - this.at >= reviewMillis) {
      const found = waiting()
      this.at = now
      this.waits = new WeakMap(found.map(({ expectedMillis, waiter }) => [waiter, expectedMillis]))
      this.beyond = found.at(-1)?.expectedMillis ?? 0
    }
    return this.waits.get(entry) ?? this.beyond
  }
}
