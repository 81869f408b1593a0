/**
 * A running ledger: the queue of the calls that pay from it, and the port to its state. It is a pool whose calls ask for dollars,
 * so it has a pool's queue and a pool's port, and a law of its own (`sharing/ledger.ts`).
 *
 * A call is refused if its reservation and what was already spent exceed the cap. It waits if only the reservations of running
 * calls are in the way, in its turn: fair by weight between agents, higher priorities first.
 */
import * as Clock from "effect/Clock"
import { FairQueue, Queued } from "../admission/fairQueue.ts"
import type { Wake } from "../budget/waker.ts"
import { type CapInUnits, type Kept, perDollar } from "../domain/spending/ledger.ts"
import { ledgerOf, type Purse, type Status } from "../domain/spending/models.ts"
import * as Ledgers from "../sharing/ledger.ts"
import type { CapRefusal, CostAsked, LedgerState } from "../sharing/ledger.ts"
import type { Decided, Done, ChargedPort, Port, PortOptions, QueueDecision } from "../sharing/port.ts"
import { configure } from "../sharing/state.ts"
import * as Turns from "../sharing/turns.ts"
import type { CapTurn } from "./capLog.ts"

/** The store of the ledger did not answer, or what is stored cannot be read. */
export interface LedgerLost {
  readonly _tag: "LedgerLost"
  readonly cause: unknown
}

/** How a call pays. */
export interface Paying {
  /** Resumes the caller in a later task. */
  readonly wake: Wake
  readonly agent: string
  readonly priority: number
  readonly weight: number
  readonly asked: CostAsked
}

/** How a wait for dollars ends: with a reservation, or with a refusal. */
export type Paid = "reserved" | CapRefusal | LedgerLost

/** A call in one ledger, from its arrival to its end. */
export class LedgerEntry extends Queued {
  readonly ledger: RunningLedger
  readonly asked: CostAsked
  /** What it has reserved, and the port that has charged it. */
  amount = 0
  chargedPort: ChargedPort<LedgerState> | undefined = undefined
  outcome: Paid | undefined = undefined
  isOver = false
  /** When it arrived, by the clock of its caller. */
  readonly since: number
  private readonly wake: Wake
  private resume: (() => void) | undefined = undefined

  constructor(ledger: RunningLedger, paying: Paying) {
    const { asked, wake } = paying
    super(paying, Math.max(minCost, Math.min(asked.expected, asked.max) / perDollar))
    this.ledger = ledger
    this.since = ledger.clock.currentTimeMillisUnsafe()
    this.wake = wake
    this.asked = asked
  }
  /** Calls `resume` in a later task when the wait ends. */
  listen(resume: () => void): void {
    this.resume = resume
  }
  end(outcome: Paid): void {
    const { resume, wake } = this
    this.outcome = outcome
    if (resume !== undefined) wake(resume)
  }
}

/** The smallest cost in the fair queue, in dollars. Without it, calls that cost nothing would always go first. */
const minCost = 1e-6

/** How old the state behind a status may be, in milliseconds. */
const lookMillis = 5_000

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

/** What was decided on the first calls of a queue. */
interface DecidedPayments extends Decided {
  readonly outcomes: ReadonlyArray<readonly [entry: LedgerEntry, outcome: number | CapRefusal]>
}

export interface LedgerOptions {
  readonly name: string
  /** Its place in the order in which calls take ledgers. */
  readonly key: string
  readonly open: (called: Pick<PortOptions, "configured" | "unreachable">) => Port<LedgerState>
  /** What an earlier process has kept, if the port does not start with it. */
  readonly kept?: Kept | undefined
  /** Called after each change. */
  readonly changed: (() => void) | undefined
}

/** Whether calls are refused because the cap of a purse is spent, as far as is known without asking its store. */
export const isReached = (purse: Purse): boolean => ledgerOf<RunningLedger>(purse).isReached

export class RunningLedger {
  readonly name: string
  readonly key: string
  /** Tells ledgers of one key apart. */
  readonly serial = made++
  readonly port: Port<LedgerState>
  /** The clock of the latest caller, which a ledger of this process goes by. */
  clock: Clock.Clock = Clock.Clock.defaultValue()
  /** Reports for the latest caller that the cap is reached, and that it is no longer. */
  report: CapReporter | undefined = undefined
  private reached: ReachedCap | undefined = undefined
  private readonly changed: (() => void) | undefined
  private readonly queue = new FairQueue<LedgerEntry>()
  /** A call that arrives at an empty queue, until it is decided or queued. */
  private arriving: LedgerEntry | undefined = undefined
  /** When the store was last asked only for a status. */
  private lookedAt = -Infinity
  /** The number of calls to models without a price. */
  unpriced = 0

  constructor({ changed, kept, key, name, open }: LedgerOptions) {
    this.name = name
    this.key = key
    this.changed = changed
    this.port = open({
      configured: () => this.drain(),
      unreachable: (cause) => this.refuseAll({ _tag: "LedgerLost", cause })
    })
    if (kept !== undefined) this.port.transact((draft) => Ledgers.adoptKept(draft, this.port.id, kept))
  }

  get cap(): CapInUnits {
    return this.port.state.config
  }
  get isCapped(): boolean {
    return this.cap.limit < Infinity
  }
  /** What was spent in all, in dollars. */
  get total(): number {
    return Ledgers.accountOf(this.port.state).total / perDollar
  }
  get kept(): Kept {
    return Ledgers.accountOf(this.port.state)
  }

  // ---------------------------------------------------------------------------
  // Calls
  // ---------------------------------------------------------------------------

  /** Whether it is known that a call is refused. With a store, only a decision knows. */
  refuses(asked: CostAsked): boolean {
    const { now, state } = this.port
    const amount = Ledgers.amountOf(state.config, asked)
    return this.port.lag === 0 && Ledgers.spent(state, now()) + amount > state.config.limit
  }

  /** Reserves at once, refuses, or queues a call. */
  take(paying: Paying): LedgerEntry {
    const entry = new LedgerEntry(this, paying)
    if (!this.isCapped) {
      const amount = Ledgers.amountOf(this.cap, entry.asked)
      this.port.transact((draft) => Ledgers.hold(draft, this.port.id, amount))
      this.grant(entry, amount, this.port)
      return entry
    }
    if (this.queue.size === 0) {
      this.arriving = entry
      this.drain()
      this.arriving = undefined
    }
    if (entry.outcome === undefined) {
      this.queue.push(entry)
      this.drain()
    }
    return entry
  }

  /**
   * Replaces the reservation of a call by its cost, or spends all of it if the cost is unknown. A call that still waits leaves the
   * queue. Only the first end counts.
   */
  settle(entry: LedgerEntry, cost: number | undefined): void {
    if (entry.isOver) return
    entry.isOver = true
    const { amount, chargedPort, outcome } = entry
    if (outcome === undefined) this.queue.remove(entry)
    if (outcome === "reserved") {
      chargedPort!.transact((draft, now) => Ledgers.settle(draft, chargedPort!.id, amount, cost ?? amount, now))
      this.queue.correct(entry, amount === 0 ? 1 : (cost ?? amount) / amount)
      this.changed?.()
    }
    this.drain()
  }

  private grant(entry: LedgerEntry, amount: number, by: ChargedPort<LedgerState>): void {
    entry.amount = amount
    entry.chargedPort = by
    if (entry === this.arriving) this.arriving = undefined
    if (entry.flow !== undefined) this.queue.serve(entry)
    this.queue.forget()
    entry.end("reserved")
    this.review()
    this.changed?.()
  }

  private refuse(entry: LedgerEntry, refusal: CapRefusal | LedgerLost): void {
    if (entry === this.arriving) this.arriving = undefined
    this.queue.remove(entry)
    if (refusal._tag === "CapRefusal") this.reach(refusal)
    entry.end(refusal)
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
    const { left, limit, spent } = Ledgers.statusOf(this.port.state, this.port.now())
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
  refusalOf(asked: CostAsked): CapRefusal {
    return Ledgers.refusalAt(this.port.state, asked, undefined, this.port.now())
  }

  private refuseAll(refusal: LedgerLost): void {
    if (this.arriving !== undefined) this.refuse(this.arriving, refusal)
    for (const entry of Array.from(this.queue.inOrder())) this.refuse(entry, refusal)
  }

  // ---------------------------------------------------------------------------
  // The decision
  // ---------------------------------------------------------------------------

  private drain(): void {
    if (this.arriving !== undefined || this.queue.size > 0) this.port.transact(this.serve, this.served)
  }

  private readonly serve: QueueDecision<DecidedPayments, LedgerState> = (draft, now, max) => {
    const { id } = this.port
    const weight = this.arriving?.weight ?? this.queue.weight
    const outcomes: Array<readonly [LedgerEntry, number | CapRefusal]> = []
    for (const entry of this.heads()) {
      if (outcomes.length >= max) break
      const outcome = Ledgers.admit(draft, id, entry, weight, now)
      if (typeof outcome === "object" && "by" in outcome) {
        Turns.wait(draft, id, { priority: entry.priority, charge: Ledgers.amountOf(draft.config, entry.asked), weight })
        return { outcomes, blocked: outcome, isNews: outcomes.length > 0 }
      }
      outcomes.push([entry, outcome])
    }
    Turns.wait(draft, id, undefined)
    return { outcomes, blocked: undefined, isNews: outcomes.length > 0 }
  }

  private heads(): Iterable<LedgerEntry> {
    return this.arriving === undefined ? this.queue.inOrder() : [this.arriving]
  }

  /** Carries out a decision. What was reserved for callers that have left is given back. */
  private readonly served: Done<DecidedPayments, LedgerState> = ({ outcomes }, by) => {
    for (const [entry, outcome] of outcomes) {
      const isWaiting = entry.outcome === undefined && !entry.isOver
      if (typeof outcome !== "number") {
        if (isWaiting) this.refuse(entry, outcome)
      } else if (isWaiting) this.grant(entry, outcome, by)
      else by.transact((draft, now) => Ledgers.settle(draft, by.id, outcome, 0, now))
    }
    return outcomes.length > 0 && (this.arriving !== undefined || this.queue.size > 0)
  }

  // ---------------------------------------------------------------------------
  // Operators
  // ---------------------------------------------------------------------------

  /** Changes the cap, and lets waiting calls go that fit now. */
  resize(cap: CapInUnits): void {
    this.port.transact((draft) => configure(draft, cap))
    this.drain()
    this.review()
  }

  /** Forgets what was spent in the period. */
  reset(): void {
    this.port.transact((draft) => Ledgers.reset(draft))
    this.drain()
    this.review()
    this.changed?.()
  }

  /** As of the last exchange with the store. If that is long ago, another one follows. */
  get status(): Status {
    const { port, unpriced } = this
    if (port.lag > 0 && port.now() > this.lookedAt + lookMillis) {
      this.lookedAt = port.now()
      port.transact(() => undefined)
    }
    this.review()
    const { isReached, queue, waiting } = this
    return { ...Ledgers.statusOf(port.state, port.now()), isReached, queued: queue.size, waiting, unpriced }
  }

  /** The first calls that wait, in the order of service. */
  private get waiting(): Status["waiting"] {
    const now = this.clock.currentTimeMillisUnsafe()
    const listed: Array<Status["waiting"][number]> = []
    for (const { agent, asked, since } of this.queue.inOrder()) {
      if (listed.length === maxListed) break
      listed.push({
        agent,
        dollars: Ledgers.amountOf(this.cap, asked) / perDollar,
        waitedMillis: Math.max(0, now - since)
      })
    }
    return listed
  }
}
