/**
 * Other clients of the same limits. They act in small steps at random times, about one call of the whole limit apart, so that
 * they and we compete fairly for each refill.
 */
import type { Prng } from "./prng.ts"
import type { Neighbour } from "./scenario.ts"

export interface Neighbours {
  /**
   * Lets the neighbours act up to `now`. `take` asks for a number of calls at a time, and returns how many were accepted.
   */
  readonly advance: (now: number, callsPerMilli: number, take: (calls: number, at: number) => number) => void
}

/** The share of the limit that a neighbour wants at a time. */
export const demandOf = (neighbour: Exclude<Neighbour, { kind: "polite" }>, at: number): number => {
  switch (neighbour.kind) {
    case "constant":
      return at >= (neighbour.from ?? 0) && at < (neighbour.to ?? Infinity) ? neighbour.part : 0
    case "square":
      return at % neighbour.period < neighbour.period / 2 ? neighbour.low : neighbour.high
    case "ramp":
      return neighbour.from + (neighbour.to - neighbour.from) * Math.min(1, at / neighbour.over)
    case "bursts":
      return at % neighbour.period >= neighbour.period - neighbour.lasts ? neighbour.part : 0
  }
}

/** Unmet demand is kept for this long. */
const patienceMillis = 250

/** A polite neighbour: additive increase, multiplicative decrease. */
const polite = { increasePerMilli: 0.02 / 1000, decrease: 0.7, pauseMillis: 1000 }

interface One {
  readonly neighbour: Neighbour
  /** The calls that it still wants. */
  wanted: number
  /** For a polite neighbour: the share that it asks for, and when it was last cut. */
  part: number
  cutAt: number
}

export const make = (list: ReadonlyArray<Neighbour>, fullCallsPerMilli: number, prng: Prng): Neighbours => {
  const all = list.map((neighbour): One => ({ neighbour, wanted: 0, part: 0.5, cutAt: -Infinity }))
  const step = Math.min(100, Math.max(2, 1 / fullCallsPerMilli))
  let at = 0
  let next = step * prng.next()

  const act = (one: One, elapsed: number, callsPerMilli: number, take: (calls: number, at: number) => number) => {
    const { neighbour } = one
    if (neighbour.kind === "polite") one.part = Math.min(1, one.part + polite.increasePerMilli * elapsed)
    const demand = (neighbour.kind === "polite" ? one.part : demandOf(neighbour, next)) * callsPerMilli
    one.wanted += demand * elapsed
    const calls = Math.floor(one.wanted)
    if (calls === 0) return
    const taken = take(calls, next)
    one.wanted = Math.min(one.wanted - taken, Math.max(1, patienceMillis * callsPerMilli))
    if (taken === calls || neighbour.kind !== "polite") return
    one.wanted = 0
    if (next < one.cutAt + polite.pauseMillis) return
    one.part *= polite.decrease
    one.cutAt = next
  }

  return {
    advance: (now, callsPerMilli, take) => {
      if (all.length === 0) return
      while (next <= now) {
        for (const one of all) act(one, next - at, callsPerMilli, take)
        at = next
        next += step * (0.5 + prng.next())
      }
    }
  }
}
