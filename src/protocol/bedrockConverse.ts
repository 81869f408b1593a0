/**
 * Bedrock's Converse and ConverseStream, which have one form for the models of all vendors.
 *
 * Sources:
 *
 * - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
 * - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
 */
import { exceptionOf, isException } from "./amazonFrames.ts"
import { failureOf } from "./errors.ts"
import { amountOf, at, characters, isRecord, listOf, nameOf, parseJson, textOf } from "./json.ts"
import { tierOf } from "./openai.ts"
import {
  type Answer,
  decodeSegment,
  emptyAnswer,
  limitsInHeaders,
  type Protocol,
  type Route,
  withCounts
} from "./protocol.ts"
import { jsonWhitespace, type Refusal, refusalResponse } from "./refusal.ts"
import { agentInHeaders } from "./lineage.ts"
import { add, addFile, addSchema, newSum, sizeOf, type Sum } from "./requestSize.ts"

const converse = /^\/model\/(?<model>[^/]+)\/(?<method>converse|converse-stream)$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const { method: name, model = "" } = converse.exec(path)?.groups ?? {}
  if (name === undefined || method !== "POST") return undefined
  return { operation: name === "converse" ? "generate" : "stream", model: decodeSegment(model), path }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** The kinds of files by the names of their blocks, each with the beginning of its media types. */
const files = [
  ["image", "image/"],
  ["document", "application/"],
  ["video", "video/"],
  ["audio", "audio/"]
] as const

/** Adds a block of content. A file is in base64, or stored elsewhere; the results of tools contain blocks. */
const addBlock = (sum: Sum, block: unknown): void => {
  if (!isRecord(block) || isRecord(block["cachePoint"])) return
  const found = files.find(([name]) => isRecord(block[name]))
  if (found !== undefined) {
    const bytes = textOf(at(block, found[0], "source", "bytes"))
    return addFile(sum, found[1], bytes === undefined ? undefined : { text: bytes.length, base64: bytes.length })
  }
  const results = at(block, "toolResult", "content")
  if (Array.isArray(results)) for (const result of results) addBlock(sum, result)
  else add(sum, block)
}

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const sum = newSum()
  for (const block of listOf(body["system"])) addBlock(sum, block)
  for (const message of listOf(body["messages"]))
    for (const block of listOf(at(message, "content"))) addBlock(sum, block)
  addSchema(sum, at(body, "toolConfig", "tools"))
  addSchema(sum, body["outputConfig"])
  const thinking = at(body, "additionalModelRequestFields", "thinking", "type") ?? "disabled"
  return {
    ...sizeOf(sum),
    model: route.model,
    maxTokens: amountOf(at(body, "inferenceConfig", "maxTokens")),
    thinking: thinking !== "disabled",
    stream: route.operation === "stream",
    ...tierOf(at(body, "serviceTier", "type")),
    continues: undefined,
    // A stored prompt has variables.
    stored: sum.stored === true || body["promptVariables"] !== undefined,
    needsUsageRequest: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** The three kinds of input do not overlap. */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  const forAnHour = listOf(at(usage, "cacheDetails")).find((each) => at(each, "ttl") === "1h")
  const long = amountOf(at(forAnHour, "inputTokens"))
  return withCounts(answer, {
    inputTokens: amountOf(at(usage, "inputTokens")),
    cacheCreationTokens: amountOf(at(usage, "cacheWriteInputTokens")),
    ...(long !== undefined && { cacheCreationLongTokens: long }),
    cacheReadTokens: amountOf(at(usage, "cacheReadInputTokens")),
    outputTokens: amountOf(at(usage, "outputTokens"))
  })
}

const readAnswer = (body: unknown): Answer => ({
  ...withUsage(emptyAnswer, at(body, "usage")),
  finishReason: nameOf(at(body, "stopReason")),
  started: isRecord(body),
  complete: isRecord(body)
})

/** Characters of output in a delta: a text, the input of a tool, or a thought. */
const lengthOf = (delta: unknown): number =>
  characters(at(delta, "text")) +
  characters(at(delta, "toolUse", "input")) +
  characters(at(delta, "reasoningContent", "text"))

const observe: Protocol["observe"] = (answer, { data, name = "" }) => {
  const event = data === "" ? undefined : parseJson(data)
  switch (name) {
    case "messageStart":
      return answer
    case "contentBlockStart":
    case "contentBlockDelta":
      return { ...answer, started: true, uncounted: answer.uncounted + lengthOf(at(event, "delta")) }
    case "contentBlockStop":
      return answer
    case "messageStop":
      return { ...answer, finishReason: nameOf(at(event, "stopReason")), started: true, complete: true }
    // It comes last.
    case "metadata":
      return withUsage(answer, at(event, "usage"))
    default:
      return isException(name) ? { ...answer, error: exceptionOf(name, event) } : answer
  }
}

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** AWS's clients read the type from a header, and retry a throttling or an unavailable service. */
const exceptions: Partial<Record<Refusal["kind"], string>> = {
  rateLimited: "ThrottlingException",
  unavailable: "ServiceUnavailableException",
  spendLimited: "ServiceQuotaExceededException",
  jobLimited: "ServiceQuotaExceededException",
  notFound: "ResourceNotFoundException",
  timedOut: "ModelTimeoutException",
  unauthorized: "UnrecognizedClientException",
  forbidden: "AccessDeniedException"
}

/**
 * Bedrock's Converse and ConverseStream.
 *
 * **Details**
 *
 * A stream consists of Amazon's binary frames, the last of which has the usage. Nothing can be added to such a stream, so a
 * gateway sends nothing while its call waits.
 *
 * **Example** (The end of a stream)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const usage = { inputTokens: 20, outputTokens: 4, totalTokens: 124, cacheReadInputTokens: 100 }
 * const metadata = { name: "metadata", data: JSON.stringify({ usage, metrics: { latencyMs: 900 } }) }
 * const answer = protocols.bedrockConverse.observe(protocols.bedrockConverse.answer(undefined), metadata)
 *
 * answer.counts.inputTokens // => 20
 * answer.counts.cacheReadTokens // => 100
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const bedrockConverse: Protocol = {
  name: "bedrock-converse",
  provider: "aws.bedrock",
  match: matchRoute,
  describe,
  agentOf: agentInHeaders,
  answer: readAnswer,
  observe,
  limits: limitsInHeaders,
  failure: failureOf,
  refuse: (refusal) => {
    const response = refusalResponse(refusal, { message: refusal.message })
    return {
      ...response,
      headers: { ...response.headers, "x-amzn-errortype": exceptions[refusal.kind] ?? "ValidationException" }
    }
  },
  refuseInStream: () => "",
  streamFormat: () => "frames",
  keepAlive: { stream: "", whole: jsonWhitespace }
}
