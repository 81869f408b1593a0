/**
 * What the embedded provider answers in a run: it cannot think, but it hands on what it read, so that the summary shows
 * sentences of the documents. Pure.
 */
import type { Params } from "../../LlmProvider.ts"
import * as Replies from "../../testing/replies.ts"

const mostLines = 12

const findings = (text: string): ReadonlyArray<string> => [
  ...new Set(text.split("\n").filter((line) => line.startsWith("- ")))
]

/** The findings of earlier answers, some of each part; a request with documents gets an extract of them. */
export const reply = (params: Params): string => {
  const text = params.messages.map(({ content }) => (typeof content === "string" ? content : "")).join("\n")
  if (text.includes("<document path=")) return Replies.extract(params)
  const parts = text.split("<part agent=").map(findings)
  const each = Math.ceil(mostLines / parts.length)
  const lines = [...new Set(parts.flatMap((part) => part.slice(0, each)))].slice(0, mostLines)
  return lines.length === 0 ? Replies.extract(params) : lines.join("\n")
}
