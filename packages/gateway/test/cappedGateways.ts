/** Gateways with one cap that they keep in Redis, each a process of its own, and the provider behind them. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { message } from "../../../test/support/httpProvider.ts"

/** A thousand tokens of its output cost a cent, and ten thousand of its input. */
export const model = "claude-sonnet-5-5"
/** The output that a call asks for, which costs three cents. */
export const mostTokens = 3_000
const inputTokens = 10
const bin = resolve(import.meta.dirname, "../../cli/src/bin.ts")

/** A provider that answers after a while, always with the same number of tokens. */
export const startProvider = async (outputTokens: number, millis: number) => {
  let calls = 0
  const answer = JSON.stringify(message(inputTokens, outputTokens, model))
  const server = createServer((request, response) => {
    request.resume()
    calls++
    setTimeout(() => response.writeHead(200, { "content-type": "application/json" }).end(answer), millis)
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls: () => calls,
    close: () => server.close()
  }
}

/** The dollars that calls cost, each of which used so much output. */
export const dollarsOf = (calls: number, outputTokens: number): number =>
  (calls * (outputTokens * 10 + inputTokens * 2)) / 1_000_000

/** Runs programs on the sources of this repository. */
export const startPrograms = () => {
  const children: Array<ChildProcess> = []
  return {
    /** Starts a program. Returns what the first line that it prints of a pattern has in the pattern's group. */
    start: async (pattern: RegExp, ...args: ReadonlyArray<string>): Promise<string> => {
      const child = spawn(process.execPath, ["--conditions=@floodgate/source", ...args], {
        stdio: ["ignore", "pipe", "pipe"]
      })
      children.push(child)
      let said = ""
      child.stderr.on("data", (data: Buffer) => (said += data.toString()))
      for await (const line of createInterface(child.stdout)) {
        const [, found] = pattern.exec(line) ?? []
        if (found !== undefined) return found
      }
      throw new Error(`the program has ended: ${said}`)
    },
    stop: async () => {
      const exits = children.map((child) => (child.exitCode === null ? once(child, "exit") : undefined))
      for (const child of children) child.kill("SIGKILL")
      await Promise.all(exits)
    }
  }
}

/** Gateways in front of a provider, with a cap of so many dollars a day. */
export const startGateways = (upstream: string, dollars: number) => {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-capped-"))
  const config = join(folder, "gateway.json")
  const rules = [{ name: "all", cap: { dollars, per: "day" } }]
  writeFileSync(config, JSON.stringify({ upstreams: { anthropic: upstream }, rules }))
  const programs = startPrograms()
  return {
    /** Returns the address on which it listens. */
    start: (redis: string, prefix: string): Promise<string> => {
      const args = ["gateway", "--config", config, "--port", "0", "--redis", redis, "--redis-prefix", prefix]
      return programs.start(/listening on (\S+)/, bin, ...args)
    },
    stop: async () => {
      await programs.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
