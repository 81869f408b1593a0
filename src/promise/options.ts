/** The options of a floodgate in plain values, and what they mean to its parts. */
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import type * as Events from "../Events.ts"
import type { Learned } from "../Estimator.ts"
import type * as Fetch from "../fetch/index.ts"
import type { CallRequest } from "../fetch/engine.ts"
import type * as Governor from "../Governor.ts"
import { invalid } from "../input/arguments.ts"
import type * as Limits from "../Limits.ts"
import type { LlmError } from "../LlmError.ts"
import type * as Prices from "../Prices.ts"
import type { Protocol } from "../protocol/protocol.ts"
import * as Retry from "../Retry.ts"
import type * as Spending from "../Spending.ts"

/**
 * How a call is admitted and bounded.
 *
 * @category options
 * @since 0.2.0
 */
export interface CallOptions {
  /** For whom the call is made: agents share the limits fairly. @default what the request names, else `"default"` */
  readonly agent?: string | undefined
  /** The agent's share of service relative to others, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /** Higher goes first. @default 0 */
  readonly priority?: number | undefined
  /** The longest that each attempt may wait for its turn; more is refused, at once where it can be foreseen. @default no bound */
  readonly maxWaitSeconds?: number | undefined
  /** The longest that one attempt may take, up to the first content of a stream; the queue is not part of it. @default none */
  readonly timeoutSeconds?: number | undefined
  /**
   * A name for the long prefix that calls share and read from the provider's cache: the first call with it goes alone.
   *
   * @default none
   */
  readonly cacheKey?: string | undefined
  /** What pays for the call: purses that `Spending.make` gave, each with its cap in dollars. @default none */
  readonly purses?: ReadonlyArray<Spending.Purse> | undefined
}

/**
 * When calls are retried.
 *
 * @category options
 * @since 0.2.0
 */
export interface RetryOptions {
  /** Attempts of a call, the first included. @default 5 */
  readonly attempts?: number | undefined
  /** The first wait; it doubles with each attempt, and is drawn at random below that. @default 2 */
  readonly baseSeconds?: number | undefined
  /** The longest wait that the provider has not asked for. @default 60 */
  readonly capSeconds?: number | undefined
  /** After this time no other attempt begins. @default 600 */
  readonly maxElapsedSeconds?: number | undefined
}

/**
 * Where processes share their budget.
 *
 * @category options
 * @since 0.2.0
 */
export interface RedisOptions {
  /** Such as `redis://127.0.0.1:6379`. The package `redis` or `ioredis` must be installed. */
  readonly url: string
  /** The start of all names: processes that name the same share their budgets. @default "floodgate" */
  readonly prefix?: string | undefined
  /** What calls do while the server is away: fail, or go on with their part of the limits. @default they wait for 30 seconds */
  readonly whenAway?: "fail" | "degrade" | undefined
}

/**
 * How a floodgate is made. Everything has a default: without limits they are learned from the provider's responses.
 *
 * @category options
 * @since 0.2.0
 */
export interface Options {
  /** The provider's limits: one set for each account, or a set for each class of models. @default learned */
  readonly limits?: Limits.Limits | Limits.Pools | undefined
  /** Calls in flight at once, per pool. @default no bound */
  readonly concurrency?: number | undefined
  /** Callers that may wait, per pool; the next is refused at once. @default no bound */
  readonly maxQueued?: number | undefined
  /** The Redis server through which processes share the budget, or its address. @default this process alone */
  readonly redis?: string | RedisOptions | undefined
  /** When calls are retried. @default see {@link RetryOptions} */
  readonly retry?: RetryOptions | undefined
  /** Gets an event for each wait, rejection, pause and retry, with why and until when. */
  readonly onEvent?: ((event: Events.Event) => void) | undefined
  /**
   * How calls are admitted and bounded: for all, of which calls of `run` and `limiter` may say otherwise, or by the request of a
   * `fetch` or a middleware.
   *
   * @default no bounds
   */
  readonly callOptions?: CallOptions | ((request: CallRequest) => CallOptions) | undefined
  /** How a provider counts, for all requests or by the request. @default by the route */
  readonly accounting?:
    | Accounting.Accounting
    | ((request: CallRequest) => Accounting.Accounting | undefined)
    | undefined
  /** The account whose limits a request counts towards. @default the host with a hash of the credential */
  readonly account?: ((request: CallRequest) => string | undefined) | undefined
  /** The protocols that `fetch` recognises. @default Anthropic Messages, OpenAI Chat Completions and Responses, Gemini */
  readonly protocols?: ReadonlyArray<Protocol> | undefined
  /** Whether usage is requested in streams of Chat Completions. A service that rejects that is not asked again. @default true */
  readonly streamUsage?: boolean | undefined
  /** The longest silence within a stream. @default 60 where the provider sends pings (Anthropic), else 300 */
  readonly idleTimeoutSeconds?: number | undefined
  /** What sends the requests. @default the global `fetch` */
  readonly fetch?: typeof globalThis.fetch | undefined
  /** What all calls may cost, in dollars; a call that does not fit is refused as `"used"`. @default no bound */
  readonly cap?: Spending.Cap | undefined
  /** Prices of models, laid over `Prices.published`: for caps in dollars. @default none */
  readonly prices?: Prices.Table | undefined
  /** What an earlier floodgate had learned of calls: what its `learned()` gave. @default nothing */
  readonly learned?: Learned | undefined
}

// -----------------------------------------------------------------------------
// What they mean
// -----------------------------------------------------------------------------

const secondsOf = (
  option: string,
  seconds: number | undefined,
  least: "above" | "from" = "above"
): number | undefined => {
  if (seconds === undefined) return undefined
  const isValid = typeof seconds === "number" && (least === "above" ? seconds > 0 : seconds >= 0) && seconds < Infinity
  const expected = least === "above" ? "a number of seconds > 0" : "a number of seconds >= 0"
  return isValid ? seconds * 1_000 : invalid(`Floodgate.create: ${option}`, expected, seconds)
}

/** How the governor runs a call. */
export const governedBy = ({ maxWaitSeconds, timeoutSeconds, ...how }: CallOptions): Governor.CallOptions => ({
  ...how,
  maxWait: secondsOf("maxWaitSeconds", maxWaitSeconds, "from"),
  timeout: secondsOf("timeoutSeconds", timeoutSeconds)
})

/** How calls are made that are no HTTP requests: a function of one says nothing of them. */
export const callOptionsOf = ({ callOptions }: Options): CallOptions =>
  typeof callOptions === "object" ? callOptions : {}

export const budgetOf = ({ concurrency, limits, maxQueued }: Options): Budget.Options => ({
  limits,
  concurrency,
  maxQueued
})

export const retryOf = ({ retry = {} }: Options): Retry.Policy<LlmError> => {
  const { attempts, baseSeconds, capSeconds, maxElapsedSeconds } = retry
  return Retry.make({
    attempts,
    base: secondsOf("retry.baseSeconds", baseSeconds),
    cap: secondsOf("retry.capSeconds", capSeconds),
    maxElapsed: secondsOf("retry.maxElapsedSeconds", maxElapsedSeconds)
  })
}

export const fetchOf = (options: Options): Fetch.Options => {
  const { account, accounting, callOptions = {}, fetch, idleTimeoutSeconds, protocols, streamUsage } = options
  return {
    account,
    accounting,
    fetch,
    protocols,
    streamUsage,
    idleTimeout: secondsOf("idleTimeoutSeconds", idleTimeoutSeconds),
    callOptions:
      typeof callOptions === "function" ? (request) => governedBy(callOptions(request)) : governedBy(callOptions)
  }
}

export const redisOf = ({ redis }: Options): RedisOptions | undefined => {
  if (redis === undefined) return undefined
  const options = typeof redis === "string" ? { url: redis } : redis
  // It may hold a password, so that the error does not repeat it.
  if (!/^rediss?:$/.test(URL.parse(options.url)?.protocol ?? "")) {
    invalid("Floodgate.create: redis", "an address such as redis://127.0.0.1:6379", "something else (not shown)")
  }
  return options
}
