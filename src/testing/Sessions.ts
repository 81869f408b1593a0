/**
 * The workload of coding agents: conversations that grow, pauses for tools, and sub-agents.
 *
 * **When to use**
 *
 * Use it to test a client, a queue or a gateway with the work of agents instead of independent calls. Almost all of an agent's input
 * is read from a cache, and it waits for its tools between two calls, so what suits independent calls may be wrong for it.
 *
 * **Details**
 *
 * A session is a table of numbers ({@link parse}): it has no text, and may be recorded from traffic or written by hand. {@link script}
 * makes requests of it, and {@link run} makes the calls, with pauses and sub-agents. `ProviderSim` caches them with its option `cache`.
 *
 * @stability unstable
 * @since 0.5.0
 */

export type { Session, SessionAgent } from "./sessions/models.ts"
export { providerOptions, run } from "./sessions/play.ts"
export { script, type AgentScript, type ScriptedCall } from "./sessions/script.ts"
export { parse } from "./sessions/table.ts"
