/**
 * Whether a provider that cannot be reached is down, or its address is wrong.
 *
 * One that has answered before is down, and is waited for. Before any answer, a name that does not exist is a wrong
 * address, and so is one that has refused connections for a minute. (A resolver that fails for the moment, `EAI_AGAIN`,
 * is no wrong address.)
 */
import { mostPools } from "../budget/options.ts"
import * as Recency from "../input/recency.ts"

/** Longer than a server that starts together with its clients needs. */
const refusedMillis = 60_000

/** How far a call got. */
export type Reach = "answered" | "unknown" | "refused"

export interface Health {
  /** Notes how far a call of a pool got, and says whether the address is wrong. */
  readonly note: (pool: string, reach: Reach | undefined, now: number) => boolean
}

export const make = (): Health => {
  const answered = new Map<string, true>()
  const refusedSince = new Map<string, number>()
  return {
    note: (pool, reach, now) => {
      if (reach === "answered") Recency.put(answered, pool, true, mostPools)
      if (answered.has(pool)) return false
      if (reach !== "refused") return reach === "unknown"
      const since = refusedSince.get(pool) ?? now
      Recency.put(refusedSince, pool, since, mostPools)
      return now - since >= refusedMillis
    }
  }
}
