/**
 * Seeded random numbers without state. A number is drawn for a list of whole numbers that names its purpose, so the order
 * of events does not matter: two strategies that run the same workload get the same sizes.
 */

/** The finalizer of MurmurHash3: each bit of the input changes about half of the output. */
const scramble = (bits: number): number => {
  const once = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35)
  return twice ^ (twice >>> 16)
}

/** The seed for a purpose: 32 bits that depend on each of the numbers and on their order. */
export const seedFor = (...purpose: ReadonlyArray<number>): number =>
  purpose.reduce((seed, part) => scramble(Math.imul(seed, 5) + 0x6b43a9b5 + Math.trunc(part)), 0) >>> 0

/** Draws from a seed, one after the other, in [0, 1). */
export const draws = (seed: number): (() => number) => {
  let drawn = 0
  return () => (scramble(seed + Math.imul(++drawn, 0x9e3779b1)) >>> 0) / 2 ** 32
}

/** A number from the standard normal distribution (Box and Muller). */
export const normal = (unit: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - unit())) * Math.cos(2 * Math.PI * unit())

/** An amount with this mean whose logarithm is normally distributed with the deviation `sigma`. */
export const lognormal = (mean: number, sigma: number, unit: () => number): number =>
  mean * Math.exp(sigma * normal(unit) - sigma ** 2 / 2)
