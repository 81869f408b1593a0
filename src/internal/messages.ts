/** Reads Messages API requests and responses: what a call asks for, and what it used. Pure. */
import type { Message, MessageCreateParams } from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Accounting from "../Accounting.ts"
import { requestBytes } from "./requestSize.ts"
import * as StreamUsage from "./streamUsage.ts"

export type Params = MessageCreateParams

/** The counts that a response reports; some providers leave some out. */
export type UsageReport = Pick<Message["usage"], "input_tokens" | "output_tokens"> & Partial<Message["usage"]>

/** What is known of a request before it is sent. */
export const describe = (
  params: Params,
  known: { readonly kind?: string | undefined; readonly inputTokens?: number | undefined } = {}
) => ({
  model: params.model,
  kind: known.kind,
  bytes: requestBytes(params),
  inputTokens: known.inputTokens,
  maxTokens: params.max_tokens,
  thinking: (params.thinking?.type ?? "disabled") !== "disabled"
})

/** What a whole response says it used. */
export const messageActual = (usage: UsageReport): Accounting.Actual => ({
  inputTokens: usage.input_tokens,
  cacheCreationTokens: usage.cache_creation_input_tokens ?? 0,
  cacheReadTokens: usage.cache_read_input_tokens ?? 0,
  outputTokens: usage.output_tokens
})

/**
 * What a stream has shown so far that it used, if anything. Its prompt is 0 until it is named. Of a whole stream nobody
 * estimates what the provider did not count.
 */
export const observedActual = (observed: StreamUsage.Observed): Accounting.Actual | undefined =>
  (observed.input ?? observed.output) === undefined && (observed.complete || !observed.started)
    ? undefined
    : {
        inputTokens: observed.input ?? 0,
        cacheCreationTokens: observed.cacheWrite ?? 0,
        cacheReadTokens: observed.cacheRead ?? 0,
        outputTokens: StreamUsage.usage(observed).outputTokens ?? 0
      }
