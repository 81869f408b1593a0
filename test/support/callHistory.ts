/** Random histories of calls, with everything that a program can see of them: statuses, metrics and events. */
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import { LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Direct from "../../src/call/direct.ts"
import * as SyncForm from "../../src/domain/syncForm.ts"
import { throughEffect } from "./drivers.ts"
import { mulberry } from "./random.ts"
import { interruptAt } from "./yieldAt.ts"

export type Decorate = (reservation: Budget.Reservation) => Budget.Reservation

const decorated = (decorate: Decorate) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.TokenBudget, (inner) => ({
      ...inner,
      reserve: (estimate, options) => Effect.map(inner.reserve(estimate, options), decorate)
    }))
  )

export const limits = { tokens: { perMinute: 60_000 }, requests: { perMinute: 600 } }

interface Answer {
  readonly value: string
  readonly actual?: { readonly inputTokens: number; readonly outputTokens: number }
  readonly signal?: Limits.Signal
}

type Governed = (
  governor: Governor.Governor["Service"],
  call: Governor.Call,
  answer: Effect.Effect<Answer, LlmError>,
  how: Governor.CallOptions
) => Effect.Effect<void, LlmError | Budget.BudgetError>

const attempted = (answer: Effect.Effect<Answer, LlmError>) => (ticket: Governor.Ticket) =>
  Effect.map(answer, (answered) => ({ ...answered, ticket }))

type Attempted = Answer & { readonly ticket: Governor.Ticket }

const concluded = ({ actual, signal, ticket }: Attempted) =>
  Effect.andThen(ticket.observeLimits(signal), ticket.succeed(actual))

/** Goes on in a fiber of its own, which starts at once, as code outside of Effect does. */
const inFiber = (
  self: Effect.Effect<Attempted, LlmError | Budget.BudgetError, Scope.Scope>,
  context: Context.Context<never>
) => {
  const run = Effect.runForkWith(Context.add(context, Scheduler.Scheduler, new Scheduler.MixedScheduler()))
  const fiber = run(Effect.scoped(Effect.flatMap(self, concluded)))
  return Effect.onInterrupt(Effect.interruptible(Fiber.join(fiber)), () => Fiber.interrupt(fiber))
}

const opened: Governed = (governor, call, answer, how) =>
  Effect.scoped(Effect.flatMap(governor.open(call, attempted(answer), how), concluded))

/** The ways to make a governed call. */
export const ways = {
  run: (governor, call, answer, how) => Effect.asVoid(governor.run(call, () => answer, how)),
  open: opened,
  /** Sends its first attempt without Effect, as a transport does whose callbacks are not effects. */
  begin: (governor, call, answer, how) => {
    const attempt = attempted(answer)
    return Effect.uninterruptibleMask((restore) =>
      Effect.withFiber(({ context }) => {
        const begun = Direct.begin(SyncForm.of<Direct.OpenForms>(governor.open)!.parts, context, call, how)
        if (begun === undefined) return restore(opened(governor, call, answer, how))
        if (!begun.isSent) return inFiber(begun.resume(attempt), context)
        const ended = (exit: Exit.Exit<unknown, unknown>) => assert.isUndefined(begun.end(exit))
        return Effect.matchCauseEffect(restore(answer), {
          onSuccess: ({ actual, signal }) => {
            assert.isUndefined(begun.observe(signal))
            assert.isUndefined(begun.settle(actual))
            return Effect.sync(() => ended(Exit.void))
          },
          onFailure: (cause) => {
            if (!Cause.hasInterruptsOnly(cause)) return inFiber(begun.resume(attempt, Effect.failCause(cause)), context)
            ended(Exit.failCause(cause))
            return Effect.failCause(cause)
          }
        })
      })
    )
  }
} satisfies Record<string, Governed>

export interface Options {
  /** How governed calls are made. @default run */
  readonly way?: keyof typeof ways | undefined
  /** A layer that decorates the reservations of the budget. */
  readonly decorate?: Decorate | undefined
  /** Whether every call goes through Effect. */
  readonly onlyEffect?: boolean | undefined
}

/** The status, the metrics and the events after each step of a random history of calls. */
export const history = (seed: number, { decorate, onlyEffect = false, way = "run" }: Options = {}) => {
  const plain = Budget.layer({ limits, concurrency: 4 })
  const budgets = decorate === undefined ? plain : Layer.provide(decorated(decorate), plain)
  const live = Governor.layer({ retry: Retry.make({ attempts: 2, jitter: "none" }) }).pipe(
    Layer.provideMerge(budgets),
    Layer.provide(Retry.layerBudget({ minPerSecond: Infinity }))
  )
  const events: Array<Events.Event> = []
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
        (reservation: Budget.Reservation) => reservation.observe({ ...signal, usage: { tokens: amount } }),
        (reservation: Budget.Reservation) => reservation.fail({ reason: "rateLimit", signal }),
        (reservation: Budget.Reservation) => reservation.fail({ reason: "overload", usage: { tokens: 1 } }),
        (reservation: Budget.Reservation) => reservation.refund
      ])
      const governed = ways[way](
        governor,
        { model: "m", bytes: 0, inputTokens: Math.ceil(3_000 * random()), maxTokens: 100 },
        Effect.delay(ended, after),
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
    return { seen, metrics, events, status: yield* budget.status }
  }).pipe(
    Effect.provide(live),
    Effect.provideService(Events.Observer, (event) => void events.push(event)),
    Effect.provide(TestClock.layer()),
    Random.withSeed(seed),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    (self) => throughEffect(self, onlyEffect)
  )
}

/** A provider that answers, fails or is silent for a while, and callers that leave after any of their steps. */
const aborted = (
  governor: Governor.Governor["Service"],
  budget: Budget.TokenBudget["Service"],
  random: () => number
) => {
  const pick = <A>(of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
  const actual = { inputTokens: 40, outputTokens: Math.ceil(100 * random()) }
  const ended = pick<Effect.Effect<Answer, LlmError>>([
    Effect.succeed({ value: "", actual }),
    Effect.fail(new LlmError({ reason: new Overloaded({ status: 500 }) })),
    Effect.fail(new LlmError({ reason: new RateLimited({ status: 429, retryAfter: Duration.millis(1) }) })),
    Effect.never
  ])
  const answer = Effect.andThen(
    Effect.replicateEffect(Effect.yieldNow, Math.ceil(3 * random()), { discard: true }),
    ended
  )
  const call = { model: "m", bytes: 100, maxTokens: 100 }
  const governed = ways[pick(["run", "open", "begin"] as const)](governor, call, answer, { agent: pick(["a", "b"]) })
  const reserved = Budget.withReservation({ tokens: 100 }, () => answer).pipe(
    Effect.provideService(Budget.TokenBudget, budget)
  )
  return interruptAt(Effect.exit(pick([governed, governed, reserved])), Math.ceil(60 * random()))
}

/** Aborts many calls at random steps, some of them together, and returns what is then still held. */
export const abort = (calls: number, seed: number, onlyEffect: boolean) =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const governor = yield* Governor.Governor
    const budget = yield* Budget.TokenBudget
    for (let done = 0; done < calls; done += 10) {
      const together = Array.from({ length: 10 }, () => aborted(governor, budget, random))
      yield* Effect.all(together, { concurrency: "unbounded", discard: true })
    }
    const { default: pool } = (yield* budget.status).pools
    return { inFlight: pool!.inFlight, queued: pool!.queued }
  }).pipe(
    Effect.provide(
      Layer.provideMerge(
        Governor.layer({ retry: Retry.make({ base: "1 millis" }) }),
        Budget.layer({ concurrency: 3, limits: {} })
      )
    ),
    (self) => throughEffect(self, onlyEffect)
  )
