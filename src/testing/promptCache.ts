/**
 * The prompt cache of a simulated provider: prefixes by content, which live for a time after their last use.
 *
 * A prefix is in the cache once the answer to the call that brought it has begun, so of many equal calls at once each pays for
 * its whole prompt.
 */
import type { CountParams, Params } from "../LlmProvider.ts"
import * as Lru from "../domain/input/lru.ts"
import * as Prefixes from "./prefixes.ts"

/** A provider's way to cache. */
export type CacheMode = "breakpoints" | "automatic"

/** A prefix in the cache. An automatic cache also holds those that end within its last part, which live as long. */
interface LivePrefix {
  readonly lifetimeMillis: number
  usedAt: number
}

/** A cache. It is mutable. */
export interface PromptCache {
  readonly mode: CacheMode
  /** For how long a prefix is kept; undefined for as long as the provider says. */
  readonly millis: number | undefined
  readonly prefixes: Map<number, LivePrefix>
}

/** The tokens that a call reads from the cache and writes to it. */
export interface CacheUse {
  readonly readTokens: number
  readonly writtenTokens: number
  /** The part of those that is kept for an hour. */
  readonly writtenLongTokens: number
  /** The prefixes that it uses, which then live longer. */
  readonly used: ReadonlyArray<number>
  /** The prefixes that it brings: the keys of each, and how long it lives. Rejected calls never ask for them. */
  readonly brought: () => ReadonlyArray<readonly [keys: ReadonlyArray<number>, lifetimeMillis: number]>
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

export const make = (mode: CacheMode, millis: number | undefined): PromptCache => ({
  mode,
  millis,
  prefixes: new Map()
})

const isLive = ({ prefixes }: PromptCache, key: number, now: number): boolean => {
  const prefix = prefixes.get(key)
  return prefix !== undefined && now < prefix.usedAt + prefix.lifetimeMillis
}

/** The tokens of the first parts of a request. */
type CountParts = (parts: number) => number

/** Counts the parts of a request that are in the cache. An automatic cache holds every prefix of what it has read. */
const cachedParts = (cache: PromptCache, { keys, ttls }: Prefixes.RequestPrefixes, now: number): number => {
  if (cache.mode === "automatic") {
    let parts = 0
    while (parts < keys.length && isLive(cache, keys[parts]!, now)) parts++
    return parts
  }
  for (let parts = keys.length, left = 0; parts > 0; parts--, left--) {
    if (ttls[parts - 1] !== undefined) left = lookback
    if (left > 0 && isLive(cache, keys[parts - 1]!, now)) return parts
  }
  return 0
}

/** The use of an automatic cache by a prompt of `tokens`: the parts that it knows, and some of the next. */
const automaticUse = (
  cache: PromptCache,
  prefixes: Prefixes.RequestPrefixes,
  now: number,
  count: CountParts,
  tokens: number
): CacheUse => {
  const inSteps = (some: number): number => {
    // The last token is always read, because the answer begins with it.
    const whole = Math.floor(Math.min(some, tokens - 1) / automatic.step + 1e-9) * automatic.step
    return whole < automatic.min ? 0 : whole
  }
  const { keys } = prefixes
  const parts = cachedParts(cache, prefixes, now)
  const next = parts < keys.length ? prefixes.cutsOf(parts) : { keys: [], share: 0 }
  const missing = next.keys.findIndex((key) => !isLive(cache, key, now))
  const share = (missing < 0 ? next.keys.length : missing) * next.share
  const before = parts === 0 ? 0 : count(parts)
  const readTokens = inSteps(share === 0 ? before : before + share * (count(parts + 1) - before))
  return {
    readTokens,
    writtenTokens: inSteps(tokens) - readTokens,
    writtenLongTokens: 0,
    used: [...keys.slice(0, parts), ...next.keys.slice(0, 1)],
    brought: () =>
      keys.slice(parts).map((key, index) => [[key, ...prefixes.cutsOf(parts + index).keys], lifetimes["5m"]] as const)
  }
}

/** The use of a cache with breakpoints. */
const breakpointUse = (
  cache: PromptCache,
  prefixes: Prefixes.RequestPrefixes,
  now: number,
  count: CountParts,
  min: number
): CacheUse => {
  const { keys, ttls } = prefixes
  const parts = cachedParts(cache, prefixes, now)
  const readTokens = parts === 0 ? 0 : count(parts)
  const brought: Array<[Array<number>, number]> = []
  let [until, long] = [readTokens, 0]
  for (let index = parts; index < keys.length; index++) {
    const ttl = ttls[index]
    if (ttl === undefined) continue
    const tokens = count(index + 1)
    if (tokens < min) continue
    brought.push([[keys[index]!], lifetimes[ttl]])
    if (ttl === "1h") long += tokens - until
    until = tokens
  }
  return {
    readTokens,
    writtenTokens: until - readTokens,
    writtenLongTokens: long,
    used: keys.slice(0, parts).filter((key) => cache.prefixes.has(key)),
    brought: () => brought
  }
}

/** The use of the cache by a request at `now`. `count` counts the tokens of its first parts, `tokens` are those of all. */
export const look = (
  cache: PromptCache,
  now: number,
  params: CountParams | Params,
  tokens: number,
  count: CountParts
): CacheUse => {
  const prefixes = Prefixes.prefixesOf(params, params.model)
  const atMost: CountParts = (parts) => Math.min(tokens, count(parts))
  return cache.mode === "automatic"
    ? automaticUse(cache, prefixes, now, atMost, tokens)
    : breakpointUse(cache, prefixes, now, atMost, minTokens(params.model))
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
export const write = ({ millis, prefixes }: PromptCache, now: number, { brought }: CacheUse): void => {
  for (const [keys, lifetimeMillis] of brought()) {
    const prefix = { lifetimeMillis: millis ?? lifetimeMillis, usedAt: now }
    for (const key of keys) Lru.put(prefixes, key, prefix, maxPrefixes)
  }
}
