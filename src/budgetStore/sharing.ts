/** The store of a budget, as the budget finds it. */
import * as Context from "effect/Context"
import type { Exchange } from "./exchange.ts"
import type { Host } from "./host.ts"
import type { Store } from "./models.ts"

/** How a budget shares its pools with other processes. */
export interface Sharing extends Store {
  /** Joins a pool. No other process may use the same id. */
  readonly open: <W>(host: Host<W>, id: string) => Exchange<W>
}

/** The store that a budget shares with other processes. Without one, the budget is kept in the memory of this process. */
export const BudgetStore = Context.Reference<Sharing | undefined>("floodgate/BudgetStore", {
  defaultValue: () => undefined
})
