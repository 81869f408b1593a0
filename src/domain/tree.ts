/** Caps of a job's tree of agents. */

/** The most agents that a job may have. Without an option there is no bound. */
export interface TreeCaps {
  /** In all, with the one that the job began with. */
  readonly agents?: number | undefined
  /** At once: those with a call that runs, or that ended less than five minutes ago. */
  readonly atOnce?: number | undefined
  /** New ones in any hour. */
  readonly perHour?: number | undefined
  /** Generations below the agent that the job began with: with 1, its sub-agents may start none. */
  readonly depth?: number | undefined
}

/** The caps in force, and whether an operator has stopped the job. */
export interface CapsInForce {
  readonly caps: TreeCaps
  readonly stop: "none" | "agents" | "calls"
}

/** The agents of a job in numbers. */
export interface TreeCounts {
  readonly agents: number
  readonly atOnce: number
  readonly perHour: number
  /** The generations below the first agent. */
  readonly depth: number
}

/** Why an agent is refused. */
export interface TreeExcess {
  readonly by: keyof TreeCaps | "stop"
  readonly limit: number
  /** When it would fit, in milliseconds since the epoch; undefined if that is unknown or never. */
  readonly until: number | undefined
}
