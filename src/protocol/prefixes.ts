/**
 * The prefixes of a prompt, by their content: what a provider may have in its cache when the next request begins in the same way.
 *
 * A prompt is read in one pass with its size. After each part (the tools, a block of the system prompt, a block of a message) the
 * fingerprint of everything up to there is noted. It is a number of 53 bits, chained from a secret of the process, so it says nothing
 * about the text, and two processes do not share it. It samples: the length of a text and four of its characters, more of the first
 * parts, the end of an identifier, and the bytes of whatever else a part has. A change that it does not see makes an estimate worse and
 * nothing else, and reading every byte would cost as much as parsing them.
 *
 * What asks for caching (`cache_control`) is not part of a fingerprint, because it moves on with each request.
 */
import { at, isRecord } from "./json.ts"
import type { Prefixes } from "./models.ts"
import { add, addProperties, addSchema, marks, type Sum } from "./requestSize.ts"

export type { Prefixes } from "./models.ts"

const minute = 60_000

/** Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching, "1-hour cache duration" */
const fiveMinutes = 5 * minute
const anHour = 60 * minute

/**
 * For providers that cache without being asked. OpenAI keeps a prefix for 5 to 10 minutes of inactivity
 * (https://developers.openai.com/api/docs/guides/prompt-caching); others do not say, so this is the shortest of what is stated. Longer and
 * shorter ones are learned (`call/lifetimes.ts`).
 */
export const usualLifetime: number = fiveMinutes

// -----------------------------------------------------------------------------
// Mixing
// -----------------------------------------------------------------------------

/** Drawn when it is first needed, because some runtimes have no random numbers while modules load. */
let secret: number | undefined

const drawn = (): number => (secret ??= globalThis.crypto.getRandomValues(new Uint32Array(1))[0]! | 0)

const mix = (hash: number, value: number): number => {
  const mixed = Math.imul(hash ^ value, 0x9e3779b1)
  return mixed ^ (mixed >>> 15)
}

/** The length of a text, and four of its characters. */
const mixText = (hash: number, text: string): number => {
  const { length } = text
  if (length === 0) return mix(hash, 0)
  const pair = (first: number, second: number): number => (text.charCodeAt(first) << 16) | text.charCodeAt(second)
  const begun = mix(mix(hash, length), pair(0, (length * 0.3) | 0))
  return mix(begun, pair((length * 0.7) | 0, length - 1))
}

/** How much is read of each end of a text, and how often between. */
const readEnds = 32
const readBetween = 256

/**
 * More of a text: its ends, where names, numbers and times are, and many characters between. Prompts that were made of one template often
 * have the same length.
 */
const mixWell = (hash: number, text: string): number => {
  const { length } = text
  let mixed = mixText(hash, text)
  const head = Math.min(readEnds, length)
  const tail = Math.max(head, length - readEnds)
  const step = Math.max(1, (tail - head) / readBetween)
  for (let i = 0; i < head; i++) mixed = Math.imul(mixed ^ text.charCodeAt(i), 0x01000193)
  for (let i = head; i < tail; i += step) mixed = Math.imul(mixed ^ text.charCodeAt(i | 0), 0x01000193)
  for (let i = tail; i < length; i++) mixed = Math.imul(mixed ^ text.charCodeAt(i), 0x01000193)
  return mix(mixed, length)
}

const identifierEnd = 8

/** The end of an identifier, which is random. */
const mixIdentifier = (hash: number, name: string): number => {
  let mixed = mix(hash, name.length)
  for (let i = Math.max(0, name.length - identifierEnd); i < name.length; i++) {
    mixed = Math.imul(mixed ^ name.charCodeAt(i), 0x01000193)
  }
  return mixed
}

/** Deeper values and further items are known by their bytes only. */
const maxDepth = 4
const maxItems = 16

const mixItems = (hash: number, items: ReadonlyArray<unknown>, depth: number): number => {
  let mixed = mix(hash, items.length)
  for (let i = 0; i < items.length && i < maxItems; i++) mixed = mixValue(mixed, items[i], depth)
  return mixed
}

const mixRecord = (hash: number, value: Readonly<Record<string, unknown>>, depth: number): number => {
  let mixed = hash
  let left = maxItems
  for (const key of Object.keys(value)) {
    if (marks.has(key)) continue
    if (left-- === 0) break
    mixed = mixValue(mix(mixed, key.length), value[key], depth)
  }
  return mixed
}

const mixValue = (hash: number, value: unknown, depth = 0): number => {
  if (typeof value === "string") return mixText(hash, value)
  if (typeof value === "number") return mix(hash, value | 0)
  if (typeof value !== "object" || value === null) return mix(hash, value === true ? 1 : 2)
  if (ArrayBuffer.isView(value)) return mix(hash, value.byteLength)
  if (depth >= maxDepth) return hash
  return isRecord(value) ? mixRecord(hash, value, depth + 1) : mixItems(hash, value as Array<unknown>, depth + 1)
}

/** The identifiers by which calls of tools and their results are known, in all protocols. */
const identifierOf = (part: Readonly<Record<string, unknown>>): unknown =>
  part["id"] ?? part["tool_use_id"] ?? part["call_id"] ?? part["tool_call_id"] ?? part["toolCallId"]

const mixPart = (hash: number, part: unknown, isRead = false, depth = 0): number => {
  const text = isRecord(part) ? part["text"] : part
  if (typeof text === "string") return isRead ? mixWell(hash, text) : mixText(hash, text)
  if (!isRecord(part) || depth >= maxDepth) return mixValue(hash, part, depth)
  const id = identifierOf(part)
  if (typeof id !== "string") return mixValue(hash, part)
  const result = part["content"] ?? part["output"]
  const known = mixIdentifier(hash, id)
  return Array.isArray(result)
    ? mixPart(mix(known, result.length), result[0], false, depth + 1)
    : mixValue(known, result)
}

// -----------------------------------------------------------------------------
// Marks
// -----------------------------------------------------------------------------

/** For how long a mark asks to keep what is before it; undefined if it is none. */
const lifetimeOf = (mark: unknown): number | undefined => {
  if (!isRecord(mark)) return undefined
  return mark["ttl"] === "1h" ? anHour : fiveMinutes
}

/** The mark that asks for caching in the options that a model of an SDK has for its provider. */
export const markIn = (options: unknown): unknown => {
  if (!isRecord(options)) return undefined
  for (const own of Object.values(options)) {
    const mark = at(own, "cacheControl") ?? at(own, "cachePoint")
    if (isRecord(mark)) return mark
  }
  return undefined
}

/** The time for which a model of an SDK keeps a prompt without being asked; Anthropic's want to be asked, wherever they are. */
export const keptBy = (provider: string | undefined, model: string): number | undefined =>
  provider === "anthropic" || /claude|anthropic/.test(model) ? undefined : usualLifetime

// -----------------------------------------------------------------------------
// Reading
// -----------------------------------------------------------------------------

/**
 * A prompt that changes far from its end is known by its tools and system prompt only. Of the rewrites in 25,000 calls of coding agents
 * hardly any goes back further than the last prompt.
 */
const maxRead = 256

/** The number of parts of which more is read: conversations differ in their first parts, and later ones have identifiers or follow answers. */
const readParts = 4

/** Messages that agents share, at the beginning of a list of messages. */
const instructing: ReadonlySet<unknown> = new Set(["system", "developer"])

/** Reads a prompt part by part, in the order in which the provider has them: the tools, the system prompt, the messages. */
export class PrefixReader {
  readonly sum: Sum = { text: 0, files: 0 }
  private hash = drawn()
  private second = 1
  private fingerprints: Array<number> = []
  private bytes: Array<number> = []
  private marks: Array<{ index: number; life: number }> = []
  private shared = 0
  /** Whether all messages so far were instructions. */
  private isInstructing = true

  /** Adds what changes the hidden prompt, without being counted: the choice of a tool, thinking. */
  setting(value: unknown): void {
    if (value !== undefined) this.hash = mixValue(mix(this.hash, 3), value)
  }

  /** Tools and formats of answers, which count as schemas. */
  schema(value: unknown): void {
    const { sum } = this
    const before = sum.text
    addSchema(sum, value)
    if (sum.text === before) return
    this.hash = mix(mixSchema(this.hash, value), sum.text - before)
    this.end(Array.isArray(value) ? value.map((tool) => at(tool, "cache_control")).findLast(isRecord) : undefined)
    this.sharedEnd()
  }

  /** The system prompt: a text, or blocks. */
  system(value: unknown): void {
    this.blocks(value)
    this.sharedEnd()
  }

  /** Messages and other items of a conversation. `parts` names the property with the blocks of one. */
  messages(value: unknown, parts: "content" | "parts" = "content"): void {
    if (!Array.isArray(value)) return this.blocks(value)
    for (const message of value) {
      this.message(message, parts)
      this.messageEnd(at(message, "role"))
    }
  }

  private message(message: unknown, name: "content" | "parts"): void {
    const parts = isRecord(message) ? message[name] : undefined
    // A message may be an item with an identifier, such as the result of a tool.
    if (!isRecord(message) || parts === undefined || parts === null || typeof identifierOf(message) === "string") {
      return this.block(message)
    }
    const { sum } = this
    const role = message["role"]
    if (typeof role === "string") this.hash = mix(this.hash, role.length)
    sum.mark = undefined
    addProperties(sum, message, name)
    const { mark } = sum
    const calls = message["tool_calls"]
    if (calls !== undefined) this.hash = mixValue(this.hash, calls)
    this.blocks(parts, mark)
  }

  /** A text, or a list of blocks. A text is the same as a block with it. */
  blocks(value: unknown, mark?: unknown): void {
    if (value === undefined || value === null) return
    const list = Array.isArray(value) ? value : [value]
    for (const block of list) this.block(block)
    this.mark(mark)
  }

  private block(block: unknown): void {
    const { sum } = this
    const before = sum.text
    sum.mark = undefined
    add(sum, block)
    this.hash = mixPart(this.hash, block, this.isRead)
    // A text is known by its length; a call of a tool has an input, which is known by its bytes.
    if (typeof block !== "string" && !(isRecord(block) && typeof block["text"] === "string")) {
      this.hash = mix(this.hash, sum.text - before)
    }
    this.end(sum.mark)
  }

  private get isRead(): boolean {
    return this.fingerprints.length < readParts
  }

  /** A part that the caller has added to the sum. */
  counted(part: unknown, mark?: unknown): void {
    const { bytes, sum } = this
    const more = sum.text - (bytes.at(-1) ?? 0)
    this.hash = mixPart(this.hash, part, this.isRead)
    if (!isRecord(part) || typeof part["text"] !== "string") this.hash = mix(this.hash, more | 0)
    this.end(mark)
  }

  /** The end of a message. Agents share those at the beginning that instruct them. */
  messageEnd(role: unknown): void {
    this.isInstructing &&= instructing.has(role)
    if (this.isInstructing) this.sharedEnd()
  }

  /** The end of what agents share. */
  sharedEnd(): void {
    this.shared = this.fingerprints.length
  }

  private end(mark: unknown): void {
    const { sum } = this
    this.second = mix(this.second, this.hash)
    this.fingerprints.push((this.hash >>> 0) * 0x20_0000 + (this.second & 0x1f_ffff))
    this.bytes.push(sum.text + sum.files)
    this.mark(mark)
  }

  /** A value that may ask to write the cache at the end of what was read. */
  mark(value: unknown): void {
    const life = lifetimeOf(value)
    const index = this.fingerprints.length - 1
    if (life === undefined || index < 0) return
    if (this.marks.at(-1)?.index === index) this.marks.pop()
    this.marks.push({ index, life })
  }

  /** The prefixes of what was read: of a long prompt what agents share, and the last parts. */
  prefixes(automatic: number | undefined): Prefixes {
    const { bytes, fingerprints, marks } = this
    const gone = Math.max(0, fingerprints.length - maxRead)
    const shared = Math.min(this.shared, maxRead)
    if (gone === 0) return { fingerprints, bytes, shared, marks, automatic }
    const first = Math.max(gone, shared)
    const kept = (list: ReadonlyArray<number>) => [...list.slice(0, shared), ...list.slice(first)]
    const moved = marks
      .filter(({ index }) => index < shared || index >= first)
      .map(({ index, life }) => ({ index: index < shared ? index : index - first + shared, life }))
    return { fingerprints: kept(fingerprints), bytes: kept(bytes), shared, marks: moved, automatic }
  }
}

/** Tools are known by their names, and by the lengths of their descriptions. */
const mixSchema = (hash: number, value: unknown): number => {
  if (!Array.isArray(value)) return mixValue(hash, value)
  let mixed = mix(hash, value.length)
  for (const tool of value) mixed = mixTool(mixed, tool)
  return mixed
}

const mixTool = (hash: number, tool: unknown): number => {
  const name = at(tool, "name") ?? at(tool, "function", "name")
  if (typeof name !== "string") return mixValue(hash, tool)
  const description = at(tool, "description") ?? at(tool, "function", "description")
  return mix(mixText(hash, name), typeof description === "string" ? description.length : 0)
}
