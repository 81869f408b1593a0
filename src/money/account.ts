/**
 * The long windows of one account: what is known of them, and the line whose law is the shares that are kept. Where processes share a
 * store, each tells the others what it hears, and takes over what they have heard (`sharing/windows.ts`).
 */
import { constVoid } from "effect/Function"
import type { Blocked } from "../admission/blocked.ts"
import type { Signal, WindowSignal } from "../domain/signal.ts"
import * as Windows from "../domain/spending/windows.ts"
import { Hold } from "../line/hold.ts"
import { type Law, Refused } from "../line/law.ts"
import { Line } from "../line/line.ts"
import { LocalPort } from "../sharing/local.ts"
import type { OpenedWindows, WindowsElsewhere, WindowsHere, WindowsOptions } from "../sharing/toldWindows.ts"
import type { Parking } from "./parking.ts"
import { costIn, type Paying } from "./paying.ts"

/** The share of each window for calls that are not interactive. */
export type Shares = Readonly<Record<string, { readonly share: number }>>

/** Opens the record that processes share of an account. */
export type OpenWindows = (options: Omit<WindowsOptions, "account">) => OpenedWindows

/** So many calls run at a time while the size of a window is unknown. */
const few = 3
/** Calls of this priority are interactive, as those of the gateway's class are. */
export const interactive = 1

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
export interface WindowsState {
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
  /** By the names of windows: the part of calls that they do not concern, less what other processes have spent of them. */
  readonly apart: Map<string, AccountSums>
  /** How many processes use the account, as far as is known: each may use its part of what is left at a time. */
  processes: number
  /** The amount that had been spent when they were heard last. They are taken to have spent as much since then as this one has. */
  heardAt: number
}

/** The number of running calls, what they are expected to cost, and what all calls have cost. */
interface AccountSums {
  readonly running: number
  readonly held: number
  readonly spent: number
}

const nothing: AccountSums = { running: 0, held: 0, spent: 0 }
const none = { ...nothing, slowCalls: 0, slowSpent: 0, triesAt: 0, processes: 1, heardAt: 0 }

const copy = (state: WindowsState): WindowsState => ({
  ...state,
  windows: new Map(state.windows),
  apart: new Map(state.apart)
})

/** The calls that a window concerns. */
export const sumsOf = ({ apart, held, running, spent }: WindowsState, name: string): AccountSums => {
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

/** A response about a window: how much had been spent before, and how much else may be counted in it. */
interface ToldOf {
  readonly signal: WindowSignal
  readonly spent: number
  readonly doubt: number
  readonly model: string
}

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
export class AccountWindows {
  readonly port: LocalPort<WindowsState>
  private readonly shares: Shares
  private readonly triesEvery: number
  private readonly line: Line<WindowTerms, WindowHold>
  private readonly parking: Parking
  private shared: OpenedWindows | undefined
  /** The amount that had been spent at the last exchange with other processes. */
  private before = 0
  /** By window: what other processes have spent of it, as far as was heard. */
  private readonly elsewhere = new Map<string, number>()

  constructor(shares: Shares, triesEvery: number, now: () => number, parking: Parking, open: OpenWindows | undefined) {
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
    this.shared = open?.({
      here: () => this.here,
      adopt: (found) => this.adopt(found),
      exchanged: (spent) => this.exchanged(spent)
    })
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
    if (ask !== undefined) {
      this.shared?.changed()
      return this.line.ask(hold)
    }
    const grant = this.port.transact((draft) => {
      draft.running++
      return { spent: draft.spent, cost: 0, beside: [], tries: false }
    })
    this.line.pass(hold, grant)
    return hold
  }

  settle(hold: WindowHold, actual: number | undefined): void {
    let opened: ReadonlyArray<string> = []
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
      if (tries && actual !== undefined && actual > 0) opened = accept(draft, hold.model)
      return cost === 0 ? 1 : (actual ?? cost) / cost
    })
    this.shared?.changed()
    for (const name of opened) this.shared?.told(name)
    if (opened.length > 0) this.parking.opened(this)
  }

  /** Learns what a response to a call of a model says. `hold` is that of its call. */
  observe(signals: NonNullable<Signal["windows"]>, hold: WindowHold | undefined, model: string): void {
    const hasOpened = this.port.transact((draft, now) => {
      tidy(draft, now).isHeard = true
      let hasOpened = false
      for (const [name, signal] of Object.entries(signals)) {
        const { held, spent } = sumsOf(draft, name)
        const then = spentAt(hold?.grant, name) ?? spent
        const doubt = spent + held * draft.processes - then
        if (this.learn(draft, name, { signal, spent: then, doubt, model }, now)) hasOpened = true
      }
      return hasOpened
    })
    for (const name of Object.keys(signals)) this.shared?.told(name)
    this.line.decide()
    if (hasOpened) this.parking.opened(this)
  }

  /** Learns what was told of a window. Returns whether it has more room than it was known to have. */
  private learn(draft: WindowsState, name: string, told: ToldOf, now: number): boolean {
    const { windows } = draft
    const known = windows.get(name)
    if (known === undefined && windows.size >= maxWindows) return false
    const window = Windows.observe(known, told.signal, told.spent, told.doubt, now, told.model)
    windows.set(name, window)
    const wasSpent = known !== undefined && Windows.isSpent(known)
    // A try may have waited for so long in its pool that the next one is due.
    const isNews = !wasSpent || (draft.triesAt > 0 && draft.triesAt <= now)
    if (isNews && Windows.isSpent(window)) draft.triesAt = now + this.triesEvery
    return known !== undefined && Windows.hasOpened(known, window)
  }

  // ---------------------------------------------------------------------------
  // Other processes
  // ---------------------------------------------------------------------------

  /** The facts that other processes may hear. */
  private get here(): WindowsHere {
    const { now } = this
    const windows = Array.from(now.windows, ([name, window]) => {
      const { isRejected, models, resetsAt, size } = window
      const { spent } = sumsOf(now, name)
      const used = Math.max(0, Windows.usedAt(window, spent))
      const own = spent - (this.elsewhere.get(name) ?? 0)
      return [name, { used, resetsAt, isRejected, size, models, spent: own }] as const
    })
    const isSpent = windows.some(([, { isRejected, used }]) => isRejected || used >= 1)
    const isBusy = now.running > 0 || (isSpent && this.parking.waitsFor(this))
    return { windows: new Map(windows), triesAt: now.triesAt, spent: now.spent, isBusy }
  }

  /** Notes an exchange: the spending before the previous one has reached all others by now, and theirs has reached this process. */
  private exchanged(spent: number): void {
    const { before } = this
    this.before = spent
    this.port.transact((draft) => void (draft.heardAt = before))
    this.line.decide()
  }

  /** Takes over what other processes have added. */
  private adopt({ processes, sizes, spent, told, triesAt }: WindowsElsewhere): void {
    const hasOpened = this.port.transact((draft, now) => {
      const { windows } = tidy(draft, now)
      draft.processes = processes
      for (const [name, amount] of spent) {
        if (!windows.has(name)) continue
        addApart(draft, [name], { ...nothing, spent: -amount })
        this.elsewhere.set(name, (this.elsewhere.get(name) ?? 0) + amount)
      }
      let hasOpened = false
      for (const [name, signal] of told) {
        draft.isHeard = true
        // Nothing here says what it has cost to move the fraction.
        const known = { signal, spent: sumsOf(draft, name).spent, doubt: Infinity, model: "" }
        if (this.learn(draft, name, known, now)) hasOpened = true
      }
      for (const [name, size] of sizes) {
        const window = windows.get(name)
        if (window !== undefined) windows.set(name, { ...window, size })
      }
      draft.triesAt = Math.max(draft.triesAt, triesAt)
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
    const isUnknown = windows.size === 0 ? !isHeard : this.shared?.isCurrent === false
    if (isUnknown && !isInteractive && running >= few) return untilOneEnds
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
      if (!window.isRejected && fits(window, cost, share, sums, draft)) continue
      if (Windows.isSpent(window) && now >= draft.triesAt) tries = true
      else if (!window.isRejected && fits(window, cost, share, { ...sums, held: 0 }, draft)) return untilOneEnds
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
 * at a time, and only one once half of the share is used. What calls without a price use is not known. Each of several processes may
 * have its part of what is left at a time.
 */
const fits = (
  window: Windows.LongWindow,
  cost: number,
  share: number,
  { held, running, spent }: AccountSums,
  { heardAt, processes, spent: total }: WindowsState
): boolean => {
  if (share === Infinity) return true
  const { base, size } = window
  const used = Windows.usedAt(window, spent + held)
  if (size === undefined ? base >= share : used + cost / size > share) return false
  if (held === 0) return true
  const more = (held + cost) * processes + (total - heardAt) * (processes - 1)
  return Windows.expectedAt(window, spent, more) <= share || running < (base < share / 2 ? few : 1)
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

/** Notes that the provider accepts calls of a model. Returns the windows for which it rejected them before. */
const accept = ({ windows }: WindowsState, model: string): ReadonlyArray<string> => {
  const opened: Array<string> = []
  for (const [name, window] of windows) {
    if (!window.isRejected || !Windows.concerns(window, model)) continue
    windows.set(name, { ...window, isRejected: false })
    opened.push(name)
  }
  return opened
}

/** A call no longer runs. */
const close = (draft: WindowsState, { beside, cost }: WindowTerms["grant"]): void => {
  // Rounded sums of costs do not return to 0 by themselves.
  draft.held = --draft.running === 0 ? 0 : Math.max(0, draft.held - cost)
  addApart(draft, beside, { running: -1, held: -cost, spent: 0 })
}

/** More windows than an account has. */
const maxWindows = 32
