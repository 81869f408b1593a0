/** The time of a shared pool: that of this process's monotonic clock, moved to where the processes agree. */
import type * as Clock from "effect/Clock"
import { monotonic } from "../domain/input/clock.ts"
import * as Pace from "./pace.ts"
import type { State } from "./state.ts"

export class Time {
  private readonly read: () => number
  private offset = 0
  /** When the last reply arrived, by this process's clock. */
  private repliedAt = Infinity
  /** The longest time of a recent commit. */
  lag = Pace.firstLag

  constructor(clock: Clock.Clock) {
    this.read = monotonic(clock)
  }

  /** Milliseconds of this process's clock. */
  get own(): number {
    return this.read()
  }

  /** The pool's time at a moment of this process's clock: the same in all processes, as far as they know. */
  at(own: number): number {
    return own + this.offset
  }

  /** The pool's time. It is never before that of a state. */
  get now(): number {
    return this.at(this.own)
  }

  /** A reply has arrived. Returns how long ago the one before did. */
  replied(): number {
    const since = Math.max(0, this.own - this.repliedAt)
    this.repliedAt = this.own
    return since
  }

  /** A commit took so long. */
  took(millis: number): void {
    this.lag = Pace.lagAfter(this.lag, millis)
  }

  /**
   * Sets the pool's time by a state: it is as much later as the state is old, and no more time has passed than since the
   * state was stored and while it was on its way. A commit that came late makes a process that starts late, too: then all
   * have to be.
   */
  follow(state: State, isFirst: boolean, ageMillis: number | undefined, since: number): void {
    const earliest = state.time - this.own
    const age = Math.max(0, ageMillis ?? (isFirst ? 0 : Infinity))
    const latest = earliest + age + (isFirst ? 0 : state.law.lag + this.lag)
    // The clock of Redis may have been set: more than since the last reply has not passed.
    const passed = ageMillis === undefined ? 0 : Math.min(age, since)
    // Where it was too late by more than messages take, it may not be later than need be: each process would add to it.
    this.offset = isFirst ? latest : Math.max(earliest + passed, this.offset > latest ? -Infinity : this.offset)
  }
}
