/** A cap of an agent holds only if its calls are counted: a budget that does not count refuses to serve one. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { TokenBudget } from "../Budget.ts"
import { invalid } from "../input/arguments.ts"

/** Whether the caller's next call has to be counted, for a cap on tokens or calls or for stated work, and was not yet. */
export const Uncounted = Context.Reference<boolean>("floodgate/Budget/Uncounted", { defaultValue: () => false })

type Reserve = TokenBudget["Service"]["reserve"]

/** Admits only calls that nothing has to count, or something has counted. */
export const counted =
  (reserve: Reserve): Reserve =>
  (estimate, options) =>
    Effect.withFiber(({ context }) => {
      if (!Context.get(context, Uncounted)) return reserve(estimate, options)
      const expected = "Agents.layer between the budget and what uses it, for caps and work to hold"
      return invalid("Agents.run", expected, "a budget that does not count")
    })
