/**
 * Counts what calls hold and used, up to a cap. Changed in place: a take is all or none, over every counter at once.
 */
import * as Limits from "../Limits.ts"

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

/** Takes an estimate from every counter, or from none and says which had too little left. */
export const take = (counters: ReadonlyArray<Counter>, estimate: Limits.Estimate): Share => {
  const asked = Limits.whole(estimate)
  const { requests: calls, tokens } = asked
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
      const used = Limits.read(usage, asked)
      add(used.tokens - tokens, used.requests - calls)
    }
  }
}
