/**
 * OpenAI's other JSON requests for which it counts a request of a model: legacy completions, images, speech and moderations.
 *
 * Sources:
 *
 * - https://developers.openai.com/api/docs/guides/rate-limits
 * - https://developers.openai.com/api/reference/resources/completions
 * - https://developers.openai.com/api/reference/resources/images
 * - https://developers.openai.com/api/reference/resources/audio
 * - https://developers.openai.com/api/reference/resources/moderations
 */
import { at, characters, isRecord, largestOf, listOf, nameOf, parseJson, textOf } from "./json.ts"
import { addInput, countsOf, deploymentOf, errorIn, finishReasonOf } from "./openai.ts"
import { openaiChat } from "./openaiChat.ts"
import {
  type Answer,
  type Description,
  outputOf,
  type Protocol,
  type Route,
  withCounts,
  withVersion
} from "./protocol.ts"
import { add, jsonBytes, newSum, sizeOf } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Routes
// -----------------------------------------------------------------------------

/** The endpoints at the root, after a version, after `openai`, or after a deployment of Azure. */
const requests =
  /^(?:\/(?:.*\/)?(?:v\d[a-z\d]*|openai|deployments\/[^/]+))?\/(?<endpoint>completions|images\/generations|audio\/speech|moderations)$/

const matchRoute = (method: string, path: string): Route | undefined => {
  const { endpoint } = requests.exec(path)?.groups ?? {}
  if (endpoint === undefined) return undefined
  return {
    operation: method === "POST" ? "generate" : "passThrough",
    model: deploymentOf(path),
    path: path === `/${endpoint}` ? withVersion(path, "v1") : path
  }
}

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

type JsonBody = Readonly<Record<string, unknown>>
type Asked = Pick<Description, "operation" | "maxTokens" | "choices" | "stream" | "binary" | "needsUsageRequest">

const isTokens = (prompt: ReadonlyArray<unknown>): boolean => prompt.every((token) => typeof token === "number")

/** The number of prompts of a completion. A list of numbers is one prompt. */
const promptsOf = (prompt: unknown): number => (Array.isArray(prompt) && !isTokens(prompt) ? prompt.length : 1)

const askedOfCompletion = (body: JsonBody): Asked => {
  const stream = body["stream"] === true
  // `best_of` completions are written for each prompt, and `n` of them are returned.
  const each = largestOf([body["n"], body["best_of"]]) ?? 1
  return {
    operation: "text_completion",
    ...outputOf(largestOf([body["max_tokens"]]), each * promptsOf(body["prompt"])),
    stream,
    needsUsageRequest: stream && at(body, "stream_options", "include_usage") !== true
  }
}

/** Reads what a request asks of each endpoint. Nothing limits the output of images and speech. */
const askedOf = (endpoint: string | undefined, body: JsonBody): Asked => {
  const needsUsageRequest = false
  switch (endpoint) {
    case "generations":
      return {
        operation: "generate_content",
        ...outputOf(undefined, body["n"]),
        stream: body["stream"] === true,
        needsUsageRequest
      }
    case "speech": {
      const stream = body["stream_format"] === "sse"
      return { operation: "generate_content", maxTokens: undefined, stream, binary: !stream, needsUsageRequest }
    }
    case "moderations":
      return { operation: "moderation", maxTokens: 0, stream: false, needsUsageRequest }
    default:
      return askedOfCompletion(body)
  }
}

const describe: Protocol["describe"] = (body, route) => {
  if (!isRecord(body)) return undefined
  const sum = newSum()
  // A body of no known form counts by its size, so that it is no way around a limit.
  if (body["prompt"] === undefined && body["input"] === undefined) sum.text = jsonBytes(body)
  else {
    for (const name of ["prompt", "input"]) addInput(sum, body[name])
    for (const name of ["suffix", "instructions"]) add(sum, body[name])
  }
  return {
    ...sizeOf(sum),
    ...askedOf(route.path.split("/").at(-1), body),
    model: route.model ?? nameOf(body["model"]),
    thinking: false,
    continues: undefined,
    stored: false
  }
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/** Completions have the counts of Chat Completions, the others those of Responses. */
const withUsage = (answer: Answer, usage: unknown): Answer =>
  isRecord(usage)
    ? withCounts(
        answer,
        countsOf(
          usage["prompt_tokens"] ?? usage["input_tokens"],
          usage["prompt_tokens_details"],
          usage["completion_tokens"] ?? usage["output_tokens"]
        )
      )
    : answer

const readAnswer = (body: unknown): Answer => withUsage(openaiChat.answer(body), at(body, "usage"))

/** The last events of speech and of images. */
const isLast = (type: string): boolean => /^(?:speech\.audio\.done|image_\w+\.completed)$/.test(type)
const hasMedia = (type: string): boolean => /^(?:speech\.audio\.delta|image_\w+\.partial_image)$/.test(type)

const step = (answer: Answer, event: unknown): Answer => {
  const error = errorIn(event)
  if (error !== undefined) return { ...answer, error }
  const type = textOf(at(event, "type")) ?? ""
  const finishReason = finishReasonOf(event)
  const length = listOf(at(event, "choices")).reduce<number>((sum, choice) => sum + characters(at(choice, "text")), 0)
  return {
    ...withUsage({ ...answer, uncounted: answer.uncounted + length }, at(event, "usage")),
    id: nameOf(at(event, "id")) ?? answer.id,
    model: nameOf(at(event, "model")) ?? answer.model,
    finishReason: finishReason ?? answer.finishReason,
    started: answer.started || length > 0 || hasMedia(type) || isLast(type),
    complete: answer.complete || finishReason !== undefined || isLast(type)
  }
}

const observe: Protocol["observe"] = (answer, { data }) => {
  if (data === "[DONE]") return { ...answer, complete: true }
  const event = parseJson(data)
  return isRecord(event) ? step(answer, event) : answer
}

/**
 * OpenAI's legacy completions, image generations, speech and moderations, under any base URL. List it before
 * {@link openaiChat}, which passes them on.
 *
 * **Details**
 *
 * Each is one request of the pool of its model. Speech is binary, so its usage stays unknown. Nothing in a request limits the
 * output of images and speech, so a cap in dollars needs a price with `maxOutput` for their models.
 *
 * **Example** (What an image used)
 *
 * ```ts doctest
 * import { protocols } from "floodgate/protocol"
 *
 * const route = protocols.openaiRequests.match("POST", "/v1/images/generations")!
 * const body = { model: "gpt-image-1", prompt: "A gate", n: 2 }
 * const answer = protocols.openaiRequests.answer({ data: [], usage: { input_tokens: 9, output_tokens: 544 } })
 *
 * protocols.openaiRequests.describe(body, route)?.choices // => 2
 * answer.counts.outputTokens // => 544
 * ```
 *
 * @stability unstable
 * @category protocols
 * @since 0.4.0
 */
export const openaiRequests: Protocol = {
  ...openaiChat,
  name: "openai-requests",
  match: matchRoute,
  describe,
  answer: readAnswer,
  observe
}
