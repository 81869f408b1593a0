/** The largest of some values, or what there is at least. Of very many `Math.max` would overflow the stack. */
export const largest = (values: ReadonlyArray<number>, least = -Infinity): number =>
  values.reduce((most, value) => Math.max(most, value), least)

/** The smallest of some values; infinity of none. */
export const smallest = (values: ReadonlyArray<number>): number =>
  values.reduce((least, value) => Math.min(least, value), Infinity)
