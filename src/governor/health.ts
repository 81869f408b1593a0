/**
 * Whether a provider that cannot be reached is down, or its address is wrong.
 *
 * One that has answered before is down, and is waited for. Before any answer, a name that does not exist is a wrong
 * address, and so is one that has refused connections for a minute. (A resolver that fails for the moment, `EAI_AGAIN`,
 * is no wrong address.)
 */

/** Longer than a server that starts together with its clients needs. */
const refusedMillis = 60_000

interface Pool {
  hasAnswered: boolean
  refusedSince: number | undefined
}

export interface Health {
  readonly answered: (pool: string) => void
  /** Takes note of a failure, and says whether the address is wrong. */
  readonly isWrongAddress: (pool: string, failure: "unknown" | "refused" | undefined, now: number) => boolean
}

export const make = (): Health => {
  const pools = new Map<string, Pool>()
  const poolOf = (name: string): Pool => {
    const pool = pools.get(name) ?? { hasAnswered: false, refusedSince: undefined }
    pools.set(name, pool)
    return pool
  }
  return {
    answered: (name) => {
      poolOf(name).hasAnswered = true
    },
    isWrongAddress: (name, failure, now) => {
      const pool = poolOf(name)
      if (pool.hasAnswered || failure === undefined) return false
      if (failure === "unknown") return true
      pool.refusedSince ??= now
      return now - pool.refusedSince >= refusedMillis
    }
  }
}
