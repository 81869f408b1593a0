/** Reloads the configuration at SIGHUP, if the new one is valid. */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import process from "node:process"
import * as Exit from "../terminal/exit.ts"
import { rules } from "../settings/index.ts"
import type { GivenSettings } from "./settings.ts"

/** An element for each SIGHUP. */
export const hangups: Stream.Stream<void> = Stream.callback<void>((queue) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const listener = (): void => void Queue.offerUnsafe(queue, undefined)
      process.on("SIGHUP", listener)
      return listener
    }),
    (listener) => Effect.sync(() => process.off("SIGHUP", listener))
  )
)

const isPerPool = (limits: GivenSettings["limits"]): limits is Limits.Pools => limits !== undefined && "pools" in limits

/** The pools with changed limits. */
const changesOf = (before: GivenSettings["limits"], after: GivenSettings["limits"]) => {
  if (before === undefined && after === undefined) return []
  if (before !== undefined && after !== undefined) {
    if (!isPerPool(before) && !isPerPool(after)) return [{ pool: undefined, limits: after }]
    if (isPerPool(before) && isPerPool(after)) {
      const [known, named] = [before, after].map(({ pools }) => Object.keys(pools).sort().join())
      if (known === named) return Object.entries(after.pools).map(([pool, limits]) => ({ pool, limits }))
    }
  }
  return undefined
}

/** Refuses changes that are impossible while the gateway runs. */
export const check = (before: GivenSettings, after: GivenSettings): Effect.Effect<void, Exit.CommandError> => {
  const names = Object.keys(rules) as ReadonlyArray<keyof typeof rules>
  const name = names.find((name) => rules[name].change === "restart" && !Equal.equals(before[name], after[name]))
  if (name === undefined && changesOf(before.limits, after.limits) !== undefined) return Effect.void
  const what = name === undefined ? '"limits" has other pools' : `"${name}" was changed`
  return Effect.fail(Exit.failure("usage", `${what}: restart the gateway for it to take effect`))
}

/** Changes the limits and the concurrency of the budget to those of checked settings. */
export const resize = (before: GivenSettings, after: GivenSettings): Effect.Effect<void, never, Budget.TokenBudget> =>
  Effect.gen(function* () {
    if (Equal.equals(before.limits, after.limits) && Equal.equals(before.concurrency, after.concurrency)) return
    const { concurrency = Infinity } = after
    const budget = yield* Budget.TokenBudget
    yield* budget.resize({ concurrency })
    for (const change of changesOf(before.limits, after.limits) ?? []) yield* budget.resize(change)
  })
