/** What the judge and its workers say to each other, and what it keeps. */

/** Operations to run. Without a path a turn begins that is driven from outside, and with a count of 0 it ends. */
export interface Question {
  readonly path?: string | undefined
  readonly count: number
}

/** Bytes allocated in a turn, and the number of the mark that ended it. */
export interface Figure {
  readonly mark: number
  readonly bytes: number
}

/** A hot path, and how to measure it. */
export interface Path {
  readonly name: string
  /** How many operations a turn has. */
  readonly count: number
  /** The length of the request in sentences of 26 bytes, if the path leads over HTTP. */
  readonly sentences?: number | undefined
}
