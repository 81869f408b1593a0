/**
 * What a call costs as things grow: calls that wait, agents and jobs they belong to, prefixes that are remembered, and processes
 * that share one Redis.
 *
 *     npm run -s bench -- growth
 *         [--only waiting,agents,jobs,prefixes,redis,cores]
 *         [--rounds 5] [--calls 20000]
 *         [--processes 1,4,16,64] [--seconds 5]          of redis; of cores: 1,2,4, 10 seconds
 *         [--warmup 15]                                  of cores, for each process; 10 minutes in all
 *         [--quick]                                      only shows that it runs
 *
 * Within a process it is processor time in turns (see `support/inTurns.ts`), each size in a process of its own. Calls run on ten
 * permits, and whoever is served waits again, so that the queue keeps its length; with agents and jobs it has 10,000 calls.
 *
 * On one Redis, all processes together make 200 calls a second, whatever their number, because more would measure how they share
 * two cores: scripts that Redis runs for a call, its processor time, and that of the processes. What they do without any call is
 * measured apart. `cores` counts the same of a gateway with `--processes`, beside one without Redis, which needs Linux. Throughput
 * cannot be shown on two cores.
 */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Redis from "../packages/redis/test/server.ts"
import { thousands } from "../src/domain/words.ts"
import { cores } from "./growth/cores.ts"
import { kinds } from "./growth/library.ts"
import type { Question, Way } from "./growth/redis.ts"
import { ratio, usageOf } from "./growth/usage.ts"
import { inProcesses, inTurns, serveTurns, shown, tableOf } from "./support/inTurns.ts"
import { machine, progress } from "./support/progress.ts"

interface Growing {
  readonly title: string
  readonly sizes: ReadonlyArray<number>
}
const growing: Readonly<Record<string, Growing>> = {
  waiting: { title: "waiting calls", sizes: [1, 1_000, 10_000, 100_000] },
  agents: { title: "agents, of 10,000 waiting calls", sizes: [1, 100, 1_000, 10_000] },
  jobs: { title: "jobs, of 10,000 waiting calls of as many agents", sizes: [1, 100, 1_000, 10_000] },
  prefixes: { title: "remembered prefixes", sizes: [20, 100, 1_000, 10_000] }
}

/** The table says how many times the smallest each is, so that a bend is seen. */
const within = async (kind: string, { sizes, title }: Growing, rounds: number, calls: number): Promise<void> => {
  const { contenders, end } = inProcesses(import.meta.filename, sizes.map(String), (size) => `${kind}|${size}|${calls}`)
  const measured = await inTurns(contenders, { rounds, warmups: 2 })
  end()
  const rows = measured.map(({ byProcessor, micros, name }) => [
    thousands(Number(name)),
    shown(micros),
    (1 / byProcessor.median).toFixed(2)
  ])
  console.log(`\n${tableOf([title, "us a call", "to the first"], rows)}`)
}

// -----------------------------------------------------------------------------
// Processes on one Redis
// -----------------------------------------------------------------------------

interface Taken {
  readonly count: number
  readonly micros: number
}

const ask = async (child: ChildProcess, question: Question): Promise<Taken> => {
  child.send(question)
  const [taken] = await once(child, "message")
  return taken as Taken
}

const perSecond = 200

/** A row of the table: what a turn of all processes took. */
const turn = async (
  server: Redis.Server,
  children: ReadonlyArray<ChildProcess>,
  way: Way,
  seconds: number
): Promise<ReadonlyArray<number>> => {
  const question = { way, perSecond, ofThis: perSecond / children.length, seconds }
  const all = (seconds: number) => Promise.all(children.map((child) => ask(child, { ...question, seconds })))
  // One after the other, or else they wait for each other's compilers and take Redis for unreachable.
  for (const child of children) await ask(child, { ...question, seconds: 0 })
  // It takes seconds until processes know of each other.
  await all(seconds)
  const before = await usageOf(server)
  const taken = await all(seconds)
  const after = await usageOf(server)
  const sum = (of: (taken: Taken) => number): number => taken.reduce((total, each) => total + of(each), 0)
  const count = sum(({ count }) => count)
  // Without calls, it is a second of one process.
  const divisor = way === "idle" ? seconds * children.length : count
  const [scripts, micros] = [after.scripts - before.scripts, after.micros - before.micros]
  return [scripts / divisor, micros / divisor, sum(({ micros }) => micros) / divisor, count / seconds]
}

const processes = async (sizes: ReadonlyArray<number>, seconds: number): Promise<void> => {
  const server = await Redis.start()
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void server.stop().finally(() => process.exit(130)))
  }
  const children: Array<ChildProcess> = []
  const rows = new Map<Way, Array<ReadonlyArray<string>>>()
  const first = new Map<Way, ReadonlyArray<number>>()
  for (const size of sizes) {
    while (children.length < size) {
      const child = fork(join(import.meta.dirname, "growth/redis.ts"), [server.url])
      children.push(child)
      await once(child, "message")
    }
    for (const way of ["idle", "free", "waiting"] as const) {
      progress(`${size} processes: ${way}`)
      const figures = await turn(server, children, way, seconds)
      const least = first.get(way) ?? figures
      first.set(way, least)
      const cells = figures.slice(0, 3).flatMap((value, n) => [value.toFixed(n === 0 ? 2 : 0), ratio(value, least[n]!)])
      const row = [`${size}`, ...cells, ...(way === "idle" ? [] : [thousands(Math.round(figures[3]!))])]
      rows.set(way, [...(rows.get(way) ?? []), row])
    }
  }
  for (const child of children) child.disconnect()
  await server.stop()
  const titles = { idle: "processes without calls", free: "calls that never wait", waiting: "calls that wait" }
  for (const [way, each] of rows) {
    const unit = way === "idle" ? "a second of a process" : "a call"
    const head = [
      titles[way],
      `scripts ${unit}`,
      "ratio",
      `us of Redis ${unit}`,
      "ratio",
      `us of the processes ${unit}`,
      "ratio"
    ]
    console.log(`\n${tableOf([...head, ...(way === "idle" ? [] : ["calls a second"])], each)}`)
  }
}

// -----------------------------------------------------------------------------
// The run
// -----------------------------------------------------------------------------

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    calls: { type: "string" },
    processes: { type: "string" },
    only: { type: "string", default: [...Object.keys(growing), "redis", "cores"].join() },
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" },
    warmup: { type: "string" }
  }
})
if (process.send !== undefined) {
  const [kind = "", size, calls] = positionals[0]!.split("|")
  const turnOf = kinds[kind]!(Number(size))
  serveTurns(async () => (await turnOf)(Number(calls)))
} else {
  const { quick } = values
  console.log(machine())
  for (const kind of values.only.split(",")) {
    if (kind === "redis") {
      const sizes = (values.processes ?? (quick ? "1,2" : "1,4,16,64")).split(",").map(Number)
      await processes(sizes, Number(values.seconds ?? (quick ? 0.5 : 5)))
      continue
    }
    if (kind === "cores") {
      await cores({
        sizes: (values.processes ?? (quick ? "1,2" : "1,2,4")).split(",").map(Number),
        rounds: Number(values.rounds ?? (quick ? 1 : 3)),
        seconds: Number(values.seconds ?? (quick ? 0.5 : 10)),
        warmup: Number(values.warmup ?? (quick ? 0.2 : 15))
      })
      continue
    }
    const found = growing[kind]
    if (found === undefined)
      throw new Error(`--only ${kind}: expected some of ${Object.keys(growing).join()},redis,cores`)
    const sizes = quick ? [1, 20].map((each) => Math.max(each, kind === "prefixes" ? 20 : 1)) : found.sizes
    const calls = Number(values.calls ?? (quick ? 200 : 20_000))
    await within(kind, { ...found, sizes: [...new Set(sizes)] }, Number(values.rounds ?? (quick ? 1 : 5)), calls)
  }
}
