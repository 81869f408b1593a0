/** What a governor takes and gives: calls, options and their checks, outcomes, failures and tickets. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import type { Reservation, ReserveOptions } from "../Budget.ts"
import { priority, weight } from "../budget/options.ts"
import type * as Estimator from "../Estimator.ts"
import * as Input from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import type { LlmError } from "../LlmError.ts"
import type { Pushback } from "../domain/signal.ts"
import type * as Prices from "../Prices.ts"
import * as Rates from "../domain/rates.ts"
import type * as Retry from "../Retry.ts"
import type * as Spending from "../Spending.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * What is known of a call before it is sent: what the estimator takes, the model, and what its span says.
 *
 * @category models
 * @since 0.1.0
 */
export interface Call extends Omit<Estimator.Call, "pool" | "kind" | "together"> {
  /** The model, which decides the pool of limits. */
  readonly model: string
  /** Calls of one kind resemble each other: estimates are learned per kind. @default the agent */
  readonly kind?: string | undefined
  /** The account with the provider, which has limits of its own; see `account` of `ReserveOptions`. @default none */
  readonly account?: string | undefined
  /**
   * The answer, or the conversation, that this call continues: the `continuation` of an earlier `ResponseInfo`. Only what is new
   * is in the request, and the model reads everything.
   */
  readonly continues?: string | undefined
  /** `bytes` without pictures and documents: how many tokens a file has is a guess. @default `bytes` */
  readonly textBytes?: number | undefined
  /** How many answers are requested, if `maxTokens` does not limit them together. @default 1 */
  readonly choices?: number | undefined
  /** Whether a fast mode is requested, which costs more. @default false */
  readonly fast?: boolean | undefined
  /** What other options of the request multiply its price by. @default 1 */
  readonly priceFactor?: number | undefined
  /** The provider's name as OpenTelemetry's GenAI conventions spell it: for the span. */
  readonly provider?: string | undefined
  /** The operation as OpenTelemetry's GenAI conventions spell it: for the span. @default "chat" */
  readonly operation?: string | undefined
  /** Whether the answer is streamed: for the span. */
  readonly stream?: boolean | undefined
}

/**
 * What a response says of itself, for the span.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResponseInfo {
  readonly id?: string | undefined
  /** The model that answered, which may be more exact than the one that was asked. */
  readonly model?: string | undefined
  readonly finishReason?: string | undefined
  /** What a call names that continues from here, where it may name it: {@link Call.continues} of that call. */
  readonly continuation?: string | undefined
}

/**
 * What an attempt gave.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome<A> {
  readonly value: A
  /**
   * What the call used, as the provider's response says; without it the estimate is kept. Input of 0 tokens also keeps the
   * estimate of the input, because no prompt is empty.
   */
  readonly actual?: Accounting.Actual | undefined
  /** What the response says about the limits. */
  readonly signal?: Limits.Signal | undefined
  readonly response?: ResponseInfo | undefined
}

/**
 * The properties of an error that the governor reads. `LlmError` has all of them. An error without them is not retried, and
 * its call keeps its estimate. Properties of another type, such as the `signal` of a child process, are ignored.
 *
 * @category models
 * @since 0.1.0
 */
export interface FailureReport {
  readonly isRetryable?: boolean | undefined
  readonly retryAfter?: Duration.Duration | undefined
  /** What the failed call used; a dimension left out keeps its estimate. */
  readonly usage?: Limits.Usage | undefined
  /** What the budget must be told. */
  readonly pushback?: Pushback | undefined
  readonly signal?: Limits.Signal | undefined
}

/**
 * How one call is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface CallOptions extends Omit<ReserveOptions, "pool" | "account"> {
  /**
   * The longest wait of each attempt until it is sent, in the queue and for another call with its `cacheKey`. A longer wait
   * fails with `WaitTooLong`, at once if it can be foreseen.
   *
   * @default no bound
   */
  readonly maxWait?: Duration.Input | undefined
  /** @default the governor's */
  readonly retry?: Retry.Policy<LlmError> | undefined
  /**
   * The longest that one attempt may take, up to the first content of a stream; then it fails with `TimedOut`. The time in
   * the queue is not part of it. For a bound on everything see {@link Retry.withDeadline}.
   *
   * @default none: the provider's adapter has its own
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * A name for the long prefix that this call shares with others in the provider's cache. The first call with the name is
   * sent alone. The others follow when its response begins, after a minute, or when they may wait no longer. Otherwise each
   * call pays for the whole prefix.
   *
   * @default none
   */
  readonly cacheKey?: string | undefined
  /** What pays for the call, besides the purses around the code that makes it (see {@link Spending.from}). @default none */
  readonly purses?: ReadonlyArray<Spending.Purse> | undefined
}

/**
 * An admitted call. Conclude it once, with `succeed` or `fail`. A ticket that is open when its scope closes counts as
 * interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ticket {
  readonly reservation: Reservation
  /** Passes on what the response says about the limits, as soon as that is known. */
  readonly observeLimits: (signal: Limits.Signal | undefined) => Effect.Effect<void>
  /** Records the usage that was observed so far, in case the call is interrupted; the prompt's is 0 until it is known. */
  readonly recordUsage: (actual: Accounting.Actual) => void
  readonly succeed: (actual: Accounting.Actual | undefined, response?: ResponseInfo) => Effect.Effect<void>
  readonly fail: (error: unknown) => Effect.Effect<void>
  /** The error as the caller should get it: an `LlmError` with how often the call was tried, and how long it waited. */
  readonly annotate: <E>(error: E) => E
}

/**
 * How a governor is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * When to retry. Whatever an adapter's callers get of a failure, the policy sees what went wrong as an `LlmError`, if there
   * is one.
   *
   * @default that of {@link Retry.make} without options
   */
  readonly retry?: Retry.Policy<LlmError> | undefined
  /** What the provider reserves and counts. @default the estimator's; {@link Accounting.anthropic} in `Governor.layer` */
  readonly accounting?: Accounting.Accounting | undefined
  /** What an earlier governor learned about calls, for the estimator of `Governor.layer`. @default nothing */
  readonly learned?: Estimator.Learned | undefined
  /** Prices of models, laid over {@link Prices.published}: for caps in dollars, and the metric `floodgate_dollars`. @default none */
  readonly prices?: Prices.Table | undefined
}

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

/** The check of each option of a governor. */
export const made: Input.Checks<Options> = {
  retry: Input.policy,
  accounting: Input.accounting,
  learned: Input.anObject,
  prices: Rates.check
}

/** The check of each option that says how a call is run. */
export const called: Input.Checks<CallOptions> = {
  model: Input.text,
  agent: Input.text,
  weight,
  priority,
  maxWait: Input.wait,
  timeout: Input.span,
  cacheKey: Input.text,
  purses: Input.list(Input.that("a purse, as Spending.make gives it", (purse) => "internals" in Object(purse))),
  retry: Input.policy
}

/** Checks how a call is run. */
export const callOptions: Input.Check = Input.options(called)

/** Clients pass on what a request asks for, which the provider may reject. */
const anyNumber = Input.that("a number", Predicate.isNumber)

/** Checks what a call is. */
export const call: Input.Check = Input.options<Call>(
  {
    model: Input.text,
    kind: Input.text,
    account: Input.text,
    bytes: Input.notNegative,
    textBytes: Input.notNegative,
    inputTokens: Input.notNegative,
    maxTokens: anyNumber,
    choices: anyNumber,
    thinking: Input.flag,
    fast: Input.flag,
    priceFactor: Input.notNegative,
    continues: Input.text,
    stored: Input.flag,
    stream: Input.flag,
    accounting: Input.accounting,
    provider: Input.text,
    operation: Input.text
  },
  "model",
  "bytes"
)

// -----------------------------------------------------------------------------
// References
// -----------------------------------------------------------------------------

/**
 * A circuit breaker around the attempts of a pool, which `floodgate/breaker` has; by default there is none. `protect` runs
 * an attempt, or fails with the reason `CircuitOpen` without running it. It is read when the governor is made.
 */
export const Breaker: Context.Reference<Breaker | undefined> = Context.Reference<Breaker | undefined>(
  "floodgate/Governor/Breaker",
  { defaultValue: () => undefined }
)

export interface Breaker {
  readonly protect: <A, E, R>(pool: string, self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LlmError, R>
}
