/**
 * The prefixes of a request, by content: where each ends, and a fingerprint of everything up to there.
 *
 * A long conversation is sent again with each call, so a text is hashed once for each object that holds it. The memory is
 * checked against the text itself, because callers may change their objects.
 */
import type { MessageParam } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Predicate from "effect/Predicate"
import type { CountParams, Params } from "../LlmProvider.ts"

type Ttl = "5m" | "1h" | undefined

/** The prefixes of a request, one after each of its parts. */
export interface RequestPrefixes {
  /** A fingerprint of each as a number, which is exact up to 2^53. */
  readonly keys: ReadonlyArray<number>
  /** How long a breakpoint at its end keeps each; undefined if there is none. */
  readonly ttls: ReadonlyArray<Ttl>
  /** The prefixes that end within a part, after each {@link chunk} of its text, and the share of the part that each of them adds. */
  readonly cutsOf: (part: number) => { readonly keys: ReadonlyArray<number>; readonly share: number }
}

const ttlOf = (value: unknown): Ttl => {
  const control = Predicate.hasProperty(value, "cache_control") ? value.cache_control : undefined
  if (!Predicate.isObject(control)) return undefined
  return Predicate.hasProperty(control, "ttl") && control.ttl === "1h" ? "1h" : "5m"
}

/** The rest of a value, besides its long text and its breakpoint. */
const restOf = (value: object, long?: string): string =>
  JSON.stringify(value, (name, part: unknown) => (name === "cache_control" || name === long ? undefined : part))

// -----------------------------------------------------------------------------
// Fingerprints
// -----------------------------------------------------------------------------

/** The characters after which an automatic cache may cut a text: about 128 tokens. */
const chunk = 512

/**
 * Fingerprints of a text after each chunk, and of all of it. Each has two halves of 32 bits: with one, some of a hundred thousand
 * prefixes would be taken for each other.
 */
const hashed = (text: string): Int32Array => {
  const result = new Int32Array(2 * Math.max(1, Math.ceil(text.length / chunk)))
  let low = 0x811c9dc5 | 0
  let high = 0x9e3779b9 | 0
  let at = 0
  for (let index = 0; index < text.length; index++) {
    if (index > 0 && index % chunk === 0) {
      result[at++] = low
      result[at++] = high
    }
    const code = text.charCodeAt(index)
    low = Math.imul(low ^ code, 0x01000193)
    high = Math.imul(high ^ code, 0x5bd1e995) ^ (high >>> 15)
  }
  result[at++] = low
  result[at] = high
  return result
}

const known = new WeakMap<object, { readonly text: string; readonly hashes: Int32Array }>()

const hashesOf = (holder: object, text: string): Int32Array => {
  const before = known.get(holder)
  if (before?.text === text) return before.hashes
  const hashes = hashed(text)
  known.set(holder, { text, hashes })
  return hashes
}

/** The fingerprints of the usual parts, which are only a role beside their text. */
const roles = new Map(["user", "assistant", "system", "tool"].map((role) => [role, hashed(role)]))

const lowOf = (low: number, nextLow: number, nextHigh: number): number =>
  Math.imul(low ^ nextLow, 0x01000193) ^ (nextHigh >>> 15)
const highOf = (high: number, nextLow: number, nextHigh: number): number =>
  Math.imul(high ^ nextHigh, 0x85ebca6b) ^ (nextLow >>> 13)

const keyOf = (low: number, high: number): number => (low >>> 0) * 0x20_0000 + (high >>> 11)

/** A part whose end was added: its fingerprints, and that of everything before its text. */
interface AddedPart {
  readonly low: number
  readonly high: number
  readonly hashes: Int32Array
  readonly length: number
}

/** Adds the parts of a request one after the other. */
class Chain implements RequestPrefixes {
  readonly keys: Array<number> = []
  readonly ttls: Array<Ttl> = []
  private readonly parts: Array<AddedPart> = []
  private low = 0
  private high = 0

  constructor(scope: string) {
    this.join(hashed(scope), 0)
  }

  private join(hashes: Int32Array, at: number): void {
    const low = hashes[at]!
    const high = hashes[at + 1]!
    this.low = lowOf(this.low, low, high)
    this.high = highOf(this.high, low, high)
  }

  /** Adds a part: its long text, which `holder` has, and everything else that the model reads of it. */
  add(holder: object, text: string, rest: string, ttl: Ttl): void {
    this.join(roles.get(rest) ?? hashed(rest), 0)
    const hashes = hashesOf(holder, text)
    this.parts.push({ low: this.low, high: this.high, hashes, length: text.length })
    this.join(hashes, hashes.length - 2)
    this.keys.push(keyOf(this.low, this.high))
    this.ttls.push(ttl)
  }

  /** Adds a block or a tool. */
  addBlock(value: object, role: string): void {
    const { description, text, type } = value as Readonly<Record<"description" | "text" | "type", unknown>>
    // The usual block needs no JSON.
    if (type === "text" && typeof text === "string") this.add(value, text, role, ttlOf(value))
    else if (typeof description === "string") {
      this.add(value, description, `${role}${restOf(value, "description")}`, ttlOf(value))
    } else this.add(value, restOf(value), role, ttlOf(value))
  }

  /** Adds a content. A text is the same as a list with one block of this text. */
  addContent(holder: object, content: string | ReadonlyArray<object>, role: string): void {
    if (typeof content === "string") this.add(holder, content, role, undefined)
    else for (const block of content) this.addBlock(block, role)
  }

  readonly cutsOf = (part: number): { readonly keys: ReadonlyArray<number>; readonly share: number } => {
    const { hashes, high, length, low } = this.parts[part]!
    const keys: Array<number> = []
    for (let at = 0; at + 2 < hashes.length; at += 2) {
      const nextLow = hashes[at]!
      const nextHigh = hashes[at + 1]!
      keys.push(keyOf(lowOf(low, nextLow, nextHigh), highOf(high, nextLow, nextHigh)))
    }
    return { keys, share: chunk / length }
  }
}

/**
 * The prefixes of a request, in the order in which providers read it: tools, system prompt, messages. `scope` is whatever else must be
 * equal, such as the model.
 */
export const prefixesOf = (params: CountParams | Params, scope: string): RequestPrefixes => {
  const chain = new Chain(scope)
  for (const tool of params.tools ?? []) chain.addBlock(tool, "tool")
  if (params.system !== undefined) chain.addContent(params, params.system, "system")
  for (const message of params.messages) chain.addContent(message, message.content, message.role)
  // A breakpoint of the whole request is one at its last part.
  const whole = ttlOf(params)
  if (whole !== undefined && chain.ttls.length > 0) chain.ttls[chain.ttls.length - 1] = whole
  return chain
}

// -----------------------------------------------------------------------------
// Prefixes as requests
// -----------------------------------------------------------------------------

const messagesUpTo = (messages: ReadonlyArray<MessageParam>, parts: number): Array<MessageParam> => {
  const result: Array<MessageParam> = []
  let left = parts
  for (const message of messages) {
    if (left <= 0) break
    const { content } = message
    const size = typeof content === "string" ? 1 : content.length
    // A slice of a list of blocks is one of the same kind, which the types of roles do not know.
    result.push(size <= left ? message : ({ ...message, content: content.slice(0, left) } as MessageParam))
    left -= size
  }
  return result
}

/** The first parts of a request as a request, for functions that count tokens. */
export const upTo = <A extends CountParams | Params>(params: A, parts: number): A => {
  const tools = params.tools?.slice(0, parts)
  const afterTools = parts - (tools?.length ?? 0)
  const system = typeof params.system === "string" ? [params.system] : params.system
  const kept = afterTools <= 0 ? undefined : system?.slice(0, afterTools)
  const afterSystem = afterTools - (kept?.length ?? 0)
  return {
    ...params,
    tools,
    system: kept === undefined || typeof params.system !== "string" ? kept : params.system,
    messages: messagesUpTo(params.messages, afterSystem)
  }
}
