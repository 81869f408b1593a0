/** Names pools, and forgets some of them, in a budget and in a governor. */
import * as Lru from "../domain/input/lru.ts"

export const defaultPool = "default"

/**
 * How many idle pools are kept: enough for the keys and models of one program. Their names come with requests, so without a
 * bound they would fill the memory of a gateway.
 */
export const maxIdlePools = 1_000

/** The name of an account's pool. No other pool can have such a name. */
export const nameIn = (account: string | undefined, pool: string): string => {
  if (account === undefined) return pool
  return pool === defaultPool ? account : `${account}/${pool}`
}

/** A pool, or what is recorded of one. */
interface NamedPool {
  readonly name: string
  /** The name without the account. */
  readonly kind: string
}

/** Pools by name. Callers bring the names, so beyond a maximum idle pools are forgotten. */
export class PoolRegistry<P extends NamedPool> extends Lru.Registry<string, P> {
  /** Forgets the pool of an account whose calls were all denied: its credential may be invented. */
  denied(pool: P): void {
    if (pool.name !== pool.kind) this.forget(pool.name, pool)
  }
}
