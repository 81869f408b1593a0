/** A protocol of a provider: its functions, and the facts that they take and return. */
import type * as Limits from "../Limits.ts"
import type { Size } from "./requestSize.ts"

/**
 * The description of a request. Token counts are in tokens, sizes in bytes of UTF-8.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Description extends Size {
  /** Undefined if neither the path nor the body names one. */
  readonly model: string | undefined
  /** The most output that the request allows for all its answers together; undefined if it sets no limit. */
  readonly maxTokens: number | undefined
  /** How many answers are requested, each as long as the model can write if `maxTokens` is undefined. @default 1 */
  readonly choices?: number | undefined
  /** How many requests the provider counts. @default 1 */
  readonly requests?: number | undefined
  /** Whether the model is asked to think before it answers. */
  readonly thinking: boolean
  /** Whether a stream is requested. The response's content type decides whether the answer is one. */
  readonly stream: boolean
  /** The answer or stored conversation that this request continues: the {@link Answer.continuation} of that answer. */
  readonly continues: string | undefined
  /**
   * Whether the provider adds stored content to the prompt: the continued conversation, a cached prefix, a file. The prompt then
   * has more tokens than its bytes suggest.
   */
  readonly stored: boolean
  /**
   * Whether the request asks the provider to cache its prompt, if the provider wants to be asked. If it does not ask, nothing is read
   * from a cache.
   *
   * @default unknown: the prompt may be cached
   */
  readonly caches?: boolean | undefined
  /**
   * The prefixes of the prompt by their content, which tell how much of it the provider has seen before: the shortest first, by
   * fingerprints that hold no text. A prefix ends after the tools, after each block of the system prompt and after each block of a
   * message. Of a long prompt the last 256 are known, and those that end in its tools and system prompt.
   *
   * @default unknown: the call is estimated by its size alone
   * @since 0.5.0
   */
  readonly prefixes?:
    | {
        /** Numbers of 53 bits, which differ from process to process. */
        readonly fingerprints: ReadonlyArray<number>
        /** The size of each in bytes, as the size of the request counts them. */
        readonly bytes: ReadonlyArray<number>
        /** How many of them end within the tools and the system prompt, which agents share. */
        readonly shared: number
        /** Where the request asks the provider to write its cache, by index, and for how many milliseconds. */
        readonly marks: ReadonlyArray<{ readonly index: number; readonly life: number }>
        /** For how many milliseconds the provider keeps prefixes without being asked; undefined if it wants to be asked. */
        readonly automatic: number | undefined
      }
    | undefined
  /** Whether a fast mode is requested, which is more expensive. @default false */
  readonly fast?: boolean | undefined
  /** The name of a tier with limits of its own, which is a pool of its own, such as "fast". @default none */
  readonly tier?: string | undefined
  /** Whether the flex tier is requested, which is cheaper and may be refused. @default false */
  readonly flex?: boolean | undefined
  /** The factor by which other options of the request multiply its price. @default 1 */
  readonly priceFactor?: number | undefined
  /** The operation for the span, as OpenTelemetry's GenAI conventions spell it. @default "embeddings" or "chat", by the route */
  readonly operation?: string | undefined
  /** Whether the provider goes on with the answer after its caller has left. @default false */
  readonly background?: boolean | undefined
  /** Whether the answer is a file, which is passed on as it arrives, without being read. @default false */
  readonly binary?: boolean | undefined
  /** Whether the stream will report its usage only if {@link Protocol.usageRequest} asks for it. */
  readonly needsUsageRequest: boolean
}

/**
 * The known facts of an answer, or of the part of a stream that was read.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  readonly id: string | undefined
  /** The model that answered, which may be more exact than the requested one. */
  readonly model: string | undefined
  /** Why the model stopped, in the provider's words. */
  readonly finishReason: string | undefined
  /** The name by which a later request continues this answer: the {@link Description.continues} of that request. */
  readonly continuation: string | undefined
  /** Tokens as the provider has counted them; undefined until it has. The three kinds of input do not overlap. */
  readonly counts: {
    /** Input that was neither read from a cache nor written to it. */
    readonly inputTokens?: number | undefined
    readonly cacheCreationTokens?: number | undefined
    /** The part of `cacheCreationTokens` that the cache keeps for longer than usual. */
    readonly cacheCreationLongTokens?: number | undefined
    readonly cacheReadTokens?: number | undefined
    /** Output, thinking included. */
    readonly outputTokens?: number | undefined
  }
  /** Characters of output since the provider last counted it. */
  readonly uncounted: number
  /** Whether content has begun, so that a retry would repeat it. */
  readonly started: boolean
  /** Whether the answer is complete. A stream that ends before that was cut off. */
  readonly complete: boolean
  /** An error within an answer that began with status 200: the body for {@link Protocol.failure}. */
  readonly error: unknown
}

/**
 * The reason why a request failed, by its name in `floodgate/LlmError`.
 *
 * @category models
 * @since 0.1.0
 */
type FailureReason =
  | "RateLimited"
  | "RampLimited"
  | "SpendLimited"
  | "Overloaded"
  | "TierFull"
  | "ServerFailed"
  | "TimedOut"
  | "InvalidRequest"
  | "AccessDenied"
  | "MalformedResponse"

/**
 * A provider's protocol.
 *
 * **Details**
 *
 * No function throws: bodies, headers and events come from outside, and may be malformed.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Protocol {
  /** A unique name, such as `openai-chat`. */
  readonly name: string
  /** The provider's name as OpenTelemetry's GenAI conventions spell it, such as `openai`. */
  readonly provider: string
  /** Recognises a request by method and path, never by host. The path is as `match` prepares it. */
  readonly match: (
    method: string,
    path: string
  ) =>
    | {
        /**
         * The operation of the request.
         *
         * - `"generate"`: the model answers. If the body decides whether the answer is streamed, see {@link Description}.
         * - `"stream"`: the model answers with a stream of server-sent events.
         * - `"embed"`: the model embeds its input, without output.
         * - `"countTokens"`: tokens are counted, which has limits of its own.
         * - `"passThrough"`: any other request that the provider serves, to be passed on unchanged.
         */
        readonly operation: "generate" | "stream" | "embed" | "countTokens" | "passThrough"
        /** The model, if the path names it. It takes precedence over the model in the body. */
        readonly model?: string | undefined
        /** The path that the provider serves: `/v1/messages` for `/messages` and for `/v1/v1/messages`. */
        readonly path: string
      }
    | undefined
  /**
   * Describes a request; undefined if its parsed body does not fit this protocol. Headers may change the prompt, such as Anthropic's
   * betas; without them, the prefixes of two requests that differ only in such a header are the same.
   */
  readonly describe: (
    body: unknown,
    route: NonNullable<ReturnType<Protocol["match"]>>,
    header?: (name: string) => string | null | undefined
  ) => Description | undefined
  /** The agent that makes a request, by the most specific name in its headers and its body; undefined if they name none. */
  readonly agentOf: (body: unknown, header: (name: string) => string | null | undefined) => string | undefined
  /**
   * Reads the parsed body of a whole answer. For an undefined body it returns the answer with which a stream starts, of which
   * nothing is known yet.
   */
  readonly answer: (body: unknown) => Answer
  /**
   * Takes in one event of a stream, by its `event` and `data` fields; an unknown or malformed one changes nothing.
   */
  readonly observe: (answer: Answer, event: { readonly name: string | undefined; readonly data: string }) => Answer
  /** The limits in a response, from its headers or the body of an error. */
  readonly limits: (response: {
    readonly status: number
    readonly header: (name: string) => string | null | undefined
    /** The body of an error, as text or as parsed JSON. */
    readonly body?: unknown
  }) => Limits.Signal | undefined
  /** Explains an error status; with status 200, {@link Answer.error}. */
  readonly failure: (
    response: Parameters<Protocol["limits"]>[0],
    context: {
      /** Milliseconds since the epoch. */
      readonly now: number
      /** A secret to remove from the provider's message. */
      readonly secret?: string | undefined
      /** Whether an unknown code within a stream or an answer blames the request, and not the provider. @default false */
      readonly isFinal?: boolean | undefined
    }
  ) => {
    readonly reason: FailureReason
    /** The status of the response; 200 for an error within a stream. */
    readonly status: number
    /** The provider's name for the request. */
    readonly requestId: string | undefined
    /** The provider's error code, or its error type if there is no code. */
    readonly code: string | undefined
    /** The provider's message in one line, without secrets. It is for people, and must not be matched on. */
    readonly detail: string | undefined
    /** How long the provider asks to wait, in milliseconds, at most an hour. */
    readonly retryAfterMillis: number | undefined
    /** False if the header `x-should-retry` says that a retry does not help. */
    readonly shouldRetry: false | undefined
    /** When a spend limit or a quota is reset, in milliseconds since the epoch, if that is known. */
    readonly resumesAt: number | undefined
    /** The limits in the response. */
    readonly signal: Limits.Signal | undefined
  }
  /**
   * A refusal of our own as a whole response in the provider's form. Names of headers are in lower case: `content-type`, and
   * `retry-after` if the client should retry, otherwise `x-should-retry: false`.
   */
  readonly refuse: (refusal: {
    /**
     * - `"rateLimited"` (429): the wait would be too long, or the queue is full; the client should retry
     * - `"unavailable"` (503): nothing is accepted now, for example during a shutdown; the client should retry
     * - `"badGateway"` (502): the provider cannot be reached; the client should retry
     * - `"noProvider"` (502): what answered is no provider, so a retry would meet the same again
     * - `"executed"` (400): the provider has probably executed the request, and its answer cannot be read. This is no 502, because some
     *   clients retry all of those, whatever `x-should-retry` says (AI SDK, LangChain), and the request would be executed again
     * - `"tooLarge"` (413): the request can never fit the limits
     * - `"spendLimited"` (402): a cap on money or tokens is used up. In Responses 400, because Codex retries a 402
     * - `"jobLimited"` (400): a cap of its job refuses the call. Codex retries a 402 five times, and Claude Code a 400 whose type is
     *   `invalid_request_error`
     * - `"notFound"` (404): there is nothing at this path
     * - `"invalid"` (400): the request cannot be read, so its cost is unknown
     * - `"timedOut"` (408): the request arrived too slowly
     * - `"unauthorized"` (401): the caller has not authenticated
     * - `"forbidden"` (403): the caller may not send this
     * - `"notImplemented"` (501): no part of HTTP that is supported, such as a transfer coding
     * - `"upgradeRequired"` (426): the connection stays HTTP/1.1, and does not become a WebSocket
     */
    readonly kind:
      | "rateLimited"
      | "unavailable"
      | "badGateway"
      | "noProvider"
      | "executed"
      | "tooLarge"
      | "spendLimited"
      | "jobLimited"
      | "notFound"
      | "invalid"
      | "timedOut"
      | "unauthorized"
      | "forbidden"
      | "notImplemented"
      | "upgradeRequired"
    /** When the client should retry, in seconds; rounded up, and limited to 5 to 59. @default 5 */
    readonly retryAfterSeconds?: number | undefined
    /** A message for people: what was refused, why, and what helps. */
    readonly message: string
  }) => {
    readonly status: number
    readonly headers: Readonly<Record<string, string>>
    readonly body: string
  }
  /** A refusal of our own as the last event of a stream that has begun. */
  readonly refuseInStream: (refusal: Parameters<Protocol["refuse"]>[0]) => string
  /** The text that keeps a response alive while there is nothing to send; clients skip it. */
  readonly keepAlive: { readonly stream: string; readonly whole: string }
  /**
   * The format of the stream for this URL.
   *
   * - `"events"`: server-sent events.
   * - `"list"`: one JSON list, each object of which is an event.
   * - `"lines"`: JSON objects, each of which is an event, on lines of their own.
   * - `"frames"`: Amazon's binary event stream, to which no text can be added.
   *
   * @default `"events"`
   */
  readonly streamFormat?: ((url: string) => "events" | "list" | "lines" | "frames") | undefined
  /** How usage is requested, if streams leave it out by default. */
  readonly usageRequest?:
    | {
        /** Adds the request for usage to a body; everything else keeps its bytes. */
        readonly inject: (body: string) => string
        /**
         * The properties that request usage when they are inserted at the beginning of this parsed body; undefined if the body
         * must be changed elsewhere. Without them `inject` is called, for which the body is decoded again. A gateway does that
         * for bodies of at most 4 MiB; the usage of larger ones stays unknown, and their calls keep their estimates.
         */
        readonly insertion?: ((body: object) => string | undefined) | undefined
        /** Whether an event exists only because usage was requested, so that it must be hidden from a caller that did not. */
        readonly isExtra: (event: { readonly name: string | undefined; readonly data: string }) => boolean
      }
    | undefined
}

// -----------------------------------------------------------------------------
// Their parts by name
// -----------------------------------------------------------------------------

/** Looks a header up by its name in lower case. */
export type HeaderReader = Parameters<Protocol["agentOf"]>[1]

/** A request that a protocol recognises by its method and path. */
export type Route = NonNullable<ReturnType<Protocol["match"]>>

/** The prefixes of one prompt. */
export type Prefixes = NonNullable<Description["prefixes"]>

/** Tokens as the provider has counted them. */
export type Counts = Answer["counts"]

/** The parts of a response that are read. */
export type ResponseParts = Parameters<Protocol["limits"]>[0]

/** The context of a failure that is not in the response. */
export type FailureContext = Parameters<Protocol["failure"]>[1]

/** The meaning of a failed response. */
export type Failure = ReturnType<Protocol["failure"]>

/** A refusal of our own. */
export type Refusal = Parameters<Protocol["refuse"]>[0]

/** The format of a stream. */
export type StreamFormat = ReturnType<NonNullable<Protocol["streamFormat"]>>
