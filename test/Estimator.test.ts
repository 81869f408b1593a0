import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Accounting from "floodgate/Accounting"
import * as Estimator from "floodgate/Estimator"

const call: Estimator.Call = { pool: "opus", kind: "summary", bytes: 2_700 }

const used = (inputTokens: number, outputTokens: number, cacheReadTokens?: number): Accounting.Actual => ({
  inputTokens,
  cacheReadTokens,
  outputTokens
})

const learnOutputs = (estimator: Estimator.Estimator["Service"], call: Estimator.Call, outputs: Iterable<number>) =>
  Effect.forEach(outputs, (output) => estimator.learn(call, used(1_000, output)), { discard: true })

const oneTo = (n: number) => Array.from({ length: n }, (_, index) => index + 1)

/** A normal deviate, by Box and Muller. */
const normal = Effect.gen(function* () {
  const radius = Math.sqrt(-2 * Math.log(1 - (yield* Random.next)))
  return radius * Math.cos(2 * Math.PI * (yield* Random.next))
})

const lognormal = (median: number, sigma: number) =>
  Effect.map(normal, (deviate) => Math.round(median * Math.exp(sigma * deviate)))

describe("Estimator", () => {
  describe("input", () => {
    it.effect("counts 2.7 bytes as a token until it has learned", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        assert.strictEqual((yield* estimator.estimate(call)).inputTokens, 1_000)
      })
    )

    it.effect("learns the tokens per byte of each pool and kind", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        for (let n = 0; n < 40; n++) yield* estimator.learn(call, used(1_350, 10))
        assert.strictEqual((yield* estimator.estimate({ ...call, bytes: 5_400 })).inputTokens, 2_701)
        for (let n = 0; n < 40; n++) yield* estimator.learn({ ...call, kind: "review" }, used(2_700, 10))
        assert.strictEqual((yield* estimator.estimate(call)).inputTokens, 1_351)
        assert.strictEqual((yield* estimator.estimate({ ...call, pool: "haiku" })).inputTokens, 1_000)
      })
    )

    it.effect("borrows the tokens per byte of the pool for a new kind, but not its cached share", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        for (let n = 0; n < 40; n++) yield* estimator.learn(call, used(0, 10, 1_350))
        assert.strictEqual((yield* estimator.estimate(call)).inputTokens, 1)
        assert.strictEqual((yield* estimator.estimate({ ...call, kind: "review" })).inputTokens, 1_351)
      })
    )

    it.effect("uses an exact number as it is", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        yield* estimator.learn(call, used(5_000, 10))
        assert.strictEqual((yield* estimator.estimate({ ...call, inputTokens: 1_234 })).inputTokens, 1_234)
      })
    )

    it.effect("expects less from the cache than was read from it", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        const exact = { ...call, inputTokens: 1_000 }
        yield* estimator.learn(call, used(200, 10, 800))
        assert.strictEqual((yield* estimator.estimate(exact)).inputTokens, 400)
        for (let n = 0; n < 40; n++) yield* estimator.learn(call, used(200, 10, 800))
        assert.closeTo((yield* estimator.estimate(exact)).inputTokens!, 200, 1)
      })
    )

    it.effect("does not rely on a cache that is hit sometimes", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        for (let n = 0; n < 40; n++) yield* estimator.learn(call, n % 2 === 0 ? used(1_000, 10) : used(100, 10, 900))
        assert.strictEqual((yield* estimator.estimate({ ...call, inputTokens: 1_000 })).inputTokens, 1_000)
      })
    )

    it.effect("is too low for at most one call in ten if sizes vary", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        let over = 0
        for (let n = 0; n < 2_000; n++) {
          const bytes = 1_000 + Math.round(100_000 * (yield* Random.next))
          const actual = Math.round((bytes / 2.2) * (1 + 0.1 * (yield* normal)))
          const { inputTokens } = yield* estimator.estimate({ ...call, bytes })
          if (n > 0 && inputTokens! < actual) over++
          yield* estimator.learn({ ...call, bytes }, used(actual, 10))
        }
        assert.isBelow(over / 2_000, 0.1)
      }).pipe(Random.withSeed("input"))
    )
  })

  describe("output", () => {
    it.effect("expects 4,096 tokens until 30 calls are known, and four times as much with thinking", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        const output = (extra: Partial<Estimator.Call>) =>
          Effect.map(estimator.estimate({ ...call, ...extra }), ({ outputTokens }) => outputTokens)
        assert.strictEqual(yield* output({}), 4_096)
        assert.strictEqual(yield* output({ thinking: true }), 16_384)
        assert.strictEqual(yield* output({ maxTokens: 1_000 }), 1_000)
        yield* learnOutputs(estimator, call, oneTo(29))
        assert.strictEqual(yield* output({}), 4_096)
        yield* learnOutputs(estimator, call, [30])
        // The 30th of 30 values, and 15 % more.
        assert.strictEqual(yield* output({}), 35)
        assert.strictEqual(yield* output({ maxTokens: 20 }), 20)
      })
    )

    it.effect("expects more than 4,096 tokens at once when it has seen more", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        yield* learnOutputs(estimator, call, [10_000])
        assert.strictEqual((yield* estimator.estimate(call)).outputTokens, 11_500)
      })
    )

    it.effect("borrows the outputs of the pool until 30 calls of a kind are known", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        const own = { ...call, kind: "agent 31" }
        for (let n = 1; n <= 30; n++) {
          yield* learnOutputs(estimator, { ...call, kind: `agent ${n}` }, [100])
        }
        assert.strictEqual((yield* estimator.estimate(own)).outputTokens, 115)
        yield* learnOutputs(estimator, own, [200])
        assert.strictEqual((yield* estimator.estimate(own)).outputTokens, 230)
        yield* learnOutputs(
          estimator,
          own,
          Array.from({ length: 29 }, () => 50)
        )
        assert.strictEqual((yield* estimator.estimate(own)).outputTokens, 230)
        yield* learnOutputs(
          estimator,
          own,
          Array.from({ length: 30 }, () => 50)
        )
        assert.strictEqual((yield* estimator.estimate(own)).outputTokens, 58)
      })
    )

    it.effect("takes the 99th percentile of thinking models", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        yield* learnOutputs(estimator, call, oneTo(256))
        assert.strictEqual((yield* estimator.estimate(call)).outputTokens, Math.ceil(245 * 1.15))
        assert.strictEqual((yield* estimator.estimate({ ...call, thinking: true })).outputTokens, Math.ceil(255 * 1.15))
      })
    )

    it.effect("learns an answer that was cut off at maxTokens only if it is longer than expected", () =>
      Effect.gen(function* () {
        // Regression: after thirty calls with max_tokens 1, which warm a cache, the next call reserved 2 of 32,000 tokens.
        const estimator = yield* Estimator.make()
        const output = Effect.map(estimator.estimate(call), ({ outputTokens }) => outputTokens)
        const cut = (maxTokens: number, times = 1) =>
          learnOutputs(
            estimator,
            { ...call, maxTokens },
            Array.from({ length: times }, () => maxTokens)
          )
        yield* cut(1, 30)
        assert.strictEqual(yield* output, 4_096)
        yield* cut(5_000)
        assert.strictEqual(yield* output, 5_750)
        yield* learnOutputs(estimator, call, oneTo(256))
        assert.strictEqual(yield* output, Math.ceil(245 * 1.15))
        yield* cut(244, 30)
        assert.strictEqual(yield* output, Math.ceil(245 * 1.15))
        yield* cut(300, 30)
        assert.strictEqual(yield* output, 345)
        // The input of each is learned.
        assert.strictEqual((yield* estimator.estimate(call)).inputTokens, 1_000)
      })
    )

    it.effect("covers the sum of calls that are often cut off at the same maxTokens", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        const limited = { ...call, maxTokens: 500, together: 64 }
        let reserved = 0
        let used = 0
        for (let n = 0; n < 1_000; n++) {
          const output = Math.min(500, yield* lognormal(500, 0.8))
          const { outputTokens } = yield* estimator.estimate(limited)
          if (n >= 100) {
            reserved += outputTokens!
            used += output
          }
          yield* learnOutputs(estimator, limited, [output])
        }
        assert.isAtLeast(reserved / used, 1)
      }).pipe(Random.withSeed("cut"))
    )

    it.effect("forgets all but the last 256 calls", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        yield* learnOutputs(
          estimator,
          call,
          Array.from({ length: 100 }, () => 50_000)
        )
        yield* learnOutputs(estimator, call, oneTo(256))
        assert.strictEqual((yield* estimator.estimate(call)).outputTokens, Math.ceil(245 * 1.15))
      })
    )

    for (const sigma of [0.3, 0.7, 1.2]) {
      it.effect(`covers at least 93 % of the next calls when outputs are lognormal with sigma ${sigma}`, () =>
        Effect.gen(function* () {
          const estimator = yield* Estimator.make()
          let covered = 0
          let asked = 0
          let reserved = 0
          for (let n = 0; n < 4_000; n++) {
            const output = yield* lognormal(800, sigma)
            const { outputTokens } = yield* estimator.estimate(call)
            if (n >= 30) {
              asked++
              reserved += outputTokens!
              if (output <= outputTokens!) covered++
            }
            yield* learnOutputs(estimator, call, [output])
          }
          assert.isAtLeast(covered / asked, 0.93)
          // It stays far below a max_tokens of 64,000.
          assert.isBelow(reserved / asked, 8_000)
        }).pipe(Random.withSeed(`lognormal ${sigma}`))
      )
    }

    for (const together of [1, 4, 16, 64]) {
      it.effect(`covers the sum of ${together} calls that run together at least 93 times in 100`, () =>
        Effect.gen(function* () {
          const estimator = yield* Estimator.make()
          yield* learnOutputs(estimator, call, yield* Effect.replicateEffect(lognormal(400, 0.8), 256))
          const { outputTokens } = yield* estimator.estimate({ ...call, together })
          let covered = 0
          for (let n = 0; n < 400; n++) {
            const outputs = yield* Effect.replicateEffect(lognormal(400, 0.8), together)
            if (outputs.reduce((sum, output) => sum + output, 0) <= together * outputTokens!) covered++
          }
          assert.isAtLeast(covered / 400, 0.93)
          // A call that runs alone reserves more.
          const alone = (yield* estimator.estimate(call)).outputTokens!
          assert.isAtMost(outputTokens!, alone)
          if (together === 64) assert.isBelow(outputTokens!, alone * 0.55)
        }).pipe(Random.withSeed(together))
      )
    }

    it.effect.prop(
      "is never more than maxTokens",
      {
        outputs: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200_000 }))),
        maxTokens: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 128_000 })),
        thinking: Schema.Boolean
      },
      ({ maxTokens, outputs, thinking }) =>
        Effect.gen(function* () {
          const estimator = yield* Estimator.make()
          yield* learnOutputs(estimator, call, outputs)
          const { outputTokens } = yield* estimator.estimate({ ...call, maxTokens, thinking })
          assert.isAtMost(outputTokens!, maxTokens)
        })
    )
  })

  describe("make", () => {
    it.effect("counts by the accounting of the provider", () =>
      Effect.gen(function* () {
        const { accounting, estimate } = yield* Estimator.make({ accounting: Accounting.azure })
        assert.strictEqual(accounting, Accounting.azure)
        assert.strictEqual((yield* estimate({ ...call, maxTokens: 2_000 })).tokens, 3_000)
      })
    )

    it.effect("ignores the usage in a broken response", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        for (const value of [Number.NaN, Infinity, -1]) {
          yield* estimator.learn(call, used(value, value, value))
          yield* estimator.learn(call, used(0, value))
        }
        assert.deepStrictEqual(yield* estimator.estimate(call), { inputTokens: 1_000, outputTokens: 4_096 })
        yield* estimator.learn({ ...call, bytes: 0 }, used(10, 10))
        assert.strictEqual((yield* estimator.estimate(call)).inputTokens, 1_000)
      })
    )

    it.effect("ignores a prefix that no call can have", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        const prefix = { tokens: 500, bytes: 1_000, cachedTokens: 500, unusedFor: 0 }
        for (const value of [Number.NaN, Infinity, -1]) {
          yield* estimator.learn({ ...call, prefix: { ...prefix, cachedTokens: value } }, used(500, 10, 500))
          yield* estimator.learn({ ...call, prefix: { ...prefix, unusedFor: value } }, used(500, 10, 500))
        }
        const learned = yield* estimator.learned
        assert.isTrue(Schema.is(Estimator.Learned)(learned), JSON.stringify(learned))
        assert.deepStrictEqual(
          learned.profiles.flatMap(({ hits = [] }) => hits),
          []
        )
      })
    )

    it.effect("ignores amounts that no call can use", () =>
      Effect.gen(function* () {
        // Regression: after one usage of 1e300, every later call of the pool failed with a defect.
        const estimator = yield* Estimator.make()
        for (const value of [1e300, 1e12 + 1]) {
          yield* estimator.learn(call, used(value, value, value))
          yield* estimator.learn(call, used(6e11, value, 6e11))
        }
        assert.deepStrictEqual(yield* estimator.estimate(call), { inputTokens: 1_000, outputTokens: 4_096 })
        yield* estimator.learn({ ...call, bytes: 1 }, used(1e12, 1e12))
        assert.deepStrictEqual(yield* estimator.estimate(call), { inputTokens: 1e12, outputTokens: 1e12 })
      })
    )

    it.effect("forgets the least recently used kind beyond 1,000", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.make()
        // The profile of the whole pool is one more.
        const kinds = oneTo(999).map((n) => ({ ...call, kind: `agent ${n}` }))
        yield* Effect.forEach(kinds, (kind) => estimator.learn(kind, used(500, 10)))
        yield* estimator.estimate(kinds[0]!)
        yield* estimator.learn(call, used(500, 10))
        const { profiles } = yield* estimator.learned
        assert.strictEqual(profiles.length, 1_000)
        assert.strictEqual((yield* estimator.estimate(kinds[0]!)).inputTokens, 625)
        assert.strictEqual((yield* estimator.estimate(kinds[1]!)).inputTokens, 500)
        assert.strictEqual((yield* estimator.estimate(kinds[2]!)).inputTokens, 625)
      })
    )

    it.effect("continues from a state that was written to a file", () =>
      Effect.gen(function* () {
        const Json = Schema.fromJsonString(Estimator.Learned)
        const first = yield* Estimator.make()
        yield* learnOutputs(first, call, oneTo(300))
        yield* first.learn({ pool: "haiku", bytes: 100 }, used(10, 5, 30))
        const text = yield* Schema.encodeEffect(Json)(yield* first.learned)
        const second = yield* Estimator.make({ learned: yield* Schema.decodeEffect(Json)(text) })
        assert.deepStrictEqual(yield* second.learned, yield* first.learned)
        assert.deepStrictEqual(yield* second.estimate(call), yield* first.estimate(call))
      })
    )

    it.effect("refuses an invalid state", () =>
      Effect.gen(function* () {
        const decode = Schema.decodeUnknownEffect(Estimator.Learned)
        const profile = { pool: "opus", outputs: [1, -1] }
        const error = yield* Effect.flip(decode({ profiles: [profile] }))
        assert.include(String(error), "outputs")
      })
    )

    it.effect("is provided by a layer, one for all callers", () =>
      Effect.gen(function* () {
        const estimator = yield* Estimator.Estimator
        yield* estimator.learn(call, used(500, 10))
        const same = yield* Estimator.Estimator
        assert.strictEqual((yield* same.estimate(call)).inputTokens, 625)
      }).pipe(Effect.provide(Estimator.layer()))
    )
  })
})
