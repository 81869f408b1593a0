/**
 * Reads the usage that an answer reports, once, and bounds it by the most that its call can use. Pure.
 *
 * An answer may report anything: a proxy that counts bytes, a service that adds up a day, a broken number. What it reports is spent
 * from caps and limits, so one absurd answer would end them for everybody. The bounds are generous, because usage that was real must
 * never be cut: a cap would be exceeded without anybody noticing.
 */
import { type Actual, isAmount } from "../domain/amounts.ts"
import type { Price } from "../domain/prices.ts"

/** The usage that an answer reports for its call, and the sums that follow from it. */
export interface ReportedUsage {
  /** The counts by which callers, accountings and prices know it. */
  readonly actual: Actual
  /** All tokens of the prompt, and those of them that were written to the cache or read from it. */
  readonly prompt: number
  readonly written: number
  readonly read: number
  /**
   * Whether the provider has counted the prompt. 0 tokens mean that nobody did, because no answer came or a gateway does not count, and
   * some services report what is no number.
   */
  readonly isCounted: boolean
}

/** Reads a usage. */
export const read = (actual: Actual): ReportedUsage => {
  const written = actual.cacheCreationTokens ?? 0
  const read = actual.cacheReadTokens ?? 0
  const prompt = actual.inputTokens + written + read
  return { actual, prompt, written, read, isCounted: prompt > 0 && isAmount(prompt) }
}

/** The usage of a call that nobody answered. */
export const unanswered = /* @__PURE__ */ read({ inputTokens: 0, outputTokens: 0 })

/** The context of a model whose price states none. The largest that is offered, of Llama 4 Scout, has as many tokens. */
const usualContext = 10_000_000
/** The output of a model whose price states no maximum. Published models write 128,000 tokens at most. */
const usualOutput = 1_000_000
/**
 * How often the provider may run the model for a call with tools of its own. Each round reads the prompt again, and is added to the
 * usage. Anthropic pauses the turn after 10 (https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools).
 */
const maxRounds = 20

/** The most tokens that a call can use. */
export interface UsageCeiling {
  /** Of its prompt, cached or not. */
  readonly prompt: number
  readonly output: number
}

/** The properties of a call that decide its ceiling. */
interface BoundedCall {
  readonly bytes: number
  readonly inputTokens?: number | undefined
  readonly maxTokens?: number | undefined
  readonly choices?: number | undefined
  readonly serverTools?: boolean | undefined
}

/**
 * The ceiling of a call. Of `max_tokens` and the model's maximum the larger counts, because some services do not obey
 * `max_tokens`, and charge for what they write.
 */
export const ceilingOf = (
  price: Price | undefined,
  { bytes, choices = 1, inputTokens = 0, maxTokens = 0, serverTools = false }: BoundedCall
): UsageCeiling => {
  const rounds = serverTools ? maxRounds : 1
  const answers = Math.max(1, choices || 1)
  return {
    prompt: Math.max(price?.context ?? usualContext, bytes, inputTokens) * rounds,
    output: Math.max((price?.maxOutput ?? usualOutput) * answers, maxTokens) * rounds
  }
}

/** A usage without what exceeds the ceiling: the same object if nothing does. Cache reads, the cheapest part, are cut first. */
export const below = ({ output, prompt }: UsageCeiling, usage: ReportedUsage): ReportedUsage => {
  const { actual, read: fromCache, written } = usage
  if (!(usage.prompt > prompt) && !(actual.outputTokens > output)) return usage
  const inputTokens = Math.min(actual.inputTokens, prompt)
  const cacheCreationTokens = Math.min(written, prompt - inputTokens)
  return read({
    ...actual,
    inputTokens,
    cacheCreationTokens,
    cacheReadTokens: Math.min(fromCache, prompt - inputTokens - cacheCreationTokens),
    outputTokens: Math.min(actual.outputTokens, output)
  })
}

/** The usage of a failed call without what exceeds the ceiling. */
export const belowInError = <U extends UsageInError>({ output, prompt }: UsageCeiling, usage: U): U => {
  const { inputTokens = 0, outputTokens = 0, tokens = 0 } = usage
  if (!(inputTokens > prompt) && !(outputTokens > output) && !(tokens > prompt + output)) return usage
  return {
    ...usage,
    ...(inputTokens > prompt && { inputTokens: prompt }),
    ...(outputTokens > output && { outputTokens: output }),
    ...(tokens > prompt + output && { tokens: prompt + output })
  }
}

interface UsageInError {
  readonly inputTokens?: number | undefined
  readonly outputTokens?: number | undefined
  readonly tokens?: number | undefined
}
