/**
 * The long windows of accounts: what is known of them, the shares that are kept, and the calls that run within them. A spend limit
 * that is used up is listed with them in the status, but refuses no calls here, because it may be raised at any time.
 */
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import type { Wake } from "../budget/waker.ts"
import * as Lru from "../domain/input/lru.ts"
import type { Signal } from "../domain/signal.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import * as Windows from "../domain/spending/windows.ts"

/** The share of each window for calls that are not interactive. */
export type Shares = Readonly<Record<string, { readonly share: number }>>

/**
 * The status of a long window of a subscription.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface WindowStatus {
  /** The account of its calls, a hash; undefined if calls have none. */
  readonly account: string | undefined
  /** Such as `"5h"`; `"spend limit"` while the provider refuses calls because of one that resets (`SpendLimited.resumesAt`). */
  readonly name: string
  /** The fraction that is spent, with what running calls are expected to add. */
  readonly used: number
  /** The share for calls that are not interactive. */
  readonly share: number | undefined
  /** When it ends, in milliseconds since the epoch; undefined if it has ended, and nothing was heard since. */
  readonly resetsAt: number | undefined
  /** What the whole window costs in dollars, as far as it was learned. */
  readonly dollars: number | undefined
  /** Whether the provider rejects calls until its end. */
  readonly isRejected: boolean
}

/** What was learned of a window. */
export interface LearnedWindow {
  readonly account?: string | undefined
  readonly name: string
  readonly used: number
  readonly resetsAt: number
  /** What the whole window costs in dollars. */
  readonly dollars?: number | undefined
}

/** A window has no room for a call. */
export interface WindowRefusal {
  readonly window: string
  readonly used: number
  readonly share: number
  readonly until: number | undefined
  /** Whether only the reservations of running calls are in its way. */
  readonly isHeld: boolean
}

interface AccountWindows {
  /** Its running calls, what they are expected to cost, and what all calls have cost so far. */
  running: number
  held: number
  spent: number
  readonly windows: Map<string, Windows.LongWindow>
  /** Callbacks of the calls that wait for a running one to end. */
  readonly waiting: Set<() => void>
}

/** Keys come with requests, so their number is bounded. */
const maxAccounts = 1_000
/** Calls of this priority are interactive, as those of the gateway's class are. */
const interactive = 1

/** A running call within the windows of its account. */
export interface WindowHold {
  /** What had been spent when it was admitted. */
  readonly spent: number
  /** Replaces what the call was expected to cost by what it has cost. Only the first call has an effect. */
  readonly settle: (cost: number | undefined) => void
}

export class LongWindows {
  private readonly shares: Shares
  /** Whether calls have to ask. */
  readonly isLimiting: boolean
  private readonly accounts = new Map<string, AccountWindows>()
  /**
   * When the spend limit of an account is reset, if it has refused the account's last call. Every call that succeeds looks whether there is
   * any, before it calls `succeeded`.
   */
  readonly spendLimits = new Map<string | undefined, number>()

  constructor(shares: Shares = {}, learned: ReadonlyArray<LearnedWindow> = []) {
    this.shares = shares
    this.isLimiting = Object.keys(shares).length > 0
    for (const { account = "", dollars, name, resetsAt, used } of learned) {
      const size = dollars === undefined ? undefined : dollars * perDollar
      this.of(account).windows.set(name, Windows.begun({ used, resetsAt }, 0, size))
    }
  }

  private of(account: string): AccountWindows {
    const found = this.accounts.get(account)
    if (found !== undefined) return found
    const made: AccountWindows = { running: 0, held: 0, spent: 0, windows: new Map(), waiting: new Set() }
    Lru.put(this.accounts, account, made, maxAccounts)
    return made
  }

  /** The windows of an account as they are now. */
  private at(account: string | undefined, now: number): AccountWindows {
    const own = this.of(account ?? "")
    for (const [name, window] of own.windows) own.windows.set(name, Windows.at(window, own.spent, now))
    return own
  }

  /** Reserves what a call may cost in the windows of its account, or says which of them has no room. */
  admit(account: string | undefined, cost: number, priority: number, clock: () => number): WindowHold | WindowRefusal {
    const own = this.at(account, clock())
    for (const [name, window] of own.windows) {
      // Only the provider refuses interactive calls.
      const share = priority >= interactive ? Infinity : (this.shares[name]?.share ?? Infinity)
      const { isRejected, resetsAt, size } = window
      const fits = (used: number): boolean => (size === undefined ? used < share : used + cost / size <= share)
      if (!isRejected && fits(Windows.usedAt(window, own.spent + own.held))) continue
      const used = Windows.usedAt(window, own.spent)
      const isHeld = !isRejected && fits(used)
      // A call that is larger than the share does not fit after the reset either.
      const fitsLater = isRejected || fits(0)
      const until = fitsLater && resetsAt < Infinity ? resetsAt : undefined
      return { window: name, used: Math.min(1, used), share: isRejected ? 1 : share, until, isHeld }
    }
    own.running++
    own.held += cost
    let isOpen = true
    return {
      spent: own.spent,
      settle: (actual = cost) => {
        if (!isOpen) return
        isOpen = false
        // Rounded sums of costs do not return to 0 by themselves.
        own.held = --own.running === 0 ? 0 : Math.max(0, own.held - cost)
        this.at(account, clock())
        own.spent += actual
        const waiting = Array.from(own.waiting)
        own.waiting.clear()
        for (const goOn of waiting) goOn()
      }
    }
  }

  /** A call that does not count towards the windows of its account. */
  outside(account: string | undefined): WindowHold {
    return { spent: this.of(account ?? "").spent, settle: constVoid }
  }

  /** Completes when a running call of the account ends, and at once if none runs any more. */
  ended(account: string | undefined, wake: Wake): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const { running, waiting } = this.of(account ?? "")
      if (running === 0) return resume(Effect.void)
      const goOn = (): void => wake(() => resume(Effect.void))
      waiting.add(goOn)
      return Effect.sync(() => waiting.delete(goOn))
    })
  }

  /** Learns what a response says about the windows of its account. `hold` is that of its call. */
  observe(account: string | undefined, { windows }: Signal, now: number, hold: WindowHold | undefined): void {
    if (windows === undefined) return
    const own = this.at(account, now)
    const spent = hold?.spent ?? own.spent
    const doubt = own.spent + own.held - spent
    for (const [name, signal] of Object.entries(windows)) {
      own.windows.set(name, Windows.observe(own.windows.get(name), signal, spent, doubt, now))
    }
  }

  /** Notes that a call of an account failed. `resetsAt` is when the spend limit that refused it is reset, if that is known. */
  failed(account: string | undefined, resetsAt: number | undefined): void {
    if (resetsAt !== undefined) Lru.put(this.spendLimits, account, resetsAt, maxAccounts)
  }

  /** Notes that a call of an account succeeded, so no spend limit refuses its calls any more. */
  succeeded(account: string | undefined): void {
    this.spendLimits.delete(account)
  }

  status(now: number): ReadonlyArray<WindowStatus> {
    const windows = this.all((account, { held, spent }, name, known): WindowStatus => {
      const window = Windows.at(known, spent, now)
      const { isRejected, resetsAt, size } = window
      return {
        account,
        name,
        used: Math.min(1, Windows.usedAt(window, spent + held)),
        share: this.shares[name]?.share,
        resetsAt: resetsAt < Infinity ? resetsAt : undefined,
        dollars: size === undefined ? undefined : size / perDollar,
        isRejected
      }
    })
    const spendLimits = Array.from(this.spendLimits)
      .filter(([, resetsAt]) => resetsAt > now)
      .map(([account, resetsAt]): WindowStatus => ({
        account,
        name: "spend limit",
        used: 1,
        share: undefined,
        resetsAt,
        dollars: undefined,
        isRejected: true
      }))
    return [...windows, ...spendLimits]
  }

  get learned(): ReadonlyArray<LearnedWindow> {
    return this.all((account, { spent }, name, window) => ({
      ...(account === undefined ? {} : { account }),
      name,
      used: Windows.usedAt(window, spent),
      // JSON has no infinite numbers. A window that has ended has ended after a restart, too.
      resetsAt: window.resetsAt < Infinity ? window.resetsAt : 0,
      ...(window.size === undefined ? {} : { dollars: window.size / perDollar })
    }))
  }

  private all<A>(
    of: (account: string | undefined, own: AccountWindows, name: string, window: Windows.LongWindow) => A
  ): ReadonlyArray<A> {
    return Array.from(this.accounts, ([account, own]) =>
      Array.from(own.windows, ([name, window]) => of(account === "" ? undefined : account, own, name, window))
    ).flat()
  }
}
