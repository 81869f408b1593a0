// An agent with tools and a cap: it reads page after page until its job's tokens are used up, then reports what it has read.
//     npm run -s example examples/tool-agent.ts
import type { Message, ToolResultBlockParam } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import { ProviderSim } from "floodgate/testing"

// -----------------------------------------------------------------------------
// The agent
// -----------------------------------------------------------------------------

const tools: Params["tools"] = [
  {
    name: "read_page",
    description: "Reads a page of the manual",
    input_schema: { type: "object", properties: { page: { type: "number" } }, required: ["page"] }
  }
]

/** Tools run between calls, when nothing is reserved, so they may be slow. */
const useTools = (message: Message): ReadonlyArray<ToolResultBlockParam> =>
  message.content.flatMap((block) => {
    if (block.type !== "tool_use") return []
    const { page } = block.input as { readonly page: number }
    return [
      { type: "tool_result", tool_use_id: block.id, content: `Page ${page}. ${"The gate opens at dawn. ".repeat(100)}` }
    ]
  })

const agent = Effect.fnUntraced(function* (task: string) {
  const messages: Array<Params["messages"][number]> = [{ role: "user", content: task }]
  let pages = 0
  while (true) {
    const call = LlmClient.create({ model: "claude-sonnet-5", max_tokens: 300, tools, messages })
    // The budget refuses the call that would exceed the cap, before anything is sent or counted.
    const message = yield* Effect.catchReason(call, "BudgetError", "QuotaExhausted", ({ asked, left }) =>
      Effect.as(Console.log(`the next call needs about ${asked} tokens, and ${left} are left`), undefined)
    )
    if (message === undefined) return { pages, complete: false }
    const results = useTools(message)
    yield* Console.log(`call ${pages + 1}: ${message.usage.input_tokens} tokens in, ${message.usage.output_tokens} out`)
    if (results.length === 0) return { pages, complete: true }
    pages += results.length
    messages.push({ role: "assistant", content: message.content }, { role: "user", content: [...results] })
  }
})

const program = Effect.gen(function* () {
  const { complete, pages } = yield* agent("When is the gate open? Read the manual, page by page.")
  yield* Console.log(complete ? "Read all of it." : `Stopped by its cap after ${pages} pages: it opens at dawn.`)
})

// -----------------------------------------------------------------------------
// The cap, beside the provider's limits; and a model that always wants the next page
// -----------------------------------------------------------------------------

const limits = { inputTokens: { perMinute: 2_000_000 }, tokens: { total: 12_000 } }

const reply = ({ messages }: Params) => [
  "I need the next page.",
  { type: "tool_use" as const, name: "read_page", input: { page: (messages.length + 1) / 2 } }
]

const live = LlmClient.layerProvider().pipe(
  Layer.provide(Budget.layer({ limits })),
  Layer.provide(ProviderSim.layer({ reply, latency: { baseMillis: 50 } }))
)

await Effect.runPromise(Effect.provide(program, live))
