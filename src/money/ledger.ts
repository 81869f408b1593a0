/**
 * A running ledger: a line whose law is a cap in dollars, or of a job's tree in tokens or calls (`sharing/ledger.ts`).
 *
 * A call is refused if its reservation and what was already spent exceed the cap. It waits if only the reservations of running
 * calls are in the way, in its turn: fair by weight between agents, higher priorities first.
 */
import * as Clock from "effect/Clock"
import { Hold } from "../line/hold.ts"
import { type Law, Refused } from "../line/law.ts"
import { Line } from "../line/line.ts"
import { type CapInUnits, type Kept, perDollar, perUnit, type Unit } from "../domain/spending/ledger.ts"
import { ledgerOf, type Purse, type Status } from "../domain/spending/models.ts"
import * as Ledgers from "../sharing/ledger.ts"
import type { CapRefusal, CostAsked, LedgerState } from "../sharing/ledger.ts"
import { Looks, type Port, type PortOptions } from "../sharing/port.ts"
import { configure } from "../sharing/state.ts"
import * as Turns from "../sharing/turns.ts"
import type { CapTurn } from "./capLog.ts"
import { costIn, type Paying } from "./paying.ts"

/** The store of the ledger did not answer, or what is stored cannot be read. */
export interface LedgerLost {
  readonly _tag: "LedgerLost"
  readonly cause: unknown
}

/** The facts that the error of a refused call has. */
export interface DeniedCall {
  readonly model: string
  readonly maxTokens: number | undefined
  readonly expectedTokens: number | undefined
  /** Whether the tokens of its prompt are known. */
  readonly isCounted: boolean
  /** The tokens of the part of its prompt that was answered before. */
  readonly verifiedTokens: number | undefined
}

/** Makes the error of a call that the ledger of a purse refuses, or whose model has no price. */
export type Denial = (
  refusal: CapRefusal | LedgerLost | { readonly _tag: "NoPrice" },
  purse: string,
  call: DeniedCall
) => Error

/** The types of a ledger's line. An admitted call has reserved an amount. */
interface LedgerTerms {
  readonly state: LedgerState
  readonly ask: CostAsked
  readonly grant: { readonly amount: number }
  readonly refusal: CapRefusal | LedgerLost
}

/** A call in one ledger. */
export class LedgerHold extends Hold<LedgerTerms> {
  readonly ledger: RunningLedger

  constructor(ledger: RunningLedger, paying: Paying, ask: CostAsked) {
    super(paying, costIn(Math.min(ask.expected, ask.max) * (perDollar / perUnit[ledger.unit])), ask, paying.wake)
    this.ledger = ledger
  }
  /** Replaces what it has reserved by its cost, or spends all of it if the cost is unknown. If it waits, it leaves. */
  settle(cost: number | undefined, tokens?: number): void {
    this.ledger.settle(this, spentIn(this.ledger.unit, cost, tokens))
  }
}

/** The amount that a call has spent in a unit; undefined if it is unknown. A call without tokens was not made. */
const spentIn = (unit: Unit, cost: number | undefined, tokens: number | undefined): number | undefined => {
  if (unit === "dollars" || cost === undefined) return cost
  if (unit === "tokens") return tokens ?? 0
  return tokens === undefined ? 0 : 1
}

/** The cap, in the turns of the processes that share it. */
const law: Law<LedgerTerms, LedgerHold> = {
  expires: false,
  admit: (draft, id, { ask: asked, cost, priority }, weight, now) => {
    const answer = Ledgers.admit(draft, id, { asked, cost, priority }, weight, now)
    if (typeof answer === "number") return { amount: answer }
    return "by" in answer ? answer : new Refused(answer)
  },
  wait: (draft, id, head, weight) =>
    Turns.wait(
      draft,
      id,
      head && { priority: head.priority, charge: Ledgers.amountOf(draft.config, head.ask), weight }
    ),
  release: (draft, id, { amount }, now) => Ledgers.settle(draft, id, amount, 0, now)
}

/** How many waiting calls a status lists. */
const maxListed = 32

/** Reports a change of a cap. The pool is that of the call that found it. */
export type CapReporter = (event: Omit<CapTurn, "type" | "pool">) => void

/** The refusal since which a cap counts as reached. */
interface ReachedCap {
  readonly asked: number
  readonly report: CapReporter | undefined
}

/** How many ledgers there were in this process. */
let made = 0

export interface LedgerOptions {
  readonly name: string
  /** Its place in the order in which calls take ledgers. */
  readonly key: string
  readonly open: (called: Pick<PortOptions, "configured" | "unreachable">) => Port<LedgerState>
  /** The `kept` of an earlier process, if the port does not start with it. */
  readonly kept?: Kept | undefined
  /** Called after each change. */
  readonly changed: (() => void) | undefined
  /** @default "dollars" */
  readonly unit?: Unit | undefined
  readonly denial: Denial
  /** Whether it reports when its cap is reached, and open again. @default true */
  readonly reports?: boolean | undefined
}

/** Whether calls are refused because the cap of a purse is spent, as far as is known without asking its store. */
export const isReached = (purse: Purse): boolean => ledgerOf<RunningLedger>(purse).isReached

/** Whether a purse reserves the most that a call can cost, and refuses the call if that is more than is left. */
export const reservesMost = (purse: Purse): boolean => {
  const { cap, isCapped, unit } = ledgerOf<RunningLedger>(purse)
  return isCapped && cap.reserve === "most" && unit !== "calls"
}

export class RunningLedger {
  readonly name: string
  readonly key: string
  readonly unit: Unit
  readonly denial: Denial
  readonly reports: boolean
  /** Tells ledgers of one key apart. */
  readonly serial = made++
  readonly port: Port<LedgerState>
  /** The clock of the latest caller, which a ledger of this process goes by. */
  clock: Clock.Clock = Clock.Clock.defaultValue()
  /** Reports for the latest caller that the cap is reached, and that it is no longer. */
  report: CapReporter | undefined = undefined
  private reached: ReachedCap | undefined = undefined
  private readonly changed: (() => void) | undefined
  private readonly line: Line<LedgerTerms, LedgerHold>
  private readonly looks = new Looks()
  /** The number of calls to models without a price. */
  unpriced = 0

  constructor({ changed, denial, kept, key, name, open, reports = true, unit = "dollars" }: LedgerOptions) {
    this.name = name
    this.key = key
    this.unit = unit
    this.denial = denial
    this.reports = reports
    this.changed = changed
    this.port = open({
      configured: () => void this.line.decide(),
      unreachable: (cause) => this.line.clear({ _tag: "LedgerLost", cause })
    })
    const granted = (): void => {
      this.review()
      this.changed?.()
    }
    this.line = new Line(this.port, law, { granted, refused: (hold) => this.refused(hold) })
    if (kept !== undefined) this.port.transact((draft) => Ledgers.adoptKept(draft, this.port.id, kept))
  }

  get cap(): CapInUnits {
    return this.port.state.config
  }
  get isCapped(): boolean {
    return this.cap.limit < Infinity
  }
  /** The amount spent in all, in its unit. */
  get total(): number {
    return Ledgers.accountOf(this.port.state).total / perUnit[this.unit]
  }
  get kept(): Kept {
    return Ledgers.accountOf(this.port.state)
  }

  // ---------------------------------------------------------------------------
  // Calls
  // ---------------------------------------------------------------------------

  /** The refusal of a call, if it is known. With a store, only a decision knows. */
  refusal(ask: CostAsked): CapRefusal | undefined {
    const { lag, state } = this.port
    const refusal = lag === 0 && this.isCapped ? Ledgers.refusalOf(state, ask, this.port.now()) : undefined
    if (refusal !== undefined) this.reach(refusal)
    return refusal
  }

  /** Reserves at once, refuses, or queues a call. */
  take(paying: Paying, ask: CostAsked): LedgerHold {
    const hold = new LedgerHold(this, paying, ask)
    if (this.isCapped) return this.line.ask(hold)
    const amount = Ledgers.amountOf(this.cap, ask)
    this.port.transact((draft) => Ledgers.hold(draft, this.port.id, amount))
    this.line.pass(hold, { amount })
    return hold
  }

  /** Ends a call. Only the first end counts. */
  settle(hold: LedgerHold, cost: number | undefined): void {
    const isEnded = this.line.settle(hold, (draft, id, now) => {
      const { amount } = hold.grant!
      Ledgers.settle(draft, id, amount, cost ?? amount, now)
      return amount === 0 ? 1 : (cost ?? amount) / amount
    })
    if (isEnded) this.changed?.()
  }

  private refused({ refusal }: LedgerHold): void {
    if (refusal?._tag === "CapRefusal") this.reach(refusal)
  }

  /**
   * Notes that what is left of the cap is too little for calls. One that is larger than the whole cap, or that only the part of a
   * process has no room for, says nothing of the kind.
   */
  private reach({ asked, cap, isAlone, until }: CapRefusal): void {
    if (this.reached !== undefined || isAlone || asked > cap.limit) return
    this.reached = { asked, report: this.report }
    this.tell(this.reached, until)
  }

  /** Notes that a call of the cost that was refused fits again, because the period has ended, or an operator has changed the cap. */
  review(): void {
    const { port, reached } = this
    if (reached === undefined) return
    const left = port.state.config.limit - Ledgers.spent(port.state, port.now())
    if (left < reached.asked) return
    this.reached = undefined
    this.tell(reached, undefined)
  }

  private tell({ report }: ReachedCap, until: number | undefined): void {
    const { left, limit, spent } = Ledgers.statusOf(this.port.state, this.port.now(), perUnit[this.unit])
    const at = this.clock.currentTimeMillisUnsafe()
    report?.({
      at,
      cap: this.name,
      isReached: this.reached !== undefined,
      spent,
      left: left ?? 0,
      limit: limit ?? 0,
      until
    })
  }

  /** Whether calls are refused because the cap is spent. */
  get isReached(): boolean {
    return this.reached !== undefined
  }

  /** The refusal of a call that has waited for reserved money as long as it may. */
  lateRefusal(ask: CostAsked): CapRefusal {
    return Ledgers.refusalAt(this.port.state, ask, undefined, this.port.now())
  }

  // ---------------------------------------------------------------------------
  // Operators
  // ---------------------------------------------------------------------------

  /** Changes the cap, and lets waiting calls go that fit now. */
  resize(cap: CapInUnits): void {
    this.port.transact((draft) => configure(draft, cap))
    this.line.decide()
    this.review()
  }

  /** Forgets what was spent in the period. */
  reset(): void {
    this.port.transact((draft) => Ledgers.reset(draft))
    this.line.decide()
    this.review()
    this.changed?.()
  }

  /** As of the last exchange with the store. If that is long ago, another one follows. */
  get status(): Status {
    const { port, unit, unpriced } = this
    this.looks.look(port)
    this.review()
    const { isReached, line, waiting } = this
    return {
      ...Ledgers.statusOf(port.state, port.now(), perUnit[unit]),
      isReached,
      queued: line.queue.size,
      waiting,
      unpriced
    }
  }

  /** The first calls that wait, in the order of service. */
  private get waiting(): Status["waiting"] {
    const now = this.port.now()
    const listed: Array<Status["waiting"][number]> = []
    for (const { agent, ask, since } of this.line.queue.inOrder()) {
      if (listed.length === maxListed) break
      listed.push({
        agent,
        dollars: Ledgers.amountOf(this.cap, ask) / perDollar,
        waitedMillis: Math.max(0, now - since)
      })
    }
    return listed
  }
}
