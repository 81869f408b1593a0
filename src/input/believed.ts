/**
 * How much is believed of figures from outside. Whatever a header, an error or the user's own program says, the budget
 * goes on.
 */
/** The longest wait. What a provider closes for longer is probed once an hour. */
const longestMillis = 3_600_000

/** The largest limit, the most that is left of one, and the most that a call takes of it. */
export const mostAmount = 1e12

/** A pause in milliseconds. */
export const pause = (millis: number): number => Math.max(0, Math.min(longestMillis, millis))

/** Whether a call can ask for so many tokens, or use them. */
export const isAmount = (value: unknown): value is number =>
  typeof value === "number" && value >= 0 && value <= mostAmount
