/** Servers that npm has started end with npm, however it ends. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { connect } from "node:net"
import { createInterface } from "node:readline"
import { root } from "../../../../test/support/modules.ts"

const groups = new Set<ChildProcess>()

/** Starts a command by npm in its own process group, and waits for the address that it prints. */
const start = async (...args: ReadonlyArray<string>) => {
  const npm = spawn("npm", ["run", "-s", "floodgate", "--", ...args], {
    cwd: root,
    detached: true,
    stdio: ["ignore", "pipe", "inherit"]
  })
  groups.add(npm)
  for await (const line of createInterface({ input: npm.stdout })) {
    const port = /http:\/\/\S+?:(\d+)/.exec(line)?.[1]
    if (port !== undefined) return { npm, port: Number(port) }
  }
  return assert.fail("it printed no address")
}

const isOpen = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false))
    socket.on("connect", () => socket.destroy())
  })

afterAll(() => {
  for (const { pid } of groups) {
    try {
      process.kill(-pid!, "SIGKILL")
    } catch {
      // It has ended.
    }
  }
})

describe.skipIf(process.platform === "win32")("a server that npm has started", () => {
  for (const command of [
    ["provider", "--port", "0"],
    ["gateway", "--port", "0"]
  ]) {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      it(`ends when npm is killed: ${command[0]}, ${signal}`, async () => {
        const { npm, port } = await start(...command)
        assert.isTrue(await isOpen(port))
        const ended = once(npm, "exit")
        npm.kill(signal)
        await ended
        while (await isOpen(port)) await new Promise((resolve) => setTimeout(resolve, 100))
      })
    }
  }
})
