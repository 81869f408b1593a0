/**
 * Plays storms of several processes (`test/sharing/storm.ts`): each seed over a store that
 * keeps its state, and again over one that loses it if that makes a difference. It prints how many storms were played, by
 * how much limits were exceeded at most, and which seeds break a law.
 *
 *     npm run storms                                1,000 seeds, whatever that takes
 *     npm run storms -- --seeds 100000 --minutes 60 as many of them as there is time for
 *     npm run storms -- --from 4001 --seeds 1       one seed
 *     npm run storms -- --rough                     with callers that give up, processes that freeze, and more
 *     npm run storms -- --ledgers                   with calls that pay from caps in dollars
 *     npm run storms -- --beside v0.4.0             with the code of that commit in every second process
 *     npm run storms -- --workers 1                 in one process (default: one for each processor)
 *
 * Ctrl-C stops it, and it prints the command that continues.
 */
import { type ChildProcess, fork } from "node:child_process"
import { rmSync } from "node:fs"
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import { thousands } from "../src/domain/words.ts"
import * as Beside from "../test/sharing/beside.ts"
import * as LedgerStorm from "../test/sharing/ledgerStorm.ts"
import * as Storm from "../test/sharing/storm.ts"
import * as Tally from "../test/sharing/tally.ts"
import * as World from "../test/sharing/world.ts"

const { values: options } = parseArgs({
  options: {
    from: { type: "string", default: "1" },
    seeds: { type: "string", default: "1000" },
    minutes: { type: "string", default: "Infinity" },
    workers: { type: "string", default: String(availableParallelism()) },
    rough: { type: "boolean", default: false },
    ledgers: { type: "boolean", default: false },
    beside: { type: "string" },
    sources: { type: "string" },
    worker: { type: "boolean", default: false }
  }
})

const plan = options.rough ? Storm.rougher : Storm.plan
const mode = [
  ...(options.ledgers ? ["--ledgers"] : []),
  ...(options.rough ? ["--rough"] : []),
  ...(options.beside === undefined ? [] : ["--beside", options.beside])
]
/** The sources of the other commit, which all workers read. */
const sources = options.sources ?? (options.beside === undefined ? undefined : Beside.sourcesOf(options.beside))
const sourceFlags = sources === undefined ? [] : ["--sources", sources]
/** Seeds that a worker plays before it reports. */
const seedsAtOnce = 20
/** The run stops after this many complaints. */
const maxComplaints = 5
const progressMillis = process.stdout.isTTY ? 1_000 : 60_000

/** Seeds to play, from `from` up to but not including `to`. */
interface Chunk {
  readonly from: number
  readonly to: number
}

interface Result {
  readonly tally: Tally.Tally
  readonly cpuMillis: number
}

// -----------------------------------------------------------------------------
// A worker
// -----------------------------------------------------------------------------

const work = async (): Promise<void> => {
  const redis = await World.redis()
  const code = sources === undefined ? World.library : await Beside.beside(sources)
  // A terminal sends SIGINT to every process; the parent decides what to do.
  process.on("SIGINT", () => {})
  process.on("disconnect", () => process.exit())
  process.on("message", ({ from, to }: Chunk) => {
    const before = process.cpuUsage()
    let tally = Tally.nothing
    for (let seed = from; seed < to; seed++) {
      const one = options.ledgers ? LedgerStorm.tally(seed, redis, code) : Tally.of(seed, redis, code, plan)
      tally = Tally.add(tally, one)
    }
    const { system, user } = process.cpuUsage(before)
    // The callback ignores the error if the parent was killed.
    process.send!({ tally, cpuMillis: (system + user) / 1_000 } satisfies Result, () => {})
  })
}

// -----------------------------------------------------------------------------
// The parent
// -----------------------------------------------------------------------------

const numberOf = (name: "from" | "seeds" | "minutes" | "workers", min: number): number => {
  const value = Number(options[name])
  if (value >= min) return value
  console.error(`storms: --${name}: expected a number of at least ${min}, got "${options[name]}"`)
  return process.exit(2)
}

class Run {
  private readonly first = numberOf("from", 0)
  private readonly end = this.first + numberOf("seeds", 1)
  private readonly begun = performance.now()
  private readonly until = this.begun + numberOf("minutes", 0) * 60_000
  private readonly open = new Map<ChildProcess, Chunk>()
  private next = this.first
  private tally = Tally.nothing
  private cpuMillis = 0

  /** The first seed without a result. */
  private get rest(): number {
    return Math.min(this.next, ...Array.from(this.open.values(), ({ from }) => from))
  }

  private get line(): string {
    const { calls, complaints, requests, storms } = this.tally
    const minutes = ((performance.now() - this.begun) / 60_000).toFixed(1)
    const each = ((this.cpuMillis / Math.max(1, storms)) | 0).toString()
    return (
      `${thousands(storms)} storms of ${thousands(calls)} calls and ${thousands(requests)} requests in ${minutes} minutes, ` +
      `${(this.cpuMillis / 1_000).toFixed(0)} s of processor time (${each} ms each), ${complaints.length} complaints`
    )
  }

  start(): void {
    setInterval(() => console.log(`seed ${thousands(this.rest)}: ${this.line}`), progressMillis)
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => this.finish(130))
    for (let i = Math.min(numberOf("workers", 1), this.end - this.first); i >= 1; i--) {
      const child = fork(import.meta.filename, ["--worker", ...mode, ...sourceFlags])
      child.on("message", (result: Result) => this.hear(child, result))
      child.on("exit", (code) => {
        const { from, to } = this.open.get(child) ?? { from: this.next, to: this.next }
        console.error(`storms: a worker exited with code ${code} while it played seeds ${from} to ${to - 1}`)
        this.finish(1)
      })
      this.hand(child)
    }
  }

  private hand(child: ChildProcess): void {
    const isOver =
      this.next >= this.end || performance.now() > this.until || this.tally.complaints.length >= maxComplaints
    if (isOver) {
      this.open.delete(child)
      if (this.open.size === 0) this.finish(this.tally.complaints.length > 0 ? 1 : 0)
      return
    }
    const chunk: Chunk = { from: this.next, to: Math.min(this.end, this.next + seedsAtOnce) }
    this.next = chunk.to
    this.open.set(child, chunk)
    child.send(chunk)
  }

  private hear(child: ChildProcess, { cpuMillis, tally }: Result): void {
    for (const complaint of tally.complaints) console.log(`\n${complaint}\n`)
    this.tally = Tally.add(this.tally, tally)
    this.cpuMillis += cpuMillis
    this.open.delete(child)
    this.hand(child)
  }

  private finish(code: number): never {
    if (sources !== undefined) rmSync(sources, { recursive: true, force: true })
    const { rest } = this
    console.log(`\nSeeds ${thousands(this.first)} to ${thousands(rest - 1)}: ${this.line}.`)
    const same = mode.map((flag) => ` ${flag}`).join("")
    if (rest < this.end) console.log(`To continue: npm run storms -- --from ${rest} --seeds ${this.end - rest}${same}`)
    console.log(`\n${Tally.show(this.tally)}`)
    return process.exit(code)
  }
}

if (options.worker) await work()
else new Run().start()
