import * as Limits from "floodgate/Limits"

/** Maps the value of each dimension, and leaves out those for which the function returns `undefined`. */
export const mapDimensions = <A, B>(
  self: { readonly [D in Limits.Dimension]?: A | undefined },
  f: (value: A, dimension: Limits.Dimension) => B | undefined
): { readonly [D in Limits.Dimension]?: B } => {
  const result: { [D in Limits.Dimension]?: B } = {}
  for (const dimension of Limits.Dimension.literals) {
    const value = self[dimension]
    const mapped = value === undefined ? undefined : f(value, dimension)
    if (mapped !== undefined) result[dimension] = mapped
  }
  return result
}
