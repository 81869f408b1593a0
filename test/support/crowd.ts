/** Measures what a process remembers of many accounts and agents with occasional calls, next to some whose calls never end. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"

export interface Options {
  readonly accounts: number
  /** Accounts with a call in flight throughout. They begin first, so they are the least recently used. */
  readonly busy: number
  readonly calls: number
  readonly maxPools: number
  /** Calls between two looks. */
  readonly every: number
}

/** What is kept after a number of calls. */
export interface Look {
  readonly calls: number
  readonly pools: number
  /** Busy accounts whose pool is gone or has lost its call. */
  readonly lost: number
  /** Series in the metric registry. */
  readonly series: number
  /** In bytes; 0 unless measured. */
  readonly heap: number
}

export interface Kept {
  /** In bytes, before any call and with the busy accounts; 0 unless measured. */
  readonly heap: { readonly before: number; readonly busy: number }
  readonly looks: ReadonlyArray<Look>
  /** Why busy accounts were refused. */
  readonly refused: ReadonlyArray<string>
  readonly failed: number
  /** Used tokens over all pools, by the metrics. */
  readonly counted: number
}

const limits = { requests: { perMinute: 6_000 }, tokens: { perMinute: 1_000_000 } }
const nameOf = (n: number): string => `api.example.com/${n.toString(16).padStart(12, "0")}`
const callOf = (n: number): Governor.Call => ({ model: "gpt-6", bytes: 400, maxTokens: 100, account: nameOf(n) })

const tagOf = (exit: Exit.Exit<unknown, unknown>): string | undefined => {
  const error = Exit.isFailure(exit) ? Exit.findErrorOption(exit) : undefined
  if (error?._tag !== "Some") return undefined
  return error.value instanceof Budget.BudgetError ? error.value.reason._tag : "another error"
}

/** `heap` measures the heap after a collection, unless that would cost too much. `seen` gets each look. */
export const run = (
  { accounts, busy, calls, every, maxPools }: Options,
  heap: Effect.Effect<number> = Effect.succeed(0),
  seen: (look: Look) => void = () => {}
): Effect.Effect<Kept> =>
  Effect.gen(function* () {
    const registry: Metric.MetricRegistry = new Map()
    const live = Governor.layer().pipe(
      Layer.provideMerge(Budget.layer({ limits, maxPools })),
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, registry))
    )
    const context = yield* Layer.build(Layer.fresh(live))
    const governor = Context.get(context, Governor.Governor)
    const budget = Context.get(context, Budget.TokenBudget)
    const before = yield* heap
    const refused: Array<string> = []
    const admitted: Array<number> = []
    for (let n = 0; n < busy; n++) {
      const opening = governor.open(callOf(n), () => Effect.void, { agent: `agent-${n}` })
      const tag = tagOf(yield* Effect.exit(opening))
      if (tag === undefined) admitted.push(n)
      else refused.push(tag)
    }
    const withBusy = yield* heap
    const looks: Array<Look> = []
    let failed = 0
    for (let done = 1; done <= calls; done++) {
      const n = busy + (done % (accounts - busy))
      const attempt = () => Effect.succeed({ value: 1, actual: { inputTokens: 100, outputTokens: 50 } })
      const exit = yield* Effect.exit(governor.run(callOf(n), attempt, { agent: `agent-${n}` }))
      if (Exit.isFailure(exit)) failed++
      if (done % every > 0) continue
      const { pools } = yield* budget.status
      const lost = admitted.filter((each) => pools[nameOf(each)]?.inFlight !== 1).length
      const series = registry.size
      const look = { calls: done, pools: Object.keys(pools).length, lost, series, heap: yield* heap }
      looks.push(look)
      seen(look)
    }
    const counted = (yield* Effect.provideContext(Metric.snapshot, context)).flatMap(({ attributes, id, state }) =>
      id === "floodgate_tokens" && attributes?.["type"] === "input" ? [Number((state as { count: number }).count)] : []
    )
    return {
      heap: { before, busy: withBusy },
      looks,
      refused,
      failed,
      counted: counted.reduce((sum, count) => sum + count, 0)
    }
  }).pipe(Effect.scoped)
