/**
 * Estimates the usage of a call from the usage of previous calls.
 *
 * A budget reserves before the usage is known. An estimate that is too low becomes debt, and one that is too high makes
 * others wait; `max_tokens` is often ten times the actual output. So the estimator learns for each pool and kind of call:
 *
 * - **Input** is the size of the request times the observed tokens per byte, unless the number is known.
 * - **A known prefix**, what the prompt has in common with an earlier one, has the tokens that the provider has counted, and only what
 *   follows it is estimated by its size. How much of a prefix in the cache is read is the median of the last 64.
 * - **Cached input** of a call that says nothing about its content is the share of the prompt that was read from the cache before.
 * - **Output** is the 95th percentile of previous calls (the 99th with thinking), plus 15 %. Concurrent calls reserve less
 *   each, because long and short answers even out and only their sum must be safe.
 *
 * **Details**
 *
 * A new kind borrows from its pool: tokens per byte from the first call on, and output until it has 30 calls of its own.
 * Agents are many and short-lived, so most would never learn enough alone. The cached share is not borrowed, because each
 * kind has its own cache. What is read of a prefix is borrowed until a kind has 8 of its own.
 *
 * Estimates err on the safe side: input by twice the mean deviation upwards, the cached share downwards. The last 256 outputs
 * are kept. Before 30 are known, the estimate is 4,096 tokens (16,384 with thinking), or more if a longer output was seen, but
 * never more than `maxTokens`. This is longer than most replies, yet small enough not to stall a fan-out, as 64,000 would.
 *
 * At first, 2.7 bytes count as a token: Anthropic's rule of thumb is 3.5 characters, and its models since
 * Claude 4.7 make about 30 % more tokens of the same text (https://platform.claude.com/docs/en/about-claude/glossary,
 * https://platform.claude.com/docs/en/build-with-claude/token-counting).
 *
 * The estimate of the output follows Fenic (https://github.com/typedef-ai/fenic).
 *
 * **Gotchas**
 *
 * Learn from complete calls only, because an interrupted reply used less than it would have. A reply that was cut off at
 * `maxTokens` is learned only if it is longer than expected.
 *
 * **Example** (Learning how many tokens a byte makes)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Estimator from "floodgate/Estimator"
 *
 * const call = { pool: "opus", kind: "summary", bytes: 2_700, maxTokens: 500 }
 *
 * const program = Effect.gen(function* () {
 *   const estimator = yield* Estimator.Estimator
 *   const before = yield* estimator.estimate(call)
 *   yield* estimator.learn(call, { inputTokens: 400, outputTokens: 60 })
 *   const after = yield* estimator.estimate(call)
 *   return [before, after]
 * })
 *
 * const [before, after] = await Effect.runPromise(Effect.provide(program, Estimator.layer()))
 *
 * before // => { inputTokens: 1_000, outputTokens: 500 }
 * after // => { inputTokens: 500, outputTokens: 500 }
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Accounting from "./Accounting.ts"
import { bytesPerToken, isAmount, maxAmount, promptTokens } from "./domain/amounts.ts"
import * as SyncForm from "./domain/syncForm.ts"
import * as Estimating from "./domain/estimating.ts"
import { accounting, anObject, check, options as optionsOf } from "./domain/input/checks.ts"
import * as Lru from "./domain/input/lru.ts"
import type * as Limits from "./Limits.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * A call as the estimator sees it, before it is made.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Call {
  /** The pool of the call's model. */
  readonly pool: string
  /** The kind of call within the pool, such as a class of agents. Calls of a kind should be similar. */
  readonly kind?: string | undefined
  /** The size of the request's text in UTF-8. Leave images and other base64 out. */
  readonly bytes: number
  /** The tokens of the whole prompt, if they are known. */
  readonly inputTokens?: number | undefined
  /**
   * The longest beginning of the prompt that an earlier call of the same account and model had in common with it. Its tokens are 0 if
   * there is none.
   *
   * @default unknown: the call is estimated by its size alone
   * @since 0.5.0
   */
  readonly prefix?: Prefix | undefined
  /** The most output that the request allows. */
  readonly maxTokens?: number | undefined
  /** Whether the model thinks first. The length of its output then varies more. */
  readonly thinking?: boolean | undefined
  /** How many calls of the pool run at the same time, this one included. Long and short answers even out. @default 1 */
  readonly together?: number | undefined
  /**
   * Whether the provider adds stored content to the prompt, such as the conversation that the call continues. The size of such a
   * request teaches nothing about tokens per byte. @default false
   */
  readonly stored?: boolean | undefined
  /**
   * Whether the request asks the provider to cache its prompt, if the provider wants to be asked. False means that nothing is read
   * from a cache.
   *
   * @default unknown: the prompt may be cached
   * @since 0.5.0
   */
  readonly caches?: boolean | undefined
  /** How the provider of this call counts, if one estimator serves several providers. @default that of the estimator */
  readonly accounting?: Accounting.Accounting | undefined
}

/** The beginning of a prompt that the provider has seen before. */
type Prefix = {
  /** Its tokens, as the provider has counted them. */
  readonly tokens: number
  /** Its size in UTF-8, which is a part of the `bytes` of the call. */
  readonly bytes: number
  /**
   * The tokens of it that should be in the provider's cache: written there, not older than the provider keeps them, and, where the
   * provider wants to be asked, within what the request asks to be cached. 0 if there are none.
   */
  readonly cachedTokens: number
  /** For how many milliseconds the cached part was not used; undefined if none is cached. */
  readonly unusedFor: number | undefined
}

const Amount = /* @__PURE__ */ (() => Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)))()

const Trend = /* @__PURE__ */ Schema.Struct({ mean: Amount, deviation: Amount })

/**
 * The learned profile of one kind of call.
 *
 * @category schemas
 * @since 0.1.0
 */
const Profile = /* @__PURE__ */ (() =>
  Schema.Struct({
    pool: Schema.String,
    kind: Schema.optional(Schema.String),
    /** Input tokens, cached ones included, per byte. */
    tokensPerByte: Schema.optional(Trend),
    /** The share of input tokens that is read from the cache. */
    cachedShare: Schema.optional(Trend),
    /** The output tokens of the last calls, the oldest first. */
    outputs: Schema.Array(Amount),
    /** The tokens and bytes that were appended to known prefixes. */
    appended: Schema.optional(Schema.Struct({ counted: Amount, measured: Amount })),
    /** The part that was read of each of the last prefixes that should have been in the cache, the oldest first. */
    hits: Schema.optional(Schema.Array(Amount)),
    /** The tokens of these prefixes, and for how many milliseconds they were not used before. */
    prefixTokens: Schema.optional(Trend),
    unusedFor: Schema.optional(Trend),
    /** How many answers, and how many prompts that were counted at the provider, taught the tokens per byte. */
    answers: Schema.optional(Amount),
    counted: Schema.optional(Amount)
  }))()

const LearnedWindow = /* @__PURE__ */ (() =>
  Schema.Struct({
    account: Schema.optional(Schema.String),
    name: Schema.String,
    used: Schema.Finite,
    resetsAt: Schema.Finite,
    dollars: Schema.optional(Schema.Finite),
    models: Schema.optional(Schema.Array(Schema.String))
  }))()

/**
 * Everything that an estimator has learned, the least recently used kind first. Its encoded form is plain JSON.
 *
 * **Example** (Keeping it between runs)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Schema from "effect/Schema"
 * import * as Estimator from "floodgate/Estimator"
 *
 * const Json = Schema.fromJsonString(Estimator.Learned)
 *
 * const program = Effect.gen(function* () {
 *   const estimator = yield* Estimator.make()
 *   yield* estimator.learn(
 *     { pool: "opus", bytes: 270 },
 *     { inputTokens: 50, cacheCreationTokens: 50, cacheReadTokens: 0, outputTokens: 7 }
 *   )
 *   const text = yield* Schema.encodeEffect(Json)(yield* estimator.learned)
 *   const learned = yield* Schema.decodeEffect(Json)(text)
 *   const restored = yield* Estimator.make({ learned })
 *   return yield* restored.learned
 * })
 *
 * const { profiles } = await Effect.runPromise(program)
 *
 * profiles[0]!.outputs // => [7]
 * ```
 *
 * @stability stable
 * @category schemas
 * @since 0.1.0
 */
export const Learned = /* @__PURE__ */ (() =>
  Schema.Struct({
    profiles: Schema.Array(Profile),
    /** The long windows of subscriptions, which a governor knows. */
    windows: Schema.optional(Schema.Array(LearnedWindow))
  }))()

/**
 * Everything that an estimator has learned.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export type Learned = typeof Learned.Type

/**
 * The options of an estimator.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * How the provider counts.
   *
   * @default Accounting.anthropic
   */
  readonly accounting?: Accounting.Accounting | undefined
  /** The `learned` of an earlier estimator. @default nothing */
  readonly learned?: Learned | undefined
}

const optionsCheck = optionsOf<Options>({ accounting, learned: anObject })

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * Estimates calls, and learns from them.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class Estimator extends Context.Service<
  Estimator,
  {
    /** How the provider counts. A reservation must be settled with the accounting that estimated it. */
    readonly accounting: Accounting.Accounting
    /**
     * Estimates what to reserve for a call. It may ask a provider. It is interrupted with its caller, and its time counts as the call's.
     */
    readonly estimate: (call: Call) => Effect.Effect<Limits.Estimate>
    /**
     * Learns from the usage of a complete call. Negative amounts and those above 10^12 are ignored. It must be quick, because the
     * answer waits for it and it cannot be interrupted.
     */
    readonly learn: (call: Call, actual: Accounting.Actual) => Effect.Effect<void>
    /** Everything learned so far. Keep it, and pass it to the next estimator as `learned`. */
    readonly learned: Effect.Effect<Learned>
  }
>()("floodgate/Estimator/Estimator") {}

// -----------------------------------------------------------------------------
// Arithmetic
// -----------------------------------------------------------------------------

/** See the module's documentation for the reasons. */
const firstOutput = 4_096
const firstOutputThinking = 4 * firstOutput
/** The number of outputs that a kind needs before its quantile counts. */
const enough = 30
const margin = 1.15
/** The part of the first guess of a prompt by which it may be wrong: texts have 1.8 to 4.2 bytes per token. */
const firstSpread = 0.5
/** More kinds than a program has. The number is bounded because callers may invent a kind for each call. */
const maxProfiles = 1_000

interface KindMemory {
  readonly key: string
  readonly pool: string
  readonly kind: string | undefined
  /** The memory of all calls of the pool, for kinds that have too few. */
  ofPool: KindMemory | undefined
  tokensPerByte: Estimating.Trend | undefined
  cachedShare: Estimating.Trend | undefined
  /** The tokens per byte of what is appended to a known prefix. */
  appended: Estimating.Ratio | undefined
  /** The part that was read of each of the last prefixes that should have been in the cache. */
  readonly hits: Estimating.Recent
  prefixTokens: Estimating.Trend | undefined
  unusedFor: Estimating.Trend | undefined
  readonly outputs: Estimating.Recent
  answers: number
  counted: number
}

const nothing = (key: string, pool: string, kind: string | undefined): KindMemory => ({
  key,
  pool,
  kind,
  ofPool: undefined,
  tokensPerByte: undefined,
  cachedShare: undefined,
  appended: undefined,
  hits: Estimating.recent([]),
  prefixTokens: undefined,
  unusedFor: undefined,
  outputs: Estimating.recent([]),
  answers: 0,
  counted: 0
})

/**
 * The reservation of each of several concurrent calls, such that their sum is as safe as the quantile is for one call. The
 * means of independent amounts add up, but their spread grows only with the square root of their number.
 */
const shareOf = ({ thinking, together = 1 }: Call, outputs: Estimating.Recent): number => {
  const alone = Estimating.quantile(outputs, thinking === true ? 0.99 : 0.95)
  const mean = Math.min(alone, Estimating.mean(outputs))
  return margin * (mean + (alone - mean) / Math.sqrt(Math.max(1, together)))
}

const outputOf = (call: Call, { ofPool, outputs }: KindMemory): number => {
  const known = outputs.values.length >= enough
  const borrowed = ofPool !== undefined && ofPool.outputs.values.length >= enough
  const first = call.thinking === true ? firstOutputThinking : firstOutput
  const expected = known
    ? shareOf(call, outputs)
    : Math.max(borrowed ? shareOf(call, ofPool.outputs) : first, margin * (outputs.sorted.at(-1) ?? 0))
  return Math.min(Math.ceil(expected), call.maxTokens ?? maxAmount)
}

/** Whether to learn an output. One that was cut off at its limit only counts if it is longer than expected. */
const isNews = (call: Call, memory: KindMemory, output: number): boolean =>
  output < (call.maxTokens ?? Infinity) || margin * output + 1 > outputOf({ ...call, maxTokens: undefined }, memory)

/** The tokens of a prompt of which no number is known, and the part that is read from the cache. */
interface ExpectedPrompt {
  readonly tokens: number
  readonly cached: number
}

/** Estimates a prompt by its size: the cached part is the share that earlier calls have read, less two deviations. */
const promptBySize = (call: Call, memory: KindMemory): ExpectedPrompt => {
  const { cachedShare } = memory
  const tokens = Math.ceil(call.inputTokens ?? call.bytes * perByteOf(memory))
  return { tokens, cached: cachedShare === undefined ? 0 : tokens * Estimating.low(cachedShare) }
}

const perByteOf = ({ ofPool, tokensPerByte = ofPool?.tokensPerByte }: KindMemory): number =>
  tokensPerByte === undefined ? 1 / bytesPerToken : Estimating.high(tokensPerByte)

/** Estimates a prompt by its content: its prefix was counted, and the usual part of what is cached is read. */
const promptByContent = (call: Call, prefix: Prefix, memory: KindMemory): ExpectedPrompt => ({
  tokens: call.inputTokens ?? prefix.tokens + Math.max(0, call.bytes - prefix.bytes) * appendedOf(prefix, memory),
  cached: prefix.cachedTokens * hitOf(memory)
})

/**
 * The tokens per byte of what follows the prefix. It is the mean: errors of many short texts even out, and two deviations more would add
 * a fifth to all that is reserved. The ratio of whole prompts says nothing about it, because a provider may add to a prompt.
 */
const appendedOf = ({ tokens }: Prefix, memory: KindMemory): number => {
  if (tokens === 0) return perByteOf(memory)
  const { appended = memory.ofPool?.appended } = memory
  return appended === undefined ? 1 / bytesPerToken : appended.counted / appended.measured
}

/** A kind has learned how much of a prefix is read after so many. Before that, its pool tells. */
const enoughHits = 8

/**
 * The part of a cached prefix that is read. It is the median, because a prefix is read or it is not: if one in ten was evicted early,
 * two deviations below the mean would take every call for ten times what it is. Those that were evicted become debt when their answers
 * begin.
 */
const hitOf = ({ hits, ofPool }: KindMemory): number =>
  Estimating.median(hits.values.length >= enoughHits || ofPool === undefined ? hits : ofPool.hits)

const expect = (call: Call, memory: KindMemory): Parameters<Accounting.Accounting["estimate"]>[0] => {
  const { prefix } = call
  const { cached, tokens } = prefix === undefined ? promptBySize(call, memory) : promptByContent(call, prefix, memory)
  const prompt = Math.min(maxAmount, Math.ceil(tokens))
  const cachedTokens = Math.floor(Math.min(prompt, Math.max(0, cached)))
  return {
    inputTokens: prompt - cachedTokens,
    cachedTokens,
    outputTokens: outputOf(call, memory),
    maxTokens: call.maxTokens
  }
}

const learnRatio = ({ bytes, stored }: Call, memory: KindMemory, prompt: number, from: "answers" | "counted"): void => {
  if (bytes <= 0 || stored === true) return
  memory.tokensPerByte = Estimating.follow(memory.tokensPerByte, prompt / bytes)
  memory[from]++
}

/** The tokens per byte by which a prompt may differ from the mean. */
const spreadOf = ({ ofPool, tokensPerByte = ofPool?.tokensPerByte }: KindMemory): number =>
  tokensPerByte === undefined ? firstSpread / bytesPerToken : Estimating.high(tokensPerByte) - tokensPerByte.mean

/** The tokens of a prompt; 0 if they were not counted. */
const countedPrompt = (actual: Accounting.Actual): number => {
  const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens } = actual
  const prompt = promptTokens(actual)
  return [inputTokens, cacheCreationTokens, cacheReadTokens, prompt].every(isAmount) ? prompt : 0
}

const learn = (call: Call, memory: KindMemory, actual: Accounting.Actual, prompt: number): void => {
  const { cacheReadTokens: read = 0, outputTokens } = actual
  if (isAmount(outputTokens) && isNews(call, memory, outputTokens)) Estimating.push(memory.outputs, outputTokens)
  if (prompt === 0) return
  learnRatio(call, memory, prompt, "answers")
  if (call.prefix === undefined) memory.cachedShare = Estimating.follow(memory.cachedShare, read / prompt)
  else learnContent(call, call.prefix, memory, prompt, read)
}

/** Shorter texts have too few tokens for a ratio. */
const minAppended = 200
/** The number of hits that are kept. */
const keptHits = 64

const learnContent = (
  { bytes, stored }: Call,
  prefix: Prefix,
  memory: KindMemory,
  prompt: number,
  read: number
): void => {
  const appended = bytes - prefix.bytes
  const more = prompt - prefix.tokens
  if (prefix.tokens > 0 && appended >= minAppended && more > 0 && stored !== true) {
    memory.appended = Estimating.add(memory.appended, more, appended)
  }
  const { cachedTokens, unusedFor = 0 } = prefix
  if (cachedTokens === 0 || !isAmount(cachedTokens) || !isAmount(unusedFor)) return
  Estimating.push(memory.hits, Math.min(1, read / cachedTokens), keptHits)
  memory.prefixTokens = Estimating.follow(memory.prefixTokens, cachedTokens)
  memory.unusedFor = Estimating.follow(memory.unusedFor, unusedFor)
}

// -----------------------------------------------------------------------------
// Constructors and layers
// -----------------------------------------------------------------------------

const keyOf = (pool: string, kind: string | undefined): string =>
  kind === undefined ? `pool ${pool}` : `${pool.length} ${pool} ${kind}`

/** The memory of each kind, and of each pool as a whole. */
class KindMemories {
  private readonly byKey = new Map<string, KindMemory>()

  constructor(profiles: Learned["profiles"]) {
    for (const { answers = 0, counted = 0, hits = [], outputs, ...profile } of profiles) {
      const key = keyOf(profile.pool, profile.kind)
      const recent = { hits: Estimating.recent(hits.slice(-keptHits)), outputs: Estimating.recent(outputs) }
      const known = { ...profile, answers, counted, ...recent }
      const memory = { ...nothing(key, profile.pool, profile.kind), ...known }
      Lru.put(this.byKey, key, memory, maxProfiles)
    }
  }

  recall(pool: string, kind: string | undefined): KindMemory {
    const key = keyOf(pool, kind)
    const memory = this.byKey.get(key) ?? nothing(key, pool, kind)
    if (kind !== undefined) memory.ofPool ??= this.byKey.get(keyOf(pool, undefined))
    return memory
  }

  /** The memory of a call that is estimated. */
  use({ kind, pool }: Call): KindMemory {
    const memory = this.recall(pool, kind)
    if (this.byKey.has(memory.key)) this.keep(memory)
    return memory
  }

  /** The memories that a call teaches: of its kind, and of its pool. */
  taughtBy({ kind, pool }: Call): ReadonlyArray<KindMemory> {
    const memory = this.recall(pool, kind)
    if (kind !== undefined) memory.ofPool ??= this.recall(pool, undefined)
    this.keep(memory)
    return memory.ofPool === undefined ? [memory] : [memory, memory.ofPool]
  }

  /** Marks a kind as used, and its pool after it, so that the pool is not evicted before its kinds. */
  private keep(memory: KindMemory): void {
    Lru.put(this.byKey, memory.key, memory, maxProfiles)
    if (memory.ofPool !== undefined) Lru.put(this.byKey, memory.ofPool.key, memory.ofPool, maxProfiles)
  }

  get profiles(): Learned["profiles"] {
    return Array.from(this.byKey.values(), ({ hits, key: _, ofPool: __, outputs, ...known }) => ({
      ...known,
      hits: [...hits.values],
      outputs: [...outputs.values]
    }))
  }
}

/**
 * Makes an estimator. It keeps the 1,000 kinds of calls that were used last.
 *
 * **Example** (A call of which only the size is known)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Estimator from "floodgate/Estimator"
 *
 * const program = Effect.flatMap(Estimator.make(), ({ estimate }) => estimate({ pool: "opus", bytes: 27_000 }))
 *
 * await Effect.runPromise(program) // => { inputTokens: 10_000, outputTokens: 4_096 }
 * ```
 *
 * @see {@link layer} for providing it
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<Estimator["Service"]> => {
  check("Estimator.make", optionsCheck, options)
  return Effect.sync(() => {
    const { accounting = Accounting.anthropic, learned } = options
    const memories = new KindMemories(learned?.profiles ?? [])
    const estimate = (call: Call, before?: Limits.Estimate): Limits.Estimate => {
      const expected = expect(call, memories.use(call))
      // The answers that arrive while a call waits are the short ones, so they must not lower its output.
      const outputTokens = Math.max(expected.outputTokens, before?.outputTokens ?? 0)
      return (call.accounting ?? accounting).estimate({ ...expected, outputTokens })
    }
    const forms: Estimating.Immediate<Call, Accounting.Actual, Limits.Estimate> = {
      lessons: 0,
      estimate,
      learn: (call: Call, actual: Accounting.Actual): void => {
        forms.lessons++
        const prompt = countedPrompt(actual)
        for (const memory of memories.taughtBy(call)) learn(call, memory, actual, prompt)
      },
      count: (call: Call, tokens: number): void => {
        forms.lessons++
        for (const memory of memories.taughtBy(call)) learnRatio(call, memory, tokens, "counted")
      },
      uncertainty: ({ bytes, kind, pool, prefix }: Call): number =>
        (bytes - (prefix?.bytes ?? 0)) * spreadOf(memories.recall(pool, kind))
    }
    return Estimator.of({
      accounting,
      estimate: SyncForm.attach((call: Call) => Effect.sync(() => estimate(call)), forms),
      learn: SyncForm.attach(
        (call: Call, actual: Accounting.Actual) => Effect.sync(() => forms.learn(call, actual)),
        forms
      ),
      learned: Effect.sync(() => ({ profiles: memories.profiles }))
    })
  })
}

/**
 * Provides an estimator for all callers. By default it counts as Anthropic does and has learned nothing.
 *
 * **Example** (For another provider)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Accounting from "floodgate/Accounting"
 * import * as Estimator from "floodgate/Estimator"
 *
 * const program = Effect.gen(function* () {
 *   const estimator = yield* Estimator.Estimator
 *   const { tokens } = yield* estimator.estimate({ pool: "gpt", bytes: 0, inputTokens: 1_000, maxTokens: 2_000 })
 *   return tokens
 * })
 *
 * const accounting = Accounting.azure
 *
 * await Effect.runPromise(Effect.provide(program, Estimator.layer({ accounting }))) // => 3_000
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Estimator> => {
  check("Estimator.layer", optionsCheck, options)
  return Layer.effect(Estimator, make(options))
}
