import { assert, describe, it } from "@effect/vitest"
import * as Agents from "floodgate/Agents"
import * as Floodgate from "floodgate/promise"

const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
const each = {
  calls: 5,
  first: { inputTokens: 149_800, outputTokens: 200 },
  later: { inputTokens: 13_800, outputTokens: 200 }
}

describe("Floodgate", () => {
  describe("advise", () => {
    it("advises in plain numbers", async () => {
      await using floodgate = Floodgate.create({ limits })
      const advice = await floodgate.advise({ agents: 104, each })
      assert.deepInclude(advice, {
        pool: "default",
        agents: 5,
        job: 104,
        running: 0,
        binding: "tokens",
        rangeSeconds: null
      })
      assert.isAtLeast(advice.endSeconds!, (104 * 206_000 - 200_000) / 60_000)
      assert.deepStrictEqual(advice.each.later, each.later)
      assert.strictEqual(advice.ends[0]?.agents, 1)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(advice)), advice)
    })

    it("starts more agents if they wait for tools between two calls", async () => {
      await using floodgate = Floodgate.create({ limits: { tokens: { perSecond: 20_000, burst: 60_000 } } })
      const work = { calls: 8, first: { inputTokens: 4_000, outputTokens: 200 } }
      const at = async (pause?: number) => floodgate.advise({ agents: 48, each: { ...work, pause } })
      const [busy, resting] = [await at(), await at(10_000)]
      assert.isAbove(resting.agents, 3 * busy.agents)
      assert.strictEqual(resting.each.pauseSeconds, 10)
      assert.isUndefined(busy.each.pauseSeconds)
    })

    it("says for how many agents the cap has room", async () => {
      const prices = { "my-model": { input: 1, output: 1 } }
      await using floodgate = Floodgate.create({ limits, prices, cap: { dollars: 1 } })
      const { agents, binding, caps } = await floodgate.advise({ agents: 104, each, model: "my-model" })
      assert.deepStrictEqual([agents, binding], [4, "spending"])
      assert.strictEqual(caps[0]?.text, '$1.00 of the cap "this floodgate" is left, enough for 4 agents of this kind')
    })

    it("knows what agents did through every way in", async () => {
      await using floodgate = Floodgate.create({ limits })
      for (const agent of ["doc-1", "doc-2"]) {
        const call = { model: "m", agent, inputTokens: 2_000 }
        const used = { inputTokens: 1_500, outputTokens: 70 }
        await floodgate.run(call, async (attempt) => attempt.used(used))
        const lease = await floodgate.limiter.acquire(call)
        lease.succeed(used)
      }
      const { each } = await floodgate.advise({ each: "doc-*" })
      // They have just made two calls each, so they count as halfway.
      assert.deepInclude(each, { calls: 4 })
      assert.deepInclude(each.first, { inputTokens: 1_500, outputTokens: 70 })
    })

    it("asks for no price where nothing is capped", async () => {
      await using floodgate = Floodgate.create({ limits })
      assert.deepStrictEqual((await floodgate.advise({ agents: 104, each })).assumptions, [])
    })

    it("counts all places of a model that was called", async () => {
      const places = ["one", "two"].map((name) => ({
        name,
        url: `https://${name}.example/v1`,
        key: `sk-${name}`,
        limits
      }))
      const fetch: typeof globalThis.fetch = async () => {
        const choices = [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }]
        return Response.json({ id: "1", model: "gpt-6", choices, usage: { prompt_tokens: 9, completion_tokens: 3 } })
      }
      await using floodgate = Floodgate.create({ fetch, places: { models: { "gpt-6": places } } })
      const body = JSON.stringify({ model: "gpt-6", messages: [] })
      await (await floodgate.fetch("https://one.example/v1/chat/completions", { method: "POST", body })).text()
      const both = await floodgate.advise({ agents: 104, each, model: "gpt-6" })
      assert.deepStrictEqual(
        both.places.map(({ name }) => name),
        ["one", "two"]
      )
      const one = await floodgate.advise({ agents: 104, each, model: "gpt-6", places: ["two"] })
      assert.isAbove(both.agents, 1.5 * one.agents)
    })

    it("rejects with an error that names the option or the pools", async () => {
      await using floodgate = Floodgate.create({ limits: { pools: { "opus-5": limits } } })
      const failed = (options: Agents.AdviseOptions) => floodgate.advise(options).catch((error: unknown) => error)
      const invalid = await failed({ agents: 0 })
      assert.instanceOf(invalid, RangeError)
      assert.include(String(invalid), "Floodgate.advise: agents: expected an integer from 1 to 10000, got 0")
      const unknown = await failed({ model: "claude-haiku-5" })
      assert.instanceOf(unknown, Agents.PoolUnclear)
      assert.include(String(unknown), 'No pool is known for "claude-haiku-5"')
    })

    it("rejects once the floodgate is closed", async () => {
      const floodgate = Floodgate.create({ limits })
      await floodgate.dispose()
      assert.instanceOf(await floodgate.advise().catch((error: unknown) => error), Floodgate.ClosedError)
    })
  })
})
