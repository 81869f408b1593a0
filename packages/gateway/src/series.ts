/** Series of metrics whose labels come from outside. Counters are never removed from the registry, so their number is bounded. */
import * as Metric from "effect/Metric"

export const counterOf = (
  id: string,
  description: string,
  attributes: Readonly<Record<string, string>>
): Metric.Counter<number> => Metric.counter(id, { description, attributes, incremental: true })

/** Returns the entry of a key, and makes it if there is room. */
export const bounded = <A>(entries: Map<string, A>, key: string, max: number, make: () => A): A | undefined => {
  const known = entries.get(key)
  if (known !== undefined || entries.size >= max) return known
  const made = make()
  entries.set(key, made)
  return made
}

export type Mutable<A> = { -readonly [K in keyof A]: A[K] }
