/** The facts about the long windows of an account that processes tell each other. */

/** A window as a response has told it. `size` is in billionths of a dollar. */
export interface ToldWindow {
  readonly used: number
  readonly resetsAt: number
  readonly isRejected: boolean
  readonly size: number | undefined
  readonly models: ReadonlyArray<string> | undefined
}

/** The windows as one process knows them, and its spending of each so far. */
export interface WindowsHere {
  readonly windows: ReadonlyMap<string, ToldWindow & { readonly spent: number }>
  /** When the next call may try a spent window; 0 if none ever was. */
  readonly triesAt: number
  /** The amount spent here of all windows together. */
  readonly spent: number
  /** Whether calls run, or wait for what another process may hear. */
  readonly isBusy: boolean
}

/** The facts that other processes have added since the last exchange. */
export interface WindowsElsewhere {
  /** The windows of which another process has heard since this one did. */
  readonly told: ReadonlyMap<string, ToldWindow>
  /** The sizes that another process has learned. */
  readonly sizes: ReadonlyMap<string, number>
  /** The amounts that others have spent. */
  readonly spent: ReadonlyMap<string, number>
  /** How many processes there are, with this one. */
  readonly processes: number
  /** When this process may try a spent window, because another one tries before; 0 if nobody else does. */
  readonly triesAt: number
}

export interface WindowsOptions {
  readonly account: string
  readonly here: () => WindowsHere
  readonly adopt: (elsewhere: WindowsElsewhere) => void
  /** Called after an exchange, or after one that failed, with the amount that had been spent here before it. */
  readonly exchanged: (spent: number) => void
}

/** The record of an account, as one process uses it. */
export interface OpenedWindows {
  /** Whether processes that have begun at the same time have heard of each other, or the store does not answer. */
  readonly isCurrent: boolean
  /** Something has changed here. */
  readonly changed: () => void
  /** A response has told of a window. */
  readonly told: (name: string) => void
}
