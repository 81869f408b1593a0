/**
 * The requests and answers of a Messages API, as far as Floodgate reads them or passes them on.
 *
 * **When to use**
 *
 * To write an `LlmProvider` of your own, or to use `LlmClient` without Anthropic's SDK. If `@anthropic-ai/sdk` is installed,
 * `LlmClient` uses the SDK's types instead, which are assignable to the types here.
 *
 * **Details**
 *
 * Providers add fields and kinds of blocks, so each kind of block, event and delta is one interface whose fields are optional,
 * and `type` is any string. A field that is missing here can be added by declaration merging.
 *
 * **Example** (A field of requests that this version does not know)
 *
 * ```ts
 * declare module "floodgate/Messages" {
 *   interface CountRequest {
 *     readonly safety_identifier?: string
 *   }
 * }
 * ```
 *
 * @stability stable
 * @since 0.4.0
 */

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/**
 * A block of a message, in requests and in answers.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface ContentBlock {
  /** Such as `text`, `image`, `document`, `thinking`, `tool_use` or `tool_result`. */
  readonly type: string
  /** Of `text`. */
  readonly text?: string | undefined
  /** Of `thinking`. */
  readonly thinking?: string | undefined
  /** Of `thinking`: proves that the model wrote it. */
  readonly signature?: string | undefined
  /** Of `redacted_thinking`. */
  readonly data?: string | undefined
  /** Of `tool_use`. */
  readonly id?: string | undefined
  readonly name?: string | undefined
  readonly input?: unknown
  /** Of `tool_result`. */
  readonly tool_use_id?: string | undefined
  readonly is_error?: boolean | undefined
  /** Of `tool_result` and of what a provider's own tools answer. */
  readonly content?: unknown
  /** Of `image` and `document`. */
  readonly source?: unknown
  readonly title?: string | null | undefined
  readonly context?: string | null | undefined
  readonly citations?: unknown
  readonly cache_control?: unknown
}

/**
 * A message of a conversation.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface MessageParam {
  readonly role: "user" | "assistant" | "system"
  readonly content: string | ReadonlyArray<ContentBlock>
}

/**
 * A tool that the model may call.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface Tool {
  /** Of the provider's own tools, such as `web_search_20260318`. */
  readonly type?: string | null | undefined
  readonly name?: string | undefined
  readonly description?: string | undefined
  /** A JSON schema. */
  readonly input_schema?: unknown
  readonly strict?: boolean | undefined
  readonly cache_control?: unknown
}

/**
 * A request for a count of input tokens.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface CountRequest {
  readonly model: string
  readonly messages: ReadonlyArray<MessageParam>
  readonly system?: string | ReadonlyArray<ContentBlock> | undefined
  readonly tools?: ReadonlyArray<Tool> | undefined
  readonly tool_choice?: { readonly type: string; readonly name?: string | undefined } | undefined
  readonly thinking?: { readonly type: string; readonly budget_tokens?: number | undefined } | undefined
  readonly output_config?: unknown
  /** Continues a conversation that the provider stores. */
  readonly thread?: { readonly type: string; readonly previous_message_id?: string | undefined } | undefined
  /** A `fast` request has other limits and prices. */
  readonly speed?: string | null | undefined
  readonly cache_control?: unknown
}

/**
 * A request for an answer, which has all fields of a request for a count.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface MessageRequest extends CountRequest {
  /** The most output tokens. */
  readonly max_tokens: number
  /** Ignored: the called function decides whether the answer is streamed. */
  readonly stream?: boolean | undefined
  readonly temperature?: number | undefined
  readonly top_k?: number | undefined
  readonly top_p?: number | undefined
  readonly stop_sequences?: ReadonlyArray<string> | undefined
  readonly metadata?: { readonly user_id?: string | null | undefined } | undefined
  /** Where the provider computes the answer; `us` costs more. */
  readonly inference_geo?: string | null | undefined
  readonly service_tier?: string | undefined
  readonly container?: unknown
  readonly context_management?: unknown
}

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/**
 * The tokens that an answer used. A stream event may omit counts or set them to null.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface MessageUsage {
  /** Without those read from and written to a cache. */
  readonly input_tokens?: number | null | undefined
  readonly output_tokens?: number | null | undefined
  readonly cache_creation_input_tokens?: number | null | undefined
  readonly cache_read_input_tokens?: number | null | undefined
  readonly cache_creation?:
    | {
        readonly ephemeral_5m_input_tokens?: number | undefined
        readonly ephemeral_1h_input_tokens?: number | undefined
      }
    | null
    | undefined
}

/**
 * A whole answer.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface MessageResponse {
  readonly type: "message"
  readonly role: "assistant"
  readonly id: string
  readonly model: string
  readonly content: ReadonlyArray<ContentBlock>
  /** Why it ended, such as `end_turn`, `max_tokens`, `tool_use` or `refusal`; null at the start of a stream. */
  readonly stop_reason: string | null
  readonly stop_sequence?: string | null | undefined
  readonly usage: MessageUsage & { readonly input_tokens: number; readonly output_tokens: number }
}

/**
 * The part of an answer that an event of a stream adds.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface MessageDelta {
  /** Of `content_block_delta`: such as `text_delta`, `thinking_delta` or `input_json_delta`. */
  readonly type?: string | undefined
  readonly text?: string | undefined
  readonly thinking?: string | undefined
  readonly partial_json?: string | undefined
  readonly signature?: string | undefined
  readonly citation?: unknown
  /** Of `message_delta`. */
  readonly stop_reason?: string | null | undefined
  readonly stop_sequence?: string | null | undefined
}

/**
 * An event of a streamed answer: `message_start`, then for each block `content_block_start`, `content_block_delta`s and
 * `content_block_stop`, then `message_delta` and `message_stop`.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface MessageEvent {
  readonly type: string
  /** Of `message_start`. */
  readonly message?: MessageResponse | undefined
  /** Of events of a block: which block of the answer. */
  readonly index?: number | undefined
  /** Of `content_block_start`. */
  readonly content_block?: ContentBlock | undefined
  /** Of `content_block_delta` and `message_delta`. */
  readonly delta?: MessageDelta | undefined
  /** Of `message_delta`: all tokens so far. */
  readonly usage?: MessageUsage | undefined
}
