/** The price of a model, and what a call costs by it. Pure. */
import * as Input from "./input/checks.ts"
// A public module, so that the declarations of a program that infers this type name one that it can import.
import type { Actual } from "../Accounting.ts"
import { promptTokens } from "./amounts.ts"
import { claudeOf } from "./modelClass.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/** Dollars per million tokens. */
type Rates = {
  /** Input that is neither read from a cache nor written to one. */
  readonly input: number
  /** Output, thinking included. */
  readonly output: number
  /** @default `input`, because an unknown price is not assumed to be lower */
  readonly cacheRead?: number | undefined
  /** @default `input` */
  readonly cacheWrite?: number | undefined
  /** Input that a cache keeps for longer than usual: an hour at Anthropic. @default `cacheWrite` */
  readonly cacheWriteLong?: number | undefined
}

/**
 * The price of a model.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Price extends Rates {
  /** The prices of a call whose prompt, cached parts included, has more than `above` tokens. @default the same */
  readonly long?: (Rates & { readonly above: number }) | undefined
  /** The most output that the model can produce, for calls without a limit of their own. @default unknown */
  readonly maxOutput?: number | undefined
  /**
   * The largest prompt that the model takes, in tokens. No usage above it is believed. State at least what the provider states.
   *
   * @default 10,000,000, because no model takes more
   * @since 0.5.0
   */
  readonly context?: number | undefined
  /** The price factor of the fast mode: Anthropic's `speed: "fast"`, OpenAI's `service_tier: "priority"`. @default 2 */
  readonly fast?: number | undefined
  /** The price factor of the flex tier, which is served when there is room. @default 0.5 */
  readonly flex?: number | undefined
  /** Where the price was found. */
  readonly source?: string | undefined
  /** When the price was read there. */
  readonly asOf?: string | undefined
}

/**
 * Prices by model. A name stands for the model and its dated snapshots. A name that ends with `*` stands for all models that begin
 * with it, and a class of Claude, such as `opus-4-8`, for that model on every platform. If several names fit, the longest counts.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Table {
  readonly [model: string]: Price
}

/** A call before it is made. */
interface PlannedCall {
  /** The size of the request in UTF-8, as `Governor.Call` has it. */
  readonly bytes: number
  /** `bytes` without what is guessed for pictures and documents. @default `bytes` */
  readonly textBytes?: number | undefined
  /** The tokens of the whole prompt, if they are known. */
  readonly inputTokens?: number | undefined
  /** The part of the prompt whose tokens the provider has counted: never more than is reported here. @default none */
  readonly verified?: { readonly tokens: number; readonly bytes: number } | undefined
  /** Whether the prompt may ask to be kept in the cache for longer than usual. @default true */
  readonly asksLong?: boolean | undefined
  /** The most output that the request allows. @default `maxOutput` of the price, for each of the answers */
  readonly maxTokens?: number | undefined
  /** How many answers are requested. @default 1 */
  readonly choices?: number | undefined
}

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const rates: Input.Checks<Rates> = {
  input: Input.notNegative,
  output: Input.notNegative,
  cacheRead: Input.notNegative,
  cacheWrite: Input.notNegative,
  cacheWriteLong: Input.notNegative
}

/** Checks a price. */
export const price: Input.Check = Input.options<Price>(
  {
    ...rates,
    long: Input.options<NonNullable<Price["long"]>>({ ...rates, above: Input.notNegative }, "input", "output", "above"),
    maxOutput: Input.notNegative,
    context: Input.positive,
    fast: Input.notNegative,
    flex: Input.notNegative,
    source: Input.text,
    asOf: Input.text
  },
  "input",
  "output"
)

/** Checks a table of prices. */
export const check: Input.Check = Input.record(price)

// -----------------------------------------------------------------------------
// Lookup
// -----------------------------------------------------------------------------

const dated = /^-(?:20\d{2}-?\d{2}-?\d{2}|latest)/

/** Rates how well a name of the table fits a model: by the length of the name, or -1 if it does not. */
const fit = (name: string, model: string, line: string | undefined): number => {
  if (name === model) return Infinity
  if (name === line) return 1_000
  if (name.endsWith("*")) return model.startsWith(name.slice(0, -1)) ? name.length - 1 : -1
  return model.startsWith(name) && dated.test(model.slice(name.length)) ? name.length : -1
}

const search = (model: string, table: Table): Price | undefined => {
  const bare = model.slice(model.lastIndexOf("/") + 1)
  const line = claudeOf(model)
  let best = -1
  let found: Price | undefined
  for (const name of Object.keys(table)) {
    const fits = Math.max(fit(name, model, line), fit(name, bare, line))
    if (fits <= best) continue
    best = fits
    found = table[name]
  }
  return found
}

/** Callers may make up a new name for each call. */
const maxModels = 1_000
const lookups = new WeakMap<Table, Map<string, Price | undefined>>()

/** The price of a model; undefined if the table has none. */
export const find = (model: string, table: Table): Price | undefined => {
  let prices = lookups.get(table)
  if (prices === undefined || prices.size >= maxModels) lookups.set(table, (prices = new Map()))
  if (!prices.has(model)) prices.set(model, search(model, table))
  return prices.get(model)
}

// -----------------------------------------------------------------------------
// Costs
// -----------------------------------------------------------------------------

const million = 1e6

const ratesOf = (price: Price, prompt: number): Rates =>
  price.long !== undefined && prompt > price.long.above ? price.long : price

const usualFast = 2
/** OpenAI, Gemini and Vertex AI charge half. */
const usualFlex = 0.5

const scaled = (rates: Rates, factor: number): Rates => ({
  input: rates.input * factor,
  output: rates.output * factor,
  cacheRead: rates.cacheRead === undefined ? undefined : rates.cacheRead * factor,
  cacheWrite: rates.cacheWrite === undefined ? undefined : rates.cacheWrite * factor,
  cacheWriteLong: rates.cacheWriteLong === undefined ? undefined : rates.cacheWriteLong * factor
})

/** The options of a request that change its price. */
interface PricedRequest {
  readonly fast?: boolean | undefined
  readonly flex?: boolean | undefined
  readonly priceFactor?: number | undefined
}

/** The price of a request with its other options: a tier, or a region where the model must run. */
export const charged = (price: Price, { fast = false, flex = false, priceFactor = 1 }: PricedRequest): Price => {
  const tier = (fast ? (price.fast ?? usualFast) : 1) * (flex ? (price.flex ?? usualFlex) : 1)
  const factor = priceFactor * tier
  if (factor === 1) return price
  const { long } = price
  return {
    ...price,
    ...scaled(price, factor),
    long: long === undefined ? undefined : { ...scaled(long, factor), above: long.above }
  }
}

/**
 * Computes the cost of a call, in dollars.
 *
 * **Example** (A prompt that was read from the cache)
 *
 * ```ts doctest
 * import * as Prices from "floodgate/Prices"
 *
 * const price = Prices.find("claude-opus-5-5")!
 *
 * Prices.cost(price, { inputTokens: 0, cacheReadTokens: 100_000, outputTokens: 1_000 }) // => 0.04
 * ```
 *
 * @stability stable
 * @category getters
 * @since 0.2.0
 */
export const cost = (price: Price, actual: Actual): number => {
  const {
    cacheCreationLongTokens = 0,
    cacheCreationTokens = 0,
    cacheReadTokens = 0,
    inputTokens,
    outputTokens
  } = actual
  const { cacheRead, cacheWrite, cacheWriteLong, input, output } = ratesOf(price, promptTokens(actual))
  const long = Math.min(cacheCreationLongTokens, cacheCreationTokens)
  const written = cacheWrite ?? input
  return (
    (inputTokens * input +
      cacheReadTokens * (cacheRead ?? input) +
      (cacheCreationTokens - long) * written +
      long * (cacheWriteLong ?? written) +
      outputTokens * output) /
    million
  )
}

/** The tokens that a provider may add to a prompt for tools and formats. */
const unseenTokens = 1_000
/** The guess for a picture may be a seventh too low. */
const guessedTooLow = 1.2

/**
 * The most tokens that the prompt of a call can have.
 *
 * **Details**
 *
 * A token has at least one byte, so a prompt has at most as many tokens as bytes, and one that begins with a verified prefix has at most
 * its tokens and as many as the rest has bytes. Both may have more than that where they meet, and for what the provider puts between
 * messages: the same allowance covers it as in a prompt of which nothing is known.
 */
export const maxPrompt = ({ bytes, inputTokens, textBytes = bytes, verified }: PlannedCall): number => {
  if (inputTokens !== undefined) return inputTokens
  const files = bytes - textBytes
  const all = textBytes + files * guessedTooLow + unseenTokens
  if (verified === undefined) return all
  const rest = Math.max(0, bytes - verified.bytes)
  const known = verified.tokens + rest + Math.min(files, rest) * (guessedTooLow - 1) + unseenTokens
  // Of files all but what is known is a guess, so that the smaller number may be too small.
  return files > 0 ? known : Math.min(all, known)
}

/** The most tokens that the answers to a call can have; infinite if neither the request nor the price limits them. */
export const maxOutput = (price: Price | undefined, { choices = 1, maxTokens }: PlannedCall): number =>
  maxTokens ?? (price?.maxOutput ?? Infinity) * Math.max(1, choices || 1)

/**
 * The most that a call can cost, in dollars; infinite if neither the request nor the price limits its output.
 *
 * **Details**
 *
 * All of the prompt counts as the most expensive kind of input that it may be. The bound is only a guess for content that is not in
 * the request: a conversation that the provider stores, results of its tools, the pages of a document.
 */
export const bound = (price: Price, call: PlannedCall): number => {
  const { asksLong = true } = call
  const prompt = maxPrompt(call)
  const { cacheWrite = 0, cacheWriteLong = 0, input, output } = ratesOf(price, prompt)
  const written = output === 0 ? 0 : maxOutput(price, call) * output
  return (prompt * Math.max(input, cacheWrite, asksLong ? cacheWriteLong : 0) + written) / million
}
