/**
 * `Governor`: the one place where admission, attempt, settlement, learning and retry meet.
 *
 * Every client is a thin adapter of it. A call is described by what is known before it is sent; the governor estimates
 * what it will use, reserves that, runs one attempt, settles to what the attempt used, tells the budget what the response
 * said about the limits, and lets the retry policy decide about the next attempt.
 *
 * **Details**
 *
 * The order of composition, from the outside: `retry( warm cache( reserve( breaker( timeout( attempt ) ) ) ) )`. A
 * retry gives its reservation and its permit back while it waits, and stands in the queue again as its agent's first.
 * The time in the queue is not part of the attempt, so the timeout does not count it.
 *
 * Retries are taken from the {@link Retry.RetryBudget} that the caller's context has, else from the one that was provided
 * to the governor's layer, else from that of the process.
 *
 * No attempt begins after the {@link Retry.Deadline}, nor waits longer for a warm cache and in the queue than it
 * leaves. If the deadline refuses a retry, the call ends with the failure before it. If something else does, the
 * refusal has that failure as its `failure`.
 *
 * What happens to the reservation:
 *
 * - success: settled to the usage
 * - failure: settled to what the error says was used (`usage`), so a rejected call is refunded, a timeout keeps its
 *   input; an error that says nothing keeps the estimate, and so does a defect. Providers that charge what they reject or
 *   fail keep the estimate of whatever was sent
 * - interruption: refunded before the attempt begins; after that input kept, output as far as it was observed
 *
 * Each call has one span, and is counted in {@link metrics}.
 *
 * **Example** (Any effect that calls a model)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 *
 * const call = { model: "my-model", bytes: 4_000, maxTokens: 500 }
 * const actual = { inputTokens: 1_100, outputTokens: 20 }
 * const attempt = Effect.succeed({ value: "hello", actual })
 *
 * const program = Effect.gen(function* () {
 *   const governor = yield* Governor.Governor
 *   return yield* governor.run(call, () => attempt)
 * })
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer({ limits: { inputTokens: { perMinute: 100_000 } } })))
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => "hello"
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Accounting from "./Accounting.ts"
import * as Budget from "./Budget.ts"
import * as Estimator from "./Estimator.ts"
import * as Admission from "./governor/admission.ts"
import * as Attempt from "./governor/attempt.ts"
import * as Bound from "./governor/bound.ts"
import * as Failed from "./governor/failed.ts"
import { Breaker, type Call, type CallOptions, type Outcome, type Ticket } from "./governor/models.ts"
import * as Trace from "./governor/trace.ts"
import * as Warmup from "./governor/warmup.ts"
import { onlyKnown } from "./internal/invalid.ts"
import type { LlmError } from "./LlmError.ts"
import { NoAttempt, stop } from "./retry/errors.ts"
import * as Retry from "./Retry.ts"

export * from "./governor/models.ts"

/**
 * What a governor counts.
 *
 * @category metrics
 * @since 0.1.0
 */
export * as metrics from "./governor/metrics.ts"

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * Runs calls under budget and retry.
 *
 * @category services
 * @since 0.1.0
 */
export class Governor extends Context.Service<
  Governor,
  {
    /** Runs a call: each attempt under a reservation, retried by the policy. Refusals of the budget are not retried. */
    readonly run: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | LlmError | Budget.BudgetError, R>
    /**
     * Begins a call that outlives the effect, such as a stream: retried as in `run` until an attempt succeeds. Its
     * reservation and what the attempt opened live as long as the scope. The caller that began it must conclude the
     * ticket.
     */
    readonly open: <A, E, R>(
      call: Call,
      attempt: (ticket: Ticket) => Effect.Effect<A, E, R>,
      options?: CallOptions
    ) => Effect.Effect<A, E | LlmError | Budget.BudgetError, R | Scope.Scope>
    /** One admission without retries, breaker or timeout, for code that makes its own attempts. */
    readonly admit: (call: Call, options?: CallOptions) => Effect.Effect<Ticket, Budget.BudgetError, Scope.Scope>
    /** Runs an effect, which does its own admissions, under the retry policy. Refusals of the budget are not retried. */
    readonly retry: <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: Pick<CallOptions, "retry">
    ) => Effect.Effect<A, E | Budget.BudgetError, R>
    /** All that was learned of calls so far: to be kept, and given to the next governor as `learned`. */
    readonly learned: Effect.Effect<Estimator.Learned>
  }
>()("floodgate/Governor/Governor") {}

/**
 * How a governor is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** @default {@link Retry.defaultPolicy} */
  readonly retry?: Retry.Policy | undefined
  /** What the provider reserves and counts. @default the estimator's; {@link Accounting.anthropic} in {@link layer} */
  readonly accounting?: Accounting.Accounting | undefined
  /** What an earlier governor had learned of calls, for the estimator of {@link layer}. @default nothing */
  readonly learned?: Estimator.Learned | undefined
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Makes a governor over the budget and the estimator of the context.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Governor["Service"], never, Budget.TokenBudget | Estimator.Estimator> {
  const budget = yield* Budget.TokenBudget
  const estimator = yield* Estimator.Estimator
  const breaker = yield* Breaker
  onlyKnown("Governor.make", options, { retry: true, accounting: true, learned: true })
  const { accounting = estimator.accounting, retry: defaultPolicy = Retry.defaultPolicy } = options
  const given = Context.pick(Retry.RetryBudget)(yield* Effect.context<never>())
  const warmup = Warmup.make()
  const admit = Admission.make({ accounting, budget, estimator })

  /** One attempt under a reservation that outlives it. What fails is concluded here. */
  const once = <A, E, R>(
    trace: Trace.Trace,
    call: Call,
    attempt: (ticket: Ticket) => Effect.Effect<A, E, R>,
    how: CallOptions,
    bound: Bound.Bound,
    conclude: (ticket: Ticket, value: A) => Effect.Effect<void>
  ) => {
    const within = Attempt.within(how.timeout)
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(restore(admit(trace, call, how, bound)), (ticket) => {
        const send = Effect.flatMap(Trace.sent(trace), () => within(attempt(ticket)))
        return Effect.onExit(restore(Failed.protect(breaker, trace.pool, send)), (exit) => {
          if (Exit.isSuccess(exit)) return conclude(ticket, exit.value)
          if (Cause.hasInterruptsOnly(exit.cause)) return Effect.void
          return ticket.fail(Cause.squash(exit.cause))
        })
      })
    )
  }

  /** A refusal of the budget is an answer, no attempt that failed: it goes around the policy, which makes a failure of it again. */
  const attempts = <A, E, R>(
    self: (bound: Bound.Bound) => Effect.Effect<A, E, R>,
    how: CallOptions
  ): Effect.Effect<A, E | Budget.BudgetError, R> =>
    Effect.suspend(() => {
      let failure: Exclude<E, Budget.BudgetError> | undefined
      return Bound.begin(how.maxWait).pipe(
        Effect.flatMap(self),
        Effect.catchIf(Attempt.isRefusal, (refusal) => Effect.succeed(new NoAttempt(refusedRetry(refusal, failure)))),
        Effect.tapError((error) => Effect.sync(() => (failure = error))),
        Retry.withPolicy(how.retry ?? defaultPolicy),
        // The caller's own retry budget goes before the one that was given here, and attempts know for whom they are made.
        Effect.updateContext((caller: Context.Context<R>) => {
          const all = Context.merge(given, caller)
          return how.agent === undefined ? all : Context.add(all, Budget.Agent, how.agent)
        })
      ) as Effect.Effect<A, E | Budget.BudgetError, R>
    })

  const begin = <A, E, R>(
    call: Call,
    attempt: (ticket: Ticket) => Effect.Effect<A, E, R>,
    how: CallOptions,
    conclude: (ticket: Ticket, value: A) => Effect.Effect<void>
  ): Effect.Effect<A, E | LlmError | Budget.BudgetError, R | Scope.Scope> =>
    Effect.suspend(() => {
      const pool = budget.poolOf(call.model)
      const key = how.cacheKey === undefined ? undefined : JSON.stringify([call.model, how.cacheKey])
      return Effect.flatMap(Trace.begin(pool, call), (trace) => {
        const open = (bound: Bound.Bound) =>
          Attempt.scopedIfItSucceeds(warmup(key, bound.until, once(trace, call, attempt, how, bound, conclude)))
        return attempts((bound) => Effect.andThen(Trace.resumed(trace), open(bound)), how).pipe(
          Effect.mapError((error) => Attempt.withHistory(error, trace)),
          Trace.within(trace)
        )
      })
    })

  // The scope is provided here. The compiler cannot take it out of an `R` that it does not know, hence the cast.
  const run = <A, E, R>(
    call: Call,
    attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
    how: CallOptions = {}
  ): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> =>
    Effect.scoped(
      begin(call, attempt, how, (ticket, { actual, response, signal }) =>
        Effect.andThen(ticket.heard(signal), ticket.succeed(actual, response))
      )
    ).pipe(Effect.map((outcome) => outcome.value)) as Effect.Effect<A, E | LlmError | Budget.BudgetError, R>

  return Governor.of({
    run,
    open: (call, attempt, how = {}) => begin(call, attempt, how, () => Effect.void),
    admit: (call, how = {}) =>
      Effect.suspend(() => {
        const trace = Trace.silent(budget.poolOf(call.model))
        const ticket = Effect.flatMap(Bound.begin(how.maxWait), (bound) => admit(trace, call, how, bound))
        return Effect.tap(ticket, () => Trace.sent(trace))
      }),
    retry: (self, how = {}) => attempts(() => self, how),
    learned: estimator.learned
  })
})

/** What a call fails with whose retry was refused: at the deadline with its failure, else with the refusal, which has it. */
const refusedRetry = <E>(refusal: Budget.BudgetError, failure: E | undefined): Budget.BudgetError | E => {
  if (failure === undefined) return refusal
  if (refusal.reason._tag !== "DeadlineMissed") {
    return new Budget.BudgetError({ reason: refusal.reason, failure: Failed.causeOf(failure) })
  }
  stop(failure, "deadline")
  return failure
}

// -----------------------------------------------------------------------------
// Layers
// -----------------------------------------------------------------------------

/**
 * The governor as a layer, with an estimator of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Governor, never, Budget.TokenBudget> =>
  Layer.effect(Governor, make(options)).pipe(
    Layer.provide(Estimator.layer({ accounting: options.accounting, learned: options.learned }))
  )
