/**
 * The long windows of accounts: what is known of them, and for each account a line whose law is the shares that are kept. A spend limit
 * that is used up is listed with them in the status, but refuses no calls here, because it may be raised at any time.
 */
import type * as Clock from "effect/Clock"
import type { Wake } from "../line/waker.ts"
import * as Lru from "../domain/input/lru.ts"
import type { Signal } from "../domain/signal.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import * as Windows from "../domain/spending/windows.ts"
import { AccountWindows, type OpenWindows, type Shares, sumsOf, type WindowHold, type WindowsState } from "./account.ts"
import { type AfterMillis, Parking } from "./parking.ts"

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
  /** The cost of the whole window in dollars, as far as it was learned. */
  readonly dollars: number | undefined
  /** Whether the provider rejects calls until its end. */
  readonly isRejected: boolean
  /**
   * The calls of its account that took the slower lane (`slowLane`) since the governor began, and what they have cost. They are no part
   * of `used`.
   *
   * @since 0.5.0
   */
  readonly slowLane: { readonly calls: number; readonly dollars: number }
  /**
   * Parts of the names of the models that it concerns; undefined for all models.
   *
   * @since 0.5.0
   */
  readonly models: ReadonlyArray<string> | undefined
}

/** The learned facts about a window. */
export interface LearnedWindow {
  readonly account?: string | undefined
  readonly name: string
  readonly used: number
  readonly resetsAt: number
  /** The cost of the whole window in dollars. */
  readonly dollars?: number | undefined
  /** Parts of the names of the models that it concerns. @default all models */
  readonly models?: ReadonlyArray<string> | undefined
}

/** A share is missed once so many responses have told windows without its own. */
const sureOfWindows = 10
/** Keys come with requests, so their number is bounded. */
const maxAccounts = 1_000
export class LongWindows {
  private readonly now: () => number
  private readonly shares: Shares
  /** Whether calls have to ask. */
  readonly isLimiting: boolean
  private readonly warn: (message: string) => void
  private readonly triesEvery: number
  private readonly open: ((account: string) => OpenWindows) | undefined
  readonly parking: Parking
  /** The windows that have a share, and that no response has told yet; none once they were missed. */
  private readonly unseen: Set<string>
  private responses = 0
  private readonly accounts = new Lru.Registry<string, AccountWindows>(({ isIdle }) => isIdle)
  /**
   * The time when the spend limit of an account is reset, if it has refused the account's last call. Every call that succeeds looks
   * whether there is any, before it calls `succeeded`.
   */
  readonly spendLimits = new Map<string | undefined, number>()

  constructor(
    clock: Clock.Clock,
    {
      after,
      learned = [],
      open,
      shares = {},
      triesEvery,
      wake,
      warn
    }: {
      readonly shares: Shares | undefined
      readonly learned: ReadonlyArray<LearnedWindow> | undefined
      /** The time between two calls that try a spent window. */
      readonly triesEvery: number
      readonly after: AfterMillis
      /** Opens what processes share of an account; undefined if they share nothing. */
      readonly open?: ((account: string) => OpenWindows) | undefined
      readonly wake: Wake
      readonly warn: (message: string) => void
    }
  ) {
    this.now = () => clock.currentTimeMillisUnsafe()
    this.parking = new Parking(this.now, after, wake)
    this.warn = warn
    this.triesEvery = triesEvery
    this.open = open
    this.shares = Object.fromEntries(
      Object.entries(shares).map(([name, share]) => [Windows.parseName(name)?.name ?? name, share])
    )
    this.isLimiting = Object.keys(shares).length > 0
    this.unseen = new Set(Object.keys(this.shares))
    for (const { account, dollars, models, name, resetsAt, used } of learned) {
      const size = dollars === undefined ? undefined : dollars * perDollar
      const window = Windows.begun({ used, resetsAt }, 0, size, models)
      this.of(account).port.transact(({ windows }) => windows.set(name, window))
    }
  }

  /** The windows of an account. */
  of(account = ""): AccountWindows {
    return Lru.useOrMake(this.accounts, account, maxAccounts, () => {
      const open = this.isLimiting ? this.open?.(account) : undefined
      return new AccountWindows(this.shares, this.triesEvery, this.now, this.parking, open)
    })
  }

  /** Learns what a response to a call of a model says about the windows of its account. `hold` is that of its call. */
  observe(account: string | undefined, { windows }: Signal, hold: WindowHold | undefined, model: string): void {
    if (windows === undefined) return
    const own = this.of(account)
    own.observe(windows, hold, model)
    if (this.unseen.size > 0) this.miss(windows, own)
  }

  /** Warns once of shares of windows that no response tells. */
  private miss(told: NonNullable<Signal["windows"]>, { now }: AccountWindows): void {
    const { unseen } = this
    for (const name of Object.keys(told)) unseen.delete(name)
    if (++this.responses < sureOfWindows || unseen.size === 0) return
    const names = (all: Iterable<string>): string => Array.from(all, (name) => `"${name}"`).join(", ")
    this.warn(
      `No response has told of the ${unseen.size === 1 ? "window" : "windows"} ${names(unseen)}, so the share that is stated has no effect: this account has ${names(now.windows.keys())} (this is logged once)`
    )
    unseen.clear()
  }

  /** Notes that a call of an account failed. `resetsAt` is when the spend limit that refused it is reset, if that is known. */
  failed(account: string | undefined, resetsAt: number | undefined): void {
    if (resetsAt !== undefined) Lru.put(this.spendLimits, account, resetsAt, maxAccounts)
  }

  /** Notes that a call of an account succeeded, so no spend limit refuses its calls any more. */
  succeeded(account: string | undefined): void {
    this.spendLimits.delete(account)
  }

  get status(): ReadonlyArray<WindowStatus> {
    const now = this.now()
    const windows = this.all((account, state, name, window): WindowStatus => {
      const { slowCalls, slowSpent } = state
      const { held, spent } = sumsOf(state, name)
      const { isRejected, resetsAt, size } = window
      return {
        account,
        name,
        used: Math.min(1, Windows.usedAt(window, spent + held)),
        share: this.shares[name]?.share,
        resetsAt: resetsAt < Infinity ? resetsAt : undefined,
        dollars: size === undefined ? undefined : size / perDollar,
        isRejected,
        slowLane: { calls: slowCalls, dollars: slowSpent / perDollar },
        models: window.models
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
        isRejected: true,
        slowLane: { calls: 0, dollars: 0 },
        models: undefined
      }))
    return [...windows, ...spendLimits]
  }

  get learned(): ReadonlyArray<LearnedWindow> {
    return this.all((account, state, name, window) => ({
      ...(account === undefined ? {} : { account }),
      name,
      used: Math.min(1, Windows.usedAt(window, sumsOf(state, name).spent)),
      // JSON has no infinite numbers. A window that has ended has ended after a restart, too.
      resetsAt: window.resetsAt < Infinity ? window.resetsAt : 0,
      ...(window.size === undefined ? {} : { dollars: window.size / perDollar }),
      ...(window.models === undefined ? {} : { models: window.models })
    }))
  }

  private all<A>(
    of: (account: string | undefined, state: WindowsState, name: string, window: Windows.LongWindow) => A
  ): ReadonlyArray<A> {
    return Array.from(this.accounts, ([account, { now: state }]) =>
      Array.from(state.windows, ([name, window]) => of(account === "" ? undefined : account, state, name, window))
    ).flat()
  }
}
