/**
 * The prefixes of a request, by content: where each ends, and a fingerprint of everything up to there.
 *
 * A long conversation is sent again with each call, so a text is hashed once for each object that holds it. The memory is
 * checked against the text itself, because callers may change their objects.
 */
import type { ContentBlockParam, MessageParam } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Predicate from "effect/Predicate"
import type { CountParams, Params } from "../LlmProvider.ts"

/** A fingerprint in two halves: with one of 32 bits, some of a hundred thousand prefixes would be taken for each other. */
interface Fingerprint {
  readonly low: number
  readonly high: number
}

/** The end of a prefix within a request: after one of its parts. */
export interface PrefixEnd {
  /** The fingerprint as one number, which is exact up to 2^53. */
  readonly key: number
  /** How long a breakpoint at its end keeps it; undefined if there is none. */
  readonly ttl: "5m" | "1h" | undefined
  /** The keys of the prefixes that end within the part, after each {@link chunk} of its text. */
  readonly cuts: () => ReadonlyArray<number>
  /** The share of the part that each of them has. */
  readonly cutShare: number
}

/** A part of a request: a tool, a block of the system prompt or of a message. */
interface RequestPart {
  readonly value: object
  readonly text: string
  /** Everything else that decides what the model reads. */
  readonly rest: string
  readonly ttl: "5m" | "1h" | undefined
}

const ttlOf = (value: unknown): "5m" | "1h" | undefined => {
  const control = Predicate.hasProperty(value, "cache_control") ? value.cache_control : undefined
  if (!Predicate.isObject(control)) return undefined
  return Predicate.hasProperty(control, "ttl") && control.ttl === "1h" ? "1h" : "5m"
}

/** What a value says besides its long text and its breakpoint. */
const restOf = (value: object, long?: string): string =>
  JSON.stringify(value, (name, part: unknown) => (name === "cache_control" || name === long ? undefined : part))

const partOf = (value: object, role: string): RequestPart => {
  const { text, type } = value as { readonly text?: unknown; readonly type?: unknown }
  // The usual block needs no JSON.
  if (type === "text" && typeof text === "string") return { value, text, rest: role, ttl: ttlOf(value) }
  const { description } = value as { readonly description?: unknown }
  return typeof description === "string"
    ? { value, text: description, rest: `${role}${restOf(value, "description")}`, ttl: ttlOf(value) }
    : { value, text: restOf(value), rest: role, ttl: ttlOf(value) }
}

type PromptContent = string | ReadonlyArray<ContentBlockParam>

/** A text is the same as a list with one block of this text. */
const contentParts = function* (holder: object, content: PromptContent, role: string): Generator<RequestPart> {
  if (typeof content === "string") yield { value: holder, text: content, rest: role, ttl: undefined }
  else for (const block of content) yield partOf(block, role)
}

/** The parts of a request, in the order in which providers read them. */
const partsOf = function* (params: CountParams | Params): Generator<RequestPart> {
  for (const tool of params.tools ?? []) yield partOf(tool, "tool")
  if (params.system !== undefined) yield* contentParts(params, params.system, "system")
  for (const message of params.messages) yield* contentParts(message, message.content as PromptContent, message.role)
}

// -----------------------------------------------------------------------------
// Fingerprints
// -----------------------------------------------------------------------------

const empty: Fingerprint = { low: 0x811c9dc5, high: 0x9e3779b9 }

const joined = ({ high, low }: Fingerprint, next: Fingerprint): Fingerprint => ({
  low: Math.imul(low ^ next.low, 0x01000193) ^ (next.high >>> 15),
  high: Math.imul(high ^ next.high, 0x85ebca6b) ^ (next.low >>> 13)
})

const keyOf = ({ high, low }: Fingerprint): number => (low >>> 0) * 0x20_0000 + (high >>> 11)

/** The fingerprints of a text after each `chunk` characters, and of all of it. */
const hashed = (text: string): ReadonlyArray<Fingerprint> => {
  let { high, low } = empty
  const result: Array<Fingerprint> = []
  for (let index = 0; index < text.length; index++) {
    if (index > 0 && index % chunk === 0) result.push({ low, high })
    const code = text.charCodeAt(index)
    low = Math.imul(low ^ code, 0x01000193)
    high = Math.imul(high ^ code, 0x5bd1e995) ^ (high >>> 15)
  }
  result.push({ low, high })
  return result
}

/** The characters after which an automatic cache may cut a text: about 128 tokens. */
const chunk = 512

const known = new WeakMap<object, { readonly text: string; readonly hashes: ReadonlyArray<Fingerprint> }>()

const hashesOf = ({ text, value }: RequestPart): ReadonlyArray<Fingerprint> => {
  const before = known.get(value)
  if (before?.text === text) return before.hashes
  const hashes = hashed(text)
  known.set(value, { text, hashes })
  return hashes
}

/** The fingerprints of the usual parts, which are only a role beside their text. */
const roles = new Map(["user", "assistant", "system", "tool"].map((role) => [role, hashed(role).at(-1)!]))

/** The ends of the prefixes of a request, after each part. `scope` is whatever else must be equal, such as the model. */
export const endsOf = (params: CountParams | Params, scope: string): ReadonlyArray<PrefixEnd> => {
  const ends: Array<PrefixEnd> = []
  let before = hashed(scope).at(-1)!
  for (const part of partsOf(params)) {
    const hashes = hashesOf(part)
    const from = joined(before, roles.get(part.rest) ?? hashed(part.rest).at(-1)!)
    before = joined(from, hashes.at(-1)!)
    ends.push({
      key: keyOf(before),
      ttl: part.ttl,
      cuts: () => hashes.slice(0, -1).map((hash) => keyOf(joined(from, hash))),
      cutShare: chunk / part.text.length
    })
  }
  // A breakpoint of the whole request is one at its last part.
  const whole = ttlOf(params)
  const last = ends.at(-1)
  if (last !== undefined && whole !== undefined) ends[ends.length - 1] = { ...last, ttl: whole }
  return ends
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
