/** How the provider at an address counts. */
import { assert, describe, it } from "@effect/vitest"
import * as Floodgate from "floodgate/promise"

/** A quota, so that its level shows what a call has used. Its prompt is expected to have 10,000 tokens, and has 10. */
const limits = { tokens: { total: 1_000_000 } }
const answer = {
  id: "c1",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: 5 }
}

/** The tokens that a call has used after its answer. */
const usedAt = async (url: string): Promise<number> => {
  await using floodgate = Floodgate.create({ limits, fetch: async () => Response.json(answer) })
  const body = JSON.stringify({
    model: "m",
    max_tokens: 5_000,
    messages: [{ role: "user", content: "x".repeat(27_000) }]
  })
  await (await floodgate.fetch(url, { method: "POST", headers: { authorization: "Bearer k" }, body })).text()
  const { pools } = await floodgate.status()
  return 1_000_000 - Math.min(...Object.values(pools).map(({ dimensions }) => dimensions.tokens!.level))
}

describe("a call", () => {
  it("counts as the larger of its max_tokens and its real prompt at OpenAI, and where nothing else is known", async () => {
    for (const url of [
      "https://api.openai.com/v1/chat/completions",
      "https://api.groq.com/openai/v1/chat/completions",
      "https://res.azure.com.example.com/v1/chat/completions"
    ]) {
      assert.strictEqual(await usedAt(url), 5_000, url)
    }
  })

  it("counts as the estimated sum at Azure, which its host or its path tells", async () => {
    for (const url of [
      "https://res.openai.azure.com/openai/v1/chat/completions",
      "https://res.openai.azure.com:8443/openai/v1/chat/completions",
      "https://llm.example.com/openai/deployments/gpt/chat/completions"
    ]) {
      assert.isAtLeast(await usedAt(url), 14_000, url)
    }
  })
})
