/** The laws of a call that waits in several queues, in random histories. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import { LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
import type * as Places from "floodgate/Places"
import * as Spending from "floodgate/Spending"
import { mulberry } from "../support/random.ts"
import { sized, some } from "../support/size.ts"
import { MapStore } from "../support/store.ts"
import { interruptAt } from "../support/yieldAt.ts"

const names = ["a", "b", "c", "d"]
const quota = 1_000_000

interface World {
  readonly places: ReadonlyArray<Places.CallPlaces["places"][number]>
  readonly random: () => number
  /** How many requests were sent to each place, and how many of them were not charged. */
  readonly sent: Record<string, number>
  readonly free: Record<string, number>
}

const worldOf = (seed: number): World => {
  const random = mulberry(seed)
  const places = names.slice(0, 2 + Math.floor(3 * random())).map((name): Places.CallPlaces["places"][number] => {
    const perSecond = 50 * (1 + Math.floor(20 * random()))
    const limits: Limits.Limits = {
      requests: { total: quota },
      inputTokens: { perSecond, burst: 1_000 + Math.floor(3_000 * random()), window: "bucket" }
    }
    return { name, model: "m", limits }
  })
  return { places, random, sent: {}, free: {} }
}

const call = (places: ReadonlyArray<Places.CallPlaces["places"][number]>, inputTokens: number): Governor.Call => ({
  model: "m",
  bytes: 0,
  inputTokens,
  maxTokens: 10,
  places: { places }
})

const count = (counts: Record<string, number>, place: string): void => {
  counts[place] = (counts[place] ?? 0) + 1
}

/** Makes a call that takes up to a few seconds, and may fail a few times. */
const made = ({ free, places, random, sent }: World, how: Governor.CallOptions) => {
  const size = 50 + Math.floor(900 * random())
  const fails = random() < 0.15 ? Math.ceil(2 * random()) : 0
  const isOverload = random() < 0.3
  const millis = Math.floor(2_000 * random())
  let attempts = 0
  const attempt = ({ place }: Governor.Ticket) =>
    Effect.gen(function* () {
      count(sent, place!)
      yield* Effect.sleep(millis / 4)
      if (attempts++ < fails) {
        if (!isOverload) count(free, place!)
        return yield* Effect.fail(new LlmError({ reason: isOverload ? new Overloaded({}) : new RateLimited({}) }))
      }
      yield* Effect.sleep(millis)
      return { value: place, actual: { inputTokens: size, outputTokens: 5 } }
    })
  return Effect.flatMap(Governor.Governor, (governor) => governor.run(call(places, size), attempt, how))
}

const status = Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)

/** Every waiting call stands in each queue, and the first of none could start now. */
const assertBusy = (seed: number, waiting: () => number) =>
  Effect.map(status, ({ pools }) => {
    for (const [name, { queued, waiting: calls }] of Object.entries(pools)) {
      assert.strictEqual(queued, waiting(), `seed ${seed}: ${name}`)
      // The pool itself expects that the first call still has to wait.
      if (queued > 0) assert.isAbove(calls[0]!.expectedMillis, 0, `seed ${seed}: ${name}`)
    }
  })

/** Nothing waits and nothing runs anywhere, and each place has charged what was sent to it. */
const assertSettled = (seed: number, { free, places, sent }: World) =>
  Effect.map(status, ({ pools }) => {
    for (const { name } of places) {
      const pool = pools[`${name}/m`]
      if (pool === undefined) continue
      assert.deepStrictEqual([pool.inFlight, pool.queued], [0, 0], `seed ${seed}: ${name}`)
      const charged = quota - pool.dimensions.requests!.level
      assert.strictEqual(charged, (sent[name] ?? 0) - (free[name] ?? 0), `seed ${seed}: ${name}`)
    }
  })

const live = (store?: BudgetStore.Store) => {
  const budget = Governor.layer().pipe(Layer.provideMerge(Budget.layer()))
  return store === undefined ? budget : Layer.provide(budget, BudgetStore.layer(store))
}

/** Calls of some agents come, some are interrupted, and time passes. */
const history = Effect.fnUntraced(function* (seed: number, isShared: boolean) {
  const world = worldOf(seed)
  const { random } = world
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  let answered = 0
  for (let n = 0; n < 60; n++) {
    const agent = `agent ${Math.floor(3 * random())}`
    const priority = random() < 0.1 ? 1 : 0
    const calling = Effect.map(made(world, { agent, priority }), () => answered++)
    fibers.push(yield* Effect.forkChild(calling, { startImmediately: true }))
    if (random() < 0.3) yield* TestClock.adjust(Math.floor(1_000 * random()))
    if (random() < 0.2) yield* Fiber.interrupt(fibers[Math.floor(fibers.length * random())]!)
  }
  yield* TestClock.adjust("30 minutes")
  const exits = yield* Effect.forEach(fibers, Fiber.await)
  assert.strictEqual(answered, exits.filter(({ _tag }) => _tag === "Success").length)
  for (const exit of exits) {
    if (exit._tag === "Failure")
      assert.isTrue(
        exit.cause.reasons.every(({ _tag }) => _tag === "Interrupt"),
        `seed ${seed}`
      )
  }
  // What a process has not stored yet is stored within a second.
  if (isShared) yield* TestClock.adjust("10 seconds")
  return world
})

describe("a call in several queues", () => {
  it.effect("is charged once, where it was sent, and leaves nothing in other places", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= sized(12, 150); seed++) {
        yield* Effect.provide(
          Effect.flatMap(history(seed, false), (world) => assertSettled(seed, world)),
          live()
        )
      }
    })
  )

  it.effect("is charged once if processes share the limits, and places admit it at the same time", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= sized(4, 60); seed++) {
        const store = new MapStore()
        store.latency = 1 + (seed % 5)
        const checked = Effect.flatMap(history(seed, true), (world) => assertSettled(seed, world))
        yield* Effect.provide(
          Effect.tap(checked, () => Effect.sync(() => (store.latency = 0))),
          live(store)
        )
      }
    })
  )

  it.effect("waits in no queue whose place has room for it", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= sized(5, 200); seed++) {
        const world = worldOf(seed)
        yield* Effect.gen(function* () {
          const left = { waiting: 0 }
          for (let n = 0; n < 40; n++) {
            const size = 100 + Math.floor(900 * world.random())
            const attempt = () =>
              Effect.sync(() => {
                left.waiting--
                return { value: "", actual: { inputTokens: size, outputTokens: 5 } }
              })
            left.waiting++
            const governor = yield* Governor.Governor
            yield* Effect.forkChild(governor.run(call(world.places, size), attempt, { agent: `${n % 3}` }), {
              startImmediately: true
            })
            yield* TestClock.adjust(Math.floor(100 * world.random()))
            yield* assertBusy(seed, () => left.waiting)
          }
          while (left.waiting > 0) {
            yield* TestClock.adjust(200)
            yield* assertBusy(seed, () => left.waiting)
          }
        }).pipe(Effect.provide(live()))
      }
    })
  )

  it.effect("is served in order and fairly at each place", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= sized(2, 50); seed++) {
        const { places } = worldOf(seed)
        yield* Effect.gen(function* () {
          const started: Array<{ readonly agent: string; readonly n: number; readonly place: string }> = []
          const governor = yield* Governor.Governor
          for (const [agent, calls] of [
            ["many", 150],
            ["few", 30]
          ] as const) {
            for (let n = 0; n < calls; n++) {
              const attempt = ({ place }: Governor.Ticket) =>
                Effect.sync(() => {
                  started.push({ agent, n, place: place! })
                  return { value: "", actual: { inputTokens: 500, outputTokens: 5 } }
                })
              yield* Effect.forkChild(governor.run(call(places, 500), attempt, { agent }), { startImmediately: true })
            }
          }
          yield* TestClock.adjust("1 hour")
          assert.strictEqual(started.length, 180)
          for (const agent of ["many", "few"]) {
            const order = started.filter((each) => each.agent === agent).map(({ n }) => n)
            // Places that start calls in the same millisecond may be served in any order.
            for (const [index, n] of order.entries()) assert.isAtMost(Math.abs(index - n), 6, `seed ${seed}`)
          }
          const last = started.findLastIndex(({ agent }) => agent === "few")
          // Both have the same share while both wait, except for the calls that went before the second agent came.
          assert.isAtMost(last, 60 + 30, `seed ${seed}`)
        }).pipe(Effect.provide(live()))
      }
    })
  )

  it.effect("holds nothing after it was interrupted, at whichever step", () =>
    Effect.gen(function* () {
      const limits: Limits.Limits = {
        requests: { total: quota },
        inputTokens: { perSecond: 1_000, burst: 1_000, window: "bucket" }
      }
      const places = ["a", "b"].map((name): Places.CallPlaces["places"][number] => ({ name, model: "m", limits }))
      const world: World = { places, random: () => 0.5, sent: {}, free: {} }
      const steps = some(
        Array.from({ length: 700 }, (_, n) => n + 1),
        7
      )
      for (const step of steps) {
        yield* Effect.gen(function* () {
          const governor = yield* Governor.Governor
          const purse = Spending.make("us", { dollars: 1 })
          const attempt = ({ place }: Governor.Ticket) =>
            Effect.suspend(() => {
              count(world.sent, place!)
              return Effect.as(Effect.sleep(10), { value: "", actual: { inputTokens: 900, outputTokens: 5 } })
            })
          const priced = {
            ...call(places, 900),
            places: { places: places.map((each) => ({ ...each, price: { input: 1, output: 1 } })) }
          }
          const run = governor.run(priced, attempt, { purses: [purse] })
          yield* Effect.forkChild(Effect.all([run, run], { concurrency: "unbounded" }))
          yield* TestClock.adjust(10)
          const interrupted = yield* Effect.forkChild(interruptAt(run, step))
          for (let n = 0; n < 30; n++) yield* TestClock.adjust(97)
          yield* Fiber.join(interrupted)
          yield* assertSettled(step, world)
          assert.strictEqual((yield* purse.status).held, 0)
          world.sent["a"] = world.sent["b"] = 0
        }).pipe(Effect.provide(live()))
      }
    })
  )
})
