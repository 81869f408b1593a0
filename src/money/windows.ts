/**
 * The long windows of accounts: what is known of them, and for each account a line whose law is the shares that are kept. A spend limit
 * that is used up is listed with them in the status, but refuses no calls here, because it may be raised at any time.
 */
import type * as Clock from "effect/Clock"
import { constVoid } from "effect/Function"
import type { Blocked } from "../admission/blocked.ts"
import { Hold } from "../line/hold.ts"
import { type Law, Refused } from "../line/law.ts"
import { Line } from "../line/line.ts"
import type { Wake } from "../line/waker.ts"
import { LocalPort } from "../sharing/local.ts"
import * as Lru from "../domain/input/lru.ts"
import type { Signal } from "../domain/signal.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import * as Windows from "../domain/spending/windows.ts"
import { type AfterMillis, Parking } from "./parking.ts"
import { costIn, type Paying } from "./paying.ts"

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

/** A window has no room for a call, and no end of another call gives it any. */
export interface WindowRefusal {
  readonly window: string
  readonly used: number
  readonly share: number
  readonly until: number | undefined
  /** When a call may try whether the window is open all the same; undefined if only a share of it is used. */
  readonly triesAt: number | undefined
}

/** The windows of an account: what its running calls are expected to cost, what all calls have cost so far, and what is known. */
interface WindowsState {
  running: number
  held: number
  spent: number
  /** The calls of the slower lane that have ended, and what they have cost. */
  slowCalls: number
  slowSpent: number
  /** Whether it is known whether there are windows. */
  isHeard: boolean
  /** When the next call may try a spent window. */
  triesAt: number
  readonly windows: Map<string, Windows.LongWindow>
  /** By the names of windows of some models: the part of calls that they do not concern. */
  readonly apart: Map<string, AccountSums>
}

/** The number of running calls, what they are expected to cost, and what all calls have cost. */
interface AccountSums {
  readonly running: number
  readonly held: number
  readonly spent: number
}

const nothing: AccountSums = { running: 0, held: 0, spent: 0 }
const none = { ...nothing, slowCalls: 0, slowSpent: 0, triesAt: 0 }

const copy = (state: WindowsState): WindowsState => ({
  ...state,
  windows: new Map(state.windows),
  apart: new Map(state.apart)
})

/** The calls that a window concerns. */
const sumsOf = ({ apart, held, running, spent }: WindowsState, name: string): AccountSums => {
  const others = apart.get(name)
  if (others === undefined) return { running, held, spent }
  const own = running - others.running
  return { running: own, held: own === 0 ? 0 : Math.max(0, held - others.held), spent: spent - others.spent }
}

/** Adds to the calls that some windows do not concern. */
const addApart = ({ apart }: WindowsState, names: ReadonlyArray<string>, more: AccountSums): void => {
  for (const name of names) {
    const { held, running, spent } = apart.get(name) ?? nothing
    apart.set(name, { running: running + more.running, held: held + more.held, spent: spent + more.spent })
  }
}

/** The part of what had been spent at a call's admission that a window concerns; undefined if the call has no grant. */
const spentAt = (grant: WindowTerms["grant"] | undefined, name: string): number | undefined =>
  grant && grant.spent - (grant.apart?.get(name)?.spent ?? 0)

/** The types of an account's line. A call asks for what it is expected to cost; undefined if it does not count towards the windows. */
interface WindowTerms {
  readonly state: WindowsState
  readonly ask: number | undefined
  readonly grant: {
    /** The amount that had been spent when it was admitted, and the part of it by windows of other models. */
    readonly spent: number
    readonly apart?: WindowsState["apart"] | undefined
    readonly cost: number
    /** The windows that do not concern it. */
    readonly beside: ReadonlyArray<string>
    /** Whether it tries a window that is spent. */
    readonly tries: boolean
  }
  readonly refusal: WindowRefusal
}

/** A call within the windows of its account. */
export class WindowHold extends Hold<WindowTerms> {
  readonly account: AccountWindows
  readonly model: string

  constructor(account: AccountWindows, paying: Paying, ask: number | undefined, model: string) {
    super(paying, costIn(ask ?? 0), ask, paying.wake)
    this.account = account
    this.model = model
  }
  /** Whether it would be refused now because a window is spent, which it may not try. */
  isClosed(now: number): boolean {
    return this.ask !== undefined && this.account.isClosed(this.model, this.priority, now)
  }
  /** Replaces what the call was expected to cost by what it has cost. If it waits, it leaves. */
  settle(cost: number | undefined): void {
    this.account.settle(this, cost)
  }
}

/** The windows of one account, and the calls that run and wait within them. */
class AccountWindows {
  readonly port: LocalPort<WindowsState>
  private readonly shares: Shares
  private readonly triesEvery: number
  private readonly line: Line<WindowTerms, WindowHold>
  private readonly parking: Parking

  constructor(shares: Shares, triesEvery: number, now: () => number, parking: Parking) {
    this.shares = shares
    this.triesEvery = triesEvery
    this.parking = parking
    this.port = LocalPort.untimed(
      copy,
      { ...none, isHeard: Object.keys(shares).length === 0, windows: new Map(), apart: new Map() },
      now
    )
    const law: Law<WindowTerms, WindowHold> = {
      expires: false,
      admit: (draft, _id, hold, _weight, now) => this.admit(draft, hold, now),
      wait: constVoid,
      release: (draft, _id, grant) => close(draft, grant)
    }
    this.line = new Line(this.port, law, { granted: constVoid })
  }

  /** Whether no call runs. Then none waits either, because only what running calls hold lets one wait. */
  get isIdle(): boolean {
    return this.port.state.running === 0
  }

  /** When the next call may try a spent window. */
  get triesAt(): number {
    return this.port.state.triesAt
  }

  /** Whether a call is refused because a window is spent. */
  isClosed(model: string, priority: number, now: number): boolean {
    const { triesAt, windows } = this.now
    const isShared = (name: string): boolean => priority < interactive && this.shares[name] !== undefined
    return (
      triesAt > now &&
      Array.from(windows).some(
        ([name, each]) =>
          Windows.concerns(each, model) && (each.isRejected || (Windows.isSpent(each) && isShared(name)))
      )
    )
  }

  /** The windows as they are now. */
  get now(): WindowsState {
    return this.port.transact(tidy)
  }

  /** Reserves what a call may cost, refuses it, or queues it. One that does not count waits behind nobody. */
  take(paying: Paying, ask: number | undefined, model: string): WindowHold {
    const hold = new WindowHold(this, paying, ask, model)
    if (ask !== undefined) return this.line.ask(hold)
    const grant = this.port.transact((draft) => {
      draft.running++
      return { spent: draft.spent, cost: 0, beside: [], tries: false }
    })
    this.line.pass(hold, grant)
    return hold
  }

  settle(hold: WindowHold, actual: number | undefined): void {
    let hasOpened = false
    this.line.settle(hold, (draft, _, now) => {
      const { beside, cost, tries } = hold.grant!
      close(draft, hold.grant!)
      if (hold.ask === undefined) {
        draft.slowCalls++
        draft.slowSpent += actual ?? 0
        return 1
      }
      // A call that failed has cost nothing, and its provider may not have said anything.
      if (actual !== 0 || cost === 0) draft.isHeard = true
      tidy(draft, now).spent += actual ?? cost
      addApart(draft, beside, { ...nothing, spent: actual ?? cost })
      // Answers that are paid for beside the window may not tell of it.
      if (tries && actual !== undefined && actual > 0) hasOpened = accept(draft, hold.model)
      return cost === 0 ? 1 : (actual ?? cost) / cost
    })
    if (hasOpened) this.parking.opened(this)
  }

  /** Learns what a response to a call of a model says. `hold` is that of its call. */
  observe(signals: NonNullable<Signal["windows"]>, hold: WindowHold | undefined, model: string): void {
    const hasOpened = this.port.transact((draft, now) => {
      const { windows } = tidy(draft, now)
      let hasOpened = false
      draft.isHeard = true
      for (const [name, signal] of Object.entries(signals)) {
        const known = windows.get(name)
        if (known === undefined && windows.size >= maxWindows) continue
        const own = sumsOf(draft, name)
        const spent = spentAt(hold?.grant, name) ?? own.spent
        const window = Windows.observe(known, signal, spent, own.spent + own.held - spent, now, model)
        windows.set(name, window)
        const wasSpent = known !== undefined && Windows.isSpent(known)
        // A try may have waited for so long in its pool that the next one is due.
        const isNews = !wasSpent || (draft.triesAt > 0 && draft.triesAt <= now)
        if (isNews && Windows.isSpent(window)) draft.triesAt = now + this.triesEvery
        hasOpened ||= known !== undefined && Windows.hasOpened(known, window)
      }
      return hasOpened
    })
    this.line.decide()
    if (hasOpened) this.parking.opened(this)
  }

  private admit(
    draft: WindowsState,
    hold: WindowHold,
    now: number
  ): WindowTerms["grant"] | Blocked | Refused<WindowRefusal> {
    const { apart, isHeard, running, spent, windows } = tidy(draft, now)
    const { model, priority } = hold
    const cost = hold.ask!
    const isInteractive = priority >= interactive
    if (!isHeard && windows.size === 0 && !isInteractive && running >= few) return untilOneEnds
    let tries = false
    const beside: Array<string> = []
    for (const [name, window] of windows) {
      if (!Windows.concerns(window, model)) {
        beside.push(name)
        continue
      }
      const sums = sumsOf(draft, name)
      // Only the provider refuses interactive calls.
      const share = isInteractive ? Infinity : (this.shares[name]?.share ?? Infinity)
      if (!window.isRejected && fits(window, cost, share, sums)) continue
      if (Windows.isSpent(window) && now >= draft.triesAt) tries = true
      else if (!window.isRejected && fits(window, cost, share, { ...sums, held: 0 })) return untilOneEnds
      else return new Refused(refusal(name, window, cost, share, sums.spent, draft.triesAt))
    }
    if (tries) draft.triesAt = now + this.triesEvery
    draft.running++
    draft.held += cost
    addApart(draft, beside, { running: 1, held: cost, spent: 0 })
    return { spent, apart: apart.size === 0 ? undefined : new Map(apart), cost, beside, tries }
  }
}

/** A call waits until a running one ends. */
const untilOneEnds: Blocked = { by: "concurrency", millis: Infinity }

/**
 * Whether a call fits into a share of a window beside calls that hold so much. While little has told how large the window is, a few calls run
 * at a time, and only one once half of the share is used. What calls without a price use is not known.
 */
const fits = (
  window: Windows.LongWindow,
  cost: number,
  share: number,
  { held, running, spent }: AccountSums
): boolean => {
  if (share === Infinity) return true
  const { base, size } = window
  const used = Windows.usedAt(window, spent + held)
  if (size === undefined ? base >= share : used + cost / size > share) return false
  if (held === 0) return true
  return Windows.expectedAt(window, spent, held + cost) <= share || running < (base < share / 2 ? few : 1)
}

const refusal = (
  window: string,
  known: Windows.LongWindow,
  cost: number,
  share: number,
  spent: number,
  triesAt: number
): WindowRefusal => {
  const { isRejected, resetsAt, size } = known
  // A call that is larger than the share does not fit after the reset either.
  const fitsLater = isRejected || size === undefined || cost / size <= share
  return {
    window,
    used: Math.min(1, Windows.usedAt(known, spent)),
    share: isRejected ? 1 : share,
    until: fitsLater && resetsAt < Infinity ? resetsAt : undefined,
    triesAt: Windows.isSpent(known) ? triesAt : undefined
  }
}

/** Ends what has ended of the windows by now. */
const tidy = (draft: WindowsState, now: number): WindowsState => {
  for (const [name, window] of draft.windows) {
    draft.windows.set(name, Windows.at(window, sumsOf(draft, name).spent, now))
  }
  return draft
}

/** Notes that the provider accepts calls of a model. Returns whether it rejected them before. */
const accept = ({ windows }: WindowsState, model: string): boolean => {
  let hasOpened = false
  for (const [name, window] of windows) {
    if (!window.isRejected || !Windows.concerns(window, model)) continue
    windows.set(name, { ...window, isRejected: false })
    hasOpened = true
  }
  return hasOpened
}

/** A call no longer runs. */
const close = (draft: WindowsState, { beside, cost }: WindowTerms["grant"]): void => {
  // Rounded sums of costs do not return to 0 by themselves.
  draft.held = --draft.running === 0 ? 0 : Math.max(0, draft.held - cost)
  addApart(draft, beside, { running: -1, held: -cost, spent: 0 })
}

/** More windows than an account has. */
const maxWindows = 32
/** A share is missed once so many responses have told windows without its own. */
const sureOfWindows = 10
/** Keys come with requests, so their number is bounded. */
const maxAccounts = 1_000
/** So many calls run at a time while the size of a window is unknown. */
const few = 3
/** Calls of this priority are interactive, as those of the gateway's class are. */
export const interactive = 1

export class LongWindows {
  private readonly now: () => number
  private readonly shares: Shares
  /** Whether calls have to ask. */
  readonly isLimiting: boolean
  private readonly warn: (message: string) => void
  private readonly triesEvery: number
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
      readonly wake: Wake
      readonly warn: (message: string) => void
    }
  ) {
    this.now = () => clock.currentTimeMillisUnsafe()
    this.parking = new Parking(this.now, after, wake)
    this.warn = warn
    this.triesEvery = triesEvery
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
    return Lru.useOrMake(
      this.accounts,
      account,
      maxAccounts,
      () => new AccountWindows(this.shares, this.triesEvery, this.now, this.parking)
    )
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
