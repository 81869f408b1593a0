/**
 * `Agents` runs many agents at once. One may fail, be cancelled or exhaust its cap without affecting the others. {@link advise} says
 * how many agents help, before they are started.
 *
 * Every agent has a key. The key is the fairness key of the budget, so an agent that makes many calls does not delay the
 * calls of others. Progress is reported by key, and agents are cancelled by key. The result of each agent is an
 * {@link Outcome} with its `Exit`.
 *
 * **Details**
 *
 * A {@link Cap} bounds tokens, calls, dollars and time, for every agent and for the whole job. Tokens and calls are counted
 * when they are reserved, whichever code inside the agent makes the call. Calls through an SDK client with the middleware of
 * `floodgate/anthropic` are not counted, because promises belong to no agent. A call that would exceed a cap is refused before
 * it waits or is sent, with a {@link CapReached} that names what is left; the agent may handle it. Estimates count until they
 * are settled, so caps hold at every instant. Dollar caps apply to governed calls, as with `Spending.Cap`: a call that would
 * exceed one is refused with `Spending.SpendCapReached`. When its time is up, an agent ends with {@link CapReached}, and
 * agents that have not started never start.
 *
 * Agents share the budget equally, so the agent with the most work ends last. If only the end of the whole job matters, state
 * the {@link Agent.work} of each agent: shares then follow the remaining work, and all agents end together.
 *
 * A `tree` of `floodgate/Trees` bounds how many agents there may be, with those that agents start themselves, and can be stopped. Agents
 * that may not start fail with `TreeCapReached`; the outcomes of all others are kept.
 *
 * With the concurrency `"advised"`, as many agents start as help, and more as soon as they would: a job of 104 agents then runs a few
 * at a time, and ends as early. Each outcome says when its agent started.
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
 * @stability stable
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Meter } from "./agents/counting.ts"
import { start } from "./agents/job.ts"
import * as Internal from "./agents/advise.ts"
import type { Advice, AdviseOptions, Agent, Job, Options, Outcome, PoolUnclear } from "./agents/models.ts"
import type * as Budget from "./Budget.ts"

export { layer, Meter } from "./agents/counting.ts"
export {
  type Advice,
  type AdviseOptions,
  type Agent,
  type Cap,
  CapReached,
  type Job,
  type Options,
  type Outcome,
  PoolUnclear,
  type Progress
} from "./agents/models.ts"

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
 * @stability stable
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
 * **Example** (As many agents at once as help)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 * import { Simulation } from "floodgate/testing"
 *
 * const call = Budget.withReservation({ inputTokens: 1_000 }, (held) =>
 *   Effect.andThen(Effect.sleep("2 seconds"), held.settle({ inputTokens: 1_000, outputTokens: 0 }))
 * )
 * const agents = Array.from({ length: 40 }, (_, index) => ({ key: `agent-${index}`, effect: call }))
 * const each = { calls: 1, first: { inputTokens: 1_000, outputTokens: 0, duration: "2 seconds" as const } }
 *
 * const outcomes = Agents.run(agents, { concurrency: "advised", advice: { each } }).pipe(
 *   Effect.provide(Layer.provide(Agents.layer, Budget.layer({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } })))
 * )
 *
 * const { value } = await Effect.runPromise(Simulation.run(outcomes))
 * const started = value.map(({ startedAfter }) => Duration.toSeconds(startedAfter!))
 * started.filter((seconds) => seconds < 1).length // => 2
 * ```
 *
 * **Example** (At most two agents, also those that agents start)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Exit from "effect/Exit"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 * import * as Trees from "floodgate/Trees"
 *
 * const tree = Trees.make("research", { agents: 2 })
 * const search = { key: "search", effect: Effect.succeed("found") }
 * const lead = { key: "lead", effect: Agents.run([search]) }
 * const late = { key: "late", effect: Effect.void }
 *
 * const program = Agents.run([lead, late], { tree, concurrency: 1 })
 * const live = Agents.layer.pipe(Layer.provide(Budget.layer()))
 *
 * const outcomes = await Effect.runPromise(Effect.provide(program, live))
 *
 * outcomes.map(({ exit }) => Exit.isSuccess(exit)) // => [true, false]
 * String(Exit.findErrorOption(outcomes[1]!.exit)).includes("at most 2 agents in all") // => true
 * ```
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
 * @stability stable
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

/**
 * Advises how many more agents help now, before an orchestrator starts them. It forecasts jobs of different numbers of agents over
 * the live state of their pool: its limits, as stated or learned, its pauses, and the calls that run and wait there.
 *
 * **Details**
 *
 * Every call in flight or waiting counts as an agent that is halfway through work like the one in question. While no limit of the
 * pool is known, as many agents as run already are advised, because the pool itself doubles its calls until the provider says
 * what it allows.
 *
 * If the model has several places (see `floodgate/Places`), the agents are divided among them so that the last one ends as early as
 * possible. With the policy `"cheapest"`, only the cheapest place counts.
 *
 * The advice holds until it expires. It reserves nothing. But what one `asker` was told counts as taken for others until then, so
 * orchestrators that ask together are not promised the same room. {@link layer} remembers that, and what agents did before.
 *
 * **Gotchas**
 *
 * Invalid options are a defect: a `RangeError`. Over a shared store, other processes' promises are unknown.
 *
 * **Example** (Before a fan-out)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 *
 * const live = Agents.layer.pipe(
 *   Layer.provide(Budget.layer({ limits: { tokens: { perSecond: 60_000, burst: 200_000 } } }))
 * )
 *
 * const advice = Agents.advise({
 *   agents: 104,
 *   each: {
 *     calls: 5,
 *     first: { inputTokens: 149_800, outputTokens: 200 },
 *     later: { inputTokens: 13_800, outputTokens: 200 }
 *   }
 * })
 *
 * const { agents, binding, text } = await Effect.runPromise(Effect.provide(advice, live))
 *
 * agents // => 5
 * binding // => "tokens"
 * text // => "Start 5 of 104 agents now: more at once would end the job at most 8 % earlier, because tokens are the limit. 104 agents will end in 6.2 min (how exactly is not known yet). Ask again in 20 s."
 * ```
 *
 * @stability unstable
 * @category getters
 * @since 0.4.0
 */
export const advise = (
  options?: AdviseOptions
): Effect.Effect<Advice, PoolUnclear | Budget.BudgetError, Budget.TokenBudget> =>
  Internal.advise("Agents.advise", options)
