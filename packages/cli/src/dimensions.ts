/** Values for several dimensions. */
import * as Limits from "floodgate/Limits"

/** Maps the values that are there, dimension by dimension. */
export const map = <A, B>(
  values: Limits.PerDimension<A | undefined>,
  f: (value: A, dimension: Limits.Dimension) => B
): Limits.PerDimension<B> =>
  Object.fromEntries(
    Limits.dimensions.flatMap((dimension) => {
      const value = values[dimension]
      return value === undefined ? [] : [[dimension, f(value, dimension)]]
    })
  )
