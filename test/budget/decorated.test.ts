/** A reservation settles by itself: decorated and copied reservations are settled like plain ones. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { mulberry } from "../support/random.ts"

type Decorate = (reservation: Budget.Reservation) => Budget.Reservation

const decorations: Readonly<Record<string, Decorate>> = {
  "are copied": (reservation) => ({ ...reservation }),
  "are delegated to": ({ observe, settle, fail, refund, ...fields }) => ({
    ...fields,
    observe: (said) => Effect.suspend(() => observe(said)),
    settle: (usage, outcome) => Effect.suspend(() => settle(usage, outcome)),
    fail: (failure) => Effect.suspend(() => fail(failure)),
    refund: Effect.suspend(() => refund)
  }),
  "settle by a function of somebody else's": (reservation) => ({
    ...reservation,
    settle: (...args) => Effect.asVoid(Effect.exit(reservation.settle(...args)))
  }),
  "are decorated twice": (reservation) => ({
    ...Object.assign({}, reservation),
    refund: Effect.asVoid(reservation.refund)
  })
}

const decorated = (decorate: Decorate) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.TokenBudget, (inner) => ({
      ...inner,
      reserve: (estimate, options) => Effect.map(inner.reserve(estimate, options), decorate)
    }))
  )

const limits = { tokens: { perMinute: 60_000 }, requests: { perMinute: 600 } }

/** The status and the metrics after each step of a random history of calls. */
const history = (seed: number, decorate: Decorate | undefined) => {
  const plain = Budget.layer({ limits, concurrency: 4 })
  const budgets = decorate === undefined ? plain : Layer.provide(decorated(decorate), plain)
  const live = Governor.layer({ retry: Retry.make({ attempts: 2, jitter: "none" }) }).pipe(
    Layer.provideMerge(budgets),
    Layer.provide(Retry.layerBudget({ minPerSecond: Infinity }))
  )
  return Effect.gen(function* () {
    const random = mulberry(seed)
    const pick = <A>(of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
    const budget = yield* Budget.TokenBudget
    const governor = yield* Governor.Governor
    const seen: Array<unknown> = []
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let step = 0; step < 40; step++) {
      const amount = Math.ceil(3_000 * random())
      const signal = {
        dimensions: { tokens: { limit: 60_000, remaining: Math.floor(60_000 * random()), roundedTo: 1_000 } }
      }
      const reason = pick([
        new RateLimited({ status: 429, retryAfter: Duration.seconds(1), signal }),
        new RateLimited({ status: 429 }),
        new Overloaded({ status: 529 })
      ])
      const after = Math.ceil(2_000 * random())
      const ended = pick([
        Effect.succeed({ value: "", actual: { inputTokens: amount, outputTokens: 10 }, signal }),
        Effect.succeed({ value: "", actual: { inputTokens: amount, outputTokens: 10 } }),
        Effect.succeed({ value: "" }),
        Effect.fail(new LlmError({ reason })),
        Effect.die("a bug")
      ])
      const direct = pick([
        (reservation: Budget.Reservation) => budget.observe({ ...signal, reservation, usage: { tokens: amount } }),
        (reservation: Budget.Reservation) => budget.cooldown({ reason: "rateLimit", reservation, signal }),
        (reservation: Budget.Reservation) => reservation.fail({ reason: "overload", usage: { tokens: 1 } }),
        (reservation: Budget.Reservation) => reservation.refund
      ])
      const governed = governor.run(
        { model: "m", bytes: 0, inputTokens: Math.ceil(3_000 * random()), maxTokens: 100 },
        () => Effect.delay(ended, after),
        { agent: pick(["a", "b"]) }
      )
      const own = Budget.withReservation({ tokens: amount }, (held) => Effect.delay(direct(held), after))
      fibers.push(yield* Effect.forkChild(Effect.exit(pick([governed, governed, own])), { startImmediately: true }))
      if (random() < 0.1) yield* Fiber.interrupt(pick(fibers))
      if (random() < 0.7) yield* TestClock.adjust(Math.ceil(1_500 * random()))
      seen.push(yield* budget.status)
    }
    yield* TestClock.adjust("1 hour")
    for (const fiber of fibers) yield* Fiber.await(fiber)
    const metrics = (yield* Metric.snapshot).map(({ attributes, id, state }) => ({ id, attributes, state }))
    return { seen, metrics, status: yield* budget.status }
  }).pipe(
    Effect.provide(live),
    Effect.provide(TestClock.layer()),
    Random.withSeed(seed),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

describe("a budget whose reservations", () => {
  for (const [name, decorate] of Object.entries(decorations)) {
    it.effect(`${name} are settled like plain ones`, () =>
      Effect.gen(function* () {
        // Regression: `observe` and `cooldown` only settled reservations of their own class, so such a budget spent twice as much.
        for (let seed = 1; seed <= 3; seed++) {
          const plain = yield* history(seed, undefined)
          assert.deepStrictEqual(yield* history(seed, decorate), plain, `seed ${seed}`)
          assert.strictEqual(plain.status.pools.default!.inFlight, 0)
        }
      })
    )
  }

  it.effect("have only own properties", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      const held = yield* budget.reserve({ tokens: 10 })
      const members = ["agent", "binding", "charge", "fail", "observe", "pool", "refund", "settle", "waited"]
      assert.deepStrictEqual(Object.keys(held).sort(), members)
      assert.deepStrictEqual({ ...held }, held)
    }).pipe(Effect.scoped)
  )
})
