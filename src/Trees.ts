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
import type * as Scope from "effect/Scope"
import { Lines } from "./call/lines.ts"
import { byCallersClock } from "./domain/input/clock.ts"
import { check, options as optionsOf, text } from "./domain/input/checks.ts"
import { LocalPort } from "./sharing/local.ts"
import { BudgetStore, opener } from "./sharing/port.ts"
import { copy, local } from "./sharing/tree.ts"
import { type AgentCaps, checkCaps, defaultAgents, type Tree } from "./trees/models.ts"
import { RunningTree } from "./trees/running.ts"
import { lineOf } from "./trees/seat.ts"

export type { AgentCaps, Tree, TreeStatus } from "./trees/models.ts"
export { TreeCapReached, TreeUnavailable } from "./trees/seat.ts"

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

type Options = {
  /** The name in the store. @default the name of the tree */
  readonly key?: string | undefined
}

const optionsCheck = /* @__PURE__ */ optionsOf<Options>({ key: text })

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
  caps: AgentCaps = {},
  options: Options = {}
): Effect.fn.Return<Tree, never, Scope.Scope> {
  const own = checked("Trees.open", caps)
  check("Trees.open", optionsCheck, options)
  const { key = name } = options
  const sharing = yield* BudgetStore
  if (sharing === undefined) return make(name, caps)
  const opened = yield* opener
  const tree = new RunningTree({
    name,
    open: (called) => sharing.openTree({ ...opened, name: key, config: starting(own), ...called })
  })
  yield* Effect.addFinalizer(() => tree.port.close)
  // A process that knows the state before its first call admits known agents at once.
  tree.port.transact(() => undefined)
  return treeOf(tree)
})

const treeOf = (tree: RunningTree): Tree => {
  const using = byCallersClock(tree)
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
