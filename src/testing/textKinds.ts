/**
 * Text as programs send it to models: how many characters make a token, and text of each kind to send.
 *
 * **Details**
 *
 * Characters per token, measured in November 2026 with the tokenizer that Anthropic publishes (`@anthropic-ai/tokenizer` 0.0.4, which
 * is that of Claude 2) and with `o200k_base` of OpenAI (`gpt-tokenizer` 4.0.0), of the first 40,000 characters of each file:
 *
 * | kind | `published` | `o200k` | spread over files | spread within a file | bytes of a character |
 * | --- | ---: | ---: | ---: | ---: | ---: |
 * | `prose`: 92 pages of vuejs/docs, without their code | 3.78 | 4.20 | 0.19 | 0.16 | 1.00 |
 * | `code`: 240 sources of npm packages, in TypeScript and JavaScript | 3.38 | 3.75 | 0.13 | 0.07 | 1.00 |
 * | `json`: 120 files of npm packages | 3.28 | 3.50 | 0.17 | 0.05 | 1.00 |
 * | `cjk`: 144 pages of vuejs-translations/docs-zh-cn and docs-ja, without their code | 1.48 | 1.88 | 0.11 | 0.04 | 1.92 |
 *
 * A spread is the standard deviation of the logarithm, within a file over parts of 4,000 characters. `claude` is `published` with 30 %
 * more tokens, as Anthropic documents for its models since Claude 4.7
 * (https://platform.claude.com/docs/en/build-with-claude/token-counting).
 *
 * @since 0.4.0
 */
import type { CountParams, Params } from "../LlmProvider.ts"
import * as Replies from "./replies.ts"
import * as Seeded from "./seeded.ts"

// -----------------------------------------------------------------------------
// Measurements
// -----------------------------------------------------------------------------

/** The kind of content of a text. */
export type TextKind = "prose" | "code" | "json" | "cjk"

/** A way to count tokens. */
export type Tokenizer = Parameters<typeof tokenizer>[0]

/** The measurements of one kind. */
interface TextMeasurement {
  readonly published: number
  readonly o200k: number
  readonly files: number
  readonly parts: number
}

const measured: Readonly<Record<TextKind, TextMeasurement>> = {
  prose: { published: 3.78, o200k: 4.2, files: 0.19, parts: 0.16 },
  code: { published: 3.38, o200k: 3.75, files: 0.13, parts: 0.07 },
  json: { published: 3.28, o200k: 3.5, files: 0.17, parts: 0.05 },
  cjk: { published: 1.48, o200k: 1.88, files: 0.11, parts: 0.04 }
}

const claudeFactor = 1.3

/**
 * The characters per token of a part of a file. `file` and `part` are random numbers in [0, 1): parts of the same file resemble each
 * other, and 0.5 is the median.
 *
 */
export const charactersPerToken = (kind: TextKind, tokenizer: Tokenizer, file = 0.5, part = 0.5): number => {
  const of = measured[kind]
  const median = tokenizer === "claude" ? of.published / claudeFactor : of[tokenizer]
  return median * Seeded.factor(of.files, file) * Seeded.factor(of.parts, part)
}

// -----------------------------------------------------------------------------
// Counting
// -----------------------------------------------------------------------------

/** The kind of a text is read from this many of its characters, in equal parts from everywhere in it. */
const sampleSize = 2_048
const samples = 8

const sampleOf = (text: string): string => {
  if (text.length <= sampleSize) return text
  const size = sampleSize / samples
  return Array.from({ length: samples }, (_, n) => {
    const from = Math.floor(((text.length - size) * n) / (samples - 1))
    return text.slice(from, from + size)
  }).join("")
}

/** Chinese and Japanese characters, and their punctuation. */
const ideographs = /[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]/g
/** The marks that are frequent in JSON and in code, and rare in prose. */
const jsonMarks = /["[\]{}]/g
const codeMarks = /[[\]{};=<>]/g

const shareOf = (sample: string, marks: RegExp): number => (sample.match(marks)?.length ?? 0) / sample.length

/**
 * The kind of a text, judged by a sample of it.
 *
 */
export const kindOf = (text: string): TextKind => {
  const sample = sampleOf(text)
  if (shareOf(sample, ideographs) > 0.3) return "cjk"
  if (shareOf(sample, jsonMarks) > 0.1) return "json"
  return shareOf(sample, codeMarks) > 0.03 ? "code" : "prose"
}

/**
 * Counts the input tokens of requests by the kinds of their texts, for the option `inputTokens` of `ProviderSim`. Texts of a kind
 * differ as measured, and the same text always has the same number of tokens: `"claude"` counts as models since Claude 4.7,
 * `"published"` as the tokenizer of Claude 2, `"o200k"` as OpenAI.
 *
 * **Example** (A provider that counts by what a text is made of)
 *
 * ```ts doctest
 * import { ProviderSim } from "floodgate/testing"
 *
 * const tokens = ProviderSim.tokenizer("claude")
 * const count = (text: string) => tokens({ model: "claude-sonnet-5", messages: [{ role: "user", content: text }] })
 *
 * count("A queue is fair. ".repeat(100)) < count("给每个人一个位置。".repeat(200)) // => true
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.4.0
 */
export const tokenizer = (tokenizer: "claude" | "published" | "o200k"): ((params: CountParams | Params) => number) => {
  const count = (text: string): number => {
    const hash = Seeded.hashText(text)
    return text.length / charactersPerToken(kindOf(text), tokenizer, Seeded.unit(hash, 1), Seeded.unit(hash, 2))
  }
  return (params) => Replies.inputTokens(params, count)
}

// -----------------------------------------------------------------------------
// Writing
// -----------------------------------------------------------------------------

const english =
  "Each report names the team that wrote it, the period it covers and the figures that changed since the last one. When two reports disagree, the later one counts, unless a reviewer has marked it as preliminary. Costs are given in thousands, and rounded only in the summary. The board has asked whether the second site can open before the end of the quarter; the answer depends on the permits, which the city has promised for March."

const source =
  "export const merge = (left: Entry, right: Entry): Entry => {\n  if (left.version !== right.version) {\n    return left.version > right.version ? left : right\n  }\n  const fields = new Map(left.fields)\n  for (const [name, value] of right.fields) {\n    fields.set(name, combine(fields.get(name), value))\n  }\n  return { ...left, fields, changedAt: Math.max(left.changedAt, right.changedAt) }\n}\n\n"

const record =
  '{"id":"ord_48213","status":"shipped","items":[{"sku":"A-1044","count":2,"price":1299},{"sku":"B-2017","count":1,"price":450}],"address":{"city":"Lisbon","zip":"1100-148"},"notes":null},\n'

const chinese =
  "每份报告都注明撰写的团队、所涉及的时期以及自上一份报告以来发生变化的数字。如果两份报告不一致，以较晚的一份为准，除非审核人将其标记为初稿。費用は千単位で示し、要約でのみ四捨五入します。第二拠点を四半期末までに開設できるかどうかは、市の許可次第です。"

const paragraphs: Readonly<Record<TextKind, string>> = {
  prose: `${english}\n\n`,
  code: source,
  json: record,
  cjk: `${chinese}\n\n`
}

/** The text of which all texts of a kind are slices. A slice is not a copy, so many long prompts take little memory. */
const written = new Map<TextKind, string>()

/**
 * Text of a kind, of a number of characters. Texts of a kind begin alike, and share their memory.
 *
 * @stability stable
 * @category constructors
 * @since 0.4.0
 */
export const write = (kind: TextKind, characters: number): string => {
  let text = written.get(kind)
  if (text === undefined || text.length < characters) {
    const paragraph = paragraphs[kind]
    text = paragraph.repeat(Math.ceil(Math.max(characters, 100_000) / paragraph.length))
    written.set(kind, text)
  }
  return text.slice(0, characters)
}
