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
import * as Tracer from "effect/Tracer"
import * as Budget from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import { isAmount } from "../limits/amounts.ts"
import { maxIdlePools, nameIn } from "../budget/options.ts"
import type { Wake } from "../budget/waker.ts"
import { check, invalid, millisOf } from "../input/checks.ts"
import * as Recency from "../input/recency.ts"
import { DeadlineMissed, LlmError, TimedOut } from "../LlmError.ts"
import * as Prices from "../Prices.ts"
import * as Rates from "../prices/rates.ts"
import { ofProcess } from "../retry/budget.ts"
import * as Loop from "../retry/loop.ts"
import type { StopReason } from "../retry/errors.ts"
import * as Retry from "../Retry.ts"
import { type Purse, Purses } from "../spending/models.ts"
import { causeOf, errorType, isOwnTimeout, isRefusal, outcomeOf, read } from "./failure.ts"
import type { Breaker, Call, CallOptions } from "./models.ts"
import * as Checks from "./options.ts"
import * as Payment from "./payment.ts"
import { Pool } from "./pool.ts"
import { HeldTicket, type History, type Parts as TicketParts, withHistory } from "./ticket.ts"
import * as Trace from "./trace.ts"
import * as Usage from "./usage.ts"
import type { Warmup } from "./warmup.ts"

/** The parts of a governor that calls need. */
export interface Parts extends TicketParts {
  readonly breaker: Breaker | undefined
  readonly budget: Budget.TokenBudget["Service"]
  readonly policy: Retry.Policy<LlmError>
  readonly prices: Rates.Table
  /** The governor's own context, whose registry has the metrics. */
  readonly context: Context.Context<never>
  /** What is known of the pools that calls were made in, by name. */
  readonly pools: Map<string, Pool>
  readonly shedder: Recency.Shedder<string, Pool>
  /** The retry budget of the governor's own context, if it has one. */
  readonly retryBudget: Retry.RetryBudget | undefined
  readonly wake: Wake
  readonly warmup: Warmup
}

/** What a call does with its attempts. */
export interface Uses<A, B, E, R> {
  readonly attempt: (ticket: HeldTicket) => Effect.Effect<A, E, R>
  /** Settles an attempt that succeeded, and gives what the call gives. */
  readonly conclude: (ticket: HeldTicket, value: A) => Effect.Effect<B>
  /** Whether an attempt that succeeded goes on, and what it opened, as long as the caller's scope; else it ends at once. */
  readonly goesOn: boolean
}

type CallError = LlmError | Budget.BudgetError
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** When an attempt begins to wait, until when it may, and when it has to begin, in milliseconds of the clock. */
interface Bounds {
  readonly from: number
  readonly until: number
  readonly deadline: number
  /** Whether it is the deadline that bounds the wait, and not the call's `maxWait`. */
  readonly isDeadline: boolean
}

/** Longer than any bucket of a minute takes to be full again: what a provider closes for longer is closed for everybody. */
const longestRefill = 120_000

const forget = ({ counts }: Pool): void => counts.leave()

/** The pools that calls were made in. Those that no call is in make room. */
export const makePools = (): Pick<Parts, "pools" | "shedder"> => {
  const pools = new Map<string, Pool>()
  return { pools, shedder: new Recency.Shedder(pools, ({ isIdle }) => isIdle, forget) }
}

/** A call has left a pool. An account of which all calls were denied leaves nothing behind: its credential may have been invented. */
const left = ({ pools }: Parts, pool: Pool): void => {
  pool.users--
  if (pool.isDenied !== true || !pool.isIdle || pool.name === pool.kind || pools.get(pool.name) !== pool) return
  pools.delete(pool.name)
  forget(pool)
}

/** The pool of a call: what the budget says, else the class of models that share their limits. */
const poolOf = ({ accounting, budget, context, pools, shedder }: Parts, call: Call): Pool => {
  const { account, model } = call
  const named = budget.poolOf(model)
  const kind = named === model ? ((call.accounting ?? accounting).poolOf?.(model) ?? named) : named
  const name = nameIn(account, kind)
  const known = pools.get(name)
  if (known === undefined) shedder.shed(maxIdlePools - 1)
  const pool = known ?? new Pool(name, kind, context)
  // Used last.
  pools.delete(name)
  pools.set(name, pool)
  return pool
}

const checkCall = (operation: string, call: Call, how: CallOptions): void => {
  check(operation, Checks.call, how)
  if (typeof call.model !== "string") invalid(`${operation}: model`, "a string", call.model)
}

/** Makes a call, retried as its policy says. */
export const make = <A, B, E, R>(
  parts: Parts,
  call: Call,
  how: CallOptions,
  uses: Uses<A, B, E, R>
): Effect.Effect<B, E | CallError, Exclude<R, Scope.Scope>> =>
  Effect.withFiber(({ context }) => {
    checkCall(uses.goesOn ? "Governor.open" : "Governor.run", call, how)
    const governed = new GovernedCall(parts, call, how, uses, context)
    const { history, within } = governed
    const retried = Loop.retry<B, E | CallError, Exclude<R, Scope.Scope>, LlmError>(how.retry ?? parts.policy, governed)
    // Attempts know for whom they are made.
    const attempts = how.agent === undefined ? retried : Effect.provideService(retried, Budget.Agent, how.agent)
    const made = Effect.onExitPrimitive(attempts, (exit) => {
      if (within === undefined) ended(parts, history, exit)
      return exit._tag === "Success" ? undefined : governed.closed(exit)
    })
    const all =
      within === undefined ? made : Effect.andThen(Scope.addFinalizerExit(within, ending(parts, history)), made)
    const isTraced =
      Context.getOrUndefined(context, Tracer.ParentSpan) ?? Context.getOrUndefined(context, Tracer.Tracer)
    if (isTraced === undefined) return all
    const traced = Trace.within(history, governed.pool.name, call, all)
    return within === undefined ? Effect.scoped(traced) : traced
  })

/** The call is over. */
const ended = (parts: Parts, history: History, exit: Exit.Exit<unknown, unknown>): void => {
  const { clock, pool, span, startedAt } = history
  const outcome = exit._tag === "Success" ? "success" : outcomeOf(exit)
  pool.counts.ended(outcome, (clock.currentTimeMillisUnsafe() - startedAt) / 1_000)
  if (span !== undefined) Trace.ended(span, history, exit)
  if (history.isUser) left(parts, pool)
}

/** Made outside of the call, because a stream keeps it for as long as it lasts. */
const ending = (parts: Parts, history: History) => (exit: Exit.Exit<unknown, unknown>) =>
  Effect.sync(() => ended(parts, history, exit))

/** A ticket that outlives its attempt ends with a scope. */
const closing = (scope: Scope.Scope, ticket: HeldTicket) =>
  Scope.addFinalizerExit(scope, () => ticket.close() ?? Effect.void)

/** One admission, for code that makes its own attempts. */
export const admit = (parts: Parts, call: Call, how: CallOptions): Effect.Effect<HeldTicket, CallError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber(({ context }) => {
      checkCall("Governor.admit", call, how)
      const uses = { attempt: () => Effect.void, conclude: () => Effect.void, goesOn: false }
      const governed = new GovernedCall(parts, call, how, uses, context)
      const bounds = governed.bounds(governed.deadline)
      const { pool } = governed
      pool.users++
      const admission = Effect.onExitPrimitive(
        Effect.gen(() => governed.admission(bounds, restore)),
        (exit) => {
          if (exit._tag === "Failure") left(parts, pool)
          return undefined
        }
      )
      const closing = (ticket: HeldTicket) =>
        Scope.addFinalizerExit(Context.getUnsafe(context, Scope.Scope), () =>
          Effect.ensuring(
            ticket.close() ?? Effect.void,
            Effect.sync(() => left(parts, pool))
          )
        )
      return Effect.tap(admission, closing)
    })
  )

/** Runs an effect, which does its own admissions, under a retry policy. */
export const retry = <A, E, R>(
  parts: Parts,
  self: Effect.Effect<A, E, R>,
  policy: Retry.Policy<LlmError>
): Effect.Effect<A, E | LlmError, R> =>
  Effect.contextWith((context: Context.Context<R>) => {
    const clock = Context.get(context, Clock.Clock)
    return Loop.retry(policy, {
      budget: retryBudgetOf(parts, context, clock),
      deadline: Context.get(context, Loop.Deadline) ?? Infinity,
      attempt: (last): Effect.Effect<A, E | LlmError, R> => (last < clock.currentTimeMillisUnsafe() ? tooLate : self),
      judge: (error) => ({ ...judgementOf(error, policy), isOwn: true }),
      finish: (error, stoppedBy) =>
        error instanceof LlmError ? (error.annotate({ stoppedBy }) as typeof error) : error
    })
  })

/** The caller's own retry budget goes before the governor's. */
const retryBudgetOf = (
  { retryBudget }: Parts,
  context: Context.Context<never>,
  clock: Clock.Clock
): Retry.RetryBudget => Context.getOrUndefined(context, Retry.RetryBudget) ?? retryBudget ?? ofProcess(clock)

/** Whether an error may be retried. If it must not be, the policy is not asked. */
const judgementOf = (error: unknown, policy: Retry.Policy<LlmError>): Omit<Loop.Judgement<LlmError>, "isOwn"> => {
  const { isRetryable, retryAfter } = read(error)
  const failure = causeOf(error) as LlmError
  return {
    isRetryable: !isRefusal(error) && isRetryable !== false && policy.while(failure),
    retryAfter: retryAfter === undefined ? undefined : Duration.toMillis(retryAfter),
    failure
  }
}

class GovernedCall<A, B, E, R> implements Loop.Retried<B, E | CallError, Exclude<R, Scope.Scope>, LlmError> {
  private readonly parts: Parts
  private readonly call: Call
  private readonly how: CallOptions
  private readonly uses: Uses<A, B, E, R>
  readonly pool: Pool
  readonly history: History
  /** The scope that an attempt lives in that goes on. */
  readonly within: Scope.Scope | undefined
  /** Whose turn its calls take in the queue. */
  private readonly agent: string
  /** The purses around the code that makes it. */
  private readonly purses: ReadonlyArray<Purse>
  readonly budget: Retry.RetryBudget
  readonly deadline: number
  private readonly maxWait: number
  /** The ticket of the last attempt, and what that failed with. */
  private ticket: HeldTicket | undefined = undefined
  private failure: E | LlmError | undefined = undefined

  constructor(parts: Parts, call: Call, how: CallOptions, uses: Uses<A, B, E, R>, context: Context.Context<never>) {
    const clock = Context.get(context, Clock.Clock)
    const { maxWait } = how
    this.parts = parts
    this.call = call
    this.how = how
    this.uses = uses
    this.pool = poolOf(parts, call)
    this.history = {
      pool: this.pool,
      model: call.model,
      clock,
      startedAt: clock.currentTimeMillisUnsafe(),
      isUser: false,
      span: undefined,
      attempts: 0,
      queued: 0,
      waited: 0,
      failedAt: 0,
      limit: undefined
    }
    this.within = uses.goesOn ? Context.getUnsafe(context, Scope.Scope) : undefined
    this.agent = how.agent ?? Context.get(context, Budget.Agent)
    this.purses = Context.get(context, Purses)
    this.budget = retryBudgetOf(parts, context, clock)
    this.deadline = Context.get(context, Loop.Deadline) ?? Infinity
    this.maxWait = maxWait === undefined ? Infinity : millisOf(maxWait)
  }

  // ---------------------------------------------------------------------------
  // One attempt
  // ---------------------------------------------------------------------------

  /** An attempt begins to wait, which has to begin by a time. */
  bounds(deadline: number): Bounds {
    const { maxWait } = this
    const from = this.history.clock.currentTimeMillisUnsafe()
    return { from, until: Math.min(deadline, from + maxWait), deadline, isDeadline: deadline - from < maxWait }
  }

  attempt(last: number): Effect.Effect<B, E | CallError, Exclude<R, Scope.Scope>> {
    const { call, history, how, parts, ticket, within } = this
    const bounds = this.bounds(last)
    if (!history.isUser) history.pool.users++
    history.isUser = true
    if (ticket?.failed !== undefined) history.waited += bounds.from - history.failedAt
    const once = Effect.uninterruptibleMask((restore) => {
      const scope = within === undefined ? Scope.makeUnsafe() : Scope.forkUnsafe(within)
      const made = Scope.provide(
        Effect.gen(() => this.steps(bounds, restore, scope)),
        scope
      )
      // A retry waits with empty hands: the scope closes when the attempt fails.
      return Effect.onExitPrimitive(made, (exit) => {
        if (exit._tag === "Success") return within === undefined ? Scope.closeUnsafe(scope, exit) : undefined
        const ended = Effect.suspend(() => this.ticket?.close() ?? Effect.void)
        return Effect.ensuring(ended, Scope.close(scope, exit))
      })
    })
    if (how.cacheKey === undefined) return once
    return parts.warmup(JSON.stringify([call.model, how.cacheKey]), bounds.until, once)
  }

  /** Reserves, sends, and settles. */
  private *steps(bounds: Bounds, restore: Restore, scope: Scope.Scope) {
    const { parts, uses } = this
    const ticket = yield* this.admission(bounds, restore)
    this.ticket = ticket
    if (uses.goesOn) yield* closing(scope, ticket)
    const sent = Effect.suspend(() => {
      ticket.send()
      return uses.attempt(ticket)
    })
    const isBounded = this.how.timeout !== undefined || parts.breaker !== undefined
    const exit = yield* Effect.exit(restore(isBounded ? this.bounded(sent) : sent))
    if (Exit.isSuccess(exit)) return yield* uses.conclude(ticket, exit.value)
    if (!Cause.hasInterruptsOnly(exit.cause)) yield* ticket.fail(Cause.squash(exit.cause))
    return yield* Effect.failCause(exit.cause)
  }

  /** Admits an attempt: pays for it, and reserves. To be run where nothing interrupts, and its ticket to be closed. */
  *admission(bounds: Bounds, restore: Restore) {
    const { agent, call, how, parts, pool, history } = this
    const { clock } = history
    const { accounting = parts.accounting } = call
    const known = this.described()
    const listed = Prices.find(call.model, parts.prices)
    const price = listed === undefined ? undefined : Rates.charged(listed, call)
    const estimate = yield* restore(parts.estimator.estimate(known))
    if (bounds.deadline < clock.currentTimeMillisUnsafe()) return yield* tooLate
    const isPaid = this.purses.length > 0 || how.purses !== undefined
    const payment = isPaid ? yield* this.pay({ accounting, estimate, known }, price, bounds, restore) : undefined
    // Waiting to be paid for took its part of the time.
    const since = clock.currentTimeMillisUnsafe()
    const queueing = {
      agent,
      priority: how.priority,
      weight: how.weight,
      maxWait: bounds.until === Infinity ? undefined : Math.max(0, bounds.until - since),
      pool: pool.kind,
      account: call.account,
      // After a rejection by the limits, the call is its agent's first. After a failure of its own it is not.
      first: this.ticket !== undefined && this.ticket.failed?.verdict !== "outage",
      counting: accounting.counting
    }
    const reserve = (estimate: Limits.Estimate): Effect.Effect<HeldTicket, Budget.BudgetError, Scope.Scope> => {
      const reserved = restore(Effect.suspend(() => parts.budget.reserve(estimate, queueing)))
      return Effect.catch(
        Effect.map(reserved, (held) => new HeldTicket(parts, history, known, estimate, held, price, payment)),
        (error) => {
          const { reason } = error
          const less =
            reason._tag === "EstimateTooLarge" ? Usage.within(reason, accounting, known, estimate) : undefined
          return less === undefined ? Effect.fail(error) : reserve(less)
        }
      )
    }
    const ticket = yield* Effect.exit(reserve(estimate))
    if (Exit.isSuccess(ticket)) return ticket.value
    payment?.settle(0, clock.currentTimeMillisUnsafe())
    return yield* refused(ticket.cause, bounds, since)
  }

  /** The call as it is estimated and paid for. */
  private described(): Usage.Known {
    const { agent, call, parts, pool } = this
    const { bytes, continues, inputTokens, kind, maxTokens } = call
    const isContinued = inputTokens === undefined && continues !== undefined
    const continued = isContinued ? parts.conversations.promptOf(continues, bytes) : undefined
    return {
      ...call,
      // The provider rejects an invalid number.
      maxTokens: isAmount(maxTokens) ? maxTokens : undefined,
      inputTokens: inputTokens ?? continued,
      continued,
      pool: pool.name,
      kind: kind ?? agent,
      together: pool.usual
    }
  }

  private pay(
    call: Payment.Asking["call"],
    price: Payment.Asking["price"],
    bounds: Bounds,
    restore: Restore
  ): Effect.Effect<Payment.Payment | undefined, CallError> {
    const now = this.history.clock.currentTimeMillisUnsafe()
    const purses = [...this.purses, ...(this.how.purses ?? [])]
    const asking = { purses, price, call, pool: this.pool.name, longest: Math.max(0, bounds.until - now) }
    return Effect.catchCause(Payment.pay(asking, restore, this.parts.wake), (cause) => refused(cause, bounds, now))
  }

  /** An attempt within its timeout and the breaker of its pool, which may send nothing. */
  private bounded(attempt: Effect.Effect<A, E, R>): Effect.Effect<A, E | LlmError, R> {
    const { timeout } = this.how
    const { breaker } = this.parts
    let bounded: Effect.Effect<A, E | LlmError, R> = attempt
    if (timeout !== undefined) {
      const duration = Duration.fromInputUnsafe(timeout)
      const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
      bounded = Effect.timeoutOrElse(bounded, { duration, orElse })
    }
    return breaker === undefined ? bounded : breaker.protect(this.pool.name, bounded)
  }

  // ---------------------------------------------------------------------------
  // Failures
  // ---------------------------------------------------------------------------

  waits(error: unknown, millis: number): void {
    const { parts, ticket, history } = this
    if (parts.observer === undefined || ticket === undefined) return
    const { agent, pool } = ticket.reservation
    const at = history.clock.currentTimeMillisUnsafe()
    const { attempts: attempt, model } = history
    const reason = errorType(error)
    parts.observer({ type: "retry", at, pool, agent, model, attempt, reason, until: at + Math.ceil(millis) })
  }

  judge(error: E | CallError): Loop.Judgement<LlmError> {
    const judgement = judgementOf(error, this.how.retry ?? this.parts.policy)
    const failed = this.ticket?.failed
    if (isRefusal(error) || failed === undefined) return { ...judgement, isRetryable: false, isOwn: true }
    this.failure = error as E | LlmError
    const { isWrongAddress, verdict } = failed
    return {
      ...judgement,
      isRetryable: judgement.isRetryable && !isWrongAddress && verdict !== "impossible",
      // A healthy provider may take longer than the caller's timeout, each time.
      isOwn: verdict === undefined || verdict === "isolated" || isOwnTimeout(error)
    }
  }

  /** A provider that asks for more time than any bucket needs is closed for everybody until then. */
  closed(exit: Exit.Failure<unknown, unknown>): Effect.Effect<unknown> | undefined {
    const error = Exit.findErrorOption(exit)
    if (error._tag === "None") return undefined
    const { isRetryable, pushback, retryAfter = Duration.zero } = read(error.value)
    const millis = Duration.toMillis(retryAfter)
    return isRetryable === true && pushback === "rateLimit" && millis > longestRefill && millis < Infinity
      ? this.parts.budget.pause({ reason: pushback, duration: retryAfter, pool: this.pool.name })
      : undefined
  }

  /** The final error: the failure of the last attempt, or the refusal of a retry with the failure before it. */
  finish<Error>(error: Error, stoppedBy: StopReason | undefined): Error {
    const { failure, ticket } = this
    if (!isRefusal(error)) return (ticket?.tooLarge(error) ?? withHistory(error, this.history, stoppedBy)) as Error
    if (failure === undefined) return error
    if (!(error instanceof Budget.BudgetError)) return withHistory(failure as Error, this.history, "deadline")
    return new Budget.BudgetError({ reason: error.reason, failure: causeOf(failure) }) as typeof error
  }
}

const tooLate = Effect.fail(new LlmError({ reason: new DeadlineMissed({ wait: Duration.zero, left: Duration.zero }) }))

/** A refusal of what a call began to wait for at a time, in terms of the whole call. */
const refused = (cause: Cause.Cause<Budget.BudgetError>, { deadline, from, isDeadline }: Bounds, since: number) =>
  Effect.failCause(
    Cause.map(cause, (error) => inTermsOfCall(error, since - from, isDeadline ? deadline - from : undefined))
  )

/** A refusal of the budget, which knows neither the call's deadline nor its earlier waits. */
const inTermsOfCall = (error: Budget.BudgetError, waited: number, deadline: number | undefined): CallError => {
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
