/**
 * Counts what calls hold and used, up to a cap. Changed in place: a take is all or none, over every counter at once.
 */
import type * as Limits from "../Limits.ts"

/** What one agent, or one job, holds and has used. */
export interface Counter {
  readonly key: string
  readonly cap: { readonly tokens?: number | undefined; readonly calls?: number | undefined }
  readonly changed: () => void
  /** Open calls as estimated, closed ones as used. */
  tokens: number
  calls: number
}

export const make = (key: string, cap: Counter["cap"], changed: () => void): Counter => ({
  key,
  cap,
  changed,
  tokens: 0,
  calls: 0
})

export const used = ({ calls, tokens }: Counter): { readonly tokens: number; readonly calls: number } => ({
  tokens,
  calls
})

/** What was taken for one call. */
export interface Taken {
  readonly _tag: "Taken"
  /** Replaces the estimate by what was used; what the usage leaves out keeps its estimate. The first wins. */
  readonly settle: (usage: Limits.Usage) => void
}

export type Share =
  | Taken
  | {
      readonly _tag: "Refused"
      readonly key: string
      readonly dimension: "tokens" | "requests"
      readonly asked: number
      readonly left: number
    }

const valid = (value: number | undefined): number | undefined =>
  value !== undefined && value >= 0 && value < Infinity ? value : undefined

/** Tokens of a usage, part by part: input that is not known keeps its estimate, whatever is known of the output. */
const tokensOf = (usage: Limits.Usage, estimate: Limits.Estimate, total: number): number => {
  const whole = valid(usage.tokens)
  if (whole !== undefined) return whole
  const input = valid(usage.inputTokens)
  const output = valid(usage.outputTokens)
  if (input === undefined && output === undefined) return total
  const heldOutput = estimate.outputTokens ?? 0
  const heldInput = estimate.inputTokens ?? Math.max(0, total - heldOutput)
  return (input ?? heldInput) + (output ?? heldOutput)
}

/** Takes an estimate from every counter, or from none and says which had too little left. */
export const take = (counters: ReadonlyArray<Counter>, estimate: Limits.Estimate): Share => {
  const tokens = estimate.tokens ?? (estimate.inputTokens ?? 0) + (estimate.outputTokens ?? 0)
  const calls = estimate.requests ?? 1
  for (const { calls: made, cap, key, tokens: spent } of counters) {
    if (cap.tokens !== undefined && spent + tokens > cap.tokens) {
      return { _tag: "Refused", key, dimension: "tokens", asked: tokens, left: Math.max(0, cap.tokens - spent) }
    }
    if (cap.calls !== undefined && made + calls > cap.calls) {
      return { _tag: "Refused", key, dimension: "requests", asked: calls, left: Math.max(0, cap.calls - made) }
    }
  }
  const add = (moreTokens: number, moreCalls: number): void => {
    for (const counter of counters) {
      counter.tokens += moreTokens
      counter.calls += moreCalls
      counter.changed()
    }
  }
  add(tokens, calls)
  let open = true
  return {
    _tag: "Taken",
    settle: (usage) => {
      if (!open) return
      open = false
      add(tokensOf(usage, estimate, tokens) - tokens, (valid(usage.requests) ?? calls) - calls)
    }
  }
}
