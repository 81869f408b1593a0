/** How long a request's text is, in bytes of UTF-8: what the estimator learns its tokens from. Pure. */

/**
 * What is assumed where nobody has counted: English has about 2.7 bytes, or characters, a token since Claude 4.7. The
 * sources are in src/Estimator.ts.
 */
export const bytesPerToken = 2.7
/**
 * An image costs what its size in pixels says, whatever its file: at most 1,568 tokens, as much as this much text. On models
 * since Claude 4.7 a large one costs up to 4,784; what calls of its kind used tells.
 */
export const imageBytes = 4_200
/** A PDF's base64 holds layout, fonts and pictures; about a tenth as much text comes out of it. */
export const documentShare = 0.1

/** The UTF-8 length of a string, without encoding it. */
export const utf8Length = (text: string): number => {
  let bytes = text.length
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 0x80) continue
    // A surrogate pair is two units and four bytes.
    bytes += code < 0x800 || (code >= 0xd800 && code <= 0xdfff) ? 1 : 2
  }
  return bytes
}

interface Source {
  readonly type: string
  readonly data?: unknown
}

const isSource = (value: object): value is Source => "type" in value && typeof value.type === "string"

const sizeOf = (value: unknown, files: number): number => {
  if (typeof value === "string") return utf8Length(value)
  if (typeof value !== "object" || value === null) return 0
  if (isSource(value)) {
    if (value.type === "image") return imageBytes * files
    if (value.type === "base64" && typeof value.data === "string") return value.data.length * documentShare * files
  }
  let sum = 0
  for (const [key, part] of Object.entries(value)) if (key !== "cache_control") sum += sizeOf(part, files)
  return sum
}

/** Tools and the format of an answer are shown to the model as their schemas, names of properties included. */
const schemasOf = (json: unknown): number => utf8Length(JSON.stringify(json) ?? "")

/**
 * The length of what a Messages API request puts before the model: system prompt, messages, tools and the answer's format.
 * With 0 `files`, its text alone: what is guessed of pictures and documents is left out.
 */
export const requestBytes = (
  params: {
    readonly system?: unknown
    readonly messages: unknown
    readonly tools?: unknown
    readonly output_config?: { readonly format?: unknown } | null
  },
  files = 1
): number =>
  Math.ceil(
    sizeOf(params.system, files) +
      sizeOf(params.messages, files) +
      schemasOf(params.tools) +
      schemasOf(params.output_config?.format)
  )
