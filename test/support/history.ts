/** Random histories of a budget, run against the model: after every step both must stand the same. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import { Model } from "./model.ts"
import { type Charge, type Dimension, order as dimensions, type Rules, type Signal } from "./modelLevels.ts"
import type { Figure } from "./modelReading.ts"
import { mulberry } from "./random.ts"

/** The same limits in the library's words and in the model's. Rates are binary fractions, so both count exactly. */
const scenarios: ReadonlyArray<(factor: number) => { readonly limits: Limits.Limits; readonly rules: Rules }> = [
  (f) => ({
    limits: { tokens: { perSecond: 1_000 * f, burst: 2_048 * f } },
    rules: { tokens: { capacity: 2_048 * f, rate: f, most: 60_000 * f } }
  }),
  (f) => ({
    limits: {
      requests: { perSecond: 2 * f, burst: 16 * f },
      inputTokens: { perMinute: 66_000 * f, burst: 6_000 * f },
      outputTokens: { perSecond: 250 * f, burst: 4_096 * f }
    },
    rules: {
      requests: { capacity: 16 * f, rate: f / 500, most: 120 * f },
      inputTokens: { capacity: 6_000 * f, rate: f, most: 66_000 * f, perMinute: 66_000 * f },
      outputTokens: { capacity: 4_096 * f, rate: f / 4, most: 15_000 * f }
    }
  }),
  (f) => ({
    limits: { tokens: { perMinute: 66_000 * f, burst: 6_000 * f, window: "sliding" }, requests: { total: 200 } },
    rules: {
      tokens: { capacity: 6_000 * f, rate: f, most: 66_000 * f, perMinute: 66_000 * f },
      requests: { capacity: 200, rate: 0, most: 200, quota: true }
    }
  }),
  // Nothing is known: responses teach it.
  () => ({ limits: {}, rules: {} })
]

export interface History {
  readonly seed: number
  /** At least so many steps, and at least so much time. */
  readonly steps: number
  readonly millis?: number
  /** The longest that the clock moves on in one step. */
  readonly longestMillis: number
}

interface Live {
  readonly id: number
  readonly charge: Charge
  readonly fiber: Fiber.Fiber<void, Budget.BudgetError>
  readonly scope: Scope.Closeable
  reservation: Budget.Reservation | undefined
}

/** Spreads nothing, so that the model need not know how rests are spread. */
const evenly = { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 0 }

const agents = ["a", "b", "c", "d"]
const weights: Record<string, number> = { a: 1, b: 1, c: 2, d: 0.5 }
const headroom = 0.0625

/** By time; who goes at the same moment goes together, in whatever order their fibers say so. */
const inOrder = (admitted: ReadonlyArray<{ readonly id: number; readonly at: number }>) =>
  [...admitted].sort((a, b) => a.at - b.at || a.id - b.id)

/** Runs one history; a difference fails with the way to run it again. */
export const check = ({ longestMillis, millis: leastMillis = 0, seed, steps }: History): Effect.Effect<void> =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const pick = <A>(items: ReadonlyArray<A>): A => items[Math.floor(random() * items.length)]!
    const scenario = pick(scenarios)
    const concurrency = pick([Infinity, Infinity, 1, 3, 10])
    const first = scenario(1)
    const budget = yield* Budget.make({ limits: first.limits, concurrency, headroom })
    const model = new Model(first.rules, concurrency, headroom)
    /** How the provider says that it counts, if it does. */
    const window = pick([undefined, "bucket"] as const)
    /** The dimensions that its responses speak of: together, or input and output apart. */
    const spoken = pick([
      ["requests", "tokens"],
      ["requests", "inputTokens", "outputTokens"],
      ["inputTokens"]
    ] as ReadonlyArray<ReadonlyArray<Dimension>>)
    /** Calls that ended lately: their responses may be heard late. */
    const ended: Array<Live> = []
    const live = new Map<number, Live>()
    const admitted: Array<{ id: number; at: number }> = []
    const refused: Array<{ id: number; why: string }> = []
    let ids = 0

    const replay = (what: string) =>
      `${what}\nReplay: FLOODGATE_SEED=${seed} npx vitest run --project unit test/budget/model.test.ts`

    /** Mostly small, some of a fifth, few that may never fit. */
    const size = (most: number) => {
      if (random() < 0.05) return Math.floor(most * random() * 1.1)
      return Math.floor(most * (random() < 0.3 ? random() * 0.2 : random() * 0.02))
    }

    const reserve = Effect.fnUntraced(function* () {
      const id = ids++
      const agent = pick(agents)
      const priority = pick([0, 0, 0, 0, 1, -1])
      const isFirst = random() < 0.1
      const all = { inputTokens: size(66_000), outputTokens: size(15_000) }
      const estimate = { requests: random() < 0.95 ? 1 : 3, ...all, tokens: all.inputTokens + all.outputTokens }
      const charge: Charge = estimate
      const scope = yield* Scope.make()
      const opening = budget.reserve(estimate, { agent, priority, weight: weights[agent], first: isFirst })
      const fiber = yield* Effect.forkChild(
        Scope.provide(opening, scope).pipe(
          Effect.flatMap((reservation) =>
            Effect.clockWith((clock) =>
              Effect.map(clock.currentTimeMillis, (at) => {
                admitted.push({ id, at })
                live.get(id)!.reservation = reservation
              })
            )
          ),
          Effect.tapError((error) => Effect.sync(() => refused.push({ id, why: error.reason._tag })))
        ),
        { startImmediately: false }
      )
      live.set(id, { id, charge, fiber, scope, reservation: undefined })
      model.reserve({ id, agent, priority, weight: weights[agent]!, charge }, isFirst)
    })

    const open = () => [...live.values()].filter((call) => call.reservation !== undefined)
    const waiting = () =>
      [...live.values()].filter((call) => call.reservation === undefined && call.fiber.pollUnsafe() === undefined)

    const gone = (call: Live) => {
      live.delete(call.id)
      ended.push(call)
      if (ended.length > 4) ended.shift()
    }

    const end = Effect.fnUntraced(function* (call: Live) {
      gone(call)
      const how = pick(["below", "above", "exact", "refund", "scope", "twice"] as const)
      const used: Charge = {}
      for (const dimension of dimensions) {
        const estimate = call.charge[dimension]!
        used[dimension] =
          dimension === "requests" ? estimate : Math.floor(estimate * (how === "above" ? 1 + random() : random()))
      }
      const reservation = call.reservation!
      switch (how) {
        case "refund":
          model.end(call.id, Object.fromEntries(dimensions.map((dimension) => [dimension, 0])), false)
          yield* reservation.refund
          break
        case "scope":
        case "exact": {
          const failed = how === "scope" && random() < 0.5
          model.end(call.id, {}, !failed)
          if (how === "exact") yield* reservation.settle({})
          else yield* Scope.close(call.scope, failed ? Exit.fail("failed") : Exit.void)
          break
        }
        default: {
          const outcome = random() < 0.8 ? "success" : "failure"
          model.end(call.id, used, outcome === "success")
          yield* reservation.settle(used, outcome)
          if (how === "twice") yield* Effect.andThen(reservation.refund, reservation.settle({}, "success"))
        }
      }
      if (random() < 0.9) yield* Scope.close(call.scope, Exit.void)
    })

    /** What a provider may say: what we think, a little off; what there was or may be; nonsense. Late, or with a wrong date. */
    const signal = (): Signal => {
      const figures: { [D in Dimension]?: Figure } = {}
      for (const dimension of spoken) {
        if (random() < 0.2) continue
        const dim = model.dims.get(dimension)
        const rule = dim?.rule ?? { capacity: 20_000, most: 60_000 }
        const limit = pick([undefined, undefined, 1, 1, 1, 0.5, 0.75, 2])
        const level = Math.max(0, dim?.level ?? 0)
        const remaining = pick([
          level,
          level,
          level + rule.capacity * 0.02 * (random() - 0.5),
          level * random(),
          level + (rule.capacity - level) * random(),
          rule.capacity * 1.2 * random(),
          rule.most,
          0
        ])
        const roundedTo = dimension === "requests" ? undefined : pick([undefined, 1, 1_000])
        figures[dimension] = {
          ...(limit !== undefined && { limit: limit * (first.rules[dimension]?.most ?? 60_000) }),
          // Never whole: a level at the very edge of what a figure means would be read by its last bit.
          ...(random() < 0.95 && {
            remaining: Math.round(Math.max(0, remaining) / (roundedTo ?? 1)) * (roundedTo ?? 1) + random() / 4
          }),
          ...(roundedTo !== undefined && { roundedTo }),
          ...(window !== undefined && { window })
        }
      }
      const late = pick([0, 0, 0, 1, 2_000, 59_999, 60_000, 60_001, -5_000])
      return { figures, date: random() < 0.3 ? undefined : model.now - late }
    }

    const observe = Effect.fnUntraced(function* (call: Live | undefined) {
      const said = signal()
      model.observe(said, call?.id)
      yield* budget.observe({ dimensions: said.figures, date: said.date, reservation: call?.reservation })
    })

    const reject = Effect.fnUntraced(function* (call: Live) {
      gone(call)
      const reason = pick(["rateLimit", "rateLimit", "overload", "overload", "overload", "ramp"] as const)
      const millis = reason === "overload" ? pick([0, 0, 0, 7_000]) : pick([1, 500, 2_000, 30_000])
      model.end(call.id, Object.fromEntries(dimensions.map((dimension) => [dimension, 0])), false)
      if (reason === "overload") model.overload(millis, call.id)
      else model.cooldown(millis, reason, call.id)
      yield* Effect.uninterruptible(
        Effect.andThen(
          call.reservation!.refund,
          budget.cooldown({ reason, retryAfter: millis, reservation: call.reservation })
        )
      )
    })

    const compare = Effect.fnUntraced(function* (step: number, what: string) {
      const at = `seed ${seed}, step ${step}, ${what}`
      if (ids === 0) return
      const status = (yield* budget.status).pools.default!
      assert.deepStrictEqual(refused, model.refused, replay(`${at}: refused`))
      assert.deepStrictEqual(inOrder(admitted), inOrder(model.admitted), replay(`${at}: admitted`))
      assert.strictEqual(status.queued, model.waiting.length, replay(`${at}: queue`))
      assert.strictEqual(status.inFlight, model.inFlight, replay(`${at}: in flight`))
      assert.strictEqual(status.allowed, model.allowed, replay(`${at}: allowed`))
      assert.closeTo(status.pace, model.scale, 1e-9, replay(`${at}: pace`))
      const left = status.cooldown === undefined ? 0 : Duration.toMillis(status.cooldown.left)
      assert.closeTo(left, Math.max(0, model.pausedUntil - model.now), 1e-6, replay(`${at}: cooldown`))
      assert.sameMembers(Object.keys(status.dimensions), [...model.dims.keys()], replay(`${at}: dimensions`))
      for (const [dimension, { level, rule }] of model.dims) {
        const is = status.dimensions[dimension]!
        assert.closeTo(is.capacity, rule.capacity, rule.capacity * 1e-9, replay(`${at}: ${dimension}, capacity`))
        assert.closeTo(is.level, level, rule.capacity * 1e-6, replay(`${at}: ${dimension}`))
        assert.closeTo(is.perSecond, rule.rate * model.scale * 1_000, 1e-6, replay(`${at}: ${dimension}, rate`))
      }
    })

    let step = 0
    /** Most calls are rejected while it is. */
    let isDown = false
    for (; step < steps || model.now < leastMillis; step++) {
      if (random() < 0.05) isDown = !isDown
      const dice = random()
      const opened = open()
      const queued = waiting()
      let what = "nothing"
      if (dice < 0.34) {
        what = "reserve"
        yield* reserve()
      } else if (dice < (isDown ? 0.36 : 0.56) && opened.length > 0) {
        what = "end"
        yield* end(pick(opened))
      } else if (dice < (isDown ? 0.4 : 0.64) && queued.length > 0) {
        what = "cancel"
        const call = pick(queued)
        live.delete(call.id)
        model.cancel(call.id)
        yield* Fiber.interrupt(call.fiber)
      } else if (dice < (isDown ? 0.62 : 0.66) && opened.length > 0) {
        what = "reject"
        yield* reject(pick(opened))
      } else if (dice < 0.78) {
        what = "observe"
        const calls = [undefined, ...opened, ...opened, ...ended]
        if (ids > 0) yield* observe(pick(calls))
      } else if (dice < 0.8) {
        what = "resize"
        const resized = random() < 0.5 ? scenario(pick([0.5, 1, 1, 2])) : undefined
        const permits = resized === undefined ? pick([1, 3, 10, Infinity]) : undefined
        if (ids > 0) {
          model.resize(resized?.rules, permits)
          yield* budget.resize({ limits: resized?.limits, concurrency: permits })
        }
      } else {
        what = "time"
        const millis = Math.floor(pick([0, 1, 10, 200, 1_000, 1]) * random() * 2) || Math.floor(random() * 3)
        const long = random() < 0.15 ? Math.floor(random() * longestMillis) : millis
        model.pass(long)
        yield* TestClock.adjust(long)
      }
      yield* TestClock.adjust(0)
      yield* compare(step, what)
    }
    // Everybody goes: what is left is what the model says, and in the end a full bucket.
    for (let call = waiting()[0]; call !== undefined; call = waiting()[0]) {
      live.delete(call.id)
      model.cancel(call.id)
      yield* Fiber.interrupt(call.fiber)
      yield* TestClock.adjust(0)
    }
    while (open().length > 0) {
      const [call] = open()
      live.delete(call!.id)
      model.end(call!.id, {}, true)
      yield* Scope.close(call!.scope, Exit.void)
      yield* TestClock.adjust(0)
    }
    yield* compare(step, "everybody goes")
    model.pass(36_000_000)
    yield* TestClock.adjust(36_000_000)
    yield* compare(step, "ten hours later")
    if (ids === 0) return
    const { dimensions: levels, inFlight, queued } = (yield* budget.status).pools.default!
    assert.deepStrictEqual([inFlight, queued], [0, 0])
    for (const { capacity, level, perSecond } of Object.values(levels)) {
      if (perSecond > 0) assert.closeTo(level, capacity, 1e-6, replay("full again"))
    }
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer()), Effect.provideService(Random.Random, evenly))
