/** The options, outcomes and errors of a job of agents. */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as Budget from "../Budget.ts"
import { didYouMean, nearest } from "../domain/input/nearest.ts"
import type * as Forecast from "../Forecast.ts"
// Declarations can only name what a public module exports.
import type { Tree, TreeCapReached, TreeUnavailable } from "../Trees.ts"
import { counted as count, thousands } from "../domain/words.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * A bound on the usage of an agent or a job. Without an option there is no bound.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Cap {
  /** Input and output tokens together. */
  readonly tokens?: number | undefined
  /** Calls that reached the provider, including retries. Rejected calls count only if the provider charges them. */
  readonly calls?: number | undefined
  /** The limit on the cost of governed calls, in US dollars; see `Spending.Cap`. */
  readonly dollars?: number | undefined
  /** From the start of the agent or the job, including time in the queue. */
  readonly time?: Duration.Input | undefined
}

/**
 * One agent: its key and its effect.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Agent<A, E, R> {
  /** Unique within the job. The fairness key of every call that the agent makes, among those of the job. */
  readonly key: string
  readonly effect: Effect.Effect<A, E, R>
  /** @default the job's `capPerAgent` */
  readonly cap?: Cap | undefined
  /** The priority of its calls; higher goes first. @default that of the code that starts the job */
  readonly priority?: number | undefined
  /**
   * The tokens that it is expected to use in total. Agents with `work` share the budget in proportion to their remaining work,
   * so that they end together. Use it if only the end of the whole job matters. A rough estimate is enough.
   *
   * @default unknown: an equal share, as for tenants
   */
  readonly work?: number | undefined
}

/** The usage so far; open calls count as estimated. */
type AgentUsage = {
  readonly tokens: number
  readonly calls: number
  /** The cost of governed calls that have ended, in US dollars, without calls of models that have no price. */
  readonly dollars: number
}

/**
 * The result of an agent. A cancelled agent's exit is an interruption.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Outcome<A, E> {
  readonly key: string
  /** An agent that its job's tree has not let start fails with `TreeCapReached` or `TreeUnavailable` of `floodgate/Trees`. */
  readonly exit: Exit.Exit<A, E | CapReached | TreeCapReached | TreeUnavailable>
  readonly used: AgentUsage
  /** When it started, from the start of the job; undefined if it never did. */
  readonly startedAfter: Duration.Duration | undefined
  readonly elapsed: Duration.Duration
}

type AgentState = "waiting" | "running" | "succeeded" | "failed" | "cancelled"

/** The earliest and the latest end, from the same moment as the end itself. */
type EndRange = { readonly from: Duration.Duration; readonly to: Duration.Duration }

/** A foreseen end of a job, from its start. */
type ForeseenEnd = {
  readonly end: Duration.Duration
  /** Nine of ten jobs end within it, as earlier foreseen ends of this pool did; undefined while too few are known. */
  readonly range: EndRange | undefined
}

/**
 * The progress of a job.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  readonly agents: ReadonlyArray<{
    readonly key: string
    readonly state: AgentState
    /** When it started, from the start of the job; undefined if it has not. */
    readonly startedAfter: Duration.Duration | undefined
    /** The usage of its calls that have ended. It never goes backwards, and the outcome counts open calls, too. */
    readonly used: AgentUsage
  }>
  /** The number of agents that have ended, successfully or not. */
  readonly done: number
  /** The usage of all their calls that have ended. It never goes backwards. */
  readonly used: AgentUsage
  /**
   * When all agents will have ended, foreseen again with each tenth of the job; undefined if they have, or if it is unclear which pool
   * they use or what they do.
   *
   * @since 0.5.0
   */
  readonly foreseen: ForeseenEnd | undefined
}

/**
 * A running job.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Job<A, E> {
  /** The outcomes in the order of the agents. */
  readonly await: Effect.Effect<ReadonlyArray<Outcome<A, E>>>
  readonly status: Effect.Effect<Progress>
  /** The status now and after every change, until all agents have ended. A slow reader gets only the latest. */
  readonly progress: Stream.Stream<Progress>
  /** Interrupts one agent and waits until it has ended and holds no tokens. Returns false if it had ended before. */
  readonly cancel: (key: string) => Effect.Effect<boolean>
  /** Interrupts every agent that has not ended, started or not. */
  readonly cancelAll: Effect.Effect<void>
}

/**
 * The options of a job.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * How many agents run at once. `"advised"` is as many as help, and more as soon as they would; see `Agents.advise`.
   *
   * @default "unbounded": the budget limits their calls, and a waiting agent costs little
   */
  readonly concurrency?: number | "unbounded" | "advised" | undefined
  /**
   * The basis of the advice, with the concurrency `"advised"`: the pool that the agents use, and what each of them does.
   *
   * @default the pool that is in use, and what earlier agents did; without any, the agents start in rounds that double
   */
  readonly advice?: Pick<AdviseOptions, "account" | "each" | "model" | "places" | "pool"> | undefined
  /** The cap on all agents together. @default no bound */
  readonly cap?: Cap | undefined
  /** The cap on each agent. @default no bound */
  readonly capPerAgent?: Cap | undefined
  /**
   * Whether calls of the agents that meet a spent window of a subscription, or a spent cap that begins again, are parked until the reset,
   * instead of failing; see `park` of `Governor.CallOptions`.
   *
   * @default false
   * @since 0.5.0
   */
  readonly park?: boolean | undefined
  /**
   * The job as the budget knows it: its name, or its name with a weight and a priority. Jobs share the limits fairly, however many agents
   * they have.
   *
   * @default the job of the code that starts it (`Budget.Job`), or else one of its own
   * @since 0.5.0
   */
  readonly job?: string | Budget.NamedJob | undefined
  /**
   * The tree of the job, which caps its agents and what they spend (`floodgate/Trees`), and can be stopped. Agents that these agents start
   * with `Agents.run` are in it, too, one level deeper. Each start counts as another agent. One that may not start fails with the reason, and
   * counts as running until it ends, so a `concurrency` of at most `atOnce` lets agents wait where they would be refused.
   *
   * @default that of the code that starts the job (`Trees.within`, or an agent with a tree), if any
   * @since 0.5.0
   */
  readonly tree?: Tree | undefined
}

// -----------------------------------------------------------------------------
// Advice
// -----------------------------------------------------------------------------

/**
 * A question about more agents.
 *
 * @stability unstable
 * @category options
 * @since 0.4.0
 */
export interface AdviseOptions extends Pick<Budget.ReserveOptions, "model" | "pool" | "account"> {
  /**
   * The work of each agent, or the name of earlier agents that did the same. A name may end with `*`, as in `"reviewer-*"`.
   * {@link layer} counts what agents do. Once three conversations of the pool were seen, their prompts grow by the median of what was
   * appended, and for `"*"` begin with the median first prompt. Stated work grows only by its `growth`, and
   * pauses only for its `pause`. The sub-agents that earlier ones have started belong to their work.
   *
   * @default "*": as the agents of this pool did so far (for a lead, those that leads start), or 5 calls of 10,000 tokens if there were none
   */
  readonly each?: Forecast.Work | string | undefined
  /**
   * The names of the places where the agents may call the model; see `floodgate/Places`. They are known once a call of the model
   * was made. `LlmClient.layerPlaces` knows them before. They do not apply beside `pool` or `account`.
   *
   * @default all places of the model
   */
  readonly places?: ReadonlyArray<string> | undefined
  /** How many agents there are to start. @default as many as help */
  readonly agents?: number | undefined
  /**
   * How many of the asker's own agents run already. Agents that others were advised to start are added.
   *
   * @default as many as calls are in flight or waiting in the pool
   */
  readonly running?: number | undefined
  /**
   * The name of the orchestrator. What it is told counts as taken for others until the advice expires.
   *
   * @default unknown: nothing counts as taken
   */
  readonly asker?: string | undefined
  /**
   * The input tokens of the call with which a model asks again. Each question then starts enough agents that the questions cost about a
   * tenth of the work, and advice holds at least until the limits have refilled that call.
   *
   * @default as the calls of the agent that is named like the asker, if it made any; otherwise a question costs nothing
   * @since 0.5.0
   */
  readonly askingTokens?: number | undefined
}

/**
 * How many more agents help now. It holds until it expires.
 *
 * @stability unstable
 * @category models
 * @since 0.4.0
 */
export interface Advice {
  /** The pool of the calls. With several places, the one where the last agent ends. */
  readonly pool: string
  /** How many more agents help now: the fewest with which the job ends at most 8 % later than with all at once. */
  readonly agents: number
  /** How many agents run already, with those that others were advised to start. */
  readonly running: number
  /** How many agents help at once, with those that run already. It is below `running` if too many run. */
  readonly atOnce: number
  /** How many agents the job has: as asked, or as many as help. */
  readonly job: number
  /** When all agents of the job end, if no more than help run at once; undefined if one of their calls can never be sent. */
  readonly end: Duration.Duration | undefined
  /** How much later all end if one agent more than help starts now. */
  readonly furtherAdds: Duration.Duration
  /** When all end if this many agents start now, at once. */
  readonly ends: ReadonlyArray<{ readonly agents: number; readonly end: Duration.Duration }>
  /**
   * The limit on the number: `"spending"` if a cap in dollars or a long window does, `"agents"` if nothing does, and `"unknown"` while
   * no limit of the pool is known.
   */
  readonly binding: Forecast.Forecast["binding"] | "spending" | "unknown"
  /** The places of the agents' calls, and how many of `agents` each has room for. None if all calls go to one pool. */
  readonly places: ReadonlyArray<{ readonly name: string; readonly pool: string; readonly agents: number }>
  /** Caps in dollars, long windows and quotas that end before the job does. */
  readonly caps: ReadonlyArray<{
    readonly name: string
    /** How many more agents it has room for, after what is left to do for those that run. */
    readonly agents: number
    /** The room that is left, in words. */
    readonly text: string
  }>
  /** Nine of ten jobs end within it, as earlier foreseen ends of this pool did; undefined while too few are known. */
  readonly range: EndRange | undefined
  /**
   * The savings of this number, compared with all agents of the job at once. It saves hardly any time, because calls are paced.
   *
   * @since 0.5.0
   */
  readonly saves: {
    /** How many fewer agents run at once. */
    readonly agents: number
    /** The tokens of prompts that all at once would send again, because their calls come after the provider has forgotten them. */
    readonly promptTokens: number
    /** The price of those, in US dollars; undefined if there are none, or the model has no known price. */
    readonly dollars: number | undefined
    /** The rejections (429) that only all at once would get, where a limit of calls in flight that nobody stated is known from earlier ones. */
    readonly rejections: number
  }
  /**
   * Why many more agents than advised do harm, and do not only wait: a server that queues without a limit, a limit of calls in flight that
   * nobody stated, or a cap, window or quota that ends before the job.
   *
   * @since 0.5.0
   */
  readonly harms: ReadonlyArray<{ readonly by: "server" | "inFlight" | "spending"; readonly text: string }>
  /** The work that each agent was assumed to do. */
  readonly each: Forecast.Work
  /** The assumptions about what is not known. */
  readonly assumptions: ReadonlyArray<string>
  /** How long the advice holds. Then ask again. */
  readonly expiresAfter: Duration.Duration
  /** The advice in a sentence or two, for a model. */
  readonly text: string
}

/** A cap in dollars, a share of a long window or a quota that has too little left for all agents of a job. */
export type CapRoom = Advice["caps"][number]

/** A call in plain numbers. */
type PlainCall = { readonly inputTokens: number; readonly outputTokens: number; readonly seconds?: number }

/**
 * An {@link Advice} in plain numbers, as `floodgate/promise`, the gateway and the command give it.
 *
 * @stability unstable
 * @category models
 * @since 0.4.0
 */
export interface PlainAdvice extends Pick<
  Advice,
  "agents" | "assumptions" | "atOnce" | "binding" | "caps" | "harms" | "job" | "places" | "pool" | "running" | "text"
> {
  readonly saves: Omit<Advice["saves"], "dollars"> & { readonly dollars: number | null }

  readonly endSeconds: number | null
  readonly furtherAddsSeconds: number
  readonly ends: ReadonlyArray<{ readonly agents: number; readonly endSeconds: number }>
  readonly rangeSeconds: { readonly from: number; readonly to: number } | null
  readonly each: {
    readonly calls: number
    readonly first: PlainCall
    readonly later: PlainCall
    readonly growthTokens?: number
    readonly cachedShare?: number
    readonly pauseSeconds?: number
  }
  readonly expiresAfterSeconds: number
}

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * The cap of an agent, or of its whole job, is reached. `key` is the agent and `limit` the cap: for a cap on time in milliseconds.
 *
 * A call for which too few tokens or calls are left is refused: the agent gets this error as the `cause` of a `BudgetError` with the
 * reason `Denied`. An agent whose time is up ends with this error itself.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class CapReached extends Schema.TaggedError<CapReached>("floodgate/Agents/CapReached")("CapReached", {
  key: Schema.String,
  cap: Schema.Literals(["agent", "job"]),
  unit: Schema.Literals(["tokens", "calls", "time"]),
  /** The amount that the refused call asks for; 0 for a cap on time. */
  asked: Schema.Finite,
  left: Schema.Finite,
  limit: Schema.Finite
}) {
  /** A cap never refills, so a retry would fail again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const { asked, cap, key, left, limit, unit } = this
    const whose = cap === "job" ? "the job's" : "its"
    if (unit === "time") {
      return `Agent "${key}" ran out of ${whose} time of ${Duration.format(Duration.millis(limit))}: raise the cap, or give the agent less to do`
    }
    const one = unit === "calls" ? "call" : "token"
    return `Agent "${key}" asks for ${count(asked, one)}, but ${whose} cap of ${count(limit, one)} has ${thousands(left)} left: raise the cap, or give the agent less to do`
  }
}

/**
 * It is unclear which pool is meant: no pool serves the model, or the pools of several accounts do.
 *
 * @stability unstable
 * @category errors
 * @since 0.4.0
 */
export class PoolUnclear extends Schema.TaggedError<PoolUnclear>("floodgate/Agents/PoolUnclear")("PoolUnclear", {
  /** The model or pool that was asked for; undefined if none was. */
  asked: Schema.UndefinedOr(Schema.String),
  /** The pools that may be meant, or all if none matches. */
  pools: Schema.Array(Schema.String),
  isAmbiguous: Schema.Boolean
}) {
  override get message(): string {
    const names = this.pools.map((name) => `"${name}"`).join(", ")
    const about = this.asked === undefined ? "" : ` for "${this.asked}"`
    if (this.isAmbiguous) return `Several pools are in use${about}: name one of ${names}`
    const near = nearest(this.asked ?? "", this.pools)
    return `No pool is known${about}${didYouMean(near)}${near === undefined ? `: known are ${names}` : ""}`
  }
}
