/** The operations that a port needs on the states that it keeps: those of pools, or those of ledgers. */
import type { Joined, PartTimes, Shared, Sums } from "./state.ts"

export type MemberOf<S extends Shared> = S["members"][string]
export type PartOf<S extends Shared> = NonNullable<MemberOf<S>["part"]>

/** The processes of a state, by their names in it. */
export const membersOf = <S extends Shared>({ members }: S): Record<string, MemberOf<S>> =>
  members as Record<string, MemberOf<S>>

export interface StateSpec<S extends Shared> {
  /** The name of it in messages. */
  readonly noun: "pool" | "ledger" | "tree"
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

  /** The duration of an average call, in milliseconds. */
  readonly answerMillis: (state: S) => number
  /** Whether the end of a call always frees something that another process may wait for. */
  readonly frees: (state: S) => boolean
  /** Whether the other processes must know of a change at once. */
  readonly isUrgent: (state: S, now: number) => boolean
  /** Whether an idle process may stop committing. */
  readonly mayStopCommitting: (state: S, now: number) => boolean

  // The processes

  /** Arithmetic on the charges of calls. */
  readonly sums: Sums<MemberOf<S>["held"]>
  /** Brings a state up to now, apart from its processes. `utc` is the time by the clock of the store. */
  readonly prepare: (state: S, utc: number, now: number) => void
  /** Changes the configuration. */
  readonly configure: (state: S, config: S["config"], now: number) => void
  /** A process that joins. `committed` is its last commit, if it has joined before. */
  readonly join: (joined: Joined<MemberOf<S>["held"]>, committed: MemberOf<S> | undefined) => MemberOf<S>
  /** Returns what was kept for a process: it has committed, and with that reported what it used. */
  readonly takeBack: (state: S, member: MemberOf<S>) => void
  /** Settles what the calls of a process hold, because its lease is over or it leaves. */
  readonly giveUp: (state: S, member: MemberOf<S>, now: number) => void
  /** Reverses `giveUp` for a process that is still alive. `found` is its entry in the state, unless that was forgotten. */
  readonly revive: (state: S, found: MemberOf<S> | undefined, committed: MemberOf<S>, now: number) => void
  /** Keeps what a process has spent when the state forgets the process. */
  readonly forget: (state: S, member: MemberOf<S>) => void
  /** Refunds the calls of a retracted commit. `found` was stored; `known` replaces it, unless the process has no earlier commit. */
  readonly retracted: (state: S, found: MemberOf<S>, known: MemberOf<S> | undefined) => void
  /** Completes a state that is committed. */
  readonly complete: (state: S) => void

  // After the store has lost a state

  /**
   * Takes a process over from another state, with what it has spent according to that state only. `ahead` converts the times of its
   * part; its other times are converted already.
   */
  readonly takeOver: (state: S, id: string, member: MemberOf<S>, ahead: number) => void
  /** Notes that the store has lost something. */
  readonly lost: (state: S) => void
  /** Takes over what else another state knows. */
  readonly adopt: (state: S, other: S, ahead: number) => void

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
  /** Adds what a process used alone besides what its calls hold. `ours` is its entry in the state, unless it was forgotten. */
  readonly comeBack: (state: S, ours: MemberOf<S> | undefined, used: MemberOf<S>, began: S, ended: S) => void
}
