/**
 * What calls cost that wait at four places, by how their place is chosen: `npm run -s bench -- waitingAtPlaces`. All of them come at once,
 * in simulated time; what is measured is processor time. Each way has a process of its own, and they take turns (`support/inTurns.ts`).
 *
 *     --calls N     (2000)
 *     --rounds N    (5)
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { Simulation } from "floodgate/testing"
import { inProcesses, inTurns, resultsOf, serveTurns, type Turn } from "./support/inTurns.ts"
import { parseArgs } from "node:util"

/** How the place of a call is chosen; `warm` calls go on with a conversation that one of the places has in its cache. */
const ways = ["soonest", "cheapest", "warm"] as const
type Way = (typeof ways)[number]

const promptTokens = 1_000
const names = ["a", "b", "c", "d"]

/** Five calls a second at each place, which answer after a second. */
const placesOf = (way: Way): NonNullable<Governor.Call["places"]> => ({
  places: names.map((name, index) => ({
    name,
    model: "m",
    price: { input: 1 + index, output: 1 + index },
    limits: {
      requests: { perSecond: 5, burst: 5, window: "bucket" },
      inputTokens: { perSecond: 5 * promptTokens, burst: 5 * promptTokens, window: "bucket" }
    }
  })),
  // The cheapest place alone would take four times as long.
  policy: way === "cheapest" ? "cheapest" : "soonest",
  within: way === "cheapest" ? "200 seconds" : undefined
})

/** Makes each call once, so that each conversation has a place, and measures as many calls that follow, all at once. */
const waited = async (way: Way, calls: number): Promise<Turn> => {
  const places = placesOf(way)
  const cacheReadTokens = way === "warm" ? 0.9 * promptTokens : 0
  const actual = { inputTokens: promptTokens - cacheReadTokens, cacheReadTokens, outputTokens: 10 }
  const answer = Effect.as(Effect.sleep("1 second"), { value: undefined, actual })
  const program = Effect.gen(function* () {
    const live = Layer.provideMerge(Governor.layer(), Budget.layer())
    const governor = Context.get(yield* Layer.build(live), Governor.Governor)
    const request = { model: "m", bytes: 0, inputTokens: promptTokens, maxTokens: 10, places }
    const all = (only?: (n: number) => string) =>
      Effect.forEach(
        Array.from({ length: calls }, (_, n) => n),
        (n) => governor.run(request, () => answer, { agent: `agent ${n}`, places: only && [only(n)] }),
        { concurrency: "unbounded", discard: true }
      )
    yield* all((n) => names[n % names.length]!)
    yield* Effect.sleep("10 minutes")
    return yield* measured(calls, all())
  }).pipe(Effect.scoped)
  return (await Effect.runPromise(Simulation.run(program))).value
}

const measured = <A, E>(count: number, run: Effect.Effect<A, E>): Effect.Effect<Turn, E> =>
  Effect.suspend(() => {
    const from = performance.now()
    const before = process.cpuUsage()
    return Effect.map(run, () => {
      const { system, user } = process.cpuUsage(before)
      return { count, micros: system + user, seconds: (performance.now() - from) / 1_000 }
    })
  })

const { values: options } = parseArgs({
  options: { calls: { type: "string", default: "2000" }, rounds: { type: "string", default: "5" } },
  allowPositionals: true
})
if (process.send === undefined) {
  const { contenders, end } = inProcesses(import.meta.filename, ways, (way) => `${way}|${options.calls}`)
  const measured = await inTurns(contenders, { rounds: Number(options.rounds), warmups: 1 })
  end()
  console.log(resultsOf(`${options.calls} calls at four places`, "call", measured))
} else {
  const [way, calls] = process.argv[2]!.split("|")
  serveTurns(() => waited(way as Way, Number(calls)))
}
