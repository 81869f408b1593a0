/** The calls of an agent whose prompts grow. Pure. */
import type { Call, Work } from "./models.ts"

/** The second call of an agent, with its whole prompt. */
export const laterOf = ({ first, growth = 0, later }: Work): Call =>
  later ?? { ...first, inputTokens: first.inputTokens + growth }

/** The calls of an agent. What is read from the cache does not count, and the first call reads nothing. */
export const callsOf = (work: Work): ReadonlyArray<Call> => {
  const { cachedShare = 0, calls, first, growth = 0, pause } = work
  const second = laterOf(work)
  const later = pause === undefined ? second : { ...second, pause: work.later?.pause ?? pause }
  const promptAt = (index: number): number =>
    index === 0 ? first.inputTokens : later.inputTokens + (index - 1) * growth
  return Array.from({ length: calls }, (_, index) => {
    if (index === 0) return first
    if (growth === 0 && cachedShare === 0) return later
    const prompt = promptAt(index)
    const cacheReadTokens = Math.floor(cachedShare * Math.min(prompt, promptAt(index - 1)))
    return { ...later, inputTokens: prompt - cacheReadTokens, cacheReadTokens }
  })
}
