/** Bounds the memory that V8 keeps for young objects. */
import { PerformanceObserver } from "node:perf_hooks"
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"

/** V8 reads this flag whenever it may enlarge the space. The flags for its size have an effect only on the command line. */
const growBy = (factor: number): void => setFlagsFromString(`--semi-space-growth-factor=${factor}`)

const size = (): number =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")?.space_size ?? Infinity

/** The space grows once, from its two halves of 1 MB. Calls that are under way rarely have more young objects than that. */
const growth = 8
const enough = 2 * growth * 1_024 * 1_024

/**
 * Loads a program, and lets the space of young objects grow to 16 MB afterwards. By default V8 gives it up to 128 MB, half of
 * it for the loading of modules alone, and keeps that as long as the process lives.
 */
export const withSmallYoungSpace = async (load: () => Promise<unknown>): Promise<void> => {
  growBy(1)
  await load()
  growBy(growth)
  const observer = new PerformanceObserver(() => {
    if (size() < enough) return
    growBy(1)
    observer.disconnect()
  })
  observer.observe({ entryTypes: ["gc"] })
}
