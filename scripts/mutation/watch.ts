/**
 * A thread that ends its process when a test never ends. It judges by processor time, because on a busy machine the same test takes
 * many times as long: the test has used all that it may, or nothing for some seconds, because it waits for what never comes.
 */
import { Worker, workerData } from "node:worker_threads"

/** How often it looks. */
const everyMillis = 250
/** A test that waits for something real, such as an import, uses less than this many milliseconds in this time. */
const idle = { millis: 2, within: 10_000 }

/** The processor time of this process in milliseconds. */
export const processorMillis = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1_000
}

/** Ends this process unless it calls again, or calls `done`, before it has used this many milliseconds of processor time. */
export const watch = (): { readonly allow: (millis: number) => void; readonly done: () => void } => {
  // When the test must have ended, in processor time, and the number of the test, which tells one from the next.
  const shared = new Float64Array(new SharedArrayBuffer(16)).fill(Infinity)
  new Worker(new URL(import.meta.url), { workerData: shared.buffer }).unref()
  let number = 0
  const set = (until: number): void => {
    shared[0] = until
    shared[1] = ++number
  }
  return { allow: (millis) => set(processorMillis() + millis), done: () => set(Infinity) }
}

if (workerData instanceof SharedArrayBuffer) {
  const shared = new Float64Array(workerData)
  let since = { number: 0, looks: 0, used: 0 }
  setInterval(() => {
    const [until, number] = shared as unknown as [number, number]
    const used = processorMillis()
    const looks = since.looks + 1
    // Looking costs a fraction of a millisecond.
    const isIdle = used - since.used < idle.millis + looks * 0.5
    if (until === Infinity || number !== since.number || !isIdle) since = { number, looks: 0, used }
    else since = { ...since, looks }
    if (used > until || since.looks * everyMillis >= idle.within) process.kill(process.pid, "SIGKILL")
  }, everyMillis)
}
