/**
 * The texts of played sessions. Each begins with a line that names it, and the name decides what the text is made of and how many
 * characters make a token, so that it can be counted without a table.
 */
import type { ContentBlockParam } from "@anthropic-ai/sdk/resources/messages/messages"
import type { CountParams, Params } from "../../LlmProvider.ts"
import * as Seeded from "../seeded.ts"
import * as Texts from "../textKinds.ts"

/** The kinds of text that coding agents read and write. Not measured. */
const kinds: ReadonlyArray<readonly [kind: Texts.TextKind, upTo: number]> = [
  ["code", 0.5],
  ["prose", 0.8],
  ["json", 1]
]

const lanes = { kind: 1, file: 2, part: 3 }

const measureOf = (name: string): { readonly kind: Texts.TextKind; readonly characters: number } => {
  const hash = Seeded.hashText(name)
  const drawn = Seeded.unit(hash, lanes.kind)
  const [kind] = kinds.find(([, upTo]) => drawn < upTo)!
  const file = Seeded.unit(Seeded.hashText(name.slice(0, name.indexOf("/"))), lanes.file)
  return { kind, characters: Texts.charactersPerToken(kind, "claude", file, Seeded.unit(hash, lanes.part)) }
}

/** A text of a number of tokens, at least as long as its name. The part of a name before its first slash is the session. */
export const write = (name: string, tokens: number): string => {
  const { characters, kind } = measureOf(name)
  const title = `${name}\n`
  return title + Texts.write(kind, Math.max(0, Math.round(tokens * characters) - title.length))
}

/** The name of a text. */
export const nameOf = (text: string): string => text.slice(0, Math.max(0, text.indexOf("\n")))

/** The tokens of a text that was written here. */
export const tokensOf = (text: string): number => Math.round(text.length / measureOf(nameOf(text)).characters)

/** Counted texts by the object that holds them, which is the same in each turn of a conversation. */
const counted = new WeakMap<object, { readonly text: string; readonly tokens: number }>()

const textTokens = (holder: object, text: string): number => {
  const before = counted.get(holder)
  if (before?.text === text) return before.tokens
  const tokens = tokensOf(text)
  counted.set(holder, { text, tokens })
  return tokens
}

const blockTokens = (block: ContentBlockParam): number => {
  if (block.type === "text") return textTokens(block, block.text)
  if (block.type === "tool_result" && typeof block.content === "string") return textTokens(block, block.content)
  return 0
}

/**
 * The input tokens of a request of a played session: those of its texts and of the descriptions of its tools.
 *
 * @stability unstable
 * @category playing
 * @since 0.5.0
 */
export const inputTokens = ({ messages, system, tools = [] }: CountParams | Params): number => {
  let sum = 0
  for (const tool of tools) {
    if ("description" in tool && tool.description !== undefined) sum += textTokens(tool, tool.description)
  }
  const contents = [system ?? [], ...messages.map((message) => message.content)]
  for (const content of contents) {
    for (const block of content) if (typeof block !== "string") sum += blockTokens(block)
  }
  return sum
}
