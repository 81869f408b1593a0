/**
 * The best order that is known for a cell: a plain list schedule that knows each place, each answer and all that is going to happen. The
 * agent that is ready first takes the place where its call starts first, among those where it ends within some factor of the earliest end.
 * Of several factors, the best counts. It shares no code with the library.
 */
import {
  agents,
  callsEach,
  type Cell,
  equalOutput,
  inputTokens,
  isThere,
  outputOf,
  type RealPlace,
  takes
} from "./cells.ts"

/** A place that stays as it is at a time. */
const asNow = (place: RealPlace, at: number): RealPlace => ({
  ...place,
  speeds: [{ from: 0, speed: place.speeds.findLast(({ from }) => from <= at)!.speed }]
})

class Ahead {
  readonly place: RealPlace
  private level: number
  private at = 0
  private ends: Array<number> = []
  constructor(place: RealPlace) {
    this.place = place
    this.level = place.burst
  }
  private get rate(): number {
    return (this.place.rate * (1 - this.place.neighbour)) / 1_000
  }
  /** When a call may start, and when it ends; by the speed of now, if that is all that is known. */
  try(ready: number, output: number, isForeknown = true): { readonly start: number; readonly end: number } {
    const { place, rate } = this
    const missing = inputTokens - this.level
    let start = Math.max(ready, this.at, missing > 0 ? this.at + missing / rate : 0)
    const running = this.ends.filter((end) => end > start).sort((a, b) => a - b)
    if (running.length >= place.slots) start = running[running.length - place.slots]!
    const known = isForeknown ? place : asNow(place, ready)
    return { start, end: isThere(known, start) ? start + takes(known, start, output) : Infinity }
  }
  take({ end, start }: { readonly start: number; readonly end: number }): void {
    this.level = Math.min(this.place.burst, this.level + (start - this.at) * this.rate) - inputTokens
    this.at = start
    this.ends = [...this.ends.filter((each) => each > start), end]
  }
}

/** When a call that is under way at a place is cut, because the place dies. */
const failsAt = ({ speeds }: RealPlace, start: number): number =>
  speeds.find(({ from, speed }) => from > start && speed === undefined)?.from ?? Infinity

/** The agents by when they are ready, each with the number of its next call. */
const schedule = (
  places: ReadonlyArray<RealPlace>,
  timeout: number,
  seed: number,
  sizeOf: typeof outputOf,
  choose: (options: ReadonlyArray<Ahead>, ready: number, output: number) => Ahead,
  ended: (ready: number, end: number, place: RealPlace) => void
): number => {
  const ahead = places.map((place) => new Ahead(place))
  const next = Array.from({ length: agents }, (_, agent) => ({ agent, ready: 0, call: 0 }))
  let makespan = 0
  for (let n = 0; n < agents * callsEach; n++) {
    const one = next.filter(({ call }) => call < callsEach).reduce((a, b) => (b.ready < a.ready ? b : a))
    const output = sizeOf(seed, one.agent, one.call)
    const at = choose(ahead, one.ready, output)
    const moment = at.try(one.ready, output)
    at.take(moment)
    const fails = Math.min(moment.start + timeout, failsAt(at.place, moment.start))
    if (fails < moment.end) {
      one.ready = fails
      n--
      continue
    }
    ended(one.ready, moment.end, at.place)
    one.ready = moment.end
    one.call++
    makespan = Math.max(makespan, moment.end)
  }
  return makespan
}

const factors = [1, 1.1, 1.25, 1.5, 2, 3, 5, Infinity]

/** The makespan of the best order, in milliseconds: with foreknowledge, or knowing how the places are at each moment. */
export const oracle = (
  { places, timeout = Infinity }: Pick<Cell, "places" | "timeout">,
  seed: number,
  isForeknown = true
): number =>
  Math.min(
    ...factors.map((factor) =>
      schedule(
        places,
        timeout,
        seed,
        outputOf,
        (options, ready, output) => {
          const tried = options.map((at) => ({ at, ...at.try(ready, output, isForeknown) }))
          const best = Math.min(...tried.map(({ end }) => end))
          const near = tried.filter(({ end }) => end < Infinity && end - ready <= factor * (best - ready) + 1)
          return near.reduce((a, b) => (b.start < a.start || (b.start === a.start && b.end < a.end) ? b : a)).at
        },
        () => {}
      )
    )
  )

/** What the best order costs with the cheapest place that answers within a deadline, and how many calls are late. */
export const cheapest = (places: ReadonlyArray<RealPlace>, seed: number, deadline: number) => {
  let cost = 0
  let late = 0
  schedule(
    places,
    Infinity,
    seed,
    equalOutput,
    (options, ready, output) => {
      const tried = options.map((at) => ({ at, end: at.try(ready, output).end }))
      const inTime = tried.filter(({ end }) => end - ready <= deadline)
      if (inTime.length > 0) return inTime.reduce((a, b) => (b.at.place.price < a.at.place.price ? b : a)).at
      return tried.reduce((a, b) => (b.end < a.end ? b : a)).at
    },
    (ready, end, { price }) => {
      cost += price
      if (end - ready > deadline) late++
    }
  )
  return { cost: cost / (agents * callsEach), late }
}
