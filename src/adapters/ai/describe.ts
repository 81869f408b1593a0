/** Reads effect/ai's requests and responses: how large a request is, and what a response says it used. Pure. */
import * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import type * as Schema from "effect/Schema"
import type * as Accounting from "../../Accounting.ts"
import type { ResponseInfo } from "../../call/models.ts"
import type * as Limits from "../../Limits.ts"
import { headerReader, signalOf as signalOfHeaders } from "../../protocol/headers.ts"
import { documentShare, imageBytes, type Size, sizeOf, type Sum, utf8Length } from "../../protocol/requestSize.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** JSON knows no BigInt. How one is sent is between the caller and the provider. */
const printable = (_: string, value: unknown): unknown => (typeof value === "bigint" ? value.toString() : value)

const jsonLength = (value: unknown): number => utf8Length(JSON.stringify(value, printable) ?? "")

/** A file counts by what a model makes of it, not by its bytes; the figures are those of the Messages API's requests. */
const addFile = (sum: Sum, { data, mediaType }: Prompt.FilePart): void => {
  if (mediaType.startsWith("image/")) {
    sum.files += imageBytes
  } else if (!(data instanceof URL)) {
    const isString = typeof data === "string"
    if (mediaType.startsWith("text/")) sum.text += isString ? utf8Length(data) : data.byteLength
    else sum.files += (isString ? data.length : (data.byteLength * 4) / 3) * documentShare
  }
}

type Part = Exclude<Prompt.Message["content"], string>[number]

const addPart = (sum: Sum, part: Part): void => {
  switch (part.type) {
    case "text":
    case "reasoning":
      sum.text += utf8Length(part.text)
      break
    case "file":
      addFile(sum, part)
      break
    case "tool-call":
      sum.text += utf8Length(part.name) + jsonLength(part.params)
      break
    case "tool-result":
      sum.text += utf8Length(part.name) + jsonLength(part.result)
      break
  }
}

const toolSizes = new WeakMap<Tool.Any, number>()

const toolBytes = (tool: Tool.Any): number => {
  let size = toolSizes.get(tool)
  if (size === undefined) {
    size = utf8Length(tool.name) + utf8Length(tool.description ?? "") + jsonLength(Tool.getJsonSchema(tool))
    toolSizes.set(tool, size)
  }
  return size
}

const formatSizes = new WeakMap<Schema.Top, number>()

const formatBytes = (schema: Schema.Top): number => {
  let size = formatSizes.get(schema)
  if (size === undefined) {
    try {
      size = jsonLength(Tool.getJsonSchemaFromSchema(schema))
    } catch {
      // One that has no such form is the model's to complain of.
      size = 0
    }
    formatSizes.set(schema, size)
  }
  return size
}

/** What a request puts before the model. */
export interface Request {
  readonly prompt: Prompt.RawInput
  readonly tools: Iterable<Tool.Any>
  /** Of an object that is asked for. */
  readonly schema?: Schema.Top | undefined
}

export const requestSize = ({ prompt, schema, tools }: Request): Size => {
  const sum = { text: schema === undefined ? 0 : formatBytes(schema), files: 0 }
  for (const { content } of Prompt.make(prompt).content) {
    if (typeof content === "string") sum.text += utf8Length(content)
    else for (const part of content) addPart(sum, part)
  }
  for (const tool of tools) sum.text += toolBytes(tool)
  return sizeOf(sum)
}

// -----------------------------------------------------------------------------
// Responses
// -----------------------------------------------------------------------------

/** What the usage says; undefined where the provider does not count. */
export const actualOf = ({ inputTokens, outputTokens }: Response.Usage): Accounting.Actual | undefined => {
  const { cacheRead = 0, cacheWrite = 0, total, uncached } = inputTokens
  const fresh = uncached ?? (total === undefined ? undefined : Math.max(0, total - cacheRead - cacheWrite))
  if (fresh === undefined || outputTokens.total === undefined) return undefined
  return {
    inputTokens: fresh,
    cacheCreationTokens: cacheWrite,
    cacheReadTokens: cacheRead,
    outputTokens: outputTokens.total
  }
}

type HttpDetails = typeof Response.HttpResponseDetails.Type

/** What was seen of a response. */
export interface Seen {
  readonly usage: Response.Usage | undefined
  readonly http: HttpDetails | undefined
  readonly info: ResponseInfo
  /** Characters of output that the provider has not counted yet. */
  readonly characters: number
  /** Whether content has begun: from then on a retry would repeat it. */
  readonly started: boolean
  /** What an error within the stream says. */
  readonly error: { readonly value: unknown } | undefined
}

export const nothingSeen: Seen = {
  usage: undefined,
  http: undefined,
  info: {},
  characters: 0,
  started: false,
  error: undefined
}

/** Takes in one part of a response, streamed or not. */
export const see = (seen: Seen, part: Response.AnyPart): Seen => {
  switch (part.type) {
    case "response-metadata":
      return { ...seen, info: { ...seen.info, id: part.id, model: part.modelId } }
    case "finish":
      return {
        ...seen,
        usage: part.usage,
        http: part.response,
        info: { ...seen.info, finishReason: part.reason },
        characters: 0,
        started: true
      }
    case "error":
      return { ...seen, error: { value: part.error } }
    case "text-delta":
    case "reasoning-delta":
    case "tool-params-delta":
      return { ...seen, characters: seen.characters + part.delta.length, started: true }
    default:
      return { ...seen, started: true }
  }
}

export const signalOf = ({ http }: Seen): Limits.Signal | undefined =>
  http === undefined ? undefined : signalOfHeaders(headerReader(http.headers))
