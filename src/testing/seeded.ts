/**
 * Seeded random numbers without state: each is a hash of the seed and of its purpose.
 *
 * Because a number depends on its purpose and not on the order of events, a retried call gets the same answer, and two
 * strategies that run the same workload get the same sizes.
 */

/** The finaliser of splitmix32. */
const mix = (value: number): number => {
  let hash = value >>> 0
  hash = Math.imul(hash ^ (hash >>> 16), 0x21f0aaad)
  hash = Math.imul(hash ^ (hash >>> 15), 0x735a2d97)
  return (hash ^ (hash >>> 15)) >>> 0
}

/** Hashes whole numbers to 32 bits; the order matters. */
export const hash = (...parts: ReadonlyArray<number>): number => {
  let result = 0x9e3779b9
  for (const part of parts) result = mix(Math.imul(result, 31) + (part | 0) + 0x9e3779b9)
  return result
}

/** How many characters at each end of a text its hash looks at, so that long documents cost nothing. */
const ends = 64

/** Hashes a text by its length and its ends, at a cost that does not grow with the text. */
export const hashText = (text: string): number => {
  let result = 0x811c9dc5 ^ text.length
  const add = (from: number, to: number) => {
    for (let index = from; index < to; index++) result = Math.imul(result ^ text.charCodeAt(index), 0x01000193)
  }
  add(0, Math.min(ends, text.length))
  add(Math.max(ends, text.length - ends), text.length)
  return mix(result)
}

/** A number in [0, 1) for the given parts. */
export const unit = (...parts: ReadonlyArray<number>): number => hash(...parts) / 0x1_0000_0000

/** The standard normal value below which a share `p` of values lies (Acklam's approximation, error below 1.2e-9). */
const normal = (p: number): number => {
  const clamped = Math.min(1 - 1e-9, Math.max(1e-9, p))
  if (clamped > 0.5) return -normal(1 - clamped)
  if (clamped < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(clamped))
    const top =
      ((((-7.784894002430293e-3 * q - 0.3223964580411365) * q - 2.400758277161838) * q - 2.549732539343734) * q +
        4.374664141464968) *
        q +
      2.938163982698783
    const bottom =
      (((7.784695709041462e-3 * q + 0.3224671290700398) * q + 2.445134137142996) * q + 3.754408661907416) * q + 1
    return top / bottom
  }
  const q = clamped - 0.5
  const r = q * q
  const top =
    (((((-39.69683028665376 * r + 220.9460984245205) * r - 275.9285104469687) * r + 138.357751867269) * r -
      30.66479806614716) *
      r +
      2.506628277459239) *
    q
  const bottom =
    ((((-54.47609879822406 * r + 161.5858368580409) * r - 155.6989798598866) * r + 66.80131188771972) * r -
      13.28068155288572) *
      r +
    1
  return top / bottom
}

/** The value below which a share `p` of factors lies whose median is 1 and whose logarithms spread by `sigma`. */
export const factor = (sigma: number, p: number): number => Math.exp(sigma * normal(p))

/** The value below which a share `p` of amounts lies whose mean is `mean` and whose logarithms spread by `sigma`. */
export const lognormal = (mean: number, sigma: number, p: number): number =>
  Math.exp(Math.log(mean) - (sigma * sigma) / 2 + sigma * normal(p))
