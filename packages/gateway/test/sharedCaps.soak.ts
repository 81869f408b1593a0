/**
 * A cap of a dollar a day on two gateways that share a Redis server, each a process of its own, under 30 clients of the official SDK
 * at once; and the same for three processes of the library.
 */
import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import * as Redis from "../../redis/test/server.ts"
import * as Capped from "./cappedGateways.ts"

/** A call costs almost a cent, and may cost three. */
const used = 990
const centsOf = (calls: number): number => 100 * Capped.dollarsOf(calls, used)

describe("a dollar a day", { timeout: 300_000 }, () => {
  it.skipIf(Redis.skipped !== undefined)("is one dollar for two gateways and 30 clients", async () => {
    const redis = await Redis.start()
    const upstream = await Capped.startProvider(used, 500)
    const gateways = Capped.startGateways(upstream.url, 1)
    try {
      const urls = await Promise.all([1, 2].map(() => gateways.start(redis.url, "capped")))
      const statuses: Record<string, number> = {}
      const client = async (n: number): Promise<void> => {
        const anthropic = new Anthropic({ apiKey: "sk-test-key", baseURL: urls[n % 2]! })
        for (let call = 0; call < 10; call++) {
          const status = await anthropic.messages
            .create({
              model: Capped.model,
              max_tokens: Capped.mostTokens,
              messages: [{ role: "user", content: "Hello" }]
            })
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
      await gateways.stop()
      upstream.close()
      await redis.stop()
    }
  })

  it.skipIf(Redis.skipped !== undefined)("is one dollar for three processes of the library", async () => {
    const redis = await Redis.start()
    const worker = join(import.meta.dirname, "sharedCaps.worker.ts")
    const programs = Capped.startPrograms()
    try {
      const said = await Promise.all([1, 2, 3].map(() => programs.start(/^(\{.*\})$/, worker, redis.url)))
      const all = said.map((line) => JSON.parse(line) as { sent: number; refused: Record<string, number> })
      const cents = centsOf(all.reduce((sum, { sent }) => sum + sent, 0))
      console.log({ cents, all: said })
      assert.isAtMost(cents, 100)
      assert.isAtLeast(cents, 90)
      for (const { refused } of all) assert.deepStrictEqual(Object.keys(refused), ["SpendCapReached"])
    } finally {
      await programs.stop()
      await redis.stop()
    }
  })
})
