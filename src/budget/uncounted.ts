/** A cap of an agent holds only if its calls are counted: a budget that does not count refuses to serve one. */
import * as Context from "effect/Context"
import { wrong } from "../input/checks.ts"

/** Whether the caller's next call has to be counted, for a cap on tokens or calls or for stated work, and was not yet. */
export const Uncounted = Context.Reference<boolean>("floodgate/Budget/Uncounted", { defaultValue: () => false })

/** Throws for a call that something has to count, and nothing has counted. */
export const checkCounted = (context: Context.Context<never>): void => {
  if (!Context.get(context, Uncounted)) return
  const expected = "Agents.layer between the budget and what uses it, for caps and work to hold"
  wrong("Agents.run", `expected ${expected}, got a budget that does not count`)
}
