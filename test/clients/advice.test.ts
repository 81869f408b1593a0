/**
 * Orchestrators with real clients that ask the gateway before they start agents: Mastra, and streams of Anthropic's SDK, as
 * sub-agents of Claude Code send them. The incident with a tenth of its tokens, twenty times as fast, or four times with
 * `FLOODGATE_TEST_SIZE=full`, which takes five minutes.
 */
import { assert, describe, it } from "@effect/vitest"
import { Client as McpClient } from "@modelcontextprotocol/sdk/client/index.js"
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Forecast from "floodgate/Forecast"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { ProviderServer } from "floodgate/testing/server"
import { setTimeout as sleep } from "node:timers/promises"
import { join } from "node:path"
import { sized } from "../support/size.ts"
import { type Client, clients } from "./clients.ts"

/** How much faster than the incident. The clients' own time counts as many times as much, so the full size is slower. */
const speed = sized(20, 4)
const limits = { tokens: { perSecond: 6_000 * speed, burst: 20_000 } }
const latency = { baseMillis: 500 / speed, perInputTokenMillis: 0.1 / speed, perOutputTokenMillis: 100 / speed }
const first = { inputTokens: 14_980, outputTokens: 20 }
const later = { inputTokens: 1_380, outputTokens: 20 }
const figures = {
  calls: 5,
  firstInputTokens: 14_980,
  inputTokens: 1_380,
  outputTokens: 20,
  secondsPerCall: 3 / speed
}

const world = Effect.gen(function* () {
  const server = yield* ProviderServer.make({ limits, latency, outputTokens: 20, rejections: "charged" })
  const budget = Agents.layer.pipe(Layer.provide(Budget.layer({ limits })))
  const live = yield* Layer.build(Layer.provideMerge(Governor.layer(), budget))
  const { url } = yield* Effect.provide(Gateway.make({ upstreams: { anthropic: server.url } }), live)
  return { server, url }
})

/** Runs agents as the answers of the gateway say. */
const orchestrated = async (client: Client, url: string, count: number) => {
  const ask = client.make({ url, floodgate: undefined })
  let max = 0
  let lost = 0
  const agent = async (name: string): Promise<void> => {
    for (let call = 0; call < 5; call++) {
      const { inputTokens } = call === 0 ? first : later
      await ask(`${name}, call ${call}. `.padEnd(4 * inputTokens, "words and more "), name).catch(() => lost++)
    }
  }
  const running = new Set<Promise<void>>()
  for (let started = 0; started < count;) {
    const question = { ...figures, agents: count - started, running: running.size, asker: "test" }
    const query = new URLSearchParams(
      Object.entries(question).map(([name, value]): [string, string] => [name, String(value)])
    )
    const response = await fetch(`${url}/floodgate/advice?${query}`)
    const { agents, expiresAfterSeconds } = (await response.json()) as { agents: number; expiresAfterSeconds: number }
    const atOnce = Math.max(1, running.size + agents)
    const expired = sleep(1_000 * expiresAfterSeconds, true)
    // An orchestrator that asks again whenever an agent ends follows the highest of many answers.
    do {
      while (running.size < atOnce && started < count) {
        const one: Promise<void> = agent(`agent-${started++}`).finally(() => running.delete(one))
        running.add(one)
      }
      max = Math.max(max, running.size)
    } while (started < count && (await Promise.race([expired, ...running])) !== true)
  }
  await Promise.all(running)
  return { max, lost }
}

const bestSeconds = (agents: number): number => {
  const workload = Forecast.uniform({ agents, calls: 5, first, later })
  return Math.min(
    ...Array.from({ length: agents }, (_, index) =>
      Duration.toSeconds(Forecast.make(workload, { limits, latency, atOnce: index + 1 }).duration)
    )
  )
}

describe("an orchestrator that asks the gateway", () => {
  for (const name of ["Mastra Agent", "Anthropic SDK, streamed"]) {
    const client = clients.find((client) => client.name === name)!
    for (const count of [12, 40, 104]) {
      it(
        `runs ${count} agents of ${name}, and loses no call`,
        () =>
          Effect.gen(function* () {
            const { server, url } = yield* world
            const began = performance.now()
            const { lost, max } = yield* Effect.promise(() => orchestrated(client, url, count))
            const seconds = (performance.now() - began) / 1_000
            const { rejected } = yield* server.stats
            const ratio = seconds / bestSeconds(count)
            // The time depends on the machine, and with it the advice, so they are printed only.
            console.log(
              `${name}: ${count} agents, max ${max}, ${seconds.toFixed(1)} s, ${ratio.toFixed(2)} of the best, ${rejected} 429s`
            )
            assert.strictEqual(lost, 0)
            if (count > 100) assert.isAtMost(max, sized(count / 2, 30))
          }).pipe(Effect.scoped, Effect.runPromise),
        300_000
      )
    }
  }
})

describe("floodgate mcp", () => {
  it("answers the official MCP client over stdio", () =>
    Effect.gen(function* () {
      const { url } = yield* world
      yield* Effect.promise(async () => {
        const bin = join(import.meta.dirname, "../../packages/cli/src/bin.ts")
        const args = ["--conditions=@floodgate/source", bin, "mcp", "--gateway", url]
        const client = new McpClient({ name: "test", version: "1" })
        await client.connect(new StdioClientTransport({ command: process.execPath, args }))
        const { tools } = await client.listTools()
        assert.deepStrictEqual(tools.map(({ name }) => name).sort(), ["advise", "forecast", "status"])
        const { content, structuredContent } = await client.callTool({
          name: "advise",
          arguments: { ...figures, agents: 104 }
        })
        assert.match(JSON.stringify(content), /Start \d+ of 104 agents now/)
        assert.strictEqual((structuredContent as { source: string }).source, `the gateway at ${url}`)
        await client.close()
      })
    }).pipe(Effect.scoped, Effect.runPromise))
})
