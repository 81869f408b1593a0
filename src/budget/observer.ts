/** Who observes a budget and the calls under it. */
import * as Context from "effect/Context"
import { type Event, Observer } from "../Events.ts"

/** The observer of a context, made safe: undefined where there is none. */
export const observerOf = (context: Context.Context<never>): ((event: Event) => void) | undefined => {
  const observer = Context.get(context, Observer)
  if (observer === undefined) return undefined
  return (event) => {
    try {
      observer(event)
    } catch {
      // Its failures are not the call's.
    }
  }
}
