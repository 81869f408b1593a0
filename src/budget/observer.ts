/** Who observes a budget and the calls under it. */
import * as Context from "effect/Context"
import { type Event, Observer } from "../Events.ts"
import { harmless } from "../input/callbacks.ts"

/** The observer of a context, made safe: undefined where there is none. */
export const observerOf = (context: Context.Context<never>): ((event: Event) => void) | undefined => {
  const observer = Context.get(context, Observer)
  return observer && harmless(observer)
}
