/** The caps on what a job spends: a ledger for each unit that has had a cap, from which all calls of its tree pay. */
import * as Effect from "effect/Effect"
import { type CapInUnits, perUnit, type Unit, uncapped } from "../domain/spending/ledger.ts"
import { ledgerOf, type Purse } from "../domain/spending/models.ts"
import type { RunningLedger } from "../money/ledger.ts"
import type { JobCaps, JobSpent } from "./models.ts"

const units: ReadonlyArray<Unit> = ["dollars", "tokens", "calls"]

const capOf = (caps: JobCaps, unit: Unit): CapInUnits | undefined => {
  const { [unit]: limit, reserve = "most" } = caps
  return limit === undefined
    ? undefined
    : { limit: Math.round(limit * perUnit[unit]), period: uncapped.period, reserve }
}

/** The ledgers of a tree. It is mutable. */
export class TreeSpending {
  private readonly open: (unit: Unit, cap: CapInUnits) => Purse
  private readonly opened = new Map<Unit, Purse>()
  private reserve: JobCaps["reserve"]

  constructor(open: (unit: Unit, cap: CapInUnits) => Purse) {
    this.open = open
  }

  /** Changes the caps. Whoever has had a cap in a unit counts on in it without one. */
  configure(caps: JobCaps): void {
    this.reserve = caps.reserve
    for (const unit of units) {
      const cap = capOf(caps, unit)
      const known = this.opened.get(unit)
      if (known !== undefined) ledgerOf<RunningLedger>(known).resize(cap ?? uncapped)
      else if (cap !== undefined) this.opened.set(unit, this.open(unit, cap))
    }
  }

  get purses(): ReadonlyArray<Purse> {
    return [...this.opened.values()]
  }

  private get ledgers(): ReadonlyArray<readonly [Unit, RunningLedger]> {
    return Array.from(this.opened, ([unit, purse]) => [unit, ledgerOf<RunningLedger>(purse)])
  }

  /** The caps in force. */
  get caps(): Pick<JobCaps, Unit | "reserve"> {
    const caps: { -readonly [U in Unit | "reserve"]?: JobCaps[U] } = {}
    for (const [unit, { status }] of this.ledgers) caps[unit] = status.limit
    if (this.reserve !== undefined) caps.reserve = this.reserve
    return caps
  }

  /** The amounts that were spent, and that running calls have reserved. */
  get status(): { readonly spent: JobSpent; readonly reserved: JobSpent } {
    const spent: { [U in Unit]?: number } = {}
    const reserved: { [U in Unit]?: number } = {}
    for (const [unit, { status }] of this.ledgers) {
      spent[unit] = status.spent
      reserved[unit] = status.held
    }
    return { spent, reserved }
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.forEach(this.ledgers, ([, { port }]) => port.close, { discard: true }))
  }
}
