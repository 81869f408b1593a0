/** The protocols that are known. */
import { anthropic } from "./anthropic.ts"
import { openaiRequests } from "./openaiRequests.ts"
import { openaiChat } from "./openaiChat.ts"
import { openaiResponses } from "./openaiResponses.ts"
import { openaiEmbeddings } from "./openaiEmbeddings.ts"
import { gemini } from "./gemini.ts"
import { geminiEmbeddings } from "./geminiEmbeddings.ts"
import { geminiInteractions } from "./geminiInteractions.ts"
import { bedrockConverse } from "./bedrockConverse.ts"
import { cohere } from "./cohere.ts"
import { mistral } from "./mistral.ts"
import { mistralConversations } from "./mistralConversations.ts"
import { ollama } from "./ollama.ts"
import { llamaCpp } from "./llamaCpp.ts"
import type { Protocol } from "./models.ts"

/**
 * The protocols that are known, in the order in which the governed `fetch` asks them: the first that recognises a request applies.
 *
 * **Example** (One of your own before all others)
 *
 * ```ts
 * import * as Floodgate from "floodgate/promise"
 * import { type Protocol, protocols } from "floodgate/protocol"
 *
 * declare const mine: Protocol
 *
 * const floodgate = Floodgate.create({ protocols: [mine, ...Object.values(protocols)] })
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const protocols = {
  /** Anthropic's Messages API, including message threads. */
  anthropic,
  /** OpenAI's legacy completions, image generations, speech and moderations, under any base URL. */
  openaiRequests,
  /** OpenAI's Chat Completions, under any base URL. */
  openaiChat,
  /** OpenAI's Responses, including stored conversations. */
  openaiResponses,
  /** OpenAI's embeddings, under any base URL. */
  openaiEmbeddings,
  /** Gemini's generateContent and streamGenerateContent, in the Gemini API and on Vertex AI. */
  gemini,
  /** Gemini's embedContent and batchEmbedContents, in the Gemini API and on Vertex AI. */
  geminiEmbeddings,
  /** Gemini's Interactions, in the Gemini API and on Vertex AI. */
  geminiInteractions,
  /** Bedrock's Converse and ConverseStream. */
  bedrockConverse,
  /** Cohere's chat (`/v2/chat`), embeddings (`/v2/embed`, `/v1/embed`) and reranking (`/v2/rerank`, `/v1/rerank`), under any base URL. */
  cohere,
  /** Mistral's agents (`/v1/agents/completions`), FIM (`/v1/fim/completions`) and OCR (`/v1/ocr`). */
  mistral,
  /** Mistral's conversations: to start one, to add to it, and to restart it. */
  mistralConversations,
  /** Ollama's own API: `/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings`, under any base URL. */
  ollama,
  /** The own API of llama.cpp's server: `/completion` and `/infill`, under any base URL but one that ends in `/api`. */
  llamaCpp
} satisfies Readonly<Record<string, Protocol>>
