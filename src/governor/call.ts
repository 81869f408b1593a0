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
import { isAmount } from "../internal/believed.ts"
import { durationOf, waitOf } from "../internal/invalid.ts"
import type * as Limits from "../Limits.ts"
import { annotate, isLlmError, LlmError, TimedOut } from "../LlmError.ts"
import * as Loop from "../retry/loop.ts"
import * as Retry from "../Retry.ts"
import { type Flights, type Known, reserve } from "./estimate.ts"
import { causeOf, read } from "./failure.ts"
import type { Breaker, Call, CallOptions } from "./models.ts"
import { HeldTicket, type Parts as TicketParts, withHistory } from "./ticket.ts"
import * as Trace from "./trace.ts"
import type { Warmup } from "./warmup.ts"

/** What calls are made with. */
export interface Parts extends TicketParts {
  readonly breaker: Breaker | undefined
  readonly flights: Flights
  readonly policy: Retry.Policy
  /** The retry budget of the governor's own context, if it has one. */
  readonly given: Context.Context<never>
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

/** Longer than any bucket of a minute takes to be full again: what a provider closes for longer is closed for everybody. */
const longestRefill = 120_000

/** The pool of a call's model: what the budget says, else the class of models that share their limits. */
export const poolOf = ({ accounting, budget }: TicketParts, { model }: Call): string => {
  const pool = budget.poolOf(model)
  return pool === model ? (accounting.poolOf?.(model) ?? pool) : pool
}

/** Makes a call, retried as its policy says. */
export const make = <A, E, R>(
  parts: Parts,
  call: Call,
  how: CallOptions,
  uses: Uses<A, E, R>
): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> =>
  Effect.withFiber(({ context }) => {
    const { within } = uses
    const trace = Trace.begin(poolOf(parts, call), Context.get(context, Clock.Clock), context)
    const deadline = Context.get(context, Retry.Deadline) ?? Infinity
    const made = new GovernedCall(parts, call, how, uses, trace, deadline).attempts
    const end = (exit: Exit.Exit<unknown, unknown>) => Effect.sync(() => Trace.end(trace, exit))
    const traced = Trace.isTraced(context)
    if (within === undefined) {
      const ended = Effect.onExit(made, end)
      return traced ? Effect.scoped(Trace.within(trace, call, ended)) : ended
    }
    const ended = Effect.andThen(Scope.addFinalizerExit(within, end), made)
    return traced ? Scope.provide(Trace.within(trace, call, ended), within) : ended
  })

/** Runs an effect, which does its own admissions, under a retry policy. */
export const retry = <A, E, R>(
  { given }: Parts,
  self: Effect.Effect<A, E, R>,
  policy: Retry.Policy
): Effect.Effect<A, E, R> =>
  Effect.contextWith((caller: Context.Context<R>) => {
    const deadline = Context.get(caller, Retry.Deadline) ?? Infinity
    const judge = (error: unknown): Loop.Judgement => {
      const { isRetryable, retryAfter } = read(error)
      const after = retryAfter === undefined ? undefined : Duration.toMillis(retryAfter)
      return { isRetryable: isRetryable && !(error instanceof Budget.BudgetError), retryAfter: after, isOwn: true }
    }
    const finish = (error: E, stoppedBy: Retry.StopReason | undefined): E =>
      isLlmError(error) ? (annotate(error, { stoppedBy }) as typeof error) : error
    return Effect.provideContext(
      Loop.retry(self, policy as Loop.Rules<unknown>, { judge, finish, deadline }),
      Context.merge(given, caller)
    )
  })

class GovernedCall<A, E, R> {
  private readonly parts: Parts
  private readonly call: Call
  private readonly how: CallOptions
  private readonly uses: Uses<A, E, R>
  private readonly trace: Trace.Trace
  private readonly deadline: number
  /** The ticket of the last attempt, and what that failed with. */
  private ticket: HeldTicket | undefined = undefined
  private failure: E | LlmError | undefined = undefined

  constructor(parts: Parts, call: Call, how: CallOptions, uses: Uses<A, E, R>, trace: Trace.Trace, deadline: number) {
    this.parts = parts
    this.call = call
    this.how = how
    this.uses = uses
    this.trace = trace
    this.deadline = deadline
  }

  get attempts(): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> {
    const { agent, retry = this.parts.policy } = this.how
    const loop = Loop.retry(
      Effect.suspend(() => this.once()),
      retry as Loop.Rules<unknown>,
      { judge: (error) => this.judge(error), finish: (error, why) => this.finish(error, why), deadline: this.deadline }
    )
    return Effect.contextWith((caller: Context.Context<R>) => {
      // The caller's own retry budget goes before the governor's, and attempts know for whom they are made.
      const all = Context.merge(this.parts.given, caller)
      return Effect.provideContext(
        Effect.tapError(loop, (error) => this.closed(error)),
        agent === undefined ? all : Context.add(all, Budget.Agent, agent)
      )
    })
  }

  // ---------------------------------------------------------------------------
  // One attempt
  // ---------------------------------------------------------------------------

  private once(): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> {
    const { clock } = this.trace
    const now = clock.currentTimeMillisUnsafe()
    Trace.resume(this.trace)
    if (this.deadline < now) {
      const reason = new Budget.DeadlineMissed({ wait: Duration.zero, left: Duration.zero })
      return Effect.fail(new Budget.BudgetError({ reason }))
    }
    const { cacheKey, maxWait } = this.how
    const longest = maxWait === undefined ? Infinity : Duration.toMillis(waitOf("CallOptions.maxWait", maxWait))
    const key = cacheKey === undefined ? undefined : JSON.stringify([this.call.model, cacheKey])
    return this.parts.warmup(key, Math.min(this.deadline, now + longest), this.underReservation(now, longest))
  }

  /** Reserves, sends, and settles what fails. A retry waits with empty hands: the attempt's scope closes when it fails. */
  private underReservation(from: number, longest: number): Effect.Effect<A, E | LlmError | Budget.BudgetError, R> {
    const { attempt, conclude, within } = this.uses
    return Effect.uninterruptibleMask((restore) => {
      const scope = within === undefined ? Scope.makeUnsafe() : Scope.forkUnsafe(within)
      const sent = Effect.flatMap(this.admit(from, longest, restore), (ticket) => {
        ticket.send()
        return Effect.flatMap(Effect.exit(restore(this.bounded(attempt(ticket)))), (exit) => {
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

  /** The attempt within its timeout and the breaker of its pool. */
  private bounded(attempt: Effect.Effect<A, E, R>): Effect.Effect<A, E | LlmError, R> {
    const { timeout } = this.how
    const { breaker } = this.parts
    let bounded: Effect.Effect<A, E | LlmError, R> = attempt
    if (timeout !== undefined) {
      const duration = durationOf("CallOptions.timeout", timeout)
      const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
      bounded = Effect.timeoutOrElse(bounded, { duration, orElse })
    }
    return breaker === undefined ? bounded : breaker.protect(this.trace.pool, bounded)
  }

  private admit(
    from: number,
    longest: number,
    restore: Restore
  ): Effect.Effect<HeldTicket, Budget.BudgetError, Scope.Scope> {
    const { deadline, how, parts, ticket, trace } = this
    // A call that the provider's limits cost its turn stands first among its agent's own; one that failed does not.
    const first = ticket !== undefined && ticket.failed?.verdict !== "outage"
    const now = trace.clock.currentTimeMillisUnsafe()
    const left = Math.min(deadline, from + longest) - now
    return admit(
      parts,
      this.call,
      { ...how, maxWait: left === Infinity ? undefined : Math.max(0, left) },
      trace,
      first,
      restore
    ).pipe(
      Effect.mapError((error) =>
        inTermsOfCall(error, now - from, deadline - from < longest ? deadline - from : undefined)
      ),
      Effect.tap((ticket) => Effect.sync(() => (this.ticket = ticket)))
    )
  }

  // ---------------------------------------------------------------------------
  // Failures
  // ---------------------------------------------------------------------------

  private judge(error: unknown): Loop.Judgement {
    const failed = this.ticket?.failed
    if (error instanceof Budget.BudgetError || failed === undefined) {
      return { isRetryable: false, retryAfter: undefined, isOwn: true }
    }
    this.failure = error as E | LlmError
    const { isRetryable, isWrongAddress, retryAfter, verdict } = failed
    return {
      isRetryable: isRetryable && !isWrongAddress && verdict !== "impossible",
      retryAfter: retryAfter === undefined ? undefined : Duration.toMillis(retryAfter),
      isOwn: verdict === undefined || verdict === "isolated"
    }
  }

  /** A provider that asks for more time than any bucket needs is closed for everybody until then. */
  private closed(error: unknown): Effect.Effect<unknown> {
    const { isRetryable, pushback, retryAfter } = read(error)
    return isRetryable &&
      pushback === "rateLimit" &&
      retryAfter !== undefined &&
      Duration.toMillis(retryAfter) > longestRefill
      ? this.parts.budget.cooldown({ reason: pushback, retryAfter, pool: this.trace.pool })
      : Effect.void
  }

  /** What the call fails with in the end: its own failure, or the refusal of a retry with the failure before it. */
  private finish<Error>(error: Error, stoppedBy: Retry.StopReason | undefined): Error {
    if (!(error instanceof Budget.BudgetError)) return withHistory(error, this.trace, stoppedBy)
    const { failure } = this
    if (failure === undefined) return error
    if (error.reason._tag === "DeadlineMissed") return withHistory(failure as Error, this.trace, "deadline")
    return new Budget.BudgetError({ reason: error.reason, failure: causeOf(failure) }) as typeof error
  }
}

// -----------------------------------------------------------------------------
// Admission
// -----------------------------------------------------------------------------

/** Admits a call for as long as the scope lasts. To be called where nothing interrupts. */
export const admit = (
  parts: TicketParts & { readonly flights: Flights },
  call: Call,
  how: CallOptions,
  trace: Trace.Trace,
  first: boolean,
  restore: Restore
): Effect.Effect<HeldTicket, Budget.BudgetError, Scope.Scope> =>
  Effect.withFiber(({ context }) => {
    const { accounting, budget, estimator, flights } = parts
    const { pool } = trace
    const agent = how.agent ?? Context.get(context, Budget.Agent)
    const known: Known = {
      ...call,
      // What is no number of tokens is the provider's to complain of.
      maxTokens: isAmount(call.maxTokens) ? call.maxTokens : undefined,
      pool,
      kind: call.kind ?? agent,
      together: flights.usual(pool)
    }
    const { maxWait, priority, weight } = how
    const queueing = { agent, priority, weight, maxWait, pool, first, counting: accounting.counting }
    const ask = (estimate: Limits.Estimate) => restore(budget.reserve(estimate, queueing))
    return Effect.flatMap(estimator.estimate(known), (expected) =>
      Effect.flatMap(reserve(accounting, ask, known, expected), ({ estimate, reservation }) => {
        const ticket = new HeldTicket(parts, trace, known, estimate, reservation)
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
    )
  })

/** A refusal of the queue, which knows neither the call's deadline nor how long it had waited before. */
const inTermsOfCall = (error: Budget.BudgetError, waited: number, deadline: number | undefined): Budget.BudgetError => {
  const { reason } = error
  if (reason._tag !== "WaitTooLong") return error
  const { dimension, maxWait, pool } = reason
  const before = Duration.millis(waited)
  const wait = Duration.sum(reason.wait, before)
  return new Budget.BudgetError({
    reason:
      deadline === undefined
        ? new Budget.WaitTooLong({ pool, dimension, wait, maxWait: Duration.sum(maxWait, before) })
        : new Budget.DeadlineMissed({ pool, dimension, wait, left: Duration.millis(deadline) })
  })
}
