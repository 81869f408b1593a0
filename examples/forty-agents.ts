// Forty agents of five calls each, at once, against the simulated provider that `floodgate provider` serves.
//     npm run -s example examples/forty-agents.ts
import Anthropic from "@anthropic-ai/sdk"
import * as Floodgate from "floodgate/promise"

let rejected = 0
const floodgate = Floodgate.create({ onEvent: ({ type }) => void (type === "rejection" && rejected++) })
const [baseURL = "http://127.0.0.1:8787"] = process.argv.slice(2)
const client = floodgate.anthropic(new Anthropic({ baseURL, apiKey: "test" }))

let answered = 0
let tokens = 0
const agent = async (name: string) => {
  for (let call = 0; call < 5; call++) {
    const { usage } = await client.messages.create({
      model: "claude-sonnet-5",
      max_tokens: 200,
      metadata: { user_id: name }, // the agents share the limit fairly
      messages: [{ role: "user", content: "Read this: ".padEnd(92_000, "all the words of a long document ") }]
    })
    answered++
    tokens += usage.input_tokens
  }
}

const start = performance.now()
const ended = await Promise.allSettled(Array.from({ length: 40 }, (_, n) => agent(`agent ${n}`)))
const seconds = Math.round((performance.now() - start) / 1_000)

// The provider allows 2,000,000 input tokens a minute, and as many at once.
const atLeast = Math.round((60 * Math.max(0, tokens - 2_000_000)) / 2_000_000)
console.log(`${answered} of 200 answered, ${rejected} x 429, ${seconds} s (at least ${atLeast} s)`)
const failed = ended.find((result) => result.status === "rejected")
if (failed !== undefined) console.log(`The first failure: ${failed.reason}`)
await floodgate.dispose()
