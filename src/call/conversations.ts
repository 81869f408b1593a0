/**
 * A governor's memory of prompts: how many tokens each prefix has, and until when the provider has it in its cache.
 *
 * A prefix is known by its content (`protocol/prefixes.ts`) within one scope: the account, the pool and the model, because a cache
 * belongs to these, and the caller of a gateway, because no caller's wait may tell it what another one has sent. A conversation that
 * the provider stores is known by its id. No text is kept. Callers share one bounded memory fairly.
 */
import * as Amounts from "../domain/amounts.ts"
import * as Lru from "../domain/input/lru.ts"
import { maxPrompt } from "../domain/prices.ts"
import type * as Estimator from "../Estimator.ts"
import { type Prefixes, ReadPrefixes, usualLifetime } from "../protocol/prefixes.ts"
import * as Lifetimes from "./lifetimes.ts"
import { type SharedThing, FairShares } from "./fairShares.ts"
import type { ReportedUsage } from "./reported.ts"

/**
 * A prefix takes about 190 bytes, with its place in a conversation, so all take at most 10 MB. A conversation has a few dozen, and those
 * of more than a thousand agents at work fit.
 */
const maxPrefixes = 50_000

/**
 * The prefixes of a conversation that are remembered, besides those that agents share and the last two ends: with the parts of its last
 * prompt a rewritten history is found again.
 */
const lastParts = 32

/** A conversation that the provider stores counts as so many prefixes, because its id and its prefix take about 250 bytes. */
const sizeOfStored = 2

/** The scopes of which it is known that their answers bound nothing. */
const maxScopes = 1_000

/** The pools whose lifetimes are learned. Their names come with requests. */
const maxPools = 1_000

/** A prefix, as the provider has counted it. */
interface CountedPrefix {
  readonly fingerprint: number
  tokens: number
  /** Whether the provider has counted it; otherwise its tokens are those of its share of the bytes. */
  isCounted: boolean
  /** When an answer that read or wrote it began, in milliseconds. */
  usedAt: number
  /** How long the provider keeps it after that; {@link Lifetimes.none} if it has not written it to its cache. */
  life: Lifetimes.Lifetime
  /** How many conversations have it. */
  holders: number
  /** The conversation whose last prompt it is. */
  endOf: KnownConversation | undefined
  /** The answer about it, if all of it was read for a cap in dollars. */
  verified: AnsweredPrefix | undefined
}

/** A prefix of which all was read, by its digest. */
interface AnsweredPrefix {
  readonly digest: number
  /** The tokens that it has at most: those that were reported for it, or else for a prompt that begins with it. */
  readonly tokens: number
  /** Whether it was a whole prompt. */
  readonly isWhole: boolean
  /** The model that answered. */
  readonly model: string | undefined
}

/** A prefix that is, byte for byte, one that was answered. */
export interface VerifiedPrefix extends Omit<AnsweredPrefix, "digest"> {
  readonly bytes: number
}

/** A call that was answered. */
interface VerifiedCall extends Pick<Lookup, "scope" | "prefixes"> {
  readonly bytes: number
  readonly textBytes?: number | undefined
  /** The prefix that has bounded its cost. */
  readonly verified: VerifiedPrefix | undefined
}

type Scope = Map<number, CountedPrefix>

interface KnownConversation extends SharedThing {
  readonly name: string
  readonly scope: Scope
  /** The last is its last prompt. */
  entries: ReadonlyArray<CountedPrefix>
  /** How many prompts it has had. */
  turns: number
}

/** A conversation that the provider stores. */
interface StoredConversation extends SharedThing {
  readonly key: string
  entry: CountedPrefix
}

/** A prefix that a call has in common with earlier ones, as it is now. */
export interface KnownPrefix extends NonNullable<Estimator.Call["prefix"]> {
  /** Until when it is cached; infinite if it is not. */
  readonly until: number
  /** The number of lessons when it was looked up last. */
  seen: number
}

/** A prompt that the provider has counted. */
export interface Turn {
  readonly prompt: number
  /** The tokens of the conversation's last prompt; undefined if this is the first one. */
  readonly before: number | undefined
  /** Its number in the conversation, from 1. */
  readonly number: number
}

/** A call to look up, within its scope. */
export interface Lookup {
  readonly scope: string
  /** The pool, whose calls share a cache. */
  readonly pool?: string | undefined
  /** Whose memory it is: the caller or the account. Each has a share. */
  readonly owner?: string | undefined
  readonly prefixes?: Prefixes | undefined
  /** The id of a stored conversation. */
  readonly continues?: string | undefined
}

/** By how much the share of the bytes may be wrong: a schema and a text have different numbers of bytes in a token. */
const maxShareError = 1.5

/**
 * Shorter prompts are not cached by a provider that is not asked.
 *
 * Source: https://developers.openai.com/api/docs/guides/prompt-caching
 */
const minAutomatic = 1_024

/** A prefix was read if most of it was: OpenAI reads in steps of 128 tokens (same page). */
const mostly = 0.9
const step = 128

/** Tokens of a template that no part has, and what rounds a count of the cache. */
const slack = 64

/** Whether a cached prefix was read as a whole, or whether all of it was. */
const isWithin = (tokens: number, counted: number): boolean => tokens <= 1.02 * counted + slack

export class Conversations {
  private readonly scopes = new Map<string, Scope>()
  private readonly stored = new Map<string, StoredConversation>()
  private readonly lifetimes = new Map<string, Lifetimes.LearnedLifetime>()
  private readonly shares = new FairShares<KnownConversation | StoredConversation>(maxPrefixes, (gone) =>
    this.forget(gone)
  )
  /** The scopes in which no prefix is verified any more. */
  private readonly unreliable = new Map<string, true>()
  /** How often something was learned, so that waiting calls look again. */
  changes = 0

  // ---------------------------------------------------------------------------
  // Finding
  // ---------------------------------------------------------------------------

  /** The known beginning of a prompt; undefined if nothing tells its content. `before` is returned if it has not changed. */
  again(before: KnownPrefix | undefined, lookup: Lookup, now: number): KnownPrefix | undefined {
    if (before !== undefined && before.seen === this.changes && now < before.until) return before
    const found = this.find(lookup, now)
    if (before === undefined || found === undefined || !isSame(before, found)) return found
    before.seen = this.changes
    return before
  }

  private find({ continues, prefixes, scope }: Lookup, now: number): KnownPrefix | undefined {
    const { changes: seen } = this
    if (continues !== undefined) {
      const entry = this.stored.get(`${scope} ${continues}`)?.entry
      return entry && { ...cachedBy(entry, now), tokens: entry.tokens, bytes: 0, seen }
    }
    if (prefixes === undefined) return undefined
    const known = this.scopes.get(scope)
    const at = known === undefined ? -1 : longest(known, prefixes)
    if (at < 0) return { ...notCached, tokens: 0, bytes: 0, seen }
    const { tokens } = known!.get(prefixes.fingerprints[at]!)!
    return { ...cachedIn(known!, prefixes, at, now), tokens, bytes: prefixes.bytes[at]!, seen }
  }

  // ---------------------------------------------------------------------------
  // Verifying
  // ---------------------------------------------------------------------------

  /** Returns the verified prefix with which a prompt has the fewest tokens at most; undefined if there is none. */
  verified({ prefixes, scope }: Lookup): VerifiedPrefix | undefined {
    const digests = digestsOf(prefixes)
    const known = this.scopes.get(scope)
    if (digests === undefined || known === undefined || this.unreliable.has(scope)) return undefined
    let best: VerifiedPrefix | undefined
    for (let index = digests.length - 1; index >= 0; index--) {
      const found = known.get(prefixes!.fingerprints[index]!)?.verified
      if (found?.digest !== digests[index]) continue
      best = better(best, { ...found!, bytes: prefixes!.bytes[index]! })
      // Each shorter one leaves more bytes.
      if (best.isWhole) break
    }
    return best
  }

  /**
   * Remembers what an answer has reported for a prompt of which all was read. More than the bound, or an answer of another model, shows
   * that reports bound nothing here.
   */
  verify(call: VerifiedCall, reported: number, model: string | undefined): void {
    const { prefixes, scope, verified } = call
    const digests = digestsOf(prefixes)
    const known = this.scopes.get(scope)
    if (digests === undefined || known === undefined || !Amounts.isAmount(reported)) return
    if (isRefuted(call, reported, model)) Lru.put(this.unreliable, scope, true, maxScopes)
    // Whatever is reported, it has no fewer tokens than the prompt that it begins with.
    const tokens = Math.max(reported, verified?.isWhole === true ? verified.tokens : 0)
    for (let index = 0; index < digests.length; index++) {
      const digest = digests[index]!
      const entry = Number.isNaN(digest) ? undefined : known.get(prefixes!.fingerprints[index]!)
      const isWhole = index === digests.length - 1
      if (entry !== undefined) entry.verified = answered(entry.verified, { digest, tokens, isWhole, model })
    }
  }

  // ---------------------------------------------------------------------------
  // Learning
  // ---------------------------------------------------------------------------

  /** Remembers how long a stored conversation is after an answer. */
  remember(
    { owner = "", pool, scope }: Lookup,
    continuation: string | undefined,
    { actual: { outputTokens }, isCounted, prompt, read, written }: ReportedUsage,
    now: number
  ): void {
    if (continuation === undefined) return
    // A number that is no count would end every further call of the conversation, because nothing can be reserved for it.
    if (!isCounted || !Amounts.isAmount(outputTokens)) return
    const life = written + read > 0 ? this.lifetimeOf(pool) : Lifetimes.none
    const entry = { ...entryOf(0, prompt + outputTokens, true), usedAt: now, life }
    const key = `${scope} ${continuation}`
    const stored = this.stored.get(key) ?? { owner, key, entry, size: 0, usedAt: now }
    stored.entry = entry
    this.stored.set(key, stored)
    this.shares.keep(stored, sizeOfStored, now)
    this.changes++
  }

  /**
   * Remembers the prefixes of a prompt once its answer has begun: what the provider has counted, read and written. The call was sent at
   * `sentAt`. Undefined if the provider has not counted it.
   */
  began(
    { owner = "", pool, prefixes, scope: name }: Lookup,
    { isCounted, prompt, read, written }: ReportedUsage,
    sentAt: number,
    now: number
  ): Turn | undefined {
    if (prefixes === undefined || prefixes.fingerprints.length === 0 || !isCounted) return undefined
    const scope = this.scopeOf(name)
    const at = longest(scope, prefixes)
    const { automatic, fingerprints } = prefixes
    const before = scope.get(fingerprints[at]!)
    const answer: BegunAnswer = {
      prefixes,
      lifetime: automatic === undefined ? undefined : this.learnedBy(pool, automatic, before, read, sentAt),
      prompt,
      read,
      cached: written + read,
      sentAt,
      now
    }
    if (before !== undefined) recount(before, at, answer)
    const kept = note(scope, answer, at, tokensBy(answer, at, before?.tokens ?? 0))
    const conversation = before?.endOf ?? { owner, name, scope, entries: [], turns: 0, size: 0, usedAt: now }
    const turn = turnOf(prompt, before, ++conversation.turns)
    this.hold(conversation, kept, now)
    this.changes++
    return turn
  }

  /** Continues a conversation whose last prompt this one begins with, or begins another. */
  private hold(conversation: KnownConversation, entries: ReadonlyArray<CountedPrefix>, now: number): void {
    for (const entry of entries) entry.holders++
    release(conversation)
    conversation.entries = entries
    entries.at(-1)!.endOf = conversation
    this.shares.keep(conversation, entries.length, now)
  }

  /**
   * For how long an automatic cache keeps a prefix. If the provider does not state it, the answer to a call that begins with a known prefix
   * tells whether that was still there.
   */
  private learnedBy(
    pool: string | undefined,
    automatic: number,
    before: CountedPrefix | undefined,
    read: number,
    sentAt: number
  ): Lifetimes.Lifetime {
    if (automatic !== usualLifetime) return lifeOf(automatic)
    const lifetime = this.lifetimeOf(pool)
    if (before !== undefined && before.tokens >= minAutomatic) {
      lifetime.learn(sentAt - before.usedAt, read >= mostly * before.tokens - step)
    }
    return lifetime
  }

  private lifetimeOf(pool = ""): Lifetimes.LearnedLifetime {
    const lifetime = this.lifetimes.get(pool) ?? new Lifetimes.LearnedLifetime()
    Lru.put(this.lifetimes, pool, lifetime, maxPools)
    return lifetime
  }

  private scopeOf(name: string): Scope {
    const scope = this.scopes.get(name) ?? new Map<number, CountedPrefix>()
    this.scopes.set(name, scope)
    return scope
  }

  private forget(gone: KnownConversation | StoredConversation): void {
    if ("key" in gone) return void this.stored.delete(gone.key)
    const { name, scope } = gone
    release(gone)
    if (scope.size === 0 && this.scopes.get(name) === scope) this.scopes.delete(name)
  }
}

/** Lets go of the prefixes of a conversation. Those of another one stay. */
const release = (conversation: KnownConversation): void => {
  const { entries, scope } = conversation
  const end = entries.at(-1)
  if (end?.endOf === conversation) end.endOf = undefined
  for (const entry of entries) if (--entry.holders === 0) scope.delete(entry.fingerprint)
}

// -----------------------------------------------------------------------------
// Finding
// -----------------------------------------------------------------------------

/** The index of the longest known prefix; negative if none is known. */
const longest = (known: Scope, { fingerprints }: Prefixes): number => {
  let index = fingerprints.length - 1
  while (index >= 0 && !known.has(fingerprints[index]!)) index--
  return index
}

const isSame = (one: KnownPrefix, other: KnownPrefix): boolean =>
  one.tokens === other.tokens &&
  one.bytes === other.bytes &&
  one.cachedTokens === other.cachedTokens &&
  one.until === other.until

const isLive = ({ life, usedAt }: CountedPrefix, now: number): boolean => now - usedAt < life.millis

type Cached = Pick<KnownPrefix, "cachedTokens" | "unusedFor" | "until">

const notCached: Cached = { cachedTokens: 0, unusedFor: undefined, until: Infinity }

const cachedBy = (entry: CountedPrefix, now: number): Cached => {
  if (!isLive(entry, now)) return notCached
  // A clock may be set back.
  const unusedFor = Math.max(0, now - entry.usedAt)
  return { cachedTokens: entry.tokens, unusedFor, until: entry.usedAt + entry.life.millis }
}

/** The longest prefix that the provider has in its cache, and that the request asks it to look up. */
const cachedIn = (known: Scope, prefixes: Prefixes, from: number, now: number): Cached => {
  const { automatic, fingerprints, marks } = prefixes
  const asked = automatic === undefined ? (marks.at(-1)?.index ?? -1) : from
  for (let index = Math.min(from, asked); index >= 0; index--) {
    const entry = known.get(fingerprints[index]!)
    if (entry !== undefined && isLive(entry, now)) return cachedBy(entry, now)
  }
  return notCached
}

// -----------------------------------------------------------------------------
// Verifying
// -----------------------------------------------------------------------------

/** The digests of a prompt; undefined if not all of it was read. */
const digestsOf = (prefixes: Prefixes | undefined): ReadonlyArray<number> | undefined =>
  prefixes instanceof ReadPrefixes ? prefixes.digests : undefined

/** Of two prefixes of one prompt the one with which it has fewer tokens at most. */
const better = (one: VerifiedPrefix | undefined, other: VerifiedPrefix): VerifiedPrefix =>
  one !== undefined && one.tokens - one.bytes <= other.tokens - other.bytes ? one : other

/** Whether an answer shows that its bound was none. */
const isRefuted = (
  { bytes, textBytes, verified }: VerifiedCall,
  reported: number,
  model: string | undefined
): boolean =>
  verified !== undefined && (reported > maxPrompt({ bytes, textBytes, verified }) || model !== verified.model)

/** Combines two answers about a prefix. A whole prompt has the most that was reported for it, and a part of one the least. */
const answered = (before: AnsweredPrefix | undefined, now: AnsweredPrefix): AnsweredPrefix => {
  if (before?.digest !== now.digest) return now
  if (before.isWhole !== now.isWhole) return now.isWhole ? now : before
  return now.tokens > before.tokens === now.isWhole ? now : before
}

// -----------------------------------------------------------------------------
// Learning
// -----------------------------------------------------------------------------

/** An answer that has begun. */
interface BegunAnswer {
  readonly prefixes: Prefixes
  /** How long the provider keeps it if it is not asked. */
  readonly lifetime: Lifetimes.Lifetime | undefined
  readonly prompt: number
  /** The tokens that were read from the cache. */
  readonly read: number
  /** The tokens that are in the cache since then: those that were read or written. */
  readonly cached: number
  readonly sentAt: number
  readonly now: number
}

const turnOf = (prompt: number, before: CountedPrefix | undefined, number: number): Turn => ({
  prompt,
  number,
  before: before?.endOf === undefined ? undefined : before.tokens
})

const entryOf = (fingerprint: number, tokens: number, isCounted: boolean): CountedPrefix => ({
  fingerprint,
  tokens,
  isCounted,
  usedAt: -Infinity,
  life: Lifetimes.none,
  holders: 0,
  endOf: undefined,
  verified: undefined
})

const count = (entry: CountedPrefix, tokens: number, isCounted: boolean): void => {
  entry.tokens = tokens
  entry.isCounted = isCounted
}

/**
 * Anthropic's count of what was read is that of the prefix, if the known beginning was read: exact for a system prompt of which only the
 * share of the bytes was known.
 */
const recount = (entry: CountedPrefix, index: number, { prefixes, read, sentAt }: BegunAnswer): void => {
  const { automatic, marks } = prefixes
  const isAsked = automatic === undefined && index <= (marks.at(-1)?.index ?? -1)
  if (entry.isCounted || !isAsked || !isLive(entry, sentAt)) return
  const ratio = read / entry.tokens
  if (ratio > 1 / maxShareError && ratio < maxShareError) count(entry, read, true)
}

/**
 * The tokens of each prefix: exact for the whole prompt, for the known beginning, and at the last mark, up to which everything is in the
 * cache; between these in proportion to the bytes.
 */
const tokensBy = (
  { cached, prefixes, prompt }: BegunAnswer,
  known: number,
  tokens: number
): ((index: number) => number) => {
  const { bytes, marks } = prefixes
  const end = bytes.length - 1
  const mark = marks.at(-1)?.index ?? -1
  // Two lists of numbers: for pairs the steps of their iterators would be a third of what an answer takes here.
  const sizes = [0]
  const counts = [0]
  const add = (index: number, tokens: number): void => {
    if (index < 0 || bytes[index]! <= sizes.at(-1)! || tokens < counts.at(-1)!) return
    sizes.push(bytes[index]!)
    counts.push(tokens)
  }
  if (tokens <= prompt) add(known, tokens)
  if (mark < end && cached <= prompt && cached > 0) add(mark, cached)
  add(end, prompt)
  return (index) => {
    let next = 1
    while (next < sizes.length - 1 && sizes[next]! < bytes[index]!) next++
    const from = counts[next - 1]!
    const more = bytes[index]! - sizes[next - 1]!
    return next === sizes.length
      ? 0
      : Math.round(from + ((counts[next]! - from) * more) / (sizes[next]! - sizes[next - 1]!))
  }
}

/**
 * Notes what an answer says about the parts of its prompt, given the tokens of each. Returns those to remember: what agents share, the
 * known beginning, and the last.
 */
const note = (
  scope: Scope,
  answer: BegunAnswer,
  known: number,
  tokensAt: (index: number) => number
): ReadonlyArray<CountedPrefix> => {
  const { fingerprints, marks, shared } = answer.prefixes
  const end = fingerprints.length - 1
  const first = Math.max(0, end + 1 - lastParts)
  const kept: Array<CountedPrefix> = []
  let mark = 0
  for (let index = 0; index <= end; index++) {
    if (index >= shared && index < first && index !== known) continue
    const fingerprint = fingerprints[index]!
    let entry = scope.get(fingerprint)
    if (entry === undefined) scope.set(fingerprint, (entry = entryOf(fingerprint, tokensAt(index), index === end)))
    else if (!entry.isCounted) count(entry, tokensAt(index), index === end)
    while (mark < marks.length && marks[mark]!.index < index) mark++
    used(entry, marks[mark]?.index === index ? lifeOf(marks[mark]!.life) : undefined, mark === marks.length - 1, answer)
    kept.push(entry)
  }
  return kept
}

/** A lifetime that the provider or the request states. */
const lifeOf = (millis: number): Lifetimes.Lifetime => Lifetimes.stated.get(millis) ?? { millis }

/**
 * Notes whether an answer has read a prefix from the cache, or written it there because the request has asked for it. If anything was
 * read or written, the prefix at the last mark was.
 */
const used = (
  entry: CountedPrefix,
  asked: Lifetimes.Lifetime | undefined,
  isLast: boolean,
  { cached, lifetime, now, prefixes: { automatic }, prompt, read, sentAt }: BegunAnswer
): void => {
  const wasLive = isLive(entry, sentAt)
  const isWritten =
    automatic === undefined ? cached > 0 && (isLast || isWithin(entry.tokens, cached)) : prompt >= minAutomatic
  const kept = automatic === undefined ? asked : lifetime
  const life = isWritten ? kept : undefined
  if (life !== undefined) {
    entry.life = wasLive ? Lifetimes.longer(life, entry.life) : life
    entry.usedAt = now
  } else if (wasLive && entry.usedAt <= sentAt) {
    // What was not read although it should have been there has been evicted.
    if (isWithin(entry.tokens, read)) entry.usedAt = now
    else entry.life = Lifetimes.none
  }
}
