/** Calls at a place, as what learns how long its answers take, and the store that tells other processes, know them. */

/** A call at a place whose answer has not ended. */
export interface SentCall {
  /** In milliseconds since the epoch. */
  readonly at: number
  /** The output tokens of its estimate. */
  readonly estimate: number
  /** Whether it finds out if a place that was left for slowness has recovered. */
  readonly isProbe: boolean
}

/** A call at a place that has ended. */
export interface PlaceEnd extends Omit<SentCall, "at"> {
  /** How long it took, in milliseconds. */
  readonly millis: number
  /** Its output tokens; undefined if nobody has counted them. */
  readonly tokens: number | undefined
  /** Whether it has ended with an answer. */
  readonly isAnswer: boolean
}

/** The calls of other processes at a place whose answers have not ended: how many, and the first of them. */
export interface SentElsewhere {
  readonly count: number
  readonly first: ReadonlyArray<SentCall>
}

/** A memory of places, as the exchange with other processes knows it. */
export interface PlaceLearner {
  /** The calls of this process at a place, in the order in which they were sent. */
  readonly sentTo: (pool: string) => ReadonlySet<SentCall>
  /** Learns from other processes: calls that have ended, and those under way. */
  readonly learn: (pool: string, ended: ReadonlyArray<PlaceEnd>, sent: SentElsewhere, now: number) => void
}

/** Exchanges with other processes what is known of places. */
export interface PlaceExchange {
  /** A call that can be made at several places is about to be made at one of them, or waits. */
  readonly weighed: (pool: string) => void
  /** A call was sent to a place, or left it without an end that tells anything. */
  readonly changed: (pool: string) => void
  readonly ended: (pool: string, call: PlaceEnd) => void
}
