/** A store of a budget in a map, with a latency, that can become unreachable. */
import * as Effect from "effect/Effect"
import * as BudgetStore from "floodgate/BudgetStore"

export class MapStore implements BudgetStore.Store {
  isAway = false
  /** How it fails while it is unreachable. */
  away: Effect.Effect<never, BudgetStore.StoreError> = Effect.fail(new BudgetStore.StoreError({ cause: "away" }))
  /** The latency in milliseconds. A test sets it to 0 before it ends, because the clock stands still then. */
  latency = 0
  private readonly values = new Map<string, BudgetStore.Stored>()

  readonly read: BudgetStore.Store["read"] = (key) => this.answer(() => this.values.get(key))
  readonly swap: BudgetStore.Store["swap"] = (key, expected, next) =>
    this.answer(() => {
      if (this.values.get(key)?.version === expected) this.values.set(key, next)
      return this.values.get(key)
    })

  private answer<A>(of: () => A): Effect.Effect<A, BudgetStore.StoreError> {
    const answered = Effect.suspend(() => (this.isAway ? this.away : Effect.sync(of)))
    return this.latency === 0 ? answered : Effect.delay(answered, this.latency)
  }
}
