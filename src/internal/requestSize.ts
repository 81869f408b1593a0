/** How long a request is, in bytes of UTF-8: what the estimator learns its tokens from. Pure. */

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

/** How long a request is. */
export interface Size {
  readonly bytes: number
  /** Without what is guessed of pictures and documents. */
  readonly textBytes: number
}

/** A size that is being added up. */
export interface Sum {
  text: number
  files: number
}

export const sizeOf = ({ files, text }: Sum): Size => ({ bytes: Math.ceil(text + files), textBytes: Math.ceil(text) })

interface Source {
  readonly type: string
  readonly data?: unknown
}

const isSource = (value: object): value is Source => "type" in value && typeof value.type === "string"

const add = (sum: Sum, value: unknown): void => {
  if (typeof value === "string") sum.text += utf8Length(value)
  if (typeof value !== "object" || value === null) return
  if (isSource(value)) {
    if (value.type === "image") {
      sum.files += imageBytes
      return
    }
    if (value.type === "base64" && typeof value.data === "string") {
      sum.files += value.data.length * documentShare
      return
    }
  }
  for (const [key, part] of Object.entries(value)) if (key !== "cache_control") add(sum, part)
}

/** Tools and the format of an answer are shown to the model as their schemas, names of properties included. */
const schemaBytes = (json: unknown): number => utf8Length(JSON.stringify(json) ?? "")

/** What a Messages API request puts before the model: system prompt, messages, tools and the answer's format. */
export const requestSize = (params: {
  readonly system?: unknown
  readonly messages: unknown
  readonly tools?: unknown
  readonly output_config?: { readonly format?: unknown } | null
}): Size => {
  const sum = { text: schemaBytes(params.tools) + schemaBytes(params.output_config?.format), files: 0 }
  add(sum, params.system)
  add(sum, params.messages)
  return sizeOf(sum)
}
