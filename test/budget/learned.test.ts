import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"

const Json = Schema.fromJsonString(Budget.Learned)

/** Encodes and decodes what was learned, as a file would. */
const kept = (budget: Budget.TokenBudget["Service"]) =>
  Effect.flatMap(budget.learned, (learned) =>
    Effect.flatMap(Schema.encodeEffect(Json)(learned), Schema.decodeEffect(Json))
  )

const pool = "api.test/1a2b/opus"
const where = { account: "api.test/1a2b", pool: "opus" }

const headers = (left: number): Limits.Signal => ({
  dimensions: {
    requests: { limit: 1_000, remaining: 900 },
    inputTokens: { limit: 400_000, remaining: left }
  }
})

/** A call of so many tokens, whose response says how many are left. */
const call = (budget: Budget.TokenBudget["Service"], inputTokens: number, left: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const reservation = yield* budget.reserve({ inputTokens }, where)
      yield* reservation.observe({ ...headers(left) })
      yield* reservation.settle({ inputTokens })
    })
  )

const levelOf = (budget: Budget.TokenBudget["Service"]) =>
  Effect.map(budget.status, ({ pools }) => pools[pool]!.dimensions.inputTokens!.level)

describe("what a budget has learned", () => {
  it.effect("is empty at first", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: { inputTokens: { perMinute: 60_000 } } })
      yield* Budget.consume(1_000).pipe(Effect.provideService(Budget.TokenBudget, budget))
      assert.deepStrictEqual((yield* budget.learned).pools, [])
    })
  )

  it.effect("gives another budget the limits that headers named, and their levels", () =>
    Effect.gen(function* () {
      const first = yield* Budget.make()
      yield* call(first, 100_000, 300_000)
      const learned = yield* kept(first)
      assert.strictEqual(learned.pools[0]!.pool, pool)
      const second = yield* Budget.make({ learned })
      yield* call(second, 1, 299_999)
      const level = yield* levelOf(second)
      assert.isAtMost(level, 300_000)
      // There is no opening, which would send calls one after another: all are sent at once.
      yield* Effect.scoped(Effect.replicateEffect(second.reserve({ inputTokens: 20_000 }, where), 10))
    })
  )

  it.effect("names no more of a limit than headers have said", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make()
      yield* call(budget, 100_000, 300_000)
      yield* budget.observe({ pool, dimensions: { outputTokens: { remaining: 5_000 } } })
      const [learned] = (yield* budget.learned).pools
      assert.deepStrictEqual(Object.keys(learned!.outputTokens ?? { level: 0, mean: 0 }).toSorted(), ["level", "mean"])
      assert.deepStrictEqual(Object.keys(learned!.inputTokens!).toSorted(), ["burst", "level", "mean", "perMinute"])
      const again = yield* Budget.make({ learned: yield* budget.learned })
      assert.deepStrictEqual((yield* again.learned).pools, [learned!])
    })
  )

  it.effect("is what it was given, whichever figures were known, until it is used", () =>
    Effect.gen(function* () {
      const [perMinute, burst, share] = [{ perMinute: 60_000 }, { burst: 50_000 }, { sharePerMinute: 30_000 }]
      const known = [{}, perMinute, burst, share, { ...perMinute, ...burst }, { ...perMinute, ...share }]
      const pools = [
        ...known.map((figures, n) => ({ pool: `account ${n}`, tokens: { ...figures, level: 10, mean: 5 } })),
        { pool: "in flight", concurrency: 3 }
      ]
      const budget = yield* Budget.make({ learned: { at: 0, pools } })
      assert.deepStrictEqual((yield* budget.learned).pools, pools)
    })
  )

  it.effect("has nothing of headers whose figures are no amounts, or a limit below one a minute", () =>
    Effect.gen(function* () {
      const after = (tokens: NonNullable<NonNullable<Limits.Signal["dimensions"]>["tokens"]>) =>
        Effect.gen(function* () {
          const budget = yield* Budget.make()
          yield* budget.observe({ pool, dimensions: { tokens } })
          return (yield* budget.learned).pools[0]?.tokens
        })
      for (const wrong of [Number.NaN, -1, Infinity]) {
        assert.isUndefined(yield* after({ limit: wrong, remaining: wrong, roundedTo: wrong }), `${wrong}`)
        assert.isUndefined(yield* after({ remaining: wrong }), `${wrong} remain`)
        assert.deepStrictEqual(yield* after({ limit: 1_000, remaining: wrong }), yield* after({ limit: 1_000 }))
      }
      assert.isUndefined((yield* after({ limit: 0.9, remaining: 5 }))?.perMinute)
      assert.strictEqual((yield* after({ limit: 1, remaining: 1 }))!.perMinute, 1)
      const rounded = (yield* after({ limit: 1_000, remaining: 500, roundedTo: Number.NaN }))!
      assert.strictEqual(rounded.level, 500)
    })
  )

  it.effect("counts the refill since then", () =>
    Effect.gen(function* () {
      const first = yield* Budget.make()
      yield* call(first, 300_000, 0)
      const learned = yield* kept(first)
      yield* TestClock.adjust("15 seconds")
      const second = yield* Budget.make({ learned })
      // 400,000 a minute are 100,000 in a quarter of it.
      yield* Effect.scoped(second.reserve({ inputTokens: 100_000 }, { ...where, maxWait: "100 millis" }))
      const refused = yield* Effect.flip(
        Effect.scoped(second.reserve({ inputTokens: 100_000 }, { ...where, maxWait: "5 seconds" }))
      )
      assert.strictEqual(refused.reason._tag, "WaitTooLong")
    })
  )

  it.effect("keeps what an earlier budget knew of pools that were not used again", () =>
    Effect.gen(function* () {
      const first = yield* Budget.make()
      yield* call(first, 1_000, 399_000)
      const second = yield* Budget.make({ learned: yield* kept(first) })
      const [entry] = (yield* kept(second)).pools
      assert.strictEqual(entry!.inputTokens!.perMinute, 400_000)
    })
  )

  it.effect("does not change the user's limits", () =>
    Effect.gen(function* () {
      const first = yield* Budget.make()
      yield* call(first, 1_000, 399_000)
      const second = yield* Budget.make({
        limits: { inputTokens: { perMinute: 60_000 } },
        learned: yield* kept(first)
      })
      yield* Effect.scoped(second.reserve({ inputTokens: 1 }, { account: where.account }))
      const { pools } = yield* second.status
      assert.isAtMost(pools[where.account]!.dimensions.inputTokens!.limitPerSecond, 1_000)
    })
  )

  it.effect("rejects figures that no budget can have", () =>
    Effect.gen(function* () {
      for (const inputTokens of [
        { perMinute: -1, level: 0, mean: 0 },
        { perMinute: 0, level: 0, mean: 0 },
        { perMinute: 1e300, level: 0, mean: 0 },
        { perMinute: 1, level: "full", mean: 0 },
        { perMinute: 1, mean: 0 }
      ]) {
        const text = JSON.stringify({ at: 0, pools: [{ pool, inputTokens }] })
        assert.isTrue((yield* Effect.exit(Schema.decodeEffect(Json)(text)))._tag === "Failure", text)
      }
      const many = JSON.stringify({ at: 0, pools: Array.from({ length: 1_001 }, () => ({ pool })) })
      assert.strictEqual((yield* Effect.exit(Schema.decodeEffect(Json)(many)))._tag, "Failure")
    })
  )
})
