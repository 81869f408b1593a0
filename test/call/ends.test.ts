/** However a call ends, it frees its permit, its reservation and its place in the queue, and is settled once. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { pool } from "../support/budget.ts"
import { mulberry } from "../support/random.ts"
import { sized } from "../support/size.ts"

/** Reserves a request, 1,000 tokens of input and 500 of output. */
const call: Governor.Call = { model: "m", bytes: 2_700, inputTokens: 1_000, maxTokens: 500 }
const actual = { inputTokens: 900, outputTokens: 100 }

/** Quotas never refill, so that their levels show what was settled. */
const limits = { requests: { total: 1_000 }, inputTokens: { total: 1_000_000 }, outputTokens: { total: 1_000_000 } }

type Options = Governor.Options & { readonly estimator?: Layer.Layer<Estimator.Estimator> }

/** A budget of one call at a time that counts how often each reservation is settled. */
const counting = (ends: Map<Budget.Reservation, number>) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.make({ limits, concurrency: 1 }), (budget) =>
      Budget.TokenBudget.of({
        ...budget,
        reserve: (estimate, options) =>
          Effect.map(budget.reserve(estimate, options), (reservation) => {
            const counted = <A>(end: Effect.Effect<A>): Effect.Effect<A> =>
              Effect.andThen(
                Effect.sync(() => ends.set(reservation, ends.get(reservation)! + 1)),
                end
              )
            ends.set(reservation, 0)
            return {
              ...reservation,
              settle: (usage, outcome) => counted(reservation.settle(usage, outcome)),
              fail: (failure) => counted(reservation.fail(failure)),
              refund: counted(reservation.refund)
            }
          })
      })
    )
  )

const layer = (ends: Map<Budget.Reservation, number>, { estimator, ...options }: Options = {}) =>
  (estimator === undefined
    ? Governor.layer(options)
    : Layer.provide(Layer.effect(Governor.Governor, Governor.make(options)), estimator)
  ).pipe(Layer.provideMerge(counting(ends)), Layer.provide(Retry.layerBudget({ minPerSecond: Infinity })))

type Attempt = (ticket: Governor.Ticket) => Effect.Effect<Governor.Outcome<string>, unknown>

const fail = (reason: LlmError.LlmErrorReason) => Effect.fail(new LlmError.LlmError({ reason }))
const succeed = Effect.succeed({ value: "done", actual })
const bug = (): never => {
  throw new Error("bug")
}

interface Case {
  readonly attempt: Attempt
  readonly options?: Options
  readonly how?: Governor.CallOptions
  /** Milliseconds after which the call is interrupted. */
  readonly interruptedAfter?: number
  /** Whether another call has the only slot. */
  readonly isQueued?: boolean
  /** What the call has taken from the quotas in the end. */
  readonly used: readonly [requests: number, inputTokens: number, outputTokens: number]
  /** How often the reservation is settled; never if a bug prevents it. */
  readonly told?: number
}

const once = Retry.make({ attempts: 1 })
const patient = Retry.make({ base: "1 minute", jitter: "none" })
const { anthropic } = Accounting

const cases: Readonly<Record<string, Case>> = {
  "a success": { attempt: () => succeed, used: [1, 900, 100] },
  "a failure": { attempt: () => fail(new LlmError.InvalidRequest({ status: 400 })), used: [1, 0, 0] },
  "a rejection": { attempt: () => fail(new LlmError.RateLimited({ status: 429 })), used: [0, 0, 0] },
  "an overload": { attempt: () => fail(new LlmError.Overloaded({ status: 529 })), used: [1, 0, 0] },
  "a timeout": { attempt: () => Effect.never, how: { timeout: "1 second" }, used: [1, 1_000, 0] },
  "an interruption while it is sent": { attempt: () => Effect.never, interruptedAfter: 500, used: [1, 1_000, 0] },
  "an interruption of the attempt by itself": { attempt: () => Effect.interrupt, used: [1, 1_000, 0] },
  "an interruption in the queue": {
    attempt: () => Effect.die("was sent"),
    isQueued: true,
    interruptedAfter: 500,
    used: [0, 0, 0],
    told: 0
  },
  "a wait that is too long": {
    attempt: () => Effect.die("was sent"),
    isQueued: true,
    how: { maxWait: "1 second" },
    used: [0, 0, 0],
    told: 0
  },
  "an interruption while it waits for a retry": {
    attempt: () => fail(new LlmError.InvalidRequest({ status: 409 })),
    how: { retry: patient },
    interruptedAfter: 500,
    used: [1, 0, 0]
  },
  "a defect": { attempt: () => Effect.die(new Error("bug")), used: [1, 1_000, 500] },
  "a throw before the attempt is an effect": { attempt: bug, used: [1, 1_000, 500] },
  "a throw of Accounting.usage": {
    attempt: () => succeed,
    options: { accounting: { ...anthropic, usage: bug } },
    used: [1, 1_000, 500]
  },
  "an Accounting.usage that gives nothing": {
    attempt: () => succeed,
    options: { accounting: { ...anthropic, usage: () => undefined as never } },
    used: [1, 1_000, 500]
  },
  "a throw of Accounting.usage after a failure": {
    attempt: () => fail(new LlmError.TimedOut({})),
    options: { accounting: { ...anthropic, usage: bug } },
    used: [1, 1_000, 500]
  },
  "a throw of Accounting.usage after an interruption": {
    attempt: () => Effect.never,
    options: { accounting: { ...anthropic, usage: bug } },
    interruptedAfter: 500,
    used: [1, 1_000, 500]
  },
  "a throw of Accounting.estimate": {
    attempt: () => succeed,
    options: { accounting: { ...anthropic, estimate: bug } },
    used: [0, 0, 0],
    told: 0
  },
  "a throw while it is learned from": {
    attempt: () => succeed,
    options: {
      estimator: Layer.succeed(
        Estimator.Estimator,
        Estimator.Estimator.of({
          accounting: anthropic,
          estimate: () => Effect.succeed({ inputTokens: 1_000, outputTokens: 500 }),
          learn: () => Effect.sync(bug),
          learned: Effect.succeed({ profiles: [] })
        })
      )
    },
    used: [1, 900, 100]
  },
  "an error that throws when it is read": {
    attempt: () => Effect.fail(Object.defineProperty({}, "isRetryable", { get: bug })),
    used: [1, 1_000, 500]
  },
  "a ticket that the attempt concluded": {
    attempt: (ticket) => Effect.andThen(ticket.succeed(actual), Effect.andThen(ticket.fail("late"), succeed)),
    used: [1, 900, 100]
  }
}

/** Makes a call as `run` or as `open` does, to its end. */
const ways = {
  run: (attempt: Attempt, how?: Governor.CallOptions) =>
    Effect.flatMap(Governor.Governor, (governor) => governor.run(call, attempt, how)),
  open: (attempt: Attempt, how?: Governor.CallOptions) =>
    Effect.scoped(
      Effect.flatMap(Governor.Governor, (governor) =>
        governor.open(
          call,
          (ticket) => Effect.tap(attempt(ticket), ({ actual, response }) => ticket.succeed(actual, response)),
          how
        )
      )
    )
}

describe("the end of a call", () => {
  for (const [name, { attempt, how, interruptedAfter, isQueued, options, told = 1, used }] of Object.entries(cases)) {
    for (const [way, make] of Object.entries(ways)) {
      const ends = new Map<Budget.Reservation, number>()
      it.effect(`by ${name} gives back everything (${way})`, () =>
        Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const budget = yield* Budget.TokenBudget
              if (isQueued === true) yield* budget.reserve({ requests: 0 })
              const fiber = yield* Effect.forkChild(make(attempt, how))
              yield* TestClock.adjust(interruptedAfter ?? 2_000)
              if (interruptedAfter !== undefined) yield* Fiber.interrupt(fiber)
              yield* Fiber.await(fiber)
            })
          )
          const { dimensions, inFlight, queued } = yield* pool
          assert.deepStrictEqual([inFlight, queued], [0, 0])
          const levels = [dimensions.requests, dimensions.inputTokens, dimensions.outputTokens]
          assert.deepStrictEqual(
            levels.map((each) => each!.capacity - each!.level),
            [...used]
          )
          const reservations = Array.from(ends.values()).slice(isQueued === true ? 1 : 0)
          assert.isTrue(
            reservations.every((count) => count === told),
            `told ${reservations.join(", ")} times`
          )
          // The only slot is free for the next call.
          yield* Effect.scoped(Effect.flatMap(Budget.TokenBudget, (budget) => budget.reserve({ requests: 0 })))
        }).pipe(Effect.provide(layer(ends, { retry: once, ...options })))
      )
    }
  }

  for (const [name, end] of Object.entries({ "a success": succeed, "a failure": Effect.fail("broken") })) {
    it.effect(`by ${name} closes what its attempt opened`, () =>
      Effect.gen(function* () {
        let open = 0
        const opening = Effect.acquireRelease(
          Effect.sync(() => open++),
          () => Effect.sync(() => open--)
        )
        const governor = yield* Governor.Governor
        // The scope of the test lasts longer.
        yield* Effect.exit(governor.run(call, () => Effect.andThen(opening, end)))
        assert.strictEqual(open, 0)
      }).pipe(Effect.provide(layer(new Map(), { retry: once })))
    )
  }

  it.effect("at any moment, of many calls together, gives back everything", () =>
    Effect.gen(function* () {
      const random = mulberry(7)
      const kinds: ReadonlyArray<Attempt> = [
        () => Effect.delay(succeed, Duration.millis(random() * 1_000)),
        () => Effect.delay(fail(new LlmError.InvalidRequest({ status: 409 })), Duration.millis(random() * 500)),
        () => Effect.delay(fail(new LlmError.ServerFailed({ status: 500 })), Duration.millis(random() * 500)),
        () => fail(new LlmError.RateLimited({ status: 429, retryAfter: Duration.seconds(1) })),
        () => Effect.never,
        () => Effect.die("bug"),
        bug
      ]
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let n = 0; n < sized(200, 400); n++) {
        const make = random() < 0.5 ? ways.run : ways.open
        const how = { timeout: "2 seconds", agent: `agent ${Math.floor(random() * 9)}` } as const
        fibers.push(yield* Effect.forkChild(make((ticket) => kinds[Math.floor(random() * kinds.length)]!(ticket), how)))
        if (random() < 0.5) yield* TestClock.adjust(random() * 500)
        if (random() < 0.5) yield* Fiber.interrupt(fibers[Math.floor(random() * fibers.length)]!)
      }
      for (const fiber of fibers) if (random() < 0.9) yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 hour")
      for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe())
      const { inFlight, queued } = yield* pool
      assert.deepStrictEqual([inFlight, queued], [0, 0])
    }).pipe(
      Effect.provide(
        Governor.layer({ retry: Retry.make({ base: "100 millis", attempts: 3 }) }).pipe(
          Layer.provideMerge(Budget.layer({ limits: { inputTokens: { perMinute: 60_000_000 } }, concurrency: 5 }))
        )
      )
    )
  )
})
