/**
 * Mistral's other requests of a model: agents, the middle of a text (FIM), and OCR. Its chats are those of OpenAI.
 *
 * Sources:
 *
 * - https://docs.mistral.ai/api/endpoint/agents
 * - https://docs.mistral.ai/api/endpoint/fim
 * - https://docs.mistral.ai/api/endpoint/ocr
 */
import { withoutOutput } from "./embeddings.ts"
import { amountOf, at, isRecord, listOf, nameOf } from "./json.ts"
import { errorOf, reasons } from "./openai.ts"
import { openaiChat } from "./openaiChat.ts"
import { outputOf, type Protocol, type Route, withCounts } from "./protocol.ts"
import { type Refusal, refusalResponse, sseEvent } from "./refusal.ts"
import { add, addSchema, newSum, sizeOf } from "./requestSize.ts"

const requests = /^(?:|\/(?:.*\/)?v\d+)\/(?<endpoint>agents\/completions|fim\/completions|ocr)$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const { endpoint } = requests.exec(path)?.groups ?? {}
  if (endpoint === undefined) return undefined
  if (method !== "POST") return { operation: "passThrough", path }
  return { operation: endpoint === "ocr" ? "embed" : "generate", path: path === `/${endpoint}` ? `/v1${path}` : path }
}

/** Mistral reads at most this many pages of a document. Source: https://docs.mistral.ai/capabilities/document_ai/basic_ocr */
const maxPages = 1_000

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const model = nameOf(body["model"]) ?? nameOf(body["agent_id"])
  const sum = newSum()
  if (route.operation === "embed") {
    sum.text = listOf(body["pages"]).length || maxPages
    return { ...sizeOf(sum), ...withoutOutput, model, stored: false }
  }
  for (const name of ["messages", "prompt", "suffix"]) add(sum, body[name])
  addSchema(sum, body["tools"])
  addSchema(sum, body["response_format"])
  return {
    ...sizeOf(sum),
    model,
    ...outputOf(amountOf(body["max_tokens"]), body["n"]),
    thinking: reasons(body["reasoning_effort"]) || body["prompt_mode"] === "reasoning",
    stream: body["stream"] === true,
    continues: undefined,
    // An agent has instructions of its own.
    stored: sum.stored === true || body["agent_id"] !== undefined,
    needsUsageRequest: false
  }
}

/** The form of Mistral's errors, which are not in a property of their own. */
export const errorBody = (refusal: Refusal) => ({ object: "error", ...errorOf(refusal) })

/**
 * Mistral's agents (`/v1/agents/completions`), FIM (`/v1/fim/completions`) and OCR (`/v1/ocr`).
 *
 * **Details**
 *
 * The id of an agent stands for the name of a model. OCR is billed by pages, which take the place of its tokens: a price of 2 dollars
 * for 1,000 pages is `{ input: 2_000, output: 0 }`. A document may have 1,000 pages, unless the request names them.
 *
 * **Example** (What OCR used)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const route = protocols.mistral.match("POST", "/v1/ocr")!
 * const document = { type: "document_url", document_url: "https://example.com/a.pdf" }
 * const answer = protocols.mistral.answer({ model: "mistral-ocr-latest", pages: [], usage_info: { pages_processed: 7 } })
 *
 * protocols.mistral.describe({ model: "mistral-ocr-latest", document, pages: [0, 1] }, route)?.bytes // => 2
 * answer.counts.inputTokens // => 7
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const mistral: Protocol = {
  ...openaiChat,
  name: "mistral",
  provider: "mistral_ai",
  match: matchRoute,
  describe,
  answer: (body) => {
    const answer = openaiChat.answer(body)
    const pages = amountOf(at(body, "usage_info", "pages_processed"))
    return pages === undefined ? answer : withCounts(answer, { inputTokens: pages, outputTokens: 0 })
  },
  refuse: (refusal) => refusalResponse(refusal, errorBody(refusal)),
  refuseInStream: (refusal) => sseEvent(undefined, { error: errorOf(refusal) }),
  usageRequest: undefined
}
