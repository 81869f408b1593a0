/**
 * Counts what calls hold and used, up to a cap. Changed in place: a take is all or none, over every counter at once.
 */
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"

/** What one agent, or one job, holds and has used. */
export interface Counter {
  /** The agent that it counts for; undefined for a job's. */
  readonly agent: string | undefined
  readonly cap: { readonly tokens?: number | undefined; readonly calls?: number | undefined }
  readonly changed: () => void
  /** Open calls as estimated, closed ones as used. */
  tokens: number
  calls: number
}

export const make = (agent: string | undefined, cap: Counter["cap"], changed: () => void): Counter => ({
  agent,
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

/** Which counter had too little left. */
export interface Refused {
  readonly _tag: "Refused"
  readonly agent: string | undefined
  readonly unit: "tokens" | "calls"
  readonly asked: number
  readonly left: number
  readonly limit: number
}

export type Share = Taken | Refused

/** Which counter has too little left for an estimate, if one has. */
export const refusalOf = (counters: ReadonlyArray<Counter>, estimate: Limits.Estimate): Refused | undefined => {
  const { requests: calls, tokens } = Amounts.whole(estimate)
  for (const { agent, calls: made, cap, tokens: spent } of counters) {
    const asks = [
      { unit: "tokens", asked: tokens, used: spent, limit: cap.tokens ?? Infinity },
      { unit: "calls", asked: calls, used: made, limit: cap.calls ?? Infinity }
    ] as const
    for (const { asked, limit, unit, used } of asks) {
      if (used + asked > limit) {
        return { _tag: "Refused", agent, unit, asked, left: Math.max(0, limit - used), limit }
      }
    }
  }
  return undefined
}

/** Takes an estimate from every counter, or from none and says which had too little left. */
export const take = (counters: ReadonlyArray<Counter>, estimate: Limits.Estimate): Share => {
  const refused = refusalOf(counters, estimate)
  if (refused !== undefined) return refused
  const { requests: calls, tokens } = Amounts.whole(estimate)
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
      // As the budget reads it: one usage has one meaning.
      const used = Amounts.used({ requests: calls, tokens }, usage, estimate)
      add(used.tokens! - tokens, used.requests! - calls)
    }
  }
}
