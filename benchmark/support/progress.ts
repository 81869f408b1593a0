/** What a benchmark says while it runs. */
import { availableParallelism, cpus, loadavg } from "node:os"

const begun = performance.now()

/** Writes a line to standard error, with the seconds since the program has started. */
export const progress = (text: string): void =>
  console.error(`${((performance.now() - begun) / 1_000).toFixed(0).padStart(4)} s  ${text}`)

/** Where it runs, and what else does. */
export const machine = (): string => {
  const cores = `${availableParallelism()} cores of ${cpus()[0]?.model ?? "an unknown processor"}`
  return `Node ${process.versions.node}, ${cores} at a load of ${loadavg()[0]!.toFixed(1)} from other work`
}
