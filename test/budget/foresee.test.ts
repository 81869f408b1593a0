/** Compares what `foresee` predicts for a call with what happens. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import type * as Limits from "floodgate/Limits"
import { mulberry, normal } from "../support/random.ts"
import { sized } from "../support/size.ts"
import { MapStore } from "../support/store.ts"
import { countedBy, retryOf } from "../support/budget.ts"

type Service = Budget.TokenBudget["Service"]

interface Call {
  readonly estimate: Limits.Estimate
  readonly how?: Budget.ReserveOptions | undefined
  /** How long it is in flight. */
  readonly millis?: number | undefined
}

/** Makes a call, and returns when it was admitted, or why it was refused. */
const make = (budget: Service, { estimate, how, millis = 0 }: Call) =>
  Effect.scoped(
    Effect.gen(function* () {
      const held = yield* budget.reserve(estimate, how)
      const at = yield* Clock.currentTimeMillis
      yield* Effect.sleep(millis)
      yield* held.settle({ inputTokens: estimate.inputTokens, outputTokens: estimate.outputTokens })
      return at
    })
  )

const start = (budget: Service, call: Call) => Effect.forkChild(make(budget, call), { startImmediately: true })

/** The predicted and the real wait of a call that comes after others. */
const foreseenAndReal = Effect.fnUntraced(function* (budget: Service, others: ReadonlyArray<Call>, call: Call) {
  for (const other of others) yield* start(budget, other)
  const now = yield* Clock.currentTimeMillis
  const foreseen = yield* budget.foresee(call.estimate, call.how)
  const fiber = yield* start(budget, call)
  yield* TestClock.adjust("3 hours")
  return { foreseen, real: (yield* Fiber.join(fiber)) - now }
})

/** Calls take as long as the budget assumes at first, or too long for any to end. */
const usualMillis = 2_000
const longMillis = 3_600_000

const bucket = { tokens: { perMinute: 60_000, window: "bucket", burst: 10_000 } } as const

/** Worlds in which everything is known. */
const worlds: Readonly<Record<string, Budget.Options>> = {
  "one dimension": { limits: bucket },
  "two dimensions": { limits: { ...bucket, requests: { perMinute: 60, window: "bucket", burst: 3 } } },
  "a sliding window": { limits: { tokens: { perMinute: 60_000, window: "sliding" } } },
  "limits as the README writes them": { limits: { tokens: { perMinute: 60_000 }, requests: { perMinute: 50 } } },
  places: { limits: { tokens: { perMinute: 6e7 } }, concurrency: 3 },
  "places and a dimension": { limits: bucket, concurrency: 2 }
}

const quantile = (values: Array<number>, part: number): number =>
  values.sort((a, b) => a - b)[Math.floor(part * (values.length - 1))]!

/** Callers of a few agents, of any size, weight and priority. */
const callsOf = (random: () => number, count: number, isAlike = false, millis = usualMillis): ReadonlyArray<Call> => {
  const pick = <A>(...of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
  return Array.from({ length: count }, () => ({
    estimate: {
      inputTokens: isAlike ? 1_000 : Math.ceil(9_000 * random()),
      outputTokens: isAlike ? 0 : pick(0, 100, 1_000)
    },
    how: isAlike
      ? { agent: "a" }
      : retryOf(
          { agent: pick("a", "b", "c", "d"), weight: pick(1, 1, 2, 0.5), priority: pick(0, 0, 0, 1) },
          pick(false, false, true)
        ),
    millis
  }))
}

describe("Budget.foresee", () => {
  for (const [name, options] of Object.entries(worlds)) {
    it.effect(`says to a millisecond when a call starts: ${name}`, () =>
      Effect.gen(function* () {
        let waited = 0
        for (let seed = 1; seed <= 30; seed++) {
          const random = mulberry(seed)
          const budget = yield* Budget.make(options)
          const millis = options.concurrency === undefined ? longMillis : usualMillis
          const others = callsOf(random, Math.floor(25 * random()), seed % 5 === 0, millis)
          const [call] = callsOf(random, 1)
          const { foreseen, real } = yield* foreseenAndReal(budget, others, call!)
          // With each answer the law holds back a little more.
          const error = options.concurrency === undefined ? 1 : 10 + real / 1_000
          assert.closeTo(Duration.toMillis(foreseen.wait), real, error, `seed ${seed}`)
          assert.deepInclude(foreseen, { refusal: undefined, isLowerBound: false, pool: "default" }, `seed ${seed}`)
          assert.strictEqual(foreseen.binding === undefined, real === 0, `seed ${seed}`)
          if (real > 0) waited++
        }
        assert.isAbove(waited, 20)
      }).pipe(Effect.scoped)
    )
  }

  it.effect("names what a call waits for last: a limit, another call or a pause", () =>
    Effect.gen(function* () {
      const of = (options: Budget.Options, others: ReadonlyArray<Call>, pause: number) =>
        Effect.gen(function* () {
          const budget = yield* Budget.make(options)
          for (const other of others) yield* start(budget, other)
          if (pause > 0) yield* budget.pause({ duration: pause })
          const { binding, wait } = yield* budget.foresee({ inputTokens: 1_000 })
          // The law holds back a thousandth.
          return [binding, Math.round(Duration.toMillis(wait) / 10) * 10]
        })
      const large = { estimate: { inputTokens: 10_000 }, millis: usualMillis }
      const requests = { requests: { perMinute: 60, window: "bucket", burst: 3 } } as const
      assert.deepStrictEqual(yield* of({ limits: bucket }, [], 0), [undefined, 0])
      assert.deepStrictEqual(yield* of({ limits: bucket }, [large], 0), ["tokens", 1_000])
      assert.deepStrictEqual(yield* of({ limits: { ...bucket, ...requests } }, [large, large], 0), ["tokens", 11_000])
      const bare = { estimate: {} }
      const wide = { tokens: { perMinute: 6e7 }, ...requests }
      assert.deepStrictEqual(yield* of({ limits: wide }, [bare, bare, bare], 0), ["requests", 1_000])
      assert.deepStrictEqual(yield* of({ limits: bucket, concurrency: 1 }, [large], 0), ["concurrency", usualMillis])
      assert.deepStrictEqual(yield* of({ limits: bucket }, [large], 5_000), ["pause", 5_000])
      assert.deepStrictEqual(yield* of({ limits: bucket }, [large, large], 5_000), ["tokens", 11_000])
    }).pipe(Effect.scoped)
  )

  it.effect("counts every call of a long queue, where calls are played in groups", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: { requests: { perSecond: 1, burst: 1, window: "bucket" } } })
      yield* start(budget, { estimate: {} })
      for (let waiting = 0; waiting <= 100; waiting++) {
        const { wait } = yield* budget.foresee({})
        assert.closeTo(Duration.toSeconds(wait), waiting + 1, 0.1)
        yield* start(budget, { estimate: {} })
      }
    }).pipe(Effect.scoped)
  )

  it.effect("changes nothing, however often it is asked", () =>
    Effect.gen(function* () {
      const history = Effect.fnUntraced(function* (isAsked: boolean) {
        const budget = yield* Budget.make({ limits: bucket, concurrency: 3 })
        const random = mulberry(7)
        const asked = callsOf(mulberry(8), 5)
        const seen: Array<unknown> = []
        const fibers: Array<Fiber.Fiber<number, Budget.BudgetError>> = []
        for (const call of callsOf(random, 60)) {
          fibers.push(yield* start(budget, call))
          if (isAsked) for (const { estimate, how } of asked) yield* budget.foresee(estimate, how)
          yield* TestClock.adjust(Math.ceil(3_000 * random()))
          seen.push(yield* budget.status)
        }
        yield* TestClock.adjust("2 hours")
        const begins = yield* Effect.forEach(fibers, Fiber.join)
        return { seen, begins }
      })
      const alone = yield* Effect.provide(history(false), TestClock.layer())
      assert.deepStrictEqual(yield* Effect.provide(history(true), TestClock.layer()), alone)
    }).pipe(Effect.scoped)
  )

  describe("says why a call is refused", () => {
    const used = { estimate: { inputTokens: 10_000 } }
    const quota = { tokens: { total: 20_000 } } as const
    const cases: Readonly<Record<string, readonly [Budget.Options, ReadonlyArray<Call>, Call, number?]>> = {
      "larger than a limit": [{ limits: quota }, [], { estimate: { inputTokens: 20_001 } }],
      "of a quota that is used up": [{ limits: quota }, [used], { estimate: { inputTokens: 10_001 } }],
      "of a quota that others will have used up": [
        { limits: { ...quota, requests: { perMinute: 60, window: "bucket", burst: 1 } } },
        [{ estimate: { inputTokens: 1 } }, used],
        { estimate: { inputTokens: 10_000 } }
      ],
      "where too many wait, who will have used up the quota": [
        { limits: { ...quota, requests: { perMinute: 60, window: "bucket", burst: 1 } }, maxQueued: 1 },
        [{ estimate: { inputTokens: 1 } }, used],
        { estimate: { inputTokens: 10_000 } }
      ],
      "in a pause of hours": [{ limits: bucket }, [], { estimate: { inputTokens: 1 } }, 3_600_000],
      "that would wait for too long": [
        { limits: bucket },
        [used, used],
        { estimate: { inputTokens: 1_000 }, how: { maxWait: 10_999 } }
      ],
      "where too many wait": [{ limits: bucket, maxQueued: 1 }, [used, used], { estimate: { inputTokens: 1 } }],
      "where there are too many pools": [
        { maxPools: 1 },
        [{ estimate: {}, how: { account: "a" }, millis: 1_000_000 }],
        { estimate: {}, how: { account: "b" } }
      ]
    }
    for (const [name, [options, others, call, pause]] of Object.entries(cases)) {
      it.effect(name, () =>
        Effect.gen(function* () {
          const budget = yield* Budget.make(options)
          for (const other of others) yield* start(budget, other)
          if (pause !== undefined) yield* budget.pause({ duration: pause })
          const { refusal } = yield* budget.foresee(call.estimate, call.how)
          const fiber = yield* start(budget, call)
          yield* TestClock.adjust("1 minute")
          const { reason } = yield* Effect.flip(Fiber.join(fiber))
          assert.deepStrictEqual(refusal, reason)
        }).pipe(Effect.scoped)
      )
    }

    it.effect("and admits every other call", () =>
      Effect.gen(function* () {
        for (let seed = 1; seed <= 60; seed++) {
          const random = mulberry(seed)
          const maxWait = Math.floor(40_000 * random())
          const budget = yield* Budget.make({ limits: bucket, maxQueued: 20, concurrency: 5 })
          for (const other of callsOf(random, Math.floor(24 * random()))) yield* start(budget, other)
          const [call] = callsOf(random, 1)
          const how = { ...call!.how, maxWait }
          const { refusal } = yield* budget.foresee(call!.estimate, how)
          const fiber = yield* start(budget, { ...call!, how })
          yield* TestClock.adjust("2 hours")
          const exit = yield* Fiber.await(fiber)
          assert.strictEqual(Exit.isSuccess(exit), refusal === undefined, `seed ${seed}`)
          if (Exit.isFailure(exit)) assert.deepStrictEqual((yield* Effect.flip(exit)).reason, refusal, `seed ${seed}`)
        }
      }).pipe(Effect.scoped)
    )
  })

  it.effect(
    "is right within 20 % in half of the waits above 1 s and 50 % in nine of ten, if answers take any time",
    () =>
      Effect.gen(function* () {
        const errors: Array<number> = []
        for (let seed = 1; seed <= 12; seed++) {
          const random = mulberry(seed)
          const concurrency = [Infinity, 4, 10, 30][seed % 4]!
          const limits = seed % 3 === 0 ? { tokens: { perMinute: 600_000 } } : bucket
          const budget = yield* Budget.make({ limits, concurrency })
          const agent = (name: string) =>
            Effect.forEach(callsOf(random, 5), ({ estimate }) =>
              Effect.gen(function* () {
                // Lognormal around 2 s.
                const millis = 2_000 * Math.exp(0.7 * normal(random))
                const how = { agent: name }
                const wait = Duration.toMillis((yield* budget.foresee(estimate, how)).wait)
                const since = yield* Clock.currentTimeMillis
                const real = (yield* make(budget, { estimate, how, millis })) - since
                if (real > 1_000) errors.push(Math.abs(wait - real) / real)
              })
            )
          // Some make one call at a time, some three.
          const agents = Array.from({ length: 10 + Math.floor(30 * random()) }, (_, i) => agent(`${i % (8 + seed)}`))
          const fiber = yield* Effect.forkChild(Effect.all(agents, { concurrency: "unbounded" }))
          yield* TestClock.adjust("3 hours")
          yield* Fiber.join(fiber)
        }
        assert.isAbove(errors.length, 500)
        assert.isAtMost(quantile(errors, 0.5), 0.2)
        assert.isAtMost(quantile(errors, 0.9), 0.5)
      }).pipe(Effect.scoped),
    { tags: "full" }
  )

  it.effect("expects the share of the limit that headers measure beside a neighbour", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: bucket })
      // The provider's bucket, half of whose refill other programs use.
      let [left, at] = [2_000, 0]
      const leftAt = (now: number): number => {
        left = Math.min(10_000, left + (now - at) / 2)
        at = now
        return left
      }
      const call = Effect.scoped(
        Effect.gen(function* () {
          const held = yield* budget.reserve({ tokens: 500 })
          const start = yield* Clock.currentTimeMillis
          left = leftAt(start) - 500
          const remaining = left
          yield* Effect.sleep(200)
          const tokens = { limit: 60_000, remaining, roundedTo: 1 }
          yield* held.observe({ dimensions: { tokens }, usage: { tokens: 500 } })
          return start
        })
      )
      for (let second = 0; second < 60; second++) {
        yield* Effect.forkChild(call)
        yield* TestClock.adjust("1 second")
      }
      for (let i = 0; i < 80; i++) yield* Effect.forkChild(call, { startImmediately: true })
      const since = yield* Clock.currentTimeMillis
      const { binding, wait } = yield* budget.foresee({ tokens: 500 })
      const last = yield* Effect.forkChild(call, { startImmediately: true })
      yield* TestClock.adjust("10 minutes")
      const real = (yield* Fiber.join(last)) - since
      assert.isAbove(real, 60_000)
      assert.closeTo(Duration.toMillis(wait), real, 0.1 * real)
      assert.strictEqual(binding, "tokens")
    }).pipe(Effect.scoped)
  )

  it.effect(
    "plays at most a thousand callers, in groups, and says so",
    () =>
      Effect.gen(function* () {
        for (const [count, isLowerBound] of [
          [800, false],
          [1_000, false],
          [1_500, true]
        ] as const) {
          const budget = yield* Budget.make({ limits: bucket, concurrency: 7 })
          const random = mulberry(count)
          const others = callsOf(random, count).map((call) => ({ ...call, how: undefined }))
          const { foreseen, real } = yield* foreseenAndReal(budget, others, { estimate: { inputTokens: 5_000 } })
          assert.strictEqual(foreseen.isLowerBound, isLowerBound)
          const wait = Duration.toMillis(foreseen.wait)
          if (isLowerBound) assert.isAtMost(wait, real)
          else assert.closeTo(wait, real, 0.02 * real)
        }
      }).pipe(Effect.scoped),
    { tags: "full" }
  )

  it.effect("checks its arguments like reserve, and is interrupted after the budget has closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const budget = yield* Scope.provide(Budget.make({ limits: bucket }), scope)
      const refused = (estimate: Limits.Estimate, how?: unknown) =>
        Effect.map(Effect.exit(budget.foresee(estimate, how as Budget.ReserveOptions)), (exit) => String(exit))
      assert.include(yield* refused({ tokens: -1 }), "Budget.foresee: tokens: expected")
      assert.include(yield* refused({}, { weight: 0 }), "Budget.foresee: weight: expected")
      assert.include(yield* refused({}, { pool: "defualt" }), "Budget.foresee: pool: expected")
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(budget.foresee({}))))
    })
  )

  it.effect("counts limits as the provider of the call does, without keeping that", () =>
    Effect.gen(function* () {
      const limits = { tokens: { perMinute: 60_000 } }
      const large = { inputTokens: 50_000 }
      const budget = yield* Budget.make({ limits })
      const before = yield* budget.status
      const how = countedBy(Accounting.anthropic)
      assert.strictEqual(Duration.toMillis((yield* budget.foresee(large, how)).wait), 0)
      assert.deepStrictEqual(yield* budget.status, before)
      for (const used of [0, 1, 20_000]) {
        const budget = yield* Budget.make({ limits })
        const others = [{ estimate: { inputTokens: used }, millis: longMillis }]
        const { foreseen, real } = yield* foreseenAndReal(budget, others, { estimate: large, how })
        assert.closeTo(Duration.toMillis(foreseen.wait), real, 1, `${used}`)
      }
    }).pipe(Effect.scoped)
  )

  it.effect(
    "is a lower bound over a store, because others may have more callers than it knows",
    () =>
      Effect.gen(function* () {
        const store = BudgetStore.layer(new MapStore())
        for (let seed = 1; seed <= sized(4, 10); seed++) {
          const random = mulberry(seed)
          const [one, other] = yield* Effect.all([
            Effect.provide(Budget.make({ limits: bucket }), store),
            Effect.provide(Budget.make({ limits: bucket }), store)
          ])
          for (const call of callsOf(random, 10)) yield* start(other, call)
          for (const call of callsOf(random, 5)) yield* start(one, call)
          yield* TestClock.adjust("1 second")
          const { foreseen, real } = yield* foreseenAndReal(one, [], callsOf(random, 1)[0]!)
          assert.isTrue(foreseen.isLowerBound)
          assert.isAtMost(Duration.toMillis(foreseen.wait), real, `seed ${seed}`)
        }
      }).pipe(Effect.scoped),
    { tags: "full" }
  )
})
