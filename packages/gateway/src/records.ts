/** Records of answered calls, for traces. */
import * as Result from "effect/Result"
import { type Engine, harmless, promptTokens } from "floodgate/internal"

/**
 * An answered call, without its content.
 *
 * @category models
 * @since 0.2.0
 */
export interface Recorded {
  /** When the request arrived, in milliseconds since the epoch. */
  readonly at: number
  readonly model: string
  readonly agent: string
  /** Tokens of the whole prompt, cached or not. */
  readonly inputTokens: number
  readonly outputTokens: number
  /** The time from the arrival of the request to its last attempt. */
  readonly waitedMillis: number
}

interface CallTimes {
  readonly at: number
  sentAt: number
}

/** Records calls: when they came and were sent, and what they used. */
export interface CallRecorder {
  readonly came: (planned: Engine.HttpCall, at: number) => CallTimes
  readonly used: (planned: Engine.HttpCall) => Engine.OnUsage
}

/** The agent that a call counts for. */
export const agentOf = ({ request, terms }: Engine.HttpCall): string =>
  (Result.isSuccess(terms) ? terms.success.callOptions.agent : request.agent) ?? "unknown"

export const makeRecorder = (callback: (call: Recorded) => void): CallRecorder => {
  const record = harmless(callback)
  const times = new WeakMap<Engine.HttpCall, CallTimes>()
  return {
    came: (planned, at) => {
      const own = { at, sentAt: at }
      times.set(planned, own)
      return own
    },
    used: (planned) => {
      const { model } = planned.request
      const agent = agentOf(planned)
      const { at, sentAt } = times.get(planned)!
      return (actual) => {
        if (actual === undefined) return
        const { outputTokens } = actual
        record({ at, model, agent, inputTokens: promptTokens(actual), outputTokens, waitedMillis: sentAt - at })
      }
    }
  }
}
