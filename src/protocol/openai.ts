/**
 * Common parts of OpenAI's protocols: deployments, agents, inputs, counts and errors.
 *
 * Sources:
 *
 * - https://developers.openai.com/api/docs/guides/error-codes
 * - https://developers.openai.com/api/docs/guides/rate-limits
 */
import { bytesPerToken } from "../domain/amounts.ts"
import { amountOf, at, firstName, isRecord, listOf } from "./json.ts"
import { agentOf } from "./lineage.ts"
import { type Answer, type Counts, decodeSegment, type Description, type Protocol } from "./protocol.ts"
import { usualLifetime } from "./prefixes.ts"
import type { Refusal } from "./refusal.ts"
import { add, type Sum } from "./requestSize.ts"

/** The deployment in a path of Azure OpenAI. Limits apply to it, and not to its model. */
export const deploymentOf = (path: string): string | undefined => {
  const name = /\/openai\/deployments\/([^/]+)\//.exec(path)?.[1]
  return name === undefined ? undefined : decodeSegment(name)
}

/** The agent of a request. `prompt_cache_key` is not one: it names a prefix that many callers may share. */
export const agentOfRequest: Protocol["agentOf"] = (body, header) =>
  agentOf(header, at(body, "safety_identifier"), at(body, "user"))

/** Adds an input: a text, tokens, or a list of either. Tokens count as much as the texts that they stand for. */
export const addInput = (sum: Sum, input: unknown): void => {
  if (!Array.isArray(input)) return add(sum, input)
  for (const item of input) {
    if (typeof item === "number") sum.text += bytesPerToken
    else if (Array.isArray(item)) sum.text += item.length * bytesPerToken
    else add(sum, item)
  }
}

const aDay = 86_400_000

/**
 * For how long OpenAI keeps the prompt of a request.
 *
 * Source: https://developers.openai.com/api/docs/guides/prompt-caching, "Prompt cache retention"
 */
export const keptFor = (body: Readonly<Record<string, unknown>>): number =>
  body["prompt_cache_retention"] === "24h" ? aDay : usualLifetime

/** Whether an effort asks the model to reason. */
export const reasons = (effort: unknown): boolean => typeof effort === "string" && effort !== "none"

/**
 * Splits the input into tokens that were read from a cache, tokens that were written to it, and the rest. OpenAI includes both in the
 * total; how they count towards limits is up to the accounting.
 */
export const countsOf = (input: unknown, details: unknown, output: unknown): Counts => {
  const all = amountOf(input)
  const outputTokens = amountOf(output)
  if (all === undefined) return { outputTokens }
  const cacheReadTokens = Math.min(all, amountOf(at(details, "cached_tokens")) ?? 0)
  const cacheCreationTokens = Math.min(all - cacheReadTokens, amountOf(at(details, "cache_write_tokens")) ?? 0)
  return {
    inputTokens: all - cacheReadTokens - cacheCreationTokens,
    cacheCreationTokens,
    cacheReadTokens,
    outputTokens
  }
}

const errors = {
  rateLimited: { type: "rate_limit_error", code: "rate_limit_exceeded" },
  unavailable: { type: "service_unavailable_error", code: "server_is_overloaded" },
  tooLarge: { type: "invalid_request_error", code: "request_too_large" },
  spendLimited: { type: "insufficient_quota", code: "insufficient_quota" },
  jobLimited: { type: "insufficient_quota", code: "insufficient_quota" },
  notFound: { type: "invalid_request_error", code: "not_found" },
  invalid: { type: "invalid_request_error", code: "invalid_body" },
  timedOut: { type: "invalid_request_error", code: "request_timeout" },
  unauthorized: { type: "authentication_error", code: "unauthorized" },
  forbidden: { type: "permission_error", code: "forbidden" },
  badGateway: { type: "server_error", code: "bad_gateway" },
  noProvider: { type: "server_error", code: "bad_gateway" },
  executed: { type: "server_error", code: "unreadable_answer" },
  notImplemented: { type: "invalid_request_error", code: "not_implemented" },
  upgradeRequired: { type: "invalid_request_error", code: "upgrade_required" }
} as const

/** The `error` object of a refusal. */
export const errorOf = ({ kind, message }: Refusal) => ({ message, param: null, ...errors[kind] })

/** The reason why the model stopped, in an answer with choices or in a chunk of one. */
export const finishReasonOf = (body: unknown): string | undefined =>
  firstName(listOf(at(body, "choices")), "finish_reason")

/** The body of an error within a stream or an answer with status 200; undefined if there is none. */
export const errorIn = (body: unknown): unknown => {
  const error = at(body, "error")
  return isRecord(error) || typeof error === "string" ? body : undefined
}

/** The end of a whole answer. It is complete if its body is an object that is not an error. */
export const outcomeOf = (body: unknown): Pick<Answer, "started" | "complete" | "error"> => {
  const error = errorIn(body)
  const isWhole = isRecord(body) && error === undefined
  return { started: isWhole, complete: isWhole, error }
}

/**
 * The cost of a service tier: the fast mode, which was called priority processing before, and the ultrafast one, which costs six
 * times as much as the standard. Source: https://developers.openai.com/api/docs/guides/ultrafast-mode
 */
export const tierOf = (tier: unknown): Pick<Description, "fast" | "flex" | "priceFactor"> => {
  if (tier === "ultrafast") return { priceFactor: 6 }
  if (tier === "flex") return { flex: true }
  return tier === "priority" || tier === "fast" ? { fast: true } : {}
}
