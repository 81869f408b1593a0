/**
 * What a process knows of a pool since the last reply.
 */
import * as Equal from "effect/Equal"
import * as Ledger from "../internal/ledger.ts"
import * as Limits from "../Limits.ts"
import type { Configuration, Operation, Reply } from "./wire.ts"
import * as Wire from "./wire.ts"

export class View {
  /** Which state of the pool it is; 0 before the first reply. */
  epoch = 0
  rules: Limits.Rules = {}
  /** What the pool is configured with; nothing before the first reply. */
  configuration: Configuration | undefined
  /** Of which rules and configuration it is. */
  private version = 0
  levels: Limits.Charge = {}
  processes = 1
  /** Whether somebody may wait for a call to end, and not only for what it gives back. */
  isTight = true
  /** This process's time of the last reply; -Infinity before the first. */
  at = -Infinity
  /** By how much the pool's time was ahead of this process's then. */
  ahead = 0
  /** How long the last reply took, as far as is known: a grant in it was heard so late at most. */
  private lateMillis = 0

  /** Takes over what a reply says. `sentAt` is known of a request that was sent once. */
  hear(
    [time, epoch, processes, , version, news, levels, , , tight]: Reply,
    now: number,
    sentAt: number | undefined
  ): void {
    this.at = now
    this.ahead = time - now
    this.epoch = epoch
    this.processes = processes
    this.levels = Wire.toCharge(levels)
    this.isTight = tight === 1
    if (sentAt !== undefined) this.lateMillis = now - sentAt
    if (news === 0) return
    this.version = version
    this.configuration = news[1]
    const rules = Wire.toRecord(news[0], Wire.toRule)
    if (!Equal.equals(rules, this.rules)) this.rules = rules
  }

  /** The limits are changed from here. */
  resize(limits: Limits.Limits): void {
    const configured = Wire.toLimits(this.configuration?.limits ?? [])
    this.rules = Ledger.replaced(this.rules, configured, Limits.resolve(limits))
  }

  /** The text of a request. */
  encode(seq: number, operations: ReadonlyArray<Operation>): string {
    return JSON.stringify([seq, this.epoch, this.version, operations, Math.round(this.lateMillis)])
  }

  /** The levels as they were, and how old they are; nothing before the first reply. */
  remembered(now: number): ReadonlyArray<readonly [level: number, age: number] | false> {
    if (this.epoch === 0) return []
    return Limits.dimensions.map((dimension) => {
      const level = this.levels[dimension]
      return level === undefined ? false : [level, now - this.at]
    })
  }
}
