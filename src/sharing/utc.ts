/** UTC in a state that processes share, by the clock of its store. */
import type { Shared } from "./state.ts"

/** The time of day, as a law knows it. */
export interface UtcLaw {
  /** From the state's time to UTC by the clock of the store. */
  offset: number
  /** UTC at the last commit. It never goes back, also for events that are played again later. */
  utc: number
}

/** The law of a state that nobody has joined. */
export const unknownUtc: UtcLaw = { offset: 0, utc: -Infinity }

/** UTC at a time of the state. */
export const utcAt = ({ law }: { readonly law: Readonly<UtcLaw> }, now: number): number =>
  Math.max(law.utc, now + law.offset)

/** Brings UTC up to now. Before anything is decided by it: an event must not count in a day that has not begun. */
export const setUtc = (
  { joined, law, time }: Pick<Shared, "joined" | "time"> & { readonly law: UtcLaw },
  utc: number,
  now: number
): void => {
  law.utc = joined === 0 ? utc : Math.max(law.utc, utc, time + law.offset)
  law.offset = law.utc - now
}
