/**
 * What happens at the places of one job: 30 agents make 10 calls each, one after another, of 6,000 input tokens and 250 to 750 output
 * tokens. A place refills 10,000 tokens a second, its bucket holds 60,000, and an answer takes 2 s and 16 ms for each output token.
 */
export const agents = 30
export const callsEach = 10
export const inputTokens = 6_000

/** A place as it really is. Times are milliseconds since the job began. */
export interface RealPlace {
  readonly name: string
  /** Tokens a second, and what the full bucket holds. */
  readonly rate: number
  readonly burst: number
  /** How many calls may be in flight; it rejects the others. */
  readonly slots: number
  /** The part of the rate that another program uses. */
  readonly neighbour: number
  /** The part of calls that are rejected for no reason. */
  readonly rejects: number
  /** How fast it answers from a time on, 1 as usual, until the speed changes; undefined if it is gone. In the order of time. */
  readonly speeds: ReadonlyArray<{ readonly from: number; readonly speed: number | undefined }>
  readonly price: number
}

export interface Cell {
  readonly name: string
  readonly places: ReadonlyArray<RealPlace>
  /** How long the client waits for an answer, in milliseconds. */
  readonly timeout: number | undefined
  /** The makespan to the oracle's. */
  readonly target: number
}

export const usual: RealPlace = {
  name: "a",
  rate: 10_000,
  burst: 60_000,
  slots: Infinity,
  neighbour: 0,
  rejects: 0,
  speeds: [{ from: 0, speed: 1 }],
  price: 1
}

/** How long an answer takes at usual speed. */
export const answerMillis = (outputTokens: number): number => 2_000 + 16 * outputTokens

const place = (name: string, more: Partial<RealPlace> = {}): RealPlace => ({ ...usual, ...more, name })

/** The speed from one time to another. */
const times = (speed: number | undefined, from: number, to: number): Pick<RealPlace, "speeds"> => ({
  speeds: [...usual.speeds, { from, speed }, { from: to, speed: 1 }]
})

/** How long an answer takes that is asked for at a time; infinite if it never ends, or the place is gone. */
export const takes = ({ speeds }: RealPlace, at: number, outputTokens: number): number => {
  let left = answerMillis(outputTokens)
  for (const [n, { from, speed = 0 }] of speeds.entries()) {
    const to = speeds[n + 1]?.from ?? Infinity
    const begins = Math.max(at, from)
    if (to <= begins) continue
    if (speed > 0 && left <= (to - begins) * speed) return begins + left / speed - at
    left -= speed === 0 ? 0 : (to - begins) * speed
  }
  return Infinity
}

/** Whether the place takes calls at a time. */
export const isThere = ({ speeds }: RealPlace, at: number): boolean =>
  speeds.findLast(({ from }) => from <= at)?.speed !== undefined

const minute = [20_000, 80_000] as const

const cell = (name: string, places: ReadonlyArray<Partial<RealPlace>>, target: number, timeout?: number): Cell => ({
  name,
  places: places.map((more, index) => place("abc"[index]!, more)),
  target,
  timeout
})

const scaled = (weight: number, sum: number): Partial<RealPlace> => ({
  rate: (20_000 * weight) / sum,
  burst: (120_000 * weight) / sum
})

/** Each cell with two places, and with a third one like `a` or `b`, whichever is as usual. */
const both = (name: string, places: ReadonlyArray<Partial<RealPlace>>, target: number, timeout?: number) => [
  cell(name, places, target, timeout),
  cell(`${name}, and c`, [...places, {}], target, timeout)
]

/** Each cell with a number of places that are the same. */
const slots = (name: string, place: Partial<RealPlace>): ReadonlyArray<Cell> =>
  [1, 2, 3].map((count) =>
    cell(
      `${name}, ${count} places`,
      Array.from({ length: count }, () => place),
      1.15
    )
  )

export const cells: ReadonlyArray<Cell> = [
  ...both("b is 10x slower", [{}, times(1 / 10, 0, Infinity)], 1.25),
  ...both("a is 10x slower from 20 s on", [times(1 / 10, 20_000, Infinity), {}], 1.4),
  ...both("a is 10x slower for a minute", [times(1 / 10, ...minute), {}], 1.2),
  ...both("b is 3x slower", [{}, times(1 / 3, 0, Infinity)], 1.1),
  ...both("equal", [{}, {}], 1.06),
  ...both("1:4", [scaled(1, 5), scaled(4, 5)], 1.06),
  cell("1:2:4", [scaled(1, 7), scaled(2, 7), scaled(4, 7)], 1.06),
  ...both("a dies", [times(undefined, 20_000, Infinity), {}], 1.06),
  ...both("a hangs for a minute", [times(0, ...minute), {}], 1.15, 30_000),
  ...both("a drips for a minute", [times(1 / 20, ...minute), {}], 1.15, 30_000),
  ...both("b rejects 30 %", [{}, { rejects: 0.3 }], 1.06),
  ...both("b has a neighbour", [{}, { neighbour: 0.5 }], 1.06),
  ...slots("8 in flight", { slots: 8 }),
  // The bucket holds the first calls of all agents, and answers take two seconds.
  ...slots("8 in flight, all at once", { slots: 8, rate: 40_000, burst: 400_000, speeds: [{ from: 0, speed: 5 }] })
]

/** The output tokens of calls of the same size: what is known before a call is sent must not decide if it is late. */
export const equalOutput = (_seed: number, _agent: number, _call: number): number => 500

/** A tier at half the price and half the rate beside the usual one. */
export const tiers: ReadonlyArray<RealPlace> = [
  place("standard"),
  place("flex", { price: 0.5, rate: usual.rate / 2, burst: usual.burst / 2 })
]
export const deadlines = [15, 30, 60, 180, 900]

/** The output tokens of a call, for a seed. */
export const outputOf = (seed: number, agent: number, call: number): number => {
  let x = Math.imul(seed ^ Math.imul(agent + 1, 0x9e3779b1) ^ Math.imul(call + 1, 0x85ebca6b), 0xc2b2ae35)
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d)
  x ^= x >>> 13
  return 250 + ((x >>> 0) % 501)
}
