/**
 * `Agents` runs many agents at once. One may fail, be cancelled or exhaust its cap without affecting the others.
 *
 * Every agent has a key. The key is the fairness key of the budget, so an agent that makes many calls does not delay the
 * calls of others. Progress is reported by key, and agents are cancelled by key. The result of each agent is an
 * {@link Outcome} with its `Exit`.
 *
 * **Details**
 *
 * A {@link Cap} bounds tokens, calls, dollars and time, for every agent and for the whole job. Tokens and calls are counted when
 * they are reserved, whichever code inside the agent makes the call. Calls through an SDK client with the middleware of
 * `floodgate/anthropic` are not counted, because promises belong to no agent. A call that would exceed a cap is refused
 * before it waits or is sent, with a {@link CapReached} that names what is left; the agent may handle it. Estimates count until
 * they are settled, so caps hold at every instant. Dollars are those of governed calls, as {@link Spending.Cap} has it: a
 * call that passes such a cap is refused with `Spending.SpendCapReached`. When its time is over, an agent ends with
 * {@link TimeCapReached}, and an
 * agent that has not started does not start.
 *
 * Agents share the budget equally, as tenants should, so the agent with the most work ends last. If only the end of the whole job
 * counts, state the {@link Agent.work} of each agent: shares then follow the remaining work, and all agents end together.
 *
 * {@link layer} counts tokens and calls. Put it between the budget and the client. Without it, a call of an agent with a cap on tokens or
 * calls, or with stated work, dies with a `RangeError`. (A `TokenBudget` of your own, with no budget of this library below it, cannot
 * detect that.)
 *
 * **Example** (A cap on calls stops one agent only)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 *
 * const calls = (count: number) => Effect.forEach(Array.from({ length: count }), () => Budget.consume(1_000))
 *
 * const program = Agents.run(
 *   [
 *     { key: "reader", effect: calls(2) },
 *     { key: "writer", effect: calls(5) }
 *   ],
 *   { capPerAgent: { calls: 3 } }
 * )
 *
 * const live = Agents.layer.pipe(Layer.provide(Budget.layer({ limits: { tokens: { perSecond: 60_000 } } })))
 *
 * const outcomes = await Effect.runPromise(Effect.provide(program, live))
 * outcomes.map(({ exit, key, used }) => [key, exit._tag, used.calls]) // => [["reader", "Success", 2], ["writer", "Failure", 3]]
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Counter from "./domain/agents/counter.ts"
import * as Work from "./domain/agents/work.ts"
import { latest, tickOf } from "./budget/observer.ts"
import { concurrency, priority, Uncounted } from "./budget/options.ts"
import * as Waker from "./budget/waker.ts"
import * as Budget from "./Budget.ts"
import * as Input from "./domain/input/checks.ts"
import { shown } from "./domain/input/shown.ts"
import type * as Limits from "./Limits.ts"
import * as Amounts from "./domain/amounts.ts"
import { counted as count, thousands } from "./domain/words.ts"
import * as Spending from "./Spending.ts"
import { dollars } from "./domain/spending/models.ts"
import { internalsOf } from "./domain/spending/purse.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * A bound on the usage of an agent or a job. Without an option there is no bound.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cap {
  /** Input and output tokens together. */
  readonly tokens?: number | undefined
  /** Calls that reached the provider, including retries. Rejected calls count only if the provider charges them. */
  readonly calls?: number | undefined
  /** What governed calls may cost, in US dollars; see {@link Spending.Cap}. */
  readonly dollars?: number | undefined
  /** From the start of the agent or the job, including time in the queue. */
  readonly time?: Duration.Input | undefined
}

/**
 * One agent: its key and its effect.
 *
 * @category models
 * @since 0.1.0
 */
export interface Agent<A, E, R> {
  /** Unique within the job. The fairness key of every call that the agent makes. */
  readonly key: string
  readonly effect: Effect.Effect<A, E, R>
  /** @default the job's `capPerAgent` */
  readonly cap?: Cap | undefined
  /** The priority of its calls; higher goes first. @default that of the code that starts the job */
  readonly priority?: number | undefined
  /**
   * The tokens that it is expected to use in total. Agents with `work` share the budget in proportion to their remaining work, so that
   * they end together. Use it for a job of which only the end counts. A rough estimate is enough.
   *
   * @default unknown: an equal share, as for tenants
   */
  readonly work?: number | undefined
}

/** What was used so far; open calls count as estimated. */
type AgentUsage = {
  readonly tokens: number
  readonly calls: number
  /** What ended governed calls cost, in US dollars, without calls of models that have no price. */
  readonly dollars: number
}

/**
 * The result of an agent. A cancelled agent's exit is an interruption.
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome<A, E> {
  readonly key: string
  readonly exit: Exit.Exit<A, E | TimeCapReached>
  readonly used: AgentUsage
  readonly elapsed: Duration.Duration
}

type AgentState = "waiting" | "running" | "succeeded" | "failed" | "cancelled"

/**
 * The progress of a job.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  readonly agents: ReadonlyArray<{ readonly key: string; readonly state: AgentState; readonly used: AgentUsage }>
  /** The number of agents that have ended, successfully or not. */
  readonly done: number
  readonly used: AgentUsage
}

/**
 * A running job.
 *
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
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * How many agents run at once.
   *
   * @default "unbounded": the budget limits their calls, and a waiting agent costs little
   */
  readonly concurrency?: number | "unbounded" | undefined
  /** What all agents together may use. @default no bound */
  readonly cap?: Cap | undefined
  /** What each agent may use. @default no bound */
  readonly capPerAgent?: Cap | undefined
}

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * The cap of an agent, or of its whole job, has too little left for a call. `key` is the agent and `limit` the cap. The agent gets it as
 * the `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @category errors
 * @since 0.1.0
 */
export class CapReached extends Schema.TaggedError<CapReached>("floodgate/Agents/CapReached")("CapReached", {
  key: Schema.String,
  cap: Schema.Literals(["agent", "job"]),
  unit: Schema.Literals(["tokens", "calls"]),
  asked: Schema.Finite,
  left: Schema.Finite,
  limit: Schema.Finite
}) {
  /** A cap never refills, so a retry would fail again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const one = this.unit === "calls" ? "call" : "token"
    const whose = this.cap === "job" ? "the job's" : "its"
    return `Agent "${this.key}" asks for ${count(this.asked, one)}, but ${whose} cap of ${count(this.limit, one)} has ${thousands(this.left)} left: raise the cap, or give the agent less to do`
  }
}

/**
 * The time cap of an agent, or of its whole job, has been reached.
 *
 * @category errors
 * @since 0.1.0
 */
export class TimeCapReached extends Schema.TaggedError<TimeCapReached>("floodgate/Agents/TimeCapReached")(
  "TimeCapReached",
  { key: Schema.String, cap: Schema.Literals(["agent", "job"]), limit: Schema.DurationFromMillis }
) {
  override get message(): string {
    const whose = this.cap === "job" ? "the job's" : "its"
    return `Agent "${this.key}" ran out of ${whose} time of ${Duration.format(this.limit)}: raise the cap, or give the agent less to do`
  }
}

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const amount = Input.number("a number > 0", (value) => value > 0)
const cap = Input.options<Cap>({ tokens: amount, calls: amount, dollars, time: Input.span })

const job = Input.options<Options>({
  concurrency: (value) => (value === "unbounded" ? undefined : concurrency(value)),
  cap,
  capPerAgent: cap
})

const oneAgent: Input.Check = Input.options<Agent<unknown, unknown, unknown>>(
  { key: Input.text, effect: Input.that("an effect", Effect.isEffect), cap, priority, work: Input.positive },
  "key",
  "effect"
)

// -----------------------------------------------------------------------------
// Counting
// -----------------------------------------------------------------------------

/**
 * Marks a budget that counts the calls of agents, which {@link run} needs. {@link layer} provides it.
 *
 * **Gotchas**
 *
 * If the compiler reports that `Meter` is not assignable to `never`, that layer is missing. It goes between the budget and the client.
 *
 * @category services
 * @since 0.1.0
 */
export class Meter extends Context.Service<Meter, true>()("floodgate/Agents/Meter") {}

/** Counts the calls of one agent, or of a whole job. */
interface Tracker {
  /** The agent; undefined for a job. */
  readonly agent: string | undefined
  readonly cap: Counter.CounterCap
  readonly changed: () => void
  used: Counter.Counter
}

/** The agent whose code runs. */
interface CurrentAgent {
  readonly key: string
  /** Those of the agent, of its job, and of the agents that started the job. */
  readonly trackers: ReadonlyArray<Tracker>
  /** The weight of its next call, if its work is stated. */
  readonly weight: (() => number) | undefined
}

/** Undefined outside of a job. */
const CurrentAgent = Context.Reference<CurrentAgent | undefined>("floodgate/Agents/CurrentAgent", {
  defaultValue: () => undefined
})

/**
 * A budget that also counts the usage of each agent of a job, and refuses calls that would exceed a cap.
 *
 * **Example** (A cap of two calls per agent)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 *
 * const call = Budget.withReservation({ inputTokens: 100 }, () => Effect.succeed("answer"))
 * const agent = (key: string) => ({ key, effect: Effect.replicateEffect(call, 3) })
 *
 * const outcomes = Agents.run([agent("one"), agent("two")], { capPerAgent: { calls: 2 } }).pipe(
 *   Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer())))
 * )
 *
 * const [one] = await Effect.runPromise(outcomes)
 *
 * one?.exit._tag // => "Failure"
 * one?.used.calls // => 2
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Meter | Budget.TokenBudget, never, Budget.TokenBudget> = Layer.fresh(
  // Fresh, because a program may have two budgets and a constant layer is built only once.
  Layer.effectContext(
    Effect.map(Budget.TokenBudget, (inner) =>
      Context.make(Meter, true).pipe(Context.add(Budget.TokenBudget, counting(inner)))
    )
  )
)

const counting = (inner: Budget.TokenBudget["Service"]): Budget.TokenBudget["Service"] => ({
  ...inner,
  reserve: (estimate, options) =>
    Effect.flatMap(CurrentAgent, (current) =>
      current === undefined
        ? inner.reserve(estimate, options)
        : Effect.uninterruptibleMask((restore) => reserveCounted(inner, current, estimate, options, restore))
    ),
  foresee: (estimate, options) =>
    Effect.flatMap(CurrentAgent, (current) => {
      if (current === undefined) return inner.foresee(estimate, options)
      const foreseen = Effect.provideContext(inner.foresee(estimate, weighted(current, options)), alreadyCounted)
      const refusal = refusalOf(current, Counter.estimated(estimate))
      return refusal === undefined ? foreseen : Effect.map(foreseen, (each) => ({ ...each, refusal }))
    })
})

/** Keeps a budget below, and its check for budgets that do not count, from counting again. */
const alreadyCounted = Context.make(CurrentAgent, undefined).pipe(Context.add(Uncounted, false))

const weighted = (
  { weight }: CurrentAgent,
  options: Budget.ReserveOptions | undefined
): Budget.ReserveOptions | undefined =>
  weight === undefined || options?.weight !== undefined ? options : { ...options, weight: weight() }

/** The refusal of a call that exceeds the cap of its agent or of a job. */
const refusalOf = ({ key, trackers }: CurrentAgent, asked: Counter.Counter): Budget.Denied | undefined => {
  for (const { agent, cap, used } of trackers) {
    const excess = Counter.excess(used, cap, asked)
    if (excess === undefined) continue
    return new Budget.Denied({
      cause: new CapReached({ key: agent ?? key, cap: agent === undefined ? "job" : "agent", ...excess })
    })
  }
  return undefined
}

/** Reserves and counts; it must run uninterruptibly. */
const reserveCounted = Effect.fnUntraced(function* (
  inner: Budget.TokenBudget["Service"],
  current: CurrentAgent,
  estimate: Limits.Estimate,
  options: Budget.ReserveOptions | undefined,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
) {
  // The weight is computed before this call is counted.
  const reserveOptions = weighted(current, options)
  const asked = Counter.estimated(estimate)
  const refusal = refusalOf(current, asked)
  if (refusal !== undefined) return yield* new Budget.BudgetError({ reason: refusal })
  const settle = track(current.trackers, asked, estimate)
  const reservation = yield* restore(
    Effect.provideContext(inner.reserve(estimate, reserveOptions), alreadyCounted)
  ).pipe(Effect.onError(() => Effect.sync(() => settle(Amounts.nothing))))
  // A call whose usage is unknown keeps its estimate, as in the budget.
  yield* Effect.addFinalizer(() => Effect.sync(() => settle({})))
  return tracked(reservation, settle)
})

/** Counts a call as estimated. The result replaces that by its usage, and only the first usage counts. */
const track = (
  trackers: ReadonlyArray<Tracker>,
  asked: Counter.Counter,
  estimate: Limits.Estimate
): ((usage: Limits.Usage) => void) => {
  const replace = (before: Counter.Counter, after: Counter.Counter): void => {
    for (const tracker of trackers) {
      tracker.used = Counter.replace(tracker.used, before, after)
      tracker.changed()
    }
  }
  replace(Counter.zero, asked)
  let isOpen = true
  return (usage) => {
    if (!isOpen) return
    isOpen = false
    replace(asked, Counter.actual(asked, usage, estimate))
  }
}

/** A reservation that also settles what was counted for it. */
const tracked = (reservation: Budget.Reservation, settle: (usage: Limits.Usage) => void): Budget.Reservation => {
  const settling = <A>(usage: Limits.Usage, end: Effect.Effect<A>): Effect.Effect<A> =>
    Effect.andThen(
      Effect.sync(() => settle(usage)),
      end
    )
  return {
    ...reservation,
    observe: (signal) => {
      const observed = reservation.observe(signal)
      return signal.usage === undefined ? observed : settling(signal.usage, observed)
    },
    settle: (usage, outcome) => settling(usage, reservation.settle(usage, outcome)),
    fail: (failure) => settling(failure.usage ?? Amounts.nothing, reservation.fail(failure)),
    refund: settling(Amounts.nothing, reservation.refund)
  }
}

// -----------------------------------------------------------------------------
// Running
// -----------------------------------------------------------------------------

/**
 * Starts agents and returns their job, which reports progress and can cancel agents. The job ends with the scope.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if two agents have the same key, if a cap or an agent's work is not a number above zero, or if `concurrency` is
 * not an integer above zero.
 *
 * **Example** (Cancelling one of two agents)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 *
 * const program = Effect.gen(function* () {
 *   const job = yield* Agents.fork([
 *     { key: "quick", effect: Effect.succeed("done") },
 *     { key: "stuck", effect: Effect.never }
 *   ])
 *   yield* job.cancel("stuck")
 *   const outcomes = yield* job.await
 *   return outcomes.map(({ exit, key }) => [key, exit._tag])
 * })
 *
 * const live = Agents.layer.pipe(Layer.provide(Budget.layer()))
 *
 * await Effect.runPromise(Effect.scoped(Effect.provide(program, live))) // => [["quick", "Success"], ["stuck", "Failure"]]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fork = <const Each extends Agent<unknown, unknown, unknown>>(
  agents: Iterable<Each>,
  options: Options = {}
): Effect.Effect<Job<SuccessOf<Each>, FailureOf<Each>>, never, ServicesOf<Each> | Meter | Scope.Scope> =>
  startAll("Agents.fork", agents, options)

const startAll = <Each extends Agent<unknown, unknown, unknown>>(
  operation: string,
  agents: Iterable<Each>,
  options: Options = {}
) => start(operation, agents as Iterable<Agent<SuccessOf<Each>, FailureOf<Each>, ServicesOf<Each>>>, options)

type SuccessOf<Each extends Agent<unknown, unknown, unknown>> = Effect.Success<Each["effect"]>
type FailureOf<Each extends Agent<unknown, unknown, unknown>> = Effect.Error<Each["effect"]>
type ServicesOf<Each extends Agent<unknown, unknown, unknown>> = Effect.Services<Each["effect"]>

/**
 * Runs agents and returns the outcome of each, in their order. It never fails; the caller decides whether a failure
 * matters. Interrupting it interrupts every agent.
 *
 * **Example** (An agent that fails)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Exit from "effect/Exit"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 *
 * const program = Agents.run([
 *   { key: "good", effect: Effect.succeed(42) },
 *   { key: "bad", effect: Effect.fail("broken") }
 * ]).pipe(Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer()))))
 *
 * const outcomes = await Effect.runPromise(program)
 *
 * outcomes.map(({ exit }) => Exit.isSuccess(exit)) // => [true, false]
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const run = <const Each extends Agent<unknown, unknown, unknown>>(
  agents: Iterable<Each>,
  options?: Options
): Effect.Effect<
  ReadonlyArray<Outcome<SuccessOf<Each>, FailureOf<Each>>>,
  never,
  Exclude<ServicesOf<Each>, Scope.Scope> | Meter
> => Effect.scoped(Effect.flatMap(startAll("Agents.run", agents, options), (job) => job.await))

// -----------------------------------------------------------------------------
// One job
// -----------------------------------------------------------------------------

/** What the agents of a job share. */
interface SharedByJob {
  readonly tracker: Tracker
  readonly purse: Spending.Purse
  /** The trackers of the agent that started the job, if an agent did: its caps include what it starts. */
  readonly outer: ReadonlyArray<Tracker>
  readonly startedAt: number
  /** How many milliseconds it may take, if that is bounded. */
  readonly time: number | undefined
  readonly wake: Waker.Wake
  /** Whether that time is over. The clock alone cannot tell, because a timer may fire a moment early. */
  isOver: boolean
  remaining: Work.Remaining
}

/** One agent of a job, from before its start until after its end. */
interface JobAgent<A, E, R> {
  readonly agent: Agent<A, E, R>
  readonly tracker: Tracker
  readonly purse: Spending.Purse
  readonly time: number | undefined
  /** What it has left to do, if its work is stated. */
  left: number | undefined
  state: AgentState
  /** Defined once it has started. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

const start = Effect.fnUntraced(function* <A, E, R>(
  operation: string,
  agents: Iterable<Agent<A, E, R>>,
  options: Options
): Effect.fn.Return<Job<A, E>, never, R | Meter | Scope.Scope> {
  Input.check(operation, job, options)
  yield* Meter
  const { concurrency = "unbounded" } = options
  const ticks = yield* PubSub.sliding<void>(1)
  const wake = Waker.make(yield* Scheduler.Scheduler)
  const changed = tickOf(ticks, wake)
  const { dollars, time, ...cap } = inMillis(options.cap)
  const shared: SharedByJob = {
    tracker: trackerOf(undefined, cap, changed),
    purse: purseOf("the job", dollars, changed),
    outer: (yield* CurrentAgent)?.trackers ?? [],
    startedAt: yield* Clock.currentTimeMillis,
    time,
    wake,
    isOver: false,
    remaining: Work.none
  }
  const members = enter(operation, agents, options, shared)
  const all = yield* Effect.forEach(members, (member) => runOne(member, shared), { concurrency }).pipe(
    Effect.onInterrupt(() => cancel(members, shared)),
    Effect.forkScoped({ startImmediately: true })
  )
  const status = Effect.sync((): Progress => ({
    agents: members.map((member) => ({ key: member.agent.key, state: member.state, used: used(member) })),
    done: members.filter(hasEnded).length,
    used: used(shared)
  }))
  return {
    await: Fiber.join(all),
    status,
    progress: Stream.takeUntil(latest(ticks, status), ({ done }) => done === members.length),
    cancel: (key) =>
      cancel(
        members.filter(({ agent }) => agent.key === key),
        shared
      ),
    cancelAll: Effect.asVoid(cancel(members, shared))
  }
})

/** Checks the agents. None has started yet. */
const enter = <A, E, R>(
  operation: string,
  agents: Iterable<Agent<A, E, R>>,
  options: Options,
  shared: SharedByJob
): ReadonlyArray<JobAgent<A, E, R>> => {
  const { changed } = shared.tracker
  const keys = new Set<string>()
  return Array.from(agents, (agent, index) => {
    Input.check(`${operation}: agents[${index}]`, oneAgent, agent)
    const { cap = options.capPerAgent, key, work } = agent
    if (keys.has(key)) Input.wrong(operation, `expected unique keys, got ${shown(key)} twice`)
    keys.add(key)
    if (work !== undefined) shared.remaining = Work.add(shared.remaining, work)
    const { dollars, time, ...counts } = inMillis(cap)
    return {
      agent,
      left: work,
      time,
      tracker: trackerOf(key, counts, changed),
      purse: purseOf(`agent "${key}"`, dollars, changed),
      state: "waiting",
      fiber: undefined
    }
  })
}

/** An agent's effect within its caps, with the references that its calls read. */
const bounded = <A, E, R>(
  member: JobAgent<A, E, R>,
  shared: SharedByJob,
  now: number
): Effect.Effect<A, E | TimeCapReached, R> => {
  const { agent, purse, time, tracker } = member
  const { key, priority, work } = agent
  const ends = (cap: "agent" | "job", limit: number | undefined, from: number) => {
    if (limit === undefined) return identity
    const left = from + limit - now
    const reached = Effect.suspend(() => {
      if (cap === "job") shared.isOver = true
      return Effect.fail(new TimeCapReached({ key, cap, limit: Duration.millis(limit) }))
    })
    return (self: Effect.Effect<A, E | TimeCapReached, R>) =>
      left <= 0 || (cap === "job" && shared.isOver)
        ? reached
        : Effect.timeoutOrElse(self, { duration: left, orElse: () => reached })
  }
  return agent.effect.pipe(
    ends("agent", time, now),
    ends("job", shared.time, shared.startedAt),
    priority === undefined ? identity : Effect.provideService(Budget.Priority, priority),
    Effect.provideService(Budget.Agent, key),
    Spending.from(purse),
    Spending.from(shared.purse),
    isCapped(tracker) || isCapped(shared.tracker) || work !== undefined
      ? Effect.provideService(Uncounted, true)
      : identity,
    Effect.provideService(CurrentAgent, {
      key,
      trackers: [tracker, shared.tracker, ...shared.outer],
      weight: work === undefined ? undefined : () => weightOf(member, work, shared)
    })
  )
}

/** The weight of an agent's next call: 1 once the agent has ended, for calls of fibers that outlive it. */
const weightOf = <A, E, R>(member: JobAgent<A, E, R>, work: number, shared: SharedByJob): number => {
  if (member.left === undefined) return 1
  const left = Work.left(work, member.tracker.used.tokens)
  shared.remaining = Work.update(shared.remaining, member.left, left)
  member.left = left
  return Work.weight(shared.remaining, left)
}

const isCapped = ({ cap }: Tracker): boolean => cap.tokens !== undefined || cap.calls !== undefined

const runOne = Effect.fnUntraced(function* <A, E, R>(
  member: JobAgent<A, E, R>,
  shared: SharedByJob
): Effect.fn.Return<Outcome<A, E>, never, R> {
  const now = yield* Clock.currentTimeMillis
  const exit = yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      if (hasEnded(member)) return Exit.interrupt()
      const over = Deferred.makeUnsafe<void>()
      // Registered before its first step, because that step may already cancel it.
      const known = Effect.withFiber<A, E | TimeCapReached, R>((fiber) => {
        member.fiber = fiber
        member.state = "running"
        member.tracker.changed()
        // Added first, because an observer that the agent adds may throw, and later observers are then not called.
        fiber.addObserver((exit) => {
          end(member, endOf(exit), shared)
          shared.wake(() => Deferred.doneUnsafe(over, Exit.void))
        })
        return bounded(member, shared, now)
      })
      const fiber = yield* Effect.forkChild(restore(known), { startImmediately: true })
      return yield* Effect.onInterrupt(restore(Effect.andThen(Deferred.await(over), Fiber.await(fiber))), () =>
        Fiber.interrupt(fiber)
      )
    })
  )
  const elapsed = Duration.millis((yield* Clock.currentTimeMillis) - now)
  return { key: member.agent.key, exit, used: used(member), elapsed }
})

const hasEnded = ({ state }: { readonly state: AgentState }): boolean => state !== "waiting" && state !== "running"

const end = <A, E, R>(member: JobAgent<A, E, R>, state: AgentState, shared: SharedByJob): void => {
  member.state = state
  if (member.left !== undefined) shared.remaining = Work.remove(shared.remaining, member.left)
  member.left = undefined
  member.tracker.changed()
}

/** Ends the waiting agents before it interrupts the first running one, because that would let a waiting one start. */
const cancel = <A, E, R>(some: ReadonlyArray<JobAgent<A, E, R>>, shared: SharedByJob): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    const open = some.filter((member) => !hasEnded(member))
    const fibers = open.flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
    for (const member of open) if (member.state === "waiting") end(member, "cancelled", shared)
    return Effect.as(Fiber.interruptAll(fibers), open.length > 0)
  })

const endOf = (exit: Exit.Exit<unknown, unknown>): AgentState => {
  if (Exit.isSuccess(exit)) return "succeeded"
  return Cause.hasInterruptsOnly(exit.cause) ? "cancelled" : "failed"
}

const used = ({ purse, tracker }: Pick<SharedByJob, "purse" | "tracker">): AgentUsage => ({
  ...tracker.used,
  dollars: internalsOf(purse).total
})

const trackerOf = (agent: string | undefined, cap: Counter.CounterCap, changed: () => void): Tracker => ({
  agent,
  cap,
  changed,
  used: Counter.zero
})

const purseOf = (name: string, dollars: number | undefined, changed: () => void): Spending.Purse =>
  Spending.make(name, dollars === undefined ? undefined : { dollars }, { changed })

/** A checked cap with its time in milliseconds. */
const inMillis = ({ time, ...cap }: Cap = {}) => ({
  ...cap,
  time: time === undefined ? undefined : Input.millisOf(time)
})
