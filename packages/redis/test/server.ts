/**
 * A Redis server for one test, on a free port and in a temporary directory. It is `redis-server`, or else `valkey-server`;
 * `REDIS_SERVER` names another binary.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
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
}

const serveAllSlots = async (command: Server["command"]): Promise<void> => {
  await command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
  await until(async () => String(await command("CLUSTER", "INFO")).includes("cluster_state:ok"))
}

/** Starts a server. */
export const start = async ({ binary = binaries[0]!, cluster }: Options = {}): Promise<Server> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), "floodgate-redis-"))
  const url = `redis://127.0.0.1:${port}`
  const own = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
  // A node that is silent for two seconds is replaced; its bus is on a port of its own, since the usual one may be too high.
  const ofCluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
  const bus = cluster === undefined ? [] : [...ofCluster, "--cluster-port", String(await freePort())]
  let child: ChildProcess

  const command = commandAt(url)
  const launch = async (): Promise<void> => {
    child = spawn(binary, [...own, ...bus], { stdio: "ignore" })
    await until(() => command("PING").then(Boolean, () => false))
    if (cluster === "alone") await serveAllSlots(command)
  }
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, "exit")
    child.kill("SIGKILL")
    await gone
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

export interface Cluster {
  /** Three that share the slots. */
  readonly masters: ReadonlyArray<Server>
  /** What takes the first one's place when it dies. */
  readonly replica: Server
  readonly stop: () => Promise<void>
}

/** Starts a cluster of three masters, the first with a replica. */
export const startCluster = async (): Promise<Cluster> => {
  const nodes = await Promise.all([0, 1, 2, 3].map(() => start({ cluster: "member" })))
  const [first, second, third, replica] = nodes as [Server, Server, Server, Server]
  const masters = [first, second, third]
  const idOf = async (node: Server) => String(await node.command("CLUSTER", "MYID"))
  const meet = async (node: Server) => {
    const port = new URL(node.url).port
    const [, busPort = ""] = /@(\d+)/.exec(String(await node.command("CLUSTER", "NODES"))) ?? []
    await first.command("CLUSTER", "MEET", "127.0.0.1", port, busPort)
  }
  const share = 16_384 / 3
  await Promise.all(
    masters.map((node, i) =>
      node.command("CLUSTER", "ADDSLOTSRANGE", String(Math.ceil(i * share)), String(Math.ceil((i + 1) * share) - 1))
    )
  )
  await Promise.all([second, third, replica].map(meet))
  const isWhole = async (node: Server) => {
    const info = String(await node.command("CLUSTER", "INFO"))
    return info.includes("cluster_state:ok") && info.includes("cluster_known_nodes:4")
  }
  for (const node of nodes) {
    if (node === replica) {
      await until(async () => String(await replica.command("CLUSTER", "INFO")).includes("cluster_known_nodes:4"))
      const id = await idOf(first)
      await until(() => replica.command("CLUSTER", "REPLICATE", id).then(Boolean, () => false))
      await until(async () => String(await replica.command("INFO", "replication")).includes("master_link_status:up"))
    }
    await until(() => isWhole(node))
  }
  return { masters, replica, stop: async () => void (await Promise.all(nodes.map((node) => node.stop()))) }
}
