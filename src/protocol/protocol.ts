/**
 * A provider's protocol, as far as Floodgate needs it: which requests it has, what they ask for, what their answers used, what a
 * failure means, and how a refusal is written so that clients understand it.
 *
 * Everything here is a plain value or a pure function. For a service with a known protocol under other paths, copy the protocol
 * with another `match`.
 */
import type * as Accounting from "../Accounting.ts"
import type * as Limits from "../Limits.ts"
import type { Failure, FailureContext } from "./errors.ts"
import { type HeaderReader, signalOf } from "./headers.ts"
import { nameOf } from "./json.ts"
import type { Prefixes } from "./prefixes.ts"
import type { Refusal } from "./refusal.ts"
import { bytesPerToken, type Size } from "./requestSize.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

/**
 * A request that a protocol recognises by its method and path.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Route {
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
   * The prefixes of the prompt by their content, which tell how much of it the provider has seen before.
   *
   * @default unknown: the call is estimated by its size alone
   * @since 0.5.0
   */
  readonly prefixes?: Prefixes | undefined
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

/** Several versions in a row: the base URL had one, and the client added its own. */
const repeatedVersions = /(?:\/v\d[a-z\d]*)+(?=\/v\d[a-z\d]*\/)/g

/**
 * The path of an absolute or relative URL, without double slashes, without a slash at the end, and only with the last of several
 * versions. Undefined if the URL is malformed.
 */
export const pathOf = (url: string): string | undefined => {
  const absolute = url.startsWith("/") ? `http://localhost${url}` : url
  if (!URL.canParse(absolute)) return undefined
  const { pathname } = new URL(absolute)
  return withOneVersion(pathname.replaceAll(/\/{2,}/g, "/").replace(/(?<=.)\/$/, ""))
}

/** A path with only the last of several versions. */
export const withOneVersion = (path: string): string => path.replaceAll(repeatedVersions, "")

/** Decodes a name in a path. A malformed encoding is returned unchanged. */
export const decodeSegment = (segment: string): string => {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

/** The path as lenient servers read it: decoded, without parameters, and also in lower case. */
export const readingsOf = (path: string): ReadonlyArray<string> => {
  if (!/[%;A-Z]/.test(path)) return []
  const decoded = path.replaceAll(/(?:%[\da-f]{2})+/gi, decodeSegment).replaceAll(/;[^/]*/g, "")
  const read = pathOf(decoded.replaceAll(/[?#]/g, encodeURIComponent)) ?? path
  return [read, read.toLowerCase()]
}

/** A path with its version, which is missing if the client's base URL has none. */
export const withVersion = (path: string, version: string): string =>
  /\/v\d[a-z\d]*\//.test(`${path}/`) ? path : `/${version}${path}`

/**
 * Claude Code's name of a sub-agent, beside that of its session: sent by 2.1.332, and by no lead agent. Documented in
 * https://code.claude.com/docs/en/llm-gateway-protocol, "Request headers".
 */
const subAgentHeader = "x-claude-code-agent-id"

/**
 * The agent of a request, by the most specific name that it has: in a header, then in the body. The headers are our own, which
 * `ANTHROPIC_CUSTOM_HEADERS="x-floodgate-agent: a7"` makes Claude Code send, and those that Claude Code sends by itself. Its sub-agents
 * are named after their session: `SESSION/ID`.
 */
export const agentOf = (header: HeaderReader, ...fromBody: ReadonlyArray<unknown>): string | undefined => {
  const own = nameOf(header("x-floodgate-agent"))
  if (own !== undefined) return own
  for (const value of [header("x-claude-code-session-id"), ...fromBody]) {
    const name = nameOf(value)
    if (name === undefined) continue
    const subAgent = nameOf(header(subAgentHeader))
    return subAgent === undefined ? name : `${name}/${subAgent}`
  }
  return undefined
}

/**
 * The session of an agent, which is the agent itself unless it is a sub-agent. The protocol is asked again without the name of the
 * sub-agent, because the name of a session may contain a slash too.
 */
export const sessionOf = (
  { agentOf }: Pick<Protocol, "agentOf">,
  body: unknown,
  header: HeaderReader,
  agent: string | undefined
): string | undefined =>
  nameOf(header(subAgentHeader)) === undefined
    ? agent
    : agentOf(body, (name) => (name === subAgentHeader ? undefined : header(name)))

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

/**
 * Tokens as the provider has counted them; undefined until it has. The three kinds of input do not overlap.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Counts {
  /** Input that was neither read from a cache nor written to it. */
  readonly inputTokens?: number | undefined
  readonly cacheCreationTokens?: number | undefined
  /** The part of `cacheCreationTokens` that the cache keeps for longer than usual. */
  readonly cacheCreationLongTokens?: number | undefined
  readonly cacheReadTokens?: number | undefined
  /** Output, thinking included. */
  readonly outputTokens?: number | undefined
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
  readonly counts: Counts
  /** Characters of output since the provider last counted it. */
  readonly uncounted: number
  /** Whether content has begun, so that a retry would repeat it. */
  readonly started: boolean
  /** Whether the answer is complete. A stream that ends before that was cut off. */
  readonly complete: boolean
  /** An error within an answer that began with status 200: the body for {@link Protocol.failure}. */
  readonly error: unknown
}

/** An answer of which nothing is known yet. */
export const emptyAnswer: Answer = {
  id: undefined,
  model: undefined,
  finishReason: undefined,
  continuation: undefined,
  counts: {},
  uncounted: 0,
  started: false,
  complete: false,
  error: undefined
}

/** The most output of all answers to a request together, given the most that each may have. */
export const outputOf = (each: number | undefined, choices: unknown): Pick<Description, "maxTokens" | "choices"> => {
  if (!(typeof choices === "number" && choices > 1 && Number.isSafeInteger(choices))) return { maxTokens: each }
  return { maxTokens: each === undefined ? undefined : each * choices, choices }
}

/** Updates the given counts, which are cumulative. Output that is counted is no longer estimated. */
export const withCounts = (answer: Answer, counts: Counts): Answer => {
  const { counts: before, uncounted } = answer
  const cacheCreationLongTokens = counts.cacheCreationLongTokens ?? before.cacheCreationLongTokens
  return {
    ...answer,
    counts: {
      // Most providers have only one kind of cache.
      ...(cacheCreationLongTokens !== undefined && { cacheCreationLongTokens }),
      inputTokens: counts.inputTokens ?? before.inputTokens,
      cacheCreationTokens: counts.cacheCreationTokens ?? before.cacheCreationTokens,
      cacheReadTokens: counts.cacheReadTokens ?? before.cacheReadTokens,
      outputTokens: counts.outputTokens ?? before.outputTokens
    },
    // Some gateways count nothing, or report 0.
    uncounted: counts.outputTokens !== undefined && counts.outputTokens > 0 ? 0 : uncounted
  }
}

/**
 * The usage of an answer so far; undefined if the provider reported nothing and nothing can be estimated.
 *
 * **Details**
 *
 * Output that the provider has not counted yet is estimated from its length, so that a broken stream counts what arrived. Input
 * is 0 until it is known. The usage of a complete answer whose output is not counted is unknown, so its estimate is kept.
 */
export const usageOf = ({ complete, counts, started, uncounted }: Answer): Accounting.Actual | undefined => {
  const isReported = (counts.inputTokens ?? counts.outputTokens) !== undefined
  const isUnknown = complete
    ? !isReported || (counts.outputTokens === undefined && uncounted === 0)
    : !isReported && !started
  if (isUnknown) return undefined
  const { cacheCreationLongTokens } = counts
  return {
    inputTokens: counts.inputTokens ?? 0,
    cacheCreationTokens: counts.cacheCreationTokens ?? 0,
    ...(cacheCreationLongTokens !== undefined && { cacheCreationLongTokens }),
    cacheReadTokens: counts.cacheReadTokens ?? 0,
    outputTokens: (counts.outputTokens ?? 0) + Math.ceil(uncounted / bytesPerToken)
  }
}

/**
 * The received part of a stream that failed. Usage follows Anthropic's rules: cache writes count as input, cache reads do not.
 * Input that was never reported is left out, so that its estimate is kept.
 */
export const receivedOf = (answer: Answer, text: string) => {
  const { cacheCreationTokens, inputTokens } = answer.counts
  const outputTokens = usageOf(answer)?.outputTokens ?? 0
  const usage =
    inputTokens === undefined
      ? { requests: 1, outputTokens }
      : { requests: 1, inputTokens: inputTokens + (cacheCreationTokens ?? 0), outputTokens }
  return { usage, text, started: answer.started }
}

// -----------------------------------------------------------------------------
// Protocols
// -----------------------------------------------------------------------------

/**
 * The parts of a response that are read.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface ResponseParts {
  readonly status: number
  readonly header: HeaderReader
  /** The body of an error, as text or as parsed JSON. */
  readonly body?: unknown
}

// A protocol names what it shares with others part by part: bundlers keep an object with a spread in it even if nothing uses it.

/** The agent of a request whose body names none. */
export const agentInHeaders: Protocol["agentOf"] = (_, header) => agentOf(header)

/** The limits of a provider that states them in headers only. */
export const limitsInHeaders: Protocol["limits"] = ({ header }) => signalOf(header)

/**
 * The format of a stream.
 *
 * - `"events"`: server-sent events.
 * - `"list"`: one JSON list, each object of which is an event.
 * - `"lines"`: JSON objects, each of which is an event, on lines of their own.
 * - `"frames"`: Amazon's binary event stream, to which no text can be added.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export type StreamFormat = "events" | "list" | "lines" | "frames"

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
  /** Recognises a request by method and path, never by host. The path is as {@link match} prepares it. */
  readonly match: (method: string, path: string) => Route | undefined
  /**
   * Describes a request; undefined if its parsed body does not fit this protocol. Headers may change the prompt, such as Anthropic's
   * betas; without them, the prefixes of two requests that differ only in such a header are the same.
   */
  readonly describe: (body: unknown, route: Route, header?: HeaderReader) => Description | undefined
  /** The agent that makes a request, by the most specific name in its headers and its body; undefined if they name none. */
  readonly agentOf: (body: unknown, header: HeaderReader) => string | undefined
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
  readonly limits: (response: ResponseParts) => Limits.Signal | undefined
  /** Explains an error status; with status 200, {@link Answer.error}. */
  readonly failure: (response: ResponseParts, context: FailureContext) => Failure
  /**
   * A refusal of our own as a whole response in the provider's form. Names of headers are in lower case: `content-type`, and
   * `retry-after` if the client should retry, otherwise `x-should-retry: false`.
   */
  readonly refuse: (refusal: Refusal) => {
    readonly status: number
    readonly headers: Readonly<Record<string, string>>
    readonly body: string
  }
  /** A refusal of our own as the last event of a stream that has begun. */
  readonly refuseInStream: (refusal: Refusal) => string
  /** The text that keeps a response alive while there is nothing to send; clients skip it. */
  readonly keepAlive: { readonly stream: string; readonly whole: string }
  /** The format of the stream for this URL. @default `"events"` */
  readonly streamFormat?: ((url: string) => StreamFormat) | undefined
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

/**
 * A request that a protocol recognised.
 *
 * @category models
 * @since 0.1.0
 */
export interface Match {
  readonly protocol: Protocol
  readonly route: Route
}

/** Whether a model answers the request. */
const isCall = ({ route: { operation } }: Match): boolean =>
  operation === "generate" || operation === "stream" || operation === "embed"

/**
 * All protocols that recognise a request by its method and its path. A path that is not a call as it is written is also matched as
 * a lenient server would read it.
 */
export const matches = (protocols: ReadonlyArray<Protocol>, method: string, path: string): ReadonlyArray<Match> => {
  const of = (path: string): ReadonlyArray<Match> =>
    protocols.flatMap((protocol) => {
      const route = protocol.match(method, path)
      return route === undefined ? [] : [{ protocol, route }]
    })
  const exact = of(path)
  if (exact.some(isCall)) return exact
  const calls = readingsOf(path).map((reading) => of(reading).filter(isCall))
  return calls.find(({ length }) => length > 0) ?? exact
}

/**
 * Finds the call that a request is, by its method and the path of its URL, never by its host. The first protocol of which it is a
 * call applies; undefined if it is none.
 *
 * **Details**
 *
 * The version in the path may be missing or doubled, because clients disagree about whether a base URL contains it. The URL may
 * be relative.
 */
export const callIn = (protocols: ReadonlyArray<Protocol>, method: string, url: string): Match | undefined => {
  const path = pathOf(url)
  return path === undefined ? undefined : matches(protocols, method.toUpperCase(), path).find(isCall)
}

/** The first protocol that recognises a request by its method and the path of its URL; see {@link callIn}. */
export const match = (protocols: ReadonlyArray<Protocol>, method: string, url: string): Match | undefined => {
  const path = pathOf(url)
  return path === undefined ? undefined : matches(protocols, method.toUpperCase(), path)[0]
}
