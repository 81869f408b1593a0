/**
 * A cap of a dollar a day on two gateways that share a Redis server, each a process of its own, under 30 clients of the official SDK
 * at once; and the same for three processes of the library.
 */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { message } from "../../../test/support/httpProvider.ts"
import * as Redis from "../../redis/test/server.ts"

const model = "claude-sonnet-5-5"
/** A thousand tokens of output cost a cent; a call may use three times as many. */
const [used, most] = [990, 3_000]
const centsOf = (calls: number): number => (calls * (used * 10 + 10 * 2)) / 10_000

const bin = resolve(import.meta.dirname, "../../cli/src/bin.ts")
const node = (...args: ReadonlyArray<string>): ChildProcess =>
  spawn(process.execPath, ["--conditions=@floodgate/source", ...args], { stdio: ["ignore", "pipe", "ignore"] })

/** A provider that takes half a second for an answer. */
const provider = async () => {
  let calls = 0
  const server = createServer((request, response) => {
    request.resume()
    calls++
    setTimeout(() => {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(message(10, used, model)))
    }, 500)
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  return {
    url: `http://127.0.0.1:${(address as { port: number }).port}`,
    calls: () => calls,
    close: () => server.close()
  }
}

const lineOf = async (child: ChildProcess, pattern: RegExp): Promise<string> => {
  for await (const line of createInterface(child.stdout!)) {
    const found = pattern.exec(line)
    if (found !== null) return found[1] ?? line
  }
  throw new Error("the process ended")
}

describe("a dollar a day", { timeout: 300_000 }, () => {
  it.skipIf(Redis.skipped !== undefined)("is one dollar for two gateways and 30 clients", async () => {
    const redis = await Redis.start()
    const upstream = await provider()
    const folder = mkdtempSync(join(tmpdir(), "floodgate-caps-"))
    const config = join(folder, "gateway.json")
    writeFileSync(
      config,
      JSON.stringify({ upstreams: { anthropic: upstream.url }, rules: [{ cap: { dollars: 1, per: "day" } }] })
    )
    const gateways = [1, 2].map(() => node(bin, "gateway", "--config", config, "--port", "0", "--redis", redis.url))
    try {
      const urls = await Promise.all(gateways.map((child) => lineOf(child, /listening on (\S+)/)))
      const statuses: Record<string, number> = {}
      const client = async (n: number): Promise<void> => {
        const anthropic = new Anthropic({ apiKey: "sk-test-key", baseURL: urls[n % 2]! })
        for (let call = 0; call < 10; call++) {
          const status = await anthropic.messages
            .create({ model, max_tokens: most, messages: [{ role: "user", content: "Hello" }] })
            .then(
              () => 200,
              (error: { status?: number }) => error.status ?? 0
            )
          statuses[status] = (statuses[status] ?? 0) + 1
        }
      }
      await Promise.all(Array.from({ length: 30 }, (_, n) => client(n)))
      const cents = centsOf(upstream.calls())
      console.log({ cents, statuses })
      assert.isAtMost(cents, 100)
      assert.isAtLeast(cents, 90)
      assert.deepStrictEqual(statuses, { 200: upstream.calls(), 402: 300 - upstream.calls() })
    } finally {
      for (const child of gateways) child.kill("SIGKILL")
      upstream.close()
      await redis.stop()
      rmSync(folder, { recursive: true })
    }
  })

  it.skipIf(Redis.skipped !== undefined)("is one dollar for three processes of the library", async () => {
    const redis = await Redis.start()
    const worker = join(import.meta.dirname, "sharedCaps.worker.ts")
    const workers = [1, 2, 3].map(() => node(worker, redis.url))
    try {
      const said = await Promise.all(workers.map((child) => lineOf(child, /^(\{.*\})$/)))
      const all = said.map((line) => JSON.parse(line) as { sent: number; refused: Record<string, number> })
      const cents = centsOf(all.reduce((sum, { sent }) => sum + sent, 0))
      console.log({ cents, all: said })
      assert.isAtMost(cents, 100)
      assert.isAtLeast(cents, 90)
      for (const { refused } of all) assert.deepStrictEqual(Object.keys(refused), ["SpendCapReached"])
    } finally {
      for (const child of workers) child.kill("SIGKILL")
      await redis.stop()
    }
  })
})
