/** The user's own sessions as a scenario. */
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import { Sessions } from "floodgate/testing"
import { floor } from "../floor.ts"
import * as Scenario from "../scenario.ts"
import { callsOf } from "./scenarios.ts"

/**
 * Sessions, and the provider that they meet. Plain data.
 *
 * @stability experimental
 * @category options
 * @since 0.5.0
 */
export interface SessionsOptions {
  readonly sessions: ReadonlyArray<Sessions.Session>
  readonly limits: Limits.Limits
  /** How the provider caches: up to breakpoints, as Anthropic does, or by itself, as OpenAI does. @default "breakpoints" */
  readonly cache?: Scenario.ProviderOptions["cache"]
  /** How long the provider takes. @default two seconds, and 15 ms per token of output */
  readonly latency?: { readonly baseMillis: number; readonly perOutputTokenMillis: number } | undefined
  readonly seed?: number | undefined
}

/** Two seconds and 15 ms per token of output, as in the scenarios of sessions. */
const usualLatency = { baseMillis: 2_000, perOutputTokenMillis: 15 }

/** A strategy that needs more than ten times the floor has failed, and no race is longer than a simulation may be. */
const patience = 10
const maxSeconds = 29 * 86_400

/**
 * Makes a scenario of sessions: at their full size, with their pauses in full, and begun when they were begun.
 *
 * @stability experimental
 * @category sessions
 * @since 0.5.0
 */
export const fromSessions = ({
  cache = "breakpoints",
  latency = usualLatency,
  limits,
  seed = 1,
  sessions
}: SessionsOptions): Scenario.Scenario => {
  const isAutomatic = cache === "automatic"
  const agents = sessions.map((session): Scenario.ScenarioAgent => {
    const [first, ...later] = session.lead.turns
    const turns = [{ ...first!, pauseMillis: 0 }, ...later]
    const script = Sessions.script({ ...session, lead: { ...session.lead, turns } }, { model: Scenario.model })
    return { name: script.agent, startsAtMillis: Math.round(first!.pauseMillis), calls: [...callsOf(script)], script }
  })
  const calls = agents.reduce((sum, { calls }) => sum + calls.length, 0)
  const provider: Scenario.ProviderOptions = {
    cache,
    // OpenAI documents that rejected requests count.
    rejections: isAutomatic ? "charged" : "free",
    headers: isAutomatic ? "openai" : "rounded",
    latency: { ...latency, perInputTokenMillis: 0, rejectionMillis: 200, countTokensMillis: 300 }
  }
  const scenario: Scenario.Scenario = {
    name: "own-sessions",
    summary: `${Words.counted(sessions.length, "session")} with ${Words.counted(calls, "call")}, as recorded`,
    settings: { sessions: sessions.length, calls, cache, ...latency, seed },
    agents,
    limits,
    provider,
    isConcurrencyDeclared: true,
    faulty: false,
    maxSeconds,
    seed
  }
  return { ...scenario, maxSeconds: Math.min(maxSeconds, 3_600 + Math.ceil(patience * floor(scenario).seconds)) }
}
