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
  /** The size of the requests of a conversation in bytes. */
  readonly conversation?: number | undefined
  /** Whether a cap in dollars applies. */
  readonly isCapped?: boolean | undefined
}

/** The agent whose calls have a cap in the gateway. */
export const cappedAgent = "capped"

/** The paths of conversations, which run only if they are named. */
export const conversations: ReadonlyArray<Path> = ["conversation", "gateway-conversation"].flatMap((way) =>
  [4, 100, 400].flatMap((kilobytes) =>
    [false, true].map((isCapped) => ({
      name: `${way}-${kilobytes}KB${isCapped ? "-capped" : ""}`,
      count: kilobytes === 4 ? 50 : 4_000 / kilobytes,
      conversation: kilobytes * 1_000,
      isCapped
    }))
  )
)

/** A path whose calls are of an agent in a tree of so many, with caps on those, and on what they spend. */
export interface TreePath extends Path {
  readonly agents: number
  readonly isSpending: boolean
}

/** The paths of calls in trees, which run only if they are named. Compare them with `create`. */
export const trees: ReadonlyArray<TreePath> = [10, 100, 1_000].flatMap((agents) =>
  [false, true].map((isSpending) => ({
    name: `create-in-tree-of-${agents}${isSpending ? "-spending" : ""}`,
    count: 300,
    agents,
    isSpending
  }))
)

/** Whether a path leads over HTTP. */
export const isOverHttp = ({ name }: Path): boolean => name.startsWith("gateway")
