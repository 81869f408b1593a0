/**
 * The answers of the embedded provider in a run, which quote the documents: a request with documents gets their first sentences, and a
 * later request the sentences that earlier answers quoted. So the summary shows the documents.
 */
import type { Params } from "floodgate/LlmProvider"

const maxLines = 12
/** Quotes are taken from the beginning, so that large documents take no longer. */
const readCharacters = 100_000
const quotedPerCall = 6

/** Whether a paragraph is prose, and not a heading, a list or a table. */
const isProse = (paragraph: string): boolean => /^[\p{Lu}"`*[]/u.test(paragraph) && !paragraph.includes("|")

const firstSentence = (paragraph: string): string => {
  const line = paragraph.replaceAll(/\s+/g, " ")
  const end = line.search(/[.!?](\s|$)/)
  return end < 0 || end > 300 ? `${line.slice(0, 200)} …` : line.slice(0, end + 1)
}

/** Some sentences of the documents of a request. */
const quotesFrom = (text: string): ReadonlyArray<string> => {
  const beginning = text.slice(0, readCharacters).replaceAll(/```[\s\S]*?(```|$)/g, "")
  const paragraphs = beginning.split(/\n\s*\n/).filter((paragraph) => isProse(paragraph) && paragraph.length >= 40)
  const step = Math.max(1, Math.floor(paragraphs.length / quotedPerCall))
  return paragraphs
    .filter((_, index) => index % step === 0)
    .slice(0, quotedPerCall)
    .map((paragraph) => `- ${firstSentence(paragraph)}`)
}

const quotesIn = (text: string): ReadonlyArray<string> => [
  ...new Set(text.split("\n").filter((line) => line.startsWith("- ")))
]

/** The answer to a request of the pipeline. */
export const reply = (params: Params): string => {
  const text = params.messages.map(({ content }) => (typeof content === "string" ? content : "")).join("\n")
  if (text.includes("<document path=")) return quotesFrom(text).join("\n") || "- The documents have no prose to quote."
  const parts = text.split("<part agent=").map(quotesIn)
  const perPart = Math.ceil(maxLines / parts.length)
  const lines = [...new Set(parts.flatMap((part) => part.slice(0, perPart)))].slice(0, maxLines)
  return lines.join("\n") || "- The notes have no lines to quote."
}
