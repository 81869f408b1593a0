/** What a response's figures say of the limits, for the model: the rules written out, one case after the other. */
import type { Dimension, Rule } from "./modelLevels.ts"

/** One dimension in the headers of a response. */
export interface Figure {
  readonly limit?: number
  readonly remaining?: number
  readonly roundedTo?: number
  readonly window?: "bucket"
}

export type Figures = { readonly [D in Dimension]?: Figure }

/** How far off each meaning of `remaining` was lately: what was left when the call was taken, and what is left now. */
export interface Doubts {
  taken: number
  now: number
}

/** What there is to be known of a dimension when it is read. */
export interface View {
  readonly capacity: number
  readonly level: number
  /** What was left when the call was taken; unknown of output, and where nobody said which call was answered. */
  readonly left: number | undefined
  /** Output that other open calls may put out. */
  readonly others: number
}

export interface Read {
  /** By how much the provider has less than we think, counted from the least that the figure can mean; 0 for not less. */
  readonly less: number
  /** By how much it has more, whatever the figure means. */
  readonly more: number
  /** The least that the figure can mean. */
  readonly sure: number
}

/** Reads a figure, and remembers how far off each meaning was. */
export const read = (remaining: number, roundedTo: number, view: View, doubts: Doubts): Read => {
  // A figure that is rounded to a thousand lies five hundred around the truth, an exact one was cut off.
  const sure = Math.max(0, roundedTo > 1 ? remaining - roundedTo / 2 : remaining) - view.others
  const most = (roundedTo > 1 ? remaining + roundedTo / 2 : remaining + 1) - view.others
  const now = view.level
  const taken = view.left ?? view.level
  const missedBy = (expected: number) => (expected > most ? expected - most : Math.max(0, sure - expected))
  if (view.left !== undefined && most < view.capacity) {
    doubts.now = 0.9 * doubts.now + 0.1 * Math.min(1, missedBy(now) / view.capacity)
    doubts.taken = 0.9 * doubts.taken + 0.1 * Math.min(1, missedBy(taken) / view.capacity)
  }
  let believed = Math.min(now, taken)
  if (doubts.now < doubts.taken / 2) believed = now
  else if (doubts.taken < doubts.now / 2) believed = taken
  return {
    less: believed > most ? believed - sure : 0,
    more: Math.max(0, sure - Math.max(now, taken)),
    sure
  }
}

/** A limit that was only heard of: a twentieth at once, or what a bucket was seen to have; five seconds of requests. */
export const learned = (dimension: Dimension, { limit, remaining, window }: Figure, before: number): Rule => {
  const perMinute = limit!
  if (dimension === "requests") {
    const capacity = perMinute / 12
    return window === "bucket"
      ? { capacity, rate: perMinute / 60_000, most: perMinute }
      : { capacity, rate: (perMinute - capacity) / 60_000, most: perMinute, perMinute }
  }
  if (window !== "bucket") {
    return { capacity: perMinute / 20, rate: (perMinute * 19) / 20 / 60_000, most: perMinute, perMinute }
  }
  const capacity = Math.min(perMinute, Math.max(perMinute / 20, before, remaining ?? 0))
  return { capacity, rate: perMinute / 60_000, most: perMinute }
}

/** A configured limit that turns out to be smaller; never one that is larger. */
export const cutDown = (rule: Rule, limit: number): Rule => {
  const part = Math.min(1, limit / rule.most)
  return {
    capacity: rule.capacity * part,
    rate: rule.rate * part,
    most: rule.most * part,
    ...(rule.perMinute !== undefined && { perMinute: rule.perMinute * part })
  }
}
