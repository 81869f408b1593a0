/** What a port needs to know about the states that it keeps: those of pools, or those of ledgers. */
import type { Blocked } from "../admission/blocked.ts"
import type { Joining, PartTimes, Shared } from "./state.ts"

export type MemberOf<S extends Shared> = S["members"][string]
export type PartOf<S extends Shared> = NonNullable<MemberOf<S>["part"]>

/** What a process reports about itself when it enters a state. */
export interface CommittingProcess<S extends Shared> extends Joining {
  /** Its entry as of its last commit; undefined before the first. */
  readonly committed: MemberOf<S> | undefined
}

/** The clocks of the process that commits, beside the state's. */
export interface Clocks {
  /** Milliseconds since the epoch by the clock of the store. */
  readonly utc: number
}

export interface Kind<S extends Shared> {
  /** What it is called in messages. */
  readonly noun: "pool" | "ledger"
  readonly keyOf: (name: string) => string
  readonly make: (config: S["config"], time: number, origin: string) => S
  /** A copy, which can be changed without changing the original. */
  readonly copy: (state: S) => S
  readonly encode: (state: S) => string
  /** Throws if no process can have written the text. */
  readonly decode: (text: string) => S
  /** How long the store keeps an unused state. */
  readonly keepFor: (state: S) => number

  // When a process reads and commits

  /** When to read the state again for a waiting caller. */
  readonly readIn: (state: S, blocked: Blocked) => number
  /** When to commit what was observed. */
  readonly flushIn: (state: S, id: string) => number
  /** Whether the other processes must know of a change at once. */
  readonly isUrgent: (state: S, now: number) => boolean
  /** Whether an idle process may stop committing. */
  readonly mayRest: (state: S, now: number) => boolean

  // The processes

  /** Brings a state up to now: ends the calls of dead processes, and forgets those that have left. */
  readonly absorb: (state: S, clocks: Clocks, now: number) => void
  /** Changes the configuration. */
  readonly configure: (state: S, config: S["config"], now: number) => void
  /** Finds a process in the state, or adds it. If it was considered dead, its calls in flight are restored. */
  readonly enter: (state: S, id: string, self: CommittingProcess<S>, now: number) => MemberOf<S>
  /** Undoes a commit that its process does not know of. */
  readonly retract: (state: S, id: string, known: MemberOf<S> | undefined) => void
  /** Ends the calls of a process that leaves. */
  readonly leave: (state: S, member: MemberOf<S>) => void
  /** Completes a state that is committed. */
  readonly complete: (state: S) => void

  // After the store has lost a state

  /** Takes a process over from another state, with what it has spent according to that state only. */
  readonly takeOver: (state: S, id: string, member: MemberOf<S>) => void
  /** Notes that the store has lost something. */
  readonly lost: (state: S) => void
  /** Takes over what else another state knows. `ahead` converts its times. */
  readonly adopt: (state: S, other: S, ahead: number) => void
  /** Converts a part to the time of a state with another origin. */
  readonly shifted: (part: PartOf<S>, ahead: number) => PartOf<S>

  // Degraded mode

  /** The part of a process: an equal share, but at most what the parts of the others leave. */
  readonly partOf: (state: S, member: MemberOf<S>, times: Pick<PartTimes, "fromMillis" | "untilMillis">) => PartOf<S>
  /** The smaller of two parts, for when it is unknown which of them is stored. */
  readonly smaller: (one: PartOf<S>, other: PartOf<S>) => PartOf<S>
  readonly isEmpty: (part: PartOf<S>) => boolean
  /** A part after its process has used some of it. `ended` is the state at the end of degraded mode. */
  readonly leftOf: (part: PartOf<S>, ended: S) => PartOf<S>
  /** The state of a process that continues alone with its part. */
  readonly alone: (whole: S, id: string, part: PartOf<S>, now: number) => S
  /** Calls that were admitted before degraded mode have ended. */
  readonly ended: (alone: S, calls: number) => void
  /** Adds what a process used alone, between two states of degraded mode. */
  readonly comeBack: (state: S, id: string, began: S, ended: S) => void
}
