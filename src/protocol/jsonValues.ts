/**
 * Counts the values in JSON before it is parsed, because the cost of a parse depends on them more than on the bytes: an empty object
 * has two characters and takes 56 bytes of memory, and a parser looks up each new property name in a table of all names.
 */
import { bounds } from "../domain/bounds.ts"

/**
 * The maximum number of values in a body that is parsed. With that many, the largest bodies take 42 MB, and the slowest about 150 ms
 * to parse. A message with four tool calls has 35 to 40 values, so that 10,000 such messages fit.
 */
export const maxValues = bounds.values.max

/** The number of values that a new property name counts as. */
export const newName = 10

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a
const bracket = 0x5b
const brace = 0x7b
const space = 0x20

/** Within this distance a loop is faster than a call of the platform's search. */
const near = 128

/** The offset of the next quote or backslash, or `to`. */
const endOfPlain = (bytes: Uint8Array, from: number, to: number): number => {
  const looped = Math.min(from + near, to)
  for (let at = from; at < looped; at++) {
    const byte = bytes[at]
    if (byte === quote || byte === backslash) return at
  }
  // The window grows, because a text with many backslashes before its quote would be searched again and again.
  for (let at = looped, length = 2 * near; at < to; at += length, length *= 2) {
    const window = bytes.subarray(at, Math.min(at + length, to))
    const end = window.indexOf(quote)
    const escape = (end < 0 ? window : window.subarray(0, end)).indexOf(backslash)
    if (escape >= 0) return at + escape
    if (end >= 0) return at + end
  }
  return to
}

/** Two names in a million share a bit when there are few, and one in ten at {@link maxValues}. */
const nameBits = 20

/**
 * Counts the values of JSON in UTF-8, part by part, so that a large body need not be counted at once. An empty object or list
 * counts twice, and the first property of each name {@link newName} times more. It is mutable.
 */
export class ValueCounter {
  values = 0
  private readonly bytes: Uint8Array
  private readonly seed: number
  /** The names that were found; undefined if every name counts as new. */
  private readonly names: Uint8Array | undefined
  private at = 0
  /** The offset of the text that is being read; -1 between texts. */
  private text = -1

  /** With a random seed, callers cannot choose names that collide. Without one, every name counts as new. */
  constructor(bytes: Uint8Array, seed?: number) {
    this.bytes = bytes
    this.seed = (seed ?? 0) | 1
    this.names = seed === undefined ? undefined : new Uint8Array(2 ** nameBits / 8)
  }

  /** Counts the next bytes. Returns whether there are more. */
  next(length: number): boolean {
    const { bytes } = this
    const to = Math.min(this.at + length, bytes.length)
    let { at, text, values } = this
    while (at < to) {
      if (text >= 0) {
        at = endOfPlain(bytes, at, to)
        if (at === to) break
        if (bytes[at] === backslash) {
          at += 2
          continue
        }
        if (this.isNewName(text, at)) values += newName
        text = -1
        at++
        continue
      }
      const byte = bytes[at++]
      if (byte === quote) text = at
      // A value is the first one of its list or object, or follows a comma.
      else if (byte === comma || byte === brace || byte === bracket) values++
    }
    this.at = at
    this.text = text
    this.values = values
    return at < bytes.length
  }

  /** Whether a text is the name of a property, and the first of its kind. */
  private isNewName(from: number, to: number): boolean {
    const { bytes, names, seed } = this
    let after = to + 1
    while (bytes[after]! <= space) after++
    if (bytes[after] !== colon) return false
    if (names === undefined) return true
    let hash = seed
    for (let at = from; at < to; at++) hash = Math.imul(hash ^ bytes[at]!, seed) ^ (hash >>> 15)
    const place = hash >>> (32 - nameBits)
    const bit = 1 << (place & 7)
    if ((names[place >>> 3]! & bit) !== 0) return false
    names[place >>> 3]! |= bit
    return true
  }
}

/** The most values that a body can have. It is counted in one pass that allocates nothing, because every name counts as new. */
export const mostValues = (bytes: Uint8Array): number => {
  const counter = new ValueCounter(bytes)
  counter.next(bytes.length)
  return counter.values
}
