/** The lineage of a call: its session, its agent within it, and the agent that started that one. */
import { createHmac, randomBytes } from "node:crypto"
import type { CallRequest } from "floodgate/fetch"
import { Credentials, Json } from "floodgate/internal"
import { keyNameHeader } from "./credentials.ts"

/** The names that a client gives; the first agent of a session has no parent. */
interface Lineage {
  readonly session: string
  readonly agent: string
  readonly parent: string | undefined
}

type PlannedRequest = Omit<CallRequest, "body">
type NamedRequest = Pick<PlannedRequest, "agent" | "header" | "session">

/**
 * Claude Code and the Agent SDK name the session in every request, the agent in those of sub-agents, and its parent in those of nested
 * ones. Seen in 2.1.332; documented in https://code.claude.com/docs/en/llm-gateway-protocol, "Request headers".
 */
const ofClaudeCode = ({ agent, header, session = agent }: NamedRequest): Lineage | undefined => {
  const subAgent = Json.nameOf(header("x-claude-code-agent-id"))
  const own = Json.nameOf(header("x-claude-code-session-id")) ?? (subAgent === undefined ? undefined : session)
  if (own === undefined) return undefined
  if (subAgent === undefined) return { session: own, agent: own, parent: undefined }
  return { session: own, agent: subAgent, parent: Json.nameOf(header("x-claude-code-parent-agent-id")) ?? own }
}

/**
 * Codex names the session and the thread, which is an agent; the first thread has the name of the session. Seen in 0.171. Versions
 * before 0.90 wrote the names with underscores, and called a thread a conversation.
 */
const ofCodex = ({ header }: NamedRequest): Lineage | undefined => {
  const thread = Json.nameOf(header("thread-id") ?? header("conversation_id"))
  if (thread === undefined) return undefined
  const session = Json.nameOf(header("session-id") ?? header("session_id")) ?? thread
  const parent = Json.nameOf(header("x-codex-parent-thread-id")) ?? (thread === session ? undefined : session)
  return { session, agent: thread, parent }
}

/** Any other client has one agent in each session. `fallback` names a caller that gives no name. */
const lineageOf = (request: NamedRequest, fallback: string): Lineage => {
  const known = ofClaudeCode(request) ?? ofCodex(request)
  if (known !== undefined) return known
  const name = request.agent ?? fallback
  return { session: name, agent: name, parent: undefined }
}

/** The keyed hashes of a lineage: 64 bits each, in hexadecimal digits. */
export interface HashedLineage {
  readonly sessionId: string
  readonly agentId: string
  readonly parentId: string | undefined
}

const hashLength = 16

/**
 * Makes the function that hashes the names of calls (HMAC-SHA-256). Its key is random and never leaves the process, so nobody can find
 * a name by hashing guesses, and a name has another hash after a restart. The credential of a caller is part of what is hashed, so that
 * callers who choose the same name stay apart.
 */
export const makeLineageHasher = (): ((request: PlannedRequest, fallback: string) => HashedLineage) => {
  const key = randomBytes(32)
  const hashOf = (parts: ReadonlyArray<string>): string =>
    createHmac("sha256", key).update(JSON.stringify(parts)).digest("hex").slice(0, hashLength)
  return (request, fallback) => {
    const { agent, parent, session } = lineageOf(request, fallback)
    const caller = request.header(keyNameHeader) ?? Credentials.credentialsOf(request)[0] ?? ""
    const idOf = (name: string) => hashOf([caller, session, name])
    return {
      sessionId: hashOf([caller, session]),
      agentId: idOf(agent),
      parentId: parent === undefined ? undefined : idOf(parent)
    }
  }
}
