/**
 * `results.jsonl`: one line per finished call, added as calls finish, so that a stopped run can resume, and `attempts.jsonl`, which says
 * what a stopped run was waiting for. Pure.
 *
 * **Details**
 *
 * Lines are only ever added. A line that cannot be read, because of a crash or an edit, is skipped and stays; its call is made again
 * and the result is added at the end.
 */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import type { Params } from "floodgate/LlmProvider"
import type { Stepwise } from "floodgate/internal"
import { safeJson } from "@floodgate/gateway/internal/text"

const TokenCounts = Schema.Struct({ inputTokens: Schema.Finite, outputTokens: Schema.Finite })

const Result = Schema.Struct({
  agent: Schema.String,
  step: Schema.String,
  /** Identifies the call by everything that its answer depends on. */
  key: Schema.String,
  model: Schema.String,
  usage: TokenCounts,
  /** Why the model stopped. `max_tokens` means that the answer is cut off. */
  stop: Schema.NullOr(Schema.String),
  text: Schema.String,
  /** When the agent made the call, before it waited, and when it was answered, in milliseconds since the epoch. */
  when: Schema.optionalKey(Schema.Struct({ asked: Schema.Finite, answered: Schema.Finite })),
  /** The attempt that it answers, if attempts are written. */
  attempt: Schema.optionalKey(Schema.String)
})

/** A finished call. */
export type Result = typeof Result.Type

/**
 * An attempt that was sent, and the most that it can cost. A later line of the same attempt, or a result, replaces it. So one that
 * is neither answered nor rejected is what a stopped run was waiting for, and it may have cost all of that.
 */
const SentAttempt = Schema.Struct({ attempt: Schema.String, at: Schema.Finite, dollars: Schema.Finite })

/** An attempt that was sent. */
export type SentAttempt = typeof SentAttempt.Type

/** The usage of a call. Tokens that were read from a cache or written to it count as input. */
export const tokensOf = (usage: Message["usage"]): typeof TokenCounts.Type => ({
  inputTokens: usage.input_tokens + (usage.cache_creation_input_tokens ?? 0) + (usage.cache_read_input_tokens ?? 0),
  outputTokens: usage.output_tokens
})

/** Identifies a call by its agent, its step and its whole request. */
export const keyOf = (agent: string, step: string, params: Params): string =>
  createHash("sha256")
    .update(JSON.stringify([agent, step, params]))
    .digest("hex")
    .slice(0, 32)

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Union([Result, SentAttempt])))

/** The content of a file. */
export interface Loaded {
  readonly results: ReadonlyMap<string, Result>
  /** The attempts without an answer. */
  readonly attempts: ReadonlyMap<string, SentAttempt>
  /** The number of lines that cannot be read. */
  readonly unreadable: number
  /** Whether the last line is incomplete, so that the next result must start a new one. */
  readonly torn: boolean
}

/** The number of lines in one step. */
const atOnce = 200

/** Reads the attempts and then the results in steps. The later of two results of one call counts. */
export function* parseSteps(text: string): Stepwise.Stepwise<Loaded> {
  const results = new Map<string, Result>()
  const attempts = new Map<string, SentAttempt>()
  let unreadable = 0
  let lines = 0
  for (let from = 0; from < text.length;) {
    const newline = text.indexOf("\n", from)
    const end = newline === -1 ? text.length : newline
    const line = text.slice(from, end)
    from = end + 1
    if (++lines % atOnce === 0) yield
    if (line.trim() === "") continue
    const read = decode(line)
    if (Option.isNone(read)) unreadable++
    else if ("key" in read.value) {
      results.set(read.value.key, read.value)
      if (read.value.attempt !== undefined) attempts.delete(read.value.attempt)
    } else attempts.set(read.value.attempt, read.value)
  }
  return { results, attempts, unreadable, torn: text !== "" && !text.endsWith("\n") }
}

/** The line of a result or an attempt. */
export const lineOf = (result: Result | SentAttempt): string => `${safeJson(result)}\n`
