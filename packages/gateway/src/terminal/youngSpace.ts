/** Bounds the memory that V8 keeps for young objects. */
import { PerformanceObserver } from "node:perf_hooks"
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"

/** V8 reads this flag whenever it may enlarge the space. The flags for its size have an effect only on the command line. */
const growBy = (factor: number): void => setFlagsFromString(`--semi-space-growth-factor=${factor}`)

/** The bytes that one of the two halves of the space can hold. */
const capacity = (): number => {
  const space = getHeapSpaceStatistics().find(({ space_name }) => space_name === "new_space")
  return space === undefined ? Infinity : space.space_used_size + space.space_available_size
}

/** The most bytes of a half. Calls that are under way rarely have more young objects. */
const most = 8 * 1_024 * 1_024

/** Lets the space grow at most to the bound, in one step. V8 makes it smaller while a process has little to do. */
const bound = (): void => growBy(Math.max(1, Math.floor(most / capacity())))

/**
 * Loads a program, and lets the space of young objects grow to two halves of 8 MB afterwards. By default V8 gives it up to 128 MB,
 * half of it for the loading of modules alone, and keeps that while the process is busy.
 */
export const withSmallYoungSpace = async (load: () => Promise<unknown>): Promise<void> => {
  growBy(1)
  await load()
  bound()
  new PerformanceObserver(bound).observe({ entryTypes: ["gc"] })
}
