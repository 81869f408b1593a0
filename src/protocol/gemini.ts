/**
 * Gemini's generateContent, in the Gemini API and on Vertex AI.
 *
 * Sources:
 *
 * - https://ai.google.dev/api/generate-content
 * - https://ai.google.dev/gemini-api/docs/rate-limits
 */
import { errorObjectOf, failureOf } from "./errors.ts"
import { signalOfQuota } from "./googleErrors.ts"
import { signalOf } from "./headers.ts"
import { amountOf, at, firstName, isRecord, listOf, nameOf, textOf } from "./json.ts"
import { errorIn } from "./openai.ts"
import {
  type Answer,
  decodeSegment,
  emptyAnswer,
  observeJson,
  outputOf,
  type Protocol,
  type Route,
  withCounts,
  withVersion
} from "./protocol.ts"
import {
  jsonWhitespace,
  type Refusal,
  refusalResponse,
  retryAfterSecondsOf,
  sseComment,
  sseEvent,
  statusOf
} from "./refusal.ts"
import { PrefixReader, usualLifetime } from "./prefixes.ts"
import { agentInHeaders } from "./lineage.ts"
import { jsonBytes, sizeOf } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

/** `models/M:method`, also of tuned models and of Vertex AI's publishers and endpoints. */
const call = /\/(?:models|tunedModels|endpoints)\/(?<model>[^/:]+):(?<method>[a-zA-Z]+)$/
const others = /^\/(?:.*\/)?v\d[a-z]+\d*\/(?:models|tunedModels|files|cachedContents|batches|corpora)(?:\/[^:]*)?$/

const operations: ReadonlyMap<string, Route["operation"]> = new Map([
  ["generateContent", "generate"],
  ["streamGenerateContent", "stream"],
  ["countTokens", "countTokens"]
])

/** Another protocol has the embeddings. */
const embeds: ReadonlySet<string> = new Set(["embedContent", "batchEmbedContents"])

/** Vertex AI serves models of other publishers with the same verbs, such as Claude's `rawPredict`. */
const isOthers = (path: string): boolean => /\/publishers\/(?!google\/)/.test(path)

const matchRoute = (method: string, path: string): Route | undefined => {
  const { method: name, model = "" } = call.exec(path)?.groups ?? {}
  if (isOthers(path) || embeds.has(name ?? "")) return undefined
  if (name === undefined) return others.test(path) ? { operation: "passThrough", path } : undefined
  return {
    operation: (method === "POST" ? operations.get(name) : undefined) ?? "passThrough",
    model: decodeSegment(model),
    path: withVersion(path, "v1beta")
  }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Names in Google's JSON may be in camel case or in snake case. */
const either = (value: unknown, camel: string, snake: string): unknown => at(value, camel) ?? at(value, snake)

const thinks = (config: unknown): boolean => {
  const thinking = either(config, "thinkingConfig", "thinking_config")
  return isRecord(thinking) && either(thinking, "thinkingBudget", "thinking_budget") !== 0
}

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const config = either(body, "generationConfig", "generation_config")
  const prompt = new PrefixReader()
  const { sum } = prompt
  prompt.schema(either(config, "responseSchema", "response_schema"))
  prompt.schema(either(config, "responseJsonSchema", "response_json_schema"))
  prompt.schema(body["tools"])
  prompt.system(either(body, "systemInstruction", "system_instruction"))
  prompt.messages(body["contents"], "parts")
  const cached = either(body, "cachedContent", "cached_content")
  return {
    ...sizeOf(sum),
    prefixes: prompt.prefixes(usualLifetime),
    model: route.model ?? nameOf(body["model"]),
    ...outputOf(
      amountOf(either(config, "maxOutputTokens", "max_output_tokens")),
      either(config, "candidateCount", "candidate_count")
    ),
    thinking: thinks(config),
    stream: route.operation === "stream",
    continues: undefined,
    stored: typeof cached === "string" || sum.stored === true,
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/**
 * The count of the prompt includes what was read from the cache. Results of tools and thinking are counted separately. The
 * counts of a stream are cumulative, and Google's JSON leaves out counts of 0.
 */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  const prompt = amountOf(at(usage, "promptTokenCount"))
  if (prompt === undefined) return answer
  const count = (name: string): number => amountOf(at(usage, name)) ?? 0
  const cacheReadTokens = Math.min(prompt, count("cachedContentTokenCount"))
  return withCounts(answer, {
    inputTokens: prompt - cacheReadTokens + count("toolUsePromptTokenCount"),
    cacheReadTokens,
    outputTokens: count("candidatesTokenCount") + count("thoughtsTokenCount")
  })
}

const partsOf = (body: unknown): ReadonlyArray<unknown> =>
  listOf(at(body, "candidates")).flatMap((candidate) => listOf(at(candidate, "content", "parts")))

/** Characters of output in a part: its text, or a call of a function. */
const lengthOf = (part: unknown): number => {
  const text = textOf(at(part, "text"))
  if (text !== undefined) return text.length
  const called = at(part, "functionCall") ?? at(part, "executableCode")
  return called === undefined ? 0 : jsonBytes(called)
}

/** The reason why the model stopped, or why the prompt was blocked. */
const finishReasonOf = (body: unknown): string | undefined =>
  firstName(listOf(at(body, "candidates")), "finishReason") ?? nameOf(at(body, "promptFeedback", "blockReason"))

/** Takes in a response object: an event of a stream, or a whole answer. */
const step = (answer: Answer, body: unknown): Answer => {
  const error = errorIn(body)
  if (error !== undefined) return { ...answer, error }
  const parts = partsOf(body)
  const finishReason = finishReasonOf(body)
  const uncounted = parts.reduce<number>((sum, part) => sum + lengthOf(part), answer.uncounted)
  return {
    ...withUsage({ ...answer, uncounted }, at(body, "usageMetadata")),
    id: nameOf(at(body, "responseId")) ?? answer.id,
    model: nameOf(at(body, "modelVersion")) ?? answer.model,
    finishReason: finishReason ?? answer.finishReason,
    started: answer.started || parts.some((part) => isRecord(part) && Object.keys(part).length > 0),
    complete: answer.complete || finishReason !== undefined
  }
}

/** A whole answer, or a list of response objects if a stream was requested without `alt=sse`. */
const readAnswer = (body: unknown): Answer => {
  const objects = Array.isArray(body) ? listOf(body) : [body]
  const answer = objects.reduce<Answer>(step, emptyAnswer)
  const isWhole = answer.error === undefined && objects.some(isRecord)
  return { ...answer, uncounted: 0, started: isWhole, complete: isWhole }
}

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const statuses = {
  rateLimited: "RESOURCE_EXHAUSTED",
  unavailable: "UNAVAILABLE",
  tooLarge: "INVALID_ARGUMENT",
  spendLimited: "FAILED_PRECONDITION",
  jobLimited: "FAILED_PRECONDITION",
  notFound: "NOT_FOUND",
  invalid: "INVALID_ARGUMENT",
  timedOut: "DEADLINE_EXCEEDED",
  unauthorized: "UNAUTHENTICATED",
  forbidden: "PERMISSION_DENIED",
  badGateway: "UNAVAILABLE",
  noProvider: "INTERNAL",
  executed: "DATA_LOSS",
  notImplemented: "UNIMPLEMENTED",
  upgradeRequired: "FAILED_PRECONDITION"
} as const

/** The genai SDK reads the numeric code within a stream. */
const errorBody = (refusal: Refusal) => {
  const seconds = retryAfterSecondsOf(refusal)
  const retryInfo = { "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: `${seconds}s` }
  return {
    error: {
      code: statusOf(refusal),
      message: refusal.message,
      status: statuses[refusal.kind],
      ...(seconds === undefined ? {} : { details: [retryInfo] })
    }
  }
}

/**
 * Gemini's generateContent and streamGenerateContent, in the Gemini API and on Vertex AI.
 *
 * **Details**
 *
 * Limits are not in headers; they are read from errors, which name the quota that was exceeded. A stream without `alt=sse` is
 * one JSON list, which is read as it arrives.
 *
 * **Example** (The limit that an error names)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const quotaId = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
 * const violations = [{ quotaId, quotaValue: "15" }]
 * const body = { error: { code: 429, status: "RESOURCE_EXHAUSTED", details: [{ violations }, { retryDelay: "16s" }] } }
 * const failure = protocols.gemini.failure({ status: 429, header: () => undefined, body }, { now: 0 })
 *
 * failure.reason // => "RateLimited"
 * failure.retryAfterMillis // => 16_000
 * failure.signal?.dimensions.requests?.limit // => 15
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.1.0
 */
export const gemini: Protocol = {
  name: "gemini",
  provider: "gcp.gemini",
  match: matchRoute,
  describe,
  agentOf: agentInHeaders,
  answer: readAnswer,
  observe: observeJson(step),
  streamFormat: (url) => (/[?&]\$?alt=sse(?:[&#]|$)/.test(url) ? "events" : "list"),
  limits: ({ body, header }) => {
    const quota = errorObjectOf(body)?.quota
    return signalOf(header) ?? (quota === undefined ? undefined : signalOfQuota(quota))
  },
  failure: failureOf,
  refuse: (refusal) => refusalResponse(refusal, errorBody(refusal)),
  refuseInStream: (refusal) => sseEvent(undefined, errorBody(refusal)),
  keepAlive: { stream: sseComment, whole: jsonWhitespace }
}
