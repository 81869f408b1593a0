/** A model in the form of the AI SDK's provider packages, over the simulated provider's Messages API. */
import { makeSseParser } from "../../src/protocol/sse.ts"
import type { CallParams } from "../../src/adapters/aiSdk/describe.ts"

export interface CallOptions extends CallParams {
  readonly maxOutputTokens: number
}

export interface Usage {
  readonly inputTokens: { readonly total: number; readonly noCache: number; readonly cacheRead: number }
  readonly outputTokens: { readonly total: number | undefined }
}

export type Part =
  | { readonly type: "stream-start"; readonly warnings: ReadonlyArray<never> }
  | { readonly type: "response-metadata"; readonly id: string; readonly modelId: string }
  | { readonly type: "text-delta"; readonly id: string; readonly delta: string }
  | { readonly type: "finish"; readonly usage: Usage; readonly finishReason: { readonly unified: string } }
  | { readonly type: "error"; readonly error: unknown }

/** The AI SDK's error for a failed request, with its property names. */
export class ApiCallError extends Error {
  override readonly name = "AI_APICallError"
  readonly isRetryable: boolean
  readonly statusCode: number | undefined
  readonly responseHeaders: Record<string, string> | undefined
  readonly responseBody: string | undefined

  constructor(response: Response | undefined, body: string | undefined, cause?: unknown) {
    super(body ?? "Cannot connect to API", { cause })
    this.statusCode = response?.status
    this.responseHeaders = response && Object.fromEntries(response.headers)
    this.responseBody = body
    this.isRetryable = response === undefined || response.status === 429 || response.status >= 500
  }
}

const usageOf = (body: { usage: { input_tokens: number; output_tokens?: number } }): Usage => ({
  inputTokens: { total: body.usage.input_tokens, noCache: body.usage.input_tokens, cacheRead: 0 },
  outputTokens: { total: body.usage.output_tokens }
})

interface Message {
  readonly content: ReadonlyArray<{ readonly text?: string }>
  readonly id: string
  readonly model: string
  readonly stop_reason: string
  readonly usage: { readonly input_tokens: number; readonly output_tokens: number }
}

const partOf = (data: string): ReadonlyArray<Part> => {
  const event = JSON.parse(data) as { readonly type: string } & Record<string, never>
  switch (event.type) {
    case "message_start": {
      const start = event as unknown as { readonly message: Message }
      return [{ type: "response-metadata", id: start.message.id, modelId: start.message.model }]
    }
    case "content_block_delta": {
      const { delta } = event as unknown as { readonly delta: { readonly text?: string } }
      return [{ type: "text-delta", id: "0", delta: delta.text ?? "" }]
    }
    case "message_delta": {
      const { usage } = event as unknown as Message
      return [{ type: "finish", usage: usageOf({ usage }), finishReason: { unified: "stop" } }]
    }
    case "error":
      return [{ type: "error", error: (event as unknown as { readonly error: unknown }).error }]
    default:
      return []
  }
}

export const make = (url: string, modelId = "my-model") => {
  const post = async ({ abortSignal, maxOutputTokens, prompt, providerOptions }: CallOptions, stream: boolean) => {
    const agent = providerOptions?.["floodgate"] as { readonly agent?: string } | undefined
    const send = async () =>
      fetch(`${url}/v1/messages`, {
        method: "POST",
        headers: { "x-api-key": "any" },
        body: JSON.stringify({
          model: modelId,
          max_tokens: maxOutputTokens,
          metadata: { user_id: agent?.agent },
          stream,
          messages: prompt
        }),
        ...(abortSignal === undefined ? {} : { signal: abortSignal })
      })
    const response = await send().catch((cause: unknown) => {
      if (abortSignal?.aborted === true) throw cause
      throw new ApiCallError(undefined, undefined, cause)
    })
    if (!response.ok) throw new ApiCallError(response, await response.text())
    return response
  }
  return {
    specificationVersion: "v4" as const,
    provider: "anthropic.messages",
    modelId,
    doGenerate: async (options: CallOptions) => {
      const response = await post(options, false)
      const message = (await response.json().catch((cause: unknown) => {
        throw new ApiCallError(undefined, undefined, cause)
      })) as Message
      return {
        content: [],
        text: message.content.map(({ text = "" }) => text).join(""),
        finishReason: { unified: message.stop_reason },
        usage: usageOf(message),
        response: { id: message.id, modelId: message.model, headers: Object.fromEntries(response.headers) }
      }
    },
    doStream: async (options: CallOptions) => {
      const response = await post(options, true)
      const parser = makeSseParser()
      const parts = new TransformStream<Uint8Array, Part>({
        start: (controller) => controller.enqueue({ type: "stream-start", warnings: [] }),
        transform: (chunk, controller) => {
          for (const { data } of parser.feed(chunk)) {
            if (data !== "") for (const part of partOf(data)) controller.enqueue(part)
          }
        }
      })
      return {
        stream: response.body!.pipeThrough(parts),
        response: { headers: Object.fromEntries(response.headers) }
      }
    }
  }
}
