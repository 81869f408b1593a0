/** The addresses of servers that users state. */

/**
 * Parses the base URL of a server, which paths are added to: an HTTP URL without a fragment and without a user or a password, because
 * no request can be sent to those, and errors would quote them. A query is allowed if a caller has a use for it. Undefined if `text` is
 * anything else.
 */
export const baseUrl = (text: string, query: "query" | "no query" = "no query"): URL | undefined => {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol)) return undefined
  // An empty query or fragment shows only in the whole text: a path that is added behind it would become part of it.
  const isBase = !(query === "query" ? /#/ : /[?#]/).test(url.href)
  return isBase && `${url.username}${url.password}` === "" ? url : undefined
}
