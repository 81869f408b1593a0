/**
 * Caps on one job: how many agents there may be in all, at once and in an hour, how deep they may start each other, and how many tokens,
 * dollars and calls they may spend together.
 *
 * One prompt can start an agent that starts agents that start agents; trees of 877 and 1,218 are on record. A {@link Tree} knows each
 * agent from its first call on, and refuses the first call of one too many with {@link TreeCapReached}, in words that the agent which
 * started it can act on. Agents that have begun go on, so their work is not lost.
 *
 * **Details**
 *
 * Agents are those that a program or a request names; whoever gives no names has one agent. An agent counts as running until five
 * minutes after its last call, because agents do not say when they end.
 *
 * Caps on tokens, dollars and calls refuse every call with {@link TreeSpent}, whoever makes it. Before a call is queued, the most that it
 * can use is reserved, as in `floodgate/Spending`, so no such cap is exceeded, however many calls run at once. With {@link open}, all
 * processes that open a tree of this name have one count.
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
import type { CapInUnits, Unit } from "./domain/spending/ledger.ts"
import { Purses } from "./domain/spending/models.ts"
import { denialOf } from "./money/errors.ts"
import { RunningLedger } from "./money/ledger.ts"
import { purseOf } from "./money/purse.ts"
import * as Ledgers from "./sharing/ledger.ts"
import { LocalPort } from "./sharing/local.ts"
import { BudgetStore, opener } from "./sharing/port.ts"
import { copy, local } from "./sharing/tree.ts"
import { type AgentCaps, checkCaps, defaultAgents, type JobCaps, type Tree } from "./trees/models.ts"
import { RunningTree } from "./trees/running.ts"
import { internalsOf, pursesOf, seatOf, spentOf } from "./trees/seat.ts"
import { TreeSpending } from "./trees/spending.ts"

export type { AgentCaps, AgentInTree, JobCaps, JobSpent, Tree, TreeStatus } from "./trees/models.ts"
export { TreeCapReached, TreeSpent, TreeUnavailable } from "./trees/seat.ts"

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

type Options = {
  /** The name in the store. @default the name of the tree */
  readonly key?: string | undefined
}

const optionsCheck = /* @__PURE__ */ optionsOf<Options>({ key: text })

const checked = (operation: string, caps: JobCaps): JobCaps => {
  check(operation, checkCaps, caps)
  return { agents: defaultAgents, ...caps }
}

/** The caps that its line keeps, without those of its ledgers. */
const ofAgents = ({ agents, atOnce, depth, perHour }: JobCaps): AgentCaps => ({ agents, atOnce, perHour, depth })

const starting = (caps: JobCaps) => ({ caps: ofAgents(caps), stop: "none" }) as const

type OpenLedger = (
  name: string,
  cap: CapInUnits,
  now: () => number
) => ConstructorParameters<typeof RunningLedger>[0]["open"]

/** The spending of a tree, with its first caps. `key` is its name in a store. */
const spendingOf = (name: string, key: string, caps: JobCaps, open: OpenLedger): TreeSpending => {
  const spending = new TreeSpending((unit: Unit, cap) => {
    const own = `tree:${key}:${unit}`
    const ledger: RunningLedger = new RunningLedger({
      name,
      key: own,
      unit,
      changed: undefined,
      denial: denialOf(spentOf(name, unit)),
      reports: false,
      open: open(own, cap, () => ledger.clock.currentTimeMillisUnsafe())
    })
    // A process that knows the state before its first call notices if the store loses it.
    ledger.port.transact(() => undefined)
    return purseOf(ledger)
  })
  spending.configure(caps)
  return spending
}

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
export const make = (name: string, caps: JobCaps = {}): Tree => {
  const own = checked("Trees.make", caps)
  const tree: RunningTree = new RunningTree({
    name,
    spending: spendingOf(
      name,
      name,
      own,
      (_, cap, now) => () => LocalPort.untimed(Ledgers.copy, Ledgers.local(cap, "here"), now)
    ),
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
 * Only the first call of an agent waits for the store, and each call under a cap on tokens, dollars or calls. All processes have to open
 * a tree with caps of the same kinds: one without a cap on tokens does not count its tokens. Processes that lose the store may each
 * admit a part of what the caps leave.
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
  caps: JobCaps = {},
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
    spending: spendingOf(
      name,
      key,
      own,
      (ledger, config) => (called) => sharing.openLedger({ ...opened, name: ledger, config, ...called })
    ),
    open: (called) => sharing.openTree({ ...opened, name: key, config: starting(own), ...called })
  })
  yield* Effect.addFinalizer(() => Effect.andThen(tree.port.close, tree.spending.close))
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
    resize: (caps) =>
      using(() => {
        const own = checked("Trees.resize", caps)
        tree.configure({ caps: ofAgents(own) })
        tree.spending.configure(own)
      }),
    stop: (what) => using(() => tree.configure({ stop: what })),
    resume: using(() => tree.configure({ stop: "none" })),
    internals: internalsOf(tree)
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
 * Counts the calls of an effect as those of one agent of a tree, and what they spend. With nested trees, an agent must fit in all of them.
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
    const line = seatOf(tree, { name: seat.agent, parent: seat.parent })
    return self.pipe(
      Effect.updateService(Purses, (purses) => [...purses, ...pursesOf(tree)]),
      Effect.updateService(Lines, (lines) => [...lines, line])
    )
  }
