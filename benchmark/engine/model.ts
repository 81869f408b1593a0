/**
 * Writes a model of the Llama architecture with random weights as a GGUF file, which llama.cpp loads. It has a vocabulary of bytes and a few
 * words, and answers nonsense.
 *
 * Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (2026-11).
 */
import { writeFileSync } from "node:fs"
import * as Prng from "../weather/prng.ts"

/** The size of a model. */
const vocabulary = 512
const width = 512
const hidden = 1_376
const layers = 5
const heads = 8
const contextLength = 4_096

// -----------------------------------------------------------------------------
// Values
// -----------------------------------------------------------------------------

const types = { u32: 4, i32: 5, f32: 6, string: 8, array: 9 } as const
type Scalar = Exclude<keyof typeof types, "array">

const bytes = (length: number, write: (buffer: Buffer) => void): Buffer => {
  const buffer = Buffer.alloc(length)
  write(buffer)
  return buffer
}
const u32 = (value: number): Buffer => bytes(4, (buffer) => buffer.writeUInt32LE(value))
const u64 = (value: number): Buffer => bytes(8, (buffer) => buffer.writeBigUInt64LE(BigInt(value)))
const text = (value: string): Buffer => {
  const content = Buffer.from(value)
  return Buffer.concat([u64(content.length), content])
}

const scalar = (type: Scalar, value: string | number): Buffer => {
  if (typeof value === "string") return text(value)
  if (type === "u32") return u32(value)
  return bytes(4, (buffer) => (type === "i32" ? buffer.writeInt32LE(value) : buffer.writeFloatLE(value)))
}

const entry = (key: string, type: Scalar, value: string | number): Buffer =>
  Buffer.concat([text(key), u32(types[type]), scalar(type, value)])

const list = (key: string, type: Scalar, values: ReadonlyArray<string | number>): Buffer =>
  Buffer.concat([
    text(key),
    u32(types.array),
    u32(types[type]),
    u64(values.length),
    ...values.map((value) => scalar(type, value))
  ])

// -----------------------------------------------------------------------------
// The tokenizer and the weights
// -----------------------------------------------------------------------------

/** The kinds of tokens in the file. */
const kinds = { normal: 1, unknown: 2, control: 3, byte: 6 } as const

const tokenizer = (): ReadonlyArray<Buffer> => {
  const tokens: Array<readonly [token: string, kind: number]> = [
    ["<unk>", kinds.unknown],
    ["<s>", kinds.control],
    ["</s>", kinds.control]
  ]
  for (let byte = 0; byte < 256; byte++) {
    tokens.push([`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, kinds.byte])
  }
  for (let word = 0; tokens.length < vocabulary; word++) {
    // Letters, so that a prompt has about one token for each.
    tokens.push([word < 26 ? String.fromCharCode(97 + word) : `\u2581word${word}`, kinds.normal])
  }
  return [
    entry("tokenizer.ggml.model", "string", "llama"),
    list(
      "tokenizer.ggml.tokens",
      "string",
      tokens.map(([token]) => token)
    ),
    list(
      "tokenizer.ggml.scores",
      "f32",
      tokens.map((_, index) => -index)
    ),
    list(
      "tokenizer.ggml.token_type",
      "i32",
      tokens.map(([, kind]) => kind)
    ),
    entry("tokenizer.ggml.unknown_token_id", "u32", 0),
    entry("tokenizer.ggml.bos_token_id", "u32", 1),
    entry("tokenizer.ggml.eos_token_id", "u32", 2)
  ]
}

const parameters: ReadonlyArray<Buffer> = [
  entry("general.architecture", "string", "llama"),
  entry("general.name", "string", "random"),
  entry("llama.context_length", "u32", contextLength),
  entry("llama.embedding_length", "u32", width),
  entry("llama.block_count", "u32", layers),
  entry("llama.feed_forward_length", "u32", hidden),
  entry("llama.attention.head_count", "u32", heads),
  entry("llama.attention.head_count_kv", "u32", heads),
  entry("llama.attention.layer_norm_rms_epsilon", "f32", 1e-5),
  entry("llama.rope.dimension_count", "u32", width / heads),
  entry("llama.vocab_size", "u32", vocabulary)
]

interface Tensor {
  readonly name: string
  readonly shape: ReadonlyArray<number>
}

const tensors: ReadonlyArray<Tensor> = [
  { name: "token_embd.weight", shape: [width, vocabulary] },
  { name: "output_norm.weight", shape: [width] },
  { name: "output.weight", shape: [width, vocabulary] },
  ...Array.from({ length: layers }, (_, layer): ReadonlyArray<Tensor> => {
    const of = (name: string, ...shape: ReadonlyArray<number>) => ({ name: `blk.${layer}.${name}.weight`, shape })
    return [
      of("attn_norm", width),
      ...["attn_q", "attn_k", "attn_v", "attn_output"].map((name) => of(name, width, width)),
      of("ffn_norm", width),
      of("ffn_gate", width, hidden),
      of("ffn_up", width, hidden),
      of("ffn_down", hidden, width)
    ]
  }).flat()
]

// -----------------------------------------------------------------------------
// The file
// -----------------------------------------------------------------------------

const version = 3
const alignment = 32
const ofFloats = 0

const padded = (content: Buffer): Buffer =>
  Buffer.concat([content, Buffer.alloc((alignment - (content.length % alignment)) % alignment)])

/** Writes the file. It is the same each time. */
export const write = (path: string): void => {
  const { next } = Prng.make(1)
  const data = tensors.map(({ name, shape }) => {
    const isNorm = name.includes("norm")
    const count = shape.reduce((product, size) => product * size, 1)
    return padded(Buffer.from(Float32Array.from({ length: count }, () => (isNorm ? 1 : 0.1 * (next() - 0.5))).buffer))
  })
  let offset = 0
  const infos = tensors.map(({ name, shape }, index) => {
    const info = Buffer.concat([text(name), u32(shape.length), ...shape.map(u64), u32(ofFloats), u64(offset)])
    offset += data[index]!.length
    return info
  })
  const metadata = [...parameters, ...tokenizer()]
  const head = [Buffer.from("GGUF"), u32(version), u64(tensors.length), u64(metadata.length), ...metadata, ...infos]
  writeFileSync(path, Buffer.concat([padded(Buffer.concat(head)), ...data]))
}
