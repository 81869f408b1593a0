/**
 * Reproducible random numbers: a seed gives the same weather on every machine.
 */
export interface Prng {
  /** In [0, 1). */
  readonly next: () => number
  /** With the given mean; `sigma` is the standard deviation of the logarithm. */
  readonly lognormal: (mean: number, sigma: number) => number
  /** Log-uniform between the two. */
  readonly logUniform: (from: number, to: number) => number
  /** An item of the list, chosen by weight. */
  readonly pick: <A>(list: ReadonlyArray<readonly [weight: number, value: A]>) => A
}

/** PractRand's 32-bit "small fast counter" generator. Each `stream` of a seed is an independent sequence. */
export const make = (seed: number, stream = 0): Prng => {
  let a = seed | 0
  let b = Math.floor(seed / 2 ** 32) | 0
  let c = stream | 0
  let counter = 1
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + sum
    return (sum >>> 0) / 2 ** 32
  }
  for (let i = 0; i < 15; i++) next()

  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
  return {
    next,
    lognormal: (mean, sigma) => mean * Math.exp(sigma * normal() - (sigma * sigma) / 2),
    logUniform: (from, to) => from * (to / from) ** next(),
    pick: (list) => {
      let left = next() * list.reduce((sum, [weight]) => sum + weight, 0)
      for (const [weight, value] of list) {
        left -= weight
        if (left < 0) return value
      }
      return list.at(-1)![1]
    }
  }
}
