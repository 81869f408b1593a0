/**
 * A provider's protocol, as far as Floodgate needs it: which requests it has, what they ask for, what their answers used, what a
 * failure means, and how a refusal is written so that clients understand it.
 *
 * Everything here is a plain value or a pure function. For a service with a known protocol under other paths, copy the protocol
 * with another `match`.
 */
import type * as Accounting from "../Accounting.ts"
import { signalOf } from "./headers.ts"
import { isRecord, parseJson } from "./json.ts"
import type { Answer, Counts, Description, Protocol, Route } from "./models.ts"
import { bytesPerToken } from "../domain/amounts.ts"

export type { Answer, Counts, Description, Protocol, Route, StreamFormat } from "./models.ts"

// -----------------------------------------------------------------------------
// Requests
// -----------------------------------------------------------------------------

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

// -----------------------------------------------------------------------------
// Answers
// -----------------------------------------------------------------------------

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

/** Reads a stream whose parts are JSON objects. */
export const observeJson =
  (step: (answer: Answer, part: unknown) => Answer): Protocol["observe"] =>
  (answer, { data }) => {
    const part = data === "" ? undefined : parseJson(data)
    return isRecord(part) ? step(answer, part) : answer
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

// A protocol names what it shares with others part by part: bundlers keep an object with a spread in it even if nothing uses it.

/** The limits of a provider that states them in headers only. */
export const limitsInHeaders: Protocol["limits"] = ({ header }) => signalOf(header)

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
