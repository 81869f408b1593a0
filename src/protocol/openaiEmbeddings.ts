/**
 * OpenAI's embeddings, which Azure OpenAI, Mistral, Voyage, vLLM and others serve as well. They have input and no output.
 *
 * Source: https://developers.openai.com/api/reference/resources/embeddings
 */
import { observe, readAnswer, withoutOutput } from "./embeddings.ts"
import { amountOf, at, isRecord, nameOf } from "./json.ts"
import { addInput, deploymentOf } from "./openai.ts"
import { openaiChat } from "./openaiChat.ts"
import { type Protocol, type Route, withVersion } from "./protocol.ts"
import { jsonBytes, newSum, sizeOf } from "./requestSize.ts"

/** `/embeddings` at the root, after a version, after `openai`, or after a deployment of Azure. */
const embeddings = /^(?:|\/(?:.*\/)?(?:v\d[a-z\d]*|openai|deployments\/[^/]+))\/embeddings$/

const matchRoute = (method: string, path: string): Route | undefined =>
  embeddings.test(path)
    ? {
        operation: method === "POST" ? "embed" : "passThrough",
        model: deploymentOf(path),
        path: path === "/embeddings" ? withVersion(path, "v1") : path
      }
    : undefined

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const sum = newSum()
  if (body["input"] === undefined) sum.text = jsonBytes(body)
  else addInput(sum, body["input"])
  return {
    ...sizeOf(sum),
    ...withoutOutput,
    model: route.model ?? nameOf(body["model"]),
    stored: false
  }
}

/** Voyage reports only the total. */
const tokensOf = (usage: unknown): unknown => amountOf(at(usage, "prompt_tokens")) ?? at(usage, "total_tokens")

/**
 * OpenAI's embeddings, under any base URL.
 *
 * **Example** (What a request asks for, and what it used)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const route = protocols.openaiEmbeddings.match("POST", "/v1/embeddings")!
 * const body = { model: "text-embedding-3-small", input: ["Hello", "world"] }
 * const answer = protocols.openaiEmbeddings.answer({ object: "list", data: [], usage: { prompt_tokens: 2, total_tokens: 2 } })
 *
 * route.operation // => "embed"
 * protocols.openaiEmbeddings.describe(body, route)?.bytes // => 10
 * answer.counts.inputTokens // => 2
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.4.0
 */
export const openaiEmbeddings: Protocol = {
  ...openaiChat,
  name: "openai-embeddings",
  match: matchRoute,
  describe,
  answer: (body) => readAnswer(body, at(body, "model"), tokensOf(at(body, "usage"))),
  observe
}
