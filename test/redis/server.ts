/**
 * A Redis server of the test's own: on a free port, in a temporary directory, without persistence. With `REDIS_URL` the
 * tests that do not kill the server use that one.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createClient } from "redis"

export const hasServer = spawnSync("redis-server", ["--version"]).status === 0

/** Why these tests are skipped, or undefined. */
export const skipped = hasServer ? undefined : "redis-server is not on the PATH"

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

export const start = async (): Promise<Server> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), "floodgate-redis-"))
  const url = `redis://127.0.0.1:${port}`
  let child: ChildProcess

  const command = async (...args: ReadonlyArray<string>): Promise<unknown> => {
    const client = createClient({ url, socket: { reconnectStrategy: false } })
    client.on("error", () => {})
    await client.connect()
    try {
      return await client.sendCommand([...args])
    } finally {
      client.destroy()
    }
  }
  const launch = async (): Promise<void> => {
    child = spawn(
      "redis-server",
      ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory],
      { stdio: "ignore" }
    )
    for (let tries = 0; tries < 200; tries++) {
      try {
        await command("PING")
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
