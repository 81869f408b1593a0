/** The clients, each set up as in its own documentation, with or without our `fetch`. */
import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAI } from "@ai-sdk/openai"
import Anthropic from "@anthropic-ai/sdk"
import { GoogleGenAI } from "@google/genai"
import { ChatAnthropic } from "@langchain/anthropic"
import { ChatOpenAI } from "@langchain/openai"
import { Anthropic as LlamaAnthropic, AnthropicSession } from "@llamaindex/anthropic"
import { OpenAI as LlamaOpenAI } from "@llamaindex/openai"
import { Agent } from "@mastra/core/agent"
import type { MastraModelConfig } from "@mastra/core/llm"
import { generateText, streamText, wrapLanguageModel } from "ai"
import type * as FloodgateAiSdk from "floodgate/ai-sdk"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import OpenAI from "openai"

/** How a client is set up. */
export interface Setup {
  /** The address of the provider, without a version. */
  readonly url: string
  /** Undefined for a client without Floodgate. */
  readonly floodgate:
    | { readonly fetch: typeof globalThis.fetch; readonly middleware: FloodgateAiSdk.Middleware }
    | undefined
}

/** One call: it resolves when the answer is here. */
export type Ask = (prompt: string, agent: string) => Promise<unknown>

export interface Client {
  readonly name: string
  /** Its packages, whose versions are reported. */
  readonly packages: ReadonlyArray<string>
  readonly protocol: "anthropic" | "openai" | "gemini"
  /** What plugs it in. */
  readonly through: string
  readonly make: (setup: Setup) => Ask
}

const models = { anthropic: "claude-sonnet-5", openai: "gpt-6", gemini: "gemini-3-pro" }
const apiKey = "any"

/** The options of every client besides its address: our `fetch`, and with that no retries of its own. */
const governed = ({ floodgate }: Setup) => (floodgate === undefined ? {} : { fetch: floodgate.fetch, maxRetries: 0 })
const fetchOf = ({ floodgate }: Setup) => (floodgate === undefined ? {} : { fetch: floodgate.fetch })
const noRetries = ({ floodgate }: Setup) => (floodgate === undefined ? {} : { maxRetries: 0 })

const messages = (content: string) => [{ role: "user" as const, content }]

const anthropicSdk = (setup: Setup) => new Anthropic({ baseURL: setup.url, apiKey, ...governed(setup) })
const openaiSdk = (setup: Setup) => new OpenAI({ baseURL: `${setup.url}/v1`, apiKey, ...governed(setup) })
const aiAnthropic = (setup: Setup) => createAnthropic({ baseURL: `${setup.url}/v1`, apiKey, ...fetchOf(setup) })
const aiOpenai = (setup: Setup) => createOpenAI({ baseURL: `${setup.url}/v1`, apiKey, ...fetchOf(setup) })

const anthropicRequest = (prompt: string, user_id: string) => ({
  model: models.anthropic,
  max_tokens: 1_000,
  metadata: { user_id },
  messages: messages(prompt)
})

/** The AI SDK's model of Anthropic under the middleware, which has no `fetch` of ours. */
const wrapped = ({ floodgate, url }: Setup) => {
  const model = aiAnthropic({ url, floodgate: undefined })(models.anthropic)
  return floodgate === undefined ? model : wrapLanguageModel({ model, middleware: floodgate.middleware })
}
const named = (agent: string) => ({ providerOptions: { floodgate: { agent } } })

/** `streamText` reports its failure to `onError`, and not to the reader of the text. */
const readText = async (options: Parameters<typeof streamText>[0]): Promise<string> => {
  let failure: { readonly error: unknown } | undefined
  const { textStream } = streamText({ ...options, onError: (event) => void (failure = event) })
  let text = ""
  for await (const part of textStream) text += part
  if (failure !== undefined) throw failure.error
  return text
}

export const clients: ReadonlyArray<Client> = [
  {
    name: "Anthropic SDK, whole",
    packages: ["@anthropic-ai/sdk"],
    protocol: "anthropic",
    through: "`fetch`",
    make: (setup) => {
      const client = anthropicSdk(setup)
      return (prompt, agent) => client.messages.create(anthropicRequest(prompt, agent))
    }
  },
  {
    name: "Anthropic SDK, streamed",
    packages: ["@anthropic-ai/sdk"],
    protocol: "anthropic",
    through: "`fetch`",
    make: (setup) => {
      const client = anthropicSdk(setup)
      return (prompt, agent) => client.messages.stream(anthropicRequest(prompt, agent)).finalMessage()
    }
  },
  {
    name: "openai, Chat Completions",
    packages: ["openai"],
    protocol: "openai",
    through: "`fetch`",
    make: (setup) => {
      const client = openaiSdk(setup)
      return (prompt, user) =>
        client.chat.completions.create({ model: models.openai, user, messages: messages(prompt) })
    }
  },
  {
    name: "openai, Chat Completions streamed",
    packages: ["openai"],
    protocol: "openai",
    through: "`fetch`",
    make: (setup) => {
      const client = openaiSdk(setup)
      return (prompt, user) =>
        client.chat.completions.stream({ model: models.openai, user, messages: messages(prompt) }).finalChatCompletion()
    }
  },
  {
    name: "openai, Responses",
    packages: ["openai"],
    protocol: "openai",
    through: "`fetch`",
    make: (setup) => {
      const client = openaiSdk(setup)
      return (input) => client.responses.create({ model: models.openai, input })
    }
  },
  {
    name: "AI SDK, Anthropic",
    packages: ["ai", "@ai-sdk/anthropic"],
    protocol: "anthropic",
    through: "`createAnthropic({ fetch })`",
    make: (setup) => {
      const model = aiAnthropic(setup)(models.anthropic)
      return (prompt) => generateText({ model, prompt, ...noRetries(setup) })
    }
  },
  {
    name: "AI SDK, Anthropic streamed",
    packages: ["ai", "@ai-sdk/anthropic"],
    protocol: "anthropic",
    through: "`createAnthropic({ fetch })`",
    make: (setup) => {
      const model = aiAnthropic(setup)(models.anthropic)
      return (prompt) => readText({ model, prompt, ...noRetries(setup) })
    }
  },
  {
    name: "AI SDK, Anthropic, as a middleware",
    packages: ["ai", "@ai-sdk/anthropic"],
    protocol: "anthropic",
    through: "`wrapLanguageModel`",
    make: (setup) => {
      const model = wrapped(setup)
      return (prompt, agent) => generateText({ model, prompt, ...named(agent) })
    }
  },
  {
    name: "AI SDK, Anthropic streamed, as a middleware",
    packages: ["ai", "@ai-sdk/anthropic"],
    protocol: "anthropic",
    through: "`wrapLanguageModel`",
    make: (setup) => {
      const model = wrapped(setup)
      return (prompt, agent) => readText({ model, prompt, ...named(agent) })
    }
  },
  {
    name: "AI SDK, OpenAI (Responses)",
    packages: ["ai", "@ai-sdk/openai"],
    protocol: "openai",
    through: "`createOpenAI({ fetch })`",
    make: (setup) => {
      const model = aiOpenai(setup)(models.openai)
      return (prompt) => generateText({ model, prompt, ...noRetries(setup) })
    }
  },
  {
    name: "AI SDK, OpenAI (Responses) streamed",
    packages: ["ai", "@ai-sdk/openai"],
    protocol: "openai",
    through: "`createOpenAI({ fetch })`",
    make: (setup) => {
      const model = aiOpenai(setup)(models.openai)
      return (prompt) => readText({ model, prompt, ...noRetries(setup) })
    }
  },
  {
    name: "LangChain, Anthropic",
    packages: ["@langchain/anthropic"],
    protocol: "anthropic",
    through: "`clientOptions: { fetch }`",
    make: (setup) => {
      const model = new ChatAnthropic({
        model: models.anthropic,
        apiKey,
        maxTokens: 1_000,
        anthropicApiUrl: setup.url,
        clientOptions: fetchOf(setup),
        ...noRetries(setup)
      })
      return (prompt) => model.invoke(prompt)
    }
  },
  {
    name: "LangChain, OpenAI",
    packages: ["@langchain/openai"],
    protocol: "openai",
    through: "`configuration: { fetch }`",
    make: (setup) => {
      const model = new ChatOpenAI({
        model: models.openai,
        apiKey,
        configuration: { baseURL: `${setup.url}/v1`, ...fetchOf(setup) },
        ...noRetries(setup)
      })
      return (prompt) => model.invoke(prompt)
    }
  },
  {
    name: "LlamaIndex, Anthropic",
    packages: ["@llamaindex/anthropic"],
    protocol: "anthropic",
    through: "`AnthropicSession({ fetch })`",
    make: (setup) => {
      const session = new AnthropicSession({ baseURL: setup.url, apiKey, maxRetries: 10, ...governed(setup) })
      const model = new LlamaAnthropic({ model: models.anthropic, maxTokens: 1_000, apiKey, session })
      return (prompt) => model.chat({ messages: messages(prompt) })
    }
  },
  {
    name: "LlamaIndex, OpenAI",
    packages: ["@llamaindex/openai"],
    protocol: "openai",
    through: "`additionalSessionOptions: { fetch }`",
    make: (setup) => {
      const model = new LlamaOpenAI({
        model: models.openai,
        apiKey,
        baseURL: `${setup.url}/v1`,
        additionalSessionOptions: fetchOf(setup),
        ...noRetries(setup)
      })
      return (prompt) => model.chat({ messages: messages(prompt) })
    }
  },
  {
    name: "Mastra Agent",
    packages: ["@mastra/core", "@ai-sdk/anthropic"],
    protocol: "anthropic",
    through: "`createAnthropic({ fetch })`",
    make: (setup) => {
      const agent = new Agent({
        id: "storm",
        name: "storm",
        instructions: "Answer.",
        // Its type for a model differs slightly from the AI SDK's.
        model: aiAnthropic(setup)(models.anthropic) as unknown as MastraModelConfig
      })
      return (prompt) => agent.generate(prompt)
    }
  },
  {
    name: "Google GenAI",
    packages: ["@google/genai"],
    protocol: "gemini",
    through: "`httpOptions: { fetch }`",
    make: (setup) => {
      const client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: setup.url, ...fetchOf(setup) } })
      return (contents) => client.models.generateContent({ model: models.gemini, contents })
    }
  },
  {
    name: "Google GenAI, streamed",
    packages: ["@google/genai"],
    protocol: "gemini",
    through: "`httpOptions: { fetch }`",
    make: (setup) => {
      const client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: setup.url, ...fetchOf(setup) } })
      return async (contents) => {
        const stream = await client.models.generateContentStream({ model: models.gemini, contents })
        let text = ""
        for await (const chunk of stream) text += chunk.text ?? ""
        return text
      }
    }
  }
]

/** The installed version of a package. */
export const versionOf = (name: string): string => {
  const file = join(import.meta.dirname, "node_modules", name, "package.json")
  return (JSON.parse(readFileSync(file, "utf8")) as { readonly version: string }).version
}
