/** Reads the AI SDK's calls, answers and parts of streams, of any version of its specification. Pure. */
import type { Call } from "../../Governor.ts"
import { type HeaderReader, headerReader } from "../../protocol/headers.ts"
import { withinTheUs } from "../../protocol/anthropic.ts"
import { amountOf, at, isRecord, largestOf, listOf, nameOf, textOf } from "../../protocol/json.ts"
import { tierOf } from "../../protocol/openai.ts"
import { agentOf, type Answer, emptyAnswer, withCounts } from "../../protocol/protocol.ts"
import {
  addSchema,
  documentShare,
  imageBytes,
  jsonBytes,
  mediaShare,
  sizeOf,
  type Sum,
  utf8Length
} from "../../protocol/requestSize.ts"

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/**
 * A call as the AI SDK makes it, by what is read of it.
 *
 * @category models
 * @since 0.2.0
 */
export interface CallParams {
  readonly prompt: ReadonlyArray<{ readonly role: string; readonly content: unknown }>
  readonly maxOutputTokens?: number | undefined
  readonly tools?: ReadonlyArray<object> | undefined
  readonly responseFormat?: { readonly type: string } | undefined
  readonly headers?: Readonly<Record<string, string | undefined>> | undefined
  readonly abortSignal?: AbortSignal | undefined
  readonly providerOptions?: Readonly<Record<string, object>> | undefined
}

/** The length of data as base64: a text is base64 already. */
const encodedLength = (data: unknown): number | undefined => {
  if (typeof data === "string") return data.length
  return data instanceof Uint8Array ? (data.byteLength * 4) / 3 : undefined
}

/** A file counts by what a model makes of it, not by its bytes; the figures are those of all protocols' requests. */
const addFile = (sum: Sum, part: unknown): void => {
  const mediaType = textOf(at(part, "mediaType")) ?? ""
  const given = at(part, "data") ?? at(part, "image")
  // Since version 4 it is an object that says what it is.
  const text = at(given, "type") === "text" ? textOf(at(given, "text")) : undefined
  const data = isRecord(given) ? at(given, "data") : given
  const length = encodedLength(data)
  if (text !== undefined) sum.text += utf8Length(text)
  else if (mediaType.startsWith("image/")) sum.files += imageBytes
  else if (length === undefined) sum.stored = true
  else if (mediaType.startsWith("text/")) sum.text += (length * 3) / 4
  else sum.files += length * (/^(audio|video)\//.test(mediaType) ? mediaShare : documentShare)
}

const addOutput = (sum: Sum, output: unknown): void => {
  if (at(output, "type") !== "content") {
    const value = at(output, "value") ?? output
    sum.text += typeof value === "string" ? utf8Length(value) : jsonBytes(value)
    return
  }
  for (const part of listOf(at(output, "value"))) addPart(sum, part)
}

const addPart = (sum: Sum, part: unknown): void => {
  const type = textOf(at(part, "type")) ?? ""
  switch (type) {
    case "text":
    case "reasoning":
      sum.text += utf8Length(textOf(at(part, "text")) ?? "")
      break
    case "tool-call":
      sum.text += utf8Length(textOf(at(part, "toolName")) ?? "") + jsonBytes(at(part, "input"))
      break
    case "tool-result":
      sum.text += utf8Length(textOf(at(part, "toolName")) ?? "")
      addOutput(sum, at(part, "output"))
      break
    default:
      // Files and media of all kinds; of other parts the model sees nothing.
      if (at(part, "mediaType") !== undefined) addFile(sum, part)
  }
}

const isOn = (value: unknown): boolean =>
  typeof value === "string" && !["none", "disabled", "provider-default"].includes(value)

/** Whether the model is asked to think, as the SDK has it since version 4, or in the words of any provider. */
const thinks = (params: CallParams): boolean =>
  isOn(at(params, "reasoning")) ||
  Object.values(params.providerOptions ?? {}).some(
    (options) => isOn(at(options, "thinking", "type")) || isOn(at(options, "reasoningEffort"))
  )

/** The output that a call allows. OpenAI's own option goes before the SDK's, so the larger one counts. */
const maxTokensOf = ({ maxOutputTokens, providerOptions = {} }: CallParams): number | undefined =>
  largestOf([maxOutputTokens, ...Object.values(providerOptions).map((options) => at(options, "maxCompletionTokens"))])

/** What a call costs more by the options of its provider: OpenAI's service tiers, Anthropic's fast mode and its places. */
const chargeOf = (params: CallParams): Pick<Call, "fast" | "priceFactor"> => {
  const all = Object.values(params.providerOptions ?? {})
  const tiers = all.map((options) => tierOf(at(options, "serviceTier") ?? at(options, "speed")))
  const places = all.map((options) => (at(options, "inferenceGeo") === "us" ? { priceFactor: withinTheUs } : {}))
  return Object.assign({}, ...tiers, ...places)
}

/** The first name of a provider, such as `anthropic.messages` or `amazon-bedrock`, as OpenTelemetry spells it. */
const providerNames: Readonly<Record<string, string>> = {
  "amazon-bedrock": "aws.bedrock",
  azure: "azure.ai.openai",
  google: "gcp.gemini",
  "google-vertex": "gcp.vertex_ai",
  vertex: "gcp.vertex_ai",
  xai: "x_ai"
}

const providerOf = (provider: string): string => {
  const name = provider.split(".", 1)[0] ?? provider
  return (Object.hasOwn(providerNames, name) ? providerNames[name] : undefined) ?? name
}

/** What is known of a call before it is made, and the agent that it names. */
export const describe = (
  params: CallParams,
  model: { readonly provider: string; readonly modelId: string },
  stream: boolean
): { readonly call: Call; readonly agent: string | undefined } => {
  const sum: Sum = { text: 0, files: 0 }
  for (const { content } of params.prompt) {
    if (typeof content === "string") sum.text += utf8Length(content)
    else for (const part of listOf(content)) addPart(sum, part)
  }
  addSchema(sum, params.tools)
  addSchema(sum, at(params.responseFormat, "schema"))
  const ours = at(params.providerOptions, "floodgate")
  const header: HeaderReader = headerReader(params.headers ?? {})
  return {
    call: {
      ...sizeOf(sum),
      model: model.modelId,
      kind: nameOf(at(ours, "kind")),
      maxTokens: maxTokensOf(params),
      thinking: thinks(params),
      ...chargeOf(params),
      provider: providerOf(model.provider),
      stream
    },
    agent: nameOf(at(ours, "agent")) ?? agentOf(header)
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** The counts of a usage: objects since version 3, plain numbers with the cached input within the input before. */
const withUsage = (answer: Answer, usage: unknown): Answer => {
  const [input, output] = [at(usage, "inputTokens"), at(usage, "outputTokens")]
  const cacheReadTokens = amountOf(at(input, "cacheRead") ?? at(usage, "cachedInputTokens"))
  const cacheCreationTokens = amountOf(at(input, "cacheWrite"))
  const total = amountOf(isRecord(input) ? at(input, "total") : input)
  const cached = (cacheReadTokens ?? 0) + (cacheCreationTokens ?? 0)
  const fresh = amountOf(at(input, "noCache")) ?? (total === undefined ? undefined : Math.max(0, total - cached))
  return withCounts(answer, {
    inputTokens: fresh,
    cacheReadTokens,
    cacheCreationTokens,
    outputTokens: amountOf(isRecord(output) ? at(output, "total") : output)
  })
}

const finishReasonOf = (reason: unknown): string | undefined =>
  nameOf(at(reason, "raw")) ?? nameOf(at(reason, "unified")) ?? nameOf(reason)

/** What is known of an answer that came whole. */
export const answerOf = (result: unknown): Answer => ({
  ...withUsage(emptyAnswer, at(result, "usage")),
  id: nameOf(at(result, "response", "id")),
  model: nameOf(at(result, "response", "modelId")),
  finishReason: finishReasonOf(at(result, "finishReason")),
  started: true,
  complete: true
})

/** Parts that come before any content, or say nothing of it. */
const silent: ReadonlySet<unknown> = new Set([
  "stream-start",
  "ping",
  "raw",
  "text-start",
  "text-end",
  "reasoning-start",
  "reasoning-end"
])

/** Takes in one part of a stream. What comes after an error changes nothing more. */
export const step = (answer: Answer, part: unknown): Answer => {
  if (answer.error !== undefined) return answer
  const type = at(part, "type")
  switch (type) {
    case "response-metadata":
      return { ...answer, id: nameOf(at(part, "id")), model: nameOf(at(part, "modelId")) }
    case "text-delta":
    case "reasoning-delta":
    case "tool-input-delta": {
      const delta = textOf(at(part, "delta")) ?? ""
      return { ...answer, started: answer.started || delta !== "", uncounted: answer.uncounted + delta.length }
    }
    case "finish": {
      const finishReason = finishReasonOf(at(part, "finishReason"))
      return { ...withUsage(answer, at(part, "usage")), finishReason, started: true, complete: true }
    }
    case "error":
      return { ...answer, error: at(part, "error") ?? "an error without words" }
    default:
      return silent.has(type) ? answer : { ...answer, started: true }
  }
}

/** The headers of an answer, where the provider passes them on. */
export const headersOf = (result: unknown): HeaderReader => {
  const headers = at(result, "response", "headers")
  return isRecord(headers) ? headerReader(headers) : () => undefined
}
