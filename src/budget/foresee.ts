/** When a call would start, and why it would be refused: what refusals, `maxWait` and the public `foresee` are based on. */
import * as Duration from "effect/Duration"
import type { FairQueue } from "../admission/fairQueue.ts"
import type * as Amounts from "../limits/amounts.ts"
import type * as Rules from "../limits/rules.ts"
import type { Entry, Queueing } from "./entry.ts"
import { type BudgetErrorReason, QueueFull } from "./errors.ts"
import type { Foreseen } from "./models.ts"
import * as Predict from "./predict.ts"
import * as Refusals from "./refusals.ts"

/** What is known of a pool. */
export interface View extends Predict.Scene {
  readonly pool: string
  readonly rules: Rules.Rules
  readonly queue: FairQueue<Entry>
  readonly maxQueued: number
  /** Whether all is known: nobody else takes or gives back. */
  readonly isWhole: boolean
}

/** Why a call is refused that does not go at once. */
export const refusal = (
  { isWhole, law, maxQueued, now, pool, queue }: View,
  charge: Amounts.Whole,
  { maxWait }: Queueing,
  foreseen: Predict.Foreseen | undefined
): BudgetErrorReason | undefined => {
  // Others may have given back since.
  const exhausted = isWhole ? Refusals.quotaExhausted(pool, law, charge) : undefined
  const refused = exhausted ?? Refusals.closed(pool, law, now)
  if (refused !== undefined) return refused
  if (foreseen !== undefined && foreseen.millis > maxWait) {
    return Refusals.tooLong(pool, Predict.dimensionOf(foreseen.obstacle), foreseen.millis, maxWait)
  }
  return queue.size < maxQueued ? undefined : new QueueFull({ pool, maxQueued })
}

/** What becomes of a call that would come now. */
export const foresee = (view: View, charge: Amounts.Whole, how: Queueing): Foreseen => {
  const { isWhole, pool, queue, rules } = view
  const tooLarge = Refusals.tooLarge(pool, rules, charge)
  if (tooLarge !== undefined) return never(pool, tooLarge, tooLarge.dimension, !isWhole)
  const foreseen = Predict.newcomer(view, queue, charge, how)
  const { exhausted, isLowerBound, millis, obstacle } = foreseen
  const atItsTurn = exhausted && Refusals.quotaExhausted(pool, exhausted, charge)
  const isAtOnce = millis === 0 && queue.size === 0 && isWhole
  const refused = isAtOnce && atItsTurn === undefined ? undefined : refusal(view, charge, how, foreseen)
  if (atItsTurn !== undefined) return never(pool, refused ?? atItsTurn, atItsTurn.dimension, !isWhole)
  const wait = Duration.millis(millis)
  // Of the calls that wait in other processes only the first are known.
  return { pool, wait, binding: obstacle, refusal: refused, isLowerBound: isLowerBound || !isWhole }
}

/** What becomes of a call that is never admitted. */
export const never = (
  pool: string,
  refusal: BudgetErrorReason,
  binding?: Foreseen["binding"],
  isLowerBound = false
): Foreseen => ({ pool, wait: Duration.infinity, binding, refusal, isLowerBound })

/** Waits are foreseen again no more often than this. */
const reviewMillis = 1_000

/** How long callers still wait, or at least so long; looked up for all of them together. */
export class Reviews {
  private at = -Infinity
  private waits = new WeakMap<Entry, number>()
  private beyond = 0

  left(entry: Entry, now: number, waiting: () => ReadonlyArray<Predict.Expected>): number {
    if (now - this.at >= reviewMillis) {
      const found = waiting()
      this.at = now
      this.waits = new WeakMap(found.map(({ expectedMillis, waiter }) => [waiter, expectedMillis]))
      this.beyond = found.at(-1)?.expectedMillis ?? 0
    }
    return this.waits.get(entry) ?? this.beyond
  }
}
