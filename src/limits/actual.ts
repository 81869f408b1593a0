/** What a call used, as providers report it. */

/**
 * What a call used, in tokens, by the names of Anthropic's `usage`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Actual {
  /** The part of the prompt that neither was read from the cache nor written to it. */
  readonly inputTokens: number
  /** The part that was written to the cache. @default 0 */
  readonly cacheCreationTokens?: number | undefined
  /** Of those, the ones that the cache keeps for longer than usual, an hour at Anthropic, which cost more. @default 0 */
  readonly cacheCreationLongTokens?: number | undefined
  /** The part that was read from it. @default 0 */
  readonly cacheReadTokens?: number | undefined
  readonly outputTokens: number
}

/** The tokens of a prompt that were not read from a cache. */
export const uncachedTokens = (actual: Actual): number => actual.inputTokens + (actual.cacheCreationTokens ?? 0)

/** The tokens of the whole prompt, read from a cache, written to it or neither. */
export const promptTokens = (actual: Actual): number => uncachedTokens(actual) + (actual.cacheReadTokens ?? 0)
