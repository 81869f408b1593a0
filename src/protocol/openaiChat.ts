/**
 * OpenAI's Chat Completions, which most other services speak as well: Azure OpenAI, Groq, Mistral, xAI, DeepSeek,
 * OpenRouter, vLLM, Ollama.
 *
 * Sources:
 *
 * - https://developers.openai.com/api/reference/resources/chat
 * - https://developers.openai.com/api/docs/guides/rate-limits
 */
import { injectUsageRequest, isUsageChunk, usageInsertion } from "./chatUsage.ts"
import { failureOf } from "./errors.ts"
import { at, characters, isRecord, largestOf, listOf, nameOf, parseJson } from "./json.ts"
import {
  agentOfRequest,
  countsOf,
  deploymentOf,
  errorIn,
  errorOf,
  finishReasonOf,
  keptFor,
  outcomeOf,
  reasons,
  tierOf
} from "./openai.ts"
import {
  type Answer,
  emptyAnswer,
  limitsInHeaders,
  outputOf,
  type Protocol,
  type Route,
  withCounts,
  withVersion
} from "./protocol.ts"
import { jsonWhitespace, refusalResponse, sseComment, sseEvent } from "./refusal.ts"
import { PrefixReader } from "./prefixes.ts"
import { sizeOf } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

const completions = /\/chat\/completions(?<rest>\/.*)?$/
/** A POST to a model's path is a Gemini call. */
const models = /^(?:GET|DELETE) \/(?:.*\/)?v\d+\/models(?:\/.*)?$/
const others =
  /^\/(?:.*\/)?v\d+\/(?:files|batches|completions|moderations|images|audio|uploads|vector_stores|assistants|threads|fine_tuning|evals|containers|videos|realtime|live|organization|projects|skills|chatkit|content_provenance_checks|decisions|safety|webhook_endpoints|webhook_event_types|agents(?!\/completions)|vaults)(?:\/.*)?$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const found = completions.exec(path)
  if (found === null) {
    return others.test(path) || models.test(`${method} ${path}`) ? { operation: "passThrough", path } : undefined
  }
  const isCall = method === "POST" && found.groups?.["rest"] === undefined
  return {
    operation: isCall ? "generate" : "passThrough",
    model: deploymentOf(path),
    path: path.startsWith("/chat/") ? withVersion(path, "v1") : path
  }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const prompt = new PrefixReader()
  const { sum } = prompt
  prompt.schema(body["response_format"])
  prompt.schema(body["tools"])
  prompt.schema(body["functions"])
  prompt.messages(body["messages"])
  const stream = body["stream"] === true
  return {
    ...sizeOf(sum),
    prefixes: prompt.prefixes(keptFor(body)),
    model: route.model ?? nameOf(body["model"]),
    // Services read one name of the limit or the other. If a request has both, either may apply.
    ...outputOf(largestOf([body["max_completion_tokens"], body["max_tokens"]]), body["n"]),
    // At OpenRouter the effort is in an object, as in the Responses API.
    thinking: reasons(body["reasoning_effort"]) || reasons(at(body, "reasoning", "effort")),
    stream,
    ...tierOf(body["service_tier"]),
    continues: undefined,
    stored: sum.stored === true,
    needsUsageRequest: stream && at(body, "stream_options", "include_usage") !== true
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

const withUsage = (answer: Answer, usage: unknown): Answer =>
  isRecord(usage)
    ? withCounts(answer, countsOf(usage["prompt_tokens"], usage["prompt_tokens_details"], usage["completion_tokens"]))
    : answer

const readAnswer = (body: unknown): Answer => ({
  ...withUsage(emptyAnswer, at(body, "usage")),
  id: nameOf(at(body, "id")),
  model: nameOf(at(body, "model")),
  finishReason: finishReasonOf(body),
  ...outcomeOf(body)
})

/** Characters of output in a delta: its texts, for which services have different names, and the arguments of tools. */
const lengthOf = (delta: Readonly<Record<string, unknown>>): number => {
  const { content, function_call: called, reasoning, reasoning_content: thought, refusal, tool_calls: tools } = delta
  let length = characters(content) + characters(refusal) + characters(thought) + characters(reasoning)
  for (const tool of listOf(tools)) length += characters(at(tool, "function", "arguments"))
  return length + characters(at(called, "arguments"))
}

/** Whether a delta has content: the first one only names the role, with an empty text. */
const hasContent = (delta: object): boolean =>
  Object.entries(delta).some(
    ([name, value]) =>
      name !== "role" && value !== null && value !== "" && !(Array.isArray(value) && value.length === 0)
  )

/** Adds a chunk to an answer. This runs for every event of a stream, so it creates one object and no array. */
const step = (answer: Answer, chunk: Readonly<Record<string, unknown>>): Answer => {
  const error = errorIn(chunk)
  if (error !== undefined) return { ...answer, error }
  let { started, uncounted } = answer
  let finishReason: string | undefined
  for (const choice of listOf(chunk["choices"])) {
    if (!isRecord(choice)) continue
    const { delta } = choice
    finishReason ??= nameOf(choice["finish_reason"])
    if (!isRecord(delta)) continue
    uncounted += lengthOf(delta)
    started ||= hasContent(delta)
  }
  const { continuation, counts } = answer
  const next = {
    id: nameOf(chunk["id"]) ?? answer.id,
    model: nameOf(chunk["model"]) ?? answer.model,
    finishReason: finishReason ?? answer.finishReason,
    continuation,
    counts,
    uncounted,
    started,
    // Some services close the stream without `[DONE]`.
    complete: answer.complete || finishReason !== undefined,
    error: answer.error
  }
  return withUsage(next, chunk["usage"])
}

const observe: Protocol["observe"] = (answer, { data }) => {
  if (data === "") return answer
  if (data === "[DONE]") return { ...answer, complete: true }
  const chunk = parseJson(data)
  return isRecord(chunk) ? step(answer, chunk) : answer
}

/**
 * OpenAI's Chat Completions, under any base URL.
 *
 * **Details**
 *
 * A stream reports its usage only if the request has `stream_options.include_usage`, in an additional chunk without choices.
 * For callers that do not request it, `usageRequest` adds the option and recognises the chunk, so that it can be removed again.
 * Prompt tokens include those read from a cache and written to it; {@link Answer.counts} separates them.
 *
 * **Example** (Asking for usage)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const body = protocols.openaiChat.usageRequest?.inject('{"model":"gpt-6","stream":true}')
 *
 * body // => '{"stream_options":{"include_usage":true},"model":"gpt-6","stream":true}'
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.1.0
 */
export const openaiChat: Protocol = {
  name: "openai-chat",
  provider: "openai",
  match: matchRoute,
  describe,
  agentOf: agentOfRequest,
  answer: readAnswer,
  observe,
  limits: limitsInHeaders,
  failure: failureOf,
  refuse: (refusal) => refusalResponse(refusal, { error: errorOf(refusal) }),
  refuseInStream: (refusal) => sseEvent(undefined, { error: errorOf(refusal) }),
  keepAlive: { stream: sseComment, whole: jsonWhitespace },
  usageRequest: { inject: injectUsageRequest, insertion: usageInsertion, isExtra: isUsageChunk }
}
