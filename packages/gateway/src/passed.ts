/** The kinds of requests that are passed on without being paced, for their metric. Pure. */

/** The requests that providers limit or bill apart from calls, by a part of the path. The first that matches applies. */
const kinds: ReadonlyArray<readonly [kind: string, path: RegExp]> = [
  ["count tokens", /\/(?:count_tokens|input_tokens)$|:countTokens$/],
  ["batches", /\/batches(?:\/|$)|:(?:async)?[bB]atch[A-Za-z]+$/],
  ["images", /\/images(?:\/|$)|:generateImages$/],
  ["videos", /\/videos(?:\/|$)|:predictLongRunning$/],
  ["audio", /\/audio(?:\/|$)/],
  ["stored completions", /\/chat\/completions(?:\/|$)/],
  ["completions", /\/complete$/],
  ["files", /\/(?:files|uploads?|vector_stores)(?:\/|$)/],
  ["models", /\/models(?:\/[^:]*)?$/]
]

/** The kind of a request that is passed on. */
export const passedKindOf = (path: string): string => {
  const [route = ""] = path.split("?", 1)
  return kinds.find(([, pattern]) => pattern.test(route))?.[0] ?? "other"
}
