/**
 * A Redis server of the test's own: on a free port, in a temporary directory, without persistence. `REDIS_SERVER` names
 * another binary, such as `valkey-server`. Where there is none, tests that neither stop the server nor wipe it use the one
 * at `REDIS_URL`.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createClient } from "redis"

const binary = process.env.REDIS_SERVER ?? "redis-server"
export const hasServer = spawnSync(binary, ["--version"]).status === 0

/** Why tests are skipped that need a server of their own, or undefined. */
export const skipped = hasServer ? undefined : `${binary} is not on the PATH`

/** Why tests are skipped that any server will do for, or undefined. */
export const skippedWithoutAny = hasServer || process.env.REDIS_URL ? undefined : `${skipped}, and REDIS_URL is not set`

/** A prefix that no earlier run has used, for a server that outlives the tests. */
export const fresh = (name: string): string => `${name}-${randomBytes(4).toString("hex")}`

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
  /** Kills it and starts an empty one on the same port. */
  readonly restart: (downMillis?: number) => Promise<void>
  readonly stop: () => Promise<void>
}

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

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

/** A server for tests that leave it running: their own, or the one at `REDIS_URL`. */
export const any = async (): Promise<Pick<Server, "url" | "command" | "stop">> => {
  const url = process.env.REDIS_URL
  if (hasServer || url === undefined) return start()
  return { url, command: commandAt(url), stop: () => Promise.resolve() }
}

/** Starts a server. As the one node of a cluster it refuses what concerns keys of more than one slot. */
export const start = async (options: { readonly cluster?: boolean } = {}): Promise<Server> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), "floodgate-redis-"))
  const url = `redis://127.0.0.1:${port}`
  let child: ChildProcess

  const command = commandAt(url)
  const serveAllSlots = async (): Promise<void> => {
    await command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    while (!String(await command("CLUSTER", "INFO")).includes("cluster_state:ok")) await sleep(25)
  }
  const launch = async (): Promise<void> => {
    const own = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
    child = spawn(binary, options.cluster === true ? [...own, "--cluster-enabled", "yes"] : own, { stdio: "ignore" })
    for (let tries = 0; tries < 200; tries++) {
      try {
        await command("PING")
        if (options.cluster === true) await serveAllSlots()
        return
      } catch {
        await sleep(25)
      }
    }
    throw new Error("redis-server does not start")
  }
  const kill = async (): Promise<void> => {
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
