/**
 * The size of a request in bytes of UTF-8, from which the estimator learns how many tokens a request has.
 *
 * One traversal serves all protocols, because a part counts by its shape, wherever it is: a text by its bytes, an image by a
 * constant, and a document, a recording or a video by a share of its base64.
 */

import { at, isRecord, textOf } from "./json.ts"
import { marks, mix, mixIdentifier, mixText, mixValue } from "./sampling.ts"

/**
 * An image costs by its size in pixels, not by its file: at most 1,568 tokens, as much as this many bytes of text. Models
 * since Claude 4.7 take up to 4,784 for a large one; the estimator learns that from their usage.
 *
 * Source: https://platform.claude.com/docs/en/build-with-claude/vision
 */
export const imageBytes = 4_200

/** A PDF's base64 contains layout, fonts and pictures; its text is about a tenth of it. */
export const documentShare = 0.1

/**
 * A second of audio is 32 tokens and a second of video about 260, which is about half a percent of the bytes of their usual
 * encodings.
 *
 * Source: https://ai.google.dev/gemini-api/docs/tokens
 */
export const mediaShare = 0.005

/** Content is never nested this deeply. Deeper values count by their JSON, because recursion would exhaust the stack. */
const maxDepth = 200

const encoder = new TextEncoder()
/** Texts are encoded into it, to count their bytes or to read several at once. */
export const scratch: Uint8Array<ArrayBuffer> = new Uint8Array(48 * 1_024)
/** The number of units that the scratch holds, at three bytes each. */
const maxUnits = scratch.length / 3
/** Below this many units a loop is faster than a call of the encoder. */
const shortUnits = 64

const isHighSurrogate = (code: number): boolean => code >= 0xd800 && code <= 0xdbff

const shortLength = (text: string): number => {
  let bytes = text.length
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 0x80) continue
    // A surrogate pair is two units and four bytes.
    bytes += code < 0x800 || (code >= 0xd800 && code <= 0xdfff) ? 1 : 2
  }
  return bytes
}

/** Adds up the lengths of the parts of a text that fit into the scratch, which takes little memory besides the text. */
export const inParts = (text: string, lengthOf: (part: string) => number): number => {
  let sum = 0
  for (let start = 0; start < text.length;) {
    let end = Math.min(start + maxUnits, text.length)
    // A surrogate pair must not be split.
    if (end < text.length && isHighSurrogate(text.charCodeAt(end - 1))) end--
    sum += lengthOf(text.slice(start, end))
    start = end
  }
  return sum
}

/** Writes the beginning of a text into the scratch, and returns its length there. */
export const encoded = (text: string): number => encoder.encodeInto(text, scratch).written

/** The UTF-8 length of a string. For a prompt, the platform's encoder is sixty times as fast as a loop. */
export const utf8Length = (text: string): number =>
  text.length < shortUnits ? shortLength(text) : inParts(text, encoded)

/** By how many bytes a character of ASCII is longer in JSON. */
const escapes = /* @__PURE__ */ Uint8Array.from({ length: 256 }, (_, code) =>
  code < 0x80 ? JSON.stringify(String.fromCharCode(code)).length - 3 : 0
)

/** The scratch, four bytes at a time. */
export const scratchWords: Int32Array<ArrayBuffer> = /* @__PURE__ */ new Int32Array(scratch.buffer)

/** Whether one of four bytes is a control character, a quote or a backslash. Reading bytes one by one takes twice as long. */
const mayEscape = (four: number): boolean =>
  (((four - 0x20202020) | ((four ^ 0x22222222) - 0x01010101) | ((four ^ 0x5c5c5c5c) - 0x01010101)) &
    ~four &
    0x80808080) !==
  0

/** With half a surrogate pair, which JSON escapes, only the platform's own text is exact. */
const serialised = (text: string): number => utf8Length(JSON.stringify(text))

const shortQuoted = (text: string): number => {
  let bytes = 2 + text.length
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 0x80) bytes += escapes[code]!
    else if (code >= 0xd800 && code <= 0xdfff) return serialised(text)
    else bytes += code < 0x800 ? 1 : 2
  }
  return bytes
}

/** The length of a text in JSON, in bytes of UTF-8. */
const quoted = (text: string): number => {
  if (text.length < shortUnits) return shortQuoted(text)
  if (text.length > maxUnits) return 2 + inParts(text, (part) => quoted(part) - 2)
  const { written } = encoder.encodeInto(text, scratch)
  if (written > text.length && !text.isWellFormed()) return serialised(text)
  let bytes = 2 + written
  const words = written >>> 2
  for (let word = 0; word < words; word++) {
    const four = scratchWords[word]!
    if (!mayEscape(four)) continue
    bytes +=
      escapes[four & 0xff]! + escapes[(four >>> 8) & 0xff]! + escapes[(four >>> 16) & 0xff]! + escapes[four >>> 24]!
  }
  for (let at = 4 * words; at < written; at++) bytes += escapes[scratch[at]!]!
  return bytes
}

/** The size of a request. */
export interface Size {
  readonly bytes: number
  /** `bytes` without the estimates for images, documents and recordings. */
  readonly textBytes: number
}

/** A size that is being added up. */
export interface Sum {
  text: number
  files: number
  /** Whether the request refers to content that the provider stores, so that the prompt is larger than its bytes. */
  stored: boolean
  /** The mark that asks the provider to cache the content up to there, as it was last met. */
  mark: unknown
  /** Samples of everything that was added but schemas, in their order. */
  samples: number
}

export const newSum = (samples = 0): Sum => ({ text: 0, files: 0, stored: false, mark: undefined, samples })

export const sizeOf = ({ files, text }: Sum): Size => ({ bytes: Math.ceil(text + files), textBytes: Math.ceil(text) })

/** Properties that are more than content. */
type PropertyKind = "mark" | "value" | "reference" | "picture" | "file" | "data" | "url" | "label" | "identifier"

const named = (kind: PropertyKind, names: Iterable<string>): ReadonlyArray<readonly [string, PropertyKind]> =>
  Array.from(names, (name) => [name, kind] as const)

/** They are looked up once for each property. */
const kinds: ReadonlyMap<string, PropertyKind> = /* @__PURE__ */ new Map([
  ...named("mark", marks),
  // The caller's own data, in which names have no meaning: the inputs and results of tools (`input` of Anthropic's, `arguments` of
  // OpenAI's, `args` and `response` of Gemini's), and tools that a turn lists.
  ...named("value", ["input", "arguments", "args", "response", "tools"]),
  // They name content which the provider stores or fetches.
  ...named("reference", ["file_id", "file_url", "fileUri", "file_uri"]),
  // They hold the picture of a part that is one.
  ...named("picture", ["source", "image", "image_url"]),
  // They hold a file: OpenAI's `file_data` and `input_audio`, Gemini's `inlineData`.
  ...named("file", ["file_data", "input_audio", "inlineData", "inline_data"]),
  ["data", "data"],
  ["url", "url"],
  ...named("label", ["type", "role", "name"]),
  ...named("identifier", ["id", "tool_use_id", "call_id", "tool_call_id"])
])

const imageTypes: ReadonlySet<unknown> = new Set(["image", "image_url", "input_image", "computer_screenshot"])

type ContentPart = Readonly<Record<string, unknown>>

/** The bytes that a file in base64 counts as, by its media type. */
const fileBytes = (mediaType: unknown, length: number): number => {
  if (typeof mediaType !== "string") return length * documentShare
  if (mediaType.startsWith("image/")) return imageBytes
  return length * (/^(audio|video)\//.test(mediaType) ? mediaShare : documentShare)
}

/** The lengths of a file: of its text, if it is one, and in base64. */
export interface FileLengths {
  readonly text: number
  readonly base64: number
}

/** Adds a file by its media type. Without lengths it is stored elsewhere, and only an image has a known size. */
export const addFile = (sum: Sum, mediaType: string, lengths: FileLengths | undefined): void => {
  if (lengths === undefined && !mediaType.startsWith("image/")) sum.stored = true
  else if (mediaType.startsWith("text/")) sum.text += lengths!.text
  else sum.files += fileBytes(mediaType, lengths?.base64 ?? 0)
}

/** The bytes that a property counts as if it holds a file; undefined if it holds none. */
const propertyBytes = (key: string, value: unknown): number | undefined => {
  if (key === "file_data") return typeof value === "string" ? fileBytes(undefined, value.length) : undefined
  const data = textOf(at(value, "data"))
  if (data === undefined) return undefined
  return key === "input_audio"
    ? fileBytes("audio/", data.length)
    : fileBytes(at(value, "mimeType") ?? at(value, "mime_type"), data.length)
}

/** The bytes that a part's property counts as if it is a file; undefined otherwise. */
const fileIn = ({ type }: ContentPart, key: string, kind: PropertyKind, value: unknown): number | undefined => {
  switch (kind) {
    case "picture":
    case "reference":
      return imageTypes.has(type) && (kind === "picture" || key === "file_id") ? imageBytes : undefined
    case "data":
      // Anthropic's source of a file.
      return type === "base64" && typeof value === "string" ? fileBytes(undefined, value.length) : undefined
    case "file":
      return propertyBytes(key, value)
    default:
      return undefined
  }
}

/** Whether a property says that the provider has more of the prompt: a document by its URL, or an item of an earlier answer. */
const isStored = ({ type }: ContentPart, key: string, kind: PropertyKind, value: unknown): boolean =>
  kind === "reference" || (kind === "url" && type === "url") || (key === "type" && value === "item_reference")

const addNamed = (sum: Sum, part: ContentPart, key: string, kind: PropertyKind, depth: number): void => {
  const value = part[key]
  if (kind === "mark") {
    if (isRecord(value)) sum.mark = value
    return
  }
  const bytes = fileIn(part, key, kind, value)
  if (bytes !== undefined) {
    sum.files += bytes
    sum.samples = mixValue(sum.samples, value)
  } else if (kind === "value" && typeof value === "object") {
    const bytes = jsonBytes(value)
    sum.text += bytes
    sum.samples = mix(sum.samples, bytes)
  } else if (typeof value === "string") {
    if (isStored(part, key, kind, value)) sum.stored = true
    sum.text += utf8Length(value)
    if (kind === "label") sum.samples = mix(sum.samples, value.length)
    else if (kind === "identifier") sum.samples = mixIdentifier(sum.samples, value)
    else sum.samples = mixText(sum.samples, value)
  } else add(sum, value, depth)
}

/** Adds the properties of a part or of a message, but one: files by their kind, everything else by its content. */
export const addProperties = (sum: Sum, part: ContentPart, except: string | undefined, depth = 1): void => {
  for (const key of Object.keys(part)) {
    if (key === except) continue
    const kind = kinds.get(key)
    if (kind === undefined) add(sum, part[key], depth)
    else addNamed(sum, part, key, kind, depth)
  }
}

/** Adds the content of a value: its texts, and what its files count as. */
export const add = (sum: Sum, value: unknown, depth = 0): void => {
  if (typeof value === "string") {
    sum.text += utf8Length(value)
    sum.samples = mixText(sum.samples, value)
  } else if (depth > maxDepth) {
    const bytes = jsonBytes(value)
    sum.text += bytes
    sum.samples = mix(sum.samples, bytes)
  } else if (Array.isArray(value)) for (const item of value) add(sum, item, depth + 1)
  else if (isRecord(value)) addProperties(sum, value, undefined, depth + 1)
  else if (typeof value === "number" || typeof value === "boolean") sum.samples = mix(sum.samples, Number(value))
}

const scalarBytes = (value: unknown): number => {
  if (typeof value === "string") return quoted(value)
  if (typeof value === "number") return Number.isFinite(value) ? String(value).length : 4
  if (typeof value === "boolean") return value ? 4 : 5
  return value === null ? 4 : 0
}

/** A request with so many objects would be larger than any provider takes. Only then is it worth looking for one that contains itself. */
const manyObjects = 1_000_000

/** Throws if an object contains itself: no client could send it, and its size would never be known. */
const checkAcyclic = (value: unknown): void => {
  const open = new Set<unknown>()
  const known = new Set<unknown>()
  const left: Array<{ readonly value: unknown; readonly isLeft: boolean }> = [{ value, isLeft: false }]
  while (left.length > 0) {
    const { isLeft, value } = left.pop()!
    if (isLeft) open.delete(value)
    else if (open.has(value))
      throw new TypeError("The request has an object that contains itself, so it cannot be sent as JSON")
    else if (typeof value === "object" && value !== null && !known.has(value)) {
      known.add(value)
      open.add(value)
      left.push({ value, isLeft: true })
      for (const item of Object.values(value)) left.push({ value: item, isLeft: false })
    }
  }
}

/**
 * The length of a value as JSON in bytes of UTF-8, without serialising it, however deeply it is nested. Values that JSON cannot
 * represent count as 0.
 *
 * **Gotchas**
 *
 * Throws a `TypeError` if an object contains itself.
 */
export const jsonBytes = (value: unknown): number => {
  let bytes = 0
  let objects = 0
  const left: Array<unknown> = [value]
  while (left.length > 0) {
    const next = left.pop()
    if (typeof next !== "object" || next === null) {
      bytes += scalarBytes(next)
      continue
    }
    if (++objects === manyObjects) checkAcyclic(value)
    let items = 0
    if (Array.isArray(next)) {
      items = next.length
      for (const item of next) left.push(item === undefined ? null : item)
    } else {
      for (const key of Object.keys(next)) {
        const item = (next as Readonly<Record<string, unknown>>)[key]
        if (item === undefined || typeof item === "function") continue
        items++
        bytes += quoted(key) + 1
        left.push(item)
      }
    }
    // The brackets, and the commas between the items.
    bytes += 2 + Math.max(0, items - 1)
  }
  return bytes
}

/** Adds tools and response formats, which a model sees as schemas, including the names of properties. */
export const addSchema = (sum: Sum, schema: unknown): void => {
  if (schema !== undefined && schema !== null) sum.text += jsonBytes(schema)
}
