/** Records of answered calls, for traces. */
import * as Result from "effect/Result"
import { type Engine, harmless, Lru, promptTokens } from "floodgate/internal"
import { type HashedLineage, makeLineageHasher } from "./lineage.ts"

/**
 * An answered call, without its content.
 *
 * **Details**
 *
 * The calls of a session, in the order of `at`, are its conversations: `agentId` tells its agents apart, and `parentId` says which
 * agent started a sub-agent. The three are keyed hashes (HMAC-SHA-256, cut to 64 bits) of the names that clients send: the headers of
 * Claude Code, of the Agent SDK and of Codex, `x-floodgate-agent`, or `metadata.user_id`, `safety_identifier` or `user` of the body.
 * The key is random for each gateway and never written, so hashes of two runs of a gateway do not match.
 */
export type Recorded = {
  /** When the request arrived, in milliseconds since the epoch. */
  readonly at: number
  readonly model: string
  /** The name of the agent as the caller gave it. Do not write it where others can read it. */
  readonly agent: string
  /** Tokens of the whole prompt, cached or not. */
  readonly inputTokens: number
  /**
   * The part of the prompt that the provider read from its cache.
   *
   * @since 0.5.0
   */
  readonly cachedTokens: number
  /**
   * The part of the prompt that the provider wrote to its cache.
   *
   * @since 0.5.0
   */
  readonly cacheWrittenTokens: number
  readonly outputTokens: number
  /** The time from the arrival of the request to its last attempt. */
  readonly waitedMillis: number
  /**
   * The time from the start of the last attempt to the end of the answer.
   *
   * @since 0.5.0
   */
  readonly answeredMillis: number
  /**
   * The time from the end of the agent's previous answer to the arrival of this request; undefined for its first call.
   *
   * @since 0.5.0
   */
  readonly pauseMillis: number | undefined
  /** @since 0.5.0 */
  readonly sessionId: string
  /** @since 0.5.0 */
  readonly agentId: string
  /**
   * Undefined for the first agent of a session.
   *
   * @since 0.5.0
   */
  readonly parentId: string | undefined
}

/** An open call: when it arrived, when its last attempt was sent, and whose it is. */
interface OpenCall {
  readonly at: number
  sentAt: number
  readonly agent: string
  readonly ids: HashedLineage
  /** When the previous answer of its agent ended. */
  readonly previous: number | undefined
}

/** Records calls: when they came and were sent, and what they used. */
export interface CallRecorder {
  readonly came: (planned: Engine.HttpCall, at: number) => OpenCall
  readonly used: (planned: Engine.HttpCall) => Engine.OnUsage
}

/** The agent that a call counts for. */
export const agentOf = ({ request, terms }: Engine.HttpCall): string =>
  (Result.isSuccess(terms) ? terms.success.callOptions.agent : request.agent) ?? "unknown"

/** More agents than are active at once. One that is evicted has no pause before its next call. */
const maxAgents = 10_000

/** The recorders' memory of calls, which outlives a reload. */
export interface Sessions {
  readonly hashed: ReturnType<typeof makeLineageHasher>
  /** When the last answer of an agent ended. */
  readonly answered: Map<string, number>
}

export const makeSessions = (): Sessions => ({ hashed: makeLineageHasher(), answered: new Map() })

export const makeRecorder = (
  callback: (call: Recorded) => void,
  { answered, hashed }: Sessions,
  now: () => number
): CallRecorder => {
  const record = harmless(callback)
  const open = new WeakMap<Engine.HttpCall, OpenCall>()
  return {
    came: (planned, at) => {
      const agent = agentOf(planned)
      const ids = hashed(planned.request, agent)
      const call = { at, sentAt: at, agent, ids, previous: answered.get(ids.agentId) }
      open.set(planned, call)
      return call
    },
    used: (planned) => {
      const { model } = planned.request
      const call = open.get(planned)!
      return (actual) => {
        if (actual === undefined) return
        const endedAt = now()
        const { agent, at, ids, previous, sentAt } = call
        Lru.put(answered, ids.agentId, endedAt, maxAgents)
        const { cacheCreationTokens = 0, cacheReadTokens = 0, outputTokens } = actual
        record({
          at,
          model,
          agent,
          ...ids,
          inputTokens: promptTokens(actual),
          cachedTokens: cacheReadTokens,
          cacheWrittenTokens: cacheCreationTokens,
          outputTokens,
          waitedMillis: sentAt - at,
          answeredMillis: endedAt - sentAt,
          pauseMillis: previous === undefined ? undefined : Math.max(0, at - previous)
        })
      }
    }
  }
}
