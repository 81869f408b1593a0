/** What the judge and its workers say to each other, and what it keeps. */

/** Operations to run. */
export interface Question {
  readonly path: string
  readonly count: number
}

/** What a worker has used: processor time in microseconds, all threads together, and bytes allocated. */
export interface Figure {
  readonly micros: number
  readonly bytes: number
}

/** A hot path, and how to measure it. */
export interface Path {
  readonly name: string
  /** How many operations a turn has: about 50 ms. */
  readonly count: number
  /** The length of the request in sentences of 26 bytes, if the path leads over HTTP. */
  readonly sentences?: number | undefined
}
