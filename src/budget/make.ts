/** The budget service: it finds the pool of a call, and hands out reservations. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { BudgetStore, opener } from "../sharing/port.ts"
import * as SyncForm from "../domain/syncForm.ts"
import { latest, observerOf, tickOf } from "./observer.ts"
import * as Concurrency from "../domain/concurrency.ts"
import { yielding } from "../domain/stepwise.ts"
import { check } from "../domain/input/checks.ts"
import { checkRuntime } from "../domain/input/runtime.ts"
import type * as Limits from "../Limits.ts"
import { BudgetError, type TooManyPools } from "./errors.ts"
import { checkLive, forecast as forecastSteps, prepareLive } from "./forecast/forecast.ts"
import type * as Forecast from "./forecast/models.ts"
import {
  type BudgetStatus,
  counting,
  type Foreseen,
  type GovernedOptions,
  type GovernedResize,
  type Options as BudgetOptions,
  type PauseOptions,
  type PoolSignal,
  type Reservation,
  restored,
  ReviewAt
} from "./models.ts"
import * as Options from "./options.ts"
import { Pool } from "./pool.ts"
import { type CommonOptions, OpenPools } from "./pools.ts"
import { type Ask, awaited } from "./asking.ts"
import { Entry } from "./entry.ts"
import { never } from "./foresee.ts"
import { handOut, pauseOf, readingsOf } from "./reservation.ts"
import { statusOf } from "./status.ts"
import * as Waker from "../line/waker.ts"

export const make = (options: BudgetOptions) => {
  checkRuntime()
  const sets = Options.parse(options)
  return Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const own = yield* opener
    const ticks = yield* Effect.acquireRelease(PubSub.sliding<void>(1), PubSub.shutdown)
    const wake = Waker.make(yield* Scheduler.Scheduler)
    const shared: CommonOptions = {
      concurrency: sets.concurrency,
      order: sets.order,
      maxQueued: sets.maxQueued,
      ...own,
      sharing: yield* BudgetStore,
      wake,
      changed: tickOf(ticks, wake),
      observer: observerOf(context)
    }
    const pools = new OpenPools(sets, shared, context, options.learned)
    yield* Effect.addFinalizer(() => pools.close)
    const status = Effect.sync((): BudgetStatus => ({
      pools: Object.fromEntries(pools.usedFirst.map((pool) => [pool.name, statusOf(pool)]))
    }))
    return {
      reserve: SyncForm.attach(reserve(pools), ask(pools)),
      foresee: foresee(pools),
      forecast: forecast(pools),
      observe: observe(pools),
      pause: pause(pools),
      resize: resize(pools),
      poolOf: sets.poolOf,
      status,
      changes: latest(ticks, status),
      learned: Effect.sync(() => pools.learned)
    }
  })
}

// -----------------------------------------------------------------------------
// Operations
// -----------------------------------------------------------------------------

/** Asks for admission: the call is admitted at once, refused, or queued. Its options were checked. */
const ask =
  (pools: OpenPools): Ask =>
  (context, estimate, options) => {
    Options.checkCounted(context)
    if (pools.isClosed) return Effect.interrupt
    const pool = pools.of(options)
    if (pool instanceof BudgetError) return Effect.fail(pool)
    const entry = pool.admit(estimate, Options.queueingOf(context, options), options?.[counting])
    if (entry.phase === "waiting") pools.review(entry, Context.get(context, ReviewAt))
    return entry
  }

/** A caller that is interrupted before it has its reservation holds nothing. */
const reserve =
  (pools: OpenPools) =>
  (estimate: Limits.Estimate, options?: GovernedOptions): Effect.Effect<Reservation, BudgetError, Scope.Scope> => {
    const admitted = Effect.uninterruptibleMask((restore) =>
      Effect.withFiber<Entry, BudgetError, Scope.Scope>(({ context }) => {
        if (options !== undefined) check("Budget.reserve", Options.reserveCheck, options)
        const asked = ask(pools)(context, estimate, options)
        if (!(asked instanceof Entry)) return asked
        const scope = Context.getUnsafe(context, Scope.Scope)
        if (asked.isOpen) return endingWith(scope, asked)
        const waited = Effect.onExitPrimitive(restore(awaited(asked, context)), (exit) => {
          if (exit._tag !== "Success") asked.leave(exit)
          return undefined
        })
        return Effect.flatMap(waited, (entry) => endingWith(scope, entry))
      })
    )
    return Effect.map(admitted, handOut)
  }

const foresee =
  (pools: OpenPools) =>
  (estimate: Limits.Estimate, options?: GovernedOptions): Effect.Effect<Foreseen> =>
    Effect.withFiber(({ context }) => {
      if (options !== undefined) check("Budget.foresee", Options.reserveCheck, options)
      Options.checkCounted(context)
      const pool = pools.isClosed ? undefined : pools.of(options, "foresee")
      if (pool === undefined) return Effect.interrupt
      if (pool instanceof Pool) {
        return Effect.succeed(pool.foresee(estimate, Options.queueingOf(context, options), options?.[counting]))
      }
      const refusal = pool.reason as TooManyPools
      return Effect.succeed(never(refusal.pool, refusal))
    })

const forecast =
  (pools: OpenPools) =>
  (workload: Forecast.Workload, options: Forecast.LiveOptions = {}): Effect.Effect<Forecast.Forecast, BudgetError> =>
    Effect.withFiber(({ context }) => {
      checkLive("Budget.forecast", workload, options)
      const { account, model, pool: named } = options
      const pool = pools.isClosed ? undefined : pools.of({ account, model, pool: named }, "forecast")
      if (pool === undefined) return Effect.interrupt
      if (pool instanceof BudgetError) return Effect.fail(pool)
      return yielding(forecastSteps(prepareLive(pool.view, workload, options, Options.ownerOf(context))))
    })

const observe =
  (pools: OpenPools) =>
  (signal: PoolSignal): Effect.Effect<void> =>
    Effect.sync(() => {
      check("Budget.observe", Options.observeCheck, signal)
      pools.existing(signal.pool)?.observe(readingsOf(signal))
    })

const pause =
  (pools: OpenPools) =>
  (options: PauseOptions): Effect.Effect<void> =>
    Effect.sync(() => {
      check("Budget.pause", Options.pauseCheck, options)
      const { duration, pool, reason = "rateLimit" } = options
      pools.existing(pool)?.pause(reason, pauseOf(duration))
    })

const resize =
  (pools: OpenPools) =>
  (options: GovernedResize): Effect.Effect<void> =>
    Effect.sync(() => {
      check("Budget.resize", Options.resized, options)
      const { concurrency, limits, pool } = options
      if (options[restored] !== undefined) pools.restore(options[restored])
      const inFlight = concurrency === undefined ? undefined : Concurrency.parse(concurrency)
      if (pool === undefined && limits === undefined && inFlight !== undefined) pools.resizeAll(inFlight)
      else pools.resize(pool, limits, inFlight)
    })

/** Ends a reservation with a scope. */
const endingWith = (scope: Scope.Scope, entry: Entry): Effect.Effect<Entry> =>
  Effect.as(
    Scope.addFinalizerExit(scope, (exit) => Effect.sync(() => entry.leave(exit))),
    entry
  )
