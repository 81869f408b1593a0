/** The types of a governor: calls, options and their checks, outcomes, failures and tickets. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import type { NamedCaller, Reservation, ReserveOptions } from "../Budget.ts"
import { callerCheck, jobCheck, priority, weight } from "../budget/options.ts"
import * as Windows from "../domain/spending/windows.ts"
import type * as Estimator from "../Estimator.ts"
import * as Input from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import type { LlmError } from "../LlmError.ts"
import type { Pushback } from "../domain/signal.ts"
import type { Description } from "../protocol/index.ts"
import type * as Prices from "../Prices.ts"
import * as PriceTable from "../domain/prices.ts"
// Public modules, so that the declarations of a program that infers these types name modules that it can import.
import type * as Retry from "../Retry.ts"
import type { CallPlaces } from "../Places.ts"
import { callPlaces } from "../places/models.ts"
import type * as Spending from "../Spending.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * A call before it is sent: the facts for its estimate, its price and its span.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Call extends Omit<Estimator.Call, "pool" | "kind" | "together" | "prefix"> {
  /** The model. It decides the pool. */
  readonly model: string
  /** Groups similar calls: the estimator learns from one call for the others of its kind. @default the agent */
  readonly kind?: string | undefined
  /** The account with the provider, if there are several. Each has its own limits; see `account` of `ReserveOptions`. */
  readonly account?: string | undefined
  /**
   * The answer or the conversation that this call continues: the `continuation` of an earlier response. The request holds
   * only the new messages, but the model reads, and the provider charges, the whole conversation.
   */
  readonly continues?: string | undefined
  /**
   * The prefixes of the prompt by their content, as a protocol of `floodgate/protocol` describes them. They tell how much of it the
   * provider has seen before.
   *
   * @default unknown: the call is estimated by its size, and by what earlier calls of its kind have read from the cache
   * @since 0.5.0
   */
  readonly prefixes?: Description["prefixes"]
  /** `bytes` without pictures and documents, whose number of tokens is a guess. @default `bytes` */
  readonly textBytes?: number | undefined
  /** How many answers are requested, if `maxTokens` does not limit them together. @default 1 */
  readonly choices?: number | undefined
  /**
   * Whether the provider may run tools of its own for the call, such as a search. Then it may run the model several times and charge
   * for each, so a higher usage is believed.
   *
   * @default false
   * @since 0.5.0
   */
  readonly serverTools?: boolean | undefined
  /**
   * Whether the caller has opted in to a slower lane that is open while the windows of its subscription are used up. Then they do not
   * refuse the call, and it does not count towards them.
   *
   * @default false
   * @since 0.5.0
   */
  readonly slowLane?: boolean | undefined
  /** Whether a fast mode is requested, which costs more. @default false */
  readonly fast?: boolean | undefined
  /**
   * The name of a tier with limits of its own, such as "fast". Its calls have a pool of their own, with the stated limits of their model
   * as a cap.
   *
   * @default none
   * @since 0.4.0
   */
  readonly tier?: string | undefined
  /** Whether the flex tier is requested, which costs less. @default false */
  readonly flex?: boolean | undefined
  /** The factor by which other options of the request change its price. @default 1 */
  readonly priceFactor?: number | undefined
  /**
   * The places where the call can be made. Each overrides what differs there, such as the model's name and the account. The
   * `place` of the ticket says where an attempt goes.
   *
   * @default one place, which the rest of the call describes
   * @since 0.4.0
   */
  readonly places?: CallPlaces | undefined
  /**
   * Counts the tokens of the prompt at the provider. It runs while the call waits, if the prompt is large and its estimate
   * uncertain, and is interrupted when the call is sent. See `countPrompts` of {@link Options}. With `places`, it counts at the first
   * of them, and does not run for calls that must not go there.
   *
   * @default none: the prompt is estimated from `bytes`
   * @since 0.4.0
   */
  readonly countTokens?: Effect.Effect<number, unknown> | undefined
  /** The provider's name for the span, as OpenTelemetry's GenAI conventions spell it. */
  readonly provider?: string | undefined
  /** The operation for the span, as OpenTelemetry's GenAI conventions spell it. @default "chat" */
  readonly operation?: string | undefined
  /** Whether the answer is streamed, for the span. */
  readonly stream?: boolean | undefined
}

/**
 * The result of an attempt that succeeded.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Outcome<A> {
  readonly value: A
  /**
   * The usage in the provider's response. Without it the estimate is kept. 0 tokens of input keep the estimate of the input, because
   * no prompt is empty.
   */
  readonly actual?: Accounting.Actual | undefined
  /** The limits in the response's headers. */
  readonly signal?: Limits.Signal | undefined
  /** The response's information about itself. */
  readonly response?:
    | {
        readonly id?: string | undefined
        /** The model that answered. Its name may be more exact than that in the request. */
        readonly model?: string | undefined
        readonly finishReason?: string | undefined
        /** The id that a later call names in `continues` to continue this conversation, if the provider stores it. */
        readonly continuation?: string | undefined
        /** Its size, by which an answer is measured that does not report its tokens. @default unknown */
        readonly bytes?: number | undefined
      }
    | undefined
}

/** A response's information about itself. */
export type ResponseInfo = NonNullable<Outcome<unknown>["response"]>

/**
 * The properties of an error that the governor reads. `LlmError` has all of them. An error without them is not retried, and its
 * call keeps the estimate. A property of another type, such as the `signal` of a child process, is ignored.
 *
 * @category models
 * @since 0.1.0
 */
export interface FailureReport {
  readonly isRetryable?: boolean | undefined
  readonly retryAfter?: Duration.Duration | undefined
  /** The usage of the failed call. A dimension that is left out keeps its estimate. */
  readonly usage?: Limits.Usage | undefined
  /** Whether the provider pushed back, and how. The budget judges it. */
  readonly pushback?: Pushback | undefined
  readonly signal?: Limits.Signal | undefined
}

/**
 * The options of one call.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface CallOptions extends Omit<ReserveOptions, "pool" | "account"> {
  /**
   * The longest wait of each attempt until it is sent, in the queue and for another call with its `cacheKey`. If the wait is
   * longer, the call fails with `WaitTooLong`, at once if that can be foreseen.
   *
   * @default no limit
   */
  readonly maxWait?: Duration.Input | undefined
  /**
   * Whether a call that meets a spent window of a subscription, or a spent cap that begins again, is parked until the reset instead of
   * failing, up to its `maxWait` and deadline. It then holds nothing. At the reset, parked calls go on in the order in which they were parked,
   * at the pace of their pools. At most 100,000 are parked; `Governor.parked` lists them.
   *
   * @default false, and true within `Spending.waitForReset` and `Agents.run` with `park`
   * @since 0.5.0
   */
  readonly park?: boolean | undefined
  /** @default the governor's */
  readonly retry?: Retry.Policy<LlmError> | undefined
  /**
   * The longest time that an attempt may take after it is sent, up to the first content of a stream. Then it fails with
   * `TimedOut`. {@link Retry.withDeadline} limits the whole call.
   *
   * @default none; the provider's adapter has its own
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * A name for a long prefix that this call shares with others, and that the provider caches. The first call with the name is
   * sent alone. The others are sent when its response begins, after a minute, or when their `maxWait` or deadline is near. Without
   * it, calls that start together each pay for the whole prefix.
   *
   * @default none
   */
  readonly cacheKey?: string | undefined
  /**
   * Who calls, if several share an account. Service is shared fairly between callers first, and what is known of the prompts of one
   * changes nothing for another.
   *
   * @default all calls are of one caller
   * @since 0.5.0
   */
  readonly caller?: string | NamedCaller | undefined
  /**
   * The names of the places where the call may be made, for example because data must stay in a region.
   *
   * @default all places of its model
   * @since 0.4.0
   */
  readonly places?: ReadonlyArray<string> | undefined
  /** Purses that pay for the call, besides those of {@link Spending.from} around it. @default none */
  readonly purses?: ReadonlyArray<Spending.Purse> | undefined
  /**
   * Called with what each attempt costs, when it ends: an answer, also the part of one that was cut off, but no rejection. An
   * attempt whose usage is unknown is billed as expected. What the function throws is ignored.
   *
   * @default none
   * @since 0.4.0
   */
  readonly onBilled?:
    | ((bill: {
        readonly model: string
        readonly actual: Accounting.Actual
        /** Undefined if the model has no price. */
        readonly dollars: number | undefined
        /**
         * The number of its prompt in its conversation, from 1; undefined if its answer or its prompt does not tell.
         *
         * @since 0.5.0
         */
        readonly turn?: number | undefined
      }) => void)
    | undefined
}

/**
 * An admitted attempt. Conclude it once, with `succeed` or `fail`. If its scope closes before, it counts as interrupted.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Ticket {
  readonly reservation: Reservation
  /** The name of the place where the attempt goes; undefined for a call without places. */
  readonly place?: string | undefined
  /** Reports what the response's headers say about the limits, before the answer is complete. */
  readonly observeLimits: (signal: Limits.Signal | undefined) => Effect.Effect<void>
  /** Records the usage so far, in case the call is interrupted. Give 0 tokens of input while they are not known. */
  readonly recordUsage: (actual: Accounting.Actual) => void
  readonly succeed: (
    actual: Accounting.Actual | undefined,
    response?: Outcome<unknown>["response"]
  ) => Effect.Effect<void>
  readonly fail: (error: unknown) => Effect.Effect<void>
  /** Adds to an `LlmError` how often the call was tried, and how long it waited. */
  readonly annotate: <E>(error: E) => E
}

/**
 * The options of a governor.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The retry policy. Adapters may convert errors for their callers, but the policy always gets the `LlmError`, if there is one.
   *
   * @default {@link Retry.make} without options
   */
  readonly retry?: Retry.Policy<LlmError> | undefined
  /** How the provider counts usage. @default that of the estimator; {@link Accounting.anthropic} in `Governor.layer` */
  readonly accounting?: Accounting.Accounting | undefined
  /** The `learned` of an earlier governor. Only `Governor.layer` uses it, for its estimator. @default nothing */
  readonly learned?: Estimator.Learned | undefined
  /**
   * Whether large prompts are counted at the provider while their calls wait: those of `LlmClient` and of the SDK's middleware of
   * which the estimate may be wrong by 5,000 tokens or more, which are mostly the first of a kind. Anthropic does not charge for
   * counting, and limits it separately. A count that fails or takes 10 s changes nothing, and pauses counting for a minute or more.
   *
   * @default true
   * @since 0.4.0
   */
  readonly countPrompts?: boolean | undefined
  /** Prices that take precedence over {@link Prices.published}, for caps in dollars and `floodgate_dollars`. @default none */
  readonly prices?: Prices.Table | undefined
  /**
   * The share of each long window of a subscription that calls may use which are not interactive, such as
   * `{ "5h": { share: 0.7 } }`. A window is named by its length, and by its models if it concerns only some: `"7d_sonnet"`. Calls of a
   * priority of at least 1 are interactive, and use the rest. Processes with a store share what they know: provide it to this layer, too.
   * Only for your own account.
   *
   * @default the whole window
   * @since 0.4.0
   */
  readonly windows?: Readonly<Record<string, { readonly share: number }>> | undefined
  /**
   * The time after which one call of an account tries a window that is spent, because limits are reset early and credits are bought. If it
   * is accepted, all others follow. Only where a share is stated in `windows`; `Infinity` for never.
   *
   * @default "10 minutes", six requests an hour of each account
   * @since 0.5.0
   */
  readonly tryWindowsEvery?: Duration.Input | undefined
}

/** The end of a call, and the name of its failure. */
export interface CallEnd {
  readonly outcome: "success" | "failure" | "refused" | "interrupted"
  readonly failure: string | undefined
}

/** Restores the interruptibility around `Effect.uninterruptibleMask`. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const share = Input.number("a number > 0, at most 1", (value) => value > 0 && value <= 1)
const shareOfWindow = Input.options<{ readonly share: number }>({ share }, "share")

/** `7d_oi` may rest at 98 % while its calls are accepted, so a share of it would hold them back for days. */
const isShared = (name: string): boolean => Windows.parseName(name) !== undefined && !name.endsWith("_oi")

const sharesOfWindows = Input.all(
  Input.record(shareOfWindow),
  Input.that(
    'names of windows such as "5h", "7d" and "7d_sonnet", without "7d_oi", of which only the provider refuses calls',
    (shares) => Object.keys(Object(shares)).every(isShared)
  )
)

/** The check of each option of a governor. */
export const governorChecks: Input.Checks<Options> = {
  retry: Input.policy,
  accounting: Input.accounting,
  learned: Input.anObject,
  countPrompts: Input.flag,
  prices: PriceTable.check,
  windows: sharesOfWindows,
  tryWindowsEvery: Input.span
}

/** The check of each option of how a call is run. */
export const callOptionsChecks: Input.Checks<CallOptions> = {
  model: Input.text,
  agent: Input.text,
  job: jobCheck,
  weight,
  priority,
  maxWait: Input.wait,
  park: Input.flag,
  timeout: Input.span,
  cacheKey: Input.text,
  caller: callerCheck,
  places: Input.list(Input.text),
  purses: Input.list(Input.that("a purse, as Spending.make gives it", (purse) => "internals" in Object(purse))),
  onBilled: Input.callback,
  retry: Input.policy
}

/** Checks the options of how a call is run. */
export const callOptionsCheck: Input.Check = Input.options(callOptionsChecks)

/** Adapters pass on what a request says, and let the provider reject an invalid number. */
const anyNumber = Input.that("a number", Predicate.isNumber)

/** Their numbers are not looked at, because there may be hundreds. */
const prefixes = Input.that("prefixes, as a protocol's describe gives them", (value) => {
  const { bytes, fingerprints, marks } = Object(value)
  return (
    Array.isArray(fingerprints) && Array.isArray(bytes) && Array.isArray(marks) && bytes.length === fingerprints.length
  )
})

/** Checks a call. */
export const callCheck: Input.Check = Input.options<Call>(
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
    serverTools: Input.flag,
    slowLane: Input.flag,
    fast: Input.flag,
    tier: Input.text,
    flex: Input.flag,
    places: callPlaces,
    priceFactor: Input.notNegative,
    continues: Input.text,
    prefixes,
    stored: Input.flag,
    caches: Input.flag,
    stream: Input.flag,
    accounting: Input.accounting,
    provider: Input.text,
    countTokens: Input.anObject,
    operation: Input.text
  },
  "model",
  "bytes"
)

// -----------------------------------------------------------------------------
// References
// -----------------------------------------------------------------------------

/**
 * The circuit breaker around the attempts of each pool, which `floodgate/breaker` provides. `protect` runs an attempt, or fails
 * with `CircuitOpen` without running it. A governor reads the reference when it is made. There is none by default.
 */
export const Breaker: Context.Reference<Breaker | undefined> = Context.Reference<Breaker | undefined>(
  "floodgate/Governor/Breaker",
  { defaultValue: () => undefined }
)

export interface Breaker {
  readonly protect: <A, E, R>(pool: string, self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LlmError, R>
}
