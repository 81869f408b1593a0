/**
 * The holds of a call before it is queued in its pool: those that others have asked for, a part of the long window of its account, and
 * its cost in the ledgers of its purses and of the trees around it. Each is a hold in a line. `settlement.ts` settles them by the cost
 * of the attempt.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Budget from "../Budget.ts"
import type * as PriceTable from "../domain/prices.ts"
import type { Unit } from "../domain/spending/ledger.ts"
import { ledgerOf, type Purse, Resets } from "../domain/spending/models.ts"
import type { CostAsked } from "../sharing/ledger.ts"
import type { SpendCapReached } from "../money/errors.ts"
import type { CapReporter, LedgerHold, RunningLedger } from "../money/ledger.ts"
import type { Paying } from "../money/paying.ts"
import type { ParkingPlace } from "../money/parking.ts"
import { interactive, type WindowHold } from "../money/account.ts"
import type { LongWindows } from "../money/windows.ts"
import { WindowShareUsed } from "../money/windowShare.ts"
import type { CallHold, CallLine, LineOf } from "./lines.ts"
import * as Usage from "./usage.ts"

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const denied = (cause: Error): Budget.BudgetError => new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

/** By its tag, because only purses bring the class. */
const isCapReached = (cause: unknown): cause is SpendCapReached => Predicate.isTagged(cause, "SpendCapReached")

const causeOf = ({ reason }: Budget.BudgetError): unknown => (reason._tag === "Denied" ? reason.cause : undefined)

/** The refusal of a call by a ledger. */
const deniedBy = (
  { denial, name }: RunningLedger,
  refusal: Parameters<RunningLedger["denial"]>[0],
  { estimate, known }: PaymentRequest["call"]
): Budget.BudgetError =>
  denied(
    denial(refusal, name, {
      model: known.model,
      maxTokens: known.maxTokens,
      expectedTokens: estimate.outputTokens,
      isCounted: known.inputTokens !== undefined,
      verifiedTokens: known.verified?.tokens
    })
  )

// -----------------------------------------------------------------------------
// Holds
// -----------------------------------------------------------------------------

/**
 * The holds of a call. It takes its lines one after another, in an order that all calls follow, so that two calls never wait for each
 * other.
 */
export class Payment {
  /** Its hold in the long window of its account. */
  window: WindowHold | undefined = undefined
  /** Whether it is parked until a reset, and the latest reset that it may wait for; -Infinity if it waits for none. */
  parks = false
  resetBy = -Infinity
  /** The reset that was reported as the one it waits for. */
  reportedReset: number | undefined = undefined
  private lines: ReadonlyArray<CallLine> = []
  private holds: Array<CallHold> = []

  /** Names the lines in which the call must have a hold. */
  needs(lines: ReadonlyArray<CallLine>): void {
    this.lines = lines
  }

  /** Whether it holds all. */
  get isPaid(): boolean {
    return this.holds.length === this.lines.length && this.last?.isOpen === true
  }

  /** The hold that was taken last. */
  get last(): CallHold | undefined {
    return this.holds.at(-1)
  }

  /** The refusal of a line that is known to refuse the call, so that it does not wait for another one first. */
  get refused(): Budget.BudgetError | undefined {
    for (const line of this.lines) {
      const refusal = line.refused()
      if (refusal !== undefined) return refusal
    }
    return undefined
  }

  /** Takes lines until one lets the call wait or refuses it. Returns whether it holds all. */
  advance(): boolean {
    while (this.last?.isOpen !== false && this.holds.length < this.lines.length) {
      this.holds.push(this.lines[this.holds.length]!.take())
    }
    return this.isPaid
  }

  /** Why the hold that was taken last was refused, or cannot wait any longer. */
  get ended(): Budget.BudgetError {
    return this.lines[this.holds.length - 1]!.ended()
  }

  /** Gives back what it holds. It may then ask again. */
  giveBack(): void {
    const { holds } = this
    this.holds = []
    for (const hold of holds) hold.settle(0)
  }

  /** Replaces the reservations by the cost, or spends all of them if the cost is unknown. Nothing is taken any more. */
  settle(cost: number | undefined, tokens?: number): void {
    this.lines = []
    for (const hold of this.holds) hold.settle(cost, tokens)
    this.holds = []
  }
}

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

/**
 * The holder of a caller's connection, who must know whether its call may still be refused for money: at first, and again when it is
 * paid for another time, until `pays(false)`. If it still waits for money that running calls have reserved at `until`, in milliseconds
 * since the epoch, it is refused. The gateway provides it, because nothing that it has begun to answer can become a refusal.
 */
export const MoneyWait = Context.Reference<
  { readonly until: number; readonly pays: (isPaying: boolean) => void } | undefined
>("floodgate/Spending/MoneyWait", { defaultValue: () => undefined })

/** The cost of a call, and what pays it. */
export interface PaymentRequest {
  /** Lines besides those of the account and the purses. */
  readonly lines: ReadonlyArray<LineOf>
  /** The purses that pay. One that is named twice pays once. */
  readonly purses: ReadonlyArray<Purse>
  readonly price: PriceTable.Price | undefined
  readonly call: Omit<Usage.HeldCall, "observed">
  readonly pool: string
  readonly account: string | undefined
  readonly windows: LongWindows
  /** Whether it is parked until a reset, and the latest reset until which it may be parked or wait. */
  readonly parks: boolean
  readonly resetBy: number
  /** Its place in the parking. The call then waits as if its attempt had just begun. */
  readonly parked: () => { readonly place: ParkingPlace; readonly until: number }
  readonly paying: Paying
  readonly clock: Clock.Clock
  readonly report: CapReporter
  /** Since when the call waits, and until when it may, in milliseconds of the clock. */
  readonly since: number
  readonly until: number
}

/** The ledgers in the order in which every call takes them, in every process. */
const inOrder = (purses: ReadonlyArray<Purse>): ReadonlyArray<RunningLedger> => {
  const ledgers = purses.map(ledgerOf<RunningLedger>)
  if (ledgers.length < 2) return ledgers
  return Array.from(new Set(ledgers)).sort((a, b) => {
    if (a.key === b.key) return a.serial - b.serial
    return a.key < b.key ? -1 : 1
  })
}

/** The window of the account of a call. */
const windowLine = (payment: Payment, request: PaymentRequest, cost: number): CallLine => {
  const { account, call, paying, windows } = request
  const own = windows.of(account)
  const ask = call.known.slowLane === true ? undefined : cost
  let hold: WindowHold
  return {
    // It is the first line that a call asks, so nothing has to be known before.
    refused: () => undefined,
    take: () => (payment.window = hold = own.take(paying, ask, call.known.model)),
    ended: () => (hold.refusal === undefined ? tooLong(request) : denied(new WindowShareUsed(hold.refusal)))
  }
}

/** A ledger that pays for a call. */
const ledgerLine = (ledger: RunningLedger, paying: Paying, ask: CostAsked, call: PaymentRequest["call"]): CallLine => {
  let hold: LedgerHold
  return {
    refused: () => {
      const refusal = ledger.refusal(ask)
      return refusal && deniedBy(ledger, refusal, call)
    },
    take: () => (hold = ledger.take(paying, ask)),
    ended: () => deniedBy(ledger, hold.refusal ?? ledger.lateRefusal(ask), call)
  }
}

/** Finds what a call has to hold. Returns why it cannot, if it cannot. */
const bill = (payment: Payment, request: PaymentRequest): Budget.BudgetError | undefined => {
  const { call, clock, paying, price, report } = request
  const ledgers = inOrder(request.purses)
  const others = request.lines.map((lineOf) => lineOf(request))
  for (const ledger of ledgers) {
    ledger.clock = clock
    if (ledger.reports) ledger.report = report
  }
  const inDollars = ledgers.filter(({ unit }) => unit === "dollars")
  if (price === undefined) {
    const capped = inDollars.find(({ isCapped }) => isCapped)
    if (capped !== undefined) return deniedBy(capped, { _tag: "NoPrice" }, call)
    for (const ledger of inDollars) ledger.unpriced++
  }
  const asked: { [U in Unit]?: CostAsked | undefined } = {
    dollars: price && { expected: Usage.costOf(price, Usage.expected(call)), max: Usage.maxCostOf(price, call.known) },
    calls: aCall
  }
  if (ledgers.some(({ unit }) => unit === "tokens")) asked.tokens = Usage.tokensAsked(price, call)
  payment.needs([
    ...others,
    windowLine(payment, request, asked.dollars?.expected ?? 0),
    ...ledgers.flatMap((ledger) => {
      const ask = asked[ledger.unit]
      return ask === undefined ? [] : [ledgerLine(ledger, paying, ask, call)]
    })
  ])
  return undefined
}

const aCall: CostAsked = { expected: 1, max: 1 }

/**
 * Reserves what a call may cost. It must wait if only the reservations of running calls are in the way, and for a reset if the call
 * may wait for it. Returns what is left to do until everything is held; undefined if nothing is. Its caller settles the payment
 * however that ends.
 */
export const pay = (
  payment: Payment,
  request: PaymentRequest,
  context: Context.Context<never>
): Effect.Effect<void, Budget.BudgetError> | undefined => {
  const { parks, paying, resetBy, until, windows } = request
  if (until < Infinity || parks) payment.resetBy = resetBy
  payment.parks = parks
  const refusal = bill(payment, request)
  if (refusal !== undefined) return Effect.fail(refusal)
  const isBehind = parks && windows.parking.hasDue && paying.priority < interactive
  return isBehind
    ? parkedFor(
        payment,
        { error: tooLong(request), until: request.since, tries: undefined, isDue: true, isReviewed: false },
        request,
        context
      )
    : paid(payment, request, context)
}

/** Pays, and returns what is left to do; undefined if nothing is. If that ends otherwise, nothing of it stays reserved. */
const paid = (
  payment: Payment,
  request: PaymentRequest,
  context: Context.Context<never>
): Effect.Effect<void, Budget.BudgetError> | undefined => {
  const holder = Context.get(context, MoneyWait)
  const refused = payment.refused
  if (refused === undefined && payment.advance()) {
    holder?.pays(false)
    return undefined
  }
  holder?.pays(true)
  const last = Math.min(request.until, holder?.until ?? Infinity)
  const waits = refused === undefined ? waited(payment, request, last) : Effect.fail(refused)
  return Effect.matchEffect(waits, {
    onSuccess: () => Effect.sync(() => holder?.pays(false)),
    onFailure: (error): Effect.Effect<void, Budget.BudgetError> => {
      payment.giveBack()
      const parked = park(payment, error, request, context)
      if (parked === undefined) return Effect.fail(error)
      // A reset may be hours away.
      holder?.pays(false)
      return parked
    }
  })
}

/**
 * Parks a call until the cap or the window of its refusal begins anew, or the window may be open all the same, and pays then; undefined
 * if the call may not wait.
 */
const park = (
  payment: Payment,
  error: Budget.BudgetError,
  request: PaymentRequest,
  context: Context.Context<never>
): Effect.Effect<void, Budget.BudgetError> | undefined => {
  const { account, parks, windows } = request
  const cause = causeOf(error)
  const isWindow = cause instanceof WindowShareUsed
  const until = isWindow || isCapReached(cause) ? cause.until : undefined
  if (until === undefined || until > payment.resetBy || !(isWindow || parks) || windows.parking.isFull) return undefined
  if (payment.reportedReset !== until) Context.get(context, Resets)?.({ until, message: error.message })
  payment.reportedReset = until
  const tries = isWindow && payment.window!.refusal!.triesAt !== undefined ? windows.of(account) : undefined
  return parkedFor(payment, { error, until, tries, isDue: false, isReviewed: !isWindow }, request, context)
}

/** Parks a call, and pays then. */
const parkedFor = (
  payment: Payment,
  why: Parameters<ParkingPlace["park"]>[0] & { readonly error: Budget.BudgetError },
  request: PaymentRequest,
  context: Context.Context<never>
): Effect.Effect<void, Budget.BudgetError> => {
  const { place, until } = request.parked()
  const again = { ...request, until }
  return Effect.flatMap(place.park({ ...why, error: why.error }), () => paid(payment, again, context) ?? Effect.void)
}

const tooLong = ({ pool, since, until }: PaymentRequest): Budget.BudgetError => {
  const wait = Duration.millis(Math.max(0, until - since))
  return new Budget.BudgetError({ reason: new Budget.WaitTooLong({ pool, dimension: undefined, wait, maxWait: wait }) })
}

/** Waits until a call holds all, or fails with the refusal. It waits until `last`: as long as the call and whoever holds its connection may. */
const waited = (payment: Payment, { clock }: PaymentRequest, last: number): Effect.Effect<void, Budget.BudgetError> => {
  if (payment.last?.phase !== "waiting") return Effect.fail(payment.ended)
  const woken = Effect.callback<void, Budget.BudgetError>((resume) => {
    const goOn = (): void => {
      if (payment.advance()) return resume(Effect.void)
      // After an interruption it was settled, and nobody waits.
      if (payment.last === undefined) return
      if (payment.last.phase === "waiting") payment.last.listen(goOn)
      else resume(Effect.fail(payment.ended))
    }
    payment.last?.listen(goOn)
  })
  // It may have been paid for in the millisecond in which its time ended.
  const orElse = (): Effect.Effect<void, Budget.BudgetError> =>
    payment.isPaid ? Effect.void : Effect.fail(payment.ended)
  const duration = Math.max(0, last - clock.currentTimeMillisUnsafe())
  return last === Infinity ? woken : Effect.timeoutOrElse(woken, { duration, orElse })
}
