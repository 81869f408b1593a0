/**
 * A Redis server for one test, on a free port and in a temporary directory. It is `redis-server`, or else `valkey-server`;
 * `REDIS_SERVER` names another binary.
 */
import * as Effect from "effect/Effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createClient } from "redis"

const candidates =
  process.env.REDIS_SERVER === undefined ? ["redis-server", "valkey-server"] : [process.env.REDIS_SERVER]

/** The servers that are installed. */
export const binaries = candidates.filter((name) => spawnSync(name, ["--version"]).status === 0)
export const hasServer = binaries.length > 0

/** Why tests that need a server are skipped, or undefined. */
export const skipped = hasServer ? undefined : `${candidates.join(" or ")} is not on the PATH`
if (skipped !== undefined && process.env.CI) throw new Error(`${skipped}: on CI these tests have to run`)

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  await once(server, "close")
  return typeof address === "object" && address !== null ? address.port : 0
}

export interface Server {
  readonly url: string
  readonly pid: () => number
  readonly signal: (signal: NodeJS.Signals) => void
  /** Runs a command on a connection of its own. */
  readonly command: (...args: ReadonlyArray<string>) => Promise<unknown>
  /** Kills it and starts another one on the same port, either empty or with the data of the last `SAVE`. */
  readonly restart: (downMillis?: number) => Promise<void>
  readonly stop: () => Promise<void>
}

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Waits until it holds. */
export const until = async (condition: () => Promise<boolean>): Promise<void> => {
  for (const end = performance.now() + 20_000; performance.now() < end; await sleep(25)) {
    if (await condition()) return
  }
  throw new Error("the server does not come to the state that a test waits for")
}

const commandAt =
  (url: string) =>
  async (...args: ReadonlyArray<string>): Promise<unknown> => {
    const client = createClient({ url, socket: { reconnectStrategy: false } })
    client.on("error", () => {})
    await client.connect()
    try {
      return await client.sendCommand([...args])
    } finally {
      client.destroy()
    }
  }

interface Options {
  readonly binary?: string | undefined
  /**
   * Whether it belongs to a cluster: as its one node, or as one that `startCluster` gives its slots. It then refuses what
   * concerns keys of more than one slot, or of another's.
   */
  readonly cluster?: "alone" | "member" | undefined
  /** More flags. */
  readonly flags?: ReadonlyArray<string> | undefined
  /** What its file of configuration says. A Sentinel is one, and rewrites the file. */
  readonly config?: string | undefined
}

/** What still runs, with its directory: a worker that ends in the middle of a test leaves nothing behind. */
const running = new Map<ChildProcess, string>()
process.on("exit", () => {
  for (const [child, directory] of running) {
    child.kill("SIGKILL")
    rmSync(directory, { recursive: true, force: true })
  }
})

const serveAllSlots = async (command: Server["command"]): Promise<void> => {
  await command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
  await until(async () => String(await command("CLUSTER", "INFO")).includes("cluster_state:ok"))
}

/** Starts a server. */
export const start = async ({ binary = binaries[0]!, cluster, config, flags = [] }: Options = {}): Promise<Server> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), "floodgate-redis-"))
  const url = `redis://127.0.0.1:${port}`
  const file = join(directory, "redis.conf")
  if (config !== undefined) writeFileSync(file, config)
  const general = [...(config === undefined ? [] : [file]), "--port", String(port), "--bind", "127.0.0.1"]
  const own = [...general, ...(config === undefined ? ["--save", "", "--appendonly", "no"] : []), "--dir", directory]
  // A node that is silent for two seconds is replaced; its bus is on a port of its own, since the usual one may be too high.
  const ofCluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
  const bus = cluster === undefined ? [] : [...ofCluster, "--cluster-port", String(await freePort())]
  let child: ChildProcess

  const command = commandAt(url)
  const launch = async (): Promise<void> => {
    child = spawn(binary, [...own, ...bus, ...flags], { stdio: "ignore" })
    running.set(child, directory)
    await until(() => command("PING").then(Boolean, () => false))
    if (cluster === "alone") await serveAllSlots(command)
  }
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, "exit")
    child.kill("SIGKILL")
    await gone
    running.delete(child)
  }
  await launch()
  return {
    url,
    pid: () => child.pid!,
    signal: (signal) => void child.kill(signal),
    command,
    restart: async (downMillis = 0) => {
      await kill()
      await sleep(downMillis)
      await launch()
    },
    stop: async () => {
      await kill()
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

const idOf = async (node: Server) => String(await node.command("CLUSTER", "MYID"))
const infoOf = async (node: Server, section: string) => String(await node.command("INFO", section))
/** Stops all that have started, if one of them has not. */
const startAll = async (starts: ReadonlyArray<Promise<Server>>): Promise<ReadonlyArray<Server>> => {
  const settled = await Promise.allSettled(starts)
  const servers = settled.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []))
  if (servers.length === starts.length) return servers
  await Promise.all(servers.map((server) => server.stop()))
  throw new Error("a server of several has not started")
}

export interface Cluster {
  /** Three that share the slots. */
  readonly masters: ReadonlyArray<Server>
  /** What takes the place of the first one when it dies; with `replicas` 3, of each. */
  readonly replicas: ReadonlyArray<Server>
  readonly replica: Server
  readonly stop: () => Promise<void>
}

/** Starts a cluster of three masters, of which the first or all have a replica. */
export const startCluster = async (replicaCount: 1 | 3 = 1): Promise<Cluster> => {
  const count = 3 + replicaCount
  const nodes = await startAll(Array.from({ length: count }, () => start({ cluster: "member" })))
  const stop = async () => void (await Promise.all(nodes.map((node) => node.stop())))
  try {
    const masters = nodes.slice(0, 3)
    const replicas = nodes.slice(3)
    const [first] = masters as [Server]
    const meet = async (node: Server) => {
      const [, busPort = ""] = /@(\d+)/.exec(String(await node.command("CLUSTER", "NODES"))) ?? []
      await first.command("CLUSTER", "MEET", "127.0.0.1", new URL(node.url).port, busPort)
    }
    const share = 16_384 / 3
    await Promise.all(
      masters.map((node, i) =>
        node.command("CLUSTER", "ADDSLOTSRANGE", String(Math.ceil(i * share)), String(Math.ceil((i + 1) * share) - 1))
      )
    )
    await Promise.all(nodes.slice(1).map(meet))
    const knowsAll = async (node: Server) =>
      String(await node.command("CLUSTER", "INFO")).includes(`cluster_known_nodes:${count}`)
    for (const node of nodes) await until(() => knowsAll(node))
    for (const [i, replica] of replicas.entries()) {
      const id = await idOf(masters[i]!)
      await until(() => replica.command("CLUSTER", "REPLICATE", id).then(Boolean, () => false))
      await until(async () => (await infoOf(replica, "replication")).includes("master_link_status:up"))
    }
    const isWhole = async (node: Server) => {
      const slots = await node.command("CLUSTER", "SLOTS")
      const known = (slots as ReadonlyArray<ReadonlyArray<unknown>>).reduce((sum, range) => sum + range.length - 2, 0)
      return known === count && String(await node.command("CLUSTER", "INFO")).includes("cluster_state:ok")
    }
    for (const node of nodes) await until(() => isWhole(node))
    return { masters, replicas, replica: replicas[0]!, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

export interface Sentinels {
  readonly master: Server
  readonly replica: Server
  readonly sentinels: ReadonlyArray<Server>
  /** The address of the master by its name, "gate". */
  readonly url: string
  readonly stop: () => Promise<void>
}

/** Starts a master, its replica, and three Sentinels that replace the master when it has been silent for a second. */
export const startSentinels = async (): Promise<Sentinels> => {
  const servers: Array<Server> = []
  const stop = async () => void (await Promise.all(servers.map((server) => server.stop())))
  try {
    const master = await start()
    servers.push(master)
    const { port } = new URL(master.url)
    const replica = await start({ flags: ["--replicaof", "127.0.0.1", port, "--repl-diskless-sync-delay", "0"] })
    servers.push(replica)
    await until(async () => (await infoOf(replica, "replication")).includes("master_link_status:up"))
    const config = [
      `sentinel monitor gate 127.0.0.1 ${port} 2`,
      "sentinel down-after-milliseconds gate 1000",
      "sentinel failover-timeout gate 3000"
    ].join("\n")
    const sentinels = await startAll([1, 2, 3].map(() => start({ config, flags: ["--sentinel"] })))
    servers.push(...sentinels)
    // Each knows the replica and both others.
    for (const sentinel of sentinels) {
      await until(async () => /slaves=1,sentinels=3/.test(await infoOf(sentinel, "sentinel")))
    }
    const hosts = sentinels.map(({ url }) => new URL(url).host)
    return { master, replica, sentinels, url: `redis+sentinel://${hosts.join(",")}/gate`, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** A server for as long as a scope. */
export const scoped = Effect.acquireRelease(
  Effect.promise(() => start()),
  ({ stop }) => Effect.promise(stop)
)
