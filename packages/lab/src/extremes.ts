/** The largest value, at min `min`. `Math.max` of very many values would overflow the stack. */
export const largest = (values: ReadonlyArray<number>, min = -Infinity): number =>
  values.reduce((max, value) => Math.max(max, value), min)

/** The smallest value; infinity if there are none. */
export const smallest = (values: ReadonlyArray<number>): number =>
  values.reduce((min, value) => Math.min(min, value), Infinity)
