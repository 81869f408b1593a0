/** The gauges of their batch and queue that vLLM and llama.cpp show at `GET /metrics`, in the text format of Prometheus. Pure. */
import type { Stats } from "../models.ts"

const gauge = (name: string, help: string, value: number): string =>
  `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${name} ${value}\n`

/**
 * The names of both, as documented: https://docs.vllm.ai/en/stable/usage/metrics/ and
 * https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.
 */
export const ofServer = ({ inFlight, queued }: Stats): string =>
  gauge("vllm:num_requests_running", "Number of requests in model execution batches.", inFlight) +
  gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", queued) +
  gauge("llamacpp:requests_processing", "Number of requests processing.", inFlight) +
  gauge("llamacpp:requests_deferred", "Number of requests deferred.", queued)
