/**
 * Caps in dollars on the total cost of calls: over all time, per day, or in any window of time.
 *
 * A {@link Purse} counts the costs of calls. All calls of an effect within {@link from} pay from its purse, whether that effect is
 * an agent, a job or a whole program. With nested purses, a call pays from all of them, or from none.
 *
 * **Details**
 *
 * Before a call is queued, the most that it can cost is reserved: a token for each byte of its prompt that was not answered before,
 * at the price of the most expensive kind of input, and `max_tokens` of output. When the call ends, its actual cost is spent and the
 * rest released. So a cap is never exceeded, however many calls run at once. If the reservation and what was already spent exceed the cap, the call is
 * refused with {@link SpendCapReached}, which says how much is left and when the call would fit. If only the reservations of
 * running calls are in the way, the call waits for them until its `maxWait` or its deadline, in its agent's turn.
 *
 * A rejected call costs nothing. An interrupted call costs its input and the output that was received. A call that was answered
 * without usage costs all that was reserved for it. The governor has the prices (`prices` of `Governor.layer`). Under a cap, a call
 * is refused if its model has no price, or if nothing limits its output ({@link CostUnknown}).
 *
 * **Gotchas**
 *
 * A purse of {@link make} belongs to its process: two processes with a cap of $10 each may spend $20. With {@link open}, they share
 * one cap in a store. Calls through an SDK's middleware do not pay from the purses around them, because their promises belong to no
 * fiber.
 *
 * **Example** (Five dollars a day)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 * import * as Spending from "floodgate/Spending"
 *
 * const purse = Spending.make("research", { dollars: 5, per: "day" })
 * const call = { model: "claude-sonnet-5", bytes: 4_000, maxTokens: 500 }
 * const actual = { inputTokens: 1_000, outputTokens: 100 }
 *
 * const program = Effect.gen(function* () {
 *   const governor = yield* Governor.Governor
 *   yield* governor.run(call, () => Effect.succeed({ value: "hello", actual })).pipe(Spending.from(purse))
 *   return (yield* purse.status).spent
 * })
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer()))
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => 0.003
 * ```
 *
 * @stability stable
 * @since 0.2.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { harmless } from "./domain/input/callbacks.ts"
import { anObject, callback, check, options as optionsOf, text } from "./domain/input/checks.ts"
import type { Kept } from "./domain/spending/ledger.ts"
import { type Cap, check as checkCap, inUnits, type Purse, Purses, Resets } from "./domain/spending/models.ts"
import { denialOf } from "./money/errors.ts"
import { RunningLedger } from "./money/ledger.ts"
import { purseOf } from "./money/purse.ts"
import { copy, local } from "./sharing/ledger.ts"
import { LocalPort } from "./sharing/local.ts"
import { BudgetStore, opener } from "./sharing/port.ts"

export type { Kept } from "./domain/spending/ledger.ts"
export type { Cap, Purse, Status } from "./domain/spending/models.ts"
export { CostUnknown, LedgerUnavailable, SpendCapReached } from "./money/errors.ts"
export { WindowShareUsed } from "./money/windowShare.ts"

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

type Options = {
  /** The `kept` of an earlier purse. @default nothing */
  readonly kept?: Kept | undefined
  /** Called after each change by this process. Its errors are ignored. */
  readonly changed?: (() => void) | undefined
  /** The name in the store. A call takes its purses in the order of these names. @default the name of the purse */
  readonly key?: string | undefined
}

const optionsCheck = /* @__PURE__ */ optionsOf<Options>({ kept: anObject, changed: callback, key: text })

/** Checks what a purse is made with, and returns what its ledger needs of it. */
const checked = (operation: string, name: string, cap: Cap | undefined, options: Options) => {
  if (cap !== undefined) check(operation, checkCap, cap)
  check(operation, optionsCheck, options)
  const { changed, key = name } = options
  return { name, key, changed: changed && harmless(changed), denial: denialOf() }
}

/**
 * Makes a purse. Its refusals contain the name. Without a cap it only counts.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for an invalid cap.
 *
 * **Example** (A purse that only counts)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Spending from "floodgate/Spending"
 *
 * const purse = Spending.make("research")
 *
 * const { left, spent } = await Effect.runPromise(purse.status)
 *
 * spent // => 0
 * left // => undefined
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.2.0
 */
export const make = (name: string, cap?: Cap, options: Options = {}): Purse => {
  const ledger: RunningLedger = new RunningLedger({
    ...checked("Spending.make", name, cap, options),
    open: () => {
      const now = () => ledger.clock.currentTimeMillisUnsafe()
      return LocalPort.untimed(copy, local(inUnits(cap), "here", options.kept), now)
    }
  })
  return purseOf(ledger)
}

/**
 * Opens a purse in the store of the context ({@link BudgetStore}), so that all processes that open a purse of this name there keep
 * one cap together. Without a store in the context, it is a purse of this process, as from {@link make}.
 *
 * **Details**
 *
 * A call reserves its cost with one exchange of messages with the store. What a process had reserved when it died counts as spent.
 * Days are UTC days by the clock of the store. While the store cannot be reached, calls wait or fail with
 * {@link LedgerUnavailable}, as `whenAway` of the store says; with `"degrade"`, a process may spend its part of what was left.
 *
 * If processes open a purse with different caps, the cap of the one that started last holds for all of them. The purse leaves the
 * store with the scope, and what was spent stays there.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for an invalid cap. Provide the store to this effect as well, and not to the budget alone.
 *
 * **Example** (Two programs that spend ten dollars a day together)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as FloodgateRedis from "@floodgate/redis"
 * import * as Spending from "floodgate/Spending"
 *
 * declare const work: Effect.Effect<void>
 *
 * const program = Effect.gen(function* () {
 *   const purse = yield* Spending.open("research", { dollars: 10, per: "day" })
 *   yield* work.pipe(Spending.from(purse))
 * }).pipe(Effect.scoped, Effect.provide(FloodgateRedis.layerStoreUrl({ url: "redis://127.0.0.1:6379" })))
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.4.0
 */
export const open = /* @__PURE__ */ Effect.fnUntraced(function* (
  name: string,
  cap?: Cap,
  options: Options = {}
): Effect.fn.Return<Purse, never, Scope.Scope> {
  const own = checked("Spending.open", name, cap, options)
  const sharing = yield* BudgetStore
  if (sharing === undefined) return make(name, cap, options)
  const opened = yield* opener
  const ledger = new RunningLedger({
    ...own,
    open: (called) => sharing.openLedger({ ...opened, name: own.key, config: inUnits(cap), ...called }),
    kept: options.kept
  })
  yield* Effect.addFinalizer(() => ledger.port.close)
  // A process that knows the state before its first call notices if the store loses it.
  ledger.port.transact(() => undefined)
  return purseOf(ledger)
})

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

/**
 * Counts the calls of an effect towards a cap, in addition to the caps of enclosing effects.
 *
 * **Example** (A call that a cap has no room for)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 * import * as Spending from "floodgate/Spending"
 *
 * const purse = Spending.make("demo", { dollars: 0.01 })
 * const call = Effect.flatMap(Governor.Governor, (governor) =>
 *   governor.run({ model: "claude-sonnet-5", bytes: 1_000_000, maxTokens: 1_000 }, () => Effect.succeed({ value: "hello" }))
 * )
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer()))
 * const refused = call.pipe(Spending.from(purse), Effect.provide(live), Effect.flip)
 *
 * const { message } = await Effect.runPromise(refused)
 *
 * message.includes("only $0.01 is left of the cap of $0.01 for demo") // => true
 * ```
 *
 * @stability stable
 * @category combinators
 * @since 0.2.0
 */
export const from =
  (purse: Purse) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.updateService(self, Purses, (purses) => [...purses, purse])

// -----------------------------------------------------------------------------
// Resets
// -----------------------------------------------------------------------------

/**
 * Lets the calls of an effect wait for the reset when a cap in dollars or the share of a long window is used up. A cap per day
 * is reset at midnight. Without this, such calls are refused. A call waits no longer than its `maxWait` and its deadline. While it waits,
 * it holds nothing, and it can be interrupted.
 *
 * **Example** (Agents that pause over night)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Agents from "floodgate/Agents"
 * import * as Spending from "floodgate/Spending"
 *
 * declare const agents: ReadonlyArray<Agents.Agent<string>>
 *
 * const purse = Spending.make("research", { dollars: 10, per: "day" })
 * const program = Agents.run(agents).pipe(
 *   Spending.from(purse),
 *   Spending.waitForReset(({ until }) => console.log(`Pauses until ${new Date(until).toISOString()}`))
 * )
 * ```
 *
 * @stability stable
 * @category combinators
 * @since 0.4.0
 */
export const waitForReset =
  (
    onWait: (wait: {
      /** In milliseconds since the epoch. */
      readonly until: number
      /** Why the call does not fit before. */
      readonly message: string
    }) => void = () => {}
  ) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.provideService(self, Resets, harmless(onWait))
