/**
 * Anthropic's Messages API, at Anthropic, on Vertex AI, in Microsoft Foundry, and as Bedrock's `invoke`.
 *
 * Sources:
 *
 * - https://platform.claude.com/docs/en/api/messages
 * - https://platform.claude.com/docs/en/build-with-claude/streaming
 * - https://platform.claude.com/docs/en/api/errors
 */
import { exceptionOf, isException } from "./amazonFrames.ts"
import type { MessageEvent } from "../Messages.ts"
import { failureOf } from "./errors.ts"
import { textOfEvent } from "./messages.ts"
import { amountOf, at, characters, isRecord, listOf, nameOf, parseJson, textOf } from "./json.ts"
import {
  type Answer,
  type Counts,
  decodeSegment,
  emptyAnswer,
  limitsInHeaders,
  type Protocol,
  receivedOf,
  type Route,
  withCounts,
  withVersion
} from "./protocol.ts"
import { jsonWhitespace, type Refusal, refusalResponse, sseEvent } from "./refusal.ts"
import { PrefixReader } from "./prefixes.ts"
import { agentOf } from "./lineage.ts"
import { sizeOf } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

/** `/messages`, at the root, after a version, or after the name of the API as in Foundry's `/anthropic/v1/messages`. */
const messages = /^(?:|\/(?:.*\/)?(?:v\d[a-z\d]*|anthropic))\/messages(?<rest>\/.*)?$/
/** Vertex AI: `.../publishers/anthropic/models/MODEL:rawPredict`. */
const vertex = /\/publishers\/anthropic\/models\/(?<model>[^/:]+):(?<method>rawPredict|streamRawPredict)$/
/** Bedrock: `/model/MODEL/invoke`. Its streams are Amazon's binary frames. */
const bedrock = /^\/model\/(?<model>[^/]+)\/(?<method>invoke|invoke-with-response-stream)$/
/** A POST to a model's path is a Gemini call. */
const models = /^GET \/(?:.*\/)?v\d+\/models(?:\/.*)?$/
const others =
  /^\/(?:.*\/)?v\d+\/(?:files|complete|organizations|skills|agents(?!\/completions)|sessions|environments|deployments|deployment_runs|dreams|memory_stores|user_profiles|tunnels|traces|vaults)(?:\/.*)?$/

const matchVertex = (path: string): Route | undefined => {
  const { method, model = "" } = vertex.exec(path)?.groups ?? {}
  if (method === undefined) return undefined
  if (model === "count-tokens") return { operation: "countTokens", path }
  return { operation: method === "rawPredict" ? "generate" : "stream", model: decodeSegment(model), path }
}

const matchBedrock = (path: string): Route | undefined => {
  const { method, model = "" } = bedrock.exec(path)?.groups ?? {}
  if (method === undefined) return undefined
  return { operation: method === "invoke" ? "generate" : "stream", model: decodeSegment(model), path }
}

const matchRoute = (method: string, path: string): Route | undefined => {
  const found = messages.exec(path)
  if (found === null) {
    if (others.test(path) || models.test(`${method} ${path}`)) return { operation: "passThrough", path }
    return method === "POST" ? (matchVertex(path) ?? matchBedrock(path)) : undefined
  }
  const rest = found.groups?.["rest"]
  const route = { path: path.startsWith("/messages") ? withVersion(path, "v1") : path }
  if (rest?.startsWith("/batches") === true) return { ...route, operation: "passThrough" }
  if (method !== "POST") return undefined
  if (rest === undefined) return { ...route, operation: "generate" }
  return rest === "/count_tokens" ? { ...route, operation: "countTokens" } : undefined
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Claude Code sends about 200 characters. A longer text could take as long to parse as a whole body. */
const maxUserLength = 4_096

/** Claude Code's `metadata.user_id` is a JSON text that names the session. Other clients send a name. */
const agentOfRequest: Protocol["agentOf"] = (body, header) => {
  const user = textOf(at(body, "metadata", "user_id"))
  const isJson = user !== undefined && user.length <= maxUserLength && user.startsWith("{")
  return agentOf(header, isJson ? at(parseJson(user), "session_id") : undefined, user)
}

/** Source: https://platform.claude.com/docs/en/about-claude/pricing, "Data residency pricing". */
export const withinTheUs = 1.1

/** The answer whose thread a request continues. */
const continuedBy = (body: unknown): string | undefined =>
  at(body, "thread", "type") === "continue" ? nameOf(at(body, "thread", "previous_message_id")) : undefined

/**
 * The prompt in the order of Anthropic's cache. Betas, the format and the speed change all of it; the choice of a tool, thinking and what
 * is left out of long conversations change the messages only.
 *
 * Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching, "What invalidates the cache"
 */
const promptOf = (body: Readonly<Record<string, unknown>>, betas: unknown): PrefixReader => {
  const prompt = new PrefixReader()
  prompt.setting(betas ?? undefined)
  prompt.setting(body["speed"])
  prompt.schema(at(body, "output_config", "format") ?? body["output_format"])
  prompt.schema(body["tools"])
  prompt.system(body["system"])
  prompt.setting(body["tool_choice"])
  prompt.setting(body["thinking"])
  if (body["context_management"] !== undefined) prompt.setting(body["context_management"])
  prompt.messages(body["messages"])
  prompt.mark(body["cache_control"])
  return prompt
}

/** Describes what a request asks for; see {@link Protocol.describe}. */
export const describe: Protocol["describe"] = (body, route, header) => {
  if (!isRecord(body)) return undefined
  // Bedrock serves models with other bodies at the same paths.
  if (!Array.isArray(body["messages"]) && !/claude|anthropic/.test(route.model ?? "claude")) return undefined
  const prompt = promptOf(body, header?.("anthropic-beta"))
  const { sum } = prompt
  const prefixes = prompt.prefixes(undefined)
  const continues = continuedBy(body)
  return {
    ...sizeOf(sum),
    caches: continues !== undefined || prefixes.marks.length > 0,
    prefixes,
    model: route.model ?? nameOf(body["model"]),
    maxTokens: amountOf(body["max_tokens"]),
    thinking: (textOf(at(body, "thinking", "type")) ?? "disabled") !== "disabled",
    stream: route.operation === "stream" || body["stream"] === true,
    continues,
    stored: continues !== undefined || sum.stored === true,
    // The fast mode has limits of its own: https://platform.claude.com/docs/en/build-with-claude/fast-mode
    ...(body["speed"] === "fast" ? { fast: true, tier: "fast" } : undefined),
    ...(body["inference_geo"] === "us" ? { priceFactor: withinTheUs } : undefined),
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/**
 * The counts of a `usage` object; a count of null is unchanged. Compactions of a long conversation count towards the limits, but the
 * provider leaves them out of its sums, so their tokens are added.
 */
const countsOf = (usage: unknown): Counts => {
  if (!isRecord(usage)) return {}
  const compactions = listOf(usage["iterations"]).filter((step) => at(step, "type") === "compaction")
  const countOf = (name: string): number | undefined => {
    const own = amountOf(usage[name])
    if (own === undefined) return undefined
    return compactions.reduce<number>((sum, step) => sum + (amountOf(at(step, name)) ?? 0), own)
  }
  const forAnHour = amountOf(at(usage, "cache_creation", "ephemeral_1h_input_tokens"))
  return {
    inputTokens: countOf("input_tokens"),
    cacheCreationTokens: countOf("cache_creation_input_tokens"),
    ...(forAnHour === undefined ? undefined : { cacheCreationLongTokens: forAnHour }),
    cacheReadTokens: countOf("cache_read_input_tokens"),
    outputTokens: countOf("output_tokens")
  }
}

/** Takes in the parts of a message that both a whole answer and `message_start` have. */
const withMessage = (answer: Answer, message: unknown): Answer => {
  const fields = isRecord(message) ? message : {}
  const id = nameOf(fields["id"])
  return {
    ...withCounts(answer, countsOf(fields["usage"])),
    id,
    // A thread is continued from the answer's own id.
    continuation: id,
    model: nameOf(fields["model"])
  }
}

/** Reads a whole answer; see {@link Protocol.answer}. */
export const readAnswer = (body: unknown): Answer => {
  if (!isRecord(body)) return emptyAnswer
  if (body["type"] === "error") return { ...emptyAnswer, error: body }
  return {
    ...withMessage(emptyAnswer, body),
    finishReason: nameOf(body["stop_reason"]),
    started: true,
    complete: true
  }
}

/** Characters of output in a delta: text, thinking, or the input of a tool. */
const lengthOf = (delta: unknown): number =>
  characters(at(delta, "text")) + characters(at(delta, "thinking")) + characters(at(delta, "partial_json"))

/** Takes in the parsed data of one event of a stream; an unknown one changes nothing, as Anthropic asks of clients. */
export const step = (answer: Answer, event: unknown): Answer => {
  switch (at(event, "type")) {
    case "message_start":
      return withMessage(answer, at(event, "message"))
    case "content_block_start":
      return answer.started ? answer : { ...answer, started: true }
    case "content_block_delta":
      return { ...answer, started: true, uncounted: answer.uncounted + lengthOf(at(event, "delta")) }
    case "message_delta":
      return {
        ...withCounts(answer, countsOf(at(event, "usage"))),
        finishReason: nameOf(at(event, "delta", "stop_reason")) ?? answer.finishReason
      }
    case "message_stop":
      return { ...answer, complete: true }
    case "error":
      return { ...answer, error: event }
    default:
      return answer
  }
}

/** The part of a streamed answer that has been read. It is mutable and belongs to one stream. */
export class PartialAnswer {
  answer: Answer = emptyAnswer
  private text = ""

  /** Takes in an event. */
  take(event: MessageEvent): void {
    this.answer = step(this.answer, event)
    this.text += textOfEvent(event)
  }

  get hasBegun(): boolean {
    return this.answer !== emptyAnswer
  }

  /** The part that has arrived, for an error. */
  get soFar(): ReturnType<typeof receivedOf> {
    return receivedOf(this.answer, this.text)
  }
}

const bytesOf = (base64: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
  } catch {
    return new Uint8Array(0)
  }
}
const decoder = /* @__PURE__ */ new TextDecoder()

/** The event in a frame of Bedrock's, in base64. */
const inFrame = (frame: unknown): unknown => parseJson(decoder.decode(bytesOf(textOf(at(frame, "bytes")) ?? "")))

const observe: Protocol["observe"] = (answer, { data, name }) => {
  if (data === "" || name === "ping") return answer
  const event = parseJson(data)
  if (name === "chunk") return step(answer, inFrame(event))
  if (isException(name)) return { ...answer, error: exceptionOf(name, event) }
  // An error from a proxy may not be JSON.
  return name === "error" ? { ...answer, error: event ?? data } : step(answer, event)
}

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** A refusal is no `overloaded_error`, because Claude Code retries that only three times within 4 s. */
const errorTypes = {
  rateLimited: "rate_limit_error",
  unavailable: "api_error",
  tooLarge: "request_too_large",
  spendLimited: "billing_error",
  jobLimited: "billing_error",
  notFound: "not_found_error",
  invalid: "invalid_request_error",
  timedOut: "timeout_error",
  unauthorized: "authentication_error",
  forbidden: "permission_error",
  badGateway: "api_error",
  noProvider: "api_error",
  executed: "api_error",
  notImplemented: "invalid_request_error",
  upgradeRequired: "invalid_request_error"
} as const

const errorBody = ({ kind, message }: Refusal) => ({
  type: "error",
  error: { type: errorTypes[kind], message },
  request_id: null
})

/**
 * Anthropic's Messages API, including message threads.
 *
 * **Details**
 *
 * It recognises `/v1/messages` with and without its version, `count_tokens`, batches, models and files, Vertex AI's
 * `publishers/anthropic/models/M:rawPredict` and `:streamRawPredict`, Foundry's `/anthropic/v1/messages`, and Bedrock's
 * `/model/M/invoke` and `/model/M/invoke-with-response-stream`.
 *
 * **Example** (A turn that continues a thread)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const body = {
 *   model: "claude-sonnet-5",
 *   max_tokens: 1_024,
 *   thread: { type: "continue", previous_message_id: "msg_1" },
 *   messages: [{ role: "user", content: "And now?" }]
 * }
 * const route = protocols.anthropic.match("POST", "/v1/messages")!
 * const description = protocols.anthropic.describe(body, route)
 *
 * description?.continues // => "msg_1"
 * description?.stored // => true
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.1.0
 */
export const anthropic: Protocol = {
  name: "anthropic-messages",
  provider: "anthropic",
  match: matchRoute,
  describe,
  agentOf: agentOfRequest,
  answer: readAnswer,
  observe,
  limits: limitsInHeaders,
  failure: failureOf,
  refuse: (refusal) => refusalResponse(refusal, errorBody(refusal)),
  refuseInStream: (refusal) => sseEvent("error", errorBody(refusal)),
  streamFormat: (url) => (url.includes("/invoke-with-response-stream") ? "frames" : "events"),
  keepAlive: { stream: /* @__PURE__ */ sseEvent("ping", { type: "ping" }), whole: jsonWhitespace }
}
