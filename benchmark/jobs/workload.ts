/** Jobs of very different sizes that come one after the other, and the provider that their agents call. */

/** One job. Its agents start together, and each makes its calls one after the other. */
export interface Job {
  /** When it comes, in seconds. */
  readonly at: number
  /** The tokens of each call of each agent. */
  readonly agents: ReadonlyArray<ReadonlyArray<number>>
  /** The tokens of all its calls. */
  readonly tokens: number
}

export interface Workload {
  readonly jobs: ReadonlyArray<Job>
}

export const provider = {
  /** Tokens a second, and the most that its bucket holds. */
  rate: 1_000,
  burst: 20_000,
  /** How long an answer takes, in seconds. */
  answer: 3
}

/** A full bucket, in seconds of the limit. */
export const fill = provider.burst / provider.rate

const count = 40
const callsOfAgent = 5
const maxAgents = 48

/** Numbers from 0 to 1 (mulberry32). */
export const randomOf = (seed: number) => (): number => {
  seed = (seed + 0x6d2b79f5) | 0
  let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1)
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
}

/** Most jobs have one to three agents, and a few have 48. They come at random times, and all of them need `load` of the limit. */
export const workloadOf = (load: number, seed: number): Workload => {
  const random = randomOf(seed)
  const sizes = Array.from({ length: count }, () => {
    const agents = Math.min(maxAgents, Math.max(1, Math.round(0.8 * (1 - random()) ** (-1 / 0.9))))
    return Array.from({ length: agents }, () =>
      Array.from({ length: callsOfAgent }, () => Math.ceil(500 + random() * 5_000))
    )
  })
  const sum = (values: ReadonlyArray<number>): number => values.reduce((one, other) => one + other, 0)
  const tokensOf = (agents: ReadonlyArray<ReadonlyArray<number>>): number => sum(agents.map(sum))
  const gap = sum(sizes.map(tokensOf)) / provider.rate / load / count
  let at = 0
  return {
    jobs: sizes.map((agents) => {
      at -= Math.log(1 - random()) * gap
      return { at, agents, tokens: tokensOf(agents) }
    })
  }
}
