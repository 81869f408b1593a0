/**
 * The times when a process reads and commits the state of a shared pool, and the pool's time: this process's monotonic clock, moved to
 * what the processes agree on.
 */
import type * as Clock from "effect/Clock"
import { monotonic } from "../domain/input/clock.ts"
import type { Blocked } from "../admission/blocked.ts"
import type { Shared } from "./state.ts"

// -----------------------------------------------------------------------------
// Intervals, in milliseconds
// -----------------------------------------------------------------------------

/** How soon events are committed: usually, if another process waits, and if it waits for one of few places in flight, or for dollars. */
const flushMillis = 500
const flushContended = 250
const flushPlaces = 10
/** A caller that waits for another process's call to end reads the state this often during an average call, within bounds. */
const readsPerCall = 4
const minRead = 5
const maxRead = 250
/** Other waiting callers read it at this interval, because a refund may admit them earlier. */
const refundRead = 500
/** A process with waiting callers commits at this interval, to show the others that it is alive. */
export const waitingBeat = 1_000
/**
 * With `"degrade"`, a process that has not committed for this long, or for as long as eight commits take, counts as silent: it
 * may enter degraded mode. It commits four times as often as that. An idle process counts as silent after its lease.
 */
const silentMillis = 1_000
const silentCommits = 8
/**
 * A process enters degraded mode this much later than the others count it as silent, because clocks and the network are not
 * exact.
 */
export const silentMargin = 100
/** A process that has used nothing for this long is idle: its usage has refilled. It commits rarely or not at all. */
export const idleMillis = 60_000
/** The longest duration of a recent commit: its first value, the margin on a measured one, and how fast it decays. */
const firstLag = 10
const lagMargin = 1.5
const lagDecay = 0.02

/** The time until the state is read again for a waiting caller. */
export const readIn = ({ members }: Shared, { millis }: Blocked, answerMillis: number): number => {
  const inFlight = Object.values(members).reduce((sum, member) => sum + member.inFlight, 0)
  const read = Math.max(minRead, answerMillis / (readsPerCall * Math.max(1, inFlight)))
  return millis === Infinity ? Math.min(read, maxRead) : Math.min(Math.ceil(millis), refundRead)
}

/** The time until events are committed, by whether other processes wait, and whether an event frees what one of them waits for. */
export const flushIn = (isContended: boolean, frees: boolean): number => {
  if (!isContended) return flushMillis
  return frees ? flushPlaces : flushContended
}

/** How long after its last commit a process counts as silent. */
export const silentAfter = (lag: number): number => Math.max(silentMillis, silentCommits * lag)

// -----------------------------------------------------------------------------
// The pool's time
// -----------------------------------------------------------------------------

export class Time {
  private readonly read: () => number
  private readonly wall: () => number
  private offset = 0
  /** From this process's clock to the store's. */
  private epoch: number | undefined = undefined
  /** When the last reply arrived, by this process's clock. */
  private repliedAt = Infinity
  /** The longest duration of a recent commit. */
  lag = firstLag

  constructor(clock: Clock.Clock) {
    this.read = monotonic(clock)
    this.wall = () => clock.currentTimeMillisUnsafe()
  }

  /** Milliseconds of this process's clock. */
  get own(): number {
    return this.read()
  }

  /** The pool's time at a moment of this process's clock. All processes have the same, as far as they know. */
  at(own: number): number {
    return own + this.offset
  }

  /** The pool's time. It is never before the time of a state. */
  get now(): number {
    return this.at(this.own)
  }

  /** Milliseconds since the epoch by the clock of the store; by this process's clock if the store does not tell the time. */
  get utc(): number {
    return this.epoch === undefined ? this.wall() : this.own + this.epoch
  }

  /** From the clock that times calls to that of the store. */
  get ahead(): number {
    return this.utc - this.wall()
  }

  /** A reply has arrived, sent at `utc` by the clock of the store. Returns the milliseconds since the previous one. */
  replied(utc: number | undefined): number {
    if (utc !== undefined) this.epoch = utc - this.own
    const since = Math.max(0, this.own - this.repliedAt)
    this.repliedAt = this.own
    return since
  }

  /** Records the duration of a commit. */
  took(millis: number): void {
    this.lag = Math.max(lagMargin * millis, this.lag * (1 - lagDecay))
  }

  /**
   * Sets the pool's time from a state: its own time, plus its age, which is at most the time since the previous reply and the
   * time that messages take. A process whose time is behind makes all others wait for it, so late commits move it back.
   */
  follow(state: Shared, isFirst: boolean, ageMillis: number | undefined, since: number): void {
    const earliest = state.time - this.own
    const age = Math.max(0, ageMillis ?? (isFirst ? 0 : Infinity))
    // The server counts whole milliseconds, so one of them may not have passed. All processes together would add up these errors.
    const least = Math.max(0, age - 1)
    const latest = earliest + (isFirst ? least : age + state.law.lag + this.lag)
    // The server's clock may have been set: no more time has passed than since the last reply.
    const passed = ageMillis === undefined ? 0 : Math.min(least, since)
    // Beyond `latest` take the earliest possible time: otherwise the processes' errors would add up.
    this.offset = isFirst ? latest : Math.max(earliest + passed, this.offset > latest ? -Infinity : this.offset)
  }
}
