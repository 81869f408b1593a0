/** Records of answered calls, for traces. */
import * as Result from "effect/Result"
import { type Engine, harmless, Lru, Amounts } from "floodgate/internal"
import type { Options } from "./options.ts"
import { type HashedLineage, makeLineageHasher } from "./lineage.ts"

/** An answered call, without its content. */
export type Recorded = Parameters<NonNullable<Options["record"]>>[0]

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
          inputTokens: Amounts.promptTokens(actual),
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
