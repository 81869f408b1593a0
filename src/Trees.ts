/**
 * Caps on the agents of one job: how many there may be in all, at once and in an hour, and how deep they may start each other.
 *
 * One prompt can start an agent that starts agents that start agents; trees of 877 and 1,218 are on record. A {@link Tree} knows each
 * agent from its first call on, and refuses the first call of one too many with {@link TreeCapReached}, in words that the agent which
 * started it can act on. Agents that have begun go on, so their work is not lost.
 *
 * **Details**
 *
 * Agents are those that a program or a request names; whoever gives no names has one agent. An agent counts as running until five
 * minutes after its last call, because agents do not say when they end. With {@link open}, all processes that open a tree of this name
 * have one count.
 *
 * **Example** (At most two agents)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 * import * as Trees from "floodgate/Trees"
 *
 * const tree = Trees.make("research", { agents: 2 })
 * const call = Effect.flatMap(Governor.Governor, (governor) =>
 *   governor.run({ model: "my-model", bytes: 400 }, () => Effect.succeed({ value: "answer" }))
 * )
 * const as = (agent: string) => call.pipe(Trees.within(tree, { agent, parent: "lead" }), Effect.exit)
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer()))
 *
 * const exits = await Effect.runPromise(Effect.forEach(["one", "two", "three", "one"], as).pipe(Effect.provide(live)))
 *
 * exits.map(({ _tag }) => _tag) // => ["Success", "Success", "Failure", "Success"]
 * ```
 *
 * @stability unstable
 * @since 0.5.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Budget from "./Budget.ts"
import { type LineOf, Lines } from "./call/lines.ts"
import { check, options as optionsOf, text } from "./domain/input/checks.ts"
import { counted } from "./domain/words.ts"
import { LocalPort } from "./sharing/local.ts"
import { BudgetStore, opener } from "./sharing/port.ts"
import { type CallingAgent, copy, local } from "./sharing/tree.ts"
import { type AgentCaps, checkCaps, defaultAgents, type Tree } from "./trees/models.ts"
import { RunningTree, type TreeHold } from "./trees/running.ts"

export type { AgentCaps, Tree, TreeStatus } from "./trees/models.ts"

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/** The caps in words. */
const words: Readonly<Record<"agents" | "atOnce" | "perHour" | "depth", (limit: number) => string>> = {
  agents: (limit) => `at most ${counted(limit, "agent")} in all`,
  atOnce: (limit) => `at most ${counted(limit, "agent")} at once`,
  perHour: (limit) => `at most ${counted(limit, "new agent")} an hour`,
  depth: (limit) => (limit === 0 ? "no sub-agents" : `agents at most ${counted(limit, "level")} deep`)
}

/** Advice for the agent that started the refused one. */
const advice: Readonly<Record<keyof typeof words, string>> = {
  agents: "do the rest yourself, or with the agents that run",
  atOnce: "wait until one of them has ended, or do this yourself",
  perHour: "do this yourself, or start it later",
  depth: "do this yourself instead of starting an agent"
}

/**
 * The call is the first of an agent that a cap of its job refuses, or an operator has stopped the job (`by` is `"stop"`). `until` is
 * when the agent would fit, in milliseconds since the epoch, where that is known. It is the `cause` of a `BudgetError` with the reason
 * `Denied`.
 *
 * @stability unstable
 * @category errors
 * @since 0.5.0
 */
export class TreeCapReached extends Schema.TaggedError<TreeCapReached>("floodgate/Trees/TreeCapReached")(
  "TreeCapReached",
  {
    tree: Schema.String,
    agent: Schema.String,
    by: Schema.Literals(["agents", "atOnce", "perHour", "depth", "stop"]),
    limit: Schema.Finite,
    until: Schema.optional(Schema.Finite)
  }
) {
  /** A retry does not help before another agent has ended, and each retry would be refused as an agent of its own. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const { agent, by, limit, tree, until } = this
    if (by === "stop")
      return `The operator has stopped ${tree}, so the call of agent ${agent} was not sent: end your work now`
    const when = until === undefined ? "" : `; one more may start at ${new Date(until).toISOString()}`
    return `${tree} may have ${words[by](limit)}, so agent ${agent} may not start: ${advice[by]}${when}`
  }
}

/**
 * The store of a tree did not answer, so it is not known whether a new agent fits. `cause` says why. It is the `cause` of a
 * `BudgetError` with the reason `Denied`.
 *
 * @stability unstable
 * @category errors
 * @since 0.5.0
 */
export class TreeUnavailable extends Schema.TaggedError<TreeUnavailable>("floodgate/Trees/TreeUnavailable")(
  "TreeUnavailable",
  { tree: Schema.String, cause: Schema.Defect() }
) {
  /** The store may answer the next attempt. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const { cause, tree } = this
    const why = cause instanceof Error ? `: ${cause.message}` : ""
    return `The store did not say which agents ${tree} has, so the call was not sent${why}`
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

const checked = (operation: string, caps: AgentCaps): AgentCaps => {
  check(operation, checkCaps, caps)
  return { agents: defaultAgents, ...caps }
}

const starting = (caps: AgentCaps) => ({ caps, stop: "none" }) as const

/**
 * Makes a tree of this process. Its refusals contain the name.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for an invalid cap.
 *
 * @stability unstable
 * @category constructors
 * @since 0.5.0
 */
export const make = (name: string, caps: AgentCaps = {}): Tree => {
  const own = checked("Trees.make", caps)
  const tree: RunningTree = new RunningTree({
    name,
    open: () => LocalPort.untimed(copy, local(starting(own), "here"), () => tree.clock.currentTimeMillisUnsafe())
  })
  return treeOf(tree)
}

/**
 * Opens a tree in the store of the context ({@link BudgetStore}), so that all processes that open a tree of this name have one count.
 * Without a store in the context, it is a tree of this process, as from {@link make}.
 *
 * **Details**
 *
 * Only the first call of an agent waits for the store. Processes that lose the store may each admit a part of what the caps leave.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for an invalid cap. Provide the store to this effect as well, and not to the budget alone.
 *
 * @stability unstable
 * @category constructors
 * @since 0.5.0
 */
export const open = /* @__PURE__ */ Effect.fnUntraced(function* (
  name: string,
  caps: AgentCaps = {}
): Effect.fn.Return<Tree, never, Scope.Scope> {
  const own = checked("Trees.open", caps)
  const sharing = yield* BudgetStore
  if (sharing === undefined) return make(name, caps)
  const opened = yield* opener
  const tree = new RunningTree({
    name,
    open: (called) => sharing.openTree({ ...opened, name, config: starting(own), ...called })
  })
  yield* Effect.addFinalizer(() => tree.port.close)
  // A process that knows the state before its first call admits known agents at once.
  tree.port.transact(() => undefined)
  return treeOf(tree)
})

const treeOf = (tree: RunningTree): Tree => {
  const using = <A>(use: () => A): Effect.Effect<A> =>
    Effect.clockWith((clock) =>
      Effect.sync(() => {
        tree.clock = clock
        return use()
      })
    )
  return {
    name: tree.name,
    isShared: tree.port.outlives,
    status: using(() => tree.status),
    resize: (caps) => using(() => tree.configure({ caps: checked("Trees.resize", caps) })),
    stop: (what) => using(() => tree.configure({ stop: what })),
    resume: using(() => tree.configure({ stop: "none" })),
    internals: tree
  }
}

// -----------------------------------------------------------------------------
// Calling
// -----------------------------------------------------------------------------

/** One agent of a tree. */
type Seat = {
  readonly agent: string
  /** The agent that started it. @default none: the job began with this agent */
  readonly parent?: string | undefined
}

const seatCheck = /* @__PURE__ */ optionsOf<Seat>({ agent: text, parent: text }, "agent")

/**
 * Counts the calls of an effect as those of one agent of a tree. With nested trees, an agent must fit in all of them.
 *
 * **Example** (A sub-agent)
 *
 * ```ts
 * import type * as Effect from "effect/Effect"
 * import * as Trees from "floodgate/Trees"
 *
 * declare const search: Effect.Effect<string>
 *
 * const tree = Trees.make("research", { agents: 20, depth: 1 })
 * const subAgent = search.pipe(Trees.within(tree, { agent: "search-1", parent: "lead" }))
 * ```
 *
 * @stability unstable
 * @category combinators
 * @since 0.5.0
 */
export const within =
  (tree: Tree, seat: Seat) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    check("Trees.within", seatCheck, seat)
    const line = lineOf(tree, { name: seat.agent, parent: seat.parent })
    return Effect.updateService(self, Lines, (lines) => [...lines, line])
  }

const denied = (cause: TreeCapReached | TreeUnavailable): Budget.BudgetError =>
  new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

/** The line of an agent of a tree. */
const lineOf = ({ internals, name: tree }: Tree, agent: CallingAgent): LineOf => {
  const running = internals as RunningTree
  const denial = (refusal: TreeHold["refusal"]): Budget.BudgetError =>
    refusal === undefined || refusal.by === "store"
      ? denied(new TreeUnavailable({ tree, cause: refusal?.cause }))
      : denied(new TreeCapReached({ tree, agent: agent.name, ...refusal }))
  return ({ clock, paying }) => {
    running.clock = clock
    let hold: TreeHold
    return {
      refused: () => {
        const refusal = running.refusal(agent)
        return refusal && denial(refusal)
      },
      take: () => (hold = running.take(paying, agent)),
      ended: () => denial(hold.refusal)
    }
  }
}
