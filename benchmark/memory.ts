/**
 * Is what a process remembers bounded? `npm run -s bench -- memory`, about two minutes.
 *
 * A million governed calls of 200,000 accounts, each with an agent of its own, under limits that the user states. A tenth of the
 * accounts have a call under way throughout. Every 100,000 calls: the heap after a collection, the pools that are open, those in
 * use that are gone, and the series in the registry of metrics. Fails when the heap has grown by more than a tenth after the first
 * 200,000 calls, or when a pool in use was forgotten.
 *
 * `--busy 20000` says how many accounts are busy, `--accounts`, `--calls` and `--pools` (the option `maxPools`) the rest.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { parseArgs } from "node:util"

const collect = globalThis.gc
if (collect === undefined) throw new Error("memory: run it with --expose-gc, as npm run bench does")

const { values } = parseArgs({
  options: {
    accounts: { type: "string", default: "200000" },
    busy: { type: "string", default: "20000" },
    calls: { type: "string", default: "1000000" },
    pools: { type: "string", default: "25000" }
  }
})
const accounts = Number(values.accounts)
const busy = Number(values.busy)
const calls = Number(values.calls)
const maxPools = Number(values.pools)

/** Megabytes that are alive after a collection. */
const heap = async (): Promise<number> => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed / 1e6
}

const limits = { requests: { perMinute: 6_000 }, tokens: { perMinute: 1_000_000 } }
const registry: Metric.MetricRegistry = new Map()
const scope = Effect.runSync(Scope.make())
const context = await Effect.runPromise(
  Scope.provide(
    Layer.build(
      Governor.layer().pipe(
        Layer.provideMerge(Budget.layer({ limits, maxPools })),
        Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, registry))
      )
    ),
    scope
  )
)
const governor = Context.get(context, Governor.Governor)
const budget = Context.get(context, Budget.TokenBudget)
const run = Effect.runPromiseWith(context)

const nameOf = (n: number): string => `api.example.com/${n.toString(16).padStart(12, "0")}`
const callOf = (n: number) => ({ model: "gpt-6", bytes: 400, maxTokens: 100, account: nameOf(n) })

// The busy ones come first, so that they are the least recently used.
const before = await heap()
const held = await run(
  Effect.forEach(
    Array.from({ length: busy }, (_, n) => n),
    (n) =>
      Effect.exit(
        Scope.provide(
          governor.open(callOf(n), () => Effect.void, { agent: `agent-${n}` }),
          scope
        )
      )
  )
)
const admitted = held.flatMap((exit, n) => (Exit.isSuccess(exit) ? [n] : []))
const refused = new Set(
  held.flatMap((exit) => {
    const error = Exit.isFailure(exit) ? Exit.findErrorOption(exit) : undefined
    return error?._tag === "Some" && error.value instanceof Budget.BudgetError ? [error.value.reason._tag] : []
  })
)
const withBusy = await heap()
console.log(
  `${busy} accounts with a call under way: ${admitted.length} admitted, others ${[...refused].join() || "none"}`
)
console.log(`heap ${before.toFixed(1)} MB before, ${withBusy.toFixed(1)} MB with them`)
console.log(`     ${((1e3 * (withBusy - before)) / admitted.length).toFixed(1)} KB for each, its call included`)

const samples: Array<number> = []
const lost = new Set<number>()
let failed = 0
let micros = 0
for (let from = 0; from < calls; from += 100_000) {
  const done = Math.min(calls, from + 100_000)
  const started = process.cpuUsage()
  const batch = Effect.gen(function* () {
    for (let i = from; i < done; i++) {
      const n = busy + (i % (accounts - busy))
      const attempt = () => Effect.succeed({ value: 1, actual: { inputTokens: 100, outputTokens: 50 } })
      const exit = yield* Effect.exit(governor.run(callOf(n), attempt, { agent: `agent-${n}` }))
      if (Exit.isFailure(exit)) failed++
    }
  })
  await run(batch)
  const { system, user } = process.cpuUsage(started)
  micros += user + system
  const { pools } = await run(budget.status)
  for (const n of admitted) if (pools[nameOf(n)]?.inFlight !== 1) lost.add(n)
  samples.push(await heap())
  const shown = [`${done} calls`, `${samples.at(-1)!.toFixed(1)} MB`, `${Object.keys(pools).length} pools`]
  console.log([...shown, `${lost.size} busy ones lost`, `${registry.size} series`, `${failed} failed`].join(", "))
}
console.log(`${(micros / calls).toFixed(1)} us of processor time a call`)

const settled = samples.slice(1)
const grown = Math.max(...settled) / settled[0]! - 1
console.log(`heap after the first 200,000 calls: ${(100 * grown).toFixed(1)} % above the first sample at the most`)
const isFine = grown <= 0.1 && lost.size === 0
console.log(isFine ? "ok" : "FAIL")
process.exit(isFine ? 0 : 1)
