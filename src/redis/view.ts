/**
 * What a process knows of a pool since the last reply.
 */
import * as Limits from "../Limits.ts"
import type { Operation, Reply } from "./wire.ts"
import * as Wire from "./wire.ts"

export class View {
  /** Which state of the pool it is; 0 before the first reply. */
  epoch = 0
  rules: Limits.Rules = {}
  private rulesVersion = 0
  levels: Limits.Charge = {}
  processes = 1
  /** Whether somebody may wait for a call to end, and not only for what it gives back. */
  isTight = true
  /** This process's time of the last reply; -Infinity before the first. */
  at = -Infinity
  /** How long the last reply took, as far as is known: a grant in it was heard so late at most. */
  private lateMillis = 0

  /** Takes over what a reply says. `sentAt` is known of a request that was sent once. */
  hear(
    [, epoch, processes, , version, rules, levels, , , tight]: Reply,
    now: number,
    sentAt: number | undefined
  ): void {
    this.at = now
    this.epoch = epoch
    this.processes = processes
    this.levels = Wire.toCharge(levels)
    this.isTight = tight === 1
    if (sentAt !== undefined) this.lateMillis = now - sentAt
    if (rules === 0) return
    this.rulesVersion = version
    this.rules = Wire.toRecord(rules, Wire.toRule)
  }

  /** The text of a request. */
  encode(seq: number, operations: ReadonlyArray<Operation>): string {
    return JSON.stringify([seq, this.epoch, this.rulesVersion, operations, Math.round(this.lateMillis)])
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
