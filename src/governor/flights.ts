/**
 * How many calls of a pool usually run at the same time: a moving average over admissions.
 */

interface Flight {
  open: number
  usual: number
}

/** As slow as the estimator's own averages: the last ten admissions or so count. */
const weight = 1 / 8

/** Counts the calls of each pool. A call must be ended as often as it was begun. */
export const make = () => {
  const pools = new Map<string, Flight>()
  return {
    began: (pool: string): void => {
      const flight = pools.get(pool) ?? { open: 0, usual: 1 }
      flight.open++
      flight.usual += (flight.open - flight.usual) * weight
      pools.set(pool, flight)
    },
    ended: (pool: string): void => {
      const flight = pools.get(pool)
      if (flight !== undefined) flight.open--
    },
    /** At least 1. */
    usual: (pool: string): number => pools.get(pool)?.usual ?? 1
  }
}
