/**
 * One job over two places: `npm run -s bench -- places`. It measures how long the job takes compared with the best possible order, how
 * many requests are rejected, and how many calls are lost. Virtual time, the simulated provider, token buckets, free rejections.
 *
 *     --seeds N    (3)
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"
import { parseArgs } from "node:util"
import { cacheReadShare } from "./places/conversations.ts"
import { flex } from "./places/flex.ts"
import { agents, callsOf, providerOf, type Shape, shapes } from "./places/shapes.ts"
import { type PlacesStrategy, type RunningPlace, strategies } from "./places/strategies.ts"

const { values: options } = parseArgs({ options: { seeds: { type: "string", default: "3" } } })
const seeds = Array.from({ length: Number(options.seeds) }, (_, n) => n + 1)

const paramsOf = (tokens: number, agent: string): Params => ({
  model: "claude-sonnet-5",
  max_tokens: 200,
  metadata: { user_id: agent },
  messages: [{ role: "user", content: "x".repeat(4 * tokens) }]
})

const running = (shape: Shape, place: 0 | 1, seed: number) =>
  Effect.map(Layer.build(Layer.fresh(providerOf(shape, place, seed))), (context): RunningPlace => ({
    provider: Context.get(context, LlmProvider),
    sim: Context.get(context, ProviderSim.ProviderSim)
  }))

/** Runs the job, and returns what each call came to. */
const job = (shape: Shape, strategy: PlacesStrategy, seed: number) =>
  Effect.gen(function* () {
    const places = [yield* running(shape, 0, seed), yield* running(shape, 1, seed)] as const
    const call = yield* strategy.make(shape, places, seed)
    let lost = 0
    const agent = (n: number) =>
      Effect.forEach(callsOf(n, seed), (tokens) =>
        Effect.map(Effect.exit(call(paramsOf(tokens, `agent ${n}`), tokens, `agent ${n}`)), (exit) => {
          if (Exit.isFailure(exit)) lost++
        })
      )
    yield* Effect.forEach(
      Array.from({ length: agents }, (_, n) => n),
      agent,
      { concurrency: "unbounded" }
    )
    const stats = yield* Effect.forEach(places, ({ sim }) => sim.stats)
    const sum = (of: "requests" | "rejected"): number => stats.reduce((all, each) => all + each[of], 0)
    return { lost, rejected: sum("rejected"), requests: sum("requests") }
  }).pipe(Effect.scoped)

const measured = async (shape: Shape, strategy: PlacesStrategy) => {
  const runs: Array<{ lost: number; rejected: number; requests: number; seconds: number }> = []
  for (const seed of seeds) {
    const { duration, value } = await Effect.runPromise(Simulation.run(job(shape, strategy, seed), { seed }))
    runs.push({ ...value, seconds: Duration.toSeconds(duration) })
  }
  const mean = (of: (run: (typeof runs)[number]) => number): number =>
    runs.reduce((sum, run) => sum + of(run), 0) / runs.length
  return {
    seconds: mean(({ seconds }) => seconds),
    rejected: mean(({ rejected, requests }) => rejected / requests),
    lost: runs.reduce((sum, { lost }) => sum + lost, 0)
  }
}

console.log("| two places | strategy | makespan | to the oracle | 429s | lost |")
console.log("| --- | --- | ---: | ---: | ---: | ---: |")
for (const shape of shapes) {
  const results: Array<Awaited<ReturnType<typeof measured>> & { readonly name: string }> = []
  for (const strategy of strategies) results.push({ name: strategy.name, ...(await measured(shape, strategy)) })
  const best = results.at(-1)!.seconds
  for (const { lost, name, rejected, seconds } of results) {
    const ratio = (seconds / best).toFixed(3)
    console.log(
      `| ${shape.name} | ${name} | ${seconds.toFixed(1)} s | ${ratio} | ${(100 * rejected).toFixed(1)} % | ${lost} |`
    )
  }
}

console.log("\n| 40 conversations of 20 turns | read from caches |")
console.log("| --- | ---: |")
for (const rates of [[10_000], [5_000, 5_000], [2_000, 8_000]]) {
  const shares = await Promise.all(seeds.map((seed) => cacheReadShare(rates, seed)))
  const share = shares.reduce((sum, each) => sum + each, 0) / shares.length
  console.log(`| ${rates.map((rate) => `${rate}/s`).join(" and ")} | ${(100 * share).toFixed(1)} % |`)
}

console.log("\n| flex tier, 30 % refused | cost to standard | at the standard tier | deadlines missed |")
console.log("| --- | ---: | ---: | ---: |")
for (const isStreamed of [true, false]) {
  for (const seed of seeds) {
    const { cost, missed, standard } = await flex(seed, isStreamed)
    const what = isStreamed ? "streams" : "whole answers"
    console.log(`| ${what}, seed ${seed} | ${cost.toFixed(3)} | ${standard} of 400 | ${missed} |`)
  }
}
