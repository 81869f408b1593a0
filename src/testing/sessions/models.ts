/**
 * The work of agents, in numbers: sessions, their agents, and the turns of each.
 *
 * @stability unstable
 * @since 0.5.0
 */

/**
 * An agent and its turns, one after the other.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface SessionAgent {
  /** `0` for the lead of a session. A sub-agent has the path of the agent that starts it, and a number of its own: `0/6`, `0/6/2`. */
  readonly path: string
  /** Its calls. Sizes are in tokens. */
  readonly turns: ReadonlyArray<{
    /** The whole prompt: what is read from a cache, and what is not. */
    readonly inputTokens: number
    /**
     * The first tokens of the prompt, which are those of the agent's last prompt: what a cache reads that forgets nothing. 0 for the first
     * turn of an agent.
     */
    readonly cachedTokens: number
    readonly outputTokens: number
    /** From the end of the agent's last turn to this call: the time of tools and people. 0 if it is not known. */
    readonly pauseMillis: number
    /**
     * The sub-agents that this turn starts, all at once. The agent's next turn begins when its pause is over and all of them have ended: in
     * records, the pause includes their time.
     */
    readonly subAgents: ReadonlyArray<SessionAgent>
  }>
  /**
   * How many turns the agent that starts this one makes before it waits for its end: more than 0 for a sub-agent in the background,
   * `Infinity` if it never waits.
   *
   * @default 0
   */
  readonly turnsMeanwhile?: number | undefined
}

/** One call of an agent. */
export type SessionTurn = SessionAgent["turns"][number]

/**
 * One session: a lead agent, and the sub-agents under its turns.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface Session {
  readonly name: string
  readonly lead: SessionAgent
}
