// OpenAI's official client with a governed fetch. Without it most of these calls fail.
//     npm run -s example examples/openai.ts
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"
import OpenAI, { RateLimitError } from "openai"

const agents = Array.from({ length: 12 }, (_, n) => `agent ${n}`)

/** Two questions of 3,000 tokens by each agent, all at once. */
const run = async (client: OpenAI) => {
  let answered = 0
  const ask = async (user: string) => {
    try {
      await client.chat.completions.create({
        model: "gpt-6",
        user,
        max_tokens: 1_000,
        messages: [{ role: "user", content: "x".repeat(12_000) }]
      })
      answered++
    } catch (error) {
      if (!(error instanceof RateLimitError)) throw error
    }
  }
  await Promise.all(agents.flatMap((agent) => [ask(agent), ask(agent)]))
  return answered
}

// A provider that allows 30,000 tokens a second, and 20,000 at once. Like OpenAI it counts the larger of prompt and max_tokens, and
// it counts rejected calls.
const limits = { tokens: { perSecond: 30_000, burst: 20_000 } }
const provider = ProviderServer.layer({
  limits,
  counting: "openai",
  rejections: "charged",
  headers: "exact",
  latency: { baseMillis: 50, perOutputTokenMillis: 0 },
  outputTokens: 50
})

const rejections = async (race: (url: string) => Promise<number>, what: string) => {
  const runtime = ManagedRuntime.make(provider)
  const { stats, url } = await runtime.runPromise(ProviderServer.ProviderServer)
  const answered = await race(`${url}/v1`)
  const { rejected } = await runtime.runPromise(stats)
  console.log(`${what} ${answered} of 24 answered, ${rejected} rejections`)
  await runtime.dispose()
}

await rejections((baseURL) => run(new OpenAI({ apiKey: "none", baseURL })), "by itself:          ")

await rejections(async (baseURL) => {
  await using floodgate = Floodgate.create({ limits })
  return await run(new OpenAI({ apiKey: "none", baseURL, fetch: floodgate.fetch, maxRetries: 0 }))
}, "with a governed fetch:")
