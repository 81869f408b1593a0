/** Describes requests and responses of `effect/ai` to the governor: sizes, and what headers say about the limits. Pure. */
import * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import type * as Schema from "effect/Schema"
import type { Call } from "../../Governor.ts"
import type * as Limits from "../../Limits.ts"
import { headerReader, signalOf as signalOfHeaders } from "../../protocol/headers.ts"
import { keptBy, markIn, PrefixReader } from "../../protocol/prefixes.ts"
import { addFile, type FileLengths, type Size, sizeOf, type Sum, utf8Length } from "../../protocol/requestSize.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** JSON has no `bigint`; how one is sent is up to the provider. */
const printable = (_: string, value: unknown): unknown => (typeof value === "bigint" ? value.toString() : value)

const jsonOf = (value: unknown): string => JSON.stringify(value, printable) ?? ""

const jsonLength = (value: unknown): number => utf8Length(jsonOf(value))

/** The lengths of a file; undefined if it is stored elsewhere. */
const lengthsOf = (data: Prompt.FilePart["data"]): FileLengths | undefined => {
  if (data instanceof URL) return undefined
  if (typeof data === "string") return { text: utf8Length(data), base64: data.length }
  return { text: data.byteLength, base64: (data.byteLength * 4) / 3 }
}

const addPart = (sum: Sum, part: Exclude<Prompt.Message["content"], string>[number]): void => {
  switch (part.type) {
    case "text":
    case "reasoning":
      sum.text += utf8Length(part.text)
      break
    case "file":
      addFile(sum, part.mediaType, lengthsOf(part.data))
      break
    case "tool-call":
      sum.text += utf8Length(part.name) + jsonLength(part.params)
      break
    case "tool-result":
      sum.text += utf8Length(part.name) + jsonLength(part.result)
      break
  }
}

/** A schema as a model reads it. */
interface ReadSchema {
  readonly bytes: number
  readonly text: string
}

const readAs = (text: string): ReadSchema => ({ bytes: utf8Length(text), text })

const toolTexts = new WeakMap<Tool.Any, ReadSchema>()

const readTool = (tool: Tool.Any): ReadSchema => {
  let read = toolTexts.get(tool)
  if (read === undefined) {
    read = readAs(tool.name + (tool.description ?? "") + jsonOf(Tool.getJsonSchema(tool)))
    toolTexts.set(tool, read)
  }
  return read
}

const formatTexts = new WeakMap<Schema.Top, ReadSchema>()

const readFormat = (schema: Schema.Top): ReadSchema => {
  let read = formatTexts.get(schema)
  if (read === undefined) {
    try {
      read = readAs(jsonOf(Tool.getJsonSchemaFromSchema(schema)))
    } catch {
      // The model reports a schema that has no JSON form.
      read = readAs("")
    }
    formatTexts.set(schema, read)
  }
  return read
}

/** The parts of a request that the model reads. */
export interface Readable {
  readonly prompt: Prompt.RawInput
  readonly tools: Iterable<Tool.Any>
  /** The schema of the requested object. */
  readonly schema?: Schema.Top | undefined
}

/** The size of a request to a model, and its prefixes. */
export const describe = (
  { prompt, schema, tools }: Readable,
  { model, provider }: Pick<Call, "model" | "provider">
): Size & Pick<Call, "prefixes"> => {
  const read = new PrefixReader()
  const { sum } = read
  if (schema !== undefined) {
    const { bytes, text } = readFormat(schema)
    sum.text += bytes
    read.countedSchema("schema", text)
  }
  for (const tool of tools) {
    const { bytes, text } = readTool(tool)
    sum.text += bytes
    read.countedSchema({ name: tool.name }, text)
  }
  read.sharedEnd()
  for (const message of Prompt.make(prompt).content) {
    const { content, options, role } = message
    read.role(role)
    if (typeof content === "string") {
      sum.text += utf8Length(content)
      read.counted({ text: content })
    } else {
      for (const part of content) {
        addPart(sum, part)
        read.counted(part, markIn(part.options))
      }
    }
    read.mark(markIn(options))
    read.countedMessage(message)
  }
  return { ...sizeOf(sum), prefixes: read.prefixes(keptBy(provider, model)) }
}

// -----------------------------------------------------------------------------
// Responses
// -----------------------------------------------------------------------------

/** Reads the limits in the headers of a response. Adapters of providers pass the headers on with the finish part. */
export const signalOf = (finish: Response.FinishPart): Limits.Signal | undefined =>
  finish.response === undefined ? undefined : signalOfHeaders(headerReader(finish.response.headers))
