/**
 * Checks that the memory of a process is bounded: `npm run -s bench -- memory`, about two minutes.
 *
 * A million governed calls of 200,000 accounts, each with an agent of its own, under limits that the user states. A tenth of
 * the accounts have a call under way throughout. Every 100,000 calls it prints the heap after a collection, the open pools, the
 * pools that were lost while in use, and the series in the registry of metrics. Fails when the heap has grown by more than a
 * tenth after the first 200,000 calls, or when a pool in use was forgotten.
 *
 * `--busy 20000` says how many accounts are busy, `--accounts`, `--calls` and `--pools` (the option `maxPools`) the rest.
 */
import * as Effect from "effect/Effect"
import { parseArgs } from "node:util"
import * as Crowd from "../test/support/crowd.ts"

const collect = globalThis.gc
if (collect === undefined) throw new Error("memory: run it with --expose-gc, as npm run bench does")

const { values } = parseArgs({
  options: {
    accounts: { type: "string", default: "200000" },
    busy: { type: "string", default: "20000" },
    calls: { type: "string", default: "1000000" },
    pools: { type: "string", default: "25000" }
  }
})
const accounts = Number(values.accounts)
const busy = Number(values.busy)
const calls = Number(values.calls)
const maxPools = Number(values.pools)

/** Processor time between collections. The first two are before any call. */
const micros: Array<number> = []
let started = process.cpuUsage()

/** Bytes alive after a collection. */
const heap = Effect.promise(async () => {
  const { system, user } = process.cpuUsage(started)
  micros.push(user + system)
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  started = process.cpuUsage()
  return process.memoryUsage().heapUsed
})

const mega = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`
const seen = ({ calls, heap, lost, pools, series }: Crowd.Look): void =>
  console.log(`${calls} calls, ${mega(heap)}, ${pools} pools, ${lost} busy ones lost, ${series} series`)

const kept = await Effect.runPromise(Crowd.run({ accounts, busy, calls, maxPools, every: 100_000 }, heap, seen))
const { failed, looks, refused } = kept
const admitted = busy - refused.length
const forBusy = kept.heap.busy - kept.heap.before
const reasons = [...new Set(refused)].join() || "none"
console.log(`${busy} accounts with a call under way: ${admitted} admitted, others ${reasons}; ${failed} calls failed`)
console.log(`heap ${mega(kept.heap.before)} before, ${mega(kept.heap.busy)} with them`)
console.log(`     ${(forBusy / admitted / 1e3).toFixed(1)} KB for each, its call included`)
const spent = micros.slice(2).reduce((sum, each) => sum + each, 0)
console.log(`${(spent / calls).toFixed(1)} us of processor time a call`)

const settled = looks.slice(1).map(({ heap }) => heap)
const grown = Math.max(...settled) / settled[0]! - 1
console.log(`heap after the first 200,000 calls: ${(100 * grown).toFixed(1)} % above the first sample at the most`)
const isFine = grown <= 0.1 && looks.every(({ lost }) => lost === 0)
console.log(isFine ? "ok" : "FAIL")
process.exit(isFine ? 0 : 1)
