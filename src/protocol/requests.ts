/** What the requests of all protocols have in common: the spelling of paths, and for whom a call is made. */
import type { HeaderReader } from "./headers.ts"
import { nameOf } from "./json.ts"

// -----------------------------------------------------------------------------
// Paths
// -----------------------------------------------------------------------------

/** Two or more versions in a row: the base URL had one, and the client added its own. */
const repeatedVersions = /(?:\/v\d[a-z\d]*)+(?=\/v\d[a-z\d]*\/)/g

/**
 * The path of a URL, absolute or relative: without doubled slashes, a slash at the end, and versions before the last one.
 * Undefined when the URL is malformed.
 */
export const pathOf = (url: string): string | undefined => {
  const absolute = url.startsWith("/") ? `http://localhost${url}` : url
  if (!URL.canParse(absolute)) return undefined
  const { pathname } = new URL(absolute)
  return pathname
    .replaceAll(/\/{2,}/g, "/")
    .replace(/(?<=.)\/$/, "")
    .replaceAll(repeatedVersions, "")
}

/** A name as it stands in a path, decoded; as it is when its encoding is malformed. */
export const decodeSegment = (segment: string): string => {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

/** A path with its version: clients whose base URL lacks it leave it out. */
export const withVersion = (path: string, version: string): string =>
  /\/v\d[a-z\d]*\//.test(`${path}/`) ? path : `/${version}${path}`

// -----------------------------------------------------------------------------
// Agents
// -----------------------------------------------------------------------------

/**
 * The headers that name an agent: our own, which `ANTHROPIC_CUSTOM_HEADERS="x-floodgate-agent: a7"` makes Claude Code send,
 * and the one that Claude Code sends by itself.
 */
const agentHeaders = ["x-floodgate-agent", "x-claude-code-session-id"] as const

/** The agents of a request, the most specific first, each once: those of the headers, then those of the body. */
export const agentsOf = (header: HeaderReader, ...fromBody: ReadonlyArray<unknown>): ReadonlyArray<string> => [
  ...new Set([...agentHeaders.map(header), ...fromBody].flatMap((value) => nameOf(value) ?? []))
]
