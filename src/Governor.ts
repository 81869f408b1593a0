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
 * Each call has one span, and is counted by the metrics of `docs/guides/observability.md`.
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
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Accounting from "./Accounting.ts"
import * as Budget from "./Budget.ts"
import * as Estimator from "./Estimator.ts"
import * as Events from "./Events.ts"
import * as GovernedCall from "./governor/call.ts"
import * as Conversations from "./governor/conversations.ts"
import { makeFlights } from "./governor/estimate.ts"
import * as Health from "./governor/health.ts"
import { Breaker, type Call, type CallOptions, type Outcome, type Ticket } from "./governor/models.ts"
import * as Trace from "./governor/trace.ts"
import * as Warmup from "./governor/warmup.ts"
import type { LlmError } from "./LlmError.ts"
import * as Retry from "./Retry.ts"

export { causeOf } from "./governor/failure.ts"
export * from "./governor/models.ts"

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
  /**
   * When to retry. Whatever adapter made the attempt, the policy sees what {@link causeOf} says of its failure: an
   * `LlmError` where that can be told.
   *
   * @default {@link Retry.defaultPolicy}
   */
  readonly retry?: Retry.Policy<LlmError> | undefined
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
  const { accounting = estimator.accounting, retry: policy = Retry.defaultPolicy } = options
  const context = yield* Effect.context<never>()
  const parts: GovernedCall.Parts = {
    accounting,
    breaker,
    budget,
    conversations: Conversations.make(),
    estimator,
    flights: makeFlights(),
    given: Context.pick(Retry.RetryBudget)(context),
    health: Health.make(),
    observer: Events.observerOf(context),
    policy,
    warmup: Warmup.make()
  }

  const run = <A, E, R>(
    call: Call,
    attempt: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
    how: CallOptions = {}
  ): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> =>
    Effect.map(
      GovernedCall.make(parts, call, how, {
        attempt,
        conclude: (ticket, { actual, response, signal }) =>
          Effect.andThen(ticket.observeLimits(signal), ticket.succeed(actual, response)),
        within: undefined
      }),
      ({ value }) => value
    )

  return Governor.of({
    run,
    open: (call, attempt, how = {}) =>
      Effect.flatMap(Effect.scope, (within) =>
        GovernedCall.make(parts, call, how, { attempt, conclude: () => Effect.void, within })
      ),
    admit: (call, how = {}) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.withFiber(({ context }) => {
          const trace = Trace.begin(
            GovernedCall.poolOf(parts, call),
            call.model,
            Context.get(context, Clock.Clock),
            context
          )
          const bounds = GovernedCall.boundsOf(trace, how, Context.get(context, Retry.Deadline))
          return GovernedCall.admit(parts, call, how, trace, bounds, false, restore)
        })
      ).pipe(
        // Once the caller has it: one that was interrupted before has sent nothing.
        Effect.tap((ticket) => Effect.sync(() => ticket.send()))
      ),
    retry: (self, how = {}) => GovernedCall.retry(parts, self, how.retry ?? policy),
    learned: estimator.learned
  })
})

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
