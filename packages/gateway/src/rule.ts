/** The settings for some callers of a gateway. */
import type * as Spending from "floodgate/Spending"

/**
 * Settings for some callers. A rule applies to a caller if all its conditions (`agent`, `key`, `model`, `headers`) match; a
 * condition that is left out matches every caller. In a text, `*` stands for any characters.
 *
 * @category models
 * @since 0.2.0
 */
export interface Rule {
  /**
   * The name of the rule, on the page, in metrics, in logs and in refusals. It also identifies what its caps have spent. At most 64
   * characters, and no other rule has it.
   *
   * @default a description of the conditions
   */
  readonly name?: string | undefined
  /** The name of the agent. */
  readonly agent?: string | undefined
  /**
   * The name of the caller's key, if the gateway has `keys`. Otherwise it is the key that the caller sends to the provider, or a
   * pattern that matches only it, such as `*x9Yz`; the access key for AWS, and the project for Vertex AI. A call with several keys
   * then matches by any of them, because only the provider knows which it accepts.
   */
  readonly key?: string | undefined
  readonly model?: string | undefined
  /** Headers by their names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The share of service relative to other agents, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /** Higher goes first. @default 1 for interactive calls, -1 for batches, else 0 */
  readonly priority?: number | undefined
  /** What all matching callers together may cost. The caps of all matching rules apply. @default no bound */
  readonly cap?: Spending.Cap | undefined
  /** What each agent may cost. A client may use any number of agent names, so also bound its key, or all callers. @default no bound */
  readonly capPerAgent?: Spending.Cap | undefined
  /** What each key may cost. @default no bound */
  readonly capPerKey?: Spending.Cap | undefined
}
