/** The limits in responses of the simulated provider: as headers, and as the signal that a client reads from them. */
import * as DateTime from "effect/DateTime"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Signal from "../domain/signal.ts"
import { claimOf } from "../protocol/windows.ts"
import * as Signals from "../Signals.ts"
import type { LimitFigure, LimitFigures, WindowFigure } from "./engine.ts"
import type { HeaderMode } from "./models.ts"

/** The relation between the provider's time and the caller's. */
export interface Wall {
  /** The time of the response by the caller's clock, in milliseconds since the epoch. */
  readonly epochMillis: number
  /** How many times faster the provider's time passes. */
  readonly scale: number
}

const second = 1_000
/** Anthropic rounds tokens to the nearest thousand. */
const thousand = 1_000

const roundUp = (value: number, step: number): number => Math.ceil(value / step - 1e-9) * step

/**
 * The wait that the answer asks for, in milliseconds of the caller's time; undefined if it asks for none.
 *
 * **Details**
 *
 * Whole seconds, rounded up, as providers send them. `"exact"` keeps milliseconds, and so does a provider whose time is
 * scaled: a second of the caller's may be a minute of its own.
 */
export const retryAfterMillis = (mode: HeaderMode, millis: number | undefined, wall: Wall): number | undefined => {
  if (millis === undefined || mode === "none") return undefined
  if (mode === "wrong") return second
  return mode === "exact" || wall.scale !== 1 ? roundUp(millis / wall.scale, 1) : roundUp(millis, second)
}

interface Reported {
  readonly limit: number
  readonly remaining: number
  readonly roundedTo: number
  readonly resetMillis: number
}

const report = (mode: HeaderMode, dimension: Limits.Dimension, figure: LimitFigure, wall: Wall): Reported => {
  const limit = Math.round(figure.limit * wall.scale)
  if (mode === "wrong") return { limit: limit * 2, remaining: limit * 2, roundedTo: 1, resetMillis: 0 }
  const roundedTo = mode === "rounded" && dimension !== "requests" ? thousand : 1
  const left = Math.max(0, figure.left)
  return {
    limit,
    remaining: roundedTo === 1 ? Math.floor(left + 1e-6) : Math.round(left / roundedTo) * roundedTo,
    roundedTo,
    resetMillis: roundUp(figure.fullMillis / wall.scale, 1)
  }
}

const all = (mode: HeaderMode, figures: LimitFigures, wall: Wall): Amounts.PerDimension<Reported> =>
  Amounts.mapDimensions(figures, (figure, dimension) => report(mode, dimension, figure, wall))

/** The combined figure: a limit of its own, or the sum of input and output. */
const combined = ({ inputTokens, outputTokens, tokens }: Amounts.PerDimension<Reported>) => {
  if (tokens !== undefined || inputTokens === undefined || outputTokens === undefined) return tokens
  return {
    limit: inputTokens.limit + outputTokens.limit,
    remaining: inputTokens.remaining + outputTokens.remaining,
    resetMillis: Math.min(inputTokens.resetMillis, outputTokens.resetMillis)
  }
}

const timestamp = (mode: HeaderMode, epochMillis: number): string => {
  const at = mode === "exact" ? epochMillis : roundUp(epochMillis, second)
  return DateTime.formatIso(DateTime.makeUnsafe(at)).replace(".000Z", "Z")
}

/** A span as Go writes it: `20ms`, `1.5s`, `6m0s`. */
const span = (millis: number): string => {
  if (millis < second) return `${Math.ceil(millis)}ms`
  const seconds = Math.ceil(millis) / second
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${Number((seconds % 60).toFixed(3))}s`
}

/** The rate limit headers, with the names of a family of providers. */
export const rateLimits = (
  mode: HeaderMode,
  figures: LimitFigures,
  wall: Wall,
  names: "anthropic" | "openai" = mode === "openai" ? "openai" : "anthropic"
): Record<string, string> => {
  const headers: Record<string, string> = {}
  if (mode === "none") return headers
  const reported = all(mode, figures, wall)
  if (names === "openai") {
    for (const [name, value] of [
      ["requests", reported.requests] as const,
      ["tokens", reported.tokens ?? reported.inputTokens] as const
    ]) {
      if (value === undefined) continue
      headers[`x-ratelimit-limit-${name}`] = `${value.limit}`
      headers[`x-ratelimit-remaining-${name}`] = `${value.remaining}`
      headers[`x-ratelimit-reset-${name}`] = span(value.resetMillis)
    }
    return headers
  }
  const figuresByName = {
    requests: reported.requests,
    "input-tokens": reported.inputTokens,
    "output-tokens": reported.outputTokens,
    tokens: combined(reported)
  }
  for (const [name, value] of Object.entries(figuresByName)) {
    if (value === undefined) continue
    headers[`anthropic-ratelimit-${name}-limit`] = `${value.limit}`
    headers[`anthropic-ratelimit-${name}-remaining`] = `${value.remaining}`
    headers[`anthropic-ratelimit-${name}-reset`] = timestamp(mode, wall.epochMillis + value.resetMillis)
  }
  return headers
}

const unified = "anthropic-ratelimit-unified"
/** From this fraction on, responses warn. */
const warnsAt = 0.75

/** When a window ends, in seconds since the epoch. */
const endOf = ({ leftMillis }: WindowFigure, wall: Wall): string =>
  `${Math.round((wall.epochMillis + leftMillis / wall.scale) / second)}`

/** The whole percents of a window that are spent, as far as they are told. */
const percentOf = (mode: HeaderMode, { used }: WindowFigure): number => {
  const percent = mode === "wrong" ? 0 : Math.min(1, used) * 100
  return mode === "exact" ? percent : Math.floor(percent + 1e-7)
}

/** The headers of Codex, which names windows by slots. */
const codex = (mode: HeaderMode, figures: ReadonlyArray<WindowFigure>, wall: Wall): Record<string, string> => {
  const headers: Record<string, string> = {}
  const slots = new Map<string, number>()
  for (const figure of figures.toSorted((a, b) => a.millis - b.millis)) {
    const limit = figure.suffix === undefined ? "x-codex" : `x-codex-${figure.suffix}`
    const slot = slots.get(limit) ?? 0
    slots.set(limit, slot + 1)
    if (slot > 1) continue
    const prefix = `${limit}-${slot === 0 ? "primary" : "secondary"}`
    headers[`${prefix}-used-percent`] = `${percentOf(mode, figure)}`
    headers[`${prefix}-window-minutes`] = `${figure.millis / 60_000}`
    headers[`${prefix}-reset-at`] = endOf(figure, wall)
  }
  return headers
}

/** The headers of the long windows of a subscription. */
export const longWindows = (
  mode: HeaderMode,
  figures: ReadonlyArray<WindowFigure>,
  wall: Wall,
  protocol: "anthropic" | "openai" = mode === "openai" ? "openai" : "anthropic"
): Record<string, string> => {
  const [first] = figures
  if (first === undefined || mode === "none") return {}
  if (protocol === "openai") return codex(mode, figures, wall)
  const fullest = figures.reduce((fullest, figure) => (figure.used > fullest.used ? figure : fullest), first)
  const headers: Record<string, string> = { [`${unified}-reset`]: endOf(fullest, wall) }
  if (fullest.isPaid) return { ...headers, [`${unified}-overage-reset`]: endOf(fullest, wall) }
  const usedOf = ({ used }: WindowFigure): number => (mode === "wrong" ? 0 : Math.min(1, used))
  const warns = usedOf(fullest) < warnsAt ? "allowed" : "allowed_warning"
  headers[`${unified}-status`] = usedOf(fullest) < 1 ? warns : "rejected"
  headers[`${unified}-representative-claim`] = claimOf(fullest.millis, fullest.suffix)
  for (const figure of figures) {
    const used = usedOf(figure)
    headers[`${unified}-${figure.name}-utilization`] = `${percentOf(mode, figure) / 100}`
    headers[`${unified}-${figure.name}-reset`] = endOf(figure, wall)
    if (used >= warnsAt) headers[`${unified}-${figure.name}-surpassed-threshold`] = `${warnsAt}`
  }
  return headers
}

/** The headers that ask for a wait: `retry-after` in seconds, and `retry-after-ms` if that is not a whole number. */
export const retryAfter = (mode: HeaderMode, millis: number | undefined, wall: Wall): Record<string, string> => {
  const asked = retryAfterMillis(mode, millis, wall)
  if (asked === undefined) return {}
  return asked % second === 0
    ? { "retry-after": `${asked / second}` }
    : { "retry-after": `${asked / second}`, "retry-after-ms": `${asked}` }
}

/** The signal that a client reads from the headers of {@link rateLimits} and {@link longWindows}. */
export const signal = (
  mode: HeaderMode,
  figures: LimitFigures,
  windows: ReadonlyArray<WindowFigure>,
  wall: Wall
): Limits.Signal | undefined => {
  if (mode === "none") return undefined
  const { inputTokens, outputTokens, requests, tokens } = Amounts.mapDimensions(
    all(mode, figures, wall),
    ({ limit, remaining, roundedTo }) => ({ limit, remaining, roundedTo })
  )
  const dimensions: { [D in Limits.Dimension]?: Signal.DimensionSignal } = {}
  if (requests !== undefined) dimensions.requests = requests
  if (mode === "openai") {
    const one = tokens ?? inputTokens
    if (one !== undefined) dimensions.tokens = one
  } else {
    if (inputTokens !== undefined) dimensions.inputTokens = inputTokens
    if (outputTokens !== undefined) dimensions.outputTokens = outputTokens
    if (tokens !== undefined && inputTokens === undefined && outputTokens === undefined) dimensions.tokens = tokens
  }
  // Limits are not read from headers, because that takes longer than making them.
  const told = windows.length === 0 ? undefined : Signals.fromHeaders(longWindows(mode, windows, wall))?.windows
  if (told !== undefined) return { dimensions, windows: told }
  return Object.keys(dimensions).length === 0 ? undefined : { dimensions }
}

/** The body of an error in Anthropic's form. */
export const errorBody = (
  error: { readonly errorType: string; readonly errorCode?: string | undefined; readonly message: string },
  requestId: string
) => ({
  type: "error",
  error: {
    type: error.errorType,
    message: error.message,
    details: error.errorCode === undefined ? null : { error_code: error.errorCode }
  },
  request_id: requestId
})
