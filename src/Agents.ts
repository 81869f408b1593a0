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
 * Agents share the budget equally, as tenants should, so the agent with the most work ends last, and alone. If only the end
 * of the whole job counts, state the {@link Agent.work} of each: then shares follow the remaining work, and all end
 * together.
 *
 * {@link layer} counts. Put it between the budget and the client. A call of an agent with a cap on tokens or calls, or with
 * stated work, dies with a `RangeError` where it goes through a budget without that layer. (A `TokenBudget` that is written
 * anew, and has no budget of this library under it, cannot tell.)
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
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as PubSub from "effect/PubSub"
import * as Scheduler from "effect/Scheduler"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Meter, Running } from "./agents/meter.ts"
import { latest, tickOf } from "./budget/observer.ts"
import { concurrency, priority } from "./budget/options.ts"
import { Uncounted } from "./budget/uncounted.ts"
import * as Waker from "./budget/waker.ts"
import * as Budget from "./Budget.ts"
import * as Counter from "./agents/counter.ts"
import * as Input from "./input/checks.ts"
import { shown } from "./input/shown.ts"
import * as Spending from "./Spending.ts"
import { dollars } from "./spending/cap.ts"
import { internalsOf } from "./spending/purse.ts"
import * as Work from "./agents/work.ts"

export { CapReached, layer, Meter } from "./agents/meter.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * The most that an agent, or a job, may use. Options that are left out are not bounded.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cap {
  /** Input and output tokens together. */
  readonly tokens?: number | undefined
  /** Calls that reached the provider, retries included; rejected ones only where the provider charges them. */
  readonly calls?: number | undefined
  /** What governed calls may cost, in US dollars; see {@link Spending.Cap}. */
  readonly dollars?: number | undefined
  /** From the start of the agent, or of the job; time in the queue included. */
  readonly time?: Duration.Input | undefined
}

/**
 * One agent: a key of its own, and what it does.
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
  /** The priority of its calls; higher goes first. @default that of the code which runs the job */
  readonly priority?: number | undefined
  /**
   * The tokens that it is expected to use in all. Agents with `work` share the budget by their remaining work, so that
   * they end together. This is right for one job of which only the end counts. A guess is enough.
   *
   * @default unknown: an equal share, as tenants should have
   */
  readonly work?: number | undefined
}

/** What was used so far; calls that are under way count as estimated. */
type Used = {
  readonly tokens: number
  readonly calls: number
  /** What governed calls cost that are over, in US dollars; those of models without a price are not in it. */
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
  readonly used: Used
  readonly elapsed: Duration.Duration
}

/** Where an agent stands. */
type State = "waiting" | "running" | "succeeded" | "failed" | "cancelled"

/**
 * Where a job stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  readonly agents: ReadonlyArray<{ readonly key: string; readonly state: State; readonly used: Used }>
  /** Agents that ended, however they did. */
  readonly done: number
  readonly used: Used
}

/**
 * A job that runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Job<A, E> {
  /** The outcomes in the order of the agents. */
  readonly await: Effect.Effect<ReadonlyArray<Outcome<A, E>>>
  readonly status: Effect.Effect<Progress>
  /** The status now and after every change, until all agents ended; a slow reader gets the latest only. */
  readonly progress: Stream.Stream<Progress>
  /** Interrupts one agent and waits until it ended: another may start, and it holds no tokens. False if it had ended. */
  readonly cancel: (key: string) => Effect.Effect<boolean>
  /** Interrupts every agent that has not ended, started or not. */
  readonly cancelAll: Effect.Effect<void>
}

/**
 * How a job is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * Agents at once.
   *
   * @default "unbounded": the budget holds their calls back, and an agent that waits costs little
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
 * The time of an agent, or of its whole job, is over.
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
    return `Agent "${this.key}" ran out of ${whose} time of ${Duration.format(this.limit)}: raise the cap, or give it less to do`
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
// Running
// -----------------------------------------------------------------------------

/**
 * Starts agents and returns a job that can be watched and whose agents can be cancelled. The job ends with the scope.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when two agents have the same key, when a cap or an agent's work is not a number above zero, or when
 * `concurrency` is no integer above zero.
 *
 * **Example** (One of two is cancelled)
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
): Effect.Effect<Job<Success<Each>, Failure<Each>>, never, Services<Each> | Meter | Scope.Scope> =>
  startAll("Agents.fork", agents, options)

const startAll = <Each extends Agent<unknown, unknown, unknown>>(
  operation: string,
  agents: Iterable<Each>,
  options: Options = {}
) => start(operation, agents as Iterable<Agent<Success<Each>, Failure<Each>, Services<Each>>>, options)

type Success<Each extends Agent<unknown, unknown, unknown>> = Effect.Success<Each["effect"]>
type Failure<Each extends Agent<unknown, unknown, unknown>> = Effect.Error<Each["effect"]>
type Services<Each extends Agent<unknown, unknown, unknown>> = Effect.Services<Each["effect"]>

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
  ReadonlyArray<Outcome<Success<Each>, Failure<Each>>>,
  never,
  Exclude<Services<Each>, Scope.Scope> | Meter
> => Effect.scoped(Effect.flatMap(startAll("Agents.run", agents, options), (job) => job.await))

// -----------------------------------------------------------------------------
// One job
// -----------------------------------------------------------------------------

/** What all agents of a job share. */
interface Shared {
  readonly counter: Counter.Counter
  readonly purse: Spending.Purse
  /** Those of the agent that started the job, if one did: what it starts counts for it, too. */
  readonly outer: ReadonlyArray<Counter.Counter>
  readonly startedAt: number
  /** Milliseconds from there; `undefined` where nothing bounds them. */
  readonly time: number | undefined
  readonly wake: Waker.Wake
  /** Whether that time is over. The clock alone does not tell: a timer may fire a moment early. */
  isOver: boolean
}

/** One agent of a job as it goes on. */
interface Entry<A, E, R> {
  readonly agent: Agent<A, E, R>
  readonly counter: Counter.Counter
  readonly purse: Spending.Purse
  readonly time: number | undefined
  readonly work: Work.Work | undefined
  state: State
  /** Once it has started. */
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
  const shared: Shared = {
    counter: Counter.make(undefined, cap, changed),
    purse: purseOf("the job", dollars, changed),
    outer: (yield* Running)?.counters ?? [],
    startedAt: yield* Clock.currentTimeMillis,
    time,
    wake,
    isOver: false
  }
  const entries = enter(operation, agents, options, changed)
  const all = yield* Effect.forEach(entries, (entry) => runOne(entry, shared), {
    concurrency
  }).pipe(
    Effect.onInterrupt(() => cancel(entries)),
    Effect.forkScoped({ startImmediately: true })
  )
  const status = Effect.sync((): Progress => ({
    agents: entries.map((entry) => ({ key: entry.agent.key, state: entry.state, used: used(entry) })),
    done: entries.filter(hasEnded).length,
    used: used(shared)
  }))
  return {
    await: Fiber.join(all),
    status,
    progress: Stream.takeUntil(latest(ticks, status), ({ done }) => done === entries.length),
    cancel: (key) => cancel(entries.filter(({ agent }) => agent.key === key)),
    cancelAll: Effect.asVoid(cancel(entries))
  }
})

/** Checks the agents, and has them wait. */
const enter = <A, E, R>(
  operation: string,
  agents: Iterable<Agent<A, E, R>>,
  options: Options,
  changed: () => void
): ReadonlyArray<Entry<A, E, R>> => {
  const job = Work.job()
  const keys = new Set<string>()
  return Array.from(agents, (agent, index) => {
    Input.check(`${operation}: agents[${index}]`, oneAgent, agent)
    const { cap = options.capPerAgent, key, work } = agent
    if (keys.has(key)) Input.wrong(operation, `expected unique keys, got ${shown(key)} twice`)
    keys.add(key)
    const { dollars, time, ...counts } = inMillis(cap)
    return {
      agent,
      work: work === undefined ? undefined : Work.start(job, work),
      time,
      counter: Counter.make(key, counts, changed),
      purse: purseOf(`agent "${key}"`, dollars, changed),
      state: "waiting",
      fiber: undefined
    }
  })
}

/** An agent's effect within its caps, and with what its calls must know of it. */
const bounded = <A, E, R>(
  { agent, counter, purse, time, work }: Entry<A, E, R>,
  shared: Shared,
  now: number
): Effect.Effect<A, E | TimeCapReached, R> => {
  const { key, priority } = agent
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
    isCapped(counter) || isCapped(shared.counter) || work !== undefined
      ? Effect.provideService(Uncounted, true)
      : identity,
    Effect.provideService(Running, {
      agent: key,
      counters: [counter, shared.counter, ...shared.outer],
      weight: work === undefined ? undefined : () => Work.weight(work, counter.tokens)
    })
  )
}

const isCapped = ({ cap }: Counter.Counter): boolean => cap.tokens !== undefined || cap.calls !== undefined

const runOne = Effect.fnUntraced(function* <A, E, R>(
  entry: Entry<A, E, R>,
  shared: Shared
): Effect.fn.Return<Outcome<A, E>, never, R> {
  const now = yield* Clock.currentTimeMillis
  const exit = yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      if (hasEnded(entry)) return Exit.interrupt()
      const over = Deferred.makeUnsafe<void>()
      // It is known before its own first steps, in which it may be cancelled.
      const known = Effect.withFiber<A, E | TimeCapReached, R>((fiber) => {
        entry.fiber = fiber
        entry.state = "running"
        entry.counter.changed()
        // The first observer: one of the agent's own may throw, and those after it are not called then.
        fiber.addObserver((exit) => {
          end(entry, endOf(exit))
          shared.wake(() => Deferred.doneUnsafe(over, Exit.void))
        })
        return bounded(entry, shared, now)
      })
      const fiber = yield* Effect.forkChild(restore(known), { startImmediately: true })
      return yield* Effect.onInterrupt(restore(Effect.andThen(Deferred.await(over), Fiber.await(fiber))), () =>
        Fiber.interrupt(fiber)
      )
    })
  )
  const elapsed = Duration.millis((yield* Clock.currentTimeMillis) - now)
  return { key: entry.agent.key, exit, used: used(entry), elapsed }
})

const hasEnded = ({ state }: { readonly state: State }): boolean => state !== "waiting" && state !== "running"

const end = <A, E, R>(entry: Entry<A, E, R>, state: State): void => {
  entry.state = state
  if (entry.work !== undefined) Work.end(entry.work)
  entry.counter.changed()
}

/** Those that wait end before the first is interrupted, so that none starts because another has ended. */
const cancel = <A, E, R>(some: ReadonlyArray<Entry<A, E, R>>): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    const open = some.filter((entry) => !hasEnded(entry))
    const fibers = open.flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
    for (const entry of open) if (entry.state === "waiting") end(entry, "cancelled")
    return Effect.as(Fiber.interruptAll(fibers), open.length > 0)
  })

const endOf = (exit: Exit.Exit<unknown, unknown>): State => {
  if (Exit.isSuccess(exit)) return "succeeded"
  return Cause.hasInterruptsOnly(exit.cause) ? "cancelled" : "failed"
}

const used = ({ counter, purse }: { readonly counter: Counter.Counter; readonly purse: Spending.Purse }): Used => ({
  ...Counter.used(counter),
  dollars: internalsOf(purse).total
})

const purseOf = (name: string, dollars: number | undefined, changed: () => void): Spending.Purse =>
  Spending.make(name, dollars === undefined ? undefined : { dollars }, { changed })

/** A checked cap, its time in milliseconds. */
const inMillis = ({ time, ...cap }: Cap = {}) => ({
  ...cap,
  time: time === undefined ? undefined : Input.millisOf(time)
})
