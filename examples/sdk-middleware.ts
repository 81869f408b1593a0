// A program with the official SDK and without Effect gets budget and retries by one line, the middleware.
//     npm run -s example examples/sdk-middleware.ts
import Anthropic, { RateLimitError } from "@anthropic-ai/sdk"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"

const agents = Array.from({ length: 12 }, (_, n) => `agent ${n}`)

/** Two calls of 15,000 tokens by each agent, all agents at once; the second call is a stream. */
const run = async (client: Anthropic) => {
  let answered = 0
  let rejected = 0
  await Promise.all(
    agents.map(async (agent) => {
      const params: Anthropic.MessageCreateParamsNonStreaming = {
        model: "claude-sonnet-5",
        max_tokens: 200,
        metadata: { user_id: agent },
        messages: [{ role: "user", content: "x".repeat(60_000) }]
      }
      const calls = [() => client.messages.create(params), () => client.messages.stream(params).finalMessage()]
      for (const call of calls) {
        try {
          await call()
          answered++
        } catch (error) {
          if (!(error instanceof RateLimitError)) throw error
          rejected++
        }
      }
    })
  )
  return `${answered} answered, ${rejected} failed with 429`
}

// A provider that allows 120,000 tokens a second, and 60,000 at once: 6,000 a second in its own time, which runs 20 times
// faster than ours, so that the example ends soon.
const provider = ManagedRuntime.make(
  ProviderServer.layer({
    limits: { inputTokens: { perSecond: 6_000, burst: 60_000 } },
    timeScale: 20,
    outputTokens: 20
  })
)
const { url } = await provider.runPromise(ProviderServer.ProviderServer)

const plain = new Anthropic({ apiKey: "none", baseURL: url })
console.log(`by itself:           ${await run(plain)}`)

const floodgate = Floodgate.create({ limits: { inputTokens: { perSecond: 120_000, burst: 60_000 } } })
const client = new Anthropic({ apiKey: "none", baseURL: url, middleware: [floodgate.middleware] })
console.log(`with the middleware: ${await run(client)}`)

await floodgate.dispose()
await provider.dispose()
