/** Which headers are sent on, in both directions. */

/** Headers as Node gives those of a response. */
export type Headers = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/** Headers that concern one connection only (RFC 9110, section 7.6.1). */
const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
]
/** The client writes its own, and what it writes of the body it sends. */
const rewritten = new Set([...hopByHop, "host", "expect", "content-length"])
/** Another way to the provider would be a way around the limits. */
const withheld = new Set([...hopByHop, "alt-svc"])

/** What a `connection` header names belongs to the connection as well. */
const namedBy = (connection: string | null | undefined): ReadonlyArray<string> =>
  (connection ?? "").toLowerCase().split(/[\s,]+/)

/**
 * The headers of a request as they are sent on, a name and a value in turn. Ours, `x-floodgate-...`, are for nobody else. An
 * answer that is to be `read` is requested without compression.
 */
export const outgoing = (raw: ReadonlyArray<string>, connection: string | undefined, read: boolean): Array<string> => {
  const dropped = new Set(namedBy(connection))
  const sent: Array<string> = []
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index]!.toLowerCase()
    if (rewritten.has(name) || dropped.has(name) || name.startsWith("x-floodgate-")) continue
    if (read && name === "accept-encoding") continue
    sent.push(raw[index]!, raw[index + 1]!)
  }
  if (read) sent.push("accept-encoding", "identity")
  return sent
}

/** The headers of a response as the caller gets them, without those that `drop` names. */
export const incoming = (
  headers: Headers,
  drop: ReadonlyArray<string> = []
): Record<string, string | Array<string>> => {
  const connection = headers["connection"]
  const named = typeof connection === "string" ? namedBy(connection) : []
  const kept: Record<string, string | Array<string>> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || withheld.has(name) || named.includes(name) || drop.includes(name)) continue
    kept[name] = typeof value === "string" ? value : [...value]
  }
  return kept
}
