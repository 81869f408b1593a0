// Another model, or another provider, when the wait would be too long: for each way to use Floodgate without Effect.
//     npm run -s example examples/elsewhere.ts
import Anthropic from "@anthropic-ai/sdk"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"
import OpenAI, { RateLimitError } from "openai"

// The large models allow one call a minute. Calls may wait two seconds; a call that is predicted to wait longer is refused at once.
const scarce = { requests: { perMinute: 1, window: "bucket" } } as const
const plenty = { requests: { perMinute: 1_000 } }
const options: Floodgate.Options = {
  limits: { pools: { "opus-5": scarce, "sonnet-5": plenty, "gpt-6": scarce } },
  callOptions: { maxWaitSeconds: 2 }
}

/** Asks the first model, or the second one if the first call is refused because it would wait. */
const elsewhere = async <A>(
  first: () => Promise<A>,
  second: () => Promise<A>,
  isRefused: (error: unknown) => boolean
) => {
  try {
    return await first()
  } catch (error) {
    if (!isRefused(error)) throw error
    return await second()
  }
}

const isRefused = (error: unknown): boolean => error instanceof Floodgate.RefusedError

/** A way to use Floodgate. The function asks a question and returns the model that answered. */
type Way = (floodgate: Floodgate.Floodgate, url: string) => (question: string) => Promise<string>

const messages = (content: string) => [{ role: "user" as const, content }]

/** Anthropic's SDK with the middleware: another model. The refusal is thrown as it is. */
const middleware: Way = (floodgate, baseURL) => {
  const client = new Anthropic({ apiKey: "none", baseURL, middleware: [floodgate.middleware] })
  const ask = (model: string, question: string) => async () =>
    (await client.messages.create({ model, max_tokens: 100, messages: messages(question) })).model
  return (question) => elsewhere(ask("claude-opus-5", question), ask("claude-sonnet-5", question), isRefused)
}

/** Clients with the governed fetch: another provider. They see the refusal as their own error for a 429. */
const fetch: Way = ({ fetch }, url) => {
  const openai = new OpenAI({ apiKey: "none", baseURL: `${url}/v1`, fetch, maxRetries: 0 })
  const anthropic = new Anthropic({ apiKey: "none", baseURL: url, fetch, maxRetries: 0 })
  return (question) =>
    elsewhere(
      async () => (await openai.chat.completions.create({ model: "gpt-6", messages: messages(question) })).model,
      async () =>
        (await anthropic.messages.create({ model: "claude-sonnet-5", max_tokens: 100, messages: messages(question) }))
          .model,
      (error) => error instanceof RateLimitError
    )
}

/**
 * The AI SDK with the middleware: `generateText({ model: wrapLanguageModel({ model, middleware: floodgate.aiSdk }), prompt })`.
 * The code below does what the SDK does with the middleware, with a model in the form of the SDK's packages.
 */
const aiSdk: Way = ({ aiSdk }) => {
  const modelOf = (modelId: string) => ({
    provider: "amazon-bedrock",
    modelId,
    doGenerate: async () => ({ response: { modelId }, usage: { inputTokens: { total: 10 } } })
  })
  const ask = (modelId: string, text: string) => async () => {
    const params = { prompt: [{ role: "user", content: [{ type: "text", text }] }] }
    const { response } = await aiSdk.wrapGenerate({ params, model: modelOf(modelId) })
    return response.modelId
  }
  return (question) => elsewhere(ask("claude-opus-5", question), ask("claude-sonnet-5", question), isRefused)
}

/** Calls of your own. */
const run: Way = ({ run }) => {
  const ask = (model: string) => () => run({ model, inputTokens: 10 }, async () => model)
  return () => elsewhere(ask("claude-opus-5"), ask("claude-sonnet-5"), isRefused)
}

// A provider that speaks the protocols of both, and answers in 50 ms. In your program it is the real one.
const provider = ManagedRuntime.make(ProviderServer.layer({ latency: { baseMillis: 50 } }))
const { url } = await provider.runPromise(ProviderServer.ProviderServer)

for (const [name, way] of Object.entries({ middleware, fetch, aiSdk, run })) {
  await using floodgate = Floodgate.create(options)
  const ask = way(floodgate, url)
  const models = await Promise.all(["One?", "Two?", "Three?"].map(ask))
  console.log(`${name}: ${models.join(", ")}`)
}

await provider.dispose()
