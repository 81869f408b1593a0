/** The order of a caller's jobs by their ends, and the foreseen end of a job. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"

const limits = { tokens: { perSecond: 10, burst: 100, window: "bucket" } } as const

/** Makes calls of ten tokens, and notes their jobs in the order of admission. */
const making = (order: Array<string>) => (job: Budget.NamedJob, calls: number, caller?: string) =>
  Effect.forEach(
    Array.from({ length: calls }, (_, n) => `${n}`),
    (agent) => {
      const call = (reservation: Budget.Reservation) => {
        order.push(job.name)
        return reservation.settle({ tokens: 10 })
      }
      return Effect.forkChild(Budget.withReservation({ tokens: 10 }, call, { agent, job, caller }), {
        startImmediately: true
      })
    }
  )

/** Uses up what the bucket holds. */
const drained = Budget.withReservation({ tokens: 100 }, (reservation) => reservation.settle({ tokens: 100 }))

const inOrder = (order: Budget.Options["order"]) => Effect.provide(Budget.layer({ limits, order }))

describe("the order by ends", () => {
  it.effect("lets that job go first that would end first", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const make = making(order)
      yield* drained
      yield* make({ name: "large", size: 1_000 }, 6)
      yield* make({ name: "small", size: 30 }, 3)
      yield* TestClock.adjust("20 seconds")
      // The head is not overtaken.
      assert.deepStrictEqual(order.slice(0, 4), ["large", "small", "small", "small"])
    }).pipe(inOrder("finish-trusted"))
  )

  it.effect("counts what a job has received while nobody waited, but no call that used nothing", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const make = making(order)
      for (const used of [10, 0]) {
        order.length = 0
        const [job, other] = [`first ${used}`, `other ${used}`]
        const call = (reservation: Budget.Reservation) => reservation.settle({ tokens: used })
        for (let n = 0; n < 8; n++)
          yield* Budget.withReservation({ tokens: 10 }, call, { job: { name: job, size: 100 } })
        yield* Budget.withReservation({ tokens: 100 }, (held) => held.settle({ tokens: 100 })).pipe(Effect.forkChild)
        yield* TestClock.adjust("20 seconds")
        yield* drained.pipe(Effect.forkChild({ startImmediately: true }))
        yield* make({ name: "head" }, 1)
        yield* make({ name: other, size: 50 }, 2)
        yield* make({ name: job, size: 100 }, 2)
        yield* TestClock.adjust("30 seconds")
        const isFirst = order.indexOf(job) < order.indexOf(other)
        assert.strictEqual(isFirst, used > 0, order.join())
      }
    }).pipe(inOrder("finish-trusted"))
  )

  it.effect("orders only the jobs of one caller", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const make = making(order)
      yield* drained
      yield* make({ name: "head" }, 1, "one")
      yield* make({ name: "large", size: 1_000 }, 4, "one")
      yield* make({ name: "small", size: 1 }, 4, "two")
      yield* TestClock.adjust("20 seconds")
      const first = order.slice(1, 7)
      assert.strictEqual(first.filter((job) => job === "small").length, 3, order.join())
    }).pipe(inOrder("finish"))
  )

  it.effect("is fair without sizes, and by default with them", () =>
    Effect.gen(function* () {
      for (const order of ["finish", undefined] as const) {
        const admitted: Array<string> = []
        yield* Effect.gen(function* () {
          const make = making(admitted)
          const size = order === undefined ? 1_000 : undefined
          yield* drained
          yield* make({ name: "a", size }, 4)
          yield* make({ name: "b", size: order === undefined ? 1 : undefined }, 4)
          yield* TestClock.adjust("20 seconds")
        }).pipe(inOrder(order))
        assert.strictEqual(admitted.slice(0, 4).filter((job) => job === "a").length, 2)
      }
    })
  )

  it.effect("rejects another order or size", () =>
    Effect.gen(function* () {
      assert.throws(() => Budget.layer({ limits, order: "soon" as never }), /order: expected/)
      const exit = yield* Effect.exit(Budget.withReservation({}, () => Effect.void, { job: { name: "a", size: -1 } }))
      assert.match(String(exit), /job\.size: expected a number of tokens, got -1/)
    }).pipe(inOrder("finish"))
  )
})

describe("the end of a job", () => {
  it.effect("is foreseen from what is left and its fair share", () =>
    Effect.gen(function* () {
      const make = making([])
      yield* drained
      const fibers = yield* make({ name: "a", size: 200 }, 20)
      yield* make({ name: "b", size: 300 }, 30)
      const { jobEnd } = yield* Budget.TokenBudget.pipe(
        Effect.flatMap((budget) => budget.foresee({ tokens: 10 }, { job: "a" }))
      )
      // It has half of ten tokens a second.
      assert.approximately(Duration.toSeconds(jobEnd!), 40, 4)
      yield* TestClock.adjust("36 seconds")
      assert.isTrue(fibers.some((fiber) => fiber.pollUnsafe() === undefined))
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.joinAll(fibers)
      const { jobEnd: unknown } = yield* Budget.TokenBudget.pipe(
        Effect.flatMap((budget) => budget.foresee({ tokens: 10 }, { job: "c" }))
      )
      assert.isUndefined(unknown)
    }).pipe(inOrder("fair"))
  )
})
