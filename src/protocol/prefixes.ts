/**
 * The prefixes of a prompt, by their content: what a provider may have in its cache when the next request begins in the same way.
 *
 * A prompt is read in one pass with its size. After each part (the tools, a block of the system prompt, a block of a message) the
 * fingerprint of everything up to there is noted. It is a number of 53 bits, chained from a secret of the process, so it says nothing
 * about the text, and two processes do not share it. It is chained from the samples that the size takes on its way (`sampling.ts`): the
 * length of a text and four of its characters, the end of an identifier, and the bytes of tools and of what they are called with. Of the
 * first parts it reads more. A change that it does not see makes an estimate worse and nothing else.
 *
 * What asks for caching (`cache_control`) is not part of a fingerprint, because it moves on with each request.
 *
 * A cap in dollars believes no samples. If a call pays from one, all of its prompt is read once more, and what ends with a message gets a
 * digest (`digest.ts`).
 */
import { Digest } from "./digest.ts"
import { at, isRecord } from "./json.ts"
import type { Prefixes } from "./models.ts"
import { add, addProperties, addSchema, newSum, type Sum } from "./requestSize.ts"
import { mix, mixIdentifier, mixText, mixValue, mixWell, secrets } from "./sampling.ts"

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

/**
 * The last reader, which holds no text. A full collection while no object of a class is alive discards the optimized code of its methods,
 * and until that is compiled again recognising a conversation takes several times as long.
 */
const last: { reader: PrefixReader | undefined } = { reader: undefined }

/** The content that a reader holds when it has read its prompt. */
const nothing: PromptContent = { values: [], ends: [] }

/** Reads a prompt part by part, in the order in which the provider has them: the tools, the system prompt, the messages. */
export class PrefixReader {
  /** Its samples begin with the secret. */
  readonly sum: Sum = newSum(secrets()[0]! | 0)
  private second = 1
  private fingerprints: Array<number> = []
  private bytes: Array<number> = []
  private marks: Array<{ index: number; life: number }> = []
  private shared = 0
  private content: PromptContent = { values: [], ends: [] }
  /** Whether all messages so far were instructions. */
  private isInstructing = true

  /** Adds what changes the hidden prompt, without being counted: the choice of a tool, thinking. */
  setting(value: unknown): void {
    if (value === undefined) return
    this.role(value)
    this.upTo(value)
  }

  /** The role of a message whose parts the caller adds. */
  role(value: unknown): void {
    const { sum } = this
    sum.samples = mixValue(mix(sum.samples, 3), value)
  }

  /** Notes that a value is all that was read since the last one. */
  private upTo(value: unknown): void {
    const { ends, values } = this.content
    ends[values.length] = this.fingerprints.length - 1
    values[values.length] = value
  }

  /** Tools and formats of answers, which count as schemas. */
  schema(value: unknown): void {
    const { sum } = this
    const before = sum.text
    addSchema(sum, value)
    if (sum.text === before) return
    sum.samples = mix(mixSchema(sum.samples, value), sum.text - before)
    this.end(Array.isArray(value) ? lastMark(value) : undefined)
    this.upTo(value)
    this.sharedEnd()
  }

  /** The system prompt: a text, or blocks. */
  system(value: unknown): void {
    this.blocks(value)
    this.upTo(value)
    this.sharedEnd()
  }

  /** Messages and other items of a conversation. `parts` names the property with the blocks of one. */
  messages(value: unknown, parts: "content" | "parts" = "content"): void {
    if (!Array.isArray(value)) {
      this.blocks(value)
      return this.upTo(value)
    }
    const { ends, values } = this.content
    for (const message of value) {
      this.message(message, parts)
      // As `upTo`, without a call for each message.
      ends[values.length] = this.fingerprints.length - 1
      values[values.length] = message
      if (this.isInstructing) this.messageEnd(at(message, "role"))
    }
  }

  private message(message: unknown, name: "content" | "parts"): void {
    const parts = isRecord(message) ? message[name] : undefined
    // It may be an item without parts, such as the result of a tool.
    if (!isRecord(message) || parts === undefined || parts === null) return this.block(message)
    const { sum } = this
    sum.mark = undefined
    addProperties(sum, message, name)
    this.blocks(parts, sum.mark)
  }

  /** A text, or a list of blocks. A text is the same as a block with it. */
  blocks(value: unknown, mark?: unknown): void {
    if (value === undefined || value === null) return
    if (Array.isArray(value)) for (const block of value) this.block(block)
    else this.block(value)
    if (mark !== undefined) this.mark(mark)
  }

  private block(block: unknown): void {
    const { sum } = this
    const { samples } = sum
    sum.mark = undefined
    add(sum, block)
    const text = isRecord(block) ? block["text"] : block
    if (typeof text === "string") sum.samples = this.mixed(samples, text)
    this.end(sum.mark)
  }

  private mixed(samples: number, text: string): number {
    return this.fingerprints.length < readParts ? mixWell(samples, text) : mixText(samples, text)
  }

  /** A schema that the caller has added to the sum, as a text. */
  countedSchema(part: unknown, text: string): void {
    this.counted(part)
    this.upTo(text)
  }

  /** A part that the caller has added to the sum. */
  counted(part: unknown, mark?: unknown): void {
    const { bytes, sum } = this
    const text = isRecord(part) ? part["text"] : part
    if (typeof text === "string") sum.samples = this.mixed(sum.samples, text)
    else sum.samples = mix(mixPart(sum.samples, part), (sum.text - (bytes.at(-1) ?? 0)) | 0)
    this.end(mark)
  }

  /** The end of a message whose parts the caller has added. */
  countedMessage(message: { readonly role: unknown }): void {
    this.upTo(message)
    this.messageEnd(message.role)
  }

  /** The end of a message. Agents share those at the beginning that instruct them. */
  private messageEnd(role: unknown): void {
    this.isInstructing &&= instructing.has(role)
    if (this.isInstructing) this.sharedEnd()
  }

  /** The end of what agents share. */
  sharedEnd(): void {
    this.shared = this.fingerprints.length
  }

  private end(mark: unknown): void {
    const { bytes, fingerprints } = this
    const { files, samples, text } = this.sum
    const second = (this.second = mix(this.second, samples))
    // In code that is not compiled yet, which most calls of a short process run, `push` takes several times as long.
    const index = bytes.length
    fingerprints[index] = (samples >>> 0) * 0x20_0000 + (second & 0x1f_ffff)
    bytes[index] = text + files
    if (mark !== undefined) this.mark(mark)
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
    const { content } = this
    this.sum.mark = undefined
    last.reader = this
    this.content = nothing
    const { bytes, fingerprints, marks } = this
    const gone = Math.max(0, fingerprints.length - maxRead)
    const shared = Math.min(this.shared, maxRead)
    if (gone === 0) return new ReadPrefixes({ fingerprints, bytes, shared, marks, automatic }, content)
    const first = Math.max(gone, shared)
    const kept = (list: ReadonlyArray<number>) => [...list.slice(0, shared), ...list.slice(first)]
    const movedTo = (index: number): number => {
      if (index < shared) return index
      return index >= first ? index - first + shared : -1
    }
    const moved = marks.map(({ index, life }) => ({ index: movedTo(index), life })).filter(({ index }) => index >= 0)
    return new ReadPrefixes(
      { fingerprints: kept(fingerprints), bytes: kept(bytes), shared, marks: moved, automatic },
      { values: content.values, ends: content.ends.map(movedTo) }
    )
  }
}

// -----------------------------------------------------------------------------
// Verifying
// -----------------------------------------------------------------------------

/** A prompt, value by value, and the index of the prefix that ends after each; negative if none does. */
interface PromptContent {
  readonly values: Array<unknown>
  readonly ends: Array<number>
}

/** The prefixes of a prompt, with what it says until it is known whether that must be read. */
export class ReadPrefixes implements Prefixes {
  readonly fingerprints: Prefixes["fingerprints"]
  readonly bytes: Prefixes["bytes"]
  readonly shared: number
  readonly marks: Prefixes["marks"]
  readonly automatic: number | undefined
  /**
   * The digest of each prefix that ends with a message, and so where no token spans its end; NaN for the others. Undefined if it was not
   * read.
   */
  digests: ReadonlyArray<number> | undefined = undefined
  /** Whether the prompt may ask to keep the cache for longer than usual. */
  asksLong = true
  /** The content that is not read yet; undefined if it is not needed any more. */
  content: PromptContent | undefined

  constructor({ automatic, bytes, fingerprints, marks, shared }: Prefixes, content: PromptContent) {
    this.fingerprints = fingerprints
    this.bytes = bytes
    this.shared = shared
    this.marks = marks
    this.automatic = automatic
    this.content = content
  }

  /** Reads all of the prompt, and lets go of it. Only the first call has it. */
  read(): void {
    const { bytes, content, marks } = this
    this.content = undefined
    if (content === undefined) return
    const { ends, values } = content
    const digest = new Digest()
    const digests = bytes.map(() => Number.NaN)
    for (let n = 0; n < values.length; n++) {
      digest.read(values[n])
      if (ends[n]! >= 0) digests[ends[n]!] = digest.value
    }
    this.digests = digests
    // A mark around the prompt is in none of its values.
    this.asksLong = digest.asksLong || Number.isNaN(digest.value) || marks.some(({ life }) => life > fiveMinutes)
  }
}

/** The identifiers by which SDKs know calls of tools and their results. */
const identifierOf = (part: Readonly<Record<string, unknown>>): unknown => part["id"] ?? part["toolCallId"]

/** A part without a text: by its identifier and its result, if it has one. */
const mixPart = (hash: number, part: unknown): number => {
  const id = isRecord(part) ? identifierOf(part) : undefined
  if (!isRecord(part) || typeof id !== "string") return mixValue(hash, part)
  return mixValue(mixIdentifier(hash, id), part["content"] ?? part["output"])
}

/** Tools are known by their names, and by the lengths of their descriptions. */
const mixSchema = (hash: number, value: unknown): number => {
  if (!Array.isArray(value)) return mixValue(hash, value)
  let mixed = mix(hash, value.length)
  for (const tool of value) mixed = mixTool(mixed, tool)
  return mixed
}

const mixTool = (hash: number, tool: unknown): number => {
  // Chat Completions have the tool within a property.
  const named = isRecord(tool) && typeof tool["name"] !== "string" ? tool["function"] : tool
  if (!isRecord(named)) return mixValue(hash, tool)
  const { description, name } = named
  if (typeof name !== "string") return mixValue(hash, tool)
  return mix(mixText(hash, name), typeof description === "string" ? description.length : 0)
}

/** The mark of the last tool that asks for caching. */
const lastMark = (tools: ReadonlyArray<unknown>): unknown => {
  for (let index = tools.length - 1; index >= 0; index--) {
    const tool = tools[index]
    if (isRecord(tool) && isRecord(tool["cache_control"])) return tool["cache_control"]
  }
  return undefined
}
