/**
 * `Agents`: many agents at once, of which one may fail, be cancelled or run out of its cap without the others noticing.
 *
 * Every agent has a key. It is the fairness key of the budget, so an agent that makes many calls does not delay the
 * others', and it is the name by which progress is reported and an agent is cancelled. What became of each agent is an
 * {@link Outcome} with its `Exit`.
 *
 * **Details**
 *
 * A {@link Cap} bounds tokens, calls and time, for every agent and for the whole job. Tokens and calls are counted where
 * they are reserved, whatever code inside of the agent makes the call: a call that would pass the cap is refused before
 * it waits or is sent, with a `QuotaExhausted` that names what is left, which the agent may handle. What a call was
 * estimated to use counts until it is settled, so caps hold at every instant. Time ends the agent with
 * {@link TimeCapReached}.
 *
 * Agents share the budget equally, as tenants should: whoever has the most to do ends last, and alone. Where only the end
 * of the whole job counts, say how much {@link Agent.work} each has: then they share by what is left, and end together.
 *
 * {@link layer} goes between the budget and the client: it is what counts.
 *
 * **Example** (an agent's failure stays its own, and a cap on calls)
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
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Budget from "./Budget.ts"
import * as Counter from "./internal/counter.ts"
import * as Work from "./internal/work.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * The most that an agent, or a job, may use. What is absent is not bounded.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cap {
  /** Input and output tokens together. */
  readonly tokens?: number | undefined
  /** Calls that reached the provider and were not rejected, retries included. */
  readonly calls?: number | undefined
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
   * The tokens that it is expected to use in all. Agents that say so share the budget by what each has left, so that they
   * end together: right for one job, of which only the end counts. A guess is enough.
   *
   * @default unknown: an equal share, as tenants should have
   */
  readonly work?: number | undefined
}

/**
 * What was used so far; calls that are under way count as estimated.
 *
 * @category models
 * @since 0.1.0
 */
export interface Used {
  readonly tokens: number
  readonly calls: number
}

/**
 * What became of an agent. A cancelled agent's exit is an interruption.
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

/**
 * Where an agent stands.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "waiting" | "running" | "succeeded" | "failed" | "cancelled"

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
  /** Interrupts one agent and waits until it ended: its place is free and it holds no tokens. False if it had ended. */
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
// Counting
// -----------------------------------------------------------------------------

/**
 * Says that the budget of this context counts for {@link run}. {@link layer} provides it.
 *
 * @category services
 * @since 0.1.0
 */
export class Meter extends Context.Service<Meter, { readonly budget: Budget.TokenBudget["Service"] }>()(
  "floodgate/Agents/Meter"
) {}

/** What is known of the agent whose code runs. */
interface Running {
  /** The counters that its reservations also go to: its own and its job's. */
  readonly counters: ReadonlyArray<Counter.Counter>
  /** The weight of its next call, where it is known how much it has to do. */
  readonly weight: (() => number) | undefined
}

const Running = Context.Reference<Running>("floodgate/Agents/Running", {
  defaultValue: () => ({ counters: [], weight: undefined })
})

/**
 * A budget that also counts what each agent of a job uses, and refuses what would pass a cap.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Meter | Budget.TokenBudget, never, Budget.TokenBudget> = Layer.effectContext(
  Effect.map(Budget.TokenBudget, (inner) => {
    const budget = metered(inner)
    return Context.make(Meter, { budget }).pipe(Context.add(Budget.TokenBudget, budget))
  })
)

/** The reservations handed out, and those of the budget behind: its `observe` and `cooldown` know only the latter. */
const originals = new WeakMap<Budget.Reservation, Budget.Reservation>()

const original = <A extends { readonly reservation?: Budget.Reservation | undefined }>(told: A): A =>
  told.reservation === undefined ? told : { ...told, reservation: originals.get(told.reservation) ?? told.reservation }

function metered(inner: Budget.TokenBudget["Service"]): Budget.TokenBudget["Service"] {
  return {
    // One by one: what a budget has besides, such as its shorter way to a reservation, would go past the counters.
    resize: inner.resize,
    poolOf: inner.poolOf,
    status: inner.status,
    changes: inner.changes,
    observe: (signal) => inner.observe(original(signal)),
    cooldown: (pause) => inner.cooldown(original(pause)),
    reserve: (estimate, options) =>
      Effect.flatMap(Running, ({ counters, weight }) => {
        if (counters.length === 0) return inner.reserve(estimate, options)
        const how = weight === undefined || options?.weight !== undefined ? options : { ...options, weight: weight() }
        return Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const share = Counter.take(counters, estimate)
            if (share._tag === "Refused") {
              const { asked, dimension, key, left } = share
              return yield* new Budget.BudgetError({
                reason: new Budget.QuotaExhausted({ pool: key, dimension, asked, left })
              })
            }
            const held = yield* restore(inner.reserve(estimate, how)).pipe(
              Effect.onError(() => Effect.sync(() => share.settle({ requests: 0, tokens: 0 })))
            )
            // Nobody said what it used: it is kept as estimated, as the budget does.
            yield* Effect.addFinalizer(() => Effect.sync(() => share.settle({})))
            const reservation: Budget.Reservation = {
              pool: held.pool,
              agent: held.agent,
              charge: held.charge,
              waited: held.waited,
              binding: held.binding,
              settle: (usage, outcome) =>
                Effect.andThen(
                  Effect.sync(() => share.settle(usage)),
                  held.settle(usage, outcome)
                ),
              refund: Effect.andThen(
                Effect.sync(() => share.settle({ requests: 0, tokens: 0 })),
                held.refund
              )
            }
            originals.set(reservation, held)
            return reservation
          })
        )
      })
  }
}

// -----------------------------------------------------------------------------
// Running
// -----------------------------------------------------------------------------

/**
 * Starts agents and goes on: the job can be watched and its agents cancelled. It ends with the scope.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when two agents have the same key, or when a cap or an agent's work is not a number above zero.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fork = <const Each extends Agent<unknown, unknown, unknown>>(
  agents: Iterable<Each>,
  options: Options = {}
): Effect.Effect<Job<Success<Each>, Failure<Each>>, never, Services<Each> | Meter | Scope.Scope> =>
  start(agents as Iterable<Agent<Success<Each>, Failure<Each>, Services<Each>>>, options)

type Success<Each extends Agent<unknown, unknown, unknown>> = Effect.Success<Each["effect"]>
type Failure<Each extends Agent<unknown, unknown, unknown>> = Effect.Error<Each["effect"]>
type Services<Each extends Agent<unknown, unknown, unknown>> = Effect.Services<Each["effect"]>

const start = Effect.fnUntraced(function* <A, E, R>(
  agents: Iterable<Agent<A, E, R>>,
  options: Options
): Effect.fn.Return<Job<A, E>, never, R | Meter | Scope.Scope> {
  yield* Meter
  const ticks = yield* PubSub.sliding<void>(1)
  const changed = () => void PubSub.publishUnsafe(ticks, undefined)
  const startedAt = yield* Clock.currentTimeMillis
  const total = Counter.make("job", options.cap ?? {}, changed)
  const jobTime = timeOf("cap", options.cap)
  const job = Work.job()

  const entries = Array.from(agents, (agent) => {
    const cap = agent.cap ?? options.capPerAgent
    if (agent.work !== undefined && !(agent.work > 0 && agent.work < Infinity)) {
      throw new RangeError(`Agents.run: work of "${agent.key}": expected a finite number > 0, got ${agent.work}`)
    }
    return {
      agent,
      work: agent.work === undefined ? undefined : Work.start(job, agent.work),
      time: timeOf(`capPerAgent of "${agent.key}"`, cap),
      counter: Counter.make(agent.key, cap ?? {}, changed),
      state: "waiting" as State,
      cancelled: false,
      fiber: undefined as Fiber.Fiber<A, E | TimeCapReached> | undefined
    }
  })
  type Entry = (typeof entries)[number]
  const keys = new Set<string>()
  for (const { agent } of entries) {
    if (keys.has(agent.key)) throw new RangeError(`Agents.run: expected unique keys, got "${agent.key}" twice`)
    keys.add(agent.key)
  }

  const bounded = (entry: Entry, now: number): Effect.Effect<A, E | TimeCapReached, R> => {
    const { key } = entry.agent
    const limit =
      (cap: "agent" | "job", millis: number, left: number) => (self: Effect.Effect<A, E | TimeCapReached, R>) =>
        Effect.timeoutOrElse(self, {
          duration: left,
          orElse: () => Effect.fail(new TimeCapReached({ key, cap, limit: Duration.millis(millis) }))
        })
    let effect: Effect.Effect<A, E | TimeCapReached, R> = entry.agent.effect
    if (entry.time !== undefined) effect = limit("agent", entry.time, entry.time)(effect)
    if (jobTime !== undefined) effect = limit("job", jobTime, Math.max(0, startedAt + jobTime - now))(effect)
    if (entry.agent.priority !== undefined) {
      effect = Effect.provideService(effect, Budget.Priority, entry.agent.priority)
    }
    const { counter, work } = entry
    return effect.pipe(
      Effect.provideService(Budget.Agent, key),
      Effect.provideService(Running, {
        counters: [counter, total],
        weight: work === undefined ? undefined : () => Work.weight(work, counter.tokens)
      })
    )
  }

  const one = (entry: Entry) =>
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const exit = yield* Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          if (entry.cancelled) return Exit.interrupt()
          entry.state = "running"
          entry.fiber = yield* Effect.forkChild(restore(bounded(entry, now)), { startImmediately: true })
          changed()
          return yield* Effect.onInterrupt(restore(Fiber.await(entry.fiber)), () => Fiber.interrupt(entry.fiber!))
        })
      )
      entry.state = endOf(exit)
      changed()
      const elapsed = Duration.millis((yield* Clock.currentTimeMillis) - now)
      return { key: entry.agent.key, exit, used: Counter.used(entry.counter), elapsed }
    })

  const all = yield* Effect.forkScoped(
    Effect.forEach(entries, one, { concurrency: options.concurrency ?? "unbounded" }),
    { startImmediately: true }
  )

  const ended = ({ state }: Entry) => state !== "waiting" && state !== "running"

  /** All are marked before the first is interrupted, so that none starts in a place that another leaves. */
  const cancel = (some: ReadonlyArray<Entry>) =>
    Effect.suspend(() => {
      const open = some.filter((entry) => !entry.cancelled && !ended(entry))
      for (const entry of open) entry.cancelled = true
      const fibers = open.flatMap(({ fiber }) => (fiber === undefined ? [] : [fiber]))
      return Effect.as(Fiber.interruptAll(fibers), open.length > 0)
    })

  const status = Effect.sync((): Progress => ({
    agents: entries.map(({ agent, counter, state }) => ({ key: agent.key, state, used: Counter.used(counter) })),
    done: entries.filter(ended).length,
    used: Counter.used(total)
  }))

  return {
    await: Fiber.join(all),
    status,
    progress: Stream.unwrap(
      Effect.map(PubSub.subscribe(ticks), (subscription) =>
        Stream.concat(Stream.succeed<void>(undefined), Stream.fromSubscription(subscription)).pipe(
          Stream.mapEffect(() => status),
          Stream.takeUntil(({ done }) => done === entries.length)
        )
      )
    ),
    cancel: (key) => cancel(entries.filter(({ agent }) => agent.key === key)),
    cancelAll: Effect.asVoid(cancel(entries))
  }
})

/**
 * Runs agents and gives what became of each, in their order. It never fails: whether a failure matters is the caller's to
 * say. Interrupting it interrupts every agent.
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
> => Effect.scoped(Effect.flatMap(fork(agents, options), (job) => job.await))

const endOf = (exit: Exit.Exit<unknown, unknown>): State => {
  if (Exit.isSuccess(exit)) return "succeeded"
  return Cause.hasInterruptsOnly(exit.cause) ? "cancelled" : "failed"
}

const timeOf = (name: string, cap: Cap | undefined): number | undefined => {
  for (const option of ["tokens", "calls"] as const) {
    const value = cap?.[option]
    if (value !== undefined && !(value > 0)) {
      throw new RangeError(`Agents.run: ${name}.${option}: expected a number > 0, got ${value}`)
    }
  }
  if (cap?.time === undefined) return undefined
  const millis = Duration.toMillis(Duration.fromInputUnsafe(cap.time))
  if (!(millis > 0)) throw new RangeError(`Agents.run: ${name}.time: expected a duration > 0, got ${millis} ms`)
  return millis
}
