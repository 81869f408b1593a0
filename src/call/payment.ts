/**
 * Pays for a call from its purses: reserves a cost before the call is queued, which `GovernedCall` later replaces by the actual
 * cost.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Budget from "../Budget.ts"
import { queueingOf } from "../budget/options.ts"
import type { Wake } from "../budget/waker.ts"
import type * as PriceTable from "../domain/prices.ts"
import { type CapInUnits, perDollar } from "../domain/spending/ledger.ts"
import { ledgerOf } from "../domain/spending/models.ts"
import type { CapRefusal } from "../sharing/ledger.ts"
import * as Spending from "../Spending.ts"
import type { CapReporter, LedgerEntry, LedgerLost, Paying, RunningLedger } from "../money/ledger.ts"
import type { Restore } from "./models.ts"
import * as Usage from "./usage.ts"
import type { LongWindows, WindowHold, WindowRefusal } from "../money/windows.ts"

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const perOf = ({ period }: CapInUnits): string | undefined => {
  if (period._tag === "Ever") return undefined
  return period._tag === "Day" ? "a day" : `in ${Duration.format(Duration.millis(period.millis))}`
}

const denied = (cause: Error): Budget.BudgetError => new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

const refusalOf = (
  { name: purse }: RunningLedger,
  refusal: CapRefusal | LedgerLost,
  { estimate, known }: PaymentRequest["call"]
): Budget.BudgetError => {
  if (refusal._tag === "LedgerLost") return denied(new Spending.LedgerUnavailable({ purse, cause: refusal.cause }))
  const { asked, cap, expected, held, isAlone, left, until } = refusal
  if (asked === Infinity) return denied(new Spending.NoMaxTokens({ purse }))
  const reached = new Spending.SpendCapReached({
    purse,
    asked: asked / perDollar,
    expected: expected / perDollar,
    spent: Math.max(0, cap.limit - left) / perDollar,
    reserved: held / perDollar,
    left: left / perDollar,
    limit: cap.limit / perDollar,
    per: perOf(cap),
    until,
    maxTokens: known.maxTokens,
    expectedTokens: estimate.outputTokens,
    isCounted: known.inputTokens !== undefined
  })
  return denied(isAlone ? new Spending.LedgerUnavailable({ purse, cause: reached }) : reached)
}

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

/**
 * What a call has reserved of its ledgers. It takes them one after another in an order that all calls follow, so that two calls
 * never wait for each other.
 */
export class Payment {
  private readonly entries: Array<LedgerEntry> = []
  private readonly ledgers: ReadonlyArray<RunningLedger>
  readonly paying: Paying
  readonly window: WindowHold
  private isOver = false

  constructor(ledgers: ReadonlyArray<RunningLedger>, paying: Paying, window: WindowHold) {
    this.window = window
    this.ledgers = ledgers
    this.paying = paying
  }

  /** Whether all ledgers are taken. */
  get isPaid(): boolean {
    return this.entries.length === this.ledgers.length && this.entries.every(({ outcome }) => outcome === "reserved")
  }

  /** The entry of the call in a ledger that is known to refuse it. */
  get refused(): LedgerEntry | undefined {
    return this.ledgers.find((ledger) => ledger.refuses(this.paying.asked))?.take(this.paying)
  }

  /** Takes ledgers until one lets the call wait or refuses it. Returns the call's entry there. */
  advance(): LedgerEntry | undefined {
    while (!this.isOver && this.entries.length < this.ledgers.length) {
      const entry = this.ledgers[this.entries.length]!.take(this.paying)
      this.entries.push(entry)
      if (entry.outcome !== "reserved") return entry
    }
    return undefined
  }

  /** Replaces the reservations by the cost, or spends all of them if the cost is unknown. Only the first call has an effect. */
  settle(cost: number | undefined): void {
    this.isOver = true
    this.window.settle(cost)
    for (const entry of this.entries) entry.ledger.settle(entry, cost)
  }
}

/**
 * Whoever holds the connection of a caller, and wants to know whether its call waits for money that running calls have reserved. If it
 * still does at `until`, in milliseconds since the epoch, it is refused. The gateway provides it, because nothing that it has begun
 * to answer can become a refusal.
 */
export const MoneyWait = Context.Reference<
  { readonly until: number; readonly waits: (isWaiting: boolean) => void } | undefined
>("floodgate/Spending/MoneyWait", { defaultValue: () => undefined })

/** A call that reserves its cost. */
export interface PaymentRequest {
  /** The purses that pay. One that is named twice pays once. */
  readonly purses: ReadonlyArray<Spending.Purse>
  readonly price: PriceTable.Price | undefined
  readonly call: Omit<Usage.HeldCall, "observed">
  readonly pool: string
  readonly account: string | undefined
  readonly windows: LongWindows
  readonly queueing: Budget.ReserveOptions
  readonly report: CapReporter
  readonly wake: Wake
  /** How long the call may wait, in milliseconds. */
  readonly maxWait: number
}

/** The ledgers in the order in which every call takes them, in every process. */
const inOrder = (purses: ReadonlyArray<Spending.Purse>): ReadonlyArray<RunningLedger> => {
  const ledgers = purses.map(ledgerOf<RunningLedger>)
  if (ledgers.length < 2) return ledgers
  return Array.from(new Set(ledgers)).sort((a, b) => {
    if (a.key === b.key) return a.serial - b.serial
    return a.key < b.key ? -1 : 1
  })
}

/** What a call has paid, and what is left to do until it has paid all. */
export interface PaymentState {
  /** Undefined if the call was refused, or must wait for another of its account. */
  readonly payment: Payment | undefined
  /**
   * Waits for ledgers or for a reset, and returns the payment, or fails; undefined if everything is paid. Must run uninterruptible;
   * `restore` is around the waits.
   */
  readonly rest: ((restore: Restore) => Effect.Effect<Payment, Budget.BudgetError>) | undefined
}

/**
 * Reserves what a call may cost. It must wait if only the reservations of running calls are in the way, and for a reset if the call
 * may wait for it.
 */
export const pay = (request: PaymentRequest, context: Context.Context<never>): PaymentState => {
  const clock = Context.get(context, Clock.Clock)
  const last = clock.currentTimeMillisUnsafe() + request.maxWait
  const payAfter = (wait: Effect.Effect<void, Budget.BudgetError>, restore: Restore) =>
    Effect.flatMap(restore(wait), () => {
      const left = Math.max(0, last - clock.currentTimeMillisUnsafe())
      const { payment, rest } = pay({ ...request, maxWait: left }, context)
      return rest === undefined ? Effect.succeed(payment!) : rest(restore)
    })
  const paid = payOnce(request, context)
  if ("after" in paid) return { payment: undefined, rest: (restore) => payAfter(paid.after, restore) }
  const { payment, rest } = paid
  if (rest === undefined) return { payment, rest }
  return {
    payment,
    rest: (restore) =>
      Effect.catch(rest(restore), (error): Effect.Effect<Payment, Budget.BudgetError> => {
        const reset = resetOf(error)
        const waits = Context.get(context, Spending.Resets)
        const mayWait = waits !== undefined || (reset?.isWindow === true && last < Infinity)
        if (reset === undefined || reset.until > last || !mayWait) return Effect.fail(error)
        waits?.({ until: reset.until, message: error.message })
        // Clocks differ, so the reset may be a moment later than it seems.
        const millis = Math.max(minReset, reset.until - clock.currentTimeMillisUnsafe())
        return payAfter(Effect.sleep(millis), restore)
      })
  }
}

/** The shortest wait for a reset, in milliseconds. */
const minReset = 1_000

/** When the cap or the window of a refusal begins anew, if it does. */
const resetOf = ({
  reason
}: Budget.BudgetError): { readonly until: number; readonly isWindow: boolean } | undefined => {
  const cause = reason._tag === "Denied" ? reason.cause : undefined
  const isWindow = cause instanceof Spending.WindowShareUsed
  const until = isWindow || cause instanceof Spending.SpendCapReached ? cause.until : undefined
  return until === undefined ? undefined : { until, isWindow }
}

const refused = (cause: Error): PaymentState => ({ payment: undefined, rest: () => Effect.fail(denied(cause)) })

/** What a call holds of the windows of its account, or why it has no room there. */
const heldWithin = (
  { account, call, windows }: PaymentRequest,
  cost: number,
  priority: number,
  clock: Clock.Clock
): WindowHold | WindowRefusal =>
  call.known.slowLane === true
    ? windows.outside(account)
    : windows.admit(account, cost, priority, () => clock.currentTimeMillisUnsafe())

/** Tries once to pay. Pays nothing if the call must wait until another of its account ends, and returns that wait. */
const payOnce = (
  request: PaymentRequest,
  context: Context.Context<never>
): PaymentState | { readonly after: Effect.Effect<void, Budget.BudgetError> } => {
  const { account, call, price, queueing, wake, windows } = request
  const clock = Context.get(context, Clock.Clock)
  const ledgers = inOrder(request.purses)
  for (const ledger of ledgers) {
    ledger.clock = clock
    ledger.report = request.report
  }
  const capped = ledgers.find(({ isCapped }) => isCapped)
  if (price === undefined && capped !== undefined) {
    return refused(new Spending.NoPrice({ model: call.known.model, purse: capped.name }))
  }
  const asked =
    price === undefined
      ? { expected: 0, max: 0 }
      : { expected: Usage.costOf(price, Usage.expected(call)), max: Usage.maxCostOf(price, call.known) }
  const paying = { ...queueingOf(context, queueing), wake, asked }
  const hold = heldWithin(request, asked.expected, paying.priority, clock)
  if ("used" in hold) {
    if (!hold.isHeld) return refused(new Spending.WindowShareUsed(hold))
    return { after: inTime(request, windows.ended(account, wake), Effect.fail(tooLong(request))) }
  }
  if (price === undefined) for (const ledger of ledgers) ledger.unpriced++
  const payment = new Payment(price === undefined ? [] : ledgers, paying, hold)
  // A cap that is reached refuses the call before it waits for another one.
  const entry = payment.refused ?? payment.advance()
  if (entry === undefined) return { payment, rest: undefined }
  return { payment, rest: waitFor(entry, payment, request, context) }
}

/** Waits for the ledgers of a payment. If that ends otherwise, nothing of it stays reserved. */
const waitFor = (
  entry: LedgerEntry,
  payment: Payment,
  request: PaymentRequest,
  context: Context.Context<never>
): PaymentState["rest"] => {
  const holder = Context.get(context, MoneyWait)
  const clock = Context.get(context, Clock.Clock)
  if (entry.outcome === undefined) holder?.waits(true)
  return (restore) =>
    Effect.onExit(Effect.as(awaited(entry, payment, boundBy(holder, request, clock), restore), payment), (exit) =>
      Effect.sync(() => {
        holder?.waits(false)
        if (Exit.isFailure(exit)) payment.settle(0)
      })
    )
}

/** The request with the shorter of two waits: its own, and that of whoever holds the connection of its caller. */
const boundBy = (
  holder: Context.Service.Shape<typeof MoneyWait>,
  request: PaymentRequest,
  clock: Clock.Clock
): PaymentRequest => {
  if (holder === undefined) return request
  return { ...request, maxWait: Math.min(request.maxWait, Math.max(0, holder.until - clock.currentTimeMillisUnsafe())) }
}

const tooLong = ({ maxWait, pool }: PaymentRequest): Budget.BudgetError => {
  const wait = Duration.millis(maxWait)
  return new Budget.BudgetError({ reason: new Budget.WaitTooLong({ pool, dimension: undefined, wait, maxWait: wait }) })
}

/** Waits as long as the call may wait. */
const inTime = <A, E>(
  { maxWait }: PaymentRequest,
  waiting: Effect.Effect<A, E>,
  orElse: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  maxWait < Infinity ? Effect.timeoutOrElse(waiting, { duration: maxWait, orElse: () => orElse }) : waiting

/** Waits until a call is paid for in each of its ledgers, or fails with the refusal. */
const awaited = (
  entry: LedgerEntry,
  payment: Payment,
  request: PaymentRequest,
  restore: Restore
): Effect.Effect<void, Budget.BudgetError> => {
  let at = entry
  const woken = Effect.callback<void, Budget.BudgetError>((resume) => {
    const goOn = (): void => {
      const { ledger, outcome } = at
      if (outcome === undefined) return at.listen(goOn)
      if (outcome !== "reserved") return resume(Effect.fail(refusalOf(ledger, outcome, request.call)))
      const next = payment.advance()
      if (next === undefined) return resume(Effect.void)
      at = next
      goOn()
    }
    goOn()
  })
  // It may have been paid for in the millisecond in which its time ended.
  const late = Effect.suspend(() => {
    if (payment.isPaid) return Effect.void
    const { asked, ledger } = at
    return Effect.fail(refusalOf(ledger, ledger.refusalOf(asked), request.call))
  })
  return restore(inTime(request, woken, late))
}
