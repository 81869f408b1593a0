/** How long a provider keeps a prefix that states nothing about it, learned from what was read of prefixes of each age. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmProvider } from "floodgate/LlmProvider"
import { protocols } from "floodgate/protocol"
import { ProviderSim } from "floodgate/testing"

const { openaiChat } = protocols

const minute = 60_000

/** A provider that caches by itself, for so long, and limits what is not read from its cache. */
const world = (minutes: number) =>
  Layer.fresh(
    Layer.mergeAll(
      ProviderSim.layer({
        cache: "automatic",
        cacheMillis: minutes * minute,
        outputTokens: 5,
        latency: { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
      }),
      Layer.provide(
        Governor.layer({ accounting: { ...Accounting.anthropic, poolOf: undefined } }),
        Budget.layer({ limits: { inputTokens: { total: 1e12 } } })
      )
    )
  )

const text = (tokens: number, name: string) => name.padEnd(8, ".").repeat(tokens / 2)

/** Makes the next call of a conversation. Returns what it was expected to take from the limit, and what it took. */
const turn = Effect.fnUntraced(function* (name: string, turns: number) {
  const messages = Array.from({ length: turns }, (_, n) => ({
    role: n % 2 === 0 ? ("user" as const) : ("assistant" as const),
    content: text(n === 0 ? 20_000 : 500, `${name} ${n}`)
  }))
  const governor = yield* Governor.Governor
  const provider = yield* LlmProvider
  const route = openaiChat.match("POST", "/v1/chat/completions")!
  const { bytes, prefixes } = openaiChat.describe({ model: "g", messages }, route)!
  return yield* governor.run({ model: "g", bytes, prefixes, maxTokens: 10 }, ({ reservation }) =>
    Effect.map(provider.create({ model: "g", max_tokens: 10, messages }), ({ value: { usage } }) => {
      const { cache_creation_input_tokens: written, cache_read_input_tokens: read, input_tokens: rest } = usage
      const inputTokens = rest + (written ?? 0)
      return {
        value: { predicted: reservation.charge.inputTokens!, used: inputTokens },
        actual: { inputTokens, cacheReadTokens: read ?? 0, outputTokens: usage.output_tokens }
      }
    })
  )
})

/** Lets conversations pause for so long, several times. */
const paused = Effect.fnUntraced(function* (minutes: number, times: number, name = `${minutes}`) {
  yield* turn(name, 1)
  for (let n = 1; n <= times; n++) {
    yield* TestClock.adjust(minutes * minute)
    yield* turn(name, 2 * n + 1)
  }
})

/** What a call after a pause is expected to take, and takes. */
const after = Effect.fnUntraced(function* (minutes: number) {
  yield* turn(`after ${minutes}`, 1)
  yield* TestClock.adjust(minutes * minute)
  return yield* turn(`after ${minutes}`, 3)
})

describe("a provider that does not say how long it keeps a prefix", () => {
  it.effect("is relied on for half an hour once it was seen that it keeps it so long", () =>
    Effect.gen(function* () {
      yield* paused(1, 4)
      // Five minutes are what is stated for such providers.
      const early = yield* after(25)
      assert.isTrue(early.predicted > 20_000 && early.used < 2_000, JSON.stringify(early))
      yield* paused(25, 4)
      yield* paused(40, 4)
      for (const minutes of [1, 8, 15, 25]) {
        const { predicted, used } = yield* after(minutes)
        assert.isTrue(used < 2_000 && Math.abs(predicted - used) < 500, `${minutes}: ${predicted}, ${used}`)
      }
      const late = yield* after(40)
      assert.isTrue(late.predicted > 20_000 && late.used > 20_000, JSON.stringify(late))
    }).pipe(Effect.provide(world(30)))
  )

  it.effect("is not relied on after two minutes once it was seen that it drops it then", () =>
    Effect.gen(function* () {
      yield* paused(1, 4)
      const early = yield* after(4)
      assert.isTrue(early.predicted < 2_000 && early.used > 20_000, JSON.stringify(early))
      yield* paused(4, 4)
      yield* paused(1, 8)
      const late = yield* after(4)
      assert.isTrue(late.predicted > 20_000 && late.used > 20_000, JSON.stringify(late))
      for (const minutes of [0.5, 1.5]) {
        const { predicted, used } = yield* after(minutes)
        assert.isTrue(used < 2_000 && Math.abs(predicted - used) < 500, `${minutes}: ${predicted}, ${used}`)
      }
    }).pipe(Effect.provide(world(2)))
  )

  it.effect("does not change what is known of another pool's", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const route = openaiChat.match("POST", "/v1/chat/completions")!
      const ask = (account: string, name: string, read: number) => {
        const messages = [{ role: "user", content: text(20_000, name) }]
        const { bytes, prefixes } = openaiChat.describe({ model: "g", messages }, route)!
        const actual = { inputTokens: 20_000 - read, cacheReadTokens: read, outputTokens: 5 }
        return governor.run({ model: "g", account, bytes, prefixes, maxTokens: 10 }, ({ reservation }) =>
          Effect.succeed({ value: reservation.charge.inputTokens!, actual })
        )
      }
      for (const account of ["g", "h"]) for (let n = 0; n < 4; n++) yield* ask(account, "young", n === 0 ? 0 : 20_000)
      for (let n = 0; n < 4; n++) {
        yield* ask("g", "old", 0)
        yield* ask("h", "old", 0)
        yield* TestClock.adjust(3 * minute)
      }
      // Prefixes of three minutes were not read in either pool, and then in one they were.
      for (let n = 0; n < 8; n++) {
        yield* ask("h", "old", 20_000)
        yield* TestClock.adjust(3 * minute)
      }
      yield* ask("g", "new", 0)
      yield* ask("h", "new", 0)
      yield* TestClock.adjust(3 * minute)
      assert.isAtLeast(yield* ask("g", "new", 0), 20_000)
      assert.isBelow(yield* ask("h", "new", 20_000), 500)
    }).pipe(Effect.provide(world(5)))
  )
})
