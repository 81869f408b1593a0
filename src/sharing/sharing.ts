/** The store of a budget, as the budget finds it. */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type { Store } from "./models.ts"
import type { After, Port } from "./port.ts"
import type { Config } from "./state.ts"

/** What a port of a shared pool needs to know. */
export interface Opening {
  readonly name: string
  /** The unique name of this process in the shared state: no other process may use it. */
  readonly id: string
  /** What the pool is started with. */
  readonly config: Config
  readonly clock: Clock.Clock
  readonly after: After
  /** Called when another process has given the pool other limits. */
  readonly configured: () => void
  /** Called when calls that wait cannot be admitted any more, because the store cannot be reached. */
  readonly unreachable: (cause: unknown) => void
}

/** How a budget shares its pools with other processes. */
export interface Sharing extends Store {
  readonly open: (opening: Opening) => Port
}

/** The store that a budget shares with other processes. Without one, the budget is kept in the memory of this process. */
export const BudgetStore = Context.Reference<Sharing | undefined>("floodgate/BudgetStore", {
  defaultValue: () => undefined
})
