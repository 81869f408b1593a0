/**
 * Whose a request is, as its client says: the job, the agent, and the agent that started that one. The headers and the versions that
 * were seen to send them are in `docs/clients.md`, "What clients send".
 *
 * Names come from outside. They are short (`nameOf`), and count within the credential of their caller only, so a false one harms
 * nobody else.
 */
import { nameOf } from "./json.ts"
import type { HeaderReader, Protocol } from "./models.ts"

/** The names that a request gives to its agent and its job, for us and not for the provider. */
export const agentHeader = "x-floodgate-agent"
export const jobHeader = "x-floodgate-job"

/** The size of its job that a request states, in tokens, for us and not for the provider. */
export const jobSizeHeader = "x-floodgate-job-size"

/** The stated size of its job; undefined if there is none that can be read. */
export const jobSizeOf = (header: HeaderReader): number | undefined => {
  const text = header(jobSizeHeader)
  return text != null && /^\d{1,12}$/.test(text) ? Number(text) : undefined
}

/** A session, and an agent of it. */
export interface Lineage {
  readonly session: string
  /** Undefined for the first agent of the session. */
  readonly subAgent: string | undefined
  /** The agent that started the sub-agent; undefined if that was the first one of the session. */
  readonly parent: string | undefined
}

/** The name of an agent: a sub-agent is named after its session. */
const within = (session: string, subAgent: string | undefined): string =>
  subAgent === undefined ? session : `${session}/${subAgent}`

/**
 * Claude Code and the Agent SDK name the session in every request, the agent in those of sub-agents, and its parent in those of nested
 * ones: https://code.claude.com/docs/en/llm-gateway-protocol, "Request headers". The session is also in the body, whose name of it is
 * `named`.
 */
const ofClaudeCode = (header: HeaderReader, named: string | undefined): Lineage | undefined => {
  const subAgent = nameOf(header("x-claude-code-agent-id"))
  const session = nameOf(header("x-claude-code-session-id")) ?? (subAgent === undefined ? undefined : named)
  if (session === undefined) return undefined
  return { session, subAgent, parent: nameOf(header("x-claude-code-parent-agent-id")) }
}

/** opencode has a session for each agent, and names the session that started it. */
const ofOpencode = (header: HeaderReader): Lineage | undefined => {
  const own = nameOf(header("x-session-id"))
  if (own === undefined) return undefined
  const session = nameOf(header("x-parent-session-id"))
  return { session: session ?? own, subAgent: session === undefined ? undefined : own, parent: undefined }
}

/**
 * Codex names the session and the thread, which is an agent; the first thread has the name of the session. Versions before 0.90 wrote
 * the names with underscores, and called a thread a conversation. pi sends the session only.
 */
const ofCodex = (header: HeaderReader): Lineage | undefined => {
  const thread = nameOf(header("thread-id") ?? header("conversation_id"))
  const session = nameOf(header("session-id") ?? header("session_id")) ?? thread
  if (session === undefined) return undefined
  const parent = nameOf(header("x-codex-parent-thread-id"))
  return {
    session,
    subAgent: thread === session ? undefined : thread,
    parent: parent === session ? undefined : parent
  }
}

/** The lineage that a client sends by itself; undefined if it sends none. `named` is the session that the body names. */
export const lineageOf = (header: HeaderReader, named: string | undefined): Lineage | undefined =>
  ofClaudeCode(header, named) ?? ofOpencode(header) ?? ofCodex(header)

/**
 * The agent of a request: named by our own header, which `ANTHROPIC_CUSTOM_HEADERS="x-floodgate-agent: a7"` makes Claude Code send; else
 * by Claude Code's headers; else by the body; else by the headers of others, which an application may send for reasons of its own.
 */
export const agentOf = (header: HeaderReader, ...fromBody: ReadonlyArray<unknown>): string | undefined => {
  const own = nameOf(header(agentHeader))
  if (own !== undefined) return own
  const named = fromBody.map(nameOf).find((name) => name !== undefined)
  const claudeCode = ofClaudeCode(header, named)
  if (claudeCode !== undefined) return within(claudeCode.session, claudeCode.subAgent)
  if (named !== undefined) return named
  const other = lineageOf(header, undefined)
  return other && within(other.session, other.subAgent)
}

/** The agent of a request whose body names none. */
export const agentInHeaders: Protocol["agentOf"] = (_, header) => agentOf(header)

/** The names of a request. */
export interface RequestNames {
  /** Undefined if nothing names it: then each agent is a job of its own. */
  readonly job: string | undefined
  readonly agent: string | undefined
  /** The session of a sub-agent; otherwise the agent itself. */
  readonly session: string | undefined
}

/** The names of a request, whose agent is found by its protocol. */
export const namesOf = ({ agentOf }: Pick<Protocol, "agentOf">, body: unknown, header: HeaderReader): RequestNames => {
  const agent = agentOf(body, header)
  const subAgent = nameOf(header("x-claude-code-agent-id"))
  const named = subAgent !== undefined && agent?.endsWith(`/${subAgent}`) ? agent.slice(0, -subAgent.length - 1) : agent
  const lineage = lineageOf(header, named)
  // Whoever names its agent has no session beside it: the rules for that name apply, whatever sub-agent it claims to be.
  const isNamed = nameOf(header(agentHeader)) !== undefined
  const isSubAgent = !isNamed && lineage !== undefined && agent === within(lineage.session, lineage.subAgent)
  return {
    job: nameOf(header(jobHeader)) ?? lineage?.session,
    agent,
    session: isSubAgent ? lineage.session : agent
  }
}

/** The agent that started the agent of a request, by its name; undefined if nothing started it, as far as its client says. */
export const parentOf = (
  header: HeaderReader,
  agent: string | undefined,
  session: string | undefined
): string | undefined => {
  if (session === undefined || agent === session) return undefined
  return within(session, lineageOf(header, session)?.parent)
}
