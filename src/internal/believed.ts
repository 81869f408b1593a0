/**
 * How much is believed of figures from outside. Whatever a header, an error or the user's own program says, the budget
 * goes on.
 */
import * as Limits from "../Limits.ts"

/** The longest wait. What a provider closes for longer is probed once an hour. */
export const longestMillis = 3_600_000

/** The largest limit, the most that is left of one, and the most that a call takes of it. */
export const mostAmount = 1e12

/** A pause in milliseconds. */
export const pause = (millis: number): number => Math.max(0, Math.min(longestMillis, millis))

/** Whether a call can ask for so many tokens, or use them. */
export const isAmount = (value: unknown): value is number =>
  typeof value === "number" && value >= 0 && value <= mostAmount

const within = (value: number | undefined, least: number): number | undefined =>
  value !== undefined && value >= least && value <= mostAmount ? value : undefined

/** A signal without the figures that no provider has. */
export const signal = ({ date, dimensions }: Limits.Signal): Limits.Signal => ({
  dimensions: Limits.mapDimensions(dimensions, (said) => ({
    ...said,
    limit: within(said.limit, 1),
    remaining: within(said.remaining, 0),
    roundedTo: within(said.roundedTo, 1)
  })),
  date: Number.isFinite(date) ? date : undefined
})
