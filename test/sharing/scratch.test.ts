import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Clock from "effect/Clock"
import * as Random from "effect/Random"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"

const makeStore = () => {
  const values = new Map<string, BudgetStore.Stored>()
  const counts = { reads: 0, swaps: 0, conflicts: 0, bytes: 0 }
  const delay = Effect.flatMap(Random.nextBetween(0.3, 1.5), (ms) => Effect.sleep(ms))
  const store: BudgetStore.Store = {
    read: (key) => Effect.andThen(delay, Effect.andThen(Effect.sync(() => { counts.reads++; return values.get(key) }), (v) => Effect.as(delay, v))),
    swap: (key, expected, next) =>
      Effect.andThen(delay, Effect.andThen(Effect.sync(() => {
        counts.swaps++
        counts.bytes = next.value.length
        if (values.get(key)?.version === expected) values.set(key, next)
        else counts.conflicts++
        return values.get(key)
      }), (v) => Effect.as(delay, v)))
  }
  return { store, counts, values }
}

const burstOf = (log: Array<[number, number]>, rate: number) => {
  let most = 0
  for (let i = 0; i < log.length; i++) {
    let sum = 0
    for (let j = i; j < log.length; j++) {
      sum += log[j]![1]
      most = Math.max(most, sum - rate * (log[j]![0] - log[i]![0]) / 1000)
    }
  }
  return most
}

describe("fleet", () => {
  for (const n of [1, 2, 8])
    it.effect(`of ${n}`, () =>
      Effect.gen(function* () {
        const { counts, store } = makeStore()
        const log: Array<[number, number, number]> = []
        const per = 96 / n
        const fleet = Effect.forEach(Array.from({ length: n }, (_, p) => p), (p) =>
          Effect.gen(function* () {
            const budget = yield* Budget.TokenBudget
            yield* Effect.forEach(Array.from({ length: per }, (_, a) => a), (a) =>
              Effect.gen(function* () {
                for (let i = 0; i < 6; i++) {
                  const tokens = Math.ceil(1000 + (yield* Random.next) * 8000)
                  yield* Budget.withReservation({ tokens }, (r) => Effect.gen(function* () {
                    log.push([yield* Clock.currentTimeMillis, tokens, p])
                    yield* Effect.sleep(100)
                    yield* r.settle({ tokens })
                  }), { agent: `a${p}.${a}` })
                }
              }), { concurrency: "unbounded" })
          }).pipe(Effect.provide(Budget.layer({ limits: { tokens: { perSecond: 100_000, burst: 200_000 } } }).pipe(
            Layer.provide(BudgetStore.layer(store, {name: `p${p}`}))))), { concurrency: "unbounded" })
        const start = yield* Clock.currentTimeMillis
        const fiber = yield* Effect.forkChild(fleet)
        const w = Date.now()
        while (fiber.pollUnsafe() === undefined && Date.now() - w < 20000) yield* TestClock.adjust(1)
        const end = log.at(-1)![0]

        const sums = new Map<number, number>()
        const f = log[0]![0]
        for (const [at, t, p] of log) if (at > f + (end-f)*0.1 && at < f + (end-f)*0.85) sums.set(p, (sums.get(p) ?? 0) + t)
        const v = [...sums.values()]
        const s = v.reduce((a, b) => a + b, 0)
        console.log(n, "calls", log.length, "span", end - f, "burst", burstOf(log as any, 100_000), "jain", s*s/(v.length*v.reduce((a,b)=>a+b*b,0)), counts, "per call", (counts.reads+counts.swaps)/log.length, "wall", Date.now()-w)
      }), 60000)
})
