/** Composes a governor: the steps of a call, and what all of its calls share. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import * as Estimator from "../Estimator.ts"
import type { Ask } from "../budget/asking.ts"
import { observerOf } from "../budget/observer.ts"
import * as Waker from "../line/waker.ts"
import * as SyncForm from "../domain/syncForm.ts"
import { millisOf } from "../domain/input/checks.ts"
import {
  admit,
  type AdmissionStep,
  begin,
  checked,
  inScope,
  leaveOpen,
  type MakeAttempt,
  sent,
  settleAnswered,
  when,
  withAdmission,
  withAgent,
  withJob,
  withBreaker,
  withRetries,
  withSettlement,
  withTimeout,
  withWarmup
} from "./steps.ts"
import type { GovernedAttempt } from "./attempt.ts"
import { PromptCounter } from "./counting.ts"
import type * as Direct from "./direct.ts"
import type { GovernedCall } from "./governedCall.ts"
import { PlausibleUsage } from "./plausible.ts"
import * as CapLog from "../money/capLog.ts"
import type { EstimatorForms, GovernorParts } from "./parts.ts"
import { History } from "./history.ts"
import { Breaker, type Call, type CallOptions, type Options, type Outcome, type Ticket } from "./models.ts"
import { PoolRecords } from "./pool.ts"
import { Conversations } from "./conversations.ts"
import * as Warmup from "./warmup.ts"
import { afterBy, type ParkedCall } from "../money/parking.ts"
import type { OpenWindows } from "../money/account.ts"
import { LongWindows, type WindowStatus } from "../money/windows.ts"
import type { LlmError } from "../LlmError.ts"
import type { PlaceStatus } from "../places/models.ts"
import type { Placing } from "./places.ts"
import * as Prices from "../Prices.ts"
import { BudgetStore, newId, type Sharing } from "../sharing/port.ts"
import { RetryBudget } from "./retryBudget.ts"
import * as Retry from "../Retry.ts"

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * Runs calls under budget and retry.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class Governor extends Context.Service<
  Governor,
  {
    /**
     * Runs a call: each attempt under a reservation, retried by the policy. Refusals of the budget are not retried. Each
     * attempt has a scope of its own, which closes when the attempt ends. Use `open` for resources that must outlive the call.
     */
    readonly run: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | LlmError | Budget.BudgetError, Exclude<R, Scope.Scope>>
    /**
     * Begins a call that outlives the effect, such as a stream. It is retried as in `run` until an attempt succeeds. Its reservation,
     * and everything that the attempt opened, lives as long as the scope around it. The caller must conclude the ticket.
     */
    readonly open: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<A, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | LlmError | Budget.BudgetError, R | Scope.Scope>
    /** Admits one attempt, without retries, breaker or timeout, for code that makes its own attempts. */
    readonly admit: (
      call: Call,
      options?: CallOptions
    ) => Effect.Effect<Ticket, Budget.BudgetError | LlmError, Scope.Scope>
    /** Everything learned about calls so far. Keep it, and pass it to the next governor as `learned`. */
    readonly learned: Effect.Effect<Estimator.Learned>
    /** The prices by which calls are paid for: the published ones, and those of the options. */
    readonly prices: Prices.Table
    /**
     * Why calls go to each place, or do not: for those that calls could go to, and by what this governor has learned.
     *
     * @since 0.5.0
     */
    readonly places: Effect.Effect<ReadonlyArray<PlaceStatus>>
    /** The state of the long windows of subscriptions: how much is spent, and when they end. */
    readonly windows: Effect.Effect<ReadonlyArray<WindowStatus>>
    /**
     * The calls that are parked until a reset (`park`), in the order in which they go on, without what they send.
     *
     * @since 0.5.0
     */
    readonly parked: Effect.Effect<ReadonlyArray<ParkedCall>>
    /**
     * Ends a parked call: it fails with the refusal that it would have got without `park`. False if it is not parked.
     *
     * @since 0.5.0
     */
    readonly unpark: (id: string) => Effect.Effect<boolean>
  }
>()("floodgate/Governor/Governor") {}

// -----------------------------------------------------------------------------
// Composition
// -----------------------------------------------------------------------------

/** Runs the steps of a call, from the inside to the outside. Those that neither the governor nor the call needs are left out. */
const governed =
  <A, B, E, R>(
    attempt: MakeAttempt<A, E, R>,
    settle: (attempt: GovernedAttempt, value: A) => Effect.Effect<B>,
    withAdmission: AdmissionStep
  ) =>
  (call: GovernedCall): Effect.Effect<B, E | LlmError | Budget.BudgetError, R> => {
    const { options, parts } = call
    const run = pipe(
      attempt,
      when(options.timeout, withTimeout),
      when(parts.breaker, withBreaker),
      withSettlement(settle),
      withAdmission,
      when(options.cacheKey, withWarmup),
      when(options.agent, withAgent),
      when(options.job, withJob),
      withRetries
    )
    return run(call)
  }

/** The long windows of the accounts. If processes share a store, they share those. */
const windowsOf = Effect.fnUntraced(function* (
  { learned, tryWindowsEvery = "10 minutes", windows: shares }: Options,
  wake: Waker.Wake
): Effect.fn.Return<LongWindows> {
  const context = yield* Effect.context<never>()
  const fork = Effect.runForkWith(context)
  const sharing = Context.get(context, BudgetStore)
  return new LongWindows(Context.get(context, Clock.Clock), {
    shares,
    learned: learned?.windows,
    triesEvery: millisOf(tryWindowsEvery),
    after: afterBy(fork),
    open: shares && sharing && opening(sharing, context, fork, yield* newId),
    wake,
    warn: (message) => fork(Effect.logWarning(message))
  })
})

/** Makes what all calls of a governor share. */
const partsOf = Effect.fnUntraced(function* (
  options: Options,
  placing: Effect.Effect<Placing> | undefined
): Effect.fn.Return<readonly [GovernorParts, Placing | undefined], never, Budget.TokenBudget | Estimator.Estimator> {
  const budget = yield* Budget.TokenBudget
  const estimator = yield* Estimator.Estimator
  const breaker = yield* Breaker
  const { accounting = estimator.accounting, countPrompts = true, prices, retry: policy = Retry.make() } = options
  const context = yield* Effect.context<never>()
  const wake = Waker.make(yield* Scheduler.Scheduler)
  const observer = observerOf(context)
  const fork = Effect.runForkWith(context)
  const windows = yield* windowsOf(options, wake)
  const places = placing && (yield* placing)
  const parts: GovernorParts = {
    accounting,
    ask: SyncForm.of<Ask>(budget.reserve),
    breaker,
    budget,
    conversations: new Conversations(),
    counter: countPrompts ? new PromptCounter() : undefined,
    estimator,
    estimates: SyncForm.of<EstimatorForms>(estimator.estimate),
    learns: SyncForm.of<EstimatorForms>(estimator.learn),
    fork,
    history: Context.get(context, History),
    observer,
    places: places?.shared,
    plausible: new PlausibleUsage(fork),
    policy,
    pools: new PoolRecords(context),
    prices: prices === undefined ? Prices.published : { ...Prices.published, ...prices },
    reportCap: CapLog.make(fork, observer),
    retryBudget: Context.get(context, RetryBudget),
    wake,
    warmup: Warmup.make(Context.get(context, Clock.Clock)),
    windows
  }
  places?.begin(parts)
  return [parts, places]
})

/** Makes a governor. Without `placing`, its calls have one place, and a program is smaller by what the others need. */
export const make = Effect.fnUntraced(function* (
  options: Options,
  placing?: Effect.Effect<Placing>
): Effect.fn.Return<Governor["Service"], never, Budget.TokenBudget | Estimator.Estimator> {
  const [parts, places] = yield* partsOf(options, placing)
  const { estimator, prices, windows } = parts
  const admission = places?.withAdmission ?? withAdmission

  const run: Direct.Run = (request, send, options) =>
    begin(parts, request, options, "effect", governed(sent(send), settleAnswered, admission))
  const open: Governor["Service"]["open"] = (request, send, options) =>
    begin(parts, request, options, "scope", governed(inScope(sent(send)), leaveOpen, admission))
  const checkedRun: Governor["Service"]["run"] = (request, send, options) =>
    checked("Governor.run", request, options, () =>
      begin(parts, request, options, "effect", governed(inScope(sent(send)), settleAnswered, admission))
    )
  const checkedOpen: Governor["Service"]["open"] = (request, send, options) =>
    checked("Governor.open", request, options, () => open(request, send, options))

  return Governor.of({
    run: SyncForm.attach(checkedRun, run),
    open: SyncForm.attach<typeof open, Direct.OpenForms>(checkedOpen, { open, parts }),
    admit: (request, options) =>
      checked("Governor.admit", request, options, () => begin(parts, request, options, "scope", admit(admission))),
    learned: Effect.map(estimator.learned, (learned) => withWindows(learned, windows)),
    prices,
    places: Effect.map(Clock.currentTimeMillis, (now) => places?.shared.memory.status(now) ?? []),
    windows: Effect.sync(() => windows.status),
    ...parkedIn(windows)
  })
})

/** Opens what processes share of the windows of an account. */
const opening =
  (sharing: Sharing, context: Context.Context<never>, fork: Parameters<typeof afterBy>[0], id: string) =>
  (account: string): OpenWindows =>
  (own) =>
    sharing.openWindows({
      ...own,
      account,
      id,
      clock: Context.get(context, Clock.Clock),
      after: (millis, then) => {
        const timer = fork(Effect.andThen(Effect.sleep(millis), then))
        return () => timer.interruptUnsafe()
      }
    })

const parkedIn = ({ parking }: LongWindows): Pick<Governor["Service"], "parked" | "unpark"> => ({
  parked: Effect.sync(() => parking.status),
  unpark: (id) => Effect.sync(() => parking.cancel(id))
})

const withWindows = (learned: Estimator.Learned, { learned: windows }: LongWindows): Estimator.Learned =>
  windows.length === 0 ? learned : { ...learned, windows }

/** The layer of a governor, with an estimator of its own. */
export const layerOf = (
  options: Options,
  placing?: Effect.Effect<Placing>
): Layer.Layer<Governor, never, Budget.TokenBudget> =>
  Layer.effect(Governor, make(options, placing)).pipe(
    Layer.provide(Estimator.layer({ accounting: options.accounting, learned: options.learned }))
  )
