/** Reports caps that are reached and opened again: to the observer of events, and as lines of the log. */
import * as Effect from "effect/Effect"
import { dollars, plural, thousands } from "../domain/words.ts"
import type { Event } from "../Events.ts"

/** A cap is reached, or open again. */
export type CapTurn = Extract<Event, { readonly type: "cap" }>

/**
 * The maximum number of lines in a minute. With a cap for each agent, a caller that invents agents could otherwise write a line with
 * each request. Further ones are counted.
 */
const maxLines = 20
const minute = 60_000

/** An event in words. */
const lineOf = ({ cap, isReached, left, limit, spent, until }: CapTurn): string => {
  if (!isReached) return `The cap of ${dollars(limit)} for ${cap} is open again: ${dollars(left)} left`
  const when = until === undefined ? "" : ` until ${new Date(until).toISOString()}`
  return `The cap of ${dollars(limit)} for ${cap} is reached: ${dollars(spent)} spent, so calls that may cost more than the ${dollars(left)} left are refused${when}`
}

/** Returns the function that reports events of caps. */
export const make = (
  fork: (effect: Effect.Effect<void>) => unknown,
  observer: ((event: Event) => void) | undefined
): ((event: CapTurn) => void) => {
  let since = -Infinity
  let lines = 0
  return (event) => {
    observer?.(event)
    if (event.at >= since + minute) {
      const more = lines - maxLines
      if (more > 0) {
        fork(Effect.logWarning(`${thousands(more)} more ${plural(more, "change")} of caps in dollars within a minute`))
      }
      since = event.at
      lines = 0
    }
    lines++
    if (lines <= maxLines) fork((event.isReached ? Effect.logWarning : Effect.logInfo)(lineOf(event)))
  }
}
