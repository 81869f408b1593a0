/** Describes calls of the AI SDK, in any version of its specification, to the governor. Pure. */
import type { Call } from "../../Governor.ts"
import { type HeaderReader, headerReader } from "../../protocol/headers.ts"
import { hasServerTools } from "../../protocol/serverTools.ts"
import { withinTheUs } from "../../protocol/anthropic.ts"
import { at, isRecord, largestOf, listOf, nameOf, textOf } from "../../protocol/json.ts"
import { tierOf } from "../../protocol/openai.ts"
import { agentInHeaders, namesOf } from "../../protocol/lineage.ts"
import { keptBy, markIn, PrefixReader } from "../../protocol/prefixes.ts"
import { addFile, type FileLengths, jsonBytes, sizeOf, type Sum, utf8Length } from "../../protocol/requestSize.ts"

// -----------------------------------------------------------------------------
// Calls
// -----------------------------------------------------------------------------

/**
 * The properties of a call of the AI SDK that the middleware reads.
 *
 * @stability unstable
 * @category models
 * @since 0.2.0
 */
export interface CallParams {
  readonly prompt: ReadonlyArray<{ readonly role: string; readonly content: unknown }>
  readonly maxOutputTokens?: number | undefined
  readonly tools?: ReadonlyArray<object> | undefined
  readonly toolChoice?: object | undefined
  readonly responseFormat?: { readonly type: string } | undefined
  readonly headers?: Readonly<Record<string, string | undefined>> | undefined
  readonly abortSignal?: AbortSignal | undefined
  readonly providerOptions?: Readonly<Record<string, object>> | undefined
}

/** The lengths of a file; undefined if it is stored elsewhere. A string is base64. */
const lengthsOf = (data: unknown): FileLengths | undefined => {
  if (typeof data === "string") return { text: (data.length * 3) / 4, base64: data.length }
  if (!(data instanceof Uint8Array)) return undefined
  return { text: data.byteLength, base64: (data.byteLength * 4) / 3 }
}

const addFilePart = (sum: Sum, part: unknown): void => {
  const given = at(part, "data") ?? at(part, "image")
  // Since version 4 it is an object with a type.
  const text = at(given, "type") === "text" ? textOf(at(given, "text")) : undefined
  if (text !== undefined) sum.text += utf8Length(text)
  else addFile(sum, textOf(at(part, "mediaType")) ?? "", lengthsOf(isRecord(given) ? at(given, "data") : given))
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
      // The model sees nothing of parts of other types.
      if (at(part, "mediaType") !== undefined) addFilePart(sum, part)
  }
}

const isOn = (value: unknown): boolean =>
  typeof value === "string" && !["none", "disabled", "provider-default"].includes(value)

/** Whether the model is asked to think, by the SDK's option since version 4 or by an option of its provider. */
const thinks = (params: CallParams): boolean =>
  isOn(at(params, "reasoning")) ||
  Object.values(params.providerOptions ?? {}).some(
    (options) => isOn(at(options, "thinking", "type")) || isOn(at(options, "reasoningEffort"))
  )

/** The output that a call allows. OpenAI's own option overrides the SDK's, so the larger of both is the safe reading. */
const maxTokensOf = ({ maxOutputTokens, providerOptions = {} }: CallParams): number | undefined =>
  largestOf([maxOutputTokens, ...Object.values(providerOptions).map((options) => at(options, "maxCompletionTokens"))])

/** Options of the provider that change the price: OpenAI's service tiers, Anthropic's fast mode and its regions. */
const chargeOf = (params: CallParams): Pick<Call, "fast" | "priceFactor"> => {
  const all = Object.values(params.providerOptions ?? {})
  const tiers = all.map((options) => tierOf(at(options, "serviceTier") ?? at(options, "speed")))
  const places = all.map((options) => (at(options, "inferenceGeo") === "us" ? { priceFactor: withinTheUs } : {}))
  return Object.assign({}, ...tiers, ...places)
}

/** Provider names as OpenTelemetry spells them, by the first part of the SDK's, such as `anthropic` of `anthropic.messages`. */
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

/** The prompt, part by part. */
const promptOf = ({ prompt, providerOptions, responseFormat, toolChoice, tools }: CallParams): PrefixReader => {
  const read = new PrefixReader()
  const { sum } = read
  read.schema(at(responseFormat, "schema"))
  read.schema(tools)
  read.setting(toolChoice)
  for (const message of prompt) {
    const { content, role } = message
    read.role(role)
    for (const part of typeof content === "string" ? [content] : listOf(content)) {
      if (typeof part === "string") sum.text += utf8Length(part)
      else addPart(sum, part)
      read.counted(typeof part === "string" ? { text: part } : part, markIn(at(part, "providerOptions")))
    }
    read.mark(markIn(at(message, "providerOptions")))
    read.countedMessage(message)
  }
  read.mark(markIn(providerOptions))
  return read
}

/** The call for the governor, and the agent and job that it names. */
export const describe = (
  params: CallParams,
  model: { readonly provider: string; readonly modelId: string },
  stream: boolean
): { readonly call: Call; readonly agent: string | undefined; readonly job: string | undefined } => {
  const prompt = promptOf(params)
  const { sum } = prompt
  const provider = providerOf(model.provider)
  const prefixes = prompt.prefixes(keptBy(provider, model.modelId))
  const ours = at(params.providerOptions, "floodgate")
  const header: HeaderReader = headerReader(params.headers ?? {})
  const names = namesOf({ agentOf: agentInHeaders }, undefined, header)
  return {
    call: {
      ...sizeOf(sum),
      prefixes,
      model: model.modelId,
      kind: nameOf(at(ours, "kind")),
      maxTokens: maxTokensOf(params),
      thinking: thinks(params),
      serverTools: hasServerTools(params),
      ...chargeOf(params),
      provider,
      stream
    },
    agent: nameOf(at(ours, "agent")) ?? names.agent,
    job: nameOf(at(ours, "job")) ?? names.job
  }
}

/** The headers of an answer, if the provider's package passes them on. */
export const headersOf = (result: unknown): HeaderReader => {
  const headers = at(result, "response", "headers")
  return isRecord(headers) ? headerReader(headers) : () => undefined
}
