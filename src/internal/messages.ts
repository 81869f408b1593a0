/** Reads Messages API requests and responses: what a call asks for, and what it used. Pure. */
import type { Message, MessageCreateParams } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Duration from "effect/Duration"
import type * as Accounting from "../Accounting.ts"
import { requestSize } from "./requestSize.ts"
import * as StreamUsage from "./streamUsage.ts"

export type Params = MessageCreateParams

/** How long a whole answer may let us wait, as in the SDK: longer ones should be streamed. */
export const longestWait = Duration.minutes(10)

/** The counts that a response reports; some providers leave some out. */
export type UsageReport = Pick<Message["usage"], "input_tokens" | "output_tokens"> & Partial<Message["usage"]>

/** What is known of a request before it is sent. */
export const describe = (
  params: Params,
  known: { readonly kind?: string | undefined; readonly inputTokens?: number | undefined } = {}
) => ({
  model: params.model,
  kind: known.kind,
  ...requestSize(params),
  inputTokens: known.inputTokens,
  maxTokens: params.max_tokens,
  thinking: (params.thinking?.type ?? "disabled") !== "disabled"
})

/** What a whole response says it used, if it says so. Its prompt is 0 where it is not named. */
export const messageActual = (usage: UsageReport): Accounting.Actual | undefined =>
  StreamUsage.count(usage.output_tokens) === undefined
    ? undefined
    : observedActual(StreamUsage.counted(StreamUsage.empty, usage))

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
