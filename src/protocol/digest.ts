/**
 * Digests of what a prompt says, byte by byte: where money is reserved, samples (`sampling.ts`) would be too little.
 *
 * Each word goes through two multiplications with secrets of the process before it is added to the sum of all, so that nobody can tell
 * which change another one would undo. The secrets and the digests leave no process, so nobody can look for two prompts with one
 * digest either: each try is a call that is paid for. A hash of a library would need a module of Node, or be too slow in JavaScript:
 * SipHash with half its words takes three times as long. What cannot be read to the end, such as a picture at an address, has no digest,
 * and neither has what follows.
 */
import { isRecord, textOf } from "./json.ts"
import { encoded, inParts, scratch, scratchWords } from "./requestSize.ts"
import { marks as sampledMarks, secrets } from "./sampling.ts"

/** Below this many units, a text is read unit by unit. Calling the encoder would take longer. */
const shortUnits = 64

/** Content is never nested this deeply. */
const maxDepth = 200

const kinds = { text: 1, long: 2, number: 3, true: 4, false: 5, none: 6, list: 7, record: 8, end: 9, bytes: 10 }

const float = /* @__PURE__ */ new Float64Array(1)
const floatWords = /* @__PURE__ */ new Int32Array(float.buffer)

/**
 * Properties with the caller's own data, and with schemas: the names in them have no meaning, so that nothing in them is left out.
 */
const own: ReadonlySet<string> = new Set(
  "input arguments args response params result output parameters input_schema inputSchema properties schema json_schema".split(
    " "
  )
)

/** Properties that ask for caching, which the model does not see. They move on with each request. */
const marks: ReadonlySet<string> = /* @__PURE__ */ new Set([...sampledMarks, "cacheControl", "cachePoint"])

/** Nothing that a model could be asked to read fits into a mark: a type and a lifetime. */
const isMark = (value: unknown): value is Readonly<Record<string, unknown>> => {
  if (!isRecord(value)) return false
  const words = Object.entries(value).flat()
  return (
    words.length <= 4 && words.every((word) => word === undefined || (typeof word === "string" && word.length <= 16))
  )
}

/** Properties with an address. The content at an address may change. */
const addresses: ReadonlySet<string> = new Set(["url", "image_url", "file_url", "fileUri", "file_uri", "uri"])

/** Whether an object has nothing but its properties, in any realm. */
const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

/** Reads values one after another. */
export class Digest {
  /** Whether a value asks to keep the cache for longer than usual. */
  asksLong = false
  /** Whether all was read. */
  private isWhole = true
  private chain: number
  private sum: number
  private readonly one: number
  private readonly other: number

  constructor() {
    const [chain = 0, sum = 0, one = 0, other = 0] = secrets().subarray(1)
    this.chain = chain | 0
    this.sum = sum | 0
    this.one = one | 1
    this.other = other | 1
  }

  /** The digest of what was read so far, a number of 53 bits; NaN, which equals nothing, if a part of it cannot be read. */
  get value(): number {
    if (!this.isWhole) return Number.NaN
    const { chain, sum } = this
    const high = mixed(sum ^ Math.imul(chain, this.other))
    const low = mixed(chain ^ high)
    return (high >>> 0) * 0x20_0000 + (low & 0x1f_ffff)
  }

  /** Reads a value. In the caller's own data nothing is left out. */
  read(value: unknown, isOwn = false, depth = 0): void {
    switch (typeof value) {
      case "string":
        return value.length < shortUnits ? this.short(value) : this.long(value)
      case "number":
        float[0] = value
        this.word(kinds.number)
        this.word(floatWords[0]!)
        return this.word(floatWords[1]!)
      case "boolean":
        return this.word(value ? kinds.true : kinds.false)
      case "undefined":
        return this.word(kinds.none)
      case "object":
        if (value === null) return this.word(kinds.none)
        if (depth < maxDepth) return this.object(value, isOwn, depth + 1)
    }
    this.isWhole = false
  }

  private object(value: object, isOwn: boolean, depth: number): void {
    if (Array.isArray(value)) {
      this.word(kinds.list)
      this.word(value.length)
      for (const item of value) this.read(item, isOwn, depth)
    } else if (value instanceof Uint8Array) this.bytes(value)
    else if (isPlain(value)) this.record(value as Readonly<Record<string, unknown>>, isOwn, depth)
    else this.isWhole = false
  }

  private record(value: Readonly<Record<string, unknown>>, isOwn: boolean, depth: number): void {
    this.word(kinds.record)
    for (const key of Object.keys(value)) {
      const item = value[key]
      if (!isOwn && marks.has(key) && isMark(item)) {
        const ttl = item["ttl"]
        this.asksLong ||= ttl !== undefined && ttl !== "5m"
        continue
      }
      if (!isOwn && addresses.has(key) && textOf(item)?.startsWith("data:") === false) this.isWhole = false
      this.short(key)
      this.read(item, isOwn || own.has(key), depth)
    }
    this.word(kinds.end)
  }

  private short(text: string): void {
    const { length } = text
    this.word(kinds.text)
    this.word(length)
    let at = 1
    for (; at < length; at += 2) this.word(text.charCodeAt(at - 1) | (text.charCodeAt(at) << 16))
    if (at === length) this.word(text.charCodeAt(at - 1))
  }

  private long(text: string): void {
    this.word(kinds.long)
    this.word(text.length)
    inParts(text, (part) => {
      const written = encoded(part)
      // The encoder replaces half a surrogate pair, so that texts that differ would be the same.
      if (written > part.length && !part.isWellFormed()) this.isWhole = false
      this.fromScratch(written)
      return 0
    })
  }

  private bytes(bytes: Uint8Array): void {
    this.word(kinds.bytes)
    this.word(bytes.length)
    for (let from = 0; from < bytes.length; from += scratch.length) {
      const part = bytes.subarray(from, from + scratch.length)
      scratch.set(part)
      this.fromScratch(part.length)
    }
  }

  /** Reads so many bytes of the scratch. */
  private fromScratch(length: number): void {
    if ((length & 3) !== 0) scratch.fill(0, length, (length | 3) + 1)
    this.words((length + 3) >>> 2)
  }

  private word(word: number): void {
    const chain = Math.imul(this.chain ^ word, this.one)
    this.chain = (chain << 16) | (chain >>> 16)
    this.sum = Math.imul(this.sum ^ this.chain, this.other)
  }

  /** Reads so many words of the scratch. Four at a time, which takes a tenth less. */
  private words(count: number): void {
    const { one, other } = this
    let { chain, sum } = this
    const fours = count & ~3
    for (let at = 0; at < fours; at += 4) {
      chain = Math.imul(chain ^ scratchWords[at]!, one)
      chain = (chain << 16) | (chain >>> 16)
      sum = Math.imul(sum ^ chain, other)
      chain = Math.imul(chain ^ scratchWords[at + 1]!, one)
      chain = (chain << 16) | (chain >>> 16)
      sum = Math.imul(sum ^ chain, other)
      chain = Math.imul(chain ^ scratchWords[at + 2]!, one)
      chain = (chain << 16) | (chain >>> 16)
      sum = Math.imul(sum ^ chain, other)
      chain = Math.imul(chain ^ scratchWords[at + 3]!, one)
      chain = (chain << 16) | (chain >>> 16)
      sum = Math.imul(sum ^ chain, other)
    }
    this.chain = chain
    this.sum = sum
    for (let at = fours; at < count; at++) this.word(scratchWords[at]!)
  }
}

/** Spreads each bit over all others, as MurmurHash3 ends. */
const mixed = (hash: number): number => {
  const once = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35)
  return twice ^ (twice >>> 16)
}
