/**
 * llama.cpp's own API: completions, and the middle of a text.
 *
 * Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (2026-11)
 */
import { failureOf } from "./errors.ts"
import { amountOf, at, characters, isRecord, listOf, nameOf } from "./json.ts"
import { addInput, agentOfRequest, errorIn, errorOf, outcomeOf } from "./openai.ts"
import {
  type Answer,
  emptyAnswer,
  limitsInHeaders,
  observeJson,
  outputOf,
  type Protocol,
  type Route,
  withCounts
} from "./protocol.ts"
import { jsonWhitespace, refusalResponse, sseComment, sseEvent } from "./refusal.ts"
import { add, imageBytes, newSum, sizeOf, type Sum } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

/** Many web programs have a path `/api/completion` of their own, which is the default of a widespread client. */
const endpoints = /^(?:\/.*)?(?<!\/api)\/(?:completion|infill)$/

const matchRoute = (method: string, path: string): Route | undefined =>
  endpoints.test(path) ? { operation: method === "POST" ? "generate" : "passThrough", path } : undefined

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/** Adds a prompt: a text, tokens, both mixed, or a text with pictures. */
const addPrompt = (sum: Sum, prompt: unknown): void => {
  const text = at(prompt, "prompt_string")
  if (text === undefined) return addInput(sum, prompt)
  add(sum, text)
  sum.files += imageBytes * listOf(at(prompt, "multimodal_data")).length
}

/** The prompts of a request. A list of tokens, with or without texts, is one. */
const promptsOf = (prompt: unknown): ReadonlyArray<unknown> =>
  Array.isArray(prompt) && !prompt.some((part) => typeof part === "number") ? prompt : [prompt]

const describe: Protocol["describe"] = (body) => {
  if (!isRecord(body)) return undefined
  // Without one of these the path is that of another program.
  if ((body["prompt"] ?? body["input_prefix"] ?? body["input_suffix"]) === undefined) return undefined
  const prompts = promptsOf(body["prompt"])
  const sum = newSum()
  for (const prompt of prompts) addPrompt(sum, prompt)
  for (const name of ["input_prefix", "input_suffix", "input_extra"]) add(sum, body[name])
  const each = typeof body["n_cmpl"] === "number" ? body["n_cmpl"] : 1
  return {
    ...sizeOf(sum),
    model: nameOf(body["model"]),
    // A negative number allows any output.
    ...outputOf(amountOf(body["n_predict"] ?? body["max_tokens"]), each * prompts.length),
    thinking: false,
    stream: body["stream"] === true,
    continues: undefined,
    stored: false,
    needsUsageRequest: false,
    operation: "text_completion"
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** Adds the counts at the end of a completion. `tokens_cached` has its own output, too. */
const withUsage = (answer: Answer, body: unknown): Answer => {
  const input = amountOf(at(body, "tokens_evaluated"))
  const output = amountOf(at(body, "tokens_predicted"))
  const cached = Math.min(input ?? 0, amountOf(at(body, "timings", "cache_n")) ?? 0)
  const { cacheReadTokens = 0, inputTokens = 0, outputTokens = 0 } = answer.counts
  return withCounts(answer, {
    ...(input !== undefined && {
      inputTokens: amountOf(inputTokens + input - cached),
      cacheReadTokens: amountOf(cacheReadTokens + cached)
    }),
    ...(output !== undefined && { outputTokens: amountOf(outputTokens + output) })
  })
}

/** Takes in a part of a stream, the last of which has the counts. */
const step = (answer: Answer, part: unknown): Answer => {
  const error = errorIn(part)
  if (error !== undefined) return { ...answer, error }
  const isLast = at(part, "stop") === true
  const length = characters(at(part, "content"))
  const next = {
    ...answer,
    model: nameOf(at(part, "model")) ?? answer.model,
    finishReason: nameOf(at(part, "stop_type")) ?? answer.finishReason,
    uncounted: answer.uncounted + length,
    started: answer.started || length > 0 || isLast,
    complete: answer.complete || isLast
  }
  return isLast ? withUsage(next, part) : next
}

/** A whole answer, which is a list if there are several completions. */
const readAnswer = (body: unknown): Answer => {
  const completions = Array.isArray(body) ? (body as ReadonlyArray<unknown>) : [body]
  const first = completions[0]
  return {
    ...completions.reduce(withUsage, emptyAnswer),
    model: nameOf(at(first, "model")),
    finishReason: nameOf(at(first, "stop_type")),
    ...outcomeOf(first)
  }
}

/**
 * The own API of llama.cpp's server: `/completion` and `/infill`, under any base URL but one that ends in `/api`.
 *
 * **Details**
 *
 * The server has one model, which a request need not name. A request without a prompt is no call.
 *
 * **Example** (The end of a stream)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const events = ['{"content":"Hello","stop":false}', '{"content":"","stop":true,"tokens_evaluated":9,"tokens_predicted":1}']
 * const answer = events.reduce(
 *   (answer, data) => protocols.llamaCpp.observe(answer, { name: undefined, data }),
 *   protocols.llamaCpp.answer(undefined)
 * )
 *
 * answer.complete // => true
 * answer.counts.inputTokens // => 9
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.5.0
 */
export const llamaCpp: Protocol = {
  name: "llama.cpp",
  provider: "llama.cpp",
  match: matchRoute,
  describe,
  agentOf: agentOfRequest,
  answer: readAnswer,
  observe: observeJson(step),
  limits: limitsInHeaders,
  failure: failureOf,
  refuse: (refusal) => refusalResponse(refusal, { error: errorOf(refusal) }),
  refuseInStream: (refusal) => sseEvent(undefined, { error: errorOf(refusal) }),
  keepAlive: { stream: sseComment, whole: jsonWhitespace }
}
