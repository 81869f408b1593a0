/**
 * One governed call: describe, estimate, admit, attempt, settle, learn; and again, as the retry policy says.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { isAmount } from "../input/believed.ts"
import { nameIn } from "../budget/options.ts"
import { durationOf, waitOf } from "../input/arguments.ts"
import type * as Limits from "../Limits.ts"
import { DeadlineMissed, isLlmError, LlmError, TimedOut } from "../LlmError.ts"
import * as Loop from "../retry/loop.ts"
import type { StopReason } from "../retry/errors.ts"
import * as Retry from "../Retry.ts"
import { type Flights, type Known, reserve } from "./estimate.ts"
import { causeOf, isRefusal, read } from "./failure.ts"
import * as Payment from "./payment.ts"
import type { Breaker, Call, CallOptions } from "./models.ts"
import { HeldTicket, type Parts as TicketParts, withHistory } from "./ticket.ts"
import * as Trace from "./trace.ts"
import type { Warmup } from "./warmup.ts"

/** What calls are made with. */
export interface Parts extends TicketParts {
  readonly breaker: Breaker | undefined
  readonly flights: Flights
  readonly policy: Retry.Policy<LlmError>
  /** The retry budget of the governor's own context, if it has one. */
  readonly retryBudget: Retry.RetryBudget | undefined
  readonly warmup: Warmup
}

/** What a call does with its attempts. */
export interface Uses<A, E, R> {
  readonly attempt: (ticket: HeldTicket) => Effect.Effect<A, E, R>
  /** Settles an attempt that succeeded. */
  readonly conclude: (ticket: HeldTicket, value: A) => Effect.Effect<void>
  /** What an attempt that succeeded opened lives as long as this scope; without one it ends with the attempt. */
  readonly within: Scope.Scope | undefined
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** When an attempt begins to wait, the longest that it may, and the time after which it may not begin, in milliseconds. */
interface Bounds {
  readonly from: number
  readonly longest: number
  readonly last: number
}

export const boundsOf = ({ clock }: Trace.Trace, { maxWait }: CallOptions, last = Infinity): Bounds => ({
  from: clock.currentTimeMillisUnsafe(),
  longest: maxWait === undefined ? Infinity : Duration.toMillis(waitOf("CallOptions.maxWait", maxWait)),
  last
})

/** Longer than any bucket of a minute takes to be full again: what a provider closes for longer is closed for everybody. */
const longestRefill = 120_000

/** The pool of a call's model: what the budget says, else the class of models that share their limits. */
const classOf = ({ accounting, budget }: TicketParts, call: Call): string => {
  const { model } = call
  const pool = budget.poolOf(model)
  return pool === model ? ((call.accounting ?? accounting).poolOf?.(model) ?? pool) : pool
}

/** The name of the pool of a call. */
export const poolOf = (parts: TicketParts, call: Call): string => nameIn(call.account, classOf(parts, call))

/** Makes a call, retried as its policy says. */
export const make = <A, E, R>(
  parts: Parts,
  call: Call,
  how: CallOptions,
  uses: Uses<A, E, R>
): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> =>
  Effect.withFiber(({ context }) => {
    const { within } = uses
    const trace = Trace.begin(poolOf(parts, call), call.model, Context.get(context, Clock.Clock), context)
    const made = new GovernedCall(parts, call, how, uses, trace, context).attempts
    const end = ending(trace)
    const traced = Trace.isTraced(context)
    if (within === undefined) {
      const ended = Effect.onExit(made, end)
      return traced ? Effect.scoped(Trace.within(trace, call, ended)) : ended
    }
    const ended = Effect.andThen(Scope.addFinalizerExit(within, end), made)
    return traced ? Scope.provide(Trace.within(trace, call, ended), within) : ended
  })

/** Made out of sight of the call, because a stream keeps it for as long as it lasts. */
const ending = (trace: Trace.Trace) => (exit: Exit.Exit<unknown, unknown>) => Effect.sync(() => Trace.end(trace, exit))

/** Runs an effect, which does its own admissions, under a retry policy. */
export const retry = <A, E, R>(
  parts: Parts,
  self: Effect.Effect<A, E, R>,
  policy: Retry.Policy<LlmError>
): Effect.Effect<A, E | LlmError, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Loop.retry(policy, {
      ...boundsOfRetries(parts, context),
      attempt: (last) =>
        Effect.flatMap(Clock.currentTimeMillis, (now): Effect.Effect<A, E | LlmError, R> =>
          last < now ? tooLate : self
        ),
      judge: (error) => ({ ...judgementOf(error, policy), isOwn: true }),
      finish: (error, stoppedBy) => (isLlmError(error) ? (error.annotate({ stoppedBy }) as typeof error) : error)
    })
  )

/** What bounds the retries of a caller. Its own retry budget goes before the governor's. */
const boundsOfRetries = ({ retryBudget }: Parts, context: Context.Context<never>) => ({
  budget: Context.getOrUndefined(context, Retry.RetryBudget) ?? retryBudget ?? Context.get(context, Retry.RetryBudget),
  deadline: Context.get(context, Retry.Deadline) ?? Infinity
})

/** What an error says of another attempt. Where it says that there must be none, the policy is not asked. */
const judgementOf = (error: unknown, policy: Retry.Policy<LlmError>): Omit<Loop.Judgement<LlmError>, "isOwn"> => {
  const { isRetryable, retryAfter } = read(error)
  const failure = causeOf(error) as LlmError
  return {
    isRetryable: !isRefusal(error) && isRetryable !== false && policy.while(failure),
    retryAfter: retryAfter === undefined ? undefined : Duration.toMillis(retryAfter),
    failure
  }
}

class GovernedCall<A, E, R> implements Loop.Retried<A, E | LlmError | Budget.BudgetError, R, LlmError> {
  private readonly parts: Parts
  private readonly call: Call
  private readonly how: CallOptions
  private readonly uses: Uses<A, E, R>
  private readonly trace: Trace.Trace
  readonly budget: Retry.RetryBudget
  readonly deadline: number
  /** The ticket of the last attempt, and what that failed with. */
  private ticket: HeldTicket | undefined = undefined
  private failure: E | LlmError | undefined = undefined

  constructor(
    parts: Parts,
    call: Call,
    how: CallOptions,
    uses: Uses<A, E, R>,
    trace: Trace.Trace,
    context: Context.Context<never>
  ) {
    this.parts = parts
    this.call = call
    this.how = how
    this.uses = uses
    this.trace = trace
    const { budget, deadline } = boundsOfRetries(parts, context)
    this.budget = budget
    this.deadline = deadline
  }

  get attempts(): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> {
    const { agent } = this.how
    const retried = Loop.retry<A, E | LlmError | Budget.BudgetError, R, LlmError>(this.policy, this)
    const all = Effect.tapError(retried, (error) => this.closed(error))
    // Attempts know for whom they are made.
    return agent === undefined ? all : Effect.provideService(all, Budget.Agent, agent)
  }

  private get policy(): Retry.Policy<LlmError> {
    return this.how.retry ?? this.parts.policy
  }

  // ---------------------------------------------------------------------------
  // One attempt
  // ---------------------------------------------------------------------------

  attempt(last: number): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> {
    const { cacheKey } = this.how
    Trace.resume(this.trace)
    const bounds = boundsOf(this.trace, this.how, last)
    const key = cacheKey === undefined ? undefined : JSON.stringify([this.call.model, cacheKey])
    return this.parts.warmup(key, Math.min(last, bounds.from + bounds.longest), this.underReservation(bounds))
  }

  /** Reserves, sends, and settles what fails. A retry waits with empty hands: the attempt's scope closes when it fails. */
  private underReservation(bounds: Bounds): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> {
    const { call, how, parts, trace } = this
    const { conclude, within } = this.uses
    // A call that the provider's limits cost its turn stands first among its agent's own; one that failed does not.
    const first = this.ticket !== undefined && this.ticket.failed?.verdict !== "outage"
    return Effect.uninterruptibleMask((restore) => {
      const scope = within === undefined ? Scope.makeUnsafe() : Scope.forkUnsafe(within)
      const sent = Effect.flatMap(admit(parts, call, how, trace, bounds, first, restore), (ticket) => {
        this.ticket = ticket
        return Effect.flatMap(Effect.exit(restore(this.bounded(ticket))), (exit) => {
          if (Exit.isSuccess(exit)) return Effect.as(conclude(ticket, exit.value), exit.value)
          const ended = Cause.hasInterruptsOnly(exit.cause) ? Effect.void : ticket.fail(Cause.squash(exit.cause))
          return Effect.andThen(ended, exit)
        })
      })
      return Effect.onExitPrimitive(Effect.provideService(sent, Scope.Scope, scope), (exit) =>
        Exit.isSuccess(exit) && within !== undefined ? undefined : Scope.closeUnsafe(scope, exit)
      ) as Effect.Effect<A, E | LlmError | Budget.BudgetError, R>
    })
  }

  /** The attempt within its timeout and the breaker of its pool, which may send nothing. */
  private bounded(ticket: HeldTicket): Effect.Effect<A, E | LlmError, R> {
    const { timeout } = this.how
    const { breaker } = this.parts
    let bounded: Effect.Effect<A, E | LlmError, R> = Effect.suspend(() => {
      ticket.send()
      return this.uses.attempt(ticket)
    })
    if (timeout !== undefined) {
      const duration = durationOf("CallOptions.timeout", timeout)
      const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
      bounded = Effect.timeoutOrElse(bounded, { duration, orElse })
    }
    return breaker === undefined ? bounded : breaker.protect(this.trace.pool, bounded)
  }

  // ---------------------------------------------------------------------------
  // Failures
  // ---------------------------------------------------------------------------

  waits(error: unknown, millis: number): void {
    const { parts, ticket, trace } = this
    if (parts.observer === undefined || ticket === undefined) return
    const { agent, pool } = ticket.reservation
    const at = trace.clock.currentTimeMillisUnsafe()
    const { attempts: attempt, model } = trace
    const reason = Trace.errorType(error)
    parts.observer({ type: "retry", at, pool, agent, model, attempt, reason, until: at + Math.ceil(millis) })
  }

  judge(error: E | LlmError | Budget.BudgetError): Loop.Judgement<LlmError> {
    const judgement = judgementOf(error, this.policy)
    const failed = this.ticket?.failed
    if (isRefusal(error) || failed === undefined) return { ...judgement, isRetryable: false, isOwn: true }
    this.failure = error as E | LlmError
    const { isWrongAddress, verdict } = failed
    return {
      ...judgement,
      isRetryable: judgement.isRetryable && !isWrongAddress && verdict !== "impossible",
      isOwn: verdict === undefined || verdict === "isolated"
    }
  }

  /** A provider that asks for more time than any bucket needs is closed for everybody until then. */
  private closed(error: unknown): Effect.Effect<unknown> {
    const { isRetryable, pushback, retryAfter = Duration.zero } = read(error)
    const millis = Duration.toMillis(retryAfter)
    return isRetryable === true && pushback === "rateLimit" && millis > longestRefill && millis < Infinity
      ? this.parts.budget.cooldown({ reason: pushback, retryAfter, pool: this.trace.pool })
      : Effect.void
  }

  /** What the call fails with in the end: its own failure, or the refusal of a retry with the failure before it. */
  finish<Error>(error: Error, stoppedBy: StopReason | undefined): Error {
    const { failure, ticket } = this
    if (!isRefusal(error)) return (ticket?.tooLarge(error) ?? withHistory(error, this.trace, stoppedBy)) as Error
    if (failure === undefined) return error
    if (!(error instanceof Budget.BudgetError)) return withHistory(failure as Error, this.trace, "deadline")
    return new Budget.BudgetError({ reason: error.reason, failure: causeOf(failure) }) as typeof error
  }
}

// -----------------------------------------------------------------------------
// Admission
// -----------------------------------------------------------------------------

const tooLate = Effect.fail(new LlmError({ reason: new DeadlineMissed({ wait: Duration.zero, left: Duration.zero }) }))

/** Admits a call for as long as the scope lasts. To be called where nothing interrupts. */
export const admit = (
  parts: TicketParts & { readonly flights: Flights },
  call: Call,
  how: CallOptions,
  trace: Trace.Trace,
  { from, last, longest }: Bounds,
  first: boolean,
  restore: Restore
): Effect.Effect<HeldTicket, Budget.BudgetError | LlmError, Scope.Scope> =>
  Effect.withFiber(({ context }) => {
    const { budget, conversations, estimator, flights } = parts
    const { accounting = parts.accounting } = call
    const { pool } = trace
    const now = trace.clock.currentTimeMillisUnsafe()
    if (last < now) return tooLate
    const agent = how.agent ?? Context.get(context, Budget.Agent)
    const continued = call.inputTokens === undefined ? conversations.promptOf(call) : undefined
    const known: Known & Payment.Priced = {
      ...call,
      // What is no number of tokens is the provider's to complain of.
      maxTokens: isAmount(call.maxTokens) ? call.maxTokens : undefined,
      inputTokens: call.inputTokens ?? continued,
      continued,
      pool,
      kind: call.kind ?? agent,
      together: flights.usual(pool)
    }
    const { priority, weight } = how
    const leftAt = (now: number): number => Math.max(0, Math.min(last, from + longest) - now)
    const inTerms = (since: number) => (error: Budget.BudgetError) =>
      inTermsOfCall(error, since - from, last - from < longest ? last - from : undefined)
    const queued = (since: number) => {
      const left = leftAt(since)
      return {
        agent,
        priority,
        weight,
        maxWait: left === Infinity ? undefined : left,
        pool: classOf(parts, call),
        account: call.account,
        first,
        counting: accounting.counting
      }
    }
    const ask = (estimate: Limits.Estimate) => {
      // Waiting to be paid for took its part of the time.
      const since = trace.clock.currentTimeMillisUnsafe()
      return Effect.mapError(restore(budget.reserve(estimate, queued(since))), inTerms(since))
    }
    const purses = Payment.pursesOf(context, how.purses)
    const price = parts.priceOf(call.model)
    return Effect.flatMap(estimator.estimate(known), (expected) => {
      const cost =
        price === undefined ? Payment.nothing : Payment.expectedOf(known, { accounting, estimate: expected, known })
      const admitted = (payment: Payment.Payment | undefined) =>
        Effect.flatMap(reserve(accounting, ask, known, expected), ({ estimate, reservation }) => {
          const ticket = new HeldTicket(parts, trace, known, estimate, reservation, { price, expected: cost, payment })
          flights.began(pool)
          Trace.admitted(trace, estimate, reservation)
          const close = Effect.suspend(() => {
            flights.ended(pool)
            return ticket.close()
          })
          return Effect.as(
            Effect.addFinalizer(() => close),
            ticket
          )
        })
      if (purses.length === 0) return admitted(undefined)
      const asking = { purses, price, call: known, expected: cost, pool, longest: leftAt(now) }
      return Effect.flatMap(Effect.mapError(Payment.pay(asking, restore), inTerms(now)), (payment) =>
        Effect.onError(admitted(payment), () =>
          Effect.sync(() => payment?.settle(0, trace.clock.currentTimeMillisUnsafe()))
        )
      )
    })
  })

/** A refusal of the queue, which knows neither the call's deadline nor how long it had waited before. */
const inTermsOfCall = (
  error: Budget.BudgetError,
  waited: number,
  deadline: number | undefined
): Budget.BudgetError | LlmError => {
  const { reason } = error
  if (reason._tag !== "WaitTooLong") return error
  const { dimension, maxWait, pool } = reason
  const before = Duration.millis(waited)
  const wait = Duration.sum(reason.wait, before)
  if (deadline !== undefined) {
    return new LlmError({ reason: new DeadlineMissed({ pool, dimension, wait, left: Duration.millis(deadline) }) })
  }
  return new Budget.BudgetError({
    reason: new Budget.WaitTooLong({ pool, dimension, wait, maxWait: Duration.sum(maxWait, before) })
  })
}
