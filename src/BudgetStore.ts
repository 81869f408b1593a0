/**
 * A `BudgetStore` holds the state of a budget that processes share. Any store with compare-and-swap works.
 *
 * A process reads the state of a pool, applies its recent events and admissions to it, and swaps in the result. If another
 * process was faster, it applies them again to the newer state. So a store knows nothing about limits, and needs only two
 * operations. `examples/sqlite-store.ts` is a complete store over SQLite. Every store must pass `StoreContract.checks` of
 * `floodgate/testing`.
 *
 * **Example** (A custom store)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as BudgetStore from "floodgate/BudgetStore"
 *
 * const values = new Map<string, BudgetStore.Stored>()
 * const store: BudgetStore.Store = {
 *   read: (key) => Effect.sync(() => values.get(key)),
 *   swap: (key, expected, next) =>
 *     Effect.sync(() => {
 *       if (values.get(key)?.version === expected) values.set(key, next)
 *       return values.get(key)
 *     })
 * }
 *
 * const shared = Budget.layer({ limits: { tokens: { perMinute: 2_000_000 } } }).pipe(
 *   Layer.provide(BudgetStore.layer(store, { whenAway: "degrade" }))
 * )
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Layer from "effect/Layer"
import { ledgers } from "./sharing/ledgers.ts"
import { checks, type Options, type StoreSettings, type Store } from "./sharing/models.ts"
import { PlaceAnswers } from "./sharing/placeAnswers.ts"
import { pools } from "./sharing/pools.ts"
import { BudgetStore } from "./sharing/port.ts"
import { SharedPort } from "./sharing/shared.ts"
import { trees } from "./sharing/trees.ts"
import { SharedWindows } from "./sharing/windows.ts"
import { check, millisOf, options as optionsOf, store as isStore } from "./domain/input/checks.ts"

export { type Options, type Store, type Stored, StoreError } from "./sharing/models.ts"

const shared = optionsOf(checks)

/**
 * A layer that makes a budget use a store. If the store must be opened first, use `Layer.unwrap`.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if a duration is not above zero, if the `timeout` is longer than an hour, or if any other duration is
 * longer than a day.
 *
 * **Example** (A store that must be opened)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as BudgetStore from "floodgate/BudgetStore"
 *
 * declare const open: Effect.Effect<BudgetStore.Store>
 *
 * const layer = Layer.unwrap(Effect.map(open, (store) => BudgetStore.layer(store, { lease: "1 minute" })))
 * ```
 *
 * @stability unstable
 * @category layers
 * @since 0.2.0
 */
export const layer = (store: Store, options: Options = {}): Layer.Layer<never> => {
  check("BudgetStore.layer: store", isStore, store)
  check("BudgetStore.layer", shared, options)
  const { degradeFor = "10 minutes", lease = "20 seconds", lost = "keep", name = "process" } = options
  const { timeout = "2 seconds", whenAway = { wait: "30 seconds" } } = options
  const settings: StoreSettings = {
    ...store,
    whenAway: typeof whenAway === "string" ? whenAway : "wait",
    patienceMillis: typeof whenAway === "string" ? 0 : millisOf(whenAway.wait),
    degradeMillis: millisOf(degradeFor),
    leaseMillis: millisOf(lease),
    lost,
    timeoutMillis: millisOf(timeout),
    name
  }
  return Layer.succeed(BudgetStore, {
    ...store,
    openPool: (options) => new SharedPort(pools, options, settings),
    openLedger: (options) => new SharedPort(ledgers, options, settings),
    openTree: (options) => new SharedPort(trees, options, settings),
    openWindows: (options) => new SharedWindows(options, settings),
    openAnswers: (options) => new PlaceAnswers(options, settings)
  })
}
