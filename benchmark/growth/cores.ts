/**
 * A gateway of one, two and four processes, in front of a provider that answers at once: the processor time of the gateway and of
 * Redis for a call, and the scripts that Redis runs for it. The callers and the provider share this process.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Redis from "../../packages/redis/test/server.ts"
import { thousands } from "../../src/domain/words.ts"
import { cells } from "../gateway/cells.ts"
import { call, connect, disconnect, repeated } from "../gateway/load.ts"
import type { Server } from "../gateway/processes.ts"
import * as Upstream from "../gateway/upstream.ts"
import { spreadOf, tableOf } from "../support/inTurns.ts"
import { progress } from "../support/progress.ts"
import { microsOf, ratio, usageOf } from "./usage.ts"

export interface CoresPlan {
  readonly sizes: ReadonlyArray<number>
  readonly rounds: number
  readonly seconds: number
  /** Seconds for each process of a gateway, in which its code is compiled. */
  readonly warmup: number
}

const bin = join(import.meta.dirname, "../../packages/gateway/src/command/bin.ts")
/** Few enough that two cores have time left, and the same for all rows. */
const perSecond = 200
/** Connections go to the processes in turn. */
const connections = 16

/** Calls at random times, spread over all connections. */
const spread: typeof repeated = async (clients, to, bodies, seconds) => {
  const until = performance.now() + seconds * 1_000
  let count = 0
  const loop = async (client: (typeof clients)[number]): Promise<void> => {
    while (true) {
      await sleep((-Math.log(1 - Math.random()) * 1_000 * connections) / perSecond)
      if (performance.now() > until) return
      await call(client, to, bodies[count++ % bodies.length]!)
    }
  }
  await Promise.all(clients.map(loop))
  return count
}

const idle: typeof repeated = async (_, __, ___, seconds) => {
  await sleep(1_000 * seconds)
  return 0
}

/** The calls of each table. Those that wait find the limit that all processes share used up, all the time. */
const ways = { "calls that never wait": spread, "calls that wait": repeated, "without calls": idle }
type Way = keyof typeof ways

interface Running extends Server {
  readonly child: ChildProcess
  /** The supervisor first, if there are several. */
  readonly pids: ReadonlyArray<number>
  /** Makes all processes read another limit, and waits until they have. */
  readonly limit: (perSecond: number) => Promise<void>
}

const start = async (size: number, redis: string | undefined, folder: string): Promise<Running> => {
  const config = join(folder, "gateway.json")
  const upstream = await Upstream.start()
  const configure = (perSecond: number) =>
    writeFileSync(
      config,
      JSON.stringify({
        upstreams: { anthropic: upstream.url },
        limits: { requests: { perSecond, burst: perSecond } }
      })
    )
  configure(1e6)
  const shared = redis === undefined ? [] : ["--redis", redis, "--redis-prefix", `cores-${size}`]
  const args = [...process.execArgv, bin, "--port", "0", "--config", config, "--processes", `${size}`, ...shared]
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] })
  let said = ""
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()))
  const line = await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve)
    child.once("exit", (code) => reject(new Error(`the gateway ended with ${code}: ${said}`)))
  })
  const found = size === 1 ? "" : execFileSync("pgrep", ["-P", String(child.pid)], { encoding: "utf8" })
  child.once("exit", upstream.close)
  return {
    name: `${size} processes`,
    url: /http:\S+/.exec(String(line))![0],
    headers: {},
    child,
    pids: [child.pid!, ...found.split("\n").filter(Boolean).map(Number)],
    limit: async (perSecond) => {
      configure(perSecond)
      said = ""
      child.kill("SIGHUP")
      while (said.split("Reloaded").length - 1 < size) await sleep(20)
    }
  }
}

/** What a call, or a second without calls, took. */
interface Took {
  readonly scripts: number
  readonly redis: number
  readonly gateway: number
  readonly supervisor: number
  readonly perSecond: number
}

const turn = async (gateway: Running, server: Redis.Server, way: Way, seconds: number): Promise<Took> => {
  const clients = connect(gateway, connections)
  const { bodies } = cells["w4"]!()
  // Each connection is made, and processes that share a limit know of each other.
  await ways[way](clients, gateway, bodies, seconds / 3)
  const used = () => gateway.pids.map(microsOf)
  const before = { redis: await usageOf(server), gateway: used() }
  const from = performance.now()
  const count = await ways[way](clients, gateway, bodies, seconds)
  const took = (performance.now() - from) / 1_000
  const after = { redis: await usageOf(server), gateway: used() }
  await disconnect(clients)
  const divisor = count === 0 ? took : count
  const micros = after.gateway.map((each, n) => each - before.gateway[n]!)
  return {
    scripts: (after.redis.scripts - before.redis.scripts) / divisor,
    redis: (after.redis.micros - before.redis.micros) / divisor,
    gateway: micros.reduce((sum, each) => sum + each, 0) / divisor,
    supervisor: (micros.length === 1 ? 0 : micros[0]!) / divisor,
    perSecond: count / took
  }
}

/** Measures a gateway in all ways. */
const measured = async (gateway: Running, server: Redis.Server, plan: CoresPlan, title: string) => {
  const { bodies } = cells["w4"]!()
  progress(`${title}: warming up`)
  const clients = connect(gateway, connections)
  await repeated(clients, gateway, bodies, plan.warmup * Math.max(1, gateway.pids.length - 1))
  await disconnect(clients)
  const found = new Map<Way, ReadonlyArray<Took>>()
  for (const way of Object.keys(ways) as ReadonlyArray<Way>) {
    progress(`${title}: ${way}`)
    if (way === "calls that wait") await gateway.limit(perSecond)
    const turns: Array<Took> = []
    for (let round = 0; round < plan.rounds; round++) turns.push(await turn(gateway, server, way, plan.seconds))
    found.set(way, turns)
  }
  return found
}

const rowOf = (title: string, turns: ReadonlyArray<Took>, first: number): ReadonlyArray<string> => {
  const median = (name: keyof Took): number => spreadOf(turns.map((took) => took[name])).median
  const gateway = turns.map((took) => took.gateway)
  return [
    title,
    median("scripts").toFixed(2),
    median("redis").toFixed(0),
    `${median("gateway").toFixed(0)} (${Math.min(...gateway).toFixed(0)}-${Math.max(...gateway).toFixed(0)})`,
    ratio(median("gateway"), first),
    median("supervisor").toFixed(0),
    thousands(Math.round(median("perSecond")))
  ]
}

/** Prints a table for calls that never wait, one for calls that wait, and one without calls. */
export const cores = async (plan: CoresPlan): Promise<void> => {
  const server = await Redis.start()
  const folder = mkdtempSync(join(tmpdir(), "floodgate-cores-"))
  const running = new Set<ChildProcess>()
  // Its processes end with it.
  process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")))
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void server.stop().finally(() => process.exit(130)))
  }
  const rows = new Map<Way, Array<ReadonlyArray<string>>>()
  const firsts = new Map<Way, number>()
  const kinds = [{ size: 1, redis: undefined }, ...plan.sizes.map((size) => ({ size, redis: server.url }))]
  for (const { redis, size } of kinds) {
    const title = redis === undefined ? "1, without Redis" : `${size}`
    const gateway = await start(size, redis, folder)
    running.add(gateway.child)
    for (const [way, turns] of await measured(gateway, server, plan, title)) {
      const first = firsts.get(way) ?? spreadOf(turns.map((took) => took.gateway)).median
      firsts.set(way, first)
      rows.set(way, [...(rows.get(way) ?? []), rowOf(title, turns, first)])
    }
    const ended = once(gateway.child, "exit")
    gateway.child.kill("SIGTERM")
    await ended
    running.delete(gateway.child)
  }
  await server.stop()
  rmSync(folder, { recursive: true, force: true })
  for (const [way, each] of rows) {
    const unit = way === "without calls" ? "a second" : "a call"
    const head = [
      `processes: ${way}`,
      `scripts ${unit}`,
      `us of Redis ${unit}`,
      `us of the gateway ${unit}`,
      "ratio",
      `us of its supervisor ${unit}`,
      "calls a second"
    ]
    console.log(`\n${tableOf(head, each)}`)
  }
  console.log(
    "\nNot shown: how many calls a second more processes take. That needs a core for each, and more for Redis, the callers and the provider."
  )
}
