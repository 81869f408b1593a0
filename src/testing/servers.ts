/**
 * The servers that people run themselves, as settings of one model: how many sequences run at once, how many requests wait, and
 * how fast a step is.
 *
 * **Details**
 *
 * - vLLM runs `--max-num-seqs` sequences, 256 by default and 1,024 on GPUs of 70 GiB and more other than the A100 (`get_batch_defaults`
 *   in https://github.com/vllm-project/vllm/blob/main/vllm/engine/arg_utils.py), and queues any number, first come, first served
 * - llama.cpp has `--parallel` slots, 4 unless it is set, and defers further requests without a bound:
 *   https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
 * - Ollama works on `OLLAMA_NUM_PARALLEL` requests, 1 by default, queues `OLLAMA_MAX_QUEUE`, 512 by default, and answers further ones
 *   with 503: https://docs.ollama.com/faq
 */
import * as Latency from "../budget/forecast/latency.ts"
import type { ServerSize } from "./batch.ts"
import type { Options, ServerKind } from "./models.ts"
import * as Seeded from "./seeded.ts"

interface ServerQueue {
  readonly concurrency: number
  readonly queue: number
  readonly busyStatus: 429 | 503
}

const queues: Readonly<Record<ServerKind, ServerQueue>> = {
  vllm: { concurrency: 256, queue: Infinity, busyStatus: 503 },
  "llama.cpp": { concurrency: 4, queue: Infinity, busyStatus: 503 },
  ollama: { concurrency: 1, queue: 512, busyStatus: 503 }
}

/** The kind of the server; undefined without one. */
export const kindOf = ({ server }: Options): ServerKind | undefined =>
  typeof server === "object" ? server.kind : server

/** The options with what the server sets for those that are left out. */
export const complete = (options: Options): Options => {
  const kind = kindOf(options)
  if (kind === undefined) return options
  const { busyStatus, concurrency, queue } = queues[kind]
  return {
    ...options,
    concurrency: options.concurrency ?? concurrency,
    queue: options.queue ?? queue,
    busyStatus: options.busyStatus ?? busyStatus
  }
}

/** The purpose of the random numbers for noise, beside those of the engine. */
const lane = 4

/** The size of the server of complete options; undefined without one. */
export const sizeOf = (
  { concurrency = Infinity, latency = {}, server }: Options,
  seed: number
): ServerSize | undefined => {
  if (server === undefined) return undefined
  const {
    memoryTokens = Infinity,
    perSequenceMillis = 0.5,
    prefillTokens = 2_048
  } = typeof server === "string" ? {} : server
  const noise = latency.noise ?? 0
  return {
    concurrency,
    memoryTokens,
    perSequenceMillis,
    prefillTokens,
    perInputTokenMillis: latency.perInputTokenMillis ?? Latency.ofServer.perInputTokenMillis,
    perOutputTokenMillis: latency.perOutputTokenMillis ?? Latency.ofServer.perOutputTokenMillis,
    factor: (step) => Seeded.lognormal(1, noise, Seeded.unit(seed, lane, step))
  }
}
