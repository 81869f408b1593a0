/** Rounds a figure, by default to three decimal places. */
export const round = (value: number, digits = 3): number => {
  const scale = 10 ** digits
  return Math.round(value * scale) / scale
}
