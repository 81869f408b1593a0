/**
 * A small server over llama.cpp's bindings, in a process of its own: Chat Completions in streams, with a number of slots, and a queue without
 * a bound before them, as llama.cpp's own server has. Arguments: the module of the bindings, the model file, the number of slots.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { pathToFileURL } from "node:url"

/** The part of `node-llama-cpp` that is used. It is installed when the benchmark runs. */
interface Bindings {
  readonly getLlama: (options: object) => Promise<{
    readonly loadModel: (options: object) => Promise<{
      readonly tokenize: (text: string) => Array<number>
      readonly detokenize: (tokens: ReadonlyArray<number>) => string
      readonly createContext: (options: object) => Promise<{ readonly getSequence: () => Sequence }>
    }>
  }>
}

interface Sequence {
  readonly clearHistory: () => Promise<void>
  readonly evaluate: (tokens: ReadonlyArray<number>, options: object) => AsyncGenerator<number>
}

const [module, modelPath, slotCount] = process.argv.slice(2)
const slots = Number(slotCount)
/** Enough for the longest prompt and answer of the benchmark. */
const contextSize = 512

const { getLlama } = (await import(pathToFileURL(module!).href)) as Bindings
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: "error" })
const model = await llama.loadModel({ modelPath })
// One thread, so that the client has the other core of a small machine.
const context = await model.createContext({ sequences: slots, contextSize, batchSize: 512, threads: 1 })

const idle = Array.from({ length: slots }, () => context.getSequence())
const waiting: Array<(sequence: Sequence) => void> = []

const take = (): Promise<Sequence> => {
  const sequence = idle.pop()
  return sequence === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(sequence)
}
const giveBack = (sequence: Sequence): void => {
  const next = waiting.shift()
  if (next === undefined) idle.push(sequence)
  else next(sequence)
}

interface Asked {
  readonly model: string
  readonly max_tokens: number
  readonly messages: ReadonlyArray<{ readonly content: string }>
}

const bodyOf = async (request: IncomingMessage): Promise<Asked> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString()) as Asked
}

const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const asked = await bodyOf(request)
  const prompt = model.tokenize(asked.messages.map(({ content }) => content).join("\n"))
  const sequence = await take()
  try {
    // The client may have left while it waited.
    if (response.closed) return
    await sequence.clearHistory()
    const write = (delta: unknown, more: object = {}, finish: string | null = null): void => {
      const choices = [{ index: 0, delta, finish_reason: finish }]
      const chunk = { id: "chatcmpl", object: "chat.completion.chunk", model: asked.model, choices, ...more }
      response.write(`data: ${JSON.stringify(chunk)}\n\n`)
    }
    response.writeHead(200, { "content-type": "text/event-stream" })
    let made = 0
    // The end of a text is as likely as any other token, so it does not end an answer.
    for await (const token of sequence.evaluate(prompt, { temperature: 1, yieldEogToken: true })) {
      if (response.closed) return
      write({ role: "assistant", content: model.detokenize([token]) })
      if (++made >= asked.max_tokens) break
    }
    const usage = { prompt_tokens: prompt.length, completion_tokens: made, total_tokens: prompt.length + made }
    write({}, { usage }, "length")
    response.end("data: [DONE]\n\n")
  } finally {
    giveBack(sequence)
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch((error: unknown) => {
    console.error(error)
    response.destroy()
  })
})
server.listen(0, "127.0.0.1", () => process.send!((server.address() as AddressInfo).port))
process.on("disconnect", () => process.exit())
