/** The simulated model: it counts the tokens of a request, and makes a short answer from its text. */
import type { ContentBlockParam, DocumentBlockParam, MessageParam } from "@anthropic-ai/sdk/resources/messages/messages"
import type { CountParams, Params } from "../LlmProvider.ts"
import * as Seeded from "./seeded.ts"

/** Images cost about this many tokens at full size. */
const imageTokens = 1_568

/** A PDF's base64 holds layout, fonts and pictures; about a tenth as much text comes out of it. */
const pdfShare = 0.1

type Content = string | ReadonlyArray<ContentBlockParam> | undefined

/** Each text of a content, without copying any. */
const texts = function* (content: Content): Generator<string> {
  if (content === undefined) return
  if (typeof content === "string") return yield content
  for (const block of content) {
    if (block.type === "text") yield block.text
    else if (block.type === "tool_result") yield* texts(block.content as Content)
    else if (block.type === "document" && block.source.type === "text") yield block.source.data
    else if (block.type === "document" && block.source.type === "content") {
      yield* texts(block.source.content as Content)
    }
  }
}

/** Counts the tokens of a text. The sum of all texts is rounded, so it may return a fraction. */
type CountText = (text: string) => number

const documentTokens = (source: DocumentBlockParam["source"], count: CountText): number => {
  switch (source.type) {
    case "text":
      return count(source.data)
    case "base64":
      return count(source.data.slice(0, source.data.length * pdfShare))
    case "content":
      return contentTokens(source.content as Content, count)
    default:
      return count(JSON.stringify(source))
  }
}

const contentTokens = (content: Content, count: CountText): number => {
  if (content === undefined) return 0
  if (typeof content === "string") return count(content)
  let sum = 0
  for (const block of content) {
    if (block.type === "text") sum += count(block.text)
    else if (block.type === "image") sum += imageTokens
    else if (block.type === "tool_result") sum += contentTokens(block.content as Content, count)
    else if (block.type === "document") sum += documentTokens(block.source, count)
    else sum += count(JSON.stringify(block))
  }
  return sum
}

/** The input tokens of a request, given those of a text. */
export const inputTokens = (params: CountParams | Params, count: CountText): number => {
  let sum = contentTokens(params.system, count)
  for (const message of params.messages) sum += contentTokens(message.content as Content, count)
  for (const tool of params.tools ?? []) sum += count(JSON.stringify(tool))
  return Math.max(1, Math.ceil(sum - 1e-9))
}

/** A hash of a request, so that the same request gets the same answer. */
export const keyOf = (params: Params): number => {
  const parts = [
    Seeded.hashText(params.metadata?.user_id ?? ""),
    Seeded.hashText(params.model),
    params.max_tokens,
    params.messages.length
  ]
  for (const message of params.messages) {
    for (const text of texts(message.content as Content)) parts.push(Seeded.hashText(text))
  }
  return Seeded.hash(...parts)
}

// -----------------------------------------------------------------------------
// The answer
// -----------------------------------------------------------------------------

/** Answers quote only from the first characters of a document, so that long ones cost nothing. */
const readCharacters = 40_000
const sentencesPerAnswer = 4

const oneLine = (text: string): string => text.replace(/\s+/g, " ").trim()

const firstSentence = (paragraph: string): string | undefined => {
  const line = oneLine(paragraph)
  const match = /^.{20,260}?[.!?](?=\s|$)/.exec(line)
  return match?.[0] ?? (line.length >= 40 ? `${line.slice(0, 160).replace(/\s+\S*$/, "")}…` : undefined)
}

/** Paragraphs of prose: no headings, tables, lists, code or markup. */
const prose = (document: string): Array<string> =>
  document
    .replace(/```[\s\S]*?(```|$)/g, "")
    .split(/\n\s*\n/)
    .filter((paragraph) => /^\s{0,3}[\p{L}"'*_[`]/u.test(paragraph) && !/^\s*([*+-]|\d+\.)\s|\|/.test(paragraph))
    .flatMap((paragraph) => firstSentence(paragraph) ?? [])

const headings = (document: string): Array<string> =>
  [...document.matchAll(/^#{1,4}\s+(.{2,80})$/gm)].map((match) => oneLine(match[1]!))

const userTexts = (messages: ReadonlyArray<MessageParam>): Array<string> =>
  messages.filter((message) => message.role === "user").flatMap((message) => [...texts(message.content as Content)])

/** Part `turn` of a list in parts of `size`; after the last part follows the first. */
const part = (items: ReadonlyArray<string>, turn: number, size: number): ReadonlyArray<string> => {
  const from = items.length <= size ? 0 : (turn * size) % items.length
  return items.slice(from, from + size)
}

/**
 * A short extract of the longest text of the user: headings and first sentences, different ones at every turn of the
 * conversation. A request without a document gets its own question back.
 */
export const extract = (params: Params): string => {
  const sent = userTexts(params.messages)
  const longest = sent.reduce((best, text) => (text.length > best.length ? text : best), "")
  const document = longest.slice(0, readCharacters)
  const turn = params.messages.filter((message) => message.role === "assistant").length
  const sentences = part(prose(document), turn, sentencesPerAnswer)
  if (longest.length < 400 || sentences.length === 0) {
    const asked = oneLine((sent.at(-1) ?? "").slice(0, 200))
    return `A simulated answer to: ${asked === "" ? "an empty question" : asked}`
  }
  const topics = part(headings(document), turn, sentencesPerAnswer)
  return [
    ...(topics.length === 0 ? [] : [`Topics: ${topics.join("; ")}.`, ""]),
    ...sentences.map((sentence) => `- ${sentence}`)
  ].join("\n")
}
