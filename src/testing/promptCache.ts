/**
 * The prompt cache of a simulated provider: prefixes by content, which live for a time after their last use.
 *
 * A prefix is in the cache once the answer to the call that brought it has begun, so of many equal calls at once each pays for
 * its whole prompt.
 */
import type { CountParams, Params } from "../LlmProvider.ts"
import * as Lru from "../domain/input/lru.ts"
import * as Prefixes from "./prefixes.ts"

/** How a provider caches. */
export type CacheMode = "breakpoints" | "automatic"

/** A prefix in the cache. An automatic cache also holds those that end within its last part, which live as long. */
interface LivePrefix {
  readonly lifetimeMillis: number
  usedAt: number
}

/** A cache. It is mutable. */
export interface PromptCache {
  readonly mode: CacheMode
  readonly prefixes: Map<number, LivePrefix>
}

/** What a call reads from the cache and writes to it. */
export interface CacheUse {
  readonly readTokens: number
  readonly writtenTokens: number
  /** The part of those that is kept for an hour. */
  readonly writtenLongTokens: number
  /** The prefixes that it uses, which then live longer. */
  readonly used: ReadonlyArray<number>
  /** The prefixes that it brings: the keys of each, and how long it lives. */
  readonly brought: ReadonlyArray<readonly [keys: ReadonlyArray<number>, lifetimeMillis: number]>
}

/** Lifetimes, refreshed by use (https://platform.claude.com/docs/en/build-with-claude/prompt-caching). */
const lifetimes = { "5m": 300_000, "1h": 3_600_000 }

/** How many parts before a breakpoint are searched for a prefix that an earlier request ended with (same page). */
const lookback = 20

/** OpenAI caches from 1,024 tokens on, in steps of 128 (https://platform.openai.com/docs/guides/prompt-caching). */
const automatic = { min: 1_024, step: 128 }

/** Claude's shortest prefixes that are cached, by the beginning of the model's name without `claude-`; all others 1,024. */
const shortest: ReadonlyArray<readonly [name: string, tokens: number]> = [
  ["opus-4-5", 4_096],
  ["opus-4-6", 4_096],
  ["opus-4-7", 2_048],
  ["opus-5", 512],
  ["fable-5", 512],
  ["mythos-5", 512],
  ["haiku-4-5", 4_096],
  ["3-5-haiku", 2_048],
  ["3-haiku", 2_048]
]

/** The shortest prefix that is cached for a model of Claude, in tokens. */
const minTokens = (model: string): number => {
  const name = /claude-(.*)$/.exec(model)?.[1] ?? model
  return shortest.find(([start]) => name.startsWith(start))?.[1] ?? 1_024
}

/** More prefixes than the conversations of a day have; the least recently used go first. */
const maxPrefixes = 200_000

export const make = (mode: CacheMode): PromptCache => ({ mode, prefixes: new Map() })

const isLive = ({ prefixes }: PromptCache, key: number, now: number): boolean => {
  const prefix = prefixes.get(key)
  return prefix !== undefined && now < prefix.usedAt + prefix.lifetimeMillis
}

/** The tokens of the first parts of a request. */
type CountParts = (parts: number) => number

/** The last of the ends that is in the cache; -1 if none is. An automatic cache holds every prefix of what it has read. */
const foundAt = (cache: PromptCache, ends: ReadonlyArray<Prefixes.PrefixEnd>, now: number): number => {
  const isCached = (index: number) => isLive(cache, ends[index]!.key, now)
  if (cache.mode === "automatic") {
    let found = -1
    while (found + 1 < ends.length && isCached(found + 1)) found++
    return found
  }
  for (let last = ends.length - 1, left = 0; last >= 0; last--, left--) {
    if (ends[last]!.ttl !== undefined) left = lookback
    if (left > 0 && isCached(last)) return last
  }
  return -1
}

/** What an automatic cache reads and writes of a prompt of `tokens`: up to the last part that it knows, and some of the next. */
const automaticUse = (
  cache: PromptCache,
  ends: ReadonlyArray<Prefixes.PrefixEnd>,
  now: number,
  count: CountParts,
  tokens: number
): CacheUse => {
  const inSteps = (some: number): number => {
    // The last token is always read, because the answer begins with it.
    const whole = Math.floor(Math.min(some, tokens - 1) / automatic.step + 1e-9) * automatic.step
    return whole < automatic.min ? 0 : whole
  }
  const whole = foundAt(cache, ends, now) + 1
  const next = ends[whole]
  const cuts = next?.cuts() ?? []
  const missing = cuts.findIndex((key) => !isLive(cache, key, now))
  const share = (missing < 0 ? cuts.length : missing) * (next?.cutShare ?? 0)
  const before = whole === 0 ? 0 : count(whole)
  const readTokens = inSteps(share === 0 ? before : before + share * (count(whole + 1) - before))
  return {
    readTokens,
    writtenTokens: inSteps(tokens) - readTokens,
    writtenLongTokens: 0,
    used: [...ends.slice(0, whole).map(({ key }) => key), ...cuts.slice(0, 1)],
    brought: ends.slice(whole).map((end) => [[end.key, ...end.cuts()], lifetimes["5m"]])
  }
}

/** What a cache with breakpoints reads and writes. */
const breakpointUse = (
  { prefixes }: PromptCache,
  ends: ReadonlyArray<Prefixes.PrefixEnd>,
  found: number,
  count: CountParts,
  min: number
): CacheUse => {
  const readTokens = found < 0 ? 0 : count(found + 1)
  const brought: Array<[Array<number>, number]> = []
  let [until, long] = [readTokens, 0]
  for (let index = found + 1; index < ends.length; index++) {
    const end = ends[index]!
    if (end.ttl === undefined) continue
    const tokens = count(index + 1)
    if (tokens < min) continue
    brought.push([[end.key], lifetimes[end.ttl]])
    if (end.ttl === "1h") long += tokens - until
    until = tokens
  }
  return {
    readTokens,
    writtenTokens: until - readTokens,
    writtenLongTokens: long,
    used: ends.slice(0, found + 1).flatMap(({ key }) => (prefixes.has(key) ? [key] : [])),
    brought
  }
}

/** What a request would read and write at `now`. `count` counts the tokens of its first parts, `tokens` are those of all. */
export const look = (
  cache: PromptCache,
  now: number,
  params: CountParams | Params,
  tokens: number,
  count: CountParts
): CacheUse => {
  const ends = Prefixes.endsOf(params, params.model)
  const atMost: CountParts = (parts) => Math.min(tokens, count(parts))
  return cache.mode === "automatic"
    ? automaticUse(cache, ends, now, atMost, tokens)
    : breakpointUse(cache, ends, foundAt(cache, ends, now), atMost, minTokens(params.model))
}

/** A call that was admitted at `now` uses its prefixes: they live for another lifetime. */
export const refresh = ({ prefixes }: PromptCache, now: number, { used }: CacheUse): void => {
  for (const key of used) {
    const prefix = prefixes.get(key)
    if (prefix === undefined || now >= prefix.usedAt + prefix.lifetimeMillis) continue
    prefix.usedAt = now
    Lru.put(prefixes, key, prefix, maxPrefixes)
  }
}

/** The answer to a call has begun at `now`: what it has brought can be read. */
export const write = ({ prefixes }: PromptCache, now: number, { brought }: CacheUse): void => {
  for (const [keys, lifetimeMillis] of brought) {
    const prefix = { lifetimeMillis, usedAt: now }
    for (const key of keys) Lru.put(prefixes, key, prefix, maxPrefixes)
  }
}
