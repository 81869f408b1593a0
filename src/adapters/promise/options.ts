/** The options of a floodgate in plain values, and their conversion for its parts. */
import * as Layer from "effect/Layer"
import type * as Budget from "../../Budget.ts"
import type * as Events from "../../Events.ts"
import type { Learned } from "../../Estimator.ts"
import type * as Fetch from "../../http/index.ts"
import type * as Governor from "../../Governor.ts"
import { limits, maxPools, maxQueued, order } from "../../budget/options.ts"
import * as Concurrency from "../../domain/concurrency.ts"
import { checks } from "../../http/models.ts"
import { httpPlaces } from "../../http/places.ts"
import * as Called from "../../call/models.ts"
import * as Input from "../../domain/input/checks.ts"
import * as RedisAddress from "./redisAddress.ts"
import type * as Limits from "../../Limits.ts"
import type { LlmError } from "../../LlmError.ts"
import type * as Prices from "../../Prices.ts"
import * as Retry from "../../Retry.ts"
import type * as Spending from "../../Spending.ts"
import { check as checkCap } from "../../domain/spending/models.ts"

/**
 * The options that admit and bound a call.
 *
 * @stability stable
 * @category options
 * @since 0.2.0
 */
export interface CallOptions {
  /** The agent that makes the call. The agents of a job share its part fairly. @default the agent that the request names, else `"default"` */
  readonly agent?: string | undefined
  /**
   * The job that the agent works for: its name, or its name with a weight and a priority. Jobs share the limits fairly, however many agents
   * they have.
   *
   * @default none: each agent is a job by itself
   * @since 0.5.0
   */
  readonly job?: string | Budget.NamedJob | undefined
  /**
   * Who calls, for example your customer. Service is shared fairly between callers first, then between the jobs of each.
   *
   * @default all calls that name none have one caller
   * @since 0.5.0
   */
  readonly caller?: string | Budget.NamedCaller | undefined
  /** The agent's share of service relative to others of its job, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /** Higher goes first. @default 0 */
  readonly priority?: number | undefined
  /** How long each attempt may wait at most. A longer wait is refused, at once if it can be predicted. @default no bound */
  readonly maxWaitSeconds?: number | undefined
  /**
   * Whether a call that meets a spent window of a subscription, or a spent cap that begins again, is parked until the reset, up to its
   * `maxWaitSeconds`, instead of being refused.
   *
   * @default false
   * @since 0.5.0
   */
  readonly park?: boolean | undefined
  /** The longest time that one attempt may take, without the queue, up to the first content of a stream. @default no bound */
  readonly timeoutSeconds?: number | undefined
  /**
   * A name for a long prefix that calls share and read from the provider's cache. The first call with it is sent alone, so that
   * the others find the prefix in the cache.
   *
   * @default none
   */
  readonly cacheKey?: string | undefined
  /** The names of the places where the call may be made. @default all places of its model */
  readonly places?: ReadonlyArray<string> | undefined
  /** The purses that pay for the call, made by `Spending.make`, each with its cap in dollars. @default none */
  readonly purses?: ReadonlyArray<Spending.Purse> | undefined
}

/**
 * A call that your own code makes, as far as it is known before.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Call extends CallOptions {
  /** The model. It decides the pool. */
  readonly model: string
  /** The tokens of the prompt, if you know them. @default estimated from `bytes` */
  readonly inputTokens?: number | undefined
  /** The size of the prompt's text in bytes. @default 0 */
  readonly bytes?: number | undefined
  /** The most output tokens that the request allows. @default unknown: output is learned */
  readonly maxTokens?: number | undefined
  /**
   * Whether the request asks the provider to cache its prompt, if the provider wants to be asked. With false, a prompt that is larger
   * than a limit is refused at once.
   *
   * @default unknown: the prompt may be cached
   * @since 0.5.0
   */
  readonly caches?: boolean | undefined
  /** Groups calls that are similar: estimates are learned per kind. @default the agent */
  readonly kind?: string | undefined
  /** The account whose limits apply, if there are several. @default none */
  readonly account?: string | undefined
  /** Removes the call from the queue, or aborts the `signal` of its attempt. */
  readonly signal?: AbortSignal | undefined
}

/** The options of retries. */
type RetryOptions = {
  /**
   * How many attempts a call may make, including the first, whatever ended them.
   *
   * @default 5, without attempts that a rate limit or an outage ended. Attempts that `timeoutSeconds` or the client's own timeout
   * ended count
   */
  readonly attempts?: number | undefined
  /** The first wait. It doubles with each attempt, and each wait is up to a fifth shorter or longer at random. @default 2 */
  readonly baseSeconds?: number | undefined
  /** The longest wait, unless the provider asks for a longer one. @default 60 */
  readonly capSeconds?: number | undefined
  /** The time after which no further attempt begins. @default 600 */
  readonly maxElapsedSeconds?: number | undefined
}

/** The Redis server through which processes share their budget. */
type RedisOptions = {
  /**
   * Such as `redis://127.0.0.1:6379`, `redis://host:6379,host:6379` for nodes of a cluster, or
   * `redis+sentinel://host:26379,host:26379/master-name`. The package `redis` or `ioredis` must be installed.
   */
  readonly url: string
  /** The beginning of all keys. Processes with the same prefix share their budgets. @default "floodgate" */
  readonly prefix?: string | undefined
  /** Whether calls fail while the server cannot be reached, or continue with this process's part of the limits. @default they wait for 30 seconds */
  readonly whenAway?: "fail" | "degrade" | undefined
}

/**
 * The options of a floodgate. All are optional: without limits, they are learned from the provider's responses.
 *
 * @stability stable
 * @category options
 * @since 0.2.0
 */
export interface Options extends Omit<Fetch.Options, "callOptions" | "idleTimeout"> {
  /** The provider's limits: one set for each account, or a set for each class of models. @default learned */
  readonly limits?: Limits.Limits | Limits.Pools | undefined
  /**
   * Calls in flight at once, per pool. `"measured"` is for servers of your own that queue any number of calls, such as vLLM, llama.cpp and
   * Ollama; `{ measuredUpTo: 64 }` never goes beyond that number.
   *
   * @default no bound
   */
  readonly concurrency?: Budget.Concurrency | undefined
  /** How many callers may wait, per pool. Further callers are refused at once. @default no bound */
  readonly maxQueued?: number | undefined
  /**
   * The order of the jobs of a caller in each pool: `"fair"`, or those first that would end first, by the sizes that they state: `"finish"`,
   * or `"finish-trusted"` if all sizes are yours. `Budget.Options` says what the difference is.
   *
   * @default "fair"
   * @since 0.5.0
   */
  readonly order?: Budget.Options["order"]
  /** How many pools there may be besides those in `limits`: each account and class of models in use has one. @default 10_000 */
  readonly maxPools?: number | undefined
  /**
   * The store through which processes share the budget: a layer of `@floodgate/redis` such as `layerStoreUrl`, or of
   * `BudgetStore.layer` for a store of your own. It opens and closes with the floodgate.
   *
   * @default the budget is not shared
   * @since 0.4.0
   */
  readonly store?: Layer.Layer<never> | undefined
  /**
   * The Redis server through which processes share the budget, or its address: a shorthand for the most common options of
   * `store`. The package `@floodgate/redis` is loaded when it is used. Bundlers cannot see that, so use `store` in a bundle.
   *
   * @default the budget is not shared
   */
  readonly redis?: string | RedisOptions | undefined
  /** The options of retries. @default 5 attempts within 10 minutes, after 2 seconds and then twice as long each */
  readonly retry?: RetryOptions | undefined
  /** Called with an event for each wait, rejection, pause and retry, with the reason and the time at which it ends. */
  readonly onEvent?: ((event: Events.Event) => void) | undefined
  /**
   * Writes to standard error while calls wait:
   *
   * - `true`: a line when calls begin to wait or wait for another limit, when a pool pauses, and when the wait is over; at most one
   *   line per second and pool.
   * - `"line"`: one line that changes, on a terminal only: `40 wait for input tokens, 83 of 200 done, about 47 s left`. It disappears
   *   before the program writes, and is not shown while the program is within a line of its own. Calls of `limiter` are not among
   *   those done.
   * - `false`: only warnings.
   *
   * @default "line" on a terminal, unless the environment has CI; false elsewhere. FLOODGATE_LOG=1 and FLOODGATE_LOG=0 are `true` and
   * `false`
   */
  readonly log?: boolean | "line" | undefined
  /**
   * How calls are admitted and bounded: options for all calls, or a function of the request of `fetch` or a middleware. The options
   * of a call of `run` or `limiter` take precedence.
   *
   * @default no bounds
   */
  readonly callOptions?: CallOptions | ((request: Fetch.CallRequest) => CallOptions) | undefined
  /** The longest silence within a stream. @default 60 if the provider sends pings (Anthropic), otherwise 300 */
  readonly idleTimeoutSeconds?: number | undefined
  /** The cap in dollars on all calls. A call that does not fit is refused with the reason `"used"`. @default no bound */
  readonly cap?: Spending.Cap | undefined
  /** Prices of models in addition to `Prices.published`, for caps in dollars. @default none */
  readonly prices?: Prices.Table | undefined
  /** The estimates of an earlier floodgate, from its `learned()`. @default none */
  readonly learned?: Learned | undefined
  /**
   * Whether the SDK's middleware counts large prompts at the provider while their calls wait, if the estimate may be wrong by 5,000
   * tokens or more. A count that fails or takes 10 seconds changes nothing.
   *
   * @default true
   * @since 0.4.0
   */
  readonly countPrompts?: boolean | undefined
  /**
   * The share of each long window of a subscription that calls may use which are not interactive, as `windows` of `Governor.layer`.
   * Calls of a priority of at least 1 use the rest.
   *
   * @default the whole window
   * @since 0.4.0
   */
  readonly windows?: Governor.Options["windows"]
  /**
   * The time after which one call of an account tries a window that is spent, as `tryWindowsEvery` of `Governor.layer`.
   *
   * @default "10 minutes"
   * @since 0.5.0
   */
  readonly tryWindowsEvery?: Governor.Options["tryWindowsEvery"]
}

// -----------------------------------------------------------------------------
// Checks and conversions
// -----------------------------------------------------------------------------

const { callOptions: _, idleTimeout: __, ...ofEngine } = checks
const ofFetch = { ...ofEngine, fetch: Input.callback }

const seconds = Input.number("a number of seconds > 0", (value) => value > 0 && value < Infinity)

const callChecks: Input.Checks<CallOptions> = {
  agent: Called.callOptionsChecks.agent,
  job: Called.callOptionsChecks.job,
  caller: Called.callOptionsChecks.caller,
  weight: Called.callOptionsChecks.weight,
  priority: Called.callOptionsChecks.priority,
  maxWaitSeconds: Input.number("a number of seconds >= 0", (value) => value >= 0 && value < Infinity),
  park: Called.callOptionsChecks.park,
  timeoutSeconds: seconds,
  cacheKey: Input.text,
  places: Called.callOptionsChecks.places,
  purses: Called.callOptionsChecks.purses
}

const callOptions = Input.options(callChecks)

/** Checks a call of `run` or `limiter`. */
export const call: Input.Check = Input.options<Call>(
  {
    model: Input.text,
    inputTokens: Input.notNegative,
    bytes: Input.notNegative,
    maxTokens: Input.notNegative,
    ...callChecks,
    caches: Input.flag,
    kind: Input.text,
    account: Input.text,
    // Checked by its form, because a polyfill or another realm has a class of its own.
    signal: Input.that("an AbortSignal", (value) => "aborted" in Object(value) && "addEventListener" in Object(value))
  },
  "model"
)

const redisOptions = Input.options<RedisOptions>(
  { url: RedisAddress.check, prefix: Input.text, whenAway: Input.oneOf("fail", "degrade") },
  "url"
)

const single: Input.Check = (value) => {
  const { redis, store } = value as Options
  if (redis === undefined || store === undefined) return undefined
  return Input.problem("expected one of the options store and redis, got both")
}

/** In the order of errors that list them: what most programs set comes first. */
const eachOption = Input.options<Options>({
  limits,
  concurrency: Concurrency.check,
  retry: Input.options<RetryOptions>({
    attempts: Input.whole,
    baseSeconds: seconds,
    capSeconds: seconds,
    maxElapsedSeconds: seconds
  }),
  cap: checkCap,
  log: Input.that('true, false or "line"', (value) => typeof value === "boolean" || value === "line"),
  ...ofFetch,
  callOptions: Input.orFunction(callOptions),
  store: Input.that("a layer of a store", Layer.isLayer),
  redis: (value) => (typeof value === "string" ? RedisAddress.check(value) : redisOptions(value)),
  maxQueued,
  order,
  maxPools,
  onEvent: Input.callback,
  idleTimeoutSeconds: seconds,
  prices: Called.governorChecks.prices,
  learned: Input.anObject,
  countPrompts: Input.flag,
  windows: Called.governorChecks.windows,
  tryWindowsEvery: Called.governorChecks.tryWindowsEvery
})

/** The options of a floodgate. */
export const optionsCheck: Input.Check = Input.all(eachOption, single, (value) => {
  const { places, prices } = value as Options
  const found = places && httpPlaces(prices ?? {})(places)
  return found && { ...found, place: `.places${found.place}` }
})

const millisOf = (seconds: number | undefined): number | undefined =>
  seconds === undefined ? undefined : seconds * 1_000

/** Checked options of a call for the governor. */
export const governedBy = ({ maxWaitSeconds, timeoutSeconds, ...options }: CallOptions): Governor.CallOptions => ({
  ...options,
  maxWait: millisOf(maxWaitSeconds),
  timeout: millisOf(timeoutSeconds)
})

/** The options of calls by `run` and `limiter`. A function of the request does not apply to them. */
export const callOptionsOf = ({ callOptions }: Options): CallOptions =>
  typeof callOptions === "object" ? callOptions : {}

export const budgetOf = ({ concurrency, limits, maxPools, maxQueued, order }: Options): Budget.Options => ({
  limits,
  concurrency,
  maxQueued,
  order,
  maxPools
})

export const retryOf = ({ retry = {} }: Options): Retry.Policy<LlmError> => {
  const { attempts, baseSeconds, capSeconds, maxElapsedSeconds } = retry
  return Retry.make({
    attempts,
    base: millisOf(baseSeconds),
    cap: millisOf(capSeconds),
    maxElapsed: millisOf(maxElapsedSeconds)
  })
}

/** The options of `fetch` and the middlewares. */
export const fetchOf = (options: Options): Omit<Fetch.Options, "fetch"> => {
  const { account, accounting, callOptions: given = {}, idleTimeoutSeconds, places } = options
  return {
    account,
    accounting,
    places,
    idleTimeout: millisOf(idleTimeoutSeconds),
    callOptions:
      typeof given === "function"
        ? (request) => {
            const options = given(request)
            Input.check("Floodgate.create: callOptions", callOptions, options)
            return governedBy(options)
          }
        : governedBy(given)
  }
}
