/** How soon it is noticed that a spent window has been opened early, and how many requests that takes. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited } from "floodgate/LlmError"
import * as Signals from "floodgate/Signals"
import { MapStore } from "../support/store.ts"

const minute = 60_000
/** The window is spent for five hours, and opens after one and some minutes. Processes begin three minutes apart. */
const hour = 60 * minute
const apart = 3 * minute
const calls = 20

type Opening = "an early reset" | "bought credits"

/** What headers say before and after the window opens. */
const headersOf = (how: Opening | undefined, resetsAt: number) =>
  Signals.fromHeaders({
    "anthropic-ratelimit-unified-status": how === undefined ? "rejected" : "allowed",
    "anthropic-ratelimit-unified-representative-claim": "five_hour",
    "anthropic-ratelimit-unified-5h-utilization": how === "an early reset" ? "0.01" : "1",
    "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000),
    ...(how === "bought credits" && { "anthropic-ratelimit-unified-overage-status": "allowed" })
  })

/** Calls that wait in each process, and a window that opens at a time: when each request was sent, and whether it was rejected. */
const play = (how: Opening, opensAt: number, stores: ReadonlyArray<BudgetStore.Store | undefined>) =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeMillis
    const sent: Array<{ readonly at: number; readonly isRejected: boolean }> = []
    const call = Effect.flatMap(Governor.Governor, (governor) =>
      governor.run(
        { model: "m", bytes: 10, maxTokens: 10, account: "key" },
        () =>
          Effect.gen(function* () {
            const at = (yield* Clock.currentTimeMillis) - began
            const isRejected = at < opensAt
            sent.push({ at, isRejected })
            yield* Effect.sleep("1 second")
            const signal = headersOf(isRejected ? undefined : how, began + 5 * hour)
            if (isRejected) return yield* new LlmError({ reason: new RateLimited({ status: 429, signal }) })
            return { value: "", actual: { inputTokens: 1, outputTokens: 1 }, signal }
          }),
        { maxWait: "6 hours", priority: 1 }
      )
    )
    for (const store of stores) {
      const context = yield* Layer.build(
        Governor.layer({ windows: { "5h": { share: 0.9 } } }).pipe(
          Layer.provide(Budget.layerUnlimited),
          Layer.provide(store === undefined ? Layer.empty : BudgetStore.layer(store))
        )
      )
      yield* Effect.forkChild(Effect.provideContext(call, context))
      yield* TestClock.adjust("5 seconds")
      for (let n = 1; n < calls; n++) yield* Effect.forkChild(Effect.provideContext(call, context))
      yield* TestClock.adjust(apart - 5_000)
    }
    const done = calls * stores.length
    const answered = () => sent.filter(({ isRejected }) => !isRejected)
    for (let n = 0; n < 1_000 && answered().length < done; n++) yield* TestClock.adjust("5 seconds")
    const open = answered().map(({ at }) => at)
    assert.lengthOf(open, done)
    const first = Math.min(...open)
    return {
      minutes: (first - opensAt) / minute,
      followed: (Math.max(...open) - first) / 1_000,
      // The first request of each process was no try.
      perHour: (sent.length - done - stores.length) / (opensAt / hour)
    }
  }).pipe(Effect.scoped)

const mean = (all: ReadonlyArray<number>): number => all.reduce((sum, each) => sum + each, 0) / all.length

describe("a window that opens early", () => {
  const shared = () => {
    const store = new MapStore()
    return [store, store]
  }
  // [what, the stores of its processes, most minutes on average, most minutes, most requests an hour, most seconds until all follow]
  const rows = [
    ["one process", () => [undefined], 5.5, 10.1, 6, 10],
    ["two processes with a store", shared, 5.5, 10.1, 6, 10],
    // Each of them notices it by itself.
    ["two processes without one", () => [undefined, undefined], 4, 7.1, 12, 600]
  ] as const

  it.effect.each(
    rows.flatMap((row) => (["an early reset", "bought credits"] as const).map((how) => [how, row[0], row] as const))
  )(
    "is noticed in minutes, and all follow within 10 s: %s, %s",
    ([how, what, [, stores, meanMinutes, most, perHour, seconds]]) =>
      Effect.gen(function* () {
        const all: Array<Effect.Success<ReturnType<typeof play>>> = []
        for (let n = 0; n < 20; n++) {
          all.push(yield* play(how, hour + (n * minute) / 2 + 15_000, stores()))
        }
        const minutes = all.map(({ minutes }) => minutes)
        const requests = mean(all.map((each) => each.perHour))
        if (process.env["FLOODGATE_TABLE"] !== undefined) {
          const figures = [mean(minutes), Math.max(...minutes), requests].map((figure) => figure.toFixed(1))
          console.log(`${how}, ${what}: ${figures.join(", ")}, ${Math.max(...all.map(({ followed }) => followed))} s`)
        }
        assert.isAtMost(mean(minutes), meanMinutes)
        assert.isAtMost(Math.max(...minutes), most)
        assert.isAtLeast(Math.min(...minutes), 0)
        assert.isAtMost(requests, perHour)
        for (const { followed } of all) assert.isAtMost(followed, seconds)
      })
  )
})
