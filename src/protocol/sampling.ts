/**
 * Samples of a prompt, from which the fingerprints of its prefixes are chained: cheap numbers that say nothing about the text.
 *
 * Reading every byte would cost as much as parsing them.
 */
import { isRecord } from "./json.ts"

/** Drawn when they are first needed, because some runtimes have no random numbers while modules load. */
let drawn: Uint32Array | undefined

/** The secrets of the process: the first begins the fingerprints, the other four the digests (`digest.ts`). */
export const secrets = (): Uint32Array => (drawn ??= globalThis.crypto.getRandomValues(new Uint32Array(5)))

export const mix = (hash: number, value: number): number => {
  const mixed = Math.imul(hash ^ value, 0x9e3779b1)
  return mixed ^ (mixed >>> 15)
}

/** The length of a text, and four of its characters. */
export const mixText = (hash: number, text: string): number => {
  const { length } = text
  if (length === 0) return mix(hash, 0)
  const begun = mix(mix(hash, length), (text.charCodeAt(0) << 16) | text.charCodeAt((length * 0.3) | 0))
  return mix(begun, (text.charCodeAt((length * 0.7) | 0) << 16) | text.charCodeAt(length - 1))
}

/** The characters of a text from one index up to another, or only each `step`th of them. */
const mixEach = (hash: number, text: string, from: number, to: number, step = 1): number => {
  let mixed = hash
  for (let i = from; i < to; i += step) mixed = Math.imul(mixed ^ text.charCodeAt(i | 0), 0x01000193)
  return mixed
}

/** How much is read of each end of a text, and how often between. */
const readEnds = 32
const readBetween = 256

/**
 * More of a text: its ends, where names, numbers and times are, and many characters between. Prompts that were made of one template often
 * have the same length.
 */
export const mixWell = (hash: number, text: string): number => {
  const { length } = text
  const head = Math.min(readEnds, length)
  const tail = Math.max(head, length - readEnds)
  const step = Math.max(1, (tail - head) / readBetween)
  const ofHead = mixEach(mixText(hash, text), text, 0, head)
  const ofMiddle = mixEach(ofHead, text, head, tail, step)
  return mix(mixEach(ofMiddle, text, tail, length), length)
}

const identifierEnd = 8

/** The end of an identifier, which is random. */
export const mixIdentifier = (hash: number, name: string): number =>
  mixEach(mix(hash, name.length), name, Math.max(0, name.length - identifierEnd), name.length)

/** Properties of content that a model does not see: they ask for caching. */
export const marks: ReadonlySet<string> = new Set(["cache_control", "prompt_cache_breakpoint"])

/** Deeper values and further items are not read. */
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

/** Any value. */
export const mixValue = (hash: number, value: unknown, depth = 0): number => {
  if (typeof value === "string") return mixText(hash, value)
  if (typeof value === "number") return mix(hash, value | 0)
  if (typeof value !== "object" || value === null) return mix(hash, value === true ? 1 : 2)
  if (ArrayBuffer.isView(value)) return mix(hash, value.byteLength)
  if (depth >= maxDepth) return hash
  return isRecord(value) ? mixRecord(hash, value, depth + 1) : mixItems(hash, value as Array<unknown>, depth + 1)
}
