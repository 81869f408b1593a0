/** A figure to so many digits behind the point: thousandths of a second, unless it says otherwise. */
export const round = (value: number, digits = 3): number => {
  const scale = 10 ** digits
  return Math.round(value * scale) / scale
}
